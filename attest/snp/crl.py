"""
AMD's revocation lists. Each root issues one, of the authorities below it (ASK, ASVK).

There is no list of signing keys: AMD withdraws those by newer security versions, which the policy's minimum asks for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.x509.oid import CRLEntryExtensionOID, ExtensionOID

from attest.collateral import Document
from attest.errors import UntrustedCollateral, UntrustedEvidence
from attest.memo import Memo
from attest.reasons.snp import SNP_CRL_MALFORMED, SNP_CRL_SIGNATURE, SNP_CRL_TIME, SNP_REVOKED
from attest.snp.certificates import signed_by
from attest.snp.chain import Authority
from attest.x509 import UNREADABLE

CRL_BYTES_MAX = 256 << 10
ENTRIES_MAX = 4096
_UNDERSTOOD = frozenset({ExtensionOID.CRL_NUMBER, ExtensionOID.AUTHORITY_KEY_IDENTIFIER})
_ENTRY_UNDERSTOOD = frozenset({CRLEntryExtensionOID.CRL_REASON, CRLEntryExtensionOID.INVALIDITY_DATE})


@dataclass(frozen=True, slots=True)
class Crl:
    """A list that its root signed: serial numbers of what it revoked, and when it was to be believed."""

    serials: frozenset[int]
    not_before: datetime
    not_after: datetime


def check(document: Document, authority: Authority, *, now: datetime, known: Memo[Crl]) -> Crl:
    """
    That `authority` is not on the list, and the list is current. UntrustedEvidence if it is revoked,
    UntrustedCollateral if the list cannot be believed. Revocation outlives the list: an old one counts for it.
    """
    name = hashlib.sha256(document.data).digest() + authority.certificate.sha256
    crl = known.get(name) or known.put(name, _load(document.data, authority))
    if authority.certificate.serial in crl.serials:
        raise UntrustedEvidence(SNP_REVOKED, f"authority {authority.certificate.serial:#x}", "one that is not revoked")
    if not crl.not_before <= now <= crl.not_after:
        window = f"{crl.not_before:%Y-%m-%d} to {crl.not_after:%Y-%m-%d}"
        raise UntrustedCollateral(SNP_CRL_TIME, f"{now:%Y-%m-%dT%H:%M:%SZ}", window)
    return crl


def _load(data: bytes, authority: Authority) -> Crl:
    if len(data) > CRL_BYTES_MAX:
        raise UntrustedCollateral(SNP_CRL_MALFORMED, f"{len(data)} bytes", f"at most {CRL_BYTES_MAX}")
    try:
        pem = data.lstrip().startswith(b"-----BEGIN X509 CRL-----")
        crl = x509.load_pem_x509_crl(data) if pem else x509.load_der_x509_crl(data)
        _verify(crl, authority)
        return _read(crl)
    except UNREADABLE as e:
        raise UntrustedCollateral(SNP_CRL_MALFORMED, str(e), "a complete list of a root, DER or PEM") from e


def _verify(crl: x509.CertificateRevocationList, authority: Authority) -> None:
    issuer, wanted = crl.issuer.public_bytes(), authority.certificate.fields.issuer.public_bytes()
    if issuer != wanted or not signed_by(authority.ark.key, crl.signature, crl.tbs_certlist_bytes):
        raise UntrustedCollateral(SNP_CRL_SIGNATURE, crl.issuer.rfc4514_string(), f"signed by {authority.ark.subject}")


def _read(crl: x509.CertificateRevocationList) -> Crl:
    """A list of another scope (delta, indirect, partitioned) says so in a critical extension, and is none for us."""
    _check_critical(crl.extensions, _UNDERSTOOD)
    if crl.next_update_utc is None:
        raise ValueError("a list without next update")
    if len(crl) > ENTRIES_MAX:
        raise ValueError(f"more than {ENTRIES_MAX} entries")
    serials: set[int] = set()
    for entry in crl:
        _check_critical(entry.extensions, _ENTRY_UNDERSTOOD)
        serials.add(entry.serial_number)
    return Crl(frozenset(serials), crl.last_update_utc, crl.next_update_utc)


def _check_critical(extensions: Iterable[x509.Extension[x509.ExtensionType]], understood: frozenset[object]) -> None:
    for extension in extensions:
        if extension.critical and extension.oid not in understood:
            raise ValueError(f"critical extension {extension.oid.dotted_string}")
