"""That the suite can fail: a runner that finds nothing wrong with a wrong expectation proves nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from attest.reasons import CATALOGUE
from tests.conformance.__main__ import FIXTURES, SAMPLE, gaps
from tests.conformance.codes import ATTACKS, WITHOUT_VECTOR, attacks_of, company_of, without_vector
from tests.conformance.draft import Draft
from tests.conformance.gpu import AT
from tests.conformance.recorded import CASES
from tests.conformance.vector import Vector, judge, run, run_command

GOOD, REFUSED = (Vector.load(FIXTURES / name, "fixtures") for name in ("good-single", "measurement-changed"))


def test_fixtures_are_as_their_cases_say() -> None:
    assert (run(GOOD).faults, run(REFUSED).faults) == ((), ())
    assert run_command(REFUSED).faults == ()


@pytest.mark.parametrize(
    "wrong",
    [
        {"status": 10},
        {"status": 30},
        {"codes": frozenset({"nonce-mismatch"})},
        {"says": {"emulated": False}},
        {"arguments": ("verify", "--no-such-option")},
        {"arguments": (*GOOD.arguments, "--policy", "production")},
    ],
    ids=repr,
)
def test_wrong_expectation_of_good_evidence_is_a_fault(wrong: Mapping[str, Any]) -> None:
    assert run(replace(GOOD, **wrong)).faults


@pytest.mark.parametrize("wrong", [{"codes": frozenset(), "exactly": True}, {"status": 0}, {"says": {"tier": "none"}}])
def test_wrong_expectation_of_bad_evidence_is_a_fault(wrong: Mapping[str, Any]) -> None:
    assert run(replace(REFUSED, **wrong)).faults


def test_a_yes_without_proof_is_a_fault() -> None:
    bare = '{"status": "accepted", "tier": "affirming", "refusals": [], "devices": [], "findings": []}'

    (fault,) = judge(replace(GOOD, says={}), 0, bare.replace("}", ', "evidence_sha256": "", "emulated": false}')).faults

    assert "without devices" in fault


def test_a_crash_and_silence_are_faults() -> None:
    assert judge(GOOD, 1, "", crash="KeyError()").faults
    assert judge(GOOD, 0, "").faults


def test_missing_codes_and_attacks_are_told() -> None:
    told = gaps([GOOD])

    assert "no vector names nonce-mismatch" in told
    assert any(line.startswith("no vector is of attack 10") for line in told)
    assert any("which is no code" in line for line in gaps([replace(GOOD, codes=frozenset({"gone"}))]))


def test_tables_name_what_there_is() -> None:
    assert WITHOUT_VECTOR.keys() <= CATALOGUE.keys()
    assert without_vector("token-expired")
    assert without_vector("nonce-mismatch") is None
    assert attacks_of(["nonce-mismatch", "rim-digest"]) == (1, 9)
    assert company_of(["no-such-code"]) == ()
    assert set(ATTACKS) == {*range(1, 11), 13, 15}
    assert {name.split("/")[0] for name in SAMPLE} >= {"fixtures", "recorded", "gpu", "tdx", "snp", "nras", "container"}


def test_a_draft_becomes_the_directory_that_it_says(tmp_path: Path) -> None:
    draft = Draft(
        "odd", 'a "made" ☃', {"a.bin": b"a"}, AT, ("evidence-malformed",), policy='name = "p"\n', nonce=bytes(32)
    )

    vector = Vector.load(draft.lay_down(tmp_path), "test")

    assert (vector.status, vector.codes, vector.attacks) == (30, {"evidence-malformed"}, (10,))
    assert (tmp_path / "odd" / "policy.toml").read_text() == 'name = "p"\n'
    assert run(vector).faults == ()


def test_every_recorded_case_is_described() -> None:
    assert len(list(CASES.glob("*.toml"))) >= 40
