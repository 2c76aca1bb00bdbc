"""`orchestrator collateral`, and that `attest verify` reads what it exports."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from attest.anchors import VENDORS, load_emulated
from attest.collateral import CollateralKind, Document, Need
from attest.evidence import Nonce, dumps
from attest.folder import Folder, FolderError
from attest.manifest import MANIFEST, Entry, ManifestError, parse
from attest.manifest import dumps as manifest
from nodeprobe.emulator import MODELS, EmulatedGpu, Pki
from nodeprobe.emulator.rim import driver_rim, vbios_rim
from orchestrator.__main__ import main
from orchestrator.broker import FolderBroker
from orchestrator.cached import Cached
from orchestrator.collateral_checks import Checker
from orchestrator.collateral_folder import Outcome, export_to, import_from
from orchestrator.store import Store
from tests.orchestrator.vendors import (
    DAY,
    Reply,
    Vendors,
    ocsp_answer,
    question_of,
    responder_below,
    rim_answer,
    serving,
)
from tests.orchestrator.world import SECOND, empty_database

MODEL = MODELS["h100-pcie"]
NOW = datetime.now(UTC).replace(microsecond=0)
DRIVER = Need(CollateralKind.NVIDIA_RIM, MODEL.driver_rim_id)
VBIOS = Need(CollateralKind.NVIDIA_RIM, MODEL.vbios_rim_id)
NONCE = Nonce(bytes(range(32)))


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki.create(tmp_path_factory.mktemp("nvidia") / "pki", now=NOW)


@pytest.fixture
def vendors(pki: Pki) -> Iterator[Vendors]:
    with serving() as vendors:
        question = question_of(pki.provisioner.certificate, pki.identity).name
        responder = responder_below(pki.identity, NOW)
        vendors.routes = {
            f"/v1/rim/{DRIVER.name}": rim_answer(DRIVER.name, driver_rim(MODEL, pki)),
            f"/v1/rim/{VBIOS.name}": rim_answer(VBIOS.name, vbios_rim(MODEL, pki)),
            question: lambda _: Reply(ocsp_answer(question, responder, NOW)),
        }
        yield vendors


@pytest.fixture
def state(tmp_path: Path) -> Path:
    state = tmp_path / "state"
    state.mkdir()
    (state / "registry.sqlite").write_bytes(empty_database())
    return state


def ocsp_need(pki: Pki) -> Need:
    return Need(CollateralKind.NVIDIA_OCSP, question_of(pki.provisioner.certificate, pki.identity).name)


def invoke(state: Path, command: str, *arguments: Any) -> Result:
    return CliRunner().invoke(main, ["collateral", command, *map(str, arguments), "--state", str(state)])


def warm(state: Path, pki: Pki, url: str, *arguments: Any) -> Result:
    """With `url` as everybody's mirror, and OCSP asked for before, so that the fleet wants it."""
    with_ocsp = Store(state / "registry.sqlite")
    with with_ocsp.transaction() as tx:
        if tx.collateral(ocsp_need(pki)) is None:
            tx.put_collateral(Cached(ocsp_need(pki), NOW))
    with_ocsp.close()
    mirrors = [part for name in ("rim", "ocsp", "nras", "intel-pcs", "amd-kds") for part in (f"--{name}-url", url)]
    return invoke(state, "warm", DRIVER.name, VBIOS.name, "--trust-root", pki.anchors, *mirrors, *arguments)


