"""
An emulated Intel TDX machine: it keeps its identity over restarts, and makes quotes for any REPORTDATA.

It shares no code with the verifier, so that a mistake in one is not mirrored by the other.
"""

from __future__ import annotations

import hashlib
import os
import re
import struct
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from attest.evidence import INTEL_TDX, Evidence
from nodeprobe.emulator.pki import EmulatorError, move_into_place, read_key, write_key
from nodeprobe.emulator.rim import write_whole
from nodeprobe.emulator.tdx_collateral import CollateralDraft
from nodeprobe.emulator.tdx_defect import TdxDefect
from nodeprobe.emulator.tdx_defects import named
from nodeprobe.emulator.tdx_pki import ID_BYTES, IntelPki, PckDraft, p256
from nodeprobe.emulator.tdx_quote import (
    INTEL_QE,
    P256_KEY,
    REPORT_DATA_BYTES,
    TD_1_0,
    TDX_TEE,
    QuoteDraft,
    body_of,
)

COLLATERAL = "collateral.json"
EARLIER = hashlib.sha512(b"an earlier challenge").digest()
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class EmulatedTd:
    """A TD on a machine of the emulator. Frozen: `spoiled("tdx-debug")` gives another one with that defect."""

    name: str
    pki: IntelPki
    key: ec.EllipticCurvePrivateKey = field(repr=False)  # of the PCK certificate
    pck: x509.Certificate = field(repr=False)
    ca: str = "platform"
    body_type: int = TD_1_0
    defects: tuple[TdxDefect, ...] = ()

    @classmethod
    def create(
        cls, pki: IntelPki, name: str, *, now: datetime, ca: str = "platform", body_type: int = TD_1_0
    ) -> EmulatedTd:
        """The machine of this name in the PKI, made now unless it is there. Raises EmulatorError."""
        if not _NAME.fullmatch(name):
            raise EmulatorError(f"{name!r} names no machine: use up to 64 of a-z, 0-9, dot, dash and underscore")
        folder = pki.path / "platforms" / name
        if not folder.exists():
            move_into_place(folder, lambda aside: _lay_down(aside, pki, name, ca, now))
        try:
            key, pck = read_key(folder / "pck.key"), x509.load_pem_x509_certificate((folder / "pck.pem").read_bytes())
        except (OSError, ValueError, TypeError) as e:
            raise EmulatorError(f"{folder} holds no machine ({e}): remove that folder, and it is made anew") from e
        return cls(name, pki, key, pck, ca, body_type)

    def spoiled(self, *names: str) -> EmulatedTd:
        """The same machine with these defects, and no others. Raises EmulatorError for a name that is none."""
        return replace(self, defects=tuple(named(each) for each in names))

    @property
    def ppid(self) -> bytes:
        """The 16 bytes that its PCK certificate identifies it by."""
        return _identity(self.name, self.key)[0]

    def quote(self, report_data: bytes) -> bytes:
        """A quote over REPORTDATA of 64 bytes. Raises ValueError for any other, as configfs-tsm does for more."""
        if len(report_data) != REPORT_DATA_BYTES:
            raise ValueError(f"REPORTDATA of {len(report_data)} bytes, not {REPORT_DATA_BYTES}")
        if any(each.replays for each in self.defects):
            return self._recorded()
        draft = self._draft(report_data)
        for each in self.defects:
            if each.quote is not None:
                each.quote(draft)
        return draft.signed()

    def evidence(self, report_data: bytes) -> Evidence:
        """The quote, as a node hands it over; its certificates are inside."""
        return Evidence(INTEL_TDX, self.quote(report_data))

    def collateral(self, now: datetime) -> bytes:
        """What the emulated Intel publishes for this machine at `now`: JSON, with the defects that are collateral's."""
        draft = CollateralDraft.of(self.pki, self.pck, now=now, ca=self.ca)
        for each in self.defects:
            if each.collateral is not None:
                each.collateral(draft)
        return draft.made()

    def publish(self, now: datetime) -> Path:
        """Write the collateral beside the PKI, for processes that share it."""
        path = self.pki.path / COLLATERAL
        write_whole(path, self.collateral(now))
        return path

    def _recorded(self) -> bytes:
        """An old quote, always the same."""
        path = self.pki.path / "platforms" / self.name / "recorded.bin"
        if not path.exists():
            write_whole(path, self._draft(EARLIER).signed())
        return path.read_bytes()

    def _draft(self, report_data: bytes) -> QuoteDraft:
        version = 4 if self.body_type == TD_1_0 else 5
        return QuoteDraft(
            version=version,
            body_type=self.body_type,
            body=body_of(self.body_type, report_data, self.name),
            header={
                "version": struct.pack("<H", version),
                "key_type": struct.pack("<H", P256_KEY),
                "tee_type": struct.pack("<I", TDX_TEE),
                "qe_svn": bytes(2),
                "pce_svn": bytes(2),
                "qe_vendor": INTEL_QE,
                "user_data": os.urandom(16) + bytes(4),
            },
            key=p256(),
            pck_key=self.key,
            chain=[self.pck, self.pki.ca(self.ca).certificate, self.pki.root.certificate],
            pki=self.pki,
            pck=_pck(self.name, self.key, self.ca, self.pck.not_valid_before_utc),
            ca=self.ca,
        )


def _identity(name: str, key: ec.EllipticCurvePrivateKey) -> tuple[bytes, bytes]:
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    digest = hashlib.sha256(name.encode() + public).digest()
    return digest[:ID_BYTES], digest[ID_BYTES:]


def _pck(name: str, key: ec.EllipticCurvePrivateKey, ca: str, start: datetime) -> PckDraft:
    ppid, instance = _identity(name, key)
    return PckDraft(ppid, instance if ca == "platform" else None, start)


def _lay_down(folder: Path, pki: IntelPki, name: str, ca: str, now: datetime) -> None:
    key = p256()
    start = now.replace(hour=0, minute=0, second=0, microsecond=0)
    pck = _pck(name, key, ca, start).issued(pki.ca(ca), key.public_key())
    write_key(folder / "pck.key", key)
    (folder / "pck.pem").write_bytes(pck.public_bytes(Encoding.PEM))
