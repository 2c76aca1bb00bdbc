"""
One document as the cache knows it: what we have, how fresh it is, and how the last try to fetch it went. Pure.

A document that is to be fetched anew and cannot be is handed out all the same, and says since when it is stale: whether
that is good enough, the policy decides, and nothing here makes any verdict last longer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from attest.collateral import Document, Need
from orchestrator.collateral_checks import Term

ERROR_CHARS_MAX = 300
ABSENT_FOR = timedelta(minutes=10)  # how long "there is none" is believed
RETRY_MIN, RETRY_MAX = timedelta(seconds=30), timedelta(minutes=5)


class State(StrEnum):
    FRESH = "fresh"
    FAILING = "failing"  # fresh yet, but it could not be renewed
    STALE = "stale"  # it should have been fetched anew
    MISSING = "missing"  # it was asked for, and could not be had


@dataclass(frozen=True, slots=True)
class Cached:
    """A need, with its document if there is one. All times are UTC."""

    need: Need
    used_at: datetime
    document: Document | None = None
    fetched_at: datetime | None = None
    renew_at: datetime | None = None  # None: never
    expires_at: datetime | None = None  # None: never
    etag: str = ""
    retry_at: datetime | None = None  # not to be asked for before
    failures: int = 0
    error: str = ""

    def fetched(self, document: Document, term: Term, at: datetime, etag: str = "") -> Cached:
        """With a document that passed its checks."""
        return Cached(self.need, self.used_at, document, at, term.renew_at, term.expires_at, etag)

    def failed(self, why: str, at: datetime, *, absent: bool = False) -> Cached:
        """After a try that brought nothing. What we have, we keep."""
        wait = ABSENT_FOR if absent else min(RETRY_MIN * 2 ** min(self.failures, 16), RETRY_MAX)
        error = why[:ERROR_CHARS_MAX]
        return replace(self, retry_at=at + wait, failures=self.failures + 1, error=error)

    def is_fresh(self, now: datetime) -> bool:
        return self.document is not None and (self.expires_at is None or now < self.expires_at)

    def may_be_asked_for(self, now: datetime) -> bool:
        return self.retry_at is None or now >= self.retry_at

    def is_due(self, now: datetime) -> bool:
        """Whether it should be renewed, and may be tried."""
        due = self.document is not None and self.renew_at is not None and now >= self.renew_at
        return due and self.may_be_asked_for(now)

    def handed_out(self, now: datetime) -> Document | None:
        """The document, marked if it is stale."""
        if self.document is None or self.is_fresh(now):
            return self.document
        return replace(self.document, stale_since=self.expires_at)

    def state(self, now: datetime) -> State:
        if self.document is None:
            return State.MISSING
        if not self.is_fresh(now):
            return State.STALE
        return State.FAILING if self.error else State.FRESH
