"""Nodes as real processes against a real orchestrator: what is handed out, what disappears, and how they leave."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import shlex
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from attest.evidence import NVIDIA, Nonce
from nodeprobe.__main__ import cli
from nodeprobe.details import parse_worker_type
from nodeprobe.emulator import DEFECTS, MODELS, EmulatedGpu, EmulatorError, Pki
from nodeprobe.emulator.node import EmulatedGpus, node_defects, read_defects, worker_type
from nodeprobe.problems import ProblemError
from nodeprobe.running import source_address
from orchestrator.client import Client, ServerRefused
from orchestrator.messages import Cordon, Url
from orchestrator.wallets import Wallet
from tests.nodeprobe.stub import ROOT, StubDriver
from tests.nodeprobe.test_inference import chat

SECONDS_MAX = 30.0
LIVELINESS_SECONDS = 3
MODEL = "llama3.1:70b"
T = TypeVar("T")


def until(what: Callable[[], T], seconds: float = SECONDS_MAX) -> T:
    """Ask again and again until the answer is true; the last one fails the test."""
    deadline = time.monotonic() + seconds
    while not (answer := what()):
        assert time.monotonic() < deadline, answer
        time.sleep(0.05)
    return answer


@dataclass
class Process:
    """One of our commands, running."""

    popen: subprocess.Popen[bytes]
    ready: dict[str, Any]
    log: Path

    def events(self) -> list[dict[str, Any]]:
        """What it has said on standard error."""
        lines = self.log.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def said(self, event: str) -> list[dict[str, Any]]:
        return [each for each in self.events() if each["event"] == event]

    def end(self, number: int = signal.SIGTERM, seconds: float = 20.0) -> int:
        self.popen.send_signal(number)
        return self.popen.wait(seconds)


@dataclass
class Stage:
    """An orchestrator with a throw-away root, and the processes beside it."""

    folder: Path
    opened: contextlib.ExitStack
    url: str = ""
    wallet: Wallet = field(default_factory=Wallet.generate)
    numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def root(self) -> Path:
        return self.folder / "root"

    @property
    def admin_key(self) -> Path:
        return self.folder / "state" / "admin.key"

    def run(self, *arguments: str, status: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", *arguments],
            capture_output=True,
            text=True,
            timeout=SECONDS_MAX,
            check=False,
            cwd=ROOT,
            env=os.environ | {"ORCHESTRATOR_STATE": str(self.folder / "state"), "ORCHESTRATOR_SERVER": self.url},
        )
        assert done.returncode == status, done.stderr
        return done.stdout

    def start(self, *arguments: str, env: dict[str, str] | None = None, silent: bool = False) -> Process:
        """Start a command. It is killed at the end of the test, if it runs then."""
        log = self.folder / f"{next(self.numbers)}.log"
        with log.open("wb") as errors:
            popen = subprocess.Popen(
                [sys.executable, "-m", *arguments], stdout=subprocess.PIPE, stderr=errors, cwd=ROOT, env=env
            )
        self.opened.callback(_kill, popen)
        assert popen.stdout is not None
        if silent:
            return Process(popen, {}, log)
        line = popen.stdout.readline()
        assert line, log.read_text()
        return Process(popen, json.loads(line), log)

    def emulate(self, ip: str, *more: str) -> Process:
        return self.start(
            *("nodeprobe", "emulate", "--json", "--root", str(self.root), "--server", self.url, "--ip", ip),
            *("--attest-every", "0.5", "--work-every", "0.5", *more),
        )

    def emulate_registered(self, ip: str, *more: str) -> Process:
        return self.emulate(
            ip, *("--admin-key", str(self.admin_key), "--wallet", self.wallet.address, "--serve", MODEL, *more)
        )

    def client(self, *, wallet: Wallet | None = None) -> Client:
        return self.opened.enter_context(Client(self.url, wallet=wallet))

    def urls(self, ip: str) -> list[Url]:
        return [each for each in self.client().urls().urls if each.worker == ip]

    def why(self, ip: str) -> tuple[str, ...]:
        return self.client().worker(ip).why


def _kill(popen: subprocess.Popen[bytes]) -> None:
    if popen.poll() is None:
        popen.kill()
        popen.wait()
    if popen.stdout is not None:
        popen.stdout.close()


@pytest.fixture
def stage(orchestrated: Stage) -> Iterator[Stage]:
    """The module's stage; what a test starts on it ends with the test. Each test has addresses of its own."""
    with contextlib.ExitStack() as opened:
        yield replace(orchestrated, opened=opened, wallet=Wallet.generate())


