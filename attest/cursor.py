"""Reading binary structures: every read is named and bounded, a shortfall is MalformedEvidence."""

from __future__ import annotations

from dataclasses import dataclass

from attest.errors import MalformedEvidence
from attest.reasons import REPORT_MALFORMED, Reason


@dataclass(slots=True)
class Cursor:
    """A position in `data`. Integers are little-endian, as SPDM, TDX and SEV-SNP all have them."""

    data: bytes
    at: int = 0
    reason: Reason = REPORT_MALFORMED

    def take(self, size: int, what: str) -> bytes:
        piece = self.data[self.at : self.at + size]
        if len(piece) != size:
            raise MalformedEvidence(self.reason, f"{len(piece)} bytes at {self.at}", f"{size} bytes of {what}")
        self.at += size
        return piece

    def uint(self, size: int, what: str) -> int:
        return int.from_bytes(self.take(size, what), "little")

    def expect(self, size: int, want: int, what: str) -> None:
        got = self.uint(size, what)
        if got != want:
            raise MalformedEvidence(self.reason, f"{what} {got:#x}", f"{want:#x}")

    def more(self) -> bool:
        return self.at < len(self.data)

    def end(self, what: str) -> None:
        if self.more():
            raise MalformedEvidence(self.reason, f"{len(self.data) - self.at} bytes after the {what}", "none")
