"""
Worker keys, and the HTTP message signatures (RFC 9421) that workers prove themselves with.

A worker key is a P-256 key made in the node, named by its compressed point in lower hex. It signs the method, the path,
the query where there is one, and the digest of the body. The authority is left out: a reverse proxy may change it. So
a signature holds at any orchestrator that knows the key, for a minute; what must not be replayed carries a challenge or
a sequence number of its own.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from http_message_signatures import (
    HTTPMessageSigner,
    HTTPMessageVerifier,
    HTTPSignatureKeyResolver,
    algorithms,
)
from http_message_signatures.digests import ContentDigest
from http_message_signatures.exceptions import HTTPMessageSignaturesException

from attest import keyfiles
from orchestrator import reasons
from orchestrator.reasons import Refused

TAG = "workermanager/v1"
SKEW_MAX = timedelta(seconds=60)
SIGNATURE_HEADER_CHARS_MAX = 1024
TARGET_CHARS_MAX = 4096

_ALGORITHM = algorithms.ECDSA_P256_SHA256
_PUBLIC_HEX = re.compile("0[23][0-9a-f]{64}")
_PARAMETERS = {"created", "keyid", "alg", "tag"}
_LABEL = "worker"
# The library wants a whole URL; no part that is signed comes from here.
_ORIGIN = "https://any.invalid"


@dataclass(frozen=True, slots=True, eq=False)
class WorkerKey:
    """A worker's P-256 private key. It is made on the node, never leaves it, and is never shown."""

    _key: ec.EllipticCurvePrivateKey = field(repr=False)

    @classmethod
    def generate(cls) -> WorkerKey:
        """A new random key."""
        return cls(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def load(cls, path: Path) -> WorkerKey:
        """Read a key from a file that only its owner can read. Raises `keyfiles.KeyFileError`."""
        return cls(keyfiles.load(path, ec.SECP256R1))

    def save(self, path: Path) -> None:
        """Write the key to a new file, mode 0600. Raises `keyfiles.KeyFileError`."""
        keyfiles.save(self._key, path)

    @property
    def public_hex(self) -> str:
        """The name of the key: its X9.62 compressed point, 33 bytes in lower hex."""
        return self._key.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint).hex()

    def __repr__(self) -> str:
        return f"WorkerKey({self.public_hex})"


def parse_public(text: str) -> ec.EllipticCurvePublicKey:
    """The public key that a worker key's name stands for. Refused: field-invalid."""
    want = "a compressed P-256 point, 66 characters of lower hex"
    if not _PUBLIC_HEX.fullmatch(text):
        raise Refused(reasons.FIELD_INVALID, "worker_key", got=text, want=want)
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), bytes.fromhex(text))
    except ValueError:
        raise Refused(reasons.FIELD_INVALID, "worker_key", got=text, want=want) from None


def sign_request(key: WorkerKey, method: str, target: str, body: bytes, *, now: datetime) -> dict[str, str]:
    """
    The headers that sign a request: Content-Digest, Signature-Input, Signature.

    `target` is path and query exactly as they are sent (`/v1/work?dry=1`), `body` the bytes that are sent. Raises
    ValueError for a target that is not one.
    """
    path, _, query = target.partition("?")
    if not _is_target(path, query):
        raise ValueError(f"cannot sign a request to {target!r}: not a path, nor a path and a query")
    message = _Message(method, _url_of(path, query), {})
    signer = HTTPMessageSigner(signature_algorithm=_ALGORITHM, key_resolver=_Keys(key))
    try:
        signer.sign(
            message,
            key_id=key.public_hex,
            created=now,
            label=_LABEL,
            tag=TAG,
            covered_component_ids=_components(query),
            body=body,
        )
    except HTTPMessageSignaturesException as e:
        raise ValueError(f"cannot sign a {method} request to {target!r}: {e}") from e
    return message.headers


