"""The registry's rules, one by one, and all of them together under a state machine."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from attest import reasons as why_not
from attest.result import Tier
from orchestrator import registry
from orchestrator.messages import Load, Service
from orchestrator.registry import RETRY_FIRST, RETRY_MAX, Asked, Worker
from orchestrator.worker_type import gpu_count
from tests.orchestrator.world import (
    IP,
    LIFETIME,
    MICROSECOND,
    MODEL,
    NOON,
    OTHER_IP,
    SECOND,
    TLS,
    endpoint,
    verdict,
)

ALIVE_FOR = timedelta(seconds=90)
CHANGES = {
    "wallet": lambda worker, now: registry.set_wallet(worker, "another wallet", now),
    "type": lambda worker, now: registry.set_type(worker, "another type", now),
    "key": lambda worker, now: registry.set_key(worker, "another key", now),
    "address": lambda worker, now: registry.set_address(worker, OTHER_IP, now),
}


def newcomer() -> Worker:
    return Worker("id", IP, "a wallet", MODEL, NOON, worker_key="a key", due_at=NOON)


def settle(worker: Worker, *, now: datetime = NOON, jitter: float = 0.0, **changes: object) -> Worker:
    begun, asked = registry.begin(worker)
    told = verdict(now, **changes)
    return registry.settle(
        begun, asked, told, now=now, alive_for=ALIVE_FOR, jitter=jitter, tls_spki_sha256=TLS, endpoints=(endpoint(),)
    )


@pytest.fixture
def good() -> Worker:
    """Attested until 12:10, alive until 12:01:30, in service, with one endpoint."""
    return settle(newcomer())


# --- routable, and why not --------------------------------------------------------------------------------------------
def test_a_good_worker_is_routed_until_the_first_fact_ends(good: Worker) -> None:
    assert registry.why(good, NOON) == ()
    (route,) = registry.routes(good, NOON)
    assert route.not_after == NOON + ALIVE_FOR
    assert (route.worker, route.model, route.url, route.tls_spki_sha256) == (IP, MODEL, endpoint().url, TLS)
    assert route.verdict["tier"] == "affirming"
    assert route.verdict["emulated"] is True
    longer = registry.alive(good, NOON + 2 * LIFETIME)
    assert registry.routes(longer, NOON)[0].not_after == NOON + LIFETIME


@pytest.mark.parametrize(
    ("spoiled", "codes"),
    [
        ({"attested_until": None}, ("not-attested",)),
        ({"attested_until": NOON}, ("attestation-expired",)),
        ({"attested_until": None, "against": ("nonce-mismatch",)}, ("contraindicated:nonce-mismatch",)),
        (
            {"attested_until": NOON, "undecided": ("rim-unavailable",)},
            ("attestation-expired", "undecided:rim-unavailable"),
        ),
        ({"undecided": ("rim-unavailable",)}, ()),
        ({"alive_until": None}, ("not-alive",)),
        ({"alive_until": NOON}, ("liveliness-expired",)),
        ({"service": Service.DRAINING}, ("draining",)),
        ({"service": Service.CORDONED}, ("cordoned",)),
        ({"service": Service.QUARANTINED}, ("quarantined",)),
        ({"drains_itself": True}, ("draining",)),
        ({"drains_itself": True, "service": Service.CORDONED}, ("cordoned",)),
        ({"endpoints": ()}, ("no-endpoints",)),
    ],
)
def test_every_fact_that_is_missing_keeps_a_worker_out_and_is_named(
    good: Worker, spoiled: dict[str, Any], codes: tuple[str, ...]
) -> None:
    worker = replace(good, **spoiled)
    assert registry.why(worker, NOON) == codes
    assert registry.routable(worker, NOON) is (not codes)
    assert bool(registry.routes(worker, NOON)) is (not codes)


def test_all_that_is_wrong_is_told_at_once() -> None:
    worker = replace(newcomer(), service=Service.QUARANTINED)
    assert registry.why(worker, NOON) == ("not-attested", "not-alive", "quarantined", "no-endpoints")


@pytest.mark.parametrize("fact", ["attested_until", "alive_until"])
def test_the_instant_itself_is_too_late(good: Worker, fact: str) -> None:
    worker = replace(good, attested_until=NOON + LIFETIME, alive_until=NOON + LIFETIME)
    ends: dict[str, Any] = {fact: NOON + SECOND}
    worker = replace(worker, **ends)
    assert registry.routable(worker, NOON + SECOND - MICROSECOND)
    assert not registry.routable(worker, NOON + SECOND)


# --- verdicts ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("jitter", "part"), [(0.0, 0.5), (0.5, 0.45), (1.0, 0.4)])
def test_the_next_attestation_falls_due_at_half_life_or_a_little_sooner(jitter: float, part: float) -> None:
    worker = settle(newcomer(), jitter=jitter)
    assert worker.due_at == NOON + LIFETIME * part
    assert not worker.is_due(NOON + LIFETIME * part - MICROSECOND)
    assert worker.is_due(NOON + LIFETIME * part)


def test_a_contraindication_ends_trust_at_once(good: Worker) -> None:
    worker = settle(good, failed=(why_not.MEASUREMENTS_MISMATCH, why_not.MODE_NOT_ACCEPTED))
    assert registry.why(worker, NOON) == (
        "contraindicated:measurements-mismatch",
        "contraindicated:mode-not-accepted",
    )
    assert worker.due_at == NOON + RETRY_MAX
    assert worker.endpoints == good.endpoints


def test_a_contraindication_without_a_reason_still_has_a_code(good: Worker) -> None:
    worker = settle(good, tier=Tier.CONTRAINDICATED)
    assert registry.why(worker, NOON) == ("contraindicated:unspecified",)


def test_what_could_not_be_decided_postpones_and_extends_nothing(good: Worker) -> None:
    later = NOON + timedelta(minutes=5)
    worker = settle(good, now=later, failed=(why_not.RIM_UNAVAILABLE,))
    assert worker.attested_until == good.attested_until
    assert worker.verdict == good.verdict
    assert worker.due_at == later + RETRY_FIRST
    assert worker.failures == 1


def test_retries_come_less_and_less_often_up_to_a_bound(good: Worker) -> None:
    waits = []
    for _ in range(12):
        good = settle(good, failed=(why_not.RIM_UNAVAILABLE,))
        assert good.due_at is not None
        waits.append(good.due_at - NOON)
    assert waits[:3] == [RETRY_FIRST, 2 * RETRY_FIRST, 4 * RETRY_FIRST]
    assert waits[-1] == RETRY_MAX
    assert settle(good).failures == 0


def test_what_could_not_be_decided_does_not_clear_a_contraindication(good: Worker) -> None:
    worker = settle(settle(good, failed=(why_not.NONCE_MISMATCH,)), failed=(why_not.RIM_UNAVAILABLE,))
    assert registry.why(worker, NOON) == ("contraindicated:nonce-mismatch", "undecided:rim-unavailable")


def test_an_affirmation_clears_what_was_against_it(good: Worker) -> None:
    worker = settle(settle(good, failed=(why_not.NONCE_MISMATCH,)))
    assert registry.routable(worker, NOON)
    assert worker.against == ()


def test_a_verdict_that_expired_before_it_was_settled_gives_no_trust() -> None:
    begun, asked = registry.begin(newcomer())
    told = verdict(NOON, lifetime=SECOND)
    worker = registry.settle(
        begun, asked, told, now=NOON + SECOND, alive_for=ALIVE_FOR, jitter=0.0, endpoints=(endpoint(),)
    )
    assert registry.why(worker, NOON + SECOND) == ("attestation-expired",)


# --- fencing ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("change", CHANGES)
def test_a_verdict_from_before_a_change_of_identity_changes_nothing(change: str) -> None:
    begun, asked = registry.begin(newcomer())
    changed = CHANGES[change](begun, NOON)
    assert changed.generation == 2
    assert registry.is_late(changed, asked)
    late = registry.settle(changed, asked, verdict(), now=NOON, alive_for=ALIVE_FOR, jitter=0.0)
    assert late == changed
    assert registry.distrust(changed, asked, NOON, ("nonce-mismatch",)) == changed
    assert registry.postpone(changed, asked, NOON) == changed


def test_an_older_attempt_does_not_undo_a_younger_one(good: Worker) -> None:
    worker, older = registry.begin(good)
    worker, younger = registry.begin(worker)
    worker = registry.distrust(worker, younger, NOON, ("nonce-mismatch",))
    late = registry.settle(worker, older, verdict(), now=NOON, alive_for=ALIVE_FOR, jitter=0.0)
    assert late == worker
    assert not late.is_attested(NOON)


def test_a_verdict_is_applied_once(good: Worker) -> None:
    assert registry.is_late(good, Asked(good.generation, good.settled))


# --- identity and service ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_identity_ends_trust_and_asks_for_evidence_now(good: Worker, change: str) -> None:
    changed = CHANGES[change](good, NOON + SECOND)
    assert changed.generation == good.generation + 1
    assert "not-attested" in registry.why(changed, NOON + SECOND)
    assert changed.is_due(NOON + SECOND)
    assert changed.verdict is None


def test_key_and_address_must_show_life_again_and_a_new_address_serves_nothing_yet(good: Worker) -> None:
    assert CHANGES["key"](good, NOON).alive_until is None
    assert CHANGES["address"](good, NOON).alive_until is None
    assert CHANGES["address"](good, NOON).endpoints == ()
    assert CHANGES["wallet"](good, NOON).is_alive(NOON)
    assert CHANGES["type"](good, NOON).is_alive(NOON)


def test_what_changes_nothing_is_no_change(good: Worker) -> None:
    assert registry.set_wallet(good, good.payment_wallet, NOON) == good
    assert registry.set_type(good, good.worker_type, NOON) == good
    assert registry.set_key(good, good.worker_key or "", NOON) == good


def test_a_worker_ends_its_own_drain_and_no_others(good: Worker) -> None:
    until = NOON + ALIVE_FOR
    drained = registry.alive(good, until, draining=True)
    assert drained.serving is Service.DRAINING
    assert registry.alive(drained, until, draining=False).serving is Service.IN_SERVICE
    for service in (Service.DRAINING, Service.CORDONED, Service.QUARANTINED):
        held = registry.set_service(good, service)
        assert registry.alive(held, until, draining=False).serving is service
    assert registry.set_service(drained, Service.IN_SERVICE).serving is Service.IN_SERVICE


def test_liveliness_is_never_shortened_and_what_is_absent_stays(good: Worker) -> None:
    loaded = registry.alive(good, NOON + SECOND, load=Load(running=3))
    assert loaded.alive_until == good.alive_until
    again = registry.alive(loaded, NOON + 2 * ALIVE_FOR)
    assert (again.load.running, again.endpoints) == (3, good.endpoints)
    assert registry.alive(again, NOON, endpoints=()).endpoints == ()


# --- worker types -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("h100-80gb-x8-ppcie-tdx", 8),
        ("h100-nvl-94gb-x1-cc-snp", 1),
        ("h200-141gb-x16-cc-none", 16),
        ("llama3.1:70b", None),
        ("", None),
        ("h100-80gb-x0-cc-tdx", None),
        ("h100-80gb-x08-cc-tdx", None),
        ("h100-80gb-x8-cc", None),
        ("h100-80gb-x8-cc-tdx ", None),
        ("h100-80gb-x8-cc-tdx\n", None),
        ("h100-80gb-x8888-cc-tdx", None),
        ("a-" * 200 + "80gb-x8-cc-tdx", None),
    ],
)
def test_a_type_says_how_many_gpus_there_are_or_nothing(text: str, count: int | None) -> None:
    assert gpu_count(text) == count


# --- all of it --------------------------------------------------------------------------------------------------------
class RegistryMachine(RuleBasedStateMachine):
    """Any transitions in any order, with verdicts that arrive late. A plain model is kept beside the worker."""

    attempts = Bundle("attempts")

    @initialize()
    def start(self) -> None:
        self.now = NOON
        self.worker = newcomer()
        self.begun, self.settled = 0, 0
        self.generation = 1
        self.attested_until: datetime | None = None  # as it must be
        self.alive_until: datetime | None = None
        self.service, self.drains = Service.IN_SERVICE, False

    @rule(seconds=st.integers(0, 400), microseconds=st.integers(0, 2))
    def time_passes(self, seconds: int, microseconds: int) -> None:
        self.now += timedelta(seconds=seconds, microseconds=microseconds)

    @rule(target=attempts)
    def begin(self) -> object:
        self.worker, asked = registry.begin(self.worker)
        self.begun += 1
        return asked, self.begun, self.generation

    @rule(attempt=consumes(attempts), tier=st.sampled_from(Tier), lifetime=st.integers(1, 900), jitter=st.floats(0, 1))
    def conclude(self, attempt: tuple[Asked, int, int], tier: Tier, lifetime: int, jitter: float) -> None:
        asked, number, generation = attempt
        before, told = self.worker, verdict(self.now, tier=tier, lifetime=timedelta(seconds=lifetime))
        self.worker = registry.settle(
            before, asked, told, now=self.now, alive_for=ALIVE_FOR, jitter=jitter, endpoints=(endpoint(),)
        )
        if generation != self.generation or number <= self.settled:
            assert self.worker == before, "a late verdict changed something"
            return
        self.settled = number
        if tier is Tier.AFFIRMING:
            self.attested_until = told.not_after
            self.alive_until = max(self.alive_until or self.now, self.now + ALIVE_FOR)
            assert self.worker.due_at is not None
            assert self.now < self.worker.due_at < told.not_after
        elif tier is Tier.CONTRAINDICATED:
            self.attested_until = None
        else:
            assert self.worker.attested_until == before.attested_until, "no verdict extended trust"
            assert self.worker.alive_until == before.alive_until

    @rule(attempt=consumes(attempts))
    def refuse_evidence(self, attempt: tuple[Asked, int, int]) -> None:
        asked, number, generation = attempt
        self.worker = registry.distrust(self.worker, asked, self.now, ("evidence-malformed",))
        if generation == self.generation and number > self.settled:
            self.settled, self.attested_until = number, None

    @rule(change=st.sampled_from(sorted(CHANGES)), serial=st.integers(0, 10**9))
    def change_identity(self, change: str, serial: int) -> None:
        new = f"{change} {self.generation} {serial}"
        setter = getattr(registry, f"set_{change}")
        self.worker = setter(self.worker, new, self.now)
        self.generation += 1
        self.attested_until = None
        if change in ("key", "address"):
            self.alive_until = None

    @rule(draining=st.booleans(), endpoints=st.sampled_from([None, (), (endpoint(),)]))
    def prove_liveliness(self, draining: bool, endpoints: tuple[()] | None) -> None:
        until = self.now + ALIVE_FOR
        self.worker = registry.alive(self.worker, until, draining=draining, endpoints=endpoints)
        self.alive_until, self.drains = max(until, self.alive_until or until), draining

    @rule(service=st.sampled_from(Service))
    def set_service(self, service: Service) -> None:
        self.worker = registry.set_service(self.worker, service)
        self.service = service
        if service is Service.IN_SERVICE:
            self.drains = False

    @invariant()
    def routable_is_the_conjunction(self) -> None:
        facts = (
            self.attested_until is not None and self.now < self.attested_until,
            self.alive_until is not None and self.now < self.alive_until,
            self.service is Service.IN_SERVICE and not self.drains,
            bool(self.worker.endpoints),
        )
        assert registry.routable(self.worker, self.now) is all(facts)
        assert bool(registry.why(self.worker, self.now)) is not all(facts)
        assert self.worker.generation == self.generation

    @invariant()
    def nothing_is_routed_beyond_its_facts(self) -> None:
        for route in registry.routes(self.worker, self.now):
            assert self.attested_until is not None
            assert self.alive_until is not None
            assert self.now < route.not_after == min(self.attested_until, self.alive_until)
            assert not registry.routes(self.worker, route.not_after)


RegistryMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestRegistryMachine = RegistryMachine.TestCase
