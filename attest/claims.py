"""Claims: what a verifier established from evidence. Only a verifier may make one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

Value = str | int | bool | tuple[int, ...] | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Claims:
    """
    What holds for one device. Signature, chain and (if asked) nonce have been checked; whether we *like* the values
    has not.

    `values` is flat and named; the names of each kind are documented at its verifier. `collateral` maps what each
    document was for to its SHA-256, so that a verdict can say what it rested on.
    """

    kind: str  # of the evidence: "nvidia"
    device: str  # stable identity of the device, unique in the world: never a serial that the node could choose
    emulated: bool  # rests on a root that is no vendor's
    not_after: datetime  # when the first certificate that the claims rest on expires
    values: Mapping[str, Value]
    collateral: Mapping[str, str]
    stale_since: datetime | None = None  # since when a document should have been fetched anew; None: all are fresh
