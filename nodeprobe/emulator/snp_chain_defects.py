"""What may be wrong with the certificates behind a SEV-SNP report."""

from __future__ import annotations

from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from attest.reasons import CERTIFICATES_MALFORMED, CHAIN_LINK, CHAIN_PROFILE, CHAIN_ROOT, CHAIN_TIME
from attest.reasons import snp as reasons
from nodeprobe.emulator.pki import new_key
from nodeprobe.emulator.snp_defect import SnpDefect, Spoil, extension, of_certificates, of_vek
from nodeprobe.emulator.snp_draft import SnpDraft, ia5
from nodeprobe.emulator.snp_pki import RsaAuthority, authority_certificate, common_name

PAST = datetime(2021, 1, 1, tzinfo=UTC), datetime(2022, 1, 1, tzinfo=UTC)
FUTURE = datetime(2090, 1, 1, tzinfo=UTC), datetime(2095, 1, 1, tzinfo=UTC)
_VCEK, _AUTHORITY, _ROOT = range(3)


def _reissued(
    draft: SnpDraft,
    *,
    common: str = "",
    ca: bool = True,
    signs: bool = True,
    window: tuple[datetime, datetime] | None = None,
) -> None:
    """The same authority under the same root, with something else in its certificate."""
    old = draft.authority.certificate
    certificate = authority_certificate(
        common or common_name(old),
        draft.authority.key.public_key(),
        old.issuer,
        draft.ark.key,
        window or (old.not_valid_before_utc, old.not_valid_after_utc),
        ca=ca,
        signs=signs,
    )
    _put_authority(draft, RsaAuthority(certificate, draft.authority.key))


def _put_authority(draft: SnpDraft, authority: RsaAuthority) -> None:
    draft.authority = draft.vek.issuer = authority


def foreign_root(draft: SnpDraft) -> None:
    """Every name is right, and every signature; the root's key is somebody else's."""
    old, key = draft.ark.certificate, draft.authority.key  # any key but the root's will do
    window = old.not_valid_before_utc, old.not_valid_after_utc
    root = authority_certificate(common_name(old), key.public_key(), old.subject, key, window, root=True)
    draft.ark = RsaAuthority(root, key)
    _reissued(draft)


def _foreign_root_swapped(draft: SnpDraft) -> None:
    """As above, with the pinned root put behind it."""
    pinned = draft.ark
    foreign_root(draft)
    draft.ark = pinned


def _unknown_root(draft: SnpDraft) -> None:
    old = draft.authority.certificate
    window = old.not_valid_before_utc, old.not_valid_after_utc
    stranger = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ARK-Elsewhere")])
    certificate = authority_certificate(
        common_name(old), draft.authority.key.public_key(), stranger, draft.ark.key, window
    )
    _put_authority(draft, RsaAuthority(certificate, draft.authority.key))


def _foreign_authority(draft: SnpDraft) -> None:
    """Signed by a key that is not its authority's."""
    draft.vek.issuer = RsaAuthority(draft.authority.certificate, draft.ark.key)


def _authority_may_not_sign(draft: SnpDraft) -> None:
    _reissued(draft, signs=False)


def _weak_authority(draft: SnpDraft) -> None:
    old, key = draft.authority.certificate, rsa.generate_private_key(65537, 2048)
    window = old.not_valid_before_utc, old.not_valid_after_utc
    certificate = authority_certificate(common_name(old), key.public_key(), old.issuer, draft.ark.key, window)
    _put_authority(draft, RsaAuthority(certificate, key))


def _by_provider_authority(draft: SnpDraft) -> None:
    _reissued(draft, common=common_name(draft.authority.certificate).replace("SEV-", "SEV-VLEK-"))


def other_hwid(draft: SnpDraft) -> None:
    draft.vek.hwid = bytes([draft.vek.hwid[0] ^ 1]) + draft.vek.hwid[1:]


def _p256(draft: SnpDraft) -> None:
    draft.vek.key = new_key(ec.SECP256R1()).public_key()


def _vek_extra(extension: x509.ExtensionType) -> Spoil:
    return lambda draft: draft.vek.extra.append((extension, True))


_CERTIFICATE_POLICIES = x509.CertificatePolicies([x509.PolicyInformation(x509.ObjectIdentifier("2.5.29.32.0"), None)])

