"""
Every way in which a test or the demo may ask an emulated SEV-SNP guest to be wrong, by name.

The reason is what a verifier and a policy give that ask for no less than the good guest has: its TCB as the minimum,
its measurement and host data listed, revocation required.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType

from attest.reasons import REVOCATION_NOT_CHECKED
from attest.reasons import snp as reasons
from nodeprobe.emulator.pki import EmulatorError
from nodeprobe.emulator.snp_chain_defects import CHAIN_DEFECTS, FUTURE, PAST, foreign_root, other_hwid
from nodeprobe.emulator.snp_defect import SnpDefect, Spoil, of_documents, older
from nodeprobe.emulator.snp_draft import SnpDraft
from nodeprobe.emulator.snp_report_defects import REPORT_DEFECTS


def named(wanted: str) -> SnpDefect:
    """The defect of this name. Raises EmulatorError, with a list of all, where there is none."""
    found = SNP_DEFECTS.get(wanted)
    if found is None:
        raise EmulatorError(f"there is no defect {wanted!r}; there are: {', '.join(sorted(SNP_DEFECTS))}")
    return found


def _revoked(draft: SnpDraft) -> None:
    draft.revoked.append(draft.authority.certificate.serial_number)


def _revoked_long_ago(draft: SnpDraft) -> None:
    _revoked(draft)
    draft.crl_window = PAST


def _crl_foreign(draft: SnpDraft) -> None:
    draft.crl_by = draft.authority


def _crl_delta(draft: SnpDraft) -> None:
    draft.crl_delta = True


def _crl(window: tuple[datetime, datetime]) -> Spoil:
    def spoil(draft: SnpDraft) -> None:
        draft.crl_window = window

    return spoil


def _garbage(_path: str) -> bytes:
    return b"\x30\x03\x02\x01\x01"


def _absent(_path: str) -> None:
    return None


DOCUMENT_DEFECTS = (
    SnpDefect("revoked", "the authority is on the list", reasons.SNP_REVOKED, _revoked),
    SnpDefect("revoked-long-ago", "it is on an old list", reasons.SNP_REVOKED, _revoked_long_ago),
    SnpDefect("crl-absent", "there is no list", REVOCATION_NOT_CHECKED, of_documents(_absent, "/crl")),
    SnpDefect("crl-foreign", "somebody else signed the list", reasons.SNP_CRL_SIGNATURE, _crl_foreign),
    SnpDefect("crl-expired", "the list is old", reasons.SNP_CRL_TIME, _crl(PAST)),
    SnpDefect("crl-not-yet", "the list is of tomorrow", reasons.SNP_CRL_TIME, _crl(FUTURE)),
    SnpDefect("crl-delta", "the list is not whole", reasons.SNP_CRL_MALFORMED, _crl_delta),
    SnpDefect("crl-garbage", "it is no list", reasons.SNP_CRL_MALFORMED, of_documents(_garbage, "/crl")),
    SnpDefect("vcek-unavailable", "no VCEK", reasons.SNP_VEK_UNAVAILABLE, of_documents(_absent, "?"), carries=0),
    SnpDefect(
        "vcek-garbage", "another document", reasons.SNP_DOCUMENT_UNTRUSTED, of_documents(_garbage, "?"), carries=0
    ),
    SnpDefect("vcek-of-other-tcb", "a wrong VCEK", reasons.SNP_DOCUMENT_UNTRUSTED, older("vek"), carries=0),
    SnpDefect("vcek-of-other-chip", "a wrong VCEK", reasons.SNP_DOCUMENT_UNTRUSTED, other_hwid, carries=0),
    SnpDefect(
        "issuers-unavailable",
        "no ASK",
        reasons.SNP_ISSUERS_UNAVAILABLE,
        of_documents(_absent, "/cert_chain"),
        carries=1,
    ),
    SnpDefect(
        "issuers-garbage",
        "another document",
        reasons.SNP_DOCUMENT_UNTRUSTED,
        of_documents(_garbage, "/cert_chain"),
        carries=1,
    ),
    SnpDefect("issuers-foreign", "another root", reasons.SNP_DOCUMENT_UNTRUSTED, foreign_root, carries=1),
)

_ALL = (*REPORT_DEFECTS, *CHAIN_DEFECTS, *DOCUMENT_DEFECTS)
SNP_DEFECTS: Mapping[str, SnpDefect] = MappingProxyType({each.name: each for each in _ALL})
