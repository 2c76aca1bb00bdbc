"""The agent against a scripted orchestrator and a clock that is turned by hand: what it says, when, and how often."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from attest.binding import Statement, gpu_nonce
from attest.evidence import NVIDIA, Bundle, Evidence, Nonce, dumps
from nodeprobe.agent import Agent
from nodeprobe.inference import INPUT, OUTPUT, InferenceError, Meters, Series
from nodeprobe.problems import NO_DRIVER, ProblemError
from nodeprobe.worklog import Epochs, Memory, WorkLog
from nodeprobe.world import Node, Pace, World
from orchestrator import work as rules
from orchestrator.client import ServerRefused, Unreachable
from orchestrator.messages import (
    About,
    Alive,
    Attest,
    Attested,
    Challenge,
    ChallengeRequest,
    Endpoint,
    Finding,
    Purpose,
    RegisterWorker,
    ReportLiveliness,
    ReportWork,
    Service,
    Verdict,
    WorkCounted,
    Worker,
)
from orchestrator.reasons import Refused

START = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
IP, WALLET, KEY = "203.0.113.7", "secret1" + "q" * 38, "02" + "ab" * 32
MODEL, URL = "llama3.1:70b", "https://203.0.113.7:8000"
TTL, LIFE, EPOCH = 90, 3600, 600

PROBLEMS = {
    "worker-unknown": 404,
    "worker-key-unset": 409,
    "worker-key-mismatch": 401,
    "challenge-unknown": 409,
    "device-taken": 409,
    "work-replayed": 409,
    "work-overlaps": 409,
    "work-not-attested": 409,
    "too-many": 429,
    "internal": 500,
}


def refusal(code: str, **more: Any) -> ServerRefused:
    error = ServerRefused(PROBLEMS[code], code, f"title of {code}", f"fix of {code}")
    for name, value in more.items():
        setattr(error, name, value)
    return error


def down() -> Unreachable:
    return Unreachable("http://orchestrator", "cannot be reached")


@dataclass
class Clock:
    """Seconds since START; both clocks of the agent turn with it."""

    seconds: float = 0.0

    def monotonic(self) -> float:
        return 1000.0 + self.seconds

    def now(self) -> datetime:
        return START + timedelta(seconds=self.seconds)


@dataclass
class FakeServer:
    """An orchestrator that says yes, unless `fails` has something to raise for the call."""

    clock: Clock
    calls: list[tuple[float, str, Any]] = field(default_factory=list)
    fails: dict[str, list[Exception]] = field(default_factory=dict)  # raised in turn, before the call has an effect
    lost: dict[str, int] = field(default_factory=dict)  # so many answers never arrive, though the call had its effect
    down: bool = False
    tier: str = "affirming"
    reasons: tuple[Finding, ...] = ()
    life: float = LIFE
    attest_due: bool = False
    routable: bool = True
    known: bool = True
    reports: list[ReportWork] = field(default_factory=list)
    issued: int = 0
    ahead: timedelta = timedelta()

    def about(self) -> About:
        self._call("about", None)
        return About(
            name="test",
            version="0",
            domain="test",
            admin_address=WALLET,
            policy="lab",
            emulated_roots=True,
            liveliness_seconds=TTL,
            epoch_seconds=EPOCH,
            epoch_zero=START - timedelta(seconds=10 * EPOCH + 100),
        )

    def challenge(self, request: ChallengeRequest, /) -> Challenge:
        self._call(f"challenge {request.purpose}", request)
        return self._issue(request.purpose, request.payment_wallet or WALLET)

    def attest(self, ip: str, message: Attest, /) -> Attested:
        self._call("attest", message)
        verdict = self.verdict()
        return Attested(worker=self._worker(verdict), verdict=verdict)

    def report_liveliness(self, ip: str, message: ReportLiveliness, /) -> Alive:
        self._call("liveliness", message)
        alive = Alive(
            alive_until=self.clock.now() + self.ahead + timedelta(seconds=TTL),
            attest_due=self.attest_due,
            challenge=self._issue(Purpose.LIVELINESS, WALLET),
            routable=self.routable,
            why=() if self.routable else ("not-attested",),
        )
        self._answer("liveliness")
        return alive

    def report_work(self, ip: str, message: ReportWork, /) -> WorkCounted:
        self._call("work", message)
        repeated = message in self.reports
        if not repeated:
            self.reports.append(message)
        self._answer("work")
        return WorkCounted(epoch=message.epoch, sequence=message.sequence, work=1, repeated=repeated)

    def worker(self, ip: str, /) -> Worker:
        self._call("worker", ip)
        if not self.known:
            raise refusal("worker-unknown")
        return self._worker(None)

    def execute(self, command: str, message: RegisterWorker, /) -> dict[str, Any]:
        self._call(command, message)
        self.known = True
        return self._worker(self.verdict()).model_dump(mode="json")

    def verdict(self) -> Verdict:
        now = self.clock.now() + self.ahead
        return Verdict(
            tier=self.tier,
            emulated=True,
            policy="lab",
            revocation="not checked",
            freshness="nonce",
            binding="workermanager/v1 (nonce)",
            cpu="absent",
            devices=("gpu",),
            issued_at=now,
            not_after=now + timedelta(seconds=self.life),
            evidence_sha256="00" * 32,
            policy_sha256="00" * 32,
            reasons=self.reasons,
        )

    def named(self, name: str) -> list[Any]:
        return [message for _, each, message in self.calls if each == name]

    def times(self, name: str) -> list[float]:
        return [at for at, each, _ in self.calls if each == name]

    def _call(self, name: str, message: Any) -> None:
        self.calls.append((self.clock.seconds, name, message))
        if self.down:
            raise down()
        if self.fails.get(name):
            raise self.fails[name].pop(0)

    def _answer(self, name: str) -> None:
        if self.lost.get(name, 0) > 0:
            self.lost[name] -= 1
            raise down()

    def _issue(self, purpose: Purpose, wallet: str) -> Challenge:
        self.issued += 1
        expires = self.clock.now() + timedelta(seconds=120)
        return Challenge(
            challenge=f"{self.issued:064x}", purpose=purpose, expires_at=expires, ip_address=IP, payment_wallet=wallet
        )

    def _worker(self, verdict: Verdict | None) -> Worker:
        return Worker(
            ip_address=IP,
            payment_wallet=WALLET,
            attestation_report="",
            worker_type="t",
            worker_key=KEY,
            service=Service.IN_SERVICE,
            routable=False,
            why=(),
            attested_until=None,
            alive_until=None,
            due_at=None,
            endpoints=(),
            tls_spki_sha256=None,
            generation=1,
            verdict=verdict,
        )


@dataclass
class FakeInference:
    """An inference server whose counters are set by hand."""

    tokens_in: int = 0
    tokens_out: int = 0
    models_: tuple[str, ...] = (MODEL,)
    down: bool = False

    def models(self) -> tuple[str, ...]:
        self._check()
        return self.models_

    def meters(self) -> Meters:
        self._check()
        counters = {Series(MODEL, INPUT, ""): self.tokens_in, Series(MODEL, OUTPUT, ""): self.tokens_out}
        return Meters(counters, running=2, waiting=5)

    def _check(self) -> None:
        if self.down:
            raise InferenceError("it is down", "start it")


@dataclass
class Bench:
    """An agent and all around it."""

    clock: Clock = field(default_factory=Clock)
    node: Node = field(default_factory=lambda: Node(IP, KEY, "h100-80gb-x8-cc-none", URL))
    pace: Pace = field(default_factory=Pace)
    log: WorkLog = field(default_factory=WorkLog)
    spki: str | None = None
    evidence_fails: Exception | None = None
    seed: int = 7

    def __post_init__(self) -> None:
        self.server, self.inference = FakeServer(self.clock), FakeInference()
        self.nonces: list[Nonce] = []
        self.told: list[tuple[str, str, dict[str, Any]]] = []
        self.saved: list[WorkLog] = []
        self.pauses: list[float] = []
        self.stop_at = float("inf")
        self.agent = self.start()

    def start(self) -> Agent:
        """A new process of the same node."""
        world = World(
            server=self.server,
            evidence=self._evidence,
            tls_spki_sha256=lambda: self.spki,
            inference=self.inference,
            save=self.saved.append,
            tell=lambda event, text, **facts: self.told.append((event, text, facts)),
            now=self.clock.now,
            monotonic=self.clock.monotonic,
            wait=self._wait,
            random=random.Random(self.seed),
        )
        self.agent = Agent(self.node, world, log=self.saved[-1] if self.saved else self.log, pace=self.pace)
        return self.agent

    def run(self, seconds: float, each: Callable[[], None] = lambda: None) -> None:
        """Let the agent live for so long."""
        end = self.clock.seconds + seconds
        while self.clock.seconds < end:
            each()
            pause = self.agent.step()
            self.pauses.append(pause)
            self.clock.seconds += pause

    def texts(self, event: str) -> list[str]:
        return [text for each, text, _ in self.told if each == event]

    def _evidence(self, statement: Statement) -> Bundle:
        nonce = gpu_nonce(statement)
        self.nonces.append(nonce)
        if self.evidence_fails:
            raise self.evidence_fails
        return (Evidence(NVIDIA, bytes(nonce), b""),)

    def _wait(self, seconds: float) -> bool:
        self.clock.seconds += seconds
        return self.clock.seconds >= self.stop_at


@pytest.fixture
def bench() -> Bench:
    return Bench()


# --- attesting --------------------------------------------------------------------------------------------------------
def test_evidence_commits_to_challenge_address_wallet_and_keys(bench: Bench) -> None:
    bench.spki = "cd" * 32
    bench.agent.step()
    (message,) = bench.server.named("attest")
    statement = Statement(message.challenge, IP, WALLET, KEY, bench.spki)
    assert bench.nonces == [gpu_nonce(statement)]
    assert message.evidence == dumps((Evidence(NVIDIA, bytes(bench.nonces[0]), b""),)).decode()
    assert message.tls_spki_sha256 == bench.spki
    assert message.endpoints == (Endpoint(model=MODEL, url=URL),)
    assert bench.texts("attested")


def test_attests_again_before_half_of_the_lifetime_is_over_and_not_much_earlier(bench: Bench) -> None:
    bench.run(5 * LIFE)
    times = bench.server.times("attest")
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert len(gaps) >= 9
    assert all(0.4 * LIFE <= gap <= 0.5 * LIFE + 1 for gap in gaps)
    assert len({round(gap) for gap in gaps}) > 1  # spread by chance


def test_attests_at_once_when_the_orchestrator_wants_it(bench: Bench) -> None:
    bench.run(TTL)
    assert len(bench.server.named("attest")) == 1
    bench.server.attest_due = True
    bench.run(TTL / 3)
    bench.server.attest_due = False
    assert len(bench.server.named("attest")) == 2


def test_attests_at_once_when_the_served_key_changes(bench: Bench) -> None:
    bench.run(TTL)
    bench.spki = "ee" * 32
    bench.run(TTL)
    assert [m.tls_spki_sha256 for m in bench.server.named("attest")] == [None, bench.spki]


def test_attests_as_often_as_its_owner_wants() -> None:
    bench = Bench(pace=Pace(attest_longest=20))
    bench.run(200)
    assert 9 <= len(bench.server.named("attest")) <= 11


def test_contraindicated_says_why_slows_down_and_stays_alive(bench: Bench) -> None:
    bench.server.tier = "contraindicated"
    bench.server.reasons = (
        Finding(
            device="GPU-1",
            rule="firmware is known",
            code="measurement-mismatch",
            stage="appraise",
            holds=False,
            fix="Flash it.",
        ),
        Finding(device="GPU-1", rule="debug is off", code="debug-enabled", stage="appraise", holds=True),
    )
    bench.run(3600)
    reasons = bench.texts("reason")
    assert "measurement-mismatch" in reasons[0]
    assert "Flash it." in reasons[0]
    assert not any("debug-enabled" in text for text in reasons)
    assert 4 <= len(bench.server.named("attest")) <= 12
    assert len(bench.server.named("liveliness")) > 100
    assert not bench.server.named("work")


def test_attests_soon_after_what_was_wrong_is_mended(bench: Bench) -> None:
    bench.server.tier = "contraindicated"
    bench.run(10)
    bench.server.tier = "affirming"
    bench.run(60)
    assert bench.texts("attested")


def test_undecided_is_tried_again_and_work_goes_on(bench: Bench) -> None:
    bench.run(5)
    bench.server.tier, bench.server.attest_due = "none", True
    bench.run(TTL / 3)
    bench.server.attest_due = False
    bench.run(600)
    assert len(bench.server.named("attest")) >= 4
    assert len(bench.server.reports) >= 10


def test_a_node_without_evidence_says_so_once_and_goes_on_trying(bench: Bench) -> None:
    bench.evidence_fails = ProblemError(NO_DRIVER)
    bench.run(600)
    assert bench.texts("no-evidence") == [f"{NO_DRIVER.what} {NO_DRIVER.fix}"]
    assert 20 <= len(bench.nonces) <= 60
    assert not bench.server.named("attest")
    bench.evidence_fails = None
    bench.run(60)
    assert bench.texts("attested")


def test_clocks_that_differ_are_told_once(bench: Bench) -> None:
    bench.server.ahead = timedelta(seconds=45)
    bench.run(2 * LIFE)
    assert len(bench.texts("clock-differs")) == 1


# --- what the orchestrator does not know ------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("code", "command"),
    [
        (
            "worker-unknown",
            f"orchestrator workers add {IP} --wallet WALLET --type h100-80gb-x8-cc-none --worker-key {KEY}",
        ),
        ("worker-key-unset", f"orchestrator workers set-key {IP} {KEY}"),
        ("worker-key-mismatch", f"orchestrator workers set-key {IP} {KEY}"),
    ],
)
def test_prints_once_what_the_admin_must_do_and_goes_on_when_it_is_done(bench: Bench, code: str, command: str) -> None:
    bench.server.fails["challenge attest"] = [refusal(code) for _ in range(20)]
    bench.run(600)
    assert len([text for text in bench.texts("refused") if command in text]) == 1
    assert len(bench.texts("refused")) == 1
    assert bench.texts("attested")
    tries = bench.server.times("challenge attest")[:21]
    assert max(later - earlier for earlier, later in itertools.pairwise(tries)) <= 31


def test_registers_once_by_the_admins_key(bench: Bench) -> None:
    bench.node = replace(bench.node, wallet=WALLET)
    bench.server.known = False
    bench.start().step()
    (message,) = bench.server.named("register_worker")
    assert (message.ip_address, message.payment_wallet, message.worker_key) == (IP, WALLET, KEY)
    assert bench.nonces == [gpu_nonce(Statement(message.challenge, IP, WALLET, KEY))]
    assert json.loads(message.attestation_report)["format"]
    assert not bench.server.named("attest")


def test_does_not_register_what_is_known(bench: Bench) -> None:
    bench.node = replace(bench.node, wallet=WALLET)
    bench.start().step()
    assert not bench.server.named("register_worker")
    assert bench.server.named("attest")


def test_a_worker_that_was_removed_stays_out(bench: Bench) -> None:
    bench.node = replace(bench.node, wallet=WALLET)
    bench.server.known = False
    bench.start()
    bench.run(10)
    bench.server.known = False
    gone = [refusal("worker-unknown") for _ in range(100)]
    bench.server.fails = {"liveliness": list(gone), "challenge attest": list(gone), "work": list(gone)}
    bench.run(600)
    assert len(bench.server.named("register_worker")) == 1
    assert len(bench.texts("refused")) == 1
    assert len(bench.server.named("liveliness")) <= 3  # nobody to be alive for


# --- liveliness -------------------------------------------------------------------------------------------------------
def test_lives_at_a_third_of_the_span_each_time_by_the_next_challenge(bench: Bench) -> None:
    bench.run(600)
    times = bench.server.times("liveliness")
    assert all(later - earlier == pytest.approx(TTL / 3, abs=0.1) for earlier, later in itertools.pairwise(times))
    assert len(bench.server.named("challenge liveliness")) == 1
    challenges = [message.challenge for message in bench.server.named("liveliness")]
    assert len(set(challenges)) == len(challenges)
    message = bench.server.named("liveliness")[0]
    assert (message.load.running, message.load.waiting, message.draining) == (2, 5, False)


def test_asks_anew_at_once_when_a_challenge_is_refused(bench: Bench) -> None:
    bench.run(TTL)
    bench.server.fails["liveliness"] = [refusal("challenge-unknown")]
    bench.run(TTL)
    times = bench.server.times("liveliness")
    assert min(later - earlier for earlier, later in itertools.pairwise(times)) < 0.1
    assert len(bench.server.named("challenge liveliness")) == 2


def test_an_orchestrator_that_refuses_every_challenge_is_not_hammered(bench: Bench) -> None:
    bench.run(TTL)
    bench.server.fails["liveliness"] = [refusal("challenge-unknown") for _ in range(1000)]
    bench.run(600)
    assert len(bench.server.named("liveliness")) < 60


def test_a_lost_answer_is_followed_by_a_fresh_challenge(bench: Bench) -> None:
    bench.run(TTL)
    bench.server.lost["liveliness"] = 1
    bench.run(TTL)
    challenges = [message.challenge for message in bench.server.named("liveliness")]
    assert len(set(challenges)) == len(challenges)


def test_models_that_come_and_go_are_told_with_the_next_answer(bench: Bench) -> None:
    bench.run(TTL)
    assert [m.endpoints for m in bench.server.named("liveliness")] == [None] * 3  # told with the evidence already
    bench.inference.models_ = (MODEL, "whisper")
    bench.run(TTL)
    told = [m.endpoints for m in bench.server.named("liveliness")][3:]
    assert told[0] == (Endpoint(model=MODEL, url=URL), Endpoint(model="whisper", url=URL))
    assert set(told[1:]) == {None}


def test_an_inference_server_that_is_gone_serves_nothing_but_not_at_the_first_miss(bench: Bench) -> None:
    bench.run(TTL)
    bench.inference.down = True
    bench.run(TTL)
    told = [m.endpoints for m in bench.server.named("liveliness")][3:]
    assert told[:2] == [None, ()]
    assert len(bench.texts("inference-unreadable")) == 1
    bench.inference.down = False
    bench.run(TTL)
    assert bench.server.named("liveliness")[6].endpoints == (Endpoint(model=MODEL, url=URL),)


def test_no_endpoints_with_evidence_are_told_again_as_none(bench: Bench) -> None:
    """Absent ones stay as they were: an orchestrator that knows old ones must hear that there are none."""
    bench.inference.down = True
    bench.run(TTL)
    assert bench.server.named("attest")[0].endpoints == ()
    assert bench.server.named("liveliness")[0].endpoints == ()


def test_a_state_that_cannot_be_written_is_said_once_and_work_goes_on(bench: Bench) -> None:
    def full(log: WorkLog) -> None:
        raise OSError(28, "No space left on device")

    bench.agent._world = replace(bench.agent._world, save=full)
    bench.agent._reporter._world = bench.agent._world
    bench.run(200)
    assert len(bench.texts("state-unwritable")) == 1
    assert len(bench.server.reports) == 3


def test_an_endpoint_of_the_operator_stands_whatever_the_inference_server_says() -> None:
    given = Endpoint(model=MODEL, url="https://gpu.example:21434")
    bench = Bench(node=Node(IP, KEY, "t", URL, endpoints=(given,)))
    bench.inference.down = True
    bench.run(TTL)
    assert bench.server.named("attest")[0].endpoints == (given,)
    assert all(m.endpoints is None for m in bench.server.named("liveliness"))


def test_being_handed_out_is_told_when_it_changes(bench: Bench) -> None:
    bench.run(TTL)
    bench.server.routable = False
    bench.run(TTL)
    assert (len(bench.texts("routable")), len(bench.texts("not-routable"))) == (1, 1)


# --- backing off ------------------------------------------------------------------------------------------------------
def test_an_orchestrator_that_is_away_is_asked_less_and_less(bench: Bench) -> None:
    bench.server.down = True
    bench.run(3600)
    times = bench.server.times("about")
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert gaps[0] <= 0.5
    assert all(30 <= gap <= 61 for gap in gaps[10:])
    assert len({round(gap, 3) for gap in gaps[10:]}) > 10  # jitter
    assert len(bench.texts("unreachable")) == 1
    bench.server.down = False
    bench.run(61)
    assert bench.texts("reachable")
    assert bench.texts("attested")


def test_the_other_jobs_wait_too_while_the_orchestrator_is_away(bench: Bench) -> None:
    bench.run(TTL)
    before = len(bench.server.calls)
    bench.server.down = True
    bench.run(3600)
    assert len(bench.server.calls) - before < 110


@pytest.mark.parametrize("code", ["too-many", "internal"])
def test_a_busy_orchestrator_is_left_alone_as_long_as_it_asks(bench: Bench, code: str) -> None:
    bench.run(1)
    bench.server.fails["liveliness"] = [refusal(code, retry_after_seconds=200.0)]
    bench.run(TTL)
    at = bench.server.times("liveliness")[1]
    bench.run(400)
    assert not [t for t, _, _ in bench.server.calls if at < t < at + 200]
    assert [t for t, _, _ in bench.server.calls if at + 200 <= t < at + 205]


def test_nothing_makes_it_spin(bench: Bench) -> None:
    """Whatever is refused, for ever: seconds pass between two steps, all in all."""
    for call in ("challenge attest", "challenge liveliness", "attest", "liveliness", "work", "about", "worker"):
        for code in PROBLEMS:
            bench = Bench()
            bench.run(65)
            bench.server.fails[call] = [refusal(code) for _ in range(10_000)]
            bench.server.attest_due = True
            before = len(bench.server.calls)
            bench.run(600)
            assert len(bench.server.calls) - before < 600, (call, code)


# --- work -------------------------------------------------------------------------------------------------------------
def test_work_is_reported_each_interval_zeros_included(bench: Bench) -> None:
    bench.inference.tokens_in = 1_000_000  # before the worker was attested: not ours to claim
    bench.run(0.2)
    bench.inference.tokens_in += 30
    bench.inference.tokens_out += 7
    bench.run(185)
    first, second, third = bench.server.reports
    assert [(m.model, m.input_tokens, m.output_tokens) for m in first.models] == [(MODEL, 30, 7)]
    assert [(m.input_tokens, m.output_tokens) for m in second.models] == [(0, 0)]
    assert first.end == second.begin
    assert second.end == third.begin
    assert first.sequence < second.sequence < third.sequence


def test_the_span_ends_with_its_epoch(bench: Bench) -> None:
    bench.run(2 * EPOCH)
    epochs = Epochs(bench.server.about().epoch_zero, EPOCH)
    assert {report.epoch for report in bench.server.reports} >= {10, 11}
    for report in bench.server.reports:
        assert epochs.at(report.begin) == report.epoch
        assert epochs.end(report.epoch - 1) <= report.begin < report.end <= epochs.end(report.epoch)
    ends = [report.end for report in bench.server.reports if report.epoch == 10]
    assert ends[-1] == epochs.end(10)


def test_a_report_whose_answer_was_lost_is_sent_again_as_it_was(bench: Bench) -> None:
    bench.run(1)
    bench.inference.tokens_in = 50
    bench.server.lost["work"] = 2
    bench.run(70)
    sent = bench.server.named("work")
    assert sent[0] == sent[1] == sent[2]
    assert len(bench.server.reports) == 1
    assert bench.agent.step() > 0
    assert not bench.saved[-1].pending


def test_a_report_outlives_the_process(bench: Bench) -> None:
    bench.run(1)
    bench.inference.tokens_in = 50
    bench.server.fails["work"] = [down() for _ in range(40)]
    bench.run(70)
    (sent,) = {m.model_dump_json() for m in bench.server.named("work")}
    assert bench.saved[-1].pending
    bench.server.fails.clear()
    bench.start()
    bench.run(5)
    assert bench.server.reports[0].model_dump_json() == sent
    bench.inference.tokens_in = 60
    bench.run(120)
    assert sum(m.input_tokens for r in bench.server.reports for m in r.models) == 60


@pytest.mark.parametrize("code", ["work-overlaps", "work-not-attested"])
def test_what_can_never_count_is_dropped_and_said(bench: Bench, code: str) -> None:
    bench.run(1)
    bench.server.fails["work"] = [refusal(code)]
    bench.run(130)
    assert len(bench.texts("work-refused")) == 1
    assert len({m.sequence for m in bench.server.named("work")}) == len(bench.server.named("work"))


def test_a_sequence_number_that_is_taken_is_left_behind(bench: Bench) -> None:
    bench.run(1)
    bench.server.fails["work"] = [refusal("work-replayed")]
    bench.run(70)
    first, second = bench.server.named("work")[:2]
    assert second.sequence > first.sequence
    assert second.model_copy(update={"sequence": first.sequence}) == first


def test_numbers_rise_even_where_the_log_was_lost(bench: Bench) -> None:
    bench.run(200)
    before = [report.sequence for report in bench.server.reports]
    bench.saved.clear()
    bench.start()
    bench.run(200)
    after = [report.sequence for report in bench.server.reports[len(before) :]]
    assert before
    assert after
    assert max(before) < min(after)


def test_counters_that_cannot_be_read_are_said_once_and_nothing_is_made_up(bench: Bench) -> None:
    bench.run(1)
    bench.inference.down = True
    bench.run(300)
    assert not bench.server.named("work")
    assert len(bench.texts("work-uncounted")) == 1
    bench.inference.down, bench.inference.tokens_in = False, 9
    bench.run(61)
    assert [m.input_tokens for r in bench.server.reports for m in r.models] == [9]


def test_times_are_by_the_orchestrators_clock(bench: Bench) -> None:
    bench.server.ahead = timedelta(seconds=20)
    bench.run(61)
    (report,) = bench.server.reports
    assert report.begin == START + bench.server.ahead


# --- leaving ----------------------------------------------------------------------------------------------------------
def test_run_drains_and_reports_the_last_work(bench: Bench) -> None:
    bench.stop_at = 30.0
    real = bench.agent.step

    def step() -> float:
        pause = real()
        bench.inference.tokens_in = 11
        return pause

    bench.agent.step = step  # type: ignore[method-assign]
    bench.agent.run()
    assert bench.server.named("liveliness")[-1].draining
    assert [m.input_tokens for m in bench.server.reports[-1].models] == [11]
    assert bench.saved[-1] == WorkLog(epoch=bench.saved[-1].epoch, sequence=bench.saved[-1].sequence)


def test_draining_against_silence_ends_and_keeps_the_work(bench: Bench) -> None:
    bench.run(10)
    bench.server.down = True
    before = len(bench.server.calls)
    bench.agent.drain()
    assert len(bench.server.calls) - before == 2
    assert len(bench.saved[-1].pending) == 1
    assert bench.texts("stopped")


def test_who_was_never_known_says_no_farewell(bench: Bench) -> None:
    bench.server.down = True
    bench.run(5)
    before = len(bench.server.calls)
    bench.agent.drain()
    assert len(bench.server.calls) == before


def test_nothing_told_holds_evidence(bench: Bench) -> None:
    bench.run(LIFE)
    bench.agent.drain()
    evidence = bench.server.named("attest")[0].evidence
    for event, text, facts in bench.told:
        assert evidence not in text + json.dumps(facts), event
        assert len(text) < 500


# --- the file ---------------------------------------------------------------------------------------------------------
def test_the_log_is_kept_for_one_server_and_address(tmp_path: Path, bench: Bench) -> None:
    bench.run(10)
    bench.server.down = True
    bench.run(120)
    log = bench.saved[-1]
    assert log.pending
    memory = Memory(tmp_path / "work.json", server="https://a", ip_address=IP)
    memory.save(log)
    assert memory.load() == log
    assert (tmp_path / "work.json").stat().st_mode & 0o077 == 0
    assert [each.name for each in tmp_path.iterdir()] == ["work.json"]
    assert Memory(tmp_path / "work.json", server="https://b", ip_address=IP).load() == WorkLog()
    assert Memory(tmp_path / "work.json", server="https://a", ip_address="198.51.100.1").load() == WorkLog()


@pytest.mark.parametrize("spoil", [b"", b"{", b"[]", b'{"server": "https://a"}', b"\xff" * 100, b" " * (5 << 20)])
def test_a_log_that_cannot_be_read_is_an_empty_one(tmp_path: Path, spoil: bytes) -> None:
    path = tmp_path / "work.json"
    path.write_bytes(spoil)
    assert Memory(path, server="https://a", ip_address=IP).load() == WorkLog()


# --- work, whatever happens -------------------------------------------------------------------------------------------
class WorkIsCountedOnce(RuleBasedStateMachine):
    """
    An orchestrator with the real rules of work, a network that loses calls and answers, an agent that is killed: what
    is counted never exceeds what was done, and once all is well, nothing is missing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench(pace=Pace(work=20.0))
        self.epochs = rules.Epochs(self.bench.server.about().epoch_zero, timedelta(seconds=EPOCH))
        self.counted: list[rules.Counted] = []
        self.lost_answers = 0
        self.bench.server.report_work = self.report_work  # type: ignore[method-assign]
        self.bench.run(1)  # attested
        self.done = 0

    def report_work(self, ip: str, report: ReportWork, /) -> WorkCounted:
        now = self.bench.clock.now()
        if self.bench.server.down:
            raise down()
        earlier = [each for each in self.counted if each.epoch == report.epoch]
        try:
            rules.check_times(report, self.epochs, now)
            rules.check_content(report)
            repeated = rules.check_sequence(report, earlier)
        except Refused as e:
            raise AssertionError(f"refused: {e}") from e
        if not repeated:
            tokens = sum(m.input_tokens for m in report.models)
            self.counted.append(
                rules.Counted(
                    "w",
                    WALLET,
                    report.epoch,
                    report.sequence,
                    report.begin,
                    report.end,
                    tokens,
                    0,
                    rules.digest(report),
                )
            )
        if self.lost_answers:
            self.lost_answers -= 1
            raise down()
        return WorkCounted(epoch=report.epoch, sequence=report.sequence, work=1, repeated=repeated)

    @rule(tokens=st.integers(0, 1000))
    def serve(self, tokens: int) -> None:
        self.bench.inference.tokens_in += tokens
        self.done += tokens

    @rule(seconds=st.floats(0.1, 150))
    def pass_time(self, seconds: float) -> None:
        self.bench.run(seconds)

    @rule()
    def go_down(self) -> None:
        self.bench.server.down = True

    @rule()
    def come_up(self) -> None:
        self.bench.server.down = False

    @rule(count=st.integers(1, 3))
    def lose_answers(self, count: int) -> None:
        self.lost_answers = count

    @rule()
    def kill(self) -> None:
        self.bench.start()

    @precondition(lambda self: not self.bench.server.down)
    @rule()
    def all_is_well(self) -> None:
        self.lost_answers = 0
        self.bench.run(150)
        assert sum(each.input_tokens for each in self.counted) == self.done

    @invariant()
    def never_more_than_was_done(self) -> None:
        assert sum(each.input_tokens for each in self.counted) <= self.done


TestWorkIsCountedOnce = WorkIsCountedOnce.TestCase
TestWorkIsCountedOnce.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
