"""
Vectors of what evidence commits to: a statement of ours, or a TLS key, an address, a key by the layouts of others.

The same node each time, an emulated CPU and GPU; what is presented with it is right, or another's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from attest.binding import Statement, gpu_nonce, report_data
from attest.evidence import Evidence
from nodeprobe.emulator.tdx import EmulatedTd
from nodeprobe.emulator.tdx_pki import IntelPki
from tests.conformance.draft import Draft
from tests.conformance.gpu import AT, NONCE, World, answered
from tests.conformance.tdx import documents as intels

SPKI, OTHER_SPKI = hashlib.sha256(b"the TLS key").digest(), hashlib.sha256(b"another TLS key").digest()
OWN = hashlib.sha256(b"drawn by the machine itself").digest()
ADDRESS, OTHER_ADDRESS = bytes(range(20)), bytes(range(1, 21))
E2E_KEY, OTHER_KEY = "ZW5kIHRvIGVuZA==", "YW5vdGhlcg=="
STATEMENT = Statement(NONCE.hex(), "192.0.2.1", "secret1example", "02" + "11" * 32, SPKI.hex())
_OTHERS = {
    "challenge": "44" * 32,
    "ip_address": "192.0.2.2",
    "payment_wallet": "secret1another",
    "worker_key": "03" + "11" * 32,
    "tls_spki_sha256": OTHER_SPKI.hex(),
}
_RULES = """\
name = "bound"
kinds = ["nvidia", "intel-tdx"]
required = ["nvidia"]
origins = ["vendor", "emulated"]
nonce = "{nonce}"
revocation = "optional"
binding_min = "{least}"
"""


def policy(least: str, nonce: str = "required") -> str:
    return _RULES.format(least=least, nonce=nonce)


@dataclass(frozen=True, slots=True)
class Node:
    """A machine with a CPU TEE and a GPU, and all that it takes to verify both."""

    world: World
    td: EmulatedTd

    def evidence(self, data: bytes, nonce: bytes) -> tuple[Evidence, Evidence]:
        """REPORTDATA, and the GPU's nonce."""
        return self.td.evidence(data), self.world.gpu.evidence(nonce)

    def draft(self, name: str, made: str, evidence: tuple[Evidence, ...], *codes: str, **more: Any) -> Draft:
        given = {
            "anchors": self.world.anchors + self.td.pki.anchor.read_bytes(),
            "collateral": self.world.rims | intels(self.td),
            "company": ("binding-weak", "nonce-not-given"),
            **more,
        }
        return Draft(name, made, evidence, AT, codes, **given)


def drafts(folder: Path) -> Iterator[Draft]:
    """All of them, in PKIs made below `folder`."""
    world = World.made(folder)
    node = Node(world, EmulatedTd.create(IntelPki.create(folder / "tdx-pki"), "machine-0", now=AT))
    yield from _gpus(node)
    yield from _ours(node)
    yield from _of_others(node)
    yield from _one_node(node)


def _says(profile: str, strength: str, freshness: str = "nonce") -> Mapping[str, Any]:
    return {"binding": {"profile": profile, "strength": strength}, "freshness": freshness}


def _gpus(node: Node) -> Iterator[Draft]:
    """Statements of a node without a CPU TEE."""
    evidence = (node.world.gpu.evidence(gpu_nonce(STATEMENT)),)
    says = _says("workermanager/v1", "nonce")
    stated = {"statement": STATEMENT, "policy": policy("nonce"), "attacks": (2, 3)}
    yield node.draft("stated", "a GPU that signs who it works for", evidence, says=says, **stated)
    documents = answered(node.world)
    production = policy("nonce").replace("optional", "required")
    made = "... and nothing revoked: all that the default policy asks for, but a vendor's root"
    yield node.draft(
        "stated-in-full", made, evidence, **{**stated, "policy": production}, collateral=documents, says=says
    )
    only_root = {**stated, "policy": "production", "attacks": (15,)}
    made = "the same under the default policy itself"
    yield node.draft("stated-in-production", made, evidence, "root-not-accepted", collateral=documents, **only_root)
    for field, value in _OTHERS.items():
        name, attacks = f"stated-other-{field.replace('_', '-')}", (3,) if field == "tls_spki_sha256" else (1, 2)
        given = {**stated, "statement": replace(STATEMENT, **{field: value}), "attacks": attacks}
        yield node.draft(name, f"evidence that commits to another {field}", evidence, "nonce-mismatch", **given)
    covered = {**stated, "policy": policy("evidence-covered")}
    yield node.draft("stated-weakly", "a GPU alone, where more is asked for", evidence, "binding-weak", **covered)


