"""One emulated NVSwitch (LS10), as in an HGX box."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from nodeprobe.emulator import spdm
from nodeprobe.emulator.chain import PDI_BYTES
from nodeprobe.emulator.device import EmulatedDevice, kept
from nodeprobe.emulator.families import LS10, Family
from nodeprobe.emulator.models import SWITCH, ZERO, SwitchModel, measured
from nodeprobe.emulator.pki import Pki

GPUS = 8
PORTS = 64
LINKS_A_GPU = 4  # 18 of a GPU, to four switches: four or five each
COUNTED = 27  # measurements whose extensions are counted
UNUSED = 0xFF
_DISABLED_PORTS = bytes.fromhex("ec00")


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatedSwitch(EmulatedDevice):
    """A switch of the emulator. Outside of a box it sees no GPU."""

    model: SwitchModel
    position: int = 0
    gpus: tuple[bytes, ...] = ()  # PDIs of those at its ports, by slot

    @classmethod
    def create(
        cls, pki: Pki, name: str, model: SwitchModel = SWITCH, *, position: int = 0, gpus: tuple[bytes, ...] = ()
    ) -> EmulatedSwitch:
        """The switch of this name in the PKI, made now unless it is there. Raises EmulatorError."""
        return cls(name=name, model=model, pki=pki, kept=kept(pki, name, LS10), position=position, gpus=gpus)

    @property
    def family(self) -> Family:
        return LS10

    def _draft(self, nonce: bytes) -> spdm.ReportDraft:
        (reference,) = self.model.references
        measurements = [measured(reference.goldens, index, self.pdi) for index in range(LS10.measurements)]
        return spdm.ReportDraft(
            nonce=nonce,
            measurements=measurements,
            fields=list(self._fields(measurements)),
            responder_nonce=os.urandom(spdm.NONCE_BYTES),
            key=self.leaf_key,
        )

    def _fields(self, measurements: list[bytes]) -> Iterator[tuple[int, bytes]]:
        """The opaque fields, in the order in which genuine reports have them (spec/nvidia.md §4.2)."""
        yield spdm.VBIOS_VERSION, self.model.bios.encode("ascii")
        yield spdm.DEVICE_PDI, self.pdi
        yield spdm.MSRSCNT, struct.pack(f"<{COUNTED}I", *(int(each != ZERO) for each in measurements[:COUNTED]))
        yield spdm.SWITCH_GPU_PDIS, ports(self.gpus)
        yield spdm.DISABLED_PORTS, _DISABLED_PORTS
        yield spdm.SWITCH_POSITION_ID, struct.pack("<H", self.position)
        yield spdm.SWITCH_LOCK_STATUS, spdm.LOCKED


def ports(gpus: tuple[bytes, ...]) -> bytes:
    """The GPUs that a switch sees: a PDI for each of eight slots, then which slot each port leads to. 128 bytes."""
    slots = b"".join(gpus).ljust(GPUS * PDI_BYTES, b"\0")
    leads = bytes(slot for slot in range(len(gpus)) for _ in range(LINKS_A_GPU))
    return slots + leads.ljust(PORTS, bytes([UNUSED]))
