"""The OCSP responses recorded for a real H100 and its manifests, and the questions that they answer."""

from __future__ import annotations

import json
from typing import Any

from attest.anchors import VENDORS
from attest.collateral import Document
from attest.memo import Memo
from attest.nvidia import rim as rims
from attest.nvidia.chain import verify_chain
from attest.nvidia.revocation import Inquiry
from tests.evidence import VECTORS, hopper_550

FOLDER = VECTORS / "nvidia" / "hopper-550.90.07" / "ocsp"
DEVICE = ("certificate_l2.der", "certificate_l3.der", "certificate_l4.der")  # answered on 2025-08-21 at 06:47
MANIFESTS = ("driver_rim_l3.der", "driver_rim_l4.der", "rim_l2.der", "vbios_l4.der")  # on 2025-10-24 at 11:32
ANSWERS = (*DEVICE, *MANIFESTS)


def recorded(file: str) -> tuple[dict[str, Any], bytes]:
    """What was noted about a response, and its bytes."""
    (says,) = (each for each in json.loads((FOLDER / "meta.json").read_text()) if each["file"] == file)
    return says, (FOLDER / file).read_bytes()


def inquiries() -> tuple[Inquiry, ...]:
    """All that is to be asked about the device and its two manifests, each once."""
    world = hopper_550()
    chain = verify_chain(world.chain, VENDORS.nvidia_device, known=Memo(1), paths=Memo(8))
    paths: Memo[Any] = Memo(8)
    loaded = [
        rims.load(Document.of(data), VENDORS.nvidia_rim, known=Memo(1), paths=paths) for data in world.rims.values()
    ]
    return tuple(dict.fromkeys([*chain.inquiries, *(each for rim in loaded for each in rim.inquiries)]))


def documents() -> dict[str, Document]:
    """The responses by the names of the questions that they answer."""
    serials = {says["target_serial"]: data for says, data in map(recorded, ANSWERS)}
    return {each.need.name: Document.of(serials[f"{each.question.serial:x}"]) for each in inquiries()}
