"""`attest`: verify evidence offline, or look at what it says. Exit status: 0 accepted, 10 refused, 20, 30 see below."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from attest import inputs, presenting
from attest.cli import Hex32, Instant, completion
from attest.commands_policy import policy
from attest.commands_result import result

ACCEPTED, USAGE, REFUSED, UNSUPPORTED, MALFORMED = 0, 2, 10, 20, 30

_FILES = click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="workermanager", prog_name="attest")
def main() -> None:
    """Verify the attestation evidence of Confidential GPU nodes, offline."""


for _command in (policy, result, completion("attest")):
    main.add_command(_command)


@main.command()
@_FILES
@click.option("--nonce", type=Hex32(), help="The challenge that the evidence must answer, 64 hex digits.")
@presenting.options
@click.option("--at", type=Instant(), help="Verify as of this time instead of now, as 2026-01-31T12:00:00Z.")
@click.option(
    "--collateral",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder with RIMs, OCSP answers, Intel's documents, or an export: recognised by content or manifest.",
)
@click.option(
    "--policy", "policy_name", default="production", show_default=True, help="strict, production, lab or a TOML file."
)
@click.option(
    "--trust-root",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Roots of an emulator to trust beside the vendors'. Verdicts that rest on them say so.",
)
@click.option(
    "--preflight",
    "presume",
    is_flag=True,
    help="Judge as if the evidence had just answered a challenge, and say which refusals that takes away.",
)
@_JSON
@click.pass_context
def verify(
    ctx: click.Context,
    /,
    files: tuple[Path, ...],
    nonce: bytes | None,
    at: datetime | None,
    collateral: Path | None,
    policy_name: str,
    trust_root: Path | None,
    presume: bool,
    as_json: bool,
    **facts: Any,
) -> None:
    """
    Verify evidence in FILES: any container, or a report and its certificate chain.

    Exit status: 0 accepted, 10 refused, 20 of an unsupported kind, 30 malformed, 2 wrong usage.
    """
    from attest.appraise import appraise
    from attest.containers import read
    from attest.errors import AttestError
    from attest.evidence import Nonce
    from attest.preflight import as_preflight_document, preflight
    from attest.profiles import judge, to_verify_against
    from attest.report import as_document, as_text, of_error
    from attest.verify import verify as verify_bundle

    rules, now = inputs.policy_named(policy_name), at or datetime.now(UTC)
    challenge = Nonce(nonce) if nonce is not None else None
    presented = presenting.presented(challenge, **facts)
    verifiers = inputs.verifiers(inputs.anchors(trust_root))
    try:
        bundle = read(inputs.pieces(files))
    except AttestError as e:
        document = of_error(e)
    else:
        against = to_verify_against(bundle, presented)
        verification = verify_bundle(bundle, verifiers, inputs.fetch(collateral, now), nonce=against, now=now)
        binding = judge(verification.claims, bundle, presented)
        if presume:
            presumed = preflight(verification, rules, bundle=bundle, nonce=against, now=now, binding=binding)
            document = as_preflight_document(presumed, verification.refusals)
        else:
            concluded = appraise(verification, rules, bundle=bundle, nonce=against, now=now, binding=binding)
            document = as_document(concluded, verification.refusals)
    click.echo(json.dumps(document, indent=2) if as_json else as_text(document))
    ctx.exit(
        {"accepted": ACCEPTED, "unsupported": UNSUPPORTED, "malformed": MALFORMED}.get(str(document["status"]), REFUSED)
    )


@main.command()
@_FILES
@_JSON
@click.pass_context
def inspect(ctx: click.Context, files: tuple[Path, ...], as_json: bool) -> None:
    """Show what the evidence in FILES says, without believing it. Exit status: 0, or 30 if it is malformed."""
    from attest.containers import read
    from attest.errors import AttestError
    from attest.inspect import as_text, inspect_bundle
    from attest.report import as_text as verdict_as_text
    from attest.report import of_error

    try:
        said = inspect_bundle(read(inputs.pieces(files)))
    except AttestError as e:
        document = of_error(e)
        click.echo(json.dumps(document, indent=2) if as_json else verdict_as_text(document))
        ctx.exit(MALFORMED)
    click.echo(json.dumps(said, indent=2) if as_json else as_text(said))


def run(arguments: Sequence[str] | None = None) -> None:
    main(args=arguments, prog_name="attest")


if __name__ == "__main__":
    run()
