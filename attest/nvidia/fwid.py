"""
Which firmware the certificate of an attestation key endorses (TCG DICE): two shapes of one extension.

    Hopper, LS10   2.23.133.5.4.1    SEQUENCE { 1, SubjectPublicKeyInfo, SEQUENCE { sha384, OCTET STRING (48) } }
    Blackwell      2.23.133.5.4.1.1  DiceTcbInfo; the first entry of its list of firmware ids counts
"""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, EllipticCurvePublicKey

from attest import reasons
from attest.errors import UntrustedEvidence
from attest.x509 import Holder, der_element

COMPOSITE_DEVICE_ID = x509.ObjectIdentifier("2.23.133.5.4.1")
TCB_INFO = x509.ObjectIdentifier("2.23.133.5.4.1.1")
VALUE_BYTES = 48  # SHA-384
POINT_BYTES = 97  # P-384, X9.62 uncompressed: 0x04, x, y

# SubjectPublicKeyInfo of a P-384 key up to its point, DER: id-ecPublicKey, secp384r1, a bit string without unused bits.
_SPKI_HEAD = bytes.fromhex("3076301006072a8648ce3d020106052b81040022036200")
_SHA384_IDENTIFIER = bytes.fromhex("0609608648016503040202")  # OID 2.16.840.1.101.3.4.2.2, DER
# Context tags of DiceTcbInfo (DICE Attestation Architecture 1.1, 6.1.1): vendor, model, firmware ids, flags.
_SEQUENCE, _VENDOR, _MODEL, _FWIDS, _FLAGS = 0x30, 0x80, 0x81, 0xA6, 0x87
_FIELDS = (_VENDOR, _MODEL, 0x82, 0x83, 0x84, 0x85, _FWIDS, _FLAGS, 0x88, 0x89)
_DEBUG = 0x10  # bit 3 of the flags' first octet


def composite(leaf: x509.Certificate, device: Holder) -> bytes:
    """
    The firmware of a Hopper GPU or an LS10 switch, 48 bytes.

    The key inside is the device certificate's. All lengths are known, so the one valid encoding is known but for point
    and digest, and is compared as bytes: no ASN.1 reader is needed, and none can be confused. The point is decoded
    rather than the known key encoded, which takes twice as long.
    """
    found = _extension(leaf, COMPOSITE_DEVICE_ID)
    fwid = found[-VALUE_BYTES:]
    digest_info = der_element(_SEQUENCE, _SHA384_IDENTIFIER + der_element(0x04, fwid))
    point = found[-len(digest_info) - POINT_BYTES : -len(digest_info)]
    wanted = der_element(_SEQUENCE, bytes.fromhex("020101") + _SPKI_HEAD + point + digest_info)
    if found != wanted or not _is_point_of(device.key, point):
        raise _malformed(f"{len(found)} other bytes", "the device's key and a SHA-384")
    return fwid


def tcb_info(leaf: x509.Certificate, model: str) -> bytes:
    """The firmware of a Blackwell GPU, 48 bytes; `model` is what the model's name must begin with."""
    ((tag, content),) = _elements(_extension(leaf, TCB_INFO), 1)
    fields = dict(_elements(content, len(_FIELDS)))
    if tag != _SEQUENCE or tuple(fields) != _FIELDS:
        raise _malformed("other fields", "a DiceTcbInfo, whole")
    if fields[_VENDOR] != b"NVIDIA" or not fields[_MODEL].startswith(model.encode()):
        raise _malformed(f"{fields[_VENDOR]!r} {fields[_MODEL]!r}", f"NVIDIA {model}")
    flags = fields[_FLAGS]
    if len(flags) < 2 or flags[0] != 0 or flags[1] & _DEBUG:
        raise _malformed(f"flags {flags.hex()}", "a part that is not open for debugging")
    entries = _elements(fields[_FWIDS], 2)
    fwid = entries[0][1][-VALUE_BYTES:]
    if entries[0] != (_SEQUENCE, _SHA384_IDENTIFIER + der_element(0x04, fwid)):
        raise _malformed("a firmware id of another kind", "SHA-384")
    return fwid


def _extension(leaf: x509.Certificate, oid: x509.ObjectIdentifier) -> bytes:
    try:
        return leaf.extensions.get_extension_for_oid(oid).value.public_bytes()
    except x509.ExtensionNotFound as e:
        raise _malformed("no firmware identity", oid.dotted_string) from e


def _elements(data: bytes, count: int) -> list[tuple[int, bytes]]:
    """The DER elements that fill `data`, at least one and at most `count`, each in its shortest form."""
    found: list[tuple[int, bytes]] = []
    while data and len(found) < count:
        head, size = 2, data[1] if len(data) > 1 else 0
        if size == 0x81 and len(data) > 2:
            head, size = 3, data[2]
        content = data[head : head + size]
        element = der_element(data[0], content)
        if len(content) != size or not data.startswith(element):
            raise _malformed("an element that is cut short, or not in its shortest form", "DER")
        found.append((data[0], content))
        data = data[len(element) :]
    if data or not found:
        raise _malformed(f"{len(data)} bytes beside {len(found)} elements", f"1 to {count}")
    return found


def _is_point_of(key: EllipticCurvePublicKey, point: bytes) -> bool:
    try:
        return EllipticCurvePublicKey.from_encoded_point(SECP384R1(), point) == key
    except ValueError:
        return False


def _malformed(found: str, wanted: str) -> UntrustedEvidence:
    return UntrustedEvidence(reasons.FWID_MALFORMED, found, wanted)
