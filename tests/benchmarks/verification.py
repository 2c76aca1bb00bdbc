"""
What verification costs, as multiples of the one thing that it cannot do without: a P-384 signature check.

Verdict and floor are timed in turn, one by one, so that whatever else the machine does meets both; the figure is the
median of the rounds' ratios. Reports are made beforehand, each for a nonce of its own. The floor is the signatures that
such a verdict must check, by the same library, with keys and signatures decoded beforehand.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.x509 import Certificate, load_pem_x509_certificates

from attest.anchors import VENDORS, Anchors, load_emulated
from attest.appraise import appraise
from attest.binding import PROFILE, Binding, Strength
from attest.collateral import Document, Need
from attest.evidence import Bundle, Evidence, Nonce
from attest.policy import Policy, shipped
from attest.result import Tier
from attest.verify import Verifiers, installed, verify
from nodeprobe.emulator import MODELS, EmulatedGpu, Pki, publish
from tests.benchmarks.measuring import Work, figure, ratio, skipped
from tests.evidence import VECTORS, hopper_550

MADE = datetime(2030, 1, 1, tzinfo=UTC)
AT = datetime(2030, 1, 2, tzinfo=UTC)
BINDING = Binding(PROFILE, Strength.NONCE)

ROUNDS = 25
KNOWN_A_ROUND, NEW_A_ROUND = 24, 12
KNOWN_TARGET, NEW_TARGET = 1.25, 1.3
THREE_BARE = "x of three bare P-384 verifications by cryptography"


@dataclass(frozen=True)
class World:
    """All that a verdict needs but the evidence."""

    verifiers: Verifiers
    documents: dict[str, Document]
    policy: Policy
    now: datetime

    def fetch(self, need: Need) -> Document | None:
        return self.documents.get(need.name)

    def judge(self, bundle: Bundle, nonce: Nonce) -> None:
        """The whole way from bytes to a verdict, as an orchestrator goes it. It must be a yes, or we time nothing."""
        verification = verify(bundle, self.verifiers, self.fetch, nonce=nonce, now=self.now)
        result = appraise(verification, self.policy, bundle=bundle, nonce=nonce, now=self.now, binding=BINDING)
        if result.tier is not Tier.AFFIRMING:
            raise AssertionError([finding for finding in result.findings if not finding.holds])


@dataclass(frozen=True)
class Asked:
    """One piece of evidence and the nonce that it answers."""

    bundle: Bundle
    nonce: Nonce

    @classmethod
    def of(cls, gpu: EmulatedGpu, number: int) -> Asked:
        nonce = Nonce(hashlib.sha256(f"benchmark {number}".encode()).digest())
        return cls((gpu.evidence(nonce),), nonce)

    def copy(self) -> Asked:
        """Equal bytes in other objects, as they come from a network: nothing can be known of them by their address."""
        pieces = ((each.kind, _copied(each.payload), _copied(each.certificates)) for each in self.bundle)
        return Asked(tuple(Evidence(*piece) for piece in pieces), self.nonce)


def run() -> list[dict[str, Any]]:
    """The figures, as `tests.benchmarks` prints and writes them. Takes some ten seconds."""
    with tempfile.TemporaryDirectory() as folder:
        pki = Pki.create(Path(folder) / "pki", now=MADE)
        return [_known(pki), _known_recorded(), _new(pki)]


def _known(pki: Pki) -> dict[str, Any]:
    """Another report of a device that was verified before, for a new nonce."""
    world, gpu = _world(pki), EmulatedGpu.create(pki, "known", MODELS["h100-pcie"])
    asked = [Asked.of(gpu, number) for number in range(1 + ROUNDS * KNOWN_A_ROUND)]
    name, detail = "re-attestation of a known device", "leaf and RIMs cached"
    return figure(name, _ratios(world, asked, KNOWN_A_ROUND, _report_alone), KNOWN_TARGET, detail)


def _known_recorded() -> dict[str, Any]:
    """The same of a real H100. It was recorded once, so here the very same report comes again, in other objects."""
    name, detail = "re-attestation of a known device, recorded", "real H100, driver 550.90.07; leaf and RIMs cached"
    if not VECTORS.is_dir():
        return skipped(name, KNOWN_TARGET, "the recordings of ../shared/vectors are not here")
    real = hopper_550()
    documents = {rim_id: Document.of(data) for rim_id, data in real.rims.items()}
    world = World(installed(VENDORS), documents, shipped("lab"), real.at)
    asked = [Asked(real.bundle, real.nonce)] * (1 + ROUNDS * KNOWN_A_ROUND)
    return figure(name, _ratios(world, asked, KNOWN_A_ROUND, _report_alone), KNOWN_TARGET, detail)


def _new(pki: Pki) -> dict[str, Any]:
    """The first report of a device: its own two certificates are verified too, those above them are known."""
    world = _world(pki)
    gpus = [EmulatedGpu.create(pki, f"new-{number}", MODELS["h100-pcie"]) for number in range(1 + ROUNDS * NEW_A_ROUND)]
    asked = [Asked.of(gpu, number) for number, gpu in enumerate(gpus)]
    name, detail = "attestation of a new device", "RIMs and upper certificates cached"
    return figure(name, _ratios(world, asked, NEW_A_ROUND, _all_three), NEW_TARGET, detail, unit=THREE_BARE)


def _world(pki: Pki) -> World:
    publish(pki, MODELS["h100-pcie"])
    anchors: Anchors = VENDORS.trusting(load_emulated(pki.anchors.read_bytes()))
    documents = {path.stem: Document.of(path.read_bytes()) for path in pki.rims.glob("*.xml")}
    return World(installed(anchors), documents, shipped("lab"), AT)


# --- the floor --------------------------------------------------------------------------------------------------------
def _report_alone(evidence: Evidence) -> Work:
    """The signature of this very report, by key and signature that were decoded beforehand."""
    return _bare(_certificates(evidence)[0], _der_of(evidence.payload[-96:]), evidence.payload[:-96])


def _all_three(evidence: Evidence) -> Work:
    """The same, and the signatures of the two certificates that are the device's own."""
    leaf, device, provisioner, *_ = _certificates(evidence)
    works = [
        _bare(provisioner, device.signature, device.tbs_certificate_bytes),
        _bare(device, leaf.signature, leaf.tbs_certificate_bytes),
        _report_alone(evidence),
    ]

    def work() -> None:
        for each in works:
            each()

    return work


