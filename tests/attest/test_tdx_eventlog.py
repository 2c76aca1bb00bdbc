"""Event logs, replayed against the registers of a quote: whole, in part, changed, and none."""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attest.claims import Claims
from attest.errors import MalformedEvidence
from attest.reasons import tdx as reasons
from attest.tdx import eventlog
from attest.tdx.rules import TdxRules
from nodeprobe.emulator.tdx import EmulatedTd, IntelPki
from nodeprobe.emulator.tdx_quote import EVENTS, register
from tests.tdx_world import NOW, Emulated, appraised

COMPOSE = b"\xab" * 32


@pytest.fixture(scope="module")
def claims(tmp_path_factory: pytest.TempPathFactory) -> Claims:
    pki = IntelPki.create(tmp_path_factory.mktemp("tdx") / "pki")
    return Emulated(pki, EmulatedTd.create(pki, "machine-0", now=NOW)).claims()


def entries(*registers: int) -> list[dict[str, Any]]:
    """The events that the emulated firmware measured: one a register."""
    return [{"imr": index, "event_type": 1, "digest": EVENTS[index].hex(), "event": "boot"} for index in registers]


def application(name: str, payload: bytes) -> dict[str, Any]:
    covered = (0x08000001).to_bytes(4, "little") + b":" + name.encode() + b":" + payload
    return {
        "imr": 3,
        "event_type": 0x08000001,
        "digest": hashlib.sha384(covered).hexdigest(),
        "event": name,
        "event_payload": payload.hex(),
    }


def log(events: list[dict[str, Any]]) -> bytes:
    return json.dumps(events).encode()


def with_registers(claims: Claims, **values: bytes) -> Claims:
    return replace(claims, values={**claims.values, **{name: value.hex() for name, value in values.items()}})


def test_a_whole_log_matches(claims: Claims) -> None:
    replayed = eventlog.with_event_log(claims, log(entries(0, 1, 2, 3)))

    assert (replayed.values["rtmr_replay"], replayed.values["rtmr_replayed"]) == ("match", (0, 1, 2, 3))
    assert appraised(replayed, TdxRules(event_log="required")) == set()


def test_no_log_is_told_and_fails_where_one_is_required(claims: Claims) -> None:
    assert eventlog.with_event_log(claims, None) is claims
    assert appraised(claims) == set()
    assert appraised(claims, TdxRules(event_log="required")) == {"tdx-event-log"}


@pytest.mark.parametrize(
    "events",
    [
        [*entries(0, 1, 2, 3), *entries(3)],  # one more
        [*entries(0, 1, 2), {"imr": 3, "digest": "00" * 48}],  # another one
        [{**each, "imr": 3 - each["imr"]} for each in entries(0, 1, 2, 3)],  # in other registers
    ],
)
def test_a_changed_log_does_not_match(claims: Claims, events: list[dict[str, Any]]) -> None:
    replayed = eventlog.with_event_log(claims, log(events))

    assert replayed.values["rtmr_replay"] == "mismatch"
    assert appraised(replayed) == {"tdx-event-log"}


def test_a_log_of_some_registers_matches_in_part(claims: Claims) -> None:
    replayed = eventlog.with_event_log(claims, log(entries(0, 1, 2)))
    unused = eventlog.with_event_log(with_registers(claims, rtmr3=bytes(48)), log(entries(0, 1, 2)))

    assert (replayed.values["rtmr_replay"], unused.values["rtmr_replay"]) == ("partial", "match")
    assert appraised(replayed) == set()
    assert appraised(replayed, TdxRules(event_log="required")) == {"tdx-event-log"}


def test_order_counts(claims: Claims) -> None:
    first, second = application("a", b"1"), application("b", b"2")
    measured = register(bytes.fromhex(first["digest"]), bytes.fromhex(second["digest"]))
    measured_claims = with_registers(claims, rtmr3=measured)

    assert eventlog.with_event_log(measured_claims, log([first, second])).values["rtmr_replay"] == "partial"
    assert eventlog.with_event_log(measured_claims, log([second, first])).values["rtmr_replay"] == "mismatch"


def test_application_events_become_claims_and_are_held_to_the_list(claims: Claims) -> None:
    event = application("compose-hash", COMPOSE)
    measured = with_registers(claims, rtmr3=register(bytes.fromhex(event["digest"])))
    replayed = eventlog.with_event_log(measured, log([event]))
    right, wrong = frozenset({COMPOSE.hex()}), frozenset({"00" * 32})

    assert replayed.values["event.compose-hash"] == COMPOSE.hex()
    assert appraised(replayed, TdxRules(events={"compose-hash": right})) == set()
    assert appraised(replayed, TdxRules(events={"compose-hash": wrong})) == {"tdx-event"}
    assert appraised(measured, TdxRules(events={"compose-hash": right})) == {"tdx-event"}  # no log at all


def test_events_of_a_log_that_does_not_match_are_no_claims(claims: Claims) -> None:
    replayed = eventlog.with_event_log(claims, log([application("compose-hash", COMPOSE)]))

    assert replayed.values["rtmr_replay"] == "mismatch"
    assert not [name for name in replayed.values if name.startswith("event.")]


def test_a_name_that_no_digest_covers_is_no_claim(claims: Claims) -> None:
    """A firmware event may be called anything by the node that sends the log."""
    lying = [{"imr": 3, "event_type": 1, "digest": EVENTS[3].hex(), "event": "compose-hash", "event_payload": "ab"}]
    replayed = eventlog.with_event_log(claims, log(lying))

    assert "event.compose-hash" not in replayed.values


