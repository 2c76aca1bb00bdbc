"""The broker over a real store and a real server of the vendors' formats; the clock is the test's."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import pytest
from cryptography.x509 import ocsp as x509_ocsp

from attest import ocsp
from attest.anchors import VENDORS, load_emulated
from attest.collateral import CollateralKind, Document, Need
from attest.folder import FolderError
from attest.nvidia.nras_issuer import NRAS_URL
from attest.snp.anchors import load_emulated as load_amd
from attest.tdx.needs import source as intel_source
from nodeprobe.emulator import MODELS, Pki
from nodeprobe.emulator.nras import EmulatedNras
from nodeprobe.emulator.pki import Authority
from nodeprobe.emulator.rim import driver_rim, vbios_rim
from nodeprobe.emulator.snp import EmulatedSnp
from nodeprobe.emulator.snp_pki import SnpPki
from orchestrator import broker as brokers
from orchestrator.broker import CachingBroker, FolderBroker
from orchestrator.cached import Cached, State
from orchestrator.collateral_checks import Checker
from orchestrator.outbound import Outbound
from orchestrator.sources import Sources
from orchestrator.store import Store
from tests.evidence import needs_vectors
from tests.orchestrator.vendors import (
    DAY,
    PATIENCE,
    Reply,
    Seen,
    Vendors,
    closed_port,
    ocsp_answer,
    question_of,
    responder_below,
    rim_answer,
    serving,
)
from tests.orchestrator.world import MICROSECOND, NOON, SECOND, Clock, empty_database
from tests.tdx_world import FOLDER, UP_TO_DATE, recorded_collateral

MODEL = MODELS["h100-pcie"]
DRIVER = Need(CollateralKind.NVIDIA_RIM, MODEL.driver_rim_id)
VBIOS = Need(CollateralKind.NVIDIA_RIM, MODEL.vbios_rim_id)
RIM_PATH = f"/v1/rim/{MODEL.driver_rim_id}"
HOUR = timedelta(hours=1)


@dataclass
class Nvidia:
    """What an emulated NVIDIA has: two RIMs, and answers about one certificate."""

    pki: Pki
    driver: bytes
    vbios: bytes
    responder: Authority
    question: ocsp.Question

    @property
    def ocsp(self) -> Need:
        return Need(CollateralKind.NVIDIA_OCSP, self.question.name)


@pytest.fixture(scope="module")
def nvidia(tmp_path_factory: pytest.TempPathFactory) -> Nvidia:
    pki = Pki.create(tmp_path_factory.mktemp("nvidia") / "pki", now=NOON)
    question = question_of(pki.provisioner.certificate, pki.identity)
    return Nvidia(pki, driver_rim(MODEL, pki), vbios_rim(MODEL, pki), responder_below(pki.identity, NOON), question)


@dataclass
class Scene:
    """A broker, the vendors it asks, and the store it keeps things in."""

    folder: Path
    vendors: Vendors
    nvidia: Nvidia
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.path = self.folder / "registry.sqlite"
        self.path.write_bytes(empty_database())
        self.store = Store(self.path)
        self.checker = Checker(VENDORS.trusting(load_emulated(self.nvidia.pki.anchors.read_bytes())))
        self.vendors.routes[RIM_PATH] = rim_answer(DRIVER.name, self.nvidia.driver)
        self.vendors.routes[f"/v1/rim/{VBIOS.name}"] = rim_answer(VBIOS.name, self.nvidia.vbios)
        self.vendors.routes[self.nvidia.question.name] = self.answers
        self.broker = self.another()

    def answers(self, _seen: Seen) -> Reply:
        return Reply(ocsp_answer(self.nvidia.question.name, self.nvidia.responder, self.clock.now))

    def another(self, *, laid: Path | None = None, fetch: bool = True, url: str = "") -> CachingBroker:
        """A broker over the same store: a replica, or a restart. Its Outbound remembers no outage."""
        sources = Sources.of(dict.fromkeys(self.vendors.urls, url) if url else self.vendors.urls)
        send = Outbound(deadline_seconds=PATIENCE, monotonic=lambda: self.clock.now.timestamp()).send
        return CachingBroker(
            FolderBroker(laid), self.store, self.checker, sources, send=send if fetch else None, clock=self.clock
        )

    def get(self, need: Need) -> Document | None:
        return self.broker.at(self.clock.now)(need)

    def cached(self, need: Need) -> Cached:
        with self.store.reading() as view:
            found = view.collateral(need)
        assert found is not None
        return found

    @property
    def asked(self) -> int:
        return len(self.vendors.seen)

    def outage(self) -> None:
        self.vendors.answer = lambda seen: (self.vendors.seen.append(seen), Reply(status=500))[1]  # type: ignore[method-assign]

    def recovery(self) -> None:
        del self.vendors.answer


@pytest.fixture
def scene(tmp_path: Path, nvidia: Nvidia) -> Iterator[Scene]:
    with serving() as vendors:
        scene = Scene(tmp_path, vendors, nvidia)
        yield scene
        scene.store.close()


# --- folder, cache, vendor --------------------------------------------------------------------------------------------
def test_a_document_is_fetched_once_and_kept(scene: Scene) -> None:
    first, second = scene.get(DRIVER), scene.get(DRIVER)
    assert first is not None
    assert (first.data, first.stale_since) == (scene.nvidia.driver, None)
    assert second == first
    assert scene.asked == 1


def test_a_restart_keeps_the_cache(scene: Scene) -> None:
    scene.get(DRIVER), scene.get(scene.nvidia.ocsp)
    scene.store.close()
    scene.store = Store(scene.path)
    scene.broker = scene.another(fetch=False)
    found = scene.get(DRIVER)
    assert found is not None
    assert found.data == scene.nvidia.driver
    assert scene.get(scene.nvidia.ocsp) is not None
    assert scene.asked == 2


def test_the_folder_comes_first(scene: Scene) -> None:
    scene.broker = scene.another(laid=scene.nvidia.pki.rims)
    (scene.nvidia.pki.rims / f"{DRIVER.name}.xml").write_bytes(scene.nvidia.driver)
    scene.broker.refresh()
    assert scene.get(DRIVER) is not None
    assert scene.asked == 0
    assert scene.get(scene.nvidia.ocsp) is not None
    assert scene.asked == 1


def test_a_folder_broker_has_what_its_folder_has(tmp_path: Path, nvidia: Nvidia) -> None:
    laid = tmp_path / "laid"
    laid.mkdir()
    broker = FolderBroker(laid)
    assert broker.at(NOON)(DRIVER) is None
    (laid / f"{DRIVER.name}.xml").write_bytes(nvidia.driver)
    broker.refresh()
    assert broker.at(NOON)(DRIVER) == Document.of(nvidia.driver)
    assert broker.renew([DRIVER]) is False
    with pytest.raises(FolderError):
        FolderBroker(tmp_path / "absent")


def test_without_fetching_nothing_leaves(scene: Scene) -> None:
    scene.broker = scene.another(fetch=False)
    assert scene.get(DRIVER) is None
    assert scene.broker.renew([DRIVER]) is False
    scene.broker.refresh()
    list(scene.broker.warm([DRIVER]))
    assert scene.asked == 0
    assert "switched off" in scene.cached(DRIVER).error  # so that `list` says what is to be imported


def test_what_no_vendor_has_is_asked_of_nobody(scene: Scene) -> None:
    need = Need(CollateralKind.INTEL_QE_IDENTITY, "TD_QE@0123456789abcdef")
    assert scene.get(need) is None
    assert scene.asked == 0
    assert scene.cached(need).state(NOON) is State.MISSING


def test_a_document_that_the_disk_changed_is_as_good_as_absent(scene: Scene) -> None:
    import sqlite3

    scene.get(DRIVER)
    with sqlite3.connect(scene.path) as database:
        database.execute("UPDATE collateral SET data = ?", (scene.nvidia.vbios,))
    database.close()
    scene.broker = scene.another()
    found = scene.get(DRIVER)
    assert found is not None
    assert found.data == scene.nvidia.driver
    assert scene.asked == 2


# --- checked before it is cached --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("absent", "has no"),
        ("error", "500"),
        ("redirect", "redirects"),
        ("wrong id", "instead of"),
        ("wrong sha256", "SHA-256"),
        ("edited", "rim-"),
        ("another version", "version"),
        ("oversize", "more than"),
        ("no json", "no answer of a RIM service"),
        ("another root", "rim-chain"),
    ],
)
def test_a_bad_rim_is_not_cached(scene: Scene, tmp_path: Path, fault: str, told: str) -> None:
    nvidia = scene.nvidia
    edited = nvidia.driver.replace(b'alternatives="1"', b'alternatives="2"', 1)
    assert edited != nvidia.driver
    other = Pki.create(tmp_path / "other", now=NOON)
    scene.vendors.routes[RIM_PATH] = {
        "absent": Reply(status=404),
        "error": Reply(status=500),
        "redirect": Reply(status=302, headers={"location": "http://169.254.169.254/"}),
        "wrong id": rim_answer(VBIOS.name, nvidia.driver),
        "wrong sha256": rim_answer(DRIVER.name, nvidia.driver, sha256="00" * 32),
        "edited": rim_answer(DRIVER.name, edited),
        "another version": rim_answer(DRIVER.name, nvidia.vbios),
        "oversize": Reply(bytes(2 << 20)),
        "no json": Reply(b"<html>sign in first</html>"),
        "another root": rim_answer(DRIVER.name, driver_rim(MODEL, other)),
    }[fault]
    assert scene.get(DRIVER) is None
    cached = scene.cached(DRIVER)
    assert (cached.document, cached.failures) == (None, 1)
    assert told in cached.error


def test_a_bad_answer_replaces_no_good_document(scene: Scene) -> None:
    scene.get(DRIVER)
    scene.vendors.routes[RIM_PATH] = rim_answer(DRIVER.name, scene.nvidia.vbios)
    scene.clock.forward(DAY)
    found = scene.get(DRIVER)
    assert found is not None
    assert (found.data, found.stale_since) == (scene.nvidia.driver, NOON + DAY)


@pytest.mark.parametrize("spoiled", ["stale", "another", "future", "none"])
def test_a_bad_answer_about_revocation_is_not_cached(scene: Scene, spoiled: str) -> None:
    name, responder = scene.nvidia.question.name, scene.nvidia.responder
    hashed, key, serial = name.split(":")
    scene.vendors.routes[name] = {
        "stale": Reply(ocsp_answer(name, responder, NOON - DAY)),  # it ran out this very moment
        "another": Reply(ocsp_answer(f"{hashed}:{key}:{int(serial, 16) + 1:x}", responder, NOON)),
        "future": Reply(ocsp_answer(name, responder, NOON, begins=HOUR)),
        "none": Reply(b"\x30\x03\x0a\x01\x06"),  # unauthorized
    }[spoiled]
    assert scene.get(scene.nvidia.ocsp) is None


def test_an_answer_that_says_revoked_is_cached_as_any_other(scene: Scene) -> None:
    name = scene.nvidia.question.name
    revoked = ocsp_answer(name, scene.nvidia.responder, NOON, status=x509_ocsp.OCSPCertStatus.REVOKED)
    scene.vendors.routes[name] = Reply(revoked)
    found = scene.get(scene.nvidia.ocsp)
    assert found is not None
    answer = ocsp.read(found.data, scene.nvidia.question, scene.nvidia.pki.identity.certificate)
    assert answer.status is ocsp.Status.REVOKED


def test_an_answer_of_before_a_revocation_does_not_take_its_place(scene: Scene) -> None:
    name, responder = scene.nvidia.question.name, scene.nvidia.responder
    before = ocsp_answer(name, responder, NOON)
    revoked = ocsp_answer(name, responder, NOON + HOUR, status=x509_ocsp.OCSPCertStatus.REVOKED)
    scene.clock.forward(HOUR)
    scene.vendors.routes[name] = Reply(revoked)
    scene.get(scene.nvidia.ocsp)
    scene.vendors.routes[name] = Reply(before)  # a mirror, or a cache on the way, that lags behind
    scene.clock.forward(13 * HOUR)
    scene.broker.refresh()
    found = scene.get(scene.nvidia.ocsp)
    assert found is not None
    assert found.data == revoked
    assert scene.asked == 2
    assert "older than what we have" in scene.cached(scene.nvidia.ocsp).error


# --- how long it is fresh, and what then ------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["rim", "ocsp"])
def test_a_document_is_fresh_until_its_very_end(scene: Scene, kind: str) -> None:
    need = DRIVER if kind == "rim" else scene.nvidia.ocsp
    scene.get(need)
    scene.outage()
    scene.clock.forward(DAY - MICROSECOND)
    found = scene.get(need)
    assert found is not None
    assert found.stale_since is None
    assert scene.asked == 1
    scene.clock.forward(MICROSECOND)
    found = scene.get(need)
    assert found is not None
    assert found.stale_since == NOON + DAY
    assert scene.asked == 2


def test_an_outage_expels_nobody_and_freshens_nothing(scene: Scene) -> None:
    """However long it lasts: the same document, and the same moment since when it is stale."""
    fetched = scene.get(scene.nvidia.ocsp)
    assert fetched is not None
    scene.outage()
    for days in (1, 2, 30):
        scene.clock.now = NOON + days * DAY
        found = scene.get(scene.nvidia.ocsp)
        assert found is not None
        assert (found.sha256, found.stale_since) == (fetched.sha256, NOON + DAY)
    scene.recovery()
    scene.clock.forward(HOUR)
    found = scene.get(scene.nvidia.ocsp)
    assert found is not None
    assert found.stale_since is None
    assert found.sha256 != fetched.sha256


def test_a_restart_during_an_outage_knows_since_when(scene: Scene) -> None:
    scene.get(DRIVER)
    scene.clock.forward(2 * DAY)
    scene.broker = scene.another(url=f"http://127.0.0.1:{closed_port()}")
    found = scene.get(DRIVER)
    assert found is not None
    assert found.stale_since == NOON + DAY
    assert "cannot be reached" in scene.cached(DRIVER).error
    assert scene.cached(DRIVER).state(scene.clock.now) is State.STALE


def test_a_verification_of_the_past_sees_what_was_fresh_then(scene: Scene) -> None:
    scene.get(DRIVER)
    scene.clock.forward(2 * DAY)
    scene.outage()
    found = scene.broker.at(NOON)(DRIVER)
    assert found is not None
    assert found.stale_since is None


# --- the other vendors ------------------------------------------------------------------------------------------------
def test_amds_documents_and_nras_keys_are_fetched(scene: Scene, tmp_path: Path) -> None:
    snp = EmulatedSnp.create(SnpPki.create(tmp_path / "amd", now=NOON), "chip", now=NOON)
    amd, jwks = snp.documents(), EmulatedNras.create(now=NOON).jwks()
    scene.vendors.routes |= {f"/{path}": Reply(body) for path, body in amd.items()}
    scene.vendors.routes["/.well-known/jwks.json"] = Reply(jwks)
    scene.checker = Checker(replace(VENDORS, amd_ark=load_amd(snp.pki.anchors.read_bytes())))
    scene.broker = scene.another()
    kinds = {"cert_chain": CollateralKind.AMD_ISSUERS, "crl": CollateralKind.AMD_CRL}
    for path, body in amd.items():
        need = Need(kinds.get(path.rsplit("/", 1)[-1], CollateralKind.AMD_VCEK), path)
        assert scene.get(need) == Document.of(body)
        assert scene.get(need) == Document.of(body)
    keys = Need(CollateralKind.NVIDIA_NRAS_JWKS, NRAS_URL)
    assert scene.get(keys) == Document.of(jwks)
    assert scene.asked == 4
    scene.clock.forward(HOUR)
    scene.outage()
    found = scene.get(keys)
    assert found is not None
    assert found.stale_since == NOON + HOUR
    scene.clock.forward(1000 * DAY)
    for path in amd:
        if "SPL" in path:  # of one chip and one firmware: nothing about it will ever change
            found = scene.get(Need(CollateralKind.AMD_VCEK, path))
            assert found is not None
            assert found.stale_since is None


@needs_vectors
def test_intels_documents_are_fetched_with_their_issuer_chain(scene: Scene) -> None:
    """As Intel really signed them."""
    at = UP_TO_DATE["up-to-date-v4"]
    scene.clock.now = at
    bundle = json.loads((FOLDER / "up-to-date-v4" / "collateral.json").read_bytes())
    documents = recorded_collateral("up-to-date-v4")
    inner = {"tcb_info": "tcbInfo", "qe_identity": "enclaveIdentity"}
    bodies = {
        name: f'{{"{member}":{bundle[name]},"signature":"{bundle[name + "_signature"]}"}}'.encode()
        for name, member in inner.items()
    }
    served = {
        CollateralKind.INTEL_TCB_INFO: (bodies["tcb_info"], "TCB-Info-Issuer-Chain", "tcb_info_issuer_chain"),
        CollateralKind.INTEL_QE_IDENTITY: (
            bodies["qe_identity"],
            "SGX-Enclave-Identity-Issuer-Chain",
            "qe_identity_issuer_chain",
        ),
        CollateralKind.INTEL_PCK_CRL: (
            bytes.fromhex(bundle["pck_crl"]),
            "SGX-PCK-CRL-Issuer-Chain",
            "pck_crl_issuer_chain",
        ),
        CollateralKind.INTEL_ROOT_CRL: (bytes.fromhex(bundle["root_ca_crl"]), "", ""),
    }
    for need, document in documents.items():
        where = intel_source(need)
        assert where is not None
        body, header, chain = served[need.kind]
        scene.vendors.routes[where.path] = Reply(body, headers={header: quote(bundle[chain])} if header else {})
        assert scene.get(need) == document
        assert scene.cached(need).error == ""
    assert scene.asked == 4


# --- negative answers -------------------------------------------------------------------------------------------------
def test_what_is_not_there_is_asked_for_again_after_ten_minutes(scene: Scene) -> None:
    route = scene.vendors.routes.pop(RIM_PATH)
    assert scene.get(DRIVER) is None
    scene.vendors.routes[RIM_PATH] = route
    scene.clock.forward(timedelta(minutes=10) - MICROSECOND)
    assert scene.get(DRIVER) is None
    assert scene.another().at(scene.clock.now)(DRIVER) is None  # a replica knows it, too
    assert scene.asked == 1
    scene.clock.forward(MICROSECOND)
    assert scene.get(DRIVER) is not None
    assert scene.cached(DRIVER).error == ""


def test_a_failure_is_tried_again_ever_later(scene: Scene) -> None:
    scene.outage()
    waits = []
    for tried in range(1, 7):
        scene.get(DRIVER)
        assert scene.asked == tried
        cached = scene.cached(DRIVER)
        assert cached.retry_at is not None
        waits.append((cached.retry_at - scene.clock.now).total_seconds())
        scene.clock.now = cached.retry_at - MICROSECOND
        scene.get(DRIVER)
        assert scene.asked == tried
        scene.clock.forward(MICROSECOND)
    assert waits == [30, 60, 120, 240, 300, 300]


def test_a_service_that_is_down_costs_one_try_for_all_documents(scene: Scene) -> None:
    scene.vendors.raw = lambda handler: handler.connection.close()
    tries: list[object] = []
    scene.vendors.raw = lambda handler: (tries.append(handler), handler.connection.close())[0]
    for number in range(20):
        assert scene.get(Need(CollateralKind.NVIDIA_RIM, f"NV_X_{number}")) is None
    assert len(tries) == 1


# --- all who ask at once ----------------------------------------------------------------------------------------------
def test_many_threads_cause_one_fetch(scene: Scene) -> None:
    arrived, go_on = threading.Event(), threading.Event()

    def slowly(_seen: Seen) -> Reply:
        arrived.set()
        go_on.wait(PATIENCE)
        return rim_answer(DRIVER.name, scene.nvidia.driver)

    scene.vendors.routes[RIM_PATH] = slowly
    found: list[Document | None] = []
    threads = [threading.Thread(target=lambda: found.append(scene.get(DRIVER))) for _ in range(16)]
    for thread in threads:
        thread.start()
    assert arrived.wait(PATIENCE)
    other = scene.get(VBIOS)  # nobody waits for another document
    assert other is not None
    go_on.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert scene.vendors.count(RIM_PATH) == 1
    assert len(found) == 16
    assert {each.sha256 for each in found if each is not None} == {Document.of(scene.nvidia.driver).sha256}


def test_a_bug_in_one_fetch_blocks_no_other(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(brokers, "document_of", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            scene.get(DRIVER)
    assert scene.get(DRIVER) is not None


# --- renewal ----------------------------------------------------------------------------------------------------------
def test_a_document_in_use_is_renewed_before_it_runs_out(scene: Scene) -> None:
    scene.get(scene.nvidia.ocsp), scene.get(DRIVER)
    scene.broker.refresh()
    assert scene.asked == 2
    scene.clock.forward(12 * HOUR)
    scene.broker.refresh()
    assert scene.asked == 3  # the answer: at half of its life
    scene.clock.forward(6 * HOUR)
    scene.broker.refresh()
    assert scene.asked == 4
    scene.clock.forward(7 * HOUR)  # beyond what was fetched first
    scene.outage()
    for need in (DRIVER, scene.nvidia.ocsp):
        found = scene.get(need)
        assert found is not None
        assert found.stale_since is None


def test_what_did_not_change_is_not_sent_again(scene: Scene) -> None:
    reply = rim_answer(DRIVER.name, scene.nvidia.driver)

    def answer(seen: Seen) -> Reply:
        unchanged = seen.headers.get("if-none-match") == reply.headers["etag"]
        return Reply(status=304, headers=reply.headers) if unchanged else reply

    scene.vendors.routes[RIM_PATH] = answer
    for _ in range(3):
        found = scene.get(DRIVER)
        assert found is not None
        assert (found.data, found.stale_since) == (scene.nvidia.driver, None)
        scene.clock.forward(DAY)
    assert [seen.headers.get("if-none-match") for seen in scene.vendors.seen] == [None, *[reply.headers["etag"]] * 2]


def test_what_nobody_uses_is_not_renewed(scene: Scene) -> None:
    scene.get(DRIVER)
    scene.broker.refresh()
    scene.clock.forward(brokers.USED_WITHIN + SECOND)
    scene.broker.refresh()
    assert scene.asked == 1


def test_a_failing_renewal_is_told_and_tried_again(scene: Scene) -> None:
    scene.get(DRIVER)
    scene.outage()
    scene.clock.forward(18 * HOUR)
    scene.broker.refresh()
    assert scene.cached(DRIVER).state(scene.clock.now) is State.FAILING
    scene.broker.refresh()
    assert scene.asked == 2
    scene.recovery()
    scene.clock.forward(timedelta(seconds=30))
    scene.broker.refresh()
    assert scene.cached(DRIVER).state(scene.clock.now) is State.FRESH


def test_a_renewal_takes_only_so_long(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    needs = [DRIVER, VBIOS, scene.nvidia.ocsp]
    for need in needs:
        scene.get(need)
    scene.clock.forward(20 * HOUR)
    ticking = itertools.count(0.0, brokers.RENEWING_SECONDS / 2)
    monkeypatch.setattr(brokers.time, "monotonic", lambda: next(ticking))
    scene.broker = CachingBroker(
        FolderBroker(None),
        scene.store,
        scene.checker,
        Sources.of(scene.vendors.urls),
        send=Outbound(monotonic=lambda: 0.0).send,
        clock=scene.clock,
    )
    scene.broker.refresh()
    assert scene.asked == len(needs) + 1


def test_a_replica_sees_what_another_fetched_within_one_refresh(scene: Scene) -> None:
    replica = scene.another()
    scene.vendors.routes[RIM_PATH] = Reply(status=404)
    assert replica.at(NOON)(DRIVER) is None
    scene.vendors.routes[RIM_PATH] = rim_answer(DRIVER.name, scene.nvidia.driver)
    scene.clock.forward(timedelta(minutes=11))
    assert scene.get(DRIVER) is not None
    replica.refresh()
    asked = scene.asked
    assert replica.at(scene.clock.now)(DRIVER) is not None
    assert scene.asked == asked


def test_what_was_never_had_is_forgotten_and_the_cache_has_a_bound(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(brokers, "KEPT_MAX", 2)
    absent = [Need(CollateralKind.NVIDIA_RIM, f"NV_X_{number}") for number in range(5)]
    for need in absent:
        scene.get(need)
        scene.clock.forward(SECOND)
    scene.clock.forward(HOUR)
    scene.get(DRIVER)
    scene.clock.forward(SECOND)
    scene.get(VBIOS)
    scene.broker.refresh()
    with scene.store.reading() as view:
        assert {each.need for each in view.all_collateral()} >= {DRIVER, VBIOS}
    scene.clock.forward(2 * DAY)
    scene.broker.refresh()
    with scene.store.reading() as view:
        assert {each.need for each in view.all_collateral()} == {DRIVER, VBIOS}


# --- doubts -----------------------------------------------------------------------------------------------------------
def test_a_document_in_doubt_is_fetched_again_and_only_so_often(scene: Scene) -> None:
    scene.get(DRIVER)
    assert scene.broker.renew([DRIVER]) is False
    assert scene.asked == 1  # it was fetched this very minute
    scene.clock.forward(brokers.AGAIN_AFTER)
    assert scene.broker.renew([DRIVER]) is False  # the vendor says the same
    assert scene.asked == 2
    anew = driver_rim(MODEL, scene.nvidia.pki)  # signed anew: ECDSA has a random part
    assert anew != scene.nvidia.driver
    scene.vendors.routes[RIM_PATH] = rim_answer(DRIVER.name, anew)
    assert scene.broker.renew([DRIVER]) is False
    scene.clock.forward(brokers.AGAIN_AFTER)
    assert scene.broker.renew([DRIVER]) is True
    found = scene.get(DRIVER)
    assert found is not None
    assert found.data == anew


def test_doubts_cost_nobody_his_document(scene: Scene) -> None:
    """Evidence can be made up: what raises doubts must not take from others what they rest on."""
    scene.get(DRIVER)
    scene.clock.forward(HOUR)
    scene.outage()
    assert scene.broker.renew([DRIVER]) is False
    found = scene.get(DRIVER)
    assert found is not None
    assert found.stale_since is None
    assert scene.broker.renew([VBIOS]) is False  # what we never had is in no doubt
    assert scene.asked == 2


# --- for operators ----------------------------------------------------------------------------------------------------
def test_warm_fetches_what_is_absent_stale_or_due_and_tries_failures_again(scene: Scene) -> None:
    scene.get(DRIVER)
    scene.vendors.routes.pop(f"/v1/rim/{VBIOS.name}")
    needs = [DRIVER, VBIOS, scene.nvidia.ocsp]
    states = {each.need: each.state(NOON) for each in scene.broker.warm(needs)}
    assert states == {DRIVER: State.FRESH, VBIOS: State.MISSING, scene.nvidia.ocsp: State.FRESH}
    assert scene.asked == 3
    scene.vendors.routes[f"/v1/rim/{VBIOS.name}"] = rim_answer(VBIOS.name, scene.nvidia.vbios)
    assert {each.state(NOON) for each in scene.broker.warm(needs)} == {State.FRESH}
    assert scene.asked == 4
    assert set(scene.broker.wanted()) == set(needs)


def test_a_stale_document_in_the_folder_is_better_than_none_and_worse_than_a_fresh_one(
    scene: Scene, tmp_path: Path
) -> None:
    from orchestrator.collateral_folder import export_to

    scene.get(DRIVER)
    with scene.store.reading() as view:
        export_to(tmp_path / "laid", view.all_collateral(), NOON)
    scene.clock.forward(2 * DAY)
    with scene.store.transaction() as tx:
        tx.put_collateral(Cached(DRIVER, NOON))
    scene.broker = scene.another(laid=tmp_path / "laid")
    scene.outage()
    found = scene.get(DRIVER)
    assert found is not None
    assert found.stale_since == NOON + DAY
    scene.recovery()
    scene.clock.forward(HOUR)
    found = scene.get(DRIVER)
    assert found is not None
    assert found.stale_since is None


def test_a_fetch_for_everything_that_attest_may_ask_for(scene: Scene) -> None:
    """Kinds and names of any sort are answered, never raised."""
    for kind in CollateralKind:
        for name in ("", "x", "\0", "a" * 1000, "../..", "ü"):
            assert scene.get(Need(kind, name)) is None
    assert scene.asked == 0
