"""
What can be said of a document before any evidence is there: whether it is what it was asked for as, and how long it
keeps.

A document that fails here is not cached. One that passes is not believed yet: that the verifier decides, each time,
with the evidence in hand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.x509 import ocsp as x509_ocsp

from attest import ocsp
from attest.anchors import Anchors
from attest.collateral import CollateralKind, Document, Need
from attest.errors import AttestError
from attest.jws import strict_json
from attest.memo import Memo
from attest.nvidia import rim
from attest.nvidia.nras_keys import IssuerKey, key_named
from attest.snp import certificates, crl
from attest.snp.chain import Authority, verify_authority
from attest.tdx.collateral import check_alone
from attest.x509 import UNREADABLE, Path

REMEMBERED = 100
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
RIM_KEPT, RIM_RENEWED = DAY, 18 * HOUR  # NVIDIA signs manifests anew under the same id (spec/nvidia.md §9.2)
JWKS_KEPT, JWKS_RENEWED = HOUR, timedelta(minutes=45)
LISTS_RENEWED = DAY  # long before they run out: news of a revocation or a recovery should not wait for that
ISSUERS_RENEWED = 30 * DAY
_TIME = "%Y-%m-%dT%H:%M:%SZ"


class Rejected(Exception):
    """The bytes are no such document. The message says why."""


@dataclass(frozen=True, slots=True)
class Term:
    """
    From `renew_at` on a document should be fetched anew; from `expires_at` on, handing it out without is a makeshift.
    None: never. `issued_at` is when its vendor says it was made, where he does.
    """

    renew_at: datetime | None
    expires_at: datetime | None
    issued_at: datetime | None = None


class Checker:
    """Checks documents by kind; `anchors` are the roots that verifications trust."""

    def __init__(self, anchors: Anchors) -> None:
        self._anchors = anchors
        self._rims: Memo[rim.Rim] = Memo(REMEMBERED)
        self._paths: Memo[Path] = Memo(REMEMBERED)
        self._keys: Memo[IssuerKey] = Memo(REMEMBERED)
        self._authorities: Memo[Authority] = Memo(REMEMBERED)
        self._by_kind: Mapping[CollateralKind, Callable[[Need, Document, datetime], Term]] = {
            CollateralKind.NVIDIA_RIM: self._rim,
            CollateralKind.NVIDIA_OCSP: _ocsp,
            CollateralKind.NVIDIA_NRAS_JWKS: self._jwks,
            CollateralKind.INTEL_TCB_INFO: self._intel,
            CollateralKind.INTEL_QE_IDENTITY: self._intel,
            CollateralKind.INTEL_PCK_CRL: self._intel,
            CollateralKind.INTEL_ROOT_CRL: self._intel,
            CollateralKind.AMD_VCEK: _vcek,
            CollateralKind.AMD_ISSUERS: self._issuers,
            CollateralKind.AMD_CRL: self._amd_list,
        }

    def check(self, need: Need, document: Document, fetched_at: datetime) -> Term:
        """How long a document keeps that was fetched at that time; perhaps it ran out already. Rejected."""
        by_kind = self._by_kind.get(need.kind)
        if by_kind is None:
            raise Rejected(f"nobody knows documents of kind {need.kind}")
        try:
            return by_kind(need, document, fetched_at)
        except AttestError as e:
            raise Rejected(str(e)) from e
        except (*UNREADABLE, LookupError) as e:
            raise Rejected(f"it does not parse ({type(e).__name__}: {e})") from e

    def _rim(self, need: Need, document: Document, fetched_at: datetime) -> Term:
        """Signature and chain; and the version, which alone of its content is in its id (spec/nvidia.md §9.3)."""
        loaded = rim.load(document, self._anchors.nvidia_rim, known=self._rims, paths=self._paths)
        wanted = need.name.rsplit("_", 1)[-1].replace(".", "")
        if loaded.version.replace(".", "").upper() != wanted:
            raise Rejected(f"a RIM of version {loaded.version}")
        return Term(fetched_at + RIM_RENEWED, fetched_at + RIM_KEPT)

    def _jwks(self, _need: Need, document: Document, fetched_at: datetime) -> Term:
        """All keys must be ones, since we cannot know which will be asked for."""
        keys = strict_json(document.data)["keys"]
        if not isinstance(keys, list) or not keys:
            raise Rejected("no keys")
        for key in keys:
            key_named(str(key["kid"]), document, known=self._keys)
        return Term(fetched_at + JWKS_RENEWED, fetched_at + JWKS_KEPT)

    def _issuers(self, need: Need, document: Document, fetched_at: datetime) -> Term:
        """An authority below a pinned root, of the product and for the keys that the name says."""
        chain = certificates.load(document.data)
        if not chain:
            raise Rejected("no certificate")
        authority = verify_authority(chain, self._anchors.amd_ark, self._authorities)
        says = f"{authority.signing_key}/v1/{authority.ark.product}/cert_chain"
        if says != need.name:
            raise Rejected(f"it is {says}")
        return Term(fetched_at + ISSUERS_RENEWED, authority.certificate.not_after)

    def _intel(self, need: Need, document: Document, fetched_at: datetime) -> Term:
        """Signer, signature, and that it is for what its name says; of the root's list, that it parses."""
        issued, due = check_alone(document, need, self._anchors.intel_sgx)
        return _listed(issued, due, fetched_at)

    def _amd_list(self, need: Need, document: Document, fetched_at: datetime) -> Term:
        """Signed by a pinned root, and that of the product in the name."""
        if len(document.data) > crl.CRL_BYTES_MAX:
            raise Rejected(f"{len(document.data)} bytes")
        pem = document.data.lstrip().startswith(b"-----BEGIN X509 CRL-----")
        parsed = x509.load_pem_x509_crl(document.data) if pem else x509.load_der_x509_crl(document.data)
        issuer, product = parsed.issuer.rfc4514_string(), need.name.split("/")[2]
        arks = [ark for ark in self._anchors.amd_ark if (ark.subject, str(ark.product)) == (issuer, product)]
        if not any(certificates.signed_by(ark.key, parsed.signature, parsed.tbs_certlist_bytes) for ark in arks):
            raise Rejected(f"a list by {issuer} that no trusted root of {product} signed")
        return _listed(parsed.last_update_utc, parsed.next_update_utc or parsed.last_update_utc, fetched_at)


