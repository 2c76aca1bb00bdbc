"""
What evidence is bound to, end to end: a node with a CPU TEE in the registry; attacks on binding (catalogue 1 to 4).

Everything is real but the hardware: emulated GPUs and an emulated Intel or AMD machine under one throw-away root.
"""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from attest.anchors import VENDORS, load_emulated
from attest.binding import Statement, Strength, gpu_nonce, report_data
from attest.evidence import Bundle, Evidence, Nonce, dumps
from attest.policy import Policy, shipped
from attest.verify import installed
from nodeprobe.emulator import MODELS, EmulatedGpu, Pki, publish
from nodeprobe.emulator.cpu import EmulatedCpu, prepare
from nodeprobe.gathering import of_node
from orchestrator.broker import FolderBroker
from orchestrator.messages import Attested, Purpose, Verdict
from orchestrator.reasons import Refused
from orchestrator.scheduler import RoutingTable
from orchestrator.verdicts import VerifyingJudge
from tests.evidence import VECTORS, needs_vectors
from tests.orchestrator.world import IP, NOON, OTHER_IP, TLS, World, endpoint

MODEL = MODELS["h100-pcie"]
OTHER_TLS = "ef" * 32


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    pki = Pki.create(tmp_path_factory.mktemp("emulated") / "pki", now=NOON)
    publish(pki, MODEL)
    prepare(pki, "tdx", now=NOON)
    return pki


class Node:
    """Two emulated GPUs and a CPU TEE, collected as the agent does it."""

    def __init__(self, pki: Pki, world: World, ip: str = IP, kind: str = "tdx") -> None:
        self.world, self.ip, name = world, ip, f"node-{ip.replace('.', '-')}-{kind}"
        self.gpus = [EmulatedGpu.create(pki, f"{name}-gpu{i}", MODEL) for i in range(2)]
        self.cpu = EmulatedCpu.create(pki, kind, name, now=NOON)

    def statement(self, challenge: str, **spoiled: str) -> Statement:
        good = Statement(challenge, self.ip, self.world.owner.address, self.world.key.public_hex, TLS)
        return replace(good, **spoiled)

    def collect(self, statement: Statement) -> Bundle:
        return of_node(lambda nonce: tuple(gpu.evidence(nonce) for gpu in self.gpus), self.cpu.evidence)(statement)

    def challenge(self) -> str:
        return self.world.challenge(Purpose.ATTEST, self.ip).challenge

    def send(self, challenge: str, bundle: Bundle, tls: str = TLS) -> Attested:
        return self.world.attest(self.ip, challenge=challenge, evidence=dumps(bundle).decode(), tls_spki_sha256=tls)

    def attest(self) -> Attested:
        challenge = self.challenge()
        return self.send(challenge, self.collect(self.statement(challenge)))


def use(world: World, pki: Pki, policy: Policy | None = None, rims: Path | None = None) -> World:
    anchors = VENDORS.trusting(load_emulated(pki.anchors.read_bytes()))
    judge = VerifyingJudge(installed(anchors), policy or shipped("lab"), FolderBroker(rims or pki.rims), True)
    world.judge, world.table = judge, RoutingTable()  # type: ignore[assignment]
    world.manager = world.another_manager(world.table)
    return world


@pytest.fixture
def world(tmp_path: Path, pki: Pki) -> World:
    world = use(World(tmp_path), pki)
    for ip in (IP, OTHER_IP):
        world.register(ip, worker_type="h100-80gb-x2-cc-tdx")
    return world


def codes(answer: Attested) -> set[str]:
    return {reason.code for reason in answer.verdict.reasons}


def refused(answer: Attested, *expected: str) -> None:
    assert codes(answer) >= set(expected), codes(answer)
    assert answer.verdict.tier == "contraindicated"
    assert answer.worker.routable is False


# --- the good node ----------------------------------------------------------------------------------------------------
def test_a_quote_that_covers_the_gpus_binds_them(world: World, pki: Pki) -> None:
    verdict = Node(pki, world).attest().verdict
    assert (verdict.tier, verdict.reasons) == ("affirming", ())
    assert (verdict.binding, verdict.cpu, verdict.freshness) == (
        "workermanager/v1 (evidence-covered)",
        "intel-tdx",
        "nonce",
    )
    assert len(verdict.devices) == 3
    assert world.urls() == [endpoint().url]


