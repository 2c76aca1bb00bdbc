"""Commands signed by wallets: who may what, once, and what is left behind when it is refused."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from attest import reasons as why_not
from attest.binding import UNBOUND, Statement, gpu_nonce
from orchestrator import reasons
from orchestrator.addresses import parse_ranges
from orchestrator.context import Rules
from orchestrator.execute import SUBSCRIBER_UNKNOWN
from orchestrator.messages import COMMANDS, ChallengeRequest, Purpose, Signed, Worker
from orchestrator.reasons import Problem, Refused
from orchestrator.scheduler import RoutingTable
from orchestrator.store import ADMIN
from orchestrator.verdicts import EvidenceRefused
from orchestrator.wallets import Wallet, new_id
from orchestrator.worker_keys import WorkerKey
from tests.orchestrator.world import EVIDENCE, IP, MODEL, OTHER_IP, TLS, World, endpoint

SUBSCRIBER = Wallet.generate().public_hex
NEW_KEY = WorkerKey.generate().public_hex


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World.good(tmp_path)


def refused(call: Any, *args: Any, **kwargs: Any) -> Problem:
    with pytest.raises(Refused) as e:
        call(*args, **kwargs)
    return e.value.problem


def content_of(world: World, command: str) -> dict[str, Any]:
    """What a command of this name may well say."""
    service = {"ip_address": IP, "reason": "maintenance"}
    return {
        "register_worker": {"ip_address": OTHER_IP, "payment_wallet": world.owner.address, "worker_type": MODEL},
        "set_worker_wallet": {"ip_address": IP, "payment_wallet": world.stranger.address},
        "set_worker_address": {"new_ip_address": OTHER_IP, "old_ip_address": IP},
        "set_worker_type": {"ip_address": IP, "worker_type": "another"},
        "set_worker_key": {"ip_address": IP, "worker_key": NEW_KEY},
        "remove_worker": {"ip_address": IP},
        "add_subscriber": {"public_key": SUBSCRIBER, "name": "a router"},
        "remove_subscriber": {"public_key": SUBSCRIBER},
        "set_policy": {"scope": "worker", "ip_address": IP, "policy": 'name = "mine"\nlifetime_seconds = 60'},
    }.get(command, service)


# --- who may what -----------------------------------------------------------------------------------------------------
ADMINS = {
    "register_worker",
    "uncordon",
    "drain",
    "cordon",
    "quarantine",
    "evict",
    "add_subscriber",
    "remove_subscriber",
    "set_policy",
}
OWNERS = {"set_worker_wallet", "set_worker_address", "set_worker_type", "remove_worker"}


def test_every_command_has_somebody_who_may() -> None:
    assert ADMINS | OWNERS | {"set_worker_key"} == set(COMMANDS)


@pytest.mark.parametrize("who", ["admin", "owner", "stranger"])
@pytest.mark.parametrize("command", COMMANDS)
def test_only_who_may_does(world: World, command: str, who: str) -> None:
    """The owner may not what the admin may, nor the other way round: the admin's powers never touch a wallet."""
    world.execute(world.admin, "add_subscriber", public_key=SUBSCRIBER, name="a router")
    before, events = snapshot(world), world.events()
    may = (command in ADMINS and who == "admin") or (command in OWNERS and who == "owner")
    may = may or (command == "set_worker_key" and who != "stranger")
    signed = world.sign(getattr(world, who), command, **content_of(world, command))
    if may:
        name, _ = world.manager.execute(signed)
        assert name == command
        assert len(world.events()) > len(events)
        assert refused(world.manager.execute, signed) is reasons.MESSAGE_REPLAYED
    else:
        problem = refused(world.manager.execute, signed)
        assert problem.code == ("not-admin" if command in ADMINS else "not-owner")
        assert (snapshot(world), world.events()) == (before, events)
        assert refused(world.manager.execute, signed) is problem  # the id was not spent


def snapshot(world: World) -> object:
    with world.store.reading() as view:
        return list(view.workers()), view.subscriber(SUBSCRIBER), world.urls()


def test_refusals_say_what_clients_of_the_deployed_contract_know(world: World) -> None:
    titles = {
        command: refused(world.execute, world.stranger, command, **content_of(world, command)).title
        for command in ("register_worker", *OWNERS)
    }
    only = "Only the owner has the authority to "
    assert titles == {
        "register_worker": "Only admin can register workers",
        "set_worker_wallet": f"{only}modify the payment wallet",
        "set_worker_address": f"{only}modify the IP address",
        "set_worker_type": f"{only}modify the worker_type",
        "remove_worker": f"{only}remove the worker",
    }


