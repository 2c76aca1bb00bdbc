"""
The bytes of Intel's documents as we keep them: what Intel's service answered, with the issuer chain of its header.

    TCB info, QE identity   {"body": TEXT, "issuer_chain": PEM}     TEXT is the JSON that Intel answered, byte by byte
    PCK CRL                 {"body": BASE64, "issuer_chain": PEM}   of the list, DER
    root CRL                the list, DER; its issuer is the root

What is signed is the text of the object inside TEXT, so it is cut out, never decoded and encoded again. `split` reads
the bundle that PCCS clients exchange (dcap-qvl's QuoteCollateralV3, JSON). Its `pck_certificate_chain` is dropped: it
is one machine's, and would stand in for the chain of every other.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from attest.collateral import Document, Need
from attest.errors import UntrustedCollateral
from attest.reasons.tdx import TDX_COLLATERAL_MALFORMED, TDX_COLLATERAL_OTHER
from attest.tdx.needs import CAS, INTEL_PCK_CRL, INTEL_QE_IDENTITY, INTEL_ROOT_CRL, INTEL_TCB_INFO, Needs
from attest.tdx.roots import Root
from attest.x509 import UNREADABLE

DOCUMENT_BYTES_MAX = 4 << 20  # revocation lists grow; the largest one seen has some hundred KiB
BUNDLE_BYTES_MAX = 8 << 20
CHAIN_CHARS_MAX = 32 << 10
HEX_WRAPPINGS_MAX = 2
_SIGNATURE = rb'\s*,\s*"signature"\s*:\s*"([0-9a-fA-F]{128})"\s*\}\s*'
_BODIES = {
    INTEL_TCB_INFO: re.compile(rb'\s*\{\s*"tcbInfo"\s*:\s*(\{.*\})' + _SIGNATURE, re.DOTALL),
    INTEL_QE_IDENTITY: re.compile(rb'\s*\{\s*"enclaveIdentity"\s*:\s*(\{.*\})' + _SIGNATURE, re.DOTALL),
}
_HEX = re.compile(rb"[0-9a-fA-F]+")


@dataclass(frozen=True, slots=True)
class Signed:
    """A JSON text that Intel signed: the very text, r || s of 64 bytes, the issuer chain as PEM, and what it says."""

    text: str
    signature: bytes
    chain: str
    says: dict[str, Any]


@dataclass(frozen=True, slots=True)
class RevocationList:
    """A CRL, DER, and its issuer chain as PEM; empty for the root's."""

    der: bytes
    chain: str


def from_response(need: Need, body: bytes, issuer_chain: str) -> Document:
    """A document of what Intel's service answered. `issuer_chain` is the header's value, still URL-encoded; or PEM."""
    if need.kind == INTEL_ROOT_CRL:
        return Document.of(_unhexed(body))
    text = _base64(_unhexed(body)) if need.kind == INTEL_PCK_CRL else body.decode("utf-8", "surrogateescape")
    return _wrapped(text, unquote(issuer_chain))


def signed(document: Document, need: Need) -> Signed:
    """TCB info or QE identity. UntrustedCollateral if it does not parse."""
    body, chain = _unwrapped(document, need)
    try:
        match = _BODIES[need.kind].fullmatch(body.encode())
        if match is None:
            raise ValueError("not the object, and its signature after it")
        return Signed(match[1].decode(), bytes.fromhex(match[2].decode()), chain, json.loads(match[1]))
    except (ValueError, RecursionError) as e:
        raise _malformed(need, str(e)) from e


def revocation_list(document: Document, need: Need) -> RevocationList:
    """A CRL. UntrustedCollateral if it does not parse."""
    if need.kind == INTEL_ROOT_CRL:
        _bounded(document, need)
        return RevocationList(document.data, "")
    body, chain = _unwrapped(document, need)
    try:
        return RevocationList(base64.b64decode(body, validate=True), chain)
    except (binascii.Error, ValueError) as e:
        raise _malformed(need, "no base64") from e


