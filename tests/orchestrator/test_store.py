"""The store: a real SQLite file, what survives in it, and what does not."""

from __future__ import annotations

import sqlite3
import stat
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import create_engine

from orchestrator import challenges, registry
from orchestrator.challenges import CHALLENGE_BYTES, OPEN_CHALLENGES_MAX, OWNER_CHALLENGES_MAX, Issued
from orchestrator.messages import Load, Purpose, Service
from orchestrator.migrations.schema import METADATA, Moment
from orchestrator.reasons import CHALLENGE_EXPIRED, CHALLENGE_MISMATCH, CHALLENGE_UNKNOWN, TOO_MANY, Problem, Refused
from orchestrator.registry import Worker
from orchestrator.store import FOREVER, Event, Store, StoreError, Subscriber
from orchestrator.work import ALIVE, ATTESTED, REGISTERED, Counted
from tests.orchestrator.world import IP, MICROSECOND, NOON, OTHER_IP, SECOND, TLS, endpoint, verdict

LIFE = timedelta(seconds=120)
MINE, YOURS = challenges.of_worker("mine"), challenges.of_worker("yours")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "registry.sqlite"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    store = Store(path)
    yield store
    store.close()


def newcomer(worker_id: str = "id", ip: str = IP) -> Worker:
    return Worker(worker_id, ip, "a wallet", "a type", NOON, worker_key="a key", due_at=NOON)


def whole() -> Worker:
    """A worker with something in every field."""
    return replace(
        newcomer(),
        tls_spki_sha256=TLS,
        endpoints=(endpoint(), endpoint(model="another")),
        service=Service.CORDONED,
        drains_itself=True,
        generation=3,
        attempt=5,
        settled=4,
        attested_until=NOON + timedelta(hours=1, microseconds=1),
        alive_until=NOON + timedelta(seconds=90, microseconds=999_999),
        failures=2,
        against=("nonce-mismatch", "chain-root"),
        undecided=("rim-unavailable",),
        verdict=verdict(),
        evidence_sha256="22" * 32,
        load=Load(running=1, waiting=2),
    )


# --- what is kept -----------------------------------------------------------------------------------------------------
def test_a_worker_comes_back_as_it_was_even_after_a_restart(store: Store, path: Path) -> None:
    with store.transaction() as tx:
        tx.put_worker(whole(), NOON)
    store.close()
    with Store(path).reading() as view:
        assert view.worker("id") == whole()
        assert view.worker_at(IP) == whole()
        assert list(view.workers()) == [whole()]
        assert view.worker("another") is None
        assert view.worker_at(OTHER_IP) is None


def test_domain_and_promises_of_the_file(store: Store, path: Path) -> None:
    assert store.domain.startswith("workermanager/")
    assert len(store.domain) == len("workermanager/") + 16
    assert Store(path).domain == store.domain
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with store.transaction() as tx:
        asked = {
            name: tx._session.connection().exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert asked == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 15_000}


def test_revisions_build_the_very_tables_of_the_schema(store: Store, path: Path) -> None:
    with create_engine(f"sqlite:///{path}").connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": _same_type})
        assert compare_metadata(context, METADATA) == []
        assert context.get_current_revision() == "0003"


def _same_type(_context: object, _column: object, _meta: object, found: object, wanted: object) -> bool | None:
    return False if isinstance(wanted, Moment) and str(found) == "BIGINT" else None


@pytest.mark.parametrize("spoil", ["newer", "no database", "a folder"])
def test_a_file_that_cannot_be_used_is_refused_in_words(path: Path, spoil: str) -> None:
    if spoil == "newer":
        Store(path).close()
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.close()
    elif spoil == "no database":
        path.write_bytes(b"no database at all, and long enough to be taken for one" * 100)
    else:
        path.mkdir()
    with pytest.raises(StoreError, match=str(path)):
        Store(path)


@given(moment=st.datetimes(timezones=st.just(UTC)))
def test_times_are_kept_to_the_microsecond(moment: datetime) -> None:
    kept = Moment().process_bind_param(moment, None)  # type: ignore[arg-type]
    assert isinstance(kept, int)
    assert Moment().process_result_value(kept, None) == moment  # type: ignore[arg-type]


