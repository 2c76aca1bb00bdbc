"""
The one door to dcap-qvl, which does what is not written by hand: QE report, TCB levels, TDX module, convergence.

It says what is wrong in words only. `_REFUSALS` maps the beginning of each to a reason; what it says otherwise is
refused without a code of its own. Its signatures and chains repeat what `collateral` and `pck` found out: they say
whose fault something is, and close what dcap-qvl 0.7 leaves open (see there).
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import dcap_qvl

from attest.errors import AttestError, UntrustedCollateral, UntrustedEvidence
from attest.reasons import Fault, Reason
from attest.reasons import tdx as reasons
from attest.tdx.documents import RevocationList, Signed
from attest.tdx.quote import Quote

Library: TypeAlias = "dcap_qvl.QuoteCollateralV3"  # the documents in the library's form

# Below the extension: the platform's configuration, and in it booleans by the last number of their OIDs.
_CONFIGURATION = "1.2.840.113741.1.13.1.7"
FLAGS = {"dynamic_platform": 1, "cached_keys": 2, "smt_enabled": 3}
_FLAG = bytes.fromhex("060b2a864886f84d010d0107")  # OID, 11 bytes, all but the last
_BOOLEAN = {bytes.fromhex("0101ff"): "yes", bytes.fromhex("010100"): "no"}

# Fields of the body by the library's names and ours.
_COMPARED = {
    "tee_tcb_svn": "tee_tcb_svn",
    "td_attributes": "td_attributes",
    "mr_td": "mrtd",
    "mr_config_id": "mrconfigid",
    "rt_mr0": "rtmr0",
    "rt_mr1": "rtmr1",
    "rt_mr2": "rtmr2",
    "rt_mr3": "rtmr3",
    "report_data": "report_data",
}

_PREFIX = "Verification failed: "

# Texts of dcap-qvl 0.7.0; tests provoke each that can be provoked.
_REFUSALS: tuple[tuple[str, Reason], ...] = (
    ("Failed to decode quote", reasons.TDX_QUOTE_MALFORMED),
    ("Failed to decode QE report", reasons.TDX_QUOTE_MALFORMED),
    ("Invalid QE auth data length", reasons.TDX_QUOTE_MALFORMED),
    ("Unsupported DCAP", reasons.TDX_QUOTE_UNSUPPORTED),
    ("Unsupported TEE type", reasons.TDX_QUOTE_UNSUPPORTED),
    ("TDX TEE quote must have version", reasons.TDX_QUOTE_UNSUPPORTED),
    ("Unknown QE vendor ID", reasons.TDX_QUOTE_UNSUPPORTED),
    ("Failed to extract PCK certificates", reasons.TDX_CERTIFICATES_MALFORMED),
    ("Failed to parse PCK certificate", reasons.TDX_CERTIFICATES_MALFORMED),
    ("Certificate chain is too short in quote", reasons.TDX_CERTIFICATES_MALFORMED),
    ("Intel extension not found", reasons.TDX_CERTIFICATES_MALFORMED),
    ("Failed to verify certificate chain", reasons.TDX_PCK_CHAIN),  # all other chains have been verified before
    ("Signature is invalid for qe_report", reasons.TDX_QE_SIGNATURE),
    ("QE report hash mismatch", reasons.TDX_QE_BINDING),
    ("ISV enclave report signature is invalid", reasons.TDX_QUOTE_SIGNATURE),
    ("QE MRSIGNER mismatch", reasons.TDX_QE_IDENTITY),
    ("QE ISVPRODID mismatch", reasons.TDX_QE_IDENTITY),
    ("QE MISCSELECT mismatch", reasons.TDX_QE_IDENTITY),
    ("QE ATTRIBUTES mismatch", reasons.TDX_QE_IDENTITY),
    ("QE report validation failed", reasons.TDX_QE_IDENTITY),  # a debug build
    ("QE ISVSVN", reasons.TDX_QE_TOO_OLD),
    ("No TCB levels found in QE Identity", reasons.TDX_COLLATERAL_MALFORMED),
    ("Signature is invalid for tcb_info", reasons.TDX_COLLATERAL_SIGNATURE),
    ("Signature is invalid for qe_identity", reasons.TDX_COLLATERAL_SIGNATURE),
    ("Certificate chain is too short for", reasons.TDX_COLLATERAL_CHAIN),
    ("Failed to decode TcbInfo", reasons.TDX_COLLATERAL_MALFORMED),
    ("Failed to decode QeIdentity", reasons.TDX_COLLATERAL_MALFORMED),
    ("Failed to parse TCB Info", reasons.TDX_COLLATERAL_MALFORMED),
    ("Failed to parse QE Identity", reasons.TDX_COLLATERAL_MALFORMED),
    ("Failed to parse root CA CRL", reasons.TDX_COLLATERAL_MALFORMED),
    ("Failed to parse PCK CRL", reasons.TDX_COLLATERAL_MALFORMED),
    ("Unrecognized TCB status", reasons.TDX_COLLATERAL_MALFORMED),
    ("TCBInfo expired", reasons.TDX_COLLATERAL_STALE),
    ("QE Identity expired", reasons.TDX_COLLATERAL_STALE),
    ("CrlExpired", reasons.TDX_COLLATERAL_STALE),
    ("TCBInfo issue date is in the future", reasons.TDX_COLLATERAL_TIME),
    ("QE Identity issue date is in the future", reasons.TDX_COLLATERAL_TIME),
    ("CertRevoked", reasons.TDX_COLLATERAL_REVOKED),  # the root itself
    ("Unsupported QE Identity id/version", reasons.TDX_COLLATERAL_OTHER),
    ("TDX quote with non-TDX TCB info", reasons.TDX_COLLATERAL_OTHER),
    ("Fmspc mismatch", reasons.TDX_COLLATERAL_OTHER),
    ("TDX module identity check", reasons.TDX_MODULE_UNKNOWN),
    ("TDX module TCB level check", reasons.TDX_MODULE_UNKNOWN),
    ("No matching TCB level found", reasons.TDX_TCB_UNSUPPORTED),
    ("TCB status is invalid: Revoked", reasons.TDX_TCB_REVOKED),
    ("Debug mode is enabled", reasons.TDX_DEBUG),
    ("TD profiling is enabled", reasons.TDX_PROFILING),
    ("TD migration is enabled", reasons.TDX_MIGRATABLE),
    ("SERVTD_EXT is enabled", reasons.TDX_SERVICE_TD),
    ("Invalid MR service TD", reasons.TDX_SERVICE_TD),
    ("SEPT_VE_DISABLE is not enabled", reasons.TDX_SEPT_VE),
    ("Reserved bits in TD attributes are set", reasons.TDX_RESERVED),
)


@dataclass(frozen=True, slots=True)
class PckExtension:
    """What Intel's extension 1.2.840.113741.1.13.1 of a PCK certificate says of the machine."""

    fmspc: bytes
    pce_id: bytes
    ppid: bytes
    instance: bytes | None
    flags: Mapping[str, str]  # of FLAGS: "yes", "no" or "unstated"


