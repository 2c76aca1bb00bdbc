"""
The chain above a signing key: VCEK <- ASK <- ARK, or VLEK <- ASVK <- ARK, and what its leaf says of the platform.

The root is pinned by name and key (`attest.snp.anchors`), and need not be presented. Product, security versions and
chip are read from AMD's extensions of the leaf (1.3.6.1.4.1.3704.1.*), which the authority signed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.x509.oid import ExtensionOID, NameOID

from attest import reasons
from attest.errors import UntrustedEvidence
from attest.memo import Memo
from attest.reasons.snp import SNP_PRODUCT_MISMATCH, SNP_SIGNING_KEY, SNP_VEK_PROFILE
from attest.snp.anchors import Ark, rsa_key
from attest.snp.certificates import Certificate, signed_by
from attest.snp.product import MARKET_NAMES, Product
from attest.x509 import UNREADABLE

HWID_BYTES = {Product.MILAN: 64, Product.GENOA: 64, Product.TURIN: 8}
CSP_CHARS_MAX = 128
_ARC = "1.3.6.1.4.1.3704.1"
_PRODUCT, _HWID, _CSP = f"{_ARC}.2", f"{_ARC}.4", f"{_ARC}.5"

# Extensions that hold the bytes of a TCB version, in their order in a report; None: reserved in this line, zero.
_SPLS = {
    Product.MILAN: ("3.1", "3.2", "3.4", "3.5", "3.6", "3.7", "3.3", "3.8"),
    Product.GENOA: ("3.1", "3.2", "3.4", "3.5", "3.6", "3.7", "3.3", "3.8"),
    Product.TURIN: ("3.9", "3.1", "3.2", "3.3", "3.5", "3.6", "3.7", "3.8"),
}
_RESERVED_SPLS = frozenset({"3.4", "3.5", "3.6", "3.7"})
_AUTHORITY_UNDERSTOOD = frozenset({ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE})


class SigningKey(StrEnum):
    """What signs reports: a key of the chip and its firmware versions, or one that AMD gave a cloud provider."""

    VCEK = "vcek"
    VLEK = "vlek"


_AUTHORITY_NAMES = {SigningKey.VCEK: "SEV-{}", SigningKey.VLEK: "SEV-VLEK-{}"}
_LEAF_NAMES = {SigningKey.VCEK: "SEV-VCEK", SigningKey.VLEK: "SEV-VLEK"}


@dataclass(frozen=True, slots=True)
class Authority:
    """An ASK or ASVK that chains to a pinned root."""

    ark: Ark = field(repr=False)
    emulated: bool
    signing_key: SigningKey  # that it certifies
    chain: tuple[Certificate, ...] = field(repr=False)  # its certificate, and the root's if that was presented
    key: RSAPublicKey = field(repr=False)

    @property
    def certificate(self) -> Certificate:
        return self.chain[0]


@dataclass(frozen=True, slots=True)
class Vek:
    """A signing key that chains to a pinned root, and what its certificate says of the platform."""

    authority: Authority
    certificate: Certificate
    key: EllipticCurvePublicKey = field(repr=False)
    tcb: bytes  # as in a report: 8 bytes
    hwid: bytes  # of the chip; empty for a VLEK
    csp: str  # the cloud provider that a VLEK was given to; empty for a VCEK

    @property
    def product(self) -> Product:
        return self.authority.ark.product

    @property
    def not_after(self) -> datetime:
        return min(self.certificate.not_after, self.authority.certificate.not_after)


def verify_authority(chain: Sequence[Certificate], arks: Sequence[Ark], known: Memo[Authority]) -> Authority:
    """The authority chain[0], issued by a pinned root; chain[1:], if any, is that root. UntrustedEvidence if not."""
    name = b"".join(certificate.sha256 for certificate in chain)
    return known.get(name) or known.put(name, _authority(chain, arks))


def verify_vek(certificate: Certificate, authority: Authority, known: Memo[Vek]) -> Vek:
    """The signing key of `certificate`, issued by `authority`. UntrustedEvidence if it was not, or is none."""
    name = certificate.sha256 + authority.certificate.sha256
    return known.get(name) or known.put(name, _vek(certificate, authority))


def check_window(certificate: Certificate, *, now: datetime) -> None:
    """Whether a certificate is valid at `now`, its last instant included. UntrustedEvidence if it is not."""
    if not certificate.not_before <= now <= certificate.not_after:
        window = f"{certificate.not_before:%Y-%m-%d} to {certificate.not_after:%Y-%m-%d}"
        raise UntrustedEvidence(reasons.CHAIN_TIME, f"{now:%Y-%m-%dT%H:%M:%SZ}", window)


def product_named(certificate: Certificate) -> Product | None:
    """The line that a signing key's certificate names, before anybody believes it. None if it names none."""
    try:
        found = _extensions(certificate).get(_PRODUCT, b"")
    except UNREADABLE:
        return None
    return MARKET_NAMES.get(_ia5(found).partition("-")[0])


