"""Fixtures of the node's side: the stub driver, and evidence for it to replay."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.nodeprobe.stub import NSCQ_SONAME, NSCQ_SOURCE, ROOT, StubDriver, build, compiler

REAL_H100 = ROOT / "../shared/vectors/nvidia/hopper-550.90.07"


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stub libnvidia-ml.so.1, built once."""
    if compiler() is None:
        pytest.skip("no C compiler on this machine, which the stub driver is built by")
    return build(tmp_path_factory.mktemp("nvml"))


@pytest.fixture(scope="session")
def nscq_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stub libnvidia-nscq.so.2, built once."""
    if compiler() is None:
        pytest.skip("no C compiler on this machine, which the stub library of the switches is built by")
    return build(tmp_path_factory.mktemp("nscq"), soname=NSCQ_SONAME, source=NSCQ_SOURCE)


@pytest.fixture
def driver(nvml_library: Path, tmp_path: Path) -> StubDriver:
    """A healthy driver of one H100 in CC mode, without evidence; spoil it with `set`."""
    return StubDriver(nvml_library, tmp_path / "nvml-state")


@pytest.fixture
def attesting(driver: StubDriver, tmp_path: Path) -> StubDriver:
    """A driver of two H100, each with its own report and chain, in `gpuN.report` and `gpuN.chain` of tmp_path."""
    driver.set("count", 2)
    for gpu in range(2):
        report, chain = tmp_path / f"gpu{gpu}.report", tmp_path / f"gpu{gpu}.chain"
        report.write_bytes(bytes([0x11, 0xE0, gpu]) + bytes(range(256)) * 16)
        chain.write_text(f"-----BEGIN CERTIFICATE-----\nGPU{gpu}\n-----END CERTIFICATE-----\n")
        driver.evidence(gpu, report=report, chain=chain)
    return driver


@pytest.fixture
def real_h100() -> Path:
    """A folder with `report.bin` and `chain.pem` of a real H100."""
    if not REAL_H100.is_dir():
        pytest.skip("no recordings of real devices beside this checkout (../shared/vectors)")
    return REAL_H100
