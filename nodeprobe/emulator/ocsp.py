"""
The revocation answers (OCSP) about the certificates of emulated devices and of their manifests' signers.

Shapes: spec/nvidia.md §8. One answer a certificate, by a responder that its issuer appointed, good for a day. A draft
holds what is about to be answered; a defect changes it, or adds an edit of the finished bytes. Who asks, asks for
answers by name, `<SHA-384 of the issuer's name>:<SHA-384 of its key>:<serial>@<of the root>`, all lower hex.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID

from nodeprobe.emulator.device import EmulatedDevice
from nodeprobe.emulator.pki import DIGITAL_SIGNATURE, Authority, Pki, Profile, end_name
from nodeprobe.emulator.rim import write_whole

VALIDITY = timedelta(days=1)
KIND = "nvidia-ocsp"
MANIFEST, FORMAT = "manifest.json", "workermanager/collateral/v1"
ROOT_HEX = 16
What = Literal["device", "provisioner", "identity", "rim-signer", "rim-l3", "rim-ca"]
NO_CHECK = x509.ObjectIdentifier("1.3.6.1.5.5.7.48.1.5")
RESPONDER_LIVES = timedelta(days=3 * 365)
SIGNS_ANSWERS: tuple[x509.ExtensionType, ...] = (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING, NO_CHECK]),)


@dataclass(frozen=True, slots=True)
class Asked:
    """One certificate that is asked about, who issued it, and the root above."""

    what: What
    certificate: x509.Certificate
    issuer: Authority
    root: Authority

    @property
    def name(self) -> str:
        """What its answer is asked for by."""
        issuer = self.issuer.certificate
        key = issuer.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        spki = self.root.certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        hashed = ":".join(hashlib.sha384(each).hexdigest() for each in (issuer.subject.public_bytes(), key))
        root = hashlib.sha256(spki).hexdigest()[:ROOT_HEX]
        return f"{hashed}:{self.certificate.serial_number:x}@{root}"


@dataclass(slots=True)
class AnswerDraft:
    """An answer that is about to be signed."""

    about: Asked
    pki: Pki
    this_update: datetime
    next_update: datetime
    responder: Authority
    status: ocsp.OCSPCertStatus = ocsp.OCSPCertStatus.GOOD
    reason: x509.ReasonFlags | None = None
    subject: x509.Certificate | None = None  # that the answer names; None: the one asked about
    edits: list[Callable[[bytes], bytes]] = field(default_factory=list)

    def signed(self) -> bytes:
        """The response, DER."""
        revoked = self.status is ocsp.OCSPCertStatus.REVOKED
        builder = (
            ocsp.OCSPResponseBuilder()
            .add_response(
                cert=self.subject or self.about.certificate,
                issuer=self.about.issuer.certificate,
                algorithm=hashes.SHA384(),
                cert_status=self.status,
                this_update=self.this_update,
                next_update=self.next_update,
                revocation_time=self.this_update if revoked else None,
                revocation_reason=self.reason,
            )
            .responder_id(ocsp.OCSPResponderEncoding.HASH, self.responder.certificate)
            .certificates([self.responder.certificate])
        )
        data = builder.sign(self.responder.key, hashes.SHA384()).public_bytes(Encoding.DER)
        for edit in self.edits:
            data = edit(data)
        return data


Spoil = Callable[[AnswerDraft], None]


def asked_about(pki: Pki, device: EmulatedDevice) -> tuple[Asked, ...]:
    """
    The six certificates that are asked about for one device: its own, its provisioner's and identity certificate, and
    signer, L3 and CA of its manifests.
    """
    branch = pki.branches[device.family]
    own = x509.load_pem_x509_certificates(device.good_chain)[1]
    return (
        Asked("device", own, branch.provisioner, pki.device_root),
        Asked("provisioner", branch.provisioner.certificate, branch.identity, pki.device_root),
        Asked("identity", branch.identity.certificate, pki.device_root, pki.device_root),
        Asked("rim-signer", branch.rim_l4.certificate, branch.rim_l3, pki.rim_root),
        Asked("rim-l3", branch.rim_l3.certificate, branch.rim_ca, pki.rim_root),
        Asked("rim-ca", branch.rim_ca.certificate, pki.rim_root, pki.rim_root),
    )


def answers(
    pki: Pki,
    devices: Iterable[EmulatedDevice],
    now: datetime,
    *spoils: Spoil,
    what: What = "device",
) -> dict[str, bytes]:
    """
    Name to answer for all certificates of these devices, as given at `now`: good, but for those about `what`, which
    are spoiled as asked.
    """
    found: dict[str, bytes] = {}
    responders: dict[bytes, Authority] = {}  # one for each issuer
    for asked in (each for device in devices for each in asked_about(pki, device)):
        if asked.name in found:
            continue
        issuer = asked.issuer.certificate.fingerprint(hashes.SHA256())
        if issuer not in responders:
            responders[issuer] = responder_below(asked.issuer, now)
        responder = responders[issuer]
        draft = AnswerDraft(asked, pki, now, now + VALIDITY, responder)
        for spoil in spoils if asked.what == what else ():
            spoil(draft)
        found[asked.name] = draft.signed()
    return found


def responder_profile(now: datetime, critical: tuple[x509.ExtensionType, ...] = SIGNS_ANSWERS) -> Profile:
    """Of a responder in its second year of three."""
    start = now - RESPONDER_LIVES / 2
    no_ca = x509.BasicConstraints(ca=False, path_length=None)
    return Profile(
        end_name("Emulated OCSP Responder"),
        start,
        start + RESPONDER_LIVES,
        DIGITAL_SIGNATURE,
        ca=None,
        extensions=(no_ca, x509.OCSPNoCheck()),
        critical=critical,
    )


def responder_below(issuer: Authority, now: datetime) -> Authority:
    """A responder that this issuer appointed."""
    return issuer.below(responder_profile(now))


def publish_answers(folder: Path, documents: Mapping[str, bytes], now: datetime) -> None:
    """
    Lay answers down in a folder of collateral, and list them in its manifest beside what that lists already: names
    have colons, so that files need names of their own. Safe between processes.
    """
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        path = folder / MANIFEST
        listed: list[dict[str, Any]] = json.loads(path.read_bytes())["documents"] if path.exists() else []
        kept = [each for each in listed if (each["kind"], each["name"]) not in {(KIND, name) for name in documents}]
        for name, data in documents.items():
            write_whole(folder / _file(name), data)
        manifest = {
            "format": FORMAT,
            "written_at": now.isoformat(),
            "documents": [*kept, *(_entry(name, data, now) for name, data in documents.items())],
        }
        write_whole(path, json.dumps(manifest, indent=1).encode() + b"\n")


def _entry(name: str, data: bytes, now: datetime) -> dict[str, Any]:
    return {
        "kind": KIND,
        "name": name,
        "file": _file(name),
        "sha256": hashlib.sha256(data).hexdigest(),
        "fetched_at": now.isoformat(),
        "expires_at": (now + VALIDITY).isoformat(),
    }


def _file(name: str) -> str:
    return f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.ocsp"