def _authority(chain: Sequence[Certificate], arks: Sequence[Ark]) -> Authority:
    certificate, roots = chain[0], chain[1:]
    try:
        ark = _root_of(certificate, roots, arks)
        key = rsa_key(certificate.fields)
        _check_authority_profile(certificate.fields)
    except UNREADABLE as e:
        raise UntrustedEvidence(reasons.CHAIN_PROFILE, str(e), "the certificate of an AMD authority") from e
    name = _common_name(certificate)
    for signing_key, pattern in _AUTHORITY_NAMES.items():
        if name == pattern.format(ark.product):
            return Authority(ark, ark.emulated, signing_key, tuple(chain), key)
    wanted = " or ".join(pattern.format(ark.product) for pattern in _AUTHORITY_NAMES.values())
    raise UntrustedEvidence(reasons.CHAIN_PROFILE, f"an authority named {name}", wanted)


def _root_of(certificate: Certificate, roots: Sequence[Certificate], arks: Sequence[Ark]) -> Ark:
    """The pinned root that issued it. A presented root counts by name and key; its other bytes are not believed."""
    issuer = certificate.fields.issuer.rfc4514_string()
    named = [ark for ark in arks if ark.subject == issuer]
    if not named:
        pinned = " or ".join(ark.subject for ark in arks) or "no root is trusted for this"
        raise UntrustedEvidence(reasons.CHAIN_ROOT, issuer, pinned)
    for root in roots:
        presented = root.fields.subject.rfc4514_string(), rsa_key(root.fields)
        if presented not in [(ark.subject, ark.key) for ark in named]:
            raise UntrustedEvidence(reasons.CHAIN_ROOT, f"{presented[0]} with another key", "the pinned root")
    for ark in named:
        if signed_by(ark.key, certificate.signature, certificate.signed):
            return ark
    raise UntrustedEvidence(reasons.CHAIN_LINK, "an authority with a signature that does not hold", f"{issuer}'s")


def _check_authority_profile(certificate: x509.Certificate) -> None:
    extensions = {extension.oid: extension for extension in certificate.extensions}
    if unknown := [
        e.oid.dotted_string for e in extensions.values() if e.critical and e.oid not in _AUTHORITY_UNDERSTOOD
    ]:
        raise ValueError(f"critical extension {unknown[0]}")
    constraints, usage = extensions.get(ExtensionOID.BASIC_CONSTRAINTS), extensions.get(ExtensionOID.KEY_USAGE)
    if constraints is None or not constraints.critical or not constraints.value.ca:
        raise ValueError("an authority that is no CA, said critically")
    if usage is None or not usage.value.key_cert_sign:
        raise ValueError("an authority that may not sign certificates")


def _vek(certificate: Certificate, authority: Authority) -> Vek:
    try:
        _check_link(certificate, authority)
        return _describe(certificate, authority)
    except UNREADABLE as e:
        raise UntrustedEvidence(SNP_VEK_PROFILE, str(e), "the certificate of a VCEK or VLEK") from e


