"""
The registry's rules: what a worker is, what changes it, and when it may be handed out.

Pure. Attestation, liveliness and service are three facts that nothing derives from each other; *routable* is their
conjunction, computed from the clock when asked. So if every background job dies, workers fade out on time. The instant
at which a fact ends is already too late.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from attest.result import Tier
from orchestrator.messages import Endpoint, Load, Service, Verdict
from orchestrator.scheduler import Route

RETRY_FIRST = timedelta(seconds=30)
RETRY_MAX = timedelta(minutes=15)
RETRY_DOUBLINGS_MAX = 10
HALF_LIFE = 0.5
JITTER = 0.1  # of the lifetime: re-attestation falls due between 0.4 and 0.5 of it, so that a fleet spreads out

# Why a worker is not handed out. Codes of `attest.reasons` follow after a colon: `contraindicated:nonce-mismatch`.
NOT_ATTESTED = "not-attested"
ATTESTATION_EXPIRED = "attestation-expired"
CONTRAINDICATED = "contraindicated"
UNDECIDED = "undecided"
NOT_ALIVE = "not-alive"
LIVELINESS_EXPIRED = "liveliness-expired"
NO_ENDPOINTS = "no-endpoints"


@dataclass(frozen=True, slots=True)
class Worker:
    """A node's entry in the registry. `id` is ours and never changes; all that an owner may change is no identity."""

    id: str
    ip_address: str  # canonical
    payment_wallet: str
    worker_type: str
    created_at: datetime
    worker_key: str | None = None
    tls_spki_sha256: str | None = None  # proved while attested; before that, only said
    endpoints: tuple[Endpoint, ...] = ()
    service: Service = Service.IN_SERVICE  # the admin's word
    drains_itself: bool = False  # the worker's word
    generation: int = 1  # rises with every change of address, wallet, key or type
    attempt: int = 0  # attestations begun
    settled: int = 0  # the last of them that was concluded
    attested_until: datetime | None = None  # None: not attested, or not any more
    alive_until: datetime | None = None
    due_at: datetime | None = None  # when to attest next
    failures: int = 0  # in a row, to reach a verdict
    against: tuple[str, ...] = ()  # reason codes of the last evidence, if it was refused
    undecided: tuple[str, ...] = ()  # reason codes of the last attempt, if it came to no verdict
    verdict: Verdict | None = None  # the last one that decided; before there was one, the last
    evidence_sha256: str = ""  # that it is about
    load: Load = field(default_factory=Load)

    def is_attested(self, now: datetime) -> bool:
        return self.attested_until is not None and now < self.attested_until

    def is_alive(self, now: datetime) -> bool:
        return self.alive_until is not None and now < self.alive_until

    def is_due(self, now: datetime) -> bool:
        return self.due_at is not None and self.due_at <= now

    @property
    def serving(self) -> Service:
        """The stricter of what the admin and the worker say."""
        if self.service is Service.IN_SERVICE and self.drains_itself:
            return Service.DRAINING
        return self.service


@dataclass(frozen=True, slots=True)
class Asked:
    """What a verdict was asked for. It fences: a verdict that something overtook changes nothing."""

    generation: int
    attempt: int


# --- attestation ------------------------------------------------------------------------------------------------------
def begin(worker: Worker) -> tuple[Worker, Asked]:
    """Number an attempt to attest. Of two that run at once, the one that began first never undoes the other."""
    begun = replace(worker, attempt=worker.attempt + 1)
    return begun, Asked(begun.generation, begun.attempt)


def is_late(worker: Worker, asked: Asked) -> bool:
    """Whether the worker changed, or a younger attempt was concluded, since this one was asked for."""
    return asked.generation != worker.generation or asked.attempt <= worker.settled


