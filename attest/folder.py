"""
Collateral from a folder: documents of every kind that a manifest lists (`attest.manifest`, as `orchestrator collateral
export` writes it), and what somebody laid down: RIMs, named `<RIM id>.xml` or anything, recognised by content; OCSP
responses, under any name that ends in .der; Intel's documents for TDX, as one JSON of the form that PCCS clients
exchange, under any name that ends in .json.

What a file claims to be only serves to find it. Whether it is genuine, and for this device, the verifier decides.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from cryptography import x509

from attest import ocsp
from attest.collateral import CollateralKind, Document, Need
from attest.errors import AttestError
from attest.manifest import MANIFEST, MANIFEST_BYTES_MAX, Entry, ManifestError, parse
from attest.tdx.documents import BUNDLE_BYTES_MAX as TDX_BYTES_MAX
from attest.tdx.documents import split
from attest.x509 import UNREADABLE
from attest.xmldsig import DOCUMENT_BYTES_MAX

FILES_MAX = 100_000
FILE_BYTES_MAX = 8 << 20  # of what a manifest lists
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
        self._listed: Mapping[Need, Entry] = {}
        self._bundled: Mapping[Need, Document] = {}
        self._answers: tuple[tuple[datetime, Need, Document], ...] = ()
        self.read()

    @property
    def listed(self) -> Mapping[Need, Entry]:
        """What the manifest lists; nothing if there is none."""
        return self._listed

    def read(self) -> None:
        """Look at every file, one level deep. FolderError if there is no such folder, or too much in it."""
        if not self._path.is_dir():
            raise FolderError(f"{self._path} is no folder; put RIMs there, or name another with --collateral")
        try:
            files = sorted(path for path in self._path.iterdir() if path.is_file())
        except OSError as e:
            raise FolderError(f"{self._path} cannot be read: {e.strerror}") from e
        if len(files) > FILES_MAX:
            raise FolderError(f"{self._path} holds {len(files)} files, at most {FILES_MAX} are looked at")
        self._listed = self._manifest()
        named = {MANIFEST, *(entry.file for entry in self._listed.values())}
        others = [path for path in files if path.name not in named]
        self._bundled = {need: found for path in others for need, found in _bundle(path).items()}
        self._answers = tuple(found for path in others if (found := _answer(path)) is not None)
        self._rims = tuple(rim for path in others if (rim := _recognise(path)) is not None)

    def document(self, need: Need) -> Document | None:
        """What the manifest lists for this need; None if it lists nothing, or the file is not what it lists."""
        entry = self._listed.get(need)
        return None if entry is None else _listed_document(self._path, entry)

    def _manifest(self) -> Mapping[Need, Entry]:
        path = self._path / MANIFEST
        if not path.is_file():
            return {}
        try:
            with path.open("rb") as file:
                return parse(file.read(MANIFEST_BYTES_MAX + 1))
        except OSError as e:
            raise FolderError(f"{path} cannot be read: {e.strerror}") from e
        except ManifestError as e:
            raise FolderError(f"{path} is no manifest of collateral: {e}") from e

    def at(self, now: datetime) -> Candidates:
        """A Fetch for a verification at `now`: of several RIMs of one version, signers change over the years."""
        given = sorted((each for each in self._answers if each[0] <= now), key=lambda each: each[0])
        answers = {need: document for _, need, document in given}  # of several, the last one given by then
        return Candidates(self._rims, now, self._path, self._listed, {**self._bundled, **answers})


@dataclass(frozen=True, slots=True)
class Candidates:
    """
    What the manifest lists for a need. Else, of the RIMs that may answer it, the one signed last among those valid at
    `now`, if any is.
    """

    rims: tuple[_Rim, ...]
    now: datetime
    path: Path = Path()
    listed: Mapping[Need, Entry] = field(default_factory=dict)
    bundled: Mapping[Need, Document] = field(default_factory=dict)

    def __call__(self, need: Need) -> Document | None:
        entry = self.listed.get(need)
        if entry is None:
            rim = need.kind == CollateralKind.NVIDIA_RIM
            return self._recognised(need) if rim else self.bundled.get(need)
        document = _listed_document(self.path, entry)
        if document is None or entry.expires_at is None or self.now < entry.expires_at:
            return document
        return replace(document, stale_since=entry.expires_at)

    def _recognised(self, need: Need) -> Document | None:
        version = need.name.rsplit("_", 1)[-1].replace(".", "").upper()
        named = [rim for rim in self.rims if rim.path.stem.upper() == need.name.upper()]
        fitting = named or [rim for rim in self.rims if rim.version == version]
        if not fitting:
            return None
        current = [rim for rim in fitting if rim.not_before <= self.now < rim.not_after]
        best = max(current or fitting, key=lambda rim: rim.not_before)
        try:
            return Document.of(best.path.read_bytes())
        except OSError:
            return None  # it was there a moment ago; as good as absent


def _listed_document(folder: Path, entry: Entry) -> Document | None:
    """Half a file, or another than the manifest lists, is as good as absent."""
    path = folder / entry.file
    try:
        if not path.is_file() or path.stat().st_size > FILE_BYTES_MAX:
            return None
        document = Document.of(path.read_bytes())
    except OSError:
        return None
    return document if hmac.compare_digest(document.sha256, entry.sha256) else None


def _bundle(path: Path) -> Mapping[Need, Document]:
    """The documents of a bundle for TDX; none of any other file."""
    try:
        if path.suffix != ".json" or path.stat().st_size > TDX_BYTES_MAX:
            return {}
        return split(path.read_bytes())
    except (OSError, AttestError):
        return {}


def _answer(path: Path) -> tuple[datetime, Need, Document] | None:
    """An OCSP response, since when it counts and what it answers; None for any other file."""
    try:
        if path.suffix != ".der" or path.stat().st_size > ocsp.RESPONSE_BYTES_MAX:
            return None
        data = path.read_bytes()
    except OSError:
        return None
    named = ocsp.named(data)
    return None if named is None else (named[1], Need(CollateralKind.NVIDIA_OCSP, named[0]), Document.of(data))


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
