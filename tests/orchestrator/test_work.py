"""The rules of work: what counts, once; how it is shared; how uptime is measured."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import work
from orchestrator.messages import ModelWork, ReportWork
from orchestrator.reasons import (
    FIELD_INVALID,
    WORK_IMPLAUSIBLE,
    WORK_NOT_ATTESTED,
    WORK_OVERLAPS,
    WORK_REPLAYED,
    WORKER_KEY_MISMATCH,
    WORKER_UNKNOWN,
    Problem,
    Refused,
)
from orchestrator.work import (
    ALIVE,
    ATTESTED,
    REGISTERED,
    SKEW_MAX,
    TOKENS_PER_SECOND_MAX,
    Counted,
    Epochs,
    Span,
    payouts,
    uptime,
)
from orchestrator.worker_keys import WorkerKey
from tests.orchestrator.world import IP, MICROSECOND, MODEL, NOON, SECOND, World, replace_model

MINUTE = timedelta(minutes=1)
EPOCHS = Epochs()
EPOCH = EPOCHS.at(NOON)
BEGIN, END = EPOCHS.begin(EPOCH), EPOCHS.end(EPOCH)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A worker attested from 12:00 to 12:10, at 12:09."""
    world = World.good(tmp_path)
    world.clock.forward(9 * MINUTE)
    return world


def refusal(call: Callable[[], object]) -> Problem:
    with pytest.raises(Refused) as refused:
        call()
    return refused.value.problem


def counted_in(world: World) -> list[Counted]:
    with world.store.reading() as view:
        return view.counted(EPOCH)


# --- epochs -----------------------------------------------------------------------------------------------------------
def test_epochs_are_a_week_from_a_monday_and_half_open() -> None:
    assert EPOCHS.zero == datetime(2026, 1, 5, tzinfo=UTC)
    assert (EPOCHS.at(BEGIN), EPOCHS.at(END - MICROSECOND), EPOCHS.at(END)) == (EPOCH, EPOCH, EPOCH + 1)
    assert EPOCHS.at(EPOCHS.zero - MICROSECOND) == -1


@given(st.datetimes(timezones=st.just(UTC)), st.integers(1, 10**6))
def test_every_moment_lies_in_its_epoch(moment: datetime, seconds: int) -> None:
    epochs = Epochs(EPOCHS.zero, timedelta(seconds=seconds))
    epoch = epochs.at(moment)
    assert epochs.zero + epoch * epochs.length <= moment
    assert moment - (epochs.zero + epoch * epochs.length) < epochs.length


# --- counting ---------------------------------------------------------------------------------------------------------
def test_work_is_input_and_four_times_output(world: World) -> None:
    answer = world.work(NOON, NOON + MINUTE)
    assert (answer.epoch, answer.sequence, answer.work, answer.repeated) == (EPOCH, 1, 200, False)
    (counted,) = counted_in(world)
    assert (counted.payment_wallet, counted.work) == (world.owner.address, 200)


def test_the_same_report_again_is_counted_once(world: World) -> None:
    first, again = (world.work(NOON, NOON + MINUTE) for _ in range(2))
    assert (first.repeated, again.repeated) == (False, True)
    assert len(counted_in(world)) == 1
    world.clock.forward(30 * EPOCHS.length)  # a lost answer may be asked for again however late
    assert world.work(NOON, NOON + MINUTE).repeated


def test_the_same_report_in_another_zone_is_the_same(world: World) -> None:
    world.work(NOON, NOON + MINUTE)
    zone = timezone(timedelta(hours=2))
    assert world.work(NOON.astimezone(zone), (NOON + MINUTE).astimezone(zone)).repeated


OTHER_MODELS = (ModelWork(model=MODEL, input_tokens=101, output_tokens=25),)


@pytest.mark.parametrize(
    ("begin", "end", "changes", "problem"),
    [
        (2, 3, {"sequence": 1}, WORK_REPLAYED),
        (0, 2, {"models": OTHER_MODELS}, WORK_REPLAYED),
        (0, 2, {"sequence": 3}, WORK_OVERLAPS),
        (1, 3, {"sequence": 3}, WORK_OVERLAPS),
        (3, 4, {"sequence": 2}, None),
        (2, 3, {"sequence": 5}, None),
    ],
)
def test_numbers_rise_and_time_is_reported_once(
    world: World, begin: int, end: int, changes: dict[str, Any], problem: Problem | None
) -> None:
    """After report 1 from 12:00 to 12:02."""
    world.work(NOON, NOON + 2 * MINUTE)

    def call() -> object:
        return world.work(NOON + begin * MINUTE, NOON + end * MINUTE, **changes)

    if problem is None:
        call()
        assert len(counted_in(world)) == 2
    else:
        assert refusal(call) is problem
        assert len(counted_in(world)) == 1


