"""What the three commands share: parameters, colour, completion. Nothing here knows evidence."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import click
from click.shell_completion import get_completion_class


class Hex32(click.ParamType[bytes]):
    """32 bytes as 64 hex digits."""

    name = "hex"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> bytes:
        if isinstance(value, bytes):
            return value
        if not re.fullmatch(r"[0-9a-fA-F]{64}", value):
            self.fail(f"{len(value)} characters; want 64 hex digits (32 bytes)", param, ctx)
        return bytes.fromhex(value)


class Instant(click.ParamType[datetime]):
    """A moment: 2026-01-31, 2026-01-31T12:00:00Z or with another offset; UTC where none is given."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            moment = datetime.fromisoformat(value)
            return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
        except (ValueError, OverflowError):
            self.fail(f"{value!r}; want a time as 2026-01-31T12:00:00Z", param, ctx)


def completion(program: str) -> click.Command:
    """The command that prints a shell's completion script for `program`."""

    @click.command("completion")
    @click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
    @click.pass_context
    def command(ctx: click.Context, shell: str) -> None:
        """Print the completion script of a shell; load it with `source <(… completion bash)`."""
        kind = get_completion_class(shell)
        if kind is None:
            raise click.ClickException(f"click knows no completion for {shell}")
        variable = f"_{program.upper()}_COMPLETE"
        click.echo(kind(ctx.find_root().command, {}, program, variable).source())

    return command
