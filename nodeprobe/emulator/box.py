"""
An emulated HGX box: eight Hopper GPUs in protected-PCIe mode and four NVSwitches, which name each other.

A GPU names the switch at each of its links, a switch the GPUs at its ports, all by the identities that their
certificates give them (spec/nvidia.md §13). Every way in which they may not is in `BOX_DEFECTS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from attest.evidence import Bundle
from attest.reasons import (
    DEVICE_DUPLICATE,
    DEVICES_DIFFER,
    MEASUREMENTS_MISMATCH,
    MODE_NOT_ACCEPTED,
    NONCE_MISMATCH,
    TOPOLOGY,
    Reason,
)
from nodeprobe.emulator import spdm
from nodeprobe.emulator.defect import Defect
from nodeprobe.emulator.device import EmulatedDevice
from nodeprobe.emulator.gpu import EmulatedGpu
from nodeprobe.emulator.models import SWITCH, GpuModel, SwitchModel
from nodeprobe.emulator.pki import EmulatorError, Pki
from nodeprobe.emulator.switch import EmulatedSwitch

GPUS, SWITCHES = 8, 4


@dataclass(frozen=True, slots=True)
class EmulatedBox:
    """Frozen: `spoiled("gpu-unseen")` gives another box, of the same devices, with that defect."""

    name: str
    gpus: tuple[EmulatedGpu, ...]
    switches: tuple[EmulatedSwitch, ...]

    @classmethod
    def create(cls, pki: Pki, name: str, model: GpuModel, switch: SwitchModel = SWITCH) -> EmulatedBox:
        """The box of this name in the PKI, wired; its devices are made now unless they are there. EmulatorError."""
        gpus = tuple(EmulatedGpu.create(pki, f"{name}-gpu{n}", model, protected_pcie=True) for n in range(GPUS))
        switches = tuple(EmulatedSwitch.create(pki, f"{name}-switch{n}", switch, position=n) for n in range(SWITCHES))
        return cls(name, gpus, switches).wired()

    def wired(self) -> EmulatedBox:
        """All devices with each other's identities."""
        seen_gpus, seen_switches = tuple(each.pdi for each in self.gpus), tuple(each.pdi for each in self.switches)
        return replace(
            self,
            gpus=tuple(replace(each, switches=seen_switches) for each in self.gpus),
            switches=tuple(replace(each, gpus=seen_gpus) for each in self.switches),
        )

    @property
    def devices(self) -> tuple[EmulatedDevice, ...]:
        """The GPUs, then the switches."""
        return (*self.gpus, *self.switches)

    def spoiled(self, wanted: str) -> EmulatedBox:
        """The box with this defect. Raises EmulatorError for a name that is none."""
        found = BOX_DEFECTS.get(wanted)
        if found is None:
            raise EmulatorError(f"a box has no defect {wanted!r}; there are: {', '.join(sorted(BOX_DEFECTS))}")
        return found.spoil(self)

    def evidence(self, nonce: bytes) -> Bundle:
        """What all devices say for one nonce."""
        return tuple(each.evidence(nonce) for each in self.devices)


@dataclass(frozen=True, slots=True)
class BoxDefect:
    """One thing that is wrong with a box."""

    name: str
    meaning: str
    reason: Reason  # that a verifier must give, with the policy `lab`
    spoil: Callable[[EmulatedBox], EmulatedBox]


def _first_gpu(change: Callable[[EmulatedGpu], EmulatedGpu]) -> Callable[[EmulatedBox], EmulatedBox]:
    return lambda box: replace(box, gpus=(change(box.gpus[0]), *box.gpus[1:]))


def _first_switch(change: Callable[[EmulatedSwitch], EmulatedSwitch]) -> Callable[[EmulatedBox], EmulatedBox]:
    return lambda box: replace(box, switches=(change(box.switches[0]), *box.switches[1:]))


def _other_gpu(box: EmulatedBox) -> EmulatedGpu:
    known = box.gpus[0]
    made = EmulatedGpu.create(known.pki, f"{box.name}-stranger", known.model, protected_pcie=True)
    return replace(made, switches=known.switches)


def _gpu_unseen(box: EmulatedBox) -> EmulatedBox:
    return replace(box, gpus=(_other_gpu(box), *box.gpus[1:]))


def _gpu_twice(box: EmulatedBox) -> EmulatedBox:
    return replace(box, gpus=(box.gpus[1], *box.gpus[1:]))


def _gpu_beside(box: EmulatedBox) -> EmulatedBox:
    return replace(box, gpus=(*box.gpus, _other_gpu(box)))


def _other_switch(box: EmulatedBox, gpus: tuple[bytes, ...]) -> EmulatedSwitch:
    known = box.switches[0]
    return EmulatedSwitch.create(known.pki, f"{box.name}-stranger-switch", known.model, gpus=gpus)


def _switch_of_another_box(box: EmulatedBox) -> EmulatedBox:
    """It is at work elsewhere, and its report says so."""
    elsewhere = tuple(each.pdi[::-1] for each in box.gpus)
    return replace(box, switches=(_other_switch(box, elsewhere), *box.switches[1:]))


def _switch_unnamed(box: EmulatedBox) -> EmulatedBox:
    return replace(box, switches=(_other_switch(box, box.switches[0].gpus), *box.switches[1:]))


def _switch_beside(box: EmulatedBox) -> EmulatedBox:
    return replace(box, switches=(*box.switches, _other_switch(box, box.switches[0].gpus)))


