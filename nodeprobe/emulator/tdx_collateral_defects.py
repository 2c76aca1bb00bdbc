"""What may be wrong with Intel's documents: TCB statuses, revocation, age, signers, and what they are for."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from nodeprobe.emulator.pki import Authority
from nodeprobe.emulator.tdx_collateral import CollateralDraft, stamp
from nodeprobe.emulator.tdx_defect import TdxDefect
from nodeprobe.emulator.tdx_pki import PckDraft, new_root, new_signer, p256

_STATUS, _STALE, _TIME = "tdx-tcb-status", "tdx-collateral-stale", "tdx-collateral-time"
_SIGNATURE, _CHAIN, _OTHER = "tdx-collateral-signature", "tdx-collateral-chain", "tdx-collateral-other"
_MALFORMED, _REVOKED = "tdx-collateral-malformed", "tdx-collateral-revoked"
_HOUR, _DAY = timedelta(hours=1), timedelta(days=1)

Spoil = Callable[[CollateralDraft], None]


def _platform(status: str, *advisories: str) -> Spoil:
    return lambda draft: draft.tcb_info["tcbLevels"][0].update(tcbStatus=status, advisoryIDs=list(advisories))


def _module(status: str) -> Spoil:
    def spoil(draft: CollateralDraft) -> None:
        draft.tcb_info["tdxModuleIdentities"][0]["tcbLevels"][0]["tcbStatus"] = status

    return spoil


def _qe(status: str) -> Spoil:
    return lambda draft: draft.qe_identity["tcbLevels"][0].update(tcbStatus=status)


def _tcb_info(**values: Any) -> Spoil:
    return lambda draft: draft.tcb_info.update(values)


def _qe_identity(**values: Any) -> Spoil:
    return lambda draft: draft.qe_identity.update(values)


def _above(draft: CollateralDraft) -> None:
    """Every level asks for more than the machine has."""
    for level in draft.tcb_info["tcbLevels"]:
        level["tcb"]["pcesvn"] = 99


def _ran_out(which: str, ago: timedelta) -> Spoil:
    """The document's next update was due before it was issued: as good as long ago."""

    def spoil(draft: CollateralDraft) -> None:
        end = draft.pck_crl.last_update - ago
        if which in ("tcb_info", "qe_identity"):
            getattr(draft, which)["nextUpdate"] = stamp(end)
        else:
            crl = getattr(draft, which)
            crl.last_update, crl.next_update = end - 30 * _DAY, end

    return spoil


def _not_yet(which: str) -> Spoil:
    def spoil(draft: CollateralDraft) -> None:
        start = draft.pck_crl.last_update + _DAY
        if which in ("tcb_info", "qe_identity"):
            getattr(draft, which)["issueDate"] = stamp(start)
        else:
            getattr(draft, which).last_update = start

    return spoil


def _edited(name: str, before: str, after: str) -> Spoil:
    """The finished text, changed after it was signed."""

    def edit(made: dict[str, Any]) -> None:
        made[name] = made[name].replace(before, after)

    return lambda draft: setattr(draft, "edit", edit)


def _signed_by_other_key(which: str) -> Spoil:
    def spoil(draft: CollateralDraft) -> None:
        strange = new_signer(draft.pki.root)  # certified, but its certificate is not the one that is sent
        setattr(draft, which, strange)

    return spoil


def _signed_by_ca(draft: CollateralDraft) -> None:
    authority = draft.pki.ca(draft.ca)
    draft.tcb_signer, draft.tcb_chain = authority, [authority.certificate, draft.pki.root.certificate]


def _signed_by_machine(draft: CollateralDraft) -> None:
    """
    Any leaf below the root would do, if nobody asked whose: so would a PCK key that was read out of a machine. Here it
    is one that was certified for the occasion, since this draft has no machine's key.
    """
    authority, key = draft.pki.ca(draft.ca), p256()
    stolen = PckDraft(bytes(range(1, 17)), None, draft.pck.not_valid_before_utc).issued(authority, key.public_key())
    draft.tcb_signer = Authority(stolen, key)
    draft.tcb_chain = [stolen, authority.certificate, draft.pki.root.certificate]