def test_a_time_without_a_zone_is_not_kept() -> None:
    with pytest.raises(ValueError, match="zone"):
        Moment().process_bind_param(datetime(2026, 1, 1), None)  # type: ignore[arg-type] # noqa: DTZ001


def test_history_is_kept(store: Store) -> None:
    with store.transaction() as tx:
        tx.put_worker(newcomer(), NOON)
        tx.add_verdict(newcomer(), verdict(), {"driver RIM": "11" * 32}, applied=True)
        tx.add_event(Event(NOON, "attested", "worker", newcomer(), ("a-reason",), {"detail": "told"}))
        tx.put_subscriber(Subscriber("02" * 33, "a router", NOON))
    with store.reading() as view:
        assert view.verdicts("id") == [verdict()]
        (event,) = view.events()
        assert (event["event"], event["reasons"], event["details"]) == ("attested", ["a-reason"], {"detail": "told"})
        assert view.subscriber("02" * 33) == Subscriber("02" * 33, "a router", NOON)


# --- all or nothing ---------------------------------------------------------------------------------------------------
class Crash(Exception):
    """As if the process had ended here."""


def change_everything_and_crash(store: Store, issued: Issued) -> None:
    with store.transaction() as tx:
        tx.put_worker(replace(newcomer("stays"), worker_type="changed", attested_until=NOON + LIFE), NOON)
        tx.put_worker(newcomer("id", OTHER_IP), NOON)
        tx.hold_devices("id", ["gpu-1"], NOON)
        tx.spend_id("a wallet", "an id", NOON + LIFE)
        tx.put_subscriber(Subscriber("02" * 33, "a router", NOON))
        tx.add_verdict(newcomer(), verdict(), {}, applied=True)
        tx.add_event(Event(NOON, "attested", "worker"))
        tx.add_counted(Counted("id", "w", 0, 1, NOON, NOON + SECOND, 1, 1, "ab"), NOON)
        tx.set_meta("admin_address", "nobody")
        assert tx.take_challenge(issued, NOON)
        raise Crash


def test_an_exception_leaves_nothing_behind(store: Store) -> None:
    with store.transaction() as tx:
        tx.put_worker(newcomer("stays"), NOON)
        issued = issue(tx)
    with pytest.raises(Crash):
        change_everything_and_crash(store, issued)
    with store.reading() as view:
        assert list(view.workers()) == [newcomer("stays")]
        assert view.holders(["gpu-1"]) == {}
        assert not view.is_spent("a wallet", "an id")
        assert view.subscriber("02" * 33) is None
        assert view.verdicts("id") == []
        assert view.events() == []
        assert view.counted(0) == []
        assert view.meta("admin_address") is None
        assert view.find_challenge(issued.challenge) == issued
        assert [span.fact for span in view.spans(NOON, FOREVER)] == [REGISTERED]


def test_a_reader_sees_the_last_commit_while_a_writer_works(store: Store) -> None:
    with store.transaction() as tx:
        tx.put_worker(newcomer(), NOON)
        with store.reading() as view:
            assert view.worker("id") is None
    with store.reading() as view:
        assert view.worker("id") == newcomer()


def test_writers_take_turns_and_lose_nothing(store: Store, path: Path) -> None:
    """Also beside another process: a second store on the same file has no lock of ours in common."""
    stores = [store, Store(path)]
    with store.transaction() as tx:
        tx.put_worker(newcomer(), NOON)

    def add(number: int) -> None:
        with stores[number % 2].transaction() as tx:
            worker = tx.worker("id")
            assert worker is not None
            tx.put_worker(registry.begin(worker)[0], NOON)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(40)))
    stores[1].close()
    with store.reading() as view:
        worker = view.worker("id")
        assert worker is not None
        assert worker.attempt == 40


# --- spans ------------------------------------------------------------------------------------------------------------
def spans(store: Store, fact: str) -> list[tuple[str, datetime, datetime]]:
    with store.reading() as view:
        found = view.spans(NOON - LIFE, FOREVER, fact=fact)
        return sorted((span.payment_wallet, span.begin, span.until) for span in found)


def put(store: Store, worker: Worker, at: datetime) -> Worker:
    with store.transaction() as tx:
        tx.put_worker(worker, at)
    return worker


