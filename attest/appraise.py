"""
Appraisal: compare claims with a policy. Pure, total, fail-closed.

Every rule is tried and every finding kept, so that an operator sees all that is wrong at once. A claim that is absent
fails its rule, and evidence without findings is never affirmed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from attest import reasons
from attest.binding import Strength
from attest.claims import Claims
from attest.evidence import NVIDIA, Bundle, Nonce, digest
from attest.nvidia.appraise import appraise_gpu
from attest.policy import Asked, Origin, Policy, one_of
from attest.reasons import Fault, Reason
from attest.result import NODE, AttestationResult, Finding, Tier
from attest.verify import Refusal, Verification

_BY_KIND = {NVIDIA: appraise_gpu}
_END = datetime.max.replace(tzinfo=UTC)  # of time, as far as Python reckons


@dataclass(frozen=True, slots=True)
class Binding:
    """What is known of how the evidence is tied to who presents it: the profile whose equation held, its strength."""

    profile: str = "none"
    strength: Strength = Strength.NONE


UNBOUND = Binding()


def appraise(
    verification: Verification,
    policy: Policy,
    *,
    bundle: Bundle,
    nonce: Nonce | None,
    now: datetime,
    binding: Binding = UNBOUND,
) -> AttestationResult:
    """Conclude. `binding` is what the caller derived the nonce from; UNBOUND if it was a bare one."""
    claims = verification.claims
    lifetime = min(policy.lifetime, _END - now)
    findings = (
        *(_refused(refusal) for refusal in verification.refusals),
        *_node(bundle, policy, nonce, binding),
        *(finding for claim in claims for finding in _device(claim, policy, now)),
    )
    expires_at = min([now + lifetime, *(claim.not_after for claim in claims)])
    return AttestationResult(
        tier=_tier(findings, complete=bool(claims) and len(claims) == len(bundle), current=now < expires_at),
        findings=findings,
        claims=claims,
        emulated=any(claim.emulated is not False for claim in claims),
        revocation=_agreed(claim.values.get("revocation", "not checked") for claim in claims),
        freshness="nonce" if nonce is not None and claims else "not checked",
        binding=binding.profile,
        strength=binding.strength,
        cpu="absent",
        policy=policy.name,
        policy_sha256=policy.sha256,
        evidence_sha256=digest(bundle),
        collateral={name: sha256 for claim in claims for name, sha256 in claim.collateral.items()},
        nonce=nonce.hex() if nonce is not None else None,
        issued_at=now,
        expires_at=expires_at,
    )


def _tier(findings: Sequence[Finding], *, complete: bool, current: bool) -> Tier:
    """Affirming only if every device made claims, every rule holds and there is some time left."""
    failed = [f for f in findings if not f.holds]
    if complete and current and findings and not failed:
        return Tier.AFFIRMING
    if failed and all(f.reason.fault is Fault.COLLATERAL for f in failed):
        return Tier.NONE
    return Tier.CONTRAINDICATED


def _refused(refusal: Refusal) -> Finding:
    device = NODE if refusal.device < 0 else f"device {refusal.device}"
    return Finding(device, "the evidence is genuine and whole", refusal.reason, False, refusal.found, refusal.wanted)


def _node(bundle: Bundle, policy: Policy, nonce: Nonce | None, binding: Binding) -> Iterator[Finding]:
    present = {evidence.kind for evidence in bundle}
    for kind in sorted(policy.required):
        yield _rule(f"has {kind} devices", reasons.KIND_ABSENT, kind in present, "none", kind)
    count, least, most = len(bundle), policy.devices_min, policy.devices_max
    within = least <= count <= most
    yield _rule(f"has {least} to {most} devices", reasons.DEVICE_COUNT, within, str(count), f"{least} to {most}")
    asked = nonce is not None or policy.nonce is Asked.OPTIONAL
    found = "no challenge" if nonce is None else "a challenge"
    yield _rule("answers a challenge, or need not", reasons.NONCE_NOT_GIVEN, asked, found, "a challenge")
    strong, minimum = binding.strength.reaches(policy.binding_min), policy.binding_min
    yield _rule(f"is bound by {minimum} or better", reasons.BINDING_WEAK, strong, binding.strength, minimum)


def _device(claim: Claims, policy: Policy, now: datetime) -> Iterator[Finding]:
    rules = _BY_KIND.get(claim.kind)
    accepted = claim.kind in policy.kinds and rules is not None
    wanted = one_of(policy.kinds)
    yield _rule("is of a kind we accept", reasons.KIND_NOT_ACCEPTED, accepted, claim.kind, wanted, claim.device)
    origin = Origin.VENDOR if claim.emulated is False else Origin.EMULATED
    origins = one_of(policy.origins)
    rooted = origin in policy.origins
    yield _rule("rests on a root we accept", reasons.ROOT_NOT_ACCEPTED, rooted, origin, origins, claim.device)
    revocation = claim.values.get("revocation")
    good = revocation == "good" or (revocation == "not checked" and policy.revocation is Asked.OPTIONAL)
    rule = "was asked about revocation, or need not be"
    yield _rule(rule, reasons.REVOCATION_NOT_CHECKED, good, str(revocation), "good", claim.device)
    if accepted and rules is not None:
        yield from rules(claim, policy, now)


def _rule(rule: str, reason: Reason, holds: bool, found: str, wanted: str, device: str = NODE) -> Finding:
    return Finding(device, rule, reason, holds, found, wanted)


def _agreed(values: Iterable[object]) -> str:
    """What all devices say, or `not checked`: the weakest word wins."""
    said = {str(value) for value in values}
    return said.pop() if len(said) == 1 else "not checked"
