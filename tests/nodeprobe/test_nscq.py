"""NVSwitches through NSCQ, on a stub of its library: evidence of an emulated box is replayed, and one thing spoiled."""

from __future__ import annotations

import ctypes
import json
import shutil
import threading
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from attest.anchors import load_emulated
from attest.appraise import appraise
from attest.binding import Statement, gpu_nonce
from attest.collateral import CollateralKind, Document, Need
from attest.containers import read
from attest.evidence import NVIDIA, Bundle, Evidence, Nonce
from attest.nvidia.verifier import NvidiaVerifier
from attest.policy import shipped
from attest.result import Tier
from attest.verify import verify
from nodeprobe import gathering, nscq
from nodeprobe.details import Mode, Switch
from nodeprobe.emulator import MODELS, SWITCH, EmulatedBox, EmulatedSwitch, Pki, publish
from nodeprobe.nscq import SWITCHES_MAX, Fabric
from nodeprobe.problems import ProblemError
from nodeprobe.timelimit import THREAD_NAME
from tests.nodeprobe.stub import NSCQ_SONAME, NSCQ_SOURCE, StubDriver, build

MADE = datetime(2030, 1, 1, tzinfo=UTC)
NONCE = Nonce(bytes(range(32)))
STATEMENT = Statement("11" * 32, "192.0.2.7", "secret1wallet", "02" + "ab" * 32)
HGX = MODELS["h100-80gb"]
COUNT = 4


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki.create(tmp_path_factory.mktemp("emulator") / "pki", now=MADE)


@pytest.fixture(scope="module")
def said(pki: Pki) -> Bundle:
    """What four switches say to NONCE."""
    return tuple(EmulatedSwitch.create(pki, f"switch{n}", position=n).evidence(NONCE) for n in range(COUNT))


def label(n: int) -> str:
    """Of the n-th that the stub lists."""
    return f"SWX-5A000000-0000-0000-0000-0000000000{0xF0 - n:02X}"


def replay(driver: StubDriver, folder: Path, said: Bundle, prefix: str = "sw") -> None:
    """Let the stub give this evidence, in its own order."""
    for n, each in enumerate(said):
        report, chain = folder / f"{prefix}{n}.report", folder / f"{prefix}{n}.chain"
        report.write_bytes(each.payload)
        chain.write_bytes(each.certificates)
        driver.set(f"{prefix}{n}.report", report)
        driver.set(f"{prefix}{n}.chain", chain)


@dataclass(frozen=True, slots=True)
class World:
    """A board of four good switches; spoil it with `set`."""

    state: StubDriver
    library: Path
    folder: Path

    def set(self, key: str, value: object) -> None:
        self.state.set(key, value)

    def fabric(self, limit_seconds: float = 30.0) -> Fabric:
        return Fabric(limit_seconds, str(self.library))

    def problem(self, *, expected: bool = False) -> tuple[str, str]:
        with pytest.raises(ProblemError) as refused:
            self.fabric().evidence(NONCE, expected=expected)
        return refused.value.problem.code, refused.value.problem.what


@pytest.fixture
def world(nscq_library: Path, tmp_path: Path, said: Bundle, monkeypatch: pytest.MonkeyPatch) -> World:
    state = StubDriver(nscq_library, tmp_path / "state")
    monkeypatch.setenv("NVML_STUB_STATE", str(state.state))
    state.set("switches", COUNT)
    replay(state, tmp_path, said)
    return World(state, nscq_library, tmp_path)


# --- the stub is like the header --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "size", "field", "offset"),
    [
        ("Uuid", 16, None, 0),
        ("Label", 64, None, 0),
        ("SessionResult", 16, "session", 8),
        ("Report", 0x2004, "report", 4),
        ("Chain", 0x1404, "cert_chain_size", 0x1400),
    ],
)
def test_layouts_are_those_of_a_c_compiler(
    nscq_library: Path, name: str, size: int, field: str | None, offset: int
) -> None:
    layout = ctypes.CDLL(str(nscq_library)).stubLayout
    layout.argtypes, layout.restype = [ctypes.c_char_p], ctypes.c_long
    ours = getattr(nscq, name)
    assert layout(name.encode()) == ctypes.sizeof(ours) == size
    if field is not None:
        assert layout(f"{name}.{field}".encode()) == getattr(ours, field).offset == offset


