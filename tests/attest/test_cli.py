"""`attest` as users type it: what it prints, what it ends with, and that no mistake of theirs shows a traceback."""

import json
import os
import resource
import subprocess
import sys
import tomllib
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.x509.oid import NameOID

from attest.__main__ import main
from attest.cli import Hex32, Instant
from attest.evidence import BUNDLE_BYTES_MAX, Evidence, dumps
from attest.reasons import CATALOGUE
from attest.report import as_text
from nodeprobe.emulator import spdm
from tests.attest.world import MODEL

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "fixtures"
GOOD = FIXTURES / "good-single"
ENVIRONMENT = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1"}
MEMORY_MAX = 400 << 20  # of address space beyond Python's own: a file that is read whole would not fit


def case_of(folder):
    says = tomllib.loads((folder / "case.toml").read_text())
    files = [str(folder / name) for name in says["evidence"]]
    options = ["--nonce", says["nonce"], "--at", says["at"].isoformat(), "--policy", says["policy"]]
    options += ["--collateral", str(folder / says["collateral"]), "--trust-root", str(folder / says["anchors"])]
    return files, options


def typed(*arguments, **options):
    """A process of its own, as from a shell."""
    command = [sys.executable, "-m", "attest", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=ENVIRONMENT, cwd=ROOT, **options)


def called(*arguments):
    """The same in this process, where it matters only what it says."""
    return CliRunner().invoke(main, list(map(str, arguments)), prog_name="attest")


def verified(case, *more):
    files, options = case_of(FIXTURES / case)
    return called("verify", *files, *options, *more)


# --- processes --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("case", "status"),
    [("good-single", 0), ("measurement-changed", 10), ("trailing-byte", 30)],
)
def test_exit_status_of_a_process(case, status):
    files, options = case_of(FIXTURES / case)

    ended = typed("verify", *files, *options)

    assert (ended.returncode, ended.stderr) == (status, "")
    assert ended.stdout.split()[0] == ["ACCEPTED", "REFUSED", "UNSUPPORTED", "MALFORMED"][status // 10]


def test_the_installed_command_is_the_same():
    script = Path(sys.executable).parent / "attest"
    if not script.exists():
        pytest.skip("the project is not installed beside this Python")

    ended = subprocess.run([script, "--version"], capture_output=True, text=True, timeout=60, check=True)

    assert ended.stdout.startswith("attest")


def test_help_waits_for_nothing():
    """What takes long to import is imported by the command that needs it."""
    heavy = "{'lxml', 'pydantic', 'cryptography', 'fastapi', 'sqlalchemy', 'httpx', 'rich', 'pynvml', 'rfc8785'}"
    program = f"import sys, attest.__main__; print(sorted({heavy} & set(sys.modules)))"

    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)

    assert ended.stdout.strip() == "[]"


def limited():
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MAX, MEMORY_MAX))


@pytest.mark.parametrize("place", ["evidence", "--trust-root", "--policy", "--collateral"])
def test_a_file_of_five_gigabytes_is_not_read_into_memory(tmp_path, place):
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(5 << 30)  # sparse: takes no room
    files, options = case_of(GOOD)
    if place == "evidence":
        ended, status = typed("verify", large, preexec_fn=limited), 30
    elif place == "--collateral":
        ended, status = typed("verify", *files, *options, place, tmp_path, preexec_fn=limited), 10
    else:
        ended, status = typed("verify", *files, *options, place, large, preexec_fn=limited), 2

    assert ended.returncode == status
    assert "Traceback" not in ended.stderr


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no /dev/zero on this system")
def test_a_file_without_end_is_not_read_for_ever():
    assert typed("verify", "/dev/zero", preexec_fn=limited).returncode == 30


def test_evidence_from_a_pipe():
    files, options = case_of(FIXTURES / "good-eight")

    with Path(files[0]).open("rb") as file:
        ended = typed("verify", "/dev/stdin", *options, stdin=file)

    assert ended.returncode == 0


def test_a_reader_that_goes_away_is_no_traceback():
    command = f"{sys.executable} -m attest inspect {GOOD}/report.bin {GOOD}/chain.pem | head -n 1"

    ended = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, cwd=ROOT, env=ENVIRONMENT)

    assert ended.stdout.startswith("(not verified")
    assert "Traceback" not in ended.stderr


# --- verify -----------------------------------------------------------------------------------------------------------
def test_json_says_all_of_an_acceptance():
    said = json.loads(verified("good-single", "--json").stdout)

    assert {"status", "tier", "emulated", "revocation", "freshness", "binding", "cpu", "policy", "nonce"} <= said.keys()
    assert {"evidence_sha256", "issued_at", "expires_at", "devices", "refusals", "findings"} <= said.keys()
    assert (said["status"], said["tier"], said["emulated"]) == ("accepted", "affirming", True)
    assert (said["revocation"], said["freshness"], said["refusals"]) == ("not checked", "nonce", [])
    (device,) = said["devices"]
    assert device["claims"]["measurements"] == "match"
    assert len(device["collateral"]) == 2
    assert said["issued_at"] == "2030-01-02T00:00:00Z"
    assert all(finding["holds"] for finding in said["findings"])


