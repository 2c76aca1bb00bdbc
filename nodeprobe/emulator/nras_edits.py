"""What a defect of an answer of NRAS is, and the changes that defects are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from attest.reasons import Reason
from nodeprobe.emulator.nras import AnswerDraft, Edit, TokenDraft

FIRST = "GPU-0"  # the device that defects are about
HOUR = 3600
MISSING: Any = object()

Change = Callable[[TokenDraft], None]


@dataclass(frozen=True, slots=True)
class NrasDefect:
    """One thing that is wrong with an answer (claims version 3.0)."""

    name: str
    meaning: str
    reason: Reason  # that a verifier must give, with a policy that is as lax as `lab`
    edit: Edit


Row = tuple[str, str, Reason, Edit]


def defects(rows: Iterable[Row]) -> tuple[NrasDefect, ...]:
    """A table of names, meanings, reasons and edits."""
    return tuple(NrasDefect(*row) for row in rows)


def on_overall(change: Change) -> Edit:
    return lambda draft: change(draft.overall)


def on_device(change: Change) -> Edit:
    return lambda draft: change(draft.devices[FIRST])


def on_all(change: Change) -> Edit:
    def edit(draft: AnswerDraft) -> None:
        for each in (draft.overall, *draft.devices.values()):
            change(each)

    return edit


def says(name: str, value: Any) -> Change:
    def change(draft: TokenDraft) -> None:
        if value is MISSING:
            draft.claims.pop(name, None)
        else:
            draft.claims[name] = value

    return change


def header(**entries: Any) -> Change:
    def change(draft: TokenDraft) -> None:
        draft.header.update(entries)
        for name in [name for name, value in entries.items() if value is MISSING]:
            del draft.header[name]

    return change


def later(name: str, seconds: int) -> Change:
    def change(draft: TokenDraft) -> None:
        draft.claims[name] += seconds

    return change


def moved(seconds: int) -> Change:
    def change(draft: TokenDraft) -> None:
        for name in ("iat", "nbf", "exp"):
            draft.claims[name] += seconds

    return change