@pytest.mark.parametrize("command", [c for c in COMMANDS if c not in ("register_worker", "add_subscriber")])
def test_a_worker_that_is_not_there_is_unknown(tmp_path: Path, command: str) -> None:
    world = World(tmp_path)
    wallet = world.admin if command in ADMINS else world.owner
    problem = refused(world.execute, wallet, command, **content_of(world, command))
    if command == "remove_subscriber":
        assert problem is SUBSCRIBER_UNKNOWN
    else:
        assert (problem.code, problem.status) == ("worker-unknown", 404)
    wanted = "Could not find the worker" if command == "set_worker_address" else "Didn't find worker"
    assert command == "remove_subscriber" or problem.title == wanted


def test_the_owner_of_a_wallet_that_was_changed_owns_nothing_any_more(world: World) -> None:
    world.execute(world.owner, "set_worker_wallet", ip_address=IP, payment_wallet=world.stranger.address)
    assert refused(world.execute, world.owner, "remove_worker", ip_address=IP) is reasons.NOT_OWNER_REMOVE
    world.execute(world.stranger, "remove_worker", ip_address=IP)


def test_where_no_admin_is_set_nobody_is(tmp_path: Path) -> None:
    world = World(tmp_path)
    with world.store.transaction() as tx:
        tx.set_meta(ADMIN, "")
    assert refused(world.register).code == "not-admin"


def test_the_operator_may_name_the_admin(tmp_path: Path) -> None:
    boss = Wallet.generate()
    world = World(tmp_path, rules=Rules(admin_address=boss.address))
    assert refused(world.register).code == "not-admin"
    world.admin = boss
    world.register()
    assert world.manager.about().admin_address == boss.address


# --- once, soon, here -------------------------------------------------------------------------------------------------
def test_a_command_for_another_orchestrator_is_refused(world: World) -> None:
    expires = world.clock.now + timedelta(minutes=5)
    for domain, problem in (("workermanager/0000000000000000", reasons.DOMAIN_MISMATCH), (world.store.domain, None)):
        content = {"remove_worker": {"ip_address": IP}}
        signed = world.owner.sign_message(content, domain=domain, expires=expires, message_id=new_id())
        message = Signed.model_validate(signed)
        if problem:
            assert refused(world.manager.execute, message) is problem
        else:
            world.manager.execute(message)


def test_a_command_expires_in_the_very_moment(world: World) -> None:
    signed = world.sign(world.owner, "remove_worker", ip_address=IP)
    world.clock.forward(timedelta(minutes=5))
    assert refused(world.manager.execute, signed) is reasons.SIGNATURE_EXPIRED
    world.clock.forward(-timedelta(microseconds=1))
    world.manager.execute(signed)


def test_a_spent_id_is_remembered_until_the_message_expires(world: World) -> None:
    signed = world.sign(world.admin, "drain", ip_address=IP, reason="r")
    world.manager.execute(signed)
    world.clock.forward(timedelta(minutes=5) - timedelta(microseconds=1))
    world.manager.sweep()
    assert refused(world.manager.execute, signed) is reasons.MESSAGE_REPLAYED
    world.clock.forward(timedelta(microseconds=1))
    world.manager.sweep()
    assert refused(world.manager.execute, signed) is reasons.SIGNATURE_EXPIRED


def test_a_signature_that_does_not_hold_is_refused(world: World) -> None:
    signed = world.sign(world.owner, "remove_worker", ip_address=IP)
    spoiled = signed.model_copy(update={"data": signed.data.replace(IP, OTHER_IP)})
    assert refused(world.manager.execute, spoiled) is reasons.SIGNATURE_INVALID


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        ({}, reasons.REQUEST_MALFORMED),
        ({"remove_worker": {"ip_address": IP}, "drain": {"ip_address": IP, "reason": "r"}}, reasons.REQUEST_MALFORMED),
        ({"set_admin": {"public_address": "x"}}, reasons.REQUEST_MALFORMED),
        ({"remove_worker": {}}, reasons.FIELD_INVALID),
        ({"remove_worker": {"ip_address": IP, "force": True}}, reasons.FIELD_INVALID),
        ({"remove_worker": IP}, reasons.FIELD_INVALID),
        ({"remove_worker": {"ip_address": 9}}, reasons.FIELD_INVALID),
    ],
)
def test_a_message_that_is_no_command_is_refused(world: World, message: dict[str, Any], problem: Problem) -> None:
    expires = world.clock.now + timedelta(minutes=5)
    signed = world.owner.sign_message(message, domain=world.store.domain, expires=expires, message_id=new_id())
    assert refused(world.manager.execute, Signed.model_validate(signed)) is problem


