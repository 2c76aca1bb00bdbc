"""
The store: everything that must outlive the process, and the only module that knows SQL (with `store_collateral`,
`store_policies` and `migrations` beside it).

    with store.transaction() as tx: ...      one writer at a time; all of it is committed and durable, or none of it
    with store.reading() as view: ...        a consistent look at the last commit

It keeps and finds; it decides nothing. Spans of time at which a worker was registered, attested and alive follow from
how its row changes, so no transition can forget to record them.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlmodel import Session, col, delete, func, or_, select

from orchestrator.challenges import Issued, Owner
from orchestrator.messages import Endpoint, Load, Purpose, Service, Verdict
from orchestrator.migrations.engine import WRITES, StoreError, open_sqlite
from orchestrator.migrations.schema import (
    ChallengeRow,
    DeviceRow,
    EventRow,
    MetaRow,
    SpanRow,
    SpentIdRow,
    SubscriberRow,
    VerdictRow,
    WorkerRow,
    WorkRow,
)
from orchestrator.registry import Worker
from orchestrator.store_collateral import CollateralTx, CollateralView
from orchestrator.store_policies import PolicyTx, PolicyView
from orchestrator.work import ALIVE, ATTESTED, REGISTERED, Counted, Span

__all__ = ["Event", "Store", "StoreError", "Subscriber", "Tx", "View"]

DOMAIN, ADMIN, SWEPT = "domain", "admin_address", "swept_until"
DOMAIN_RANDOM_BYTES = 8
FOREVER = datetime(9999, 1, 1, tzinfo=UTC)
EVENTS_MAX = 1000  # read at once


@dataclass(frozen=True, slots=True)
class Event:
    """Something that changed a decision: when, what, of whom, by whom, why."""

    at: datetime
    event: str
    actor: str  # a wallet address, `worker`, or `clock`
    worker: Worker | None = None  # as it was when it happened
    reasons: tuple[str, ...] = ()
    details: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Subscriber:
    public_key: str
    name: str
    added_at: datetime


class View(CollateralView, PolicyView):
    """What can be read. Rows become values here."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def meta(self, key: str) -> str | None:
        row = self._session.get(MetaRow, key)
        return None if row is None else row.value

    # --- workers ---
    def worker(self, worker_id: str) -> Worker | None:
        row = self._session.get(WorkerRow, worker_id)
        return None if row is None else _worker(row)

    def worker_at(self, ip_address: str) -> Worker | None:
        row = self._session.exec(select(WorkerRow).where(col(WorkerRow.ip_address) == ip_address)).first()
        return None if row is None else _worker(row)

    def workers(self) -> Iterator[Worker]:
        """All of them, in the order in which they were registered."""
        ordered = select(WorkerRow).order_by(col(WorkerRow.created_at), col(WorkerRow.id))
        for row in self._session.exec(ordered.execution_options(yield_per=1000)):
            yield _worker(row)

    def ended_between(self, after: datetime, until: datetime) -> list[Worker]:
        """Workers whose attestation or liveliness ended later than `after`, and not later than `until`."""
        attested, alive = col(WorkerRow.attested_until), col(WorkerRow.alive_until)
        ended = or_((attested > after) & (attested <= until), (alive > after) & (alive <= until))
        return [_worker(row) for row in self._session.exec(select(WorkerRow).where(ended))]

    # --- devices ---
    def holders(self, devices: Iterable[str]) -> dict[str, Worker]:
        """Which worker holds each of these devices."""
        held = (
            select(DeviceRow, WorkerRow)
            .join(WorkerRow, col(WorkerRow.id) == col(DeviceRow.worker_id))
            .where(col(DeviceRow.device).in_(list(devices)))
        )
        return {device.device: _worker(row) for device, row in self._session.exec(held)}

    # --- subscribers ---
    def subscriber(self, public_key: str) -> Subscriber | None:
        row = self._session.get(SubscriberRow, public_key)
        return None if row is None else Subscriber(row.public_key, row.name, row.added_at)

    # --- challenges ---
    def find_challenge(self, challenge: str) -> Issued | None:
        row = self._session.get(ChallengeRow, challenge)
        return None if row is None else _issued(row)

    def count_challenges(self, purposes: Sequence[Purpose]) -> int:
        counted = select(func.count()).where(col(ChallengeRow.purpose).in_([str(p) for p in purposes]))
        return self._session.exec(counted).one()

    def is_spent(self, signer: str, message_id: str) -> bool:
        """Whether this message of this signer took effect before."""
        return self._session.get(SpentIdRow, (signer, message_id)) is not None

    # --- work ---
    def counted(self, epoch: int, worker_id: str | None = None) -> list[Counted]:
        """Reports of work of an epoch, of one worker or of all."""
        found = select(WorkRow).where(col(WorkRow.epoch) == epoch)
        if worker_id is not None:
            found = found.where(col(WorkRow.worker_id) == worker_id)
        return [_counted(row) for row in self._session.exec(found)]

    def spans(
        self, begin: datetime, end: datetime, *, worker_id: str | None = None, fact: str | None = None
    ) -> list[Span]:
        """Spans that have time between `begin` and `end`, of one worker or all, of one fact or all."""
        found = select(SpanRow).where(col(SpanRow.until) > begin, col(SpanRow.begin) < end)
        if worker_id is not None:
            found = found.where(col(SpanRow.worker_id) == worker_id)
        if fact is not None:
            found = found.where(col(SpanRow.fact) == fact)
        return [Span(r.worker_id, r.payment_wallet, r.fact, r.begin, r.until) for r in self._session.exec(found)]

    # --- history ---
    def verdicts(self, worker_id: str) -> list[Verdict]:
        """Every verdict on a worker, oldest first."""
        found = select(VerdictRow).where(col(VerdictRow.worker_id) == worker_id).order_by(col(VerdictRow.number))
        return [Verdict.model_validate_json(row.verdict_json) for row in self._session.exec(found)]

    def events(self, *, limit: int = EVENTS_MAX) -> list[dict[str, Any]]:
        """The last events, oldest first."""
        found = select(EventRow).order_by(col(EventRow.number).desc()).limit(min(limit, EVENTS_MAX))
        return [_event(row) for row in reversed(self._session.exec(found).all())]


