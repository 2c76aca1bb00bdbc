"""
What a node reports of itself: hardware, modes, and the worker type derived from them.

All of it is claimed, never trusted. It serves placement and the operator's eyes; what a node really is, its evidence
says. Values and pure functions only: `nvml` and `tsm` read the hardware, `probe` puts the parts together.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any

from attest.evidence import DEVICES_MAX
from nodeprobe import problems
from nodeprobe.problems import Problem, ProblemError

FORMAT = "workermanager/node-details-v1"
GPUS_MAX = DEVICES_MAX
TEXT_CHARS_MAX = 96  # NVML's longest text buffer (name, UUID)
MIB_PER_GB = 1024  # GPU "GB" are GiB, as on every data sheet

# Why the driver did not say something. Other reasons are free text; these two decide (see `mode`).
NOT_SUPPORTED = "not supported by this GPU"
NO_FUNCTION = "not known to this driver"

PROTECTED_PCIE = "protected-pcie"
NVLE = "nvle"
SIMULATION = "simulation"


class GpuState(StrEnum):
    OK = "ok"
    LOST = "lost"  # fallen off the bus
    FAILED = "failed"  # there, but the driver gives no handle to it


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU as the driver describes it. What it does not say is None, and `unsaid` has the reason by field name."""

    index: int
    state: GpuState = GpuState.OK
    name: str | None = None  # as NVML prints it: "NVIDIA H100 80GB HBM3"
    uuid: str | None = None
    serial: str | None = None
    memory_mib: int | None = None
    architecture: str | None = None  # "hopper"
    vbios: str | None = None
    pci_bus_id: str | None = None
    mig: bool | None = None
    nvlinks: int | None = None  # links that are up
    unsaid: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ConfComputeState:
    """Confidential computing as the driver sees it, of the whole node. None and `unsaid` as in `Gpu`."""

    feature: bool | None = None
    environment: str | None = None  # unavailable, simulation, production
    dev_tools: bool | None = None
    ready: bool | None = None  # the GPUs accept work
    multi_gpu_mode: str | None = None  # none, protected-pcie, nvle
    cpu_capability: str | None = None  # none, amd-sev, intel-tdx, amd-sev-snp, amd-snp-vtom
    unsaid: Mapping[str, str] = field(default_factory=dict)


