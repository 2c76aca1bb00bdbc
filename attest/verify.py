"""
Verification: evidence in, claims out, or an AttestError.

A verifier does no I/O. It says what it needs (reference values, revocation answers); the caller fetches; it verifies.
Hence every verdict can be replayed from files, at any moment in time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from importlib.metadata import entry_points
from operator import attrgetter
from typing import Protocol

from attest.anchors import Anchors
from attest.claims import Claims
from attest.collateral import Collateral, Document, Fetch, Need
from attest.errors import AttestError, UnsupportedEvidence
from attest.evidence import Bundle, Evidence, Nonce
from attest.reasons import DEVICE_DUPLICATE, KIND_UNSUPPORTED, ROOTS_MIXED, Fault, Reason

Breach = tuple[Reason, str, str]  # of what must hold between devices: why, what was found, what was wanted

ENTRY_POINTS = "attest.verifiers"
_NAME = attrgetter("name")
ROUNDS_MAX = 4  # a RIM names its issuer, which names its OCSP responder; nothing goes deeper


class Verifier(Protocol):
    """Reads one kind of evidence. Made by calling the entry point with the anchors to trust."""

    kind: str

    def needs(self, evidence: Evidence, have: Collateral) -> frozenset[Need]:
        """What is still to be fetched, given what we have. Empty when nothing more would help."""

    def verify(self, evidence: Evidence, collateral: Collateral, *, nonce: Nonce | None, now: datetime) -> Claims:
        """Check that the evidence is genuine, whole and fresh. Raise AttestError, or return Claims."""

    def together(self, claims: Sequence[Claims]) -> Iterable[Breach]:
        """What does not hold between the devices of one node, of whatever kinds, that were verified one by one."""


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
    believed, undecided = tuple(claims.values()), any(each.reason.fault is Fault.COLLATERAL for each in refusals)
    between = [Refusal(-1, *breach) for breach in _together(believed, bundle, verifiers, undecided=undecided)]
    return Verification(believed, (*refusals, *between))


def _verify_one(
    evidence: Evidence, verifiers: Verifiers, fetch: Fetch, *, nonce: Nonce | None, now: datetime
) -> Claims:
    verifier = verifiers.get(evidence.kind)
    if verifier is None:
        raise UnsupportedEvidence(KIND_UNSUPPORTED, evidence.kind, " or ".join(sorted(verifiers)) or "no kind at all")
    collateral = gather(verifier, evidence, fetch)
    claims = verifier.verify(evidence, collateral, nonce=nonce, now=now)
    if claims.kind != evidence.kind:  # rules are chosen by it, so no verifier speaks for another's kind
        raise UnsupportedEvidence(KIND_UNSUPPORTED, f"claims of kind {claims.kind}", evidence.kind)
    stale = [document.stale_since for document in collateral.values() if document.stale_since is not None]
    return replace(claims, stale_since=min(stale)) if stale else claims


def gather(verifier: Verifier, evidence: Evidence, fetch: Fetch) -> Collateral:
    """Fetch what the verifier asks for, round by round. What cannot be had stays out: the verifier judges that."""
    have: dict[Need, Document] = {}
    tried: set[Need] = set()
    for _ in range(ROUNDS_MAX):
        wanted = verifier.needs(evidence, have) - tried
        before = len(have)
        for need in sorted(wanted, key=_NAME):  # names differ: comparing kinds as well would take longer
            document = fetch(need)
            if document is not None:
                have[need] = document
        if len(have) == before:  # what is still needed depends on what we have, and that is all
            break
        tried |= wanted
    return have


def _together(claims: Sequence[Claims], bundle: Bundle, verifiers: Verifiers, *, undecided: bool) -> Iterable[Breach]:
    """
    What must hold between the devices of one node: each once, of one origin, and what their kinds ask besides.

    `undecided`: a device is not among them through no fault of the node.
    """
    seen: set[str] = set()
    for claim in claims:
        if claim.device in seen:
            yield DEVICE_DUPLICATE, claim.device, "each device once"
        seen.add(claim.device)
    if len({claim.emulated for claim in claims}) > 1:
        yield ROOTS_MIXED, "a vendor's and an emulated one", "one origin"
    if undecided:  # then the others say nothing of how many there are, and who is whose neighbour
        return
    for kind in sorted({evidence.kind for evidence in bundle} & verifiers.keys()):
        yield from verifiers[kind].together(claims)
