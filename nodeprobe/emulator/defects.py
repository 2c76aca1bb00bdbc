"""
Every way in which a test or the demo may ask the emulator to be wrong, by name.

A defect changes one draft: of a report, of a device chain, or of a reference manifest. To add one is to add a line to
one of the tables, with what is wrong in a sentence and the reason that a verifier must give.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from nodeprobe.emulator.chain_defects import CHAIN_DEFECTS
from nodeprobe.emulator.defect import Defect
from nodeprobe.emulator.models import GpuModel
from nodeprobe.emulator.pki import EmulatorError, Pki
from nodeprobe.emulator.report_defects import REPORT_DEFECTS
from nodeprobe.emulator.rim import driver_rim, vbios_rim
from nodeprobe.emulator.rim_defects import RIM_DEFECTS
from nodeprobe.emulator.rim_signature_defects import RIM_SIGNATURE_DEFECTS

_ALL = (*REPORT_DEFECTS, *CHAIN_DEFECTS, *RIM_SIGNATURE_DEFECTS, *RIM_DEFECTS)
DEFECTS: Mapping[str, Defect] = MappingProxyType({each.name: each for each in _ALL})


def named(wanted: str) -> Defect:
    """The defect of this name. Raises EmulatorError, with a list of all, where there is none."""
    found = DEFECTS.get(wanted)
    if found is None:
        raise EmulatorError(f"there is no defect {wanted!r}; there are: {', '.join(sorted(DEFECTS))}")
    return found


def spoiled_manifests(model: GpuModel, pki: Pki, wanted: str, *, driver: bool = False) -> dict[str, bytes]:
    """RIM id to document for both manifests of a model; the VBIOS's (or the driver's) has the defect of this name."""
    spoil = named(wanted).manifest
    if spoil is None:
        raise EmulatorError(f"{wanted!r} is a defect of a device, not of a manifest")
    return {
        model.driver_rim_id: driver_rim(model, pki, *([spoil] if driver else [])),
        model.vbios_rim_id: vbios_rim(model, pki, *([] if driver else [spoil])),
    }
