"""What may be wrong with a quote: the trust domain, the quoting enclave, the machine's certificates, the bytes."""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from cryptography import x509

from nodeprobe.emulator.tdx_collateral import MODULE_SVN, TEE_TCB_SVN
from nodeprobe.emulator.tdx_defect import TdxDefect
from nodeprobe.emulator.tdx_pki import (
    CPU_SVN,
    PLATFORM_CA,
    PROCESSOR_CA,
    PckDraft,
    issue,
    new_ca,
    new_root,
    p256,
)
from nodeprobe.emulator.tdx_quote import HEADER_BYTES, SEPT_VE_DISABLE, TD_1_5, QuoteDraft

_MALFORMED, _UNSUPPORTED = "tdx-quote-malformed", "tdx-quote-unsupported"
_CERTIFICATES, _CHAIN, _STATUS = "tdx-certificates-malformed", "tdx-pck-chain", "tdx-tcb-status"
_OLD_MODULE = bytes([MODULE_SVN - 1]) + TEE_TCB_SVN[1:]
_DAY = timedelta(days=1)

Spoil = Callable[[QuoteDraft], None]


def _attributes(*bits: int, without: int = 0) -> Spoil:
    value = (SEPT_VE_DISABLE & ~without) | sum(1 << bit for bit in bits)
    return _body(td_attributes=struct.pack("<Q", value))


def _body(**fields: bytes) -> Spoil:
    return lambda draft: draft.body.update(fields)


def _header(**fields: bytes) -> Spoil:
    return lambda draft: draft.header.update(fields)


def _qe(**fields: bytes) -> Spoil:
    return lambda draft: draft.qe.update(fields)


def _with(name: str, make: Callable[[], Any]) -> Spoil:
    return lambda draft: setattr(draft, name, make())


def _chain(edit: Callable[[list[x509.Certificate]], list[x509.Certificate]]) -> Spoil:
    return lambda draft: setattr(draft, "chain", edit(draft.chain))


def _pck(change: Callable[[PckDraft], None]) -> Spoil:
    """Another PCK certificate for the machine's own key, issued by its own CA."""

    def spoil(draft: QuoteDraft) -> None:
        change(draft.pck)
        draft.chain[0] = draft.pck.issued(draft.pki.ca(draft.ca), draft.pck_key.public_key())

    return spoil


def _set(**values: Any) -> Callable[[PckDraft], None]:
    def change(draft: PckDraft) -> None:
        for name, value in values.items():
            setattr(draft, name, value)

    return change


def _as_1_5(draft: QuoteDraft, **fields: bytes) -> None:
    """Whatever it was, it becomes a quote v5 of a TD 1.5 with these values."""
    draft.version, draft.body_type = 5, TD_1_5
    draft.header["version"] = struct.pack("<H", 5)
    kept = list(draft.body.items())[:15]
    draft.body = dict(kept) | {"tee_tcb_svn2": TEE_TCB_SVN, "mr_service_td": bytes(48)} | fields


def _relaunch(draft: QuoteDraft) -> None:
    _as_1_5(draft)
    draft.body["tee_tcb_svn"] = _OLD_MODULE


def _unknown_body(draft: QuoteDraft) -> None:
    _as_1_5(draft)
    draft.body_type = 1


def _short_body(draft: QuoteDraft) -> None:
    _as_1_5(draft)
    draft.body["mr_service_td"] = bytes(47)


def _foreign(draft: QuoteDraft) -> None:
    """Every name is right, and every signature; the root's key is somebody else's."""
    root = new_root()
    ca = new_ca(root, PLATFORM_CA if draft.ca == "platform" else PROCESSOR_CA)
    draft.chain = [draft.pck.issued(ca, draft.pck_key.public_key()), ca.certificate, root.certificate]


def _foreign_swapped(draft: QuoteDraft) -> None:
    """As above, with the pinned root put behind it."""
    pinned = draft.chain[-1]
    _foreign(draft)
    draft.chain[-1] = pinned


def _another_machine(draft: QuoteDraft) -> None:
    """The chain of another machine: it is genuine, but its key did not sign this."""
    draft.chain[0] = draft.pck.issued(draft.pki.ca(draft.ca), p256().public_key())


