"""
Wallets: the identities of admins, owners and subscribers, and what they sign.

    messages     ADR-036 over canonical JSON of {domain, message, expires, id}: what admins and owners ask for
    GetWorkers   ECDSA over the subscriber's own public key, as the deployed contract has it, or over our challenge

Exactly the bytes received are verified; only then are they parsed. Formats of addresses and documents: `amino`.
"""

from __future__ import annotations

import base64
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import rfc8785
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from attest import keyfiles
from orchestrator import reasons
from orchestrator.amino import (
    KEY_TYPE,
    ORDER,
    PUBLIC_KEY_BYTES,
    SIGNATURE_BYTES,
    StdSignature,
    address_of,
    adr36_sign_bytes,
    parse_address,
    verify_adr36,
    verify_digest_of,
)
from orchestrator.reasons import Refused

__all__ = [
    "LIFETIME_MAX",
    "MESSAGE_BYTES_MAX",
    "Opened",
    "Wallet",
    "address_of",
    "challenged_message",
    "new_id",
    "open_signed",
    "parse_address",
    "verify_challenged",
    "verify_get_workers",
]

MESSAGE_BYTES_MAX = 2 << 20  # evidence of a whole node travels inside
MESSAGE_DEPTH_MAX = 16
MESSAGE_VALUES_MAX = 20_000
LIFETIME_MAX = timedelta(hours=1)

_MESSAGE_ID = re.compile(r"[A-Za-z0-9_-]{16,64}")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?Z")


# --- GetWorkers -------------------------------------------------------------------------------------------------------
def verify_get_workers(subscriber_public_key: str, signature: str) -> None:
    """
    The deployed form of a subscriber's signature, both in lower hex: it signs its own public key, 33 bytes.

    It carries no nonce and no time, so whoever saw it once can use it for ever. Refused: signature-missing,
    field-invalid, signature-invalid.
    """
    std = _from_hex(subscriber_public_key, signature)
    verify_digest_of(std.public_key, std)


def verify_challenged(subscriber_public_key: str, signature: str, *, challenge: str, domain: str) -> None:
    """Our form of the same: the signature answers a challenge of ours. Refused as in `verify_get_workers`."""
    std = _from_hex(subscriber_public_key, signature)
    verify_digest_of(challenged_message(subscriber_public_key, challenge=challenge, domain=domain), std)


def challenged_message(subscriber_public_key: str, *, challenge: str, domain: str) -> bytes:
    """What a subscriber signs to answer a challenge: canonical JSON (RFC 8785). Key and challenge in lower hex."""
    return rfc8785.dumps(
        {
            "challenge": challenge,
            "domain": domain,
            "purpose": "get_workers",
            "subscriber_public_key": subscriber_public_key,
        }
    )


# --- messages ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Opened:
    """A message whose signature held. Whether its `id` was spent before and what the signer may, others decide."""

    signer: str  # wallet address
    id: str  # 16 to 64 characters of A-Z a-z 0-9 _ -, to be spent once and remembered until `expires`
    expires: datetime
    message: Mapping[str, Any]


def open_signed(signed: Mapping[str, Any], *, domain: str, now: datetime) -> Opened:
    """
    Open `{"data", "pub_key", "signature"}`: ADR-036 over `data`, canonical JSON of {domain, message, expires, id}.

    Wallets add members of their own, `signer` for one: they are not looked at. Refused: signature-missing,
    signature-invalid, signature-expired, domain-mismatch, body-too-large, request-malformed, field-invalid.
    """
    if not isinstance(signed, Mapping):
        raise Refused(reasons.REQUEST_MALFORMED, want="an object of data, pub_key and signature")
    data = _bytes_of(signed.get("data"))
    std = StdSignature.from_wire(signed)
    signer = address_of(std.public_key)
    verify_adr36(data, signer, std)

    content = _parse_canonical(data)
    if not isinstance(content, dict) or content.keys() != {"domain", "message", "expires", "id"}:
        raise Refused(reasons.REQUEST_MALFORMED, "data", want="domain, message, expires and id")
    if content["domain"] != domain:
        raise Refused(reasons.DOMAIN_MISMATCH, "domain", got=str(content["domain"]), want=domain)
    expires = _check_expiry(content["expires"], now)
    message_id, message = content["id"], content["message"]
    if not isinstance(message_id, str) or not _MESSAGE_ID.fullmatch(message_id):
        raise Refused(reasons.FIELD_INVALID, "id", got=str(message_id), want="16 to 64 characters of A-Z a-z 0-9 _ -")
    if not isinstance(message, dict):
        raise Refused(reasons.FIELD_INVALID, "message", want="an object")
    return Opened(signer, message_id, expires, message)


def new_id() -> str:
    """A fresh id for a message, 128 random bits."""
    return secrets.token_hex(16)


def _bytes_of(data: object) -> bytes:
    if not isinstance(data, str):
        raise Refused(reasons.REQUEST_MALFORMED, "data", want="the text that was signed")
    if len(data) > MESSAGE_BYTES_MAX:
        raise _too_large()
    try:
        encoded = data.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        raise Refused(reasons.REQUEST_MALFORMED, "data", want="Unicode text") from None
    if len(encoded) > MESSAGE_BYTES_MAX:
        raise _too_large()
    return encoded


