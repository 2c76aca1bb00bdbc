"""
Renders `docs/reasons.md` from the catalogues in code: `python -m tests.reasons_page` writes it.

It lies outside the rooms, since it reads two of them: why evidence, or a token, was not believed (`attest`), and why
the orchestrator did not do what it was asked (`orchestrator.reasons`). A test compares the page with the code.
"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

from attest.reasons import CATALOGUE, Reason, Stage
from orchestrator.reasons import CATALOGUE as PROBLEMS
from orchestrator.reasons import Problem

PAGE = Path(__file__).parent.parent / "docs" / "reasons.md"

_HEAD = """# Reason codes

Rendered from the code by `make docs`; edit the catalogues, not this page. A code never changes its meaning and is never
used again for another: alerts may be written on them.
"""
_VERIFICATION = """## Why evidence, or a result, was not believed

In the order in which verification goes. *Fault* decides what a refusal does: the **node**'s ends its trust; with the
**collateral**'s nothing could be decided, so trust runs on until it expires, and one asks again. `attest verify` shows
these codes, the API gives them in `verdict.reasons`, and `attest result verify` shows those of tokens and results.
"""
_REFUSALS = """
## Why the orchestrator did not do it

Each is a problem document (RFC 9457) of type `urn:workermanager:reason:CODE`. Some are told in more than one way; the
code is the same.
"""
_STAGES = {
    Stage.PARSE: "Parse: can it be read?",
    Stage.CHAIN: "Chain: do the certificates, or the keys, lead to a root that we trust?",
    Stage.SIGNATURE: "Signature: did that device, or that issuer, sign these bytes?",
    Stage.FRESHNESS: "Freshness: is it an answer to our challenge, and of now?",
    Stage.REFERENCE: "Reference values: are the documents to compare with genuine, and current?",
    Stage.BUNDLE: "Bundle: do the devices belong together, and to this worker?",
    Stage.BINDING: "Binding: is the evidence tied to who presents it?",
    Stage.APPRAISE: "Appraise: does the policy accept what was found?",
}


def verification_reasons() -> list[Reason]:
    """Every reason of `attest`, by stage in their order, then by code."""
    stages = list(Stage)
    return sorted(CATALOGUE.values(), key=lambda reason: (stages.index(reason.stage), reason.code))


def render() -> str:
    """The page."""
    lines = [_HEAD, _VERIFICATION]
    for stage, reasons in groupby(verification_reasons(), key=lambda reason: reason.stage):
        lines += [f"### {_STAGES[stage]}\n", "| code | meaning | what to do | fault |", "|---|---|---|---|"]
        lines += [_row(f"`{each.code}`", each.meaning, each.remedy, each.fault) for each in reasons]
        lines.append("")
    lines += [_REFUSALS.lstrip()]
    by_status = sorted(PROBLEMS.values(), key=lambda problem: (problem.status, problem.code))
    lines += ["| status | code | meaning | what to do |", "|---|---|---|---|", *map(_problem, by_status)]
    return "\n".join(lines) + "\n"


def _problem(problem: Problem) -> str:
    return _row(str(problem.status), f"`{problem.code}`", f"{problem.title}.", problem.fix)


def _row(*cells: str) -> str:
    escaped = (cell.replace("|", r"\|") for cell in cells)
    return f"| {' | '.join(escaped)} |"


def main() -> None:
    PAGE.write_text(render(), encoding="utf-8")


if __name__ == "__main__":
    main()
