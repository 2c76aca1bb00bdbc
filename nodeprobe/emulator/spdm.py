"""
The report of one device: SPDM 1.1 GET_MEASUREMENTS request, then the signed MEASUREMENTS response.

Layout: spec/nvidia.md §3 and §4. A draft holds what is about to be said; a defect changes it before it is encoded, or
adds an edit of the bytes before or after they are signed.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

NONCE_BYTES = 32
SIGNATURE_BYTES = 96
COMPONENT_BYTES = SIGNATURE_BYTES // 2

# Types of the opaque fields (§4.1).
DRIVER_VERSION = 3
GPU_INFO = 4
VBIOS_VERSION = 6
NVDEC0_STATUS = 11
MSRSCNT = 12
CPRINFO = 13
BOARD_ID = 14
CHIP_SKU = 15
CHIP_SKU_MOD = 16
PROJECT = 17
PROJECT_SKU = 18
PROJECT_SKU_MOD = 19
FWID = 20
PROTECTED_PCIE_STATUS = 21
SWITCH_PDI = 22
SYS_ENABLE_STATUS = 33
OPAQUE_DATA_VERSION = 34
CHIP_INFO = 35
FEATURE_FLAG = 36

# Those of switches (§4.2), who use some numbers otherwise.
DEVICE_PDI = 22
DISABLED_PORTS = 23
SWITCH_POSITION_ID = 24
SWITCH_LOCK_STATUS = 25
SWITCH_GPU_PDIS = 26

ENABLED, DISABLED = b"\xaa", b"\x55"
LOCKED, UNLOCKED = b"\1\0", b"\0\0"

Edit = Callable[[bytes], bytes]


@dataclass(slots=True)
class ReportDraft:
    """A report that is about to be encoded and signed."""

    nonce: bytes
    measurements: list[bytes]  # block k, whose SPDM index is k + 1, is the manifest's index k
    fields: list[tuple[int, bytes]]  # type and value, in the order of genuine reports
    responder_nonce: bytes
    key: ec.EllipticCurvePrivateKey = field(repr=False)
    indices: list[int] = field(default_factory=list)  # of the blocks; 1, 2, 3 … unless a defect says otherwise
    opaque_tail: bytes = b""  # behind the last field, and counted as opaque data
    before_signing: list[Edit] = field(default_factory=list)
    after_signing: list[Edit] = field(default_factory=list)

    def get(self, kind: int) -> bytes:
        """The value of a field. Raises KeyError where there is none."""
        return dict(self.fields)[kind]

    def put(self, kind: int, new: bytes) -> None:
        """Change the value of a field in its place."""
        self.fields = [(each, new if each == kind else old) for each, old in self.fields]

    def drop(self, kind: int) -> None:
        """Leave a field out."""
        self.fields = [(each, old) for each, old in self.fields if each != kind]

    def signed(self) -> bytes:
        """Request, response and signature: 175 + 55 n + L bytes, of n measurements and L bytes of opaque data."""
        data = self._request() + self._response()
        for edit in self.before_signing:
            data = edit(data)
        data += sign(self.key, data)
        for edit in self.after_signing:
            data = edit(data)
        return data

    def _request(self) -> bytes:
        return struct.pack("<BBBB32sB", 0x11, 0xE0, 0x01, 0xFF, self.nonce, 0)

    def _response(self) -> bytes:
        indices = self.indices or range(1, len(self.measurements) + 1)
        record = b"".join(
            struct.pack("<BBHBH", index, 1, 3 + len(value), 1, len(value)) + value
            for index, value in zip(indices, self.measurements, strict=True)
        )
        opaque = b"".join(struct.pack("<HH", kind, len(value)) + value for kind, value in self.fields)
        opaque += self.opaque_tail
        return b"".join(
            (
                struct.pack("<BBBBB", 0x11, 0x60, 0, 0, len(self.measurements)),
                len(record).to_bytes(3, "little"),
                record,
                self.responder_nonce,
                struct.pack("<H", len(opaque)),
                opaque,
            )
        )


def sign(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    """ECDSA with SHA-384 as SPDM and XML signatures carry it: r, then s, 48 bytes each, big-endian."""
    r, s = utils.decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA384())))
    return r.to_bytes(COMPONENT_BYTES, "big") + s.to_bytes(COMPONENT_BYTES, "big")


def text(string: str, size: int = 0) -> bytes:
    """ASCII, at least one NUL behind it, padded with NULs to `size`."""
    return (string.encode("ascii") + b"\0").ljust(size, b"\0")


def vbios_field(version: str) -> bytes:
    """The eight bytes that stand for a dotted VBIOS version: the first four groups backwards, the fifth, zeros."""
    groups = bytes.fromhex(version.replace(".", ""))
    return groups[3::-1] + groups[4:5] + bytes(3)
