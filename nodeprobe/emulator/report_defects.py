"""What may be wrong with a report."""

from __future__ import annotations

import struct
from collections.abc import Callable

from attest.reasons import (
    FWID_ABSENT,
    FWID_MISMATCH,
    MEASUREMENTS_MISMATCH,
    NONCE_MISMATCH,
    NVDEC_STATUS,
    REPORT_FIELD_MISSING,
    REPORT_MALFORMED,
    REPORT_SIGNATURE,
    RIM_ID_MALFORMED,
    RIM_UNAVAILABLE,
)
from nodeprobe.emulator import spdm
from nodeprobe.emulator.defect import Defect
from nodeprobe.emulator.families import GPUS
from nodeprobe.emulator.models import value
from nodeprobe.emulator.pki import new_key
from nodeprobe.emulator.spdm import Edit, ReportDraft

FIRMWARE_INDEX = 9  # of the VBIOS's manifest, with one alternative
DRIVER_INDEX = 26  # of the driver's
NVDEC_INDEX = 35
REPORT_BYTES_MAX = 8192
_RESPONSE_AT = 37
_BLOCK_COUNT_AT = 41
_RECORD_AT = 45


def _measures(index: int) -> Callable[[ReportDraft], None]:
    def spoil(draft: ReportDraft) -> None:
        draft.measurements[index] = value("changed", index)

    return spoil


def _measurement_35_counts(draft: ReportDraft) -> None:
    draft.put(spdm.NVDEC0_STATUS, spdm.ENABLED)
    draft.measurements[NVDEC_INDEX] = value("changed", NVDEC_INDEX)


def _wrong_nonce(draft: ReportDraft) -> None:
    draft.nonce = bytes([draft.nonce[0] ^ 1]) + draft.nonce[1:]


def _zero_nonce(draft: ReportDraft) -> None:
    draft.nonce = bytes(spdm.NONCE_BYTES)


def _nonce_after_signing(draft: ReportDraft) -> None:
    wanted = draft.nonce
    _wrong_nonce(draft)
    draft.after_signing.append(lambda data: data[:4] + wanted + data[4 + len(wanted) :])


def _other_key(draft: ReportDraft) -> None:
    draft.key = new_key()


def _zero_signature(data: bytes) -> bytes:
    return data[: -spdm.SIGNATURE_BYTES] + bytes(spdm.SIGNATURE_BYTES)


def _swap_r_and_s(data: bytes) -> bytes:
    half = spdm.COMPONENT_BYTES
    return data[: -2 * half] + data[-half:] + data[-2 * half : -half]


def _duplicate_field(draft: ReportDraft) -> None:
    draft.fields.append(draft.fields[0])


def _truncated_field(draft: ReportDraft) -> None:
    draft.opaque_tail = struct.pack("<HH", 99, 16) + bytes(4)


def _large(draft: ReportDraft) -> None:
    draft.fields.append((99, bytes(REPORT_BYTES_MAX)))


def _index_gap(draft: ReportDraft) -> None:
    draft.indices = [*range(1, len(draft.measurements)), len(draft.measurements) + 1]


def _index_twice(draft: ReportDraft) -> None:
    draft.indices = [1, 1, *range(3, len(draft.measurements) + 1)]


def _blocks_missing(draft: ReportDraft) -> None:
    del draft.measurements[FIRMWARE_INDEX:]


def _short_measurement(draft: ReportDraft) -> None:
    draft.measurements[FIRMWARE_INDEX] = draft.measurements[FIRMWARE_INDEX][:-1]


def _put(kind: int, new: bytes) -> Callable[[ReportDraft], None]:
    return lambda draft: draft.put(kind, new)


def _drop(kind: int) -> Callable[[ReportDraft], None]:
    return lambda draft: draft.drop(kind)


def _byte(at: int, new: int) -> Callable[[ReportDraft], None]:
    """One byte of the report, changed before it is signed."""
    return _before(lambda data: data[:at] + bytes([new]) + data[at + 1 :])


def _before(edit: Edit) -> Callable[[ReportDraft], None]:
    return lambda draft: draft.before_signing.append(edit)


def _after(edit: Edit) -> Callable[[ReportDraft], None]:
    return lambda draft: draft.after_signing.append(edit)


