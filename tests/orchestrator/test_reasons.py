"""The orchestrator's refusals: a catalogue, and an exception that is safe to print."""

import pytest

from orchestrator import reasons
from orchestrator.reasons import CATALOGUE, Refused

KNOWN_TO_CLIENTS = {
    "Didn't find worker": "worker-unknown",
    "Could not find the worker": "worker-unknown",
    "Only the owner has the authority to modify the payment wallet": "not-owner",
    "Only the owner has the authority to modify the IP address": "not-owner",
    "Only the owner has the authority to modify the worker_type": "not-owner",
    "Only the owner has the authority to remove the worker": "not-owner",
    "Only admin can register workers": "not-admin",
}


def test_every_problem_says_what_and_what_to_do() -> None:
    for code, problem in CATALOGUE.items():
        assert problem.code == code
        assert 400 <= problem.status <= 599
        assert problem.title
        assert problem.title[-1] != "."
        assert problem.fix.endswith(".")


def test_the_texts_that_clients_know_are_titles() -> None:
    titles = {p.title: p.code for p in vars(reasons).values() if isinstance(p, reasons.Problem)}
    assert {title: titles.get(title) for title in KNOWN_TO_CLIENTS} == KNOWN_TO_CLIENTS


def test_a_code_is_taken_once() -> None:
    with pytest.raises(ValueError, match="taken"):
        reasons._problem("not-owner", 403, "x", "y.")


def test_a_refusal_cuts_and_escapes_what_it_quotes() -> None:
    refused = Refused(reasons.FIELD_INVALID, "name", got="\x1b[2J\n\u202e" + "x" * 1000, want="text")
    assert str(refused).isprintable()
    assert len(refused.got) < 2 * reasons.SHOWN_CHARS_MAX
    assert "field name" in str(refused)
