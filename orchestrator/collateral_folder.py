"""
Collateral in and out: a folder that another orchestrator imports, and that `attest verify --collateral` reads, too.

So an air-gapped registry lives: one that has a network exports, somebody carries the folder over, the other imports.
Documents are signed by those whose they are; the manifest beside them (`attest.manifest`) only says which is which.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path

from attest.collateral import CollateralKind, Need
from attest.folder import FILES_MAX, Folder, FolderError
from attest.manifest import ENTRIES_MAX, MANIFEST, Entry, dumps
from orchestrator.cached import Cached
from orchestrator.collateral_checks import Checker, Rejected
from orchestrator.store import Store, Tx

SKEW = timedelta(minutes=5)  # of another machine's clock
_SUFFIXES = {
    CollateralKind.NVIDIA_RIM: "xml",
    CollateralKind.NVIDIA_NRAS_JWKS: "json",
    CollateralKind.INTEL_TCB_INFO: "json",
    CollateralKind.INTEL_QE_IDENTITY: "json",
    CollateralKind.INTEL_PCK_CRL: "json",
    CollateralKind.AMD_ISSUERS: "pem",
}


class Outcome(StrEnum):
    """What became of a document that was to be imported."""

    IMPORTED = "imported"
    KEPT = "kept"  # the cache has one that was fetched later, or this very one
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Taken:
    """One document of an import, and why it was not taken, if it was not."""

    need: Need
    outcome: Outcome
    why: str = ""


def export_to(folder: Path, everything: Iterable[Cached], now: datetime) -> list[Entry]:
    """
    Write every document, and at last the manifest: who reads meanwhile finds old or new, never half. FolderError if the
    folder holds anything but an earlier export, or cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        before = _earlier(folder)
        entries = [_written(folder, each) for each in everything if each.document is not None]
        if len(entries) > min(ENTRIES_MAX, FILES_MAX - 1):
            raise FolderError(f"{len(entries)} documents are too many for one folder")
        _write_whole(folder / MANIFEST, dumps(entries, now))
        for name in before - {entry.file for entry in entries}:
            (folder / name).unlink(missing_ok=True)
    except OSError as e:
        raise FolderError(f"{folder} cannot be written ({e.strerror}): name another") from e
    return entries


def import_from(folder: Path, store: Store, checker: Checker, now: datetime) -> list[Taken]:
    """
    Take in what the folder's manifest lists. Everything is checked first, as if it had just been fetched; then what
    passed is stored, all at once. FolderError if there is no manifest.
    """
    source = Folder(folder)
    if not (folder / MANIFEST).is_file():
        raise FolderError(f"{folder} has no {MANIFEST}: name a folder that `collateral export` wrote")
    taken: list[Taken] = []
    good: list[Cached] = []
    for need in sorted(source.listed):
        try:
            good.append(_checked(source, source.listed[need], checker, now))
        except Rejected as e:
            taken.append(Taken(need, Outcome.REFUSED, str(e)))
    with store.transaction() as tx:
        taken += [_put(tx, each) for each in good]
    return sorted(taken, key=lambda each: each.need)


def _checked(source: Folder, entry: Entry, checker: Checker, now: datetime) -> Cached:
    document = source.document(entry.need)
    if document is None:
        raise Rejected(f"{entry.file} is absent, or is not what the manifest lists")
    if entry.fetched_at > now + SKEW:
        raise Rejected(f"fetched at {entry.fetched_at:%Y-%m-%dT%H:%M:%SZ}, which is to come")
    fetched_at = min(entry.fetched_at, now)
    return Cached(entry.need, now).fetched(document, checker.check(entry.need, document, fetched_at), fetched_at)


def _put(tx: Tx, new: Cached) -> Taken:
    known = tx.collateral(new.need)
    had = None if known is None else known.fetched_at
    if had is not None and new.fetched_at is not None and had >= new.fetched_at:
        return Taken(new.need, Outcome.KEPT, f"the cache's is of {had:%Y-%m-%dT%H:%M:%SZ}")
    tx.put_collateral(new)
    return Taken(new.need, Outcome.IMPORTED)


def _earlier(folder: Path) -> set[str]:
    """The files of an earlier export."""
    present = {path.name for path in folder.iterdir()}
    if not present:
        return set()
    ours = {entry.file for entry in Folder(folder).listed.values()}
    if others := sorted(present - ours - {MANIFEST}):
        raise FolderError(f"{folder} holds {others[0]}, which is not from an export: name an empty folder")
    return ours


def _written(folder: Path, cached: Cached) -> Entry:
    need, document, fetched_at = cached.need, cached.document, cached.fetched_at
    if document is None or fetched_at is None:
        raise ValueError(f"{need} was never fetched")
    name = _file_name(need)
    _write_whole(folder / name, document.data)
    return Entry(need, name, document.sha256, fetched_at, cached.expires_at)


def _file_name(need: Need) -> str:
    """RIMs are named as NVIDIA's own tools look for them; other names are too long, or no names of files."""
    if need.kind == CollateralKind.NVIDIA_RIM:
        return f"{need.name}.xml"
    return f"{need.kind}-{hashlib.sha256(need.name.encode()).hexdigest()[:24]}.{_SUFFIXES.get(need.kind, 'der')}"


def _write_whole(path: Path, data: bytes) -> None:
    """Nobody ever reads half of it. Nothing here is secret."""
    handle, aside = tempfile.mkstemp(prefix=".", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(handle)
            os.fchmod(handle, 0o644)
        Path(aside).replace(path)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise
