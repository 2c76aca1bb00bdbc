"""
What runs when, by itself. The only module that knows APScheduler.

A handful of ticks, nothing more: due times live in the database, and what time decides it decides without them. A tick
that fails is told in the log, and comes again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC
from typing import Protocol

import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.interval import IntervalTrigger

DRAIN_SECONDS_MAX = 30.0  # for ticks that still run when we stop
JITTER = 0.1  # of the interval, so that replicas do not tick together

log = structlog.get_logger("orchestrator.ticks")


class Sweeper(Protocol):
    """The manager, as ticks see it."""

    def expire(self) -> None: ...
    def forget(self) -> None: ...


class Refreshing(Protocol):
    """The broker, as ticks see it."""

    def refresh(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Tick:
    """One thing to do again and again. `call` is synchronous, and runs in a thread."""

    name: str
    seconds: float
    call: Callable[[], None]


class Ticks:
    """Runs while `running()` is entered: of each tick at most one at a time, late ones once."""

    def __init__(self, *ticks: Tick) -> None:
        self.ticks = ticks
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    def of(cls, manager: Sweeper, broker: Refreshing) -> Ticks:
        """What an orchestrator needs."""
        return cls(
            Tick("expire", 1.0, manager.expire),
            Tick("forget", 60.0, manager.forget),
            Tick("refresh collateral", 60.0, broker.refresh),
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Tick until the end of the block; then start nothing more, and wait for what runs."""
        scheduler = AsyncIOScheduler(timezone=UTC)  # its job store is memory
        for tick in self.ticks:
            scheduler.add_job(
                self._run,
                IntervalTrigger(seconds=tick.seconds, jitter=tick.seconds * JITTER, timezone=UTC),
                args=[tick],
                id=tick.name,
                max_instances=1,
                coalesce=True,
                misfire_grace_time=None,
            )
        scheduler.start()
        try:
            yield
        finally:
            scheduler.pause()
            await self._drain()
            scheduler.shutdown(wait=False)
            await asyncio.sleep(0)  # it shuts down in the next turn of the loop

    async def _run(self, tick: Tick) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        try:
            await asyncio.to_thread(tick.call)
        except Exception:  # the one broad except: a bug must not stop the clock
            log.exception("tick failed", tick=tick.name)

    async def _drain(self) -> None:
        """Shutting down cancels what runs, and a thread cannot be cancelled: so wait for it first."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=DRAIN_SECONDS_MAX)
            if late:
                log.warning("ticks still run at the end", count=len(late))
