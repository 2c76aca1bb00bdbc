"""One emulated GPU, of Hopper or Blackwell."""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from nodeprobe.emulator import spdm
from nodeprobe.emulator.device import FWID, EmulatedDevice, kept
from nodeprobe.emulator.families import BLACKWELL, HOPPER, Family
from nodeprobe.emulator.models import MEASUREMENTS, ZERO, GpuModel, measured, value
from nodeprobe.emulator.pki import EmulatorError, Pki

NVDEC_INDEX = 35
SWITCHES = 4
LINKS = 18
_FWID_SINCE = (550,)
_FEATURE_FLAG_SINCE = {HOPPER: (575,), BLACKWELL: (590,)}
_SINGLE_GPU, _MULTI_GPU, _PROTECTED_PCIE = 0, 1, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatedGpu(EmulatedDevice):
    """A GPU of the emulator. A Hopper is alone or in a box; a Blackwell encrypts its links to others (MPT)."""

    model: GpuModel
    protected_pcie: bool = False  # one of eight GPUs behind NVSwitches
    nvdec_enabled: bool = False  # if so, measurement 35 counts
    switches: tuple[bytes, ...] = ()  # PDIs of those at its links; made up where none are given

    @classmethod
    def create(
        cls, pki: Pki, name: str, model: GpuModel, *, protected_pcie: bool = False, nvdec_enabled: bool = False
    ) -> EmulatedGpu:
        """The device of this name in the PKI, made now unless it is there. Raises EmulatorError."""
        if protected_pcie and model.family != HOPPER:
            raise EmulatorError(f"a {model.name} has no protected-PCIe mode: only Hopper GPUs do")
        return cls(
            name=name,
            model=model,
            pki=pki,
            kept=kept(pki, name, model.family),
            protected_pcie=protected_pcie,
            nvdec_enabled=nvdec_enabled,
        )

    @property
    def family(self) -> Family:
        return self.model.family

    @property
    def uuid(self) -> str:
        """As NVML prints it."""
        digits = hashlib.sha256(b"uuid" + self.pdi).hexdigest()
        return f"GPU-{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:32]}"

    @property
    def serial(self) -> str:
        """Of the board: 13 digits, as NVML prints it."""
        return f"16{int.from_bytes(self.pdi, 'big') % 10**11:011d}"

    def _draft(self, nonce: bytes) -> spdm.ReportDraft:
        measurements = list(self._measurements())
        return spdm.ReportDraft(
            nonce=nonce,
            measurements=measurements,
            fields=list(self._fields(measurements)),
            responder_nonce=os.urandom(spdm.NONCE_BYTES),
            key=self.leaf_key,
        )

    def _measurements(self) -> Iterator[bytes]:
        goldens = {**self.model.driver_goldens, **self.model.vbios_goldens}
        for index in range(MEASUREMENTS):
            if index == NVDEC_INDEX and not self.nvdec_enabled:
                yield value("decoder off", self.pdi.hex())
            else:
                yield measured(goldens, index, self.pdi)

    def _fields(self, measurements: list[bytes]) -> Iterator[tuple[int, bytes]]:
        """The opaque fields, in the order in which genuine reports have them."""
        model, release, hopper = self.model, self.model.driver_release, self.family == HOPPER
        long = release >= _FWID_SINCE  # later drivers pad the codes
        yield spdm.VBIOS_VERSION, spdm.vbios_field(model.vbios)
        yield spdm.BOARD_ID, struct.pack("<I", model.board_id)
        yield spdm.CHIP_SKU, spdm.text(model.chip_sku, 9 if long else 4)
        yield spdm.CHIP_SKU_MOD, spdm.text("0", 5 if long else 2)
        yield spdm.PROJECT, spdm.text(model.project, 5)
        yield spdm.PROJECT_SKU, spdm.text(model.project_sku, 5)
        yield spdm.PROJECT_SKU_MOD, bytes(2) if hopper else spdm.text("0")
        yield spdm.DRIVER_VERSION, spdm.text(model.driver)
        yield spdm.GPU_INFO, bytes.fromhex("8001000000000000" if hopper else "a001000000000000")
        yield spdm.MSRSCNT, struct.pack("<64I", *(int(each != ZERO) for each in measurements))
        yield spdm.CPRINFO, bytes.fromhex("00c00100" if hopper else "00000400")
        yield spdm.NVDEC0_STATUS, spdm.ENABLED if self.nvdec_enabled else spdm.DISABLED
        if release >= _FWID_SINCE:
            yield spdm.FWID, FWID
            yield from self._hopper_fields() if hopper else self._blackwell_fields()

    def _hopper_fields(self) -> Iterator[tuple[int, bytes]]:
        yield spdm.PROTECTED_PCIE_STATUS, spdm.ENABLED if self.protected_pcie else spdm.DISABLED
        if self.protected_pcie:
            yield spdm.SWITCH_PDI, links(self.switches or tuple(map(_made_up, range(SWITCHES))))
        if self.model.driver_release >= _FEATURE_FLAG_SINCE[HOPPER]:
            yield spdm.OPAQUE_DATA_VERSION, struct.pack("<H", 1)
            yield spdm.FEATURE_FLAG, struct.pack("<H", _PROTECTED_PCIE if self.protected_pcie else _SINGLE_GPU)

    def _blackwell_fields(self) -> Iterator[tuple[int, bytes]]:
        flagged = self.model.driver_release >= _FEATURE_FLAG_SINCE[BLACKWELL]
        yield spdm.SYS_ENABLE_STATUS, bytes.fromhex("0707")
        if flagged:
            yield spdm.CHIP_INFO, spdm.text(self.family.chip)
        yield spdm.OPAQUE_DATA_VERSION, struct.pack("<H", int(flagged))
        if flagged:
            yield spdm.FEATURE_FLAG, struct.pack("<H", _MULTI_GPU)


def links(switches: tuple[bytes, ...]) -> bytes:
    """Which switch is at each link, as a GPU writes it: the bytes of each PDI reversed. 144 bytes."""
    return b"".join(switches[link % len(switches)][::-1] for link in range(LINKS))


def _made_up(switch: int) -> bytes:
    return hashlib.sha256(f"emulated switch {switch}".encode()).digest()[:8]
