"""
The manifest of a folder of collateral: which file answers which need, and when it was fetched.

    {"format": "workermanager/collateral/v1", "written_at": TIME, "documents": [
        {"kind": KIND, "name": NAME, "file": FILE, "sha256": HEX, "fetched_at": TIME, "expires_at": TIME or null}, …]}

It is not signed, and need not be: documents are, by those whose they are, and a verifier believes nothing else. One
kind is not: the keys of NVIDIA's remote verifier (`nvidia-nras-jwks`) are as good as where they come from, so whoever
writes a folder that holds them is trusted for NRAS tokens. What the manifest says serves to find documents, and to say
of one that it should have been fetched anew (`expires_at`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from attest.collateral import CollateralKind, Need
from attest.jws import strict_json

MANIFEST = "manifest.json"
FORMAT = "workermanager/collateral/v1"
MANIFEST_BYTES_MAX = 64 << 20
ENTRIES_MAX = 100_000
_NAME = re.compile(r"[\x21-\x7e]{1,512}")  # visible ASCII, as vendors name things
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,250}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MEMBERS = {"kind", "name", "file", "sha256", "fetched_at", "expires_at"}


class ManifestError(Exception):
    """The bytes are no manifest; the message says why."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One document: `expires_at` is when it should have been fetched anew, None for never."""

    need: Need
    file: str  # in the same folder
    sha256: str
    fetched_at: datetime
    expires_at: datetime | None


def parse(data: bytes) -> dict[Need, Entry]:
    """The entries of a manifest, those of kinds that we do not know left out. ManifestError if it is none."""
    if len(data) > MANIFEST_BYTES_MAX:
        raise ManifestError(f"{len(data)} bytes, at most {MANIFEST_BYTES_MAX}")
    try:
        document = strict_json(data)
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise ValueError(f"want format {FORMAT!r}")
        listed = document.get("documents")
        if not isinstance(listed, list) or len(listed) > ENTRIES_MAX:
            raise ValueError(f"want a list of at most {ENTRIES_MAX} documents")
        entries = [_entry(each) for each in listed]
    except ValueError as e:
        raise ManifestError(str(e)) from e
    found = {entry.need: entry for entry in entries if entry is not None}
    if len(found) != sum(entry is not None for entry in entries):
        raise ManifestError("one document is listed twice")
    return found


def dumps(entries: Iterable[Entry], written_at: datetime) -> bytes:
    """The manifest of these entries."""
    listed = [
        {
            "kind": str(each.need.kind),
            "name": each.need.name,
            "file": each.file,
            "sha256": each.sha256,
            "fetched_at": each.fetched_at.isoformat(),
            "expires_at": None if each.expires_at is None else each.expires_at.isoformat(),
        }
        for each in entries
    ]
    document = {"format": FORMAT, "written_at": written_at.isoformat(), "documents": listed}
    return json.dumps(document, indent=1).encode() + b"\n"


def _entry(listed: object) -> Entry | None:
    if not isinstance(listed, dict) or listed.keys() != _MEMBERS:
        raise ValueError(f"an entry must have exactly {', '.join(sorted(_MEMBERS))}")
    kind, name, file, sha256 = (_text(listed, member) for member in ("kind", "name", "file", "sha256"))
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a document")
    if not _FILE.fullmatch(file):
        raise ValueError(f"{file!r} is no name of a file in this folder")
    if not _SHA256.fullmatch(sha256):
        raise ValueError(f"{sha256!r} is no SHA-256")
    fetched_at = _moment(_text(listed, "fetched_at"))
    expires_at = None if listed["expires_at"] is None else _moment(_text(listed, "expires_at"))
    try:
        return Entry(Need(CollateralKind(kind), name), file, sha256, fetched_at, expires_at)
    except ValueError:
        return None  # of a newer version


def _text(listed: Mapping[str, Any], member: str) -> str:
    value = listed[member]
    if not isinstance(value, str):
        raise ValueError(f"{member} is no text")
    return value


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    try:
        return moment.astimezone(UTC)
    except OverflowError as e:  # the first or the last day there is, somewhere else
        raise ValueError(f"{text!r} is out of range") from e
