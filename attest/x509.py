"""
Certification paths to a pinned root: loading, and RFC 5280 §6 as far as device and RIM certificates use it.

These are no web certificates: no DNS names, vendor extensions, leaves older than their roots. So the rules are written
out here: issuer names, key identifiers, signatures, CA flags, key usage, path lengths, P-384 throughout. Each
certificate is looked at by itself; validity need not nest. Revocation is somebody else's question.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP384R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.x509.oid import ExtensionOID

from attest.anchors import UNREADABLE as UNREADABLE
from attest.anchors import Anchor, spki_of
from attest.memo import Memo

PEM_BEGIN = b"-----BEGIN CERTIFICATE-----"
SIGNATURE_BYTES = 96  # ECDSA P-384, r || s, each 48 bytes big-endian
CERTIFICATES_MAX = 8
_ECDSA_SHA384 = ECDSA(SHA384())
_HEAD_BYTES = (
    4  # 0x30 0x82 and two bytes of length: a certificate with a P-384 key has more than 255 and less than 65,536
)
_VERSION_3 = bytes.fromhex("a003020102")
ECDSA_WITH_SHA384 = bytes.fromhex("300a06082a8648ce3d040303")  # AlgorithmIdentifier, DER: no parameters
_UNDERSTOOD = frozenset({ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE})


class PathFault(StrEnum):
    """How a path fails; callers map it to a reason of theirs."""

    DUPLICATE = "duplicate"
    ROOT = "root"
    LINK = "link"
    PROFILE = "profile"


class PathError(Exception):
    """The certificates do not form a path to a pinned root."""

    def __init__(self, fault: PathFault, found: str, wanted: str) -> None:
        self.fault, self.found, self.wanted = fault, found, wanted
        super().__init__(fault, found, wanted)


@dataclass(frozen=True, slots=True)
class Holder:
    """Whom a certificate names, decoded once: decoding a key or a name costs a tenth of a signature check."""

    subject: x509.Name
    name: bytes  # the same, DER
    key: EllipticCurvePublicKey  # P-384
    key_id: bytes | None  # subject key identifier


@dataclass(frozen=True, slots=True)
class Path:
    """
    A path that holds from `not_before` on, until `not_after`: the window common to all but the root. The instant
    `not_after` itself is too late, though X.509 would still have it: a verdict ends there too, and must have some life.
    """

    anchor: Anchor
    not_before: datetime
    not_after: datetime
    holders: tuple[Holder, ...]  # of each certificate in its order, the presented root's last

    def covers(self, now: datetime) -> bool:
        return self.not_before <= now < self.not_after


KnownPaths = Memo[Path]
Extensions = Mapping[x509.ObjectIdentifier, x509.Extension[Any]]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A certificate, and the very bytes that it was read from."""

    certificate: x509.Certificate
    encoded: bytes  # DER

    @classmethod
    def of(cls, encoded: bytes) -> Loaded:
        """ValueError, or another of UNREADABLE, if it is none."""
        return cls(x509.load_der_x509_certificate(encoded), encoded)


def load_pem(pem: bytes) -> tuple[Loaded, ...]:
    """
    The certificates of a PEM text (RFC 7468, without explanatory text) in their order.

    ValueError, or another of UNREADABLE, if it is anything else, or holds more than CERTIFICATES_MAX.
    """
    if pem.count(PEM_BEGIN) > CERTIFICATES_MAX:
        raise ValueError(f"more than {CERTIFICATES_MAX} certificates")
    begin, *texts = pem.split(PEM_BEGIN)
    if begin.strip() or not texts:
        raise ValueError("no certificate at the beginning")
    return tuple(Loaded.of(_der_in(text)) for text in texts)


def _der_in(text: bytes) -> bytes:
    """The bytes between the two lines that enclose a certificate in PEM, the first of them cut off."""
    body, end, rest = text.partition(b"-----END CERTIFICATE-----")
    if not end or rest.strip():
        raise ValueError("a certificate that does not end, or something after it")
    return base64.b64decode(b"".join(body.split()), validate=True)


