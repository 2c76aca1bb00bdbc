"""
Verdicts: how evidence is judged, what the registry adds to the judgement, and how it is told.

The appraisal knows the node alone. That its devices are as many as its type says, that no other worker has them, and
that it answered a challenge of ours, whatever the policy says of that: these rules are the registry's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Protocol

from attest import reasons as why
from attest.appraise import appraise
from attest.binding import Presented, Statement
from attest.collateral import CollateralKind, Document, Fetch, Need
from attest.containers import read
from attest.errors import AttestError
from attest.evidence import NVIDIA, NVIDIA_NRAS, Bundle, Nonce, digest
from attest.policy import Policy
from attest.profiles import judge
from attest.reasons import Fault, Reason
from attest.result import NODE, AttestationResult, Finding, Tier
from attest.verify import Verifiers, verify
from orchestrator import messages, reasons
from orchestrator.broker import Broker
from orchestrator.reasons import Problem, Refused
from orchestrator.remote import Remote
from orchestrator.worker_type import cpu_kind, gpu_count


class Judge(Protocol):
    """Evidence in, verdict out. It takes time, so never within a transaction."""

    @property
    def policy(self) -> Policy: ...

    def under(self, policy: Policy) -> Judge:
        """The same by another policy."""

    @property
    def emulated_roots(self) -> bool:
        """Whether anything but vendors' roots is trusted."""

    def __call__(
        self, bundle: Bundle, nonce: Nonce | None, now: datetime, presented: Presented
    ) -> AttestationResult: ...


@dataclass(frozen=True, slots=True)
class _Noted:
    """A Fetch that notes which documents it handed out."""

    fetch: Fetch
    handed_out: set[Need] = field(default_factory=set)

    def __call__(self, need: Need) -> Document | None:
        document = self.fetch(need)
        if document is not None:
            self.handed_out.add(need)
        return document


# Which documents a failed rule casts doubt on, by how its code begins. RIMs are issued anew under the same id.
_DOUBTED: Mapping[str, tuple[CollateralKind, ...]] = {
    why.MEASUREMENTS_MISMATCH.code: (CollateralKind.NVIDIA_RIM,),
    "rim": (CollateralKind.NVIDIA_RIM,),
    "ocsp": (CollateralKind.NVIDIA_OCSP,),
    "nras": (CollateralKind.NVIDIA_NRAS_JWKS,),
    "tdx": tuple(kind for kind in CollateralKind if kind.startswith("intel-")),
    "snp": tuple(kind for kind in CollateralKind if kind.startswith("amd-")),
}


def _doubted(result: AttestationResult, handed_out: Iterable[Need]) -> set[Need]:
    """Documents that may be why a result is what it is: fetched anew, they may change it."""
    suspects = {
        kind
        for finding in result.failed
        if finding.reason.fault is Fault.COLLATERAL or finding.reason is why.MEASUREMENTS_MISMATCH
        if not finding.reason.code.endswith("-unavailable")  # there is nothing wrong with what we do have
        for beginning, kinds in _DOUBTED.items()
        if finding.reason.code.startswith(beginning)
        for kind in kinds
    }
    return {need for need in handed_out if need.kind in suspects}


@dataclass(frozen=True, slots=True)
class _Case:
    """What a node sent, and what is verified: the same, unless somebody else was asked about parts of it."""

    sent: Bundle
    judged: Bundle
    verifiers: Verifiers
    nonce: Nonce | None
    now: datetime
    presented: Presented


@dataclass(frozen=True, slots=True)
class VerifyingJudge:
    """
    Verifies with the installed verifiers, and appraises by one policy. If the outcome casts doubt on a document, that
    is fetched once more, and if it is another one now, everything is judged again, once.

    With `remote`, NVIDIA's service is asked about its devices, once, and its tokens are what is verified. Evidence that
    answers no challenge of ours is not worth asking: the registry never believes it.
    """

    verifiers: Verifiers
    policy: Policy
    broker: Broker
    emulated_roots: bool = False
    remote: Remote | None = None

    def under(self, policy: Policy) -> VerifyingJudge:
        return replace(self, policy=policy)

    def __call__(self, bundle: Bundle, nonce: Nonce | None, now: datetime, presented: Presented) -> AttestationResult:
        case = self._case(bundle, nonce, now, presented)
        fetch = _Noted(self.broker.at(now))
        result = self._judged(case, fetch)
        doubted = _doubted(result, fetch.handed_out)
        if doubted and self.broker.renew(doubted):
            return self._judged(case, self.broker.at(now))
        return result

    def _case(self, bundle: Bundle, nonce: Nonce | None, now: datetime, presented: Presented) -> _Case:
        if self.remote is None or nonce is None:
            return _Case(bundle, bundle, self.verifiers, nonce, now, presented)
        answers = self.remote.ask(bundle, nonce, now=now)
        return _Case(bundle, answers.bundle, answers.verifiers(self.verifiers), nonce, now, presented)

    def _judged(self, case: _Case, fetch: Fetch) -> AttestationResult:
        """Whoever verified it: what the evidence commits to, and what it is named by, is what the node sent."""
        nonce, now = case.nonce, case.now
        verification = verify(case.judged, case.verifiers, fetch, nonce=nonce, now=now)
        binding = judge(verification.claims, case.sent, case.presented)
        result = appraise(verification, self.policy, bundle=case.judged, nonce=nonce, now=now, binding=binding)
        return result if case.judged == case.sent else replace(result, evidence_sha256=digest(case.sent))


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
    With the rules that a worker proves as many GPUs as its type says, and the CPU TEE that it names: none is left out.
    Nothing is said of what was not decided, nor where a device of the bundle was refused: then its own reason is told,
    and a count of the others would only distract.
    """
    wanted, cpu = gpu_count(worker_type), cpu_kind(worker_type)
    if wanted is None or result.tier is Tier.NONE or len(result.claims) < len(bundle):
        return result
    found = sum(
        claim.kind in (NVIDIA, NVIDIA_NRAS) and claim.values.get("switch") is not True for claim in result.claims
    )
    rule = "has as many GPUs as its type says"
    result = _with(result, rule, why.DEVICE_COUNT, found == wanted, str(found), str(wanted))
    if cpu is None:
        return result
    has, rule = any(claim.kind == cpu for claim in result.claims), "has the CPU TEE that its type names"
    return _with(result, rule, why.KIND_ABSENT, has, result.cpu, cpu)


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