@pytest.fixture(scope="module")
def orchestrated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("stage")
    with contextlib.ExitStack() as opened:
        stage = Stage(folder, opened)
        root = json.loads(stage.run("nodeprobe", "emulate-root", str(stage.root), "--json"))
        server = stage.start(
            *("orchestrator", "serve", "--json", "--state", str(folder / "state"), "--port", "0"),
            *("--policy", "lab", "--trust-root", root["anchors"], "--collateral", root["collateral"], "--no-fetch"),
            *("--allow-range", "127.0.0.0/8", "--liveliness-seconds", str(LIVELINESS_SECONDS)),
        )
        stage.url = server.ready["url"]
        yield stage


# --- the main job -----------------------------------------------------------------------------------------------------
def test_a_node_is_handed_out_works_is_spoiled_and_leaves(stage: Stage) -> None:
    ip = "127.0.71.1"
    node = stage.emulate_registered(ip, "--gpus", "2", "--serve", "whisper", "--name", "atlas")
    assert node.ready["emulated"] is True
    urls = until(lambda: stage.urls(ip))
    assert {each.model for each in urls} == {MODEL, "whisper"}
    assert {each.url for each in urls} == {each["url"] for each in node.ready["endpoints"]}
    assert urls[0].verdict["emulated"] is True
    assert urls[0].worker_type == "h100-80gb-x2-cc-none"
    assert urls[0].tls_spki_sha256 == served_spki(urls[0].url)

    chat(urls[0].url, MODEL, "one two three", verify=False)
    admin = stage.client(wallet=Wallet.load(stage.admin_key))
    epoch = until(lambda: node.said("work-reported"))[-1]["epoch"]
    paid = until(
        lambda: [p for p in admin.payouts(epoch).payouts if p.work and p.payment_wallet == stage.wallet.address]
    )
    assert [each.input_tokens for each in paid] == [3]

    Path(node.ready["defects_file"]).write_text("measurement-changed\n")
    until(lambda: not stage.urls(ip))
    assert "contraindicated:measurements-mismatch" in stage.why(ip)
    assert until(lambda: node.said("reason"))[0]["code"] == "measurements-mismatch"

    assert node.end() == 0
    assert "draining" in stage.why(ip)
    assert node.said("stopped")[0]["reports_pending"] == 0
    assert all(each["emulated"] for each in node.events())


def test_a_node_with_a_cpu_tee_is_bound_by_what_its_quote_covers(stage: Stage) -> None:
    """An emulated TDX machine beside two GPUs; then its quote vouches for other GPUs, and then it is an old one."""
    ip = "127.0.71.31"
    node = stage.emulate_registered(ip, "--gpus", "2", "--cpu", "tdx", "--name", "citadel")
    assert node.ready["worker_type"] == "h100-80gb-x2-cc-tdx"
    (url,) = until(lambda: stage.urls(ip))
    assert (url.verdict["binding"], url.worker_type) == (
        "workermanager/v1 (evidence-covered)",
        node.ready["worker_type"],
    )
    verdict = stage.client().worker(ip).verdict
    assert verdict is not None
    assert (verdict.cpu, verdict.freshness, verdict.emulated, len(verdict.devices)) == ("intel-tdx", "nonce", True, 3)

    defects = Path(node.ready["defects_file"])
    for defect in ("cpu-of-other-gpus", "tdx-replayed"):
        defects.write_text(defect)
        until(lambda: not stage.urls(ip))
        assert "contraindicated:binding-mismatch" in stage.why(ip)
        defects.unlink()
        node.end()
        node = stage.emulate(ip, "--serve", MODEL, "--gpus", "2", "--cpu", "tdx", "--name", "citadel")
        until(lambda: stage.urls(ip))
    defects.write_text("tdx-debug")
    until(lambda: not stage.urls(ip))
    assert "contraindicated:tdx-debug" in stage.why(ip)


