"""
Reading AMD's certificates: from PEM or DER, in the one encoding that their signed bytes can have, and their signatures.

AMD numbers the certificates of signing keys 0, which RFC 5280 forbids: pyca warns of it and will refuse it one day. So
pyca reads a copy whose serial number is 1; signatures are verified over the bytes as they were signed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass, field
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA384

from attest.errors import MalformedEvidence
from attest.reasons import CERTIFICATES_MALFORMED
from attest.x509 import UNREADABLE, der_element

CHAIN_MAX = 3  # signing key, authority, root
CERTIFICATE_BYTES_MAX = 4096
CERTIFICATES_BYTES_MAX = 16 << 10
SIGNATURE_BYTES = 512

# AlgorithmIdentifier of RSASSA-PSS with SHA-384, MGF1 with SHA-384 and 48 bytes of salt, DER. AMD writes the default
# trailer out in some certificates and leaves it out in others; both are signed inside, and mean the same.
_PSS = bytes.fromhex("a00f300d06096086480165030402020500a11c301a06092a864886f70d010108300d06096086480165030402020500")
_RSASSA_PSS = bytes.fromhex("06092a864886f70d01010a")
_ALGORITHMS = tuple(
    der_element(0x30, _RSASSA_PSS + der_element(0x30, _PSS + bytes.fromhex(rest)))
    for rest in ("a203020130", "a203020130a303020101")
)
_TBS_AT = 4  # after a header of four bytes: every certificate has more than 255
_VERSION_3 = bytes.fromhex("a003020102")
_SERIAL_ZERO = bytes.fromhex("020100")
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----\s*")


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate that parsed. `fields` must not be asked for the serial number or the signed bytes."""

    fields: x509.Certificate = field(repr=False)
    serial: int
    signed: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    sha256: bytes
    not_before: datetime
    not_after: datetime


def load(data: bytes) -> tuple[Certificate, ...]:
    """The certificates of a PEM text or of DER one after the other; none of nothing. MalformedEvidence otherwise."""
    if len(data) > CERTIFICATES_BYTES_MAX:
        raise MalformedEvidence(CERTIFICATES_MALFORMED, f"{len(data)} bytes", f"at most {CERTIFICATES_BYTES_MAX}")
    text = data.strip(b"\0 \t\r\n")
    pieces = _from_pem(text) if text.startswith(b"-----") else _from_der(data)
    if len(pieces) > CHAIN_MAX:
        raise MalformedEvidence(CERTIFICATES_MALFORMED, f"{len(pieces)} certificates", f"at most {CHAIN_MAX}")
    return tuple(map(_parse, pieces))


def signed_by(key: RSAPublicKey, signature: bytes, signed: bytes) -> bool:
    """RSASSA-PSS as AMD uses it everywhere: SHA-384, MGF1 with SHA-384, 48 bytes of salt."""
    try:
        key.verify(signature, signed, PSS(MGF1(SHA384()), SHA384.digest_size), SHA384())
    except InvalidSignature:
        return False
    return True


def _from_pem(text: bytes) -> list[bytes]:
    pieces: list[bytes] = []
    at = 0
    while at < len(text):
        block = _PEM.match(text, at)
        if block is None or len(pieces) > CHAIN_MAX:
            raise MalformedEvidence(CERTIFICATES_MALFORMED, f"something else at {at}", "PEM certificates only")
        try:
            pieces.append(base64.b64decode(b"".join(block[1].split()), validate=True))
        except binascii.Error as e:
            raise MalformedEvidence(CERTIFICATES_MALFORMED, f"no base64 at {at}", "PEM certificates") from e
        at = block.end()
    return pieces


def _from_der(data: bytes) -> list[bytes]:
    pieces: list[bytes] = []
    at = 0
    while at < len(data):
        size = 4 + int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at : at + 2] != b"\x30\x82" or at + size > len(data) or len(pieces) > CHAIN_MAX:
            raise MalformedEvidence(CERTIFICATES_MALFORMED, f"something else at {at}", "PEM, or DER certificates")
        pieces.append(data[at : at + size])
        at += size
    return pieces


def _parse(der: bytes) -> Certificate:
    if len(der) > CERTIFICATE_BYTES_MAX:
        raise MalformedEvidence(CERTIFICATES_MALFORMED, f"{len(der)} bytes", f"at most {CERTIFICATE_BYTES_MAX}")
    start = _TBS_AT + 4
    zero = der[start : start + 8] == _VERSION_3 + _SERIAL_ZERO
    readable = der[: start + 7] + b"\1" + der[start + 8 :] if zero else der
    try:
        fields = x509.load_der_x509_certificate(readable)
        tbs, signature = fields.tbs_certificate_bytes, fields.signature
        serial = 0 if zero else fields.serial_number
        window = fields.not_valid_before_utc, fields.not_valid_after_utc
    except UNREADABLE as e:
        raise MalformedEvidence(CERTIFICATES_MALFORMED, str(e), "certificates that parse") from e
    signed = der[_TBS_AT : _TBS_AT + len(tbs)]
    if der not in {_encoded(signed, algorithm, signature) for algorithm in _ALGORITHMS if algorithm in signed}:
        found = "a certificate encoded or signed otherwise"
        raise MalformedEvidence(CERTIFICATES_MALFORMED, found, "DER, RSASSA-PSS with SHA-384")
    return Certificate(fields, serial, signed, signature, hashlib.sha256(der).digest(), *window)


def _encoded(signed: bytes, algorithm: bytes, signature: bytes) -> bytes:
    """The one encoding that these signed bytes can have: nothing outside the signature may vary."""
    return der_element(0x30, signed + algorithm + der_element(0x03, b"\0" + signature))
