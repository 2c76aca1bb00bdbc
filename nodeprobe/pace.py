"""When to try again: delays that double with each failure up to a limit, and are spread by chance."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

DOUBLINGS_MAX = 30


@dataclass(slots=True)
class Backoff:
    """
    Counts failures in a row. Not a loop that retries (which stamina would do better): an agent that waits for one
    thing still has others to do, and ends when it is told to.
    """

    first_seconds: float
    longest_seconds: float
    failures: int = 0

    def failed(self, random: Random, at_least: float = 0.0) -> float:
        """The seconds to wait now: between half of the delay and all of it, and never less than `at_least`."""
        delay = min(self.longest_seconds, self.first_seconds * 2.0 ** min(self.failures, DOUBLINGS_MAX))
        self.failures += 1
        return max(at_least, delay * (1 + random.random()) / 2)

    def worked(self) -> None:
        self.failures = 0