def settle(
    worker: Worker,
    asked: Asked,
    verdict: Verdict,
    *,
    now: datetime,
    alive_for: timedelta,
    jitter: float,
    tls_spki_sha256: str | None = None,
    endpoints: tuple[Endpoint, ...] = (),
) -> Worker:
    """
    Apply a verdict. `jitter` is random, 0 to 1. An affirming one proves liveliness of that moment, too.

    `tls_spki_sha256` and `endpoints` are what the node stated with the evidence; they count only with an affirming one.
    """
    if is_late(worker, asked):
        return worker
    if verdict.tier == Tier.NONE:
        postponed = postpone(worker, asked, now, codes_of(verdict))
        if worker.verdict is not None:
            return postponed
        return replace(postponed, verdict=verdict, evidence_sha256=verdict.evidence_sha256)
    if verdict.tier != Tier.AFFIRMING:
        refused = distrust(worker, asked, now, codes_of(verdict))
        return replace(refused, verdict=verdict, evidence_sha256=verdict.evidence_sha256)
    lifetime = verdict.not_after - verdict.issued_at
    return replace(
        worker,
        settled=asked.attempt,
        attested_until=verdict.not_after,
        alive_until=max(now + alive_for, worker.alive_until or now),
        due_at=verdict.issued_at + lifetime * (HALF_LIFE - JITTER * jitter),
        failures=0,
        against=(),
        undecided=(),
        verdict=verdict,
        evidence_sha256=verdict.evidence_sha256,
        tls_spki_sha256=tls_spki_sha256,
        endpoints=endpoints,
    )


def distrust(worker: Worker, asked: Asked, now: datetime, codes: tuple[str, ...]) -> Worker:
    """Its evidence was malformed, forged or not liked: out at once, and asked again only after a while."""
    if is_late(worker, asked):
        return worker
    return replace(
        worker,
        settled=asked.attempt,
        attested_until=None,
        due_at=now + RETRY_MAX,
        failures=0,
        against=codes or ("unspecified",),
        undecided=(),
    )


def postpone(worker: Worker, asked: Asked, now: datetime, codes: tuple[str, ...] = ()) -> Worker:
    """We could not decide. Trust runs on until it expires, and not longer; ask again soon, then less soon."""
    if is_late(worker, asked):
        return worker
    wait = min(RETRY_FIRST * 2 ** min(worker.failures, RETRY_DOUBLINGS_MAX), RETRY_MAX)
    return replace(
        worker,
        settled=asked.attempt,
        due_at=now + wait,
        failures=worker.failures + 1,
        undecided=codes or ("unspecified",),
    )


def stands(worker: Worker, evidence_sha256: str, now: datetime) -> bool:
    """Whether the worker's verdict is about this evidence, and holds: one that affirms, as long as it is attested."""
    verdict = worker.verdict
    if verdict is None or verdict.evidence_sha256 != evidence_sha256:
        return False
    return verdict.tier != Tier.AFFIRMING or (worker.is_attested(now) and not worker.against)


def codes_of(verdict: Verdict) -> tuple[str, ...]:
    """The reason codes of the rules that failed, each once."""
    return tuple(dict.fromkeys(finding.code for finding in verdict.reasons))


# --- identity: what changes nothing is no change ----------------------------------------------------------------------
def set_wallet(worker: Worker, payment_wallet: str, now: datetime) -> Worker:
    """The evidence commits to the wallet, so trust ends. The worker lives on: its key proved that, not its wallet."""
    if payment_wallet == worker.payment_wallet:
        return worker
    return replace(_anew(worker, now), payment_wallet=payment_wallet)


def set_type(worker: Worker, worker_type: str, now: datetime) -> Worker:
    """The type says how many devices there must be, so trust ends with it, though the evidence does not name it."""
    if worker_type == worker.worker_type:
        return worker
    return replace(_anew(worker, now), worker_type=worker_type)


def set_key(worker: Worker, worker_key: str, now: datetime) -> Worker:
    """The evidence commits to the key, and the key proved liveliness: both begin anew."""
    if worker_key == worker.worker_key:
        return worker
    return replace(_anew(worker, now), worker_key=worker_key, alive_until=None)


