"""
The broker of collateral: where a verification's documents come from.

For now from a folder that an operator keeps. Fetching from the manufacturers, checking before caching, and a policy on
staleness belong here, too: as a further source behind `at`, asked when the folder has nothing.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Protocol

from attest.collateral import Fetch, nothing
from attest.folder import Folder


class Broker(Protocol):
    """Where a judge gets collateral from."""

    def at(self, now: datetime) -> Fetch:
        """A Fetch for one verification at `now`."""


class FolderBroker:
    """Reads a folder of RIMs, named `<RIM id>.xml` or anything. Without a folder there is no collateral at all."""

    def __init__(self, path: Path | None) -> None:
        """Raises `attest.folder.FolderError` if there is no such folder."""
        self._folder = None if path is None else Folder(path)

    def at(self, now: datetime) -> Fetch:
        return nothing if self._folder is None else self._folder.at(now)

    def refresh(self) -> None:
        """Look at the folder again: new firmware needs new RIMs, and nobody wants to restart for them."""
        if self._folder is not None:
            self._folder.read()
