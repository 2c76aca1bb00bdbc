"""What the manager works with: the store, the hand-out, the judge, the operator's choices, clock and chance."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from orchestrator import policies, registry
from orchestrator.addresses import Ranges
from orchestrator.results import Issuer
from orchestrator.scheduler import RoutingTable
from orchestrator.store import ADMIN, Store, View
from orchestrator.verdicts import Judge
from orchestrator.work import Epochs

PREFLIGHTS_MAX = 2  # judged at once: anybody may ask for them, and they must not keep workers waiting


@dataclass(frozen=True, slots=True)
class Rules:
    """What an operator chooses."""

    liveliness: timedelta = timedelta(seconds=90)  # how long one answered challenge, or attestation, proves life
    challenge_life: timedelta = timedelta(seconds=120)
    epochs: Epochs = field(default_factory=Epochs)
    allowed_ranges: Ranges = ()  # private ranges that workers may have
    domain: str = ""  # what wallets sign for; empty: the store's own, `workermanager/` and 16 hex digits
    admin_address: str = ""  # empty: whom the store remembers


@dataclass(frozen=True, slots=True)
class Context:
    """The world, as the use cases see it."""

    store: Store
    table: RoutingTable
    judge: Judge
    rules: Rules
    clock: Callable[[], datetime]
    token_bytes: Callable[[int], bytes]
    jitter: Callable[[], float]  # 0 to 1
    issuer: Issuer | None = None  # of signed results
    preflights: threading.BoundedSemaphore = field(
        default_factory=lambda: threading.BoundedSemaphore(PREFLIGHTS_MAX), repr=False
    )
    _publishing: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def domain(self) -> str:
        return self.rules.domain or self.store.domain

    def admin(self, view: View) -> str:
        """The admin's wallet, or empty: then nobody is admin."""
        return self.rules.admin_address or view.meta(ADMIN) or ""

    def judge_for(self, payment_wallet: str, worker_id: str = "") -> Judge:
        """The judge by the policy that is in force for a worker, or for a newcomer of this wallet."""
        with self.store.reading() as view:
            found = policies.in_force(view, self.judge.policy)
        return self.judge.under(found.of_worker(payment_wallet, worker_id))

    def publish(self, *ip_addresses: str) -> None:
        """
        Bring the hand-out up to what is committed of the workers at these addresses.

        Called after the commit. Whoever comes last reads last, under the lock: so of two changes that race, the table
        ends with what the database ended with, and a withdrawal is never overwritten by an older publication.
        """
        with self._publishing, self.store.reading() as view:
            now = self.clock()
            for ip_address in ip_addresses:
                worker = view.worker_at(ip_address)
                if worker is None:
                    self.table.withdraw(ip_address)
                else:
                    self.table.publish(ip_address, registry.routes(worker, now))

    def publish_all(self) -> None:
        """As `publish`, for every worker that there is."""
        with self._publishing, self.store.reading() as view:
            now = self.clock()
            for worker in view.workers():
                self.table.publish(worker.ip_address, registry.routes(worker, now))
