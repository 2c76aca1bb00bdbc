"""
A throw-away PKI of the shape of AMD's for SEV-SNP: a root (ARK), and below it the authorities of chip keys (ASK) and of
provider keys (ASVK). RSA-4096 throughout, for one line of processors.

    <path>/ark.pem              the root: what a verifier is told to trust
    <path>/authorities/         keys and certificates of root and authorities
    <path>/chips/<name>/        key and id of one chip, so that it keeps its identity over restarts

Making three RSA keys takes seconds; they are made once per folder. Names that a product is read from are those of
genuine chains; every certificate says "WorkerManager emulator" as its organisation, and the root is named "Emulated".
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from nodeprobe.emulator.pki import ORGANISATION, EmulatorError, move_into_place

ROOT_FILE = "ark.pem"
RSA_BITS = 4096
PRODUCTS = ("Milan", "Genoa", "Turin")
_PSS = padding.PSS(padding.MGF1(SHA384()), 48)
_DAY = timedelta(days=1)
_YEAR = timedelta(days=365)
_ROLES = ("ark", "ask", "asvk")


@dataclass(frozen=True, slots=True)
class RsaAuthority:
    """A certificate and its RSA key."""

    certificate: x509.Certificate
    key: rsa.RSAPrivateKey = field(repr=False)


@dataclass(frozen=True, slots=True)
class SnpPki:
    """Root and authorities of one line of processors, in a folder that several processes may share."""

    path: Path
    product: str  # "Milan", "Genoa" or "Turin"
    ark: RsaAuthority
    ask: RsaAuthority
    asvk: RsaAuthority

    @classmethod
    def create(cls, path: Path, product: str = "Milan", *, now: datetime) -> SnpPki:
        """The PKI in the folder `path`, made now unless it is there; the first maker wins. EmulatorError."""
        if product not in PRODUCTS:
            raise EmulatorError(f"there is no product {product!r}; there are: {', '.join(PRODUCTS)}")
        if not (path / ROOT_FILE).exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            move_into_place(path, lambda aside: _lay_down(aside, _made(path, product, now)))
        found = cls.open(path)
        if found.product != product:
            raise EmulatorError(f"{path} is a PKI for {found.product}, not for {product}: name another folder")
        return found

    @classmethod
    def open(cls, path: Path) -> SnpPki:
        """Load the PKI in the folder `path`. Raises EmulatorError where there is none, or a broken one."""
        try:
            loaded = {name: _load(path / "authorities", name) for name in _ROLES}
        except (OSError, ValueError, TypeError) as e:
            hint = "name an empty folder, or one that the emulator made"
            raise EmulatorError(f"{path} holds no SEV-SNP PKI of the emulator ({e}): {hint}") from e
        named = common_name(loaded["ark"].certificate)
        return cls(path, named.rpartition("-")[2], **loaded)

    @property
    def anchors(self) -> Path:
        """The file with the root, PEM."""
        return self.path / ROOT_FILE

    @property
    def chips(self) -> Path:
        return self.path / "chips"

    def authority(self, signing_key: str) -> RsaAuthority:
        """The authority that certifies this kind of key, "vcek" or "vlek"."""
        return self.ask if signing_key == "vcek" else self.asvk


def name(common: str) -> x509.Name:
    """A name as AMD's certificates have it, but for the organisation."""
    pairs = (
        (NameOID.ORGANIZATIONAL_UNIT_NAME, "Engineering"),
        (NameOID.COUNTRY_NAME, "US"),
        (NameOID.ORGANIZATION_NAME, ORGANISATION),
        (NameOID.COMMON_NAME, common),
    )
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in pairs])


def common_name(certificate: x509.Certificate) -> str:
    return str(certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


def authority_certificate(
    common: str,
    key: rsa.RSAPublicKey,
    issuer: x509.Name,
    issuer_key: rsa.RSAPrivateKey,
    window: tuple[datetime, datetime],
    *,
    ca: bool = True,
    signs: bool = True,
    root: bool = False,
) -> x509.Certificate:
    """The certificate of a root or an authority, with the extensions of genuine ones."""
    may = {"key_cert_sign": ca and signs, "crl_sign": root, "digital_signature": not (ca and signs)}
    rest = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    usage = x509.KeyUsage(**may, **dict.fromkeys(rest, False), encipher_only=False, decipher_only=False)
    own = x509.SubjectKeyIdentifier.from_public_key(key)
    above = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(name(common))
        .issuer_name(issuer)
        .not_valid_before(window[0])
        .not_valid_after(window[1])
        .serial_number(int.from_bytes(os.urandom(4)) + 1)
        .public_key(key)
        .add_extension(own, critical=False)
        .add_extension(above, critical=False)
        .add_extension(x509.BasicConstraints(ca, None if root or not ca else 0), critical=True)
        .add_extension(usage, critical=True)
        .sign(issuer_key, SHA384(), rsa_padding=_PSS)
    )


