"""One target under libFuzzer: `python -m tests.fuzz.one NAME FOLDER [libFuzzer's options, corpora or inputs]`."""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["attest", "orchestrator"]):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    name, folder, *rest = sys.argv[1:]
    atheris.Setup([sys.argv[0], *rest], TARGETS[name](Path(folder)))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
