"""Preflight: would this node be admitted? Judged as in earnest; only the challenge is spent, and nothing is kept."""

from __future__ import annotations

from attest.result import Tier
from orchestrator import addresses, attestations, challenges, reasons, wallets
from orchestrator.attestations import Answered
from orchestrator.context import Context
from orchestrator.messages import Purpose
from orchestrator.messages_appraisal import Preflight, Preflighted
from orchestrator.reasons import Refused
from orchestrator.registry import Worker
from orchestrator.verdicts import disputed, told


def owner_of(ctx: Context, ip_address: str, payment_wallet: str | None) -> tuple[challenges.Owner, str, str]:
    """Who asks, by address and, if given, wallet; both as we write them. Refused where no worker can be."""
    address = addresses.canonical(ip_address)
    addresses.check_allowed(address, ctx.rules.allowed_ranges)
    wallet = wallets.parse_address(payment_wallet) if payment_wallet else ""
    return challenges.of_preflight(address, wallet), address, wallet


def preflight(ctx: Context, message: Preflight) -> Preflighted:
    """
    The verdict that a worker with this evidence would get now. Refused: too-many, while others are judged.

    A device that an attested worker has is told as taken, unless it is the one at this address.
    """
    if not ctx.preflights.acquire(blocking=False):
        raise Refused(reasons.TOO_MANY, got="other preflights that are judged just now")
    try:
        return _preflight(ctx, message)
    finally:
        ctx.preflights.release()


def _preflight(ctx: Context, message: Preflight) -> Preflighted:
    owner, address, wallet = owner_of(ctx, message.ip_address, message.payment_wallet)
    with ctx.store.transaction() as tx:
        now = ctx.clock()
        challenges.redeem(tx, message.challenge, Purpose.PREFLIGHT, owner, now)
    nobody = Worker("", address, wallet, message.worker_type or "", now, worker_key=message.worker_key)
    answered = Answered(message.evidence, "evidence", message.challenge, message.tls_spki_sha256)
    result = attestations.judged(ctx.judge_for(wallet), nobody, answered, now)
    if result.tier is Tier.AFFIRMING:
        with ctx.store.reading() as view:
            holders = view.holders(claim.device for claim in result.claims).items()
        result = disputed(result, (d for d, it in holders if it.ip_address != address and it.is_attested(now)))
    return Preflighted(admitted=result.tier is Tier.AFFIRMING, verdict=told(result))
