"""Where tests find evidence: recordings of real devices (outside the project, may be absent), and our own fixtures."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import pytest

from attest.anchors import VENDORS, Anchors
from attest.appraise import appraise
from attest.collateral import CollateralKind, Document, Need
from attest.containers import read
from attest.evidence import Bundle, Nonce
from attest.policy import shipped
from attest.result import AttestationResult
from attest.verify import Verification, installed, verify

ROOT = Path(__file__).parent.parent
VECTORS = ROOT.parent / "shared" / "vectors"
WHEEL_FOLDER = ROOT / "build" / "real-evidence"

needs_vectors = pytest.mark.skipif(not VECTORS.is_dir(), reason="the recordings of ../shared/vectors are not here")
needs_wheel = pytest.mark.skipif(
    not any(WHEEL_FOLDER.glob("*.whl")), reason="real evidence was not fetched; `make test` does it"
)

DRIVER_550 = "NV_GPU_DRIVER_GH100_550.90.07"
VBIOS_550 = "NV_GPU_VBIOS_1010_0200_882_96009F0001"
DRIVER_545 = "NV_GPU_DRIVER_GH100_545.00"
VBIOS_545 = "NV_GPU_VBIOS_1010_0200_882_96005E0001"


@dataclass(frozen=True)
class Recording:
    """One real device: its evidence, the RIMs by id, a time at which it is accepted, and its nonce."""

    report: bytes
    chain: bytes
    rims: dict[str, bytes]
    at: datetime

    @property
    def bundle(self) -> Bundle:
        return read([self.report, self.chain])

    @property
    def nonce(self) -> Nonce:
        return Nonce(self.report[4:36])

    def fetch(self, need: Need) -> Document | None:
        data = self.rims.get(need.name) if need.kind is CollateralKind.NVIDIA_RIM else None
        return None if data is None else Document.of(data)

    def verify(self, *, nonce: Nonce | None = None, at: datetime | None = None) -> Verification:
        return verify(self.bundle, installed(VENDORS), self.fetch, nonce=nonce or self.nonce, now=at or self.at)

    def judge(
        self, policy: str = "lab", *, at: datetime | None = None, anchors: Anchors = VENDORS
    ) -> AttestationResult:
        now = at or self.at
        verification = verify(self.bundle, installed(anchors), self.fetch, nonce=self.nonce, now=now)
        return appraise(verification, shipped(policy), bundle=self.bundle, nonce=self.nonce, now=now)


def hopper_550() -> Recording:
    folder = VECTORS / "nvidia" / "hopper-550.90.07"
    rims = {DRIVER_550: (folder / "driver_rim.xml").read_bytes(), VBIOS_550: (folder / "vbios_rim.xml").read_bytes()}
    report, chain = (folder / "report.bin").read_bytes(), (folder / "chain.pem").read_bytes()
    return Recording(report, chain, rims, datetime(2025, 6, 1, tzinfo=UTC))


@cache
def wheel_member(name: str) -> bytes:
    (wheel,) = WHEEL_FOLDER.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(f"verifier/samples/{name}")


def hopper_545() -> Recording:
    """The H100 inside NVIDIA's wheel 2.1.1: driver 545.00, whose reports name no firmware."""
    rims = {
        DRIVER_545: wheel_member("Driver_RIM_test_no_gpu.swidtag"),
        VBIOS_545: wheel_member("1010_0200_882_96005E0001_test_no_gpu.swidtag"),
    }
    report = bytes.fromhex(wheel_member("attestationReport.txt").decode())
    return Recording(report, wheel_member("gpuAkCertChain.txt"), rims, datetime(2024, 1, 1, tzinfo=UTC))


REAL = [
    pytest.param(hopper_545, id="545.00 from the wheel", marks=needs_wheel),
    pytest.param(hopper_550, id="550.90.07", marks=needs_vectors),
]
