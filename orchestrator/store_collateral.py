"""
The part of the store that keeps collateral; `store.View` and `store.Tx` have these methods, too.

Documents are kept with their digest, and one that does not fit it any more is as good as absent.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterable, Iterator
from datetime import datetime

from sqlmodel import Session, col, delete, func, select, update

from attest.collateral import CollateralKind, Document, Need
from orchestrator.cached import Cached
from orchestrator.migrations.schema import CollateralRow, VerdictRow, WorkerRow

USED_MAX = 500  # needs in one statement


class CollateralView:
    """What can be read of it."""

    _session: Session

    def collateral(self, need: Need) -> Cached | None:
        row = self._session.get(CollateralRow, (str(need.kind), need.name))
        return None if row is None else _cached(row, need)

    def all_collateral(self) -> Iterator[Cached]:
        """Everything, with its documents, by kind and name."""
        ordered = select(CollateralRow).order_by(col(CollateralRow.kind), col(CollateralRow.name))
        for row in self._session.exec(ordered.execution_options(yield_per=100)):
            if (need := _need(row.kind, row.name)) is not None:
                yield _cached(row, need)

    def due_collateral(self, now: datetime, used_since: datetime, limit: int) -> list[Need]:
        """Documents to be renewed that somebody used since then, the one first that is due longest."""
        row = CollateralRow
        due = select(row.kind, row.name).where(
            col(row.renew_at) <= now,
            col(row.used_at) >= used_since,
            (col(row.retry_at).is_(None)) | (col(row.retry_at) <= now),
        )
        found = self._session.exec(due.order_by(col(row.renew_at)).limit(limit))
        return [need for kind, name in found if (need := _need(kind, name)) is not None]

    def wanted_collateral(self, used_since: datetime) -> set[Need]:
        """What the last verdict on each worker rested on, and what was asked for since then."""
        row = CollateralRow
        asked = self._session.exec(select(row.kind, row.name).where(col(row.used_at) >= used_since))
        found = {need for kind, name in asked if (need := _need(kind, name)) is not None}
        last = (
            select(func.max(col(VerdictRow.number)))
            .where(col(VerdictRow.collateral_json) != "{}")
            .join(WorkerRow, col(WorkerRow.id) == col(VerdictRow.worker_id))
            .group_by(col(VerdictRow.worker_id))
        )
        rested = select(VerdictRow.collateral_json).where(col(VerdictRow.number).in_(last)).distinct()
        for text in self._session.exec(rested):
            found |= {need for named in json.loads(text) if (need := _need(*named.split(" ", 1))) is not None}
        return found


class CollateralTx(CollateralView):
    """What can be changed of it."""

    def put_collateral(self, cached: Cached) -> None:
        """Add, or replace what is known."""
        self._session.merge(_row(cached))

    def use_collateral(self, needs: Iterable[Need], now: datetime) -> None:
        """Note that these were asked for."""
        by_kind: dict[str, list[str]] = {}
        for need in needs:
            by_kind.setdefault(str(need.kind), []).append(need.name)
        row = CollateralRow
        for kind, names in by_kind.items():
            for at in range(0, len(names), USED_MAX):
                mine = (col(row.kind) == kind, col(row.name).in_(names[at : at + USED_MAX]))
                self._session.exec(update(row).where(*mine).values(used_at=now))

    def forget_collateral(self, absent_since: datetime, keep: int) -> int:
        """Drop what was never had and is not asked for any more; and beyond `keep`, what was not for longest."""
        row = CollateralRow
        absent = delete(row).where(col(row.data).is_(None), col(row.used_at) < absent_since)
        gone = self._session.exec(absent).rowcount
        last = select(row.used_at).order_by(col(row.used_at).desc()).offset(keep - 1).limit(1)
        if (limit := self._session.exec(last).first()) is not None:
            gone += self._session.exec(delete(row).where(col(row.used_at) < limit)).rowcount
        return gone


# --- rows to values and back ------------------------------------------------------------------------------------------
_PLAIN = ("fetched_at", "renew_at", "expires_at", "used_at", "etag", "retry_at", "failures", "error")


def _need(kind: str, name: str = "") -> Need | None:
    """None for what a newer version named; or somebody else: names of collateral come from installed verifiers."""
    try:
        return Need(CollateralKind(kind), name) if name else None
    except ValueError:
        return None


def _cached(row: CollateralRow, need: Need) -> Cached:
    document = None if row.data is None else Document.of(row.data)
    if document is not None and not hmac.compare_digest(document.sha256, row.sha256):
        return Cached(need, row.used_at)
    return Cached(need, document=document, **{name: getattr(row, name) for name in _PLAIN})


def _row(cached: Cached) -> CollateralRow:
    document = cached.document
    return CollateralRow(
        kind=str(cached.need.kind),
        name=cached.need.name,
        data=None if document is None else document.data,
        sha256="" if document is None else document.sha256,
        **{name: getattr(cached, name) for name in _PLAIN},
    )
