"""`nodeprobe emulate`: a GPU node without GPUs, for demos and tests. No production orchestrator believes it."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nodeprobe.commands_agent import EXIT_PROBLEM, fail

if TYPE_CHECKING:
    from nodeprobe.emulator.node import EmulatedNode


def _list_defects(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if not wanted:
        return
    from nodeprobe.emulator import cpu as cpus
    from nodeprobe.emulator.node import REPLAY, node_defects

    known = node_defects()
    for name, defect in known.items():
        short = f" (short: {REPLAY})" if defect.replays else ""
        click.echo(f"{name}{short}\n    {defect.meaning} [{defect.reason.code}]")
    for kind in cpus.KINDS:
        for each in cpus.defects_of(kind).values():
            click.echo(f"{each.name} (--cpu {kind})\n    {each.meaning} [{each.code}]")
    ctx.exit(0)


@click.command()
@click.option("--root", required=True, type=click.Path(file_okay=False, path_type=Path), metavar="DIR")
@click.option("--server", required=True, metavar="URL", help="The orchestrator.")
@click.option("--ip", required=True, metavar="IP", help="The node's own address: some 127.x.y.z of this machine.")
@click.option("--model-gpu", default="h100-80gb", show_default=True, metavar="MODEL", help="Which GPUs.")
@click.option("--gpus", type=click.IntRange(1, 32), default=1, show_default=True, metavar="N")
@click.option("--cpu", type=click.Choice(["tdx", "snp"]), help="A CPU TEE that vouches for the GPUs. Default: none.")
@click.option("--serve", "serve", multiple=True, required=True, metavar="MODEL", help="A model to serve. Repeatable.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, metavar="PORT", help="Default: any that is free.")
@click.option("--plain-http", is_flag=True, help="Serve without TLS; then no key is bound.")
@click.option("--defect", "defect", multiple=True, metavar="NAME", help="What is wrong with it. Repeatable.")
@click.option("--replay", is_flag=True, help="Hand over evidence of an earlier challenge.")
@click.option("--name", metavar="NAME", help="Of the node in DIR. Default: from its address.")
@click.option("--admin-key", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Register by this.")
@click.option("--wallet", metavar="ADDRESS", help="With --admin-key: the wallet that the worker's pay goes to.")
@click.option("--work-every", type=click.FloatRange(0.2, 3600), default=60.0, show_default=True, metavar="SECONDS")
@click.option("--attest-every", type=click.FloatRange(0.2), metavar="SECONDS", help="Attest at least so often.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one line an event.")
@click.option(
    "--list-defects",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list_defects,
    help="Show them, and leave.",
)
@click.pass_context
def emulate(
    ctx: click.Context,
    /,
    as_json: bool,
    work_every: float,
    attest_every: float | None,
    defect: tuple[str, ...],
    replay: bool,
    name: str | None,
    model_gpu: str,
    **given: Any,
) -> None:
    """Run an emulated GPU node: emulated GPUs, a small inference server, and the real agent.

    Its evidence has the exact formats of genuine GPUs, under a throw-away root in DIR (made if need be, shared by
    nodes). Only an orchestrator that is told to trust DIR/anchors.pem believes it, and marks all it says as emulated.

    \b
    Spoil it while it runs:
      echo NAME > DIR/nodes/NODE/defects        a defect of --list-defects
      rm DIR/nodes/NODE/defects                 well again

    Prints one line on stdout once it serves; events go to stderr. Exit status: 0 stopped when told to, 1 a problem,
    2 wrong usage.
    """
    from contextlib import ExitStack
    from datetime import UTC, datetime

    from nodeprobe.agent import Agent
    from nodeprobe.emulator import EmulatorError
    from nodeprobe.emulator.node import REPLAY, Plan, start
    from nodeprobe.problems import ProblemError
    from nodeprobe.running import Stop
    from nodeprobe.telling import teller
    from nodeprobe.world import Pace

    if (given["admin_key"] is None) != (given["wallet"] is None):
        raise click.UsageError("--admin-key and --wallet go together.")
    plan = Plan(name=name or f"node-{given['ip'].replace(':', '-')}", gpu_model=model_gpu, **given)
    defects = (*defect, *([REPLAY] if replay else []))
    tell = teller(
        sys.stderr, as_json=as_json, now=lambda: datetime.now(UTC), name=f"emulated {plan.name}", emulated=True
    )
    try:
        with ExitStack() as opened:
            stop = opened.enter_context(Stop())
            emulated = start(plan, opened, tell=tell, wait=stop.wait, now=datetime.now(UTC), defects=defects)
            _print_ready(emulated, as_json)
            pace = Pace(work=work_every, attest_longest=attest_every or math.inf)
            Agent(emulated.node, emulated.world, log=emulated.memory.load(), pace=pace).run()
    except EmulatorError as e:
        fail(ctx, "emulator", f"{e}.", "See `nodeprobe emulate --help`.", EXIT_PROBLEM, as_json)
    except ProblemError as e:
        fail(ctx, e.problem.code, e.problem.what, e.problem.fix, EXIT_PROBLEM, as_json)


def _print_ready(it: EmulatedNode, as_json: bool) -> None:
    endpoints = [{"model": model, "url": it.url} for model in it.plan.serve]
    if as_json:
        document = {
            "event": "ready",
            "emulated": True,
            "name": it.plan.name,
            "ip_address": it.plan.ip,
            "worker_type": it.node.worker_type,
            "worker_key": it.node.worker_key,
            "endpoints": endpoints,
            "defects_file": str(it.gpus.file),
        }
        click.echo(json.dumps(document))
    else:
        models = ", ".join(it.plan.serve)
        click.echo(
            f"emulated node {it.plan.name} ready: {it.plan.ip} {it.node.worker_type}, key {it.node.worker_key}, "
            f"serves {models} at {it.url}; spoil it by {it.gpus.file}"
        )
    sys.stdout.flush()
