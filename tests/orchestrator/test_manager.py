"""The manager's other messages: challenges, liveliness, queries, sweeps. And the hand-out ends as the database does."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestrator import challenges, reasons
from orchestrator.context import Rules
from orchestrator.messages import ChallengeRequest, Load, Purpose
from orchestrator.reasons import Problem, Refused
from orchestrator.scheduler import Route, RoutingTable
from orchestrator.wallets import Wallet
from orchestrator.worker_keys import WorkerKey
from tests.orchestrator.world import IP, LIFETIME, MICROSECOND, NOON, OTHER_IP, SECOND, TLS, World, endpoint

TTL = timedelta(seconds=90)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World.good(tmp_path)


def refused(call: Any, *args: Any, **kwargs: Any) -> Problem:
    with pytest.raises(Refused) as e:
        call(*args, **kwargs)
    return e.value.problem


def test_about(world: World) -> None:
    about = world.manager.about()
    assert (about.domain, about.admin_address) == (world.store.domain, world.admin.address)
    assert (about.policy, about.emulated_roots) == ("lab", True)
    assert (about.liveliness_seconds, about.epoch_seconds) == (90, 7 * 24 * 3600)
    assert about.epoch_zero == world.rules.epochs.zero


def test_the_operator_may_name_the_domain(tmp_path: Path) -> None:
    world = World(tmp_path, rules=Rules(domain="gpu.example.com"))
    assert world.manager.about().domain == "gpu.example.com"
    assert refused(world.register) is reasons.DOMAIN_MISMATCH


# --- challenges -------------------------------------------------------------------------------------------------------
def ask(world: World, purpose: Purpose, signer: str | None = None, **fields: Any) -> Any:
    return world.manager.challenge(ChallengeRequest(purpose=purpose, **fields), signer=signer)


def test_challenges_are_32_random_bytes_each_its_own(world: World) -> None:
    issued = {world.challenge(Purpose.LIVELINESS).challenge for _ in range(20)}
    assert len(issued) == 20
    assert {len(bytes.fromhex(challenge)) for challenge in issued} == {32}


@pytest.mark.parametrize(
    ("purpose", "fields", "problem"),
    [
        (Purpose.ATTEST, {}, reasons.FIELD_INVALID),
        (Purpose.ATTEST, {"ip_address": IP}, reasons.SIGNATURE_MISSING),
        (Purpose.ATTEST, {"ip_address": IP, "signer": "02" * 33}, reasons.WORKER_KEY_MISMATCH),
        (Purpose.LIVELINESS, {"ip_address": IP}, reasons.SIGNATURE_MISSING),
        (Purpose.LIVELINESS, {"ip_address": OTHER_IP}, reasons.WORKER_UNKNOWN),
        (Purpose.LIVELINESS, {"ip_address": "09.9.9.1"}, reasons.ADDRESS_MALFORMED),
        (Purpose.REGISTER, {"ip_address": OTHER_IP}, reasons.FIELD_INVALID),
        (Purpose.REGISTER, {"ip_address": OTHER_IP, "payment_wallet": "secret1xyz"}, reasons.WALLET_MALFORMED),
        (Purpose.GET_WORKERS, {}, reasons.FIELD_INVALID),
    ],
)
def test_a_challenge_is_not_issued_to_anyone_for_anything(
    world: World, purpose: Purpose, fields: dict[str, Any], problem: Problem
) -> None:
    assert refused(ask, world, purpose, **fields) is problem


@pytest.mark.parametrize(("ip", "problem"), [(IP, reasons.ADDRESS_TAKEN), ("10.0.0.1", reasons.ADDRESS_NOT_ALLOWED)])
def test_a_newcomer_learns_early_that_its_address_will_not_do(world: World, ip: str, problem: Problem) -> None:
    wallet = world.owner.address
    assert refused(ask, world, Purpose.REGISTER, ip_address=ip, payment_wallet=wallet) is problem


def test_open_challenges_are_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(challenges, "OPEN_CHALLENGES_MAX", 2)
    key = Wallet.generate().public_hex
    ask(world, Purpose.GET_WORKERS, subscriber_public_key=key)
    ask(world, Purpose.REGISTER, ip_address=OTHER_IP, payment_wallet=world.owner.address)
    assert refused(ask, world, Purpose.GET_WORKERS, subscriber_public_key=key) is reasons.TOO_MANY
    world.challenge(Purpose.ATTEST)
    world.clock.forward(timedelta(seconds=120))
    ask(world, Purpose.GET_WORKERS, subscriber_public_key=key)


# --- liveliness -------------------------------------------------------------------------------------------------------
def test_a_proof_of_liveliness_holds_for_its_time_and_brings_the_next_challenge(world: World) -> None:
    world.clock.forward(60 * SECOND)
    first = world.live(load=Load(running=2))
    assert (first.alive_until, first.routable, first.why) == (NOON + 60 * SECOND + TTL, True, ())
    assert first.challenge.purpose is Purpose.LIVELINESS
    world.clock.forward(60 * SECOND)
    assert world.live(challenge=first.challenge.challenge).alive_until == NOON + 120 * SECOND + TTL
    world.clock.forward(TTL - MICROSECOND)
    assert world.urls() == [endpoint().url]
    world.clock.forward(MICROSECOND)
    assert world.urls() == []
    assert world.worker().why == ("liveliness-expired",)
    assert world.live().routable
    assert world.urls() == [endpoint().url]


def test_an_answer_counts_once(world: World) -> None:
    challenge = world.challenge(Purpose.LIVELINESS).challenge
    world.live(challenge=challenge)
    assert refused(world.live, challenge=challenge) is reasons.CHALLENGE_UNKNOWN


def test_liveliness_alone_makes_nothing_routable(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.register()
    answer = world.live(endpoints=(endpoint(),))
    assert (answer.routable, answer.why, answer.attest_due) == (False, ("not-attested",), True)
    assert world.urls() == []


def test_a_worker_is_told_when_to_attest(world: World) -> None:
    due = world.worker().due_at
    assert due == NOON + LIFETIME * 0.45
    world.clock.now = due - MICROSECOND
    assert not world.live().attest_due
    world.clock.now = due
    assert world.live().attest_due


def test_a_worker_drains_itself_and_comes_back(world: World) -> None:
    assert world.live(draining=True).why == ("draining",)
    assert world.urls() == []
    assert world.live().why == ()
    assert world.urls() == [endpoint().url]
    assert world.events()[-2:] == ["drains-itself", "drains-no-more"]


def test_the_admin_puts_a_worker_back_that_drained_itself(world: World) -> None:
    world.live(draining=True)
    assert world.execute(world.admin, "uncordon", ip_address=IP, reason="r").why == ()


def test_endpoints_ride_along(world: World) -> None:
    world.live(endpoints=(endpoint(), endpoint(model="another"), endpoint()))
    assert world.urls("another") == [endpoint().url]
    world.live()
    assert len(world.urls(None)) == 2
    world.live(endpoints=())
    assert world.urls(None) == []
    assert world.worker().why == ("no-endpoints",)


@pytest.mark.parametrize("host", [OTHER_IP, "gpu.example.com"])
def test_an_endpoint_elsewhere_is_refused_and_nothing_changes(world: World, host: str) -> None:
    challenge = world.challenge(Purpose.LIVELINESS).challenge
    assert refused(world.live, challenge=challenge, endpoints=(endpoint(host),)) is reasons.ENDPOINT_NOT_ALLOWED
    world.live(challenge=challenge)
    assert world.urls() == [endpoint().url]


def test_a_name_needs_the_tls_key_that_was_attested(world: World) -> None:
    named = endpoint("gpu.example.com")
    world.attest(tls_spki_sha256=TLS)
    world.live(endpoints=(named,))
    assert world.urls() == [named.url]


def test_only_the_worker_proves_that_it_lives(world: World) -> None:
    challenge = world.challenge(Purpose.LIVELINESS).challenge
    assert refused(world.live, challenge=challenge, key=WorkerKey.generate()) is reasons.WORKER_KEY_MISMATCH
    world.execute(world.owner, "remove_worker", ip_address=IP)
    assert refused(world.live, challenge=challenge) is reasons.WORKER_UNKNOWN


# --- queries ----------------------------------------------------------------------------------------------------------
def test_anyone_sees_the_status_of_a_worker_without_wallet_and_endpoints(world: World) -> None:
    worker = world.worker()
    assert worker.routable
    assert (worker.payment_wallet, worker.endpoints, worker.attestation_report) == ("", (), "")
    assert world.manager.worker(f"::ffff:{IP}") == worker
    assert refused(world.manager.worker, OTHER_IP) is reasons.WORKER_UNKNOWN
    assert refused(world.manager.worker, "nonsense") is reasons.ADDRESS_MALFORMED


def get_workers(world: World, wallet: Wallet, *, challenged: bool = False, challenge: str | None = None) -> Any:
    if not challenged:
        return world.manager.get_workers(wallet.public_hex, wallet.get_workers_signature(), None)
    if challenge is None:
        challenge = ask(world, Purpose.GET_WORKERS, subscriber_public_key=wallet.public_hex).challenge
    signature = wallet.challenged_signature(challenge=challenge, domain=world.store.domain)
    return world.manager.get_workers(wallet.public_hex, signature, challenge)


@pytest.mark.parametrize("challenged", [False, True])
def test_subscribers_get_all_workers_whole_and_others_none(world: World, challenged: bool) -> None:
    world.clock.forward(SECOND)
    world.register(OTHER_IP)
    router = Wallet.generate()
    assert refused(get_workers, world, router, challenged=challenged) is reasons.NOT_SUBSCRIBER
    world.execute(world.admin, "add_subscriber", public_key=router.public_hex, name="a router")
    workers = get_workers(world, router, challenged=challenged).workers
    assert [(w.ip_address, w.payment_wallet, w.routable) for w in workers] == [
        (IP, world.owner.address, True),
        (OTHER_IP, world.owner.address, False),
    ]
    assert workers[0].endpoints == (endpoint(),)
    world.execute(world.admin, "remove_subscriber", public_key=router.public_hex)
    assert refused(get_workers, world, router, challenged=challenged) is reasons.NOT_SUBSCRIBER


def test_the_admin_gets_them_by_answering_a_challenge_only(world: World) -> None:
    """The deployed form can be replayed for ever."""
    assert refused(get_workers, world, world.admin) is reasons.NOT_SUBSCRIBER
    assert len(get_workers(world, world.admin, challenged=True).workers) == 1


def test_a_challenge_to_get_workers_is_its_own_and_answered_once(world: World) -> None:
    challenge = ask(world, Purpose.GET_WORKERS, subscriber_public_key=world.admin.public_hex).challenge
    other = ask(world, Purpose.GET_WORKERS, subscriber_public_key=world.owner.public_hex).challenge
    assert refused(get_workers, world, world.admin, challenged=True, challenge=other) is reasons.CHALLENGE_MISMATCH
    get_workers(world, world.admin, challenged=True, challenge=challenge)
    assert refused(get_workers, world, world.admin, challenged=True, challenge=challenge) is reasons.CHALLENGE_UNKNOWN


def test_somebody_elses_signature_is_none(world: World) -> None:
    router = Wallet.generate()
    world.execute(world.admin, "add_subscriber", public_key=router.public_hex, name="a router")
    forged = world.stranger.sign(router.public_key).hex()
    assert refused(world.manager.get_workers, router.public_hex, forged, None) is reasons.SIGNATURE_INVALID
    assert refused(world.manager.get_workers, router.public_hex, "", None) is reasons.SIGNATURE_MISSING
    # the deployed form answers no challenge
    challenge = ask(world, Purpose.GET_WORKERS, subscriber_public_key=router.public_hex).challenge
    deployed = router.get_workers_signature()
    assert refused(world.manager.get_workers, router.public_hex, deployed, challenge) is reasons.SIGNATURE_INVALID


def payouts(world: World, epoch: int) -> Any:
    admin = world.admin
    challenge = ask(world, Purpose.GET_WORKERS, subscriber_public_key=admin.public_hex).challenge
    signature = admin.challenged_signature(challenge=challenge, domain=world.store.domain)
    return world.manager.payouts(epoch, admin.public_hex, signature, challenge)


def test_payouts_of_the_epoch_that_runs(world: World) -> None:
    world.register(OTHER_IP, payment_wallet=world.stranger.address)
    world.clock.forward(60 * SECOND)
    world.work(NOON, NOON + 60 * SECOND)
    epoch = world.rules.epochs.at(NOON)
    answer = payouts(world, epoch)
    assert not answer.complete
    assert {p.payment_wallet: (p.workers, p.work, p.share, p.uptime_seconds) for p in answer.payouts} == {
        world.owner.address: (1, 200, "1", 60),
        world.stranger.address: (1, 0, "0", 0),
    }
    assert payouts(world, epoch - 1).payouts == ()
    assert refused(payouts, world, epoch + 1) is reasons.FIELD_INVALID
    signature = world.stranger.get_workers_signature()
    assert refused(world.manager.payouts, epoch, world.stranger.public_hex, signature, None) is reasons.NOT_SUBSCRIBER


def test_uptime_ends_with_liveliness_and_with_trust(world: World) -> None:
    epoch = world.rules.epochs.at(NOON)
    world.clock.forward(timedelta(hours=1))
    assert payouts(world, epoch).payouts[0].uptime_seconds == 90
    world.live()
    world.clock.forward(timedelta(hours=1))
    assert payouts(world, epoch).payouts[0].uptime_seconds == 90  # alive, and attested no more
    world.attest()
    world.clock.forward(30 * SECOND)
    world.judge.dislikes()
    world.attest()
    world.clock.forward(timedelta(hours=1))
    assert payouts(world, epoch).payouts[0].uptime_seconds == 120


# --- ticks ------------------------------------------------------------------------------------------------------------
def test_what_time_ended_is_recorded_once_with_its_reason(world: World) -> None:
    world.manager.sweep()
    world.clock.now = NOON + TTL - MICROSECOND
    world.manager.sweep()
    assert world.events() == ["registered", "attested"]
    world.clock.now = NOON + TTL
    world.manager.sweep()
    world.manager.sweep()
    assert world.reasons_of("liveliness-expired") == [["liveliness-expired"]]
    world.clock.now = NOON + LIFETIME
    world.manager.sweep()
    world.another_manager(RoutingTable()).sweep()
    assert world.reasons_of("attestation-expired") == [["attestation-expired", "liveliness-expired"]]
    assert len(world.events()) == 4


def test_each_end_is_recorded_anew(world: World) -> None:
    for _ in range(2):
        world.clock.forward(TTL)
        world.manager.sweep()
        world.live()
    assert world.events() == ["registered", "attested", *["liveliness-expired", "alive"] * 2]


def test_spent_challenges_are_forgotten(world: World) -> None:
    challenge = world.challenge(Purpose.ATTEST).challenge
    world.clock.forward(timedelta(seconds=120) - MICROSECOND)
    world.manager.forget()
    with world.store.reading() as view:
        assert view.find_challenge(challenge) is not None
    world.clock.forward(MICROSECOND)
    world.manager.forget()
    with world.store.reading() as view:
        assert view.find_challenge(challenge) is None


# --- the hand-out follows the database --------------------------------------------------------------------------------
class RecordingTable(RoutingTable):
    """Remembers what it was told, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[str, int]] = []

    def publish(self, worker_ip: str, routes: tuple[Route, ...]) -> None:
        self.told.append((worker_ip, len(routes)))
        super().publish(worker_ip, routes)


