"""
The layout of an attestation report, and nothing about whether to believe it.

SPDM 1.1 (DMTF DSP0274): a GET_MEASUREMENTS request of 37 bytes that holds our nonce, the MEASUREMENTS response, and the
signature over everything before it. Integers are little-endian, the signature big-endian. The opaque data is NVIDIA's
own list of fields: type u16, length u16, value.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from attest.cursor import Cursor
from attest.errors import MalformedEvidence
from attest.evidence import NONCE_BYTES, Nonce
from attest.reasons import REPORT_MALFORMED
from attest.x509 import SIGNATURE_BYTES

REPORT_BYTES_MAX = 8192  # the driver's buffer
SPDM_1_1, GET_MEASUREMENTS, MEASUREMENTS = 0x11, 0xE0, 0x60
WITH_SIGNATURE, ALL_MEASUREMENTS = 0x01, 0xFF
VALUE_BYTES = 48  # SHA-384

# Of each measurement: index, specification (1 = DMTF), size 51, value type, value size 48, value.
_BLOCK = struct.Struct("<BBHBH48s")


class Field(IntEnum):
    """Opaque fields of a GPU that verification reads. Others are kept, unread: the signature covers them."""

    DRIVER_VERSION = 3
    VBIOS_VERSION = 6
    NVDEC0_STATUS = 11
    CHIP_SKU = 15
    PROJECT = 17
    PROJECT_SKU = 18
    FWID = 20
    PROTECTED_PCIE_STATUS = 21
    OPAQUE_DATA_VERSION = 34
    FEATURE_FLAG = 36


@dataclass(frozen=True, slots=True)
class Report:
    """`measurements[k]` is block k+1, to be compared with index k of a RIM; 48 bytes each."""

    nonce: Nonce
    measurements: tuple[bytes, ...]
    opaque: Mapping[int, bytes]
    signed: bytes
    signature: bytes


def parse(payload: bytes) -> Report:
    """Read a report strictly: every constant, and not a byte too many. MalformedEvidence otherwise."""
    if len(payload) > REPORT_BYTES_MAX:
        raise MalformedEvidence(REPORT_MALFORMED, f"{len(payload)} bytes", f"at most {REPORT_BYTES_MAX}")
    cursor = Cursor(payload)
    nonce = _request(cursor)
    cursor.expect(1, SPDM_1_1, "response version")
    cursor.expect(1, MEASUREMENTS, "response code")
    cursor.expect(2, 0, "response parameters")
    blocks = cursor.uint(1, "number of blocks")
    record = cursor.take(cursor.uint(3, "record length"), "measurement record")
    cursor.take(NONCE_BYTES, "responder nonce")
    opaque = cursor.take(cursor.uint(2, "opaque length"), "opaque data")
    signed = payload[: cursor.at]
    signature = cursor.take(SIGNATURE_BYTES, "signature")
    cursor.end("report")
    return Report(nonce, _measurements(record, blocks), _opaque(opaque), signed, signature)


def _request(cursor: Cursor) -> Nonce:
    cursor.expect(1, SPDM_1_1, "request version")
    cursor.expect(1, GET_MEASUREMENTS, "request code")
    cursor.expect(1, WITH_SIGNATURE, "request parameter 1")
    cursor.expect(1, ALL_MEASUREMENTS, "request parameter 2")
    nonce = cursor.take(NONCE_BYTES, "nonce")
    cursor.expect(1, 0, "slot")
    return Nonce(nonce)


def _measurements(record: bytes, blocks: int) -> tuple[bytes, ...]:
    if not blocks or len(record) != blocks * _BLOCK.size:
        found = f"{len(record)} bytes for {blocks} measurements"
        raise MalformedEvidence(REPORT_MALFORMED, found, f"{_BLOCK.size} bytes each, at least one")
    values: list[bytes] = []
    for want, (index, specification, size, kind, value_size, value) in enumerate(_BLOCK.iter_unpack(record), 1):
        if (index, specification, size, kind, value_size) != (want, 1, VALUE_BYTES + 3, 1, VALUE_BYTES):
            found = f"measurement {index}, specification {specification}, sizes {size} and {value_size}, type {kind}"
            raise MalformedEvidence(REPORT_MALFORMED, found, f"measurement {want}, specification 1, 51 and 48, type 1")
        values.append(value)
    return tuple(values)


def _opaque(data: bytes) -> Mapping[int, bytes]:
    found: dict[int, bytes] = {}
    at, end = 0, len(data)
    while at < end:  # a hot loop: slices instead of a cursor
        if at + 4 > end:
            raise MalformedEvidence(REPORT_MALFORMED, f"{end - at} bytes at the end of the opaque data", "none")
        field, size = int.from_bytes(data[at : at + 2], "little"), int.from_bytes(data[at + 2 : at + 4], "little")
        at += 4 + size
        if at > end:
            raise MalformedEvidence(REPORT_MALFORMED, f"opaque field {field} of {size} bytes", "one that fits")
        if field in found:
            raise MalformedEvidence(REPORT_MALFORMED, f"opaque field {field} twice", "once")
        found[field] = data[at - size : at]
    return found