def test_json_says_all_of_a_refusal():
    said = json.loads(verified("measurement-changed", "--json").stdout)

    assert (said["status"], said["tier"]) == ("refused", "contraindicated")
    (refusal,) = said["refusals"]
    assert {"device", "stage", "rule", "code", "holds", "found", "wanted", "meaning", "fix"} == refusal.keys()
    assert refusal["found"] == "mismatch at 9"
    assert refusal["fix"] == CATALOGUE[refusal["code"]].remedy


def test_json_of_malformed_evidence_has_the_same_shape(tmp_path):
    (tmp_path / "x").write_bytes(b"nonsense")

    ended = called("verify", tmp_path / "x", "--json")

    said = json.loads(ended.stdout)
    assert (ended.exit_code, said["status"], said["devices"]) == (30, "malformed", [])
    assert said["refusals"][0]["code"] == "evidence-malformed"


def test_text_says_what_to_do():
    text = verified("measurement-changed").stdout

    assert "reference-values" in text or "appraise" in text
    assert "measurements-mismatch" in text
    assert CATALOGUE["measurements-mismatch"].remedy in text
    assert "EMULATED" in text
    assert "revocation: not checked" in text


def test_the_same_refusal_of_several_devices_is_told_once():
    files, options = case_of(FIXTURES / "good-eight")
    ended = called("verify", *files, *options[2:], "--nonce", "00" * 32)

    assert ended.exit_code == 10
    assert ended.stdout.count("nonce-mismatch") == 1
    assert "more devices" in ended.stdout


def test_without_a_nonce_production_refuses_and_lab_says_so():
    files, options = case_of(GOOD)
    del options[options.index("--nonce") : options.index("--nonce") + 2]

    lab = json.loads(called("verify", *files, *options, "--json").stdout)
    production = called("verify", *files, *options, "--policy", "production", "--json")

    assert (lab["status"], lab["freshness"], lab["nonce"]) == ("accepted", "not checked", None)
    assert production.exit_code == 10
    codes = {refusal["code"] for refusal in json.loads(production.stdout)["refusals"]}
    assert {"nonce-not-given", "root-not-accepted", "revocation-not-checked"} <= codes


def test_production_is_what_is_meant_where_nothing_is_said():
    files, options = case_of(GOOD)
    del options[options.index("--policy") : options.index("--policy") + 2]

    said = json.loads(called("verify", *files, *options, "--json").stdout)

    assert (said["policy"]["name"], said["status"]) == ("production", "refused")


def test_without_its_root_emulated_evidence_is_refused():
    files, options = case_of(GOOD)
    del options[options.index("--trust-root") : options.index("--trust-root") + 2]

    said = json.loads(called("verify", *files, *options, "--json").stdout)

    assert [refusal["code"] for refusal in said["refusals"]] == ["chain-root"]


def test_without_collateral_nothing_is_decided_and_the_rim_is_named():
    files, options = case_of(GOOD)
    del options[options.index("--collateral") : options.index("--collateral") + 2]

    ended = called("verify", *files, *options, "--json")

    said = json.loads(ended.stdout)
    assert (ended.exit_code, said["tier"]) == (10, "none")
    assert {"NV_GPU_DRIVER_GH100_550.00.91", "NV_GPU_VBIOS_1010_0200_882_9600FE0002"} <= {
        refusal["wanted"] for refusal in said["refusals"]
    }


def test_a_policy_of_ones_own(tmp_path):
    policy = tmp_path / "mine.toml"
    policy.write_text('name = "mine"\norigins = ["emulated"]\nrevocation = "optional"\ndevices_min = 8\n'
                      '[nvidia]\ntopology = "optional"\n')  # fmt: skip

    assert (
        json.loads(verified("good-single", "--policy", policy, "--json").stdout)["refusals"][0]["code"]
        == "device-count"
    )
    assert verified("good-eight", "--policy", policy).exit_code == 0


def test_cpu_evidence_is_named(tmp_path):
    (tmp_path / "quote").write_bytes(bytes.fromhex("0400020081000000") + bytes(600))

    ended = called("inspect", tmp_path / "quote", "--json")

    assert json.loads(ended.stdout)["devices"][0]["kind"] == "intel-tdx"


