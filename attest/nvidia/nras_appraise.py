"""
Rules for a device that NRAS judged: those of `policy.nvidia`, but for what NRAS leaves unsaid. Claims: `nras_claims`.

    identity       "certificates" | "token": what the name of the device rests on
    verified_by    address of the issuer; `answer` is the SHA-256 of its overall token
    answers_for    how many devices that answers for; `submod` is its name for this one

Whom devices in protected-PCIe mode name, NRAS says but nobody here compares: such a box is verified locally, or its
topology is optional.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Protocol, cast

from attest import reasons
from attest.claims import Claims
from attest.nvidia.appraise import appraise_gpu
from attest.nvidia.nras_rules import NrasRules
from attest.policy import Asked, NvidiaRules, Policy
from attest.reasons import Reason
from attest.reasons.nras import NRAS_DEVICE_UNIDENTIFIED
from attest.result import Finding

_OURS = (reasons.FWID_ABSENT, reasons.MEASUREMENTS_MISMATCH)  # of rules that are put otherwise here


class WithNrasRules(Protocol):
    """A policy that has rules for tokens of NRAS."""

    @property
    def nvidia(self) -> NvidiaRules: ...
    @property
    def nras(self) -> NrasRules: ...


def appraise_nras(claims: Claims, policy: WithNrasRules, now: datetime) -> Iterator[Finding]:
    """Every rule for the device, tried on what NRAS says of it."""
    for finding in appraise_gpu(claims, cast("Policy", policy), now):
        if finding.reason not in _OURS:
            yield finding
    if claims.values.get("switch") is not True:  # whose reports name no firmware
        yield _fwid(claims, policy)
    yield _measurements(claims)
    found = claims.values.get("identity")
    known = found == "certificates" or (found == "token" and not policy.nras.certificates_required)
    rule = "is identified by its certificates, or need not be"
    yield _rule(claims, rule, NRAS_DEVICE_UNIDENTIFIED, known, f"by {found}", "by certificates")


def _fwid(claims: Claims, policy: WithNrasRules) -> Finding:
    """Claims 2.0 do not say it, and of old drivers there is nothing to say."""
    found = claims.values.get("fwid")
    excused = found in ("absent", "unstated") and policy.nvidia.fwid is Asked.OPTIONAL
    rule = "runs the firmware that its certificate endorses"
    return _rule(claims, rule, reasons.FWID_ABSENT, found == "match" or excused, str(found), "match")


def _measurements(claims: Claims) -> Finding:
    """NRAS says that they match, or the verifier has refused; which differ it does not say, so none is tolerated."""
    state, differing = claims.values.get("measurements"), claims.values.get("mismatching_indices")
    holds = state == "match" and differing == ()
    return _rule(
        claims, "measures what the RIMs say", reasons.MEASUREMENTS_MISMATCH, holds, f"{state}, says NRAS", "match"
    )


def _rule(claims: Claims, rule: str, reason: Reason, holds: bool, found: str, wanted: str) -> Finding:
    return Finding(claims.device, rule, reason, holds, found, wanted)
