"""One emulated GPU: it keeps its identity over restarts, and makes evidence for any nonce."""

from __future__ import annotations

import hashlib
import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from attest.evidence import NVIDIA, Evidence
from nodeprobe.emulator import spdm
from nodeprobe.emulator.chain import ChainDraft, pdi_of
from nodeprobe.emulator.defect import Defect
from nodeprobe.emulator.defects import named
from nodeprobe.emulator.models import MEASUREMENTS, ZERO, GpuModel, value
from nodeprobe.emulator.pki import EmulatorError, Pki, move_into_place, new_key, pem, read_key, write_key
from nodeprobe.emulator.rim import write_whole

FWID = hashlib.sha384(b"emulated GSP firmware").digest()  # of the firmware that certificate and report both name
EARLIER_NONCE = hashlib.sha256(b"an earlier challenge").digest()
NVDEC_INDEX = 35
SWITCHES = 4
LINKS = 18
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_FWID_SINCE = (550,)
_FEATURE_FLAG_SINCE = (575,)
_SINGLE_GPU, _PROTECTED_PCIE = 0, 2


@dataclass(frozen=True, slots=True)
class EmulatedGpu:
    """
    A GPU of the emulator. Frozen: `spoiled("measurement-changed")` gives another one, with the same identity and
    that defect.
    """

    name: str
    model: GpuModel
    pki: Pki = field(repr=False)
    brom_key: ec.EllipticCurvePrivateKey = field(repr=False)
    leaf_key: ec.EllipticCurvePrivateKey = field(repr=False)
    good_chain: bytes = field(repr=False)
    protected_pcie: bool = False  # one of eight GPUs behind NVSwitches
    nvdec_enabled: bool = False  # if so, measurement 35 counts
    defects: tuple[Defect, ...] = ()

    @classmethod
    def create(
        cls, pki: Pki, name: str, model: GpuModel, *, protected_pcie: bool = False, nvdec_enabled: bool = False
    ) -> EmulatedGpu:
        """The device of this name in the PKI, made now unless it is there. Raises EmulatorError."""
        if not _NAME.fullmatch(name):
            raise EmulatorError(f"{name!r} names no device: use up to 64 of a-z, 0-9, dot, dash and underscore")
        folder = pki.devices / name
        if not folder.exists():
            move_into_place(folder, lambda aside: _lay_down(aside, pki))
        try:
            brom_key, leaf_key = read_key(folder / "brom.key"), read_key(folder / "leaf.key")
            chain = (folder / "chain.pem").read_bytes()
        except (OSError, ValueError, TypeError) as e:
            raise EmulatorError(f"{folder} holds no device ({e}): remove that folder, and it is made anew") from e
        return cls(name, model, pki, brom_key, leaf_key, chain, protected_pcie, nvdec_enabled)

    def spoiled(self, *names: str) -> EmulatedGpu:
        """The same device with these defects, and no others. Raises EmulatorError for a name that is none."""
        return replace(self, defects=tuple(named(each) for each in names))

    @property
    def pdi(self) -> bytes:
        """The 8 bytes that its certificates identify it by."""
        return pdi_of(self.brom_key)

    @property
    def uuid(self) -> str:
        """As NVML prints it."""
        digits = hashlib.sha256(b"uuid" + self.pdi).hexdigest()
        return f"GPU-{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:32]}"

    @property
    def serial(self) -> str:
        """Of the board: 13 digits, as NVML prints it."""
        return f"16{int.from_bytes(self.pdi, 'big') % 10**11:011d}"

    @property
    def chain_pem(self) -> bytes:
        """Five certificates, leaf first."""
        spoils = [each.chain for each in self.defects if each.chain is not None]
        if not spoils:
            return self.good_chain
        draft = ChainDraft.of(self.pki, self.brom_key, self.leaf_key, FWID)
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
        path = self.pki.devices / self.name / "recorded.bin"
        if not path.exists():
            write_whole(path, self._draft(EARLIER_NONCE).signed())
        return path.read_bytes()

    def _draft(self, nonce: bytes) -> spdm.ReportDraft:
        measurements = list(self._measurements())
        return spdm.ReportDraft(
            nonce=nonce,
            measurements=measurements,
            fields=list(self._fields(measurements)),
            responder_nonce=os.urandom(spdm.NONCE_BYTES),
            key=self.leaf_key,
        )

    def _measurements(self) -> Iterator[bytes]:
        """What a good device measures: for each index one of the alternatives, not the same on every device."""
        goldens = {**self.model.driver_goldens, **self.model.vbios_goldens}
        for index in range(MEASUREMENTS):
            if index == NVDEC_INDEX and not self.nvdec_enabled:
                yield value("decoder off", self.pdi.hex())
            else:
                allowed = goldens.get(index, (ZERO,))
                yield allowed[(self.pdi[0] + index) % len(allowed)]

    def _fields(self, measurements: list[bytes]) -> Iterator[tuple[int, bytes]]:
        """The opaque fields, in the order in which genuine Hopper reports have them."""
        model, release = self.model, self.model.driver_release
        long = release >= _FWID_SINCE  # later drivers pad the codes
        yield spdm.VBIOS_VERSION, spdm.vbios_field(model.vbios)
        yield spdm.BOARD_ID, struct.pack("<I", model.board_id)
        yield spdm.CHIP_SKU, spdm.text(model.chip_sku, 9 if long else 4)
        yield spdm.CHIP_SKU_MOD, spdm.text("0", 5 if long else 2)
        yield spdm.PROJECT, spdm.text(model.project, 5)
        yield spdm.PROJECT_SKU, spdm.text(model.project_sku, 5)
        yield spdm.PROJECT_SKU_MOD, bytes(2)
        yield spdm.DRIVER_VERSION, spdm.text(model.driver)
        yield spdm.GPU_INFO, bytes.fromhex("8001000000000000")
        yield spdm.MSRSCNT, struct.pack("<64I", *(int(each != ZERO) for each in measurements))
        yield spdm.CPRINFO, bytes.fromhex("00c00100")
        yield spdm.NVDEC0_STATUS, spdm.ENABLED if self.nvdec_enabled else spdm.DISABLED
        if release < _FWID_SINCE:
            return
        yield spdm.FWID, FWID
        yield spdm.PROTECTED_PCIE_STATUS, spdm.ENABLED if self.protected_pcie else spdm.DISABLED
        if self.protected_pcie:
            yield spdm.SWITCH_PDI, b"".join(_switch_pdi(link % SWITCHES) for link in range(LINKS))
        if release >= _FEATURE_FLAG_SINCE:
            yield spdm.OPAQUE_DATA_VERSION, struct.pack("<H", 1)
            yield spdm.FEATURE_FLAG, struct.pack("<H", _PROTECTED_PCIE if self.protected_pcie else _SINGLE_GPU)


def _switch_pdi(switch: int) -> bytes:
    return hashlib.sha256(f"emulated switch {switch}".encode()).digest()[:8]


def _lay_down(folder: Path, pki: Pki) -> None:
    brom_key, leaf_key = new_key(), new_key()
    write_key(folder / "brom.key", brom_key)
    write_key(folder / "leaf.key", leaf_key)
    (folder / "chain.pem").write_bytes(pem(ChainDraft.of(pki, brom_key, leaf_key, FWID).issued()))
