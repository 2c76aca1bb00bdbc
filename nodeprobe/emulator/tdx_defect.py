"""What a defect of an emulated TDX machine, or of the collateral for it, is; `tdx_defects` lists them all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nodeprobe.emulator.tdx_collateral import CollateralDraft
from nodeprobe.emulator.tdx_quote import QuoteDraft


@dataclass(frozen=True, slots=True)
class TdxDefect:
    """One thing that is wrong. Exactly one of `quote`, `collateral` and `replays` says where."""

    name: str
    meaning: str
    code: str  # of the reason that a verifier, or the strictest rules, must give
    quote: Callable[[QuoteDraft], None] | None = None
    collateral: Callable[[CollateralDraft], None] | None = None
    replays: bool = False
