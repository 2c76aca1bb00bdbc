"""
Which CPU TEE this virtual machine runs in, by the signs that Linux gives. Detection only; quotes are another module's.

Signs, strongest first: the provider of a configfs-tsm report entry; the guest device; the CPU's flags. Nothing is
written: making a configfs entry only to read its provider would need root. A sign is a claim, not a proof.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from nodeprobe import problems
from nodeprobe.details import CpuTee, Tee

REPORTS = "sys/kernel/config/tsm/report"  # Documentation/ABI/testing/configfs-tsm
CPUINFO = "proc/cpuinfo"
PROVIDERS = {"tdx_guest": Tee.TDX, "sev_guest": Tee.SNP}
DEVICES = {"dev/tdx_guest": Tee.TDX, "dev/tdx-guest": Tee.TDX, "dev/sev-guest": Tee.SNP}
ENTRIES_MAX = 64
PROVIDER_BYTES_MAX = 64
CPUINFO_BYTES_MAX = 64 << 10  # the first CPU's flags are in the first few KiB


def detect(root: Path = Path("/")) -> CpuTee:
    """Look below `root` (`/` on a real node). Signs of two TEEs at once are a problem, and count as none."""
    asking = [*_providers(root), *_devices(root)]
    signs = [*asking, *_flags(root)]
    kinds = {kind for _, kind in signs}
    seen = tuple(path for path, _ in signs)
    if len(kinds) > 1:
        return CpuTee(seen=seen, problems=(problems.cpu_tee_ambiguous(", ".join(seen)),))
    if not kinds:
        return CpuTee()
    return CpuTee(kinds.pop(), bool(asking), seen, () if asking else (problems.CPU_TEE_SILENT,))


def _providers(root: Path) -> list[tuple[str, Tee]]:
    try:
        entries = sorted(islice((root / REPORTS).iterdir(), ENTRIES_MAX))
    except OSError:
        return []
    found = {PROVIDERS.get(_read(entry / "provider", PROVIDER_BYTES_MAX).strip()) for entry in entries}
    return [(f"/{REPORTS}", kind) for kind in sorted(kind for kind in found if kind is not None)]


def _devices(root: Path) -> list[tuple[str, Tee]]:
    return [(f"/{path}", kind) for path, kind in DEVICES.items() if _exists(root / path)]


def _flags(root: Path) -> list[tuple[str, Tee]]:
    """`tdx_guest` is set in guests only. `sev_snp` is set on capable hosts too, where `hypervisor` is not."""
    lines = _read(root / CPUINFO, CPUINFO_BYTES_MAX).splitlines()
    flags = next((set(line.partition(":")[2].split()) for line in lines if line.startswith("flags")), set())
    found = [Tee.TDX] if "tdx_guest" in flags else []
    found += [Tee.SNP] if {"sev_snp", "hypervisor"} <= flags else []
    return [(f"/{CPUINFO}", kind) for kind in found]


def _read(path: Path, limit: int) -> str:
    """The beginning of a file, empty where it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(limit).decode(errors="replace")
    except OSError:
        return ""


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False