def test_a_fresh_node_prints_the_command_that_lets_it_in(stage: Stage) -> None:
    ip = "127.0.71.2"
    node = stage.emulate(ip, "--serve", MODEL)
    refused = until(lambda: node.said("refused"))[0]
    command = shlex.split(refused["command"].replace("WALLET", stage.wallet.address))
    assert command[:4] == ["orchestrator", "workers", "add", ip]
    assert command[-1] == node.ready["worker_key"]
    assert command[command.index("--type") + 1] == node.ready["worker_type"]
    assert not stage.urls(ip)
    stage.run(*command)
    until(lambda: stage.urls(ip))
    assert len(node.said("refused")) == 1


def test_replayed_evidence_is_never_handed_out(stage: Stage) -> None:
    ip = "127.0.71.3"
    node = stage.emulate_registered(ip, "--replay", "--gpus", "2")
    codes = {each["code"] for each in until(lambda: node.said("reason") or node.said("refused"))}
    assert codes & {"nonce-mismatch", "evidence-refused"}
    assert not stage.urls(ip)


def test_a_node_that_stops_answering_fades_out_and_comes_back(stage: Stage) -> None:
    ip = "127.0.71.4"
    node = stage.emulate_registered(ip)
    until(lambda: stage.urls(ip))
    node.popen.send_signal(signal.SIGSTOP)
    until(lambda: not stage.urls(ip), 2 * LIVELINESS_SECONDS + 2)
    assert "liveliness-expired" in stage.why(ip)
    node.popen.send_signal(signal.SIGCONT)
    until(lambda: stage.urls(ip))


def test_a_node_keeps_its_identity_over_a_kill_and_reports_what_it_owed(stage: Stage) -> None:
    ip = "127.0.71.5"
    first = stage.emulate_registered(ip, "--name", "phoenix")
    until(lambda: stage.urls(ip))
    first.end(signal.SIGKILL)
    second = stage.emulate(ip, "--serve", MODEL, "--name", "phoenix")
    assert second.ready["worker_key"] == first.ready["worker_key"]
    until(lambda: second.said("work-reported"))
    assert [each.url for each in until(lambda: stage.urls(ip))] == [second.ready["endpoints"][0]["url"]]
    assert not second.said("work-refused")
    assert second.end() == 0
    assert not stage.urls(ip)
    stage.emulate(ip, "--serve", MODEL, "--name", "phoenix")
    until(lambda: stage.urls(ip))  # who drained and comes back is handed out again


def test_a_removed_worker_stays_out(stage: Stage) -> None:
    ip = "127.0.71.6"
    node = stage.emulate_registered(ip)
    until(lambda: stage.urls(ip))
    stage.wallet.save(stage.folder / "owner.key")
    stage.run("orchestrator", "workers", "remove", ip, "--yes", "--key", str(stage.folder / "owner.key"))
    assert "workers add" in until(lambda: node.said("refused"))[0]["command"]
    assert not stage.urls(ip)
    with pytest.raises(ServerRefused) as refused:
        stage.client().worker(ip)
    assert refused.value.code == "worker-unknown"


def test_a_cordoned_node_is_told(stage: Stage) -> None:
    ip = "127.0.71.7"
    node = stage.emulate_registered(ip)
    until(lambda: stage.urls(ip))
    admin = stage.client(wallet=Wallet.load(stage.admin_key))
    admin.execute("cordon", Cordon(ip_address=ip, reason="a look inside"))
    until(lambda: node.said("not-routable"))
    assert not stage.urls(ip)


