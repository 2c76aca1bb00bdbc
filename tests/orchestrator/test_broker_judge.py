"""The judge and the broker together: a verdict that casts doubt on a document has it fetched once more."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from attest.anchors import VENDORS, Anchors, load_emulated
from attest.binding import NOTHING_PRESENTED
from attest.collateral import CollateralKind, Need
from attest.evidence import Nonce
from attest.policy import shipped
from attest.reasons import CATALOGUE
from attest.result import AttestationResult, Tier
from attest.verify import installed
from nodeprobe.emulator import MODELS, EmulatedGpu, Pki
from nodeprobe.emulator.rim import ManifestDraft, Resource, driver_rim, vbios_rim
from orchestrator import verdicts
from orchestrator.broker import AGAIN_AFTER, CachingBroker, FolderBroker
from orchestrator.collateral_checks import Checker
from orchestrator.outbound import Outbound
from orchestrator.sources import Sources
from orchestrator.store import Store
from orchestrator.verdicts import VerifyingJudge
from tests.orchestrator.vendors import Reply, Vendors, rim_answer, serving
from tests.orchestrator.world import NOON, Clock, empty_database
from tests.orchestrator.world import result as forged

MODEL = MODELS["h100-pcie"]
DRIVER_PATH, VBIOS_PATH = f"/v1/rim/{MODEL.driver_rim_id}", f"/v1/rim/{MODEL.vbios_rim_id}"
NONCE = Nonce(bytes(range(32)))


def of_another_day(draft: ManifestDraft) -> None:
    """Reference values as they were before NVIDIA issued them anew, under the same id."""
    at = next(i for i, each in enumerate(draft.resources) if each.active)
    draft.resources[at] = Resource(draft.resources[at].index, True, ("ab" * 48,))


class Scene:
    def __init__(self, folder: Path, pki: Pki, vendors: Vendors) -> None:
        self.pki, self.vendors, self.clock = pki, vendors, Clock()
        (folder / "registry.sqlite").write_bytes(empty_database())
        self.store = Store(folder / "registry.sqlite")
        self.anchors: Anchors = VENDORS.trusting(load_emulated(pki.anchors.read_bytes()))
        self.gpu = EmulatedGpu.create(pki, "gpu", MODEL)
        self.serve(driver_rim(MODEL, pki), vbios_rim(MODEL, pki))
        broker = CachingBroker(
            FolderBroker(None),
            self.store,
            Checker(self.anchors),
            Sources.of(vendors.urls),
            send=Outbound(monotonic=lambda: self.clock.now.timestamp()).send,
            clock=self.clock,
        )
        self.judge = VerifyingJudge(installed(self.anchors), shipped("lab"), broker, True)

    def serve(self, driver: bytes, vbios: bytes) -> None:
        self.vendors.routes[DRIVER_PATH] = rim_answer(MODEL.driver_rim_id, driver)
        self.vendors.routes[VBIOS_PATH] = rim_answer(MODEL.vbios_rim_id, vbios)

    def verdict(self) -> AttestationResult:
        return self.judge((self.gpu.evidence(NONCE),), NONCE, self.clock.now, NOTHING_PRESENTED)

    def codes(self) -> set[str]:
        return {finding.reason.code for finding in self.verdict().failed}


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki.create(tmp_path_factory.mktemp("nvidia") / "pki", now=NOON)


@pytest.fixture
def scene(tmp_path: Path, pki: Pki) -> Iterator[Scene]:
    with serving() as vendors:
        scene = Scene(tmp_path, pki, vendors)
        with closing(scene.store):
            yield scene


def test_a_node_is_believed_with_what_was_fetched(scene: Scene) -> None:
    assert scene.verdict().tier is Tier.AFFIRMING
    assert scene.verdict().tier is Tier.AFFIRMING
    assert [scene.vendors.count(path) for path in (DRIVER_PATH, VBIOS_PATH)] == [1, 1]


def test_a_rim_that_was_issued_anew_saves_an_honest_node(scene: Scene) -> None:
    scene.serve(driver_rim(MODEL, scene.pki), vbios_rim(MODEL, scene.pki, of_another_day))
    assert scene.codes() == {"measurements-mismatch"}
    scene.serve(driver_rim(MODEL, scene.pki), vbios_rim(MODEL, scene.pki))
    assert scene.codes() == {"measurements-mismatch"}  # fetched this very minute
    scene.clock.forward(AGAIN_AFTER)
    assert scene.verdict().tier is Tier.AFFIRMING
    assert scene.vendors.count(VBIOS_PATH) == 2


def test_a_spoiled_node_costs_one_more_fetch_and_is_refused_all_the_same(scene: Scene) -> None:
    scene.verdict()
    scene.clock.forward(timedelta(hours=1))
    scene.gpu = scene.gpu.spoiled("measurement-changed")
    for _ in range(3):
        assert scene.codes() == {"measurements-mismatch"}
    assert [scene.vendors.count(path) for path in (DRIVER_PATH, VBIOS_PATH)] == [2, 2]


def test_an_outage_at_that_moment_changes_no_verdict(scene: Scene) -> None:
    scene.verdict()
    scene.clock.forward(timedelta(hours=1))
    scene.vendors.routes = {path: Reply(status=500) for path in (DRIVER_PATH, VBIOS_PATH)}
    assert scene.verdict().tier is Tier.AFFIRMING
    scene.gpu = scene.gpu.spoiled("measurement-changed")
    assert scene.codes() == {"measurements-mismatch"}


def test_other_refusals_cost_the_vendor_nothing(scene: Scene) -> None:
    scene.verdict()
    scene.clock.forward(timedelta(hours=1))
    asked = len(scene.vendors.seen)
    scene.gpu = scene.gpu.spoiled("signature-other-key")
    assert scene.verdict().tier is Tier.CONTRAINDICATED
    assert len(scene.vendors.seen) == asked


@pytest.mark.parametrize("status", [404, 500])
def test_a_rim_that_cannot_be_had_postpones(scene: Scene, status: int) -> None:
    scene.vendors.routes[VBIOS_PATH] = Reply(status=status)
    scene.verdict()
    scene.clock.forward(AGAIN_AFTER)
    result = scene.verdict()
    assert scene.vendors.count(DRIVER_PATH) == 1  # nothing is wrong with that one
    assert (result.tier, {finding.reason.code for finding in result.failed}) == (Tier.NONE, {"rim-unavailable"})


@pytest.mark.parametrize(
    ("code", "kinds"),
    [
        ("measurements-mismatch", {"nvidia-rim"}),
        ("rim-signature", {"nvidia-rim"}),
        ("rim-expired", {"nvidia-rim"}),
        ("ocsp-malformed", {"nvidia-ocsp"}),
        ("nras-key-unknown", {"nvidia-nras-jwks"}),
        (
            "tdx-collateral-signature",
            {"intel-tdx-tcb-info", "intel-tdx-qe-identity", "intel-pck-crl", "intel-root-crl"},
        ),
        ("snp-document-untrusted", {"amd-vcek", "amd-issuers", "amd-crl"}),
        ("rim-unavailable", set()),
        ("report-signature", set()),
        ("nonce-mismatch", set()),
    ],
)
def test_what_casts_doubt_on_which_documents(code: str, kinds: set[str]) -> None:
    everything = [Need(kind, "a-name") for kind in CollateralKind]
    doubted = verdicts._doubted(forged(failed=(CATALOGUE[code],)), everything)
    assert {str(need.kind) for need in doubted} == kinds