# --- registering ------------------------------------------------------------------------------------------------------
def test_a_worker_registered_without_evidence_is_known_and_not_trusted(tmp_path: Path) -> None:
    world = World(tmp_path)
    answer = world.register(endpoints=[endpoint().model_dump()])
    assert answer.why == ("not-attested", "not-alive")
    assert (answer.payment_wallet, answer.worker_type, answer.attestation_report) == (world.owner.address, MODEL, "")
    assert answer.generation == 1
    assert world.urls() == []
    assert world.events() == ["registered"]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"ip_address": "10.0.0.1"}, reasons.ADDRESS_NOT_ALLOWED),
        ({"ip_address": "127.0.0.1"}, reasons.ADDRESS_NOT_ALLOWED),
        ({"ip_address": "169.254.169.254"}, reasons.ADDRESS_NOT_ALLOWED),
        ({"ip_address": "224.0.0.1"}, reasons.ADDRESS_NOT_ALLOWED),
        ({"ip_address": "0.0.0.0"}, reasons.ADDRESS_NOT_ALLOWED),
        ({"ip_address": "9.9.9.02"}, reasons.ADDRESS_MALFORMED),
        ({"ip_address": "example.com"}, reasons.ADDRESS_MALFORMED),
        ({"ip_address": IP}, reasons.ADDRESS_TAKEN),
        ({"ip_address": f"::ffff:{IP}"}, reasons.ADDRESS_TAKEN),
        ({"payment_wallet": "secret1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq"}, reasons.WALLET_MALFORMED),
        ({"payment_wallet": "cosmos1aaaaaaaaaa"}, reasons.WALLET_MALFORMED),
        ({"endpoints": [{"model": "m", "url": f"https://{IP}:21434"}]}, reasons.ENDPOINT_NOT_ALLOWED),
        ({"endpoints": [{"model": "m", "url": "https://gpu.example.com:1"}]}, reasons.ENDPOINT_NOT_ALLOWED),
        ({"endpoints": [{"model": "m", "url": f"http://{OTHER_IP}:21434"}]}, reasons.ENDPOINT_NOT_HTTPS),
        ({"worker_key": "02"}, reasons.FIELD_INVALID),
        ({"challenge": "ab" * 32}, reasons.FIELD_INVALID),
        ({"challenge": "ab" * 32, "attestation_report": EVIDENCE, "worker_key": None}, reasons.FIELD_INVALID),
        ({"challenge": "ab" * 32, "attestation_report": EVIDENCE}, reasons.CHALLENGE_UNKNOWN),
        ({"attestation_report": "no evidence"}, reasons.EVIDENCE_REFUSED),
    ],
)
def test_a_registration_with_one_thing_wrong_leaves_nothing(
    world: World, changes: dict[str, Any], problem: Problem
) -> None:
    before, events = snapshot(world), world.events()
    found = refused(world.register, OTHER_IP, **changes)
    assert (found.code, found.status) == (problem.code, problem.status)
    assert (snapshot(world), world.events()) == (before, events)


def test_an_operators_own_range_is_allowed(tmp_path: Path) -> None:
    world = World(tmp_path, rules=Rules(allowed_ranges=parse_ranges(["10.1.0.0/16"])))
    world.register("10.1.2.3", endpoints=[{"model": "m", "url": "http://10.1.2.3:8000"}])
    assert refused(world.register, "10.2.0.1") is reasons.ADDRESS_NOT_ALLOWED


def register_challenge(world: World, ip: str = OTHER_IP, wallet: str = "") -> str:
    request = ChallengeRequest(purpose=Purpose.REGISTER, ip_address=ip, payment_wallet=wallet or world.owner.address)
    return world.manager.challenge(request, signer=None).challenge


def register_with_evidence(world: World, **changes: Any) -> Worker:
    content = {
        "attestation_report": EVIDENCE,
        "challenge": changes.pop("challenge", None) or register_challenge(world),
        "tls_spki_sha256": TLS,
        "endpoints": [endpoint(OTHER_IP).model_dump()],
    }
    return world.register(OTHER_IP, **{**content, **changes})


