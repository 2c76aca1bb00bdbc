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
REQUEST = bytes.fromhex("11e001ff")  # SPDM 1.1, GET_MEASUREMENTS, with signature, all measurements
SLOT = 0
RESPONSE = bytes.fromhex("11600000")  # SPDM 1.1, MEASUREMENTS, no parameters
VALUE_BYTES = 48  # SHA-384
BLOCKS_MAX = 255

_HEAD = struct.Struct(f"<4s{NONCE_BYTES}sB4sB3s")  # request, nonce, slot, response, number of blocks, record length
_MIDDLE = struct.Struct(f"<{NONCE_BYTES}sH")  # responder's nonce, which nobody compares; opaque length
# Of each measurement: index, specification (1 = DMTF), size 51, value type 1, value size 48; then the value.
_BLOCK_HEAD = struct.Struct("<BBHBH")
_BLOCK = f"{_BLOCK_HEAD.size}s{VALUE_BYTES}s"
_BLOCK_BYTES = _BLOCK_HEAD.size + VALUE_BYTES
_FIELD_HEAD = struct.Struct("<HH")  # of the opaque data: type, length
_BLOCK_HEADS = tuple(_BLOCK_HEAD.pack(n, 1, VALUE_BYTES + 3, 1, VALUE_BYTES) for n in range(1, BLOCKS_MAX + 1))


class Field(IntEnum):
    """
    Opaque fields that verification reads. Others are kept, unread: the signature covers them. Switches use numbers of
    their own: what 22 is, depends on the class of the device.
    """

    DRIVER_VERSION = 3
    VBIOS_VERSION = 6
    NVDEC0_STATUS = 11
    CHIP_SKU = 15
    PROJECT = 17
    PROJECT_SKU = 18
    FWID = 20
    PROTECTED_PCIE_STATUS = 21
    PDIS = 22  # of a GPU: the switch at each link, bytes reversed; of a switch: its own
    SWITCH_LOCK = 25
    SWITCH_GPUS = 26  # the GPUs that a switch sees: eight PDIs, then which port leads to which
    OPAQUE_DATA_VERSION = 34
    CHIP_INFO = 35
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
    request, nonce, slot, response, blocks, size = _HEAD.unpack(cursor.take(_HEAD.size, "headers"))
    if (request, slot, response) != (REQUEST, SLOT, RESPONSE):
        found = f"request {request.hex()}, slot {slot}, response {response.hex()}"
        raise MalformedEvidence(REPORT_MALFORMED, found, f"{REQUEST.hex()}, {SLOT}, {RESPONSE.hex()}")
    record = cursor.take(int.from_bytes(size, "little"), "measurement record")
    _responder_nonce, size = _MIDDLE.unpack(cursor.take(_MIDDLE.size, "responder nonce and opaque length"))
    opaque = cursor.take(size, "opaque data")
    signed = payload[: cursor.at]
    signature = cursor.take(SIGNATURE_BYTES, "signature")
    cursor.end("report")
    return Report(Nonce(nonce), _measurements(record, blocks), _opaque(opaque), signed, signature)


def _measurements(record: bytes, blocks: int) -> tuple[bytes, ...]:
    if not blocks or len(record) != blocks * _BLOCK_BYTES:
        found = f"{len(record)} bytes for {blocks} measurements"
        raise MalformedEvidence(REPORT_MALFORMED, found, f"{_BLOCK_BYTES} bytes each, at least one")
    pieces = struct.unpack(_BLOCK * blocks, record)  # in one go: this is the hot path
    heads, wanted = pieces[::2], _BLOCK_HEADS[:blocks]
    if heads != wanted:
        index = next(index for index, head in enumerate(heads) if head != wanted[index])
        found = f"measurement {index} headed {heads[index].hex()}"
        raise MalformedEvidence(REPORT_MALFORMED, found, wanted[index].hex())
    return pieces[1::2]


def _opaque(data: bytes) -> Mapping[int, bytes]:
    found: dict[int, bytes] = {}
    at, end, head = 0, len(data), _FIELD_HEAD.unpack_from
    while at < end:  # a hot loop: slices instead of a cursor
        if at + 4 > end:
            raise MalformedEvidence(REPORT_MALFORMED, f"{end - at} bytes at the end of the opaque data", "none")
        field, size = head(data, at)
        at += 4 + size
        if at > end:
            raise MalformedEvidence(REPORT_MALFORMED, f"opaque field {field} of {size} bytes", "one that fits")
        if field in found:
            raise MalformedEvidence(REPORT_MALFORMED, f"opaque field {field} twice", "once")
        found[field] = data[at - size : at]
    return found
