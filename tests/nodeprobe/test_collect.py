from __future__ import annotations

import json
import os
import stat
import subprocess
import threading
from pathlib import Path

import pytest

from attest.binding import Statement, gpu_nonce
from nodeprobe.collect import write
from tests.nodeprobe.stub import StubDriver

NONCE = "a5" * 32


def collect(driver: StubDriver, out: str | Path, *args: str, nonce: str = NONCE) -> subprocess.CompletedProcess[bytes]:
    return driver.run("collect", "--nonce", nonce, "-o", str(out), *args)


def test_a_file_is_written_and_summed_up(attesting: StubDriver, tmp_path: Path) -> None:
    out = tmp_path / "evidence.json"
    done = collect(attesting, out, "--json", nonce=NONCE.upper())
    assert (done.returncode, done.stderr) == (0, b"")
    summary = json.loads(done.stdout)
    report, chain = (tmp_path / "gpu0.report").stat().st_size, (tmp_path / "gpu0.chain").stat().st_size
    device = {"kind": "nvidia", "payload_bytes": report, "certificates_bytes": chain}
    assert summary.pop("digest")
    assert summary == {"file": str(out), "bytes": out.stat().st_size, "nonce": NONCE, "devices": [device] * 2}


def test_stdout_has_the_evidence_and_nothing_else(attesting: StubDriver, tmp_path: Path) -> None:
    collect(attesting, tmp_path / "evidence.json")
    assert collect(attesting, "-").stdout == (tmp_path / "evidence.json").read_bytes()


@pytest.mark.parametrize("nonce", ["", "a5", "a5" * 31, "a5" * 33, "zz" * 32, "0x" + "a5" * 31, "a5 " * 32, "٣" * 64])
def test_a_nonce_is_64_hex_digits(attesting: StubDriver, tmp_path: Path, nonce: str) -> None:
    done = collect(attesting, tmp_path / "evidence.json", nonce=nonce)
    assert done.returncode == 2
    assert b"64 hex digits" in done.stderr
    assert not (tmp_path / "evidence.json").exists()


def test_json_and_evidence_do_not_share_stdout(attesting: StubDriver) -> None:
    done = collect(attesting, "-", "--json")
    assert (done.returncode, done.stdout) == (2, b"")


@pytest.mark.parametrize("args", [(), ("--json",)])
def test_cc_off_is_one_clear_line_and_status_1(attesting: StubDriver, tmp_path: Path, args: tuple[str, ...]) -> None:
    attesting.set("cc", 0)
    done = collect(attesting, tmp_path / "evidence.json", *args)
    assert done.returncode == 1
    if args:
        assert [problem["code"] for problem in json.loads(done.stdout)["problems"]] == ["cc-off"]
    else:
        assert done.stderr.startswith(b"nodeprobe: Confidential computing is off")


def test_a_failure_leaves_the_old_file_and_no_rest(attesting: StubDriver, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "evidence.json").write_text("old")
    attesting.set("gpu1.lost", 1)
    assert collect(attesting, folder / "evidence.json").returncode == 1
    assert [(path.name, path.read_text()) for path in folder.iterdir()] == [("evidence.json", "old")]


@pytest.mark.parametrize("out", ["missing/evidence.json", "."])
@pytest.mark.parametrize("args", [(), ("--json",)])
def test_a_file_that_cannot_be_written(attesting: StubDriver, tmp_path: Path, out: str, args: tuple[str, ...]) -> None:
    done = collect(attesting, tmp_path / out, *args)
    assert done.returncode == 1
    assert b"file-not-written" in (done.stdout if args else done.stderr)
    assert b"Traceback" not in done.stderr


# --- write ------------------------------------------------------------------------------------------------------------


def test_a_file_is_readable_by_all_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        write(str(tmp_path / "file"), b"new")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o644


def test_a_file_is_swapped_not_rewritten(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    with (tmp_path / "file").open("rb") as reader:
        write(str(tmp_path / "file"), b"new")
        assert reader.read() == b"old"
    assert (tmp_path / "file").read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"old")
    (tmp_path / "link").symlink_to("target")
    write(str(tmp_path / "link"), b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"new"


def test_a_pipe_is_written_into_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    write(str(tmp_path / "pipe"), b"new")
    reader.join(10)
    assert read == [b"new"]
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_a_statement_is_answered_by_the_nonce_that_it_makes(attesting: StubDriver, tmp_path: Path) -> None:
    """And by the CPU TEE, where there is one: `tests/nodeprobe/test_quotes.py`."""
    said = {
        "challenge": "11" * 32,
        "ip_address": "192.0.2.7",
        "payment_wallet": "secret1wallet",
        "worker_key": "02" + "ab" * 32,
        "tls_spki_sha256": "",
    }
    file = tmp_path / "statement.json"
    file.write_text(json.dumps(said))
    done = attesting.run("collect", "--statement", str(file), "-o", str(tmp_path / "e.json"), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["nonce"] == gpu_nonce(Statement(**said)).hex()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"challenge": 5}', '{"challenge": "11"}', '{"other": "x"}'])
def test_a_statement_that_is_none_is_wrong_usage(attesting: StubDriver, tmp_path: Path, text: str) -> None:
    file = tmp_path / "statement.json"
    file.write_text(text)
    done = attesting.run("collect", "--statement", str(file), "-o", str(tmp_path / "e.json"))
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr


def test_a_nonce_or_a_statement(attesting: StubDriver, tmp_path: Path) -> None:
    assert attesting.run("collect", "-o", str(tmp_path / "e.json")).returncode == 2
