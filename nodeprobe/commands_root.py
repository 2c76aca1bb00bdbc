"""`nodeprobe emulate-root`: the throw-away root of emulated nodes, and the reference manifests (RIMs) of their GPUs."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command("emulate-root")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--cpu",
    "kinds",
    multiple=True,
    type=click.Choice(["tdx", "snp"]),
    help="Vouch for CPU TEEs of this kind as well; snp takes seconds. Repeatable. Default: tdx.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_context
def emulate_root(ctx: click.Context, /, folder: Path, kinds: tuple[str, ...], as_json: bool) -> None:
    """
    Make the root of emulated nodes in FOLDER, or complete one that is there.

    It prints what an orchestrator must be told to believe those nodes. Exit status: 0 done, 1 not done.
    """
    from datetime import UTC, datetime

    from nodeprobe.emulator import MODELS, EmulatorError, Pki, publish
    from nodeprobe.emulator.cpu import TDX, prepare

    try:
        now = datetime.now(UTC)
        pki = Pki.create(folder, now=now)
        for model in MODELS.values():
            publish(pki, model)
        for kind in kinds or (TDX,):
            prepare(pki, kind, now=now)
    except (EmulatorError, OSError) as e:
        click.echo(f"nodeprobe: {e}", err=True)
        ctx.exit(1)
    if as_json:
        click.echo(json.dumps({"emulated": True, "anchors": str(pki.anchors), "collateral": str(pki.rims)}))
    else:
        click.echo(f"emulated root in {folder}; an orchestrator for trials believes it with:")
        click.echo(f"  orchestrator serve --policy lab --trust-root {pki.anchors} --collateral {pki.rims}")