def test_a_kind_that_nobody_reads_is_unsupported(tmp_path):
    (tmp_path / "x").write_bytes(dumps((Evidence("toaster", b"x"),)))

    ended = typed("verify", tmp_path / "x", "--json")

    assert (ended.returncode, ended.stderr) == (20, "")
    said = json.loads(ended.stdout)
    assert (said["status"], said["refusals"][0]["code"]) == ("unsupported", "kind-unsupported")


@pytest.mark.parametrize(
    "at", ["2030-01-02", "2030-01-02T00:00:00Z", "2030-01-02T02:00:00+02:00", "2030-01-02T00:00:00"]
)
def test_times_may_be_written_in_several_ways(at):
    assert json.loads(verified("good-single", "--at", at, "--json").stdout)["issued_at"] == "2030-01-02T00:00:00Z"


@pytest.mark.parametrize("at", ["9999-12-31T23:59:59Z", "0001-01-01", "1970-01-01T00:00:00Z"])
def test_the_ends_of_time_are_a_verdict_too(at):
    ended = verified("good-single", "--at", at, "--json")

    assert ended.exit_code == 10, ended.output
    assert json.loads(ended.stdout)["refusals"]


# --- mistakes ---------------------------------------------------------------------------------------------------------
def mistaken(ended):
    assert ended.exit_code == 2, ended.output
    assert "Traceback" not in ended.output
    return ended.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["verify"],
        ["verify", "/nowhere/report.bin"],
        ["verify", str(FIXTURES)],
        ["inspect"],
        ["inspect", str(FIXTURES)],
        ["no-such-command"],
        ["verify", "--no-such-option", str(GOOD / "report.bin")],
        ["policy", "show", "no-such-policy"],
        ["policy", "show", str(FIXTURES)],
        ["policy", "show", str(GOOD / "report.bin")],
        ["completion", "cmd.exe"],
        ["completion"],
    ],
)
def test_wrong_usage(arguments):
    assert "Usage" in mistaken(called(*arguments))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--nonce", ""),
        ("--nonce", "00" * 31),
        ("--nonce", "00" * 33),
        ("--nonce", "0g" * 32),
        ("--nonce", "٠" * 64),
        ("--at", "yesterday"),
        ("--at", ""),
        ("--at", "2030-02-30"),
        ("--at", "0001-01-01T00:00:00+14:00"),
        ("--at", "9999-12-31T23:59:59-14:00"),
        ("--collateral", "/nowhere"),
        ("--collateral", str(GOOD / "report.bin")),
        ("--trust-root", "/nowhere"),
        ("--trust-root", str(FIXTURES)),
        ("--trust-root", str(GOOD / "report.bin")),
        ("--trust-root", str(GOOD / "chain.pem")),
        ("--policy", "no-such-policy"),
        ("--policy", str(GOOD / "chain.pem")),
        ("--policy", str(FIXTURES)),
        ("--policy", ""),
    ],
)
def test_wrong_values(option, value):
    said = mistaken(verified("good-single", option, value))

    assert "Error" in said


def test_an_unknown_key_of_a_policy_is_named(tmp_path):
    (tmp_path / "p.toml").write_text('name = "p"\n[nvidia]\nmodus = ["spt"]\n')

    assert "nvidia.modus" in mistaken(verified("good-single", "--policy", tmp_path / "p.toml"))


def test_a_file_that_cannot_be_read_is_named(monkeypatch):
    def forbidden(*_arguments):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", forbidden)

    assert "report.bin cannot be read: Permission denied" in mistaken(called("inspect", GOOD / "report.bin"))


def test_two_distributions_of_one_kind_are_told(monkeypatch):
    import attest.verify

    (ours,) = [point for point in attest.verify.entry_points(group="attest.verifiers") if point.name == "nvidia"]
    monkeypatch.setattr(attest.verify, "entry_points", lambda group: [ours, ours])

    assert "two distributions" in mistaken(verified("good-single"))


def test_a_folder_with_a_manifest_that_is_none_is_named(tmp_path):
    (tmp_path / "manifest.json").write_text("{}")

    assert "is no manifest of collateral" in mistaken(verified("good-single", "--collateral", tmp_path))


def test_too_many_files_are_refused_unread():
    ended = called("verify", *[GOOD / "report.bin"] * 1_000, "--json")

    assert ended.exit_code == 30
    assert json.loads(ended.stdout)["refusals"][0]["code"] == "evidence-too-large"


@pytest.mark.parametrize("size", [BUNDLE_BYTES_MAX, BUNDLE_BYTES_MAX + 1])
def test_the_limit_is_the_limit(tmp_path, size):
    (tmp_path / "x").write_bytes(b"{}".ljust(size))

    said = json.loads(called("verify", tmp_path / "x", "--json").stdout)

    assert said["refusals"][0]["code"] == ("evidence-too-large" if size > BUNDLE_BYTES_MAX else "evidence-malformed")


