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
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.x509.oid import NameOID

from attest import reasons
from attest.anchors import Anchor
from attest.errors import MalformedEvidence, UntrustedEvidence
from attest.memo import Memo
from attest.nvidia import fwid
from attest.nvidia.revocation import Inquiry, KnownQuestions, inquiries
from attest.x509 import (
    PEM_BEGIN,
    UNREADABLE,
    Holder,
    KnownPaths,
    Loaded,
    Path,
    PathError,
    PathFault,
    load_pem,
    verify_path,
)

CHAIN_BYTES_MAX = 0x1400  # the driver's buffer
CHAIN_LENGTH = 5
OWN = 2  # of these are the device's own
PDI_BYTES = 8


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
    inquiries: tuple[Inquiry, ...]  # about revocation


KnownChains = Memo[DeviceChain]
KnownTexts = Memo[tuple[Loaded, ...]]


def verify_chain(
    pem: bytes,
    anchors: Sequence[Anchor],
    *,
    known: KnownChains,
    paths: KnownPaths,
    texts: KnownTexts | None = None,
    questions: KnownQuestions | None = None,
) -> DeviceChain:
    """The chain that `pem` holds, leaf first, whatever the time: `verify_time` compares it. AttestError if none."""
    name = hashlib.sha256(pem).digest()
    return known.get(name) or known.put(
        name, _verify(pem, anchors, paths, texts or Memo(1), questions or KnownQuestions())
    )


def verify_time(chain: DeviceChain, *, now: datetime) -> None:
    """That every certificate of the chain is valid at `now`. UntrustedEvidence otherwise."""
    if not chain.path.covers(now):
        window = f"{chain.path.not_before:%Y-%m-%d} to {chain.path.not_after:%Y-%m-%d}"
        raise UntrustedEvidence(reasons.CHAIN_TIME, f"{now:%Y-%m-%dT%H:%M:%SZ}", window)


def _verify(
    pem: bytes, anchors: Sequence[Anchor], paths: KnownPaths, texts: KnownTexts, questions: KnownQuestions
) -> DeviceChain:
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
        return _describe(chain, path, questions)
    except UNREADABLE as e:  # pragma: no cover - verify_path has read all that is read here; if it ever reads less
        raise UntrustedEvidence(reasons.CHAIN_PROFILE, str(e), "certificates that parse") from e


def _load(pem: bytes, texts: KnownTexts) -> tuple[Loaded, ...]:
    """The certificates of the text. Above the device's own two it is the same for a whole fleet, letter by letter."""
    pieces = pem.split(PEM_BEGIN)
    if len(pieces) != 1 + CHAIN_LENGTH:
        return load_pem(pem)
    own, shared = (PEM_BEGIN.join(some) for some in (pieces[: 1 + OWN], [b"", *pieces[1 + OWN :]]))
    return load_pem(own) + (texts.get(shared) or texts.put(shared, load_pem(shared)))


def _describe(chain: Sequence[Loaded], path: Path, questions: KnownQuestions) -> DeviceChain:
    leaf, device = (loaded.certificate for loaded in chain[:OWN])
    names = [_common_name(holder) for holder in path.holders[:-1]]
    device_class = _class_of(names)
    return DeviceChain(
        path=path,
        device_class=device_class,
        key=path.holders[0].key,
        fwid=_fwid(leaf, path.holders[1], device_class),
        pdi=_pdi(device, path.holders[1], device_class),
        ueid=str(leaf.serial_number),
        hwmodel=names[1],
        inquiries=inquiries(chain, path, of_device=True, known=questions),
    )


def _fwid(leaf: x509.Certificate, device: Holder, device_class: DeviceClass) -> bytes:
    return fwid.tcb_info(leaf, device_class) if device_class is DeviceClass.GB100 else fwid.composite(leaf, device)


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
    number = max(device.serial_number, 0)  # of any size: certificates are not held to the 20 bytes of RFC 5280
    serial = number.to_bytes((number.bit_length() + 7) // 8, "big")
    named = [str(each.value) for each in holder.subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)]
    prefix = _SERIAL_PREFIX[device_class]
    if len(serial) != 1 + PDI_BYTES or serial[0] != prefix or named != [serial.hex().upper()]:
        found = f"serial {serial.hex()} named {', '.join(named) or 'nowhere'}"
        raise UntrustedEvidence(reasons.CHAIN_PROFILE, found, f"{prefix:02x} and 8 bytes, named in the subject")
    return serial[1:].hex()
