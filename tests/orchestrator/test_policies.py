"""Policies in force: signed for, kept with their history, narrowed and never widened, foreseen before they count."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from structlog.testing import capture_logs

from attest import reasons as why
from attest.policy import parse, shipped
from nodeprobe.emulator import Pki, publish
from orchestrator import policy_changes, reasons
from orchestrator.__main__ import main
from orchestrator.client import Client, ServerRefused
from orchestrator.messages import ChallengeRequest, Purpose
from orchestrator.messages_appraisal import Foreseen, PolicyPreview, PreviewPolicy
from orchestrator.reasons import Problem, Refused
from orchestrator.scheduler import RoutingTable
from orchestrator.verdicts import VerifyingJudge
from orchestrator.wallets import Wallet
from tests.orchestrator.served import served_world
from tests.orchestrator.test_judge import MODEL, TWO_GPUS, Node, use
from tests.orchestrator.world import IP, NOON, OTHER_IP, SECOND, World

MINE = 'name = "mine"\nlifetime_seconds = 600\nnonce = "optional"\nrevocation = "optional"'
SHORT = 'name = "short"\nlifetime_seconds = 60'
LONG = 'name = "long"\nlifetime_seconds = 6000'


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World.good(tmp_path)


def activate(world: World, text: str, **whose: str) -> Any:
    scope = "worker" if "ip_address" in whose else "wallet" if "payment_wallet" in whose else "fleet"
    return world.execute(world.admin, "set_policy", scope=scope, policy=text, **whose)


def refused(call: Any, *args: Any, **kwargs: Any) -> Problem:
    with pytest.raises(Refused) as e:
        call(*args, **kwargs)
    return e.value.problem


def judged_by(world: World, ip: str = IP) -> str:
    """The name of the policy by which a worker is judged now."""
    world.attest(ip)
    return world.judge.policies[-1].name


# --- which one counts -------------------------------------------------------------------------------------------------
def test_until_one_is_activated_that_of_the_settings_counts(world: World) -> None:
    assert (judged_by(world), world.manager.about().policy) == ("lab", "lab")


def test_the_fleets_counts_from_then_on(world: World) -> None:
    answer = activate(world, MINE)

    assert (answer["scope"], answer["name"], answer["sha256"]) == ("fleet", "mine", parse(MINE).sha256)
    assert answer["workers"] == 1
    assert (judged_by(world), world.manager.about().policy) == ("mine", "mine")


def test_a_restart_with_other_settings_does_not_undo_it(world: World) -> None:
    activate(world, MINE)
    world.judge.policy = shipped("strict")

    again = world.another_manager(RoutingTable())
    again.load()

    assert again.about().policy == "mine"


def test_withdrawn_the_settings_count_again(world: World) -> None:
    activate(world, MINE)

    assert activate(world, "")["name"] == "lab"
    assert judged_by(world) == "lab"


def test_a_wallets_narrows_and_a_workers_narrows_that(world: World) -> None:
    world.register(OTHER_IP, payment_wallet=world.stranger.address)
    activate(world, MINE)
    activate(world, SHORT, payment_wallet=world.owner.address)

    assert (judged_by(world), judged_by(world, OTHER_IP)) == ("short", "mine")
    policy = world.judge.policies[-2]
    assert (policy.lifetime_seconds, policy.nonce) == (60, "optional")  # what it does not write is the fleet's

    activate(world, 'name = "own"\nnonce = "required"', ip_address=IP)
    judged_by(world)
    policy = world.judge.policies[-1]
    assert (policy.name, policy.lifetime_seconds, policy.nonce) == ("own", 60, "required")


def test_a_workers_own_goes_with_the_worker(world: World) -> None:
    activate(world, SHORT, ip_address=IP)
    world.execute(world.owner, "remove_worker", ip_address=IP)
    world.register()

    assert judged_by(world) == "lab"
    activate(world, 'name = "shorter"\nlifetime_seconds = 1')  # which the removed worker's would not fit


# --- never wider ------------------------------------------------------------------------------------------------------
def test_what_would_widen_is_refused_by_its_key(world: World) -> None:
    with pytest.raises(Refused) as e:
        activate(world, LONG, ip_address=IP)

    assert e.value.problem is reasons.POLICY_WIDENS
    assert "lifetime_seconds" in e.value.got
    assert judged_by(world) == "lab"


def test_a_workers_own_must_narrow_its_wallets_too(world: World) -> None:
    activate(world, 'name = "a"\nlifetime_seconds = 60', payment_wallet=world.owner.address)

    assert refused(activate, world, 'name = "b"\nlifetime_seconds = 61', ip_address=IP) is reasons.POLICY_WIDENS
    activate(world, 'name = "b"\nlifetime_seconds = 59', ip_address=IP)
    assert refused(activate, world, 'name = "a"\nlifetime_seconds = 58', payment_wallet=world.owner.address)


def test_a_narrower_fleet_waits_for_what_would_be_wider_then(world: World) -> None:
    activate(world, SHORT, payment_wallet=world.owner.address)
    shorter = MINE.replace("600", "59")

    assert refused(activate, world, shorter) is reasons.POLICY_WIDENS
    activate(world, "", payment_wallet=world.owner.address)
    activate(world, shorter)


def test_a_worker_does_not_move_to_a_wallet_that_its_own_would_widen(world: World) -> None:
    activate(world, 'name = "strict-wallet"\nlifetime_seconds = 30', payment_wallet=world.stranger.address)
    activate(world, SHORT, ip_address=IP)
    move = {"ip_address": IP, "payment_wallet": world.stranger.address}

    assert refused(world.execute, world.owner, "set_worker_wallet", **move) is reasons.POLICY_WIDENS
    activate(world, "", ip_address=IP)
    world.execute(world.owner, "set_worker_wallet", **move)


def test_settings_that_what_is_kept_would_widen_do_not_start(world: World) -> None:
    activate(world, SHORT, ip_address=IP)
    world.judge.policy = parse('name = "tight"\nlifetime_seconds = 1')

    assert refused(world.another_manager(RoutingTable()).load) is reasons.POLICY_WIDENS


@pytest.mark.parametrize("text", ["no toml", 'name = "x"\nnonces = 1', "lifetime_seconds = 1"])
def test_what_is_no_policy_is_refused(world: World, text: str) -> None:
    assert refused(activate, world, text) is reasons.POLICY_INVALID
    assert refused(activate, world, text, ip_address=IP) is reasons.POLICY_INVALID


@pytest.mark.parametrize(
    "whose",
    [
        {"scope": "fleet", "ip_address": IP},
        {"scope": "wallet"},
        {"scope": "wallet", "ip_address": IP},
        {"scope": "worker"},
        {"scope": "galaxy"},
    ],
)
def test_whom_it_is_for_is_said_once(world: World, whose: dict[str, str]) -> None:
    assert refused(world.execute, world.admin, "set_policy", policy=SHORT, **whose) is reasons.FIELD_INVALID


# --- what it does to workers ------------------------------------------------------------------------------------------
def test_workers_are_asked_again_and_keep_what_they_have(world: World) -> None:
    before = world.worker()
    activate(world, MINE)

    worker = world.worker()
    assert worker.due_at == world.clock.now
    assert (worker.attested_until, worker.routable) == (before.attested_until, True)
    assert world.live().attest_due
    assert world.urls()


def test_only_those_concerned_are_asked(world: World) -> None:
    world.register(OTHER_IP, payment_wallet=world.stranger.address)
    before = world.worker()

    assert activate(world, SHORT, payment_wallet=world.stranger.address)["workers"] == 1
    assert world.worker() == before


def test_a_verdict_by_the_policy_before_comes_too_late(world: World) -> None:
    world.judge.meanwhile = lambda: activate(world, MINE)

    assert refused(world.attest) is reasons.SUPERSEDED
    assert judged_by(world) == "mine"


# --- what is kept -----------------------------------------------------------------------------------------------------
def test_the_history_says_who_and_when(world: World) -> None:
    admin = world.admin
    activate(world, MINE)
    world.clock.forward(SECOND)
    activate(world, SHORT, ip_address=IP)
    world.clock.forward(SECOND)
    activate(world, "", ip_address=IP)

    found = policy_changes.in_force(world.manager._ctx)

    assert (found.fleet.name, found.fleet.text, found.fleet.since) == ("mine", MINE, NOON)
    assert found.narrowed == ()
    assert [(each.scope, each.subject, each.name) for each in found.history] == [
        ("worker", IP, ""),
        ("worker", IP, "short"),
        ("fleet", "", "mine"),
    ]
    assert {each.actor for each in found.history} == {admin.address}
    assert [event for event in world.events() if event.startswith("policy")] == [
        "policy-activated",
        "policy-activated",
        "policy-withdrawn",
    ]


def test_the_last_evidence_is_kept_with_what_it_answers(world: World) -> None:
    with world.store.reading() as view:
        (worker,) = view.workers()
        judged = view.judged(worker.id)

    assert judged is not None
    assert (judged.evidence_sha256, judged.at) == (worker.evidence_sha256, NOON)
    assert judged.challenge is not None

    world.judge.dislikes(why.RIM_UNAVAILABLE)
    world.attest()  # undecided: the verdict that stands is the one before
    with world.store.reading() as view:
        assert view.judged(worker.id) == judged
    world.execute(world.owner, "remove_worker", ip_address=IP)
    with world.store.reading() as view:
        assert view.judged(worker.id) is None


# --- foreseen, with real devices --------------------------------------------------------------------------------------
LAB = 'name = "lab2"\norigins = ["vendor", "emulated"]\nnonce = "optional"\nrevocation = "optional"'
NEWER = f'{LAB}\n[nvidia]\ndriver_min = "999"'


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    pki = Pki.create(tmp_path_factory.mktemp("emulated") / "pki", now=NOON)
    publish(pki, MODEL)
    return pki


@pytest.fixture
def real(tmp_path: Path, pki: Pki) -> World:
    """A fleet of one worker that is attested by the real judge, and one that is not."""
    world = World(tmp_path)
    use(world, pki, shipped("lab"))
    world.register(worker_type=TWO_GPUS)
    world.register(OTHER_IP)
    Node(pki, world).attest()
    return world


def preview(world: World, text: str, *, skip: int = 0, wallet: Wallet | None = None, **whose: str) -> PolicyPreview:
    scope = "worker" if "ip_address" in whose else "wallet" if "payment_wallet" in whose else "fleet"
    asking = wallet or world.admin
    request = ChallengeRequest(purpose=Purpose.GET_WORKERS, subscriber_public_key=asking.public_hex)
    challenge = world.manager.challenge(request, signer=None).challenge
    signature = asking.challenged_signature(challenge=challenge, domain=world.store.domain)
    message = PreviewPolicy.model_validate({"scope": scope, "policy": text, "skip": skip, **whose})
    return world.manager.preview_policy(message, asking.public_hex, signature, challenge)


def of(found: PolicyPreview, ip: str = IP) -> Foreseen:
    (each,) = (each for each in found.workers if each.ip_address == ip)
    return each


def state(world: World) -> object:
    with world.store.reading() as view:
        return list(view.workers()), view.events(), view.policy_history(), world.urls()


def test_who_would_fall_and_why(real: World) -> None:
    before = state(real)

    found = preview(real, NEWER)

    attested, unknown = of(found), of(found, OTHER_IP)
    assert (attested.ip_address, attested.was, attested.would_be) == (IP, "affirming", "contraindicated")
    assert (attested.falls, {each.code for each in attested.reasons}) == (True, {"driver-too-old"})
    assert (unknown.ip_address, unknown.was, unknown.falls) == (OTHER_IP, "not judged", False)
    assert (found.name, found.skip_next) == ("lab2", None)
    assert state(real) == before


def test_who_would_stay(real: World) -> None:
    attested = of(preview(real, LAB))

    assert (attested.was, attested.would_be, attested.falls, attested.reasons) == ("affirming", "affirming", False, ())


def test_verified_as_of_the_moment_of_the_verdict(real: World) -> None:
    real.clock.forward(timedelta(days=30 * 365))  # no certificate lasts so long

    attested = of(preview(real, LAB))

    assert (attested.as_of, attested.would_be, attested.falls) == (NOON, "affirming", False)


def test_as_of_now_where_the_documents_of_then_are_gone(real: World, pki: Pki, tmp_path: Path) -> None:
    judge = real.manager._ctx.judge
    assert isinstance(judge, VerifyingJudge)
    broker, asked = judge.broker, list[datetime]()

    class Forgetful:
        """Has no documents for a verification as of the verdict."""

        def at(self, now: datetime) -> Any:
            asked.append(now)
            return (lambda need: None) if now == NOON else broker.at(now)

        def renew(self, needs: object) -> bool:
            return False

    object.__setattr__(judge, "broker", Forgetful())
    real.clock.forward(SECOND)

    attested = of(preview(real, LAB))

    assert (attested.as_of, attested.would_be) == (NOON + SECOND, "affirming")
    assert asked == [NOON, NOON + SECOND]


def test_a_narrower_one_is_foreseen_for_its_own(real: World) -> None:
    narrower = 'name = "own"\n[nvidia]\ndriver_min = "999"'

    assert [each.falls for each in preview(real, narrower, ip_address=IP).workers] == [True]
    assert preview(real, narrower, payment_wallet=real.stranger.address).workers == ()
    assert refused(preview, real, LONG, ip_address=IP) is reasons.POLICY_WIDENS


def test_what_narrows_it_counts_in_what_is_foreseen(real: World) -> None:
    activate(real, 'name = "own"\n[nvidia]\ndriver_min = "998"', ip_address=IP)

    assert of(preview(real, LAB)).falls


def test_a_fleet_comes_in_pages(real: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy_changes, "PREVIEWED_MAX", 1)

    first, second = preview(real, LAB), preview(real, LAB, skip=1)

    assert {each.ip_address for each in (*first.workers, *second.workers)} == {IP, OTHER_IP}
    assert (len(first.workers), len(second.workers)) == (1, 1)
    assert (first.skip_next, second.skip_next) == (1, None)


def test_only_the_admin_foresees_and_only_challenged(real: World) -> None:
    subscriber = Wallet.generate()
    for wallet, name in ((subscriber, "a router"), (real.admin, "the admin too")):
        real.execute(real.admin, "add_subscriber", public_key=wallet.public_hex, name=name)

    assert refused(preview, real, LAB, wallet=subscriber) is reasons.NOT_ADMIN
    assert refused(preview, real, LAB, wallet=real.stranger) is reasons.NOT_SUBSCRIBER
    message, key = PreviewPolicy(scope="fleet", policy=LAB), real.admin.public_hex
    replayable = real.admin.get_workers_signature()
    assert refused(real.manager.preview_policy, message, key, replayable, None) is reasons.SIGNATURE_MISSING


# --- the command ------------------------------------------------------------------------------------------------------
Run = Callable[..., Result]


@pytest.fixture
def run(real: World, tmp_path: Path) -> Iterator[Run]:
    real.admin.save(tmp_path / "admin.key")
    real.clock.now = datetime.now(UTC)  # commands sign with the clock of this machine
    with capture_logs(), served_world(real) as url:
        environment = {"ORCHESTRATOR_STATE": str(tmp_path), "ORCHESTRATOR_SERVER": url}
        yield lambda *arguments: CliRunner().invoke(main, ["policy", *map(str, arguments)], env=environment)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "policy.toml"
    path.write_text(NEWER)
    return path


def test_from_preview_to_activate(run: Run, file: Path, real: World) -> None:
    foreseen = run("preview", file, "--json")
    told = {each["ip_address"]: each for each in json.loads(foreseen.stdout)["workers"]}
    assert (foreseen.exit_code, told[IP]["would_be"]) == (0, "contraindicated")  # it is not attested any more

    activated = run("activate", file, "--json")
    assert (activated.exit_code, json.loads(activated.stdout)["set_policy"]["name"]) == (0, "lab2")
    assert real.manager.about().policy == "lab2"

    shown = json.loads(run("show", "--json").stdout)
    assert (shown["fleet"]["name"], shown["fleet"]["actor"]) == ("lab2", real.admin.address)
    assert run("withdraw").exit_code == 0
    assert run("show", "--history").stdout.splitlines()[1].split("\t")[:2] == ["the fleet", "lab"]


def test_preview_ends_with_1_where_a_worker_falls(run: Run, file: Path, real: World, pki: Pki) -> None:
    Node(pki, real).attest()

    ended = run("preview", file)

    assert ended.exit_code == 1
    assert "driver-too-old" in ended.stdout


def test_a_shipped_policy_goes_by_its_name(run: Run, real: World) -> None:
    assert run("activate", "strict").exit_code == 0
    assert real.manager.about().policy == "strict"


def test_a_file_is_checked_before_anything_is_sent(run: Run, file: Path, real: World) -> None:
    file.write_text('name = "x"\nnonces = 1')

    for command in ("check", "preview", "activate"):
        ended = run(command, file)
        assert (ended.exit_code, "nonces" in ended.stderr) == (2, True)
    assert run("check", "production").exit_code == 0
    assert run("check", file.with_name("nothing")).exit_code == 2


def test_a_stranger_sets_no_policy(real: World, tmp_path: Path) -> None:
    with served_world(real) as url, Client(url, wallet=real.stranger, clock=real.clock) as client:
        message = PreviewPolicy(scope="fleet", policy=LAB)
        with pytest.raises(ServerRefused) as of_preview:
            client.preview_policy(message)
        with pytest.raises(ServerRefused) as of_show:
            client.policies()
    assert {of_preview.value.code, of_show.value.code} == {"not-subscriber"}
