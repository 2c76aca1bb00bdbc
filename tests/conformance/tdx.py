"""Vectors of emulated TDX machines: every defect of a quote and of Intel's documents, rules, event logs, bindings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from attest.collateral import Need
from attest.tdx.documents import split
from nodeprobe.emulator.tdx import EmulatedTd
from nodeprobe.emulator.tdx_collateral import LIFE
from nodeprobe.emulator.tdx_defects import TDX_DEFECTS
from nodeprobe.emulator.tdx_pki import IntelPki
from nodeprobe.emulator.tdx_quote import EVENTS, TD_1_5, TD_1_5_EX
from tests.conformance.draft import Draft
from tests.conformance.gpu import NONCE

AT = datetime(2030, 1, 2, tzinfo=UTC)
REPORT_DATA = bytes(32) + NONCE
_OTHER = hashlib.sha384(b"another image").hexdigest()
_HEAD = """\
name = "tdx"
kinds = ["intel-tdx", "nvidia"]
required = ["intel-tdx"]
origins = ["vendor", "emulated"]
nonce = "optional"

[nvidia]
gpus_min = 0

[tdx]
"""


def policy(*rules: str) -> str:
    return _HEAD + "\n".join([*rules, ""])


def documents(td: EmulatedTd) -> dict[Need, bytes]:
    """Intel's, for this machine."""
    return {need: document.data for need, document in split(td.collateral(AT)).items()}


def drafts(folder: Path) -> Iterator[Draft]:
    """All of them, in a PKI made below `folder`."""
    pki = IntelPki.create(folder / "tdx-pki")
    td = EmulatedTd.create(pki, "machine-0", now=AT)
    anchors = pki.anchor.read_bytes()

    def draft(name: str, made: str, *codes: str, of: EmulatedTd = td, log: bytes = b"", **more: Any) -> Draft:
        evidence = (replace(of.evidence(more.pop("report_data", REPORT_DATA)), log=log),)
        given = {"policy": policy(), "nonce": NONCE, "anchors": anchors, "collateral": documents(of), **more}
        return Draft(f"tdx-{name.removeprefix('tdx-')}", made, evidence, AT, codes, **given)

    yield draft("good", "a trust domain v4", says={"emulated": True, "cpu": "intel-tdx", "revocation": "good"})
    yield draft("good-nonce-first", "the nonce in the first half", report_data=NONCE + bytes(32))
    for name, body in {"1-5": TD_1_5, "1-5-ex": TD_1_5_EX}.items():
        yield draft(f"good-{name}", f"a quote v5 of a domain {name}", of=replace(td, body_type=body))
    processor = EmulatedTd.create(pki, "machine-1", now=AT, ca="processor")
    yield draft("good-processor", "a machine of the processor CA", of=processor)
    for name, defect in TDX_DEFECTS.items():
        # A bare challenge that the quote does not hold is the binding's to refuse: no profile commits to it.
        code = "binding-mismatch" if defect.code == "tdx-nonce" else defect.code
        yield draft(name, defect.meaning, code, of=td.spoiled(name))
    for need in documents(td):
        some = {each: data for each, data in documents(td).items() if each != need}
        yield draft(f"without-{need.kind}", f"no {need}", "tdx-collateral-unavailable", collateral=some)
    yield draft("unnamed-root", "nobody named its root", "tdx-root", anchors=b"", attacks=(7, 15))
    yield from (draft(f"rule-{name}", f"the policy: {rule}", code, policy=policy(rule)) for name, rule, code in _RULES)
    patient = policy('statuses = ["UpToDate", "OutOfDate"]', 'advisories = ["INTEL-SA-00001"]')
    out_of_date = td.spoiled("tdx-status-out-of-date")
    yield draft("rule-out-of-date", "out of date, and accepted", of=out_of_date, policy=patient, attacks=(6,))
    old = EmulatedTd.create(pki, "machine-2", now=AT - timedelta(days=60))
    ran_out = {need: each.data for need, each in split(old.collateral(AT - LIFE - timedelta(hours=1))).items()}
    yield draft("ran-out", "documents ran out an hour ago", "tdx-collateral-stale", of=old, collateral=ran_out)
    patient = policy("collateral_stale_hours_max = 4")
    yield draft("ran-out-allowed", "... and may have", of=old, collateral=ran_out, policy=patient, attacks=(13,))
    yield from (draft(name, made, *codes, log=log, policy=policy(*rules)) for name, made, log, rules, codes in _logs())


_RULES = (
    ("evaluation", "tcb_evaluation_min = 21", "tdx-tcb-evaluation"),
    ("platform", 'platform = ["cached_keys", "smt_enabled"]', "tdx-platform"),
    ("mrtd", f'mrtd = ["{_OTHER}"]', "tdx-mrtd"),
    *((f"rtmr{index}", f'rtmr{index} = ["{_OTHER}"]', "tdx-rtmr") for index in range(4)),
    ("mrconfigid", f'mrconfigid = ["{_OTHER}"]', "tdx-mrconfigid"),
    ("log", 'event_log = "required"', "tdx-event-log"),
    ("event", 'events = { compose-hash = ["00"] }', "tdx-event"),
)


def _logs() -> Iterator[tuple[str, str, bytes, tuple[str, ...], tuple[str, ...]]]:
    """Name, what it is, the log, rules, codes."""
    whole = [{"imr": n, "event_type": 1, "digest": EVENTS[n].hex(), "event": "boot"} for n in range(4)]
    required = ('event_log = "required"',)
    changed = [{**whole[0], "digest": "11" * 48}, *whole[1:]]
    yield "log", "the whole log", _json(whole), required, ()
    yield "log-partial", "a register left out", _json(whole[1:]), required, ("tdx-event-log",)
    yield "log-changed", "an event changed", _json(changed), (), ("tdx-event-log",)
    yield "log-doubled", "an event twice", _json([*whole, whole[0]]), (), ("tdx-event-log",)
    yield "log-malformed", "half a log", _json(whole)[:-9], (), ("tdx-event-log-malformed",)
    yield "log-register", "a register that is none", _json([{**whole[0], "imr": 4}]), (), ("tdx-event-log-malformed",)


def _json(value: object) -> bytes:
    return json.dumps(value).encode()
