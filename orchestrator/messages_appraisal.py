"""Messages about appraisal, beside those of the contract: preflights, signed results, policies."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from orchestrator.messages import (
    REPORT_CHARS_MAX,
    Address,
    Answer,
    Command,
    Finding,
    Hex32,
    KeyHex,
    SetPolicy,
    Text,
    Verdict,
    WalletAddress,
)


class Preflight(Command):
    """
    Would this node be admitted? Evidence that answers a `preflight` challenge, with what else it commits to. Anybody
    may ask; nothing is registered or kept.
    """

    challenge: Hex32
    ip_address: Address
    payment_wallet: WalletAddress | None = None  # as in the challenge
    worker_key: KeyHex
    tls_spki_sha256: Hex32 | None = None
    worker_type: Text | None = None  # with it, devices are counted as for a worker of this type
    evidence: Annotated[str, StringConstraints(min_length=1, max_length=REPORT_CHARS_MAX)]


class PreviewPolicy(SetPolicy):
    """
    Admin. What the workers' last evidence would be under this policy, were it set. Nothing changes. `skip` workers are
    left out: a page of a fleet.
    """

    skip: Annotated[int, Field(ge=0, le=1_000_000)] = 0


class SignedResult(Answer):
    """The last result on a worker: a compact JWS (EAR), and the claims in it, unverified."""

    token: str
    ear: dict[str, Any]


class KeySet(Answer):
    """Public keys as JWKS (RFC 7517)."""

    keys: tuple[dict[str, Any], ...]


class Preflighted(Answer):
    """What would be concluded of a node. `admitted` is whether the verdict is affirming."""

    admitted: bool
    verdict: Verdict


class PolicyInForce(Answer):
    """One policy: whose, since when and by whom. `text` is TOML; empty where it was withdrawn, or is the settings'."""

    scope: str
    subject: str  # a wallet, the address of a worker, or empty
    name: str
    sha256: str
    text: str
    since: datetime | None
    actor: str  # who signed for it, or `settings`


class PoliciesInForce(Answer):
    fleet: PolicyInForce
    narrowed: tuple[PolicyInForce, ...]
    history: tuple[PolicyInForce, ...]  # the last first


class Foreseen(Answer):
    """One worker under a policy that is not in force. `as_of` is the moment as of which its evidence was verified."""

    ip_address: str
    was: str  # tier of its last verdict, or "not judged"
    would_be: str
    falls: bool  # attested now, and would not be
    as_of: datetime | None
    reasons: tuple[Finding, ...] = ()


class PolicyPreview(Answer):
    name: str
    sha256: str
    workers: tuple[Foreseen, ...]
    skip_next: int | None  # ask again with this to see the rest
