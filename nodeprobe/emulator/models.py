"""
The catalogue of emulated GPU models and switches, and what their firmware measures.

Names, memory and codes are of the shape that genuine devices show. Versions of driver, VBIOS and BIOS are none that
NVIDIA released, so that no emulated reference manifest bears the id of a genuine one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from nodeprobe.emulator.families import BLACKWELL, HOPPER, LS10, Family

MEASUREMENTS = 64  # that a manifest lists, whether they count or not
ZERO = bytes(48)

# Which measurements each manifest names, and how many alternatives, as in genuine ones (spec/nvidia.md §9.3).
_VBIOS_ALTERNATIVES = {
    HOPPER: {**dict.fromkeys((0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11), 1), 12: 4},
    BLACKWELL: {**dict.fromkeys((*range(14), *range(15, 21)), 1), 12: 4},
}
_DRIVER_ALTERNATIVES = {
    HOPPER: {**dict.fromkeys((7, *range(21, 41)), 1), 23: 2, 24: 2, 32: 2, 34: 2, 35: 4, 36: 2},
    BLACKWELL: {**dict.fromkeys(range(21, 41), 1), 23: 2, 24: 2, 32: 2, 34: 2, 35: 4, 36: 2},
}
_BIOS_ALTERNATIVES = {**dict.fromkeys((*range(9), *range(26, 31)), 1), **dict.fromkeys(range(9, 26), 4)}
# All zeros is a legitimate value of these (index, alternative).
_VBIOS_ZEROS = {(0, 0), (8, 0), (10, 0), (12, 0)}
_DRIVER_ZEROS = {(23, 1), (24, 1), (28, 0)}
_BIOS_ZEROS = {(5, 0), (7, 0), (9, 0), *((index, n) for index in (12, 13, 15, 16, 17) for n in range(4))}

Goldens = Mapping[int, tuple[bytes, ...]]


@dataclass(frozen=True, slots=True)
class Reference:
    """What one manifest is for: its id, the version that it names, and the values it allows by RIM index."""

    rim_id: str
    version: str
    goldens: Goldens
    family: Family


@dataclass(frozen=True, slots=True)
class GpuModel:
    """One product with one release of driver and VBIOS. Two nodes of the same model share both manifests."""

    name: str  # as NVML prints it
    memory_mib: int
    project: str
    project_sku: str
    chip_sku: str
    board_id: int
    vbios: str  # five groups of two hex digits
    driver: str
    family: Family = HOPPER

    @property
    def driver_release(self) -> tuple[int, ...]:
        """The driver's version as numbers: what a report contains depends on it."""
        return tuple(int(part) for part in self.driver.split("."))

    @property
    def driver_rim_id(self) -> str:
        """Spec/nvidia.md §9.1."""
        prefix = "NV_GPU_DRIVER" if self.family == HOPPER else "NV_GPU_CC_DRIVER"
        return f"{prefix}_{self.family.chip}_{self.driver}".upper()

    @property
    def vbios_rim_id(self) -> str:
        """Spec/nvidia.md §9.1."""
        parts = ("NV_GPU_VBIOS", self.project, self.project_sku, self.chip_sku, self.vbios.replace(".", ""))
        return "_".join(parts).upper()

    @property
    def driver_goldens(self) -> Goldens:
        """RIM index to the values that the driver's manifest allows, 48 bytes each."""
        alternatives = dict(_DRIVER_ALTERNATIVES[self.family])
        if self.driver_release < (545,):
            alternatives[41] = 1
        return _goldens(self.driver_rim_id, alternatives, _DRIVER_ZEROS)

    @property
    def vbios_goldens(self) -> Goldens:
        """RIM index to the values that the VBIOS's manifest allows, 48 bytes each."""
        return _goldens(self.vbios_rim_id, _VBIOS_ALTERNATIVES[self.family], _VBIOS_ZEROS)

    @property
    def references(self) -> tuple[Reference, ...]:
        """Of the driver, then of the VBIOS."""
        return (
            Reference(self.driver_rim_id, self.driver, self.driver_goldens, self.family),
            Reference(self.vbios_rim_id, self.vbios, self.vbios_goldens, self.family),
        )


@dataclass(frozen=True, slots=True)
class SwitchModel:
    """An NVSwitch with one release of its BIOS."""

    name: str
    bios: str  # five groups of two hex digits

    @property
    def bios_rim_id(self) -> str:
        """Spec/nvidia.md §9.1: project, SKU and chip SKU are the same for every LS10."""
        return f"NV_SWITCH_BIOS_5612_0002_890_{self.bios.replace('.', '')}"

    @property
    def references(self) -> tuple[Reference, ...]:
        """Of the BIOS."""
        goldens = _goldens(self.bios_rim_id, _BIOS_ALTERNATIVES, _BIOS_ZEROS)
        return (Reference(self.bios_rim_id, self.bios, goldens, LS10),)


Model = GpuModel | SwitchModel

MODELS: Mapping[str, GpuModel] = {
    "h100-80gb": GpuModel("NVIDIA H100 80GB HBM3", 81559, "G520", "0200", "885", 0x437, "96.00.FE.00.01", "590.00.91"),
    "h100-pcie": GpuModel("NVIDIA H100 PCIe", 81559, "1010", "0200", "882", 0x3B1, "96.00.FE.00.02", "550.00.91"),
    "h100-nvl": GpuModel("NVIDIA H100 NVL", 95830, "1010", "0210", "886", 0x3C2, "96.00.FE.00.03", "570.00.91"),
    "h200": GpuModel("NVIDIA H200", 143771, "G520", "0280", "895", 0x4A1, "96.00.FE.01.01", "590.00.91"),
    "h200-nvl": GpuModel("NVIDIA H200 NVL", 143771, "1010", "0220", "895", 0x4B5, "96.00.FE.01.02", "590.00.91"),
    "h800": GpuModel("NVIDIA H800", 81559, "G520", "0205", "862", 0x44C, "96.00.FE.00.04", "570.00.91"),
    "h20": GpuModel("NVIDIA H20", 97871, "G520", "0205", "886", 0x45A, "96.00.FE.00.05", "590.00.91"),
    "b200": GpuModel("NVIDIA B200", 183359, "G525", "0220", "886", 0x66F, "97.00.FE.00.01", "590.00.91", BLACKWELL),
}
SWITCH = SwitchModel("NVIDIA LS10 NVSwitch", "96.10.FE.00.01")


def value(*parts: object) -> bytes:
    """A made-up measurement: SHA-384 over what it is of. 48 bytes."""
    return hashlib.sha384(" ".join(["emulated", *map(str, parts)]).encode()).digest()


def measured(goldens: Goldens, index: int, pdi: bytes) -> bytes:
    """What a good device measures: one of the alternatives, not the same on every device."""
    allowed = goldens.get(index, (ZERO,))
    return allowed[(pdi[0] + index) % len(allowed)]


def _goldens(rim_id: str, alternatives: Mapping[int, int], zeros: set[tuple[int, int]]) -> Goldens:
    return {
        index: tuple(ZERO if (index, n) in zeros else value(rim_id, index, n) for n in range(count))
        for index, count in sorted(alternatives.items())
    }
