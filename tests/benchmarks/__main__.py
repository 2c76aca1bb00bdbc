"""
Run every benchmark, print a table, write build/bench.json.

Each benchmark module has `run() -> list[dict]`, one entry a ratio: `name`, `ratio` (None: skipped), `target`, `bound`
("at most", unless it says "at least"), `unit`, `holds` (None: skipped), `detail`. Exit status 1 if a target was missed.
"""

import json
import platform
import sys
from importlib import import_module
from pathlib import Path

MODULES = ("verification", "devices", "tdx", "hand_out")
RESULTS = Path("build") / "bench.json"
_WORDS = {True: "holds", False: "MISSED", None: "skipped"}


def main() -> int:
    entries = []
    for name in MODULES:
        print(f"{name} …", file=sys.stderr, flush=True)
        entries += import_module(f"tests.benchmarks.{name}").run()
    RESULTS.parent.mkdir(exist_ok=True)
    machine = {"python": platform.python_version(), "machine": platform.machine()}
    RESULTS.write_text(json.dumps({**machine, "benchmarks": entries}, indent=2) + "\n")
    for entry in entries:
        ratio = "-" if entry["ratio"] is None else f"{entry['ratio']:.2f}"
        target = f"{entry.get('bound', 'at most')} {entry['target']}"
        print(f"{_WORDS[entry['holds']]:7}  {ratio:>5}  {target:<13}  {entry['name']}")
        print(f"{'':16}{entry['unit']}; {entry['detail']}")
    print(f"written to {RESULTS}", file=sys.stderr)
    return int(any(entry["holds"] is False for entry in entries))


if __name__ == "__main__":
    sys.exit(main())
