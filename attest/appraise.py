"""
Appraisal: compare claims with a policy. Pure, total, fail-closed.

Every rule is tried and every finding kept, so that an operator sees all that is wrong at once. A claim that is absent
fails its rule, and evidence without findings is never affirmed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from attest import reasons
from attest.binding import CPUS, UNBOUND, Binding
from attest.claims import Claims
from attest.evidence import AMD_SNP, INTEL_TDX, NVIDIA, NVIDIA_NRAS, Bundle, Nonce, digest
from attest.nvidia.appraise import appraise_gpu
from attest.nvidia.nras_appraise import appraise_nras
from attest.policy import Asked, Origin, Policy, one_of
from attest.reasons import Fault, Reason
from attest.result import NODE, AttestationResult, Finding, Tier
from attest.snp.appraise import appraise_snp
from attest.tdx.appraise import appraise_tdx
from attest.verify import Refusal, Verification

_END = datetime.max.replace(tzinfo=UTC)  # of time, as far as Python reckons
_GPUS = frozenset({NVIDIA, NVIDIA_NRAS})

_BY_KIND: Mapping[str, Callable[[Claims, Policy, datetime, Binding], Iterator[Finding]]] = {
    NVIDIA: lambda claims, policy, now, _: appraise_gpu(claims, policy, now),
    NVIDIA_NRAS: lambda claims, policy, now, _: appraise_nras(claims, policy, now),
    INTEL_TDX: lambda claims, policy, now, binding: appraise_tdx(claims, policy, now, bound=binding.covers_cpu),
    AMD_SNP: lambda claims, policy, now, _: appraise_snp(claims, policy, now),
}


def appraise(
    verification: Verification,
    policy: Policy,
    *,
    bundle: Bundle,
    nonce: Nonce | None,
    now: datetime,
    binding: Binding = UNBOUND,
) -> AttestationResult:
    """
    Conclude. `nonce` is what the evidence was verified against. Where it was verified against none, since its devices
    answer values that only a binding profile knows, `binding.nonce` is the challenge.
    """
    claims = verification.claims
    asked, answered = nonce is not None or binding.nonce is not None, binding.nonce is not None and not binding.mismatch
    fresh = bool(claims) and (answered or (nonce is not None and all(_is_fresh(claim, binding) for claim in claims)))
    refused = any(refusal.device >= 0 for refusal in verification.refusals)
    findings = (
        *(_refused(refusal) for refusal in verification.refusals),
        *_node(bundle, policy),
        *_bound(binding, policy, fresh=fresh, unknown=refused and asked),
        *(finding for claim in claims for finding in _device(claim, policy, now, binding)),
        *_gpus(bundle, claims, policy),
    )
    ends = [_later(now, policy.lifetime), *(limit for claim in claims for limit in _limits(claim, policy))]
    expires_at = min(ends)
    return AttestationResult(
        tier=_tier(findings, complete=bool(claims) and len(claims) == len(bundle), current=now < expires_at),
        findings=findings,
        claims=claims,
        emulated=any(claim.emulated is not False for claim in claims),
        revocation=_agreed(claim.values.get("revocation", "not checked") for claim in claims),
        freshness="nonce" if fresh else "not checked",
        binding=binding.profile,
        strength=binding.strength,
        cpu=_agreed((claim.kind for claim in claims if claim.kind in CPUS), otherwise="absent"),
        policy=policy.name,
        policy_sha256=policy.sha256,
        evidence_sha256=digest(bundle),
        collateral={name: sha256 for claim in claims for name, sha256 in claim.collateral.items()},
        nonce=nonce.hex() if nonce is not None else binding.nonce,
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


def _node(bundle: Bundle, policy: Policy) -> Iterator[Finding]:
    present = {evidence.kind for evidence in bundle}
    for kind in sorted(policy.required):
        yield _rule(f"has {kind} devices", reasons.KIND_ABSENT, kind in present, "none", kind)
    count, least, most = len(bundle), policy.devices_min, policy.devices_max
    within = least <= count <= most
    yield _rule(f"has {least} to {most} devices", reasons.DEVICE_COUNT, within, str(count), f"{least} to {most}")


def _bound(binding: Binding, policy: Policy, *, fresh: bool, unknown: bool) -> Iterator[Finding]:
    """
    That the evidence is fresh, and the presenter's. Where a device was refused, what it commits to is unknown, and its
    refusal says all: it may be for want of a document, which is nobody's fault. No verdict is affirming then.
    """
    asked = fresh or policy.nonce is Asked.OPTIONAL
    if asked or not unknown:
        found = "every device does" if fresh else "not every device is known to"
        yield _rule("answers a challenge, or need not", reasons.NONCE_NOT_GIVEN, asked, found, "every device")
    strong, minimum = binding.strength.reaches(policy.binding_min), policy.binding_min
    if strong or not unknown:
        yield _rule(f"is bound by {minimum} or better", reasons.BINDING_WEAK, strong, binding.strength, minimum)
    found, wanted = binding.mismatch or ("nothing else", "what was presented")
    holds = binding.mismatch is None
    yield _rule("commits to what was presented", reasons.BINDING_MISMATCH, holds, found, wanted)


def _device(claim: Claims, policy: Policy, now: datetime, binding: Binding) -> Iterator[Finding]:
    rules = _BY_KIND.get(claim.kind)
    accepted = claim.kind in policy.kinds and rules is not None
    wanted = one_of(policy.kinds)
    yield _rule("is of a kind we accept", reasons.KIND_NOT_ACCEPTED, accepted, claim.kind, wanted, claim.device)
    origin = Origin.VENDOR if claim.emulated is False else Origin.EMULATED
    origins = one_of(policy.origins)
    rooted = origin in policy.origins
    yield _rule("rests on a root we accept", reasons.ROOT_NOT_ACCEPTED, rooted, origin, origins, claim.device)
    yield from _revocation(claim, policy)
    since, most = claim.stale_since, policy.collateral_stale_hours_max
    held = since is None or now < _later(since, timedelta(hours=most))
    found = "fresh" if since is None else f"stale since {since:%Y-%m-%dT%H:%M:%SZ}"
    rule = "rests on documents that are fresh enough"
    yield _rule(rule, reasons.COLLATERAL_STALE, held, found, f"at most {most} hours", claim.device)
    if accepted and rules is not None:
        yield from rules(claim, policy, now, binding)


def _gpus(bundle: Bundle, claims: Sequence[Claims], policy: Policy) -> Iterator[Finding]:
    """
    That there are GPUs at all. Those in protected-PCIe mode talk to each other through switches, in clear: these must
    be known as well, and in the same way, or nobody has compared whom they name.
    """
    switches = [claim for claim in claims if claim.values.get("switch") is True]
    gpus, least = len([each for each in bundle if each.kind in _GPUS]) - len(switches), policy.nvidia.gpus_min
    yield _rule(f"has {least} GPUs or more", reasons.DEVICE_COUNT, gpus >= least, f"{gpus} GPUs", f"{least} or more")
    wired = {claim.kind for claim in claims if claim.values.get("mode") == "ppcie" and claim not in switches}
    if wired and len(claims) == len(bundle):
        seen = {claim.kind for claim in switches}
        holds = wired == seen == {NVIDIA} or policy.nvidia.topology is Asked.OPTIONAL
        rule = "comes with the switches that it is wired to, or need not"
        found = f"GPUs by {one_of(frozenset(wired))}, switches by {one_of(frozenset(seen)) or 'none'}"
        yield _rule(rule, reasons.TOPOLOGY_ABSENT, holds, found, f"both by {NVIDIA}")


def _revocation(claim: Claims, policy: Policy) -> Iterator[Finding]:
    found = claim.values.get("revocation")
    asked = found in ("good", "hold") or (found == "not checked" and policy.revocation is Asked.OPTIONAL)
    rule = "was asked about revocation, or need not be"
    yield _rule(rule, reasons.REVOCATION_NOT_CHECKED, asked, str(found), "good", claim.device)
    holds = found != "hold" or policy.allow_hold
    yield _rule("is not on hold, or may be", reasons.REVOCATION_HOLD, holds, str(found), "good", claim.device)
    hours, most = claim.values.get("revocation_stale_hours", 0), policy.revocation_stale_hours_max
    fresh = type(hours) is int and 0 <= hours <= most
    rule = "has answers about revocation that are fresh enough"
    yield _rule(rule, reasons.REVOCATION_STALE, fresh, f"{hours} hours ago", f"at most {most}", claim.device)


def _is_fresh(claim: Claims, binding: Binding) -> bool:
    """Whether this device answered the challenge. Of a GPU, other answers are refused; a CPU's depends on binding."""
    return claim.kind not in CPUS or binding.covers_cpu or claim.values.get("nonce") == "match"


def _limits(claim: Claims, policy: Policy) -> Iterator[datetime]:
    """When what a claim rests on ends: certificates, and the operator's own patience with old answers and documents."""
    yield claim.not_after
    until = claim.values.get("revocation_until")
    if type(until) is int:
        yield _later(datetime.fromtimestamp(until, UTC), timedelta(hours=policy.revocation_stale_hours_max))
    if claim.stale_since is not None:
        yield _later(claim.stale_since, timedelta(hours=policy.collateral_stale_hours_max))


def _later(moment: datetime, span: timedelta) -> datetime:
    return moment + min(span, _END - moment)


def _rule(rule: str, reason: Reason, holds: bool, found: str, wanted: str, device: str = NODE) -> Finding:
    return Finding(device, rule, reason, holds, found, wanted)


def _agreed(values: Iterable[object], otherwise: str = "not checked") -> str:
    """What all say, or `otherwise`: the weakest word wins."""
    said = {str(value) for value in values}
    return said.pop() if len(said) == 1 else otherwise
