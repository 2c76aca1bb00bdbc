"""The page of reason codes says what the code says."""

from __future__ import annotations

import re

from attest.reasons import CATALOGUE
from orchestrator.reasons import CATALOGUE as PROBLEMS
from tests.reasons_page import PAGE, render, verification_reasons


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(), "run `make docs`"


def test_every_code_stands_in_the_page_once() -> None:
    rows = re.findall(r"^\|(?: \d{3} \|)? `([a-z0-9-]+)` \|", render(), re.MULTILINE)
    known = [reason.code for reason in verification_reasons()]
    assert sorted(rows) == sorted([*known, *PROBLEMS])
    assert set(CATALOGUE) <= set(known)


def test_every_reason_says_what_to_do() -> None:
    sentence = re.compile(r"[A-Z`].{15,}[.:)]", re.DOTALL)
    for reason in verification_reasons():
        assert sentence.fullmatch(reason.meaning), reason.code
        assert sentence.fullmatch(reason.remedy), reason.code
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", reason.code)


def test_rows_are_whole() -> None:
    for line in render().splitlines():
        if line.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", line)) == 5
