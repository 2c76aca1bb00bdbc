"""Ticks: a real scheduler on a real loop. Everything is awaited; nothing is slept for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.broker import FolderBroker
from orchestrator.ticks import Tick, Ticks
from tests.orchestrator.world import LIFETIME, World

SOON = 0.01  # seconds between ticks
PATIENCE = 30.0


class Counter:
    """Something to tick: tells a waiting loop how often it was called, and may be told to do more."""

    def __init__(self, loop: asyncio.AbstractEventLoop, then: Callable[[], object] = lambda: None) -> None:
        self.calls = 0
        self._loop, self._then = loop, then
        self._called = asyncio.Event()

    def __call__(self) -> None:
        self.calls += 1
        self._loop.call_soon_threadsafe(self._called.set)
        self._then()

    async def reaches(self, calls: int) -> None:
        async with asyncio.timeout(PATIENCE):
            while self.calls < calls:
                await self._called.wait()
                self._called.clear()


def fail() -> None:
    raise ZeroDivisionError


def test_ticks_come_again_and_again_also_after_a_failure() -> None:
    async def scene() -> None:
        loop = asyncio.get_running_loop()
        good, bad = Counter(loop), Counter(loop, fail)
        async with Ticks(Tick("good", SOON, good), Tick("bad", SOON, bad)).running():
            await good.reaches(3)
            await bad.reaches(3)

    asyncio.run(scene())


def test_a_tick_runs_once_at_a_time_and_holds_up_no_other() -> None:
    async def scene() -> None:
        loop, go_on = asyncio.get_running_loop(), threading.Event()
        slow, quick = Counter(loop, lambda: go_on.wait(PATIENCE)), Counter(loop)
        async with Ticks(Tick("slow", SOON, slow), Tick("quick", SOON, quick)).running():
            await slow.reaches(1)
            await quick.reaches(quick.calls + 10)
            assert slow.calls == 1
            go_on.set()
            await slow.reaches(2)

    asyncio.run(scene())


def test_the_end_waits_for_what_runs_and_starts_nothing_more() -> None:
    async def scene() -> None:
        loop, go_on, done = asyncio.get_running_loop(), threading.Event(), threading.Event()

        def work() -> None:
            go_on.wait(PATIENCE)
            done.set()

        slow = Counter(loop, work)
        running = Ticks(Tick("slow", SOON, slow)).running()
        await running.__aenter__()
        await slow.reaches(1)
        leaving = asyncio.ensure_future(running.__aexit__(None, None, None))
        await asyncio.sleep(0)
        assert not leaving.done()
        go_on.set()
        await asyncio.wait_for(leaving, PATIENCE)
        assert done.is_set()
        assert slow.calls == 1

    asyncio.run(scene())


def test_the_end_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.ticks.DRAIN_SECONDS_MAX", 0.01)

    async def scene() -> None:
        go_on = threading.Event()
        stuck = Counter(asyncio.get_running_loop(), lambda: go_on.wait(PATIENCE))
        async with Ticks(Tick("stuck", SOON, stuck)).running():
            await stuck.reaches(1)
        go_on.set()  # the loop itself waits for its threads

    asyncio.run(scene())


def test_nothing_ticks_before_it_runs() -> None:
    ticked = threading.Event()
    Ticks(Tick("early", SOON, ticked.set))
    assert not ticked.is_set()


def test_an_orchestrator_records_expiries_by_itself(tmp_path: Path) -> None:
    world = World.good(tmp_path)
    world.clock.forward(LIFETIME)

    async def scene() -> None:
        swept = Counter(asyncio.get_running_loop())

        def expire() -> None:
            world.manager.expire()
            swept()

        async with Ticks(Tick("expire", SOON, expire)).running():
            await swept.reaches(1)

    asyncio.run(scene())
    assert world.events()[-2:] == ["attestation-expired", "liveliness-expired"]


def test_what_an_orchestrator_ticks(tmp_path: Path) -> None:
    world = World(tmp_path)
    ticks = Ticks.of(world.manager, FolderBroker(tmp_path))
    assert [(tick.name, tick.seconds) for tick in ticks.ticks] == [
        ("expire", 1.0),
        ("forget", 60.0),
        ("refresh collateral", 60.0),
    ]
    for tick in ticks.ticks:
        tick.call()
