"""
The layout of a TDX quote, v4 and v5, and nothing about whether to believe it.

Header of 48 bytes; in v5 the type and size of the body; the body, a TDREPORT; u32 size and the signature data. All
little-endian. Intel's "TDX DCAP Quoting Library API", spec/cpu-tee.md §1. Buffers come zero-padded: padding is cut off,
anything else after the signature data is refused.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag

from attest.cursor import Cursor
from attest.errors import MalformedEvidence, UnsupportedEvidence
from attest.reasons.tdx import TDX_QUOTE_MALFORMED, TDX_QUOTE_UNSUPPORTED

QUOTE_BYTES_MAX = 32 << 10  # what configfs-tsm gives out at most
CHAIN_BYTES_MAX = 16 << 10
HEADER_BYTES = 48
VERSIONS = (4, 5)
TDX_TEE, ECDSA_P256 = 0x81, 2
QE_REPORT, PCK_CHAIN_PEM = 6, 5  # certification data types
INTEL_QE = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
ENCLAVE_REPORT_BYTES, SIGNATURE_BYTES, KEY_BYTES, AUTH_BYTES = 384, 64, 64, 32
REPORT_DATA_BYTES = 64


class BodyType(IntEnum):
    """Which TDREPORT the body is. Type 1 is an SGX enclave's, which no worker runs in."""

    TD_1_0 = 2
    TD_1_5 = 3
    TD_1_5_EX = 4

    @property
    def claim(self) -> str:
        return {2: "td-1.0", 3: "td-1.5", 4: "td-1.5ex"}[self]


class Attribute(IntFlag):
    """TDATTRIBUTES, a u64. Every bit that has no name here is reserved, and must be zero."""

    DEBUG = 1
    HGS_PLUS_PROF = 1 << 4
    PERF_PROF = 1 << 5
    PMT_PROF = 1 << 6
    ICSSD = 1 << 16
    SERVTD_EXT = 1 << 17
    LASS = 1 << 27
    SEPT_VE_DISABLE = 1 << 28
    MIGRATABLE = 1 << 29
    PKS = 1 << 30
    KL = 1 << 31
    TPA = 1 << 62
    PERFMON = 1 << 63


_TD_1_0 = {
    "tee_tcb_svn": 16,
    "mrseam": 48,
    "mrsignerseam": 48,
    "seamattributes": 8,
    "td_attributes": 8,
    "xfam": 8,
    "mrtd": 48,
    "mrconfigid": 48,
    "mrowner": 48,
    "mrownerconfig": 48,
    "rtmr0": 48,
    "rtmr1": 48,
    "rtmr2": 48,
    "rtmr3": 48,
    "report_data": REPORT_DATA_BYTES,
}
_TD_1_5 = _TD_1_0 | {"tee_tcb_svn2": 16, "mrservicetd": 48}
_TD_1_5_EX = _TD_1_5 | {
    "vm_index": 1,
    "td_id": 32,
    "dev_info": 48,
    "initial_service_td_hash": 48,
    "initial_service_td_attributes": 8,
    "initial_cpu_svn": 16,
    "initial_tee_tcb_svn": 16,
    "initial_fmspc": 12,
    "current_service_td_hash": 48,
    "current_service_td_attributes": 8,
}
_LAYOUTS = {BodyType.TD_1_0: _TD_1_0, BodyType.TD_1_5: _TD_1_5, BodyType.TD_1_5_EX: _TD_1_5_EX}
_STRUCTS = {body: struct.Struct("".join(f"{size}s" for size in sizes.values())) for body, sizes in _LAYOUTS.items()}


@dataclass(frozen=True, slots=True)
class TdReport:
    """The body, in the order of its layout. Fields that only later types have are empty before them."""

    tee_tcb_svn: bytes
    mrseam: bytes
    mrsignerseam: bytes
    seamattributes: bytes
    td_attributes: bytes
    xfam: bytes
    mrtd: bytes
    mrconfigid: bytes
    mrowner: bytes
    mrownerconfig: bytes
    rtmr0: bytes
    rtmr1: bytes
    rtmr2: bytes
    rtmr3: bytes
    report_data: bytes
    tee_tcb_svn2: bytes = b""
    mrservicetd: bytes = b""
    vm_index: bytes = b""
    td_id: bytes = b""  # new at every launch
    dev_info: bytes = b""
    initial_service_td_hash: bytes = b""
    initial_service_td_attributes: bytes = b""
    initial_cpu_svn: bytes = b""
    initial_tee_tcb_svn: bytes = b""
    initial_fmspc: bytes = b""
    current_service_td_hash: bytes = b""
    current_service_td_attributes: bytes = b""

    @property
    def rtmrs(self) -> tuple[bytes, bytes, bytes, bytes]:
        return self.rtmr0, self.rtmr1, self.rtmr2, self.rtmr3

    @property
    def attributes(self) -> Attribute:
        return Attribute(int.from_bytes(self.td_attributes, "little"))


