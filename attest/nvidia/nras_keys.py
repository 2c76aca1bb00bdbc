"""
The keys of an NRAS issuer: a JWKS of EC keys, each with a certificate (`x5c`) that says when it is used.

The certificate is not what makes a key the issuer's (see `nras_issuer`); it retires the key: a token of an old key can
only have been issued while that key was in use, and those tokens have run out. Shapes: spec/nvidia.md §12.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cryptography import x509

from attest.anchors import UNREADABLE, spki_of
from attest.collateral import Document
from attest.errors import UntrustedCollateral
from attest.jws import JwsError, Key, read_key, strict_json
from attest.memo import Memo
from attest.reasons.nras import NRAS_JWKS_MALFORMED, NRAS_KEY_UNKNOWN

JWKS_BYTES_MAX = 1 << 20
KEYS_MAX = 256  # seen: 32 to 36


@dataclass(frozen=True, slots=True)
class IssuerKey:
    """One key of an issuer, which signs from `not_before` on until `not_after`."""

    key: Key
    not_before: datetime
    not_after: datetime


KnownKeys = Memo[IssuerKey]


def key_named(kid: str, document: Document, *, known: KnownKeys) -> IssuerKey:
    """The key of that name in a JWKS. UntrustedCollateral if there is none, or the document is not what it must be."""
    name = document.sha256, kid
    return known.get(name) or known.put(name, _key_named(kid, document))


def _key_named(kid: str, document: Document) -> IssuerKey:
    named = [jwk for jwk in _keys(document) if jwk["kid"] == kid]
    if not named:
        raise UntrustedCollateral(NRAS_KEY_UNKNOWN, kid, "a key of the issuer's")
    if len(named) != 1:
        raise UntrustedCollateral(NRAS_JWKS_MALFORMED, f"key {kid} {len(named)} times", "each key once")
    try:
        key = read_key(named[0])
        certificate = x509.load_der_x509_certificate(_x5c(named[0]))
        if spki_of(certificate.public_key()) != spki_of(key.public):
            raise ValueError("a certificate of another key")
        return IssuerKey(key, certificate.not_valid_before_utc, certificate.not_valid_after_utc)
    except JwsError as e:
        raise UntrustedCollateral(NRAS_JWKS_MALFORMED, e.found, e.wanted) from e
    except UNREADABLE as e:
        raise UntrustedCollateral(NRAS_JWKS_MALFORMED, f"key {kid}: {e}", "a P-384 key with its certificate") from e


def _keys(document: Document) -> list[Mapping[str, Any]]:
    if len(document.data) > JWKS_BYTES_MAX:
        raise UntrustedCollateral(NRAS_JWKS_MALFORMED, f"{len(document.data)} bytes", f"at most {JWKS_BYTES_MAX}")
    try:
        jwks = strict_json(document.data)
    except ValueError as e:
        raise UntrustedCollateral(NRAS_JWKS_MALFORMED, f"no JSON: {e}", "a JWKS") from e
    keys = jwks.get("keys") if isinstance(jwks, dict) else None
    if not isinstance(keys, list) or not 1 <= len(keys) <= KEYS_MAX:
        raise UntrustedCollateral(NRAS_JWKS_MALFORMED, "no list of keys", f'{{"keys": […]}} with 1 to {KEYS_MAX}')
    if not all(isinstance(jwk, dict) and isinstance(jwk.get("kid"), str) for jwk in keys):
        raise UntrustedCollateral(NRAS_JWKS_MALFORMED, "a key without a name", "a kid for each")
    return keys


def _x5c(jwk: Mapping[str, Any]) -> bytes:
    """The first certificate, DER: base64 with padding (RFC 7517 §4.7). ValueError if there is none."""
    chain = jwk.get("x5c")
    if not isinstance(chain, list) or not chain or not isinstance(chain[0], str):
        raise ValueError("no certificate beside it")
    try:
        return base64.b64decode(chain[0], validate=True)
    except binascii.Error as e:
        raise ValueError("a certificate that is no base64") from e
