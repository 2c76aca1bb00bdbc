"""How the commands answer: tables on a terminal, plain lines in a pipe, JSON on demand, and honest exit statuses."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from orchestrator.reasons import printable

if TYPE_CHECKING:
    from orchestrator.client import ServerRefused

OK, ERROR, USAGE, NOT_FOUND, NOT_ALLOWED, UNREACHABLE = 0, 1, 2, 3, 4, 5
_POLICY_CODES = frozenset({"evidence-refused", "address-not-allowed", "endpoint-not-allowed", "endpoint-not-https"})


@dataclass(frozen=True, slots=True)
class Output:
    """Where a command's answer goes: `as_json` prints documents, `quiet` only what a script needs, one a line."""

    as_json: bool
    quiet: bool

    def document(self, value: object) -> bool:
        """Print a JSON document, if that is what was asked for."""
        if self.as_json:
            click.echo(json.dumps(value, indent=2))
        return self.as_json

    def names(self, names: Sequence[str]) -> bool:
        """Print bare names, if that is what was asked for."""
        if self.quiet:
            for name in names:
                click.echo(printable(name))
        return self.quiet

    def say(self, line: str) -> None:
        """A line for people: left out in quiet, and when JSON is wanted."""
        if not self.quiet and not self.as_json:
            click.echo(line)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]], empty: str) -> None:
        """Rows under headings: drawn to fit a terminal, or one line a row with tabs between for other programs."""
        shown = [[printable(cell) for cell in row] for row in rows]
        if not sys.stdout.isatty():
            for row in (columns, *shown):
                click.echo("\t".join(row))
            return
        if not shown:
            click.echo(empty)
            return
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in shown:
            table.add_row(*(Text(cell) for cell in row))
        Console(no_color=bool(os.environ.get("NO_COLOR"))).print(table)

    def facts(self, facts: Sequence[tuple[str, str]]) -> None:
        """Names and values, one a line."""
        width = max((len(name) for name, _ in facts), default=0)
        for name, value in facts:
            click.echo(f"{name:<{width}}  {printable(value)}".rstrip())

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn what can go wrong into words on stderr and an exit status."""
        from attest.keyfiles import KeyFileError
        from orchestrator.client import ServerRefused, Unreachable
        from orchestrator.settings import SettingsError

        try:
            yield
        except ServerRefused as e:
            self._fail({"code": e.code, "title": e.title, "status": e.status, "reasons": list(e.reasons)}, _told(e))
            raise click.exceptions.Exit(_status_of(e)) from None
        except Unreachable as e:
            fix = f"Is `orchestrator serve` running at {e.url}? Name another by --server, or ORCHESTRATOR_SERVER."
            self._fail({"code": "unreachable", "title": str(e), "fix": fix}, [f"error: {e}", f"  fix   {fix}"])
            raise click.exceptions.Exit(UNREACHABLE) from None
        except (KeyFileError, SettingsError) as e:
            self._fail({"code": "local", "title": str(e)}, [f"error: {e}"])
            raise click.exceptions.Exit(ERROR) from None

    def fail(self, message: str) -> click.exceptions.Exit:
        """Say what failed here; to be raised."""
        self._fail({"code": "local", "title": message}, [f"error: {message}"])
        return click.exceptions.Exit(ERROR)

    def _fail(self, problem: dict[str, Any], lines: list[str]) -> None:
        if self.as_json:
            click.echo(json.dumps({"error": problem}), err=True)
            return
        for line in lines:
            click.echo(printable(line) if len(line) <= 200 else line, err=True)


def _told(error: ServerRefused) -> list[str]:
    lines = [f"error: {printable(error.title)} ({printable(error.code)})"]
    for reason in error.reasons:
        if len(error.reasons) > 1:
            lines.append(f"  {printable(reason.get('code', ''))}")
        lines += [
            f"  {name:<5} {printable(reason[name])}" for name in ("field", "got", "want", "fix") if reason.get(name)
        ]
    if error.request_id:
        lines.append(f"  id    {printable(error.request_id)}")
    return lines


def _status_of(error: ServerRefused) -> int:
    if error.status in (401, 403) or error.code in _POLICY_CODES:
        return NOT_ALLOWED
    return NOT_FOUND if error.status == 404 and error.code != "http-404" else ERROR
