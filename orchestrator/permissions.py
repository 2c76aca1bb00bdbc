"""Who may what. Each check is of somebody who has already proved who they are; an absent right is a refusal."""

from __future__ import annotations

import hmac

from orchestrator import reasons, wallets
from orchestrator.reasons import Problem, Refused
from orchestrator.registry import Worker
from orchestrator.store import View


def check_admin(signer: str, admin: str, problem: Problem = reasons.NOT_ADMIN) -> None:
    """That the signer is the admin. Where no admin is set, nobody is. Refused: not-admin."""
    if not admin or signer != admin:
        raise Refused(problem, got=signer, want=admin or "an admin, but none is set: run `orchestrator init`")


def check_owner(signer: str, worker: Worker, problem: Problem) -> None:
    """That the signer owns the worker's current wallet. The admin does not, by being admin. Refused: not-owner."""
    if signer != worker.payment_wallet:
        raise Refused(problem, got=signer, want=worker.payment_wallet)


def check_owner_or_admin(signer: str, worker: Worker, admin: str) -> None:
    """Refused: not-owner."""
    if not admin or signer != admin:
        check_owner(signer, worker, reasons.NOT_OWNER)


def check_worker_key(signer: str | None, worker: Worker) -> str:
    """The worker's key, if it signed. Refused: signature-missing, worker-key-unset, worker-key-mismatch."""
    if not signer:
        raise Refused(reasons.SIGNATURE_MISSING, want="the worker's key")
    if worker.worker_key is None:
        raise Refused(reasons.WORKER_KEY_UNSET, "worker_key")
    if not hmac.compare_digest(signer, worker.worker_key):
        raise Refused(reasons.WORKER_KEY_MISMATCH, "worker_key", got=signer, want=worker.worker_key)
    return worker.worker_key


def check_subscriber(view: View, public_key: str, admin: str, *, challenged: bool) -> None:
    """
    That the key is a registered subscriber's, or, in the challenged form only, the admin's. Refused: not-subscriber.

    The deployed form of a subscriber's signature can be replayed for ever, so it must not open the admin's door.
    """
    if view.subscriber(public_key) is not None:
        return
    if challenged and admin and wallets.address_of(bytes.fromhex(public_key)) == admin:
        return
    raise Refused(reasons.NOT_SUBSCRIBER, "subscriber_public_key", got=public_key)


def known(worker: Worker | None, ip_address: str, problem: Problem = reasons.WORKER_UNKNOWN) -> Worker:
    """The worker, if there is one. Refused: worker-unknown."""
    if worker is None:
        raise Refused(problem, "ip_address", got=ip_address)
    return worker
