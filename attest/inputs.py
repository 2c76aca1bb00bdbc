"""What the commands of `attest` are given: files and folders, read within bounds; a mistake is a usage error."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:  # imports of the real work wait until a command runs, so that --help is quick
    from attest.anchors import Anchors
    from attest.collateral import Fetch
    from attest.policy import Policy
    from attest.verify import Verifiers


def pieces(files: Sequence[Path]) -> list[bytes]:
    """The files, as far as it takes to see that they are too many or too large."""
    from attest.containers import FILES_MAX
    from attest.evidence import BUNDLE_BYTES_MAX

    found: list[bytes] = []
    for path in files[: FILES_MAX + 1]:
        found.append(bounded(path, BUNDLE_BYTES_MAX - sum(map(len, found))))
        if sum(map(len, found)) > BUNDLE_BYTES_MAX:
            break
    return found


def bounded(path: Path, most: int) -> bytes:
    """The file if it has at most `most` bytes, else one byte more than that: whoever gets it refuses it."""
    try:
        with path.open("rb") as file:
            return file.read(most + 1)
    except OSError as e:
        raise click.UsageError(f"{path} cannot be read: {e.strerror}") from e


def policy_named(name: str) -> Policy:
    """A policy that ships with us, or of a TOML file."""
    from attest.policy import POLICY_BYTES_MAX, SHIPPED, PolicyError, parse, shipped

    path = Path(name)
    try:
        if name in SHIPPED:
            return shipped(name)
        if not path.is_file():
            raise click.UsageError(f"no policy {name!r}: give {', '.join(SHIPPED)} or a TOML file")
        return parse(bounded(path, POLICY_BYTES_MAX).decode())
    except (PolicyError, UnicodeDecodeError) as e:
        raise click.UsageError(f"policy {name}: {e}") from e


def anchors(trust_root: Path | None) -> Anchors:
    """The vendors' roots, and those of an emulator if they are named."""
    from attest.anchors import ANCHORS_BYTES_MAX, VENDORS, load_emulated

    if trust_root is None:
        return VENDORS
    try:
        return VENDORS.trusting(load_emulated(bounded(trust_root, ANCHORS_BYTES_MAX)))
    except ValueError as e:
        raise click.UsageError(f"--trust-root {trust_root}: {e}") from e


def verifiers(trusted: Anchors) -> Verifiers:
    """All that are installed."""
    from attest.verify import installed

    try:
        return installed(trusted)
    except ValueError as e:
        raise click.UsageError(str(e)) from e


def fetch(collateral: Path | None, now: datetime) -> Fetch:
    """From a folder, or from nowhere."""
    from attest.collateral import nothing
    from attest.folder import Folder, FolderError

    if collateral is None:
        return nothing
    try:
        return Folder(collateral).at(now)
    except FolderError as e:
        raise click.UsageError(str(e)) from e
