"""What may be wrong with the content of a reference manifest. Where it can be, the manifest is validly signed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

from attest.reasons import (
    RIM_BINDING,
    RIM_CONFLICT,
    RIM_MALFORMED,
    RIM_TOO_LARGE,
)
from nodeprobe.emulator.defect import Defect
from nodeprobe.emulator.families import GPUS, HOPPER
from nodeprobe.emulator.models import value
from nodeprobe.emulator.rim import SWID, Edit, ManifestDraft, Resource, Tree, TreeEdit, add_instruction

XML = "http://www.w3.org/XML/1998/namespace"
MANIFEST_BYTES_MAX = 256 << 10
VBIOS_INDEX = 9  # named by the VBIOS's manifest only
DRIVER_INDEX = 7  # named by the driver's only

Spoil = Callable[[ManifestDraft], None]


def _before(edit: TreeEdit) -> Spoil:
    return lambda draft: draft.before_signing.append(edit)


def _bytes(edit: Edit) -> Spoil:
    return lambda draft: draft.edits.append(edit)


def _resources(change: Callable[[list[Resource]], list[Resource]]) -> Spoil:
    def spoil(draft: ManifestDraft) -> None:
        draft.resources = change(draft.resources)

    return spoil


def _set(**changes: str) -> Spoil:
    def spoil(draft: ManifestDraft) -> None:
        for each, new in changes.items():
            setattr(draft, each, new)

    return spoil


def _conflict(resources: list[Resource]) -> list[Resource]:
    """Claims a measurement of the other manifest: the VBIOS's names the driver's, and the other way round."""
    mine = next(each for each in resources if each.index == VBIOS_INDEX).active
    other = DRIVER_INDEX if mine else VBIOS_INDEX
    strange = Resource(other, True, (value("conflict", other).hex(),))
    return [strange if each.index == other else each for each in resources]


def _short_hash(resources: list[Resource]) -> list[Resource]:
    return _first_active(resources, lambda each: replace(each, hashes=(each.hashes[0][:-2],)))


def _not_hex(resources: list[Resource]) -> list[Resource]:
    return _first_active(resources, lambda each: replace(each, hashes=("g" * 96,)))


def _no_hash(resources: list[Resource]) -> list[Resource]:
    return _first_active(resources, lambda each: replace(each, hashes=()))


def _first_active(resources: list[Resource], change: Callable[[Resource], Resource]) -> list[Resource]:
    first = next(each for each in resources if each.active)
    return [change(each) if each is first else each for each in resources]


def _each_resource(root: Tree) -> list[Tree]:
    return list(root.find(f"{{{SWID}}}Payload"))


def _active_unknown(root: Tree) -> None:
    _each_resource(root)[0].set("active", "maybe")


def _alternatives_wrong(root: Tree) -> None:
    _each_resource(root)[0].set("alternatives", "2")


def _unknown_element(root: Tree) -> None:
    extra = root.makeelement(f"{{{SWID}}}Evidence")
    extra.text = "of something else"
    root.insert(2, extra)


def _unknown_resource(root: Tree) -> None:
    payload = root.find(f"{{{SWID}}}Payload")
    payload.append(payload.makeelement(f"{{{SWID}}}Directory"))


def _second_payload(root: Tree) -> None:
    payload = root.find(f"{{{SWID}}}Payload")
    payload.addprevious(copy.deepcopy(payload))


def _xml_attribute(root: Tree) -> None:
    root.set(f"{{{XML}}}lang", "en")


def _doctype(data: bytes) -> bytes:
    return b"<!DOCTYPE SoftwareIdentity>" + data


def _entity(data: bytes) -> bytes:
    declared = b'<!DOCTYPE SoftwareIdentity [<!ENTITY product "GH100">]>'
    return declared + data.replace(b'product="GH100"', b'product="&product;"')


def _comment(data: bytes) -> bytes:
    """Canonicalisation leaves comments out, so that the signature still holds."""
    return data.replace(b"</Payload>", b"<!-- nothing to see --></Payload>")


def _padded(data: bytes) -> bytes:
    return data + b"\n" * MANIFEST_BYTES_MAX


RIM_DEFECTS = (
    Defect("rim-doctype", "A document type declaration.", RIM_MALFORMED, manifest=_bytes(_doctype)),
    Defect("rim-entity", "An entity that stands for the product.", RIM_MALFORMED, manifest=_bytes(_entity)),
    Defect("rim-comment", "A comment, which no signature covers.", RIM_MALFORMED, manifest=_bytes(_comment)),
    Defect("rim-instruction", "A processing instruction.", RIM_MALFORMED, manifest=_before(add_instruction)),
    Defect(
        "rim-xml-attribute",
        "An xml: attribute, for which canonicalisations differ.",
        RIM_MALFORMED,
        manifest=_before(_xml_attribute),
    ),
    Defect("rim-not-xml", "No XML at all.", RIM_MALFORMED, manifest=_bytes(lambda _data: b"not found")),
    Defect("rim-empty", "No byte at all.", RIM_MALFORMED, manifest=_bytes(lambda _data: b"")),
    Defect("rim-too-large", "More bytes than any genuine manifest has.", RIM_TOO_LARGE, manifest=_bytes(_padded)),
    Defect("rim-other-product", "A manifest for another product.", RIM_BINDING, manifest=_set(product="GX999")),
    Defect(
        "rim-other-edition", "A manifest for switches.", RIM_BINDING, manifest=_set(edition="SWITCH"), families=GPUS
    ),
    Defect("rim-other-version", "A manifest of another version.", RIM_BINDING, manifest=_set(version="96.00.FE.FE.FE")),
    Defect(
        "rim-other-form",
        "A manifest with a version of another form, a driver's for a VBIOS's or the like.",
        RIM_BINDING,
        manifest=_set(version="1"),
    ),
    Defect(
        "rim-conflict",
        "Driver's and VBIOS's manifest both name one measurement.",
        RIM_CONFLICT,
        manifest=_resources(_conflict),
        families=frozenset({HOPPER}),
    ),
    Defect(
        "rim-duplicate-index",
        "One index stands twice, another is missing.",
        RIM_MALFORMED,
        manifest=_resources(lambda all_: [*all_[:-1], all_[0]]),
    ),
    Defect(
        "rim-resource-missing",
        "63 measurements instead of 64.",
        RIM_MALFORMED,
        manifest=_resources(lambda all_: all_[:-1]),
    ),
    Defect(
        "rim-resource-extra",
        "65 measurements.",
        RIM_MALFORMED,
        manifest=_resources(lambda all_: [*all_, replace(all_[-1], index=64)]),
    ),
    Defect("rim-hash-short", "A value of 47 bytes.", RIM_MALFORMED, manifest=_resources(_short_hash)),
    Defect("rim-hash-not-hex", "A value that is not hexadecimal.", RIM_MALFORMED, manifest=_resources(_not_hex)),
    Defect(
        "rim-hash-absent", "A measurement that counts, without any value.", RIM_MALFORMED, manifest=_resources(_no_hash)
    ),
    Defect(
        "rim-alternatives-wrong",
        "More alternatives announced than there are.",
        RIM_MALFORMED,
        manifest=_before(_alternatives_wrong),
    ),
    Defect("rim-active-unknown", "A measurement that counts maybe.", RIM_MALFORMED, manifest=_before(_active_unknown)),
    Defect(
        "rim-nothing-active",
        "No measurement counts.",
        RIM_MALFORMED,
        manifest=_resources(lambda all_: [replace(each, active=False) for each in all_]),
    ),
    Defect(
        "rim-unknown-element", "An element that no manifest has.", RIM_MALFORMED, manifest=_before(_unknown_element)
    ),
    Defect(
        "rim-unknown-resource",
        "A directory among the measurements.",
        RIM_MALFORMED,
        manifest=_before(_unknown_resource),
    ),
    Defect("rim-second-payload", "Two payloads.", RIM_MALFORMED, manifest=_before(_second_payload)),
)
