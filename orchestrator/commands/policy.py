"""`orchestrator policy`: which policy the workers are judged by, and what another one would do to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.commands.options import Remote, output, remote
from orchestrator.commands.output import ERROR, Output
from orchestrator.commands.workers import execute

if TYPE_CHECKING:
    from attest.policy import Policy
    from orchestrator.messages_appraisal import Foreseen, PolicyInForce, PolicyPreview

_FILE = click.argument("file", metavar="FILE", type=click.Path(path_type=Path))


@click.group()
def policy() -> None:
    """Policies: what a node must be, for the fleet, for the workers of a wallet, for one worker."""


def _whose(command: Callable[..., Any]) -> Callable[..., Any]:
    of_wallet = click.option("--wallet", metavar="ADDRESS", help="For the workers of this wallet: narrows the fleet's.")
    of_worker = click.option("--worker", metavar="IP", help="For this worker: narrows what is its wallet's.")
    return of_wallet(of_worker(command))


@policy.command()
@click.option("--history", is_flag=True, help="Also what was in force before, the last first.")
@remote
def show(out: Output, at: Remote, history: bool) -> None:
    """Show the policies in force: whose, since when, by whom. Admin or subscriber."""
    with at.client(signing=True) as client:
        found = client.policies()
    if out.document(found.model_dump(mode="json")) or out.names([found.fleet.name]):
        return
    rows = [_row(each) for each in (found.fleet, *found.narrowed)]
    columns = ("FOR", "POLICY", "SINCE", "BY", "SHA256")
    out.table(columns, rows, "")
    if history:
        out.say("")
        out.table(columns, [_row(each) for each in found.history], "No policy was ever activated.")


def _row(each: PolicyInForce) -> tuple[str, ...]:
    since = "start" if each.since is None else f"{each.since:%Y-%m-%d %H:%M:%S}"
    name = each.name if each.text or each.since is None else "(withdrawn)"
    return (each.subject or "the fleet", name, since, each.actor, each.sha256[:16] or "-")


@policy.command()
@_FILE
@output
def check(out: Output, file: Path) -> None:
    """
    Check that FILE is a policy: every key known, every value in its range. FILE may be strict, production or lab.

    Exit status: 0, or 2 with the key that is wrong.
    """
    text = _text(file)
    found = _parsed(file, text)
    if not out.document({"name": found.name, "sha256": found.sha256}) and not out.names([found.sha256]):
        out.say(f"{file}: policy {found.name}, sha256 {found.sha256}")


@policy.command()
@_FILE
@_whose
@remote
def preview(out: Output, at: Remote, file: Path, wallet: str | None, worker: str | None) -> None:
    """
    Appraise every worker's last evidence under the policy in FILE, and say who would fall and why. Admin.

    Nothing changes. Evidence is verified as of the moment of its verdict, or as of now where the documents of that
    moment are gone. Exit status: 0, or 1 if a worker that is attested would fall.
    """
    message = _message(file, wallet, worker)
    pages = list(_pages(at, message))
    workers = [each for page in pages for each in page.workers]
    falling = [each for each in workers if each.falls]
    summary = {"name": pages[0].name, "sha256": pages[0].sha256, "falls": len(falling)}
    told = [each.model_dump(mode="json") for each in workers]
    if not out.document({**summary, "workers": told}) and not out.names([each.ip_address for each in falling]):
        _show(out, workers)
        out.say(f"{len(falling)} of {len(workers)} workers would fall under {pages[0].name}")
    if falling:
        raise click.exceptions.Exit(ERROR)


def _pages(at: Remote, message: dict[str, Any]) -> Iterator[PolicyPreview]:
    from orchestrator.messages_appraisal import PreviewPolicy

    skip: int | None = 0
    with at.client(signing=True) as client:
        while skip is not None:
            page = client.preview_policy(PreviewPolicy.model_validate({**message, "skip": skip}))
            yield page
            skip = page.skip_next


def _show(out: Output, workers: Sequence[Foreseen]) -> None:
    rows = [
        (
            each.ip_address,
            each.was,
            f"{each.would_be}{' FALLS' if each.falls else ''}",
            "-" if each.as_of is None else f"{each.as_of:%Y-%m-%d %H:%M:%S}",
            "; ".join(f"{it.device} {it.code}: found {it.found}, wanted {it.wanted}" for it in each.reasons) or "-",
        )
        for each in workers
    ]
    out.table(("WORKER", "WAS", "WOULD BE", "AS OF", "WHY"), rows, "There are no workers.")


@policy.command()
@_FILE
@_whose
@remote
def activate(out: Output, at: Remote, file: Path, wallet: str | None, worker: str | None) -> None:
    """
    Judge by the policy in FILE from now on. Admin. `preview` first: it says who would fall.

    The workers concerned are asked to attest again at their next sign of life; what they have holds until it ends.
    """
    message = _message(file, wallet, worker)
    changed = execute(out, at, "set_policy", message)
    whose = changed["subject"] or "the fleet"
    out.say(f"{changed['name']} is in force for {whose}; {changed['workers']} workers are asked to attest again")


@policy.command()
@_whose
@remote
def withdraw(out: Output, at: Remote, wallet: str | None, worker: str | None) -> None:
    """Withdraw a wallet's or worker's policy, or the fleet's: then that of `serve --policy` counts again. Admin."""
    changed = execute(out, at, "set_policy", _for(wallet, worker) | {"policy": ""})
    out.say(f"withdrawn; {changed['workers']} workers are asked to attest again")


def _for(wallet: str | None, worker: str | None) -> dict[str, Any]:
    if wallet and worker:
        raise click.UsageError("--wallet and --worker: give one of them")
    if wallet:
        return {"scope": "wallet", "payment_wallet": wallet}
    return {"scope": "worker", "ip_address": worker} if worker else {"scope": "fleet"}


def _message(file: Path, wallet: str | None, worker: str | None) -> dict[str, Any]:
    text = _text(file)
    _parsed(file, text)
    return _for(wallet, worker) | {"policy": text}


def _text(file: Path) -> str:
    from importlib.resources import files

    from attest.policy import POLICY_BYTES_MAX, SHIPPED

    try:
        if str(file) in SHIPPED:
            return files("attest").joinpath("policies", f"{file}.toml").read_text()
        with file.open("rb") as opened:
            return opened.read(POLICY_BYTES_MAX + 1).decode()
    except OSError as e:
        raise click.UsageError(f"{file} cannot be read ({e.strerror}): name {', '.join(SHIPPED)} or a TOML file") from e
    except UnicodeDecodeError as e:
        raise click.UsageError(f"policy {file}: {e}") from e


def _parsed(file: Path, text: str) -> Policy:
    from attest.policy import PolicyError, parse

    try:
        return parse(text)
    except PolicyError as e:
        raise click.UsageError(f"policy {file}: {e}") from e
