"""
A throw-away PKI of the shape of NVIDIA's: a root for devices, a root for reference manifests, and what lies below.

    <path>/anchors.pem          the two roots, device root first: what a verifier is told to trust
    <path>/rims/<RIM id>.xml    reference manifests
    <path>/devices/<name>/      keys and chain of one device, so that it keeps its identity over restarts
    <path>/authorities/         keys and certificates of roots and intermediates

Shapes and names: spec/nvidia.md §6.2 and §9.5. Names that the class of a device is read from are those of genuine
chains; every certificate says "WorkerManager emulator" as its organisation, and the roots are named "Emulated".
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import AuthorityInformationAccessOID, NameOID

from nodeprobe.emulator.families import BLACKWELL, FAMILIES, HOPPER, LS10, Family

ORGANISATION = "WorkerManager emulator"
ANCHORS = "anchors.pem"
_ORGANISATION = x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANISATION)
FOREVER = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)

# .invalid is reserved (RFC 2606): these names are there for the shape, and nobody can ever answer them.
OCSP_URL = "http://ocsp.emulator.invalid"
CRL_URL = "http://crl.emulator.invalid/crl"

DIGITAL_SIGNATURE = frozenset({"digital_signature"})
CERT_SIGN = frozenset({"key_cert_sign"})
CERT_AND_CRL_SIGN = frozenset({"key_cert_sign", "crl_sign"})
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


class EmulatorError(Exception):
    """Something that the user of the emulator can mend; says what."""


@dataclass(frozen=True, slots=True)
class Profile:
    """What a certificate says, except for its keys."""

    subject: x509.Name
    not_before: datetime
    not_after: datetime
    usage: frozenset[str]
    ca: bool | None = True  # None: no BasicConstraints at all, as in genuine leaf certificates
    path_length: int | None = None
    serial: int | None = None  # None: random, 16 bytes
    crl: str | None = None
    ocsp: bool = False
    extensions: tuple[x509.ExtensionType, ...] = ()
    critical: tuple[x509.ExtensionType, ...] = ()  # more of them


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    @classmethod
    def root(cls, profile: Profile) -> Self:
        """A new self-signed authority."""
        key = new_key()
        return cls(issue(profile, key.public_key(), profile.subject, key), key)

    def below(self, profile: Profile, key: ec.EllipticCurvePrivateKey | None = None) -> Authority:
        """A new authority, certified by this one; its key is made unless given."""
        key = key or new_key()
        return Authority(issue(profile, key.public_key(), self.certificate.subject, self.key), key)


@dataclass(frozen=True, slots=True)
class Branch:
    """What stands between the two roots and the devices and manifests of one family."""

    identity: Authority
    provisioner: Authority
    rim_ca: Authority
    rim_l3: Authority
    rim_l4: Authority  # signs the manifests


@dataclass(frozen=True, slots=True)
class Pki:
    """The roots and intermediates of one emulated vendor, in a folder that several processes may share."""

    path: Path
    device_root: Authority
    rim_root: Authority
    branches: Mapping[Family, Branch] = field(repr=False)

    @classmethod
    def create(cls, path: Path, *, now: datetime) -> Pki:
        """
        The PKI in the folder `path`, made now unless it is there. Safe where several processes start at once: it is
        made aside and moved into place, the first one wins, and all use that. Raises EmulatorError.
        """
        if not (path / ANCHORS).exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            move_into_place(path, lambda aside: _lay_down(aside, _made(path, now)))
        return cls.open(path)

    @classmethod
    def open(cls, path: Path) -> Pki:
        """Load the PKI in the folder `path`. Raises EmulatorError where there is none, or a broken one."""
        try:
            loaded = {name: _load(path / "authorities", name) for name in AUTHORITIES}
            branches = {each: Branch(*(loaded[name] for name in _BRANCH_FILES[each])) for each in FAMILIES}
        except (OSError, ValueError, TypeError) as e:
            hint = "name an empty folder, or one that the emulator made"
            raise EmulatorError(f"{path} holds no PKI of the emulator ({e}): {hint}") from e
        return cls(path, loaded["device_root"], loaded["rim_root"], branches)

    @property
    def identity(self) -> Authority:
        return self.branches[HOPPER].identity

    @property
    def provisioner(self) -> Authority:
        return self.branches[HOPPER].provisioner

    @property
    def rim_ca(self) -> Authority:
        return self.branches[HOPPER].rim_ca

    @property
    def rim_l3(self) -> Authority:
        return self.branches[HOPPER].rim_l3

    @property
    def rim_l4(self) -> Authority:
        return self.branches[HOPPER].rim_l4

    @property
    def anchors(self) -> Path:
        """The file with the two roots (PEM, device root first), for `--trust-root`."""
        return self.path / ANCHORS

    @property
    def rims(self) -> Path:
        """The folder of reference manifests, for `--collateral`."""
        return self.path / "rims"

    @property
    def devices(self) -> Path:
        return self.path / "devices"


def new_key(curve: ec.EllipticCurve | None = None) -> ec.EllipticCurvePrivateKey:
    """A new private key, on P-384 unless a defect asks for another curve."""
    return ec.generate_private_key(curve or ec.SECP384R1())


def authority_name(common_name: str, *, country: bool = True) -> x509.Name:
    """A name as genuine intermediates have it: common name, organisation, country."""
    where = [x509.NameAttribute(NameOID.COUNTRY_NAME, "US")] if country else []
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name), _ORGANISATION, *where])


def end_name(common_name: str, serial: str = "") -> x509.Name:
    """A name as genuine devices and signers have it: (serial number,) country, organisation, common name."""
    number = [x509.NameAttribute(NameOID.SERIAL_NUMBER, serial)] if serial else []
    where = x509.NameAttribute(NameOID.COUNTRY_NAME, "US")
    return x509.Name([*number, where, _ORGANISATION, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def issue(
    profile: Profile, public_key: ec.EllipticCurvePublicKey, issuer: x509.Name, issuer_key: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    """One certificate, signed with ECDSA and SHA-384."""
    issuer_id = x509.SubjectKeyIdentifier.from_public_key(issuer_key.public_key())
    builder = (
        x509.CertificateBuilder()
        .subject_name(profile.subject)
        .issuer_name(issuer)
        .not_valid_before(profile.not_before)
        .not_valid_after(profile.not_after)
        .serial_number(profile.serial or int.from_bytes(os.urandom(16)) >> 1 | 1)
        .public_key(public_key)
    )
    if profile.ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(profile.ca, profile.path_length), critical=True)
    usage = x509.KeyUsage(**{each: each in profile.usage for each in _USAGES})
    builder = builder.add_extension(usage, critical=True)
    if profile.crl is not None:
        point = x509.DistributionPoint([x509.UniformResourceIdentifier(profile.crl)], None, None, None)
        builder = builder.add_extension(x509.CRLDistributionPoints([point]), critical=False)
    if profile.ocsp:
        access = x509.AccessDescription(AuthorityInformationAccessOID.OCSP, x509.UniformResourceIdentifier(OCSP_URL))
        builder = builder.add_extension(x509.AuthorityInformationAccess([access]), critical=False)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    authority_id = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_id)
    builder = builder.add_extension(authority_id, critical=False)
    for extension in (*profile.extensions, *profile.critical):
        builder = builder.add_extension(extension, critical=extension in profile.critical)
    return builder.sign(issuer_key, hashes.SHA384())


def move_into_place(path: Path, fill: Callable[[Path], None]) -> None:
    """
    Make the folder `path` at once: `fill` it aside, then rename it. Where another process was quicker, its folder
    stays and ours goes. Raises EmulatorError where something else is in the way.
    """
    aside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        fill(aside)
        aside.rename(path)
    except OSError as e:
        if not path.is_dir():
            raise EmulatorError(f"cannot make {path}: {e.strerror}") from e
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def pem(certificates: Iterable[x509.Certificate]) -> bytes:
    """PEM text of certificates, one after the other."""
    return b"".join(each.public_bytes(Encoding.PEM) for each in certificates)


def write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    """Write a private key, readable by its owner only."""
    data = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)


def read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Read a private key that `write_key` wrote. Raises OSError or ValueError."""
    key = load_pem_private_key(path.read_bytes(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError(f"{path.name} is no EC key")
    return key


# --- what the PKI is made of ------------------------------------------------------------------------------------------
_BRANCH = ("identity", "provisioner", "rim_ca", "rim_l3", "rim_l4")
_BRANCH_FILES: Mapping[Family, tuple[str, ...]] = {
    HOPPER: _BRANCH,
    BLACKWELL: tuple(f"gb100_{each}" for each in _BRANCH),
    LS10: ("identity", *(f"ls10_{each}" for each in _BRANCH[1:])),
}
AUTHORITIES = ("device_root", "rim_root", *dict.fromkeys(name for names in _BRANCH_FILES.values() for name in names))

# The dates of genuine device certificates are constants too, and the lower ones begin before the root does.
DEVICE_ROOT = Profile(
    authority_name("Emulated Device Identity CA", country=False),
    datetime(2021, 11, 5, tzinfo=UTC),
    FOREVER,
    CERT_AND_CRL_SIGN,
)
RIM_ROOT_NAME = "Emulated CoRIM signing Root CA"
_DAY = timedelta(days=1)
_YEAR = timedelta(days=365)


def identity_profile(family: Family) -> Profile:
    """The identity certificate of a family, below the root."""
    return Profile(
        authority_name(family.identity, country=False),
        family.identity_not_before,
        FOREVER,
        CERT_AND_CRL_SIGN,
        crl=f"{CRL_URL}/l1-root.crl",
        ocsp=True,
    )


def provisioner_profile(family: Family) -> Profile:
    """The provisioner's certificate of a family, below its identity certificate."""
    return Profile(
        authority_name(family.provisioner),
        family.provisioner_not_before,
        FOREVER,
        CERT_AND_CRL_SIGN,
        crl=f"{CRL_URL}/{family.crl}",
        ocsp=True,
    )


def rim_profiles(now: datetime, family: Family = HOPPER) -> tuple[Profile, Profile, Profile, Profile]:
    """Root, CA, L3 and L4 of a family's reference manifests, as long-lived from `now` on as genuine ones."""
    start = now.replace(hour=0, minute=0, second=0, microsecond=0) - _DAY
    root = Profile(end_name(RIM_ROOT_NAME), start, start + 30 * _YEAR, CERT_AND_CRL_SIGN)
    ca = replace(
        root,
        subject=authority_name(family.rim_ca),
        not_after=start + 10 * _YEAR,
        crl=f"{CRL_URL}/l1-corim.crl",
        ocsp=True,
    )
    l3 = replace(
        ca,
        subject=authority_name(family.rim_l3),
        not_after=start + 3.5 * _YEAR,
        path_length=0,
        crl=None,
    )
    l4 = replace(
        l3,
        subject=end_name(family.rim_l4),
        not_after=start + 2 * _YEAR,
        usage=DIGITAL_SIGNATURE,
        ca=False,
        path_length=None,
    )
    return root, ca, l3, l4


def _made(path: Path, now: datetime) -> Pki:
    device_root, rim_root = Authority.root(DEVICE_ROOT), Authority.root(rim_profiles(now)[0])
    hopper_identity = device_root.below(identity_profile(HOPPER))
    identities = {
        HOPPER: hopper_identity,
        BLACKWELL: device_root.below(identity_profile(BLACKWELL)),
        LS10: hopper_identity,
    }
    branches = {family: _branch(family, identity, rim_root, now) for family, identity in identities.items()}
    return Pki(path, device_root, rim_root, branches)


def _branch(family: Family, identity: Authority, rim_root: Authority, now: datetime) -> Branch:
    _, ca_profile, l3_profile, l4_profile = rim_profiles(now, family)
    ca = rim_root.below(ca_profile)
    l3 = ca.below(l3_profile)
    return Branch(identity, identity.below(provisioner_profile(family)), ca, l3, l3.below(l4_profile))


def _lay_down(folder: Path, pki: Pki) -> None:
    for each in ("authorities", "rims", "devices"):
        (folder / each).mkdir()
    authorities = {"device_root": pki.device_root, "rim_root": pki.rim_root}
    for family, branch in pki.branches.items():
        authorities |= {name: getattr(branch, each) for name, each in zip(_BRANCH_FILES[family], _BRANCH, strict=True)}
    for name, authority in authorities.items():
        write_key(folder / "authorities" / f"{name}.key", authority.key)
        (folder / "authorities" / f"{name}.pem").write_bytes(pem([authority.certificate]))
    (folder / ANCHORS).write_bytes(pem([pki.device_root.certificate, pki.rim_root.certificate]))


def _load(folder: Path, each: str) -> Authority:
    certificate = x509.load_pem_x509_certificate((folder / f"{each}.pem").read_bytes())
    return Authority(certificate, read_key(folder / f"{each}.key"))
