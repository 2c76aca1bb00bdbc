"""
Run every benchmark, print a table, write build/bench.json.

Each benchmark module has `run() -> list[dict]`, one entry a ratio: `name`, `ratio` (None if it was skipped), `target`
as text, `met` (None if skipped), and whatever else it wants to keep. Exit status 1 if a target was not met.
"""

import json
import platform
import sys
from importlib import import_module
from pathlib import Path

MODULES = ("verification", "hand_out")
RESULTS = Path("build") / "bench.json"


def main() -> int:
    entries = []
    for name in MODULES:
        print(f"{name} …", file=sys.stderr, flush=True)
        entries += import_module(f"tests.benchmarks.{name}").run()
    width = max(len(entry["name"]) for entry in entries)
    print(f"{'benchmark':<{width}}  {'ratio':>7}  {'target':>8}")
    for entry in entries:
        ratio = "-" if entry["ratio"] is None else f"{entry['ratio']:.2f}"
        verdict = {True: "met", False: "NOT MET", None: "skipped: " + str(entry.get("note", ""))}[entry["met"]]
        print(f"{entry['name']:<{width}}  {ratio:>7}  {entry['target']:>8}  {verdict}")
    RESULTS.parent.mkdir(exist_ok=True)
    machine = {"python": platform.python_version(), "machine": platform.machine()}
    RESULTS.write_text(json.dumps({**machine, "benchmarks": entries}, indent=2) + "\n")
    print(f"written to {RESULTS}", file=sys.stderr)
    return int(any(entry["met"] is False for entry in entries))


if __name__ == "__main__":
    sys.exit(main())