def _check_link(certificate: Certificate, authority: Authority) -> None:
    issuer, wanted = certificate.fields.issuer, authority.certificate.fields.subject
    if issuer.public_bytes() != wanted.public_bytes():
        found = f"a signing key issued by {issuer.rfc4514_string()}"
        raise UntrustedEvidence(reasons.CHAIN_LINK, found, wanted.rfc4514_string())
    if not signed_by(authority.key, certificate.signature, certificate.signed):
        raise UntrustedEvidence(reasons.CHAIN_LINK, "a signing key with a signature that does not hold", "its issuer's")


def _describe(certificate: Certificate, authority: Authority) -> Vek:
    """What the leaf says. ValueError, or another of UNREADABLE, where it does not say it as AMD does."""
    if _common_name(certificate) != _LEAF_NAMES[authority.signing_key]:
        wanted = f"{_LEAF_NAMES[authority.signing_key]}, which its authority certifies"
        raise UntrustedEvidence(SNP_SIGNING_KEY, f"a key named {_common_name(certificate)}", wanted)
    extensions = _extensions(certificate)
    product = product_named(certificate)
    if product is not authority.ark.product:
        raise UntrustedEvidence(SNP_PRODUCT_MISMATCH, f"a signing key for {product}", str(authority.ark.product))
    key = certificate.fields.public_key()
    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP384R1):
        raise ValueError("a signing key that is not P-384")
    hwid, csp = extensions.get(_HWID, b""), _ia5(extensions.get(_CSP, b""))
    of_chip = authority.signing_key is SigningKey.VCEK
    if len(hwid) != (HWID_BYTES[product] if of_chip else 0) or (of_chip and not any(hwid)):
        raise ValueError(f"a hardware id of {len(hwid)} bytes")
    if bool(csp) == of_chip:
        raise ValueError(f"cloud provider {csp!r}")
    return Vek(authority, certificate, key, _tcb(extensions, product), hwid, csp)


def _extensions(certificate: Certificate) -> dict[str, bytes]:
    """Contents of all extensions, none of them critical but BasicConstraints and KeyUsage: leaves have no others."""
    found: dict[str, bytes] = {}
    for extension in certificate.fields.extensions:
        if extension.critical and extension.oid not in _AUTHORITY_UNDERSTOOD:
            raise ValueError(f"critical extension {extension.oid.dotted_string}")
        if isinstance(extension.value, x509.BasicConstraints) and extension.value.ca:
            raise ValueError("a signing key that is a CA")
        found[extension.oid.dotted_string] = extension.value.public_bytes()
    return found


def _tcb(extensions: dict[str, bytes], product: Product) -> bytes:
    return bytes(_spl(extensions, name) for name in _SPLS[product])


def _spl(extensions: dict[str, bytes], name: str) -> int:
    """One security version: a DER INTEGER from 0 to 255. Reserved ones may be absent, and are zero then."""
    content = extensions.get(f"{_ARC}.{name}")
    if content is None and name in _RESERVED_SPLS:
        return 0
    value = content[-1] if content else 0
    if content != bytes([2, 1, value] if value < 0x80 else [2, 2, 0, value]):
        raise ValueError(f"security version {name} {'absent' if content is None else content.hex()}")
    return value


def _ia5(content: bytes) -> str:
    """A DER IA5String of printable ASCII; empty for anything else."""
    text = content[2:]
    if content[:2] != bytes([0x16, min(len(text), 0x7F)]) or len(text) >= CSP_CHARS_MAX:
        return ""
    return text.decode("ascii") if all(0x20 <= c < 0x7F for c in text) else ""


def _common_name(certificate: Certificate) -> str:
    try:
        names = certificate.fields.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except UNREADABLE:
        return ""
    return str(names[0].value) if len(names) == 1 else ""
