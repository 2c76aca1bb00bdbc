"""What the commands of `nodeprobe` share: how long to wait, and how to say that something is wrong."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, NoReturn

import click

from nodeprobe.timelimit import LIMIT_SECONDS

if TYPE_CHECKING:
    from nodeprobe.problems import Problem

LIMIT_SECONDS_MAX = 3600.0


class Seconds(click.FloatRange):
    """More than nothing, at most an hour; and a number, which NaN is not."""

    name = "seconds"

    def __init__(self) -> None:
        super().__init__(0, LIMIT_SECONDS_MAX, min_open=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds: float = super().convert(value, param, ctx)
        if math.isnan(seconds):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return seconds


timeout_option = click.option(
    "--timeout",
    type=Seconds(),
    default=LIMIT_SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="The most time that the driver gets.",
)


def fail(problem: Problem, as_json: bool) -> NoReturn:
    """Say what is wrong and what to do (JSON on stdout: {"problems": [{code, what, fix}]}), and leave with status 1."""
    if as_json:
        click.echo(json.dumps({"problems": [problem.to_json()]}, indent=2))
    else:
        click.echo(f"nodeprobe: {problem.what} ({problem.code})\n  {problem.fix}", err=True)
    raise SystemExit(1)
