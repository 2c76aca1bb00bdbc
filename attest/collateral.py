"""
Collateral: documents of manufacturers that a verification needs, named by Need and handed in as Document.

Attest never fetches. `attest.folder` reads documents that somebody laid down: so `attest verify` works offline.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple


class CollateralKind(StrEnum):
    """What a document is. How each is named, the verifier that asks for it says."""

    NVIDIA_RIM = "nvidia-rim"  # reference values, by RIM id
    NVIDIA_OCSP = "nvidia-ocsp"  # revocation answers, by `attest.ocsp.Question.name`
    NVIDIA_NRAS_JWKS = "nvidia-nras-jwks"  # keys of a remote verifier, by its base URL
    INTEL_TCB_INFO = "intel-tdx-tcb-info"
    INTEL_QE_IDENTITY = "intel-tdx-qe-identity"
    INTEL_PCK_CRL = "intel-pck-crl"
    INTEL_ROOT_CRL = "intel-root-crl"
    AMD_VCEK = "amd-vcek"
    AMD_ISSUERS = "amd-issuers"
    AMD_CRL = "amd-crl"


class Need(NamedTuple):
    """
    One document that a verification asks for: its kind, and the manufacturer's own name for it. A tuple, since a
    verdict looks fifty of them up, and a dataclass takes twice as long to be found.
    """

    kind: CollateralKind
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True)
class Document:
    """
    The bytes of one document; its digest is computed once, since caches and verdicts both ask for it, and never handed
    in: whoever could name another document's digest would be taken for that document.
    """

    data: bytes = field(repr=False)
    stale_since: datetime | None = None  # when it should have been fetched anew and could not be; None: it is fresh
    sha256: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sha256", hashlib.sha256(self.data).hexdigest())

    @classmethod
    def of(cls, data: bytes) -> Document:
        return cls(data)


Collateral = Mapping[Need, Document]
Fetch = Callable[[Need], Document | None]  # None: cannot be had now


def nothing(_need: Need) -> None:
    """A Fetch for when there is no source of collateral at all."""