def test_a_lower_number_is_refused_even_if_it_was_never_used(world: World) -> None:
    world.work(NOON, NOON + MINUTE, sequence=5)
    assert refusal(lambda: world.work(NOON + MINUTE, NOON + 2 * MINUTE, sequence=4)) is WORK_REPLAYED


@pytest.mark.parametrize(
    ("begin", "end", "problem"),
    [
        (NOON, NOON, FIELD_INVALID),
        (NOON + MINUTE, NOON, FIELD_INVALID),
        (NOON.replace(tzinfo=None), NOON + MINUTE, FIELD_INVALID),
        (NOON, NOON.replace(tzinfo=None) + MINUTE, FIELD_INVALID),
        (NOON, NOON + 9 * MINUTE + SKEW_MAX, None),
        (NOON, NOON + 9 * MINUTE + SKEW_MAX + MICROSECOND, FIELD_INVALID),
        (NOON - MICROSECOND, NOON + MINUTE, WORK_NOT_ATTESTED),
        (NOON, NOON + MINUTE, None),
        (BEGIN - SECOND, NOON + MINUTE, FIELD_INVALID),
    ],
)
def test_a_report_lies_in_the_attested_past_of_one_epoch(
    world: World, begin: datetime, end: datetime, problem: Problem | None
) -> None:
    def call() -> object:
        return world.work(begin, end, epoch=EPOCH)

    if problem is None:
        call()
    else:
        assert refusal(call) is problem
    assert len(counted_in(world)) == (problem is None)


@pytest.mark.parametrize("epoch", [EPOCH - 1, EPOCH + 1, 0])
def test_a_report_names_the_epoch_that_it_lies_in(world: World, epoch: int) -> None:
    assert refusal(lambda: world.work(NOON, NOON + MINUTE, epoch=epoch)) is FIELD_INVALID


def test_the_last_epoch_takes_reports_until_this_one_ends(world: World) -> None:
    world.clock.now = EPOCHS.end(EPOCH + 1) - MICROSECOND
    world.work(NOON, NOON + MINUTE)
    world.clock.now = EPOCHS.end(EPOCH + 1)
    assert refusal(lambda: world.work(NOON + MINUTE, NOON + 2 * MINUTE, sequence=2)) is FIELD_INVALID


