"""
Preflight: would this evidence be believed, if it had just answered an orchestrator's challenge?

Recorded evidence answers a challenge that nobody remembers, so a policy that asks for one refuses it for that alone.
Here it is appraised twice: as it is, and as if it had been asked for a moment ago. What falls away is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from attest.appraise import appraise
from attest.binding import PROFILE, UNBOUND, Binding, Strength
from attest.evidence import NONCE_BYTES, Bundle, Nonce
from attest.policy import Policy
from attest.reasons import Fault
from attest.report import as_document
from attest.result import AttestationResult, Finding
from attest.verify import Refusal, Verification

_NOBODYS = Nonce(bytes(NONCE_BYTES))
_ASKED = Binding(PROFILE, Strength.NONCE, covers_cpu=True)  # what an agent of ours reaches at least


@dataclass(frozen=True, slots=True)
class Preflight:
    """What would be concluded, which refusals fall away, and which stand only for documents that we did not have."""

    result: AttestationResult
    falls_away: tuple[Finding, ...]
    to_be_fetched: tuple[Finding, ...]


def preflight(
    verification: Verification,
    policy: Policy,
    *,
    bundle: Bundle,
    nonce: Nonce | None,
    now: datetime,
    binding: Binding = UNBOUND,
) -> Preflight:
    """
    Appraise as if the evidence were fresh. It is never a verdict: that it is fresh was not checked.

    `binding` is the profile that holds already: its own strength counts, if it is no less than what is presumed.
    """
    as_it_is = appraise(verification, policy, bundle=bundle, nonce=nonce, now=now, binding=binding)
    held = binding.mismatch is not None or binding.strength.reaches(_ASKED.strength)
    presumed = replace(binding, covers_cpu=True) if held else _ASKED
    asked = appraise(verification, policy, bundle=bundle, nonce=nonce or _NOBODYS, now=now, binding=presumed)
    left = {(finding.device, finding.reason) for finding in asked.failed}
    return Preflight(
        replace(asked, nonce=as_it_is.nonce, freshness=f"presumed, was {as_it_is.freshness}"),
        tuple(finding for finding in as_it_is.failed if (finding.device, finding.reason) not in left),
        tuple(finding for finding in asked.failed if finding.reason.fault is Fault.COLLATERAL),
    )


def as_preflight_document(found: Preflight, refusals: Sequence[Refusal]) -> dict[str, Any]:
    """The document of `attest.report`, and under `preflight` the codes of what fell away and of what is to be had."""
    told = {"falls_away": _codes(found.falls_away), "to_be_fetched": _codes(found.to_be_fetched)}
    return as_document(found.result, refusals) | {"preflight": told}


def _codes(findings: Iterable[Finding]) -> list[str]:
    return list(dict.fromkeys(finding.reason.code for finding in findings))
