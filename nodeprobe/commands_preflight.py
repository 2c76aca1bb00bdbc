"""`nodeprobe preflight`: would an orchestrator admit this node? Asked without registering anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nodeprobe.commands_agent import EXIT_PROBLEM, EXIT_REFUSED, EXIT_UNREACHABLE, FILE, fail

if TYPE_CHECKING:
    from nodeprobe.world import Source
    from orchestrator.messages_appraisal import Preflighted


@click.command()
@click.option("--server", required=True, metavar="URL", help="The orchestrator.")
@click.option("--ip", metavar="IP", help="This worker's address. Default: the one that leads to the server.")
@click.option("--wallet", metavar="ADDRESS", help="The wallet that would own the worker: it may have stricter rules.")
@click.option("--tls-certificate", type=FILE, metavar="FILE", help="The certificate that the endpoints would serve.")
@click.option("--worker-type", metavar="TYPE", help="Default: as `nodeprobe show` says.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_context
def preflight(ctx: click.Context, /, as_json: bool, **given: Any) -> None:
    """Ask an orchestrator whether it would admit this node. Nothing is registered, no key is kept.

    The evidence is collected and judged as in earnest, under the policy that would count.

    Exit status: 0 it would, 1 a problem of this node, 2 wrong usage, 4 it would not (the reasons are printed), or it
    refused to answer, 5 the orchestrator cannot be reached.
    """
    from nodeprobe.problems import ProblemError
    from orchestrator.client import ServerRefused, Unreachable

    try:
        found = _asked(given, _evidence())
    except ProblemError as e:
        fail(ctx, e.problem.code, e.problem.what, e.problem.fix, EXIT_PROBLEM, as_json)
    except ServerRefused as e:
        fail(ctx, e.code, f"{e}.", e.fix, EXIT_REFUSED, as_json)
    except Unreachable as e:
        fail(ctx, "unreachable", f"{e}.", "Check --server, and that the orchestrator runs.", EXIT_UNREACHABLE, as_json)
    click.echo(json.dumps(found.model_dump(mode="json"), indent=2) if as_json else "\n".join(_told(found)))
    ctx.exit(0 if found.admitted else EXIT_REFUSED)


def _evidence() -> Source:
    """Of this machine."""
    from nodeprobe import gathering

    return gathering.of_node(gathering.board(), gathering.cpu_of(Path("/")))


def _asked(given: dict[str, Any], evidence: Source) -> Preflighted:
    from pydantic import ValidationError

    from nodeprobe import answering
    from nodeprobe.running import source_address, spki_sha256
    from nodeprobe.world import Node
    from orchestrator.client import Client
    from orchestrator.worker_keys import WorkerKey

    certificate: Path | None = given["tls_certificate"]
    tls = None if certificate is None else spki_sha256(certificate)
    node = Node(
        ip_address=given["ip"] or source_address(given["server"]),
        worker_key=WorkerKey.generate().public_hex,  # of nobody, and for this once
        worker_type=given["worker_type"] or _probed_type(),
        wallet=given["wallet"],
    )
    try:
        with Client(given["server"]) as client:
            return answering.preflight(client, node, tls, evidence)
    except ValidationError as e:
        raise click.UsageError(f"{'.'.join(map(str, e.errors()[0]['loc']))}: {e.errors()[0]['msg']}") from None


def _probed_type() -> str | None:
    from nodeprobe.details import worker_type_or_none
    from nodeprobe.probe import probe

    return worker_type_or_none(probe())


def _told(found: Preflighted) -> list[str]:
    verdict = found.verdict
    emulated = " (emulated)" if verdict.emulated else ""
    lines = [f"{'would' if found.admitted else 'would NOT'} be admitted{emulated}, under policy {verdict.policy}"]
    if verdict.tier == "none":
        lines.append("  It could not be decided, through no fault of this node: ask again later.")
    for finding in verdict.reasons:
        lines.append(f"  {finding.device} {finding.code}: found {finding.found}, wanted {finding.wanted}")
        lines.append(f"    {finding.fix}")
    return lines
