"""The catalogue of reasons: complete, told in sentences, and each raised with an error of whose fault it is."""

import ast
import re
from pathlib import Path

import pytest

import attest
from attest import reasons
from attest.errors import SHOWN_CHARS_MAX, AttestError, UntrustedCollateral, UntrustedEvidence
from attest.reasons import CATALOGUE, Fault, Stage

HOME = Path(attest.__file__).parent
SOURCES = [path for path in HOME.rglob("*.py") if path.stem != "reasons" and "reasons" not in path.parts]
OURS = sorted(name for name, value in vars(reasons).items() if isinstance(value, reasons.Reason))


@pytest.mark.parametrize("code", sorted(CATALOGUE))
def test_a_reason_is_told_in_sentences(code):
    reason = CATALOGUE[code]

    assert reason.code == code
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", code)
    assert reason.meaning.endswith(".")
    assert reason.remedy.endswith(".")
    assert reason.stage in Stage


def test_a_code_is_given_once():
    with pytest.raises(ValueError, match="taken"):
        reasons._reason("chain-root", Stage.CHAIN, "Again.", "No.")


@pytest.mark.parametrize("name", OURS)
def test_every_reason_of_the_catalogue_is_given_somewhere(name):
    users = [*SOURCES, *(Path(attest.__file__).parents[1] / "orchestrator").rglob("*.py")]

    assert any(re.search(rf"\b{name}\b", path.read_text()) for path in users)


def raised():
    """Every `raise Error(reasons.REASON, …)` in attest whose reason is written out."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
                named = ast.unparse(node.args[0]).removeprefix("reasons.")
                if node.func.id.startswith(("Untrusted", "Malformed", "Unsupported")) and hasattr(reasons, named):
                    yield node.func.id, getattr(reasons, named)


def test_collateral_is_the_publishers_fault_and_evidence_the_nodes():
    found = list(raised())
    assert len(found) > 20
    for error, reason in found:
        assert (error == "UntrustedCollateral") == (reason.fault is Fault.COLLATERAL), (error, reason.code)


@pytest.mark.parametrize("error", [AttestError, UntrustedEvidence, UntrustedCollateral])
def test_an_error_shows_hostile_bytes_harmlessly(error):
    hostile = "\x1b[2J\u202e\ud800\n" + "x" * 10_000

    said = error(reasons.CHAIN_ROOT, hostile, hostile)

    assert str(said).isprintable()
    assert len(said.found) <= SHOWN_CHARS_MAX + 4 * 6 * 4
    assert said.reason is reasons.CHAIN_ROOT
    assert "chain-root" in str(said)