class Tx(View, CollateralTx, PolicyTx):
    """A transaction: what can be read, and changed."""

    def set_meta(self, key: str, value: str) -> None:
        self._session.merge(MetaRow(key=key, value=value))

    # --- workers ---
    def put_worker(self, worker: Worker, now: datetime) -> None:
        """Add a worker, or replace what stands of it, and record since when and until when it is attested and alive."""
        before = self.worker(worker.id)
        self._session.merge(_worker_row(worker))
        self._session.flush()
        moved = before is None or before.payment_wallet != worker.payment_wallet
        if moved:
            self._span(worker, REGISTERED, FOREVER, now)
        if moved or before is None or before.attested_until != worker.attested_until:
            self._span(worker, ATTESTED, worker.attested_until, now)
        if moved or before is None or before.alive_until != worker.alive_until:
            self._span(worker, ALIVE, worker.alive_until, now)

    def remove_worker(self, worker: Worker, now: datetime) -> None:
        """Take a worker out. Its devices are free; its past stays, for the payouts."""
        for fact in (REGISTERED, ATTESTED, ALIVE):
            self._span(worker, fact, None, now)
        self._session.exec(delete(WorkerRow).where(col(WorkerRow.id) == worker.id))

    def hold_devices(self, worker_id: str, devices: Iterable[str], now: datetime) -> None:
        """From now on the worker holds these devices and no others. Whoever held them does not any more."""
        wanted = set(devices)
        kept = select(DeviceRow.device).where(col(DeviceRow.worker_id) == worker_id)
        held = set(self._session.exec(kept).all())
        new = wanted - held
        self._session.exec(
            delete(DeviceRow).where(col(DeviceRow.worker_id) == worker_id, col(DeviceRow.device).not_in(wanted))
        )
        self._session.exec(delete(DeviceRow).where(col(DeviceRow.device).in_(new)))
        self._session.add_all(DeviceRow(device=device, worker_id=worker_id, since=now) for device in new)

    def _span(self, worker: Worker, fact: str, until: datetime | None, now: datetime) -> None:
        """From now on, `fact` holds until `until` (None: it does not). Unbroken time of one wallet is one span."""
        found = select(SpanRow).where(
            col(SpanRow.worker_id) == worker.id, col(SpanRow.fact) == fact, col(SpanRow.until) >= now
        )
        current = self._session.exec(found.order_by(col(SpanRow.until).desc())).first()
        holds = until if until is not None and until > now else None
        if current is not None and current.payment_wallet == worker.payment_wallet and holds is not None:
            current.until = holds
            return
        if current is not None and current.begin >= now:
            self._session.delete(current)
        elif current is not None:
            current.until = now
        if holds is not None:
            row = SpanRow(worker_id=worker.id, payment_wallet=worker.payment_wallet, fact=fact, begin=now, until=holds)
            self._session.add(row)

    # --- what is spent once ---
    def add_challenge(self, issued: Issued) -> None:
        self._session.add(ChallengeRow(**{name: getattr(issued, name) for name in _ISSUED}))

    def take_challenge(self, issued: Issued, now: datetime) -> bool:
        """Spend a challenge. False if somebody else did, or it is too late: the database decides, in one statement."""
        taken = delete(ChallengeRow).where(
            col(ChallengeRow.challenge) == issued.challenge,
            col(ChallengeRow.purpose) == issued.purpose,
            col(ChallengeRow.owner) == issued.owner,
            col(ChallengeRow.expires_at) > now,
        )
        return self._session.exec(taken).rowcount == 1

    def trim_challenges(self, purpose: Purpose, owner: Owner, keep: int) -> None:
        """Drop all but the youngest `keep` challenges of one owner and purpose."""
        mine = (col(ChallengeRow.purpose) == str(purpose), col(ChallengeRow.owner) == owner)
        kept = select(ChallengeRow.challenge).where(*mine).order_by(col(ChallengeRow.expires_at).desc()).limit(keep)
        self._session.exec(delete(ChallengeRow).where(*mine, col(ChallengeRow.challenge).not_in(kept)))

    def forget_challenges(self, now: datetime) -> int:
        """Drop the challenges that expired; how many that were."""
        return self._session.exec(delete(ChallengeRow).where(col(ChallengeRow.expires_at) <= now)).rowcount

    def spend_id(self, signer: str, message_id: str, expires_at: datetime) -> bool:
        """Remember the id of a signed message. False if it took effect before."""
        if self.is_spent(signer, message_id):
            return False
        self._session.add(SpentIdRow(signer=signer, id=message_id, expires_at=expires_at))
        self._session.flush()
        return True

    def forget_ids(self, now: datetime) -> int:
        """Drop the ids of messages that nobody accepts any more."""
        return self._session.exec(delete(SpentIdRow).where(col(SpentIdRow.expires_at) <= now)).rowcount

    # --- subscribers ---
    def put_subscriber(self, subscriber: Subscriber) -> None:
        row = SubscriberRow(public_key=subscriber.public_key, name=subscriber.name, added_at=subscriber.added_at)
        self._session.merge(row)

    def remove_subscriber(self, public_key: str) -> bool:
        gone = delete(SubscriberRow).where(col(SubscriberRow.public_key) == public_key)
        return self._session.exec(gone).rowcount == 1

    # --- history ---
    def add_verdict(self, worker: Worker, verdict: Verdict, collateral: Mapping[str, str], *, applied: bool) -> None:
        """Record a verdict on a worker, and whether it came in time to change anything."""
        row = VerdictRow(
            worker_id=worker.id,
            ip_address=worker.ip_address,
            payment_wallet=worker.payment_wallet,
            generation=worker.generation,
            tier=verdict.tier,
            applied=applied,
            issued_at=verdict.issued_at,
            not_after=verdict.not_after,
            evidence_sha256=verdict.evidence_sha256,
            policy_sha256=verdict.policy_sha256,
            collateral_json=json.dumps(dict(collateral), sort_keys=True),
            verdict_json=verdict.model_dump_json(),
        )
        self._session.add(row)

    def add_event(self, event: Event) -> None:
        worker = event.worker
        row = EventRow(
            at=event.at,
            event=event.event,
            worker_id=worker.id if worker else None,
            ip_address=worker.ip_address if worker else None,
            payment_wallet=worker.payment_wallet if worker else None,
            actor=event.actor,
            reasons_json=json.dumps(event.reasons),
            details_json=json.dumps(dict(event.details or {}), sort_keys=True),
        )
        self._session.add(row)

    def add_counted(self, counted: Counted, now: datetime) -> None:
        values = {name: getattr(counted, name) for name in _COUNTED}
        self._session.add(WorkRow(**values, counted_at=now))