def test_a_report_over_the_end_of_an_epoch_is_refused(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.clock.now = END - MINUTE
    world.register()
    world.attest()
    world.clock.forward(2 * MINUTE)
    assert refusal(lambda: world.work(END - MINUTE, END + MICROSECOND)) is FIELD_INVALID
    world.work(END - MINUTE, END)
    world.work(END, END + MINUTE, sequence=1)  # numbers begin anew


def test_time_without_attestation_does_not_count(world: World) -> None:
    world.clock.forward(11 * MINUTE)  # 12:20; it ended at 12:10
    world.attest()
    world.clock.forward(5 * MINUTE)
    for begin, end in ((9, 11), (9, 21), (11, 19), (10, 20)):
        call = lambda b=begin, e=end: world.work(NOON + b * MINUTE, NOON + e * MINUTE)  # noqa: E731
        assert refusal(call) is WORK_NOT_ATTESTED
    world.work(NOON + 9 * MINUTE, NOON + 10 * MINUTE)
    world.work(NOON + 20 * MINUTE, NOON + 25 * MINUTE, sequence=2)


def test_a_report_after_a_contraindication_counts_up_to_it_and_no_further(world: World) -> None:
    world.judge.dislikes()
    world.attest()
    world.clock.forward(MINUTE)
    assert refusal(lambda: world.work(NOON, NOON + 9 * MINUTE + MICROSECOND)) is WORK_NOT_ATTESTED
    world.work(NOON, NOON + 9 * MINUTE)


def test_unbroken_attestation_counts_as_one(world: World) -> None:
    world.attest()  # at 12:09, until 12:19
    world.clock.forward(6 * MINUTE)
    world.work(NOON, NOON + 15 * MINUTE)


def test_work_is_paid_to_the_wallet_of_its_time(world: World) -> None:
    world.execute(world.owner, "set_worker_wallet", ip_address=IP, payment_wallet=world.stranger.address)
    world.clock.forward(MINUTE)
    world.attest()
    world.clock.forward(MINUTE)
    world.work(NOON, NOON + 9 * MINUTE)
    world.work(NOON + 10 * MINUTE, NOON + 11 * MINUTE, sequence=2)
    assert [c.payment_wallet for c in counted_in(world)] == [world.owner.address, world.stranger.address]
    assert refusal(lambda: world.work(NOON + 9 * MINUTE, NOON + 10 * MINUTE, sequence=3)) is WORK_NOT_ATTESTED


def test_what_no_worker_can_do_is_refused(world: World) -> None:
    def done(tokens: int) -> tuple[ModelWork, ...]:
        return (ModelWork(model=MODEL, input_tokens=tokens, output_tokens=0),)

    most = TOKENS_PER_SECOND_MAX * 60
    assert refusal(lambda: world.work(NOON, NOON + MINUTE, models=done(most + 1))) is WORK_IMPLAUSIBLE
    assert world.work(NOON, NOON + MINUTE, models=done(most)).work == most


@pytest.mark.parametrize("models", [(), (OTHER_MODELS[0], OTHER_MODELS[0])])
def test_every_model_stands_once_and_one_at_least(world: World, models: tuple[ModelWork, ...]) -> None:
    assert refusal(lambda: world.work(NOON, NOON + MINUTE, models=models)) is FIELD_INVALID


def test_zeros_are_a_report(world: World) -> None:
    zero = (ModelWork(model=MODEL, input_tokens=0, output_tokens=0),)
    assert world.work(NOON, NOON + MINUTE, models=zero).work == 0


def test_only_the_worker_reports_its_work(world: World) -> None:
    world.key, key = WorkerKey.generate(), world.key
    assert refusal(lambda: world.work(NOON, NOON + MINUTE)) is WORKER_KEY_MISMATCH
    world.key = key
    world.execute(world.owner, "remove_worker", ip_address=IP)
    assert refusal(lambda: world.work(NOON, NOON + MINUTE)) is WORKER_UNKNOWN


# --- payouts ----------------------------------------------------------------------------------------------------------
def span(worker: str, wallet: str, fact: str, begin: float, until: float) -> Span:
    """Times in hours from the begin of the epoch."""
    return Span(worker, wallet, fact, BEGIN + timedelta(hours=begin), BEGIN + timedelta(hours=until))


def did(worker: str, wallet: str, tokens_in: int, tokens_out: int, sequence: int = 1) -> Counted:
    return Counted(worker, wallet, EPOCH, sequence, BEGIN, BEGIN + SECOND, tokens_in, tokens_out, "ab")


def test_payouts_share_exactly_and_name_those_who_did_nothing() -> None:
    spans = [span("1", "a", REGISTERED, 0, 9**4), span("2", "b", REGISTERED, 1, 2), span("3", "b", REGISTERED, 0, 1)]
    answer = payouts(EPOCH, EPOCHS, spans, [did("1", "c", 1, 0), did("1", "a", 1, 1)], END)
    assert [(p.payment_wallet, p.workers, p.work, p.share) for p in answer.payouts] == [
        ("a", 1, 5, "5/6"),
        ("b", 2, 0, "0"),
        ("c", 1, 1, "1/6"),
    ]
    assert (answer.total_work, answer.complete, answer.begin, answer.end) == (6, True, BEGIN, END)
    assert answer.payouts[0].percent == pytest.approx(83.3333333)


def test_an_epoch_without_work_shares_nothing() -> None:
    answer = payouts(EPOCH, EPOCHS, [span("1", "a", REGISTERED, 0, 1)], [], END - MICROSECOND)
    assert [(p.share, p.percent, p.uptime_seconds) for p in answer.payouts] == [("0", 0.0, 0)]
    assert not answer.complete


def test_who_came_after_or_left_before_has_no_part() -> None:
    spans = [span("1", "a", REGISTERED, -5, 0), span("2", "b", REGISTERED, 7 * 24, 9**4)]
    spans.append(span("3", "c", REGISTERED, 5, 9**4))
    assert payouts(EPOCH, EPOCHS, spans, [], END).payouts[0].payment_wallet == "c"
    assert payouts(EPOCH, EPOCHS, spans, [], BEGIN + timedelta(hours=5)).payouts == ()


def test_uptime_is_time_attested_and_alive_of_each_worker_in_the_epoch_and_past() -> None:
    spans = [
        span("1", "a", ATTESTED, -2, 3),
        span("1", "a", ALIVE, -2, 1),
        span("1", "a", ALIVE, 2, 9),
        span("2", "a", ATTESTED, 0, 1),
        span("2", "a", ALIVE, 0.5, 2),
        span("3", "a", ALIVE, 0, 9),
        span("1", "b", ATTESTED, 4, 200),
        span("1", "b", ALIVE, 4, 200),
    ]
    assert uptime(spans, BEGIN, END) == {"a": timedelta(hours=2.5), "b": timedelta(hours=7 * 24 - 4)}
    assert uptime(spans, BEGIN, BEGIN + timedelta(hours=5))["b"] == timedelta(hours=1)


amounts = st.integers(0, 1 << 53)
reports = st.lists(st.tuples(st.sampled_from("abcde"), amounts, amounts), max_size=20)


@given(reports)
def test_shares_sum_to_one_and_nothing_is_lost(done: list[tuple[str, int, int]]) -> None:
    counted = [did(wallet, wallet, i, o, n) for n, (wallet, i, o) in enumerate(done)]
    answer = payouts(EPOCH, EPOCHS, [span("9", "z", REGISTERED, 0, 1)], counted, END)
    assert answer.total_work == sum(i + 4 * o for _, i, o in done)
    assert sum(Fraction(p.share) for p in answer.payouts) == (1 if answer.total_work else 0)
    assert sum(p.work for p in answer.payouts) == answer.total_work
    assert {p.payment_wallet for p in answer.payouts} == {"z", *(wallet for wallet, _, _ in done)}


hours = st.integers(-5, 200)
pieces = st.lists(st.tuples(st.sampled_from([ATTESTED, ALIVE]), hours, hours), max_size=12)


@given(pieces)
def test_uptime_is_what_counting_hours_says(drawn: list[tuple[str, int, int]]) -> None:
    spans = [span("1", "a", fact, min(b, u), max(b, u)) for fact, b, u in drawn]
    held = {
        fact: {h for f, b, u in drawn if f == fact for h in range(min(b, u), max(b, u))} for fact in (ATTESTED, ALIVE)
    }
    both = held[ATTESTED] & held[ALIVE] & set(range(7 * 24))
    assert uptime(spans, BEGIN, END).get("a", timedelta()) == timedelta(hours=len(both))


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 5), st.integers(1, 5), st.integers(0, 3)), max_size=15))
def test_no_time_and_no_number_counts_twice(tried: list[tuple[int, int, int, int]]) -> None:
    """Whatever a worker reports, in whatever order: what was counted is disjoint in time and rises in number."""
    counted: list[Counted] = []
    for sequence, begin, length, tokens in tried:
        report = ReportWork(
            epoch=EPOCH,
            sequence=sequence,
            begin=NOON + begin * SECOND,
            end=NOON + (begin + length) * SECOND,
            models=(ModelWork(model=MODEL, input_tokens=tokens, output_tokens=0),),
        )
        try:
            if not work.check_sequence(report, counted):
                counted.append(Counted.of(report, "id", "a"))
        except Refused as e:
            assert e.problem in (WORK_REPLAYED, WORK_OVERLAPS)  # noqa: PT017 — either is right
    assert [c.sequence for c in counted] == sorted({c.sequence for c in counted})
    in_time = sorted(counted, key=lambda c: c.begin)
    assert all(a.until <= b.begin for a, b in pairwise(in_time))


def test_a_digest_tells_reports_apart(world: World) -> None:
    report = ReportWork(epoch=EPOCH, sequence=1, begin=NOON, end=NOON + SECOND, models=OTHER_MODELS)
    others: list[dict[str, Any]] = [
        {"epoch": EPOCH + 1},
        {"sequence": 2},
        {"begin": NOON - MICROSECOND},
        {"end": NOON + MINUTE},
        {"models": (ModelWork(model=MODEL, input_tokens=10, output_tokens=125),)},
        {"models": (*OTHER_MODELS, ModelWork(model="b", input_tokens=0, output_tokens=0))},
    ]
    digests = {work.digest(replace_model(report, **other)) for other in others}
    assert len(digests | {work.digest(report)}) == len(others) + 1
