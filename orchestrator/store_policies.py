"""
The part of the store that keeps policies, and what each worker was judged by; `store.View` and `store.Tx` have these
methods, too.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum

from sqlmodel import Session, col, func, select

from orchestrator.migrations.schema import JudgedRow, PolicyRow

POLICIES_MAX = 1000  # read at once


class Scope(StrEnum):
    """Whom a policy is for. Those of a wallet and a worker only narrow the fleet's."""

    FLEET = "fleet"
    WALLET = "wallet"
    WORKER = "worker"


@dataclass(frozen=True, slots=True)
class Activated:
    """A policy from some moment on. `text` is TOML, and empty where a policy was withdrawn."""

    scope: Scope
    subject: str  # of a wallet its address, of a worker its id, of the fleet empty
    name: str
    sha256: str
    text: str
    at: datetime
    actor: str


@dataclass(frozen=True, slots=True)
class Judged:
    """The evidence that a worker's verdict is about, as it came, what it answered, and the result as a signed token."""

    worker_id: str
    evidence: str
    evidence_sha256: str
    challenge: str | None
    tls_spki_sha256: str | None
    at: datetime  # of the verdict
    result: str  # compact JWS; empty where none was issued


class PolicyView:
    """What can be read of it."""

    _session: Session

    def policy(self, scope: Scope, subject: str = "") -> Activated | None:
        """What was activated last for this subject, withdrawals included."""
        row = PolicyRow
        found = select(row).where(col(row.scope) == str(scope), col(row.subject) == subject)
        last = self._session.exec(found.order_by(col(row.number).desc()).limit(1)).first()
        return None if last is None else _activated(last)

    def policies(self) -> list[Activated]:
        """All that are in force, by scope and subject."""
        row = PolicyRow
        last = select(func.max(col(row.number))).group_by(col(row.scope), col(row.subject))
        found = select(row).where(col(row.number).in_(last), col(row.text) != "")
        return [_activated(each) for each in self._session.exec(found.order_by(col(row.scope), col(row.subject)))]

    def policy_history(self, limit: int = POLICIES_MAX) -> list[Activated]:
        """What was activated and withdrawn, the last first."""
        found = select(PolicyRow).order_by(col(PolicyRow.number).desc()).limit(min(limit, POLICIES_MAX))
        return [_activated(each) for each in self._session.exec(found)]

    def judged(self, worker_id: str) -> Judged | None:
        """By what a worker was judged last."""
        row = self._session.get(JudgedRow, worker_id)
        return None if row is None else Judged(**{name: getattr(row, name) for name in Judged.__slots__})


class PolicyTx(PolicyView):
    """What can be changed of it."""

    def add_policy(self, activated: Activated) -> None:
        self._session.add(PolicyRow(**asdict(activated)))
        self._session.flush()

    def put_judged(self, judged: Judged) -> None:
        """Keep it in place of what stood there."""
        self._session.merge(JudgedRow(**asdict(judged)))


def _activated(row: PolicyRow) -> Activated:
    return Activated(Scope(row.scope), row.subject, row.name, row.sha256, row.text, row.at, row.actor)
