"""An emulated device of any family: it keeps its identity over restarts, and makes evidence for any nonce."""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from cryptography.hazmat.primitives.asymmetric import ec

from attest.evidence import NVIDIA, Evidence
from nodeprobe.emulator import spdm
from nodeprobe.emulator.chain import ChainDraft, pdi_of
from nodeprobe.emulator.defect import Defect
from nodeprobe.emulator.defects import named
from nodeprobe.emulator.families import HOPPER, Family
from nodeprobe.emulator.models import Model
from nodeprobe.emulator.pki import EmulatorError, Pki, move_into_place, new_key, pem, read_key, write_key
from nodeprobe.emulator.rim import write_whole

FWID = hashlib.sha384(b"emulated GSP firmware").digest()  # of the firmware that certificate and report both name
EARLIER_NONCE = hashlib.sha256(b"an earlier challenge").digest()
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Kept:
    """What lies in a device's folder."""

    brom_key: ec.EllipticCurvePrivateKey = field(repr=False)
    leaf_key: ec.EllipticCurvePrivateKey = field(repr=False)
    chain: bytes = field(repr=False)  # PEM, leaf first


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatedDevice(ABC):
    """
    A device of the emulator. Frozen: `spoiled("measurement-changed")` gives another one, with the same identity and
    that defect.
    """

    name: str
    model: Model
    pki: Pki = field(repr=False)
    kept: Kept = field(repr=False)
    defects: tuple[Defect, ...] = ()

    @property
    @abstractmethod
    def family(self) -> Family:
        """What its certificates say that it is."""

    @abstractmethod
    def _draft(self, nonce: bytes) -> spdm.ReportDraft:
        """A good report, about to be signed."""

    def spoiled(self, *names: str) -> Self:
        """The same device with these defects, and no others. Raises EmulatorError for a name that is none."""
        return replace(self, defects=tuple(named(each, self.family) for each in names))

    @property
    def brom_key(self) -> ec.EllipticCurvePrivateKey:
        return self.kept.brom_key

    @property
    def leaf_key(self) -> ec.EllipticCurvePrivateKey:
        return self.kept.leaf_key

    @property
    def good_chain(self) -> bytes:
        """Its certificates without any defect, PEM, leaf first."""
        return self.kept.chain

    @property
    def pdi(self) -> bytes:
        """The 8 bytes that its certificates identify it by."""
        return pdi_of(self.brom_key)

    @property
    def chain_pem(self) -> bytes:
        """Five certificates, leaf first."""
        spoils = [each.chain for each in self.defects if each.chain is not None]
        if not spoils:
            return self.good_chain
        draft = ChainDraft.of(self.pki, self.brom_key, self.leaf_key, FWID, self.family)
        for spoil in spoils:
            spoil(draft)
        return pem(draft.issued())

    def report(self, nonce: bytes) -> bytes:
        """The signed report for a nonce of 32 bytes. Raises ValueError for any other, as the driver does."""
        if len(nonce) != spdm.NONCE_BYTES:
            raise ValueError(f"a nonce of {len(nonce)} bytes, not {spdm.NONCE_BYTES}")
        if any(each.replays for each in self.defects):
            return self._recorded()
        draft = self._draft(nonce)
        for each in self.defects:
            if each.report is not None:
                each.report(draft)
        return draft.signed()

    def evidence(self, nonce: bytes) -> Evidence:
        """Report and chain, as a node hands them over."""
        return Evidence(NVIDIA, self.report(nonce), self.chain_pem)

    def _recorded(self) -> bytes:
        """An old report, always the same: genuine, fresh when it was made, and recorded by somebody."""
        path = folder_of(self.pki, self.name, self.family) / "recorded.bin"
        if not path.exists():
            write_whole(path, self._draft(EARLIER_NONCE).signed())
        return path.read_bytes()


def folder_of(pki: Pki, name: str, family: Family) -> Path:
    """Where a device is kept. A node whose model changes to another family gets other hardware, not other papers."""
    return pki.devices / (name if family == HOPPER else f"{name}@{family.chip.lower()}")


def kept(pki: Pki, name: str, family: Family) -> Kept:
    """What is kept of the device of this name, made now unless it is there. Raises EmulatorError."""
    if not _NAME.fullmatch(name):
        raise EmulatorError(f"{name!r} names no device: use up to 64 of a-z, 0-9, dot, dash and underscore")
    folder = folder_of(pki, name, family)
    if not folder.exists():
        move_into_place(folder, lambda aside: _lay_down(aside, pki, family))
    try:
        brom_key, leaf_key = read_key(folder / "brom.key"), read_key(folder / "leaf.key")
        return Kept(brom_key, leaf_key, (folder / "chain.pem").read_bytes())
    except (OSError, ValueError, TypeError) as e:
        raise EmulatorError(f"{folder} holds no device ({e}): remove that folder, and it is made anew") from e


def _lay_down(folder: Path, pki: Pki, family: Family) -> None:
    brom_key, leaf_key = new_key(), new_key()
    write_key(folder / "brom.key", brom_key)
    write_key(folder / "leaf.key", leaf_key)
    (folder / "chain.pem").write_bytes(pem(ChainDraft.of(pki, brom_key, leaf_key, FWID, family).issued()))