def verify_path(chain: Sequence[Loaded], anchors: Sequence[Anchor], known: KnownPaths) -> Path:
    """
    The path from chain[0] to chain[-1], whose key must be an anchor's. PathError if there is none.

    The presented root counts by key and name only; its other bytes are not believed. What `known` remembers are paths
    from upper certificates, which a whole fleet shares.
    """
    encoded = [loaded.encoded for loaded in chain]
    if len(chain) < 2:
        raise PathError(PathFault.LINK, f"{len(chain)} certificates", "a leaf and its issuers")
    if len(set(encoded)) != len(encoded):
        raise PathError(PathFault.DUPLICATE, "a certificate twice", "each once")
    try:
        return _verify_from(0, chain, encoded, anchors, known)
    except UNREADABLE as e:
        raise PathError(PathFault.PROFILE, f"a malformed certificate ({e})", "certificates that parse") from e


def _verify_from(
    at: int, chain: Sequence[Loaded], encoded: Sequence[bytes], anchors: Sequence[Anchor], known: KnownPaths
) -> Path:
    key = at, *encoded[at:]  # the height counts: a CA that is no leaf must not become one
    if (path := known.get(key)) is not None:
        return path
    if at == len(chain) - 1:
        return known.put(key, _root(chain[at].certificate, at, anchors))
    above = _verify_from(at + 1, chain, encoded, anchors, known)
    certificate = chain[at].certificate
    extensions = {extension.oid: extension for extension in certificate.extensions}
    holder = _holder(certificate, extensions, at)
    _check_profile(extensions, at)
    _check_link(certificate, encoded[at], extensions, above.holders[0], at)
    before, after = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    before, after = max(before, above.not_before), min(after, above.not_after)
    return known.put(key, Path(above.anchor, before, after, (holder, *above.holders)))


def _holder(certificate: x509.Certificate, extensions: Extensions, at: int) -> Holder:
    key, subject = certificate.public_key(), certificate.subject
    named = extensions.get(ExtensionOID.SUBJECT_KEY_IDENTIFIER)
    if not isinstance(key, EllipticCurvePublicKey) or not _is_p384(key):
        raise PathError(PathFault.PROFILE, f"certificate {at} with another key", "P-384")
    return Holder(subject, subject.public_bytes(), key, named.value.digest if named is not None else None)


def _root(presented: x509.Certificate, at: int, anchors: Sequence[Anchor]) -> Path:
    holder = _holder(presented, {extension.oid: extension for extension in presented.extensions}, at)
    name, spki = holder.subject.rfc4514_string(), spki_of(holder.key)
    for anchor in anchors:
        if hmac.compare_digest(spki, anchor.spki) and name == anchor.subject:
            # The anchor is trusted as a key, without a term of its own (RFC 5280 §6.1.1 d).
            begin, end = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
            return Path(anchor, begin, end, (holder,))
    pinned = " or ".join(anchor.subject for anchor in anchors) or "no root is trusted for this"
    raise PathError(PathFault.ROOT, f"{name}, key {hashlib.sha256(spki).hexdigest()[:16]}", pinned)


def _check_profile(extensions: Extensions, at: int) -> None:
    """What a certificate must be, by its height above the leaf: leaves are no CAs, all others are."""
    what = f"certificate {at}"
    if unknown := [e.oid.dotted_string for e in extensions.values() if e.critical and e.oid not in _UNDERSTOOD]:
        raise PathError(PathFault.PROFILE, f"{what} with critical extension {unknown[0]}", "none that we do not know")
    if ExtensionOID.EXTENDED_KEY_USAGE in extensions:
        # No genuine certificate of these paths has one. Those beside them do: OCSP responders, under the same CAs.
        raise PathError(PathFault.PROFILE, f"{what} with an extended key usage", "one for no such purpose")
    constraints = extensions.get(ExtensionOID.BASIC_CONSTRAINTS)
    usage = extensions.get(ExtensionOID.KEY_USAGE)
    is_ca = constraints is not None and constraints.value.ca
    if at == 0:
        if is_ca or (usage is not None and not usage.value.digital_signature):
            raise PathError(PathFault.PROFILE, "a leaf that is a CA or may not sign", "a leaf that signs data only")
        return
    if not is_ca or constraints is None or not constraints.critical:
        raise PathError(PathFault.PROFILE, f"{what} that is no CA", "a CA, said critically")
    if usage is None or not usage.value.key_cert_sign:
        raise PathError(PathFault.PROFILE, f"{what} that may not sign certificates", "key usage keyCertSign")
    below = constraints.value.path_length
    if below is not None and below < at - 1:
        raise PathError(PathFault.PROFILE, f"{what} with path length {below}", f"at least {at - 1}")


