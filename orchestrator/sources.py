"""
Where each kind of collateral comes from: what to ask which service, and what a good answer holds.

Services are the vendors', or an operator's mirrors with the same paths. A need's name ends up in a path or a question
only if it is of the shape that the verifiers give it; no part of an address ever comes from evidence.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from attest import ocsp
from attest.collateral import CollateralKind, Need
from attest.jws import strict_json
from attest.nvidia.nras_issuer import JWKS_PATH, NRAS_URL
from attest.nvidia.nras_keys import JWKS_BYTES_MAX
from attest.snp.certificates import CERTIFICATES_BYTES_MAX
from attest.snp.crl import CRL_BYTES_MAX
from attest.tdx.documents import DOCUMENT_BYTES_MAX as INTEL_BYTES_MAX
from attest.tdx.documents import from_response
from attest.tdx.needs import CERTIFICATES as INTEL_CERTIFICATES_URL
from attest.tdx.needs import PCS as INTEL_PCS_URL
from attest.tdx.needs import source as intel_source
from attest.xmldsig import DOCUMENT_BYTES_MAX as RIM_BYTES_MAX
from orchestrator.base_urls import Base
from orchestrator.outbound import Answer, Call


class Service(StrEnum):
    """Who has documents. The values name the settings."""

    RIM = "rim"
    OCSP = "ocsp"
    NRAS = "nras"
    INTEL_PCS = "intel-pcs"
    INTEL_CERTIFICATES = "intel-certificates"
    AMD_KDS = "amd-kds"


VENDOR_URLS: Mapping[Service, str] = {
    Service.RIM: "https://rim.attestation.nvidia.com",
    Service.OCSP: "https://ocsp.ndis.nvidia.com",
    Service.NRAS: NRAS_URL,
    Service.INTEL_PCS: INTEL_PCS_URL,
    Service.INTEL_CERTIFICATES: INTEL_CERTIFICATES_URL,
    Service.AMD_KDS: "https://kdsintf.amd.com",
}
# AMD's service turns away who asks often; a key of a chip is asked for once in its life.
PACE_SECONDS: Mapping[Service, float] = {Service.AMD_KDS: 1.0}

RIM_ANSWER_BYTES_MAX = 2 * RIM_BYTES_MAX  # base64 takes a third more, and there is a little JSON around it
INTEL_ANSWER_BYTES_MAX = INTEL_BYTES_MAX // 2  # kept as base64 or escaped text, with its issuer chain
_RIM_PATH = "/v1/rim/"

_CHIP = (
    r"[0-9a-f]{16}(?:[0-9a-f]{112})?\?(?:fmcSPL=\d{1,3}&)?blSPL=\d{1,3}&teeSPL=\d{1,3}&snpSPL=\d{1,3}&ucodeSPL=\d{1,3}"
)
_PRODUCT = r"(?:vcek|vlek)/v1/(?:Milan|Genoa|Turin)"
_NAMES: Mapping[CollateralKind, re.Pattern[str]] = {
    CollateralKind.NVIDIA_RIM: re.compile(r"NV_[A-Z0-9._]{1,250}"),
    CollateralKind.NVIDIA_OCSP: re.compile(r"[0-9a-f]{96}:[0-9a-f]{96}:[0-9a-f]{1,64}"),
    CollateralKind.NVIDIA_NRAS_JWKS: re.compile(re.escape(NRAS_URL)),  # other issuers' keys are handed in with them
    CollateralKind.INTEL_TCB_INFO: re.compile(r"[0-9A-F]{12}"),
    CollateralKind.INTEL_QE_IDENTITY: re.compile(r"TD_QE"),
    CollateralKind.INTEL_PCK_CRL: re.compile(r"platform|processor"),
    CollateralKind.INTEL_ROOT_CRL: re.compile(r"IntelSGXRootCA"),
    CollateralKind.AMD_VCEK: re.compile(rf"vcek/v1/(?:Milan|Genoa|Turin)/{_CHIP}"),
    CollateralKind.AMD_ISSUERS: re.compile(rf"{_PRODUCT}/cert_chain"),
    CollateralKind.AMD_CRL: re.compile(rf"{_PRODUCT}/crl"),
}


class NotTheDocument(Exception):
    """The service answered something else than what was asked for. The message says what."""


@dataclass(frozen=True, slots=True)
class Sources:
    """The services as the operator configured them. One that is absent is never asked."""

    bases: Mapping[Service, Base]

    @classmethod
    def of(cls, urls: Mapping[Service, str]) -> Sources:
        """Of base URLs, the vendors' where none is given. ValueError says which one is none."""
        urls = {**VENDOR_URLS, **urls}
        return cls({each: Base.parse(url, pace_seconds=_pace(each, url)) for each, url in urls.items()})

    def call(self, need: Need, *, etag: str = "") -> Call | None:
        """How to ask for a document; `etag`: only if it is another than that. None: nobody has documents so named."""
        shape = _NAMES.get(need.kind)
        if shape is None or not shape.fullmatch(need.name):
            return None
        asked = _ASKED[need.kind](need)
        base = self.bases.get(asked.service)
        if base is None:
            return None
        headers = dict(asked.headers)
        if etag and asked.method == "GET":
            headers["if-none-match"] = etag
        return Call(base, asked.path, asked.bytes_max, asked.method, headers, asked.body)


