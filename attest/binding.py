"""
What a nonce commits to: profile `workermanager/v1`.

A bare nonce ties evidence to a moment, not to a machine, an address or a key. Our agents therefore answer a challenge
with a statement of who they are, and ask their devices to sign a nonce derived from that statement:

    statement   canonical JSON (RFC 8785) of {challenge, ip_address, payment_wallet, worker_key, tls_spki_sha256}
    gpu_nonce   SHA-256("workermanager/v1 gpu" 00 SHA-256(statement))
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from enum import StrEnum

import rfc8785

from attest.evidence import Nonce

PROFILE = "workermanager/v1"
_GPU_TAG = b"workermanager/v1 gpu\0"


class Strength(StrEnum):
    """How firmly evidence is tied to the worker that presents it, weakest first."""

    NONE = "none"  # nothing: the evidence could be anybody's, of any time
    NONCE = "nonce"  # a device answered a challenge issued for this worker; no CPU TEE vouches for its host
    COMMITTED = "committed"  # the GPU's nonce is a value that only this CPU TEE committed to
    EVIDENCE_COVERED = "evidence-covered"  # the CPU quote covers the GPU evidence itself
    MEASURED = "measured"  # measured guest code collected it from its own GPUs

    def reaches(self, minimum: Strength) -> bool:
        return _ORDER[self] >= _ORDER[minimum]


_ORDER = {strength: place for place, strength in enumerate(Strength)}


@dataclass(frozen=True, slots=True)
class Statement:
    """Who claims to be attested. All text lower hex except the address and the wallet."""

    challenge: str  # 32 bytes, hex
    ip_address: str  # canonical, as `ipaddress` prints it
    payment_wallet: str
    worker_key: str  # P-256 public key: X9.62 compressed point, 33 bytes, hex
    tls_spki_sha256: str = ""  # of the key that the worker's endpoints serve TLS with; empty if none

    def digest(self) -> bytes:
        return hashlib.sha256(rfc8785.dumps(asdict(self))).digest()


def gpu_nonce(statement: Statement) -> Nonce:
    """The nonce that every GPU of the node must sign, 32 bytes."""
    return Nonce(hashlib.sha256(_GPU_TAG + statement.digest()).digest())
