"""
NVML, the driver's own library, through nvidia-ml-py: what GPUs are here, and their evidence.

The only module that imports pynvml. Three things make it safe to use: every call runs in one worker thread with a time
limit, since driver calls can hang; no error code becomes a traceback, known or not; and nothing that the driver writes
(names, sizes) is taken without a bound. Every reading starts and ends an NVML session of its own, so that a GPU that
was lost or came back is seen.

Layouts and return codes: NVIDIA's nvml.h, as exposed by nvidia-ml-py 13.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import pynvml

from attest.evidence import NONCE_BYTES, NVIDIA, Bundle, Evidence, Nonce
from nodeprobe import problems
from nodeprobe.details import (
    GPUS_MAX,
    NO_FUNCTION,
    NOT_SUPPORTED,
    NVLE,
    PROTECTED_PCIE,
    SIMULATION,
    ConfComputeState,
    DriverDetails,
    Gpu,
    GpuState,
    Mode,
    mode,
    printable,
)
from nodeprobe.problems import Problem, ProblemError
from nodeprobe.timelimit import LIMIT_SECONDS, Doing, HungError, Worker

T = TypeVar("T")

MIB = 1 << 20

ARCHITECTURES = {
    pynvml.NVML_DEVICE_ARCH_TURING: "turing",
    pynvml.NVML_DEVICE_ARCH_AMPERE: "ampere",
    pynvml.NVML_DEVICE_ARCH_ADA: "ada",
    pynvml.NVML_DEVICE_ARCH_HOPPER: "hopper",
    pynvml.NVML_DEVICE_ARCH_BLACKWELL: "blackwell",
    pynvml.NVML_DEVICE_ARCH_RUBIN: "rubin",
}
ENVIRONMENTS = {0: "unavailable", 1: SIMULATION, 2: "production"}
MULTI_GPU_MODES = {0: "none", 1: PROTECTED_PCIE, 2: NVLE}
CPU_CAPABILITIES = {0: "none", 1: "amd-sev", 2: "intel-tdx", 3: "amd-sev-snp", 4: "amd-snp-vtom"}
ON_OFF = {0: False, 1: True}


class DriverHungError(ProblemError):
    """A driver call did not come back in time; the driver may work again later."""


class Driver:
    """The NVIDIA driver of this node, to be asked again and again. A hung call blocks the later ones, at no cost."""

    def __init__(self, limit_seconds: float = LIMIT_SECONDS) -> None:
        self._limit_seconds = limit_seconds
        self._worker = Worker()

    def details(self) -> DriverDetails:
        """What the driver says of the node. Never raises for a driver's failure: that is a problem in the result."""
        try:
            return self._run(_read_details)
        except ProblemError as e:
            return DriverDetails(problems=(e.problem,))

    def evidence(self, nonce: Nonce) -> Bundle:
        """
        The reports of all GPUs over the 32-byte `nonce`, in the driver's order, each with its certificate chain.

        ProblemError if confidential computing is off, or if any GPU gives none: a bundle never leaves one out.
        DriverHungError if the driver does not come back in time.
        """
        if len(nonce) != NONCE_BYTES:
            raise ValueError(f"a nonce has {NONCE_BYTES} bytes, not {len(nonce)}")
        return self._run(functools.partial(_read_evidence, nonce))

    def mode(self) -> Mode:
        """The confidential-computing mode of all GPUs. ProblemError if the driver does not say it."""
        return self._run(_read_mode)

    def _run(self, job: Callable[[Doing], T]) -> T:
        try:
            return self._worker.run(job, self._limit_seconds)
        except HungError as e:
            raise DriverHungError(problems.driver_hung(e.doing, self._limit_seconds)) from None


def details(limit_seconds: float = LIMIT_SECONDS) -> DriverDetails:
    """As Driver.details, for asking once."""
    return Driver(limit_seconds).details()


def evidence(nonce: Nonce, limit_seconds: float = LIMIT_SECONDS) -> Bundle:
    """As Driver.evidence, for asking once."""
    return Driver(limit_seconds).evidence(nonce)


# --- what follows runs in the worker thread ---------------------------------------------------------------------------


def _read_details(doing: Doing) -> DriverDetails:
    with _session(doing):
        node = _Asker(doing, "the driver")
        driver = node.ask("driver", "nvmlSystemGetDriverVersion", read=_text)
        count = min(_count(doing), GPUS_MAX + 1)  # one too many is enough to see that there are too many
        gpus = tuple(_read_gpu(doing, index) for index in range(count))
        return DriverDetails(driver, gpus, _read_conf_compute(doing), unsaid=node.unsaid)


def _read_mode(doing: Doing) -> Mode:
    with _session(doing):
        return mode(_read_conf_compute(doing))


