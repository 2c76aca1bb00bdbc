"""Preflights: judged as in earnest, and nothing is left behind but the spent challenge."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from structlog.testing import capture_logs

from attest import reasons as why
from attest.binding import Statement, gpu_nonce
from attest.evidence import Bundle, Nonce, dumps
from attest.policy import parse, shipped
from nodeprobe import commands_preflight, gathering
from nodeprobe.__main__ import cli
from nodeprobe.emulator import MODELS, EmulatedGpu, Pki, publish
from orchestrator import reasons
from orchestrator.challenges import PREFLIGHT_CHALLENGES_MAX
from orchestrator.context import PREFLIGHTS_MAX
from orchestrator.messages import ChallengeRequest, Purpose
from orchestrator.messages_appraisal import Preflight, Preflighted
from orchestrator.reasons import Problem, Refused
from orchestrator.worker_keys import WorkerKey
from tests.orchestrator.served import served_world
from tests.orchestrator.test_judge import MODEL, TWO_GPUS, Node, use
from tests.orchestrator.world import EVIDENCE, IP, NOON, OTHER_IP, SECOND, TLS, World

KEY = WorkerKey.generate().public_hex


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World.good(tmp_path)


def challenge(world: World, ip: str = OTHER_IP, wallet: str | None = None) -> str:
    request = ChallengeRequest(purpose=Purpose.PREFLIGHT, ip_address=ip, payment_wallet=wallet)
    return world.manager.challenge(request, signer=None).challenge


def ask(world: World, ip: str = OTHER_IP, **changes: Any) -> Preflighted:
    given = {"challenge": changes.get("challenge") or challenge(world, ip), "evidence": EVIDENCE, **changes}
    return world.manager.preflight(Preflight(ip_address=ip, worker_key=KEY, **given))


def refused(call: Any, *args: Any, **kwargs: Any) -> Problem:
    with pytest.raises(Refused) as e:
        call(*args, **kwargs)
    return e.value.problem


def kept(world: World) -> object:
    with world.store.reading() as view:
        return list(view.workers()), view.events(), view.count_challenges(list(Purpose)), world.urls()


# --- what is answered, and what is not kept ---------------------------------------------------------------------------
def test_a_node_would_be_admitted_and_nothing_is_left(world: World) -> None:
    world.judge.devices = ("gpu-2",)
    before = kept(world)

    answer = ask(world)

    assert (answer.admitted, answer.verdict.tier, answer.verdict.reasons) == (True, "affirming", ())
    assert kept(world) == before


def test_a_node_would_not_be_and_why(world: World) -> None:
    world.judge.dislikes(why.MEASUREMENTS_MISMATCH)

    answer = ask(world)

    assert (answer.admitted, [each.code for each in answer.verdict.reasons]) == (False, ["measurements-mismatch"])


def test_what_could_not_be_decided_is_no_yes(world: World) -> None:
    world.judge.dislikes(why.RIM_UNAVAILABLE)

    assert (ask(world).admitted, ask(world).verdict.tier) == (False, "none")


def test_a_device_of_another_worker_is_taken_and_ones_own_is_not(world: World) -> None:
    assert [each.code for each in ask(world, OTHER_IP).verdict.reasons] == ["device-taken"]
    assert ask(world, IP).admitted


def test_devices_are_counted_by_the_type(world: World) -> None:
    world.judge.devices = ("gpu-2",)

    answer = ask(world, worker_type=TWO_GPUS)

    assert [each.code for each in answer.verdict.reasons] == ["device-count"]


def test_the_policy_is_that_of_the_wallet(world: World) -> None:
    wallet = world.stranger.address
    text = 'name = "mine"\nlifetime_seconds = 60'
    world.execute(world.admin, "set_policy", scope="wallet", payment_wallet=wallet, policy=text)

    ask(world, challenge=challenge(world, wallet=wallet), payment_wallet=wallet)
    ask(world)

    assert [each.name for each in world.judge.policies[-2:]] == ["mine", "lab"]


# --- who may ask, and how often ---------------------------------------------------------------------------------------
def test_a_challenge_is_good_once(world: World) -> None:
    once = challenge(world)
    ask(world, challenge=once)

    assert refused(ask, world, challenge=once) is reasons.CHALLENGE_UNKNOWN


def test_a_challenge_is_for_its_purpose_address_and_wallet(world: World) -> None:
    request = ChallengeRequest(purpose=Purpose.REGISTER, ip_address=OTHER_IP, payment_wallet=world.stranger.address)
    of_register = world.manager.challenge(request, signer=None).challenge
    mine = challenge(world)

    assert refused(ask, world, challenge=of_register) is reasons.CHALLENGE_MISMATCH
    assert refused(ask, world, IP, challenge=mine) is reasons.CHALLENGE_MISMATCH
    wallet = world.stranger.address
    assert refused(ask, world, challenge=mine, payment_wallet=wallet) is reasons.CHALLENGE_MISMATCH
    assert refused(world.register, OTHER_IP, challenge=mine, attestation_report=EVIDENCE).code == "challenge-mismatch"


def test_a_challenge_expires(world: World) -> None:
    late = challenge(world)
    world.clock.forward(world.rules.challenge_life)

    assert refused(ask, world, challenge=late) is reasons.CHALLENGE_EXPIRED


def test_an_address_that_no_worker_can_have_is_refused(world: World) -> None:
    assert refused(challenge, world, "127.0.0.1").code == "address-not-allowed"
    assert refused(challenge, world, "nowhere").code == "address-malformed"


def test_evidence_that_cannot_be_read_is_refused(world: World) -> None:
    assert refused(ask, world, evidence="no evidence").code == "evidence-refused"


def test_so_many_may_wait_and_registering_goes_on(world: World) -> None:
    for _ in range(PREFLIGHT_CHALLENGES_MAX):
        challenge(world)
    assert refused(challenge, world) is reasons.TOO_MANY

    request = ChallengeRequest(purpose=Purpose.REGISTER, ip_address=OTHER_IP, payment_wallet=world.stranger.address)
    assert world.manager.challenge(request, signer=None)
    world.clock.forward(world.rules.challenge_life + SECOND)
    assert challenge(world)


def test_so_many_are_judged_at_once(world: World) -> None:
    waiting = [challenge(world) for _ in range(PREFLIGHTS_MAX)]
    seen: list[Problem] = []

    def nested() -> None:
        if waiting:
            world.judge.meanwhile = nested
            seen.extend([refused(ask, world, challenge=waiting.pop())] if len(waiting) == 1 else [])
            if waiting:
                ask(world, challenge=waiting.pop())

    world.judge.meanwhile = nested
    ask(world)

    assert seen == [reasons.TOO_MANY]
    world.judge.meanwhile = None
    assert ask(world)


# --- in earnest: real devices, real server, nodeprobe -----------------------------------------------------------------
@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    pki = Pki.create(tmp_path_factory.mktemp("emulated") / "pki", now=NOON)
    publish(pki, MODEL)
    return pki


@pytest.fixture
def real(tmp_path: Path, pki: Pki) -> World:
    world = World(tmp_path)
    use(world, pki, shipped("lab"))
    return world


@pytest.fixture
def node(real: World, pki: Pki, monkeypatch: pytest.MonkeyPatch) -> Node:
    """This machine as a node of two emulated GPUs."""
    node = Node(pki, real)
    gpus = lambda nonce: tuple(gpu.evidence(nonce) for gpu in node.gpus)  # noqa: E731
    monkeypatch.setattr(commands_preflight, "_evidence", lambda: gathering.of_node(gpus, None))
    return node


@pytest.fixture
def asked(real: World, node: Node) -> Iterator[Any]:
    with capture_logs(), served_world(real) as url:  # the server is in this process: its log is not the command's
        yield lambda *options: CliRunner().invoke(
            cli, ["preflight", "--server", url, "--ip", IP, "--json", *options], prog_name="nodeprobe"
        )


def test_nodeprobe_is_told_yes(real: World, asked: Any) -> None:
    before = kept(real)

    ended = asked("--worker-type", TWO_GPUS, "--wallet", real.owner.address)

    document = json.loads(ended.stdout)
    assert (ended.exit_code, document["admitted"], document["verdict"]["emulated"]) == (0, True, True)
    assert kept(real) == before


def test_nodeprobe_is_told_no_and_why(real: World, pki: Pki, asked: Any, node: Node) -> None:
    node.gpus = node.gpus[:1]

    ended = asked("--worker-type", TWO_GPUS)

    reasons_told = {each["code"] for each in json.loads(ended.stdout)["verdict"]["reasons"]}
    assert (ended.exit_code, reasons_told) == (4, {"device-count"})


def test_nodeprobe_is_refused_an_address_that_no_worker_can_have(asked: Any) -> None:
    ended = asked("--worker-type", "any", "--ip", "127.0.0.1")

    assert (ended.exit_code, json.loads(ended.stdout)["problems"][0]["code"]) == (4, "address-not-allowed")


def test_nodeprobe_finds_nobody() -> None:
    arguments = ["preflight", "--server", "http://127.0.0.1:1", "--ip", IP, "--worker-type", "any", "--json"]

    ended = CliRunner().invoke(cli, arguments, prog_name="nodeprobe")

    assert (ended.exit_code, json.loads(ended.stdout)["problems"][0]["code"]) == (5, "unreachable")


def test_evidence_commits_to_the_preflight(real: World, pki: Pki) -> None:
    """Evidence that was collected for another address or key is not believed here either."""
    gpu = EmulatedGpu.create(pki, "gpu-0", MODELS["h100-pcie"])
    once = challenge(real, IP)

    def given(**changes: str) -> Bundle:
        says = {"challenge": once, "ip_address": IP, "payment_wallet": "", "worker_key": KEY, "tls_spki_sha256": TLS}
        return (gpu.evidence(Nonce(gpu_nonce(Statement(**(says | changes))))),)

    for changes in ({"ip_address": OTHER_IP}, {"worker_key": "another's"}, {"tls_spki_sha256": ""}):
        evidence, once = dumps(given(**changes)).decode(), once
        answer = ask(real, IP, challenge=once, evidence=evidence, tls_spki_sha256=TLS)
        assert "nonce-mismatch" in {each.code for each in answer.verdict.reasons}
        once = challenge(real, IP)
    assert ask(real, IP, challenge=once, evidence=dumps(given()).decode(), tls_spki_sha256=TLS).admitted


def test_a_policy_of_the_fleet_counts(real: World, pki: Pki) -> None:
    rules = 'name = "mine"\norigins = ["emulated"]\nrevocation = "optional"'
    use(real, pki, parse(f'{rules}\n[nvidia]\ndriver_min = "999"'))
    gpu = EmulatedGpu.create(pki, "gpu-0", MODEL)
    once = challenge(real, IP)
    nonce = gpu_nonce(Statement(once, IP, "", KEY, ""))

    answer = ask(real, IP, challenge=once, evidence=dumps((gpu.evidence(nonce),)).decode())

    assert [each.code for each in answer.verdict.reasons] == ["driver-too-old"]
