"""
What verification costs, as multiples of the one thing that it cannot do without: a P-384 signature check.

Each round times the floor and the real thing in turn, so that whatever else the machine does meets both; the figure is
the median of the rounds' ratios. Nothing is verified twice: reports are made beforehand, each for a nonce of its own.
"""

from __future__ import annotations

import hashlib
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.x509 import load_pem_x509_certificates

from attest.anchors import VENDORS, Anchors, load_emulated
from attest.appraise import Binding, appraise
from attest.binding import PROFILE, Strength
from attest.collateral import Document, Need
from attest.evidence import Bundle, Evidence, Nonce
from attest.policy import Policy, shipped
from attest.result import Tier
from attest.verify import Verifiers, installed, verify
from nodeprobe.emulator import MODELS, EmulatedGpu, Pki, publish
from tests.evidence import VECTORS, hopper_550

MADE = datetime(2030, 1, 1, tzinfo=UTC)
AT = datetime(2030, 1, 2, tzinfo=UTC)
BINDING = Binding(PROFILE, Strength.NONCE)

ROUNDS = 21
KNOWN_A_ROUND, NEW_A_ROUND = 16, 8
KNOWN_TARGET, NEW_TARGET = 1.25, 1.3
BARE = "x of one bare P-384 verification by cryptography"
THREE_BARE = "x of three bare P-384 verifications by cryptography"

Work = Callable[[], None]


@dataclass(frozen=True)
class World:
    """All that a verdict needs but the evidence."""

    verifiers: Verifiers
    documents: dict[str, Document]
    policy: Policy
    now: datetime

    def fetch(self, need: Need) -> Document | None:
        return self.documents.get(need.name)

    def judge(self, bundle: Bundle, nonce: Nonce) -> None:
        """The whole way from bytes to a verdict, as an orchestrator goes it. It must be a yes, or we time nothing."""
        verification = verify(bundle, self.verifiers, self.fetch, nonce=nonce, now=self.now)
        result = appraise(verification, self.policy, bundle=bundle, nonce=nonce, now=self.now, binding=BINDING)
        if result.tier is not Tier.AFFIRMING:
            raise AssertionError([finding for finding in result.findings if not finding.holds])


@dataclass(frozen=True)
class Asked:
    """One piece of evidence and the nonce that it answers."""

    bundle: Bundle
    nonce: Nonce

    @classmethod
    def of(cls, gpu: EmulatedGpu, number: int) -> Asked:
        nonce = Nonce(hashlib.sha256(f"benchmark {number}".encode()).digest())
        return cls((gpu.evidence(nonce),), nonce)

    def copy(self) -> Asked:
        """Equal bytes in other objects, as they come from a network: nothing can be known of them by their address."""
        return replace(
            self, bundle=tuple(Evidence(e.kind, _copied(e.payload), _copied(e.certificates)) for e in self.bundle)
        )


def run() -> list[dict[str, Any]]:
    """The figures, as `tests.benchmarks` prints and writes them. Takes some ten seconds."""
    with tempfile.TemporaryDirectory() as folder:
        pki = Pki.create(Path(folder) / "pki", now=MADE)
        results = [_known(pki), _new(pki)]
    return results + ([_recorded()] if VECTORS.is_dir() else [])


def _known(pki: Pki) -> dict[str, Any]:
    """Another report of a device that was verified before, for a new nonce."""
    world = _world(pki)
    gpu = EmulatedGpu.create(pki, "known", MODELS["h100-pcie"])
    asked = [Asked.of(gpu, number).copy() for number in range(1 + ROUNDS * KNOWN_A_ROUND)]
    world.judge(asked[0].bundle, asked[0].nonce)
    bare = _bare(asked[0].bundle[0])
    rounds = [
        (
            [bare] * KNOWN_A_ROUND,
            [_judging(world, each) for each in asked[1 + at * KNOWN_A_ROUND : 1 + (at + 1) * KNOWN_A_ROUND]],
        )
        for at in range(ROUNDS)
    ]
    return _figure("re-attestation of a known device", _ratios(rounds), KNOWN_TARGET, BARE, "leaf and RIMs cached")


