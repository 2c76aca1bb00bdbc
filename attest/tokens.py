"""
Tokens that we issue: compact JWS (RFC 7515), and the key sets to verify them with (RFC 7517).

What a token says about itself is believed as little as possible. Its header holds `alg`, `kid` and `typ` and nothing
else: no key and no address of one, nothing critical. `kid` finds the key in a set that the caller trusts; the key, not
the token, decides the algorithm; which algorithms are allowed, the caller says.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from joserfc import jws
from joserfc.errors import JoseError, UnsupportedAlgorithmError
from joserfc.jwk import ECKey, OKPKey

from attest.errors import AttestError
from attest.jws import strict_json
from attest.reasons import Reason
from attest.reasons import tokens as reasons

TOKEN_CHARS_MAX = 512 << 10
HEADER_CHARS_MAX = 512
SIGNATURE_CHARS_MAX = 256
KEYS_MAX = 64
KEYS_CHARS_MAX = 256 << 10
KEY_ID_CHARS_MAX = 128

ES256, EDDSA = "ES256", "EdDSA"
# Curve -> algorithm. EdDSA means Ed25519 here, and never Ed448.
_CURVES = {("EC", "P-256"): ES256, ("OKP", "Ed25519"): EDDSA}
_COORDINATE_CHARS = 43  # 32 bytes in base64url, on both curves
_HEADER = frozenset({"alg", "kid", "typ"})
_SECRET = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey


class MalformedToken(AttestError):
    """The text is no token, or no key set."""


class UntrustedToken(AttestError):
    """The token parses, but it is not proved genuine, or not proved to hold now."""


class _Registry(jws.JWSRegistry):
    """
    joserfc's registry with our limits and exactly one algorithm. Its own warns about EdDSA, whose name says no curve
    (RFC 9864); here the key says it.
    """

    max_header_length = HEADER_CHARS_MAX
    max_payload_length = TOKEN_CHARS_MAX
    max_signature_length = SIGNATURE_CHARS_MAX

    def get_alg(self, name: str) -> Any:
        if not self.allowed or name not in self.allowed:
            raise UnsupportedAlgorithmError(name)
        return self.algorithms[name]


@dataclass(frozen=True, slots=True)
class Key:
    """A public key of a set, and the one algorithm that it is for."""

    algorithm: str
    jwk: ECKey | OKPKey = field(repr=False)


Keys = Mapping[str, Key]


def read_keys(document: bytes | Mapping[str, Any]) -> Keys:
    """
    The keys of a JWKS, or its text, by their `kid`. Keys for other uses, or of kinds that we do not verify with, are
    left out. MalformedToken (token-keys-malformed, token-too-large) if it is none, or holds a secret, or a name twice.
    """
    if isinstance(document, bytes):
        if len(document) > KEYS_CHARS_MAX:
            raise MalformedToken(reasons.TOKEN_TOO_LARGE, f"{len(document)} bytes", f"at most {KEYS_CHARS_MAX}")
        document = _object(document, reasons.TOKEN_KEYS_MALFORMED)
    entries = document.get("keys")
    if not isinstance(entries, list) or len(entries) > KEYS_MAX:
        raise MalformedToken(reasons.TOKEN_KEYS_MALFORMED, "no list of keys, or too long a one", f"up to {KEYS_MAX}")
    found: dict[str, Key] = {}
    for entry in entries:
        if not isinstance(entry, dict) or _SECRET & entry.keys():
            raise MalformedToken(reasons.TOKEN_KEYS_MALFORMED, "a secret key, or no key at all", "public keys")
        key, kid = _read_key(entry), entry.get("kid")
        if key is None:
            continue
        if not isinstance(kid, str) or not 0 < len(kid) <= KEY_ID_CHARS_MAX or kid in found:
            raise MalformedToken(reasons.TOKEN_KEYS_MALFORMED, f"kid {kid!r}", "a `kid` for each key, each once")
        found[kid] = key
    return MappingProxyType(found)


def _read_key(entry: Mapping[str, Any]) -> Key | None:
    kty, crv = entry.get("kty"), entry.get("crv")
    algorithm = _CURVES.get((kty, crv)) if isinstance(kty, str) and isinstance(crv, str) else None
    if algorithm is None or entry.get("use", "sig") != "sig" or entry.get("alg", algorithm) != algorithm:
        return None
    coordinates = {name: str(entry.get(name)) for name in ("x", "y")[: 2 if kty == "EC" else 1]}
    if any(len(each) != _COORDINATE_CHARS for each in coordinates.values()):
        raise MalformedToken(reasons.TOKEN_KEYS_MALFORMED, f"a {crv} key", f"{_COORDINATE_CHARS} characters each")
    importer: type[ECKey] | type[OKPKey] = ECKey if kty == "EC" else OKPKey
    try:
        return Key(algorithm, importer.import_key({"kty": str(kty), "crv": str(crv), **coordinates}))
    except (JoseError, ValueError) as e:
        raise MalformedToken(reasons.TOKEN_KEYS_MALFORMED, f"a {crv} key", "a point of the curve") from e


def public_jwk(key: PublicKey) -> dict[str, str]:
    """A public key as an entry of a JWKS; its `kid` is its thumbprint (RFC 7638). ValueError for another curve."""
    algorithm, imported = _imported(key)
    fields = {name: str(value) for name, value in imported.as_dict(private=False).items()}
    return {**fields, "kid": imported.thumbprint(), "use": "sig", "alg": algorithm}


def key_set(keys: Iterable[PublicKey]) -> dict[str, Any]:
    """The JWKS of these keys."""
    return {"keys": [public_jwk(key) for key in keys]}


def _imported(key: PublicKey | PrivateKey) -> tuple[str, ECKey | OKPKey]:
    if isinstance(key, ed25519.Ed25519PublicKey | ed25519.Ed25519PrivateKey):
        return EDDSA, OKPKey(key, key)
    if not isinstance(key.curve, ec.SECP256R1):
        raise ValueError(f"no algorithm of ours signs with {key.curve.name}; P-256 or Ed25519 does")
    return ES256, ECKey(key, key)


def sign(payload: Mapping[str, Any], key: PrivateKey, *, typ: str) -> str:
    """
    A token over these claims. Equal claims make equal payloads. ValueError for a curve that we do not sign with, or for
    more than `TOKEN_CHARS_MAX`.
    """
    algorithm, imported = _imported(key)
    header = {"alg": algorithm, "kid": public_jwk(key.public_key())["kid"], "typ": typ}
    text = json.dumps(payload, sort_keys=True, separators=(",", ":"), allow_nan=False)
    token = jws.serialize_compact(header, text, imported, registry=_Registry(algorithms=[algorithm]))
    if len(token) > TOKEN_CHARS_MAX:
        raise ValueError(f"a token has at most {TOKEN_CHARS_MAX} characters, this would have {len(token)}")
    return token


def verify(token: str, keys: Keys, *, typ: str, algorithms: Collection[str]) -> dict[str, Any]:
    """
    The claims of a token that one of these keys signed. Times and meanings are the caller's to check.

    MalformedToken (token-too-large, token-malformed) or UntrustedToken (token-algorithm, token-key-unknown,
    token-signature).
    """
    header = _header(token, typ)
    algorithm, key = header["alg"], keys.get(header["kid"])
    if algorithm not in algorithms:
        raise UntrustedToken(reasons.TOKEN_ALGORITHM, algorithm, " or ".join(sorted(algorithms)))
    if key is None:
        raise UntrustedToken(reasons.TOKEN_KEY_UNKNOWN, header["kid"], " or ".join(sorted(keys)) or "no key at all")
    if key.algorithm != algorithm:
        raise UntrustedToken(reasons.TOKEN_ALGORITHM, algorithm, key.algorithm)
    try:
        opened = jws.deserialize_compact(token, key.jwk, registry=_Registry(algorithms=[algorithm]))
    except (JoseError, ValueError) as e:
        raise UntrustedToken(reasons.TOKEN_SIGNATURE) from e
    return _object(opened.payload or b"", reasons.TOKEN_MALFORMED)


def _header(token: str, typ: str) -> dict[str, str]:
    """The header, strictly: it is read before anything is proved."""
    if len(token) > TOKEN_CHARS_MAX:
        raise MalformedToken(reasons.TOKEN_TOO_LARGE, f"{len(token)} characters", f"at most {TOKEN_CHARS_MAX}")
    if not _COMPACT.fullmatch(token):
        raise MalformedToken(reasons.TOKEN_MALFORMED, "no compact JWS", "three parts of base64url between dots")
    part = token.partition(".")[0]
    if len(part) > HEADER_CHARS_MAX:
        raise MalformedToken(reasons.TOKEN_TOO_LARGE, f"a header of {len(part)}", f"at most {HEADER_CHARS_MAX}")
    try:
        decoded = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except ValueError as e:
        raise MalformedToken(reasons.TOKEN_MALFORMED, "a header that is no base64url", "base64url") from e
    header = _object(decoded, reasons.TOKEN_MALFORMED)
    if header.keys() != _HEADER or not all(isinstance(value, str) for value in header.values()):
        raise MalformedToken(reasons.TOKEN_MALFORMED, f"header {', '.join(sorted(header))}", "header alg, kid, typ")
    if header["typ"] != typ:
        raise MalformedToken(reasons.TOKEN_MALFORMED, f"typ {header['typ']}", f"typ {typ}")
    return header


def _object(text: bytes, reason: Reason) -> dict[str, Any]:
    try:
        value = strict_json(text)
    except ValueError as e:
        raise MalformedToken(reason, str(e), "a JSON object") from e
    if not isinstance(value, dict):
        raise MalformedToken(reason, "other JSON", "a JSON object")
    return value
