"""
Recordings: evidence in folders, one folder a case, to run a policy over.

A folder has a `case.toml`, all keys of which are optional, or none:

    evidence      names of files (default: all but *.xml, and WHY.txt, README.md)
    collateral    folder of RIMs and other documents (default: the folder itself)
    anchors       roots of an emulator to trust beside the vendors'
    nonce, at     what the evidence answers, 64 hex digits; the moment of the verdict
    policy        whose verdict is expected (default: that of any policy)
    exit_status   what is expected, as `attest verify` ends: 0, 10, 20, 30; `reasons`: codes that must be told then
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from attest.anchors import ANCHORS_BYTES_MAX, Anchors, load_emulated
from attest.appraise import appraise
from attest.binding import Presented
from attest.containers import FILES_MAX, read
from attest.errors import AttestError
from attest.evidence import BUNDLE_BYTES_MAX, NONCE_BYTES, Nonce
from attest.folder import Folder, FolderError
from attest.policy import Policy
from attest.preflight import preflight
from attest.profiles import judge, to_verify_against
from attest.report import as_document, of_error
from attest.verify import Verifiers, verify

CASE = "case.toml"
CASE_BYTES_MAX = 64 << 10
CASES_MAX = 10_000
STATUSES: Mapping[int, str] = {0: "accepted", 10: "refused", 20: "unsupported", 30: "malformed"}
_NO_EVIDENCE = frozenset({CASE, "WHY.txt", "README.md", "manifest.json"})


class CaseError(Exception):
    """A folder is no case; the message names it and says why."""


@dataclass(frozen=True, slots=True)
class Case:
    """A recording: where its files are, and what is expected of it, if anything is."""

    name: str
    evidence: tuple[Path, ...]
    collateral: Path
    anchors: Path | None = None
    nonce: Nonce | None = None
    at: datetime | None = None
    policy: str | None = None
    status: str | None = None
    reasons: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a policy made of a case, and whether that is what was expected; None where nothing was of this policy."""

    case: Case
    policy: str
    status: str
    reasons: tuple[str, ...]

    @property
    def expected(self) -> bool | None:
        if self.case.status is None or self.case.policy not in (None, self.policy):
            return None
        return self.status == self.case.status and self.case.reasons <= set(self.reasons)


def cases(path: Path) -> Iterator[Case]:
    """The case in a folder; or, if it is none, the cases in its folders, by name. CaseError if there is none at all."""
    if not path.is_dir():
        raise CaseError(f"{path} is no folder: name folders with evidence")
    if (path / CASE).is_file() or not (within := _within(path)):
        yield _case(path)
        return
    yield from (_case(folder) for folder in within)


def _within(path: Path) -> list[Path]:
    found = sorted(case.parent for case in path.glob(f"*/{CASE}"))
    if len(found) > CASES_MAX:
        raise CaseError(f"{path} holds {len(found)} cases, at most {CASES_MAX} are run")
    return found


def _case(folder: Path) -> Case:
    says = _read_case(folder / CASE)
    names = says.get("evidence")
    if names is None:
        names = [file.name for file in sorted(folder.iterdir()) if file.is_file() and _is_evidence(file)]
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise CaseError(f'{folder} holds no evidence: name it in {CASE}, `evidence = ["report.bin", "chain.pem"]`')
    try:
        nonce = _nonce(says["nonce"]) if "nonce" in says else None
        at, anchors = says.get("at"), says.get("anchors")
        status = STATUSES[says["exit_status"]] if "exit_status" in says else None
        return Case(
            name=folder.name or str(folder),
            evidence=tuple(folder / name for name in names),
            collateral=folder / says.get("collateral", "."),
            anchors=None if anchors is None else folder / anchors,
            nonce=nonce,
            at=None if at is None else at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC),
            policy=says.get("policy"),
            status=status,
            reasons=frozenset(map(str, says.get("reasons", ()))),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as e:
        raise CaseError(f"{folder / CASE}: a value is not what it must be ({e!r})") from e


def _nonce(text: str) -> Nonce:
    nonce = bytes.fromhex(text)
    if len(nonce) != NONCE_BYTES:
        raise ValueError(f"a nonce of {len(nonce)} bytes, not {NONCE_BYTES}")
    return Nonce(nonce)


def _is_evidence(file: Path) -> bool:
    return file.suffix.lower() != ".xml" and file.name not in _NO_EVIDENCE


def _read_case(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return tomllib.loads(_bytes(path, CASE_BYTES_MAX).decode())
    except (ValueError, RecursionError) as e:
        raise CaseError(f"{path} is not TOML: {e}") from e


def _bytes(path: Path, most: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(most + 1)
    except OSError as e:
        raise CaseError(f"{path} cannot be read: {e.strerror}") from e


def run(
    case: Case,
    policy: Policy,
    trusted: Anchors,
    verifiers_of: Callable[[Anchors], Verifiers],
    *,
    now: datetime,
    challenged: bool = False,
) -> Outcome:
    """
    What the policy makes of a case, at its own moment, or at `now` if it names none.

    `challenged`: as if the evidence had just answered a challenge of ours (`attest.preflight`). CaseError if a file of
    the case cannot be used; evidence that is none is an outcome.
    """
    if case.anchors is not None:
        try:
            trusted = trusted.trusting(load_emulated(_bytes(case.anchors, ANCHORS_BYTES_MAX)))
        except ValueError as e:
            raise CaseError(f"{case.anchors}: {e}") from e
    files = [_bytes(path, BUNDLE_BYTES_MAX) for path in case.evidence[: FILES_MAX + 1]]
    now = case.at or now
    try:
        bundle = read(files)
    except AttestError as e:
        return _outcome(case, policy, of_error(e))
    try:
        fetch = Folder(case.collateral).at(now)
    except FolderError as e:
        raise CaseError(str(e)) from e
    presented = Presented(nonce=case.nonce)
    against = to_verify_against(bundle, presented)
    verification = verify(bundle, verifiers_of(trusted), fetch, nonce=against, now=now)
    binding = judge(verification.claims, bundle, presented)
    if challenged:
        result = preflight(verification, policy, bundle=bundle, nonce=against, now=now, binding=binding).result
    else:
        result = appraise(verification, policy, bundle=bundle, nonce=against, now=now, binding=binding)
    return _outcome(case, policy, as_document(result, verification.refusals))


def _outcome(case: Case, policy: Policy, document: Mapping[str, Any]) -> Outcome:
    codes = tuple(dict.fromkeys(each["code"] for each in document["refusals"]))
    return Outcome(case, policy.name, document["status"], codes)