class Tee(StrEnum):
    TDX = "tdx"
    SNP = "snp"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class CpuTee:
    """The CPU TEE that this virtual machine seems to run in."""

    kind: Tee = Tee.NONE
    quotes: bool = False  # there is an interface to ask for a quote
    seen: tuple[str, ...] = ()  # the paths that speak for it
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class DriverDetails:
    """What the NVIDIA driver says: NVML's part of NodeDetails."""

    driver: str | None = None
    gpus: tuple[Gpu, ...] = ()
    conf_compute: ConfComputeState | None = None
    problems: tuple[Problem, ...] = ()
    unsaid: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Switch:
    """One NVSwitch as NSCQ describes it. None and `unsaid` as in `Gpu`."""

    uuid: str  # the label that NSCQ names it by
    architecture: str | None = None  # "ls10"
    pcie_mode: str | None = None  # disabled, enabled, locked (protected), failure, unknown
    unsaid: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FabricDetails:
    """What NSCQ says: the switches' part of NodeDetails."""

    library: bool = False  # it is here
    switches: tuple[Switch, ...] = ()
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeDetails:
    """All that a node reports of itself. Made by `node_details`, which also finds the problems."""

    hostname: str
    driver: str | None
    gpus: tuple[Gpu, ...]
    conf_compute: ConfComputeState | None  # None where there is no driver
    cpu_tee: CpuTee
    problems: tuple[Problem, ...]
    unsaid: Mapping[str, str] = field(default_factory=dict)
    switches: tuple[Switch, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The wire form, of JSON types only; `nodeprobe show --json` prints it and documents it."""
        return {
            "format": FORMAT,
            "hostname": self.hostname,
            "worker_type": worker_type_or_none(self),
            "driver": self.driver,
            "unsaid": dict(self.unsaid),
            "gpus": [asdict(gpu) for gpu in self.gpus],
            **({"switches": [asdict(switch) for switch in self.switches]} if self.switches else {}),
            "conf_compute": None if self.conf_compute is None else asdict(self.conf_compute),
            "cpu_tee": {
                "kind": str(self.cpu_tee.kind),
                "quotes": self.cpu_tee.quotes,
                "seen": list(self.cpu_tee.seen),
            },
            "problems": [problem.to_json() for problem in self.problems],
        }


def node_details(
    hostname: str, driver: DriverDetails, cpu_tee: CpuTee, fabric: FabricDetails | None = None
) -> NodeDetails:
    """Put the parts together, and find what is wrong with them."""
    details = NodeDetails(
        hostname=printable(hostname),
        driver=driver.driver,
        gpus=driver.gpus,
        conf_compute=driver.conf_compute,
        cpu_tee=cpu_tee,
        problems=(*driver.problems, *cpu_tee.problems, *(fabric.problems if fabric else ())),
        unsaid=driver.unsaid,
        switches=fabric.switches if fabric else (),
    )
    if driver.conf_compute is None:  # the driver failed as a whole, and its problem says why
        return details
    found = _problems(details, driver.conf_compute) + _fabric_problems(driver.conf_compute, fabric)
    return replace(details, problems=(*details.problems, *found))


def _problems(details: NodeDetails, cc: ConfComputeState) -> tuple[Problem, ...]:
    if not details.gpus:
        return (problems.NO_GPU,)
    found = _broken(details.gpus)
    try:
        derive_worker_type(details)
    except ProblemError as e:
        found.append(e.problem)
    try:
        found += _mode_problems(mode(cc), cc, details.cpu_tee)
    except ProblemError as e:
        found.append(e.problem)
    return tuple(dict.fromkeys(found))  # each once


def _mode_problems(mode: Mode, cc: ConfComputeState, cpu_tee: CpuTee) -> list[Problem]:
    if mode is Mode.OFF:
        return [problems.CC_OFF]
    found = {Mode.DEVTOOLS: [problems.CC_DEVTOOLS], Mode.SIMULATED: [problems.CC_SIMULATED]}.get(mode, []).copy()
    if cc.ready is False:
        found.append(problems.CC_NOT_READY)
    if cpu_tee.kind is Tee.NONE and not cpu_tee.problems:
        found.append(problems.CPU_TEE_NONE)
    return found


def _fabric_problems(cc: ConfComputeState, fabric: FabricDetails | None) -> tuple[Problem, ...]:
    """Protected PCIe takes the switches in. Where they were not asked, or failed, nothing says that there are none."""
    if fabric is None or fabric.problems or fabric.switches or cc.multi_gpu_mode != PROTECTED_PCIE:
        return ()
    return (problems.NO_SWITCH if fabric.library else problems.NO_NSCQ,)


def _broken(gpus: tuple[Gpu, ...]) -> list[Problem]:
    lost = [problems.gpu_lost(gpu.index) for gpu in gpus if gpu.state is GpuState.LOST]
    failed = [
        problems.gpu_failed(gpu.index, gpu.unsaid.get("handle", "unknown"))
        for gpu in gpus
        if gpu.state is GpuState.FAILED
    ]
    return lost + failed


def printable(text: str | bytes) -> str:
    """Text from outside, safe for a terminal and a log: bytes that are no UTF-8 and control characters are escaped."""
    decoded = text if isinstance(text, str) else text.decode(errors="backslashreplace")
    cut = decoded.strip()[:TEXT_CHARS_MAX]
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in cut)


# --- worker type ------------------------------------------------------------------------------------------------------
#
#     MODEL "-" MEMORY "gb-x" COUNT "-" MODE "-" TEE          h100-80gb-x8-ppcie-tdx, h100-nvl-94gb-x1-cc-snp
#
# MODEL   NVML's name in lower case, its words joined by "-", without the maker, the memory and its kind
# MEMORY  of one GPU in GB, as it is sold (see `memory_gb`)
# COUNT   of GPUs; a node with a lost GPU, or with GPUs of several kinds, has no worker type
# MODE    off, cc, ppcie, nvle; devtools and simulated are on, but protect nothing
# TEE     of the CPU: tdx, snp, none

MODEL_CHARS_MAX = 64
MEMORY_GB_MAX = 9_999
_WORKER_TYPE = re.compile(
    r"(?P<model>[a-z0-9]+(?:-[a-z0-9]+)*)-(?P<memory>[1-9][0-9]{0,3})gb-x(?P<count>[1-9][0-9]?)-(?P<mode>[a-z]+)-(?P<tee>[a-z]+)"
)
_WORDS = re.compile(r"[a-z0-9]+")
_NOT_OF_THE_MODEL = re.compile(r"nvidia|tesla|hbm[0-9]+e?|gddr[0-9]+x?|[0-9]+gb")

# As sold. Drivers keep up to 2 % for themselves, and ECC on GDDR takes a sixteenth: 7 % covers both.
CAPACITIES_GB = (16, 24, 32, 40, 48, 64, 80, 94, 96, 141, 144, 180, 192, 288)
CAPACITY_SHORTFALL_MAX = 0.07


class Mode(StrEnum):
    """The confidential-computing mode of a node's GPUs, as it stands in a worker type."""

    OFF = "off"
    CC = "cc"
    PPCIE = "ppcie"
    NVLE = "nvle"
    DEVTOOLS = "devtools"
    SIMULATED = "simulated"


@dataclass(frozen=True, slots=True)
class WorkerType:
    """A node's hardware in five facts. `str()` is its name, `parse_worker_type` the way back."""

    model: str
    memory_gb: int
    count: int
    mode: Mode
    tee: Tee

    def __str__(self) -> str:
        return f"{self.model}-{self.memory_gb}gb-x{self.count}-{self.mode}-{self.tee}"


def parse_worker_type(text: str) -> WorkerType:
    """Read a name that `worker_type` gave; ValueError for anything else."""
    found = _WORKER_TYPE.fullmatch(text) if len(text) <= 2 * MODEL_CHARS_MAX else None
    if found is None or len(found["model"]) > MODEL_CHARS_MAX or model_slug(found["model"]) != found["model"]:
        raise ValueError(f"not a worker type: {printable(text)!r}")
    if int(found["count"]) > GPUS_MAX:
        raise ValueError(f"a worker type of more than {GPUS_MAX} GPUs: {text!r}")
    try:
        mode, tee = Mode(found["mode"]), Tee(found["tee"])
    except ValueError:
        raise ValueError(f"not a worker type, its mode or CPU TEE is unknown: {text!r}") from None
    return WorkerType(found["model"], int(found["memory"]), int(found["count"]), mode, tee)


def worker_type(details: NodeDetails) -> str:
    """The name of the node's hardware. ProblemError if it has none: no GPU, a lost one, several kinds, mode unknown."""
    return str(derive_worker_type(details))


def worker_type_or_none(details: NodeDetails) -> str | None:
    """The same, None where it has none; `details.problems` says why."""
    try:
        return worker_type(details)
    except ProblemError:
        return None


def derive_worker_type(details: NodeDetails) -> WorkerType:
    """As `worker_type`, in parts."""
    if details.conf_compute is None:
        raise ProblemError(details.problems[0] if details.problems else problems.NO_DRIVER)
    if not details.gpus:
        raise ProblemError(problems.NO_GPU)
    if len(details.gpus) > GPUS_MAX:
        raise ProblemError(problems.too_many_gpus(GPUS_MAX))
    if broken := _broken(details.gpus):
        raise ProblemError(broken[0])
    kinds = sorted({_kind(gpu) for gpu in details.gpus})
    if len(kinds) > 1:
        raise ProblemError(problems.gpus_differ(" and ".join(f"{model} {memory}GB" for model, memory in kinds)))
    return WorkerType(*kinds[0], len(details.gpus), mode(details.conf_compute), details.cpu_tee.kind)


def _kind(gpu: Gpu) -> tuple[str, int]:
    """Model and memory of a GPU."""
    slug = model_slug(gpu.name or "")
    if not slug:
        raise ProblemError(problems.gpu_incomplete(gpu.index, "name", gpu.unsaid.get("name", f"it says {gpu.name!r}")))
    if not gpu.memory_mib or not 1 <= memory_gb(gpu.memory_mib) <= MEMORY_GB_MAX:
        reason = gpu.unsaid.get("memory_mib", f"it says {gpu.memory_mib} MiB")
        raise ProblemError(problems.gpu_incomplete(gpu.index, "memory", reason))
    return slug, memory_gb(gpu.memory_mib)


def model_slug(name: str) -> str:
    """`NVIDIA H100 80GB HBM3` -> `h100`, `NVIDIA H100 NVL` -> `h100-nvl`; empty if nothing is left."""
    words = [word[:MODEL_CHARS_MAX] for word in _WORDS.findall(name.lower())]
    slug = ""
    for word in words:
        longer = f"{slug}-{word}".lstrip("-")
        if len(longer) <= MODEL_CHARS_MAX and not _NOT_OF_THE_MODEL.fullmatch(word):
            slug = longer
    return slug


def memory_gb(mib: int) -> int:
    """
    The memory as it is sold, in GB, from what NVML counts (total, in MiB), which is a little less.

    The smallest capacity sold that holds it with at most 7 % missing: 81,559 MiB is 80, 95,830 is 94, 143,771 is 141,
    46,068 (48 GB with ECC) is 48. Where none fits, whole GiB, rounded up.
    """
    for capacity in CAPACITIES_GB:
        if capacity * MIB_PER_GB * (1 - CAPACITY_SHORTFALL_MAX) <= mib <= capacity * MIB_PER_GB:
            return capacity
    return -(-mib // MIB_PER_GB)


def mode(cc: ConfComputeState) -> Mode:
    """The mode in one word. Drivers and GPUs without confidential computing have it off; other silence is a problem."""
    multi = {PROTECTED_PCIE: Mode.PPCIE, NVLE: Mode.NVLE}.get(cc.multi_gpu_mode or "")
    if not cc.feature and multi is None:
        reason = cc.unsaid.get("feature", "it gives no reason")
        if cc.feature is None and reason not in (NOT_SUPPORTED, NO_FUNCTION):
            raise ProblemError(problems.cc_unknown(reason))
        return Mode.OFF
    if cc.dev_tools:
        return Mode.DEVTOOLS
    return Mode.SIMULATED if cc.environment == SIMULATION else multi or Mode.CC
