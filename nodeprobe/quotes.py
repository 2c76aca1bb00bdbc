"""
Quotes of TDX and reports of SEV-SNP, through configfs-tsm (Linux 6.7 or newer, Documentation/ABI/testing/configfs-tsm).

An entry is a folder: what is to be signed goes into `inblob`; reading `outblob` has the firmware sign it; `provider`
says which firmware; `auxblob` holds certificates, if any. Each write counts up `generation`, so that a second writer is
noticed. Reports come from one buffer of the machine, and under load it says that it is busy: we wait a moment.
"""

from __future__ import annotations

import errno
import os
import struct
import uuid
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Protocol

import stamina

from attest.evidence import AMD_SNP, INTEL_TDX, PAYLOAD_BYTES_MAX, Evidence
from nodeprobe import problems
from nodeprobe.problems import ProblemError

REPORT_DATA_BYTES = 64
OUTBLOB_BYTES_MAX = 32 << 10
AUXBLOB_BYTES_MAX = 64 << 10
WORD_BYTES_MAX = 64  # of provider and generation
TRIES = 5
PAUSE_SECONDS = 0.05
_BUSY = frozenset({errno.EBUSY, errno.EINTR, errno.EAGAIN, errno.EWOULDBLOCK})
_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_KINDS = {"tdx_guest": INTEL_TDX, "sev_guest": AMD_SNP}
# The table that a host hands to an SEV-SNP guest (GHCB specification, extended guest request): GUID, offset, length.
_ENTRY = struct.Struct("<16sII")
_CERTIFICATES_MAX = 16
_IN_ORDER = (  # signing key (VCEK or VLEK), its authority, root: the order of a chain
    "63da758d-e664-4564-adc5-f4b93be8accd",
    "a8074bc2-a25a-483e-aae6-39c045a0b8a1",
    "4ab7b379-bbac-4fe4-a02f-05aef327c782",
    "c0b406a4-a803-4952-9743-3fb6014cd0ae",
)


class Reports(Protocol):
    """The folder of entries, as the kernel keeps it. Everything raises OSError."""

    def make(self, entry: str) -> None: ...
    def write(self, entry: str, attribute: str, data: bytes) -> None: ...
    def read(self, entry: str, attribute: str, limit: int) -> bytes: ...
    def remove(self, entry: str) -> None: ...


class Configfs:
    """The kernel's own, below /sys/kernel/config."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def make(self, entry: str) -> None:
        (self._path / entry).mkdir()

    def write(self, entry: str, attribute: str, data: bytes) -> None:
        """In one call: the kernel takes each write for a whole value."""
        handle = os.open(self._path / entry / attribute, os.O_WRONLY)
        try:
            if os.write(handle, data) != len(data):
                raise OSError(errno.EIO, "written in part")
        finally:
            os.close(handle)

    def read(self, entry: str, attribute: str, limit: int) -> bytes:
        with (self._path / entry / attribute).open("rb") as file:
            return file.read(limit)

    def remove(self, entry: str) -> None:
        (self._path / entry).rmdir()


class _BusyError(Exception):
    """Try again: the firmware is busy, or somebody else wrote to our entry."""


class Quoter:
    """One entry a process, one report at a time."""

    def __init__(self, reports: Reports) -> None:
        self._reports = reports
        self._entry = f"nodeprobe-{os.getpid()}"
        self._lock = Lock()

    def evidence(self, report_data: bytes) -> Evidence:
        """
        A quote or report over 64 bytes, with the certificates that came with it. ProblemError if there is none to be
        had. The entry is removed again, whatever happens.
        """
        if len(report_data) != REPORT_DATA_BYTES:
            raise ValueError(f"report data has {REPORT_DATA_BYTES} bytes, not {len(report_data)}")
        with self._lock:
            try:
                return self._with_entry(report_data)
            except _BusyError as e:
                raise ProblemError(problems.cpu_tee_failed(f"it stayed busy ({e})")) from None
            except OSError as e:
                if e.errno in _FORBIDDEN:
                    raise ProblemError(problems.CPU_TEE_NO_PERMISSION) from None
                raise ProblemError(problems.cpu_tee_failed(e.strerror or str(e))) from None

    def _with_entry(self, report_data: bytes) -> Evidence:
        with suppress(FileNotFoundError):  # of a process that had our number and died
            self._reports.remove(self._entry)
        self._reports.make(self._entry)
        try:
            return self._asked(report_data)
        finally:
            with suppress(OSError):  # what went wrong before is worth more
                self._reports.remove(self._entry)

    def _asked(self, report_data: bytes) -> Evidence:
        attempts = stamina.retry_context(
            on=_BusyError, attempts=TRIES, timeout=None, wait_initial=PAUSE_SECONDS, wait_jitter=0.0
        )
        for attempt in attempts:
            with attempt:
                return self._ask(report_data)
        raise AssertionError  # pragma: no cover - the last attempt returns or raises

    def _ask(self, report_data: bytes) -> Evidence:
        try:
            before = self._generation()
            self._reports.write(self._entry, "inblob", report_data)
            payload = self._reports.read(self._entry, "outblob", OUTBLOB_BYTES_MAX + 1)
            provider = self._word("provider")
            table = self._certificates() if _KINDS.get(provider) == AMD_SNP else b""
            after = self._generation()
        except OSError as e:
            if e.errno in _BUSY:
                raise _BusyError(e.strerror) from e
            raise
        if after != before + 1:
            raise _BusyError(f"generation {after} after {before}: somebody else wrote")
        kind = _KINDS.get(provider)
        if kind is None:
            raise ProblemError(problems.cpu_tee_failed(f"the provider {provider!r} is not known"))
        if not 0 < len(payload) <= min(OUTBLOB_BYTES_MAX, PAYLOAD_BYTES_MAX):
            raise ProblemError(problems.cpu_tee_failed(f"a report of {len(payload)} bytes"))
        return Evidence(kind, payload, table)

    def _certificates(self) -> bytes:
        """Of the host's table, if there is one: not every host fills it, and not every kernel has the file."""
        try:
            table = self._reports.read(self._entry, "auxblob", AUXBLOB_BYTES_MAX + 1)
        except FileNotFoundError:
            return b""
        return certificates_in(table)

    def _generation(self) -> int:
        word = self._word("generation")
        if not word.isascii() or not word.isdecimal():
            raise ProblemError(problems.cpu_tee_failed(f"the generation {word!r} is no number"))
        return int(word)

    def _word(self, attribute: str) -> str:
        return self._reports.read(self._entry, attribute, WORD_BYTES_MAX).decode(errors="replace").strip()


def certificates_in(table: bytes) -> bytes:
    """
    The certificates of a host's table (DER), in the order of a chain; empty if it is none. The table is the host's, so
    nothing hangs on it: a verifier fetches what is missing, and believes none without its signature.
    """
    if len(table) > AUXBLOB_BYTES_MAX:
        return b""
    found: dict[str, bytes] = {}
    for at in range(0, _CERTIFICATES_MAX * _ENTRY.size, _ENTRY.size):
        if at + _ENTRY.size > len(table):
            break
        guid, offset, length = _ENTRY.unpack_from(table, at)
        if not any(guid):
            break
        if offset + length > len(table):
            return b""
        found[str(uuid.UUID(bytes_le=guid))] = table[offset : offset + length]
    if not found.keys() & set(_IN_ORDER[:2]):
        return b""  # without the signing key's, the others say nothing
    return b"".join(found.get(guid, b"") for guid in _IN_ORDER)
