"""
NSCQ, NVIDIA's library for NVSwitches, through ctypes: what switches are here, and their evidence.

The only module that speaks to libnvidia-nscq.so.2. It is loaded at the first question. Where it is not there, no switch
is there either, unless somebody expects some (GPUs in protected-PCIe mode do). As in `nvml`, each reading runs in one
worker thread with a time limit and in a session of its own, no return code becomes a traceback, and every size is
checked. It is all switches or a problem that names one: a bundle never leaves a switch out.

What the layouts and calls rest on. NVIDIA publishes no full reference. Confirmed by public sources, which agree: the
header nscq_attestation.h and the clients nscq_client.cpp of NVIDIA/attestation-sdk, and pynscq of NVIDIA's nvtrust:

- names, arguments and return types of the five functions used; return codes (below 0 errors, above 0 warnings:
  "success, but with caveats"); nscq_uuid_t, nscq_label_t, nscq_arch_t, and both attestation structures;
- callbacks get (device, return code, value, user data), structures by value; the result is there when observe returns;
- all paths used here; that the switch's label names it in `/<label>/config/...`; that the nonce, 32 bytes, goes in by
  nscq_session_set_input before each report.

Not confirmed, and so not relied on:

- whether a chain's size counts a closing NUL (it is stripped), and in what order switches are listed (it is by label);
- what a label looks like: only what is safe in a path is taken;
- pcie_mode 2: a failure in the header (so it is shown), "locked, not enabled" in pynscq's client; nothing rests on it;
- what the library answers where there is no switch: an error is reported as one, an empty list is none.

No real switch has answered this module yet: it was tried against a stub only.
"""

from __future__ import annotations

import ctypes
import functools
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from attest.evidence import DEVICES_MAX, NONCE_BYTES, NVIDIA, Bundle, Evidence, Nonce
from nodeprobe import problems
from nodeprobe.details import FabricDetails, Switch, printable
from nodeprobe.problems import ProblemError
from nodeprobe.timelimit import LIMIT_SECONDS, Doing, HungError, Worker

T = TypeVar("T")

LIBRARY = "libnvidia-nscq.so.2"
SWITCHES_MAX = DEVICES_MAX
MOUNT_DEVICES = 1
UUID_BYTES = 16
LABEL_BYTES = 64
CHAIN_BYTES = 0x1400
REPORT_BYTES = 0x2000

UUIDS_PATH = "/drv/nvswitch/{device}/uuid"
ARCHITECTURES_PATH = "/{nvswitch}/id/arch"
_LABEL = re.compile(r"[0-9A-Za-z][0-9A-Za-z_.:-]*")  # it becomes part of a path

ARCHITECTURES = {0: "sv10", 1: "lr10", 2: "ls10"}
PCIE_MODES = {-1: "unknown", 0: "disabled", 1: "enabled", 2: "failure", 3: "locked"}
_ERRORS = {
    -1: "not implemented",
    -2: "invalid UUID",
    -3: "resource not mountable",
    -4: "overflow",
    -5: "unexpected value",
    -6: "unsupported driver",
    -7: "driver error",
    -8: "timeout",
    -127: "external error",
    -128: "unspecified error",
}


class Uuid(ctypes.Structure):
    """nscq_uuid_t"""

    _fields_ = (("bytes", ctypes.c_uint8 * UUID_BYTES),)


class Label(ctypes.Structure):
    """nscq_label_t"""

    _fields_ = (("data", ctypes.c_char * LABEL_BYTES),)


class SessionResult(ctypes.Structure):
    """nscq_session_result_t"""

    _fields_ = (("rc", ctypes.c_int8), ("session", ctypes.c_void_p))


class Chain(ctypes.Structure):
    """nscq_attestation_certificate_t"""

    _fields_ = (("cert_chain", ctypes.c_uint8 * CHAIN_BYTES), ("cert_chain_size", ctypes.c_uint32))


class Report(ctypes.Structure):
    """nscq_attestation_report_t"""

    _fields_ = (("report_size", ctypes.c_uint32), ("report", ctypes.c_uint8 * REPORT_BYTES))


class Fabric:
    """The switches of this node, to be asked again and again. A hung call blocks the later ones, at no cost."""

    def __init__(self, limit_seconds: float = LIMIT_SECONDS, library: str = LIBRARY) -> None:
        self._limit_seconds = limit_seconds
        self._library = library
        self._worker = Worker()

    def switches(self) -> FabricDetails:
        """What switches are here. Never raises for a failure of theirs: that is a problem in the result."""
        try:
            return self._run(functools.partial(_read_switches, self._library))
        except ProblemError as e:
            return FabricDetails(problems=(e.problem,))

    def evidence(self, nonce: Nonce, *, expected: bool = False) -> Bundle:
        """
        The reports of all switches over the 32-byte `nonce`, in the order of their labels, each with its chain.

        No library and no switch give an empty bundle, unless some are `expected`. ProblemError then, or if any switch
        gives no evidence, or if the library does not come back in time.
        """
        if len(nonce) != NONCE_BYTES:
            raise ValueError(f"a nonce has {NONCE_BYTES} bytes, not {len(nonce)}")
        return self._run(functools.partial(_read_evidence, self._library, nonce, expected))

    def _run(self, job: Callable[[Doing], T]) -> T:
        try:
            return self._worker.run(job, self._limit_seconds)
        except HungError as e:
            raise ProblemError(problems.switches_hung(e.doing, self._limit_seconds)) from None