# --- list and warm ----------------------------------------------------------------------------------------------------
def test_warm_fetches_and_list_tells(state: Path, pki: Pki, vendors: Vendors) -> None:
    done = warm(state, pki, vendors.url, "--json")
    assert done.exit_code == 0, done.output
    assert {each["state"] for each in json.loads(done.stdout)["collateral"]} == {"fresh"}
    asked = len(vendors.seen)
    assert warm(state, pki, vendors.url).exit_code == 0
    assert len(vendors.seen) == asked  # all of it is fresh

    listed = json.loads(invoke(state, "list", "--json").stdout)["collateral"]
    assert [(each["kind"], each["name"]) for each in listed] == sorted(
        [("nvidia-ocsp", ocsp_need(pki).name), ("nvidia-rim", DRIVER.name), ("nvidia-rim", VBIOS.name)]
    )
    heading, *rows = invoke(state, "list").stdout.splitlines()
    assert heading.split("\t") == ["KIND", "NAME", "AGE", "EXPIRES", "STATE", "LAST ERROR"]
    assert [row.split("\t")[3:5] for row in rows] == [["in 23h", "fresh"]] * 3
    assert invoke(state, "list", "--quiet").stdout.splitlines() == [f"{each['kind']} {each['name']}" for each in listed]


def test_warm_says_what_it_could_not_fetch(state: Path, pki: Pki, vendors: Vendors) -> None:
    del vendors.routes[f"/v1/rim/{VBIOS.name}"]
    done = warm(state, pki, vendors.url, "--json")
    assert done.exit_code == 1
    states = {each["name"]: (each["state"], each["error"]) for each in json.loads(done.stdout)["collateral"]}
    assert states[DRIVER.name] == ("fresh", None)
    assert states[VBIOS.name][0] == "missing"
    assert "has no" in states[VBIOS.name][1]
    assert "Traceback" not in done.output


def test_warm_fetches_what_the_workers_rest_on(state: Path, pki: Pki, vendors: Vendors, tmp_path: Path) -> None:
    """From the last verdict on each worker: what it rested on then came from elsewhere."""
    from tests.orchestrator.world import IP, World, verdict

    world = World(tmp_path)
    world.register()
    with world.store.transaction() as tx:
        worker = tx.worker_at(IP)
        assert worker is not None
        tx.add_verdict(worker, verdict(), {"nvidia-rim NV_OLD_1": "00"}, applied=True)
        tx.add_verdict(worker, verdict(), {str(DRIVER): "00", "device root": "00", "x y": "00"}, applied=True)
        tx.add_verdict(worker, verdict(), {}, applied=True)
        tx.add_verdict(replace(worker, id="gone"), verdict(), {str(VBIOS): "00"}, applied=True)
        assert tx.wanted_collateral(NOW) == {DRIVER}
    world.store.close()


def test_where_there_is_no_registry_nothing_is_made(tmp_path: Path) -> None:
    for command, *arguments in (["list"], ["warm"], ["export", tmp_path / "out"]):
        done = invoke(tmp_path / "absent", command, *arguments)
        assert done.exit_code == 1
        assert "no registry" in done.output
    assert not (tmp_path / "absent").exists()