@dataclass(frozen=True, slots=True)
class Quote:
    """`whole` is the quote without padding, `signed` its header and body, `chain` the PEM text of the PCK chain."""

    version: int
    body: BodyType
    td: TdReport
    signed: bytes
    chain: bytes
    whole: bytes

    @property
    def replay_key(self) -> str:
        """
        SHA-256 of what is signed, lower hex: the name of this quote. Never of the whole, which has as many forms as
        one likes: an ECDSA signature has two, and PEM any number.
        """
        return hashlib.sha256(self.signed).hexdigest()


def parse(payload: bytes) -> Quote:
    """Read a quote strictly: every constant and every size. MalformedEvidence or UnsupportedEvidence otherwise."""
    if len(payload) > QUOTE_BYTES_MAX:
        raise MalformedEvidence(TDX_QUOTE_MALFORMED, f"{len(payload)} bytes", f"at most {QUOTE_BYTES_MAX}")
    cursor = Cursor(payload, reason=TDX_QUOTE_MALFORMED)
    version = _header(cursor)
    body = _body_type(cursor, version)
    layout = _STRUCTS[body]
    td = TdReport(*layout.unpack(cursor.take(layout.size, "body")))  # in one go: this is the hot path
    signed = payload[: cursor.at]
    data = cursor.take(cursor.uint(4, "size of the signature data"), "signature data")
    whole = payload[: cursor.at]
    if payload[cursor.at :].strip(b"\0"):
        found = f"{len(payload) - cursor.at} bytes after the signature data that are not all zero"
        raise MalformedEvidence(TDX_QUOTE_MALFORMED, found, "padding with zeros only")
    return Quote(version, body, td, signed, _signature_data(data), whole)


def _header(cursor: Cursor) -> int:
    version = cursor.uint(2, "version")
    key_type, tee = cursor.uint(2, "attestation key type"), cursor.uint(4, "TEE type")
    if version not in VERSIONS or key_type != ECDSA_P256 or tee != TDX_TEE:
        found = f"version {version}, key type {key_type}, TEE {tee:#x}"
        raise UnsupportedEvidence(TDX_QUOTE_UNSUPPORTED, found, "version 4 or 5, key type 2 (P-256), TEE 0x81 (TDX)")
    cursor.take(4, "QE and PCE SVN")
    if (vendor := cursor.take(16, "QE vendor")) != INTEL_QE:
        raise UnsupportedEvidence(TDX_QUOTE_UNSUPPORTED, f"QE vendor {vendor.hex()}", f"Intel's, {INTEL_QE.hex()}")
    cursor.take(20, "user data")
    return version


def _body_type(cursor: Cursor, version: int) -> BodyType:
    if version == 4:
        return BodyType.TD_1_0
    kind, size = cursor.uint(2, "body type"), cursor.uint(4, "body size")
    if kind not in list(BodyType):
        raise UnsupportedEvidence(TDX_QUOTE_UNSUPPORTED, f"body type {kind}", "2, 3 or 4 (a TD)")
    body = BodyType(kind)
    if size != (want := _STRUCTS[body].size):
        raise MalformedEvidence(TDX_QUOTE_MALFORMED, f"a body of {size} bytes", f"{want} for type {kind}")
    return body


def _signature_data(data: bytes) -> bytes:
    """The PCK chain inside. Signatures, key and QE report are the verifying library's, once their sizes are right."""
    cursor = Cursor(data, reason=TDX_QUOTE_MALFORMED)
    cursor.take(SIGNATURE_BYTES, "quote signature")
    cursor.take(KEY_BYTES, "attestation key")
    certification = _certified(cursor, QE_REPORT, "QE report")
    cursor.end("certification data")
    inner = Cursor(certification, reason=TDX_QUOTE_MALFORMED)
    inner.take(ENCLAVE_REPORT_BYTES, "QE report")
    inner.take(SIGNATURE_BYTES, "QE report signature")
    inner.expect(2, AUTH_BYTES, "QE authentication data size")
    inner.take(AUTH_BYTES, "QE authentication data")
    chain = _certified(inner, PCK_CHAIN_PEM, "PCK chain").rstrip(b"\0")
    inner.end("PCK chain")
    if len(chain) > CHAIN_BYTES_MAX:
        raise MalformedEvidence(TDX_QUOTE_MALFORMED, f"a chain of {len(chain)} bytes", f"at most {CHAIN_BYTES_MAX}")
    return chain


def _certified(cursor: Cursor, want: int, what: str) -> bytes:
    kind = cursor.uint(2, "certification type")
    if kind != want:
        raise UnsupportedEvidence(TDX_QUOTE_UNSUPPORTED, f"certification type {kind}", f"{want} ({what})")
    return cursor.take(cursor.uint(4, f"size of the {what}"), what)
