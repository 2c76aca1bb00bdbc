"""Attestation: what it takes to be believed, and how a verdict is fenced by what overtakes it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from attest import reasons as why_not
from attest.binding import PROFILE, Statement, gpu_nonce
from orchestrator import reasons
from orchestrator.messages import ChallengeRequest, Purpose
from orchestrator.reasons import Problem, Refused
from orchestrator.registry import RETRY_MAX
from orchestrator.worker_keys import WorkerKey
from tests.orchestrator.world import EVIDENCE, IP, LIFETIME, MICROSECOND, MODEL, NOON, OTHER_IP, TLS, World, endpoint

MINUTE = timedelta(minutes=1)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World.good(tmp_path)


@pytest.fixture
def fleet(world: World) -> World:
    """Two workers, each with its own device."""
    world.register(OTHER_IP)
    world.judge.devices = ("gpu-2",)
    world.attest(OTHER_IP)
    world.judge.devices = ("gpu-1",)
    return world


def refused(call: Any, *args: Any, **kwargs: Any) -> Problem:
    with pytest.raises(Refused) as e:
        call(*args, **kwargs)
    return e.value.problem


# --- being believed ---------------------------------------------------------------------------------------------------
def test_a_worker_that_the_admin_registered_attests_and_is_handed_out(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.register()
    challenge = world.challenge(Purpose.ATTEST)
    assert (challenge.ip_address, challenge.payment_wallet) == (IP, world.owner.address)
    assert challenge.expires_at == NOON + timedelta(seconds=120)
    answer = world.attest(challenge=challenge.challenge, tls_spki_sha256=TLS)
    assert answer.verdict.tier == "affirming"
    assert answer.verdict.binding == f"{PROFILE} (nonce)"
    assert answer.worker.routable
    assert (answer.worker.attested_until, answer.worker.tls_spki_sha256) == (NOON + LIFETIME, TLS)
    assert answer.worker.attestation_report == answer.verdict.evidence_sha256
    statement = Statement(challenge.challenge, IP, world.owner.address, world.key.public_hex, TLS)
    assert world.judge.nonces == [gpu_nonce(statement)]
    assert world.urls() == [endpoint().url]


def test_nothing_is_handed_out_from_the_instant_on_though_no_tick_ever_runs(world: World) -> None:
    for _ in range(11):
        world.clock.forward(MINUTE - MICROSECOND)
        if world.clock.now < NOON + LIFETIME - MINUTE:
            world.live()
    world.clock.now = NOON + LIFETIME - MICROSECOND
    world.live()
    assert world.urls() == [endpoint().url]
    world.clock.forward(MICROSECOND)
    assert world.urls() == []
    assert world.worker().why == ("attestation-expired",)
    assert "attestation-expired" not in world.events()


def test_a_contraindication_withdraws_at_once_and_is_told(world: World) -> None:
    world.judge.dislikes(why_not.MEASUREMENTS_MISMATCH)
    answer = world.attest()
    assert (answer.verdict.tier, answer.worker.routable) == ("contraindicated", False)
    assert answer.verdict.reasons[0].fix == why_not.MEASUREMENTS_MISMATCH.remedy
    assert world.urls() == []
    assert world.worker().why == ("contraindicated:measurements-mismatch",)
    assert world.reasons_of("contraindicated") == [["measurements-mismatch"]]
    world.judge.failed = ()
    world.attest()
    assert world.urls() == [endpoint().url]


def test_what_could_not_be_decided_is_told_recorded_and_extends_nothing(world: World) -> None:
    world.clock.forward(MINUTE)
    world.judge.dislikes(why_not.RIM_UNAVAILABLE)
    answer = world.attest()
    assert answer.verdict.tier == "none"
    assert answer.worker.attested_until == NOON + LIFETIME
    assert answer.worker.alive_until == NOON + timedelta(seconds=90)
    assert answer.worker.verdict is not None
    assert answer.worker.verdict.tier == "affirming"
    assert world.urls() == [endpoint().url]
    assert tiers(world) == ["affirming", "none"]
    assert world.reasons_of("undecided") == [["rim-unavailable"]]


def tiers(world: World, ip: str = IP) -> list[str]:
    with world.store.reading() as view:
        worker = view.worker_at(ip)
        assert worker is not None
        return [verdict.tier for verdict in view.verdicts(worker.id)]


def test_evidence_that_is_none_ends_trust_and_names_the_reason(world: World) -> None:
    challenge = world.challenge(Purpose.ATTEST).challenge
    with pytest.raises(Refused) as e:
        world.attest(challenge=challenge, evidence="no evidence")
    assert (e.value.problem.code, e.value.problem.status) == ("evidence-refused", 422)
    assert world.urls() == []
    assert world.worker().why == ("contraindicated:evidence-malformed",)
    assert world.worker().due_at == NOON + RETRY_MAX
    assert world.reasons_of("evidence-refused") == [["evidence-malformed"]]
    assert refused(world.attest, challenge=challenge) is reasons.CHALLENGE_UNKNOWN  # it was an answer


@pytest.mark.parametrize(
    ("worker_type", "devices", "tier"),
    [
        ("h100-80gb-x2-ppcie-none", ("a", "b"), "affirming"),
        ("h100-80gb-x2-ppcie-none", ("a",), "contraindicated"),
        ("h100-80gb-x2-ppcie-none", ("a", "b", "c"), "contraindicated"),
        (MODEL, ("a", "b", "c"), "affirming"),
    ],
)
def test_a_worker_proves_as_many_gpus_as_its_type_says(
    tmp_path: Path, worker_type: str, devices: tuple[str, ...], tier: str
) -> None:
    world = World(tmp_path)
    world.register(worker_type=worker_type)
    world.judge.devices = devices
    answer = world.attest()
    assert answer.verdict.tier == tier
    assert [r.code for r in answer.verdict.reasons] == (["device-count"] if tier == "contraindicated" else [])


def test_a_count_that_could_not_be_decided_is_not_held_against_the_node(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.register(worker_type="h100-80gb-x2-ppcie-tdx")
    world.judge.dislikes(why_not.RIM_UNAVAILABLE)
    assert world.attest().verdict.tier == "none"


# --- challenges -------------------------------------------------------------------------------------------------------
def test_evidence_is_asked_for_once_and_answered_once(world: World) -> None:
    challenge = world.challenge(Purpose.ATTEST).challenge
    world.attest(challenge=challenge)
    assert refused(world.attest, challenge=challenge) is reasons.CHALLENGE_UNKNOWN


@pytest.mark.parametrize("late", [timedelta(seconds=120) - MICROSECOND, timedelta(seconds=120)])
def test_a_challenge_expires_in_the_very_moment(world: World, late: timedelta) -> None:
    challenge = world.challenge(Purpose.ATTEST).challenge
    world.clock.forward(late)
    if late < timedelta(seconds=120):
        world.attest(challenge=challenge)
    else:
        assert refused(world.attest, challenge=challenge) is reasons.CHALLENGE_EXPIRED


def test_a_challenge_for_something_else_is_not_spent(fleet: World) -> None:
    yours = fleet.challenge(Purpose.ATTEST, OTHER_IP).challenge
    liveliness = fleet.challenge(Purpose.LIVELINESS).challenge
    assert refused(fleet.attest, challenge=yours) is reasons.CHALLENGE_MISMATCH
    assert refused(fleet.attest, challenge=liveliness) is reasons.CHALLENGE_MISMATCH
    assert refused(fleet.live, challenge=yours) is reasons.CHALLENGE_MISMATCH
    fleet.live(challenge=liveliness)
    fleet.judge.devices = ("gpu-2",)
    fleet.attest(OTHER_IP, challenge=yours)


def test_a_challenge_does_not_outlive_its_worker(world: World) -> None:
    challenge = world.challenge(Purpose.ATTEST).challenge
    world.execute(world.owner, "remove_worker", ip_address=IP)
    world.register()
    assert refused(world.attest, challenge=challenge) is reasons.CHALLENGE_MISMATCH


def test_of_many_answers_with_one_challenge_one_is_judged(world: World) -> None:
    challenge = world.challenge(Purpose.ATTEST).challenge
    judged, ready = len(world.judge.nonces), threading.Barrier(6)

    def answer(_: int) -> str:
        ready.wait()
        try:
            return world.attest(challenge=challenge).verdict.tier
        except Refused as e:
            return e.problem.code

    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(answer, range(6))) == ["affirming", *["challenge-unknown"] * 5]
    assert len(world.judge.nonces) == judged + 1


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        ({"key": WorkerKey.generate()}, reasons.WORKER_KEY_MISMATCH),
        ({"endpoints": (endpoint(OTHER_IP),)}, reasons.ENDPOINT_NOT_ALLOWED),
        ({"endpoints": (endpoint("gpu.example.com"),)}, reasons.ENDPOINT_NOT_ALLOWED),
        ({"challenge": "00" * 32}, reasons.CHALLENGE_UNKNOWN),
    ],
)
def test_an_answer_with_one_thing_wrong_spends_and_changes_nothing(
    world: World, spoil: dict[str, Any], problem: Problem
) -> None:
    challenge = world.challenge(Purpose.ATTEST).challenge
    before = whole(world)
    assert refused(world.attest, **{"challenge": challenge, **spoil}) is problem
    assert whole(world) == before
    world.attest(challenge=challenge)


def whole(world: World) -> object:
    with world.store.reading() as view:
        return list(view.workers()), view.events()


def test_nobody_attests_for_a_worker_without_a_key_or_without_a_worker(tmp_path: Path) -> None:
    world = World(tmp_path)
    assert refused(world.attest, challenge="00" * 32) is reasons.WORKER_UNKNOWN
    world.register(worker_key=None)
    assert refused(world.attest, challenge="00" * 32) is reasons.WORKER_KEY_UNSET
    world.execute(world.owner, "set_worker_key", ip_address=IP, worker_key=world.key.public_hex)
    world.attest()


def test_a_name_is_served_while_its_tls_key_is_bound(world: World) -> None:
    named = endpoint("gpu.example.com")
    world.attest(endpoints=(named, endpoint()), tls_spki_sha256=TLS)
    assert sorted(world.urls()) == sorted([named.url, endpoint().url])
    world.attest(endpoints=())  # the same endpoints, and no TLS key any more
    assert world.urls() == [endpoint().url]


# --- one device, one worker -------------------------------------------------------------------------------------------
def test_a_device_of_another_attested_worker_is_not_believed(fleet: World) -> None:
    fleet.judge.devices = ("gpu-2",)
    answer = fleet.attest()
    assert answer.verdict.tier == "contraindicated"
    assert [(r.code, r.device) for r in answer.verdict.reasons] == [("device-taken", "gpu-2")]
    assert fleet.urls() == [endpoint(OTHER_IP).url]


def test_a_device_taken_at_registration_is_not_believed_either(world: World) -> None:
    request = ChallengeRequest(purpose=Purpose.REGISTER, ip_address=OTHER_IP, payment_wallet=world.owner.address)
    challenge = world.manager.challenge(request, signer=None).challenge
    answer = world.register(OTHER_IP, attestation_report=EVIDENCE, challenge=challenge)
    assert answer.why == ("contraindicated:device-taken", "not-alive", "no-endpoints")


@pytest.mark.parametrize("ends", ["it expires", "it is contraindicated", "it changes", "it is removed"])
def test_a_device_moves_once_the_trust_of_its_holder_ended(fleet: World, ends: str) -> None:
    if ends == "it expires":
        fleet.clock.forward(LIFETIME)
    elif ends == "it is contraindicated":
        fleet.judge.dislikes()
        fleet.attest(OTHER_IP)
        fleet.judge.failed = ()
    elif ends == "it changes":
        fleet.execute(fleet.owner, "set_worker_type", ip_address=OTHER_IP, worker_type="another")
    else:
        fleet.execute(fleet.owner, "remove_worker", ip_address=OTHER_IP)
    fleet.judge.devices = ("gpu-2",)
    assert fleet.attest().verdict.tier == "affirming"
    if ends != "it is removed":
        assert [r.code for r in fleet.attest(OTHER_IP).verdict.reasons] == ["device-taken"]


def test_a_device_is_held_to_the_last_moment(fleet: World) -> None:
    fleet.clock.forward(LIFETIME - MICROSECOND)
    fleet.judge.devices = ("gpu-2",)
    assert fleet.attest().verdict.tier == "contraindicated"


def test_a_device_that_is_not_proved_any_more_is_free(fleet: World) -> None:
    fleet.judge.devices = ("gpu-3",)
    fleet.attest(OTHER_IP)
    fleet.judge.devices = ("gpu-2",)
    assert fleet.attest().verdict.tier == "affirming"


# --- late verdicts ----------------------------------------------------------------------------------------------------
MEANWHILE = {
    "wallet": ("set_worker_wallet", reasons.SUPERSEDED),
    "type": ("set_worker_type", reasons.SUPERSEDED),
    "key": ("set_worker_key", reasons.SUPERSEDED),
    "address": ("set_worker_address", reasons.SUPERSEDED),
    "removed": ("remove_worker", reasons.WORKER_UNKNOWN),
}


def change(world: World, what: str) -> None:
    content: dict[str, Any] = {
        "wallet": {"ip_address": IP, "payment_wallet": world.stranger.address},
        "type": {"ip_address": IP, "worker_type": "another"},
        "key": {"ip_address": IP, "worker_key": WorkerKey.generate().public_hex},
        "address": {"old_ip_address": IP, "new_ip_address": OTHER_IP},
        "removed": {"ip_address": IP},
    }[what]
    world.execute(world.owner, MEANWHILE[what][0], **content)


@pytest.mark.parametrize("what", MEANWHILE)
def test_a_verdict_that_something_overtook_is_recorded_and_changes_nothing(world: World, what: str) -> None:
    world.judge.meanwhile = lambda: change(world, what)
    assert refused(world.attest) is MEANWHILE[what][1]
    assert world.urls() == []
    assert world.events()[-1] == "verdict-superseded"
    if what != "removed":
        assert world.worker(OTHER_IP if what == "address" else IP).why[0] == "not-attested"


def test_evidence_that_is_none_and_late_changes_nothing(world: World) -> None:
    """It is refused before it is judged, so only another thread can come between."""
    challenge = world.challenge(Purpose.ATTEST).challenge
    change(world, "type")
    assert refused(world.attest, challenge=challenge, evidence="none") is reasons.SUPERSEDED
    assert world.worker().why[0] == "not-attested"


def test_a_challenge_from_before_a_change_is_superseded(world: World) -> None:
    challenge = world.challenge(Purpose.ATTEST).challenge
    change(world, "wallet")
    assert refused(world.attest, challenge=challenge) is reasons.SUPERSEDED


def test_an_older_attempt_does_not_bring_back_what_a_younger_one_lost(world: World) -> None:
    def meanwhile() -> None:
        world.judge.dislikes()
        world.attest()

    world.judge.meanwhile = meanwhile
    assert refused(world.attest) is reasons.SUPERSEDED
    assert world.urls() == []
    assert world.worker().why == ("contraindicated:measurements-mismatch",)
    assert tiers(world) == ["affirming", "contraindicated", "affirming"]


def test_a_cordon_while_evidence_is_judged_holds(world: World) -> None:
    world.judge.meanwhile = lambda: world.execute(world.admin, "cordon", ip_address=IP, reason="r")
    assert world.attest().worker.why == ("cordoned",)
    assert world.urls() == []


def test_a_judge_that_fails_leaves_trust_as_it_was(world: World) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    world.judge.meanwhile = fail
    with pytest.raises(ZeroDivisionError):
        world.attest()
    assert world.urls() == [endpoint().url]
    world.clock.forward(MINUTE)
    assert world.attest().worker.attested_until == NOON + MINUTE + LIFETIME