@pytest.mark.parametrize(
    ("option", "value", "word"),
    [
        ("--rim-url", "http://rim.example.com", "https"),
        ("--ocsp-url", "https://169.254.169.254", "no address to go to"),
        ("--mirror-range", "10.0.0.0/99", "--mirror-range"),
        ("--trust-root", "/nonexistent", "--trust-root"),
        ("--collateral", "/nonexistent", "--collateral"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(state: Path, option: str, value: str, word: str) -> None:
    done = invoke(state, "warm", option, value)
    assert done.exit_code == 1
    assert word in done.output
    assert "Traceback" not in done.output


# --- export and import ------------------------------------------------------------------------------------------------
@pytest.fixture
def exported(state: Path, pki: Pki, vendors: Vendors, tmp_path: Path) -> Path:
    assert warm(state, pki, vendors.url).exit_code == 0
    folder = tmp_path / "exported"
    done = invoke(state, "export", folder, "--json")
    assert done.exit_code == 0, done.output
    assert len(json.loads(done.stdout)["documents"]) == 3
    return folder


def into(folder: Path, state: Path, pki: Pki) -> tuple[int, dict[str, tuple[str, str]]]:
    """Exit status, and by name what became of each."""
    done = invoke(state, "import", folder, "--trust-root", pki.anchors, "--json")
    assert "Traceback" not in done.output
    told = json.loads(done.stdout)["documents"] if done.stdout else []
    return done.exit_code, {each["name"]: (each["outcome"], each["why"]) for each in told}


def test_what_is_exported_is_imported_elsewhere(exported: Path, pki: Pki, tmp_path: Path) -> None:
    elsewhere = tmp_path / "deep" / "elsewhere"
    status, told = into(exported, elsewhere, pki)
    assert status == 0
    assert {outcome for outcome, _ in told.values()} == {"imported"}
    both = [json.loads(invoke(each, "list", "--json").stdout) for each in (exported.parent / "state", elsewhere)]
    for listed in both:
        for each in listed["collateral"]:
            for name in ("renew_at", "retry_at"):  # an answer's half-life counts from when its end was learned
                each.pop(name)
    assert both[0] == both[1]
    assert into(exported, elsewhere, pki)[1].keys() == told.keys()
    assert {outcome for outcome, _ in into(exported, elsewhere, pki)[1].values()} == {"kept"}


def test_an_import_into_a_registry_in_use_is_seen(exported: Path, pki: Pki, tmp_path: Path) -> None:
    from tests.orchestrator.test_broker import CachingBroker, Sources

    (tmp_path / "used").mkdir()
    store = Store(tmp_path / "used" / "registry.sqlite")
    checker = Checker(VENDORS.trusting(load_emulated(pki.anchors.read_bytes())))
    broker = CachingBroker(FolderBroker(None), store, checker, Sources.of({}), send=None, clock=lambda: NOW)
    assert broker.at(NOW)(DRIVER) is None
    assert into(exported, tmp_path / "used", pki)[0] == 0
    broker.refresh()
    assert broker.at(NOW)(DRIVER) is not None
    store.close()


@pytest.mark.parametrize(
    "fault", ["edited", "swapped", "missing", "another kind", "from the future", "of another root", "half a file"]
)
def test_a_bad_document_is_refused_and_the_others_are_taken(
    exported: Path, pki: Pki, tmp_path: Path, fault: str
) -> None:
    path = exported / f"{DRIVER.name}.xml"
    entries = parse((exported / MANIFEST).read_bytes())
    entry = entries[DRIVER]
    good = path.read_bytes()
    if fault == "edited":  # and the manifest with it: it is the vendor's signature that counts
        path.write_bytes(good.replace(b'alternatives="1"', b'alternatives="2"', 1))
    elif fault == "of another root":
        path.write_bytes(driver_rim(MODEL, Pki.create(tmp_path / "other", now=NOW)))
    elif fault == "swapped":
        entry = replace(entry, file=f"{VBIOS.name}.xml")
    elif fault == "missing":
        path.unlink()
    elif fault == "another kind":
        entry = replace(entry, need=Need(CollateralKind.AMD_CRL, "vcek/v1/Milan/crl"))
    elif fault == "from the future":
        entry = replace(entry, fetched_at=NOW + DAY)
    elif fault == "half a file":
        path.write_bytes(good[: len(good) // 2])
    file = exported / entry.file
    if file.exists() and fault != "half a file":
        entry = replace(entry, sha256=Document.of(file.read_bytes()).sha256)
    del entries[DRIVER]
    entries[entry.need] = entry
    (exported / MANIFEST).write_bytes(manifest(entries.values(), NOW))
    status, told = into(exported, tmp_path / "elsewhere", pki)
    assert status == 1
    assert told[entry.need.name][0] == "refused"
    assert told[entry.need.name][1]
    assert told[VBIOS.name] == ("imported", "")
    listed = json.loads(invoke(tmp_path / "elsewhere", "list", "--json").stdout)["collateral"]
    assert entry.need.name not in {each["name"] for each in listed}


def test_a_newer_document_is_kept_and_an_older_one_replaced(exported: Path, pki: Pki, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    assert into(exported, elsewhere, pki)[0] == 0
    entries = parse((exported / MANIFEST).read_bytes())
    for by, outcome in ((-SECOND, "kept"), (SECOND, "imported")):
        moved = [replace(entry, fetched_at=entry.fetched_at + by) for entry in entries.values()]
        (exported / MANIFEST).write_bytes(manifest(moved, NOW))
        status, told = into(exported, elsewhere, pki)
        assert (status, {each for each, _ in told.values()}) == (0, {outcome})


def test_nothing_is_half_done(exported: Path, pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure in the midst of it leaves the cache as it was."""
    from orchestrator import store as stores

    store = Store(tmp_path / "registry.sqlite")
    put = stores.Tx.put_collateral
    puts: list[Cached] = []

    def fails(tx: Any, cached: Cached) -> None:
        puts.append(cached)
        if len(puts) == 2:
            raise ZeroDivisionError
        put(tx, cached)

    monkeypatch.setattr(stores.Tx, "put_collateral", fails)
    checker = Checker(VENDORS.trusting(load_emulated(pki.anchors.read_bytes())))
    with pytest.raises(ZeroDivisionError):
        import_from(exported, store, checker, NOW)
    with store.reading() as view:
        assert list(view.all_collateral()) == []
    monkeypatch.undo()
    assert {each.outcome for each in import_from(exported, store, checker, NOW)} == {Outcome.IMPORTED}
    store.close()


def test_an_export_is_renewed_in_place(exported: Path, state: Path, pki: Pki) -> None:
    before = {path.name for path in exported.iterdir()}
    assert f"{DRIVER.name}.xml" in before
    with_less = Store(state / "registry.sqlite")
    with with_less.transaction() as tx:
        tx.put_collateral(Cached(DRIVER, NOW))
    with_less.close()
    assert invoke(state, "export", exported).exit_code == 0
    assert {path.name for path in exported.iterdir()} == before - {f"{DRIVER.name}.xml"}


def test_an_export_goes_into_no_folder_of_other_things(exported: Path, state: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.doc").touch()
    (tmp_path / "file").touch()
    for folder in (other, tmp_path / "file"):
        done = invoke(state, "export", folder)
        assert done.exit_code in (1, 2)
        assert "Traceback" not in done.output
    assert [path.name for path in other.iterdir()] == ["thesis.doc"]


@pytest.mark.parametrize("content", [None, b"", b"{}", b"[]", b"\xff", b'{"format":"workermanager/collateral/v1"}'])
def test_what_is_no_export_is_not_imported(tmp_path: Path, pki: Pki, content: bytes | None) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    if content is not None:
        (folder / MANIFEST).write_bytes(content)
    assert into(folder, tmp_path / "state", pki) == (1, {})


# --- the folder, as attest reads it -----------------------------------------------------------------------------------
def verify(folder: Path, pki: Pki, evidence: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "attest", "verify", "--json", "--policy", "lab", "--nonce", NONCE.hex()),
            *("--trust-root", str(pki.anchors), "--collateral", str(folder), *arguments, str(evidence)),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)


def test_attest_verifies_with_what_was_exported(exported: Path, pki: Pki, tmp_path: Path) -> None:
    evidence = tmp_path / "evidence.json"
    evidence.write_bytes(dumps((EmulatedGpu.create(pki, "gpu", MODEL).evidence(NONCE),)))
    status, verdict = verify(exported, pki, evidence)
    assert (status, verdict["status"]) == (0, "accepted"), verdict
    (exported / f"{DRIVER.name}.xml").unlink()
    status, verdict = verify(exported, pki, evidence)
    assert (status, verdict["status"]) == (10, "refused")


def test_documents_of_every_kind_are_read_and_marked_once_they_are_stale(tmp_path: Path) -> None:
    entries = []
    for number, kind in enumerate(CollateralKind):
        document = Document.of(str(kind).encode())
        (tmp_path / f"{number}.bin").write_bytes(document.data)
        entries.append(Entry(Need(kind, "a-name"), f"{number}.bin", document.sha256, NOW, NOW + DAY))
    (tmp_path / MANIFEST).write_bytes(manifest(entries, NOW))
    folder = Folder(tmp_path)
    for entry in entries:
        expected = Document.of(str(entry.need.kind).encode())
        assert folder.at(NOW + DAY - SECOND)(entry.need) == expected
        assert folder.at(NOW + DAY)(entry.need) == replace(expected, stale_since=NOW + DAY)
        assert folder.at(NOW)(Need(entry.need.kind, "another-name")) is None
    never = replace(entries[0], expires_at=None)
    (tmp_path / MANIFEST).write_bytes(manifest([never], NOW))
    folder.read()
    assert folder.at(NOW + 1000 * DAY)(never.need) == Document.of(str(never.need.kind).encode())


def test_a_file_that_is_not_what_the_manifest_lists_is_absent(tmp_path: Path) -> None:
    need = Need(CollateralKind.AMD_CRL, "vcek/v1/Milan/crl")
    good = Document.of(b"good")
    (tmp_path / MANIFEST).write_bytes(manifest([Entry(need, "crl", good.sha256, NOW, None)], NOW))
    folder = Folder(tmp_path)
    assert folder.at(NOW)(need) is None
    for data, found in ((b"goop", None), (b"good", good), (b"", None), (b"good\n", None)):
        (tmp_path / "crl").write_bytes(data)
        assert folder.at(NOW)(need) == found
        assert folder.document(need) == found
    (tmp_path / "crl").unlink()
    (tmp_path / "crl").mkdir()
    assert folder.at(NOW)(need) is None
    assert folder.document(DRIVER) is None


def test_rims_beside_the_manifest_are_still_recognised(exported: Path, pki: Pki) -> None:
    entries = parse((exported / MANIFEST).read_bytes())
    del entries[VBIOS]
    (exported / MANIFEST).write_bytes(manifest(entries.values(), NOW))
    (exported / f"{VBIOS.name}.xml").rename(exported / "anything")
    folder = Folder(exported)
    assert folder.at(NOW)(VBIOS) is not None
    assert folder.at(NOW)(DRIVER) is not None
    shutil.rmtree(exported)
    assert folder.at(NOW)(DRIVER) is None


GOOD = {
    "kind": "nvidia-rim",
    "name": "NV_X_1",
    "file": "x.xml",
    "sha256": "00" * 32,
    "fetched_at": "2026-01-01T00:00:00+00:00",
    "expires_at": None,
}


@pytest.mark.parametrize(
    "spoiled",
    [
        {"file": "../x.xml"},
        {"file": "/etc/passwd"},
        {"file": ".hidden"},
        {"file": ""},
        {"file": "a\0b"},
        {"file": 1},
        {"name": ""},
        {"name": "a name"},
        {"name": "\x1b[2J"},
        {"name": "ü"},
        {"name": "x" * 513},
        {"name": None},
        {"sha256": "00" * 31},
        {"sha256": "AB" * 32},
        {"fetched_at": "yesterday"},
        {"fetched_at": "2026-01-01T00:00:00"},
        {"fetched_at": None},
        {"expires_at": ""},
        {"expires_at": 5},
        {"more": "than that"},
    ],
    ids=str,
)
def test_a_manifest_with_a_mistake_is_refused(tmp_path: Path, spoiled: dict[str, Any]) -> None:
    def written(*listed: object) -> bytes:
        return json.dumps({"format": "workermanager/collateral/v1", "documents": listed}).encode()

    assert len(parse(written(GOOD))) == 1
    with pytest.raises(ManifestError):
        parse(written(GOOD | spoiled))
    with pytest.raises(ManifestError):
        parse(written(GOOD, GOOD))
    assert parse(written(GOOD | {"kind": "of a newer version"})) == {}
    (tmp_path / MANIFEST).write_bytes(written(GOOD | spoiled))
    with pytest.raises(FolderError, match=MANIFEST):
        Folder(tmp_path)


def test_an_export_needs_documents_that_were_fetched(tmp_path: Path) -> None:
    assert export_to(tmp_path / "empty", [Cached(DRIVER, NOW)], NOW) == []
    assert parse((tmp_path / "empty" / MANIFEST).read_bytes()) == {}
