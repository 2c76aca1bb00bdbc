"""What a defect is; `defects` lists them all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from attest.reasons import Reason
from nodeprobe.emulator.chain import ChainDraft
from nodeprobe.emulator.families import ANY, Family
from nodeprobe.emulator.rim import ManifestDraft
from nodeprobe.emulator.spdm import ReportDraft


@dataclass(frozen=True, slots=True)
class Defect:
    """One thing that is wrong. Exactly one of `report`, `chain`, `manifest` and `replays` says where."""

    name: str
    meaning: str
    reason: Reason  # that a verifier must give, with the policy `lab`
    report: Callable[[ReportDraft], None] | None = None
    chain: Callable[[ChainDraft], None] | None = None
    manifest: Callable[[ManifestDraft], None] | None = None
    replays: bool = False
    families: frozenset[Family] = ANY  # of the devices that can have it
