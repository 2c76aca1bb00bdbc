"""
The evidence of a whole node for what it states: its GPUs first, then the CPU TEE, whose report covers theirs.

A node without a CPU TEE, or with one that this kernel offers no reports of, answers with its GPUs alone: the verdict
says so (`cpu: absent`), and `nodeprobe show` says why.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from attest.binding import Statement, gpu_nonce, report_data
from attest.evidence import Bundle, Evidence, Nonce
from nodeprobe import tsm
from nodeprobe.quotes import Configfs, Quoter
from nodeprobe.world import Source

Gpus = Callable[[Nonce], Bundle]
Cpu = Callable[[bytes], Evidence]  # of 64 bytes of report data


def of_node(gpus: Gpus, cpu: Cpu | None) -> Source:
    """One source of both. It raises what they raise: a bundle never leaves a device out."""

    def evidence(statement: Statement) -> Bundle:
        found = gpus(gpu_nonce(statement))
        return found if cpu is None else (*found, cpu(report_data(statement, found)))

    return evidence


def cpu_of(root: Path) -> Cpu | None:
    """What this machine has below `root` (`/` on a real node), if it offers reports by configfs-tsm."""
    reports = root / tsm.REPORTS
    if not reports.is_dir() or not tsm.detect(root).quotes:
        return None
    return Quoter(Configfs(reports)).evidence
