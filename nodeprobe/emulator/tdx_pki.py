"""
A throw-away PKI of the shape of Intel's for TDX: a root, the two PCK CAs, the TCB signer, and what they sign.

    <path>/root.pem             the root: what a verifier is told to trust
    <path>/collateral.json      what the emulator published last (`nodeprobe.emulator.tdx_collateral`)
    <path>/authorities/         keys and certificates
    <path>/platforms/<name>/    key and PCK certificate of one emulated machine

Names that a verifier reads ("Intel SGX PCK Platform CA") are those of genuine certificates; the root is named
"Emulated", and every certificate says "WorkerManager emulator" as its organisation. P-256 and SHA-256 throughout.
Shapes: Intel's "PCK Certificate and CRL Profile Specification", spec/cpu-tee.md §1.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from nodeprobe.emulator.pki import (
    ORGANISATION,
    Authority,
    EmulatorError,
    move_into_place,
    new_key,
    read_key,
    write_key,
)

ROOT = "root.pem"
ROOT_NAME = "Emulated SGX Root CA"
PLATFORM_CA, PROCESSOR_CA = "Intel SGX PCK Platform CA", "Intel SGX PCK Processor CA"
TCB_SIGNING = "Intel SGX TCB Signing"
PCK = "Intel SGX PCK Certificate"
CRL_URL = "http://crl.emulator.invalid/sgx.crl"

FMSPC = bytes.fromhex("e0e00f000000")  # of no genuine processor family
PCE_ID = bytes(2)
CPU_SVN = (4, 4, 2, 2, 4, 1, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0)
PCE_SVN = 11
ID_BYTES = 16  # PPID and platform instance id

_SGX_EXTENSION = x509.ObjectIdentifier("1.2.840.113741.1.13.1")
_SGX_ARC = bytes.fromhex("2a864886f84d010d01")  # the same, as DER content
_START = datetime(2018, 5, 21, tzinfo=UTC)
_CA_END, _ROOT_END = datetime(2099, 1, 1, tzinfo=UTC), datetime(2149, 12, 31, tzinfo=UTC)
PCK_LIFE = timedelta(days=7 * 365)
_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)
_CA_USAGE, _END_USAGE = {"key_cert_sign", "crl_sign"}, {"digital_signature", "content_commitment"}
_AUTHORITIES = ("root", "platform_ca", "processor_ca", "tcb_signing")


@dataclass(frozen=True, slots=True)
class IntelPki:
    """Root, PCK CAs and TCB signer of one emulated Intel, in a folder that several processes may share."""

    path: Path
    root: Authority
    platform_ca: Authority
    processor_ca: Authority
    tcb_signing: Authority

    @classmethod
    def create(cls, path: Path) -> IntelPki:
        """The PKI in the folder `path`, made now unless it is there. Raises EmulatorError."""
        if not (path / ROOT).exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            move_into_place(path, _lay_down)
        return cls.open(path)

    @classmethod
    def open(cls, path: Path) -> IntelPki:
        """Load the PKI in the folder `path`. Raises EmulatorError where there is none, or a broken one."""
        try:
            loaded = {name: _load(path / "authorities", name) for name in _AUTHORITIES}
        except (OSError, ValueError, TypeError) as e:
            raise EmulatorError(f"{path} holds no TDX PKI of the emulator ({e}): name an empty folder") from e
        return cls(path, **loaded)

    @property
    def anchor(self) -> Path:
        """The file with the root, PEM."""
        return self.path / ROOT

    def ca(self, name: str) -> Authority:
        """The CA of PCK certificates called `platform` or `processor`."""
        return {"platform": self.platform_ca, "processor": self.processor_ca}[name]


@dataclass(slots=True)
class PckDraft:
    """What a PCK certificate says; a defect may change any of it."""

    ppid: bytes
    platform_instance: bytes | None
    not_before: datetime
    fmspc: bytes = FMSPC
    pce_id: bytes = PCE_ID
    cpu_svn: tuple[int, ...] = CPU_SVN
    pce_svn: int = PCE_SVN
    not_after: datetime | None = None
    common_name: str = PCK

    def extension(self) -> bytes:
        """The SGX extension, DER: a sequence of (OID, value) pairs, all below 1.2.840.113741.1.13.1."""
        tcb = [_pair((2, i), _integer(svn)) for i, svn in enumerate(self.cpu_svn, 1)]
        tcb += [_pair((2, 17), _integer(self.pce_svn)), _pair((2, 18), _tlv(0x04, bytes(self.cpu_svn)))]
        flags = [_pair((7, i), _tlv(0x01, b"\xff")) for i in (1, 2, 3)]  # dynamic platform, cached keys, SMT
        pairs = [
            _pair((1,), _tlv(0x04, self.ppid)),
            _pair((2,), _tlv(0x30, b"".join(tcb))),
            _pair((3,), _tlv(0x04, self.pce_id)),
            _pair((4,), _tlv(0x04, self.fmspc)),
            _pair((5,), _tlv(0x0A, b"\1")),
        ]
        if self.platform_instance is not None:
            pairs += [_pair((6,), _tlv(0x04, self.platform_instance)), _pair((7,), _tlv(0x30, b"".join(flags)))]
        return _tlv(0x30, b"".join(pairs))

    def issued(self, ca: Authority, key: ec.EllipticCurvePublicKey) -> x509.Certificate:
        """The certificate, signed by `ca`."""
        end = self.not_after or self.not_before + PCK_LIFE
        extension = x509.UnrecognizedExtension(_SGX_EXTENSION, self.extension())
        return issue(self.common_name, key, ca, (self.not_before, end), extensions=(extension,))


def issue(
    common_name: str,
    key: ec.EllipticCurvePublicKey,
    issuer: Authority | None,
    term: tuple[datetime, datetime],
    *,
    path_length: int | None = None,
    extensions: Iterable[x509.ExtensionType] = (),
    own_key: ec.EllipticCurvePrivateKey | None = None,
) -> x509.Certificate:
    """One certificate, ECDSA P-256, SHA-256. A CA if it has a path length; self-signed by `own_key` if no issuer."""
    signer = issuer.key if issuer is not None else own_key
    if signer is None:
        raise ValueError("neither an issuer nor an own key")
    subject = name(common_name)
    usage = _END_USAGE if path_length is None else _CA_USAGE
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer is not None else subject)
        .not_valid_before(term[0])
        .not_valid_after(term[1])
        .serial_number(int.from_bytes(os.urandom(19)) | 1)
        .public_key(key)
        .add_extension(_authority_id(signer), critical=False)
        .add_extension(_crl_point(), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.KeyUsage(**{each: each in usage for each in _USAGES}), critical=True)
        .add_extension(x509.BasicConstraints(path_length is not None, path_length), critical=True)
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(signer, SHA256())


@dataclass(slots=True)
class CrlDraft:
    """What a revocation list says; a defect may change any of it. DER by `signed()`."""

    issuer: Authority
    last_update: datetime
    next_update: datetime
    revoked: list[int] = field(default_factory=list)
    key: ec.EllipticCurvePrivateKey | None = None  # None: the issuer's own

    def signed(self) -> bytes:
        signer = self.key or self.issuer.key
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.issuer.certificate.subject)
            .last_update(self.last_update)
            .next_update(self.next_update)
            .add_extension(x509.CRLNumber(1), critical=False)
            .add_extension(_authority_id(self.issuer.key), critical=False)
        )
        for serial in self.revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(self.last_update)
            builder = builder.add_revoked_certificate(entry.build())
        return builder.sign(signer, SHA256()).public_bytes(Encoding.DER)


def name(common_name: str) -> x509.Name:
    """A name as genuine certificates have it, but for the organisation."""
    parts: Mapping[x509.ObjectIdentifier, str] = {
        NameOID.COMMON_NAME: common_name,
        NameOID.ORGANIZATION_NAME: ORGANISATION,
        NameOID.LOCALITY_NAME: "Santa Clara",
        NameOID.STATE_OR_PROVINCE_NAME: "CA",
        NameOID.COUNTRY_NAME: "US",
    }
    return x509.Name([x509.NameAttribute(oid, text) for oid, text in parts.items()])


def p256() -> ec.EllipticCurvePrivateKey:
    return new_key(ec.SECP256R1())


def new_root(common_name: str = ROOT_NAME) -> Authority:
    """A root with a key of its own."""
    key = p256()
    return Authority(issue(common_name, key.public_key(), None, (_START, _ROOT_END), path_length=1, own_key=key), key)


def new_ca(root: Authority, common_name: str) -> Authority:
    """A CA of PCK certificates below `root`."""
    key = p256()
    return Authority(issue(common_name, key.public_key(), root, (_START, _CA_END), path_length=0), key)


def new_signer(root: Authority, common_name: str = TCB_SIGNING) -> Authority:
    """A signer of TCB info and QE identity below `root`."""
    key = p256()
    return Authority(issue(common_name, key.public_key(), root, (_START, _CA_END)), key)


def _lay_down(path: Path) -> None:
    root = new_root()
    authorities = {
        "root": root,
        "platform_ca": new_ca(root, PLATFORM_CA),
        "processor_ca": new_ca(root, PROCESSOR_CA),
        "tcb_signing": new_signer(root),
    }
    folder = path / "authorities"
    folder.mkdir()
    for each, authority in authorities.items():
        write_key(folder / f"{each}.key", authority.key)
        (folder / f"{each}.pem").write_bytes(authority.certificate.public_bytes(Encoding.PEM))
    (path / "platforms").mkdir()
    (path / ROOT).write_bytes(root.certificate.public_bytes(Encoding.PEM))


def _load(folder: Path, each: str) -> Authority:
    certificate = x509.load_pem_x509_certificate((folder / f"{each}.pem").read_bytes())
    return Authority(certificate, read_key(folder / f"{each}.key"))


def _authority_id(key: ec.EllipticCurvePrivateKey) -> x509.AuthorityKeyIdentifier:
    subject_id = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(subject_id)


def _crl_point() -> x509.CRLDistributionPoints:
    return x509.CRLDistributionPoints(
        [x509.DistributionPoint([x509.UniformResourceIdentifier(CRL_URL)], None, None, None)]
    )


def _pair(arc: tuple[int, ...], value: bytes) -> bytes:
    return _tlv(0x30, _tlv(0x06, _SGX_ARC + bytes(arc)) + value)


def _integer(value: int) -> bytes:
    return _tlv(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _tlv(tag: int, content: bytes) -> bytes:
    size = len(content)
    length = [size] if size < 0x80 else [0x81, size] if size < 0x100 else [0x82, size >> 8, size & 0xFF]
    return bytes([tag, *length]) + content