def pss(key: rsa.RSAPrivateKey, data: bytes) -> bytes:
    """A signature as AMD makes them: RSASSA-PSS, SHA-384, 48 bytes of salt."""
    return key.sign(data, _PSS, SHA384())


def sign_certificate(builder: x509.CertificateBuilder, key: rsa.RSAPrivateKey) -> bytes:
    """DER of the certificate, with serial number 0 as genuine signing keys have it and pyca does not make it."""
    made = builder.serial_number(1).sign(key, SHA384(), rsa_padding=_PSS)
    der, tbs = made.public_bytes(Encoding.DER), made.tbs_certificate_bytes
    at = tbs.index(bytes.fromhex("a003020102020101")) + 7
    zeroed = tbs[:at] + b"\0" + tbs[at + 1 :]
    between = der[4 + len(tbs) : -len(made.signature)]
    return der[:4] + zeroed + between + pss(key, zeroed)


def revocation_list(
    authority: RsaAuthority,
    issuer: x509.Name,
    window: tuple[datetime, datetime],
    revoked: Iterable[int] = (),
    *,
    delta: bool = False,
) -> bytes:
    """DER of a list that `authority` signs in the name of `issuer`."""
    builder = x509.CertificateRevocationListBuilder().issuer_name(issuer).last_update(window[0]).next_update(window[1])
    builder = builder.add_extension(x509.CRLNumber(1), critical=False)
    if delta:
        builder = builder.add_extension(x509.DeltaCRLIndicator(1), critical=True)
    for serial in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(window[0]).build()
        builder = builder.add_revoked_certificate(entry)
    return builder.sign(authority.key, SHA384(), rsa_padding=_PSS).public_bytes(Encoding.DER)


def years_from(now: datetime, years: int) -> tuple[datetime, datetime]:
    """From the day before `now` on, so that nothing is too new to be believed."""
    start = now.replace(hour=0, minute=0, second=0, microsecond=0) - _DAY
    return start, start + years * _YEAR


def _made(path: Path, product: str, now: datetime) -> SnpPki:
    window = years_from(now, 25)
    keys = {role: rsa.generate_private_key(65537, RSA_BITS) for role in _ROLES}
    root_name, root_key = f"Emulated ARK-{product}", keys["ark"]
    ark = authority_certificate(root_name, root_key.public_key(), name(root_name), root_key, window, root=True)
    below = {
        role: RsaAuthority(
            authority_certificate(common, keys[role].public_key(), ark.subject, root_key, window), keys[role]
        )
        for role, common in (("ask", f"SEV-{product}"), ("asvk", f"SEV-VLEK-{product}"))
    }
    return SnpPki(path, product, RsaAuthority(ark, root_key), below["ask"], below["asvk"])


def _lay_down(folder: Path, pki: SnpPki) -> None:
    for each in ("authorities", "chips"):
        (folder / each).mkdir()
    for role in _ROLES:
        authority: RsaAuthority = getattr(pki, role)
        write_private(folder / "authorities" / f"{role}.key", authority.key)
        (folder / "authorities" / f"{role}.pem").write_bytes(authority.certificate.public_bytes(Encoding.PEM))
    (folder / ROOT_FILE).write_bytes(pki.ark.certificate.public_bytes(Encoding.PEM))


def write_private(path: Path, key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> None:
    """Write a private key, readable by its owner only."""
    data = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)


def _load(folder: Path, role: str) -> RsaAuthority:
    key = load_pem_private_key((folder / f"{role}.key").read_bytes(), None)
    if not isinstance(key, rsa.RSAPrivateKey):
        raise ValueError(f"{role}.key is no RSA key")
    return RsaAuthority(x509.load_pem_x509_certificate((folder / f"{role}.pem").read_bytes()), key)
