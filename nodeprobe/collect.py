"""`nodeprobe collect`: the evidence of this node for a challenge, or for a statement of who it is, as one file."""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nodeprobe.cli import fail, timeout_option

if TYPE_CHECKING:
    from attest.binding import Statement
    from attest.evidence import Bundle

FILE_MODE = 0o644  # evidence is no secret: it is made to be shown
STATEMENT_BYTES_MAX = 8 << 10
_NONCE = re.compile(r"[0-9a-fA-F]{64}")


@click.command()
@click.option("--nonce", metavar="HEX", help="The challenge, for GPUs alone: 64 hex digits.")
@click.option(
    "--statement",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Instead: what the node states, as JSON (`workermanager/v1`). The CPU TEE answers as well, if there is one.",
)
@click.option("-o", "--output", required=True, metavar="FILE", help="Where to write the evidence; - is stdout.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary, or what is wrong, as JSON.")
@timeout_option
def collect(nonce: str | None, statement: Path | None, output: str, as_json: bool, timeout: float) -> None:
    """Collect the evidence of all GPUs for a nonce, or of the whole node for a statement, into a file.

    The file is what `attest verify` reads and what a worker is attested by. It is written whole or not at all, and
    holds every GPU of the node, and in protected-PCIe mode every NVSwitch: if one gives no evidence, nothing is
    written.

    --json prints {"file", "bytes", "digest", "nonce", "devices": [{"kind", "payload_bytes", "certificates_bytes"}]},
    or {"problems": [{"code", "what", "fix"}]}. Exit status: 0 written, 1 not, 2 wrong usage.
    """
    from attest.binding import gpu_nonce
    from attest.evidence import Nonce, dumps
    from nodeprobe import gathering
    from nodeprobe.problems import Problem, ProblemError

    if (nonce is None) == (statement is None):
        raise click.UsageError("Give either --nonce or --statement.")
    if nonce is not None and not _NONCE.fullmatch(nonce):
        raise click.BadParameter("a nonce is 32 bytes: 64 hex digits, as the challenge gives it.", param_hint="--nonce")
    said = None if statement is None else _statement(statement)
    answered = Nonce(bytes.fromhex(nonce or "")) if said is None else gpu_nonce(said)
    if as_json and output == "-":
        raise click.UsageError("--json prints to stdout, and so does `-o -`: choose one.")
    if sys.stderr.isatty():
        click.echo("Asking the devices for their reports …", err=True)
    try:
        devices = gathering.board(timeout)
        bundle = devices(answered) if said is None else gathering.of_node(devices, gathering.cpu_of(Path("/")))(said)
        wire = dumps(bundle)
        write(output, wire)
    except ProblemError as e:
        fail(e.problem, as_json)
    except OSError as e:
        why = f"{output} was not written: {e.strerror or e}."
        fail(Problem("file-not-written", why, "Name a file in a folder that exists and may be written."), as_json)
    _tell(_summary(output, answered, bundle, wire), as_json)


def _statement(path: Path) -> Statement:
    from attest.binding import Statement

    try:
        with path.open("rb") as file:
            said = json.loads(file.read(STATEMENT_BYTES_MAX))
        if not isinstance(said, dict) or not all(isinstance(value, str) for value in said.values()):
            raise TypeError("it is no object of texts")
        if not _NONCE.fullmatch(said.get("challenge", "")):
            raise ValueError("its challenge is not 64 hex digits")
        return Statement(**said)
    except (OSError, ValueError, TypeError, RecursionError) as e:
        raise click.BadParameter(f"{path}: {e}.", param_hint="--statement") from None


def write(output: str, data: bytes) -> None:
    """Write `data` to the file at once or not at all (mode 0644); to stdout for `-`. OSError if it cannot be."""
    if output == "-":
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    path = Path(output).resolve()  # a link stays, and what it points to is replaced
    if path.exists() and not path.is_file():  # a device or a pipe: it must not be replaced by a file
        path.write_bytes(data)
        return
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:64]}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), FILE_MODE)
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _summary(output: str, nonce: bytes, bundle: Bundle, wire: bytes) -> dict[str, Any]:
    from attest.evidence import digest

    return {
        "file": output,
        "bytes": len(wire),
        "digest": digest(bundle),
        "nonce": nonce.hex(),
        "devices": [
            {"kind": e.kind, "payload_bytes": len(e.payload), "certificates_bytes": len(e.certificates)} for e in bundle
        ],
    }


def _tell(summary: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(summary, indent=2))
    else:
        count = len(summary["devices"])
        devices = f"{count} device{'s' * (count != 1)}"
        click.echo(f"{devices}, {summary['bytes']} bytes, sha256 {summary['digest']}: {summary['file']}", err=True)
