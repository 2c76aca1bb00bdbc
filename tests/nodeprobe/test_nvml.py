"""The real nvidia-ml-py on the stub driver, in processes of their own: it loads its library once and keeps it."""

from __future__ import annotations

import ctypes
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pynvml
import pytest

from attest.evidence import Nonce
from nodeprobe import nvml
from nodeprobe.timelimit import HungError, Worker, stuck
from tests.nodeprobe.stub import ROOT, SONAME, StubDriver, build

NONCE = "5a" * 32
SYSTEM_CALLS = (
    "nvmlInitWithFlags",
    "nvmlShutdown",
    "nvmlSystemGetDriverVersion",
    "nvmlDeviceGetCount_v2",
    "nvmlSystemGetConfComputeState",
    "nvmlSystemGetConfComputeSettings",
    "nvmlSystemGetConfComputeCapabilities",
    "nvmlSystemGetConfComputeGpusReadyState",
)
GPU_CALLS = (
    "nvmlDeviceGetHandleByIndex_v2",
    "nvmlDeviceGetName",
    "nvmlDeviceGetUUID",
    "nvmlDeviceGetSerial",
    "nvmlDeviceGetMemoryInfo",
    "nvmlDeviceGetArchitecture",
    "nvmlDeviceGetVbiosVersion",
    "nvmlDeviceGetPciInfo_v3",
    "nvmlDeviceGetMigMode",
    "nvmlDeviceGetNvLinkState",
)


def shown(driver: StubDriver, *args: str) -> dict[str, Any]:
    done = driver.run("show", "--json", *args)
    assert done.stderr == b""
    document: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (0 if document["worker_type"] else 1)
    return document


def codes(document: dict[str, Any]) -> list[str]:
    """The problems, less those of the CPU: the machine that tests run on may be of any kind."""
    return [p["code"] for p in document["problems"] if not p["code"].startswith("cpu-tee")]