class Store:
    """A database file. Threads may share it; another process may have it open, too."""

    def __init__(self, path: Path, *, token_bytes: Callable[[int], bytes] = secrets.token_bytes) -> None:
        """Open the file, or make it, and bring it up to date. StoreError says what keeps it from being used."""
        self._engine = open_sqlite(path)
        self._writers = self._engine.execution_options(**{WRITES: True})
        self._writing = threading.Lock()  # writers wait here in turn, not in SQLite's busy loop
        with self.transaction() as tx:
            self.domain = tx.meta(DOMAIN) or f"workermanager/{token_bytes(DOMAIN_RANDOM_BYTES).hex()}"
            tx.set_meta(DOMAIN, self.domain)

    @contextmanager
    def transaction(self) -> Iterator[Tx]:
        """Commit at the end, durably; on any exception, nothing of it happened."""
        with self._writing, Session(self._writers) as session, session.begin():
            yield Tx(session)

    @contextmanager
    def reading(self) -> Iterator[View]:
        """The last commit, unchanged by whatever is committed meanwhile."""
        with Session(self._engine) as session, session.begin():
            yield View(session)

    def close(self) -> None:
        self._engine.dispose()


# --- rows to values and back ------------------------------------------------------------------------------------------
_PLAIN = (
    *("id", "ip_address", "payment_wallet", "worker_type", "created_at", "worker_key", "tls_spki_sha256"),
    *("drains_itself", "generation", "attempt", "settled", "attested_until", "alive_until", "due_at", "failures"),
    "evidence_sha256",
)
_ISSUED = ("challenge", "purpose", "owner", "expires_at", "generation")
_COUNTED = (
    *("worker_id", "payment_wallet", "epoch", "sequence", "begin", "until", "input_tokens", "output_tokens"),
    *("sha256", "models_json"),
)