def test_nothing_is_published_of_what_was_not_committed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    table = RecordingTable()
    world.manager = world.another_manager(table)
    world.manager.load()
    table.told.clear()
    monkeypatch.setattr("orchestrator.store.Tx.add_event", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        world.execute(world.admin, "cordon", ip_address=IP, reason="r")
    assert table.told == []
    assert world.worker().routable


def test_of_changes_that_race_the_last_commit_is_what_is_handed_out(world: World) -> None:
    """Each of many threads cordons or uncordons; whoever commits last decides, in the table as in the database."""
    for _ in range(3):
        ready, turn = threading.Barrier(6), itertools.count()

        def race(number: int, ready: threading.Barrier = ready) -> None:
            command = "cordon" if number % 2 else "uncordon"
            signed = world.sign(world.admin, command, ip_address=IP, reason="r")
            ready.wait()
            world.manager.execute(signed)

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(race, itertools.islice(turn, 6)))
        assert bool(world.urls()) is world.worker().routable


def test_a_slow_publication_does_not_undo_a_withdrawal(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A liveliness is committed; before it is published, the worker is removed, and that is published."""
    publish = type(world.manager._ctx).publish
    once = threading.Event()

    def slow(ctx: Any, *ip_addresses: str) -> None:
        if not once.is_set():
            once.set()
            world.execute(world.owner, "remove_worker", ip_address=IP)
        publish(ctx, *ip_addresses)

    monkeypatch.setattr(type(world.manager._ctx), "publish", slow)
    world.live()
    assert world.urls() == []
