"""`attest`: verify evidence offline, or look at what it says. Exit status: 0 accepted, 10 refused, 20, 30 see below."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from attest.cli import Hex32, Instant, completion

if TYPE_CHECKING:  # imports of the real work wait until a command runs, so that --help is quick
    from attest.anchors import Anchors
    from attest.collateral import Fetch
    from attest.policy import Policy

ACCEPTED, USAGE, REFUSED, UNSUPPORTED, MALFORMED = 0, 2, 10, 20, 30

_FILES = click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="workermanager", prog_name="attest")
def main() -> None:
    """Verify the attestation evidence of Confidential GPU nodes, offline."""


main.add_command(completion("attest"))


@main.command()
@_FILES
@click.option("--nonce", type=Hex32(), help="The challenge that the evidence must answer, 64 hex digits.")
@click.option("--at", type=Instant(), help="Verify as of this time instead of now, as 2026-01-31T12:00:00Z.")
@click.option(
    "--collateral",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder with RIMs: <RIM id>.xml, or any names; recognised by content.",
)
@click.option(
    "--policy", "policy_name", default="production", show_default=True, help="strict, production, lab or a TOML file."
)
@click.option(
    "--trust-root",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Roots of an emulator to trust beside the vendors'. Verdicts that rest on them say so.",
)
@_JSON
@click.pass_context
def verify(
    ctx: click.Context,
    files: tuple[Path, ...],
    nonce: bytes | None,
    at: datetime | None,
    collateral: Path | None,
    policy_name: str,
    trust_root: Path | None,
    as_json: bool,
) -> None:
    """
    Verify evidence in FILES: any container, or a report and its certificate chain.

    Exit status: 0 accepted, 10 refused, 20 of an unsupported kind, 30 malformed, 2 wrong usage.
    """
    from attest.appraise import appraise
    from attest.containers import read
    from attest.errors import AttestError
    from attest.evidence import Nonce
    from attest.report import as_document, as_text, of_error
    from attest.verify import installed
    from attest.verify import verify as verify_bundle

    policy, anchors, now = _policy(policy_name), _anchors(trust_root), at or datetime.now(UTC)
    challenge = Nonce(nonce) if nonce is not None else None
    try:
        verifiers = installed(anchors)
    except ValueError as e:
        raise click.UsageError(str(e)) from e
    try:
        bundle = read(_pieces(files))
    except AttestError as e:
        document = of_error(e)
    else:
        verification = verify_bundle(bundle, verifiers, _fetch(collateral, now), nonce=challenge, now=now)
        result = appraise(verification, policy, bundle=bundle, nonce=challenge, now=now)
        document = as_document(result, verification.refusals)
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
        said = inspect_bundle(read(_pieces(files)))
    except AttestError as e:
        document = of_error(e)
        click.echo(json.dumps(document, indent=2) if as_json else verdict_as_text(document))
        ctx.exit(MALFORMED)
    click.echo(json.dumps(said, indent=2) if as_json else as_text(said))


@main.group()
def policy() -> None:
    """Appraisal policies: what must hold before evidence is accepted."""


@policy.command("show")
@click.argument("name", default="production")
@_JSON
def policy_show(name: str, as_json: bool) -> None:
    """Print every rule of a policy, the ones left at their strict defaults too. NAME: a shipped one, or a TOML file."""
    found = _policy(name)
    rules = found.model_dump(mode="json")
    if as_json:
        click.echo(json.dumps({"sha256": found.sha256, "rules": rules}, indent=2))
        return
    click.echo(f"# {found.name}, sha256 {found.sha256}")
    for key, value in [*rules.items(), *((f"nvidia.{k}", v) for k, v in rules["nvidia"].items())]:
        if not isinstance(value, dict):
            click.echo(f"{key} = {json.dumps(sorted(value) if isinstance(value, list) else value)}")


def _pieces(files: Sequence[Path]) -> list[bytes]:
    """The files, as far as it takes to see that they are too many or too large."""
    from attest.containers import FILES_MAX
    from attest.evidence import BUNDLE_BYTES_MAX

    pieces: list[bytes] = []
    for path in files[: FILES_MAX + 1]:
        pieces.append(_read(path, BUNDLE_BYTES_MAX - sum(map(len, pieces))))
        if sum(map(len, pieces)) > BUNDLE_BYTES_MAX:
            break
    return pieces


def _read(path: Path, most: int) -> bytes:
    """The file if it has at most `most` bytes, else one byte more than that: whoever gets it refuses it."""
    try:
        with path.open("rb") as file:
            return file.read(most + 1)
    except OSError as e:
        raise click.UsageError(f"{path} cannot be read: {e.strerror}") from e


def _policy(name: str) -> Policy:
    from attest.policy import POLICY_BYTES_MAX, SHIPPED, PolicyError, parse, shipped

    path = Path(name)
    try:
        if name in SHIPPED:
            return shipped(name)
        if not path.is_file():
            raise click.UsageError(f"no policy {name!r}: give {', '.join(SHIPPED)} or a TOML file")
        return parse(_read(path, POLICY_BYTES_MAX).decode())
    except (PolicyError, UnicodeDecodeError) as e:
        raise click.UsageError(f"policy {name}: {e}") from e


def _anchors(trust_root: Path | None) -> Anchors:
    from attest.anchors import ANCHORS_BYTES_MAX, VENDORS, load_emulated

    if trust_root is None:
        return VENDORS
    try:
        return VENDORS.trusting(load_emulated(_read(trust_root, ANCHORS_BYTES_MAX)))
    except ValueError as e:
        raise click.UsageError(f"--trust-root {trust_root}: {e}") from e


def _fetch(collateral: Path | None, now: datetime) -> Fetch:
    from attest.collateral import nothing
    from attest.folder import Folder, FolderError

    if collateral is None:
        return nothing
    try:
        return Folder(collateral).at(now)
    except FolderError as e:
        raise click.UsageError(str(e)) from e


def run(arguments: Sequence[str] | None = None) -> None:
    main(args=arguments, prog_name="attest")


if __name__ == "__main__":
    run()