REPORT_DEFECTS = (
    Defect(
        "measurement-changed",
        "One firmware measurement (index 9) is none that the VBIOS's manifest knows.",
        MEASUREMENTS_MISMATCH,
        report=_measures(FIRMWARE_INDEX),
    ),
    Defect(
        "driver-measurement-changed",
        "One driver measurement (index 26) is none that the driver's manifest knows.",
        MEASUREMENTS_MISMATCH,
        report=_measures(DRIVER_INDEX),
        families=GPUS,
    ),
    Defect(
        "measurement-35-changed",
        "Measurement 35 differs although the decoder is on (NVDEC0 status 0xAA), so that it counts.",
        MEASUREMENTS_MISMATCH,
        report=_measurement_35_counts,
        families=GPUS,
    ),
    Defect(
        "nvdec-status-unknown",
        "NVDEC0 status is neither on nor off.",
        NVDEC_STATUS,
        report=_put(spdm.NVDEC0_STATUS, b"\0"),
        families=GPUS,
    ),
    Defect(
        "nvdec-status-absent",
        "NVDEC0 status is left out.",
        NVDEC_STATUS,
        report=_drop(spdm.NVDEC0_STATUS),
        families=GPUS,
    ),
    Defect("replayed", "The same old report is handed over, whatever the challenge.", NONCE_MISMATCH, replays=True),
    Defect(
        "wrong-nonce", "A fresh report for a challenge that differs in one bit.", NONCE_MISMATCH, report=_wrong_nonce
    ),
    Defect("zero-nonce", "A fresh report for a challenge of zeros.", NONCE_MISMATCH, report=_zero_nonce),
    Defect(
        "nonce-patched",
        "An old report with the new challenge written into it after it was signed.",
        REPORT_SIGNATURE,
        report=_nonce_after_signing,
    ),
    Defect("signature-other-key", "Signed by a key that no certificate names.", REPORT_SIGNATURE, report=_other_key),
    Defect("signature-zero", "A signature of zeros.", REPORT_SIGNATURE, report=_after(_zero_signature)),
    Defect(
        "signature-swapped", "The signature's halves changed places.", REPORT_SIGNATURE, report=_after(_swap_r_and_s)
    ),
    Defect(
        "fwid-mismatch",
        "The report names other firmware than the certificate.",
        FWID_MISMATCH,
        report=_put(spdm.FWID, value("other firmware")),
        families=GPUS,
    ),
    Defect("fwid-absent", "The report names no firmware.", FWID_ABSENT, report=_drop(spdm.FWID), families=GPUS),
    Defect(
        "field-duplicate", "The VBIOS version stands in the report twice.", REPORT_MALFORMED, report=_duplicate_field
    ),
    Defect(
        "field-truncated",
        "The last opaque field is longer than what is left.",
        REPORT_MALFORMED,
        report=_truncated_field,
    ),
    Defect(
        "driver-absent",
        "The driver version is left out.",
        REPORT_FIELD_MISSING,
        report=_drop(spdm.DRIVER_VERSION),
        families=GPUS,
    ),
    Defect("vbios-absent", "The VBIOS version is left out.", REPORT_FIELD_MISSING, report=_drop(spdm.VBIOS_VERSION)),
    Defect(
        "project-absent",
        "The project code is left out.",
        REPORT_FIELD_MISSING,
        report=_drop(spdm.PROJECT),
        families=GPUS,
    ),
    Defect(
        "driver-unreleased",
        "A driver version that no manifest is for.",
        RIM_UNAVAILABLE,
        report=_put(spdm.DRIVER_VERSION, spdm.text("590.00.99")),
        families=GPUS,
    ),
    Defect(
        "driver-hostile",
        "A driver version that would climb out of a folder.",
        RIM_ID_MALFORMED,
        report=_put(spdm.DRIVER_VERSION, spdm.text("../590")),
        families=GPUS,
    ),
    Defect(
        "trailing-byte", "A zero byte behind the signature.", REPORT_MALFORMED, report=_after(lambda data: data + b"\0")
    ),
    Defect(
        "report-cut",
        "The last byte of the signature is missing.",
        REPORT_MALFORMED,
        report=_after(lambda data: data[:-1]),
    ),
    Defect("report-empty", "A report of no bytes.", REPORT_MALFORMED, report=_after(lambda _data: b"")),
    Defect(
        "report-padded",
        "The driver's whole buffer of 8192 bytes instead of the report.",
        REPORT_MALFORMED,
        report=_after(lambda data: data.ljust(REPORT_BYTES_MAX, b"\0")),
    ),
    Defect("report-too-large", "A well-formed report of more than 8192 bytes.", REPORT_MALFORMED, report=_large),
    Defect("block-index-gap", "The last block's index is one too high.", REPORT_MALFORMED, report=_index_gap),
    Defect("block-index-twice", "Two blocks have index 1.", REPORT_MALFORMED, report=_index_twice),
    Defect(
        "blocks-missing",
        "Nine blocks instead of all, those right.",
        REPORT_MALFORMED,
        report=_blocks_missing,
    ),
    Defect(
        "block-count",
        "The response counts one block less than it has.",
        REPORT_MALFORMED,
        report=_byte(_BLOCK_COUNT_AT, 63),
    ),
    Defect(
        "block-specification",
        "A block of another measurement specification than DMTF's.",
        REPORT_MALFORMED,
        report=_byte(_RECORD_AT + 1, 2),
    ),
    Defect("measurement-short", "A measurement of 47 bytes.", REPORT_MALFORMED, report=_short_measurement),
    Defect("unsigned-requested", "The request did not ask for a signature.", REPORT_MALFORMED, report=_byte(2, 0)),
    Defect("slot", "The request asked another certificate slot.", REPORT_MALFORMED, report=_byte(36, 1)),
    Defect("spdm-version", "The response is of SPDM 1.2.", REPORT_MALFORMED, report=_byte(_RESPONSE_AT, 0x12)),
    Defect("response-error", "The response is an SPDM error.", REPORT_MALFORMED, report=_byte(_RESPONSE_AT + 1, 0x7F)),
)
