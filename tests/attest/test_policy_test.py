"""`attest policy test|check` and preflights: what a policy makes of recordings, and what is expected of them."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from attest.__main__ import main
from attest.policy import SHIPPED

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


def test_results_are_verified_by_the_same_command():
    assert called("result", "verify", "--help").exit_code == 0