# --- inspect, policy, completion --------------------------------------------------------------------------------------
def test_inspect_shows_and_believes_nothing():
    ended = called("inspect", GOOD / "report.bin", GOOD / "chain.pem", "--json")

    said = json.loads(ended.stdout)
    assert ended.exit_code == 0
    assert said["warning"].startswith("not verified")
    (device,) = said["devices"]
    assert (device["kind"], device["driver"], len(device["certificates"])) == ("nvidia", "550.00.91", 5)
    assert device["nonce"] == tomllib.loads((GOOD / "case.toml").read_text())["nonce"]
    assert "accepted" not in ended.stdout


def test_inspect_shows_what_would_be_refused():
    ended = called("inspect", FIXTURES / "fwid-mismatch" / "report.bin", FIXTURES / "fwid-mismatch" / "chain.pem")

    assert ended.exit_code == 0
    assert "not verified" in ended.stdout


def test_inspect_of_what_does_not_parse():
    case = FIXTURES / "trailing-byte"

    ended = called("inspect", case / "report.bin", case / "chain.pem", "--json")

    assert (ended.exit_code, json.loads(ended.stdout)["status"]) == (30, "malformed")


def test_nothing_that_a_node_wrote_reaches_the_terminal_as_it_is(tmp_path, world):
    """A certificate may be named with escape sequences; a terminal would obey them."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "\x1b[2J\x1b]0;owned\x07 \u202eGH100 A01 GSP BROM")])
    evidence = world.evidence(chain=lambda draft: setattr(draft, "brom", replace(draft.brom, subject=name)))
    (tmp_path / "x").write_bytes(dumps((evidence,)))

    trusting = ["verify", "--trust-root", world.pki.anchors]
    for arguments in (["inspect"], ["inspect", "--json"], trusting, [*trusting, "--json"]):
        said = called(*arguments, tmp_path / "x").stdout
        assert "GSP" in said
        assert not any(character in said for character in "\x1b\x07\u202e")


@pytest.mark.parametrize("name", ["strict", "production", "lab"])
def test_policies_can_be_read(name):
    said = json.loads(called("policy", "show", name, "--json").stdout)

    assert said["rules"]["name"] == name
    assert len(said["sha256"]) == 64
    assert "lifetime_seconds = " in called("policy", "show", name).stdout


def test_inspect_says_what_a_report_lacks(tmp_path, world):
    """A switch has no driver; what else the report says is shown all the same."""
    (tmp_path / "x").write_bytes(dumps((world.evidence(report=lambda draft: draft.drop(spdm.DRIVER_VERSION)),)))

    (device,) = json.loads(called("inspect", tmp_path / "x", "--json").stdout)["devices"]

    assert device["driver"] == "none (report-field-missing)"
    assert device["vbios"] == MODEL.vbios


def test_a_switch_is_told_by_its_bios():
    document = json.loads(verified("good-single", "--json").stdout)
    claims = document["devices"][0]["claims"]
    del claims["driver"], claims["vbios"]
    claims["bios"] = "96.10.55.00.01"

    assert "BIOS 96.10.55.00.01, mode spt" in as_text(document)


def test_the_text_leaves_out_what_was_neither_found_nor_wanted():
    document = json.loads(verified("measurement-changed", "--json").stdout)
    assert "found:" in as_text(document)
    assert "wanted:" in as_text(document)
    for refusal in document["refusals"]:
        refusal["found"] = refusal["wanted"] = ""

    assert "found:" not in as_text(document)
    assert "wanted:" not in as_text(document)
    assert "do:" in as_text(document)


def test_the_same_refusal_of_one_device_names_it_once():
    document = json.loads(verified("measurement-changed", "--json").stdout)
    document["refusals"] *= 2
    name = document["refusals"][0]["device"]

    assert as_text(document).count(f"({name})") == 1


def test_parameters_that_are_read_already_are_left_as_they_are():
    moment = datetime(2030, 1, 2, tzinfo=UTC)

    assert Hex32().convert(bytes(32), None, None) == bytes(32)
    assert Instant().convert(moment, None, None) is moment


def test_a_shell_that_click_does_not_know_is_told(monkeypatch):
    monkeypatch.setattr("attest.cli.get_completion_class", lambda _shell: None)

    ended = called("completion", "fish")

    assert (ended.exit_code, ended.stderr) == (1, "Error: click knows no completion for fish\n")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell):
    ended = called("completion", shell)

    assert ended.exit_code == 0
    assert "_ATTEST_COMPLETE" in ended.stdout


@pytest.mark.parametrize("arguments", [[], ["verify"], ["inspect"], ["policy"], ["policy", "show"], ["completion"]])
def test_every_command_has_help(arguments):
    ended = called(*arguments, "--help")

    assert ended.exit_code == 0
    assert ended.stdout.startswith("Usage: attest")
