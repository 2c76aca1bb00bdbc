"""The commands as people and scripts use them: against a real server, and `serve` itself as a real process."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner
from structlog.testing import capture_logs

from orchestrator.__main__ import main
from orchestrator.settings import Settings
from tests.orchestrator.served import served_world
from tests.orchestrator.world import IP, MODEL, OTHER_IP, World, endpoint

OK, ERROR, USAGE, NOT_FOUND, NOT_ALLOWED, UNREACHABLE = range(6)


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    made.clock.now = datetime.now(UTC)  # commands sign with the clock of this machine
    made.admin.save(tmp_path / "admin.key")
    made.owner.save(tmp_path / "owner.key")
    made.register()
    made.attest()
    return made


@pytest.fixture
def run(world, tmp_path):
    with capture_logs(), served_world(world) as url:  # the server is in this process: its log is not the command's
        yield lambda *arguments, **more: invoke(tmp_path, *arguments, server=url, **more)


def invoke(state, *arguments, server="http://127.0.0.1:1", given=None, **env):
    environment = {"ORCHESTRATOR_STATE": str(state), "ORCHESTRATOR_SERVER": server, **env}
    return CliRunner().invoke(main, [str(each) for each in arguments], env=environment, input=given)


# --- asking -----------------------------------------------------------------------------------------------------------
def test_urls(run):
    assert json.loads(run("urls", MODEL, "--json").stdout)["urls"][0]["url"] == endpoint().url
    assert run("urls", "-q").stdout == endpoint().url + "\n"
    header, row = run("urls", "--limit", 1).stdout.splitlines()
    assert header.split("\t") == ["URL", "MODEL", "TYPE", "UNTIL", "VERDICT"]
    assert row.split("\t")[0] == endpoint().url
    assert row.endswith("affirming EMULATED")


def test_no_urls_is_an_answer(run):
    empty = run("urls", "other")
    assert (empty.exit_code, empty.stdout) == (OK, "URL\tMODEL\tTYPE\tUNTIL\tVERDICT\n")
    assert json.loads(run("urls", "other", "--json").stdout)["urls"] == []
    assert run("urls", "other", "-q").stdout == ""


def test_models(run):
    assert run("models", "-q").stdout == MODEL + "\n"
    assert json.loads(run("models", "--json").stdout) == {"models": [MODEL]}


def test_workers_list_and_show(run):
    (worker,) = json.loads(run("workers", "list", "--json").stdout)["workers"]
    assert (worker["ip_address"], worker["routable"]) == (IP, True)
    assert run("workers", "list", "-q").stdout == IP + "\n"
    shown = run("workers", "show", IP)
    assert shown.exit_code == OK
    assert "affirming (EMULATED) by policy lab" in shown.stdout
    assert json.loads(run("workers", "show", IP, "--json").stdout)["payment_wallet"] == ""


def test_payouts_of_the_current_epoch(run, world):
    world.clock.forward(timedelta(seconds=1))
    found = json.loads(run("work", "payouts", "--json").stdout)
    assert found["epoch"] == world.rules.epochs.at(world.clock.now)
    assert [payout["payment_wallet"] for payout in found["payouts"]] == [world.owner.address]
    assert run("work", "payouts", "--epoch", 0).exit_code == OK


# --- doing ------------------------------------------------------------------------------------------------------------
def test_a_worker_s_life_by_commands(run, world, tmp_path):
    owner = tmp_path / "owner.key"
    added = run(
        *("workers", "add", OTHER_IP, "--wallet", world.owner.address, "--type", "1xH100", "--json"),
        *("--endpoint", f"a-model=https://{OTHER_IP}:21434"),
    )
    assert json.loads(added.stdout)["register_worker"]["endpoints"][0]["model"] == "a-model"
    assert run("workers", "set-type", OTHER_IP, "8xH100", "--key", owner).exit_code == OK
    assert run("workers", "set-address", OTHER_IP, "9.9.9.3", "--key", owner).exit_code == OK
    assert run("workers", "set-key", "9.9.9.3", world.key.public_hex).exit_code == OK
    for command, service in (
        ("drain", "draining"),
        ("cordon", "cordoned"),
        ("quarantine", "quarantined"),
        ("uncordon", "in service"),
    ):
        answer = json.loads(run("workers", command, "9.9.9.3", "--reason", "to see", "--json").stdout)
        assert answer[command]["service"] == service
    assert run("workers", "set-wallet", "9.9.9.3", world.stranger.address, "--key", owner).exit_code == OK
    assert run("workers", "remove", "9.9.9.3", "--yes", "--key", owner).exit_code == NOT_ALLOWED
    assert run("workers", "evict", "9.9.9.3", "--yes").stdout == "9.9.9.3 is evicted\n"
    assert run("workers", "show", "9.9.9.3").exit_code == NOT_FOUND


def test_subscribers(run, world, tmp_path):
    world.stranger.save(tmp_path / "router.key")
    router = tmp_path / "router.key"
    assert run("workers", "list", "--key", router).exit_code == NOT_ALLOWED
    assert run("subscribers", "add", world.stranger.public_hex, "--name", "router").exit_code == OK
    assert run("workers", "list", "-q", "--key", router).stdout == IP + "\n"
    assert run("subscribers", "remove", world.stranger.public_hex).exit_code == OK
    assert run("workers", "list", "--key", router).exit_code == NOT_ALLOWED
    assert run("subscribers", "remove", world.stranger.public_hex).exit_code == NOT_FOUND


@pytest.mark.parametrize("command", ["remove", "evict"])
def test_what_cannot_be_undone_is_confirmed(run, world, command):
    assert run("workers", command, IP).exit_code == USAGE
    assert world.urls() == [endpoint().url]


# --- failing ----------------------------------------------------------------------------------------------------------
def test_a_refusal_says_what_and_what_to_do(run, tmp_path):
    refused = run("workers", "cordon", IP, "--key", tmp_path / "owner.key")
    assert (refused.exit_code, refused.stdout) == (NOT_ALLOWED, "")
    assert "(not-admin)" in refused.stderr
    assert "fix   Sign with an admin's wallet" in refused.stderr

    refused = run("workers", "cordon", IP, "--json", "--key", tmp_path / "owner.key")
    assert refused.stdout == ""
    assert json.loads(refused.stderr)["error"]["code"] == "not-admin"


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("workers", "show", "9.9.9.200"), NOT_FOUND),
        (("workers", "show", "no address"), ERROR),
        (("workers", "cordon", "9.9.9.200"), NOT_FOUND),
        (("workers", "add", "9.9.9.7", "--wallet", "no wallet", "--type", "t"), ERROR),
        (("workers", "add", "127.0.0.1", "--wallet", "OWNER", "--type", "t"), NOT_ALLOWED),
        (("workers", "add", IP, "--wallet", "OWNER", "--type", "t"), ERROR),
        (("workers", "add", "10.0.0.1", "--wallet", "OWNER", "--type", "t"), NOT_ALLOWED),
        (("workers", "add", "9.9.9.7", "--wallet", "x", "--type", "t"), USAGE),
        (("workers", "add", "9.9.9.7", "--wallet", "OWNER", "--type", "t", "--endpoint", "no-url"), USAGE),
        (("workers", "set-key", IP, "no key"), USAGE),
        (("urls", "--limit", "0"), USAGE),
        (("urls", "--limit", "1001"), USAGE),
        (("workers", "cordon", IP, "--key", "no-such.key"), ERROR),
        (("nothing",), USAGE),
    ],
)
def test_exit_statuses(run, world, arguments, status):
    given = [world.owner.address if each == "OWNER" else each for each in arguments]
    failed = run(*given)
    assert failed.exit_code == status, failed.output
    assert failed.stdout == ""
    assert "Traceback" not in failed.stderr


@pytest.mark.parametrize("command", [("urls",), ("workers", "list"), ("workers", "cordon", IP), ("models",)])
def test_an_orchestrator_that_is_not_there(tmp_path, command):
    World(tmp_path).admin.save(tmp_path / "admin.key")
    failed = invoke(tmp_path, *command)
    assert failed.exit_code == UNREACHABLE
    assert "Is `orchestrator serve` running at http://127.0.0.1:1?" in failed.stderr


def test_no_key_to_sign_with(tmp_path):
    failed = invoke(tmp_path, "workers", "list")
    assert failed.exit_code == ERROR
    assert "--key" in failed.stderr


def test_what_an_orchestrator_says_cannot_draw_on_the_terminal(run, world):
    world.execute(world.owner, "set_worker_type", ip_address=IP, worker_type="\u202e\u009b31m")
    world.attest()
    assert "\u009b" not in run("urls").stdout
    assert "\u202e" not in run("workers", "list").stdout


# --- init, wallet, and what needs no server ---------------------------------------------------------------------------
def test_init_makes_a_key_once(tmp_path):
    state = tmp_path / "new" / "state"
    first = invoke(state, "init", "--json")
    key = state / "admin.key"
    assert first.exit_code == OK
    assert json.loads(first.stdout)["created"] is True
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    before = key.read_bytes()

    second = invoke(state, "init", "--json")
    assert second.exit_code == ERROR
    assert json.loads(second.stdout) == {**json.loads(first.stdout), "created": False}
    assert key.read_bytes() == before
    assert before.decode().splitlines()[1] not in first.output + second.output


def test_wallets(tmp_path):
    made = json.loads(invoke(tmp_path, "wallet", "new", tmp_path / "w.key", "--json").stdout)
    shown = json.loads(invoke(tmp_path, "wallet", "show", tmp_path / "w.key", "--json").stdout)
    assert made == shown
    assert made["address"].startswith("secret1")
    assert invoke(tmp_path, "wallet", "new", tmp_path / "w.key").exit_code == ERROR
    assert invoke(tmp_path, "wallet", "show", tmp_path / "none").exit_code == ERROR


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(tmp_path, shell):
    assert "_ORCHESTRATOR_COMPLETE" in invoke(tmp_path, "completion", shell).stdout


def test_help_is_quick_since_it_imports_nothing_heavy():
    code = (
        "import sys; from click.testing import CliRunner; from orchestrator.__main__ import main;"
        "assert CliRunner().invoke(main, ['workers', '--help']).exit_code == 0;"
        "heavy = {'fastapi', 'httpx', 'sqlmodel', 'pydantic', 'cryptography', 'rich', 'uvicorn'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout == "[]\n"


# --- settings ---------------------------------------------------------------------------------------------------------
@pytest.fixture
def settings_of(tmp_path, monkeypatch):
    """The settings that `serve` would run with."""

    def ask(*arguments, **env):
        seen = []
        monkeypatch.setattr("orchestrator.server.serve", lambda settings, announce: seen.append(settings))
        done = invoke(tmp_path, "serve", *arguments, **env)
        return seen[0] if seen else done

    return ask


def test_serve_needs_nothing(settings_of, tmp_path):
    given = settings_of()
    expected = Settings(state_dir=tmp_path, admin_address=given.admin_address)
    assert given == expected
    assert given.admin_address.startswith("secret1")


def test_flag_before_environment_before_file_before_default(settings_of, tmp_path):
    file = tmp_path / "o.toml"
    file.write_text(
        "port = 1001\nliveliness_seconds = 11\nchallenge_seconds = 22\n"
        'allow_ranges = ["10.0.0.0/8", "192.168.0.0/16"]\n'
        "epoch_zero = 2026-02-02T00:00:00Z\n"
    )
    given = settings_of(
        *("--config", file, "--port", 1003),
        ORCHESTRATOR_PORT="1002",
        ORCHESTRATOR_LIVELINESS_SECONDS="33",
    )
    assert (given.port, given.liveliness_seconds, given.challenge_seconds) == (1003, 33, 22)
    assert given.allow_ranges == ("10.0.0.0/8", "192.168.0.0/16")
    assert given.epoch_zero == datetime(2026, 2, 2, tzinfo=UTC)
    assert given.policy == "production"


@pytest.mark.parametrize(
    "text", ["prot = 1", "port = 'many'", "port = 70000", "liveliness_seconds = 0", "no toml", "log_format = 'xml'"]
)
def test_a_file_with_a_mistake_is_refused(settings_of, tmp_path, text):
    (tmp_path / "o.toml").write_text(text + "\n")
    refused = settings_of("--config", tmp_path / "o.toml")
    assert refused.exit_code == USAGE
    assert "Traceback" not in refused.output


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--policy", "none-such"), "--policy"),
        (("--collateral", "no-such-folder"), "--collateral"),
        (("--trust-root", "no-such-file"), "--trust-root"),
        (("--allow-range", "10.0.0.0/99"), "--allow-range"),
        (("--host", "192.0.2.1"), "--host"),
        (("--database", "/nonexistent/dir/r.sqlite"), ""),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(tmp_path, arguments, word):
    failed = invoke(tmp_path, "serve", "--port", 0, "--json", *arguments)
    assert failed.exit_code == ERROR, failed.output
    assert word in failed.stderr
    assert failed.stdout == ""


# --- serve as a process -----------------------------------------------------------------------------------------------
def serve(state: Path, *arguments, **env):
    return subprocess.Popen(
        [sys.executable, "-m", "orchestrator", "serve", "--port", "0", "--json", *map(str, arguments)],
        env={**os.environ, "ORCHESTRATOR_STATE": str(state), **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_serve_from_nothing_and_stop(tmp_path):
    state = tmp_path / "state"
    with serve(state) as process:
        known = json.loads(process.stdout.readline())
        added = invoke(
            state,
            *("workers", "add", IP, "--wallet", known["admin_address"], "--type", "1xH100"),
            server=known["url"],
        )
        assert added.exit_code == OK, added.output
        assert httpx.get(known["url"] + "/v1/about").json()["admin_address"] == known["admin_address"]
        assert httpx.get(known["url"] + "/readyz").status_code == 200
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=20)
        assert (process.returncode, out) == (OK, "")
    entries = [json.loads(line) for line in err.splitlines()]
    assert {entry["event"] for entry in entries} == {"request"}

    with serve(state) as process:  # what was committed is there again
        known = json.loads(process.stdout.readline())
        assert invoke(state, "workers", "list", "-q", server=known["url"]).stdout == IP + "\n"
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
        assert process.returncode == OK


def test_it_drains_before_the_port_closes(tmp_path):
    with serve(tmp_path, "--drain-seconds", 60) as process:
        known = json.loads(process.stdout.readline())
        with httpx.Client(base_url=known["url"]) as http:
            assert http.get("/readyz").status_code == 200
            process.send_signal(signal.SIGTERM)
            deadline = time.monotonic() + 10
            while http.get("/readyz").status_code != 503:
                assert time.monotonic() < deadline
            assert http.get("/v1/urls").status_code == 200
        process.send_signal(signal.SIGTERM)  # the second one does not wait
        process.communicate(timeout=20)
        assert process.returncode == OK


def test_emulated_roots_are_told_loudly(tmp_path):
    from nodeprobe.emulator.pki import Pki

    pki = Pki.create(tmp_path / "pki", now=datetime.now(UTC))
    with serve(tmp_path, "--trust-root", pki.anchors, "--policy", "lab") as process:
        known = json.loads(process.stdout.readline())
        about = httpx.get(known["url"] + "/v1/about").json()
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=20)
    assert (about["emulated_roots"], about["policy"]) == (True, "lab")
    assert "EMULATED ROOTS ARE TRUSTED" in err


def test_a_port_that_is_taken(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        failed = invoke(tmp_path, "serve", "--port", port)
    assert failed.exit_code == ERROR
    assert f"cannot listen on 127.0.0.1 port {port}" in failed.stderr