def _check_link(child: x509.Certificate, encoded: bytes, extensions: Extensions, issuer: Holder, at: int) -> None:
    """Issuer name byte by byte, key identifiers where both are there, and the signature."""
    what = f"certificate {at}"
    if (found_signed := _signed(child, encoded)) is None:
        raise PathError(PathFault.PROFILE, f"{what} encoded or signed otherwise", "DER, v3, ecdsa-with-SHA384")
    signed, names_at = found_signed
    if not signed.startswith(issuer.name, names_at):
        found = f"{what} issued by {child.issuer.rfc4514_string()}"
        raise PathError(PathFault.LINK, found, issuer.subject.rfc4514_string())
    named = extensions.get(ExtensionOID.AUTHORITY_KEY_IDENTIFIER)
    key_id = named.value.key_identifier if named is not None else None
    if key_id is not None and issuer.key_id is not None and key_id != issuer.key_id:
        raise PathError(PathFault.LINK, f"{what} naming issuer key {key_id.hex()}", issuer.key_id.hex())
    try:
        issuer.key.verify(child.signature, signed, _ECDSA_SHA384)
    except InvalidSignature as e:
        raise PathError(PathFault.LINK, f"{what} with a signature that does not hold", "its issuer's") from e


def verify_raw_signature(key: EllipticCurvePublicKey, signature: bytes, signed: bytes) -> bool:
    """ECDSA P-384 over SHA-384(signed), the signature as r || s. Any s counts: the vendor has no low-s rule."""
    if len(signature) != SIGNATURE_BYTES or not _is_p384(key):
        return False
    try:
        key.verify(der_element(0x30, _integer(signature[:48]) + _integer(signature[48:])), signed, _ECDSA_SHA384)
    except InvalidSignature:
        return False
    return True


def _integer(digits: bytes) -> bytes:
    """A number that is not negative, big-endian, as DER. Made of bytes: by way of numbers it takes thrice as long."""
    digits = digits.lstrip(b"\0")
    return der_element(0x02, b"\0" + digits if not digits or digits[0] & 0x80 else digits)


def der_element(tag: int, content: bytes) -> bytes:
    """One DER element with the shortest length, up to 65,535 bytes."""
    size = len(content)
    length = [size] if size < 0x80 else [0x81, size] if size < 0x100 else [0x82, size >> 8, size & 0xFF]
    return bytes([tag, *length]) + content


def _signed(certificate: x509.Certificate, encoded: bytes) -> tuple[bytes, int] | None:
    """
    The part of a certificate that is signed (TBSCertificate, DER), and where in it the issuer's name begins.

    None if anything outside that part could be otherwise: around given signed bytes and a given signature there is one
    encoding, and it must begin as that of a v3 certificate signed with ECDSA and SHA-384. So no ASN.1 is read here, and
    every byte of a certificate counts.
    """
    tail = ECDSA_WITH_SHA384 + der_element(0x03, b"\0" + certificate.signature)
    number = certificate.serial_number
    serial = der_element(0x02, number.to_bytes(number.bit_length() // 8 + 1, "big", signed=True))
    start = _VERSION_3 + serial + ECDSA_WITH_SHA384
    signed = encoded[_HEAD_BYTES : -len(tail)]
    if not signed.startswith(start, _HEAD_BYTES) or encoded != der_element(0x30, signed + tail):
        return None
    return signed, _HEAD_BYTES + len(start)


def _is_p384(key: object) -> bool:
    return isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP384R1)
