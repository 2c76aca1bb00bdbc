"""How the demo is told: as a story on a terminal, or as one JSON document."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from orchestrator.client import Client, ServerRefused, Unreachable
from orchestrator.demo import story
from orchestrator.demo.processes import DemoError, Stage
from orchestrator.demo.real import verified
from orchestrator.demo.story import ACTS, Player, Withdrawal
from orchestrator.messages import Url
from orchestrator.settings import ADMIN_KEY_FILE
from orchestrator.wallets import Wallet

Say = Callable[[str], None]


def run(*, as_json: bool, stay: bool, real_evidence: Path | None) -> int:
    """Play it. Exit status 0 if everything came as told, 1 if not. Leaves nothing running, unless told to stay."""
    say: Say = (lambda _text: None) if as_json else click.echo
    try:
        with contextlib.ExitStack() as opened:
            opened.enter_context(_ended_by_terminate())
            document = _play(Stage.open(opened), opened, say, stay=stay, real_evidence=real_evidence)
    except (DemoError, ServerRefused, Unreachable) as e:
        if as_json:
            click.echo(json.dumps({"ok": False, "error": str(e)}, indent=2))
        else:
            click.echo(f"The demo failed: {e}", err=True)
        return 1
    except KeyboardInterrupt:
        click.echo("Stopped.", err=True)
        return 130
    if as_json:
        click.echo(json.dumps(document, indent=2))
    return 0


def _play(
    stage: Stage, opened: contextlib.ExitStack, say: Say, *, stay: bool, real_evidence: Path | None
) -> dict[str, Any]:
    say("\n1. An orchestrator starts: SQLite in a temporary folder, loopback, and a throw-away root that it is told to")
    say("   trust. Whatever rests on that root is marked EMULATED, here and in every answer.")
    _, serving, root = story.start_orchestrator(stage)
    url, key = serving["url"], stage.folder / "state" / ADMIN_KEY_FILE
    say(f"   serving {url}   admin {serving['admin_address']}")
    admin = opened.enter_context(Client(url, wallet=Wallet.load(key)))

    say(f"\n2. {len(story.FLEET)} emulated nodes start, each a process: GPUs, an inference server, and the real agent.")
    players = story.start_fleet(stage, url)
    for player in players:
        story.register(player, admin)
    say("   The admin registered them. Known is not trusted: each now answers a challenge with evidence of all its")
    say("   GPUs, in a nonce that names its address, wallet, worker key and TLS key.")
    before = story.wait_for_urls(admin, {player.member.ip for player in players})
    workers = [_worker(player, admin) for player in players]
    say(f"\n3. What a router gets: GET {url}/v1/urls")
    say(_urls(before))

    say("\n4. Now things go wrong.")
    withdrawals = [_act(number, act, players, admin, url, say) for number, act in enumerate(ACTS)]
    gone = {withdrawal.worker for withdrawal in withdrawals}
    after = story.wait_for_urls(admin, {player.member.ip for player in players} - gone)
    say("\n5. What a router gets now:")
    say(_urls(after))

    say("\n6. And real hardware: evidence of an H100, recorded by NVIDIA, verified offline against its pinned roots.")
    real = verified(real_evidence)
    _tell_real(real, say)
    if stay:
        _stay(stage, url, say, root)
    return {
        "ok": True,
        "orchestrator": serving,
        "emulated": True,
        "workers": workers,
        "urls_before": [each.model_dump(mode="json") for each in before],
        "withdrawals": [_withdrawal(each) for each in withdrawals],
        "urls_after": [each.model_dump(mode="json") for each in after],
        "real_evidence": real,
    }


def _act(number: int, act: story.Act, players: Sequence[Player], admin: Client, url: str, say: Say) -> Withdrawal:
    player = next(player for player in players if player.member.name == act.member)
    say(f"\n   {'abcdefgh'[number]}) {act.member} ({player.member.ip}): {act.what}.")
    withdrawal = story.play(act, player, admin, url)
    say(f"      gone after {withdrawal.milliseconds} ms: {', '.join(withdrawal.why)}")
    return withdrawal


def _worker(player: Player, admin: Client) -> dict[str, Any]:
    """The worker as its owner would see it after it was attested."""
    status = admin.worker(player.member.ip).model_dump(mode="json")
    return {"name": player.member.name, "payment_wallet": player.wallet.address} | {
        name: status[name] for name in ("ip_address", "worker_type", "worker_key", "routable", "verdict")
    }


def _withdrawal(withdrawal: Withdrawal) -> dict[str, Any]:
    return {
        "worker": withdrawal.worker,
        "name": withdrawal.act.member,
        "spoiled": withdrawal.act.what,
        "why": list(withdrawal.why),
        "milliseconds": withdrawal.milliseconds,
    }


def _urls(urls: Sequence[Url]) -> str:
    rows = [
        (
            each.model,
            each.url,
            each.worker_type,
            "EMULATED" if each.verdict["emulated"] else "yes",
            f"{each.not_after:%H:%M:%S}",
        )
        for each in sorted(urls, key=lambda each: (each.model, each.url))
    ]
    return _columns([("model", "url", "worker type", "genuine", "until"), *rows])


def _columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows under each other, aligned, below the story's text."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(f"   {line}".rstrip() for line in lines)


def _tell_real(real: dict[str, Any], say: Say) -> None:
    if "skipped" in real:
        say(f"   skipped: {real['skipped']}")
        return
    whole, changed = real["as_recorded"], real["one_byte_changed"]
    claims = whole["devices"][0]["claims"]
    if whole["status"] != "accepted" or changed["status"] != "refused":
        raise DemoError(f"real evidence: {whole['status']} as recorded, {changed['status']} with one byte changed")
    say(f"   as recorded: {whole['status'].upper()}, a genuine {claims['hwmodel']}, driver {claims['driver']};")
    say(f"   {claims['compared']} measurements equal the signed reference values; revocation: {whole['revocation']}")
    say(f"   with one byte changed: {changed['status'].upper()}, {changed['refusals'][0]['code']}")


def _stay(stage: Stage, url: str, say: Say, root: dict[str, Any]) -> None:
    state = stage.folder / "state"
    say("\nIt stays up. In another terminal, try:")
    for line in (
        f"export ORCHESTRATOR_SERVER={url} ORCHESTRATOR_STATE={state}",
        "orchestrator workers list",
        "orchestrator urls llama3.1:70b",
        "orchestrator workers cordon 127.0.1.1 --reason 'a look inside'",
        f"echo signature-other-key > {stage.folder}/root/nodes/atlas/defects",
        f"curl -s {url}/v1/workers/127.0.1.1",
        f"ls {root['collateral']}",
    ):
        say(f"  {line}")
    say("Ctrl-C ends it, and takes its folder away.")
    with contextlib.suppress(KeyboardInterrupt):
        signal.pause()


@contextlib.contextmanager
def _ended_by_terminate() -> Any:
    """SIGTERM ends the demo as Ctrl-C does, so that nothing is left running."""

    def interrupt(_signal: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        sys.stdout.flush()
