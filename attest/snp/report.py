"""
The layout of a SEV-SNP attestation report, and nothing about whether to believe it.

1,184 bytes, little-endian (AMD 56860, ATTESTATION_REPORT), of which the first 672 are signed. Versions 2 to 5: version
3 added the CPUID, version 5 the mitigation vectors; what a version keeps reserved must be zero.
"""

from __future__ import annotations

from dataclasses import dataclass

from attest.cursor import Cursor
from attest.errors import MalformedEvidence, UnsupportedEvidence
from attest.reasons.snp import SNP_REPORT_MALFORMED, SNP_VERSION_UNSUPPORTED
from attest.snp.product import TCB_BYTES

REPORT_BYTES = 1184
SIGNED_BYTES = 0x2A0
VERSIONS = range(2, 6)
CPUID_SINCE, MITIGATIONS_SINCE = 3, 5
ECDSA_P384_SHA384 = 1
CHIP_ID_BYTES = 64
REPORT_DATA_BYTES = 64
MEASUREMENT_BYTES = 48
HOST_DATA_BYTES = 32
POLICY_MUST_BE_ONE = 1 << 17
_SCALAR_BYTES, _P384_BYTES = 72, 48


@dataclass(frozen=True, slots=True)
class Flags:
    """The word at 0x48: who signed, and what the host hides."""

    author_key: bool
    chip_key_masked: bool
    signing_key: int  # 0 VCEK, 1 VLEK, 7 none


@dataclass(frozen=True, slots=True)
class Report:
    """A report as it stands. TCB versions are kept raw: their layout depends on the product."""

    version: int
    guest_svn: int
    policy: int  # of the guest, 64 bits
    vmpl: int  # 0 to 3; 0xffffffff where the host asked
    platform: int  # 64 bits
    flags: Flags
    report_data: bytes
    measurement: bytes
    host_data: bytes
    id_key_digest: bytes
    author_key_digest: bytes
    report_id: bytes
    cpuid: tuple[int, int] | None  # family and model; None in version 2
    chip_id: bytes  # zero where masked; on Turin 8 bytes and zeros
    current_tcb: bytes
    reported_tcb: bytes
    committed_tcb: bytes
    launch_tcb: bytes
    current_firmware: str  # "major.minor.build"
    committed_firmware: str
    signed: bytes
    signature: bytes  # r || s, 48 bytes each, big-endian

    @property
    def chip_masked(self) -> bool:
        return not any(self.chip_id)


def parse(payload: bytes) -> Report:
    """Read a report strictly: its size, every constant, reserved bytes zero. MalformedEvidence otherwise."""
    if len(payload) != REPORT_BYTES:
        raise MalformedEvidence(SNP_REPORT_MALFORMED, f"{len(payload)} bytes", f"{REPORT_BYTES}")
    cursor = Cursor(payload, reason=SNP_REPORT_MALFORMED)
    version = cursor.uint(4, "version")
    if version not in VERSIONS:
        wanted = f"{VERSIONS.start} to {VERSIONS.stop - 1}"
        raise UnsupportedEvidence(SNP_VERSION_UNSUPPORTED, f"version {version}", wanted)
    guest_svn = cursor.uint(4, "guest SVN")
    policy = _policy(cursor)
    cursor.take(32, "family and image id")
    vmpl = cursor.uint(4, "VMPL")
    cursor.expect(4, ECDSA_P384_SHA384, "signature algorithm")
    return Report(
        version=version,
        guest_svn=guest_svn,
        policy=policy,
        vmpl=vmpl,
        current_tcb=cursor.take(TCB_BYTES, "current TCB"),
        platform=cursor.uint(8, "platform information"),
        flags=_flags(cursor),
        report_data=cursor.take(REPORT_DATA_BYTES, "report data"),
        measurement=cursor.take(MEASUREMENT_BYTES, "measurement"),
        host_data=cursor.take(HOST_DATA_BYTES, "host data"),
        id_key_digest=cursor.take(48, "id key digest"),
        author_key_digest=cursor.take(48, "author key digest"),
        report_id=_report_id(cursor),
        reported_tcb=cursor.take(TCB_BYTES, "reported TCB"),
        cpuid=_cpuid(cursor, version),
        chip_id=cursor.take(CHIP_ID_BYTES, "chip id"),
        committed_tcb=cursor.take(TCB_BYTES, "committed TCB"),
        current_firmware=_firmware(cursor, "current"),
        committed_firmware=_firmware(cursor, "committed"),
        launch_tcb=cursor.take(TCB_BYTES, "launch TCB"),
        signature=_signature(cursor, version),
        signed=payload[:SIGNED_BYTES],
    )


def _policy(cursor: Cursor) -> int:
    policy = cursor.uint(8, "guest policy")
    if not policy & POLICY_MUST_BE_ONE:
        raise MalformedEvidence(SNP_REPORT_MALFORMED, f"guest policy {policy:#x}", "bit 17 set")
    return policy


def _flags(cursor: Cursor) -> Flags:
    word = cursor.uint(4, "flags")
    if word >> 5:
        raise MalformedEvidence(SNP_REPORT_MALFORMED, f"flags {word:#x}", "zero above bit 4")
    cursor.expect(4, 0, "reserved word at 0x4c")
    return Flags(bool(word & 1), bool(word & 2), word >> 2)


def _report_id(cursor: Cursor) -> bytes:
    own = cursor.take(32, "report id")
    cursor.take(32, "report id of the migration agent")
    return own


def _cpuid(cursor: Cursor, version: int) -> tuple[int, int] | None:
    if version < CPUID_SINCE:
        _reserved(cursor, 24, "reserved bytes at 0x188")
        return None
    family, model = cursor.uint(1, "CPUID family"), cursor.uint(1, "CPUID model")
    cursor.take(1, "CPUID stepping")
    _reserved(cursor, 21, "reserved bytes at 0x18b")
    return family, model


def _firmware(cursor: Cursor, which: str) -> str:
    build, minor, major = cursor.take(3, f"{which} firmware version")
    _reserved(cursor, 1, f"reserved byte after the {which} firmware version")
    return f"{major}.{minor}.{build}"


def _signature(cursor: Cursor, version: int) -> bytes:
    """The rest of the signed part, and r and s: 72 bytes each, little-endian, of which P-384 needs 48."""
    if version >= MITIGATIONS_SINCE:
        cursor.take(16, "launch and current mitigation vectors")
    _reserved(cursor, SIGNED_BYTES - cursor.at, "reserved bytes before the signature")
    r, s = (cursor.take(_SCALAR_BYTES, name) for name in ("r", "s"))
    if any(r[_P384_BYTES:]) or any(s[_P384_BYTES:]):
        raise MalformedEvidence(SNP_REPORT_MALFORMED, "r or s longer than 48 bytes", "zeros from there on")
    _reserved(cursor, REPORT_BYTES - cursor.at, "reserved bytes after the signature")
    return r[_P384_BYTES - 1 :: -1] + s[_P384_BYTES - 1 :: -1]


def _reserved(cursor: Cursor, size: int, what: str) -> None:
    if any(cursor.take(size, what)):
        raise MalformedEvidence(SNP_REPORT_MALFORMED, f"{what} in use", "zeros")
