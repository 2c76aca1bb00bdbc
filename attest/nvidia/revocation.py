"""
Were the certificates of a device, and of its reference manifests, revoked? Asked by OCSP, certificate by certificate.

The attestation key has no responder and the root none above it; all between are asked about (spec: exactly three of the
device chain, three of each RIM's). Answers about upper certificates are the same for a whole fleet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509

from attest import ocsp, reasons
from attest.claims import Value
from attest.collateral import Collateral, CollateralKind, Document, Need
from attest.errors import UntrustedCollateral, UntrustedEvidence
from attest.memo import Memo
from attest.ocsp import Answer, Issuer, OcspError, Question, Status
from attest.x509 import Loaded, Path

QUESTIONS_REMEMBERED = 1_000

KnownAnswers = Memo[Answer]


@dataclass(frozen=True, slots=True)
class Inquiry:
    """A question about one certificate, the need that names its answer, and the issuer that decides who may answer."""

    need: Need
    question: Question
    issuer: x509.Certificate
    name: x509.Name  # of the certificate asked about
    of_device: bool  # of the device chain; else of a RIM's signer

    @property
    def subject(self) -> str:
        """That name, RFC 4514."""
        return self.name.rfc4514_string()

    def __hash__(self) -> int:
        return hash(self.need)


@dataclass(frozen=True, slots=True)
class KnownQuestions:
    """Upper certificates are a whole fleet's: remembers what to ask about them, and how to name whom to ask."""

    inquiries: Memo[Inquiry] = field(default_factory=lambda: Memo(QUESTIONS_REMEMBERED))
    issuers: Memo[Issuer] = field(default_factory=lambda: Memo(QUESTIONS_REMEMBERED))


def inquiries(chain: Sequence[Loaded], path: Path, *, of_device: bool, known: KnownQuestions) -> tuple[Inquiry, ...]:
    """What to ask about a verified path: its certificates but the root, and of a device's the attestation key."""
    # An emulator's certificates are none that a vendor's responder knows: the mark keeps anybody from asking it.
    mark = f"@{path.anchor.spki_sha256[:16]}" if path.anchor.emulated else ""
    found = []
    for at in range(1 if of_device else 0, len(chain) - 1):
        key = chain[at].encoded, chain[at + 1].encoded, of_device
        inquiry = known.inquiries.get(key)
        found.append(inquiry or known.inquiries.put(key, _inquiry(at, chain, path, mark, of_device, known.issuers)))
    return tuple(found)


def _inquiry(
    at: int, chain: Sequence[Loaded], path: Path, mark: str, of_device: bool, issuers: Memo[Issuer]
) -> Inquiry:
    above, holder = chain[at + 1], path.holders[at + 1]
    issuer = issuers.get(above.encoded) or issuers.put(above.encoded, Issuer.of(holder.name, holder.key))
    question = Question(issuer, chain[at].certificate.serial_number)
    need = Need(CollateralKind.NVIDIA_OCSP, question.name + mark)
    return Inquiry(need, question, above.certificate, path.holders[at].subject, of_device)


def judge(asked: Sequence[Inquiry], collateral: Collateral, *, now: datetime, known: KnownAnswers) -> dict[str, Value]:
    """
    The claims `revocation`, `revocation_asked`, `revocation_until` and `revocation_stale_hours`.

    UntrustedEvidence if the device was revoked, UntrustedCollateral if a RIM's signer was, or an answer is none.
    """
    answers = [
        _answer(inquiry, document, now=now, known=known)
        for inquiry in asked
        if (document := collateral.get(inquiry.need)) is not None
    ]
    if not asked or len(answers) < len(asked):
        return {"revocation": "not checked", "revocation_asked": len(answers)}
    until = min(answer.next_update for answer in answers)
    held = any(answer.status is Status.HOLD for answer in answers)
    return {
        "revocation": "hold" if held else "good",
        "revocation_asked": len(answers),
        "revocation_until": int(until.timestamp()),
        "revocation_stale_hours": (now - until) // timedelta(hours=1) + 1 if now >= until else 0,
    }


def _answer(inquiry: Inquiry, document: Document, *, now: datetime, known: KnownAnswers) -> Answer:
    key = document.sha256, inquiry.need.name
    try:
        answer = known.get(key) or known.put(key, ocsp.read(document.data, inquiry.question, inquiry.issuer))
        ocsp.check_time(answer, now)
    except OcspError as e:
        raise UntrustedCollateral(reasons.OCSP_MALFORMED, f"{inquiry.subject}: {e}", "a genuine answer") from e
    if answer.status in (Status.GOOD, Status.HOLD):
        return answer
    found = f"{inquiry.subject} {answer.status} {answer.reason}".rstrip()
    if not inquiry.of_device:
        raise UntrustedCollateral(reasons.RIM_REVOKED, found, "good")
    reason = reasons.CHAIN_REVOKED if answer.status is Status.REVOKED else reasons.CHAIN_STATUS_UNKNOWN
    raise UntrustedEvidence(reason, found, "good")
