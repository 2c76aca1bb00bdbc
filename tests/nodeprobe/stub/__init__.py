"""
A driver without hardware: nvml.c built as libnvidia-ml.so.1, for the real nvidia-ml-py in a process of its own.

    driver = StubDriver(build(tmp), tmp / "state")
    driver.set("count", 2)
    driver.set("gpu1.lost", 1)
    driver.run("show", "--json")

The state file is read on every driver call, so a test may change it while a process runs. Its keys: see nvml.c, and
nscq.c for the switches' library, libnvidia-nscq.so.2, which reads the same file.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

SONAME = "libnvidia-ml.so.1"
SOURCE = Path(__file__).with_name("nvml.c")
NSCQ_SONAME = "libnvidia-nscq.so.2"
NSCQ_SOURCE = Path(__file__).with_name("nscq.c")
ROOT = Path(__file__).parents[3]
RUN_SECONDS_MAX = 60.0


def compiler() -> str | None:
    """The C compiler of this machine, or None."""
    return next(filter(None, map(shutil.which, (os.environ.get("CC", "cc"), "gcc", "clang"))), None)


def build(folder: Path, *, without: Iterable[str] = (), soname: str = SONAME, source: Path = SOURCE) -> Path:
    """Build the library into `folder`, less some functions: an older driver. FileNotFoundError without a compiler."""
    found = compiler()
    if found is None:
        raise FileNotFoundError("no C compiler")
    library = folder / soname
    renamed = [f"-D{function}=omitted_{function}" for function in without]
    flags = ["-std=gnu11", "-Wall", "-Wextra", "-O1", "-shared", "-fPIC", f"-Wl,-soname,{soname}"]
    subprocess.run([found, *flags, *renamed, "-o", str(library), str(source)], check=True, timeout=RUN_SECONDS_MAX)
    return library


@dataclass(frozen=True, slots=True)
class StubDriver:
    """One driver: a built library and the state that it reads."""

    library: Path
    state: Path

    def set(self, key: str, value: object) -> None:
        """Set one key. Bytes go in as they are, so a name need not be UTF-8. The file is swapped whole."""
        lines = [line for line in self._lines() if line.partition(b"=")[0] != key.encode()]
        text = value if isinstance(value, bytes) else str(value).encode()
        new = self.state.with_name(f"{self.state.name}.new")
        new.write_bytes(b"".join(line + b"\n" for line in (*lines, key.encode() + b"=" + text)))
        new.replace(self.state)

    def unset(self, key: str) -> None:
        """Back to the default."""
        lines = [line for line in self._lines() if line.partition(b"=")[0] != key.encode()]
        new = self.state.with_name(f"{self.state.name}.new")
        new.write_bytes(b"".join(line + b"\n" for line in lines))
        new.replace(self.state)

    def evidence(self, gpu: int, *, report: Path | None = None, chain: Path, socket: Path | None = None) -> None:
        """Give a GPU a report to replay, or the socket of a live signer, and its certificate chain."""
        self.set(f"gpu{gpu}.chain", chain)
        for key, path in (("report", report), ("socket", socket)):
            if path is not None:
                self.set(f"gpu{gpu}.{key}", path)

    def env(self) -> dict[str, str]:
        """The environment of a process that shall find this driver."""
        plain = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "LD_PRELOAD")}
        return plain | {"LD_LIBRARY_PATH": str(self.library.parent), "NVML_STUB_STATE": str(self.state)}

    def run(self, *args: str, seconds_max: float = RUN_SECONDS_MAX) -> subprocess.CompletedProcess[bytes]:
        """Run `nodeprobe` on this driver, to its end."""
        return subprocess.run(
            [sys.executable, "-m", "nodeprobe", *args],
            env=self.env(),
            cwd=ROOT,
            capture_output=True,
            timeout=seconds_max,
            check=False,
        )

    def _lines(self) -> list[bytes]:
        return self.state.read_bytes().splitlines() if self.state.exists() else []
