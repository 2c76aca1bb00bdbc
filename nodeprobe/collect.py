"""`nodeprobe collect`: the evidence of all GPUs of this node for a challenge, as one file."""

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
    from attest.evidence import Bundle

FILE_MODE = 0o644  # evidence is no secret: it is made to be shown
_NONCE = re.compile(r"[0-9a-fA-F]{64}")


@click.command()
@click.option("--nonce", required=True, metavar="HEX", help="The challenge: 64 hex digits.")
@click.option("-o", "--output", required=True, metavar="FILE", help="Where to write the evidence; - is stdout.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary, or what is wrong, as JSON.")
@timeout_option
def collect(nonce: str, output: str, as_json: bool, timeout: float) -> None:
    """Collect the evidence of all GPUs for a nonce, into a file.

    The file is what `attest verify` reads and what a worker is attested by. It is written whole or not at all, and
    holds every GPU of the node: if one gives no evidence, nothing is written.

    --json prints {"file", "bytes", "digest", "nonce", "devices": [{"kind", "payload_bytes", "certificates_bytes"}]},
    or {"problems": [{"code", "what", "fix"}]}. Exit status: 0 written, 1 not, 2 wrong usage.
    """
    from attest.evidence import Nonce, dumps
    from nodeprobe import nvml
    from nodeprobe.problems import Problem, ProblemError

    if not _NONCE.fullmatch(nonce):
        raise click.BadParameter("a nonce is 32 bytes: 64 hex digits, as the challenge gives it.", param_hint="--nonce")
    if as_json and output == "-":
        raise click.UsageError("--json prints to stdout, and so does `-o -`: choose one.")
    if sys.stderr.isatty():
        click.echo("Asking the GPUs for their reports …", err=True)
    try:
        bundle = nvml.evidence(Nonce(bytes.fromhex(nonce)), timeout)
        wire = dumps(bundle)
        write(output, wire)
    except ProblemError as e:
        fail(e.problem, as_json)
    except OSError as e:
        why = f"{output} was not written: {e.strerror or e}."
        fail(Problem("file-not-written", why, "Name a file in a folder that exists and may be written."), as_json)
    _tell(_summary(output, nonce, bundle, wire), as_json)


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


def _summary(output: str, nonce: str, bundle: Bundle, wire: bytes) -> dict[str, Any]:
    from attest.evidence import digest

    return {
        "file": output,
        "bytes": len(wire),
        "digest": digest(bundle),
        "nonce": nonce.lower(),
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
