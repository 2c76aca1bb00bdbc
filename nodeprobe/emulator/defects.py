"""
Every way in which a test or the demo may ask one device to be wrong, by name. (What may be wrong with a whole box is
in `box`, with revocation answers in `ocsp_defects`.)

A defect changes one draft: of a report, of a device chain, or of a reference manifest. To add one is to add a line to
one of the tables, with what is wrong in a sentence and the reason that a verifier must give.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from nodeprobe.emulator.chain_defects import CHAIN_DEFECTS
from nodeprobe.emulator.defect import Defect
from nodeprobe.emulator.families import FAMILIES, HOPPER, Family
from nodeprobe.emulator.family_defects import BLACKWELL_DEFECTS, SWITCH_DEFECTS
from nodeprobe.emulator.models import Model
from nodeprobe.emulator.pki import EmulatorError, Pki
from nodeprobe.emulator.report_defects import REPORT_DEFECTS
from nodeprobe.emulator.rim import manifest
from nodeprobe.emulator.rim_defects import RIM_DEFECTS
from nodeprobe.emulator.rim_signature_defects import RIM_SIGNATURE_DEFECTS

_ALL = (
    *REPORT_DEFECTS,
    *CHAIN_DEFECTS,
    *BLACKWELL_DEFECTS,
    *SWITCH_DEFECTS,
    *RIM_SIGNATURE_DEFECTS,
    *RIM_DEFECTS,
)
_BY_FAMILY: Mapping[Family, Mapping[str, Defect]] = {
    family: MappingProxyType({each.name: each for each in _ALL if family in each.families}) for family in FAMILIES
}
DEFECTS = _BY_FAMILY[HOPPER]  # what most nodes are


def defects_of(family: Family) -> Mapping[str, Defect]:
    """The defects that a device of this family, or its manifest, can have."""
    return _BY_FAMILY[family]


def named(wanted: str, family: Family = HOPPER) -> Defect:
    """The defect of this name. Raises EmulatorError, with a list of all, where there is none."""
    found = _BY_FAMILY[family].get(wanted)
    if found is None:
        known = ", ".join(sorted(_BY_FAMILY[family]))
        raise EmulatorError(f"a {family.product} has no defect {wanted!r}; there are: {known}")
    return found


def spoiled_manifests(model: Model, pki: Pki, wanted: str, *, driver: bool = False) -> dict[str, bytes]:
    """RIM id to document for all manifests of a model; the last one (or the driver's) has the defect of this name."""
    references = model.references
    spoil = named(wanted, references[0].family).manifest
    if spoil is None:
        raise EmulatorError(f"{wanted!r} is a defect of a device, not of a manifest")
    bad = references[0 if driver else -1]
    return {each.rim_id: manifest(each, pki, *([spoil] if each is bad else [])) for each in references}