# --- leaving ----------------------------------------------------------------------------------------------------------
def test_the_second_signal_ends_at_once(stage: Stage) -> None:
    """An orchestrator that has stopped answering holds up the farewell, but not for ever, and not twice."""
    node = stage.emulate_registered("127.0.71.8")
    until(lambda: node.said("routable"))
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        host, port = deaf.getsockname()
        other = stage.emulate("127.0.71.9", "--serve", MODEL)
        assert other.end() == 0  # it was in the middle of nothing
        hung = stage.start(
            *("nodeprobe", "agent", "--json", "--server", f"http://{host}:{port}", "--ip", "127.0.71.10"),
            *("--inference", "none", "--worker-type", "t", "--state", str(stage.folder / "hung")),
            silent=True,
        )
        until(lambda: hung.said("started"))
        began = time.monotonic()
        while hung.popen.poll() is None and time.monotonic() - began < 5:
            hung.popen.send_signal(signal.SIGTERM)  # again and again, since two at the same time are one
        assert hung.popen.wait(5) == 128 + signal.SIGTERM
    assert node.popen.poll() is None


def test_a_farewell_that_takes_too_long_is_cut_short() -> None:
    code = """
import os, signal, time
from nodeprobe.running import Stop
with Stop(limit_seconds=0.2) as stop:
    os.kill(os.getpid(), signal.SIGTERM)
    assert stop.wait(60)
    time.sleep(60)
"""
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, timeout=SECONDS_MAX, check=False)
    assert (done.returncode, b"leaving" in done.stderr) == (0, True), done.stderr
    assert time.monotonic() - began < 20


def test_one_state_folder_one_agent(stage: Stage) -> None:
    stage.emulate("127.0.71.11", "--serve", MODEL, "--name", "twin")
    arguments = ["emulate", "--root", str(stage.root), "--server", stage.url, "--ip", "127.0.71.12"]
    done = CliRunner().invoke(cli, [*arguments, "--serve", MODEL, "--name", "twin", "--json"])
    assert done.exit_code == 1
    assert json.loads(done.stdout)["problems"][0]["code"] == "state-in-use"


# --- the agent of a real node, on a driver that is a stub, with GPUs that sign what it hands them ---------------------
@contextlib.contextmanager
def signing(gpu: EmulatedGpu, path: Path) -> Iterator[None]:
    """A Unix socket that answers a nonce with the report of an emulated GPU."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(path))
        server.listen()

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    report = gpu.report(connection.recv(32, socket.MSG_WAITALL))
                    connection.sendall(struct.pack("<I", len(report)) + report)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.fixture
def gpu_node(stage: Stage, driver: StubDriver, tmp_path: Path) -> Iterator[StubDriver]:
    """A node of one H100 under the stage's root, seen through the real NVML bindings."""
    gpu = EmulatedGpu.create(Pki.open(stage.root), f"stubbed{next(stage.numbers)}", MODELS["h100-80gb"])
    chain = tmp_path / "stubbed.chain"
    chain.write_bytes(gpu.chain_pem)
    signer = Path(os.path.relpath(tmp_path / "s", ROOT))  # a socket's path is short
    here = Path.cwd()
    os.chdir(ROOT)
    try:
        driver.evidence(0, chain=chain, socket=signer)
        with signing(gpu, signer):
            yield driver
    finally:
        os.chdir(here)


def agent_options(stage: Stage, ip: str, *more: str) -> list[str]:
    state = str(stage.folder / f"agent-{ip}")
    return ["--server", stage.url, "--ip", ip, "--state", state, "--inference", "none", "--json", *more]


def by_admin(stage: Stage) -> list[str]:
    return ["--admin-key", str(stage.admin_key), "--wallet", stage.wallet.address]


def test_register_then_agent_on_the_real_bindings(stage: Stage, gpu_node: StubDriver) -> None:
    ip = "127.0.71.20"
    endpoint = f"{MODEL}=https://{ip}:21434"
    options = agent_options(stage, ip, "--endpoint", endpoint)
    done = gpu_node.run("register", *options, *by_admin(stage))
    assert done.returncode == 0, done.stderr
    verdict = json.loads(done.stdout)["verdict"]
    assert (verdict["tier"], verdict["emulated"]) == ("affirming", True)
    assert [each.url for each in until(lambda: stage.urls(ip))] == [f"https://{ip}:21434"]
    until(lambda: not stage.urls(ip))  # nobody keeps it alive

    agent = stage.start("nodeprobe", "agent", *options, env=gpu_node.env(), silent=True)
    until(lambda: stage.urls(ip))
    assert agent.said("attested")[0]["tier"] == "affirming"
    assert agent.said("started")[0]["worker_type"].startswith("h100-80gb-x1-cc")
    assert agent.end() == 0
    assert "draining" in stage.why(ip)


