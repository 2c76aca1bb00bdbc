"""
The hand-out: a routing table in memory, and how URLs are drawn from it.

Every route is held as the bytes of its answer. Drawing costs as many steps as routes are drawn, and a change as many as
the worker has routes, however many workers there are. Trust ends by the clock at the moment of drawing: a route is left
out from its `not_after` on, whether or not anybody withdrew it.
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from orchestrator.messages import Url

LIMIT_MAX = 1000  # of URLs asked for by number; without a number, all are given


@dataclass(frozen=True, slots=True)
class Route:
    """One model at one endpoint of a worker, not handed out from `not_after` on. `verdict` as in `messages.Url`."""

    url: str
    model: str
    worker: str
    worker_type: str
    tls_spki_sha256: str | None
    not_after: datetime
    verdict: Mapping[str, Any]


class _Entry:
    """A route in the table: its bytes, its end, and its place in each of the two lists that it is in (-1: dropped)."""

    __slots__ = ("body", "not_after", "places")

    body: bytes
    not_after: datetime

    def __init__(self) -> None:
        self.places = [-1, -1]


_Key = tuple[str, str]  # of a route within its worker: model and URL
_OF_MODEL, _OF_ALL = 0, 1


class _List:
    """
    The routes of one model, or all, in a random order that a cursor walks round and round.

    So every route is drawn once before any comes again: those before the cursor were drawn in this round. Nothing is
    moved by drawing, since touching memory is what it costs.
    """

    def __init__(self, which: int, rng: random.Random) -> None:
        self.entries: list[_Entry] = []
        self.revision = 0
        self._whole: tuple[bytes, datetime | None] | None = None  # the answer with all, and when it ends
        self._which = which
        self._random = rng.random
        self._cursor = 0

    def changed(self, revision: int) -> None:
        self.revision, self._whole = revision, None

    def add(self, entry: _Entry) -> None:
        """Put in an entry somewhere among those that this round still has to draw, unless it is here already."""
        if entry.places[self._which] >= 0:
            return
        last = len(self.entries)
        place = self._cursor + int(self._random() * (last - self._cursor + 1))
        self.entries.append(entry)
        self._put(self.entries[place], last)
        self._put(entry, place)

    def drop(self, entry: _Entry) -> None:
        """Take out an entry in constant time, and keep drawn and undrawn apart."""
        place = entry.places[self._which]
        if place < 0:
            return
        if place < self._cursor:
            self._cursor -= 1
            self._put(self.entries[self._cursor], place)
            place = self._cursor
        last = self.entries.pop()
        if place < len(self.entries):
            self._put(last, place)
        entry.places[self._which] = -1

    def draw(self, limit: int, now: datetime) -> list[bytes]:
        """At most `limit` live routes, none twice. Dead ones that are met are dropped, so each is met once."""
        while True:
            end = self._cursor + min(limit, len(self.entries))
            window = self.entries[self._cursor : end]
            if end > len(self.entries):
                end -= len(self.entries)
                window += self.entries[:end]
            live = [entry.body for entry in window if now < entry.not_after]
            if len(live) == len(window):
                self._cursor = end
                return live
            for entry in window:
                if entry.not_after <= now:
                    self.drop(entry)

    def whole(self, now: datetime) -> bytes:
        """The answer with every live route. Made once for every change, and for every end of a route."""
        if self._whole is not None:
            body, ends = self._whole
            if ends is None or now < ends:
                return body
        self._drop_dead(now)
        body = _answer(self.revision, (entry.body for entry in self.entries))
        self._whole = body, min((entry.not_after for entry in self.entries), default=None)
        return body

    def live_until(self, now: datetime) -> datetime | None:
        """The end of some live route, or None if there is no live one."""
        while self.entries:
            if now < self.entries[-1].not_after:
                return self.entries[-1].not_after
            self.drop(self.entries[-1])
        return None

    def _drop_dead(self, now: datetime) -> None:
        for entry in [e for e in self.entries if e.not_after <= now]:
            self.drop(entry)

    def _put(self, entry: _Entry, place: int) -> None:
        self.entries[place] = entry
        entry.places[self._which] = place


class RoutingTable:
    """
    Who is handed out now. One event loop may read while any threads write; a withdrawal counts for the next read.

    `revision` rises with every change. An answer carries the revision of the last change of the list asked for; that a
    route ended by the clock is no change, and every URL says itself when it ends.
    """

    def __init__(self, rng: random.Random | None = None) -> None:
        # Spreading load needs no secret.
        self._rng = rng or random.Random()  # noqa: S311
        self._lock = threading.Lock()
        self._revision = 0
        self._workers: dict[str, dict[_Key, tuple[Route, _Entry]]] = {}
        self._models: dict[str, _List] = {}
        self._all = _List(_OF_ALL, self._rng)
        self._models_answer: tuple[int, tuple[str, ...], datetime | None] | None = None

    @property
    def revision(self) -> int:
        return self._revision

    def publish(self, worker_ip: str, routes: tuple[Route, ...]) -> None:
        """Replace all routes of a worker. Of two for the same model and URL, the last one counts."""
        with self._lock:
            self._replace(worker_ip, {(route.model, route.url): route for route in routes})

    def withdraw(self, worker_ip: str) -> None:
        """Hand out nothing of this worker any more."""
        with self._lock:
            self._replace(worker_ip, {})

    def urls_body(self, model: str | None, limit: int | None, now: datetime) -> bytes:
        """`messages.Urls` as JSON: up to `limit` live routes drawn, or all; of one model, or of all."""
        with self._lock:
            routes = self._all if model is None else self._models.get(model)
            if routes is None:
                return _answer(self._revision, ())
            if limit is None:
                return routes.whole(now)
            return _answer(routes.revision, routes.draw(limit, now))

    def models(self, now: datetime) -> tuple[str, ...]:
        """The models with at least one live route, sorted."""
        with self._lock:
            if self._models_answer is not None:
                revision, models, ends = self._models_answer
                if revision == self._revision and (ends is None or now < ends):
                    return models
            live = {model: until for model, routes in self._models.items() if (until := routes.live_until(now))}
            models = tuple(sorted(live))
            self._models_answer = self._revision, models, min(live.values(), default=None)
            return models

    def models_body(self, now: datetime) -> bytes:
        """`messages.Models` as JSON."""
        return json.dumps({"models": self.models(now)}, separators=(",", ":")).encode()

    def _replace(self, worker_ip: str, wanted: dict[_Key, Route]) -> None:
        """What stays the same stays where it is, so that a worker that reports often is not drawn more often."""
        held = self._workers.setdefault(worker_ip, {})
        gone = [key for key in held if key not in wanted]
        new = [key for key, route in wanted.items() if key not in held or held[key][0] != route]
        if gone or new:
            self._revision += 1
        for key in gone:
            _, entry = held.pop(key)
            self._list_of(key).drop(entry)
            self._all.drop(entry)
        for key in new:
            entry = held[key][1] if key in held else _Entry()
            entry.body, entry.not_after = _encode(wanted[key]), wanted[key].not_after
            held[key] = wanted[key], entry
            self._list_of(key).add(entry)
            self._all.add(entry)
        for model in {model for model, _ in (*gone, *new)}:
            self._touch(model)
        if not held:
            del self._workers[worker_ip]

    def _list_of(self, key: _Key) -> _List:
        model, _ = key
        if model not in self._models:
            self._models[model] = _List(_OF_MODEL, self._rng)
        return self._models[model]

    def _touch(self, model: str) -> None:
        routes = self._models[model]
        routes.changed(self._revision)
        self._all.changed(self._revision)
        if not routes.entries:
            del self._models[model]


def _encode(route: Route) -> bytes:
    return (
        Url(
            url=route.url,
            model=route.model,
            worker=route.worker,
            worker_type=route.worker_type,
            tls_spki_sha256=route.tls_spki_sha256,
            not_after=route.not_after,
            verdict=dict(route.verdict),
        )
        .model_dump_json()
        .encode()
    )


def _answer(revision: int, urls: Iterable[bytes]) -> bytes:
    return b'{"revision":%d,"urls":[%b]}' % (revision, b",".join(urls))