def _worker(row: WorkerRow) -> Worker:
    return Worker(
        **{name: getattr(row, name) for name in _PLAIN},
        endpoints=tuple(Endpoint.model_validate(each) for each in json.loads(row.endpoints_json)),
        service=Service(row.service),
        against=tuple(json.loads(row.against_json)),
        undecided=tuple(json.loads(row.undecided_json)),
        verdict=None if row.verdict_json is None else Verdict.model_validate_json(row.verdict_json),
        load=Load.model_validate_json(row.load_json),
    )


def _worker_row(worker: Worker) -> WorkerRow:
    return WorkerRow(
        **{name: getattr(worker, name) for name in _PLAIN},
        endpoints_json=json.dumps([endpoint.model_dump() for endpoint in worker.endpoints]),
        service=worker.service,
        against_json=json.dumps(worker.against),
        undecided_json=json.dumps(worker.undecided),
        verdict_json=None if worker.verdict is None else worker.verdict.model_dump_json(),
        load_json=worker.load.model_dump_json(),
    )


def _issued(row: ChallengeRow) -> Issued:
    return Issued(row.challenge, Purpose(row.purpose), Owner(row.owner), row.expires_at, row.generation)


def _counted(row: WorkRow) -> Counted:
    return Counted(**{name: getattr(row, name) for name in _COUNTED})


def _event(row: EventRow) -> dict[str, Any]:
    return {
        "at": row.at,
        "event": row.event,
        "actor": row.actor,
        "ip_address": row.ip_address,
        "payment_wallet": row.payment_wallet,
        "reasons": json.loads(row.reasons_json),
        "details": json.loads(row.details_json),
    }