def test_register_twice_is_refused(stage: Stage, gpu_node: StubDriver) -> None:
    options = [*agent_options(stage, "127.0.71.21"), *by_admin(stage)]
    assert gpu_node.run("register", *options).returncode == 0
    again = gpu_node.run("register", *options)
    assert (again.returncode, json.loads(again.stdout)["problems"][0]["code"]) == (4, "address-taken")


def test_once_says_what_is_missing(stage: Stage, driver: StubDriver) -> None:
    """A driver that gives no evidence."""
    ip = "127.0.71.22"
    done = driver.run("agent", "--once", *agent_options(stage, ip))
    assert (done.returncode, json.loads(done.stdout)["problems"][0]["code"]) == (4, "worker-unknown")
    done = driver.run("agent", "--once", *agent_options(stage, ip), *by_admin(stage))
    assert (done.returncode, json.loads(done.stdout)["problems"][0]["code"]) == (1, "evidence-failed")


def test_once_attests_once(stage: Stage, gpu_node: StubDriver) -> None:
    ip = "127.0.71.23"
    done = gpu_node.run("agent", "--once", *agent_options(stage, ip), *by_admin(stage))
    assert done.returncode == 0, done.stderr
    assert stage.client().worker(ip).attested_until is not None


def test_nobody_there_is_unreachable(driver: StubDriver, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = ["--server", f"http://127.0.0.1:{port}", "--state", str(tmp_path / "s"), "--inference", "none", "--json"]
    done = driver.run("agent", "--once", *options)
    assert (done.returncode, json.loads(done.stdout)["problems"][0]["code"]) == (5, "unreachable")
    assert (tmp_path / "s" / "worker.key").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("options", "status"),
    [
        (["--server", "nonsense"], 1),
        (["--server", "http://127.0.0.1:1", "--admin-key", "x"], 2),
        (["--server", "http://127.0.0.1:1", "--endpoint", "m"], 2),
        (["--server", "http://127.0.0.1:1", "--inference", "nonsense"], 2),
        (["--server", "http://127.0.0.1:1", "--inference-key-file", "/nowhere"], 2),
        (["--server", "http://127.0.0.1:1", "--tls-certificate", "/nowhere"], 1),
        (["--server", "http://127.0.0.1:1", "--admin-key", "/nowhere", "--wallet", "secret1nobody"], 1),
        (["--server", "http://127.0.0.1:1", "--inference", "http://[::1"], 2),
        (["--server", "http://127.0.0.1:1", "--state", "/proc/nowhere"], 1),
        (["--server", "http://127.0.0.1:1", "--ip", "x"], 2),
        (["--server", "http://127.0.0.1:1", "--public-url", "x"], 2),
        (["--server", "http://127.0.0.1:1", "--worker-type", "a\nb"], 2),
        (["--server", "http://127.0.0.1:1", "--admin-key", "x", "--wallet", "w"], 2),
        ([], 2),
    ],
)
def test_wrong_usage_is_said_without_a_traceback(
    driver: StubDriver, tmp_path: Path, options: list[str], status: int
) -> None:
    done = driver.run("agent", "--once", "--state", str(tmp_path / "s"), *options)
    assert done.returncode == status, done.stderr
    assert done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("server", "source"), [("http://127.0.0.1:8470", "127.0.0.1"), ("http://127.0.5.1", "127.0.0.1")]
)
def test_the_source_address_towards_the_server(server: str, source: str) -> None:
    assert source_address(server) in (source, urlsplit(server).hostname)


