"""What `attest verify` is told of the presenter, by `--bind-…` and `--statement`: facts for binding profiles."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from attest.inputs import bounded

if TYPE_CHECKING:
    from attest.binding import Presented, Statement
    from attest.evidence import Nonce

F = TypeVar("F", bound=Callable[..., Any])
CERTIFICATE_BYTES_MAX, STATEMENT_BYTES_MAX, KEY_CHARS_MAX = 64 << 10, 8 << 10, 8 << 10
_HEX32 = re.compile(r"[0-9a-fA-F]{64}")
_ADDRESS = re.compile(r"(?:0x)?([0-9a-fA-F]{40}|[0-9a-fA-F]{64})")


def options(command: F) -> F:
    """The options, for a command that takes `bind_tls`, `bind_address`, `bind_e2e_key` and `statement`."""
    for option in (
        click.option(
            "--statement",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            metavar="FILE",
            help="JSON of what our agent stated, instead of --nonce.",
        ),
        click.option("--bind-e2e-key", metavar="TEXT", help="The presenter's end-to-end key, base64 (Chutes)."),
        click.option("--bind-address", metavar="HEX", help="The presenter's signing address (NEAR, Phala)."),
        click.option(
            "--bind-tls",
            metavar="SPKI_SHA256|CERT.pem",
            help="The presenter's TLS key: SHA-256 of its public key, or its certificate.",
        ),
    ):
        command = option(command)
    return command


def presented(
    nonce: Nonce | None,
    *,
    bind_tls: str | None,
    bind_address: str | None,
    bind_e2e_key: str | None,
    statement: Path | None,
) -> Presented:
    """What the options say. click.UsageError where one says nothing that can be compared."""
    from attest.binding import Presented

    if statement is not None and nonce is not None:
        raise click.UsageError("--statement names the challenge already: leave --nonce out.")
    if bind_e2e_key is not None and not 0 < len(bind_e2e_key) <= KEY_CHARS_MAX:
        raise click.BadParameter(f"want 1 to {KEY_CHARS_MAX} characters.", param_hint="--bind-e2e-key")
    spki, certificate = (None, None) if bind_tls is None else _tls(bind_tls)
    return Presented(
        statement=None if statement is None else _statement(statement),
        nonce=nonce,
        tls_spki_sha256=spki,
        tls_certificate_sha256=certificate,
        signing_address=None if bind_address is None else _address(bind_address),
        e2e_key=bind_e2e_key,
    )


def _tls(text: str) -> tuple[bytes, bytes | None]:
    """SHA-256 of the public key; and of the certificate, where that is given."""
    if _HEX32.fullmatch(text):
        return bytes.fromhex(text), None
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    try:
        certificate = x509.load_pem_x509_certificate(bounded(Path(text), CERTIFICATE_BYTES_MAX))
        spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        whole = certificate.public_bytes(Encoding.DER)
    except (ValueError, TypeError) as e:
        raise click.BadParameter("want 64 hex digits, or a certificate as PEM.", param_hint="--bind-tls") from e
    return hashlib.sha256(spki).digest(), hashlib.sha256(whole).digest()


def _address(text: str) -> bytes:
    match = _ADDRESS.fullmatch(text)
    if match is None:
        raise click.BadParameter("want 40 hex digits, or 64 of an Ed25519 key.", param_hint="--bind-address")
    return bytes.fromhex(match[1])


def _statement(path: Path) -> Statement:
    from attest.binding import Statement

    try:
        said = json.loads(bounded(path, STATEMENT_BYTES_MAX))
        if not isinstance(said, dict) or not all(isinstance(value, str) for value in said.values()):
            raise TypeError("not an object of texts")
        if not _HEX32.fullmatch(said.get("challenge", "")):
            raise ValueError("its challenge is not 64 hex digits")
        return Statement(**said)
    except (ValueError, TypeError, RecursionError) as e:
        raise click.BadParameter(f"{path}: {e}", param_hint="--statement") from e
