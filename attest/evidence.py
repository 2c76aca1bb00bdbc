"""
Evidence: what a node says about itself, before anyone believes it.

Values and their wire form; no crypto, no I/O. `attest.containers` reads the other forms that are met in the wild.
"""

from __future__ import annotations

import hashlib
import json
from binascii import b2a_base64
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NewType

Nonce = NewType("Nonce", bytes)

FORMAT = "workermanager/evidence-v1"
NONCE_BYTES = 32
BUNDLE_BYTES_MAX = 1 << 20
DEVICES_MAX = 32
PAYLOAD_BYTES_MAX = 64 << 10
CERTIFICATES_BYTES_MAX = 32 << 10
LOG_BYTES_MAX = 512 << 10

NVIDIA = "nvidia"  # SPDM reports of NVIDIA GPUs and switches; which of them, the certificates say
NVIDIA_NRAS = "nvidia-nras"  # tokens of NVIDIA's remote verifier about one device
INTEL_TDX = "intel-tdx"
AMD_SNP = "amd-snp"


@dataclass(frozen=True, slots=True)
class Evidence:
    """One device's signed report, and the certificates it handed over with it."""

    kind: str  # which verifier reads it
    payload: bytes  # the very bytes the device signed, or a token about it; never decoded and encoded again
    certificates: bytes = b""  # PEM (SEV-SNP: or DER), device-supplied, untrusted until chained to a pinned root
    log: bytes = b""  # of a TDX guest: the events that its registers were extended by

    def __hash__(self) -> int:  # payloads answer nonces, so they differ
        return hash(self.payload)


Bundle = tuple[Evidence, ...]


def dumps(bundle: Bundle) -> bytes:
    """Our own wire form: canonical JSON (RFC 8785), so that equal bundles are equal bytes."""
    return b"".join(_pieces(bundle))


def digest(bundle: Bundle) -> str:
    """SHA-256 of the wire form, lower hex: the name of this evidence in verdicts and logs."""
    found = hashlib.sha256()
    for piece in _pieces(bundle):
        found.update(piece)
    return found.hexdigest()


def _pieces(bundle: Bundle) -> Iterator[bytes]:
    """
    The wire form, piece by piece. Names in their order, and values that need no escape, are canonical as they stand: a
    library for it would take longer than all else about a verdict but the signature.
    """
    before = b'{"evidence":['
    for evidence in bundle:
        yield b'%b{"certificates":"' % before
        yield b2a_base64(evidence.certificates, newline=False)
        log = b'"log":"%b",' % b2a_base64(evidence.log, newline=False) if evidence.log else b""
        yield b'","kind":%b,%b"payload":"' % (_quoted(evidence.kind), log)
        yield b2a_base64(evidence.payload, newline=False)
        before = b'"},'
    yield (b'"}' if bundle else before) + b'],"format":"%b"}' % FORMAT.encode()


@lru_cache(maxsize=64)
def _quoted(kind: str) -> bytes:
    return json.dumps(kind, ensure_ascii=False).encode()
