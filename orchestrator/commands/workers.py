"""`orchestrator workers`: what an admin or a wallet's owner does with workers."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from orchestrator.commands.options import Remote, remote
from orchestrator.commands.output import Output

if TYPE_CHECKING:
    from orchestrator.messages import Worker

_IP = click.argument("ip")
_REASON = click.option("--reason", default="not stated", show_default=True, help="Kept in the history.")
_YES = click.option("-y", "--yes", is_flag=True, help="Do not ask.")


@click.group()
def workers() -> None:
    """Workers: list, register, change, take out of service."""


@workers.command("list")
@remote
def list_(out: Output, at: Remote) -> None:
    """List all workers, as their admin or as a subscriber."""
    with at.client(signing=True) as client:
        found = client.workers()
    if out.document(found.model_dump(mode="json")) or out.names([w.ip_address for w in found.workers]):
        return
    rows = [(w.ip_address, w.worker_type, _state(w), _until(w), ", ".join(w.why)) for w in found.workers]
    out.table(
        ("ADDRESS", "TYPE", "STATE", "UNTIL", "WHY NOT"),
        rows,
        "No workers yet: `orchestrator workers add` registers one.",
    )


@workers.command()
@_IP
@remote
def show(out: Output, at: Remote, ip: str) -> None:
    """Show the public status of one worker: its verdict, and what keeps it out."""
    with at.client() as client:
        worker = client.worker(ip)
    if out.document(worker.model_dump(mode="json")) or out.names([_state(worker)]):
        return
    out.facts(_facts(worker))


@workers.command()
@_IP
@click.option("--wallet", required=True, help="Wallet address that owns the worker and is paid.")
@click.option("--type", "worker_type", required=True, help="As `nodeprobe show` prints it.")
@click.option("--worker-key", help="Public key by which the node will attest, as `nodeprobe` prints it.")
@click.option("--endpoint", "endpoints", multiple=True, metavar="MODEL=URL", help="What it serves. Repeatable.")
@remote
def add(
    out: Output,
    at: Remote,
    ip: str,
    wallet: str,
    worker_type: str,
    worker_key: str | None,
    endpoints: tuple[str, ...],
) -> None:
    """Register a worker. It is known, and handed out once its node has attested. Admin."""
    if bad := [each for each in endpoints if "=" not in each]:
        raise click.UsageError(f"--endpoint {bad[0]}: want MODEL=URL")
    served = [dict(zip(("model", "url"), each.split("=", 1), strict=True)) for each in endpoints]
    message = {"ip_address": ip, "payment_wallet": wallet, "worker_type": worker_type, "endpoints": served}
    if worker_key:
        message["worker_key"] = worker_key
    _execute(out, at, "register_worker", message, f"{ip} is registered; it is handed out once it has attested")


@workers.command("set-wallet")
@_IP
@click.argument("wallet")
@remote
def set_wallet(out: Output, at: Remote, ip: str, wallet: str) -> None:
    """Let another wallet own a worker. Owner."""
    _execute(out, at, "set_worker_wallet", {"ip_address": ip, "payment_wallet": wallet}, f"{ip} belongs to {wallet}")


@workers.command("set-address")
@click.argument("old")
@click.argument("new")
@remote
def set_address(out: Output, at: Remote, old: str, new: str) -> None:
    """Move a worker to another IP address. It must attest again. Owner."""
    _execute(
        out, at, "set_worker_address", {"new_ip_address": new, "old_ip_address": old}, f"{old} is {new} from now on"
    )


@workers.command("set-type")
@_IP
@click.argument("worker_type", metavar="TYPE")
@remote
def set_type(out: Output, at: Remote, ip: str, worker_type: str) -> None:
    """Change what a worker says it is. It must attest again. Owner."""
    _execute(out, at, "set_worker_type", {"ip_address": ip, "worker_type": worker_type}, f"{ip} is a {worker_type}")


@workers.command("set-key")
@_IP
@click.argument("worker_key", metavar="KEY")
@remote
def set_key(out: Output, at: Remote, ip: str, worker_key: str) -> None:
    """Give a worker a new key. Trust starts anew. Owner or admin."""
    _execute(out, at, "set_worker_key", {"ip_address": ip, "worker_key": worker_key}, f"{ip} attests by {worker_key}")


@workers.command()
@_IP
@_YES
@remote
def remove(out: Output, at: Remote, ip: str, yes: bool) -> None:
    """Take a worker out of the registry. Owner."""
    _sure(f"Remove {ip} from the registry?", yes)
    _execute(out, at, "remove_worker", {"ip_address": ip}, f"{ip} is removed")


@workers.command()
@_IP
@_YES
@_REASON
@remote
def evict(out: Output, at: Remote, ip: str, yes: bool, reason: str) -> None:
    """Take a worker out of the registry, whoever owns it. Admin."""
    _sure(f"Evict {ip} from the registry?", yes)
    _execute(out, at, "evict", {"ip_address": ip, "reason": reason}, f"{ip} is evicted")


def _service(command: str, done: str, explained: str) -> None:
    """The commands that set a worker's service differ only in their names."""

    @workers.command(command, help=explained)
    @_IP
    @_REASON
    @remote
    def set_service(out: Output, at: Remote, ip: str, reason: str) -> None:
        _execute(out, at, command, {"ip_address": ip, "reason": reason}, f"{ip} is {done}")


