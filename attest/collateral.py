"""
Collateral: documents of manufacturers that a verification needs, named by Need and handed in as Document.

Attest never fetches. `attest.folder` reads documents that somebody laid down: so `attest verify` works offline.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class CollateralKind(StrEnum):
    """What a document is. Certificate revocation, TCB info and the like come with the verifiers that ask for them."""

    NVIDIA_RIM = "nvidia-rim"


@dataclass(frozen=True, slots=True, order=True)
class Need:
    """One document that a verification asks for: its kind, and the manufacturer's own name for it."""

    kind: CollateralKind
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True)
class Document:
    """The bytes of one document; its digest is computed once, since caches and verdicts both ask for it."""

    data: bytes = field(repr=False)
    sha256: str = ""

    @classmethod
    def of(cls, data: bytes) -> Document:
        return cls(data, hashlib.sha256(data).hexdigest())


Collateral = Mapping[Need, Document]
Fetch = Callable[[Need], Document | None]  # None: cannot be had now


def nothing(_need: Need) -> None:
    """A Fetch for when there is no source of collateral at all."""