def _ocsp(need: Need, document: Document, fetched_at: datetime) -> Term:
    """An answer, and about this certificate. Signed by whom, only its issuer can tell, whom the evidence brings."""
    if len(document.data) > ocsp.RESPONSE_BYTES_MAX:
        raise Rejected(f"{len(document.data)} bytes")
    response = x509_ocsp.load_der_ocsp_response(document.data)
    if response.response_status is not x509_ocsp.OCSPResponseStatus.SUCCESSFUL:
        raise Rejected(f"the responder said {response.response_status.name.lower()}")
    singles = list(response.responses)
    if len(singles) != 1:
        raise Rejected(f"{len(singles)} answers")
    (single,) = singles
    name, key, serial = need.name.partition("@")[0].split(":")
    if single.serial_number != int(serial, 16):
        raise Rejected(f"an answer about certificate {single.serial_number:x}")
    # The name holds SHA-384; a responder that answers by another hash is left to the verifier, who has the issuer.
    same = (single.issuer_name_hash.hex(), single.issuer_key_hash.hex()) == (name, key)
    if single.hash_algorithm.name == "sha384" and not same:
        raise Rejected("an answer about another issuer's certificate")
    begin = single.this_update_utc
    if begin > fetched_at + ocsp.SKEW:
        raise Rejected(f"answered at {begin:{_TIME}}, which was to come")
    end = single.next_update_utc or begin + ocsp.NEXT_UPDATE_DEFAULT
    return Term(fetched_at + (end - fetched_at) / 2, end, begin)


def _listed(begin: datetime, end: datetime, fetched_at: datetime) -> Term:
    if begin > fetched_at + ocsp.SKEW:
        raise Rejected(f"issued at {begin:{_TIME}}, which was to come")
    return Term(fetched_at + min(LISTS_RENEWED, (end - fetched_at) / 2), end, begin)


def _vcek(_need: Need, document: Document, _fetched_at: datetime) -> Term:
    """One certificate. The name holds chip and firmware, so another document under it will never be needed."""
    found = certificates.load(document.data)
    if len(found) != 1:
        raise Rejected(f"{len(found)} certificates")
    return Term(None, None)