def test_a_sev_snp_report_binds_them_likewise(world: World, pki: Pki) -> None:
    node = Node(pki, world, kind="snp")
    lab = shipped("lab")
    least = {"bootloader": 0, "tee": 0, "snp": 0, "microcode": 0}
    snp = lab.snp.model_validate({"tcb_min": {"milan": least}, "alias_check_required": False})
    use(world, pki, lab.model_copy(update={"snp": snp}))
    verdict = node.attest().verdict
    assert (verdict.binding, verdict.cpu, verdict.freshness) == (
        "workermanager/v1 (evidence-covered)",
        "amd-snp",
        "nonce",
    )
    challenge = node.challenge()
    other = node.collect(node.statement(challenge, ip_address=OTHER_IP))
    assert {"binding-mismatch", "nonce-mismatch"} <= codes(node.send(challenge, other))


def test_a_policy_may_ask_for_a_quote_that_covers_the_gpus(world: World, pki: Pki) -> None:
    use(world, pki, shipped("lab").model_copy(update={"binding_min": Strength.EVIDENCE_COVERED}))
    node = Node(pki, world)
    assert node.attest().verdict.tier == "affirming"
    challenge = node.challenge()
    refused(node.send(challenge, node.collect(node.statement(challenge))[:2]), "binding-weak", "kind-absent")


@pytest.mark.parametrize("member", ["challenge", "ip_address", "payment_wallet", "worker_key", "tls_spki_sha256"])
def test_the_quote_commits_to_every_member_of_the_statement(world: World, pki: Pki, member: str) -> None:
    """The GPUs answer the right statement, the CPU TEE another one."""
    node, challenge = Node(pki, world), Node(pki, world).challenge()
    good = node.statement(challenge)
    gpus = node.collect(good)[:2]
    spoiled = replace(good, **{member: "cd" * 32})
    refused(node.send(challenge, (*gpus, node.cpu.evidence(report_data(spoiled, gpus)))), "binding-mismatch")


def test_without_intels_documents_nobody_is_accused(world: World, pki: Pki, tmp_path: Path) -> None:
    rims = tmp_path / "rims"
    rims.mkdir()
    for path in pki.rims.glob("*.xml"):
        (rims / path.name).write_bytes(path.read_bytes())
    use(world, pki, rims=rims)
    answer = Node(pki, world).attest()
    assert answer.verdict.tier == "none"
    assert codes(answer) == {"tdx-collateral-unavailable"}


# --- 1: replay --------------------------------------------------------------------------------------------------------
def test_attack_1_the_same_evidence_twice(world: World, pki: Pki) -> None:
    node = Node(pki, world)
    challenge = node.challenge()
    bundle = node.collect(node.statement(challenge))
    assert node.send(challenge, bundle).verdict.tier == "affirming"
    with pytest.raises(Refused) as error:
        node.send(challenge, bundle)
    assert error.value.problem.code == "challenge-unknown"
    refused(node.send(node.challenge(), bundle), "nonce-mismatch", "binding-mismatch")


def test_attack_1_an_old_quote_beside_fresh_gpus(world: World, pki: Pki) -> None:
    node = Node(pki, world)
    first, second = node.challenge(), node.challenge()
    old = node.collect(node.statement(first))
    fresh = node.collect(node.statement(second))
    refused(node.send(second, (*fresh[:2], old[2])), "binding-mismatch")


def test_attack_1_a_challenge_of_another_worker_purpose_or_time(world: World, pki: Pki) -> None:
    node, other = Node(pki, world), Node(pki, world, OTHER_IP)
    live = world.challenge(Purpose.LIVELINESS).challenge
    late = node.challenge()
    for challenge in (other.challenge(), live):
        with pytest.raises(Refused):
            node.send(challenge, node.collect(node.statement(challenge)))
    bundle = node.collect(node.statement(late))
    world.clock.forward(timedelta(hours=1))
    with pytest.raises(Refused):
        node.send(late, bundle)
    assert world.urls() == []


# --- 2: relay ---------------------------------------------------------------------------------------------------------
def test_attack_2_another_workers_evidence(world: World, pki: Pki) -> None:
    """As it was collected for that worker: nothing in it is ours."""
    node, other = Node(pki, world), Node(pki, world, OTHER_IP)
    challenge = node.challenge()
    refused(node.send(challenge, other.collect(other.statement(challenge))), "nonce-mismatch", "binding-mismatch")