def _new(pki: Pki) -> dict[str, Any]:
    """The first report of a device: its own two certificates are verified too, those above them are known."""
    world = _world(pki)
    gpus = [EmulatedGpu.create(pki, f"new-{number}", MODELS["h100-pcie"]) for number in range(1 + ROUNDS * NEW_A_ROUND)]
    asked = [Asked.of(gpu, number).copy() for number, gpu in enumerate(gpus)]
    world.judge(asked[0].bundle, asked[0].nonce)
    bare = _bare(asked[0].bundle[0])
    rounds = [
        (
            [bare] * (3 * NEW_A_ROUND),
            [_judging(world, each) for each in asked[1 + at * NEW_A_ROUND : 1 + (at + 1) * NEW_A_ROUND]],
        )
        for at in range(ROUNDS)
    ]
    detail = "RIMs and upper certificates cached"
    return _figure("attestation of a new device", _ratios(rounds), NEW_TARGET, THREE_BARE, detail)


def _recorded() -> dict[str, Any]:
    """The same of a real H100. It was recorded once, so here the very same report comes again, in other objects."""
    real = hopper_550()
    documents = {name: Document.of(data) for name, data in real.rims.items()}
    world = World(installed(VENDORS), documents, _policy(), real.at)
    asked = Asked(real.bundle, real.nonce)
    world.judge(asked.bundle, asked.nonce)
    bare = _bare(asked.bundle[0])
    rounds = [
        ([bare] * KNOWN_A_ROUND, [_judging(world, asked.copy()) for _ in range(KNOWN_A_ROUND)]) for _ in range(ROUNDS)
    ]
    name, detail = "re-attestation of a known device, recorded", "H100, driver 550.90.07; leaf and RIMs cached"
    return _figure(name, _ratios(rounds), KNOWN_TARGET, BARE, detail)


def _world(pki: Pki) -> World:
    publish(pki, MODELS["h100-pcie"])
    anchors: Anchors = VENDORS.trusting(load_emulated(pki.anchors.read_bytes()))
    documents = {path.stem: Document.of(path.read_bytes()) for path in pki.rims.glob("*.xml")}
    return World(installed(anchors), documents, _policy(), AT)


def _policy() -> Policy:
    """Every rule on; only what these devices cannot have is optional."""
    return shipped("lab")


def _judging(world: World, asked: Asked) -> Work:
    return lambda: world.judge(asked.bundle, asked.nonce)


def _bare(evidence: Evidence) -> Work:
    """The floor: the signature of this very report, by key and signature that were decoded beforehand."""
    key = load_pem_x509_certificates(evidence.certificates)[0].public_key()
    assert isinstance(key, EllipticCurvePublicKey)
    signed, raw = evidence.payload[:-96], evidence.payload[-96:]
    signature = encode_dss_signature(int.from_bytes(raw[:48], "big"), int.from_bytes(raw[48:], "big"))
    return lambda: key.verify(signature, signed, ECDSA(SHA384()))


def _ratios(rounds: Sequence[tuple[Sequence[Work], Sequence[Work]]]) -> list[float]:
    """Of each round, the time of the second to that of the first; which goes first alternates."""
    ratios = []
    for number, (floor, real) in enumerate(rounds):
        times = {}
        for which in ("floor", "real") if number % 2 else ("real", "floor"):
            times[which] = _timed(floor if which == "floor" else real)
        ratios.append(times["real"] / times["floor"])
    return ratios


def _timed(works: Sequence[Work]) -> float:
    start = time.perf_counter()
    for work in works:
        work()
    return time.perf_counter() - start


def _figure(name: str, ratios: Sequence[float], target: float, unit: str, detail: str) -> dict[str, Any]:
    ratio = statistics.median(ratios)
    low, _, high = statistics.quantiles(ratios, n=4)
    spread = f"{detail}; median of {len(ratios)} rounds, half of them within {low:.2f} and {high:.2f}"
    return {
        "name": name,
        "ratio": round(ratio, 3),
        "target": target,
        "unit": unit,
        "holds": ratio <= target,
        "detail": spread,
    }


def _copied(data: bytes) -> bytes:
    return bytes(bytearray(data))
