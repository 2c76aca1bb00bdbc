"""A vector before it is a directory: what its maker hands over, and how that is laid down."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from attest.binding import Statement
from attest.collateral import Document, Need
from attest.evidence import Bundle, dumps
from attest.manifest import MANIFEST, Entry
from attest.manifest import dumps as manifest
from attest.reasons import CATALOGUE, Stage
from tests.conformance.codes import company_of
from tests.conformance.vector import CASE

ACCEPTED, REFUSED, UNSUPPORTED, MALFORMED = 0, 10, 20, 30
_UNSUPPORTED = {"kind-unsupported"}


@dataclass(frozen=True, slots=True)
class Draft:
    """
    One vector. `evidence` is a bundle, or files by name; `policy` the name of a shipped one, or TOML. Collateral is
    laid down with the manifest that `orchestrator collateral export` writes.
    """

    name: str
    made: str
    evidence: Bundle | Mapping[str, bytes]
    at: datetime
    codes: tuple[str, ...] = ()
    status: int | None = None  # None: by the codes
    policy: str = "lab"
    nonce: bytes | None = None
    anchors: bytes = b""
    collateral: Mapping[Need, bytes] = field(default_factory=dict)
    expires_at: Mapping[Need, datetime] = field(default_factory=dict)  # when a document should be fetched anew
    loose: Mapping[str, bytes] = field(default_factory=dict)  # RIMs that no manifest lists, by file name
    attacks: tuple[int, ...] = ()
    exactly: bool = True
    company: tuple[str, ...] = ()  # codes that may be named beside
    statement: Statement | None = None
    options: Mapping[str, str] = field(default_factory=dict)  # of vector.OPTIONS
    says: Mapping[str, Any] = field(default_factory=dict)

    @property
    def exit_status(self) -> int:
        """What cannot be parsed is malformed, what nobody reads unsupported; all else that is wrong is refused."""
        if self.status is not None:
            return self.status
        if not self.codes:
            return ACCEPTED
        if set(self.codes) <= _UNSUPPORTED:
            return UNSUPPORTED
        first = CATALOGUE.get(self.codes[0])
        return MALFORMED if first is not None and first.stage is Stage.PARSE else REFUSED

    def lay_down(self, root: Path) -> Path:
        """Write the directory below `root`."""
        folder = root / self.name
        folder.mkdir(parents=True)
        files = self.evidence if isinstance(self.evidence, Mapping) else {"evidence.json": dumps(self.evidence)}
        for name, data in files.items():
            (folder / name).write_bytes(data)
        lines = [f"made = {_text(self.made)}", f"evidence = {json.dumps(list(files))}"]
        lines += [f"at = {self.at.isoformat()}", f"policy = {_text(self._policy(folder))}"]
        if self.collateral or self.loose:
            _lay_down_collateral(folder / "collateral", self)
            lines.append('collateral = "collateral"')
        if self.anchors:
            (folder / "anchors.pem").write_bytes(self.anchors)
            lines.append('anchors = "anchors.pem"')
        if self.nonce is not None:
            lines.append(f'nonce = "{self.nonce.hex()}"')
        if self.statement is not None:
            (folder / "statement.json").write_text(json.dumps(asdict(self.statement)))
            lines.append('statement = "statement.json"')
        lines += [f'{option} = "{value}"' for option, value in self.options.items()]
        lines += [f"exit_status = {self.exit_status}", f"reasons = {json.dumps(list(self.codes))}"]
        lines += [f"attacks = {list(self.attacks)}", f"exactly = {json.dumps(self.exactly)}"]
        lines.append(f"company = {json.dumps([*self.company, *company_of(self.codes)])}")
        if self.says:
            lines += ["", "[says]", *(f"{name} = {_value(value)}" for name, value in self.says.items())]
        (folder / CASE).write_text("\n".join(lines) + "\n", encoding="utf-8")
        return folder

    def _policy(self, folder: Path) -> str:
        if "=" not in self.policy:
            return self.policy
        (folder / "policy.toml").write_text(self.policy, encoding="utf-8")
        return "policy.toml"


def _lay_down_collateral(folder: Path, draft: Draft) -> None:
    folder.mkdir()
    for name, data in draft.loose.items():
        (folder / name).write_bytes(data)
    entries = []
    fetched_at = draft.at - timedelta(minutes=1)
    for number, (need, data) in enumerate(draft.collateral.items()):
        name = f"{number}-{need.kind}"
        (folder / name).write_bytes(data)
        entries.append(Entry(need, name, Document.of(data).sha256, fetched_at, draft.expires_at.get(need)))
    if entries:
        (folder / MANIFEST).write_bytes(manifest(entries, draft.at))


def _text(value: str) -> str:
    """A TOML string: JSON's escapes are TOML's, too."""
    return json.dumps(value, ensure_ascii=False)


def _value(value: object) -> str:
    if not isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    return "{ " + ", ".join(f"{name} = {_value(each)}" for name, each in value.items()) + " }"
