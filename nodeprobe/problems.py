"""What is wrong with a node, said so that its owner can act: a stable code, what was found, what to do."""

from __future__ import annotations

from dataclasses import dataclass

_RESET = "Reset it (`nvidia-smi --gpu-reset`), or power-cycle the node; look for Xid lines in the kernel log."


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong. `code` never changes its meaning; `what` and `fix` are sentences for people."""

    code: str
    what: str
    fix: str

    def to_json(self) -> dict[str, str]:
        return {"code": self.code, "what": self.what, "fix": self.fix}


class ProblemError(Exception):
    """A problem that leaves nothing to go on with."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        super().__init__(problem.code, problem.what)

    def __str__(self) -> str:
        return f"{self.problem.code}: {self.problem.what}"


# --- the driver ---------------------------------------------------------------------------------------------------
NO_DRIVER = Problem(
    "no-driver",
    "The NVIDIA driver's library (libnvidia-ml.so.1) is not here, or cannot be loaded.",
    "Install the NVIDIA driver. In a container, hand the GPUs and the driver's libraries in.",
)
DRIVER_NOT_LOADED = Problem(
    "driver-not-loaded",
    "The driver's library is here, but its kernel module is not loaded.",
    "Load it with `modprobe nvidia`, or reboot; if it will not load, the kernel log says why.",
)
DRIVER_MISMATCH = Problem(
    "driver-mismatch",
    "The driver's library and its kernel module are of different versions.",
    "Reboot the node: the driver was updated while the old kernel module was loaded.",
)
DRIVER_NO_PERMISSION = Problem(
    "driver-no-permission",
    "This user may not talk to the driver.",
    "Run as a user that may read and write /dev/nvidia*, or as root.",
)


def driver_failed(call: str, reason: str) -> Problem:
    return Problem(
        "driver-failed",
        f"The driver refused {call}: {reason}.",
        "See whether `nvidia-smi` works; if not, the kernel log says why. Update or reinstall the driver.",
    )


def driver_hung(call: str, limit_seconds: float) -> Problem:
    return Problem(
        "driver-hung",
        f"The driver did not come back within {limit_seconds:g} seconds, in {call}.",
        "Try again with a longer --timeout. If it stays, power-cycle the node; the kernel log may name the GPU.",
    )


# --- GPUs ---------------------------------------------------------------------------------------------------------
NO_GPU = Problem(
    "no-gpu",
    "The driver works, but knows no GPU.",
    "See with `lspci` whether the node has one; a virtual machine must have it passed through.",
)


def too_many_gpus(limit: int) -> Problem:
    return Problem(
        "too-many-gpus",
        f"The driver counts more than {limit} GPUs, the most that one node may have.",
        "Split the node, or report it: no known machine has so many.",
    )


def gpu_lost(index: int) -> Problem:
    return Problem("gpu-lost", f"GPU {index} is lost: it has fallen off the bus.", _RESET)


def gpu_failed(index: int, reason: str) -> Problem:
    return Problem("gpu-failed", f"GPU {index} cannot be used: {reason}.", _RESET)


def gpu_incomplete(index: int, field: str, reason: str) -> Problem:
    return Problem(
        "gpu-incomplete",
        f"The driver does not say the {field} of GPU {index} ({reason}), so the node's worker type has no name.",
        "Update the driver.",
    )


def gpus_differ(kinds: str) -> Problem:
    return Problem(
        "gpus-differ",
        f"The GPUs of this node are of several kinds ({kinds}), so it has no worker type.",
        "Run one worker per kind, each seeing its own GPUs only (by virtual machine, or by container).",
    )


# --- confidential computing -----------------------------------------------------------------------------------------
CC_OFF = Problem(
    "cc-off",
    "Confidential computing is off: the GPUs cannot attest.",
    "Turn it on from the host with NVIDIA's gpu-admin-tools (mode `on`, or `ppcie` for all GPUs of an HGX board), "
    "and reset the GPUs.",
)
CC_DEVTOOLS = Problem(
    "cc-devtools",
    "Confidential computing is in dev-tools mode: it protects nothing.",
    "Set the mode to `on` with NVIDIA's gpu-admin-tools, and reset the GPUs.",
)
CC_SIMULATED = Problem(
    "cc-simulated",
    "Confidential computing runs in the simulation environment: it protects nothing.",
    "Use production GPUs and a production driver.",
)
CC_NOT_READY = Problem(
    "cc-not-ready",
    "The GPUs do not accept work yet: their ready state is off.",
    "Attest the GPUs in the guest, then `nvidia-smi conf-compute -srs 1`.",
)


