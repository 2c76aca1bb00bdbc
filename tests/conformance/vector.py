"""A vector: a directory with evidence, collateral, anchors and a policy, and what `attest verify` must say of it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from attest.__main__ import main
from attest.reasons import CATALOGUE, Fault
from tests.conformance.codes import attacks_of

CASE = "case.toml"
OPTIONS = ("bind_tls", "bind_address", "bind_e2e_key")  # of the command, that a case may give
COMMAND_SECONDS_MAX = 60
_STATUSES = {0: "accepted", 10: "refused", 20: "unsupported", 30: "malformed"}


@dataclass(frozen=True, slots=True)
class Vector:
    """What one directory asks and expects. `exactly`: no other code may be named, but those that keep it company."""

    name: str
    folder: Path
    arguments: tuple[str, ...]
    status: int
    codes: frozenset[str]
    attacks: tuple[int, ...]
    exactly: bool = False
    company: frozenset[str] = frozenset()
    says: dict[str, Any] = field(default_factory=dict)  # of the verdict's document

    @classmethod
    def load(cls, folder: Path, family: str) -> Vector:
        """Read a directory's case.toml."""
        case: dict[str, Any] = tomllib.loads((folder / CASE).read_text())
        policy = str(case["policy"])
        arguments = [str(folder / name) for name in case["evidence"]]
        arguments += ["--at", case["at"].isoformat(), "--json"]
        arguments += ["--policy", str(folder / policy) if policy.endswith(".toml") else policy]
        for option, key in (("--collateral", "collateral"), ("--trust-root", "anchors")):
            if key in case:
                arguments += [option, str(folder / case[key])]
        if "statement" in case:
            arguments += ["--statement", str(folder / case["statement"])]
        for option in ("nonce", *OPTIONS):
            if option in case:
                arguments += [f"--{option.replace('_', '-')}", case[option]]
        codes = frozenset(case["reasons"])
        attacks = tuple(case.get("attacks", ())) or attacks_of(codes)
        return cls(
            name=f"{family}/{folder.name}",
            folder=folder,
            arguments=("verify", *arguments),
            status=case["exit_status"],
            codes=codes,
            attacks=attacks,
            exactly=case.get("exactly", False),
            company=frozenset(case.get("company", ())),
            says=case.get("says", {}),
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the command said of a vector, and what is wrong with that; nothing if `faults` is empty."""

    vector: Vector
    status: int
    codes: frozenset[str]
    faults: tuple[str, ...]
    by: str  # "in process" or "subprocess"


def run(vector: Vector) -> Outcome:
    """Through click's command, in this process."""
    ended = CliRunner().invoke(main, list(vector.arguments))
    crashed = ended.exception if not isinstance(ended.exception, SystemExit) else None
    return judge(vector, ended.exit_code, ended.stdout, crash=repr(crashed) if crashed else "")


def run_command(vector: Vector) -> Outcome:
    """Through the installed command, in a process of its own, as users do."""
    beside = shutil.which("attest", path=str(Path(sys.executable).parent))
    command = [beside] if beside else [sys.executable, "-m", "attest"]
    ended = subprocess.run(
        [*command, *vector.arguments], capture_output=True, text=True, check=False, timeout=COMMAND_SECONDS_MAX
    )
    crash = ended.stderr.strip().splitlines()[-1] if "Traceback" in ended.stderr else ""
    return judge(vector, ended.returncode, ended.stdout, crash=crash, by="subprocess")


def judge(vector: Vector, status: int, output: str, *, crash: str = "", by: str = "in process") -> Outcome:
    """Compare what was said with what the vector wants, and with what must hold of every verdict."""
    if crash:
        return Outcome(vector, status, frozenset(), (f"crashed: {crash}",), by)
    try:
        document = json.loads(output)
    except ValueError:
        return Outcome(vector, status, frozenset(), (f"exit status {status} and no JSON: {output[:80]!r}",), by)
    codes = frozenset(refusal["code"] for refusal in document["refusals"])
    return Outcome(vector, status, codes, tuple(_faults(vector, status, codes, document)), by)


def _faults(vector: Vector, status: int, codes: frozenset[str], document: dict[str, Any]) -> list[str]:
    faults = []
    if status != vector.status:
        faults.append(f"exit status {status}, wanted {vector.status}")
    if missing := vector.codes - codes:
        faults.append(f"does not name {', '.join(sorted(missing))}, but {', '.join(sorted(codes)) or 'nothing'}")
    if vector.exactly and (more := codes - vector.codes - vector.company):
        faults.append(f"names {', '.join(sorted(more))}, too")
    faults += [
        f"says {name} {document.get(name)!r}, wanted {value!r}"
        for name, value in vector.says.items()
        if document.get(name) != value
    ]
    wanted = {CATALOGUE[code].fault for code in vector.codes if code in CATALOGUE}
    if wanted == {Fault.COLLATERAL} and document["tier"] != "none":
        faults.append(f"tier {document['tier']!r}: the node is blamed for what is not its fault")
    if Fault.NODE in wanted and document["tier"] != "contraindicated":
        faults.append(f"tier {document['tier']!r}: the node is not blamed for its fault")
    return faults + _inconsistencies(status, document)


def _inconsistencies(status: int, document: dict[str, Any]) -> list[str]:
    """What no verdict may be, whatever the evidence: a yes without proof, a no without a reason."""
    faults = []
    accepted = status == 0
    if document["status"] != _STATUSES.get(status):
        faults.append(f"exit status {status} beside {document['status']!r}")
    if accepted != (document["tier"] == "affirming"):
        faults.append(f"tier {document['tier']!r} beside exit status {status}")
    if accepted == bool(document["refusals"]):
        faults.append("a yes with reasons against it, or a no without any")
    if accepted and not (document["devices"] and document["findings"] and len(document["evidence_sha256"]) == 64):
        faults.append("a yes without devices, findings or the evidence's digest")
    if accepted and document["emulated"] is not any(each["emulated"] is not False for each in document["devices"]):
        faults.append("emulated devices that the verdict does not mark")
    if any(not refusal.get("fix") or not refusal.get("meaning") for refusal in document["refusals"]):
        faults.append("a reason without a remedy")
    return faults
