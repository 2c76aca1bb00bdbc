"""
What a TDX quote costs, as a multiple of a bare P-384 verification: from bytes to findings, collateral cached.

Each round times the floor and the real thing in turn, so that whatever else the machine does meets both; the figure is
the median of the rounds' ratios. Every quote is another one, and so is every machine in the second figure.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP384R1, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA384

from attest.collateral import Document, Need
from attest.evidence import Evidence
from attest.tdx.verifier import TdxVerifier
from nodeprobe.emulator.tdx import EmulatedTd, IntelPki
from tests.benchmarks.measuring import Work, figure
from tests.tdx_world import NONCE, NOW, REPORT_DATA, Emulated, appraised

ROUNDS, A_ROUND = 21, 16
TARGET, NEW_TARGET = 1.8, 2.5  # a new machine brings a certificate that nobody has read yet
SIGNED = os.urandom(1000)  # as long as a GPU's report

CACHED = "collateral cached"


def run() -> list[dict[str, Any]]:
    """The figures, as `tests.benchmarks` prints and writes them. Takes some seconds."""
    with tempfile.TemporaryDirectory() as folder:
        pki = IntelPki.create(Path(folder) / "pki")
        world = Emulated(pki, EmulatedTd.create(pki, "machine", now=NOW))
        documents = world.documents()
        known = [world.td.evidence(REPORT_DATA) for _ in range(ROUNDS * A_ROUND)]
        machines = [EmulatedTd.create(pki, f"machine-{number}", now=NOW) for number in range(ROUNDS * A_ROUND)]
        new = [each.evidence(REPORT_DATA) for each in machines]
        return [
            figure("TDX quote of a known machine", _ratios(world.verifier, documents, known), TARGET, CACHED),
            figure("TDX quote of a new machine", _ratios(world.verifier, documents, new), NEW_TARGET, CACHED),
        ]


def _ratios(verifier: TdxVerifier, documents: dict[Need, Document], quotes: Sequence[Evidence]) -> list[float]:
    def judge(evidence: Evidence) -> None:
        assert verifier.needs(evidence, documents) == frozenset()
        assert not appraised(verifier.verify(evidence, documents, nonce=NONCE, now=NOW))

    key = generate_private_key(SECP384R1())
    signature, public = key.sign(SIGNED, ECDSA(SHA384())), key.public_key()
    ratios = []
    judge(quotes[0])
    for at in range(0, len(quotes), A_ROUND):
        floor: list[Work] = [lambda: public.verify(signature, SIGNED, ECDSA(SHA384()))] * A_ROUND
        real: list[Work] = [lambda each=each: judge(each) for each in quotes[at : at + A_ROUND]]
        if at // A_ROUND % 2:
            ratios.append(_timed(real) / _timed(floor))
        else:
            first = _timed(floor)
            ratios.append(_timed(real) / first)
    return ratios


def _timed(works: Sequence[Work]) -> float:
    start = time.perf_counter()
    for work in works:
        work()
    return time.perf_counter() - start
