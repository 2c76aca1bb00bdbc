"""
How a database is opened: its transactions, its promises, its revisions.

All that is special to one engine stands here. SQLite is the only one so far; PostgreSQL would add its row locks.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DatabaseError

from orchestrator.migrations import UnknownRevision, upgrade

BUSY_SECONDS_MAX = 15  # that a writer waits for another process's transaction
POOL_CONNECTIONS_MAX = 20

# Execution option of a connection whose transaction will write.
WRITES = "workermanager_writes"

_PRAGMAS = (
    f"PRAGMA busy_timeout = {BUSY_SECONDS_MAX * 1000}",
    # Readers see the last commit while a writer works.
    "PRAGMA journal_mode = WAL",
    # A commit is on the disk before it is acknowledged. NORMAL would be quicker, and lose the last commits with the
    # power: a removed worker would be back, a spent challenge would be good again.
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
)


class StoreError(Exception):
    """The database cannot be used. The message says what to do."""


def open_sqlite(path: Path) -> Engine:
    """Open a database file, or make one that only its owner can read, and bring it up to date. StoreError."""
    try:
        path.touch(mode=0o600, exist_ok=True)
        engine = create_engine(
            f"sqlite:///{path}", pool_size=POOL_CONNECTIONS_MAX, max_overflow=0, pool_timeout=BUSY_SECONDS_MAX
        )
        event.listen(engine, "connect", _connected)
        event.listen(engine, "begin", _begun)
        with engine.connect().execution_options(**{WRITES: True}) as connection, connection.begin():
            upgrade(connection)
    except UnknownRevision as e:
        raise StoreError(f"{path} was written by a newer version: install that, or use another state directory") from e
    except (DatabaseError, OSError) as e:
        reason = e.orig if isinstance(e, DatabaseError) else e.strerror
        raise StoreError(f"{path} cannot be used as database ({reason}): check the file, or name another") from e
    return engine


def _connected(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None  # transactions begin where we say, not where the driver guesses
    for pragma in _PRAGMAS:
        connection.execute(pragma)


def _begun(connection: Connection) -> None:
    """A writer takes the lock at once: one that takes it later can find that what it read has changed, and fails."""
    writes = connection.get_execution_options().get(WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