def test_time_attested_is_recorded_as_it_was(store: Store) -> None:
    at = [NOON + i * timedelta(minutes=1) for i in range(10)]
    worker = put(store, newcomer(), at[0])
    worker = put(store, replace(worker, attested_until=at[4]), at[1])
    worker = put(store, replace(worker, attested_until=at[6]), at[3])  # extended before it ended: one span
    worker = put(store, replace(worker, failures=1), at[4])
    assert spans(store, ATTESTED) == [("a wallet", at[1], at[6])]
    worker = put(store, replace(worker, attested_until=None), at[5])  # cut short
    worker = put(store, replace(worker, attested_until=at[8]), at[7])
    put(store, replace(worker, attested_until=at[9]), at[8])  # extended in the very moment of its end: unbroken
    assert spans(store, ATTESTED) == [("a wallet", at[1], at[5]), ("a wallet", at[7], at[9])]
    assert spans(store, REGISTERED) == [("a wallet", at[0], FOREVER)]


def test_time_is_recorded_for_the_wallet_of_that_time(store: Store) -> None:
    worker = put(store, replace(newcomer(), attested_until=NOON + LIFE, alive_until=NOON + LIFE), NOON)
    put(store, replace(worker, payment_wallet="new wallet"), NOON + SECOND)
    for fact, until in ((ATTESTED, NOON + LIFE), (ALIVE, NOON + LIFE), (REGISTERED, FOREVER)):
        assert spans(store, fact) == [("a wallet", NOON, NOON + SECOND), ("new wallet", NOON + SECOND, until)]


def test_what_began_and_ended_in_one_moment_never_was(store: Store) -> None:
    worker = put(store, replace(newcomer(), attested_until=NOON + LIFE), NOON)
    put(store, replace(worker, attested_until=None), NOON)
    assert spans(store, ATTESTED) == []


def test_a_removed_worker_leaves_its_past_and_frees_its_devices(store: Store) -> None:
    worker = put(store, replace(newcomer(), attested_until=NOON + LIFE, alive_until=NOON + LIFE), NOON)
    with store.transaction() as tx:
        tx.hold_devices("id", ["gpu-1"], NOON)
        tx.remove_worker(worker, NOON + SECOND)
    for fact in (REGISTERED, ATTESTED, ALIVE):
        assert spans(store, fact) == [("a wallet", NOON, NOON + SECOND)]
    with store.reading() as view:
        assert view.holders(["gpu-1"]) == {}
        assert view.worker("id") is None


def test_a_device_has_one_holder(store: Store) -> None:
    one, two = put(store, newcomer("one"), NOON), put(store, newcomer("two", OTHER_IP), NOON)
    with store.transaction() as tx:
        tx.hold_devices("one", ["a", "b"], NOON)
        tx.hold_devices("two", ["b", "c"], NOON)
    with store.transaction() as tx:
        assert tx.holders(["a", "b", "c", "d"]) == {"a": one, "b": two, "c": two}
        tx.hold_devices("two", ["c"], NOON)
        assert tx.holders(["a", "b", "c"]) == {"a": one, "c": two}


# --- challenges -------------------------------------------------------------------------------------------------------
def issue(tx: object, purpose: Purpose = Purpose.ATTEST, owner: challenges.Owner = MINE, at: datetime = NOON) -> Issued:
    return challenges.issue(tx, purpose, owner, now=at, life=LIFE, token_bytes=_token_bytes)  # type: ignore[arg-type]


_counter = iter(range(1, 1 << 30))


def _token_bytes(count: int) -> bytes:
    assert count == CHALLENGE_BYTES
    return next(_counter).to_bytes(count, "big")


@pytest.mark.parametrize(
    ("purpose", "owner", "at", "problem"),
    [
        (Purpose.ATTEST, MINE, NOON + LIFE - MICROSECOND, None),
        (Purpose.ATTEST, MINE, NOON + LIFE, CHALLENGE_EXPIRED),
        (Purpose.LIVELINESS, MINE, NOON, CHALLENGE_MISMATCH),
        (Purpose.ATTEST, YOURS, NOON, CHALLENGE_MISMATCH),
    ],
)
def test_only_its_owner_redeems_a_challenge_for_its_purpose_in_time(
    store: Store, purpose: Purpose, owner: challenges.Owner, at: datetime, problem: Problem | None
) -> None:
    with store.transaction() as tx:
        issued = issue(tx)
    try:
        with store.transaction() as tx:
            assert challenges.redeem(tx, issued.challenge, purpose, owner, at) == issued
        assert problem is None
    except Refused as e:
        assert e.problem is problem  # noqa: PT017 — also the case of no refusal is asserted
    with store.reading() as view:
        assert (view.find_challenge(issued.challenge) is None) is (problem is None)