def _too_large() -> Refused:
    return Refused(reasons.BODY_TOO_LARGE, "data", want=f"at most {MESSAGE_BYTES_MAX} bytes")


def _parse_canonical(data: bytes) -> Any:
    """JSON, if these are its only bytes (RFC 8785): so no duplicate keys, no spaces, no second spelling."""
    try:
        content = json.loads(data)
        _check_size(content)
        canonical = rfc8785.dumps(content) == data
    except (ValueError, RecursionError):
        canonical = False
    if not canonical:
        raise Refused(reasons.REQUEST_MALFORMED, "data", want="canonical JSON (RFC 8785)")
    return content


def _check_size(content: object) -> None:
    """Writing JSON again is slow and recursive: bound both before. ValueError beyond the bounds."""
    level, seen = [content], 0
    for _ in range(MESSAGE_DEPTH_MAX):
        inner: list[object] = []
        for value in level:
            if isinstance(value, dict):
                inner += value.values()
            elif isinstance(value, list):
                inner += value
        seen += len(inner)
        if not inner:
            return
        if seen > MESSAGE_VALUES_MAX:
            raise ValueError("too many values")
        level = inner
    raise ValueError("nested too deeply")


def _check_expiry(text: object, now: datetime) -> datetime:
    want = "a time as 2026-01-31T23:59:59Z"
    if not isinstance(text, str) or not _TIME.fullmatch(text):
        raise Refused(reasons.FIELD_INVALID, "expires", got=str(text), want=want)
    try:
        expires = datetime.fromisoformat(text)
    except ValueError:
        raise Refused(reasons.FIELD_INVALID, "expires", got=text, want=want) from None
    if expires <= now:
        raise Refused(reasons.SIGNATURE_EXPIRED, "expires", got=text, want=f"later than {now.isoformat()}")
    if expires - now > LIFETIME_MAX:
        raise Refused(reasons.FIELD_INVALID, "expires", got=text, want=f"at most {LIFETIME_MAX} ahead")
    return expires


# --- the signing side -------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True, eq=False)
class Wallet:
    """A secp256k1 private key: what admins, owners and subscribers sign with. It is never shown."""

    _key: ec.EllipticCurvePrivateKey = field(repr=False)

    @classmethod
    def generate(cls) -> Wallet:
        """A new random wallet."""
        return cls(ec.generate_private_key(ec.SECP256K1()))

    @classmethod
    def load(cls, path: Path) -> Wallet:
        """Read a wallet from a file that only its owner can read. Raises `keyfiles.KeyFileError`."""
        return cls(keyfiles.load(path, ec.SECP256K1))

    def save(self, path: Path) -> None:
        """Write the wallet to a new file, mode 0600. Raises `keyfiles.KeyFileError`."""
        keyfiles.save(self._key, path)

    @property
    def public_key(self) -> bytes:
        """The compressed point, 33 bytes."""
        return self._key.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)

    @property
    def public_hex(self) -> str:
        """The compressed point in lower hex, as subscribers are registered."""
        return self.public_key.hex()

    @property
    def address(self) -> str:
        """The `secret1…` address."""
        return address_of(self.public_key)

    def sign(self, data: bytes) -> bytes:
        """ECDSA over SHA-256 of data, 64 bytes r‖s with low S."""
        r, s = decode_dss_signature(self._key.sign(data, ec.ECDSA(SHA256())))
        return r.to_bytes(32, "big") + min(s, ORDER - s).to_bytes(32, "big")

    def sign_message(
        self, message: Mapping[str, Any], *, domain: str, expires: datetime, message_id: str
    ) -> dict[str, Any]:
        """A message that `open_signed` opens. `expires` is cut to whole seconds."""
        until = expires.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        data = rfc8785.dumps({"domain": domain, "message": dict(message), "expires": until, "id": message_id})
        signature = self.sign(adr36_sign_bytes(data, self.address))
        return {
            "data": data.decode(),
            "pub_key": {"type": KEY_TYPE, "value": base64.b64encode(self.public_key).decode()},
            "signature": base64.b64encode(signature).decode(),
        }

    def get_workers_signature(self) -> str:
        """The deployed form, lower hex, for `verify_get_workers`."""
        return self.sign(self.public_key).hex()

    def challenged_signature(self, *, challenge: str, domain: str) -> str:
        """The challenged form, lower hex, for `verify_challenged`."""
        return self.sign(challenged_message(self.public_hex, challenge=challenge, domain=domain)).hex()

    def __repr__(self) -> str:
        return f"Wallet({self.address})"


# --- encodings --------------------------------------------------------------------------------------------------------
def _from_hex(public_key: str, signature: str) -> StdSignature:
    if not public_key or not signature:
        raise Refused(reasons.SIGNATURE_MISSING, want="signature and subscriber_public_key")
    return StdSignature(
        _lower_hex(public_key, PUBLIC_KEY_BYTES, "subscriber_public_key"),
        _lower_hex(signature, SIGNATURE_BYTES, "signature"),
    )


def _lower_hex(text: str, length: int, name: str) -> bytes:
    if not re.fullmatch(f"[0-9a-f]{{{2 * length}}}", text):
        # Not quoted: a GetWorkers signature is good for ever, and refusals end up in logs.
        raise Refused(reasons.FIELD_INVALID, name, want=f"{2 * length} characters of lower hex, no 0x")
    return bytes.fromhex(text)
