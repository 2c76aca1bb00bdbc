"""
`nodeprobe`: the command line of a GPU node.

Commands are imported when they are asked for. `--help` imports all of them, so their modules import at the top only
click and the standard library; what is heavy, they import inside the command.
"""

from __future__ import annotations

import importlib
import io
import os
import sys

import click

from nodeprobe.timelimit import stuck

# name: module and attribute of its click command. A new command is one line here.
COMMANDS = {
    "show": "nodeprobe.show:show",
    "collect": "nodeprobe.collect:collect",
    "register": "nodeprobe.commands_agent:register",
    "preflight": "nodeprobe.commands_preflight:preflight",
    "agent": "nodeprobe.commands_agent:agent",
    "emulate": "nodeprobe.commands_emulate:emulate",
    "emulate-root": "nodeprobe.commands_root:emulate_root",
}


class Commands(click.Group):
    """A group that imports a command only when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="workermanager", prog_name="nodeprobe")
def cli() -> None:
    """A Confidential GPU node's own side: what hardware is here, its evidence, and its life as a worker.

    Exit status: 0 done, 1 not done (the reason is printed), 2 wrong usage.
    """


def main() -> None:
    """Run the command line. After a hung driver call, end at once: the driver's own clean-up would hang as well."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that has no arrows gets question marks, no traceback
    try:
        cli(prog_name="nodeprobe")
    except SystemExit as leaving:
        if stuck():
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(leaving.code if isinstance(leaving.code, int) else 1)
        raise


if __name__ == "__main__":
    main()
