"""`orchestrator init` and `serve`: from nothing to an orchestrator that answers."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import click

from orchestrator.commands.options import all_settings, output
from orchestrator.commands.output import Output
from orchestrator.settings import ADMIN_KEY_FILE, Settings, default_state_dir, make_state_dir

_BANNER = """\
**********************************************************************
*  EMULATED ROOTS ARE TRUSTED: {path}
*  Nodes without any hardware can attest here. Their verdicts say so.
*  This is for trials. Do not send anything confidential to them.
**********************************************************************"""


@click.command()
@click.option("--state", envvar="ORCHESTRATOR_STATE", type=click.Path(path_type=Path), help="State directory.")
@output
def init(out: Output, state: Path | None) -> None:
    """Create the admin's key and print its address."""
    folder = state or default_state_dir(os.environ)
    path = folder / ADMIN_KEY_FILE
    existed = path.exists()
    address = admin_address(folder)
    known = {"admin_address": address, "key": str(path), "created": not existed}
    if not out.document(known) and not out.names([address]):
        out.facts([("admin", address), ("key", f"{path} (keep it: who has it is the admin)")])
        out.say("It existed already; nothing was changed." if existed else "Next: orchestrator serve")
    if existed:
        raise click.exceptions.Exit(1)


@click.command()
@all_settings
def serve(out: Output, settings: Settings) -> None:
    """Run the orchestrator. It needs no file: what is missing, it creates in the state directory."""
    if settings.trust_root is not None:
        click.echo(_BANNER.format(path=settings.trust_root), err=True)
    if not settings.admin_address:
        created = not settings.admin_key_path.exists()
        settings = replace(settings, admin_address=admin_address(settings.state_dir))
        if created:
            out.say(f"No admin yet: made {settings.admin_key_path}. Who has it is the admin.")
    else:
        make_state_dir(settings.state_dir)

    from orchestrator.server import serve as run

    def announce(url: str, policy: str) -> None:
        known = {"url": url, "admin_address": settings.admin_address, "policy": policy}
        if out.as_json or out.quiet:  # one line each, for whoever waits for it
            click.echo(url if out.quiet else json_line(known))
            return
        out.facts(
            [
                ("serving", url),
                ("admin", settings.admin_address),
                ("policy", policy),
                ("registry", str(settings.database_path)),
            ]
        )
        out.say("Next: orchestrator workers add, and nodeprobe agent on the node. Stop with Ctrl-C.")

    run(settings, announce=announce)


def json_line(known: dict[str, str]) -> str:
    import json

    return json.dumps(known)


def admin_address(folder: Path) -> str:
    """The address of the admin's wallet in the state directory; made if there is none. SettingsError, KeyFileError."""
    from orchestrator.wallets import Wallet

    make_state_dir(folder)
    path = folder / ADMIN_KEY_FILE
    if path.exists():
        return Wallet.load(path).address
    made = Wallet.generate()
    made.save(path)
    return made.address
