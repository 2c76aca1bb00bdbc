"""`attest policy test|check` and preflights: what a policy makes of recordings, and what is expected of them."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from attest import recordings
from attest.__main__ import main
from attest.policy import SHIPPED
from attest.recordings import CASE_BYTES_MAX, CaseError, cases
from attest.report import as_text

FIXTURES = Path(__file__).parents[2] / "fixtures"
GOOD = FIXTURES / "good-single"


def called(*arguments):
    return CliRunner().invoke(main, list(map(str, arguments)), prog_name="attest")


def cases_of(*arguments):
    ended = called("policy", "test", *arguments, "--json")
    return ended.exit_code, {each["case"]: each for each in json.loads(ended.stdout)["cases"]}


@pytest.fixture
def case(tmp_path):
    """A copy of the good case that can be spoiled."""
    shutil.copytree(FIXTURES / "pki", tmp_path / "pki")
    shutil.copytree(GOOD, tmp_path / "case")
    return tmp_path / "case"


def says(case, **changes):
    """The case with lines of its case.toml changed; None leaves one out."""
    lines = dict(line.split(" = ", 1) for line in (case / "case.toml").read_text().splitlines() if " = " in line)
    lines = {name: value for name, value in (lines | changes).items() if value is not None}
    (case / "case.toml").write_text("".join(f"{name} = {value}\n" for name, value in lines.items()))
    return case


# --- policy test ------------------------------------------------------------------------------------------------------
def test_a_case_that_is_as_expected_ends_with_0():
    status, found = cases_of("lab", GOOD)

    assert (status, found["good-single"]["status"], found["good-single"]["as_expected"]) == (0, "accepted", True)


@pytest.mark.parametrize(
    "changes",
    [{"exit_status": "10"}, {"exit_status": "30"}, {"reasons": '["nonce-mismatch"]'}],
)
def test_a_case_that_is_not_ends_with_1(case, changes):
    status, found = cases_of("lab", says(case, **changes))

    assert (status, found["case"]["status"], found["case"]["as_expected"]) == (1, "accepted", False)


def test_a_case_without_expectation_is_shown(case):
    status, found = cases_of("production", says(case, exit_status=None, policy=None))

    assert (status, found["case"]["status"], found["case"]["as_expected"]) == (0, "refused", None)
    assert "root-not-accepted" in found["case"]["reasons"]


def test_what_is_expected_of_another_policy_is_not_expected_of_this_one(case):
    assert cases_of("production", case)[1]["case"]["as_expected"] is None
    assert cases_of("production", says(case, policy=None))[1]["case"]["as_expected"] is False


def test_all_cases_of_a_folder_by_a_table():
    ended = called("policy", "test", "lab", FIXTURES)

    rows = [line.split() for line in ended.stdout.splitlines()]
    names = {path.parent.name for path in FIXTURES.glob("*/case.toml")}
    assert rows[0] == ["CASE", "STATUS", "REASONS"]
    assert ["good-single", "accepted", "-"] in rows
    assert ["replayed", "refused", "nonce-mismatch"] in [[cell.strip(",") for cell in row[:3]] for row in rows]
    assert {row[0] for row in rows if row} >= names


def test_a_folder_without_case_toml_is_evidence_and_rims(case):
    shutil.copytree(case.parent / "pki" / "rims", case, dirs_exist_ok=True)
    (case / "case.toml").unlink()

    status, found = cases_of("lab", case, "--at", "2030-01-02", "--trust-root", case.parent / "pki" / "anchors.pem")

    assert (status, found["case"]["status"], found["case"]["reasons"]) == (0, "accepted", [])


def test_as_if_challenged_only_the_root_is_wrong(case):
    says(case, nonce=None)

    as_it_is = cases_of("production", case)[1]["case"]["reasons"]
    asked = cases_of("production", case, "--preflight")[1]["case"]["reasons"]

    assert {"nonce-not-given", "binding-weak"} <= set(as_it_is)
    assert "root-not-accepted" in asked
    assert not {"nonce-not-given", "binding-weak"} & set(asked)


@pytest.mark.parametrize(
    "changes",
    [
        {"nonce": '"zz"'},
        {"nonce": '"00"'},
        {"nonce": "1"},
        {"at": '"soon"'},
        {"exit_status": "1"},
        {"evidence": "[]"},
        {"anchors": "[1]"},
    ],
)
def test_a_case_that_is_none_is_wrong_usage(case, changes):
    ended = called("policy", "test", "lab", says(case, **changes))

    assert (ended.exit_code, "Traceback" in ended.output) == (2, False)
    assert str(case) in ended.stderr


def test_an_empty_folder_is_no_case(tmp_path):
    assert called("policy", "test", "lab", tmp_path).exit_code == 2


def test_what_is_no_folder_holds_no_case(case):
    with pytest.raises(CaseError, match="is no folder"):
        list(cases(case / "case.toml"))


def test_so_many_cases_are_run(case, monkeypatch):
    shutil.copytree(case, case.parent / "other")
    assert [each.name for each in cases(case.parent)] == ["case", "other"]
    monkeypatch.setattr(recordings, "CASES_MAX", 1)

    with pytest.raises(CaseError, match="holds 2 cases, at most 1"):
        list(cases(case.parent))


def wrong(*arguments):
    ended = called("policy", "test", "lab", *arguments)
    assert (ended.exit_code, "Traceback" in ended.output) == (2, False)
    return ended.stderr


@pytest.mark.parametrize("data", [b"nonce", b"\xff", b"x = " + b"[" * 20_000])
def test_a_case_that_is_not_toml_is_wrong_usage(case, data):
    (case / "case.toml").write_bytes(data)

    assert "is not TOML" in wrong(case)


def test_a_case_has_a_size(case):
    data = (case / "case.toml").read_bytes()
    (case / "case.toml").write_bytes(data + b"#" * (CASE_BYTES_MAX - len(data)))
    assert cases_of("lab", case)[0] == 0

    (case / "case.toml").write_bytes(data + b"nonce = 'again' #" + b"#" * CASE_BYTES_MAX)
    assert "is not TOML" in wrong(case)


def test_a_file_of_a_case_that_is_not_there_is_named(case):
    says(case, evidence='["nowhere.bin"]')

    assert "nowhere.bin cannot be read: No such file or directory" in wrong(case)


def test_roots_of_a_case_that_are_none_are_named(case):
    says(case, anchors='"report.bin"')

    assert "report.bin: " in wrong(case)


def test_collateral_of_a_case_that_is_no_folder_is_named(case):
    says(case, collateral='"nowhere"')

    assert "nowhere is no folder" in wrong(case)


def test_evidence_of_a_case_that_is_none_is_an_outcome(case):
    (case / "report.bin").write_bytes(b"nonsense")

    status, found = cases_of("lab", says(case, exit_status="30", reasons='["evidence-malformed"]'))

    assert (status, found["case"]["status"], found["case"]["reasons"]) == (0, "malformed", ["evidence-malformed"])


def test_the_table_says_what_was_expected(case):
    ended = called("policy", "test", "lab", says(case, exit_status="10", reasons='["nonce-mismatch", "chain-root"]'))

    assert ended.exit_code == 1
    assert "NOT AS EXPECTED: refused chain-root nonce-mismatch" in ended.stdout
    assert "1 say what to expect, 1 are not so" in ended.stdout


# --- policy check -----------------------------------------------------------------------------------------------------
def test_a_good_policy_is_checked(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\nlifetime_seconds = 60\n')

    assert called("policy", "check", path).exit_code == 0
    assert json.loads(called("policy", "check", path, "--narrows", "production", "--json").stdout)["name"] == "mine"


@pytest.mark.parametrize(("rule", "key"), [("nonces = 1", "nonces"), ("[tdx]\nstatuses = []", "tdx.statuses")])
def test_a_wrong_key_is_named(tmp_path, rule, key):
    path = tmp_path / "mine.toml"
    path.write_text(f'name = "mine"\n{rule}\n')

    ended = called("policy", "check", path)

    assert (ended.exit_code, key in ended.stderr) == (2, True)


def test_what_does_not_narrow_is_named(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\nlifetime_seconds = 3601\n')

    ended = called("policy", "check", path, "--narrows", "production")

    assert (ended.exit_code, "lifetime_seconds" in ended.stderr) == (2, True)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_rule_is_shown(name):
    lines = called("policy", "show", name).stdout.splitlines()

    assert {"snp.tcb_min.milan.snp = 0", "nvidia.gpus_min = 0", "nvidia.gpus_min = 1"} & set(lines)
    assert [line for line in lines if line.startswith("tdx.statuses = ")]


# --- verify --preflight -----------------------------------------------------------------------------------------------
def test_a_preflight_says_what_falls_away_and_what_is_to_be_fetched():
    files = [GOOD / "report.bin", GOOD / "chain.pem"]
    world = ["--collateral", FIXTURES / "pki" / "rims", "--trust-root", FIXTURES / "pki" / "anchors.pem"]

    ended = called("verify", *files, *world, "--at", "2030-01-02", "--preflight", "--json")

    document = json.loads(ended.stdout)
    assert (ended.exit_code, document["policy"]["name"]) == (10, "production")
    assert set(document["preflight"]["falls_away"]) == {"nonce-not-given", "binding-weak"}
    assert {each["code"] for each in document["refusals"]} == {"root-not-accepted", "revocation-not-checked"}
    assert document["nonce"] is None
    assert document["freshness"] == "presumed, was not checked"


def test_a_preflight_takes_no_other_challenge_for_ours():
    files = [GOOD / "report.bin", GOOD / "chain.pem"]
    world = ["--collateral", FIXTURES / "pki" / "rims", "--trust-root", FIXTURES / "pki" / "anchors.pem"]

    ended = called(
        "verify", *files, *world, "--at", "2030-01-02", "--policy", "lab", "--preflight", "--nonce", "00" * 32
    )

    assert (ended.exit_code, "nonce-mismatch" in ended.stdout) == (10, True)


@pytest.mark.parametrize("kept", [{"falls_away"}, {"to_be_fetched"}, set()])
def test_the_text_of_a_preflight_says_only_what_there_is(kept):
    files = [GOOD / "report.bin", GOOD / "chain.pem"]
    document = json.loads(
        called("verify", *files, "--trust-root", FIXTURES / "pki" / "anchors.pem", "--preflight", "--json").stdout
    )
    told = document["preflight"]
    assert "rim-unavailable" in told["to_be_fetched"]
    assert told["falls_away"]
    document["preflight"] = {name: codes if name in kept else [] for name, codes in told.items()}

    text = as_text(document)

    assert "a preflight, no verdict" in text
    assert (f"falls away then: {', '.join(told['falls_away'])}" in text) == ("falls_away" in kept)
    fetched = f"rests on documents that an orchestrator fetches itself: {', '.join(told['to_be_fetched'])}"
    assert (fetched in text) == ("to_be_fetched" in kept)


def test_results_are_verified_by_the_same_command():
    assert called("result", "verify", "--help").exit_code == 0