def verify_request(
    method: str,
    path: str,
    query: str,
    headers: Iterable[tuple[str, str]],
    body: bytes,
    *,
    now: datetime,
    expected: str | None = None,
) -> str:
    """
    The worker key, in hex, that signed this request.

    `path` and `query` as they were received, not decoded; `headers` in pairs, as `request.headers.items()` gives. With
    `expected`, it must be that key; without, the caller looks up whose it is. Refused: signature-missing,
    signature-invalid, signature-expired, worker-key-mismatch.
    """
    if not _is_target(path, query):
        raise Refused(reasons.SIGNATURE_INVALID, "path", got=path, want=f"at most {TARGET_CHARS_MAX} characters from /")
    signed = _signature_headers(headers)
    if not hmac.compare_digest(signed["content-digest"].encode(), ContentDigest.create(body).encode()):
        raise Refused(reasons.SIGNATURE_INVALID, "content-digest", want="the SHA-256 of the body that was received")
    verifier = _Verifier(now)
    try:
        results = verifier.verify(_Message(method, _url_of(path, query), signed), max_age=None, expect_tag=TAG)
    except (HTTPMessageSignaturesException, ValueError) as e:
        raise Refused(reasons.SIGNATURE_INVALID, "signature", got=str(e)) from None
    if len(results) != 1:
        raise Refused(reasons.SIGNATURE_INVALID, "signature-input", want=f"one signature with the tag {TAG}")
    _check_coverage(results[0].covered_components, results[0].parameters, query)
    signer = str(results[0].parameters["keyid"])
    if expected is not None and not hmac.compare_digest(signer.encode(), expected.encode()):
        raise Refused(reasons.WORKER_KEY_MISMATCH, "keyid", got=signer, want=expected)
    return signer


def _is_target(path: str, query: str) -> bool:
    """The library drops fragments, and makes / of nothing: what is signed must be what is sent."""
    whole = path + "?" + query
    return path.startswith("/") and "?" not in path and "#" not in whole and len(whole) <= TARGET_CHARS_MAX


def _components(query: str) -> list[str]:
    return ["@method", "@path", *(["@query"] if query else []), "content-digest"]


def _check_coverage(covered: dict[str, str], parameters: dict[str, Any], query: str) -> None:
    """More or less than our profile covers is refused, so that there is one way to sign a request."""
    wanted = {f'"{name}"' for name in _components(query)}
    if covered.keys() - {'"@signature-params"'} != wanted:
        raise Refused(
            reasons.SIGNATURE_INVALID, "signature-input", got=" ".join(covered), want=" ".join(sorted(wanted))
        )
    if parameters.keys() != _PARAMETERS:
        raise Refused(
            reasons.SIGNATURE_INVALID, "signature-input", got=" ".join(parameters), want=" ".join(sorted(_PARAMETERS))
        )


def _signature_headers(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The three headers that count, each there once and short. Nothing else is shown to the library."""
    found: dict[str, str] = {}
    for name, value in headers:
        lower = name.lower()
        if lower not in {"content-digest", "signature-input", "signature"}:
            continue
        if lower in found or len(value) > SIGNATURE_HEADER_CHARS_MAX or not value.isascii():
            want = f"one line of at most {SIGNATURE_HEADER_CHARS_MAX} ASCII characters"
            raise Refused(reasons.SIGNATURE_INVALID, lower, want=want)
        found[lower] = value
    for wanted in ("signature-input", "signature", "content-digest"):
        if not found.get(wanted):
            raise Refused(reasons.SIGNATURE_MISSING, wanted)
    return found


def _url_of(path: str, query: str) -> str:
    return _ORIGIN + path + ("?" + query if query else "")


@dataclass(frozen=True, slots=True)
class _Message:
    """What the library asks of a request."""

    method: str
    url: str
    headers: dict[str, str]


class _Keys(HTTPSignatureKeyResolver):
    """A key id is the public key itself; the only private key is the one given."""

    def __init__(self, private: WorkerKey | None = None) -> None:
        self._private = private

    def resolve_public_key(self, key_id: str) -> ec.EllipticCurvePublicKey:
        return parse_public(key_id)

    def resolve_private_key(self, key_id: str) -> ec.EllipticCurvePrivateKey:
        if self._private is None or key_id != self._private.public_hex:
            raise KeyError(key_id)
        return self._private._key


class _Verifier(HTTPMessageVerifier):
    """The library reads the clock of the machine; here the time is handed in."""

    def __init__(self, now: datetime) -> None:
        super().__init__(signature_algorithm=_ALGORITHM, key_resolver=_Keys())
        self._now = now

    def validate_created_and_expires(self, sig_input: Any, max_age: timedelta | None = None) -> None:  # noqa: ARG002
        created = sig_input.params.get("created")
        if type(created) is not int:
            raise Refused(reasons.SIGNATURE_INVALID, "created", want="seconds since 1970")
        if abs(self._now.timestamp() - created) >= SKEW_MAX.total_seconds():
            raise Refused(
                reasons.SIGNATURE_EXPIRED,
                "created",
                got=str(created),
                want=f"within {SKEW_MAX.total_seconds():.0f} s of {int(self._now.timestamp())}",
            )