def _says(kind: int, new: bytes | None) -> Callable[[EmulatedDevice], EmulatedDevice]:
    """A device that says otherwise in one field of its report, or nothing."""

    def edit(draft: spdm.ReportDraft) -> None:
        if new is None:
            draft.drop(kind)
        else:
            draft.put(kind, new)

    return lambda device: replace(device, defects=(Defect("box", "Of a box.", TOPOLOGY, report=edit),))


def _gpu_says(kind: int, new: bytes | None) -> Callable[[EmulatedBox], EmulatedBox]:
    return lambda box: replace(box, gpus=(_says(kind, new)(box.gpus[0]), *box.gpus[1:]))  # type: ignore[arg-type]


def _switch_says(kind: int, new: bytes | None) -> Callable[[EmulatedBox], EmulatedBox]:
    return lambda box: replace(box, switches=(_says(kind, new)(box.switches[0]), *box.switches[1:]))  # type: ignore[arg-type]


def _switch_takes_anothers_name(box: EmulatedBox) -> EmulatedBox:
    return _switch_says(spdm.DEVICE_PDI, box.switches[1].pdi)(box)


def _replay(box: EmulatedBox) -> EmulatedBox:
    return replace(box, switches=tuple(each.spoiled("replayed") for each in box.switches))


_ALL = (
    BoxDefect("gpu-unseen", "A GPU that no switch sees, in the place of one that they do.", TOPOLOGY, _gpu_unseen),
    BoxDefect("gpu-twice", "One GPU stands for two.", DEVICE_DUPLICATE, _gpu_twice),
    BoxDefect("gpu-missing", "Seven GPUs.", TOPOLOGY, lambda box: replace(box, gpus=box.gpus[1:])),
    BoxDefect("gpu-beside", "A ninth GPU, which no switch sees.", TOPOLOGY, _gpu_beside),
    BoxDefect(
        "gpu-out-of-mode",
        "One GPU is not in protected-PCIe mode.",
        DEVICES_DIFFER,
        _first_gpu(lambda gpu: replace(gpu, protected_pcie=False)),
    ),
    BoxDefect(
        "gpu-misses-switch",
        "One GPU has links to three of the switches only.",
        TOPOLOGY,
        _first_gpu(lambda gpu: replace(gpu, switches=gpu.switches[1:])),
    ),
    BoxDefect(
        "gpu-names-stranger",
        "One GPU has a link to a switch that is not in the evidence.",
        TOPOLOGY,
        _first_gpu(lambda gpu: replace(gpu, switches=(*gpu.switches, bytes(range(1, 9))))),
    ),
    BoxDefect(
        "gpu-names-backwards",
        "One GPU writes its switches' identities in the switches' own order of bytes.",
        TOPOLOGY,
        _first_gpu(lambda gpu: replace(gpu, switches=tuple(each[::-1] for each in gpu.switches))),
    ),
    BoxDefect("gpu-names-nobody", "One GPU does not name its switches.", TOPOLOGY, _gpu_says(spdm.SWITCH_PDI, None)),
    BoxDefect("switch-foreign", "A switch of another box, which sees other GPUs.", TOPOLOGY, _switch_of_another_box),
    BoxDefect("switch-unnamed", "A switch that sees all GPUs, and that none of them names.", TOPOLOGY, _switch_unnamed),
    BoxDefect(
        "switch-names-itself-otherwise",
        "One switch gives itself another identity than its certificate does.",
        TOPOLOGY,
        _switch_says(spdm.DEVICE_PDI, bytes(range(8))),
    ),
    BoxDefect(
        "switch-takes-anothers-name",
        "One switch gives itself the identity of another.",
        TOPOLOGY,
        _switch_takes_anothers_name,
    ),
    BoxDefect(
        "switch-misses-gpu",
        "One switch sees seven of the GPUs only.",
        TOPOLOGY,
        _first_switch(lambda switch: replace(switch, gpus=switch.gpus[1:])),
    ),
    BoxDefect(
        "switch-names-nobody",
        "One switch does not name its GPUs.",
        TOPOLOGY,
        _switch_says(spdm.SWITCH_GPU_PDIS, None),
    ),
    BoxDefect("switch-missing", "Three switches.", TOPOLOGY, lambda box: replace(box, switches=box.switches[1:])),
    BoxDefect("switch-beside", "A fifth switch, which no GPU names.", TOPOLOGY, _switch_beside),
    BoxDefect(
        "switch-twice",
        "One switch stands for two.",
        DEVICE_DUPLICATE,
        lambda box: replace(box, switches=(box.switches[1], *box.switches[1:])),
    ),
    BoxDefect(
        "one-switch-unlocked",
        "One of the switches is not locked.",
        MODE_NOT_ACCEPTED,
        _first_switch(lambda switch: switch.spoiled("switch-unlocked")),
    ),
    BoxDefect(
        "one-switch-measured-otherwise",
        "One of the switches runs another firmware.",
        MEASUREMENTS_MISMATCH,
        _first_switch(lambda switch: switch.spoiled("measurement-changed")),
    ),
    BoxDefect(
        "switches-replayed", "Old reports of the switches, beside fresh ones of the GPUs.", NONCE_MISMATCH, _replay
    ),
)
BOX_DEFECTS: Mapping[str, BoxDefect] = MappingProxyType({each.name: each for each in _ALL})
