"""
Attestation as a use case: a challenge is redeemed, evidence judged, the verdict settled.

Three steps, the middle one outside of any transaction, since it takes its time. What overtakes it meanwhile (another
attempt, a change of identity, a removal) fences it: a late verdict is recorded, and changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

import structlog

from attest.binding import Presented, gpu_nonce
from attest.result import AttestationResult, Tier
from orchestrator import addresses, challenges, permissions, reasons, registry, wallets
from orchestrator.answers import shown
from orchestrator.context import Context
from orchestrator.messages import Attest, Attested, Endpoint, Purpose, RegisterWorker, Verdict
from orchestrator.reasons import Refused
from orchestrator.registry import Asked, Worker
from orchestrator.store import Event, Tx
from orchestrator.store_policies import Judged
from orchestrator.verdicts import EvidenceRefused, Judge, counted, disputed, read_evidence, statement_of, told, unasked
from orchestrator.wallets import Opened

log = structlog.get_logger("orchestrator.attestations")

BY_WORKER = "worker"
_WORKER_ID_BYTES = 16


@dataclass(frozen=True, slots=True)
class Answered:
    """Evidence, and what the node stated with it. `field` names the evidence in refusals."""

    report: str
    field: str
    challenge: str | None
    tls_spki_sha256: str | None
    endpoints: tuple[Endpoint, ...] = ()


# --- by the worker's key ----------------------------------------------------------------------------------------------
def attest(ctx: Context, ip_address: str, message: Attest, *, signer: str) -> Attested:
    """Judge evidence that answers an `attest` challenge. The verdict is told, whatever it is."""
    worker, asked, presented = _redeem(ctx, ip_address, message, signer)
    try:
        result = _judge(ctx, worker, presented)
    except EvidenceRefused as e:
        _distrust(ctx, worker, asked, e)
        raise
    with ctx.store.transaction() as tx:
        now = ctx.clock()
        current = tx.worker(worker.id)
        fenced = current is None or registry.is_late(current, asked)
        if current is None or fenced:
            tx.add_verdict(worker, told(result), result.collateral, applied=False)
            tx.add_event(Event(now, "verdict-superseded", BY_WORKER, worker))
        else:
            current, verdict = _settle(ctx, tx, current, asked, result, presented, BY_WORKER, now)
    if current is None:
        raise Refused(reasons.WORKER_UNKNOWN, "ip_address", got=ip_address)
    if fenced:
        raise _superseded(worker, current)
    ctx.publish(current.ip_address)
    return Attested(worker=shown(current, now), verdict=verdict)


def _redeem(ctx: Context, ip_address: str, message: Attest, signer: str) -> tuple[Worker, Asked, Answered]:
    """Who asks, for what, and that it is the first answer to our challenge. Committed before anything is judged."""
    address = addresses.canonical(ip_address)
    with ctx.store.transaction() as tx:
        now = ctx.clock()
        worker = permissions.known(tx.worker_at(address), ip_address)
        permissions.check_worker_key(signer, worker)
        endpoints = checked_endpoints(ctx, address, message.tls_spki_sha256, message.endpoints)
        owner = challenges.of_worker(worker.id)
        issued = challenges.redeem(tx, message.challenge, Purpose.ATTEST, owner, now)
        if issued.generation != worker.generation:
            raise _superseded(worker, worker)
        worker, asked = registry.begin(worker)
        tx.put_worker(worker, now)
    endpoints = endpoints or _still_fitting(ctx, worker, message.tls_spki_sha256)
    presented = Answered(message.evidence, "evidence", message.challenge, message.tls_spki_sha256, endpoints)
    return worker, asked, presented


def _distrust(ctx: Context, worker: Worker, asked: Asked, refused: EvidenceRefused) -> None:
    """The worker itself sent what is no evidence, in answer to our challenge: its trust ends here."""
    codes = tuple(each.problem.code for each in refused.because)
    with ctx.store.transaction() as tx:
        now = ctx.clock()
        current = tx.worker(worker.id)
        if current is None or registry.is_late(current, asked):
            return
        tx.put_worker(registry.distrust(current, asked, now, codes), now)
        tx.add_event(Event(now, "evidence-refused", BY_WORKER, current, codes))
    ctx.publish(current.ip_address)


def _superseded(asked_for: Worker, current: Worker) -> Refused:
    got, want = f"generation {asked_for.generation}", f"generation {current.generation}, and the youngest attempt"
    return Refused(reasons.SUPERSEDED, "challenge", got=got, want=want)


# --- by the admin's signature -----------------------------------------------------------------------------------------
def register(ctx: Context, opened: Opened, message: RegisterWorker) -> Worker:
    """
    Register a worker, with or without evidence. Evidence that cannot be read, or that answers a challenge which is not
    the worker's, is refused with all the rest; evidence that is judged and not liked makes a worker that is known and
    not trusted.
    """
    newcomer, presented = _newcomer(ctx, message)
    with ctx.store.transaction() as tx:
        now = ctx.clock()
        _check_may_register(ctx, tx, opened, newcomer)
        if message.challenge is not None:
            owner = challenges.of_newcomer(newcomer.ip_address, newcomer.payment_wallet)
            challenges.redeem(tx, message.challenge, Purpose.REGISTER, owner, now)
        if presented is None:
            _enter(tx, opened, newcomer, now)
    if presented is None:
        return newcomer

    worker, asked = registry.begin(newcomer)
    result = _judge(ctx, worker, presented)
    with ctx.store.transaction() as tx:
        now = ctx.clock()
        _check_may_register(ctx, tx, opened, newcomer)
        _enter(tx, opened, newcomer, now)
        worker, _ = _settle(ctx, tx, worker, asked, result, presented, opened.signer, now)
        if presented.challenge is None:
            worker = replace(worker, due_at=now)  # nothing was asked yet, so nothing was answered badly
            tx.put_worker(worker, now)
    ctx.publish(worker.ip_address)
    return worker


def _newcomer(ctx: Context, message: RegisterWorker) -> tuple[Worker, Answered | None]:
    """The worker as it would be entered, and its evidence, if there is any. Everything that can be checked alone is."""
    address = addresses.canonical(message.ip_address)
    addresses.check_allowed(address, ctx.rules.allowed_ranges)
    now = ctx.clock()
    worker = Worker(
        id=ctx.token_bytes(_WORKER_ID_BYTES).hex(),
        ip_address=address,
        payment_wallet=wallets.parse_address(message.payment_wallet),
        worker_type=message.worker_type,
        created_at=now,
        worker_key=message.worker_key,
        tls_spki_sha256=message.tls_spki_sha256,
        endpoints=checked_endpoints(ctx, address, message.tls_spki_sha256, message.endpoints),
        due_at=now,
    )
    report, challenge = message.attestation_report, message.challenge
    if not report:
        if challenge is not None:
            raise Refused(reasons.FIELD_INVALID, "attestation_report", want="evidence that answers the challenge")
        return worker, None
    if challenge is not None and message.worker_key is None:
        raise Refused(reasons.FIELD_INVALID, "worker_key", want="the key that the evidence commits to")
    return worker, Answered(report, "attestation_report", challenge, message.tls_spki_sha256, worker.endpoints)


def _check_may_register(ctx: Context, tx: Tx, opened: Opened, newcomer: Worker) -> None:
    permissions.check_admin(opened.signer, ctx.admin(tx), reasons.NOT_ADMIN_REGISTER)
    if tx.is_spent(opened.signer, opened.id):
        raise Refused(reasons.MESSAGE_REPLAYED, "id", got=opened.id)
    check_free(tx, newcomer.ip_address)


def check_free(tx: Tx, ip_address: str) -> None:
    """That no worker has this address. Refused: address-taken."""
    if tx.worker_at(ip_address) is not None:
        raise Refused(reasons.ADDRESS_TAKEN, "ip_address", got=ip_address)


def _enter(tx: Tx, opened: Opened, newcomer: Worker, now: datetime) -> None:
    if not tx.spend_id(opened.signer, opened.id, opened.expires):
        raise Refused(reasons.MESSAGE_REPLAYED, "id", got=opened.id)
    tx.put_worker(newcomer, now)
    tx.add_event(Event(now, "registered", opened.signer, newcomer))


# --- what both share --------------------------------------------------------------------------------------------------
def _judge(ctx: Context, worker: Worker, presented: Answered) -> AttestationResult:
    judge = ctx.judge_for(worker.payment_wallet, worker.id)
    return judged(judge, worker, presented, ctx.clock())


def judged(judge: Judge, worker: Worker, presented: Answered, now: datetime) -> AttestationResult:
    """
    The verdict on evidence, with the nonce that its statement makes. Refused (evidence-refused) if it cannot be read.

    Evidence that answers no challenge of ours, as deployed workers have it, is judged too, for its owner to see, and
    never believed: it may say by another profile whose TLS key it names, yet not to whom it was given.
    """
    bundle = read_evidence(presented.report, presented.field)
    tls = presented.tls_spki_sha256
    if presented.challenge is None or worker.worker_key is None:
        served = Presented(tls_spki_sha256=bytes.fromhex(tls) if tls else None)
        result = unasked(judge(bundle, None, now, served))
    else:
        statement = statement_of(presented.challenge, worker.ip_address, worker.payment_wallet, worker.worker_key, tls)
        result = judge(bundle, gpu_nonce(statement), now, Presented(statement))
    return counted(result, worker.worker_type, bundle)


def _settle(
    ctx: Context,
    tx: Tx,
    worker: Worker,
    asked: Asked,
    result: AttestationResult,
    presented: Answered,
    actor: str,
    now: datetime,
) -> tuple[Worker, Verdict]:
    """Apply a verdict that is in time. A device counts for one worker: whoever is attested with it keeps it."""
    devices = [claim.device for claim in result.claims]
    if result.tier is Tier.AFFIRMING:
        holders = tx.holders(devices).items()
        result = disputed(result, (d for d, other in holders if other.id != worker.id and other.is_attested(now)))
    verdict = told(result)
    settled = registry.settle(
        worker,
        asked,
        verdict,
        now=now,
        alive_for=ctx.rules.liveliness,
        jitter=ctx.jitter(),
        tls_spki_sha256=presented.tls_spki_sha256,
        endpoints=presented.endpoints,
    )
    tx.put_worker(settled, now)
    if result.tier is Tier.AFFIRMING:
        tx.hold_devices(settled.id, devices, now)
    tx.add_verdict(settled, verdict, result.collateral, applied=True)
    if settled.verdict is verdict:
        _keep(ctx, tx, settled, result, presented, now)
    details = {"evidence_sha256": verdict.evidence_sha256, "policy_sha256": verdict.policy_sha256}
    event = {Tier.AFFIRMING: "attested", Tier.NONE: "undecided"}.get(result.tier, "contraindicated")
    tx.add_event(Event(now, event, actor, settled, registry.codes_of(verdict), details))
    return settled, verdict


def _keep(ctx: Context, tx: Tx, worker: Worker, result: AttestationResult, presented: Answered, now: datetime) -> None:
    """Keep what the verdict in force is about, for policies to be tried on, and the result, signed."""
    token = ""
    if ctx.issuer is not None:
        try:
            token = ctx.issuer.issue(result, worker, domain=ctx.domain, now=now)
        except ValueError as e:  # too long to be signed, say: the verdict counts all the same
            log.error("result is not signed", worker=worker.ip_address, why=str(e))
    digest, tls = result.evidence_sha256, presented.tls_spki_sha256
    tx.put_judged(Judged(worker.id, presented.report, digest, presented.challenge, tls, result.issued_at, token))


def checked_endpoints(
    ctx: Context, ip_address: str, tls_spki_sha256: str | None, endpoints: Iterable[Endpoint]
) -> tuple[Endpoint, ...]:
    """The endpoints with canonical URLs, each once. Refused as `addresses.check_endpoint` does."""
    ranges, tls = ctx.rules.allowed_ranges, tls_spki_sha256 or ""
    canonical = (
        Endpoint(
            model=endpoint.model,
            url=addresses.check_endpoint(
                endpoint.url, ip_address=ip_address, tls_spki_sha256=tls, allowed_ranges=ranges
            ),
        )
        for endpoint in endpoints
    )
    return tuple(dict.fromkeys(canonical))


def _still_fitting(ctx: Context, worker: Worker, tls_spki_sha256: str | None) -> tuple[Endpoint, ...]:
    """The endpoints that the worker had, without those that only another TLS key would bear."""
    fitting: list[Endpoint] = []
    for endpoint in worker.endpoints:
        try:
            fitting += checked_endpoints(ctx, worker.ip_address, tls_spki_sha256, [endpoint])
        except Refused:
            continue
    return tuple(fitting)