@pytest.mark.parametrize("server", ["", "http://", "http://[::1", "http://127.0.0.1:99999", "nonsense"])
def test_no_way_to_the_server_is_said(server: str) -> None:
    with pytest.raises(ProblemError) as error:
        source_address(server)
    assert error.value.problem.code == "no-route"


# --- the emulator's own rules -----------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki.create(tmp_path_factory.mktemp("pki") / "root", now=datetime.now(UTC))


def emulated(pki: Pki, file: Path, gpus: int = 2) -> EmulatedGpus:
    made = tuple(EmulatedGpu.create(pki, f"gpu{n}", MODELS["h200"]) for n in range(gpus))
    return EmulatedGpus(made, file, lambda event, text, **facts: None)


def test_the_worker_type_is_that_of_such_hardware(pki: Pki, tmp_path: Path) -> None:
    for name in MODELS:
        derived = parse_worker_type(worker_type(name, emulated(pki, tmp_path / "d").gpus))
        assert derived.count == 2


def test_the_defects_file_is_read_at_every_collection(pki: Pki, tmp_path: Path) -> None:
    file = tmp_path / "defects"
    node, nonce = emulated(pki, file), Nonce(bytes(32))
    good = node.evidence(nonce)
    assert [each.kind for each in good] == [NVIDIA] * 2
    file.write_text("replay\n")
    assert node.evidence(nonce) == node.evidence(Nonce(bytes([1] * 32)))
    file.write_text("brom-expired, measurement-changed")
    spoiled = node.evidence(nonce)
    assert spoiled[0].certificates != good[0].certificates
    assert spoiled[1].certificates == good[1].certificates
    file.unlink()
    assert node.evidence(nonce)[0].certificates == good[0].certificates


@pytest.mark.parametrize("text", [b"no-such-defect", b"\xff\xfe", b"measurement-changed no-such-defect"])
def test_a_defects_file_that_cannot_be_obeyed_gives_no_evidence(pki: Pki, tmp_path: Path, text: bytes) -> None:
    file = tmp_path / "defects"
    file.write_bytes(text)
    with pytest.raises(ProblemError) as error:
        emulated(pki, file).evidence(Nonce(bytes(32)))
    assert error.value.problem.code == "defects-unreadable"


def test_every_defect_of_a_node_can_be_asked_of_it(pki: Pki, tmp_path: Path) -> None:
    file = tmp_path / "defects"
    for name in node_defects():
        file.write_text(name)
        assert len(emulated(pki, file, gpus=1).evidence(Nonce(bytes(32)))) == 1, name


def test_a_defects_file_that_is_a_folder(tmp_path: Path) -> None:
    with pytest.raises(EmulatorError):
        read_defects(tmp_path)


def test_list_defects_names_what_a_node_can_have() -> None:
    done = CliRunner().invoke(cli, ["emulate", "--list-defects"])
    assert done.exit_code == 0
    assert "measurement-changed" in done.stdout
    assert not [name for name, each in DEFECTS.items() if each.manifest is not None and f"\n{name}\n" in done.stdout]


@pytest.mark.parametrize(
    "options",
    [
        ["--model-gpu", "abacus"],
        ["--defect", "no-such"],
        ["--name", "../x"],
        ["--ip", "192.0.2.1"],
        ["--admin-key", "/nowhere", "--wallet", "w"],
    ],
)
def test_a_plan_that_cannot_be_is_said(tmp_path: Path, options: list[str]) -> None:
    arguments = ["emulate", "--root", str(tmp_path / "r"), "--server", "http://127.0.0.1:1", "--ip", "127.0.71.30"]
    done = CliRunner().invoke(cli, [*arguments, "--serve", "m", *options])
    assert done.exit_code == 1, done.output
    assert done.stderr
    assert isinstance(done.exception, SystemExit)


def served_spki(url: str) -> str:
    """SHA-256 of the public key that a TLS server serves."""
    parts = urlsplit(url)
    pem = ssl.get_server_certificate((parts.hostname or "", parts.port or 443), timeout=5)
    key = x509.load_pem_x509_certificate(pem.encode()).public_key()
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()