def test_attack_2_another_workers_gpus_answer_for_us(world: World, pki: Pki) -> None:
    """
    A live relay: genuine GPUs elsewhere sign our nonce, and our own CPU TEE covers what they said. No equation sees it;
    one device, one worker does, as long as the other is attested. Without it, measured guest code must.
    """
    node, other = Node(pki, world), Node(pki, world, OTHER_IP)
    assert other.attest().verdict.tier == "affirming"
    node.gpus = other.gpus
    refused(node.attest(), "device-taken")


def test_attack_2_one_machine_for_two_workers(world: World, pki: Pki) -> None:
    """Their own GPUs each, and one CPU TEE that vouches for both."""
    node, other = Node(pki, world), Node(pki, world, OTHER_IP)
    assert other.attest().verdict.tier == "affirming"
    node.cpu = other.cpu
    refused(node.attest(), "device-taken")


def test_attack_2_another_machines_quote_for_our_nonce(world: World, pki: Pki) -> None:
    """Its CPU TEE covers its own GPUs, not those that are shown beside it."""
    node, other = Node(pki, world), Node(pki, world, OTHER_IP)
    challenge = node.challenge()
    statement = node.statement(challenge)
    ours, theirs = node.collect(statement), other.collect(statement)
    refused(node.send(challenge, (*ours[:2], theirs[2])), "binding-mismatch")


def test_attack_2_a_gpu_twice(world: World, pki: Pki) -> None:
    node = Node(pki, world)
    node.gpus = node.gpus[:1] * 2
    refused(node.attest(), "device-duplicate")


# --- 3: TLS -----------------------------------------------------------------------------------------------------------
def test_attack_3_genuine_evidence_behind_another_tls_key(world: World, pki: Pki) -> None:
    node = Node(pki, world)
    challenge = node.challenge()
    bundle = node.collect(node.statement(challenge))
    refused(node.send(challenge, bundle, OTHER_TLS), "nonce-mismatch", "binding-mismatch")


def test_attack_3_what_is_handed_out_pins_the_attested_key(world: World, pki: Pki) -> None:
    """A rotated key is attested anew, or the worker is handed out under the old one only."""
    node = Node(pki, world)
    node.attest()
    assert world.worker().tls_spki_sha256 == TLS
    challenge = node.challenge()
    rotated = node.collect(node.statement(challenge, tls_spki_sha256=OTHER_TLS))
    assert node.send(challenge, rotated, OTHER_TLS).verdict.tier == "affirming"
    assert world.worker().tls_spki_sha256 == OTHER_TLS
    body = json.loads(world.table.urls_body(None, None, world.clock.now))
    assert {url["tls_spki_sha256"] for url in body["urls"]} == {OTHER_TLS}


# --- 4: omitted devices -----------------------------------------------------------------------------------------------
def test_attack_4_devices_that_the_quote_does_not_cover(world: World, pki: Pki) -> None:
    """One left out, one twice, in another order, one more: the quote covers the list as it was."""
    node, other = Node(pki, world), Node(pki, world, OTHER_IP)

    def sent(edit: object) -> Attested:
        challenge = node.challenge()
        statement = node.statement(challenge)
        *gpus, cpu = node.collect(statement)
        more = other.gpus[0].evidence(gpu_nonce(statement))
        return node.send(challenge, (*edit(gpus, more), cpu))  # type: ignore[operator]

    assert sent(lambda gpus, _: gpus).verdict.tier == "affirming"
    refused(sent(lambda gpus, _: gpus[:1]), "binding-mismatch", "device-count")
    refused(sent(lambda gpus, _: [*gpus, gpus[0]]), "binding-mismatch", "device-duplicate")
    refused(sent(lambda gpus, _: gpus[::-1]), "binding-mismatch")
    refused(sent(lambda gpus, more: [*gpus, more]), "binding-mismatch", "device-count")
    refused(sent(lambda _, __: []), "binding-mismatch", "device-count")


def test_attack_4_the_cpu_tee_that_the_type_names_is_left_out(world: World, pki: Pki) -> None:
    """Lest a node that fails with its CPU TEE passes without."""
    node = Node(pki, world)
    challenge = node.challenge()
    refused(node.send(challenge, node.collect(node.statement(challenge))[:2]), "kind-absent")