def document_of(need: Need, answer: Answer) -> bytes:
    """The document in an answer, in the form that attest reads. NotTheDocument if the answer is about another one."""
    if need.kind == CollateralKind.NVIDIA_RIM:
        return _rim_of(need, answer.body)
    where = intel_source(need)
    if where is None:
        return answer.body
    chain = answer.headers.get(where.chain_header.lower(), "")
    if where.chain_header and not chain:
        raise NotTheDocument(f"no header {where.chain_header}")
    try:
        return from_response(need, answer.body, chain).data
    except ValueError as e:
        raise NotTheDocument(str(e)) from e


def _rim_of(need: Need, body: bytes) -> bytes:
    """NVIDIA's service wraps it: id, base64, SHA-256 (spec/nvidia.md §9.2). The digest guards the transport only."""
    try:
        fields = strict_json(body)
        if not isinstance(fields, dict):
            raise TypeError("no object")
        found, text, digest = (str(fields[name]) for name in ("id", "rim", "sha256"))
        document = base64.b64decode(text, validate=True)
    except (ValueError, KeyError, TypeError, binascii.Error) as e:
        raise NotTheDocument(f"no answer of a RIM service: {type(e).__name__} {e}") from e
    if found != need.name:
        raise NotTheDocument(f"RIM {found!r} instead of {need.name}")
    if not hmac.compare_digest(hashlib.sha256(document).hexdigest().encode(), digest.lower().encode()):
        raise NotTheDocument("a RIM whose SHA-256 is another than the service says")
    return document


# --- what is asked ----------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class _Asked:
    service: Service
    path: str
    bytes_max: int
    method: str = "GET"
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


def _rim(need: Need) -> _Asked:
    return _Asked(Service.RIM, _RIM_PATH + need.name, RIM_ANSWER_BYTES_MAX, headers=(("accept", "application/json"),))


def _ocsp(need: Need) -> _Asked:
    """Without a nonce, so that one answer serves the whole fleet until it runs out (spec/nvidia.md §8.5)."""
    headers = ("content-type", "application/ocsp-request"), ("accept", "application/ocsp-response")
    return _Asked(Service.OCSP, "/", ocsp.RESPONSE_BYTES_MAX, "POST", headers, ocsp.request(need.name))


def _jwks(_need: Need) -> _Asked:
    return _Asked(Service.NRAS, JWKS_PATH, JWKS_BYTES_MAX, headers=(("accept", "application/json"),))


def _intel(need: Need) -> _Asked:
    where = intel_source(need)
    if where is None:
        raise ValueError(f"{need} is not Intel's to give")
    service = Service.INTEL_CERTIFICATES if where.base == INTEL_CERTIFICATES_URL else Service.INTEL_PCS
    return _Asked(service, where.path, INTEL_ANSWER_BYTES_MAX)


def _amd(bytes_max: int) -> Callable[[Need], _Asked]:
    return lambda need: _Asked(Service.AMD_KDS, f"/{need.name}", bytes_max)


_ASKED: Mapping[CollateralKind, Callable[[Need], _Asked]] = {
    CollateralKind.NVIDIA_RIM: _rim,
    CollateralKind.NVIDIA_OCSP: _ocsp,
    CollateralKind.NVIDIA_NRAS_JWKS: _jwks,
    CollateralKind.INTEL_TCB_INFO: _intel,
    CollateralKind.INTEL_QE_IDENTITY: _intel,
    CollateralKind.INTEL_PCK_CRL: _intel,
    CollateralKind.INTEL_ROOT_CRL: _intel,
    CollateralKind.AMD_VCEK: _amd(CERTIFICATES_BYTES_MAX),
    CollateralKind.AMD_ISSUERS: _amd(CERTIFICATES_BYTES_MAX),
    CollateralKind.AMD_CRL: _amd(CRL_BYTES_MAX),
}


def _pace(service: Service, url: str) -> float:
    """Only the vendor needs sparing; how much his mirror bears, the operator knows."""
    return PACE_SECONDS.get(service, 0.0) if url == VENDOR_URLS[service] else 0.0