@dataclass(frozen=True, slots=True)
class Judged:
    """What Intel's rules say of machine, TDX module and quoting enclave together."""

    status: str
    advisories: tuple[str, ...]


def pck_extension(pem: bytes) -> PckExtension:
    """Of the first certificate of a PEM text. ValueError if it has none that parses."""
    found = dcap_qvl.parse_pck_extension_from_pem(pem)
    configuration = found.get_value(_CONFIGURATION) or b""
    flags = {
        name: _BOOLEAN.get(_after(configuration, _FLAG + bytes([last])), "unstated") for name, last in FLAGS.items()
    }
    return PckExtension(found.fmspc, found.pce_id, found.ppid, found.platform_instance_id, flags)


def _after(data: bytes, oid: bytes) -> bytes:
    """The 3 bytes after an OID: a DER boolean, if it is one."""
    _, found, rest = data.partition(oid)
    return rest[:3] if found else b""


def collateral_of(tcb_info: Signed, qe_identity: Signed, pck_crl: RevocationList, root_crl: RevocationList) -> Library:
    """The documents in the library's form: without a PCK chain, since each quote has its own."""
    return dcap_qvl.QuoteCollateralV3(
        pck_crl_issuer_chain=pck_crl.chain,
        root_ca_crl=root_crl.der,
        pck_crl=pck_crl.der,
        tcb_info_issuer_chain=tcb_info.chain,
        tcb_info=tcb_info.text,
        tcb_info_signature=tcb_info.signature,
        qe_identity_issuer_chain=qe_identity.chain,
        qe_identity=qe_identity.text,
        qe_identity_signature=qe_identity.signature,
    )


def verify(quote: Quote, collateral: Library, root: bytes, at: int) -> Judged:
    """
    What Intel's rules say of a genuine quote at `at` (Unix seconds), below the root certificate (DER). Or AttestError.

    Whether we like it is `attest.tdx.appraise`'s. That library and we read the same bytes alike is checked, too.
    """
    try:
        report = dcap_qvl.verify_with_root_ca(quote.whole, collateral, root, at)
        body = dcap_qvl.parse_quote(quote.whole).report
        judged = Judged(str(report.status), tuple(map(str, report.advisory_ids)))
    except (ValueError, OverflowError, TypeError) as e:
        raise refusal(str(e)) from e
    except BaseException as e:
        if type(e).__name__ != "PanicException":  # a panic of the library is no Exception, and cannot be imported
            raise
        raise refusal("the verifying library panicked") from e
    for theirs, ours in _COMPARED.items():
        if not hmac.compare_digest(getattr(body, theirs), getattr(quote.td, ours)):
            raise refusal(f"two readings of {ours}")
    return judged


def refusal(text: str) -> AttestError:
    """The error for a text of the library's. What is unknown is refused, and is the node's fault until explained."""
    said = text.removeprefix(_PREFIX)
    reason = next((reason for start, reason in _REFUSALS if said.startswith(start)), reasons.TDX_REFUSED)
    kind = UntrustedCollateral if reason.fault is Fault.COLLATERAL else UntrustedEvidence
    return kind(reason, said)
