"""`orchestrator urls`, `models`, `subscribers` and `work`: what routers, subscribers and wallets ask for."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from orchestrator.commands.options import Remote, remote
from orchestrator.commands.output import Output
from orchestrator.commands.workers import execute


@click.command()
@click.argument("model", required=False)
@click.option("--limit", type=click.IntRange(1, 1000), help="Draw so many, fairly. Default: all.")
@remote
def urls(out: Output, at: Remote, model: str | None, limit: int | None) -> None:
    """URLs of verified, live workers: of MODEL, or of every model."""
    with at.client() as client:
        found = client.urls(model, limit)
    if out.document(found.model_dump(mode="json")) or out.names([each.url for each in found.urls]):
        return
    rows = [
        (
            each.url,
            each.model,
            each.worker_type,
            f"{each.not_after:%H:%M:%S}",
            f"{each.verdict.get('tier', '?')}{' EMULATED' if each.verdict.get('emulated') else ''}",
        )
        for each in found.urls
    ]
    none = f"No verified, live worker serves {model}." if model else "No worker is verified and live."
    out.table(("URL", "MODEL", "TYPE", "UNTIL", "VERDICT"), rows, f"{none} See `orchestrator workers list`.")


@click.command()
@remote
def models(out: Output, at: Remote) -> None:
    """Models that a verified, live worker serves."""
    with at.client() as client:
        found = client.models()
    if out.document(found.model_dump(mode="json")) or out.names(found.models):
        return
    out.table(("MODEL",), [(model,) for model in found.models], "No worker is verified and live.")


@click.group()
def subscribers() -> None:
    """Subscribers: who may ask for all workers."""


@subscribers.command("add")
@click.argument("public_key")
@click.option("--name", required=True, help="Who it is, for people.")
@remote
def add_subscriber(out: Output, at: Remote, public_key: str, name: str) -> None:
    """Let the holder of PUBLIC_KEY (secp256k1, compressed, hex) ask for all workers. Admin."""
    execute(out, at, "add_subscriber", {"public_key": public_key, "name": name})
    out.say(f"{name} is a subscriber")


@subscribers.command("remove")
@click.argument("public_key")
@remote
def remove_subscriber(out: Output, at: Remote, public_key: str) -> None:
    """Take that right away again. Admin."""
    execute(out, at, "remove_subscriber", {"public_key": public_key})
    out.say("removed")


@click.group()
def work() -> None:
    """Work, and what is paid for it."""


@work.command()
@click.option("--epoch", type=click.IntRange(0, 1_000_000), help="Number of the epoch. Default: the current one.")
@remote
def payouts(out: Output, at: Remote, epoch: int | None) -> None:
    """Each wallet's share of the work of an epoch, and its uptime."""
    with at.client(signing=True) as client:
        about = client.about()
        passed = int((datetime.now(UTC) - about.epoch_zero).total_seconds())
        found = client.payouts(max(passed // about.epoch_seconds, 0) if epoch is None else epoch)
    if out.document(found.model_dump(mode="json")) or out.names([each.payment_wallet for each in found.payouts]):
        return
    state = "complete" if found.complete else "still running"
    out.say(f"Epoch {found.epoch}, {found.begin:%Y-%m-%d %H:%M} to {found.end:%Y-%m-%d %H:%M} UTC, {state}")
    rows = [
        (
            each.payment_wallet,
            f"{each.workers}",
            f"{each.input_tokens}",
            f"{each.output_tokens}",
            f"{each.work}",
            f"{each.percent:.2f} %",
            f"{each.uptime_seconds} s",
        )
        for each in found.payouts
    ]
    out.table(("WALLET", "WORKERS", "IN", "OUT", "WORK", "SHARE", "UPTIME"), rows, "No wallet had a worker in it.")