def test_a_worker_registered_with_evidence_is_handed_out_at_once(world: World) -> None:
    world.judge.devices = ("gpu-2",)
    challenge = register_challenge(world)
    answer = register_with_evidence(world, challenge=challenge)
    assert answer.routable
    assert endpoint(OTHER_IP).url in world.urls()
    statement = Statement(challenge, OTHER_IP, world.owner.address, world.key.public_hex, TLS)
    assert world.judge.nonces[-1] == gpu_nonce(statement)
    assert world.events()[-2:] == ["registered", "attested"]


def test_evidence_that_is_not_liked_registers_a_worker_that_is_not_trusted(world: World) -> None:
    world.judge.dislikes(why_not.MEASUREMENTS_MISMATCH)
    answer = register_with_evidence(world)
    assert answer.verdict is not None
    assert answer.verdict.tier == "contraindicated"
    assert [finding.code for finding in answer.verdict.reasons] == ["measurements-mismatch"]
    assert answer.why == ("contraindicated:measurements-mismatch", "not-alive")
    assert endpoint(OTHER_IP).url not in world.urls()


def test_evidence_that_cannot_be_decided_registers_a_worker_that_waits(world: World) -> None:
    world.judge.dislikes(why_not.RIM_UNAVAILABLE)
    answer = register_with_evidence(world)
    assert answer.why == ("not-attested", "undecided:rim-unavailable", "not-alive")
    assert answer.verdict is not None
    assert answer.verdict.tier == "none"


def test_malformed_evidence_names_the_reason_of_attest(world: World) -> None:
    with pytest.raises(EvidenceRefused) as e:
        register_with_evidence(world, attestation_report="no evidence")
    assert e.value.problem.code == "evidence-refused"
    assert [each.problem.code for each in e.value.because] == ["evidence-malformed"]
    assert refused(world.manager.worker, OTHER_IP) is reasons.WORKER_UNKNOWN


def test_a_register_challenge_serves_its_address_and_wallet_once(world: World) -> None:
    challenge = register_challenge(world, OTHER_IP, world.stranger.address)
    assert refused(register_with_evidence, world, challenge=challenge) is reasons.CHALLENGE_MISMATCH
    challenge = register_challenge(world, "9.9.9.3")
    assert refused(register_with_evidence, world, challenge=challenge) is reasons.CHALLENGE_MISMATCH
    world.judge.devices = ("gpu-2",)
    challenge = register_challenge(world)
    register_with_evidence(world, challenge=challenge)
    world.execute(world.owner, "remove_worker", ip_address=OTHER_IP)
    assert refused(register_with_evidence, world, challenge=challenge) is reasons.CHALLENGE_UNKNOWN


def test_evidence_without_a_challenge_is_told_and_never_believed(world: World) -> None:
    """As deployed workers have it: a container recorded some day."""
    world.judge.devices = ("gpu-2",)
    answer = world.register(
        OTHER_IP, attestation_report=EVIDENCE, worker_key=None, endpoints=[endpoint(OTHER_IP).model_dump()]
    )
    assert world.judge.nonces[-1] is None
    assert answer.why == ("contraindicated:nonce-not-given", "not-alive")
    assert answer.due_at == world.clock.now
    assert answer.verdict is not None
    assert answer.verdict.binding.startswith(UNBOUND.profile)
    with world.store.reading() as view:
        assert view.holders(["gpu-2"]) == {}


def test_an_address_that_is_taken_while_evidence_is_judged_stays_taken(world: World) -> None:
    world.judge.meanwhile = lambda: world.register(OTHER_IP, worker_type="the first")
    world.judge.devices = ("gpu-2",)
    assert refused(register_with_evidence, world) is reasons.ADDRESS_TAKEN
    assert world.worker(OTHER_IP).worker_type == "the first"
    with world.store.reading() as view:
        assert view.holders(["gpu-2"]) == {}


def test_one_message_registers_once_even_while_its_evidence_is_judged(world: World) -> None:
    world.judge.devices = ("gpu-2",)
    content = {
        "ip_address": OTHER_IP,
        "payment_wallet": world.owner.address,
        "worker_type": MODEL,
        "attestation_report": EVIDENCE,
    }
    signed = world.sign(world.admin, "register_worker", **content)

    def meanwhile() -> None:
        world.manager.execute(signed)
        world.execute(world.owner, "remove_worker", ip_address=OTHER_IP)

    world.judge.meanwhile = meanwhile
    assert refused(world.manager.execute, signed) is reasons.MESSAGE_REPLAYED
    assert refused(world.manager.worker, OTHER_IP) is reasons.WORKER_UNKNOWN