CHAIN_DEFECTS = (
    SnpDefect("foreign-root", "the root has another key", CHAIN_ROOT, foreign_root),
    SnpDefect("foreign-root-swapped", "the pinned root behind a foreign chain", CHAIN_LINK, _foreign_root_swapped),
    SnpDefect("unknown-root", "a root of another name", CHAIN_ROOT, _unknown_root),
    SnpDefect("foreign-authority", "the key was certified by somebody else", CHAIN_LINK, _foreign_authority),
    SnpDefect("authority-no-ca", "the authority is no CA", CHAIN_PROFILE, lambda draft: _reissued(draft, ca=False)),
    SnpDefect("authority-may-not-sign", "its key usage lacks certificates", CHAIN_PROFILE, _authority_may_not_sign),
    SnpDefect("authority-weak", "the authority's key is RSA-2048", CHAIN_PROFILE, _weak_authority),
    SnpDefect(
        "authority-name", "an authority for nothing", CHAIN_PROFILE, lambda draft: _reissued(draft, common="SEV-Rome")
    ),
    SnpDefect(
        "authority-expired", "the authority has expired", CHAIN_TIME, lambda draft: _reissued(draft, window=PAST)
    ),
    SnpDefect("vek-expired", "the signing key's certificate has expired", CHAIN_TIME, of_vek(window=PAST)),
    SnpDefect("vek-not-yet", "it is not valid yet", CHAIN_TIME, of_vek(window=FUTURE)),
    SnpDefect("vek-product", "it is for Genoa", reasons.SNP_PRODUCT_MISMATCH, of_vek(product="Genoa-B1")),
    SnpDefect("vek-product-absent", "it names no product", reasons.SNP_PRODUCT_MISMATCH, extension("2", None)),
    SnpDefect("vek-product-unknown", "it is for Rome", reasons.SNP_PRODUCT_MISMATCH, extension("2", ia5("Rome"))),
    SnpDefect("vek-name", "it is named as a provider's", reasons.SNP_SIGNING_KEY, of_vek(common="SEV-VLEK")),
    SnpDefect("vek-by-provider-authority", "the ASVK certified it", reasons.SNP_SIGNING_KEY, _by_provider_authority),
    SnpDefect("vek-of-other-chip", "it is of another chip", reasons.SNP_CHIP_MISMATCH, other_hwid),
    SnpDefect("vek-without-chip", "it names no chip", reasons.SNP_VEK_PROFILE, of_vek(hwid=b"")),
    SnpDefect("vek-zero-chip", "it names a masked chip", reasons.SNP_VEK_PROFILE, of_vek(hwid=bytes(64))),
    SnpDefect("vek-with-provider", "it names a provider", reasons.SNP_VEK_PROFILE, of_vek(csp="CN=somebody")),
    SnpDefect("vek-without-microcode", "a version is absent", reasons.SNP_VEK_PROFILE, extension("3.8", None)),
    SnpDefect("vek-long-version", "not DER", reasons.SNP_VEK_PROFILE, extension("3.3", bytes.fromhex("02020018"))),
    SnpDefect("vek-negative-version", "below 0", reasons.SNP_VEK_PROFILE, extension("3.8", bytes.fromhex("0201db"))),
    SnpDefect("vek-p256", "its key is P-256", reasons.SNP_VEK_PROFILE, _p256),
    SnpDefect(
        "vek-is-ca", "it may certify others", reasons.SNP_VEK_PROFILE, _vek_extra(x509.BasicConstraints(True, 0))
    ),
    SnpDefect("vek-critical", "an unknown demand", reasons.SNP_VEK_PROFILE, _vek_extra(_CERTIFICATE_POLICIES)),
    SnpDefect(
        "certificates-garbage", "no certificates", CERTIFICATES_MALFORMED, of_certificates(lambda _: [b"\x30\x82"])
    ),
    SnpDefect("certificate-tampered", "changed since", CHAIN_LINK, of_certificates(lambda chain: _tampered(chain))),
    SnpDefect(
        "certificates-four",
        "one too many",
        CERTIFICATES_MALFORMED,
        of_certificates(lambda chain: [chain[_VCEK] + chain[_AUTHORITY], chain[_ROOT], chain[_ROOT]]),
    ),
)


def _tampered(chain: list[bytes]) -> list[bytes]:
    """A later end of validity, in the signed part of the first certificate."""
    vek = chain[_VCEK]
    at = vek.index(b"Z", vek.index(b"Z") + 1) - 1
    return [vek[:at] + bytes([vek[at] ^ 1]) + vek[at + 1 :], *chain[_AUTHORITY:]]
