"""
The first tables.

Columns of time are whole microseconds since 1970 UTC. A revision names no type of the program: it must build the same
tables in ten years.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# SQLite numbers rows by itself only in a column of the very type INTEGER.
_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "challenges",
        sa.Column("challenge", sa.String(), nullable=False),
        sa.Column("purpose", sa.String(), nullable=False),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("challenge", name=op.f("pk_challenges")),
    )
    op.create_index(op.f("ix_challenges_purpose_owner"), "challenges", ["purpose", "owner"])
    op.create_index(op.f("ix_challenges_expires_at"), "challenges", ["expires_at"])
    op.create_table(
        "events",
        sa.Column("number", _NUMBER, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("event", sa.String(), nullable=False),
        sa.Column("worker_id", sa.String(), nullable=True),
        sa.Column("ip_address", sa.String(), nullable=True),
        sa.Column("payment_wallet", sa.String(), nullable=True),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("reasons_json", sa.Text(), nullable=False),
        sa.Column("details_json", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_events")),
    )
    op.create_index(op.f("ix_events_worker_id"), "events", ["worker_id"])
    op.create_table(
        "meta",
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("value", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_meta")),
    )
    op.create_table(
        "spans",
        sa.Column("number", _NUMBER, nullable=False),
        sa.Column("worker_id", sa.String(), nullable=False),
        sa.Column("payment_wallet", sa.String(), nullable=False),
        sa.Column("fact", sa.String(), nullable=False),
        sa.Column("begin", sa.BigInteger(), nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_spans")),
    )
    op.create_index(op.f("ix_spans_until"), "spans", ["until"])
    op.create_index(op.f("ix_spans_worker_id_fact_until"), "spans", ["worker_id", "fact", "until"])
    op.create_table(
        "spent_ids",
        sa.Column("signer", sa.String(), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("signer", "id", name=op.f("pk_spent_ids")),
    )
    op.create_index(op.f("ix_spent_ids_expires_at"), "spent_ids", ["expires_at"])
    op.create_table(
        "subscribers",
        sa.Column("public_key", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("added_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("public_key", name=op.f("pk_subscribers")),
    )
    op.create_table(
        "verdicts",
        sa.Column("number", _NUMBER, nullable=False),
        sa.Column("worker_id", sa.String(), nullable=False),
        sa.Column("ip_address", sa.String(), nullable=False),
        sa.Column("payment_wallet", sa.String(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("tier", sa.String(), nullable=False),
        sa.Column("applied", sa.Boolean(), nullable=False),
        sa.Column("issued_at", sa.BigInteger(), nullable=False),
        sa.Column("not_after", sa.BigInteger(), nullable=False),
        sa.Column("evidence_sha256", sa.String(), nullable=False),
        sa.Column("policy_sha256", sa.String(), nullable=False),
        sa.Column("collateral_json", sa.Text(), nullable=False),
        sa.Column("verdict_json", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_verdicts")),
    )
    op.create_index(op.f("ix_verdicts_evidence_sha256"), "verdicts", ["evidence_sha256"])
    op.create_index(op.f("ix_verdicts_worker_id"), "verdicts", ["worker_id"])
    op.create_table(
        "work",
        sa.Column("number", _NUMBER, nullable=False),
        sa.Column("worker_id", sa.String(), nullable=False),
        sa.Column("payment_wallet", sa.String(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("begin", sa.BigInteger(), nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("models_json", sa.Text(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("counted_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_work")),
        sa.UniqueConstraint("worker_id", "epoch", "sequence", name=op.f("uq_work_worker_id_epoch_sequence")),
    )
    op.create_index(op.f("ix_work_epoch"), "work", ["epoch"])
    op.create_table(
        "workers",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("ip_address", sa.String(), nullable=False),
        sa.Column("payment_wallet", sa.String(), nullable=False),
        sa.Column("worker_type", sa.String(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("worker_key", sa.String(), nullable=True),
        sa.Column("tls_spki_sha256", sa.String(), nullable=True),
        sa.Column("endpoints_json", sa.Text(), nullable=False),
        sa.Column("service", sa.String(), nullable=False),
        sa.Column("drains_itself", sa.Boolean(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("settled", sa.Integer(), nullable=False),
        sa.Column("attested_until", sa.BigInteger(), nullable=True),
        sa.Column("alive_until", sa.BigInteger(), nullable=True),
        sa.Column("due_at", sa.BigInteger(), nullable=True),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("against_json", sa.Text(), nullable=False),
        sa.Column("undecided_json", sa.Text(), nullable=False),
        sa.Column("verdict_json", sa.Text(), nullable=True),
        sa.Column("evidence_sha256", sa.String(), nullable=False),
        sa.Column("load_json", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workers")),
        sa.UniqueConstraint("ip_address", name=op.f("uq_workers_ip_address")),
    )
    op.create_index(op.f("ix_workers_alive_until"), "workers", ["alive_until"])
    op.create_index(op.f("ix_workers_attested_until"), "workers", ["attested_until"])
    op.create_index(op.f("ix_workers_due_at"), "workers", ["due_at"])
    op.create_index(op.f("ix_workers_payment_wallet"), "workers", ["payment_wallet"])
    op.create_table(
        "devices",
        sa.Column("device", sa.String(), nullable=False),
        sa.Column("worker_id", sa.String(), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["worker_id"], ["workers.id"], name=op.f("fk_devices_worker_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("device", name=op.f("pk_devices")),
    )
    op.create_index(op.f("ix_devices_worker_id"), "devices", ["worker_id"])
