"""A good world of emulated devices: one PKI, its manifests and anchors. Tests take it and spoil one thing."""

import base64
import hashlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from attest.anchors import Anchors, load_emulated
from attest.appraise import appraise
from attest.binding import UNBOUND
from attest.collateral import Document
from attest.evidence import Evidence, Nonce
from attest.nvidia.verifier import NvidiaVerifier
from attest.policy import Policy, shipped
from attest.verify import verify
from nodeprobe.emulator import MODELS, EmulatedGpu, Pki, publish
from nodeprobe.emulator.chain import ChainDraft
from nodeprobe.emulator.device import FWID
from nodeprobe.emulator.pki import pem
from nodeprobe.emulator.rim import vbios_rim

MADE = datetime(2030, 1, 1, tzinfo=UTC)
AT = datetime(2030, 1, 2, tzinfo=UTC)
NONCE = Nonce(hashlib.sha256(b"a challenge").digest())
MODEL = MODELS["h100-pcie"]


@dataclass(frozen=True, repr=False)  # Hypothesis prints it
class World:
    """The PKI, the documents by RIM id, and what a verifier is told to trust."""

    pki: Pki
    anchors: Anchors
    documents: dict

    @classmethod
    def made(cls, folder):
        pki = Pki.create(folder / "pki", now=MADE)
        publish(pki, MODEL)
        documents = {path.stem: Document.of(path.read_bytes()) for path in pki.rims.glob("*.xml")}
        return cls(pki, load_emulated(pki.anchors.read_bytes()), documents)

    def gpu(self, name="gpu-0", **options):
        return EmulatedGpu.create(self.pki, name, MODEL, **options)

    def verifier(self):
        return NvidiaVerifier(self.anchors)

    def fetch(self, need):
        return self.documents.get(need.name)

    def with_vbios_rim(self, data):
        """The same world, in which somebody laid down these bytes as the VBIOS's manifest."""
        return replace(self, documents=self.documents | {MODEL.vbios_rim_id: Document.of(data)})

    def vbios_rim(self, *spoils):
        return vbios_rim(MODEL, self.pki, *spoils)

    def evidence(self, name="gpu-0", nonce=NONCE, *, report=None, chain=None):
        """Of a good device, unless `report` spoils the draft of its report, or `chain` that of its certificates."""
        gpu = self.gpu(name)
        draft = gpu._draft(nonce)
        certificates = ChainDraft.of(self.pki, gpu.brom_key, gpu.leaf_key, FWID)
        if report is not None:
            report(draft)
        if chain is not None:
            chain(certificates)
        return Evidence("nvidia", draft.signed(), pem(certificates.issued()) if chain else gpu.chain_pem)

    def verify(self, *bundle, verifier=None, nonce=NONCE, now=AT):
        return verify(bundle, {"nvidia": verifier or self.verifier()}, self.fetch, nonce=nonce, now=now)

    def judge(self, *bundle, policy="lab", verifier=None, nonce=NONCE, now=AT, binding=UNBOUND):
        rules = policy if isinstance(policy, Policy) else shipped(policy)
        verification = self.verify(*bundle, verifier=verifier, nonce=nonce, now=now)
        return appraise(verification, rules, bundle=bundle, nonce=nonce, now=now, binding=binding)


def codes(result):
    """Of an AttestationResult or a Verification: the reason codes of every no."""
    if hasattr(result, "refusals"):
        return {refusal.reason.code for refusal in result.refusals}
    return {finding.reason.code for finding in result.failed}


def as_pem(chain):
    """PEM of certificates in DER, whatever is in them."""
    return b"".join(
        b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(each) + b"-----END CERTIFICATE-----\n" for each in chain
    )