# --- evidence ---------------------------------------------------------------------------------------------------------
def test_all_switches_answer_in_the_order_of_their_labels(world: World, said: Bundle) -> None:
    world.set("nonces", world.folder / "nonces")

    found = world.fabric().evidence(NONCE, expected=True)

    assert [each.payload for each in found] == [each.payload for each in reversed(said)]
    assert {each.kind for each in found} == {NVIDIA}
    assert [each.certificates.strip() for each in found] == [each.certificates.strip() for each in reversed(said)]
    assert (world.folder / "nonces").read_text().split() == [NONCE.hex()] * COUNT


def test_a_chain_that_ends_in_nuls_is_the_same_chain(world: World, said: Bundle) -> None:
    good = world.fabric().evidence(NONCE)
    (world.folder / "sw1.chain").write_bytes(said[1].certificates + b"\0\0")
    assert world.fabric().evidence(NONCE) == good


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_a_nonce_of_another_length_never_reaches_the_library(world: World, size: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        world.fabric().evidence(Nonce(bytes(size)))


def test_a_warning_is_no_error(world: World) -> None:
    good = world.fabric().evidence(NONCE)
    world.set("err.nscq_session_create", 1)
    world.set("rc.attestation_report", 1)
    assert world.fabric().evidence(NONCE) == good


def test_without_the_library_there_is_no_switch_unless_some_are_expected(tmp_path: Path) -> None:
    nowhere = Fabric(library=str(tmp_path / NSCQ_SONAME))
    assert nowhere.evidence(NONCE) == ()
    assert nowhere.switches().library is False
    assert nowhere.switches().problems == ()
    with pytest.raises(ProblemError) as refused:
        nowhere.evidence(NONCE, expected=True)
    assert refused.value.problem.code == "nscq-missing"


def test_a_library_without_a_switch_likewise(world: World) -> None:
    world.set("switches", 0)
    assert world.fabric().evidence(NONCE) == ()
    assert world.problem(expected=True)[0] == "no-switch"


@pytest.mark.parametrize(
    ("key", "value", "code"),
    [
        ("sw1.report_size", 0, "switch-evidence-size"),
        ("sw1.report_size", 0x2001, "switch-evidence-size"),
        ("sw1.report_size", 0xFFFFFFFF, "switch-evidence-size"),
        ("sw1.chain_size", 0, "switch-evidence-size"),
        ("sw1.chain_size", 0x1401, "switch-evidence-size"),
        ("rc.certificate.1", -7, "switch-failed"),
        ("rc.attestation_report.1", -8, "switch-failed"),
        ("rc.attestation_report.1", -99, "switch-failed"),
        ("calls.certificate.1", 0, "switch-failed"),
        ("calls.attestation_report.1", 0, "switch-failed"),
        ("calls.attestation_report.1", 2, "switch-failed"),
        ("calls.attestation_report.1", 100_000, "switch-failed"),
        ("stranger.attestation_report.1", 1, "switch-failed"),
        ("stranger.certificate.1", 2, "switch-failed"),
    ],
)
def test_one_bad_switch_is_named_and_nothing_is_collected(world: World, key: str, value: int, code: str) -> None:
    world.set(key, value)
    found, what = world.problem()
    assert found == code
    assert label(1) in what


@pytest.mark.parametrize(
    ("key", "value", "code"),
    [
        ("err.nscq_session_create", -6, "switches-failed"),
        ("err.nscq_session_create", -128, "switches-failed"),
        ("err.create_null", 1, "switches-failed"),
        ("err.observe.uuid", -7, "switches-failed"),
        ("rc.uuid.2", -2, "switches-failed"),
        ("stranger.uuid.2", 2, "switches-failed"),
        ("calls.uuid.2", 2, "switches-failed"),
        ("sw2.byte", 0xF0, "switches-failed"),
        ("sw2.label", label(0), "switches-failed"),
        ("switches", SWITCHES_MAX + 1, "too-many-switches"),
        ("calls.uuid.2", 100_000, "too-many-switches"),
        ("sw2.label", "../{device}", "switch-failed"),
        ("sw2.label", "", "switch-failed"),
        ("sw2.label", "L" * 64, "switch-failed"),
        ("err.nscq_uuid_to_label", -2, "switch-failed"),
        ("err.nscq_session_set_input", -5, "switch-failed"),
        ("err.observe.certificate", -1, "switch-failed"),
        ("err.observe.attestation_report", -127, "switch-failed"),
    ],
)
def test_a_library_that_fails_is_a_problem(world: World, key: str, value: object, code: str) -> None:
    world.set(key, value)
    assert world.problem()[0] == code


def test_a_chain_of_nothing_but_padding_is_no_evidence(world: World) -> None:
    (world.folder / "sw1.chain").write_bytes(b"\n\0\0")
    assert world.problem()[0] == "switch-evidence-size"


@pytest.mark.parametrize(
    "without",
    [
        "nscq_session_create",
        "nscq_session_destroy",
        "nscq_session_path_observe",
        "nscq_session_set_input",
        "nscq_uuid_to_label",
    ],
)
def test_a_library_without_a_function_is_a_problem(world: World, without: str) -> None:
    folder = world.folder / "older"
    folder.mkdir()
    library = build(folder, without=[without], soname=NSCQ_SONAME, source=NSCQ_SOURCE)
    assert replace(world, library=library).problem()[0] == "switches-failed"


@pytest.mark.parametrize("call", ["nscq_session_create", "nscq_session_path_observe", "nscq_session_set_input"])
def test_a_hang_is_a_problem_that_names_the_call_and_passes(world: World, call: str) -> None:
    world.set(f"delay_ms.{call}", 400)
    fabric = world.fabric(0.05)
    with pytest.raises(ProblemError) as refused:
        fabric.evidence(NONCE)
    assert refused.value.problem.code == "switches-hung"
    assert fabric.switches().problems[0].code == "switches-hung"  # the hung call is still there: none is added
    world.state.unset(f"delay_ms.{call}")
    for thread in threading.enumerate():
        if thread.name == THREAD_NAME:
            thread.join()
    if call == "nscq_session_create":
        assert call in refused.value.problem.what
    assert len(world.fabric().evidence(NONCE)) == COUNT


def test_a_command_ends_though_the_library_hangs(board: StubDriver, said: Bundle, tmp_path: Path) -> None:
    replay(board, tmp_path, said[:1] * 8, "gpu")
    board.set("delay_ms.nscq_session_create", 300_000)
    out = tmp_path / "evidence.json"
    done = board.run("collect", "--nonce", NONCE.hex(), "-o", str(out), "--json", "--timeout", "2", seconds_max=30.0)
    assert [each["code"] for each in json.loads(done.stdout)["problems"]] == ["switches-hung"]
    assert (done.returncode, out.exists()) == (1, False)


# --- details ----------------------------------------------------------------------------------------------------------
def test_switches_are_described(world: World) -> None:
    world.set("sw0.pcie_mode", -1)
    world.set("sw1.arch", 9)
    world.set("rc.arch.2", -7)
    world.set("rc.pcie_mode.2", -7)

    found = world.fabric().switches()

    assert (found.library, found.problems) == (True, ())
    by_label = {each.uuid: each for each in found.switches}
    assert by_label[label(3)] == Switch(label(3), "ls10", "locked")
    assert by_label[label(0)].pcie_mode == "unknown"
    assert by_label[label(1)].architecture == "unknown value 9"
    assert set(by_label[label(2)].unsaid) == {"architecture", "pcie_mode"}


@pytest.fixture
def board(nvml_library: Path, nscq_library: Path, tmp_path: Path) -> StubDriver:
    """Eight GPUs in protected-PCIe mode and four switches, without evidence."""
    libraries = tmp_path / "libraries"
    libraries.mkdir()
    for library in (nvml_library, nscq_library):
        shutil.copy(library, libraries)
    driver = StubDriver(libraries / nvml_library.name, tmp_path / "state")
    for key, value in {"count": 8, "cc": 0, "multi_gpu": 1, "switches": COUNT}.items():
        driver.set(key, value)
    return driver


def shown(driver: StubDriver) -> tuple[dict[str, object], list[str]]:
    document = json.loads(driver.run("show", "--json").stdout)
    return document, [each["code"] for each in document["problems"] if not each["code"].startswith("cpu-tee")]


def test_show_lists_switches_only_where_there_are_any(board: StubDriver) -> None:
    document, problems = shown(board)
    assert problems == []
    assert document["switches"] == [
        {"uuid": label(n), "architecture": "ls10", "pcie_mode": "locked", "unsaid": {}} for n in (3, 2, 1, 0)
    ]
    page = board.run("show").stdout.decode()
    assert all(label(n) in page for n in range(COUNT))

    board.set("switches", 0)
    document, problems = shown(board)
    assert problems == ["no-switch"]
    assert "switches" not in document
    assert b"Switch " not in board.run("show").stdout

    board.set("multi_gpu", 0)
    board.set("cc", 1)
    assert shown(board)[1] == []


def test_show_says_that_the_switches_failed(board: StubDriver) -> None:
    board.set("err.nscq_session_create", -7)
    assert shown(board)[1] == ["switches-failed"]


# --- the whole node ---------------------------------------------------------------------------------------------------
class Driver:
    """One GPU, in a mode."""

    def __init__(self, mode: Mode) -> None:
        self._mode = mode

    def evidence(self, nonce: Nonce) -> Bundle:
        return (Evidence(NVIDIA, b"gpu" + nonce),)

    def mode(self) -> Mode:
        return self._mode


@pytest.mark.parametrize("mode", list(Mode))
def test_switches_answer_after_the_gpus_in_protected_pcie_mode_alone(world: World, mode: Mode) -> None:
    world.set("nonces", world.folder / "nonces")
    asked = gpu_nonce(STATEMENT)

    found = gathering.of_node(gathering.of_board(Driver(mode), world.fabric()), None)(STATEMENT)

    assert found[0].payload == b"gpu" + asked
    assert len(found) == (1 + COUNT if mode is Mode.PPCIE else 1)
    if mode is Mode.PPCIE:
        assert set((world.folder / "nonces").read_text().split()) == {asked.hex()}


def test_a_board_without_its_switches_gives_nothing(world: World, tmp_path: Path) -> None:
    missing = gathering.of_board(Driver(Mode.PPCIE), Fabric(library=str(tmp_path / NSCQ_SONAME)))
    with pytest.raises(ProblemError) as refused:
        missing(NONCE)
    assert refused.value.problem.code == "nscq-missing"

    world.set("switches", 0)
    with pytest.raises(ProblemError) as refused:
        gathering.of_board(Driver(Mode.PPCIE), world.fabric())(NONCE)
    assert refused.value.problem.code == "no-switch"


def test_a_collected_box_is_believed(board: StubDriver, pki: Pki, tmp_path: Path) -> None:
    box = EmulatedBox.create(pki, "box", HGX)
    for model in (HGX, SWITCH):
        publish(pki, model)
    replay(board, tmp_path, tuple(each.evidence(NONCE) for each in box.gpus), "gpu")
    replay(board, tmp_path, tuple(each.evidence(NONCE) for each in box.switches))
    out = tmp_path / "evidence.json"

    done = board.run("collect", "--nonce", NONCE.hex(), "-o", str(out))

    assert (done.returncode, done.stderr[:3]) == (0, b"12 ")
    bundle, now = read([out.read_bytes()]), MADE + timedelta(days=1)
    manifests = {
        Need(CollateralKind.NVIDIA_RIM, each.stem): Document.of(each.read_bytes()) for each in pki.rims.glob("*.xml")
    }
    verifiers = {NVIDIA: NvidiaVerifier(load_emulated(pki.anchors.read_bytes()))}
    verification = verify(bundle, verifiers, manifests.get, nonce=NONCE, now=now)
    result = appraise(verification, shipped("lab"), bundle=bundle, nonce=NONCE, now=now)
    assert (result.tier, result.failed) == (Tier.AFFIRMING, ())
    assert [claim.values["switch"] for claim in result.claims] == [False] * 8 + [True] * 4


def test_a_box_with_one_switch_silent_is_not_collected(board: StubDriver, said: Bundle, tmp_path: Path) -> None:
    replay(board, tmp_path, said[:1] * 8, "gpu")
    replay(board, tmp_path, said)
    board.set("calls.attestation_report.2", 0)
    out = tmp_path / "evidence.json"

    done = board.run("collect", "--nonce", NONCE.hex(), "-o", str(out), "--json")

    (problem,) = json.loads(done.stdout)["problems"]
    assert (done.returncode, problem["code"], out.exists()) == (1, "switch-failed", False)
    assert label(2) in problem["what"]
