"""The demo's stage: a temporary folder, and orchestrator and nodes as processes of their own, which end with it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

START_SECONDS_MAX = 30.0
STOP_SECONDS_MAX = 5.0
LINE_BYTES_MAX = 64 << 10


class DemoError(Exception):
    """The demo cannot go on; the message says why, with the last lines of the program that failed."""


@dataclass(frozen=True, slots=True)
class Program:
    """A process of ours, and the file that its standard error goes to."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def ready_line(self) -> dict[str, Any]:
        """The first line that it prints: one JSON document."""
        stream, deadline, line = self.process.stdout, time.monotonic() + START_SECONDS_MAX, b""
        if stream is None:
            raise DemoError(f"{self.name} has no output")
        while not line.endswith(b"\n") and len(line) < LINE_BYTES_MAX:
            if not select.select([stream], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise DemoError(f"{self.name} did not start within {START_SECONDS_MAX:.0f} s\n{self._last_words()}")
            piece = os.read(stream.fileno(), 4096)
            if not piece:
                raise DemoError(f"{self.name} ended at once\n{self._last_words()}")
            line += piece
        try:
            document: dict[str, Any] = json.loads(line)
        except ValueError as e:
            raise DemoError(f"{self.name} said something else than JSON: {line[:200]!r}") from e
        return document

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def stop(self) -> None:
        """Ask it to end; make it, if it does not."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                self.process.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()

    def _last_words(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-5:])


@dataclass(slots=True)
class Stage:
    """Everything that the demo started, and the folder that it lives in."""

    folder: Path
    _opened: contextlib.ExitStack
    programs: list[Program] = field(default_factory=list)

    @classmethod
    def open(cls, opened: contextlib.ExitStack) -> Stage:
        stage = cls(Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="workermanager-demo-"))), opened)
        opened.callback(stage.stop_all)
        return stage

    def run(self, *arguments: str) -> dict[str, Any]:
        """Run one of our commands to its end, and read the JSON that it prints."""
        done = subprocess.run(  # noqa: S603 - our own commands, with paths that we made
            [sys.executable, "-m", *arguments], capture_output=True, timeout=START_SECONDS_MAX, check=False
        )
        if done.returncode != 0:
            raise DemoError(f"{' '.join(arguments[:2])} failed:\n{done.stderr.decode(errors='replace')[-1000:]}")
        document: dict[str, Any] = json.loads(done.stdout)
        return document

    def start(self, name: str, arguments: Sequence[str]) -> Program:
        """Start one of our commands as a process that goes on. It does not get the terminal's Ctrl-C: we end it."""
        log = self.folder / f"{name}.log"
        with log.open("wb") as errors:
            process = subprocess.Popen(  # noqa: S603 - as above
                [sys.executable, "-m", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
        program = Program(name, process, log)
        self.programs.append(program)
        return program

    def stop_all(self) -> None:
        for program in reversed(self.programs):
            with contextlib.suppress(ProcessLookupError):
                program.stop()
