"""What benchmarks share: a ratio of two kinds of work done in turn, and the entry that the table shows."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

Work = Callable[[], object]
BARE = "x of one bare P-384 verification by cryptography"


def ratio(works: Sequence[Work], floors: Sequence[Work]) -> float:
    """One and the other in turn, so that a disturbance meets both; the median of each, so that it counts for little."""
    times: tuple[list[float], list[float]] = ([], [])
    for pair in zip(works, floors, strict=True):
        for work, taken in zip(pair, times, strict=True):
            start = time.perf_counter()
            work()
            taken.append(time.perf_counter() - start)
    return statistics.median(times[0]) / statistics.median(times[1])


def figure(
    name: str, ratios: Sequence[float], target: float, detail: str, *, unit: str = BARE, bound: str = "at most"
) -> dict[str, Any]:
    """An entry: the median of the rounds' ratios, and whether it holds."""
    middle = statistics.median(ratios)
    low, _, high = statistics.quantiles(ratios, n=4)
    holds = middle >= target if bound == "at least" else middle <= target
    spread = f"{detail}; median of {len(ratios)} rounds, half of them within {low:.2f} and {high:.2f}"
    return _entry(name, target, unit, bound) | {"ratio": round(middle, 3), "holds": holds, "detail": spread}


def skipped(name: str, target: float, why: str, *, unit: str = BARE, bound: str = "at most") -> dict[str, Any]:
    """An entry for what could not be measured here, with the reason."""
    return _entry(name, target, unit, bound) | {"ratio": None, "holds": None, "detail": why}


def _entry(name: str, target: float, unit: str, bound: str) -> dict[str, Any]:
    return {"name": name, "target": target, "bound": bound, "unit": unit}