def _signed_by_namesake(draft: CollateralDraft) -> None:
    """A signer of the right name, below somebody else's root; ours is put behind it."""
    draft.tcb_signer = new_signer(new_root())
    draft.tcb_chain = [draft.tcb_signer.certificate, draft.pki.root.certificate]


def _qe_signed_by_namesake(draft: CollateralDraft) -> None:
    draft.qe_signer = new_signer(new_root())
    draft.qe_chain = [draft.qe_signer.certificate, draft.pki.root.certificate]


def _signed_by_other_name(draft: CollateralDraft) -> None:
    draft.tcb_signer = new_signer(draft.pki.root, "Intel SGX Something Signing")
    draft.tcb_chain = [draft.tcb_signer.certificate, draft.pki.root.certificate]


def _crl_key(which: str) -> Spoil:
    return lambda draft: setattr(getattr(draft, which), "key", p256())


def _revoke(which: str, serial: Callable[[CollateralDraft], int]) -> Spoil:
    return lambda draft: getattr(draft, which).revoked.append(serial(draft))


def _other_ca(draft: CollateralDraft) -> None:
    """The list of the other CA, under the chain of the right one."""
    draft.pck_crl.issuer = draft.pki.ca("processor" if draft.ca == "platform" else "platform")


COLLATERAL_DEFECTS = tuple(
    TdxDefect(name, meaning, code, collateral=spoil)
    for name, meaning, code, spoil in (
        # --- what Intel says of the machine
        ("tdx-status-sw-hardening", "software must be hardened", _STATUS, _platform("SWHardeningNeeded")),
        ("tdx-status-configuration", "the BIOS must be set otherwise", _STATUS, _platform("ConfigurationNeeded")),
        (
            "tdx-status-configuration-and-sw",
            "both of these",
            _STATUS,
            _platform("ConfigurationAndSWHardeningNeeded"),
        ),
        ("tdx-status-out-of-date", "the TCB is out of date", _STATUS, _platform("OutOfDate", "INTEL-SA-00001")),
        (
            "tdx-status-out-of-date-configuration",
            "... and the BIOS must be set otherwise",
            _STATUS,
            _platform("OutOfDateConfigurationNeeded"),
        ),
        ("tdx-status-revoked", "the TCB level is revoked", "tdx-tcb-revoked", _platform("Revoked")),
        ("tdx-status-unheard-of", "the status is none of Intel's", _MALFORMED, _platform("Splendid")),
        ("tdx-status-unsupported", "every level is above the machine", "tdx-tcb-unsupported", _above),
        (
            "tdx-advisory",
            "an advisory applies although all is up to date",
            "tdx-advisory",
            _platform("UpToDate", "INTEL-SA-00009"),
        ),
        ("tdx-module-out-of-date", "the TDX module is out of date", _STATUS, _module("OutOfDate")),
        ("tdx-module-revoked", "the TDX module is revoked", "tdx-tcb-revoked", _module("Revoked")),
        ("tdx-module-none", "no TDX module is listed", "tdx-module-unknown", _tcb_info(tdxModuleIdentities=[])),
        ("tdx-qe-out-of-date", "the quoting enclave is out of date", _STATUS, _qe("OutOfDate")),
        ("tdx-qe-revoked", "the quoting enclave is revoked", "tdx-tcb-revoked", _qe("Revoked")),
        ("tdx-qe-configuration", "the quoting enclave has a machine's status", _MALFORMED, _qe("ConfigurationNeeded")),
        ("tdx-qe-none", "no quoting enclave is listed", _MALFORMED, _qe_identity(tcbLevels=[])),
        # --- revocation
        (
            "tdx-pck-revoked",
            "the PCK certificate is revoked",
            "tdx-pck-revoked",
            _revoke("pck_crl", lambda d: d.pck.serial_number),
        ),
        (
            "tdx-ca-revoked",
            "the CA of PCK certificates is revoked",
            "tdx-pck-revoked",
            _revoke("root_crl", lambda d: d.pki.ca(d.ca).certificate.serial_number),
        ),
        (
            "tdx-signer-revoked",
            "the signer of TCB info is revoked",
            _REVOKED,
            _revoke("root_crl", lambda d: d.tcb_signer.certificate.serial_number),
        ),
        (
            "tdx-root-revoked",
            "the root is revoked",
            _REVOKED,
            _revoke("root_crl", lambda d: d.pki.root.certificate.serial_number),
        ),
        # --- age
        ("tdx-tcb-info-stale", "the TCB info ran out", _STALE, _ran_out("tcb_info", _HOUR)),
        ("tdx-qe-identity-stale", "the QE identity ran out", _STALE, _ran_out("qe_identity", _HOUR)),
        ("tdx-pck-crl-stale", "the list of PCK certificates ran out", _STALE, _ran_out("pck_crl", _HOUR)),
        ("tdx-root-crl-stale", "the root's list ran out", _STALE, _ran_out("root_crl", _HOUR)),
        ("tdx-root-crl-ancient", "the root's list ran out long ago", _STALE, _ran_out("root_crl", 99 * _DAY)),
        ("tdx-tcb-info-future", "the TCB info is of tomorrow", _TIME, _not_yet("tcb_info")),
        ("tdx-qe-identity-future", "the QE identity is of tomorrow", _TIME, _not_yet("qe_identity")),
        ("tdx-pck-crl-future", "the list of PCK certificates is of tomorrow", _TIME, _not_yet("pck_crl")),
        ("tdx-root-crl-future", "the root's list is of tomorrow", _TIME, _not_yet("root_crl")),
        # --- signatures and signers
        ("tdx-tcb-info-edited", "the TCB info was edited", _SIGNATURE, _edited("tcb_info", "OutOfDate", "UpToDate")),
        (
            "tdx-qe-identity-edited",
            "the QE identity was edited",
            _SIGNATURE,
            _edited("qe_identity", '"isvsvn":4', '"isvsvn":1'),
        ),
        ("tdx-tcb-info-key", "another key signed the TCB info", _SIGNATURE, _signed_by_other_key("tcb_signer")),
        ("tdx-qe-identity-key", "another key signed the QE identity", _SIGNATURE, _signed_by_other_key("qe_signer")),
        ("tdx-pck-crl-key", "another key signed the list of PCK certificates", _SIGNATURE, _crl_key("pck_crl")),
        ("tdx-root-crl-key", "another key signed the root's list", _SIGNATURE, _crl_key("root_crl")),
        ("tdx-tcb-info-by-ca", "a PCK CA signed the TCB info", _CHAIN, _signed_by_ca),
        ("tdx-tcb-info-by-machine", "a machine signed the TCB info", _CHAIN, _signed_by_machine),
        ("tdx-tcb-info-by-namesake", "a namesake signed the TCB info", _CHAIN, _signed_by_namesake),
        ("tdx-qe-identity-by-namesake", "a namesake signed the QE identity", _CHAIN, _qe_signed_by_namesake),
        ("tdx-tcb-info-by-other", "another of Intel's signers signed the TCB info", _CHAIN, _signed_by_other_name),
        (
            "tdx-tcb-info-no-root",
            "the issuer chain lacks the root",
            _CHAIN,
            lambda d: setattr(d, "qe_chain", d.qe_chain[:1]),
        ),
        # --- what they are for
        ("tdx-tcb-info-sgx", "the TCB info is SGX's", _OTHER, _tcb_info(id="SGX")),
        ("tdx-tcb-info-pce", "the TCB info is for another PCE", _OTHER, _tcb_info(pceId="0001")),
        (
            "tdx-tcb-info-family",
            "the TCB info is for another family",
            "tdx-collateral-unavailable",
            _tcb_info(fmspc="00906ED50000"),
        ),
        ("tdx-qe-identity-sgx", "the QE identity is SGX's", _OTHER, _qe_identity(id="QE")),
        ("tdx-pck-crl-ca", "the list of PCK certificates is the other CA's", "tdx-collateral-unavailable", _other_ca),
        ("tdx-tcb-info-date", "the TCB info has a date that is none", _MALFORMED, _tcb_info(nextUpdate="soon")),
        ("tdx-tcb-info-version", "the TCB info has another version", _OTHER, _tcb_info(version=2)),
    )
)
