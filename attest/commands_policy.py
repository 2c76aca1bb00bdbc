"""`attest policy`: show the rules of a policy, check one before it is used, and try it on recordings."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from attest import inputs
from attest.cli import Instant

if TYPE_CHECKING:  # imports of the real work wait until a command runs, so that --help is quick
    from attest.recordings import Outcome

UNEXPECTED = 1
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def policy() -> None:
    """Appraisal policies: what must hold before evidence is accepted."""


@policy.command()
@click.argument("name", default="production")
@_JSON
def show(name: str, as_json: bool) -> None:
    """Print every rule of a policy, the ones left at their strict defaults too. NAME: a shipped one, or a TOML file."""
    found = inputs.policy_named(name)
    rules = found.model_dump(mode="json")
    if as_json:
        click.echo(json.dumps({"sha256": found.sha256, "rules": rules}, indent=2))
        return
    click.echo(f"# {found.name}, sha256 {found.sha256}")
    for key, value in _flat(rules):
        click.echo(f"{key} = {json.dumps(sorted(value) if isinstance(value, list) else value)}")


def _flat(rules: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Every rule by its full name: those of the node first, then table by table."""
    for key, value in rules.items():
        if not isinstance(value, dict):
            yield f"{above}{key}", value
    for key, value in rules.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{key}.")


@policy.command()
@click.argument("file", type=_FILE)
@click.option("--narrows", metavar="POLICY", help="Check also that FILE only narrows this one.")
@_JSON
def check(file: Path, narrows: str | None, as_json: bool) -> None:
    """
    Check that FILE is a policy: every key known, every value in its range.

    Exit status: 0, or 2 with the key that is wrong.
    """
    from attest.narrowing import narrowed
    from attest.policy import PolicyError

    found = inputs.policy_named(str(file))
    if narrows is not None:
        try:
            found = narrowed(inputs.policy_named(narrows), found)
        except PolicyError as e:
            raise click.UsageError(f"policy {file}: {e}") from e
    known = {"name": found.name, "sha256": found.sha256, "narrows": narrows}
    click.echo(json.dumps(known, indent=2) if as_json else f"{file}: policy {found.name}, sha256 {found.sha256}")


@policy.command()
@click.argument("policy_name", metavar="POLICY")
@click.argument("vectors", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--at", type=Instant(), help="The moment for cases that name none. Default: now.")
@click.option("--trust-root", type=_FILE, help="Roots of an emulator to trust in every case.")
@click.option("--preflight", is_flag=True, help="Judge as if the evidence had just answered a challenge.")
@_JSON
@click.pass_context
def test(
    ctx: click.Context,
    policy_name: str,
    vectors: tuple[Path, ...],
    at: datetime | None,
    trust_root: Path | None,
    preflight: bool,
    as_json: bool,
) -> None:
    """
    Run a policy over recordings. VECTORS: folders with evidence and RIMs, or folders of such with a case.toml each.

    A case.toml may say what to expect (exit_status, reasons) of one policy or of any; other cases are only shown.
    Exit status: 0 if every case is as expected, 1 if one is not, 2 wrong usage.
    """
    from attest.recordings import CaseError, cases, run

    rules, trusted, now = inputs.policy_named(policy_name), inputs.anchors(trust_root), at or datetime.now(UTC)
    try:
        outcomes = [
            run(case, rules, trusted, inputs.verifiers, now=now, challenged=preflight)
            for folder in vectors
            for case in cases(folder)
        ]
    except CaseError as e:
        raise click.UsageError(str(e)) from e
    asked = sum(outcome.expected is not None for outcome in outcomes)
    unexpected = sum(outcome.expected is False for outcome in outcomes)
    if as_json:
        told = [_document(outcome) for outcome in outcomes]
        counted = {"cases": told, "with_expectation": asked, "unexpected": unexpected}
        click.echo(json.dumps({"policy": {"name": rules.name, "sha256": rules.sha256}, **counted}, indent=2))
    else:
        click.echo("\n".join(_table(outcomes)))
        click.echo(f"\n{len(outcomes)} cases under {rules.name}; {asked} say what to expect, {unexpected} are not so")
    ctx.exit(UNEXPECTED if unexpected else 0)


def _document(outcome: Outcome) -> dict[str, Any]:
    case = outcome.case
    wanted = None if outcome.expected is None else {"status": case.status, "reasons": sorted(case.reasons)}
    told = {"case": case.name, "status": outcome.status, "reasons": list(outcome.reasons)}
    return {**told, "expected": wanted, "as_expected": outcome.expected}


def _table(outcomes: Sequence[Outcome]) -> Iterator[str]:
    width = max((len(outcome.case.name) for outcome in outcomes), default=4)
    yield f"{'CASE':<{width}}  {'STATUS':<11}  REASONS"
    for outcome in outcomes:
        line = f"{outcome.case.name:<{width}}  {outcome.status:<11}  {', '.join(outcome.reasons) or '-'}"
        if outcome.expected is False:
            wanted = " ".join([str(outcome.case.status), *sorted(outcome.case.reasons)])
            line += f"\n{'':<{width}}  NOT AS EXPECTED: {wanted}"
        yield line
