"""
Whether Intel's documents are Intel's: signer, signature, revocation and time, before a quote is judged by them.

dcap-qvl checks most of this again with every quote. It is done here first, once per set of documents, because its one
sentence for all chains does not say whose fault it is, and because it leaves open what matters. Version 0.7.0 takes TCB
info signed by any leaf below the root, a machine's PCK key among them; it does not compare PCEID; and it takes
revocation lists from the future.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from attest.collateral import Document, Need
from attest.errors import UntrustedCollateral, UntrustedEvidence
from attest.memo import Memo
from attest.reasons.tdx import (
    TDX_COLLATERAL_CHAIN,
    TDX_COLLATERAL_MALFORMED,
    TDX_COLLATERAL_REVOKED,
    TDX_COLLATERAL_SIGNATURE,
    TDX_COLLATERAL_UNAVAILABLE,
    TDX_PCK_REVOKED,
)
from attest.tdx import qvl
from attest.tdx.documents import RevocationList, Signed, other, revocation_list, signed
from attest.tdx.needs import CAS, INTEL_PCK_CRL, INTEL_ROOT_CRL, INTEL_TCB_INFO, TD_QE, Needs
from attest.tdx.pck import Pck
from attest.tdx.roots import Root
from attest.x509 import UNREADABLE

SIGNER = "Intel SGX TCB Signing"
QE_STATUSES = {"UpToDate", "OutOfDate", "Revoked"}  # an enclave needs no configuration; the library would let it pass
_BROKEN = (*UNREADABLE, KeyError, x509.ExtensionNotFound)
_TIME = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True, slots=True)
class Prepared:
    """
    Documents that are Intel's. They may be used from `issued_at` on and run out at `fresh_until`, the first of their
    next updates; `not_after` is when the first certificate below them expires.
    """

    library: qvl.Library
    evaluation: int  # the lower evaluation number of TCB info and QE identity
    issued_at: datetime
    fresh_until: datetime
    not_after: datetime
    revoked: frozenset[int]  # serial numbers of PCK certificates
    revoked_cas: frozenset[int]


KnownCollateral = Memo[Prepared]


@dataclass(frozen=True, slots=True)
class _Dated:
    issued: datetime
    next_update: datetime
    not_after: datetime  # of the signer


def prepare(documents: Mapping[Need, Document], pck: Pck, *, known: KnownCollateral) -> Prepared:
    """The four documents of a machine, verified below the root of its own chain. UntrustedCollateral otherwise."""
    needs = pck.needs
    if missing := [str(need) for need in needs.all if need not in documents]:
        raise UntrustedCollateral(TDX_COLLATERAL_UNAVAILABLE, "missing", ", ".join(missing))
    key = (pck.fmspc, pck.pce_id, pck.root, pck.ca, pck.ca_name, *(documents[need].sha256 for need in needs.all))
    return known.get(key) or known.put(key, _prepare(documents, needs, pck))


def check_alone(document: Document, need: Need, roots: Sequence[Root]) -> tuple[datetime, datetime]:
    """
    What can be said of one document before there is a quote: that it is what its name says, and that its signer is
    below the root of `roots` that the name's mark means. When it was issued, and when the next one is due.

    UntrustedCollateral otherwise. Of the root's own list, only that it parses: its signer comes with a quote.
    """
    try:
        if need.kind == INTEL_ROOT_CRL:
            parsed = x509.load_der_x509_crl(revocation_list(document, need).der)
            return parsed.last_update_utc, parsed.next_update_utc or parsed.last_update_utc
        dated = _pck_list_alone(document, need, roots) if need.kind == INTEL_PCK_CRL else _text(document, need, roots)
    except _BROKEN as e:
        raise UntrustedCollateral(TDX_COLLATERAL_MALFORMED, f"{type(e).__name__} {e}", "a document that parses") from e
    return dated.issued, dated.next_update


def _text(document: Document, need: Need, roots: Sequence[Root]) -> _Dated:
    text, named = signed(document, need), need.name.partition("@")[0]
    found = str(text.says["fmspc" if need.kind == INTEL_TCB_INFO else "id"])
    if found.upper() != named:
        raise other(need, found, named)
    return _signed(text, need, _root_above(text.chain, need, roots), frozenset())


def _pck_list_alone(document: Document, need: Need, roots: Sequence[Root]) -> _Dated:
    crl = revocation_list(document, need)
    ca = _issuer(crl.chain, need, _root_above(crl.chain, need, roots))
    if CAS.get(_common_name(ca)) != need.name.partition("@")[0]:
        raise other(need, f"issued by {_common_name(ca)}", need.name)
    return _list(crl, need, ca)[1]


def _root_above(chain: str, need: Need, roots: Sequence[Root]) -> x509.Certificate:
    """The last of an issuer chain, if it is the root whose documents the need names."""
    last = x509.load_pem_x509_certificates(chain.encode())[-1]
    sha256 = last.fingerprint(SHA256()).hex()
    mark = need.name[need.name.find("@") :] if "@" in need.name else ""
    if not any(root.sha256 == sha256 and root.mark == mark for root in roots):
        raise UntrustedCollateral(TDX_COLLATERAL_CHAIN, f"{need}: root {sha256[:16]}", "a root that is trusted for it")
    return last


def check_revocation(prepared: Prepared, pck: Pck) -> None:
    """Whether Intel has revoked the machine or its CA. UntrustedEvidence if so."""
    if pck.serial in prepared.revoked or pck.ca_serial in prepared.revoked_cas:
        raise UntrustedEvidence(TDX_PCK_REVOKED, f"serial number {pck.serial:x}", "one that is not revoked")


def _prepare(documents: Mapping[Need, Document], needs: Needs, pck: Pck) -> Prepared:
    tcb_info = signed(documents[needs.tcb_info], needs.tcb_info)
    qe_identity = signed(documents[needs.qe_identity], needs.qe_identity)
    pck_crl = revocation_list(documents[needs.pck_crl], needs.pck_crl)
    root_crl = revocation_list(documents[needs.root_crl], needs.root_crl)
    try:
        root = x509.load_der_x509_certificate(pck.root_der)
        revoked_cas, dated_root = _root_list(root_crl, needs.root_crl, root)
        revoked, dated_pcks = _pck_list(pck_crl, needs.pck_crl, root, pck)
        dated = [
            dated_root,
            dated_pcks,
            _signed(tcb_info, needs.tcb_info, root, revoked_cas),
            _signed(qe_identity, needs.qe_identity, root, revoked_cas),
        ]
        evaluation = _for_this(tcb_info.says, qe_identity.says, needs, pck)
    except _BROKEN as e:
        raise UntrustedCollateral(TDX_COLLATERAL_MALFORMED, f"{type(e).__name__} {e}", "documents that parse") from e
    return Prepared(
        library=qvl.collateral_of(tcb_info, qe_identity, pck_crl, root_crl),
        evaluation=evaluation,
        issued_at=max(each.issued for each in dated),
        fresh_until=min(each.next_update for each in dated),
        not_after=min(each.not_after for each in dated),
        revoked=revoked,
        revoked_cas=revoked_cas,
    )


def _for_this(tcb_info: Mapping[str, Any], identity: Mapping[str, Any], needs: Needs, pck: Pck) -> int:
    """That both are for this machine. Their evaluation number, the lower one."""
    said = (str(tcb_info.get("id")), str(tcb_info.get("fmspc")).upper(), str(tcb_info.get("pceId")).lower())
    if said != ("TDX", pck.fmspc, pck.pce_id):
        found = f"{said[0]}, FMSPC {said[1]}, PCEID {said[2]}"
        raise other(needs.tcb_info, found, f"TDX, FMSPC {pck.fmspc}, PCEID {pck.pce_id}")
    if identity.get("id") != TD_QE:
        raise other(needs.qe_identity, str(identity.get("id")), TD_QE)
    statuses = {str(level["tcbStatus"]) for level in identity["tcbLevels"]}
    if not statuses <= QE_STATUSES:
        raise ValueError(f"statuses of quoting enclaves {sorted(statuses)}")
    return min(int(each["tcbEvaluationDataNumber"]) for each in (tcb_info, identity))


def _signed(document: Signed, need: Need, root: x509.Certificate, revoked: frozenset[int]) -> _Dated:
    """TCB info or QE identity: signed by the one signer, directly below the root."""
    signer = _issuer(document.chain, need, root)
    if _common_name(signer) != SIGNER or _is_ca(signer):
        raise UntrustedCollateral(TDX_COLLATERAL_CHAIN, f"{need}: signed by {_common_name(signer)}", SIGNER)
    if signer.serial_number in revoked:
        raise UntrustedCollateral(TDX_COLLATERAL_REVOKED, f"{need}: {signer.serial_number:x}", "one not revoked")
    r, s = (int.from_bytes(half, "big") for half in (document.signature[:32], document.signature[32:]))
    try:
        _key(signer).verify(encode_dss_signature(r, s), document.text.encode(), ECDSA(SHA256()))
    except InvalidSignature as e:
        raise UntrustedCollateral(TDX_COLLATERAL_SIGNATURE, str(need), "a signature that holds") from e
    issued = max(_moment(document.says["issueDate"]), signer.not_valid_before_utc)
    return _Dated(issued, _moment(document.says["nextUpdate"]), signer.not_valid_after_utc)


def _root_list(document: RevocationList, need: Need, root: x509.Certificate) -> tuple[frozenset[int], _Dated]:
    serials, dated = _list(document, need, root)
    if root.serial_number in serials:
        raise UntrustedCollateral(TDX_COLLATERAL_REVOKED, f"{need}: the root itself", "one not revoked")
    return serials, dated


def _pck_list(document: RevocationList, need: Need, root: x509.Certificate, pck: Pck) -> tuple[frozenset[int], _Dated]:
    ca = _issuer(document.chain, need, root)
    if ca.subject.public_bytes() != pck.ca_name or not _is_ca(ca):
        raise other(need, f"issued by {_common_name(ca)}", f"the {pck.ca} CA that issued the machine's certificate")
    return _list(document, need, ca)


def _list(document: RevocationList, need: Need, issuer: x509.Certificate) -> tuple[frozenset[int], _Dated]:
    parsed = x509.load_der_x509_crl(document.der)
    if parsed.issuer != issuer.subject:
        raise other(need, f"issued by {parsed.issuer.rfc4514_string()}", issuer.subject.rfc4514_string())
    if not parsed.is_signature_valid(_key(issuer)):
        raise UntrustedCollateral(TDX_COLLATERAL_SIGNATURE, str(need), "a signature that holds")
    end = parsed.next_update_utc or parsed.last_update_utc  # one that names no end has ended
    dated = _Dated(parsed.last_update_utc, end, issuer.not_valid_after_utc)
    return frozenset(each.serial_number for each in parsed), dated


def _issuer(chain: str, need: Need, root: x509.Certificate) -> x509.Certificate:
    """The first of an issuer chain, which is [issuer, root]."""
    certificates = x509.load_pem_x509_certificates(chain.encode())
    if len(certificates) != 2 or certificates[1].public_bytes(Encoding.DER) != root.public_bytes(Encoding.DER):
        found = f"{need}: {len(certificates)} certificates, or another root"
        raise UntrustedCollateral(TDX_COLLATERAL_CHAIN, found, "issuer and the root that the quote rests on")
    try:
        certificates[0].verify_directly_issued_by(root)
    except (InvalidSignature, ValueError, TypeError) as e:
        raise UntrustedCollateral(TDX_COLLATERAL_CHAIN, f"{need}: not issued by the root", "an issuer below it") from e
    return certificates[0]


def _key(certificate: x509.Certificate) -> EllipticCurvePublicKey:
    key = certificate.public_key()
    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP256R1):
        raise ValueError("a key that is not P-256")
    return key


def _is_ca(certificate: x509.Certificate) -> bool:
    return bool(certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca)


def _common_name(certificate: x509.Certificate) -> str:
    (attribute,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(attribute.value)


def _moment(text: object) -> datetime:
    return datetime.strptime(str(text), _TIME).replace(tzinfo=UTC)
