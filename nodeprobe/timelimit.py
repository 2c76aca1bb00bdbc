"""
A job with a time limit: driver calls can hang, and a hung call cannot be stopped, only left behind.

The job runs in a daemon thread, one at a time. When it does not come back in time the caller goes on without it. The
thread stays until the process ends, and `stuck()` tells the command line to end it without waiting for the libraries'
own clean-up, which would hang as well.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
Doing = Callable[[str], None]  # the job says what it is about to do, so that a hang can be named

LIMIT_SECONDS = 60.0  # of one whole reading, unless told otherwise: a cold driver takes seconds per GPU to start
THREAD_NAME = "nodeprobe-driver"


class HungError(Exception):
    """The job did not come back in time. `doing` is what it was at."""

    def __init__(self, doing: str) -> None:
        self.doing = doing
        super().__init__(doing)


class Worker:
    """Runs one job at a time. After a hang it takes none until the hung one has come back: threads do not pile up."""

    def __init__(self) -> None:
        self._one_at_a_time = threading.Lock()
        self._thread: threading.Thread | None = None
        self._doing = ""

    def run(self, job: Callable[[Doing], T], limit_seconds: float) -> T:
        """Return what the job returns, raise what it raises. HungError after `limit_seconds`, or if one hangs still."""
        with self._one_at_a_time:
            if self._thread is not None and self._thread.is_alive():
                raise HungError(self._doing)
            returned: list[T] = []
            raised: list[BaseException] = []

            def work() -> None:
                try:
                    returned.append(job(self._note))
                except BaseException as e:  # noqa: BLE001 - carried to the caller, who raises it
                    raised.append(e)

            self._doing = "starting"
            self._thread = threading.Thread(target=work, name=THREAD_NAME, daemon=True)
            self._thread.start()
            self._thread.join(limit_seconds)
            if self._thread.is_alive():
                raise HungError(self._doing)
        if raised:
            raise raised[0]
        return returned[0]

    def _note(self, doing: str) -> None:
        self._doing = doing


def stuck() -> bool:
    """Whether a job of this process has been left behind."""
    return any(thread.name == THREAD_NAME for thread in threading.enumerate())
