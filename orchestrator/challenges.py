"""
Challenges: 32 random bytes, for one purpose, of one owner, answered once and soon.

They stand in the database, so that any replica can redeem one, and exactly one of two answers wins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NewType

from orchestrator import reasons
from orchestrator.messages import Purpose
from orchestrator.reasons import Refused

if TYPE_CHECKING:  # the store keeps what stands here
    from orchestrator.store import Tx

CHALLENGE_BYTES = 32
# Anyone may ask for these, so the number that waits for an answer is bounded, of all in a group together.
OPEN_PURPOSES = (Purpose.REGISTER, Purpose.GET_WORKERS)
OPEN_CHALLENGES_MAX = 10_000
PREFLIGHT_CHALLENGES_MAX = 1_000  # apart: who only tries must not keep anybody from registering
OWNER_CHALLENGES_MAX = 4  # of one worker and purpose: asking again must not fill the database

Owner = NewType("Owner", str)


def of_worker(worker_id: str) -> Owner:
    """A worker, by our id: another worker that comes to have its address is not it."""
    return Owner(f"worker {worker_id}")


def of_newcomer(ip_address: str, payment_wallet: str) -> Owner:
    """A worker that is to be registered: its address, canonical, and the wallet that will own it."""
    return Owner(f"newcomer {ip_address} {payment_wallet}")


def of_preflight(ip_address: str, payment_wallet: str) -> Owner:
    """A node that only asks whether it would be admitted."""
    return Owner(f"preflight {ip_address} {payment_wallet}")


def of_subscriber(public_key: str) -> Owner:
    return Owner(f"subscriber {public_key}")


@dataclass(frozen=True, slots=True)
class Issued:
    """A challenge that waits for its answer. At `expires_at` it is too late."""

    challenge: str  # lower hex
    purpose: Purpose
    owner: Owner
    expires_at: datetime
    generation: int | None = None  # of the worker, when it was asked for


def issue(
    tx: Tx,
    purpose: Purpose,
    owner: Owner,
    *,
    now: datetime,
    life: timedelta,
    token_bytes: Callable[[int], bytes],
    generation: int | None = None,
) -> Issued:
    """A new challenge, kept. Refused: too-many, when too many open ones wait for an answer."""
    if purpose in OPEN_PURPOSES:
        _check_room(tx, OPEN_PURPOSES, OPEN_CHALLENGES_MAX, now)
    elif purpose is Purpose.PREFLIGHT:
        _check_room(tx, (Purpose.PREFLIGHT,), PREFLIGHT_CHALLENGES_MAX, now)
    else:
        tx.trim_challenges(purpose, owner, OWNER_CHALLENGES_MAX - 1)
    issued = Issued(token_bytes(CHALLENGE_BYTES).hex(), purpose, owner, now + life, generation)
    tx.add_challenge(issued)
    return issued


def _check_room(tx: Tx, purposes: Sequence[Purpose], most: int, now: datetime) -> None:
    if tx.count_challenges(purposes) >= most:
        tx.forget_challenges(now)
    if tx.count_challenges(purposes) >= most:
        raise Refused(reasons.TOO_MANY, "purpose", got=f"{most} challenges unanswered")


def redeem(tx: Tx, challenge: str, purpose: Purpose, owner: Owner, now: datetime) -> Issued:
    """
    Spend a challenge; of any number of answers exactly one does. An answer to somebody else's spends nothing.

    Refused: challenge-unknown, challenge-mismatch, challenge-expired.
    """
    issued = tx.find_challenge(challenge)
    if issued is None:
        raise Refused(reasons.CHALLENGE_UNKNOWN, "challenge", got=challenge)
    if issued.purpose is not purpose:
        raise Refused(reasons.CHALLENGE_MISMATCH, "challenge", got=f"a challenge to {issued.purpose}", want=purpose)
    if issued.owner != owner:
        raise Refused(reasons.CHALLENGE_MISMATCH, "challenge", got="somebody else's challenge", want="your own")
    if now >= issued.expires_at:
        raise Refused(
            reasons.CHALLENGE_EXPIRED, "challenge", got=issued.expires_at.isoformat(), want="an earlier answer"
        )
    if not tx.take_challenge(issued, now):
        raise Refused(reasons.CHALLENGE_UNKNOWN, "challenge", got=challenge)
    return issued
