"""
What other evidence costs, as multiples of a bare P-384 verification: nothing cached, a whole box, SEV-SNP, two cores.

From bytes to claims. Cold means a verifier that has seen nothing: two RIMs and nine revocation answers are read and
checked too. A genuine GPU has seven answers that differ, since its RIMs share their upper signers; so has ours.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP384R1, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA384

from attest.anchors import VENDORS, Anchors, load_emulated
from attest.collateral import CollateralKind, Document, Need
from attest.evidence import Bundle, Nonce
from attest.snp.anchors import AMD, Arks
from attest.snp.verifier import SnpVerifier
from attest.verify import Verifiers, installed, verify
from nodeprobe.emulator import MODELS, EmulatedGpu, Pki, publish
from nodeprobe.emulator.box import EmulatedBox
from nodeprobe.emulator.ocsp import answers
from tests.benchmarks.measuring import Work, figure, ratio, skipped
from tests.evidence import VECTORS

MADE, AT = datetime(2030, 1, 1, tzinfo=UTC), datetime(2030, 1, 1, 1, tzinfo=UTC)
NONCE = Nonce(bytes(range(32)))
ROUNDS, A_ROUND = 11, 8
COLD_TARGET, BOX_TARGET, SNP_TARGET, CORES_TARGET = 36.0, 14.0, 1.3, 1.7


def run() -> list[dict[str, Any]]:
    """The figures, as `tests.benchmarks` prints and writes them. Takes some ten seconds."""
    with tempfile.TemporaryDirectory() as folder:
        pki = Pki.create(Path(folder) / "pki", now=MADE)
        anchors = VENDORS.trusting(load_emulated(pki.anchors.read_bytes()))
        return [_cold(pki, anchors), _box(pki, anchors), _snp(), _two_cores(pki, anchors)]


def _cold(pki: Pki, anchors: Anchors) -> dict[str, Any]:
    gpu = EmulatedGpu.create(pki, "cold", MODELS["h100-pcie"])
    documents = _documents(pki, [gpu], "h100-pcie")
    bundle = (gpu.evidence(NONCE),)
    asked = sum(need.kind is CollateralKind.NVIDIA_OCSP for need in documents)
    ratios = [
        ratio([_judge(installed(anchors), documents, bundle) for _ in range(3)], [_bare()] * 3) for _ in range(ROUNDS)
    ]
    detail = f"two RIMs and {asked} revocation answers read anew"
    return figure("a GPU with nothing cached", ratios, COLD_TARGET, detail)


def _box(pki: Pki, anchors: Anchors) -> dict[str, Any]:
    box = EmulatedBox.create(pki, "box", MODELS["h100-80gb"])
    publish(pki, MODELS["h100-80gb"])
    documents = _documents(pki, box.devices, "h100-80gb")
    verifiers = installed(anchors)
    _judge(verifiers, documents, box.evidence(NONCE))()
    fresh = [box.evidence(Nonce(os.urandom(32))) for _ in range(ROUNDS * 3)]
    works = [_judge(verifiers, documents, bundle, nonce=Nonce(bundle[0].payload[4:36])) for bundle in fresh]
    ratios = [ratio(works[at : at + 3], [_bare()] * 3) for at in range(0, len(works), 3)]
    return figure("a box of 8 GPUs and 4 switches, known", ratios, BOX_TARGET, "leaves, RIMs and answers cached")


def _snp() -> dict[str, Any]:
    name, folder = "SEV-SNP report, signing key cached", VECTORS / "snp" / "milan-v3"
    if not folder.is_dir():
        return skipped(name, SNP_TARGET, "the recordings of ../shared/vectors are not here")
    from attest.evidence import AMD_SNP, Evidence

    chain = b"".join((folder / each).read_bytes() for each in ("vcek.pem", "ask.pem"))
    roots = (VECTORS / "snp" / "roots" / "ask_ark_milan.pem").read_bytes()
    ark = b"-----BEGIN CERTIFICATE-----" + roots.split(b"-----BEGIN CERTIFICATE-----")[2]
    evidence = Evidence(AMD_SNP, (folder / "report.bin").read_bytes(), chain + ark)
    verifier, at = SnpVerifier(Arks(AMD.amd_ark)), datetime(2026, 6, 1, tzinfo=UTC)
    work: Work = lambda: verifier.verify(evidence, {}, nonce=None, now=at)  # noqa: E731 - as the floor is
    work()
    ratios = [ratio([work] * A_ROUND, [_bare()] * A_ROUND) for _ in range(ROUNDS)]
    return figure(name, ratios, SNP_TARGET, "real Milan report; chain known")


def _two_cores(pki: Pki, anchors: Anchors) -> dict[str, Any]:
    name, unit = "two threads", "x the verdicts of one thread in the same time"
    if (os.cpu_count() or 1) < 2:
        return skipped(name, CORES_TARGET, "this machine has one core", unit=unit, bound="at least")
    gpu = EmulatedGpu.create(pki, "threads", MODELS["h100-pcie"])
    documents, verifiers = _documents(pki, [gpu], "h100-pcie"), installed(anchors)
    bundles = [(gpu.evidence(Nonce(os.urandom(32))),) for _ in range(64)]
    works = [_judge(verifiers, documents, each, nonce=Nonce(each[0].payload[4:36])) for each in bundles]
    _all(works)
    ratios = []
    for _ in range(ROUNDS):
        alone = _seconds(lambda: (_all(works), _all(works)))
        together = _seconds(lambda: _in_threads([works, works]))
        ratios.append(alone / together)
    return figure(name, ratios, CORES_TARGET, "re-attestations of a known device", unit=unit, bound="at least")


def _documents(pki: Pki, devices: Any, model: str) -> Mapping[Need, Document]:
    publish(pki, MODELS[model])
    found = {
        Need(CollateralKind.NVIDIA_RIM, each.stem): Document.of(each.read_bytes()) for each in pki.rims.glob("*.xml")
    }
    given = answers(pki, devices, MADE)
    return found | {Need(CollateralKind.NVIDIA_OCSP, name): Document.of(data) for name, data in given.items()}


def _judge(verifiers: Verifiers, documents: Mapping[Need, Document], bundle: Bundle, nonce: Nonce = NONCE) -> Work:
    def work() -> None:
        verification = verify(bundle, verifiers, documents.get, nonce=nonce, now=AT)
        if verification.refusals or len(verification.claims) != len(bundle):
            raise AssertionError(verification.refusals)
        if {claim.values["revocation"] for claim in verification.claims} != {"good"}:
            raise AssertionError("revocation was not asked")

    return work


def _bare() -> Work:
    key, signed = generate_private_key(SECP384R1()), os.urandom(4000)
    signature, public = key.sign(signed, ECDSA(SHA384())), key.public_key()
    public.verify(signature, signed, ECDSA(SHA384()))
    return lambda: public.verify(signature, signed, ECDSA(SHA384()))


def _all(works: list[Work]) -> None:
    for work in works:
        work()


def _in_threads(parts: list[list[Work]]) -> None:
    threads = [threading.Thread(target=_all, args=(works,)) for works in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
