"""
The tables. What stands here and what the revisions build must agree; a test compares them.

Times are integers, microseconds since 1970 UTC: their order and their equality are exact, in every engine. Columns
named `…_json` hold JSON text of the contract's messages. Work, verdicts, spans and events outlive their worker, so they
name it without a foreign key.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger, Dialect, Index, Integer, LargeBinary, MetaData, Text, UniqueConstraint
from sqlalchemy.types import TypeDecorator
from sqlmodel import Field, SQLModel

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

# SQLite numbers rows by itself only in a column of the very type INTEGER.
_Number = BigInteger().with_variant(Integer(), "sqlite")


class Moment(TypeDecorator[datetime]):
    """A time as whole microseconds since 1970 UTC. A naive one is an error: nobody knows what it means."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _dialect: Dialect) -> int | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a zone cannot be stored")
        return (value - _EPOCH) // _MICROSECOND

    def process_result_value(self, value: Any | None, _dialect: Dialect) -> datetime | None:
        return None if value is None else _EPOCH + int(value) * _MICROSECOND


METADATA = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class _Table(SQLModel):
    metadata = METADATA


class MetaRow(_Table, table=True):
    """What the orchestrator knows of itself: domain, admin."""

    __tablename__ = "meta"
    key: str = Field(primary_key=True)
    value: str


class WorkerRow(_Table, table=True):
    """A worker, as `registry.Worker`."""

    __tablename__ = "workers"
    id: str = Field(primary_key=True)
    ip_address: str = Field(unique=True)
    payment_wallet: str = Field(index=True)
    worker_type: str
    created_at: datetime = Field(sa_type=Moment)
    worker_key: str | None = None
    tls_spki_sha256: str | None = None
    endpoints_json: str = Field(default="[]", sa_type=Text)
    service: str
    drains_itself: bool = False
    generation: int
    attempt: int = 0
    settled: int = 0
    attested_until: datetime | None = Field(default=None, sa_type=Moment, index=True)
    alive_until: datetime | None = Field(default=None, sa_type=Moment, index=True)
    due_at: datetime | None = Field(default=None, sa_type=Moment, index=True)
    failures: int = 0
    against_json: str = Field(default="[]", sa_type=Text)
    undecided_json: str = Field(default="[]", sa_type=Text)
    verdict_json: str | None = Field(default=None, sa_type=Text)
    evidence_sha256: str = ""
    load_json: str = Field(default="{}", sa_type=Text)


class ChallengeRow(_Table, table=True):
    """A challenge that may still be answered. It is no secret, so it stands as it is; the answer deletes it."""

    __tablename__ = "challenges"
    __table_args__ = (Index(None, "purpose", "owner"), Index(None, "expires_at"))
    challenge: str = Field(primary_key=True)
    purpose: str
    owner: str
    expires_at: datetime = Field(sa_type=Moment)
    generation: int | None = None


class SpentIdRow(_Table, table=True):
    """The id of a signed message that took effect. Ids are per signer: nobody can spend another's."""

    __tablename__ = "spent_ids"
    signer: str = Field(primary_key=True)
    id: str = Field(primary_key=True)
    expires_at: datetime = Field(sa_type=Moment, index=True)


class SubscriberRow(_Table, table=True):
    """Who may ask GetWorkers."""

    __tablename__ = "subscribers"
    public_key: str = Field(primary_key=True)
    name: str
    added_at: datetime = Field(sa_type=Moment)


class VerdictRow(_Table, table=True):
    """Every verdict that was reached, whether or not it came in time to change anything."""

    __tablename__ = "verdicts"
    number: int | None = Field(default=None, primary_key=True, sa_type=_Number)
    worker_id: str = Field(index=True)
    ip_address: str
    payment_wallet: str
    generation: int
    tier: str
    applied: bool
    issued_at: datetime = Field(sa_type=Moment)
    not_after: datetime = Field(sa_type=Moment)
    evidence_sha256: str = Field(index=True)
    policy_sha256: str
    collateral_json: str = Field(default="{}", sa_type=Text)
    verdict_json: str = Field(sa_type=Text)