def test_attack_4_a_quote_alone_is_no_gpu_node(world: World, pki: Pki) -> None:
    node = Node(pki, world)
    challenge = node.challenge()
    statement = node.statement(challenge)
    refused(node.send(challenge, (node.cpu.evidence(report_data(statement, ())),)), "device-count")


# --- an `attestation_report` in any container -------------------------------------------------------------------------
def registered(world: World, report: str, **more: str) -> Verdict:
    """By the admin, as deployed workers have it: nobody asked for this evidence."""
    worker = world.register("8.8.4.4", worker_type="x", attestation_report=report, **more)
    assert worker.verdict is not None
    assert (worker.routable, worker.verdict.tier) == (False, "contraindicated")
    assert "nonce-not-given" in {reason.code for reason in worker.verdict.reasons}
    return worker.verdict


def entries(bundle: Bundle) -> list[dict[str, str]]:
    return [
        {"arch": "HOPPER", "nonce": "00" * 32, "evidence": _b64(each.payload), "certificate": _b64(each.certificates)}
        for each in bundle
    ]


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def gpu_evidence(pki: Pki) -> Evidence:
    return EmulatedGpu.create(pki, "container-gpu", MODEL).evidence(Nonce(bytes(32)))


@pytest.mark.parametrize("container", ["nras", "nvattest", "nvattest-list", "ours", "quote", "report", "secretvm"])
def test_any_container_is_understood_and_not_trusted(world: World, pki: Pki, container: str) -> None:
    gpu = gpu_evidence(pki)
    cpu = EmulatedCpu.create(pki, "snp" if container == "report" else "tdx", "container", now=NOON)
    data = bytes.fromhex(TLS) + bytes(range(32))
    if container == "secretvm":
        gpu = EmulatedGpu.create(pki, "container-gpu", MODEL).evidence(Nonce(data[32:]))
    if container == "report":
        use(world, pki)  # the root vouches for AMD's shape only since now
    quote = cpu.evidence(data)
    nras = {"nonce": "00" * 32, "arch": "HOPPER", "evidence_list": entries((gpu,))}
    text = {
        "nras": json.dumps(nras),
        "nvattest": json.dumps({"evidences": entries((gpu,))}),
        "nvattest-list": json.dumps(entries((gpu,))),
        "ours": dumps((gpu, quote)).decode(),
        "quote": quote.payload.hex() + "\n",
        "report": _b64(quote.payload),
        "secretvm": json.dumps({"cpu": quote.payload.hex(), "gpu": nras}),
    }[container]
    verdict = registered(world, text, **({"tls_spki_sha256": TLS} if container == "secretvm" else {}))
    wanted = {"quote": "intel-tdx", "report": "absent", "secretvm": "intel-tdx", "ours": "intel-tdx"}
    assert verdict.cpu == wanted.get(container, "absent")
    assert verdict.binding == ("secretvm (committed)" if container == "secretvm" else "none (none)")
    assert len(verdict.devices) == {"ours": 2, "secretvm": 2, "report": 0}.get(container, 1)


def test_a_secretvm_registered_with_another_tls_key_is_told_so(world: World, pki: Pki) -> None:
    quote = EmulatedCpu.create(pki, "tdx", "container", now=NOON).evidence(bytes.fromhex(TLS) + bytes(range(32)))
    gpu = EmulatedGpu.create(pki, "container-gpu", MODEL).evidence(Nonce(bytes(range(32))))
    verdict = registered(world, dumps((quote, gpu)).decode(), tls_spki_sha256=OTHER_TLS)
    assert "binding-mismatch" in {reason.code for reason in verdict.reasons}


@needs_vectors
def test_a_real_secret_ai_worker_is_registered_by_what_it_serves(world: World) -> None:
    """Its `attestation_report` as the two texts that it serves: known, judged, and not trusted."""
    folder = VECTORS / "tdx" / "secretvm-tdx-and-h100"
    cpu, gpu = (folder / name for name in ("cpu_quote.txt", "gpu_attest.json"))
    report = json.dumps({"cpu": cpu.read_text(), "gpu": json.loads(gpu.read_text())})
    verdict = registered(world, report)
    assert [device.partition("-")[0] for device in verdict.devices] == ["nvidia"]  # Intel's documents are not here
