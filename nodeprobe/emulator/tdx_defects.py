"""
Every way in which a test or the demo may ask an emulated TDX machine, or Intel's documents for it, to be wrong.

To add one is to add a line to one of the tables, with what is wrong in a sentence and the code of the reason that a
verifier must give.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from nodeprobe.emulator.pki import EmulatorError
from nodeprobe.emulator.tdx_collateral_defects import COLLATERAL_DEFECTS
from nodeprobe.emulator.tdx_defect import TdxDefect
from nodeprobe.emulator.tdx_quote_defects import QUOTE_DEFECTS

_REPLAYED = TdxDefect("tdx-replayed", "the quote is an old one, made for another challenge", "tdx-nonce", replays=True)
_ALL = (*QUOTE_DEFECTS, *COLLATERAL_DEFECTS, _REPLAYED)
TDX_DEFECTS: Mapping[str, TdxDefect] = MappingProxyType({each.name: each for each in _ALL})


def named(wanted: str) -> TdxDefect:
    """The defect of this name. Raises EmulatorError, with a list of all, where there is none."""
    found = TDX_DEFECTS.get(wanted)
    if found is None:
        raise EmulatorError(f"there is no TDX defect {wanted!r}; there are: {', '.join(sorted(TDX_DEFECTS))}")
    return found