_service("drain", "draining", "Hand a worker out no more, and let it finish. Admin.")
_service("cordon", "cordoned", "Hand a worker out no more. Admin.")
_service("uncordon", "in service", "Put a worker back in service. Admin.")
_service("quarantine", "quarantined", "Hand a worker out no more until somebody has looked at it. Admin.")


def _execute(out: Output, at: Remote, command: str, message: dict[str, Any], done: str) -> None:
    """Check the message here, so that a slip is a usage error; sign it, send it, say what came of it."""
    execute(out, at, command, message)
    out.say(done)


def execute(out: Output, at: Remote, command: str, message: dict[str, Any]) -> dict[str, Any]:
    """Send one command, signed by the wallet at hand."""
    from pydantic import ValidationError

    from orchestrator.messages import COMMANDS

    try:
        checked = COMMANDS[command].model_validate(message, strict=False)
    except ValidationError as e:
        first = e.errors()[0]
        raise click.UsageError(f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}") from None
    with at.client(signing=True) as client:
        changed = client.execute(command, checked)
    out.document({command: changed})
    return changed


def _sure(question: str, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("this cannot be undone: say --yes")
    click.confirm(question, abort=True, err=True)


def _state(worker: Worker) -> str:
    if worker.routable:
        return "routable"
    return "out" if worker.service == "in service" else str(worker.service)


def _until(worker: Worker) -> str:
    ends = [moment for moment in (worker.attested_until, worker.alive_until) if moment is not None]
    return f"{min(ends):%m-%d %H:%M:%S}" if worker.routable and ends else "-"


def _facts(worker: Worker) -> list[tuple[str, str]]:
    verdict = worker.verdict
    facts = [
        ("address", worker.ip_address),
        ("type", worker.worker_type),
        ("state", _state(worker)),
        ("why not", ", ".join(worker.why) or "-"),
        ("attested until", f"{worker.attested_until or '-'}"),
        ("alive until", f"{worker.alive_until or '-'}"),
    ]
    if verdict is None:
        return [*facts, ("verdict", "none yet: its node has not attested")]
    facts += [
        ("verdict", f"{verdict.tier}{' (EMULATED)' if verdict.emulated else ''} by policy {verdict.policy}"),
        ("devices", ", ".join(verdict.devices) or "-"),
        ("revocation", verdict.revocation),
        ("binding", f"{verdict.binding}, CPU {verdict.cpu}"),
    ]
    for finding in verdict.reasons:
        facts += [(finding.code, f"{finding.device}: found {finding.found or '-'}, wanted {finding.wanted or '-'}")]
        facts += [("", f"fix: {finding.fix}")]
    return facts