def _no_extension(draft: QuoteDraft) -> None:
    term = (draft.pck.not_before, draft.pck.not_before + 365 * _DAY)
    draft.chain[0] = issue(draft.pck.common_name, draft.pck_key.public_key(), draft.pki.ca(draft.ca), term)


def _changed(offset: int, data: bytes) -> Spoil:
    return lambda draft: draft.after_signing.update({offset: data})


QUOTE_DEFECTS = (
    # --- the trust domain
    TdxDefect("tdx-debug", "the trust domain is a debug one", "tdx-debug", _attributes(0)),
    TdxDefect("tdx-profiled", "the host may count its cycles", "tdx-profiling", _attributes(5)),
    TdxDefect("tdx-migratable", "it may be migrated", "tdx-migratable", _attributes(29)),
    TdxDefect("tdx-service-td-allowed", "SERVTD_EXT is set", "tdx-service-td", _attributes(17)),
    TdxDefect(
        "tdx-service-td-bound",
        "a service TD is bound to it",
        "tdx-service-td",
        lambda draft: _as_1_5(draft, mr_service_td=b"\1" * 48),
    ),
    TdxDefect("tdx-sept-ve", "SEPT_VE_DISABLE is off", "tdx-sept-ve", _attributes(without=SEPT_VE_DISABLE)),
    TdxDefect("tdx-reserved-high", "a reserved attribute is set", "tdx-reserved-attributes", _attributes(40)),
    TdxDefect("tdx-reserved-low", "another reserved attribute is set", "tdx-reserved-attributes", _attributes(18)),
    TdxDefect("tdx-perfmon", "the guest may use performance counters", "tdx-attributes", _attributes(63)),
    # --- machine and module
    TdxDefect("tdx-firmware-old", "the microcode is old", _STATUS, _pck(_set(cpu_svn=(3, 3, *CPU_SVN[2:])))),
    TdxDefect("tdx-firmware-ancient", "the microcode is none", "tdx-tcb-unsupported", _pck(_set(cpu_svn=(0,) * 16))),
    TdxDefect("tdx-pce-ancient", "the provisioning enclave is ancient", "tdx-tcb-unsupported", _pck(_set(pce_svn=1))),
    TdxDefect("tdx-module-old", "the TDX module is old", _STATUS, _body(tee_tcb_svn=_OLD_MODULE)),
    TdxDefect("tdx-relaunch", "the module was updated under a running domain", _STATUS, _relaunch),
    TdxDefect(
        "tdx-module-unlisted",
        "the TDX module is of a line that nobody knows",
        "tdx-module-unknown",
        _body(tee_tcb_svn=bytes([MODULE_SVN, 9]) + TEE_TCB_SVN[2:]),
    ),
    TdxDefect(
        "tdx-module-foreign", "somebody else signed the module", "tdx-module-unknown", _body(mr_signer_seam=b"\1" * 48)
    ),
    TdxDefect(
        "tdx-module-attributes", "the module has attributes", "tdx-module-unknown", _body(seam_attributes=b"\1" * 8)
    ),
    # --- the quoting enclave
    TdxDefect("tdx-qe-foreign", "somebody else's enclave made it", "tdx-qe-identity", _qe(mr_signer=b"\1" * 32)),
    TdxDefect(
        "tdx-qe-debug",
        "a debug enclave made it",
        "tdx-qe-identity",
        _qe(attributes=bytes.fromhex("1700000000000000e700000000000000")),
    ),
    TdxDefect("tdx-qe-attributes", "the enclave has other attributes", "tdx-qe-identity", _qe(attributes=bytes(16))),
    TdxDefect("tdx-qe-product", "another enclave of Intel's made it", "tdx-qe-identity", _qe(isv_prod_id=b"\1\0")),
    TdxDefect("tdx-qe-misc-select", "the enclave reports more", "tdx-qe-identity", _qe(misc_select=b"\1\0\0\0")),
    TdxDefect("tdx-qe-ancient", "the enclave is ancient", "tdx-qe-too-old", _qe(isv_svn=b"\1\0")),
    TdxDefect(
        "tdx-qe-other-key",
        "the enclave vouched for another key",
        "tdx-qe-binding",
        _with("qe_hash", lambda: b"\1" * 32),
    ),
    TdxDefect(
        "tdx-qe-unsigned", "another key than the PCK signed its report", "tdx-qe-signature", _with("qe_signer", p256)
    ),
    # --- signatures
    TdxDefect("tdx-other-signer", "another key signed the quote", "tdx-quote-signature", _with("signer", p256)),
    TdxDefect("tdx-header-changed", "user data was changed", "tdx-quote-signature", _changed(30, b"x" * 8)),
    TdxDefect("tdx-body-changed", "MRTD was changed", "tdx-quote-signature", _changed(HEADER_BYTES + 140, b"xx")),
    # --- certificates
    TdxDefect("tdx-foreign-root", "the chain ends at somebody else's root", "tdx-root", _foreign),
    TdxDefect("tdx-foreign-swapped", "... with the pinned root put behind it", _CHAIN, _foreign_swapped),
    TdxDefect("tdx-another-machine", "the chain is another machine's", "tdx-qe-signature", _another_machine),
    TdxDefect("tdx-no-root", "the chain lacks its root", _CERTIFICATES, _chain(lambda chain: chain[:2])),
    TdxDefect("tdx-no-chain", "there is no chain", _CERTIFICATES, _chain(lambda chain: chain[:0])),
    TdxDefect("tdx-ca-twice", "the CA stands twice", _CERTIFICATES, _chain(lambda c: [c[0], c[1], *c[1:]])),
    TdxDefect("tdx-reordered", "root and CA changed places", "tdx-root", _chain(lambda c: [c[0], c[2], c[1]])),
    TdxDefect("tdx-no-extension", "the PCK certificate names no machine", _CERTIFICATES, _no_extension),
    TdxDefect("tdx-no-ppid", "the PCK certificate has no PPID", _CERTIFICATES, _pck(_set(ppid=bytes(16)))),
    TdxDefect("tdx-pck-name", "the PCK certificate has another name", _CHAIN, _pck(_set(common_name="Intel SGX"))),
    TdxDefect(
        "tdx-pck-expired",
        "the PCK certificate has expired",
        "tdx-pck-time",
        _pck(lambda pck: _set(not_before=pck.not_before - 9 * _DAY, not_after=pck.not_before - _DAY)(pck)),
    ),
    TdxDefect(
        "tdx-pck-not-yet",
        "the PCK certificate is not valid yet",
        "tdx-pck-time",
        _pck(lambda pck: _set(not_before=pck.not_before + 900 * _DAY)(pck)),
    ),
    TdxDefect(
        "tdx-other-family", "no collateral is known for it", "tdx-collateral-unavailable", _pck(_set(fmspc=b"\1" * 6))
    ),
    TdxDefect("tdx-other-pce", "the collateral is for another PCE", "tdx-collateral-other", _pck(_set(pce_id=b"\1\0"))),
    # --- layout
    TdxDefect("tdx-version-3", "it is an SGX quote's version", _UNSUPPORTED, _header(version=b"\3\0")),
    TdxDefect("tdx-key-type", "the attestation key is of another type", _UNSUPPORTED, _header(key_type=b"\3\0")),
    TdxDefect("tdx-tee-type", "it is of another TEE", _UNSUPPORTED, _header(tee_type=bytes(4))),
    TdxDefect("tdx-qe-vendor", "the quoting enclave is another vendor's", _UNSUPPORTED, _header(qe_vendor=bytes(16))),
    TdxDefect("tdx-body-type", "the body is an enclave's", _UNSUPPORTED, _unknown_body),
    TdxDefect("tdx-body-size", "the body is too short for its type", _MALFORMED, _short_body),
    TdxDefect("tdx-no-pck", "it names its machine by an encrypted id", _UNSUPPORTED, _with("certification", lambda: 3)),
    TdxDefect("tdx-auth-data", "the QE's data has another size", _MALFORMED, _with("auth_data", lambda: bytes(16))),
    TdxDefect("tdx-trailing", "a byte follows that is no padding", _MALFORMED, _with("tail", lambda: bytes(9) + b"\1")),
)