def test_an_event_that_stands_twice_is_no_claim(claims: Claims) -> None:
    events = [application("compose-hash", COMPOSE), application("compose-hash", b"other"), application("app-id", b"1")]
    measured = with_registers(claims, rtmr3=register(*(bytes.fromhex(each["digest"]) for each in events)))
    values = eventlog.with_event_log(measured, log(events)).values

    assert values["rtmr_replay"] == "partial"
    assert "event.compose-hash" not in values
    assert values["event.app-id"] == b"1".hex()


def test_named_events_have_a_bound(claims: Claims) -> None:
    events = [application(f"e{number}", b"") for number in range(65)]
    measured = with_registers(claims, rtmr3=register(*(bytes.fromhex(each["digest"]) for each in events)))

    with pytest.raises(MalformedEvidence):
        eventlog.with_event_log(measured, log(events))


def test_shorter_digests_are_padded_and_absent_ones_computed(claims: Claims) -> None:
    short = hashlib.sha256(b"compose").digest()
    measured = with_registers(claims, rtmr3=register(short + bytes(16)))
    assert (
        eventlog.with_event_log(measured, log([{"imr": 3, "digest": short.hex()}])).values["rtmr_replay"] == "partial"
    )

    event = application("compose-hash", COMPOSE)
    measured = with_registers(claims, rtmr3=register(bytes.fromhex(event["digest"])))
    assert eventlog.with_event_log(measured, log([event | {"digest": ""}])).values["rtmr_replay"] == "partial"


@pytest.mark.parametrize(
    "text",
    [
        b"", b"{}", b"[]", b"[1]", b'[{"imr":4,"digest":"00"}]', b'[{"imr":true,"digest":""}]', b'[{"imr":0}]',
        b'[{"imr":0,"digest":"zz"}]', b'[{"imr":0,"digest":"' + b"00" * 47 + b'"}]', b"[" * 100_000, b"\xff" * 99,
        b'[{"imr":0,"imr":1,"digest":"' + b"00" * 48 + b'"}]',
        log([application("compose-hash", COMPOSE) | {"event_payload": "00"}]),
        log(entries(0) * 4097),
        b" " * ((1 << 20) + 1),
    ],
)  # fmt: skip
def test_what_is_no_log_is_malformed(claims: Claims, text: bytes) -> None:
    with pytest.raises(MalformedEvidence) as caught:
        eventlog.with_event_log(claims, text)

    assert caught.value.reason is reasons.TDX_EVENT_LOG_MALFORMED


# --- CCEL -------------------------------------------------------------------------------------------------------------
def ccel(*events: tuple[int, int, bytes]) -> bytes:
    """A crypto-agile log: header event, then (register, type, SHA-384 digest) beside a SHA-256 digest; and filling."""
    header = b"Spec ID Event03\0" + bytes(17)
    out = struct.pack("<II20sI", 0, 3, bytes(20), len(header)) + header
    for register_index, kind, digest in events:
        out += struct.pack("<III", register_index, kind, 2)
        out += struct.pack("<H32s", 0x000B, bytes(32)) + struct.pack("<H48s", 0x000C, digest)
        out += struct.pack("<I", 4) + b"data"
    return out + b"\xff" * 64


def test_a_firmware_log_matches_what_firmware_measures(claims: Claims) -> None:
    text = ccel((1, 3, bytes(48)), *((index + 1, 0x80000008, EVENTS[index]) for index in range(3)))
    replayed = eventlog.with_event_log(claims, text)

    assert (replayed.values["rtmr_replay"], replayed.values["rtmr_replayed"]) == ("partial", (0, 1, 2))


def test_a_firmware_log_that_was_changed_does_not(claims: Claims) -> None:
    assert eventlog.with_event_log(claims, ccel((1, 1, EVENTS[1]))).values["rtmr_replay"] == "mismatch"


@pytest.mark.parametrize(
    "text",
    [
        ccel(),
        ccel((0, 1, EVENTS[0])),
        ccel((5, 1, EVENTS[0])),
        ccel((1, 1, EVENTS[0]))[:-70],
        ccel((1, 1, EVENTS[0])).replace(b"Spec ID Event03", b"Spec ID Event02"),
        ccel((1, 1, EVENTS[0])).replace(struct.pack("<III", 1, 1, 2), struct.pack("<III", 1, 1, 9)),
        ccel((1, 1, EVENTS[0])).replace(b"\x0b\0" + bytes(32), b"\x77\0" + bytes(32)),
        ccel((1, 1, EVENTS[0])).replace(b"\x0c\0" + EVENTS[0], b"\x0b\0" + bytes(32) + b"\0" * 4),
        ccel(*[(1, 1, EVENTS[0])] * 4097),
    ],
)
def test_what_is_no_firmware_log_is_malformed(claims: Claims, text: bytes) -> None:
    with pytest.raises(MalformedEvidence):
        eventlog.with_event_log(claims, text)


@given(st.binary(max_size=300))
def test_noise_is_a_log_or_malformed(data: bytes) -> None:
    for text in (data, b"[" + data, ccel((1, 1, EVENTS[0]))[:65] + data):
        try:
            events = eventlog.read(text)
        except MalformedEvidence:
            continue
        assert all(0 <= event.register < 4 and len(event.digest) == 48 for event in events)
