"""
The certificate chain of an NVIDIA device: attestation key, device (boot ROM), provisioner, identity, root.

The class of a device is read here, from certificate names that chain to the pinned root, and nowhere else: the
container's own word for the architecture is not believed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, EllipticCurvePublicKey
from cryptography.x509.oid import NameOID

from attest import reasons
from attest.anchors import Anchor
from attest.errors import MalformedEvidence, UnsupportedEvidence, UntrustedEvidence
from attest.memo import Memo
from attest.x509 import (
    PEM_BEGIN,
    UNREADABLE,
    Holder,
    KnownPaths,
    Loaded,
    Path,
    PathError,
    PathFault,
    der_element,
    load_pem,
    verify_path,
)

CHAIN_BYTES_MAX = 0x1400  # the driver's buffer
CHAIN_LENGTH = 5
OWN = 2  # of these are the device's own
PDI_BYTES = 8
VALUE_BYTES = 48  # SHA-384
POINT_BYTES = 97  # P-384, X9.62 uncompressed: 0x04, x, y

_FWID = x509.ObjectIdentifier("2.23.133.5.4.1")  # TCG DICE CompositeDeviceID
# SubjectPublicKeyInfo of a P-384 key up to its point, DER: id-ecPublicKey, secp384r1, a bit string without unused bits.
_SPKI_HEAD = bytes.fromhex("3076301006072a8648ce3d020106052b81040022036200")
_SHA384_IDENTIFIER = bytes.fromhex("0609608648016503040202")  # OID 2.16.840.1.101.3.4.2.2, DER


class DeviceClass(StrEnum):
    GH100 = "GH100"
    GB100 = "GB100"
    LS10 = "LS_10"


# Common names from the leaf up to the identity. A Hopper GPU and an LS10 switch share their identity CA, so all count.
_NAMES: dict[DeviceClass, tuple[re.Pattern[str], ...]] = {
    DeviceClass.GH100: tuple(
        map(
            re.compile,
            (
                r"GH100 A\d\d GSP FMC LF",
                r"GH100 A\d\d GSP BROM",
                r"NVIDIA GH100 Provisioner ICA \d+",
                "NVIDIA GH100 Identity",
            ),
        )
    ),
    DeviceClass.GB100: tuple(
        map(
            re.compile,
            (
                r"GB100 A\d\d GSP FMC LF",
                r"GB100 A\d\d GSP BROM",
                r"NVIDIA GB100 Provisioner ICA \d+",
                "NVIDIA GB100 Identity",
            ),
        )
    ),
    DeviceClass.LS10: tuple(
        map(
            re.compile,
            (
                r"LS_10 A\d\d FSP FMC LF",
                r"LS_10 A\d\d FSP BROM",
                r"NVIDIA LS_10 Provisioner ICA \d+",
                "NVIDIA GH100 Identity",
            ),
        )
    ),
}
# First byte of the device certificate's serial, before the eight bytes of the device identity (PDI).
_SERIAL_PREFIX = {DeviceClass.GH100: 0x41, DeviceClass.GB100: 0x41, DeviceClass.LS10: 0x50}
SUPPORTED = frozenset({DeviceClass.GH100})

_FAULTS = {
    PathFault.DUPLICATE: reasons.CHAIN_DUPLICATE,
    PathFault.ROOT: reasons.CHAIN_ROOT,
    PathFault.LINK: reasons.CHAIN_LINK,
    PathFault.PROFILE: reasons.CHAIN_PROFILE,
}


@dataclass(frozen=True, slots=True)
class DeviceChain:
    """A chain that leads to a pinned root, and what its certificates say of the device."""

    path: Path
    device_class: DeviceClass
    key: EllipticCurvePublicKey  # the attestation key, P-384
    fwid: bytes  # firmware that the certificate endorses for that key, SHA-384
    pdi: str  # per-device identity, 16 hex digits
    ueid: str  # serial of the attestation key's certificate, decimal
    hwmodel: str  # common name of the device certificate


KnownChains = Memo[DeviceChain]
KnownTexts = Memo[tuple[Loaded, ...]]


def verify_chain(
    pem: bytes, anchors: Sequence[Anchor], *, known: KnownChains, paths: KnownPaths, texts: KnownTexts | None = None
) -> DeviceChain:
    """The chain that `pem` holds, leaf first, whatever the time: `verify_time` compares it. AttestError if none."""
    name = hashlib.sha256(pem).digest()
    return known.get(name) or known.put(name, _verify(pem, anchors, paths, texts or Memo(1)))


def verify_time(chain: DeviceChain, *, now: datetime) -> None:
    """That every certificate of the chain is valid at `now`. UntrustedEvidence otherwise."""
    if not chain.path.covers(now):
        window = f"{chain.path.not_before:%Y-%m-%d} to {chain.path.not_after:%Y-%m-%d}"
        raise UntrustedEvidence(reasons.CHAIN_TIME, f"{now:%Y-%m-%dT%H:%M:%SZ}", window)


def _verify(pem: bytes, anchors: Sequence[Anchor], paths: KnownPaths, texts: KnownTexts) -> DeviceChain:
    if len(pem) > CHAIN_BYTES_MAX:
        raise MalformedEvidence(reasons.CERTIFICATES_MALFORMED, f"{len(pem)} bytes", f"at most {CHAIN_BYTES_MAX}")
    try:
        chain = _load(pem, texts)
    except UNREADABLE as e:
        raise MalformedEvidence(reasons.CERTIFICATES_MALFORMED, str(e), "PEM, leaf first") from e
    if len(chain) != CHAIN_LENGTH:
        raise UntrustedEvidence(reasons.CHAIN_LENGTH, f"{len(chain)} certificates", str(CHAIN_LENGTH))
    try:
        path = verify_path(chain, anchors, paths)
    except PathError as e:
        raise UntrustedEvidence(_FAULTS[e.fault], e.found, e.wanted) from e
    try:
        return _describe(chain[0].certificate, chain[1].certificate, path)
    except UNREADABLE as e:
        raise UntrustedEvidence(reasons.CHAIN_PROFILE, str(e), "certificates that parse") from e


def _load(pem: bytes, texts: KnownTexts) -> tuple[Loaded, ...]:
    """The certificates of the text. Above the device's own two it is the same for a whole fleet, letter by letter."""
    pieces = pem.split(PEM_BEGIN)
    if len(pieces) != 1 + CHAIN_LENGTH:
        return load_pem(pem)
    own, shared = (PEM_BEGIN.join(some) for some in (pieces[: 1 + OWN], [b"", *pieces[1 + OWN :]]))
    return load_pem(own) + (texts.get(shared) or texts.put(shared, load_pem(shared)))


