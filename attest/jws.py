"""
Signed tokens: compact JWS (RFC 7515) with ES384 and nothing else. The only door to joserfc.

A header holds `alg`, `kid` and perhaps `typ`. Whatever else a header may hold lets a token name its own key (`jku`,
`x5u`, `x5c`, `jwk`) or change how it is read (`crit`, `b64`, `zip`), and is refused before any key is looked up.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NoReturn

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

TOKEN_CHARS_MAX = 32 << 10
JSON_DEPTH_MAX = 16
ALGORITHM = "ES384"  # RFC 7518 §3.4: ECDSA on P-384 with SHA-384, the signature as r || s
CURVE = "P-384"
SIGNATURE_BYTES = 96
_HEADER = frozenset({"alg", "kid", "typ"})
_PARTS = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]*)")
_KID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class JwsFault(StrEnum):
    """How a token fails; callers map it to a reason of theirs."""

    MALFORMED = "malformed"
    ALGORITHM = "algorithm"
    HEADER = "header"
    KEY = "key"
    SIGNATURE = "signature"


class JwsError(Exception):
    """The token, or the key for it, is not to be used."""

    def __init__(self, fault: JwsFault, found: str, wanted: str) -> None:
        self.fault, self.found, self.wanted = fault, found, wanted
        super().__init__(fault, found, wanted)


@dataclass(frozen=True, slots=True)
class Unverified:
    """A token that parses. `states` is its payload, believed by nobody yet: it may choose among pinned keys only."""

    text: str = field(repr=False)
    kid: str
    states: Mapping[str, Any] = field(repr=False, compare=False, hash=False)


@dataclass(frozen=True, slots=True)
class Key:
    """A public key on P-384."""

    public: EllipticCurvePublicKey
    imported: ECKey = field(repr=False)


def read(text: object) -> Unverified:
    """The parts of a compact token, each strictly. JwsError if it is no token, or none of this profile."""
    if not isinstance(text, str) or len(text) > TOKEN_CHARS_MAX:
        raise JwsError(JwsFault.MALFORMED, "no text, or a long one", f"at most {TOKEN_CHARS_MAX} characters")
    parts = _PARTS.fullmatch(text)
    if parts is None:
        raise JwsError(JwsFault.MALFORMED, "no three parts of base64url", "header.payload.signature")
    header = _object(parts[1], "header")
    kid = _check_header(header)
    if len(_decoded(parts[3], "signature")) != SIGNATURE_BYTES:
        raise JwsError(JwsFault.SIGNATURE, "a signature of another length", f"{SIGNATURE_BYTES} bytes")
    return Unverified(text, kid, _object(parts[2], "payload"))


def verify(token: Unverified, key: Key) -> Mapping[str, Any]:
    """What the token says, as the holder of this key signed it. JwsError if somebody else did."""
    try:
        jws.deserialize_compact(token.text, key.imported, algorithms=[ALGORITHM])
    except (JoseError, ValueError) as e:
        raise JwsError(JwsFault.SIGNATURE, "a signature that does not hold", "the issuer's") from e
    return token.states  # of the very characters whose signature was verified


def read_key(jwk: Mapping[str, Any]) -> Key:
    """A public key from its JWK (RFC 7517). JwsError unless it is on P-384 and for signatures of this algorithm."""
    stated = {name: jwk.get(name) for name in ("kty", "crv", "x", "y")}
    if stated["kty"] != "EC" or stated["crv"] != CURVE:
        raise JwsError(JwsFault.KEY, f"a key {stated['kty']} {stated['crv']}", f"EC {CURVE}")
    if jwk.get("alg", ALGORITHM) != ALGORITHM or jwk.get("use", "sig") != "sig":
        raise JwsError(JwsFault.KEY, f"a key for {jwk.get('alg')}, {jwk.get('use')}", f"{ALGORITHM}, sig")
    if "d" in jwk:
        raise JwsError(JwsFault.KEY, "a private key", "public keys only")
    try:
        imported = ECKey.import_key({name: str(value) for name, value in stated.items()})
        return Key(imported.public_key, imported)
    except (JoseError, ValueError, TypeError, KeyError) as e:
        raise JwsError(JwsFault.KEY, f"no key ({type(e).__name__})", f"a point on {CURVE}") from e


def strict_json(data: bytes) -> Any:
    """JSON that all readers read alike: UTF-8, no name twice in an object, no NaN, not deep. ValueError if not."""
    try:
        document = json.loads(data.decode("utf-8"), object_pairs_hook=_unambiguous, parse_constant=_no_constant)
    except RecursionError as e:
        raise ValueError("JSON nested too deep") from e
    _check_depth(document, JSON_DEPTH_MAX)
    return document


def _check_header(header: Mapping[str, Any]) -> str:
    """The algorithm first: a token of another is not ours, whatever else it says. Returns the key's name."""
    if header.get("alg") != ALGORITHM:
        raise JwsError(JwsFault.ALGORITHM, f"alg {header.get('alg')!r}", ALGORITHM)
    if more := sorted(header.keys() - _HEADER):
        raise JwsError(JwsFault.HEADER, f"a header with {', '.join(more)}", "alg, kid and perhaps typ")
    if header.get("typ", "JWT") != "JWT":
        raise JwsError(JwsFault.HEADER, f"typ {header['typ']!r}", "JWT")
    kid = header.get("kid")
    if not isinstance(kid, str) or not _KID.fullmatch(kid):
        raise JwsError(JwsFault.HEADER, f"kid {kid!r}", "the name of a key")
    return kid


def _object(part: str, what: str) -> Mapping[str, Any]:
    try:
        found = strict_json(_decoded(part, what))
    except ValueError as e:
        raise JwsError(JwsFault.MALFORMED, f"a {what} that is no JSON ({e})", "a JSON object") from e
    if not isinstance(found, dict):
        raise JwsError(JwsFault.MALFORMED, f"a {what} that is no object", "a JSON object")
    return found


def _decoded(part: str, what: str) -> bytes:
    """Base64url without padding, in its one spelling: unused bits are zero."""
    try:
        data = base64.b64decode(part + "=" * (-len(part) % 4), b"-_", validate=True)
    except binascii.Error as e:
        raise JwsError(JwsFault.MALFORMED, f"a {what} that is no base64url", "base64url without padding") from e
    if base64.urlsafe_b64encode(data).rstrip(b"=").decode() != part:
        raise JwsError(JwsFault.MALFORMED, f"a {what} in another spelling", "base64url with unused bits zero")
    return data


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name twice in one object")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} in JSON")


def _check_depth(value: Any, left: int) -> None:
    if left == 0:
        raise ValueError("JSON nested too deep")
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_depth(each, left - 1)
