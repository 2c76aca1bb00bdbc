"""
Event logs: what was measured into the run-time registers, replayed against the quote.

A register grows by RTMR' = SHA-384(RTMR || digest), from zero. The log comes from the node and proves nothing by
itself; one that gives the quoted registers cannot be another's. Two forms are read:

    JSON    [{"imr": 0…3, "digest": hex, "event_type": n, "event": name, "event_payload": hex}, …], as dstack and
            SecretVM keep it; shorter digests are padded with zeros to 48 bytes, an absent one is computed
    CCEL    the TCG crypto-agile log that firmware leaves in ACPI (TCG EFI Protocol §5, Intel's TDX Virtual Firmware
            Design Guide §8): register 0 is MRTD, 1 to 4 are RTMR0 to RTMR3

An application event of dstack has the type 0x08000001 and the digest SHA-384(type u32 || ":" || name || ":" ||
payload); only of these does the digest cover the name, and only these become claims.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from attest.claims import Claims, Value
from attest.cursor import Cursor
from attest.errors import MalformedEvidence
from attest.reasons.tdx import TDX_EVENT_LOG_MALFORMED

LOG_BYTES_MAX = 1 << 20
EVENTS_MAX, EVENT_CLAIMS_MAX = 4096, 64
PAYLOAD_BYTES_MAX = 4096  # of an event that becomes a claim
REGISTERS = 4
REGISTER_BYTES = 48
DIGEST_SIZES = (20, 32, 48)
APPLICATION = 0x08000001
APPLICATION_REGISTER = 3
_EVENT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

EV_NO_ACTION = 3
SHA384_ALGORITHM = 0x000C
_DIGEST_BYTES = {0x0004: 20, 0x000B: 32, SHA384_ALGORITHM: 48, 0x000D: 64, 0x0012: 32}
_ALGORITHMS_MAX = 8
_UNUSED = 0xFFFFFFFF  # what the area holds after the last event


@dataclass(frozen=True, slots=True)
class Event:
    """One measured event: which RTMR, the digest of 48 bytes, and what it is about if the digest covers that."""

    register: int
    digest: bytes
    name: str = ""
    payload: bytes = b""


def read(log: bytes) -> tuple[Event, ...]:
    """The events of a log in either form. MalformedEvidence if it is neither, or too large."""
    if len(log) > LOG_BYTES_MAX:
        raise MalformedEvidence(TDX_EVENT_LOG_MALFORMED, f"{len(log)} bytes", f"at most {LOG_BYTES_MAX}")
    events = tuple(_from_json(log) if log.lstrip()[:1] == b"[" else _from_ccel(log))
    if not events:
        raise MalformedEvidence(TDX_EVENT_LOG_MALFORMED, "no event", "at least one")
    return events


def replay(events: Sequence[Event]) -> Mapping[int, bytes]:
    """What the registers that the log speaks of hold in the end, 48 bytes each."""
    registers: dict[int, bytes] = {}
    for event in events:
        before = registers.get(event.register, bytes(REGISTER_BYTES))
        registers[event.register] = hashlib.sha384(before + event.digest).digest()
    return registers


def with_event_log(claims: Claims, log: bytes | None) -> Claims:
    """
    The claims of a quote, and what the node's event log adds to them. MalformedEvidence if the log does not parse.

    A log may leave registers out, as CCEL does RTMR3. It matches only in part if one of those is not zero.
    """
    if log is None:
        return claims
    events = read(log)
    replayed = replay(events)
    holds = all(
        hmac.compare_digest(value, bytes.fromhex(str(claims.values[f"rtmr{index}"])))
        for index, value in replayed.items()
    )
    untold = [index for index in range(REGISTERS) if index not in replayed]
    complete = all(str(claims.values[f"rtmr{index}"]).strip("0") == "" for index in untold)
    values: dict[str, Value] = {
        "rtmr_replay": "mismatch" if not holds else "match" if complete else "partial",
        "rtmr_replayed": tuple(sorted(replayed)),
    }
    if holds:
        values |= _named(events)
    return replace(claims, values={**claims.values, **values})


def _named(events: Sequence[Event]) -> dict[str, Value]:
    """Application events by name. One that stands twice is claimed as neither: which one counts is not ours to say."""
    found: dict[str, Value] = {}
    twice: set[str] = set()
    for event in events:
        if event.name and len(event.payload) <= PAYLOAD_BYTES_MAX:
            name = f"event.{event.name}"
            twice |= {name} & found.keys()
            found[name] = event.payload.hex()
    if len(found) > EVENT_CLAIMS_MAX:
        raise MalformedEvidence(TDX_EVENT_LOG_MALFORMED, f"{len(found)} named events", f"at most {EVENT_CLAIMS_MAX}")
    return {name: value for name, value in found.items() if name not in twice}


# --- JSON -------------------------------------------------------------------------------------------------------------
def _from_json(log: bytes) -> Iterator[Event]:
    try:
        entries = json.loads(log, object_pairs_hook=_unambiguous)
        if len(entries) > EVENTS_MAX:
            raise ValueError(f"{len(entries)} events, at most {EVENTS_MAX}")
        yield from [_json_event(entry) for entry in entries]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        found = f"{type(e).__name__} {e}"
        raise MalformedEvidence(TDX_EVENT_LOG_MALFORMED, found, "a list of events: imr, digest") from e


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """What two readers might read differently is no evidence."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name twice in one object")
    return found