def _read_gpu(doing: Doing, index: int) -> Gpu:
    gpu = _Asker(doing, f"GPU {index}")
    handle = gpu.ask("handle", "nvmlDeviceGetHandleByIndex", index)
    if handle is None and not gpu.lost:
        return Gpu(index, GpuState.FAILED, unsaid=gpu.unsaid)
    read = {
        "name": gpu.ask("name", "nvmlDeviceGetName", handle, read=_text),
        "uuid": gpu.ask("uuid", "nvmlDeviceGetUUID", handle, read=_text),
        "serial": gpu.ask("serial", "nvmlDeviceGetSerial", handle, read=_text),
        "memory_mib": gpu.ask("memory_mib", "nvmlDeviceGetMemoryInfo", handle, read=lambda m: int(m.total) // MIB),
        "architecture": gpu.ask("architecture", "nvmlDeviceGetArchitecture", handle, read=_named(ARCHITECTURES)),
        "vbios": gpu.ask("vbios", "nvmlDeviceGetVbiosVersion", handle, read=_text),
        "pci_bus_id": gpu.ask("pci_bus_id", "nvmlDeviceGetPciInfo", handle, read=lambda pci: _text(pci.busId)),
        "mig": gpu.ask("mig", "nvmlDeviceGetMigMode", handle, read=lambda modes: _named(ON_OFF)(modes[0])),
        "nvlinks": _links_up(gpu, handle),
    }
    return Gpu(index, GpuState.LOST if gpu.lost else GpuState.OK, unsaid=gpu.unsaid, **read)


def _links_up(gpu: _Asker, handle: Any) -> int | None:
    """How many NVLinks are up. NVML numbers more links than a GPU has, and refuses the first that it has not."""
    up: list[bool] = []
    for link in range(pynvml.NVML_NVLINK_MAX_LINKS):
        state = gpu.ask("nvlinks", "nvmlDeviceGetNvLinkState", handle, link)
        if state is None:
            break
        up.append(state == pynvml.NVML_FEATURE_ENABLED)
    if up and gpu.unsaid.get("nvlinks") in (_reason(pynvml.NVML_ERROR_INVALID_ARGUMENT), NOT_SUPPORTED):
        del gpu.unsaid["nvlinks"]
    return sum(up) if up and "nvlinks" not in gpu.unsaid else None


def _read_conf_compute(doing: Doing) -> ConfComputeState:
    node = _Asker(doing, "the driver")
    state = node.ask("feature", "nvmlSystemGetConfComputeState")
    read: dict[str, Any] = {}
    for name, source, names in (
        ("feature", "ccFeature", ON_OFF),
        ("environment", "environment", ENVIRONMENTS),
        ("dev_tools", "devToolsMode", ON_OFF),
    ):
        if state is None:
            node.unsaid[name] = node.unsaid["feature"]
        else:
            read[name] = node.take(name, _named(names), getattr(state, source))
    return ConfComputeState(
        **read,
        ready=node.ask("ready", "nvmlSystemGetConfComputeGpusReadyState", read=_named(ON_OFF)),
        multi_gpu_mode=_multi_gpu_mode(node),
        cpu_capability=node.ask(
            "cpu_capability",
            "nvmlSystemGetConfComputeCapabilities",
            read=lambda caps: _named(CPU_CAPABILITIES)(caps.cpuCaps),
        ),
        unsaid=node.unsaid,
    )


def _multi_gpu_mode(node: _Asker) -> str | None:
    """This call returns its code instead of raising it: nvidia-ml-py leaves it unchecked."""
    settings = pynvml.c_nvmlSystemConfComputeSettings_v1_t()

    def checked(code: int) -> str:
        if code != pynvml.NVML_SUCCESS:
            raise pynvml.NVMLError(code)
        return _named(MULTI_GPU_MODES)(settings.multiGpuMode)

    answer: str | None = node.ask(
        "multi_gpu_mode", "nvmlSystemGetConfComputeSettings", ctypes.byref(settings), read=checked
    )
    return answer


def _read_evidence(nonce: Nonce, doing: Doing) -> Bundle:
    with _session(doing):
        if mode(_read_conf_compute(doing)) is Mode.OFF:
            raise ProblemError(problems.CC_OFF)
        count = _count(doing)
        if count == 0:
            raise ProblemError(problems.NO_GPU)
        if count > GPUS_MAX:
            raise ProblemError(problems.too_many_gpus(GPUS_MAX))
        return tuple(_evidence_of(doing, index, nonce) for index in range(count))


def _evidence_of(doing: Doing, index: int, nonce: Nonce) -> Evidence:
    def need(function: str, *args: object) -> Any:
        try:
            return _call(doing, f"GPU {index}", function, *args)
        except pynvml.NVMLError as e:
            lost = e.value == pynvml.NVML_ERROR_GPU_IS_LOST
            raise ProblemError(
                problems.gpu_lost(index) if lost else problems.evidence_failed(index, function, _reason(e.value))
            ) from None

    handle = need("nvmlDeviceGetHandleByIndex", index)
    certificate = need("nvmlDeviceGetConfComputeGpuCertificate", handle)
    report = need("nvmlDeviceGetConfComputeGpuAttestationReport", handle, bytes(nonce))
    padded = _filled(certificate.attestationCertChain, certificate.attestationCertChainSize, index, "certificate chain")
    chain = padded.strip(b"\0\r\n")  # PEM text, which the driver ends with NUL
    if not chain:
        raise ProblemError(problems.evidence_size(index, "certificate chain", 0, len(padded)))
    return Evidence(
        kind=NVIDIA,
        payload=_filled(report.attestationReport, report.attestationReportSize, index, "attestation report"),
        certificates=chain + b"\n",
    )


def _filled(buffer: Any, size: int, index: int, what: str) -> bytes:
    """The filled part of a fixed buffer: never more than it holds, and never nothing."""
    if not 0 < size <= len(buffer):
        raise ProblemError(problems.evidence_size(index, what, size, len(buffer)))
    return bytes(buffer[:size])


# --- asking -----------------------------------------------------------------------------------------------------------


class _UnreadableError(Exception):
    """The driver answered something that we have no name for."""


class _Asker:
    """Asks about one subject. An answer that is not to be had is None, and the reason is kept under its field."""

    def __init__(self, doing: Doing, subject: str) -> None:
        self.doing = doing
        self.subject = subject
        self.unsaid: dict[str, str] = {}
        self.lost = False

    def ask(self, field: str, function: str, *args: object, read: Callable[[Any], Any] = lambda answer: answer) -> Any:
        if self.lost:  # it will not answer any more; asking on may hang
            self.unsaid[field] = _reason(pynvml.NVML_ERROR_GPU_IS_LOST)
            return None
        return self.take(field, lambda _: read(_call(self.doing, self.subject, function, *args)), None)

    def take(self, field: str, read: Callable[[Any], Any], value: Any) -> Any:
        try:
            return read(value)
        except pynvml.NVMLError as e:
            self.lost = e.value == pynvml.NVML_ERROR_GPU_IS_LOST
            self.unsaid[field] = _reason(e.value)
        except _UnreadableError as e:
            self.unsaid[field] = str(e)
        return None


def _call(doing: Doing, subject: str, function: str, *args: object) -> Any:
    """Call pynvml by name. It decodes text strictly; what is no UTF-8 is handed on as the bytes it is."""
    doing(f"{function} ({subject})")
    try:
        return getattr(pynvml, function)(*args)
    except UnicodeDecodeError as e:
        return e.object


def _text(value: str | bytes) -> str:
    text = printable(value)
    if not text:
        raise _UnreadableError("it says nothing")
    return text


def _named(names: dict[int, T]) -> Callable[[int], T]:
    def name(value: int) -> T:
        if value not in names:
            raise _UnreadableError(f"unknown value {value}")
        return names[value]

    return name


def _reason(code: int) -> str:
    """Never str(NVMLError): for a code it does not know, that calls into the driver."""
    known = {pynvml.NVML_ERROR_NOT_SUPPORTED: NOT_SUPPORTED, pynvml.NVML_ERROR_FUNCTION_NOT_FOUND: NO_FUNCTION}
    return known.get(code) or f"{_ERROR_NAMES.get(code, 'unknown error')} (NVML error {code})"


_ERROR_NAMES: dict[int, str] = {
    value: name.removeprefix("NVML_ERROR_").replace("_", " ").lower()
    for name, value in vars(pynvml).items()
    if name.startswith("NVML_ERROR_") and isinstance(value, int)
}


def _count(doing: Doing) -> int:
    try:
        return int(_call(doing, "the driver", "nvmlDeviceGetCount"))
    except pynvml.NVMLError as e:
        raise ProblemError(problems.driver_failed("nvmlDeviceGetCount", _reason(e.value))) from None


@contextmanager
def _session(doing: Doing) -> Iterator[None]:
    try:
        _call(doing, "the driver", "nvmlInit")
    except pynvml.NVMLError as e:
        raise ProblemError(_no_session(e.value)) from None
    try:
        yield
    finally:
        with suppress(pynvml.NVMLError):  # nothing rests on it any more
            _call(doing, "the driver", "nvmlShutdown")


def _no_session(code: int) -> Problem:
    known = {
        pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: problems.NO_DRIVER,
        pynvml.NVML_ERROR_DRIVER_NOT_LOADED: problems.DRIVER_NOT_LOADED,
        pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: problems.DRIVER_MISMATCH,
        pynvml.NVML_ERROR_NO_PERMISSION: problems.DRIVER_NO_PERMISSION,
    }
    return known.get(code) or problems.driver_failed("nvmlInit", _reason(code))
