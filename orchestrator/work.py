"""
The rules of work and payouts: what counts, when, and how it is shared out.

Pure. Work is counted per epoch as `W = input_tokens + 4 * output_tokens`, summed over models. It counts once, and only
for time at which the worker was attested for the wallet that is paid. Uptime is the time at which a worker was both
attested and alive; it stands beside the shares, and takes no part in them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import rfc8785

from orchestrator import reasons
from orchestrator.messages import Payout, Payouts, ReportWork
from orchestrator.reasons import Refused

OUTPUT_WEIGHT = 4
SKEW_MAX = timedelta(seconds=5)  # by which a node's clock may be ahead of ours
# Of one worker, in and out together, cached prompts included: a bound against nonsense, far above any node of 8 GPUs.
TOKENS_PER_SECOND_MAX = 1_000_000
EPOCHS_BACK_MAX = 1  # how long after its end an epoch still takes reports: one epoch

REGISTERED, ATTESTED, ALIVE = "registered", "attested", "alive"


@dataclass(frozen=True, slots=True)
class Epochs:
    """How time is cut for payouts. Epoch n runs from `zero + n * length` to before the next one's begin."""

    zero: datetime = datetime(2026, 1, 5, tzinfo=UTC)
    length: timedelta = timedelta(days=7)

    def at(self, moment: datetime) -> int:
        """The epoch that a moment lies in; negative before epoch 0."""
        return (moment - self.zero) // self.length

    def begin(self, epoch: int) -> datetime:
        return self.zero + epoch * self.length

    def end(self, epoch: int) -> datetime:
        return self.begin(epoch + 1)


@dataclass(frozen=True, slots=True)
class Span:
    """From `begin` to before `until`, a fact (registered, attested, alive) held of a worker of this wallet."""

    worker_id: str
    payment_wallet: str
    fact: str
    begin: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class Counted:
    """A report that was counted, with the wallet that it is paid to."""

    worker_id: str
    payment_wallet: str
    epoch: int
    sequence: int
    begin: datetime
    until: datetime
    input_tokens: int
    output_tokens: int
    sha256: str  # of the report: the same one again is no second one
    models_json: str = field(default="[]", repr=False)

    @property
    def work(self) -> int:
        return self.input_tokens + OUTPUT_WEIGHT * self.output_tokens

    @classmethod
    def of(cls, report: ReportWork, worker_id: str, payment_wallet: str) -> Counted:
        return cls(
            worker_id,
            payment_wallet,
            report.epoch,
            report.sequence,
            report.begin,
            report.end,
            sum(m.input_tokens for m in report.models),
            sum(m.output_tokens for m in report.models),
            digest(report),
            json.dumps([m.model_dump() for m in report.models]),
        )


def work_of(report: ReportWork) -> int:
    """W of a report: input and four times output tokens, summed over models."""
    return sum(m.input_tokens + OUTPUT_WEIGHT * m.output_tokens for m in report.models)


def digest(report: ReportWork) -> str:
    """SHA-256 of what a report says, whatever zone its times are written in and in whatever order its models are."""
    models = sorted([m.model, str(m.input_tokens), str(m.output_tokens)] for m in report.models)
    times = [moment.astimezone(UTC).isoformat() for moment in (report.begin, report.end)]
    return hashlib.sha256(rfc8785.dumps([report.epoch, str(report.sequence), times, models])).hexdigest()


# --- may it count? ----------------------------------------------------------------------------------------------------
def check_zones(report: ReportWork) -> None:
    """That its times say what they mean. Refused: field-invalid."""
    if report.begin.tzinfo is None or report.end.tzinfo is None:
        raise _invalid("begin", "no zone", "times in UTC, as 2026-01-31T23:59:59Z")


def check_times(report: ReportWork, epochs: Epochs, now: datetime) -> None:
    """That the report lies within its epoch, in the past, and not too far back. Refused: field-invalid."""
    if report.begin >= report.end:
        raise _invalid("end", report.end.isoformat(), f"later than begin, {report.begin.isoformat()}")
    if report.end > now + SKEW_MAX:
        raise _invalid("end", report.end.isoformat(), f"not later than now, {now.isoformat()}")
    current = epochs.at(now)
    if not max(0, current - EPOCHS_BACK_MAX) <= report.epoch <= current:
        raise _invalid("epoch", str(report.epoch), f"{current}, or the one before while it is late")
    begin, end = epochs.begin(report.epoch), epochs.end(report.epoch)
    if report.begin < begin or report.end > end:
        raise _invalid("begin", report.begin.isoformat(), f"within {begin.isoformat()} to {end.isoformat()}")


