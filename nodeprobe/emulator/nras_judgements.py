"""What a genuine NRAS reports of a device that is not well, or leaves unsaid."""

from __future__ import annotations

from typing import Any

from attest.reasons import (
    CHAIN_CLASS,
    FWID_MISMATCH,
    MEASUREMENTS_MISMATCH,
    NONCE_MISMATCH,
    REPORT_MALFORMED,
    REPORT_SIGNATURE,
    REVOCATION_HOLD,
    REVOCATION_NOT_CHECKED,
    RIM_BINDING,
    RIM_CHAIN,
    RIM_CONFLICT,
    RIM_EXPIRED,
    RIM_MALFORMED,
    RIM_SIGNATURE,
    RIM_UNAVAILABLE,
)
from attest.reasons.nras import NRAS_CHECK_FAILED, NRAS_CLAIM, NRAS_DEBUG, NRAS_FAILED, NRAS_REFUSED
from nodeprobe.emulator.nras import AnswerDraft, Edit, TokenDraft
from nodeprobe.emulator.nras_edits import FIRST, MISSING, Change, Row, defects, on_device, says

_GPU = "x-nvidia-gpu-"
_CHAINS = {
    role: f"{_GPU}{name}cert-chain"
    for role, name in (("device", "attestation-report-"), ("driver", "driver-rim-"), ("vbios", "vbios-rim-"))
}


def _unwell(*changes: Change) -> Edit:
    """As NRAS has it: where a device fails, so does the whole."""

    def edit(draft: AnswerDraft) -> None:
        for change in changes:
            change(draft.devices[FIRST])
        draft.overall.claims["x-nvidia-overall-att-result"] = False

    return edit


def _fails(name: str) -> Edit:
    return _unwell(says(f"{_GPU}{name}", False))


def _error(code: object, message: str) -> Edit:
    def change(draft: TokenDraft) -> None:
        kept = {name: draft.claims[name] for name in ("iss", "nbf", "exp", "iat", "jti")}
        details = {"code": code, "httpStatus": 400, "message": message, "description": "400 BAD_REQUEST"}
        draft.claims = {**kept, "x-nvidia-error-details": {**details, "fieldName": None}}

    return _unwell(change)


def _chain(role: str, **entries: Any) -> Change:
    def change(draft: TokenDraft) -> None:
        changed = {f"x-nvidia-cert-{name.replace('_', '-')}": value for name, value in entries.items()}
        draft.claims[_CHAINS[role]] = {**draft.claims[_CHAINS[role]], **changed}

    return change


_FAILED_CHECKS = {
    "arch-check": CHAIN_CLASS,
    "attestation-report-parsed": REPORT_MALFORMED,
    "attestation-report-signature-verified": REPORT_SIGNATURE,
    "attestation-report-nonce-match": NONCE_MISMATCH,
    "attestation-report-cert-chain-fwid-match": FWID_MISMATCH,
    "vbios-index-no-conflict": RIM_CONFLICT,
    **{
        f"{role}-rim-{check}": reason
        for role in ("driver", "vbios")
        for check, reason in {
            "fetched": RIM_UNAVAILABLE,
            "schema-validated": RIM_MALFORMED,
            "signature-verified": RIM_SIGNATURE,
            "version-match": RIM_BINDING,
            "measurements-available": RIM_MALFORMED,
        }.items()
    },
}