def _describe(leaf: x509.Certificate, device: x509.Certificate, path: Path) -> DeviceChain:
    names = [_common_name(holder) for holder in path.holders[:-1]]
    device_class = _class_of(names)
    if device_class not in SUPPORTED:
        raise UnsupportedEvidence(reasons.DEVICE_CLASS_UNSUPPORTED, device_class, " or ".join(sorted(SUPPORTED)))
    return DeviceChain(
        path=path,
        device_class=device_class,
        key=path.holders[0].key,
        fwid=_fwid(leaf, path.holders[1]),
        pdi=_pdi(device, path.holders[1], device_class),
        ueid=str(leaf.serial_number),
        hwmodel=names[1],
    )


def _class_of(names: Sequence[str]) -> DeviceClass:
    for device_class, patterns in _NAMES.items():
        if all(pattern.fullmatch(name) for pattern, name in zip(patterns, names, strict=True)):
            return device_class
    raise UntrustedEvidence(reasons.CHAIN_CLASS, " <- ".join(names), "the names of one device class")


def _common_name(holder: Holder) -> str:
    names = holder.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if len(names) != 1 or not isinstance(names[0].value, str):
        raise UntrustedEvidence(reasons.CHAIN_CLASS, f"{len(names)} common names", "one")
    return names[0].value


def _pdi(device: x509.Certificate, holder: Holder, device_class: DeviceClass) -> str:
    """The serial number of the device certificate is a prefix byte and the PDI; its subject repeats it in hex."""
    serial = device.serial_number.to_bytes(20, "big").lstrip(b"\0")
    named = [str(each.value) for each in holder.subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)]
    prefix = _SERIAL_PREFIX[device_class]
    if len(serial) != 1 + PDI_BYTES or serial[0] != prefix or named != [serial.hex().upper()]:
        found = f"serial {serial.hex()} named {', '.join(named) or 'nowhere'}"
        raise UntrustedEvidence(reasons.CHAIN_PROFILE, found, f"{prefix:02x} and 8 bytes, named in the subject")
    return serial[1:].hex()


def _fwid(leaf: x509.Certificate, device: Holder) -> bytes:
    """
    The firmware that the leaf endorses: SEQUENCE { 1, SubjectPublicKeyInfo, SEQUENCE { sha384, OCTET STRING (48) } }.

    The key inside is the device certificate's. All lengths are known, so the one valid encoding is known but for point
    and digest, and is compared as bytes: no ASN.1 reader is needed, and none can be confused. The point is decoded
    rather than the known key encoded, which takes twice as long.
    """
    try:
        found = leaf.extensions.get_extension_for_oid(_FWID).value.public_bytes()
    except x509.ExtensionNotFound as e:
        raise UntrustedEvidence(reasons.FWID_MALFORMED, "no firmware identity", _FWID.dotted_string) from e
    fwid = found[-VALUE_BYTES:]
    digest_info = der_element(0x30, _SHA384_IDENTIFIER + der_element(0x04, fwid))
    point = found[-len(digest_info) - POINT_BYTES : -len(digest_info)]
    wanted = der_element(0x30, bytes.fromhex("020101") + _SPKI_HEAD + point + digest_info)
    if found != wanted or not _is_point_of(device.key, point):
        raise UntrustedEvidence(reasons.FWID_MALFORMED, f"{len(found)} other bytes", "the device's key and a SHA-384")
    return fwid


def _is_point_of(key: EllipticCurvePublicKey, point: bytes) -> bool:
    try:
        return EllipticCurvePublicKey.from_encoded_point(SECP384R1(), point) == key
    except ValueError:
        return False