def cc_unknown(reason: str) -> Problem:
    return Problem(
        "cc-unknown",
        f"The driver does not say whether confidential computing is on: {reason}.",
        "See what `nvidia-smi conf-compute -q` says; update the driver.",
    )


def evidence_failed(index: int, call: str, reason: str) -> Problem:
    return Problem(
        "evidence-failed",
        f"GPU {index} gave no evidence: {call}: {reason}. Nothing was collected: it is all GPUs or none.",
        "Bring every GPU of the node to work (`nodeprobe show`), then collect again.",
    )


def evidence_size(index: int, what: str, size: int, limit: int) -> Problem:
    return Problem(
        "evidence-size",
        f"GPU {index}: the driver says that its {what} has {size} bytes, which must be 1 to {limit}.",
        "Collect again; if it stays, update the driver and report it.",
    )


# --- switches -------------------------------------------------------------------------------------------------------
NO_NSCQ = Problem(
    "nscq-missing",
    "The GPUs are in protected-PCIe mode, which takes their NVSwitches in, but NVIDIA's library for switches "
    "(libnvidia-nscq.so.2) is not here, or cannot be loaded.",
    "Install the package libnvidia-nscq of the driver's version. In a container, hand the library in.",
)
NO_SWITCH = Problem(
    "no-switch",
    "The GPUs are in protected-PCIe mode, which takes their NVSwitches in, but no switch is here.",
    "Pass the NVSwitches of the board through to this machine, all of them, with its GPUs.",
)


def too_many_switches(limit: int) -> Problem:
    return Problem(
        "too-many-switches",
        f"NSCQ counts more than {limit} switches, the most that one node may have.",
        "Split the node, or report it: no known machine has so many.",
    )


def switches_failed(call: str, reason: str) -> Problem:
    return Problem(
        "switches-failed",
        f"NSCQ refused {call}: {reason}.",
        "See that libnvidia-nscq is of the driver's version, and that this user may open /dev/nvidia-nvswitch*.",
    )


def switches_hung(call: str, limit_seconds: float) -> Problem:
    return Problem(
        "switches-hung",
        f"NSCQ did not come back within {limit_seconds:g} seconds, in {call}.",
        "Try again with a longer --timeout. If it stays, power-cycle the node; the kernel log may name the switch.",
    )


def switch_failed(label: str, what: str, reason: str) -> Problem:
    return Problem(
        "switch-failed",
        f"Switch {label} gave no {what}: {reason}.",
        "Nothing was collected: it is all switches or none. If it stays, power-cycle the node, and see the kernel log.",
    )


def switch_evidence_size(label: str, what: str, size: int, limit: int) -> Problem:
    return Problem(
        "switch-evidence-size",
        f"Switch {label}: NSCQ says that its {what} has {size} bytes, which must be 1 to {limit}.",
        "Collect again; if it stays, update the driver with libnvidia-nscq, and report it.",
    )


# --- CPU TEE --------------------------------------------------------------------------------------------------------
CPU_TEE_NONE = Problem(
    "cpu-tee-none",
    "This is no confidential virtual machine, though its GPUs are protected: nothing vouches for the CPU side.",
    "Run the worker in an Intel TDX or AMD SEV-SNP guest.",
)
CPU_TEE_SILENT = Problem(
    "cpu-tee-silent",
    "The CPU says that this is a confidential virtual machine, but there is no way to ask it for a quote.",
    "Load the kernel module `tdx_guest` or `sev-guest` (Linux 6.7 or newer offers both under configfs).",
)


CPU_TEE_NO_PERMISSION = Problem(
    "cpu-tee-no-permission",
    "This user may not ask the CPU TEE for a report.",
    "Run as root, or give this user /sys/kernel/config/tsm/report: `chown USER /sys/kernel/config/tsm/report`.",
)


def cpu_tee_failed(why: str) -> Problem:
    return Problem(
        "cpu-tee-failed",
        f"The CPU TEE gave no report: {why}.",
        "Try again. If it stays, the kernel log says why; a TDX guest needs its host's quote generation service.",
    )


def cpu_tee_ambiguous(seen: str) -> Problem:
    return Problem(
        "cpu-tee-ambiguous",
        f"There are signs of two CPU TEEs at once ({seen}); none of them is believed.",
        "Look into /dev and /sys/kernel/config/tsm/report: one of them is not the kernel's.",
    )
