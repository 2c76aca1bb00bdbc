"""
Verdicts: how evidence is judged, what the registry adds to the judgement, and how it is told.

The appraisal knows the node alone. That its devices are as many as its type says, that no other worker has them, and
that it answered a challenge of ours, whatever the policy says of that: these rules are the registry's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from attest import reasons as why
from attest.appraise import Binding, appraise
from attest.binding import Statement
from attest.containers import read
from attest.errors import AttestError
from attest.evidence import NVIDIA, Bundle, Nonce
from attest.policy import Policy
from attest.reasons import Reason
from attest.result import NODE, AttestationResult, Finding, Tier
from attest.verify import Verifiers, verify
from orchestrator import messages, reasons
from orchestrator.broker import Broker
from orchestrator.reasons import Problem, Refused
from orchestrator.worker_type import gpu_count


class Judge(Protocol):
    """Evidence in, verdict out. It takes time, so never within a transaction."""

    @property
    def policy_name(self) -> str: ...

    @property
    def emulated_roots(self) -> bool:
        """Whether anything but vendors' roots is trusted."""

    def __call__(self, bundle: Bundle, nonce: Nonce | None, now: datetime, binding: Binding) -> AttestationResult: ...


@dataclass(frozen=True, slots=True)
class VerifyingJudge:
    """Verifies with the installed verifiers, and appraises by one policy."""

    verifiers: Verifiers
    policy: Policy
    broker: Broker
    emulated_roots: bool = False

    @property
    def policy_name(self) -> str:
        return self.policy.name

    def __call__(self, bundle: Bundle, nonce: Nonce | None, now: datetime, binding: Binding) -> AttestationResult:
        verification = verify(bundle, self.verifiers, self.broker.at(now), nonce=nonce, now=now)
        return appraise(verification, self.policy, bundle=bundle, nonce=nonce, now=now, binding=binding)


class EvidenceRefused(Refused):
    """Evidence that cannot even be judged: `evidence-refused`, and `because` with the reason code of attest."""

    def __init__(self, field: str, error: AttestError) -> None:
        problem = Problem(error.reason.code, reasons.EVIDENCE_REFUSED.status, error.reason.meaning, error.reason.remedy)
        super().__init__(replace(reasons.EVIDENCE_REFUSED, fix=error.reason.remedy), field, str(error))
        self.because = (Refused(problem, field, error.found, error.wanted),)


def read_evidence(text: str, field: str) -> Bundle:
    """The evidence in a message's field, in any container. Refused: evidence-refused."""
    try:
        return read([text.encode()])
    except AttestError as e:
        raise EvidenceRefused(field, e) from e


# --- the registry's own rules -----------------------------------------------------------------------------------------
def counted(result: AttestationResult, worker_type: str, bundle: Bundle) -> AttestationResult:
    """
    With the rule that a worker proves as many GPUs as its type says. Nothing is said of what was not decided, nor where
    a device of the bundle was refused: then its own reason is told, and a count of the others would only distract.
    """
    wanted, found = gpu_count(worker_type), sum(claim.kind == NVIDIA for claim in result.claims)
    if wanted is None or result.tier is Tier.NONE or len(result.claims) < len(bundle):
        return result
    return _with(
        result, "has as many GPUs as its type says", why.DEVICE_COUNT, found == wanted, str(found), str(wanted)
    )


def unasked(result: AttestationResult) -> AttestationResult:
    """With the finding that nobody asked for this evidence: it may be of any time and of any worker."""
    return _with(result, "answers a challenge of ours", why.NONCE_NOT_GIVEN, False, "no challenge", "a challenge")


def disputed(result: AttestationResult, taken: Iterable[str]) -> AttestationResult:
    """With the findings that these devices are another worker's."""
    for device in sorted(taken):
        result = _with(result, "is no other worker's", why.DEVICE_TAKEN, False, "another's", "its own", device)
    return result


def _with(
    result: AttestationResult, rule: str, reason: Reason, holds: bool, found: str, wanted: str, device: str = NODE
) -> AttestationResult:
    finding = Finding(device, rule, reason, holds, found, wanted)
    tier = result.tier if holds else Tier.CONTRAINDICATED
    return replace(result, findings=(*result.findings, finding), tier=tier)


# --- telling ----------------------------------------------------------------------------------------------------------
def told(result: AttestationResult) -> messages.Verdict:
    """The verdict as the API tells it and the registry keeps it: the rules that failed, and the digests."""
    return messages.Verdict(
        tier=result.tier,
        emulated=result.emulated,
        policy=result.policy,
        revocation=result.revocation,
        freshness=result.freshness,
        binding=f"{result.binding} ({result.strength})",
        cpu=result.cpu,
        devices=tuple(claim.device for claim in result.claims),
        issued_at=result.issued_at,
        not_after=result.expires_at,
        evidence_sha256=result.evidence_sha256,
        policy_sha256=result.policy_sha256,
        reasons=tuple(_told(finding) for finding in result.failed),
    )


def _told(finding: Finding) -> messages.Finding:
    return messages.Finding(
        device=finding.device,
        rule=finding.rule,
        code=finding.reason.code,
        stage=finding.reason.stage,
        holds=finding.holds,
        found=finding.found,
        wanted=finding.wanted,
        fix=finding.reason.remedy,
    )


def statement_of(
    challenge: str, ip_address: str, payment_wallet: str, worker_key: str, tls_spki_sha256: str | None
) -> Statement:
    """What the evidence must commit to. All but the challenge and the TLS key is as the registry has it."""
    return Statement(challenge, ip_address, payment_wallet, worker_key, tls_spki_sha256 or "")