def split(bundle: bytes) -> dict[Need, Document]:
    """
    The documents in a bundle (QuoteCollateralV3 as JSON), each under the need that it answers by what it says.

    Nothing of it is believed; that is the verifier's. UntrustedCollateral if it is no such bundle.
    """
    if len(bundle) > BUNDLE_BYTES_MAX:
        raise UntrustedCollateral(TDX_COLLATERAL_MALFORMED, f"{len(bundle)} bytes", f"at most {BUNDLE_BYTES_MAX}")
    try:
        fields = json.loads(bundle)
        fmspc = json.loads(fields["tcb_info"])["fmspc"].upper()
        pck_crl = _unhexed(bytes.fromhex(fields["pck_crl"]))
        root_crl = _unhexed(bytes.fromhex(fields["root_ca_crl"]))
        needs = Needs.of(fmspc, _ca_of(pck_crl), _root_of(fields["tcb_info_issuer_chain"]))
        tcb_info = f'{{"tcbInfo":{fields["tcb_info"]},"signature":"{fields["tcb_info_signature"]}"}}'
        identity = f'{{"enclaveIdentity":{fields["qe_identity"]},"signature":"{fields["qe_identity_signature"]}"}}'
        return {
            needs.tcb_info: _wrapped(tcb_info, fields["tcb_info_issuer_chain"]),
            needs.qe_identity: _wrapped(identity, fields["qe_identity_issuer_chain"]),
            needs.pck_crl: _wrapped(_base64(pck_crl), fields["pck_crl_issuer_chain"]),
            needs.root_crl: Document.of(root_crl),
        }
    except (*UNREADABLE, KeyError, AttributeError, IndexError, RecursionError) as e:
        found = f"{type(e).__name__} {e}"
        raise UntrustedCollateral(TDX_COLLATERAL_MALFORMED, found, "a QuoteCollateralV3 as JSON") from e


def _ca_of(crl: bytes) -> str:
    issuer = x509.load_der_x509_crl(crl).issuer.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value
    return CAS[str(issuer)]


def _root_of(chain: str) -> Root:
    last = x509.load_pem_x509_certificates(chain.encode())[-1]
    return Root(hashlib.sha256(last.public_bytes(Encoding.DER)).hexdigest())


def _wrapped(body: str, chain: str) -> Document:
    return Document.of(json.dumps({"body": body, "issuer_chain": chain}, separators=(",", ":")).encode())


def _unwrapped(document: Document, need: Need) -> tuple[str, str]:
    _bounded(document, need)
    try:
        wrapper = json.loads(document.data)
        body, chain = wrapper["body"], wrapper["issuer_chain"]
        if not isinstance(body, str) or not isinstance(chain, str) or len(chain) > CHAIN_CHARS_MAX:
            raise TypeError("body and issuer chain are no texts")
        body.encode(), chain.encode()  # no lone surrogates
    except (ValueError, KeyError, TypeError, RecursionError) as e:
        raise _malformed(need, f"{type(e).__name__} {e}") from e
    return body, chain


def _bounded(document: Document, need: Need) -> None:
    if len(document.data) > DOCUMENT_BYTES_MAX:
        raise UntrustedCollateral(
            TDX_COLLATERAL_MALFORMED, f"{need}: {len(document.data)} bytes", f"at most {DOCUMENT_BYTES_MAX}"
        )


def _unhexed(data: bytes) -> bytes:
    """Some caching services give a list as hex text, or as hex of hex. DER of a list is never all hex digits."""
    for _ in range(HEX_WRAPPINGS_MAX):
        text = data.strip()
        if not _HEX.fullmatch(text) or len(text) % 2:
            break
        data = bytes.fromhex(text.decode())
    return data


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _malformed(need: Need, found: str) -> UntrustedCollateral:
    return UntrustedCollateral(TDX_COLLATERAL_MALFORMED, f"{need}: {found}", "the form that attest keeps it in")


def other(need: Need, found: str, wanted: str) -> UntrustedCollateral:
    """The document answers another need than the one it was filed under."""
    return UntrustedCollateral(TDX_COLLATERAL_OTHER, f"{need}: {found}", wanted)
