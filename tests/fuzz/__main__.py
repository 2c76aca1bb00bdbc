"""Runs the targets: `python -m tests.fuzz [--seconds N] [NAME…]`; with a name and files, gives it these inputs."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import click

from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).parents[2]
FOUND = ROOT / "build" / "fuzz"
INPUT_BYTES_MAX = 64 << 10
INPUT_SECONDS_MAX = 5  # of one input, in a process that counts branches
MEMORY_MIB_MAX = 2048
GRACE_SECONDS = 120  # to start, and to end
_DONE = re.compile(r"(?:Done |number_of_executed_units: )(\d+)")
_RAISED = re.compile(r"=== Uncaught Python exception: ===\n(.*)")
_ERROR = re.compile(r"(ERROR: .*|ALARM: .*)")
_COVERED = re.compile(r"cov: (\d+)")


@dataclass(frozen=True, slots=True)
class Ended:
    """How one target went: how often it ran, how many branches it reached, what it left behind."""

    name: str
    runs: int
    branches: int
    wrong: str
    left: tuple[Path, ...]


def fuzz(name: str, folder: Path, seconds: int) -> Ended:
    """Run one target for so long."""
    before = set(FOUND.glob(f"{name}-*"))
    limits = [f"-max_total_time={seconds}", f"-max_len={INPUT_BYTES_MAX}", f"-timeout={INPUT_SECONDS_MAX}"]
    options = [*limits, f"-rss_limit_mb={MEMORY_MIB_MAX}", f"-artifact_prefix={FOUND}/{name}-", "-print_final_stats=1"]
    grown = folder / "grown" / name
    grown.mkdir(parents=True)
    command = [sys.executable, "-m", "tests.fuzz.one", name, str(folder), *options]
    command += [str(grown), str(folder / "corpus" / name)]
    try:
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, check=False, timeout=seconds + GRACE_SECONDS)
        said, wrong = (ended.stdout + ended.stderr).decode("utf-8", "replace"), ended.returncode != 0
    except subprocess.TimeoutExpired:
        said, wrong = "it did not end", True
    done, covered = _DONE.search(said), _COVERED.findall(said)
    left = tuple(sorted(set(FOUND.glob(f"{name}-*")) - before))
    if wrong:
        (FOUND / f"{name}.log").write_text(said)
    raised, why = _RAISED.search(said), _ERROR.search(said)
    told = raised or why
    found = (told[1] if told else said[-200:]) if wrong else ""
    return Ended(name, int(done[1]) if done else 0, int(covered[-1]) if covered else 0, found, left)


@click.command()
@click.option("--seconds", default=10, show_default=True, type=click.IntRange(1), help="For each target.")
@click.option("--jobs", default=os.cpu_count() or 1, show_default=True, type=click.IntRange(1), help="At once.")
@click.argument("what", nargs=-1)
def main(seconds: int, jobs: int, what: tuple[str, ...]) -> None:
    """Fuzz every target, or those named; with files after one name, give it these inputs."""
    if importlib.util.find_spec("atheris") is None:
        click.echo("Skipped: atheris cannot be installed here, and nothing else guides by coverage.")
        return
    names, inputs = [each for each in what if each in TARGETS], [each for each in what if each not in TARGETS]
    if inputs and (len(names) != 1 or not all(Path(each).is_file() for each in inputs)):
        raise click.UsageError(f"there are the targets {', '.join(TARGETS)}")
    FOUND.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as aside:
        folder = Path(aside)
        subprocess.run([sys.executable, "-m", "tests.fuzz.seeds", aside], cwd=ROOT, check=True)
        if inputs:
            command = [sys.executable, "-m", "tests.fuzz.one", names[0], aside, *inputs]
            raise SystemExit(subprocess.run(command, check=False).returncode)
        with ThreadPoolExecutor(jobs) as at_once:
            outcomes = list(at_once.map(lambda name: fuzz(name, folder, seconds), names or TARGETS))
    click.echo(f"{'':4} {'target':<16} {'runs':>10} {'branches':>9}")
    for each in outcomes:
        click.echo(
            f"{'FAIL' if each.wrong else 'ok  '} {each.name:<16} {each.runs:>10} {each.branches:>9}  {each.wrong}"
        )
        for path in each.left:
            click.echo(f"       {path.relative_to(ROOT)}: python -m tests.fuzz {each.name} {path.relative_to(ROOT)}")
    failed = sum(bool(each.wrong) for each in outcomes)
    click.echo(f"\n{len(outcomes) - failed} passed, {failed} failed")
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
