"""
The evidence of a whole node for what it states: its GPUs first, then the NVSwitches of a board in protected-PCIe mode,
then the CPU TEE, whose report covers theirs.

A node without a CPU TEE, or with one that this kernel offers no reports of, answers with its GPUs alone: the verdict
says so (`cpu: absent`), and `nodeprobe show` says why.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from attest.binding import Statement, gpu_nonce, report_data
from attest.evidence import Bundle, Evidence, Nonce
from nodeprobe import tsm
from nodeprobe.details import Mode
from nodeprobe.quotes import Configfs, Quoter
from nodeprobe.timelimit import LIMIT_SECONDS
from nodeprobe.world import Source

Gpus = Callable[[Nonce], Bundle]  # of GPUs, and of switches after them
Cpu = Callable[[bytes], Evidence]  # of 64 bytes of report data


def of_node(gpus: Gpus, cpu: Cpu | None) -> Source:
    """One source of both. It raises what they raise: a bundle never leaves a device out."""

    def evidence(statement: Statement) -> Bundle:
        found = gpus(gpu_nonce(statement))
        return found if cpu is None else (*found, cpu(report_data(statement, found)))

    return evidence


class Board(Protocol):
    """What tells whether switches belong to the evidence: `nodeprobe.nvml.Driver` has it."""

    def evidence(self, nonce: Nonce) -> Bundle: ...
    def mode(self) -> Mode: ...


class Switches(Protocol):
    """Where the switches' evidence comes from: `nodeprobe.nscq.Fabric` has it."""

    def evidence(self, nonce: Nonce, *, expected: bool = False) -> Bundle: ...


def of_board(driver: Board, fabric: Switches) -> Gpus:
    """All GPUs, and behind them, where the mode is `ppcie`, all switches; there must be some then."""

    def evidence(nonce: Nonce) -> Bundle:
        gpus = driver.evidence(nonce)
        return (*gpus, *fabric.evidence(nonce, expected=True)) if driver.mode() is Mode.PPCIE else gpus

    return evidence


def board(limit_seconds: float = LIMIT_SECONDS) -> Gpus:
    """The same of this machine. GPUs and switches have `limit_seconds` each, at every question."""
    from nodeprobe import nscq, nvml  # here: an emulated node needs neither

    return of_board(nvml.Driver(limit_seconds), nscq.Fabric(limit_seconds))


def cpu_of(root: Path) -> Cpu | None:
    """What this machine has below `root` (`/` on a real node), if it offers reports by configfs-tsm."""
    reports = root / tsm.REPORTS
    if not reports.is_dir() or not tsm.detect(root).quotes:
        return None
    return Quoter(Configfs(reports)).evidence