def switches(limit_seconds: float = LIMIT_SECONDS) -> FabricDetails:
    """As Fabric.switches, for asking once."""
    return Fabric(limit_seconds).switches()


# --- what follows runs in the worker thread ---------------------------------------------------------------------------


def _read_switches(library: str, doing: Doing) -> FabricDetails:
    opened = _load(library)
    if opened is None:
        return FabricDetails()
    with _session(opened, doing) as session:
        found = session.found()
        architectures = session.architectures() if found else {}
        return FabricDetails(
            library=True,
            switches=tuple(_describe(session, each, architectures.get(each.uuid)) for each in found),
        )


def _describe(session: _Session, switch: _Found, architecture: int | None) -> Switch:
    unsaid = {}
    pcie_mode: str | None = None
    try:
        pcie_mode = _named(PCIE_MODES, session.of(switch, "pcie_mode", ctypes.c_int8, int))
    except ProblemError as e:
        unsaid["pcie_mode"] = e.problem.what
    if architecture is None:
        unsaid["architecture"] = "the library does not say it"
    return Switch(
        uuid=printable(switch.label),
        architecture=None if architecture is None else _named(ARCHITECTURES, architecture),
        pcie_mode=pcie_mode,
        unsaid=unsaid,
    )


def _named(names: dict[int, str], value: int) -> str:
    return names.get(value, f"unknown value {value}")


def _read_evidence(library: str, nonce: Nonce, expected: bool, doing: Doing) -> Bundle:
    opened = _load(library)
    if opened is None:
        if expected:
            raise ProblemError(problems.NO_NSCQ)
        return ()
    with _session(opened, doing) as session:
        found = session.found()
        if expected and not found:
            raise ProblemError(problems.NO_SWITCH)
        return tuple(_evidence_of(session, switch, nonce) for switch in found)


def _evidence_of(session: _Session, switch: _Found, nonce: Nonce) -> Evidence:
    padded = session.of(
        switch, "certificate", Chain, lambda c: _filled(c.cert_chain, c.cert_chain_size, switch, "certificate chain")
    )
    chain = padded.strip(b"\0\r\n")  # PEM text
    if not chain:
        raise ProblemError(problems.switch_evidence_size(switch.label, "certificate chain", 0, CHAIN_BYTES))
    session.set_input(switch, nonce)
    report = session.of(
        switch, "attestation_report", Report, lambda r: _filled(r.report, r.report_size, switch, "attestation report")
    )
    return Evidence(kind=NVIDIA, payload=report, certificates=chain + b"\n")


def _filled(buffer: Any, size: int, switch: _Found, what: str) -> bytes:
    """The filled part of a fixed buffer: never more than it holds, and never nothing."""
    if not 0 < size <= len(buffer):
        raise ProblemError(problems.switch_evidence_size(switch.label, what, size, len(buffer)))
    return bytes(buffer[:size])


# --- asking -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Found:
    """One switch: its UUID, and the label that the library names it by."""

    uuid: bytes
    label: str


@dataclass(frozen=True, slots=True)
class _Answer:
    """One call of a callback, copied: what it points to may not outlive it."""

    device: bytes | None
    code: int
    value: Any


