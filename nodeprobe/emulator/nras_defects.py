"""
Every way in which a test or the demo may ask the emulated NRAS to be wrong, by name.

A defect changes the draft of an answer, and is about its first device where it is about one.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from nodeprobe.emulator.nras_edits import NrasDefect
from nodeprobe.emulator.nras_forgeries import FORGERIES
from nodeprobe.emulator.nras_judgements import JUDGEMENTS

NRAS_DEFECTS: Mapping[str, NrasDefect] = MappingProxyType({each.name: each for each in (*FORGERIES, *JUDGEMENTS)})
