"""TDX for tests: recordings of real machines with Intel's documents, and an emulated machine."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace

from attest.claims import Claims
from attest.collateral import Document, Need
from attest.containers import read
from attest.evidence import Evidence, Nonce
from attest.tdx.appraise import appraise_tdx
from attest.tdx.documents import split
from attest.tdx.roots import IntelRoots, load_emulated
from attest.tdx.rules import TdxRules
from attest.tdx.verifier import TdxVerifier
from nodeprobe.emulator.tdx import EmulatedTd, IntelPki
from tests.evidence import VECTORS

FOLDER = VECTORS / "tdx"
UP_TO_DATE = {
    "up-to-date-v4": datetime(2025, 6, 20, tzinfo=UTC),
    "up-to-date-v5-td15ex": datetime(2026, 10, 9, tzinfo=UTC),
    "secretvm-tdx-and-h100": datetime(2026, 10, 20, tzinfo=UTC),
}
NOW = datetime(2030, 1, 2, tzinfo=UTC)
NONCE = Nonce(bytes(range(32)))
REPORT_DATA = bytes(32) + NONCE


def recorded(name: str) -> Evidence:
    """The quote of a recording, through the containers that users have."""
    binary = FOLDER / name / "quote.bin"
    (evidence,) = read([(binary if binary.exists() else FOLDER / name / "cpu_quote.txt").read_bytes()])
    return evidence


def recorded_collateral(name: str) -> dict[Need, Document]:
    return split((FOLDER / name / "collateral.json").read_bytes())


def appraised(claims: Claims, rules: TdxRules | None = None, *, bound: bool = False) -> set[str]:
    """The codes of the rules that fail."""
    policy = SimpleNamespace(tdx=rules or TdxRules())
    return {each.reason.code for each in appraise_tdx(claims, policy, NOW, bound=bound) if not each.holds}


@dataclass
class Emulated:
    """An emulated Intel with one machine, and a verifier that trusts its root."""

    pki: IntelPki
    td: EmulatedTd
    verifier: TdxVerifier = field(init=False)

    def __post_init__(self) -> None:
        self.verifier = self.fresh()

    def fresh(self) -> TdxVerifier:
        """A verifier that remembers nothing."""
        return TdxVerifier(IntelRoots((load_emulated(self.pki.anchor.read_bytes()),)))

    def documents(self, td: EmulatedTd | None = None, *, issued: datetime = NOW) -> dict[Need, Document]:
        return split((td or self.td).collateral(issued))

    def claims(
        self,
        td: EmulatedTd | None = None,
        *,
        report_data: bytes = REPORT_DATA,
        nonce: Nonce | None = NONCE,
        now: datetime = NOW,
    ) -> Claims:
        """Of a machine, with its own documents at that time."""
        td = td or self.td
        return self.verifier.verify(td.evidence(report_data), self.documents(td, issued=now), nonce=nonce, now=now)
