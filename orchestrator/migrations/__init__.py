"""The database: its tables (`schema`), and the revisions that lead there (`versions`), run when a store is opened."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError
from sqlalchemy import Connection


class UnknownRevision(Exception):
    """The database was written by a newer version of this program."""


def upgrade(connection: Connection) -> None:
    """Bring the database up to date, within the connection's transaction: all revisions, or none. UnknownRevision."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as e:
        raise UnknownRevision(str(e)) from e
