"""
The broker of collateral: where a verification's documents come from.

First from a folder that an operator keeps, then from the cache, then from the vendors. What is fetched is checked
before it is cached, once for all who ask at the same time, and renewed before it runs out. What cannot be renewed is
handed out marked as stale: whether that will do, the policy says.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

import structlog

from attest.collateral import Document, Fetch, Need, nothing
from attest.folder import Folder
from attest.memo import Memo
from orchestrator.cached import Cached
from orchestrator.collateral_checks import Checker, Rejected, Term
from orchestrator.outbound import Absent, Answer, Call, OutboundError
from orchestrator.sources import NotTheDocument, Sources, document_of
from orchestrator.store import Store

REMEMBERED = 10_000  # documents in memory, until the next refresh
KEPT_MAX = 100_000  # documents in the store
ABSENT_KEPT = timedelta(days=1)  # how long we remember that something was asked for in vain
USED_WITHIN = timedelta(days=7)  # only what somebody used so lately is renewed
AGAIN_AFTER = timedelta(minutes=1)  # a document that is in doubt is not fetched again sooner
RENEWED_MAX, RENEWING_SECONDS = 500, 20.0  # in one refresh
FLIGHT_SECONDS_MAX = 60.0  # that anybody waits for another's fetch; the fetch itself ends much sooner
WARMING = 4  # documents at once

log = structlog.get_logger("orchestrator.broker")


class Broker(Protocol):
    """Where a judge gets collateral from."""

    def at(self, now: datetime) -> Fetch:
        """A Fetch for one verification at `now`."""

    def renew(self, needs: Iterable[Need]) -> bool:
        """Fetch again what a verification has doubts about. Whether any of it is another document now."""


class FolderBroker:
    """Reads a folder: RIMs under any names, and whatever its manifest lists. Without one there is no collateral."""

    def __init__(self, path: Path | None) -> None:
        """Raises `attest.folder.FolderError` if there is no such folder."""
        self._folder = None if path is None else Folder(path)

    def at(self, now: datetime) -> Fetch:
        return nothing if self._folder is None else self._folder.at(now)

    def renew(self, needs: Iterable[Need]) -> bool:  # noqa: ARG002 - what is in it is the operator's to renew
        return False

    def refresh(self) -> None:
        """Look at the folder again: new firmware needs new RIMs, and nobody wants to restart for them."""
        if self._folder is not None:
            self._folder.read()


class CachingBroker:
    """
    Folder, cache, vendors. Threads share it; other processes may share its store.

    Without `send` nothing is ever fetched: what the folder and the cache do not have, there is not.
    """

    def __init__(
        self,
        folder: FolderBroker,
        store: Store,
        checker: Checker,
        sources: Sources,
        *,
        send: Callable[[Call], Answer] | None,
        clock: Callable[[], datetime],
    ) -> None:
        self._folder, self._store, self._checker, self._sources = folder, store, checker, sources
        self._send, self._clock = send, clock
        self._memory: Memo[Cached] = Memo(REMEMBERED)
        self._flights: dict[Need, Future[Cached]] = {}
        self._lock = threading.Lock()
        self._used: set[Need] = set()

    # --- for verifications ---
    def at(self, now: datetime) -> Fetch:
        laid_down = self._folder.at(now)

        def fetch(need: Need) -> Document | None:
            laid = laid_down(need)
            if laid is not None and laid.stale_since is None:
                return laid
            self._used.add(need)
            cached = self._known(need)
            if not cached.is_fresh(now):
                cached = self._fetch(need, _unless_fresh)
            return _fresher(laid, cached.handed_out(now))

        return fetch

    def renew(self, needs: Iterable[Need]) -> bool:
        """
        As Broker says. What we have stays until something better passes its checks, and nothing is fetched twice within
        AGAIN_AFTER: doubts are raised by evidence, which anybody can make up, and must not cost others their documents.
        """
        changed = False
        for need in sorted(needs):
            before = self._known(need).document
            if before is not None:
                after = self._fetch(need, _unless_just_fetched).document
                changed = changed or (after is not None and after.sha256 != before.sha256)
        return changed

    # --- for ticks ---
    def refresh(self) -> None:
        """
        Renew what is due, and see what others changed in folder and store. Bounded in time; what is left, the next
        refresh does.
        """
        now = self._clock()
        self._memory = Memo(REMEMBERED)
        used, self._used = self._used, set()
        with self._store.transaction() as tx:
            tx.use_collateral(used, now)
            tx.forget_collateral(now - ABSENT_KEPT, KEPT_MAX)
        self._renew_due(now)
        self._folder.refresh()

    def _renew_due(self, now: datetime) -> None:
        with self._store.reading() as view:
            due = view.due_collateral(now, now - USED_WITHIN, RENEWED_MAX)
        end = time.monotonic() + RENEWING_SECONDS
        for need in due:
            if time.monotonic() >= end:
                log.warning("renewal of collateral goes on later", left=len(due) - due.index(need))
                return
            self._fetch(need, _unless_not_due)

    # --- for operators ---
    def wanted(self) -> list[Need]:
        """What the fleet rests on, and what was asked for of late, unless it lies in the folder."""
        now = self._clock()
        laid_down = self._folder.at(now)
        with self._store.reading() as view:
            wanted = sorted(view.wanted_collateral(now - USED_WITHIN))
        return [need for need in wanted if (laid := laid_down(need)) is None or laid.stale_since is not None]

    def warm(self, needs: Iterable[Need]) -> Iterator[Cached]:
        """Fetch what of these is absent, stale or due, also what was tried in vain just now. In no order."""
        with ThreadPoolExecutor(WARMING) as pool:
            yield from pool.map(lambda need: self._fetch(need, _unless_warm), needs)

    # --- how ---
    def _known(self, need: Need) -> Cached:
        if (known := self._memory.get(need)) is not None:
            return known
        with self._store.reading() as view:
            known = view.collateral(need)
        return self._memory.put(need, known or Cached(need, self._clock()))

    def _fetch(self, need: Need, unless: _Unless) -> Cached:
        """What is known after a try to fetch it; `unless` says why there is to be none. One try for all who ask."""
        with self._lock:
            flight = self._flights.get(need)
            leads = flight is None
            if flight is None:
                flight = self._flights[need] = Future()
        if not leads:
            try:
                return flight.result(FLIGHT_SECONDS_MAX)
            except TimeoutError:
                return self._known(need)
        try:
            known = self._known(need)
            if not unless(known, self._clock()):
                known = self._memory.put(need, self._tried(known))
                with self._store.transaction() as tx:
                    tx.put_collateral(known)
            flight.set_result(known)
        except BaseException as e:
            flight.set_exception(e)
            raise
        finally:
            with self._lock:
                del self._flights[need]
        return known

    def _tried(self, known: Cached) -> Cached:
        """What is known after a try."""
        need = known.need
        call = self._sources.call(need, etag=known.etag if known.document is not None else "")
        if self._send is None or call is None:
            why = "nobody can be asked for it" if self._send is not None else "fetching is switched off"
            return known.failed(why, self._clock(), absent=True)
        try:
            answer = self._send(call)
            unchanged = known.document if answer.status == 304 else None
            document = unchanged or Document.of(document_of(need, answer))
            now = self._clock()
            term = self._checker.check(need, document, now)
            self._check_newer(known, term, now)
        except (OutboundError, NotTheDocument, Rejected) as e:
            why = str(e) if isinstance(e, OutboundError) else f"{call.base} answers with something else: {e}"
            log.warning("collateral cannot be fetched", kind=str(need.kind), name=need.name, why=why)
            return known.failed(why, self._clock(), absent=isinstance(e, Absent))
        return known.fetched(document, term, now, answer.headers.get("etag", known.etag if unchanged else ""))

    def _check_newer(self, known: Cached, term: Term, now: datetime) -> None:
        """
        That it has not run out, and is no older than what we have: an answer of before a revocation must not take the
        place of the one that tells of it. Rejected otherwise.
        """
        if term.expires_at is not None and term.expires_at <= now:
            raise Rejected(f"it ran out at {term.expires_at:%Y-%m-%dT%H:%M:%SZ}")
        if known.document is None or known.fetched_at is None or term.issued_at is None:
            return
        before = self._checker.check(known.need, known.document, known.fetched_at).issued_at
        if before is not None and term.issued_at < before:
            raise Rejected(f"it is of {term.issued_at:%Y-%m-%dT%H:%M:%SZ}, older than what we have")


# --- when not to fetch ------------------------------------------------------------------------------------------------
_Unless = Callable[[Cached, datetime], bool]


def _unless_fresh(known: Cached, now: datetime) -> bool:
    return known.is_fresh(now) or not known.may_be_asked_for(now)


def _unless_not_due(known: Cached, now: datetime) -> bool:
    return not known.is_due(now)


def _unless_just_fetched(known: Cached, now: datetime) -> bool:
    just = known.fetched_at is not None and now < known.fetched_at + AGAIN_AFTER
    return just or not known.may_be_asked_for(now)


def _unless_warm(known: Cached, now: datetime) -> bool:
    return known.is_fresh(now) and (known.renew_at is None or now < known.renew_at)


def _fresher(laid: Document | None, kept: Document | None) -> Document | None:
    """Of a stale document in the folder and what the cache has, the one that has been fresh longer."""
    if laid is None or kept is None:
        return kept or laid
    if kept.stale_since is None or laid.stale_since is None:
        return kept if kept.stale_since is None else laid
    return kept if kept.stale_since >= laid.stale_since else laid
