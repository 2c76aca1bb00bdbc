"""`attest result`: check a signed result offline, and show what it says."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from attest.cli import Hex32, Instant

if TYPE_CHECKING:  # imports of the real work wait until a command runs, so that --help is quick
    from attest.reasons import Reason
    from attest.tokens import Keys

ACCEPTED, REFUSED, MALFORMED = 0, 10, 30  # as `attest verify` has them
FILE_BYTES_MAX = 1 << 20
_TOKEN = re.compile(r"eyJ[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*")  # every header begins with `{"`


@click.group("result")
def result() -> None:
    """Signed results (EAR): what a verifier concluded, as a token that anybody can check."""


@result.command("verify")
@click.argument("token")
@click.option(
    "--jwks",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The issuer's key set, from its /.well-known/jwks.json.",
)
@click.option("--nonce", type=Hex32(), help="The challenge that the evidence must have answered, 64 hex digits.")
@click.option("--at", type=Instant(), help="Check as of this time instead of now, as 2026-01-31T12:00:00Z.")
@click.option("--accept-emulated", is_flag=True, help="Accept devices that are emulated, not real hardware.")
@click.option("--accept-warnings", is_flag=True, help="Accept what the issuer's policy put up with.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")
@click.pass_context
def verify(
    ctx: click.Context,
    token: str,
    jwks: Path,
    nonce: bytes | None,
    at: datetime | None,
    accept_emulated: bool,
    accept_warnings: bool,
    as_json: bool,
) -> None:
    """
    Verify a signed result offline. TOKEN: the token itself, a file that holds it, or - for standard input.

    Exit status: 0 genuine, valid and affirming, 10 refused, 30 malformed, 2 wrong usage.
    """
    from attest import ear
    from attest.errors import AttestError
    from attest.tokens import MalformedToken

    keys, text, now = _keys(jwks), _text(token), at or datetime.now(UTC)
    try:
        claims = ear.verify(text, keys, now=now, nonce=nonce)
    except AttestError as e:
        status = "malformed" if isinstance(e, MalformedToken) else "refused"
        document: dict[str, Any] = {"status": status, "objections": [_told("token", e.reason, e.found, e.wanted)]}
    else:
        objections = [
            _told(*each) for each in ear.objections(claims, emulated=accept_emulated, warnings=accept_warnings)
        ]
        document = {"status": "refused" if objections else "accepted", "objections": objections, "ear": claims}
    click.echo(json.dumps(document, indent=2) if as_json else "\n".join(_shown(document)))
    ctx.exit({"accepted": ACCEPTED, "malformed": MALFORMED}.get(document["status"], REFUSED))


def _keys(path: Path) -> Keys:
    from attest.errors import AttestError
    from attest.tokens import read_keys

    try:
        return read_keys(_read(path))
    except AttestError as e:
        raise click.UsageError(f"--jwks {path}: {e}. {e.reason.remedy}") from e


def _text(token: str) -> str:
    if _TOKEN.fullmatch(token):
        return token
    piped = token == "-"  # noqa: S105 - a file name by custom, and no secret
    data = sys.stdin.buffer.read(FILE_BYTES_MAX + 1) if piped else _read(Path(token))
    return data.decode("ascii", errors="replace").strip()


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(FILE_BYTES_MAX + 1)
    except (OSError, ValueError) as e:
        why = e.strerror if isinstance(e, OSError) else "no name of a file"
        raise click.UsageError(f"{str(path)[:200]} cannot be read ({why}): give a token, or the file of one") from e


def _told(device: str, reason: Reason, found: str, wanted: str) -> dict[str, str]:
    meaning, fix = reason.meaning, reason.remedy
    return {"device": device, "code": reason.code, "meaning": meaning, "found": found, "wanted": wanted, "fix": fix}


def _shown(document: Mapping[str, Any]) -> Iterator[str]:
    from attest.errors import printable

    claims = document.get("ear")
    emulated = claims is not None and claims[_result()].get("emulated") is not False
    yield document["status"].upper() + (" — EMULATED, not real hardware" if emulated else "")
    if claims is not None:
        yield from (f"  {printable(line)}" for line in _said(claims))
    for objection in document["objections"]:
        yield ""
        yield f"  {objection['code']} ({printable(objection['device'])}): {objection['meaning']}"
        yield from (
            f"    {name}: {printable(objection[name])}" for name in ("found", "wanted", "fix") if objection[name]
        )


def _said(claims: Mapping[str, Any]) -> Iterator[str]:
    """What the issuer says, in the order in which one asks."""
    whole, verifier = claims[_result()], claims["ear_verifier_id"]
    yield f"issued by {claims['iss']} ({verifier['build']} of {verifier['developer']})"
    yield f"issued {_time(claims['iat'])}    until {_time(claims['exp'])}    appraised {whole.get('appraised_at')}"
    for label, appraisal in claims["submods"].items():
        yield f"{label}: {appraisal['ear_status']}"
        vector = appraisal["ear_trustworthiness_vector"]
        yield "  " + (", ".join(f"{aspect} {value}" for aspect, value in vector.items() if value) or "nothing asserted")
    yield f"revocation: {whole.get('revocation')}    freshness: {whole.get('freshness')}    CPU TEE: {whole.get('cpu')}"
    binding, policy = (each if isinstance(each, dict) else {} for each in (whole.get("binding"), whole.get("policy")))
    yield f"binding: {binding.get('profile')} ({binding.get('strength')})    policy: {policy.get('name')}"
    yield f"evidence: sha256 {whole.get('evidence_sha256')}"


def _result() -> str:
    from attest.ear import RESULT

    return RESULT


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
