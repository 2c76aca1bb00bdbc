"""
What a worker has done and not yet been credited for: spans of time, cut into reports, kept over restarts.

A span is open from one reading of the counters to the next. It is cut at the end of each interval and of each epoch,
and becomes a report that never changes again: a report whose answer was lost is sent once more as it was, and the
orchestrator counts it once. Values and pure functions, and `Memory`, the file they are kept in.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nodeprobe.inference import SERIES_MAX, Meters, Series, Tokens, carried, work_between
from orchestrator.messages import MODELS_MAX, ModelWork, ReportWork

PENDING_MAX = 64  # reports; beyond, the open span grows instead
MEMORY_BYTES_MAX = 4 << 20


@dataclass(frozen=True, slots=True)
class Epochs:
    """How the orchestrator cuts time for payment: epoch n begins at `zero + n * seconds` (UTC)."""

    zero: datetime
    seconds: int

    def at(self, time: datetime) -> int:
        """The epoch that a time lies in; the end of one belongs to the next."""
        return (time - self.zero) // timedelta(seconds=self.seconds)

    def end(self, epoch: int) -> datetime:
        return self.zero + timedelta(seconds=self.seconds) * (epoch + 1)


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Count(_Value):
    """One counter as it was read."""

    model: str
    direction: str
    rest: str
    tokens: Annotated[int, Field(ge=0)]


class Span(_Value):
    """Work since `begin` (UTC), and what the counters were then."""

    begin: datetime
    started: float | None
    counters: Annotated[tuple[Count, ...], Field(max_length=SERIES_MAX)]

    @classmethod
    def of(cls, begin: datetime, meters: Meters) -> Span:
        counters = tuple(
            Count(model=series.model, direction=series.direction, rest=series.rest, tokens=tokens)
            for series, tokens in meters.counters.items()
        )
        return cls(begin=begin, started=meters.started, counters=counters)

    @property
    def meters(self) -> Meters:
        counters = {Series(each.model, each.direction, each.rest): each.tokens for each in self.counters}
        return Meters(MappingProxyType(counters), self.started)


class WorkLog(_Value):
    """The open span, the reports that are not delivered yet (oldest first), and the last sequence number given."""

    open: Span | None = None
    pending: Annotated[tuple[ReportWork, ...], Field(max_length=PENDING_MAX)] = ()
    epoch: int = 0
    sequence: int = 0

    def opened(self, now: datetime, meters: Meters) -> WorkLog:
        """With an open span: the one there is, or a new one from `now` on."""
        return self if self.open is not None else self._with(open=Span.of(now, meters))

    def cut(self, now: datetime, meters: Meters, served: tuple[str, ...], epochs: Epochs) -> WorkLog:
        """
        The open span becomes a report, with zeros for models that only were `served`; a new one begins `now`.

        A span that runs over the end of its epoch is reported up to there: nobody read the counters at that moment,
        and no token is counted twice. Nothing changes before time has passed, or while too much is pending.
        """
        span = self.open
        if span is None or now <= span.begin or len(self.pending) >= PENDING_MAX:
            return self
        epoch = epochs.at(span.begin)
        models = _models(span.meters, meters, served)
        if epoch < 0 or not models:  # a clock that is far off, or nothing that could be named: no report of that
            return self._with(open=Span.of(now, meters))
        numbered = self._numbered(epoch, now, epochs)
        report = ReportWork(
            epoch=epoch,
            sequence=numbered.sequence,
            begin=span.begin,
            end=min(now, epochs.end(epoch)),
            models=models,
        )
        rest = Span.of(now, carried(span.meters, meters))
        return numbered._with(open=rest, pending=(*self.pending, report))

    def settled(self, report: ReportWork) -> WorkLog:
        """Without that report: it was counted, or never will be."""
        return self._with(pending=tuple(each for each in self.pending if each != report))

    def renumbered(self, now: datetime, epochs: Epochs) -> WorkLog:
        """The oldest report under a new sequence number, where the orchestrator has seen another one under its own."""
        if not self.pending:
            return self
        log = self
        again: list[ReportWork] = []
        for report in self.pending:  # all of them, since numbers must rise
            log = log._numbered(report.epoch, now, epochs)
            again.append(report.model_copy(update={"sequence": log.sequence}))
        return log._with(pending=tuple(again))

    def closed(self) -> WorkLog:
        """Without an open span: what is done from now on does not count."""
        return self if self.open is None else self._with(open=None)

    def _numbered(self, epoch: int, now: datetime, epochs: Epochs) -> WorkLog:
        """
        With the next sequence number of the epoch. It is at least the second of the epoch that it is given in, so
        that numbers rise even where this log was lost.
        """
        last = self.sequence if self.epoch == epoch else 0
        begin = epochs.end(epoch - 1)
        return self._with(epoch=epoch, sequence=max(last, int((now - begin).total_seconds()), 0) + 1)

    def _with(self, **changes: object) -> WorkLog:
        return self.model_copy(update=changes)


def _models(before: Meters, after: Meters, served: tuple[str, ...]) -> tuple[ModelWork, ...]:
    """Busiest first where there are more than a report can name, by name otherwise."""
    work = work_between(before, after)
    none = Tokens(0, 0)
    tokens = {model: work.get(model, none) for model in sorted({*work, *served})}
    done = [ModelWork(model=model, input_tokens=t.input, output_tokens=t.output) for model, t in tokens.items()]
    if len(done) > MODELS_MAX:
        done.sort(key=lambda each: each.input_tokens + each.output_tokens, reverse=True)
    return tuple(done[:MODELS_MAX])


class _Kept(_Value):
    """The file: a log, and whose it is."""

    server: str
    ip_address: str
    log: WorkLog


class Memory:
    """The log in a file, replaced whole at each change. One written for another server or address is not ours."""

    def __init__(self, path: Path, *, server: str, ip_address: str) -> None:
        self._path = path
        self._server = server
        self._ip_address = ip_address

    def load(self) -> WorkLog:
        """The log as it was saved last; an empty one where there is none, or none that can be read."""
        try:
            with self._path.open("rb") as file:
                data = file.read(MEMORY_BYTES_MAX + 1)
            kept = _Kept.model_validate_json(data) if len(data) <= MEMORY_BYTES_MAX else None
        except (OSError, ValidationError):
            return WorkLog()
        if kept is None or (kept.server, kept.ip_address) != (self._server, self._ip_address):
            return WorkLog()
        return kept.log

    def save(self, log: WorkLog) -> None:
        """Replace the file, whole or not at all. Raises OSError."""
        kept = _Kept(server=self._server, ip_address=self._ip_address, log=log)
        aside = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(kept.model_dump_json().encode())
                file.flush()
                os.fsync(file.fileno())
            aside.replace(self._path)
        finally:
            aside.unlink(missing_ok=True)
