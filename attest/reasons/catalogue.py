"""
What a reason is, and the table that holds them all.

A code never changes its meaning and is never used again for another: operators write alerts on them. Each says at
which stage it arises, whose fault it is (which decides between "the node is out" and "ask again later") and what to do.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Stage(StrEnum):
    """The step of verification at which a reason arises, in the order in which they run."""

    PARSE = "parse"
    CHAIN = "chain"
    SIGNATURE = "signature"
    FRESHNESS = "freshness"
    REFERENCE = "reference-values"
    BUNDLE = "bundle"
    BINDING = "binding"
    APPRAISE = "appraise"


class Fault(StrEnum):
    """Whose fault it is. The node's: its trust ends. The collateral's: we could not decide, and ask again."""

    NODE = "node"
    COLLATERAL = "collateral"


@dataclass(frozen=True, slots=True)
class Reason:
    """One way to be refused. `code` is stable; `meaning` and `remedy` are sentences for people."""

    code: str
    stage: Stage
    meaning: str
    remedy: str
    fault: Fault = Fault.NODE


CATALOGUE: dict[str, Reason] = {}


def reason(code: str, stage: Stage, meaning: str, remedy: str, fault: Fault = Fault.NODE) -> Reason:
    """Enter a reason into the table. ValueError if its code is taken."""
    if code in CATALOGUE:
        raise ValueError(f"the reason code {code!r} is taken")
    CATALOGUE[code] = Reason(code, stage, meaning, remedy, fault)
    return CATALOGUE[code]
