"""Runs the suite: `python -m tests.conformance [--json FILE] [--only TEXT] [--keep FOLDER]`. Status 1 if any fails."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from attest.reasons import CATALOGUE
from tests.conformance import bindings, containers, gpu, nras, recorded, snp, tdx
from tests.conformance.codes import ATTACKS, WITHOUT_VECTOR, without_vector
from tests.conformance.draft import Draft
from tests.conformance.vector import CASE, Outcome, Vector, run, run_command

FIXTURES = Path(__file__).parents[2] / "fixtures"
MAKERS: dict[str, Callable[[Path], Iterator[Draft]]] = {
    "recorded": recorded.drafts,
    "gpu": gpu.drafts,
    "tdx": tdx.drafts,
    "snp": snp.drafts,
    "nras": nras.drafts,
    "binding": bindings.drafts,
    "container": containers.drafts,
}
# Run once more as users do, in a process of their own: one of each exit status and kind, at least.
SAMPLE = (
    "fixtures/good-eight", "fixtures/measurement-changed", "recorded/hopper-550", "recorded/tdx-secretvm-and-gpu",
    "recorded/snp-milan-v3", "gpu/good", "gpu/ocsp-revoked-device", "gpu/other-kind", "tdx/tdx-good", "snp/snp-good",
    "nras/nras-good", "binding/covered", "container/container-cut", "container/container-many-files",
)  # fmt: skip


def vectors(root: Path) -> Iterator[Vector]:
    """The directories of all families, the emulated ones made below `root`."""
    for path in sorted(FIXTURES.glob(f"*/{CASE}")):
        yield Vector.load(path.parent, "fixtures")
    for family, drafts in MAKERS.items():
        for draft in drafts(root):
            yield Vector.load(draft.lay_down(root / "vectors" / family), family)


def row(outcome: Outcome) -> str:
    vector = outcome.vector
    mark = "ok  " if not outcome.faults else "FAIL"
    codes, attacks = ", ".join(sorted(outcome.codes)) or "-", ", ".join(map(str, vector.attacks)) or "-"
    line = f"{mark} {vector.name:<52} {vector.status:>6} {outcome.status:>4}  {codes:<44} {attacks}"
    return "\n".join([line.rstrip(), *(f"       {fault}" for fault in outcome.faults)])


def gaps(found: Sequence[Vector]) -> list[str]:
    """Codes and attacks that should have a vector and have none, and excuses that are none (any more)."""
    named = {code for vector in found for code in vector.codes}
    answered = {attack for vector in found for attack in vector.attacks}
    missing = [f"no vector names {code}" for code in CATALOGUE if code not in named and without_vector(code) is None]
    missing += [
        f"no vector is of attack {attack}, {what}" for attack, what in ATTACKS.items() if attack not in answered
    ]
    names = {vector.name for vector in found}
    emulated = [name for name in SAMPLE if not name.startswith("recorded/")]
    missing += [f"{name} is to be run once more, and is no vector" for name in emulated if name not in names]
    missing += [f"{code} is excused, and has a vector" for code in WITHOUT_VECTOR if code in named]
    missing += [f"{code} is excused, and no code" for code in WITHOUT_VECTOR if code not in CATALOGUE]
    missing += [
        f"{vector.name} names {code}, which is no code" for vector in found for code in vector.codes - CATALOGUE.keys()
    ]
    return missing


def as_document(outcomes: Sequence[Outcome], missing: Sequence[str], seconds: float) -> dict[str, object]:
    return {
        "passed": sum(not each.faults for each in outcomes),
        "failed": sum(bool(each.faults) for each in outcomes) + len(missing),
        "seconds": round(seconds, 1),
        "missing": list(missing),
        "without_vector": {code: why for code in CATALOGUE if (why := without_vector(code)) is not None},
        "cases": [
            {
                "case": each.vector.name,
                "by": each.by,
                "wanted": {"status": each.vector.status, "codes": sorted(each.vector.codes)},
                "got": {"status": each.status, "codes": sorted(each.codes)},
                "attacks": list(each.vector.attacks),
                "faults": list(each.faults),
            }
            for each in outcomes
        ],
    }


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True)
        yield keep
        return
    with tempfile.TemporaryDirectory(prefix="conformance-") as folder:
        yield Path(folder)


@click.command()
@click.option("--json", "report", type=click.Path(dir_okay=False, path_type=Path), help="Write the outcome here.")
@click.option("--only", default="", help="Only vectors whose name contains this.")
@click.option("--keep", type=click.Path(exists=False, path_type=Path), help="Leave the vectors in this new folder.")
def main(report: Path | None, only: str, keep: Path | None) -> None:
    """Run every vector through `attest verify`, and see that each code and each attack has one."""
    begun = time.monotonic()
    click.echo(f"{'':4} {'case':<52} {'wanted':>6} {'got':>4}  {'codes':<44} attacks")
    with _folder(keep) as root:
        found, outcomes = [], []
        for vector in vectors(root):
            found.append(vector)
            if only in vector.name:
                outcomes.append(run(vector))
                click.echo(row(outcomes[-1]))
        click.echo("\nOnce more, in processes of their own:")
        for vector in found:
            if vector.name in SAMPLE and only in vector.name:
                outcomes.append(run_command(vector))
                click.echo(row(outcomes[-1]))
    missing = gaps(found)
    seconds = time.monotonic() - begun
    _conclude(outcomes, missing, seconds)
    document = as_document(outcomes, missing, seconds)
    if report is not None:
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text(json.dumps(document, indent=1) + "\n")
    click.echo(f"\n{document['passed']} passed, {document['failed']} failed")
    raise SystemExit(1 if document["failed"] else 0)


def _conclude(outcomes: Sequence[Outcome], missing: Sequence[str], seconds: float) -> None:
    click.echo("\nAttacks:")
    for attack, what in ATTACKS.items():
        click.echo(f"  {attack:>2} {what:<60} {sum(attack in each.vector.attacks for each in outcomes):>4} vectors")
    named = {code for each in outcomes for code in each.vector.codes}
    click.echo(f"Codes: {len(named & CATALOGUE.keys())} of {len(CATALOGUE)} have vectors. Without one:")
    for code in CATALOGUE:
        if (because := without_vector(code)) is not None:
            click.echo(f"  {code:<28} {because}")
    for gap in missing:
        click.echo(f"FAIL {gap}")
    if (why := recorded.absent()) is not None:
        click.echo(f"Recordings left out, whose codes and attacks emulated vectors have as well: {why}")
    click.echo(f"{len(outcomes)} runs in {seconds:.1f} s")


if __name__ == "__main__":
    main()
