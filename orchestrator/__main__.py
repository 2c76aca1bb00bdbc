"""`orchestrator`: run the registry of workers, and ask it."""

from __future__ import annotations

import json
from pathlib import Path

import click

from attest.cli import completion
from orchestrator.commands.collateral import collateral
from orchestrator.commands.options import output
from orchestrator.commands.output import Output
from orchestrator.commands.policy import policy
from orchestrator.commands.queries import models, subscribers, urls, work
from orchestrator.commands.serve import init, serve
from orchestrator.commands.wallet import wallet
from orchestrator.commands.workers import workers


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="workermanager", prog_name="orchestrator")
def main() -> None:
    """
    Registry of Confidential GPU workers: hands out URLs of verified, live ones and no others.

    Exit status: 0 ok, 1 error, 2 usage, 3 not found, 4 refused by policy or permission, 5 unreachable.
    """


@click.command()
def openapi() -> None:
    """Print the OpenAPI document of the API."""
    from orchestrator.app import openapi_document

    click.echo(json.dumps(openapi_document(), indent=2, sort_keys=True))


@click.command()
@click.option("--stay", is_flag=True, help="Keep it running at the end, and say what to try.")
@click.option(
    "--real-evidence",
    type=click.Path(exists=True, path_type=Path),
    help="Real H100 evidence to verify offline at the end: a wheel of NVIDIA's verifier, or a folder with one.",
)
@output
@click.pass_context
def demo(ctx: click.Context, out: Output, stay: bool, real_evidence: Path | None) -> None:
    """Show the main job end to end, with emulated nodes."""
    from orchestrator.demo import run

    ctx.exit(run(as_json=out.as_json, stay=stay, real_evidence=real_evidence))


for _command in (
    init,
    serve,
    workers,
    urls,
    models,
    subscribers,
    collateral,
    policy,
    work,
    wallet,
    openapi,
    completion("orchestrator"),
    demo,
):
    main.add_command(_command)

if __name__ == "__main__":
    main(prog_name="orchestrator")