def collected(driver: StubDriver, folder: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The devices of the bundle, or the problems' codes."""
    out = folder / "evidence.json"
    done = driver.run("collect", "--nonce", NONCE, "-o", str(out), "--json")
    answer = json.loads(done.stdout)
    assert done.stderr == b""
    assert (done.returncode == 0) == out.exists()
    if done.returncode:
        return [], [problem["code"] for problem in answer["problems"]]
    return json.loads(out.read_bytes())["evidence"], []


def script(driver: StubDriver, code: str) -> Any:
    """Run Python on the stub driver, and read the JSON that it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], env=driver.env(), cwd=ROOT, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


# --- the stub is like the real thing --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "bytes_", "field", "offset"),
    [
        ("nvmlConfComputeGpuAttestationReport_t", 12332, "nonce", 12),
        ("nvmlConfComputeGpuAttestationReport_t", 12332, "attestationReport", 44),
        ("nvmlConfComputeGpuCertificate_t", 9224, "attestationCertChain", 4104),
        ("nvmlConfComputeSystemState_t", 12, "devToolsMode", 8),
        ("nvmlSystemConfComputeSettings_v1_t", 20, "multiGpuMode", 16),
        ("nvmlConfComputeSystemCaps_t", 8, None, 0),
        ("nvmlMemory_t", 24, None, 0),
        ("nvmlPciInfo_t", 68, "busId", 36),
    ],
)
def test_layouts_are_those_of_nvml(nvml_library: Path, name: str, bytes_: int, field: str | None, offset: int) -> None:
    layout = ctypes.CDLL(str(nvml_library)).stubLayout
    layout.argtypes, layout.restype = [ctypes.c_char_p], ctypes.c_long
    real = getattr(pynvml, name if name == "nvmlPciInfo_t" else f"c_{name}")
    assert layout(name.encode()) == ctypes.sizeof(real) == bytes_
    if field is not None:
        assert layout(f"{name}.{field}".encode()) == getattr(real, field).offset == offset


# --- details ----------------------------------------------------------------------------------------------------------


def test_a_healthy_node(driver: StubDriver) -> None:
    driver.set("count", 2)
    driver.set("gpu1.nvlinks", 4)
    driver.set("gpu1.mig", 1)
    driver.set("multi_gpu", 1)
    document = shown(driver)
    assert codes(document) == ["nscq-missing"]  # this driver comes without the library of the switches
    assert document["worker_type"].startswith("h100-80gb-x2-ppcie-")
    assert (document["driver"], document["unsaid"]) == ("550.90.07", {})
    assert document["gpus"][1] == {
        "index": 1,
        "state": "ok",
        "name": "NVIDIA H100 80GB HBM3",
        "uuid": "GPU-00000000-0000-4000-8000-000000000001",
        "serial": "1650000000001",
        "memory_mib": 81559,
        "architecture": "hopper",
        "vbios": "96.00.88.00.11",
        "pci_bus_id": "00000000:11:00.0",
        "mig": True,
        "nvlinks": 4,
        "unsaid": {},
    }
    assert document["gpus"][0]["nvlinks"] == 18
    assert document["conf_compute"] == {
        "feature": True,
        "environment": "production",
        "dev_tools": False,
        "ready": True,
        "multi_gpu_mode": "protected-pcie",
        "cpu_capability": "intel-tdx",
        "unsaid": {},
    }


def test_no_driver_library(driver: StubDriver, tmp_path: Path) -> None:
    if Path("/proc/driver/nvidia").exists():
        pytest.skip("this machine has an NVIDIA driver, so its library is found")
    without = StubDriver(tmp_path / "nothing" / SONAME, driver.state)
    assert codes(shown(without)) == ["no-driver"]


def test_a_library_that_cannot_be_loaded(driver: StubDriver, tmp_path: Path) -> None:
    broken = tmp_path / "broken" / SONAME
    broken.parent.mkdir()
    broken.write_bytes(b"not a library")
    assert codes(shown(StubDriver(broken, driver.state))) == ["no-driver"]


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        (9, "driver-not-loaded"),
        (18, "driver-mismatch"),
        (4, "driver-no-permission"),
        (999, "driver-failed"),
        (54321, "driver-failed"),
        (-1, "driver-failed"),
    ],
)
def test_a_driver_that_does_not_start(driver: StubDriver, code: int, problem: str) -> None:
    driver.set("err.nvmlInitWithFlags", code)
    assert codes(shown(driver)) == [problem]


def test_no_gpu(driver: StubDriver) -> None:
    driver.set("count", 0)
    assert codes(shown(driver)) == ["no-gpu"]


@pytest.mark.parametrize("count", [33, 4_000_000_000])
def test_more_gpus_than_any_node_has(driver: StubDriver, count: int) -> None:
    driver.set("count", count)
    assert codes(shown(driver)) == ["too-many-gpus"]


@pytest.mark.parametrize("call", ["nvmlDeviceGetHandleByIndex_v2", "nvmlDeviceGetSerial", "nvmlDeviceGetNvLinkState"])
def test_a_lost_gpu_is_shown_as_lost_and_the_others_as_they_are(driver: StubDriver, call: str) -> None:
    driver.set("count", 3)
    driver.set(f"err.{call}.1", pynvml.NVML_ERROR_GPU_IS_LOST)
    document = shown(driver)
    assert [gpu["state"] for gpu in document["gpus"]] == ["ok", "lost", "ok"]
    assert document["gpus"][2]["serial"] == "1650000000002"
    assert codes(document) == ["gpu-lost"]


def test_a_lost_gpu_is_asked_nothing_more(driver: StubDriver, tmp_path: Path) -> None:
    driver.set("log", tmp_path / "calls")
    driver.set("err.nvmlDeviceGetName.0", pynvml.NVML_ERROR_GPU_IS_LOST)
    shown(driver)
    assert [call for call, gpu, _ in calls(tmp_path / "calls") if gpu == "0"] == list(GPU_CALLS[:2])


@pytest.mark.parametrize(
    ("code", "state", "unsaid"),
    [(3, "ok", {"nvlinks": "not supported by this GPU"}), (999, "ok", {"nvlinks": "unknown (NVML error 999)"})],
)
def test_links_that_cannot_be_counted_are_not_counted(
    driver: StubDriver, code: int, state: str, unsaid: dict[str, str]
) -> None:
    driver.set("err.nvmlDeviceGetNvLinkState", code)
    gpu = shown(driver)["gpus"][0]
    assert (gpu["state"], gpu["nvlinks"], gpu["unsaid"]) == (state, None, unsaid)


def test_a_gpu_without_permission(driver: StubDriver) -> None:
    driver.set("err.nvmlDeviceGetHandleByIndex_v2.0", pynvml.NVML_ERROR_NO_PERMISSION)
    document = shown(driver)
    assert document["gpus"][0]["state"] == "failed"
    assert codes(document) == ["gpu-failed"]


def test_what_one_gpu_does_not_support_is_null_with_the_reason(driver: StubDriver) -> None:
    driver.set("count", 2)
    driver.set("err.nvmlDeviceGetSerial.0", pynvml.NVML_ERROR_NOT_SUPPORTED)
    driver.set("err.nvmlSystemGetDriverVersion", 4711)
    document = shown(driver)
    assert (document["driver"], document["unsaid"]) == (None, {"driver": "unknown error (NVML error 4711)"})
    first, second = document["gpus"]
    assert (first["serial"], first["unsaid"]) == (None, {"serial": "not supported by this GPU"})
    assert (second["serial"], second["unsaid"]) == ("1650000000001", {})


def test_an_older_driver_without_some_functions(driver: StubDriver, tmp_path: Path) -> None:
    left_out = ["nvmlSystemGetConfComputeSettings", "nvmlDeviceGetMigMode"]
    (tmp_path / "older").mkdir()
    document = shown(StubDriver(build(tmp_path / "older", without=left_out), driver.state))
    assert document["conf_compute"]["unsaid"] == {"multi_gpu_mode": "not known to this driver"}
    assert document["gpus"][0]["unsaid"] == {"mig": "not known to this driver"}
    assert document["worker_type"].startswith("h100-80gb-x1-cc-")


def test_a_driver_from_before_confidential_computing_has_it_off(driver: StubDriver, tmp_path: Path) -> None:
    (tmp_path / "older").mkdir()
    old = build(tmp_path / "older", without=[call for call in SYSTEM_CALLS if "ConfCompute" in call])
    document = shown(StubDriver(old, driver.state))
    assert document["worker_type"].startswith("h100-80gb-x1-off-")
    assert codes(document) == ["cc-off"]


def test_the_unchecked_code_of_the_settings_call_is_checked(driver: StubDriver) -> None:
    driver.set("err.nvmlSystemGetConfComputeSettings", pynvml.NVML_ERROR_NOT_SUPPORTED)
    cc = shown(driver)["conf_compute"]
    assert (cc["multi_gpu_mode"], cc["unsaid"]) == (None, {"multi_gpu_mode": "not supported by this GPU"})


def test_unknown_values_are_not_guessed(driver: StubDriver) -> None:
    for key, value in (("multi_gpu", 9), ("environment", 7), ("cpu_caps", 99), ("gpu0.arch", 4_294_967_295)):
        driver.set(key, value)
    document = shown(driver)
    assert document["gpus"][0]["unsaid"] == {"architecture": "unknown value 4294967295"}
    assert document["conf_compute"]["unsaid"] == {
        "environment": "unknown value 7",
        "multi_gpu_mode": "unknown value 9",
        "cpu_capability": "unknown value 99",
    }


def test_an_unreadable_mode_is_no_worker_type(driver: StubDriver) -> None:
    driver.set("cc", 2)
    assert codes(shown(driver)) == ["cc-unknown"]
    driver.set("err.nvmlSystemGetConfComputeState", pynvml.NVML_ERROR_UNKNOWN)
    assert codes(shown(driver)) == ["cc-unknown"]


@pytest.mark.parametrize(
    ("name", "shown_as"),
    [
        (b"NVIDIA H100\xff\xfe", "NVIDIA H100\\xff\\xfe"),
        (b"NVIDIA \x1b[2JH100", "NVIDIA \\x1b[2JH100"),
        (b"H" * 500, "H" * 96),
        (b"  ", None),
    ],
)
def test_a_hostile_name(driver: StubDriver, name: bytes, shown_as: str | None) -> None:
    driver.set("gpu0.name", name)
    assert shown(driver)["gpus"][0]["name"] == shown_as
    assert b"Traceback" not in driver.run("show").stderr


def test_no_code_of_any_call_is_a_traceback(driver: StubDriver) -> None:
    """Every call, each with codes known and unknown: details() answers, without what it could not learn."""
    code = f"""
import json, os
from pathlib import Path
from nodeprobe import nvml
state, found = Path(os.environ["NVML_STUB_STATE"]), {{}}
for call in {SYSTEM_CALLS + GPU_CALLS!r}:
    for code in (1, 3, 13, 15, 999, 4711, -5):
        state.write_text(f"err.{{call}}={{code}}\\n")
        details = nvml.details(20)
        found.setdefault(call, []).append([len(details.gpus), [p.code for p in details.problems]])
print(json.dumps(found))
"""
    found = script(driver, code)
    assert set(found) == {*SYSTEM_CALLS, *GPU_CALLS}
    for call, answers in found.items():
        vital = call in ("nvmlInitWithFlags", "nvmlDeviceGetCount_v2")
        assert answers == [[0, ["driver-failed"]] if vital else [1, []]] * 7, call


# --- time limit -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["nvmlInitWithFlags", "nvmlDeviceGetSerial", "nvmlShutdown"])
def test_a_hung_call_is_named_and_the_process_ends_promptly(driver: StubDriver, call: str) -> None:
    driver.set(f"delay_ms.{call}", 60_000)
    driver.set("exit_delay_ms", 60_000)  # the library's own clean-up hangs as well
    started = time.monotonic()
    document = shown(driver, "--timeout", "0.5")
    assert time.monotonic() - started < 20
    assert codes(document) == ["driver-hung"]
    assert call.removesuffix("WithFlags") in document["problems"][0]["what"]


def test_a_slow_driver_is_waited_for(driver: StubDriver) -> None:
    driver.set("delay_ms.nvmlDeviceGetSerial", 700)
    assert codes(shown(driver, "--timeout", "30")) == []


def test_evidence_that_hangs_leaves_no_file(attesting: StubDriver, tmp_path: Path) -> None:
    attesting.set("delay_ms.nvmlDeviceGetConfComputeGpuAttestationReport.1", 60_000)
    out = tmp_path / "evidence.json"
    done = attesting.run("collect", "--nonce", NONCE, "-o", str(out), "--timeout", "1")
    assert done.returncode == 1
    assert b"GPU 1" in done.stderr
    assert b"driver-hung" in done.stderr
    assert not out.exists()


def test_all_driver_calls_come_from_one_thread_that_is_not_the_main_one(attesting: StubDriver, tmp_path: Path) -> None:
    attesting.set("log", tmp_path / "calls")
    code = f"""
import json, os
from nodeprobe import nvml
nvml.evidence(bytes.fromhex("{NONCE}"))
print(json.dumps(os.getpid()))
"""
    main = script(attesting, code)
    threads = {thread for _, _, thread in calls(tmp_path / "calls")}
    assert len(threads) == 1
    assert str(main) not in threads


def calls(log: Path) -> list[list[str]]:
    return [line.split() for line in log.read_text().splitlines()]


def test_after_a_hang_a_worker_takes_no_job_until_the_hung_one_is_back() -> None:
    worker, release = Worker(), threading.Event()

    def hang(doing: Any) -> str:
        doing("something slow")
        release.wait()
        return "late"

    with pytest.raises(HungError, match="something slow"):
        worker.run(hang, 0.05)
    assert stuck()
    with pytest.raises(HungError, match="something slow"):
        worker.run(lambda _: "never run", 10)
    release.set()
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and thread.name == "nodeprobe-driver":
            thread.join(10)
    assert not stuck()
    assert worker.run(lambda _: "works again", 10) == "works again"


def test_what_a_job_raises_is_raised() -> None:
    with pytest.raises(KeyError):
        Worker().run(lambda _: {"a": 1}["nothing"], 10)


# --- evidence ---------------------------------------------------------------------------------------------------------


def test_evidence_is_of_all_gpus_in_order_byte_by_byte(attesting: StubDriver, tmp_path: Path) -> None:
    devices, problems = collected(attesting, tmp_path)
    assert problems == []
    from attest.evidence import Evidence, digest

    bundle = tuple(
        Evidence("nvidia", (tmp_path / f"gpu{i}.report").read_bytes(), (tmp_path / f"gpu{i}.chain").read_bytes())
        for i in range(2)
    )
    written = json.loads((tmp_path / "evidence.json").read_bytes())
    assert written == {"format": "workermanager/evidence-v1", "evidence": devices}
    done = attesting.run("collect", "--nonce", NONCE, "-o", str(tmp_path / "again.json"), "--json")
    assert json.loads(done.stdout)["digest"] == digest(bundle)


def test_a_real_report_comes_through_unchanged(attesting: StubDriver, tmp_path: Path, real_h100: Path) -> None:
    for gpu in range(2):
        attesting.evidence(gpu, report=real_h100 / "report.bin", chain=real_h100 / "chain.pem")
    devices, _ = collected(attesting, tmp_path)
    import base64

    assert len(devices) == 2
    assert base64.b64decode(devices[0]["payload"]) == (real_h100 / "report.bin").read_bytes()
    assert base64.b64decode(devices[0]["certificates"]).strip() == (real_h100 / "chain.pem").read_bytes().strip()


@pytest.mark.parametrize(
    ("key", "size", "problem"),
    [
        ("gpu1.report_size", 0, "evidence-size"),
        ("gpu1.report_size", 8193, "evidence-size"),
        ("gpu1.report_size", 0xFFFFFFFF, "evidence-size"),
        ("gpu1.report_size", 8192, None),
        ("gpu1.chain_size", 0, "evidence-size"),
        ("gpu1.chain_size", 5121, "evidence-size"),
        ("gpu1.chain_size", 5120, None),
    ],
)
def test_sizes_that_the_driver_claims(
    attesting: StubDriver, tmp_path: Path, key: str, size: int, problem: str | None
) -> None:
    attesting.set(key, size)
    devices, problems = collected(attesting, tmp_path)
    assert problems == ([problem] if problem else [])
    assert len(devices) == (0 if problem else 2)


@pytest.mark.parametrize(
    ("call", "code", "problem"),
    [
        ("nvmlDeviceGetHandleByIndex_v2", 15, "gpu-lost"),
        ("nvmlDeviceGetHandleByIndex_v2", 4, "evidence-failed"),
        ("nvmlDeviceGetConfComputeGpuCertificate", 3, "evidence-failed"),
        ("nvmlDeviceGetConfComputeGpuAttestationReport", 15, "gpu-lost"),
        ("nvmlDeviceGetConfComputeGpuAttestationReport", 999, "evidence-failed"),
        ("nvmlDeviceGetConfComputeGpuAttestationReport", 31337, "evidence-failed"),
    ],
)
def test_one_gpu_without_evidence_fails_all_and_is_named(
    attesting: StubDriver, tmp_path: Path, call: str, code: int, problem: str
) -> None:
    attesting.set(f"err.{call}.1", code)
    assert collected(attesting, tmp_path) == ([], [problem])
    done = attesting.run("collect", "--nonce", NONCE, "-o", "-")
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"GPU 1" in done.stderr


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("cc", 0, "cc-off"),
        ("err.nvmlSystemGetConfComputeState", 3, "cc-off"),
        ("err.nvmlSystemGetConfComputeState", 999, "cc-unknown"),
        ("count", 0, "no-gpu"),
        ("count", 33, "too-many-gpus"),
        ("err.nvmlDeviceGetCount_v2", 999, "driver-failed"),
        ("err.nvmlInitWithFlags", 9, "driver-not-loaded"),
    ],
)
def test_a_node_that_cannot_attest(attesting: StubDriver, tmp_path: Path, key: str, value: int, problem: str) -> None:
    attesting.set(key, value)
    assert collected(attesting, tmp_path) == ([], [problem])


def test_a_chain_of_nothing_but_padding_is_no_evidence(attesting: StubDriver, tmp_path: Path) -> None:
    (tmp_path / "gpu1.chain").write_bytes(b"\n\0\0")
    assert collected(attesting, tmp_path) == ([], ["evidence-size"])


def test_modes_of_many_gpus_attest_where_the_single_gpu_feature_is_off(attesting: StubDriver, tmp_path: Path) -> None:
    attesting.set("cc", 0)
    assert collected(attesting, tmp_path) == ([], ["cc-off"])
    attesting.set("multi_gpu", 1)  # which takes the switches in, and this driver comes without their library
    assert collected(attesting, tmp_path) == ([], ["nscq-missing"])
    attesting.set("multi_gpu", 2)
    assert len(collected(attesting, tmp_path)[0]) == 2


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_a_nonce_of_another_length_never_reaches_the_driver(size: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        nvml.evidence(Nonce(bytes(size)))


# --- the live signer --------------------------------------------------------------------------------------------------


@pytest.fixture
def signer(tmp_path: Path) -> Iterator[Path]:
    """A Unix socket that answers a nonce with a report over it: here, the nonce between two words."""
    path = Path(os.path.relpath(tmp_path / "signer"))  # a socket's path is short
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(path))
        server.listen()
        threading.Thread(target=_sign, args=(server,), daemon=True).start()
        yield tmp_path / "signer"
        server.shutdown(socket.SHUT_RDWR)


def _sign(server: socket.socket) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        with connection:
            report = b"signed:" + connection.recv(32, socket.MSG_WAITALL) + b":" + bytes(4000)
            connection.sendall(struct.pack("<I", len(report)) + report)


def test_a_live_signer_answers_each_nonce(attesting: StubDriver, tmp_path: Path, signer: Path) -> None:
    attesting.evidence(0, socket=signer, chain=tmp_path / "gpu0.chain")
    code = """
import json
from nodeprobe import nvml
driver = nvml.Driver(20)
print(json.dumps([driver.evidence(bytes([i]) * 32)[0].payload[7:39].hex() for i in (1, 2, 3)]))
"""
    assert script(attesting, code) == [f"{i:02x}" * 32 for i in (1, 2, 3)]


def test_no_signer_is_no_evidence(attesting: StubDriver, tmp_path: Path) -> None:
    attesting.evidence(0, socket=tmp_path / "nobody", chain=tmp_path / "gpu0.chain")
    assert collected(attesting, tmp_path) == ([], ["evidence-failed"])
