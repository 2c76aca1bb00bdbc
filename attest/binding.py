"""
What ties evidence to who presents it: our own statement, and the values that every binding profile shares.

A bare nonce ties evidence to a moment, not to a machine, an address or a key. Our agents therefore answer a challenge
with a statement of who they are, and ask their devices to sign values derived from that statement, by the profile
`workermanager/v1`:

    statement    canonical JSON (RFC 8785) of {challenge, ip_address, payment_wallet, worker_key, tls_spki_sha256}
    gpu_nonce    SHA-256("workermanager/v1 gpu" 00 SHA-256(statement))
    REPORTDATA   SHA-256("workermanager/v1 cpu" 00 SHA-256(statement) GPU evidence) || challenge

GPU evidence is `attest.evidence.dumps` of all devices but the CPU TEE, in the order of the bundle. The layouts of other
systems, and which of them holds, are in `attest.profiles`.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from enum import StrEnum

import rfc8785

from attest.evidence import AMD_SNP, INTEL_TDX, Bundle, Nonce, dumps

PROFILE = "workermanager/v1"
CPUS = frozenset({INTEL_TDX, AMD_SNP})
_GPU_TAG, _CPU_TAG = b"workermanager/v1 gpu\0", b"workermanager/v1 cpu\0"


class Strength(StrEnum):
    """How firmly evidence is tied to the worker that presents it, weakest first."""

    NONE = "none"  # nothing: the evidence could be anybody's, of any time
    NONCE = "nonce"  # devices answered one challenge; nothing says that they sit in one machine
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


def report_data(statement: Statement, devices: Bundle) -> bytes:
    """
    What the CPU TEE of the node must sign, 64 bytes. `devices` are all others, in their order in the bundle.

    ValueError if the challenge is not 32 bytes in hex.
    """
    challenge = bytes.fromhex(statement.challenge)
    if len(challenge) != 32:
        raise ValueError(f"a challenge of {len(challenge)} bytes, not 32")
    return hashlib.sha256(_CPU_TAG + statement.digest() + dumps(devices)).digest() + challenge


@dataclass(frozen=True, slots=True)
class Presented:
    """
    What whoever asks for a verdict knows of the presenter by other means: from its own challenge, from the TLS
    connection, from the registry. Each must be what the evidence commits to.
    """

    statement: Statement | None = None
    nonce: Nonce | None = None  # a bare challenge, where nothing is derived from it by us
    tls_spki_sha256: bytes | None = None  # of the public key that the presenter serves TLS with
    tls_certificate_sha256: bytes | None = None  # of the whole certificate, DER: what older SecretVM images commit to
    signing_address: bytes | None = None  # 20 bytes of an Ethereum address, or an Ed25519 key of 32
    e2e_key: str | None = None  # base64 text, as Chutes hands it out
    hpke_key: bytes | None = None  # as Tinfoil hands it out
    sections: tuple[bytes, ...] = field(default=(), repr=False)  # Tinfoil's `gpu`, then `nvswitch`: the exact JSON


NOTHING_PRESENTED = Presented()


@dataclass(frozen=True, slots=True)
class Binding:
    """What is known of how the evidence is tied to who presents it: the profile whose equations held, its strength."""

    profile: str = "none"
    strength: Strength = Strength.NONE
    covers_cpu: bool = False  # the report data of the CPU TEE answers the challenge by this profile
    nonce: str | None = None  # the caller's own challenge, hex, if every device answers it by this profile
    mismatch: tuple[str, str] | None = None  # found, wanted: what was presented is not what the evidence commits to


UNBOUND = Binding()
