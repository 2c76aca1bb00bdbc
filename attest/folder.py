"""
Collateral from a folder: RIMs that somebody laid down, named `<RIM id>.xml` or anything, recognised by content.

What a file claims to be only serves to find it. Whether it is genuine, and for this device, the verifier decides.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509

from attest.collateral import Document, Need
from attest.x509 import UNREADABLE
from attest.xmldsig import DOCUMENT_BYTES_MAX

FILES_MAX = 10_000
_VERSION = re.compile(rb'colloquialVersion="([0-9A-Za-z.]{1,64})"')
_CERTIFICATE = re.compile(rb"X509Certificate>([0-9A-Za-z+/=\s]{1,8192})<")
_SIGNED_TAG = (b"SoftwareIdentity", b"Signature")


class FolderError(Exception):
    """The folder cannot be read; the message says why."""


@dataclass(frozen=True, slots=True)
class _Rim:
    path: Path
    version: str  # dots removed, upper case: what RIM ids end in
    not_before: datetime
    not_after: datetime


class Folder:
    """A Fetch over a folder. `read` looks again; documents themselves are read when asked for."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rims: tuple[_Rim, ...] = ()
        self.read()

    def read(self) -> None:
        """Look at every file, one level deep. FolderError if there is no such folder, or too much in it."""
        if not self._path.is_dir():
            raise FolderError(f"{self._path} is no folder; put RIMs there, or name another with --collateral")
        files = sorted(path for path in self._path.iterdir() if path.is_file())
        if len(files) > FILES_MAX:
            raise FolderError(f"{self._path} holds {len(files)} files, at most {FILES_MAX} are looked at")
        self._rims = tuple(rim for path in files if (rim := _recognise(path)) is not None)

    def at(self, now: datetime) -> Candidates:
        """A Fetch for a verification at `now`: of several RIMs of one version, signers change over the years."""
        return Candidates(self._rims, now)


@dataclass(frozen=True, slots=True)
class Candidates:
    """Picks, of the documents that may answer a need, the one signed last among those valid at `now`, if any is."""

    rims: tuple[_Rim, ...]
    now: datetime

    def __call__(self, need: Need) -> Document | None:
        version = need.name.rsplit("_", 1)[-1].replace(".", "").upper()
        named = [rim for rim in self.rims if rim.path.stem.upper() == need.name.upper()]
        fitting = named or [rim for rim in self.rims if rim.version == version]
        if not fitting:
            return None
        current = [rim for rim in fitting if rim.not_before <= self.now <= rim.not_after]
        best = max(current or fitting, key=lambda rim: rim.not_before)
        try:
            return Document.of(best.path.read_bytes())
        except OSError:
            return None  # it was there a moment ago; as good as absent


def _recognise(path: Path) -> _Rim | None:
    """What a RIM says of itself, or None for any other file. Believed for choosing only."""
    try:
        if path.stat().st_size > DOCUMENT_BYTES_MAX:
            return None
        data = path.read_bytes()
    except OSError:
        return None
    version, certificate = _VERSION.search(data), _CERTIFICATE.search(data)
    if version is None or certificate is None or not all(word in data for word in _SIGNED_TAG):
        return None
    pem = b"-----BEGIN CERTIFICATE-----\n" + certificate[1].strip() + b"\n-----END CERTIFICATE-----\n"
    try:
        signer = x509.load_pem_x509_certificate(pem)
        window = signer.not_valid_before_utc, signer.not_valid_after_utc
    except UNREADABLE:
        return None
    return _Rim(path, version[1].decode().replace(".", "").upper(), *window)