# --- what changes -----------------------------------------------------------------------------------------------------
def test_a_worker_that_moves_is_handed_out_nowhere_until_it_attests_there(world: World) -> None:
    answer = world.execute(world.owner, "set_worker_address", old_ip_address=IP, new_ip_address=f"::ffff:{OTHER_IP}")
    assert (answer.ip_address, answer.generation) == (OTHER_IP, 2)
    assert answer.why == ("not-attested", "not-alive", "no-endpoints")
    assert world.urls() == []
    assert refused(world.manager.worker, IP) is reasons.WORKER_UNKNOWN
    world.attest(OTHER_IP)
    assert world.urls() == [endpoint(OTHER_IP).url]


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        (OTHER_IP, reasons.ADDRESS_TAKEN),
        (f"::ffff:{OTHER_IP}", reasons.ADDRESS_TAKEN),
        (IP, reasons.ADDRESS_TAKEN),
        ("10.0.0.1", reasons.ADDRESS_NOT_ALLOWED),
        ("010.0.0.1", reasons.ADDRESS_MALFORMED),
    ],
)
def test_a_worker_moves_only_to_a_free_address_of_a_good_kind(world: World, address: str, problem: Problem) -> None:
    world.register(OTHER_IP)
    before = snapshot(world)
    content = {"old_ip_address": IP, "new_ip_address": address}
    assert refused(world.execute, world.owner, "set_worker_address", **content) is problem
    assert snapshot(world) == before


@pytest.mark.parametrize("command", ["set_worker_wallet", "set_worker_type", "set_worker_key"])
def test_a_change_of_identity_withdraws_at_once_and_asks_for_evidence(world: World, command: str) -> None:
    answer = world.execute(world.owner, command, **content_of(world, command))
    assert answer.generation == 2
    assert answer.why[0] == "not-attested"
    assert answer.due_at == world.clock.now
    assert world.urls() == []


def test_a_wallet_that_is_none_is_refused(world: World) -> None:
    content = {"ip_address": IP, "payment_wallet": "secret1nonsense"}
    assert refused(world.execute, world.owner, "set_worker_wallet", **content) is reasons.WALLET_MALFORMED
    assert world.urls() == [endpoint().url]


@pytest.mark.parametrize("command", ["remove_worker", "evict"])
def test_a_removed_worker_is_answered_and_gone(world: World, command: str) -> None:
    wallet = world.owner if command == "remove_worker" else world.admin
    answer = world.execute(wallet, command, **content_of(world, command))
    assert (answer.ip_address, answer.payment_wallet) == (IP, world.owner.address)
    assert world.urls() == []
    assert refused(world.manager.worker, IP) is reasons.WORKER_UNKNOWN


@pytest.mark.parametrize(
    ("command", "code"), [("drain", "draining"), ("cordon", "cordoned"), ("quarantine", "quarantined")]
)
def test_the_admin_takes_a_worker_out_of_service_and_back(world: World, command: str, code: str) -> None:
    assert world.execute(world.admin, command, ip_address=IP, reason="a reason").why == (code,)
    assert world.urls() == []
    assert world.live().why == (code,)  # living on does not bring it back
    assert world.attest().worker.why == (code,)  # nor does evidence
    assert world.execute(world.admin, "uncordon", ip_address=IP, reason="a reason").why == ()
    assert world.urls() == [endpoint().url]


def test_every_change_is_recorded_with_who_and_why(world: World) -> None:
    world.execute(world.admin, "cordon", ip_address=IP, reason="it smokes")
    with world.store.reading() as view:
        event = view.events()[-1]
    assert (event["event"], event["actor"], event["details"]) == (
        "cordoned",
        world.admin.address,
        {"reason": "it smokes"},
    )


def test_a_restart_finds_all_as_it_was(world: World) -> None:
    world.register(OTHER_IP)
    table = RoutingTable()
    again = world.another_manager(table)
    assert again.about().domain == world.store.domain
    world.table = table
    assert world.urls() == []
    again.load()
    assert world.urls() == [endpoint().url]
