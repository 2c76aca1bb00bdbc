"""
Roots of TDX: Intel's, pinned by the SHA-256 of its certificate, and an emulator's beside it where a trial asks for one.

Intel has one root certificate, and every quote and issuer chain carries it; so the pin is of the whole certificate, and
the bytes of the root in a quote are as fixed as all others.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

ROOT_BYTES_MAX = 16 << 10
INTEL_SGX_ROOT_SHA256 = "44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3"


@dataclass(frozen=True, slots=True)
class Root:
    """A root to trust: SHA-256 of its certificate (DER), lower hex."""

    sha256: str

    @classmethod
    def of(cls, certificate: x509.Certificate) -> Root:
        return cls(hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest())

    @property
    def emulated(self) -> bool:
        """Everything is, but what is pinned in this file."""
        return self.sha256 != INTEL_SGX_ROOT_SHA256

    @property
    def mark(self) -> str:
        """What names of collateral end in: nothing for Intel's, so that nobody asks Intel for an emulator's."""
        return f"@{self.sha256[:16]}" if self.emulated else ""


INTEL = Root(INTEL_SGX_ROOT_SHA256)


class WithIntelRoots(Protocol):
    """Anchors that have roots for TDX."""

    @property
    def intel_sgx(self) -> tuple[Root, ...]: ...


@dataclass(frozen=True, slots=True)
class IntelRoots:
    """Roots for TDX alone: Intel's, unless others are named."""

    intel_sgx: tuple[Root, ...] = (INTEL,)


def load_emulated(pem: bytes) -> Root:
    """An emulator's root: PEM of one self-issued certificate. ValueError if it is anything else, or Intel's."""
    if len(pem) > ROOT_BYTES_MAX:
        raise ValueError(f"a root has at most {ROOT_BYTES_MAX} bytes")
    (certificate,) = x509.load_pem_x509_certificates(pem)
    if certificate.subject != certificate.issuer:
        raise ValueError("a root must be self-issued")
    root = Root.of(certificate)
    if not root.emulated:
        raise ValueError("Intel's root is built in; the file must hold an emulator's")
    return root