def _json_event(entry: Any) -> Event:
    register, name = entry["imr"], entry.get("event", "")
    digest, payload = bytes.fromhex(entry.get("digest") or ""), bytes.fromhex(entry.get("event_payload") or "")
    if type(register) is not int or not 0 <= register < REGISTERS or not isinstance(name, str):
        raise ValueError(f"an event of register {register!r}")
    if register == APPLICATION_REGISTER and entry.get("event_type") == APPLICATION and _EVENT_NAME.fullmatch(name):
        covered = APPLICATION.to_bytes(4, "little") + b":" + name.encode() + b":" + payload
        computed = hashlib.sha384(covered).digest()
        if digest and not hmac.compare_digest(digest, computed):
            raise ValueError(f"the event {name!r} with a digest that is not its own")
        return Event(register, computed, name, payload)
    if len(digest) not in DIGEST_SIZES:
        raise ValueError(f"a digest of {len(digest)} bytes")
    return Event(register, digest.ljust(REGISTER_BYTES, b"\0"))


# --- CCEL -------------------------------------------------------------------------------------------------------------
def _from_ccel(log: bytes) -> Iterator[Event]:
    cursor = Cursor(log, reason=TDX_EVENT_LOG_MALFORMED)
    cursor.take(4, "register of the header event")
    cursor.expect(4, EV_NO_ACTION, "type of the header event")
    cursor.take(20, "digest of the header event")
    header = cursor.take(cursor.uint(4, "size of the header event"), "header event")
    if not header.startswith(b"Spec ID Event03\0"):
        raise MalformedEvidence(TDX_EVENT_LOG_MALFORMED, repr(header[:16]), "Spec ID Event03")
    for _ in range(EVENTS_MAX):
        if not cursor.more() or (register := cursor.uint(4, "register")) == _UNUSED:
            return
        kind = cursor.uint(4, "event type")
        digest = _sha384_of(cursor)
        cursor.take(cursor.uint(4, "event size"), "event")
        if kind == EV_NO_ACTION:
            continue
        if not 1 <= register <= REGISTERS:
            raise MalformedEvidence(TDX_EVENT_LOG_MALFORMED, f"an event of register {register}", "1 to 4")
        yield Event(register - 1, digest)
    raise MalformedEvidence(TDX_EVENT_LOG_MALFORMED, "more events", f"at most {EVENTS_MAX}")


def _sha384_of(cursor: Cursor) -> bytes:
    """The SHA-384 digest of an event, which may have others beside it."""
    count = cursor.uint(4, "number of digests")
    if not 1 <= count <= _ALGORITHMS_MAX:
        raise MalformedEvidence(TDX_EVENT_LOG_MALFORMED, f"{count} digests", f"1 to {_ALGORITHMS_MAX}")
    found = b""
    for _ in range(count):
        algorithm = cursor.uint(2, "algorithm")
        if algorithm not in _DIGEST_BYTES:
            raise MalformedEvidence(TDX_EVENT_LOG_MALFORMED, f"algorithm {algorithm:#x}", "one of TCG's hashes")
        digest = cursor.take(_DIGEST_BYTES[algorithm], "digest")
        found = digest if algorithm == SHA384_ALGORITHM else found
    if not found:
        raise MalformedEvidence(TDX_EVENT_LOG_MALFORMED, "no SHA-384 digest", "one for each event")
    return found
