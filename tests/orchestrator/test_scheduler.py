"""The routing table against a naive one: whatever is done to it, it hands out what is live, and nothing twice."""

import json
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from orchestrator.messages import Urls
from orchestrator.scheduler import Route, RoutingTable

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
SOON = NOW + timedelta(minutes=5)
INSTANT = timedelta(microseconds=1)
VERDICT = {"tier": "affirming", "emulated": False, "revocation": "not checked"}


def route(worker="203.0.113.1", model="m", port=21434, not_after=SOON):
    return Route(f"https://{worker}:{port}", model, worker, "1xH100", None, not_after, VERDICT)


def table():
    return RoutingTable(random.Random(7))


def urls(some, model=None, limit=None, now=NOW):
    return [url.url for url in Urls.model_validate_json(some.urls_body(model, limit, now)).urls]


def test_a_route_is_handed_out_whole():
    some = table()
    some.publish("203.0.113.1", (replace(route(), tls_spki_sha256="ab" * 32),))

    assert json.loads(some.urls_body("m", 5, NOW)) == {
        "revision": 1,
        "urls": [
            {
                "url": "https://203.0.113.1:21434",
                "model": "m",
                "worker": "203.0.113.1",
                "worker_type": "1xH100",
                "tls_spki_sha256": "ab" * 32,
                "not_after": "2026-06-01T12:05:00Z",
                "verdict": VERDICT,
            }
        ],
    }


def test_an_unknown_model_gives_an_empty_list():
    some = table()
    some.publish("203.0.113.1", (route(),))

    assert urls(some, "other") == []
    assert urls(some, "other", 5) == []
    assert urls(some, "") == []


def test_an_empty_table_gives_empty_lists():
    assert json.loads(table().urls_body(None, None, NOW)) == {"revision": 0, "urls": []}
    assert table().models(NOW) == ()


@pytest.mark.parametrize("limit", [None, 1, 5])
def test_the_instant_of_not_after_is_too_late(limit):
    some = table()
    some.publish("203.0.113.1", (route(),))

    assert len(urls(some, "m", limit, SOON - INSTANT)) == 1
    assert some.models(SOON - INSTANT) == ("m",)
    assert urls(some, "m", limit, SOON) == []
    assert some.models(SOON) == ()


def test_a_renewed_route_comes_back_after_it_ended():
    some = table()
    some.publish("203.0.113.1", (route(),))
    assert urls(some, "m", 1, SOON) == []
    some.publish("203.0.113.1", (route(not_after=SOON + timedelta(minutes=1)),))

    assert len(urls(some, "m", 1, SOON)) == 1
    assert some.models(SOON) == ("m",)


def test_a_pass_gives_every_route_once_before_any_again():
    some = table()
    for i in range(12):
        some.publish(f"203.0.113.{i}", (route(f"203.0.113.{i}"),))

    for _ in range(10):
        given = [url for _ in range(4) for url in urls(some, "m", 3)]
        assert len(set(given)) == 12


def test_a_worker_that_reports_often_is_not_drawn_more_often():
    some = table()
    for i in range(10):
        some.publish(f"203.0.113.{i}", (route(f"203.0.113.{i}"),))

    given = []
    for i in range(10):
        some.publish("203.0.113.0", (route("203.0.113.0", not_after=SOON + timedelta(seconds=i)),))
        given += urls(some, "m", 1)
    assert len(set(given)) == 10


def test_revisions_rise_with_changes_only():
    some = table()
    some.publish("203.0.113.1", (route(),))
    some.publish("203.0.113.2", (route("203.0.113.2", "other"),))
    assert some.revision == 2
    assert json.loads(some.urls_body("m", 1, NOW))["revision"] == 1
    assert json.loads(some.urls_body(None, 1, NOW))["revision"] == 2

    some.publish("203.0.113.1", (route(),))
    some.withdraw("203.0.113.9")
    assert some.revision == 2
    some.withdraw("203.0.113.1")
    assert some.revision == 3
    assert json.loads(some.urls_body("m", 1, NOW)) == {"revision": 3, "urls": []}


def test_the_whole_answer_is_made_once_for_each_change_and_ends_with_its_first_route():
    some = table()
    some.publish("203.0.113.1", (route(),))
    some.publish("203.0.113.2", (route("203.0.113.2", not_after=SOON + timedelta(minutes=1)),))
    first = some.urls_body("m", None, NOW)

    assert some.urls_body("m", None, SOON - INSTANT) is first
    assert urls(some, "m", None, SOON) == ["https://203.0.113.2:21434"]


def test_writers_and_a_reader_at_once():
    some = table()
    ips = [f"203.0.113.{i}" for i in range(40)]
    stop = threading.Event()

    def write(mine):
        rng = random.Random(mine[0])
        while not stop.is_set():
            ip = rng.choice(mine)
            if rng.random() < 0.5:
                some.withdraw(ip)
            else:
                some.publish(ip, (route(ip), route(ip, "n", 21435)))

    with ThreadPoolExecutor(4) as pool:
        writers = [pool.submit(write, ips[i::4]) for i in range(4)]
        for _ in range(1000):
            given, whole = urls(some, "m", 5), urls(some)
            assert len(set(given)) == len(given) <= 5
            assert len(set(whole)) == len(whole)
        stop.set()
        assert [writer.result(timeout=10) for writer in writers] == [None] * 4
    for ip in ips:
        some.withdraw(ip)

    assert urls(some) == []
    assert some.models(NOW) == ()


class Naive:
    """The same by lists: slow, and plainly right."""

    def __init__(self):
        self.routes = {}

    def live(self, model, now):
        every = [r for routes in self.routes.values() for r in routes.values()]
        return sorted(r.url for r in every if now < r.not_after and model in (None, r.model))


class Machine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.real, self.naive, self.now = table(), Naive(), NOW

    workers = st.integers(1, 6).map("203.0.113.{}".format)
    models = st.sampled_from(["m", "n", "o"])
    lives = st.integers(-1, 5).map(lambda minutes: timedelta(minutes=minutes))

    @rule(worker=workers, routes=st.lists(st.tuples(models, st.integers(1, 3), lives), max_size=5))
    def publish(self, worker, routes):
        made = tuple(route(worker, model, port, self.now + life) for model, port, life in routes)
        before = self.naive.routes.get(worker, {})
        self.naive.routes[worker] = {(r.model, r.url): r for r in made}
        revision = self.real.revision
        self.real.publish(worker, made)
        assert self.real.revision == revision + (before != self.naive.routes[worker])

    @rule(worker=workers)
    def withdraw(self, worker):
        self.naive.routes.pop(worker, None)
        self.real.withdraw(worker)

    @rule(seconds=st.sampled_from([1, 59, 60, 61, 300]))
    def wait(self, seconds):
        self.now += timedelta(seconds=seconds)

    @rule(model=st.none() | models, limit=st.integers(1, 8))
    def draw(self, model, limit):
        live = self.naive.live(model, self.now)
        given = urls(self.real, model, limit, self.now)
        assert len(given) == min(limit, len(live))
        rest = list(live)
        for url in given:
            rest.remove(url)  # neither dead nor twice

    @rule(model=st.none() | models)
    def whole(self, model):
        assert sorted(urls(self.real, model, None, self.now)) == self.naive.live(model, self.now)

    @invariant()
    def models_are_those_of_live_routes(self):
        expected = tuple(m for m in ("m", "n", "o") if self.naive.live(m, self.now))
        assert self.real.models(self.now) == expected


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