def set_address(worker: Worker, ip_address: str, now: datetime) -> Worker:
    """The evidence commits to the address, and nobody was seen alive at the new one, which serves nothing yet."""
    return replace(_anew(worker, now), ip_address=ip_address, alive_until=None, endpoints=())


def _anew(worker: Worker, now: datetime) -> Worker:
    return replace(
        worker,
        generation=worker.generation + 1,
        attested_until=None,
        due_at=now,
        failures=0,
        against=(),
        undecided=(),
        verdict=None,
        evidence_sha256="",
    )


def under_another_policy(worker: Worker, now: datetime) -> Worker:
    """It is asked to attest again. What it has holds until it ends; a verdict by the policy before comes too late."""
    return replace(worker, generation=worker.generation + 1, due_at=now)


# --- liveliness and service -------------------------------------------------------------------------------------------
def alive(
    worker: Worker,
    until: datetime,
    *,
    load: Load | None = None,
    endpoints: tuple[Endpoint, ...] | None = None,
    draining: bool = False,
) -> Worker:
    """It answered a challenge. What is None stays as it was. Draining is the worker's own word, beside the admin's."""
    return replace(
        worker,
        alive_until=max(until, worker.alive_until or until),
        load=worker.load if load is None else load,
        endpoints=worker.endpoints if endpoints is None else endpoints,
        drains_itself=draining,
    )


def set_service(worker: Worker, service: Service) -> Worker:
    """The admin's word. Putting a worker back in service overrides a drain of its own, until it drains again."""
    return replace(worker, service=service, drains_itself=worker.drains_itself and service is not Service.IN_SERVICE)


# --- handing out ------------------------------------------------------------------------------------------------------
def why(worker: Worker, now: datetime) -> tuple[str, ...]:
    """All that keeps the worker from being handed out, as codes. Empty: it is routable."""
    return (*_why_not_attested(worker, now), *_why_not_alive(worker, now), *_why_not_serving(worker))


def routable(worker: Worker, now: datetime) -> bool:
    """Attested and alive and in service, with something to serve."""
    return not why(worker, now)


def routes(worker: Worker, now: datetime) -> tuple[Route, ...]:
    """What the hand-out may hold of this worker: each endpoint, until trust or liveliness ends."""
    if not routable(worker, now) or worker.attested_until is None or worker.alive_until is None:
        return ()
    not_after = min(worker.attested_until, worker.alive_until)
    verdict = summary(worker.verdict)
    return tuple(
        Route(
            url=endpoint.url,
            model=endpoint.model,
            worker=worker.ip_address,
            worker_type=worker.worker_type,
            tls_spki_sha256=worker.tls_spki_sha256,
            not_after=not_after,
            verdict=verdict,
        )
        for endpoint in worker.endpoints
    )


def summary(verdict: Verdict | None) -> Mapping[str, Any]:
    """What is told of a verdict beside every URL."""
    if verdict is None:
        return {}
    told = ("tier", "emulated", "revocation", "binding", "policy", "evidence_sha256")
    return verdict.model_dump(mode="json", include=set(told))


def _why_not_attested(worker: Worker, now: datetime) -> tuple[str, ...]:
    if worker.is_attested(now):
        return ()
    if worker.against:
        first = tuple(f"{CONTRAINDICATED}:{code}" for code in worker.against)
    else:
        first = (NOT_ATTESTED if worker.attested_until is None else ATTESTATION_EXPIRED,)
    return (*first, *(f"{UNDECIDED}:{code}" for code in worker.undecided))


def _why_not_alive(worker: Worker, now: datetime) -> tuple[str, ...]:
    if worker.is_alive(now):
        return ()
    return (NOT_ALIVE if worker.alive_until is None else LIVELINESS_EXPIRED,)


def _why_not_serving(worker: Worker) -> tuple[str, ...]:
    service = () if worker.serving is Service.IN_SERVICE else (str(worker.serving),)
    return service if worker.endpoints else (*service, NO_ENDPOINTS)
