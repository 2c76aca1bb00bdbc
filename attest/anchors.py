"""
Trust anchors: the roots that a chain may end at, as names and public keys.

NVIDIA's are pinned here by key, not by certificate: NVIDIA publishes two certificates of the same device root, and a
device hands over either. Facts from NVIDIA's published roots; the fingerprints are over the SubjectPublicKeyInfo.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, fields
from typing import Self

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from attest.nvidia.nras_issuer import NRAS, NrasIssuer
from attest.snp.anchors import AMD, Ark
from attest.tdx.roots import INTEL, Root

ANCHORS_BYTES_MAX = 64 << 10

# What pyca raises for certificates that load but hold something malformed deeper down.
UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
    x509.InvalidVersion,
)

_SUBJECT_DEVICE = "O=NVIDIA,CN=NVIDIA Device Identity CA"
_SUBJECT_RIM = "CN=NVIDIA CoRIM signing Root CA,O=NVIDIA,C=US"


@dataclass(frozen=True, slots=True)
class Anchor:
    """One root: the subject that its children name as issuer (RFC 4514), and its P-384 key (SubjectPublicKeyInfo)."""

    subject: str
    spki: bytes
    spki_sha256: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "spki_sha256", hashlib.sha256(self.spki).hexdigest())

    @property
    def emulated(self) -> bool:
        """Everything is, but what is pinned in this file."""
        return self.spki_sha256 not in VENDOR_FINGERPRINTS

    @classmethod
    def of(cls, certificate: x509.Certificate) -> Self:
        return cls(certificate.subject.rfc4514_string(), spki_of(certificate.public_key()))


@dataclass(frozen=True, slots=True)
class Anchors:
    """All roots to trust, by what they may vouch for."""

    nvidia_device: tuple[Anchor, ...] = ()
    nvidia_rim: tuple[Anchor, ...] = ()
    amd_ark: tuple[Ark, ...] = ()
    intel_sgx: tuple[Root, ...] = ()
    nras: tuple[NrasIssuer, ...] = ()

    def trusting(self, emulated: Anchors) -> Anchors:
        """These, and a throw-away root beside them: for trials. Whatever rests on it is marked `emulated`."""
        both = {each.name: getattr(self, each.name) + getattr(emulated, each.name) for each in fields(self)}
        return Anchors(**both)


def spki_of(key: object) -> bytes:
    """SubjectPublicKeyInfo of a P-384 key, DER. ValueError for any other key: no root of ours has one."""
    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP384R1):
        raise ValueError("the key of a root must be P-384")
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def load_emulated(pem: bytes) -> Anchors:
    """
    Roots of an emulator, PEM of self-issued certificates: of GPUs two (P-384: device root first, RIM root second), of
    SEV-SNP one a product (RSA-4096, named ARK-…), of TDX one (P-256). Any of the three kinds may be absent.

    ValueError if it is anything else, or holds a vendor's root: those are built in and need no file.
    """
    if len(pem) > ANCHORS_BYTES_MAX:
        raise ValueError(f"a file of roots has at most {ANCHORS_BYTES_MAX} bytes")
    try:
        certificates = x509.load_pem_x509_certificates(pem)
        if any(certificate.subject != certificate.issuer for certificate in certificates):
            raise ValueError("a root must be self-issued")
        gpu = tuple(Anchor.of(each) for each in certificates if _curve(each) == "secp384r1")
        tdx = tuple(Root.of(each) for each in certificates if _curve(each) == "secp256r1")
        snp = tuple(Ark.of(each) for each in certificates if not _curve(each))
    except UNREADABLE as e:
        raise ValueError(str(e)) from e
    if len(gpu) not in (0, 2) or len(tdx) > 1 or len({ark.product for ark in snp}) != len(snp):
        raise ValueError(f"want two roots of GPUs (device, RIM), found {len(gpu)}; and at most one of each CPU")
    if len(gpu) + len(tdx) + len(snp) != len(certificates):
        raise ValueError("a root with another kind of key")
    if not all([*(r.emulated for r in gpu), *(r.emulated for r in tdx), *(r.emulated for r in snp)]):
        raise ValueError("vendors' roots are built in; the file must hold an emulator's")
    return Anchors(gpu[:1], gpu[1:], snp, tdx)


def _curve(certificate: x509.Certificate) -> str:
    key = certificate.public_key()
    return key.curve.name if isinstance(key, EllipticCurvePublicKey) else ""


def _pinned(subject: str, point: str, spki_sha256: str) -> Anchor:
    key = EllipticCurvePublicKey.from_encoded_point(SECP384R1(), bytes.fromhex(point))
    anchor = Anchor(subject, spki_of(key))
    if anchor.spki_sha256 != spki_sha256:
        raise ValueError(f"the pinned key of {subject} does not have its pinned fingerprint")
    return anchor


NVIDIA_DEVICE_SPKI_SHA256 = "a90c4eb5acfd3e3d03a25db6a26b84f720ad0503196c627c21ddd48dd85b06a4"
NVIDIA_RIM_SPKI_SHA256 = "dec1dc316477aa851eebdf51327ae9f864bc8d89254657ed1e7eb9168af1e1a3"
VENDOR_FINGERPRINTS = frozenset({NVIDIA_DEVICE_SPKI_SHA256, NVIDIA_RIM_SPKI_SHA256})

NVIDIA_DEVICE = _pinned(
    _SUBJECT_DEVICE,
    "040e4c14a33bf8a5626658db4129607e4cbf4519c4412716f4d0d917c4978005bdeabeaefd57bc66082d718a4f8b6052e1516ee8a7c422b8"
    "4de857071bb58fd395bea0cfa1c63ee7c80d6bd63901d91cbbd187d3857dc16b5cceaf238ff8c27dbd",
    NVIDIA_DEVICE_SPKI_SHA256,
)
NVIDIA_RIM = _pinned(
    _SUBJECT_RIM,
    "04b840b28bdbcd33e230da57d4cf2065747030682d4717b4c2829d7641c1325139b74da831c2be3c779e7e2b65489566080e4ecd94021075"
    "c57f15fedeb862c8f906ae8fddc7b12238597dbdf0fa56e78453833f6d0be43af3871a47f057584799",
    NVIDIA_RIM_SPKI_SHA256,
)
VENDORS = Anchors((NVIDIA_DEVICE,), (NVIDIA_RIM,), AMD.amd_ark, (INTEL,), (NRAS,))