class DeviceRow(_Table, table=True):
    """Which worker holds a device: one device, one worker."""

    __tablename__ = "devices"
    device: str = Field(primary_key=True)
    worker_id: str = Field(foreign_key="workers.id", ondelete="CASCADE", index=True)
    since: datetime = Field(sa_type=Moment)


class SpanRow(_Table, table=True):
    """From `begin` to before `until`, a worker of this wallet was registered, attested or alive (`fact`)."""

    __tablename__ = "spans"
    __table_args__ = (Index(None, "worker_id", "fact", "until"), Index(None, "until"))
    number: int | None = Field(default=None, primary_key=True, sa_type=_Number)
    worker_id: str
    payment_wallet: str
    fact: str
    begin: datetime = Field(sa_type=Moment)
    until: datetime = Field(sa_type=Moment)


class WorkRow(_Table, table=True):
    """A report of work that was counted."""

    __tablename__ = "work"
    __table_args__ = (UniqueConstraint("worker_id", "epoch", "sequence"), Index(None, "epoch"))
    number: int | None = Field(default=None, primary_key=True, sa_type=_Number)
    worker_id: str
    payment_wallet: str
    epoch: int
    sequence: int = Field(sa_type=BigInteger)
    begin: datetime = Field(sa_type=Moment)
    until: datetime = Field(sa_type=Moment)
    input_tokens: int = Field(sa_type=BigInteger)
    output_tokens: int = Field(sa_type=BigInteger)
    models_json: str = Field(sa_type=Text)
    sha256: str
    counted_at: datetime = Field(sa_type=Moment)


class EventRow(_Table, table=True):
    """Everything that changed a decision, with who and why. Only ever added to."""

    __tablename__ = "events"
    number: int | None = Field(default=None, primary_key=True, sa_type=_Number)
    at: datetime = Field(sa_type=Moment)
    event: str
    worker_id: str | None = Field(default=None, index=True)
    ip_address: str | None = None
    payment_wallet: str | None = None
    actor: str
    reasons_json: str = Field(default="[]", sa_type=Text)
    details_json: str = Field(default="{}", sa_type=Text)


class CollateralRow(_Table, table=True):
    """A document of a vendor's, or that it could not be had, as `cached.Cached`."""

    __tablename__ = "collateral"
    kind: str = Field(primary_key=True)
    name: str = Field(primary_key=True)
    data: bytes | None = Field(default=None, sa_type=LargeBinary)
    sha256: str = ""
    fetched_at: datetime | None = Field(default=None, sa_type=Moment)
    renew_at: datetime | None = Field(default=None, sa_type=Moment, index=True)
    expires_at: datetime | None = Field(default=None, sa_type=Moment)
    used_at: datetime = Field(sa_type=Moment, index=True)
    etag: str = ""
    retry_at: datetime | None = Field(default=None, sa_type=Moment)
    failures: int = 0
    error: str = Field(default="", sa_type=Text)


class PolicyRow(_Table, table=True):
    """A policy from some moment on; the last of its scope and subject counts. Empty `text`: none from then on."""

    __tablename__ = "policies"
    __table_args__ = (Index(None, "scope", "subject", "number"),)
    number: int | None = Field(default=None, primary_key=True, sa_type=_Number)
    scope: str
    subject: str
    name: str
    sha256: str
    text: str = Field(sa_type=Text)
    at: datetime = Field(sa_type=Moment)
    actor: str


class JudgedRow(_Table, table=True):
    """The evidence that a worker's verdict is about, as it came, and the signed result."""

    __tablename__ = "judged"
    worker_id: str = Field(primary_key=True, foreign_key="workers.id", ondelete="CASCADE")
    evidence: str = Field(sa_type=Text)
    evidence_sha256: str
    challenge: str | None = None
    tls_spki_sha256: str | None = None
    at: datetime = Field(sa_type=Moment)
    result: str = Field(sa_type=Text)