def _bare(signer: Certificate, signature: bytes, signed: bytes) -> Work:
    key = signer.public_key()
    assert isinstance(key, EllipticCurvePublicKey)
    return lambda: key.verify(signature, signed, ECDSA(SHA384()))


def _der_of(raw: bytes) -> bytes:
    return encode_dss_signature(int.from_bytes(raw[:48], "big"), int.from_bytes(raw[48:], "big"))


def _certificates(evidence: Evidence) -> list[Certificate]:
    return load_pem_x509_certificates(evidence.certificates)


# --- measuring --------------------------------------------------------------------------------------------------------
def _ratios(world: World, asked: Sequence[Asked], a_round: int, floor_of: Callable[[Evidence], Work]) -> list[float]:
    """Of each round, what its verdicts take to what their floors take."""
    first = asked[0].copy()
    world.judge(first.bundle, first.nonce)  # what a fleet shares is known from here on, and so is a known device
    known = floor_of(first.bundle[0]) if floor_of is _report_alone else None
    ratios = []
    for start in range(1, len(asked), a_round):
        fresh = [each.copy() for each in asked[start : start + a_round]]
        floors = [known or floor_of(each.bundle[0]) for each in fresh]
        verdicts = [partial(world.judge, each.bundle, each.nonce) for each in fresh]
        ratios.append(ratio(verdicts, floors))
    return ratios


def _copied(data: bytes) -> bytes:
    return bytes(bytearray(data))
