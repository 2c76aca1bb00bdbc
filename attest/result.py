"""The AttestationResult: what a policy concluded from claims, and everything that the conclusion rests on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from attest.claims import Claims
from attest.reasons import Reason

NODE = "node"  # the device of findings about the whole


class Tier(StrEnum):
    """Trustworthiness tiers, named as in RATS AR4SI."""

    AFFIRMING = "affirming"
    CONTRAINDICATED = "contraindicated"
    NONE = "none"  # could not be decided, through no fault of the node: ask again, extend nothing


class Finding(NamedTuple):
    """
    One rule tried on one device: what was found and wanted. Kept whether it holds or not: there are many of them, and
    a tuple is made in a third of a dataclass's time.
    """

    device: str
    rule: str  # a sentence that is true when the rule holds
    reason: Reason  # of a refusal by this rule
    holds: bool
    found: str = ""
    wanted: str = ""


@dataclass(frozen=True, slots=True)
class AttestationResult:
    """A verdict. The instant `expires_at` itself is too late."""

    tier: Tier
    findings: tuple[Finding, ...]
    claims: tuple[Claims, ...]
    emulated: bool  # rests on a root that is no vendor's
    revocation: str  # "not checked" until somebody asks
    freshness: str  # "nonce" or "not checked"
    binding: str  # the profile that held, or "none"
    strength: str
    cpu: str  # "absent" when no CPU TEE vouches for the host
    policy: str
    policy_sha256: str
    evidence_sha256: str
    collateral: Mapping[str, str]  # what each document was -> SHA-256
    nonce: str | None
    issued_at: datetime
    expires_at: datetime

    @property
    def failed(self) -> tuple[Finding, ...]:
        return tuple(f for f in self.findings if not f.holds)