def _ours(node: Node) -> Iterator[Draft]:
    """Statements of a node whose CPU covers the GPU's evidence."""
    gpu = node.world.gpu.evidence(gpu_nonce(STATEMENT))
    quote = node.td.evidence(report_data(STATEMENT, (gpu,)))
    given = {"statement": STATEMENT, "policy": policy("evidence-covered"), "attacks": (2, 3, 4)}
    says = {**_says("workermanager/v1", "evidence-covered"), "cpu": "intel-tdx"}
    yield node.draft("covered", "a CPU that covers the GPU's evidence", (quote, gpu), says=says, **given)
    other = node.world.another("gpu-1").evidence(gpu_nonce(STATEMENT))
    wrong = ("tdx-nonce", "binding-mismatch")
    yield node.draft("covered-other-gpu", "another GPU in its place", (quote, other), *wrong, **given)
    yield node.draft("covered-another-gpu", "another GPU beside it", (quote, gpu, other), *wrong, **given)
    yield node.draft("covered-gpu-removed", "the GPU left out", (quote,), "kind-absent", *wrong, exactly=False, **given)
    bare = node.td.evidence(bytes(32) + NONCE)
    yield node.draft("covered-by-nothing", "a CPU that covers nothing", (bare, gpu), *wrong, **given)
    another = {**given, "statement": replace(STATEMENT, tls_spki_sha256=OTHER_SPKI.hex()), "attacks": (3,)}
    made = "another TLS key"
    yield node.draft("covered-other-tls", made, (quote, gpu), "nonce-mismatch", exactly=False, **another)


def _of_others(node: Node) -> Iterator[Draft]:
    """Each layout with what it commits to; then with one fact that is another's."""
    tls, address = {"bind_tls": SPKI.hex()}, {"bind_address": ADDRESS.hex()}
    chutes = hashlib.sha256((NONCE.hex() + E2E_KEY).encode()).digest()
    near = hashlib.sha256(ADDRESS + SPKI).digest()
    e2e = {"bind_e2e_key": E2E_KEY}
    for name, data, nonce, facts, asked, strength in (
        ("secretvm", SPKI + OWN, OWN, tls, None, "committed"),
        ("chutes", chutes + SPKI, chutes, {**tls, **e2e}, NONCE, "committed"),
        ("near", near + NONCE, NONCE, {**tls, **address}, NONCE, "nonce"),
        ("phala", ADDRESS.ljust(32, b"\0") + NONCE, NONCE, address, NONCE, "nonce"),
    ):
        evidence = node.evidence(data, nonce)
        fresh = "nonce" if asked else "not checked"
        given = {"nonce": asked, "policy": policy(strength, "required" if asked else "optional"), "attacks": (2, 3)}
        says = _says(name, strength, fresh)
        yield node.draft(name, f"the layout of {name}", evidence, options=facts, says=says, **given)
        for option, other in (
            ("bind_tls", OTHER_SPKI.hex()),
            ("bind_address", OTHER_ADDRESS.hex()),
            ("bind_e2e_key", OTHER_KEY),
        ):
            if option in facts:
                wrong = {**facts, option: other}
                made = f"the layout of {name}, presented with another {option[5:]}"
                vector = f"{name}-other-{option[5:].replace('_', '-')}"
                yield node.draft(vector, made, evidence, "binding-mismatch", options=wrong, **given)
        gpu = (evidence[0], node.world.gpu.evidence(hashlib.sha256(b"another challenge").digest()))
        made = f"the layout of {name}, with a GPU that answers something else"
        yield node.draft(f"{name}-other-gpu", made, gpu, "binding-mismatch", options=facts, **given)


def _one_node(node: Node) -> Iterator[Draft]:
    """CPU and GPU of one node, and of two."""
    evidence = node.evidence(bytes(32) + NONCE, NONCE)
    given = {"nonce": NONCE, "policy": policy("none"), "attacks": (2, 4)}
    yield node.draft(
        "one-challenge", "CPU and GPU answer one challenge", evidence, says={"freshness": "nonce"}, **given
    )
    other = node.evidence(bytes(64), NONCE)
    yield node.draft("two-nodes", "the CPU answered another challenge", other, "binding-mismatch", **given)
    stale = node.evidence(bytes(32) + NONCE, OWN)
    yield node.draft("two-times", "the GPU answered another challenge", stale, "binding-mismatch", **given)
    made = "the GPU was left out"
    yield node.draft("gpu-left-out", made, evidence[:1], "kind-absent", "device-count", **given)
    made = "one machine, twice"
    yield node.draft("cpu-twice", made, (evidence[0], *evidence), "device-duplicate", exactly=False, **given)