class _Session:
    """An open session of the library."""

    def __init__(self, library: ctypes.CDLL, handle: int, doing: Doing) -> None:
        self._library = library
        self._handle = ctypes.c_void_p(handle)
        self._doing = doing

    def found(self) -> tuple[_Found, ...]:
        """All switches, by label. ProblemError if one of them does not say who it is."""
        answers = self._observe(UUIDS_PATH, ctypes.POINTER(Uuid), _uuid)
        if len(answers) > SWITCHES_MAX:
            raise ProblemError(problems.too_many_switches(SWITCHES_MAX))
        for each in answers:
            if each.code < 0 or each.value is None:
                reason = _reason(each.code) if each.code < 0 else "a switch without a UUID"
                raise ProblemError(problems.switches_failed(UUIDS_PATH, reason))
        found = tuple(sorted((_Found(each.value, self._label(each.value)) for each in answers), key=lambda s: s.label))
        if len({each.uuid for each in found}) < len(found) or len({each.label for each in found}) < len(found):
            raise ProblemError(problems.switches_failed(UUIDS_PATH, "a switch is listed twice"))
        return found

    def architectures(self) -> dict[bytes, int]:
        """By UUID, of those that say it. They are asked for all at once: no source shows the path for one switch."""
        answers = self._observe(ARCHITECTURES_PATH, ctypes.c_int8, int)
        return {each.device: each.value for each in answers if each.device is not None and each.code >= 0}

    def of(self, switch: _Found, what: str, kind: Any, read: Callable[[Any], T]) -> T:
        """One value below `config` of one switch. ProblemError, naming it, unless exactly that is answered."""
        path = f"/{switch.label}/config/{what}"

        def fail(reason: str) -> ProblemError:
            return ProblemError(problems.switch_failed(switch.label, what, reason))

        answers = self._observe(path, kind, _copied(kind), fail)
        if len(answers) != 1:
            raise fail(f"{len(answers) or 'no'} answers")
        (answer,) = answers
        if answer.code < 0:
            raise fail(_reason(answer.code))
        if answer.device != switch.uuid:
            raise fail("another switch answered")
        return read(answer.value)

    def set_input(self, switch: _Found, nonce: Nonce) -> None:
        """Hand in what the next report shall be over."""
        self._doing(f"nscq_session_set_input ({switch.label})")
        data = (ctypes.c_uint8 * NONCE_BYTES).from_buffer_copy(nonce)
        code = _function(self._library, "nscq_session_set_input", ctypes.c_int8)(
            self._handle, ctypes.c_uint32(0), ctypes.byref(data), ctypes.c_uint32(NONCE_BYTES)
        )
        if code < 0:
            raise ProblemError(problems.switch_failed(switch.label, "nonce", _reason(code)))

    def _label(self, uuid: bytes) -> str:
        self._doing("nscq_uuid_to_label")
        label, given = Label(), Uuid.from_buffer_copy(uuid)
        code = _function(self._library, "nscq_uuid_to_label", ctypes.c_int8)(
            ctypes.byref(given), ctypes.byref(label), ctypes.c_uint32(0)
        )
        if code < 0:
            raise ProblemError(problems.switch_failed(uuid.hex(), "label", _reason(code)))
        text = printable(label.data)
        if not _LABEL.fullmatch(text) or len(label.data) >= LABEL_BYTES:
            raise ProblemError(problems.switch_failed(uuid.hex(), "label", f"it says {text!r}"))
        return text

    def _observe(
        self,
        path: str,
        kind: Any,
        copy: Callable[[Any], Any],
        fail: Callable[[str], ProblemError] | None = None,
    ) -> list[_Answer]:
        """What the library calls back with for a path: all of it, but no more than one too many."""
        answers: list[_Answer] = []

        def called(device: Any, code: int, value: Any, _: object) -> None:
            if len(answers) <= SWITCHES_MAX:  # nothing in here may raise: it would be printed, and lost
                answers.append(_Answer(_uuid(device), code, copy(value) if code >= 0 else None))

        self._doing(f"nscq_session_path_observe ({path})")
        callback = ctypes.CFUNCTYPE(None, ctypes.POINTER(Uuid), ctypes.c_int8, kind, ctypes.c_void_p)(called)
        code = _function(self._library, "nscq_session_path_observe", ctypes.c_int8)(
            self._handle, ctypes.c_char_p(path.encode()), callback, None, ctypes.c_uint32(0)
        )
        if code < 0:
            reason = _reason(code)
            raise ProblemError(problems.switches_failed(path, reason)) if fail is None else fail(reason)
        return answers


def _uuid(pointer: Any) -> bytes | None:
    return bytes(pointer.contents.bytes) if pointer else None


def _copied(kind: Any) -> Callable[[Any], Any]:
    return kind.from_buffer_copy if issubclass(kind, ctypes.Structure) else int


def _reason(code: int) -> str:
    return f"{_ERRORS.get(code, 'unknown error')} (NSCQ error {code})"


def _load(library: str) -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(library)
    except OSError:
        return None


def _function(library: ctypes.CDLL, name: str, result: Any) -> Any:
    try:
        found = getattr(library, name)
    except AttributeError:
        raise ProblemError(problems.switches_failed(name, "not known to this library")) from None
    found.restype = result
    return found


@contextmanager
def _session(library: ctypes.CDLL, doing: Doing) -> Iterator[_Session]:
    create = _function(library, "nscq_session_create", SessionResult)
    destroy = _function(library, "nscq_session_destroy", None)
    doing("nscq_session_create")
    made = create(ctypes.c_uint32(MOUNT_DEVICES))
    if made.rc < 0 or not made.session:
        reason = _reason(made.rc) if made.rc < 0 else "it gives no session"
        raise ProblemError(problems.switches_failed("nscq_session_create", reason))
    try:
        yield _Session(library, made.session, doing)
    finally:
        doing("nscq_session_destroy")
        destroy(ctypes.c_void_p(made.session))
