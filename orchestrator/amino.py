"""
What Cosmos wallets are and sign: bech32 addresses, and amino documents.

    ADR-036      `signArbitrary` of Keplr and secretcli, over data
    SNIP-24      query permits
    amino        any StdSignDoc, as `secretcli tx sign-doc` signs it

All are ECDSA on secp256k1 over SHA-256 of a JSON document, 64 bytes r‖s with low S.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from orchestrator import bech32, reasons
from orchestrator.reasons import Refused

PREFIX = "secret"
KEY_TYPE = "tendermint/PubKeySecp256k1"
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141  # of secp256k1 (SEC 2, 2.4.1)
PUBLIC_KEY_BYTES = 33
SIGNATURE_BYTES = 64
_PAYLOAD_BYTES = 20
# cosmjs and Go write these three as escapes inside signed JSON.
_ESCAPES = str.maketrans({"&": "\\u0026", "<": "\\u003c", ">": "\\u003e"})
_PERMIT_PARAMS = {"allowed_tokens", "chain_id", "permissions", "permit_name"}


class NoRipemd160(RuntimeError):
    """This Python cannot make wallet addresses. The message says what to do."""


# --- addresses --------------------------------------------------------------------------------------------------------
def address_of(public_key: bytes, prefix: str = PREFIX) -> str:
    """The wallet address of a compressed secp256k1 key: bech32 of RIPEMD-160 of SHA-256 of its 33 bytes."""
    try:
        ripemd160 = hashlib.new("ripemd160", hashlib.sha256(public_key).digest(), usedforsecurity=False)
    except ValueError:
        raise NoRipemd160(
            "The OpenSSL of this Python offers no RIPEMD-160, which wallet addresses are made with: use OpenSSL 3.0.7 "
            "or newer without FIPS-only mode, or enable its legacy provider"
        ) from None
    return bech32.encode(prefix, ripemd160.digest())


def parse_address(text: str, prefix: str = PREFIX) -> str:
    """The address itself, once its prefix, checksum and length are right. Refused: wallet-malformed."""
    try:
        found, payload = bech32.decode(text)
    except ValueError as e:
        raise Refused(reasons.WALLET_MALFORMED, got=text, want=str(e)) from None
    if found != prefix or len(payload) != _PAYLOAD_BYTES:
        raise Refused(reasons.WALLET_MALFORMED, got=text, want=f"{prefix}1… of {_PAYLOAD_BYTES} bytes")
    return text


# --- signatures, as wallets make them ---------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class StdSignature:
    """What Keplr and secretcli return: a compressed public key, 33 bytes, and r‖s, 64 bytes."""

    public_key: bytes
    signature: bytes

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> StdSignature:
        """Read `{"pub_key": {"type", "value"}, "signature"}`. Refused: signature-missing, request-malformed."""
        if not wire.get("pub_key") or not wire.get("signature"):
            raise Refused(reasons.SIGNATURE_MISSING, want="pub_key and signature")
        key = wire["pub_key"]
        if not isinstance(key, Mapping) or key.keys() != {"type", "value"} or key["type"] != KEY_TYPE:
            raise Refused(reasons.REQUEST_MALFORMED, "pub_key", want=f"type {KEY_TYPE}, and value")
        return cls(
            _base64(key["value"], PUBLIC_KEY_BYTES, "pub_key.value"),
            _base64(wire["signature"], SIGNATURE_BYTES, "signature"),
        )


def verify_digest_of(signed: bytes, std: StdSignature) -> None:
    """ECDSA on secp256k1 over SHA-256 of these bytes. Refused: signature-invalid."""
    s = int.from_bytes(std.signature[32:], "big")
    if len(std.signature) != SIGNATURE_BYTES or s > ORDER // 2:
        raise Refused(reasons.SIGNATURE_INVALID, "signature", want=f"{SIGNATURE_BYTES} bytes, r and a low s")
    if len(std.public_key) != PUBLIC_KEY_BYTES:
        raise Refused(reasons.SIGNATURE_INVALID, "pub_key", want=f"{PUBLIC_KEY_BYTES} bytes, a compressed point")
    try:
        key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256K1(), std.public_key)
    except ValueError:
        raise Refused(reasons.SIGNATURE_INVALID, "pub_key", want="a point of secp256k1") from None
    try:
        r = int.from_bytes(std.signature[:32], "big")
        key.verify(encode_dss_signature(r, s), signed, ec.ECDSA(SHA256()))
    except InvalidSignature:
        raise Refused(reasons.SIGNATURE_INVALID) from None


def amino_sign_bytes(doc: Mapping[str, Any]) -> bytes:
    """The bytes that are signed for a StdSignDoc: keys sorted, no spaces, & < > escaped. Refused: request-malformed."""
    try:
        text = json.dumps(doc, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        sign_bytes = text.translate(_ESCAPES).encode()
    except (ValueError, TypeError, RecursionError):
        raise Refused(reasons.REQUEST_MALFORMED, want="a StdSignDoc") from None
    return sign_bytes


def verify_amino(doc: Mapping[str, Any], std: StdSignature, prefix: str = PREFIX) -> str:
    """Who signed this StdSignDoc. Whether the document names them, the caller knows. Refused: signature-invalid."""
    verify_digest_of(amino_sign_bytes(doc), std)
    return address_of(std.public_key, prefix)


def adr36_sign_bytes(data: bytes, signer: str) -> bytes:
    """What a wallet signs when asked to sign arbitrary data (ADR-036): a transaction that no chain takes."""
    return _zero_doc(
        chain_id="",
        fee={"amount": [], "gas": "0"},
        msg={"type": "sign/MsgSignData", "value": {"data": base64.b64encode(data).decode(), "signer": signer}},
    )


def verify_adr36(data: bytes, signer: str, std: StdSignature) -> None:
    """That `signer` signed exactly this data. Refused: wallet-malformed, signature-invalid."""
    prefix = signer.rpartition("1")[0]
    if parse_address(signer, prefix) != address_of(std.public_key, prefix):
        raise Refused(reasons.SIGNATURE_INVALID, "pub_key", want=f"the key of {signer}")
    verify_digest_of(adr36_sign_bytes(data, signer), std)


def permit_sign_bytes(params: Mapping[str, Any]) -> bytes:
    """What a wallet signs for a permit (SNIP-24). `params`: allowed_tokens, chain_id, permissions, permit_name."""
    return _zero_doc(
        chain_id=params["chain_id"],
        fee={"amount": [{"amount": "0", "denom": "uscrt"}], "gas": "1"},
        msg={
            "type": "query_permit",
            "value": {name: params[name] for name in ("allowed_tokens", "permissions", "permit_name")},
        },
    )


def verify_permit(permit: Mapping[str, Any]) -> str:
    """Who gave this permit, `{"params", "signature"}`. Refused: request-malformed, signature-missing or -invalid."""
    params, signature = permit.get("params"), permit.get("signature")
    if not isinstance(params, Mapping) or params.keys() != _PERMIT_PARAMS:
        raise Refused(reasons.REQUEST_MALFORMED, "params", want="a SNIP-24 permit")
    texts = [params["chain_id"], params["permit_name"]]
    for name in ("allowed_tokens", "permissions"):
        if not isinstance(params[name], list):
            raise Refused(reasons.REQUEST_MALFORMED, f"params.{name}", want="a list of strings")
        texts += params[name]
    if not all(isinstance(text, str) for text in texts):
        raise Refused(reasons.REQUEST_MALFORMED, "params", want="strings")
    if not isinstance(signature, Mapping):
        raise Refused(reasons.SIGNATURE_MISSING, "signature")
    std = StdSignature.from_wire(signature)
    verify_digest_of(permit_sign_bytes(params), std)
    return address_of(std.public_key)


def _zero_doc(chain_id: str, fee: dict[str, Any], msg: dict[str, Any]) -> bytes:
    doc = {"account_number": "0", "chain_id": chain_id, "fee": fee, "memo": "", "msgs": [msg], "sequence": "0"}
    return amino_sign_bytes(doc)


def _base64(text: object, length: int, name: str) -> bytes:
    """Standard base64, padded, in its one spelling."""
    try:
        raw = base64.b64decode(text, validate=True) if isinstance(text, str) else b""
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != length or base64.b64encode(raw).decode() != text:
        raise Refused(reasons.SIGNATURE_INVALID, name, want=f"base64 of {length} bytes")
    return raw