@pytest.mark.parametrize("answer", ["twice", "never issued"])
def test_a_challenge_that_is_not_there_is_unknown(store: Store, answer: str) -> None:
    with store.transaction() as tx:
        issued = issue(tx)
        challenges.redeem(tx, issued.challenge, Purpose.ATTEST, MINE, NOON)
    asked = issued.challenge if answer == "twice" else "ff" * 32
    with pytest.raises(Refused) as refused, store.transaction() as tx:
        challenges.redeem(tx, asked, Purpose.ATTEST, MINE, NOON)
    assert refused.value.problem is CHALLENGE_UNKNOWN


def test_of_many_answers_at_once_exactly_one_wins(store: Store, path: Path) -> None:
    other = Store(path)
    with store.transaction() as tx:
        issued = issue(tx)
    ready = threading.Barrier(8)

    def answer(number: int) -> bool:
        ready.wait()
        try:
            with (store if number % 2 else other).transaction() as tx:
                challenges.redeem(tx, issued.challenge, Purpose.ATTEST, MINE, NOON)
        except Refused as e:
            assert e.problem is CHALLENGE_UNKNOWN  # noqa: PT017 — in a thread
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(answer, range(8))) == [False] * 7 + [True]
    other.close()


def test_the_database_itself_spends_a_challenge_once(store: Store) -> None:
    """Even for somebody who looked before the other spent it."""
    with store.transaction() as tx:
        issued = issue(tx)
        assert not tx.take_challenge(replace(issued, owner=YOURS), NOON)
        assert not tx.take_challenge(replace(issued, purpose=Purpose.LIVELINESS), NOON)
        assert not tx.take_challenge(issued, NOON + LIFE)
        assert tx.take_challenge(issued, NOON)
        assert not tx.take_challenge(issued, NOON)


def test_a_worker_keeps_few_challenges_and_the_youngest(store: Store) -> None:
    with store.transaction() as tx:
        issued = [issue(tx, at=NOON + i * SECOND) for i in range(OWNER_CHALLENGES_MAX + 2)]
        other = issue(tx, owner=YOURS)
        kept = [each for each in issued if tx.find_challenge(each.challenge)]
    assert kept == issued[-OWNER_CHALLENGES_MAX:]
    with store.reading() as view:
        assert view.find_challenge(other.challenge) == other


def test_open_challenges_are_bounded_and_expired_ones_make_room(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert OPEN_CHALLENGES_MAX == 10_000
    monkeypatch.setattr(challenges, "OPEN_CHALLENGES_MAX", 3)
    owner = challenges.of_subscriber("02" * 33)
    with store.transaction() as tx:
        for i in range(3):
            issue(tx, Purpose.GET_WORKERS, owner, NOON + i * SECOND)
        with pytest.raises(Refused) as refused:
            issue(tx, Purpose.REGISTER, challenges.of_newcomer(IP, "a wallet"), NOON + LIFE - MICROSECOND)
        issue(tx, Purpose.REGISTER, challenges.of_newcomer(IP, "a wallet"), NOON + LIFE)
        issue(tx)  # a worker's own is no open one
    assert refused.value.problem is TOO_MANY


def test_message_ids_are_spent_once_per_signer_and_forgotten(store: Store) -> None:
    with store.transaction() as tx:
        assert tx.spend_id("a", "id", NOON + LIFE)
        assert not tx.spend_id("a", "id", NOON + LIFE)
        assert tx.spend_id("b", "id", NOON + LIFE)
        assert tx.forget_ids(NOON + LIFE - MICROSECOND) == 0
        assert tx.forget_ids(NOON + LIFE) == 2
        assert not tx.is_spent("a", "id")
