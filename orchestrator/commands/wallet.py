"""`orchestrator wallet`: a key file for those who own workers and have no wallet program at hand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.commands.options import output
from orchestrator.commands.output import Output

if TYPE_CHECKING:
    from orchestrator.wallets import Wallet

_FILE = click.argument("file", type=click.Path(path_type=Path))


@click.group()
def wallet() -> None:
    """Wallets in key files, for owners of workers."""


@wallet.command()
@_FILE
@output
def new(out: Output, file: Path) -> None:
    """Make a new wallet in FILE, readable by you only, and print its address."""
    from orchestrator.wallets import Wallet

    made = Wallet.generate()
    made.save(file)
    _show(out, made, file)


@wallet.command()
@_FILE
@output
def show(out: Output, file: Path) -> None:
    """Print address and public key of the wallet in FILE."""
    from orchestrator.wallets import Wallet

    _show(out, Wallet.load(file), file)


def _show(out: Output, shown: Wallet, file: Path) -> None:
    known = {"address": shown.address, "public_key": shown.public_hex, "file": str(file)}
    if out.document(known) or out.names([shown.address]):
        return
    out.facts([("address", shown.address), ("public key", shown.public_hex), ("file", str(file))])
