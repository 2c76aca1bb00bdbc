"""What Alembic runs: every revision, on the connection that `migrations.upgrade` hands in."""

from __future__ import annotations

from alembic import context

from orchestrator.migrations.schema import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA, render_as_batch=True)
context.run_migrations()
