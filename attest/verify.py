"""
Verification: evidence in, claims out, or an AttestError.

A verifier does no I/O. It says what it needs (reference values, revocation answers); the caller fetches; it verifies.
Hence every verdict can be replayed from files, at any moment in time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import entry_points
from typing import Protocol

from attest.anchors import Anchors
from attest.claims import Claims
from attest.collateral import Collateral, Document, Fetch, Need
from attest.errors import AttestError, UnsupportedEvidence
from attest.evidence import Bundle, Evidence, Nonce
from attest.reasons import DEVICE_DUPLICATE, DEVICES_DIFFER, KIND_UNSUPPORTED, Reason

ENTRY_POINTS = "attest.verifiers"
ROUNDS_MAX = 4  # a RIM names its issuer, which names its OCSP responder; nothing goes deeper

# Claims that the devices of one node must agree on, whatever their kind says besides.
SHARED = ("mode", "driver", "architecture")


class Verifier(Protocol):
    """Reads one kind of evidence. Made by calling the entry point with the anchors to trust."""

    kind: str

    def needs(self, evidence: Evidence, have: Collateral) -> frozenset[Need]:
        """What is still to be fetched, given what we have. Empty when nothing more would help."""

    def verify(self, evidence: Evidence, collateral: Collateral, *, nonce: Nonce | None, now: datetime) -> Claims:
        """Check that the evidence is genuine, whole and fresh. Raise AttestError, or return Claims."""


Verifiers = Mapping[str, Verifier]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why one device of a bundle (counted from 0; -1 is the bundle as a whole) was not believed."""

    device: int
    reason: Reason
    found: str
    wanted: str


@dataclass(frozen=True, slots=True)
class Verification:
    """Of all devices of a node. Any refusal means that the node as a whole is not believed."""

    claims: tuple[Claims, ...]
    refusals: tuple[Refusal, ...]


def installed(anchors: Anchors) -> Verifiers:
    """
    The verifiers that installed distributions offer, by the kind of evidence they read. ValueError if two offer one
    kind, or one offers another kind than its name says: a policy names the kinds that it accepts.
    """
    found: dict[str, Verifier] = {}
    for point in entry_points(group=ENTRY_POINTS):
        if point.name in found:
            raise ValueError(f"two distributions offer a verifier for {point.name!r}")
        verifier: Verifier = point.load()(anchors)
        if verifier.kind != point.name:
            raise ValueError(f"a verifier of {verifier.kind!r} is offered under the name {point.name!r}")
        found[point.name] = verifier
    return found


def verify(bundle: Bundle, verifiers: Verifiers, fetch: Fetch, *, nonce: Nonce | None, now: datetime) -> Verification:
    """Verify every device of a node against one nonce. All are tried, so that an operator sees all that is wrong."""
    claims: dict[int, Claims] = {}
    refusals: list[Refusal] = []
    for index, evidence in enumerate(bundle):
        try:
            claims[index] = _verify_one(evidence, verifiers, fetch, nonce=nonce, now=now)
        except AttestError as e:
            refusals.append(Refusal(index, e.reason, e.found, e.wanted))
    return Verification(tuple(claims.values()), (*refusals, *_together(claims)))


def _verify_one(
    evidence: Evidence, verifiers: Verifiers, fetch: Fetch, *, nonce: Nonce | None, now: datetime
) -> Claims:
    verifier = verifiers.get(evidence.kind)
    if verifier is None:
        raise UnsupportedEvidence(KIND_UNSUPPORTED, evidence.kind, " or ".join(sorted(verifiers)) or "no kind at all")
    claims = verifier.verify(evidence, gather(verifier, evidence, fetch), nonce=nonce, now=now)
    if claims.kind != evidence.kind:  # rules are chosen by it, so no verifier speaks for another's kind
        raise UnsupportedEvidence(KIND_UNSUPPORTED, f"claims of kind {claims.kind}", evidence.kind)
    return claims


def gather(verifier: Verifier, evidence: Evidence, fetch: Fetch) -> Collateral:
    """Fetch what the verifier asks for, round by round. What cannot be had stays out: the verifier judges that."""
    have: dict[Need, Document] = {}
    tried: set[Need] = set()
    for _ in range(ROUNDS_MAX):
        wanted = verifier.needs(evidence, have) - tried
        if not wanted:
            break
        for need in sorted(wanted):
            document = fetch(need)
            if document is not None:
                have[need] = document
        tried |= wanted
    return have


def _together(claims: Mapping[int, Claims]) -> Iterable[Refusal]:
    """What must hold between the devices of one node, if there are several."""
    if len(claims) < 2:
        return
    seen: set[str] = set()
    shared: dict[tuple[str, str], str] = {}
    for index, claim in claims.items():
        if claim.device in seen:
            yield Refusal(-1, DEVICE_DUPLICATE, claim.device, "each device once")
        seen.add(claim.device)
        for name in (*SHARED, "root"):
            value = str(claim.emulated if name == "root" else claim.values.get(name, ""))
            first = shared.setdefault((claim.kind, name), value)
            if value != first:
                yield Refusal(-1, DEVICES_DIFFER, f"{name} {value} beside {first} (device {index})", "the same for all")
