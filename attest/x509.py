"""
Certification paths to a pinned root: loading, and RFC 5280 §6 as far as device and RIM certificates use it.

These are no web certificates: no DNS names, vendor extensions, leaves older than their roots. So the rules are written
out here: issuer names, key identifiers, signatures, CA flags, key usage, path lengths, P-384 throughout. Each
certificate is looked at by itself; validity need not nest. Revocation is somebody else's question.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP384R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtensionOID

from attest.anchors import Anchor, spki_of
from attest.memo import Memo

SIGNATURE_BYTES = 96  # ECDSA P-384, r || s, each 48 bytes big-endian
CERTIFICATES_MAX = 8

# What pyca raises for certificates that load but hold something malformed deeper down.
UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
    x509.InvalidVersion,
)
_ECDSA_WITH_SHA384 = bytes.fromhex("300a06082a8648ce3d040303")  # AlgorithmIdentifier, DER: no parameters
_UNDERSTOOD = frozenset({ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE, ExtensionOID.EXTENDED_KEY_USAGE})


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
class Path:
    """A path that holds whenever `not_before <= now <= not_after`: the window common to all but the root."""

    anchor: Anchor
    not_before: datetime
    not_after: datetime

    def covers(self, now: datetime) -> bool:
        return self.not_before <= now <= self.not_after


KnownPaths = Memo[Path]


def load_pem(pem: bytes) -> tuple[x509.Certificate, ...]:
    """The certificates of a PEM text in their order. ValueError if it is none, or holds more than CERTIFICATES_MAX."""
    if pem.count(b"-----BEGIN") > CERTIFICATES_MAX:
        raise ValueError(f"more than {CERTIFICATES_MAX} certificates")
    return tuple(x509.load_pem_x509_certificates(pem))


def verify_path(chain: Sequence[x509.Certificate], anchors: Sequence[Anchor], known: KnownPaths) -> Path:
    """
    The path from chain[0] to chain[-1], whose key must be an anchor's. PathError if there is none.

    The presented root counts by key and name only; its other bytes are not believed. What `known` remembers are paths
    from upper certificates, which a whole fleet shares.
    """
    names = [certificate.fingerprint(SHA384()) for certificate in chain]
    if len(chain) < 2:
        raise PathError(PathFault.LINK, f"{len(chain)} certificates", "a leaf and its issuers")
    if len(set(names)) != len(names):
        raise PathError(PathFault.DUPLICATE, "a certificate twice", "each once")
    try:
        return _verify_from(0, chain, names, anchors, known)
    except UNREADABLE as e:
        raise PathError(PathFault.PROFILE, f"a malformed certificate ({e})", "certificates that parse") from e


def _verify_from(
    at: int, chain: Sequence[x509.Certificate], names: Sequence[bytes], anchors: Sequence[Anchor], known: KnownPaths
) -> Path:
    key = bytes([at]) + b"".join(names[at:])  # the height counts: a CA that is no leaf must not become one
    if (path := known.get(key)) is not None:
        return path
    if at == len(chain) - 1:
        return known.put(key, _root(chain[at], anchors))
    above = _verify_from(at + 1, chain, names, anchors, known)
    certificate = chain[at]
    _check_profile(certificate, at)
    _check_link(certificate, chain[at + 1], at)
    before, after = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return known.put(key, Path(above.anchor, max(before, above.not_before), min(after, above.not_after)))


def _root(presented: x509.Certificate, anchors: Sequence[Anchor]) -> Path:
    name, spki = presented.subject.rfc4514_string(), spki_of(presented.public_key())
    for anchor in anchors:
        if hmac.compare_digest(spki, anchor.spki) and name == anchor.subject:
            # The anchor is trusted as a key, without a term of its own (RFC 5280 §6.1.1 d).
            return Path(anchor, datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))
    pinned = " or ".join(anchor.subject for anchor in anchors) or "no root is trusted for this"
    raise PathError(PathFault.ROOT, f"{name}, key {hashlib.sha256(spki).hexdigest()[:16]}", pinned)


def _check_profile(certificate: x509.Certificate, at: int) -> None:
    """What a certificate must be, by its height above the leaf: leaves are no CAs, all others are."""
    what = f"certificate {at}"
    if not isinstance(certificate.public_key(), EllipticCurvePublicKey) or not _is_p384(certificate.public_key()):
        raise PathError(PathFault.PROFILE, f"{what} with another key", "P-384")
    if der(certificate) != _encoded(certificate):
        raise PathError(PathFault.PROFILE, f"{what} encoded or signed otherwise", "DER, ecdsa-with-SHA384")
    extensions = {extension.oid: extension for extension in certificate.extensions}
    if unknown := [e.oid.dotted_string for e in extensions.values() if e.critical and e.oid not in _UNDERSTOOD]:
        raise PathError(PathFault.PROFILE, f"{what} with critical extension {unknown[0]}", "none that we do not know")
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


def _check_link(child: x509.Certificate, issuer: x509.Certificate, at: int) -> None:
    """Issuer name byte by byte, key identifiers where both are there, and the signature."""
    what = f"certificate {at}"
    if child.issuer.public_bytes() != issuer.subject.public_bytes():
        raise PathError(
            PathFault.LINK, f"{what} issued by {child.issuer.rfc4514_string()}", issuer.subject.rfc4514_string()
        )
    named, own = _key_identifiers(child, issuer)
    if named is not None and own is not None and named != own:
        raise PathError(PathFault.LINK, f"{what} naming issuer key {named.hex()}", own.hex())
    key = issuer.public_key()
    if not isinstance(key, EllipticCurvePublicKey) or not _is_p384(key):
        raise PathError(PathFault.PROFILE, f"certificate {at + 1} with another key", "P-384")
    try:
        key.verify(child.signature, child.tbs_certificate_bytes, ECDSA(SHA384()))
    except InvalidSignature as e:
        raise PathError(PathFault.LINK, f"{what} with a signature that does not hold", "its issuer's") from e


def _key_identifiers(child: x509.Certificate, issuer: x509.Certificate) -> tuple[bytes | None, bytes | None]:
    named = own = None
    for extension in child.extensions:
        if isinstance(extension.value, x509.AuthorityKeyIdentifier):
            named = extension.value.key_identifier
    for extension in issuer.extensions:
        if isinstance(extension.value, x509.SubjectKeyIdentifier):
            own = extension.value.digest
    return named, own


def verify_raw_signature(key: EllipticCurvePublicKey, signature: bytes, signed: bytes) -> bool:
    """ECDSA P-384 over SHA-384(signed), the signature as r || s. Any s counts: the vendor has no low-s rule."""
    if len(signature) != SIGNATURE_BYTES or not _is_p384(key):
        return False
    r, s = (int.from_bytes(half, "big") for half in (signature[:48], signature[48:]))
    try:
        key.verify(encode_dss_signature(r, s), signed, ECDSA(SHA384()))
    except InvalidSignature:
        return False
    return True


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


def der_element(tag: int, content: bytes) -> bytes:
    """One DER element with the shortest length, up to 65,535 bytes."""
    size = len(content)
    length = [size] if size < 0x80 else [0x81, size] if size < 0x100 else [0x82, size >> 8, size & 0xFF]
    return bytes([tag, *length]) + content


def _encoded(certificate: x509.Certificate) -> bytes:
    """The one encoding that these signed bytes and this signature can have: nothing outside the signature may vary."""
    signature = der_element(0x03, b"\0" + certificate.signature)
    return der_element(0x30, certificate.tbs_certificate_bytes + _ECDSA_WITH_SHA384 + signature)


def _is_p384(key: object) -> bool:
    return isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP384R1)
