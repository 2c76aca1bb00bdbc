"""Remote verification: NVIDIA's service on loopback is asked, believed, and never takes a verdict for itself."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from attest.anchors import VENDORS, load_emulated
from attest.binding import NOTHING_PRESENTED, Presented, Statement, gpu_nonce
from attest.evidence import INTEL_TDX, NVIDIA, NVIDIA_NRAS, Bundle, Evidence, Nonce, digest
from attest.nvidia.nras_eat import EAT_BYTES_MAX, split
from attest.nvidia.nras_issuer import load_emulated as load_issuer
from attest.policy import Origin, Policy, shipped
from attest.reasons import Fault
from attest.result import AttestationResult, Tier
from attest.verify import installed
from nodeprobe.emulator import MODELS, EmulatedGpu, EmulatedSwitch, Pki, publish
from nodeprobe.emulator.cpu import prepare
from nodeprobe.emulator.families import BLACKWELL
from nodeprobe.emulator.nras import AnswerDraft, Edit, EmulatedNras
from nodeprobe.emulator.nras_defects import NRAS_DEFECTS
from nodeprobe.emulator.nras_forgeries import FORGERIES
from orchestrator.base_urls import Base
from orchestrator.broker import FolderBroker
from orchestrator.outbound import Outbound
from orchestrator.parts import remote_of
from orchestrator.remote import Remote
from orchestrator.scheduler import RoutingTable
from orchestrator.settings import Settings, SettingsError
from orchestrator.verdicts import VerifyingJudge, counted
from tests.orchestrator.test_binding import Node
from tests.orchestrator.vendors import Reply, Seen, Vendors, closed_port, serving
from tests.orchestrator.world import NOON, World, endpoint

MODEL = MODELS["h100-pcie"]
BLACKWELL_MODEL = next(each for each in MODELS.values() if each.family == BLACKWELL)
GPU_PATH, SWITCH_PATH = "/v4/attest/gpu", "/v4/attest/switch"
NONCE, OTHER_NONCE = Nonce(bytes(range(32))), Nonce(bytes(32))
QUICK = 0.5  # seconds; what is to time out, times out soon


def on_all_devices(hwmodel: str) -> Edit:
    def edit(draft: AnswerDraft) -> None:
        for each in draft.devices.values():
            each.claims["hwmodel"] = hwmodel

    return edit


class Scene:
    """Two GPUs of a node, a judge that has them verified remotely, and the service."""

    def __init__(self, pki: Pki, vendors: Vendors, *, url: str = "") -> None:
        self.pki, self.vendors = pki, vendors
        self.nras = EmulatedNras.create(now=NOON)
        self.edits: Sequence[Edit] = ()
        self.answered_nonce: bytes | None = None  # another than was asked for
        self.gpus = [EmulatedGpu.create(pki, f"gpu{place}", MODEL) for place in range(2)]
        self.switch = EmulatedSwitch.create(pki, "switch")
        self.asked: list[dict[str, Any]] = []
        vendors.routes = {GPU_PATH: self._gpus, SWITCH_PATH: self._switches}
        anchors = VENDORS.trusting(load_emulated(pki.anchors.read_bytes()))
        self.anchors = replace(anchors, nras=(*anchors.nras, load_issuer(self.nras.issuer_file())))
        send = Outbound(deadline_seconds=QUICK).send
        remote = Remote(Base.parse(url or vendors.url), send, self.anchors.nvidia_device)
        # No collateral at all: nothing could be verified here.
        self.judge = VerifyingJudge(installed(self.anchors), shipped("lab"), FolderBroker(None), True, remote)

    def _question(self, seen: Seen) -> tuple[dict[str, Any], bytes]:
        asked = json.loads(seen.body)
        self.asked.append(asked)
        return asked, self.answered_nonce or bytes.fromhex(asked["nonce"])

    def _gpus(self, seen: Seen) -> Reply:
        asked, nonce = self._question(seen)
        chains = [base64.b64decode(each["certificate"]) for each in asked["evidence_list"]]
        known = [*self.gpus, *self.more]
        devices = [next(each for each in known if each.chain_pem == chain) for chain in chains]
        architecture = [on_all_devices("GB100 A01 GSP BROM")] if asked["arch"] == "BLACKWELL" else []
        return Reply(self.nras.answer(devices, nonce, now=NOON, edits=[*architecture, *self.edits]))

    def _switches(self, seen: Seen) -> Reply:
        _, nonce = self._question(seen)
        return Reply(self.nras.switch_answer([self.ueid_of_switch], nonce, now=NOON))

    @property
    def more(self) -> list[EmulatedGpu]:
        return [EmulatedGpu.create(self.pki, "blackwell", BLACKWELL_MODEL)]

    @property
    def ueid_of_switch(self) -> int:
        return x509.load_pem_x509_certificates(self.switch.chain_pem)[0].serial_number

    def evidence(self, nonce: Nonce = NONCE) -> Bundle:
        return tuple(gpu.evidence(nonce) for gpu in self.gpus)

    def verdict(self, bundle: Bundle | None = None, presented: Presented = NOTHING_PRESENTED) -> AttestationResult:
        return self.judge(self.evidence() if bundle is None else bundle, NONCE, NOON, presented)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    pki = Pki.create(tmp_path_factory.mktemp("remote") / "pki", now=NOON)
    publish(pki, MODEL)
    prepare(pki, "tdx", now=NOON)
    return pki


@pytest.fixture
def scene(pki: Pki) -> Iterator[Scene]:
    with serving() as vendors:
        yield Scene(pki, vendors)


def codes(result: AttestationResult) -> set[str]:
    return {finding.reason.code for finding in result.failed}


def undecided(result: AttestationResult) -> set[str]:
    """Reasons of a verdict that believes nobody and blames nobody."""
    assert result.tier is Tier.NONE
    assert {finding.reason.fault for finding in result.failed} == {Fault.COLLATERAL}
    return codes(result)


# --- an answer --------------------------------------------------------------------------------------------------------
def test_what_the_service_vouches_for_is_believed_and_says_who_verified_it(scene: Scene) -> None:
    sent = scene.evidence()
    result = scene.verdict(sent)
    assert (result.tier, result.failed) == (Tier.AFFIRMING, ())
    assert [claim.kind for claim in result.claims] == [NVIDIA_NRAS] * 2
    assert {claim.values["verified_by"] for claim in result.claims} == {scene.nras.base_url}
    assert result.evidence_sha256 == digest(sent)
    assert result.freshness == "nonce"
    assert len(counted(result, "h100-80gb-x2-cc-none", sent).failed) == 0
    assert codes(counted(result, "h100-80gb-x4-cc-none", sent)) == {"device-count"}


def test_devices_have_the_names_that_they_have_here(scene: Scene) -> None:
    by_service = scene.verdict().claims
    here = replace(scene.judge, remote=None, broker=FolderBroker(scene.pki.rims))
    assert [c.device for c in by_service] == [
        c.device for c in here(scene.evidence(), NONCE, NOON, NOTHING_PRESENTED).claims
    ]


def test_the_question_is_as_the_service_wants_it(scene: Scene) -> None:
    sent = scene.evidence()
    scene.verdict(sent)
    (seen,) = scene.vendors.seen
    assert (seen.method, seen.path, seen.headers["content-type"]) == ("POST", GPU_PATH, "application/json")
    assert scene.asked == [
        {
            "nonce": NONCE.hex(),
            "arch": "HOPPER",
            "evidence_list": [
                {
                    "evidence": base64.b64encode(each.payload).decode(),
                    "certificate": base64.b64encode(each.certificates).decode(),
                }
                for each in sent
            ],
            "claims_version": "3.0",
        }
    ]


def test_each_class_is_asked_about_by_itself_and_keeps_its_place(scene: Scene) -> None:
    hopper, blackwell = scene.gpus[0].evidence(NONCE), scene.more[0].evidence(NONCE)
    sent = (hopper, scene.switch.evidence(NONCE), blackwell)
    result = scene.verdict(sent)
    assert [asked["arch"] for asked in scene.asked] == ["HOPPER", "LS10", "BLACKWELL"]
    assert [seen.path for seen in scene.vendors.seen] == [GPU_PATH, SWITCH_PATH, GPU_PATH]
    assert [claim.values["submod"] for claim in result.claims] == ["GPU-0", "SWITCH-0", "GPU-0"]
    assert [claim.values["architecture"] for claim in result.claims] == ["GH100", "LS_10", "GB100"]
    assert result.tier is Tier.AFFIRMING


def for_production(**changes: Any) -> Policy:
    """The shipped policy, for emulated devices that the service verifies."""
    kinds = frozenset({NVIDIA_NRAS, INTEL_TDX})
    changes = {"kinds": kinds, "required": frozenset({NVIDIA_NRAS}), "origins": frozenset({Origin.EMULATED}), **changes}
    return shipped("production").model_copy(update=changes)


def test_a_policy_for_production_is_met_and_an_outage_is_nobodys_fault_by_it(scene: Scene) -> None:
    scene.judge = replace(scene.judge, policy=for_production())
    statement = Statement("ab" * 32, "203.0.113.7", "wallet", "02" + "11" * 32)
    nonce = gpu_nonce(statement)
    affirmed = scene.judge(scene.evidence(nonce), nonce, NOON, Presented(statement))
    assert (affirmed.tier, affirmed.failed, affirmed.revocation) == (Tier.AFFIRMING, (), "good")
    scene.vendors.routes[GPU_PATH] = Reply(status=500)
    assert undecided(scene.judge(scene.evidence(nonce), nonce, NOON, Presented(statement))) == {"nras-failed"}


def test_a_policy_that_wants_reports_verified_here_is_not_met(scene: Scene) -> None:
    lab = shipped("lab")
    for changed in ({"kinds": frozenset({NVIDIA})}, {"required": frozenset({NVIDIA})}):
        scene.judge = replace(scene.judge, policy=lab.model_copy(update=changed))
        assert codes(scene.verdict()) in ({"kind-not-accepted"}, {"kind-absent"})


def test_our_statement_is_what_the_gpus_must_have_answered(scene: Scene) -> None:
    statement = Statement("ab" * 32, "203.0.113.7", "wallet", "02" + "11" * 32)
    nonce = gpu_nonce(statement)
    result = scene.judge(scene.evidence(nonce), nonce, NOON, Presented(statement))
    assert (result.tier, result.binding, str(result.strength)) == (Tier.AFFIRMING, "workermanager/v1", "nonce")


def test_a_quote_covers_the_reports_that_the_node_sent(tmp_path: Path, scene: Scene) -> None:
    world = World(tmp_path)
    node = Node(scene.pki, world)
    world.judge = replace(scene.judge, broker=FolderBroker(scene.pki.rims))  # type: ignore[assignment]
    scene.gpus = list(node.gpus)
    world.table = RoutingTable()
    world.manager = world.another_manager(world.table)
    world.register(node.ip, worker_type="h100-80gb-x2-cc-tdx")
    verdict = node.attest().verdict
    assert (verdict.tier, verdict.binding) == ("affirming", "workermanager/v1 (evidence-covered)")
    assert len(verdict.devices) == 3
    assert len(scene.asked) == 1
    assert world.urls() == [endpoint().url]

    scene.vendors.routes[GPU_PATH] = Reply(status=500)
    later = node.attest()
    assert (later.verdict.tier, {each.code for each in later.verdict.reasons}) == ("none", {"nras-failed"})
    assert later.verdict.binding == "workermanager/v1 (evidence-covered)"
    assert world.urls() == [endpoint().url]  # until what was affirmed runs out


# --- the node's fault -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("defect", "code"),
    [
        ("measres-fail", "measurements-mismatch"),
        ("attestation-report-signature-verified-false", "report-signature"),
        ("error-nonce", "nras-refused"),
        ("chain-revoked", "nras-check-failed"),
        ("debug-enabled", "nras-debug"),
    ],
)
def test_what_the_service_finds_wrong_with_a_device_is_held_against_it(scene: Scene, defect: str, code: str) -> None:
    scene.edits = [NRAS_DEFECTS[defect].edit]
    result = scene.verdict()
    assert result.tier is Tier.CONTRAINDICATED
    assert code in codes(result)


@pytest.mark.parametrize("defect", ["nonce-changed", "chain-other-root", "chain-leaf-missing"])
def test_nobody_is_asked_about_what_is_wrong_at_first_sight(scene: Scene, defect: str) -> None:
    spoil: dict[str, Callable[[Evidence], Evidence]] = {
        "nonce-changed": lambda _: scene.gpus[0].evidence(OTHER_NONCE),
        "chain-other-root": lambda each: replace(each, certificates=b""),
        "chain-leaf-missing": lambda each: replace(each, certificates=each.certificates[200:]),
    }
    first, second = scene.evidence()
    result = scene.verdict((spoil[defect](first), second))
    assert result.tier is Tier.CONTRAINDICATED
    assert codes(result) <= {"nonce-mismatch", "certificates-malformed", "chain-length", "nras-failed"}
    assert scene.vendors.seen == []


def test_the_same_device_twice_is_noticed(scene: Scene) -> None:
    scene.gpus[1] = scene.gpus[0]
    result = scene.verdict()
    assert result.tier is Tier.CONTRAINDICATED
    assert "device-duplicate" in codes(result)


def test_tokens_that_a_node_sends_itself_are_the_nodes_to_answer_for(scene: Scene) -> None:
    edit = NRAS_DEFECTS["all-foreign-key"].edit
    answer = scene.nras.answer(scene.gpus[:1], NONCE, now=NOON, edits=[edit])
    own = split(answer, [scene.gpus[0].chain_pem])
    result = scene.verdict((*own, scene.gpus[1].evidence(NONCE)))
    assert result.tier is Tier.CONTRAINDICATED
    assert "nras-signature" in codes(result)
    assert len(scene.asked) == 1


# --- the service's fault ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("defect", [each.name for each in FORGERIES])
def test_an_answer_that_is_none_decides_nothing(scene: Scene, defect: str) -> None:
    scene.edits = [NRAS_DEFECTS[defect].edit]
    assert undecided(scene.verdict())


@pytest.mark.parametrize("defect", sorted(NRAS_DEFECTS))
def test_no_defect_is_ever_affirmed(scene: Scene, defect: str) -> None:
    scene.edits = [NRAS_DEFECTS[defect].edit]
    assert scene.verdict().tier is not Tier.AFFIRMING


def test_an_answer_to_another_question_decides_nothing(scene: Scene) -> None:
    scene.answered_nonce = OTHER_NONCE
    assert undecided(scene.verdict()) == {"nras-failed"}


def test_an_answer_about_fewer_or_other_devices_decides_nothing(scene: Scene) -> None:
    fewer = scene.nras.answer(scene.gpus[:1], NONCE, now=NOON)
    others = scene.nras.answer(scene.gpus[::-1], NONCE, now=NOON)
    for answer in (fewer, others):
        scene.vendors.routes[GPU_PATH] = Reply(answer)
        assert undecided(scene.verdict()) == {"nras-failed"}


@pytest.mark.parametrize(
    "reply",
    [
        Reply(status=500),
        Reply(status=503),
        Reply(status=404),
        Reply(status=400),
        Reply(status=302, headers={"location": "/elsewhere"}),
        Reply(status=307, headers={"location": GPU_PATH}),
        Reply(b"x" * (EAT_BYTES_MAX + 1)),
        Reply(b"[" * 100_000),
        Reply(b"{}"),
        Reply(b""),
    ],
    ids=lambda reply: f"{reply.status}-{len(reply.body)}",
)
def test_an_outage_decides_nothing(scene: Scene, reply: Reply) -> None:
    scene.vendors.routes[GPU_PATH] = reply
    assert undecided(scene.verdict()) == {"nras-failed"}
    assert len(scene.vendors.seen) == 1


def test_one_deadline_stands_over_an_answer_that_drips(scene: Scene) -> None:
    def drip(handler: Any) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
        while not scene.vendors.closing.wait(0.02):
            handler.wfile.write(b"[")

    scene.vendors.raw = drip
    assert undecided(scene.verdict()) == {"nras-failed"}


def test_nobody_there_decides_nothing_and_names_no_address(pki: Pki, scene: Scene) -> None:
    result = Scene(pki, scene.vendors, url=f"http://127.0.0.1:{closed_port()}").verdict()
    assert undecided(result) == {"nras-failed"}
    assert not any("127.0.0.1" in finding.found for finding in result.failed)


def test_an_outage_is_no_reason_to_verify_here(scene: Scene) -> None:
    scene.judge = replace(scene.judge, broker=FolderBroker(scene.pki.rims))
    scene.vendors.routes[GPU_PATH] = Reply(status=500)
    assert undecided(scene.verdict()) == {"nras-failed"}


def test_one_class_without_an_answer_leaves_the_node_undecided(scene: Scene) -> None:
    scene.vendors.routes[SWITCH_PATH] = Reply(status=500)
    assert undecided(scene.verdict((*scene.evidence(), scene.switch.evidence(NONCE)))) == {"nras-failed"}


def test_evidence_that_answers_no_challenge_is_not_asked_about(scene: Scene) -> None:
    assert scene.judge(scene.evidence(), None, NOON, NOTHING_PRESENTED).tier is not Tier.AFFIRMING
    assert scene.vendors.seen == []


# --- settings ---------------------------------------------------------------------------------------------------------
def test_settings_that_do_not_fit_are_told_at_once(tmp_path: Path) -> None:
    off, on = Settings(tmp_path), Settings(tmp_path, remote_verification=True)
    assert remote_of(off, VENDORS, shipped("production")) is None
    assert isinstance(remote_of(on, VENDORS, shipped("lab")), Remote)
    with pytest.raises(SettingsError, match="nvidia-nras"):
        remote_of(on, VENDORS, shipped("production"))
    with pytest.raises(SettingsError, match="--no-fetch"):
        remote_of(replace(on, fetch=False), VENDORS, shipped("lab"))