_ROWS: tuple[Row, ...] = (
    *((f"{name}-false", f"{name} is false", reason, _fails(name)) for name, reason in _FAILED_CHECKS.items()),
    *(
        (f"{name}-unsaid", f"{name} is not said", NRAS_CLAIM, on_device(says(f"{_GPU}{name}", MISSING)))
        for name in _FAILED_CHECKS
    ),
    *(
        (f"{name}-null", f"{name} is null", NRAS_CLAIM, on_device(says(f"{_GPU}{name}", None)))
        for name in _FAILED_CHECKS
    ),
    ("error-nonce", "NRAS refused: another nonce", NRAS_REFUSED, _error(4010, "NONCE_NOT_MATCHING")),
    ("error-text", "NRAS refused, with a code that is text", NRAS_REFUSED, _error("4007", "INVALID_CHAIN")),
    ("error-odd", "NRAS refused, and says nothing", NRAS_REFUSED, _unwell(says("x-nvidia-error-details", "no"))),
    ("error-server", "NRAS failed on its own side", NRAS_FAILED, _error(5013, "RIM_SIGNATURE")),
    ("measres-fail", "measurements differ", MEASUREMENTS_MISMATCH, _unwell(says("measres", "fail"))),
    (
        "measres-fail-result-true",
        "measurements differ, and the result is true",
        MEASUREMENTS_MISMATCH,
        on_device(says("measres", "fail")),
    ),
    ("measres-null", "nothing is said of measurements", NRAS_CLAIM, on_device(says("measres", None))),
    ("debug-enabled", "debugging is on", NRAS_DEBUG, on_device(says("dbgstat", "enabled"))),
    ("debug-null", "nothing is said of debugging", NRAS_DEBUG, on_device(says("dbgstat", None))),
    ("secboot-false", "not booted securely", NRAS_DEBUG, on_device(says("secboot", False))),
    ("secboot-null", "nothing is said of secure boot", NRAS_DEBUG, on_device(says("secboot", None))),
    ("chain-invalid", "the device's chain is invalid", NRAS_CHECK_FAILED, _unwell(_chain("device", status="invalid"))),
    ("chain-expired", "the device's chain has expired", NRAS_CHECK_FAILED, _unwell(_chain("device", status="expired"))),
    ("chain-revoked", "the device is revoked", NRAS_CHECK_FAILED, _unwell(_chain("device", ocsp_status="revoked"))),
    (
        "chain-revoked-for",
        "the device is revoked, for a reason",
        NRAS_CHECK_FAILED,
        on_device(_chain("device", revocation_reason="keyCompromise")),
    ),
    ("chain-unsaid", "nothing is said of the device's chain", NRAS_CLAIM, on_device(says(_CHAINS["device"], MISSING))),
    ("chain-true", "the chain's state is a flag", NRAS_CLAIM, on_device(says(_CHAINS["device"], True))),
    ("chain-undated", "the chain's end is not said", NRAS_CLAIM, on_device(_chain("device", expiration_date=None))),
    ("chain-date-none", "the chain's end is no date", NRAS_CLAIM, on_device(_chain("device", expiration_date="soon"))),
    (
        "chain-date-odd",
        "the chain's end has no zone",
        NRAS_CLAIM,
        on_device(_chain("device", expiration_date="2099-01-01T00:00:00")),
    ),
    ("ocsp-unsaid", "nothing is said of revocation", NRAS_CLAIM, on_device(_chain("device", ocsp_status=None))),
    (
        "ocsp-unknown",
        "whether the device is revoked is unknown",
        REVOCATION_NOT_CHECKED,
        on_device(_chain("device", ocsp_status="unknown")),
    ),
    (
        "cert-hold",
        "a certificate on hold was let pass",
        REVOCATION_HOLD,
        on_device(says("x-nvidia-attestation-warning", "certificate hold")),
    ),
    ("rim-chain-invalid", "the driver RIM's chain is invalid", RIM_CHAIN, _unwell(_chain("driver", status="invalid"))),
    (
        "rim-chain-revoked",
        "the VBIOS RIM's signer is revoked",
        RIM_CHAIN,
        _unwell(_chain("vbios", ocsp_status="revoked")),
    ),
    (
        "rim-expired",
        "the driver RIM's signer has expired",
        RIM_EXPIRED,
        on_device(_chain("driver", status="expired", expiration_date="2020-01-01T00:00:00Z")),
    ),
    ("ueid-missing", "the device has no number", NRAS_CLAIM, on_device(says("ueid", MISSING))),
    ("ueid-hex", "the device's number is no decimal", NRAS_CLAIM, on_device(says("ueid", "0xff"))),
    ("hwmodel-unknown", "the device is of no model we know", NRAS_CLAIM, on_device(says("hwmodel", "GH999"))),
    ("hwmodel-switch", "the GPU is a switch", CHAIN_CLASS, on_device(says("hwmodel", "LS_10 A01 FSP BROM"))),
    ("driver-unsaid", "no driver version", NRAS_CLAIM, on_device(says(f"{_GPU}driver-version", MISSING))),
    ("driver-odd", "a driver version that is none", NRAS_CLAIM, on_device(says(f"{_GPU}driver-version", "550; rm"))),
    ("vbios-odd", "a VBIOS version that is none", NRAS_CLAIM, on_device(says(f"{_GPU}vbios-version", "new"))),
    ("switches-odd", "switches that are none", NRAS_CLAIM, on_device(says(f"{_GPU}switch-pdis", ["no"]))),
)


JUDGEMENTS = defects(_ROWS)
