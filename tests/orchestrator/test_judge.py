"""The real judge in the registry: emulated GPUs under a throw-away root, verified by the installed verifiers."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from attest.anchors import VENDORS, load_emulated
from attest.binding import Statement, gpu_nonce
from attest.evidence import Nonce, dumps
from attest.folder import FolderError
from attest.policy import Policy, shipped
from attest.verify import installed
from nodeprobe.emulator import MODELS, EmulatedGpu, Pki, publish
from orchestrator.broker import FolderBroker
from orchestrator.messages import Attested, Purpose
from orchestrator.scheduler import RoutingTable
from orchestrator.verdicts import VerifyingJudge
from tests.orchestrator.world import IP, NOON, OTHER_IP, TLS, World, endpoint

MODEL = MODELS["h100-pcie"]
TWO_GPUS = "h100-80gb-x2-cc-none"


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    pki = Pki.create(tmp_path_factory.mktemp("emulated") / "pki", now=NOON)
    publish(pki, MODEL)
    return pki


class Node:
    """Two emulated GPUs, and what they say."""

    def __init__(self, pki: Pki, world: World, ip: str = IP, name: str = "gpu") -> None:
        self.world, self.ip = world, ip
        self.gpus = [EmulatedGpu.create(pki, f"{name}-{i}", MODEL) for i in range(2)]

    def evidence(self, nonce: Nonce) -> str:
        return dumps(tuple(gpu.evidence(nonce) for gpu in self.gpus)).decode()

    def statement(self, challenge: str) -> Statement:
        return Statement(challenge, self.ip, self.world.owner.address, self.world.key.public_hex, TLS)

    def attest(self, **spoiled: str) -> Attested:
        """With a statement of which one member is spoiled, if any is."""
        challenge = self.world.challenge(Purpose.ATTEST, self.ip).challenge
        nonce = gpu_nonce(replace(self.statement(challenge), **spoiled))
        return self.world.attest(self.ip, challenge=challenge, evidence=self.evidence(nonce), tls_spki_sha256=TLS)


@pytest.fixture
def world(tmp_path: Path, pki: Pki) -> World:
    world = World(tmp_path)
    use(world, pki, shipped("lab"))
    world.register(worker_type=TWO_GPUS)
    return world


def use(world: World, pki: Pki, policy: Policy, rims: Path | None = None) -> None:
    anchors = VENDORS.trusting(load_emulated(pki.anchors.read_bytes()))
    world.judge = VerifyingJudge(installed(anchors), policy, FolderBroker(rims or pki.rims), True)  # type: ignore[assignment]
    world.table = RoutingTable()
    world.manager = world.another_manager(world.table)


def test_a_genuine_node_is_believed_and_handed_out(world: World, pki: Pki) -> None:
    answer = Node(pki, world).attest()
    assert answer.verdict.reasons == ()
    assert (answer.verdict.tier, answer.verdict.emulated, answer.verdict.cpu) == ("affirming", True, "absent")
    assert answer.verdict.binding == "workermanager/v1 (nonce)"
    assert answer.verdict.revocation == "not checked"
    assert len(set(answer.verdict.devices)) == 2
    assert world.urls() == [endpoint().url]
    about = world.manager.about()
    assert (about.policy, about.emulated_roots) == ("lab", True)


@pytest.mark.parametrize("member", ["challenge", "ip_address", "payment_wallet", "worker_key", "tls_spki_sha256"])
def test_evidence_commits_to_every_member_of_the_statement(world: World, pki: Pki, member: str) -> None:
    answer = Node(pki, world).attest(**{member: "another's"})
    assert answer.verdict.tier == "contraindicated"
    assert {reason.code for reason in answer.verdict.reasons} >= {"nonce-mismatch"}
    assert world.urls() == []


def test_evidence_of_another_worker_is_not_believed(world: World, pki: Pki) -> None:
    """Both attest at once; one sends what the other collected."""
    world.register(OTHER_IP, worker_type=TWO_GPUS)
    one, two = Node(pki, world), Node(pki, world, OTHER_IP, "other")
    challenge = world.challenge(Purpose.ATTEST, OTHER_IP).challenge
    collected = two.evidence(gpu_nonce(two.statement(challenge)))
    mine = world.challenge(Purpose.ATTEST).challenge
    relayed = world.attest(challenge=mine, evidence=collected, tls_spki_sha256=TLS)
    assert "nonce-mismatch" in {reason.code for reason in relayed.verdict.reasons}
    one.gpus = two.gpus
    assert two.attest().verdict.tier == "affirming"
    assert {reason.code for reason in one.attest().verdict.reasons} == {"device-taken"}


def test_a_gpu_that_is_left_out_or_sent_twice_is_missed(world: World, pki: Pki) -> None:
    node = Node(pki, world)
    both = node.gpus
    node.gpus = both[:1]
    assert [reason.code for reason in node.attest().verdict.reasons] == ["device-count"]
    node.gpus = [both[0], both[0]]
    assert "device-duplicate" in {reason.code for reason in node.attest().verdict.reasons}
    node.gpus = both
    assert node.attest().verdict.tier == "affirming"


def test_changed_firmware_is_withdrawn(world: World, pki: Pki) -> None:
    node = Node(pki, world)
    node.attest()
    node.gpus[1] = node.gpus[1].spoiled("measurement-changed")
    answer = node.attest()
    assert [reason.code for reason in answer.verdict.reasons] == ["measurements-mismatch"]
    assert world.urls() == []
    assert answer.worker.why[0] == "contraindicated:measurements-mismatch"


def test_emulated_evidence_is_refused_in_production(world: World, pki: Pki) -> None:
    use(world, pki, shipped("production"))
    answer = Node(pki, world).attest()
    assert answer.verdict.tier == "contraindicated"
    assert {reason.code for reason in answer.verdict.reasons} >= {"root-not-accepted", "revocation-not-checked"}


def test_a_missing_manifest_postpones_until_the_folder_has_it(world: World, pki: Pki, tmp_path: Path) -> None:
    rims = tmp_path / "rims"
    rims.mkdir()
    use(world, pki, shipped("lab"), rims)
    node = Node(pki, world)
    answer = node.attest()
    assert answer.verdict.tier == "none"
    assert answer.worker.why == ("not-attested", "undecided:rim-unavailable", "not-alive", "no-endpoints")
    shutil.copytree(pki.rims, rims, dirs_exist_ok=True)
    judge: VerifyingJudge = world.judge  # type: ignore[assignment]
    assert isinstance(judge.broker, FolderBroker)
    judge.broker.refresh()
    assert node.attest().verdict.tier == "affirming"


def test_a_broker_without_a_folder_has_nothing_and_one_with_a_wrong_folder_says_so(tmp_path: Path) -> None:
    broker = FolderBroker(None)
    broker.refresh()
    with pytest.raises(FolderError):
        FolderBroker(tmp_path / "absent")