def check_content(report: ReportWork) -> None:
    """That each model stands once, and that a worker can do so much. Refused: field-invalid, work-implausible."""
    names = [m.model for m in report.models]
    if not names or len(set(names)) != len(names):
        raise _invalid("models", ", ".join(names) or "none", "every model that was served, once, with zeros for none")
    tokens = sum(m.input_tokens + m.output_tokens for m in report.models)
    if tokens > TOKENS_PER_SECOND_MAX * Fraction((report.end - report.begin) // timedelta(microseconds=1), 10**6):
        want = f"at most {TOKENS_PER_SECOND_MAX} a second"
        raise Refused(reasons.WORK_IMPLAUSIBLE, "models", got=f"{tokens} tokens", want=want)


def check_sequence(report: ReportWork, earlier: Iterable[Counted]) -> bool:
    """
    Whether this very report was counted before. `earlier`: all of this worker and epoch.

    Refused: work-replayed if another one has its number or a higher one, work-overlaps if one has some of its time.
    """
    known = {counted.sequence: counted for counted in earlier}
    same = known.get(report.sequence)
    if same is not None and same.sha256 == digest(report):
        return True
    if same is not None or max(known, default=0) > report.sequence:
        want = f"higher than {max(known)}"
        raise Refused(reasons.WORK_REPLAYED, "sequence", got=str(report.sequence), want=want)
    for counted in known.values():
        if report.begin < counted.until and counted.begin < report.end:
            want = f"not from {counted.begin.isoformat()} to {counted.until.isoformat()}, report {counted.sequence}"
            raise Refused(reasons.WORK_OVERLAPS, "begin", got=report.begin.isoformat(), want=want)
    return False


def paid_wallet(report: ReportWork, attested: Iterable[Span]) -> str:
    """The one wallet for which the worker was attested during all of the report. Refused: work-not-attested."""
    wallets: dict[str, list[Span]] = {}
    for span in attested:
        wallets.setdefault(span.payment_wallet, []).append(span)
    for wallet, spans in wallets.items():
        pieces = _clip(_merge((s.begin, s.until) for s in spans), report.begin, report.end)
        if pieces == [(report.begin, report.end)]:
            return wallet
    got = f"{report.begin.isoformat()} to {report.end.isoformat()}"
    raise Refused(reasons.WORK_NOT_ATTESTED, "begin", got=got, want="time at which the worker was attested throughout")


def _invalid(name: str, got: str, want: str) -> Refused:
    return Refused(reasons.FIELD_INVALID, name, got=got, want=want)


# --- payouts ----------------------------------------------------------------------------------------------------------
def payouts(epoch: int, epochs: Epochs, spans: Sequence[Span], counted: Sequence[Counted], now: datetime) -> Payouts:
    """
    Each wallet's share of an epoch, sorted by wallet. A wallet that had a worker and no work is there, with zeros.

    `spans`: those that touch the epoch; `counted`: the epoch's reports.
    """
    begin, end = epochs.begin(epoch), epochs.end(epoch)
    workers: dict[str, set[str]] = {}
    done: dict[str, list[Counted]] = {}
    for span in spans:
        if span.fact == REGISTERED and span.begin < min(end, now) and begin < span.until:
            workers.setdefault(span.payment_wallet, set()).add(span.worker_id)
    for c in counted:
        workers.setdefault(c.payment_wallet, set()).add(c.worker_id)
        done.setdefault(c.payment_wallet, []).append(c)
    total = sum(c.work for c in counted)
    up = uptime(spans, begin, min(end, now))
    return Payouts(
        epoch=epoch,
        begin=begin,
        end=end,
        complete=now >= end,
        total_work=total,
        payouts=tuple(
            _payout(wallet, len(ids), done.get(wallet, ()), total, up.get(wallet, timedelta()))
            for wallet, ids in sorted(workers.items())
        ),
    )


def uptime(spans: Iterable[Span], begin: datetime, end: datetime) -> Mapping[str, timedelta]:
    """Of each wallet: how long its workers, each by itself, were attested and alive between `begin` and `end`."""
    facts: dict[tuple[str, str], dict[str, list[tuple[datetime, datetime]]]] = {}
    for span in spans:
        times = facts.setdefault((span.payment_wallet, span.worker_id), {})
        times.setdefault(span.fact, []).append((span.begin, span.until))
    total: dict[str, timedelta] = {}
    for (wallet, _), times in facts.items():
        alive = _merge(times.get(ALIVE, ()))
        both = [piece for b, e in _merge(times.get(ATTESTED, ())) for piece in _clip(alive, b, e)]
        measured = sum((e - b for b, e in _clip(both, begin, end)), timedelta())
        total[wallet] = total.get(wallet, timedelta()) + measured
    return total


def _payout(wallet: str, workers: int, counted: Sequence[Counted], total: int, up: timedelta) -> Payout:
    work = sum(c.work for c in counted)
    share = Fraction(work, total) if total else Fraction(0)
    return Payout(
        payment_wallet=wallet,
        workers=workers,
        input_tokens=sum(c.input_tokens for c in counted),
        output_tokens=sum(c.output_tokens for c in counted),
        work=work,
        share=str(share),
        percent=float(share * 100),
        uptime_seconds=up // timedelta(seconds=1),
    )


# --- intervals, half open ---------------------------------------------------------------------------------------------
def _merge(pieces: Iterable[tuple[datetime, datetime]]) -> list[tuple[datetime, datetime]]:
    """The same time, sorted, in the fewest pieces."""
    merged: list[tuple[datetime, datetime]] = []
    for begin, end in sorted(pieces):
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        elif begin < end:
            merged.append((begin, end))
    return merged


def _clip(
    pieces: Iterable[tuple[datetime, datetime]], begin: datetime, end: datetime
) -> list[tuple[datetime, datetime]]:
    """What of the pieces lies between `begin` and `end`."""
    cut = [(max(b, begin), min(e, end)) for b, e in pieces]
    return [(b, e) for b, e in cut if b < e]
