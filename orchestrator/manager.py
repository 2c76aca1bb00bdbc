"""
The WorkerManager: one method a message. Everything that touches the world is handed in.

Synchronous, and safe to call from many threads. Nothing is answered before it is committed and durable; the hand-out is
brought up to date after the commit, never before. What is refused, is refused as `orchestrator.reasons.Refused`, and
leaves nothing behind.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from orchestrator import (
    addresses,
    answers,
    attestations,
    challenges,
    messages,
    permissions,
    policies,
    policy_changes,
    preflights,
    reasons,
    registry,
    results,
    wallets,
)
from orchestrator import execute as commands
from orchestrator import work as rules_of_work
from orchestrator.challenges import Issued
from orchestrator.context import Context, Rules
from orchestrator.messages import ChallengeRequest, Purpose
from orchestrator.messages_appraisal import (
    KeySet,
    PoliciesInForce,
    PolicyPreview,
    Preflight,
    Preflighted,
    PreviewPolicy,
    SignedResult,
)
from orchestrator.reasons import Refused
from orchestrator.registry import Worker
from orchestrator.results import Issuer
from orchestrator.scheduler import RoutingTable
from orchestrator.store import SWEPT, Event, Store, Tx, View
from orchestrator.verdicts import Judge
from orchestrator.work import ATTESTED, Counted

__all__ = ["Rules", "WorkerManager"]

BY_CLOCK = "clock"
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


def _utc_now() -> datetime:
    return datetime.now(UTC)


class WorkerManager:
    """The registry in use."""

    def __init__(
        self,
        store: Store,
        table: RoutingTable,
        judge: Judge,
        *,
        rules: Rules | None = None,
        clock: Callable[[], datetime] = _utc_now,
        token_bytes: Callable[[int], bytes] = secrets.token_bytes,
        jitter: Callable[[], float] = random.random,
        issuer: Issuer | None = None,
    ) -> None:
        """
        `clock` tells the time in UTC. `token_bytes` makes challenges, `jitter` (0 to 1) spreads due times. Without
        `issuer`, results are not signed.
        """
        self._ctx = Context(store, table, judge, rules or Rules(), clock, token_bytes, jitter, issuer)
        self._store, self._rules, self._clock = store, self._ctx.rules, clock

    # --- about --------------------------------------------------------------------------------------------------------
    def about(self) -> messages.About:
        """Who we are, and by which rules we believe."""
        with self._store.reading() as view:
            admin = self._ctx.admin(view)
            policy = policies.in_force(view, self._ctx.judge.policy).fleet
        return messages.About(
            name="workermanager",
            version=version("workermanager"),
            domain=self._ctx.domain,
            admin_address=admin,
            policy=policy.name,
            emulated_roots=self._ctx.judge.emulated_roots,
            liveliness_seconds=int(self._rules.liveliness.total_seconds()),
            epoch_seconds=int(self._rules.epochs.length.total_seconds()),
            epoch_zero=self._rules.epochs.zero,
        )

    def load(self) -> None:
        """
        Fill the hand-out from the store, at start. Refused (policy-invalid, policy-widens) if the policies in the store
        do not fit the one of the settings: nobody could be judged.
        """
        with self._store.reading() as view:
            found = policies.in_force(view, self._ctx.judge.policy)
            found.check(policies.with_own(view, found))
        self._ctx.publish_all()

    # --- challenges ---------------------------------------------------------------------------------------------------
    def challenge(self, request: ChallengeRequest, *, signer: str | None) -> messages.Challenge:
        """A fresh challenge. `signer` is the key that signed the request, or None: a worker's must be the worker's."""
        with self._store.transaction() as tx:
            now = self._clock()
            if request.purpose is Purpose.GET_WORKERS:
                key = _needed(request.subscriber_public_key, "subscriber_public_key")
                return self._issued(tx, Purpose.GET_WORKERS, challenges.of_subscriber(key), now)
            if request.purpose is Purpose.PREFLIGHT:
                asking = _needed(request.ip_address, "ip_address")
                owner, address, wallet = preflights.owner_of(self._ctx, asking, request.payment_wallet)
                return self._issued(tx, Purpose.PREFLIGHT, owner, now, address, wallet)
            address = addresses.canonical(_needed(request.ip_address, "ip_address"))
            if request.purpose is Purpose.REGISTER:
                wallet = wallets.parse_address(_needed(request.payment_wallet, "payment_wallet"))
                addresses.check_allowed(address, self._rules.allowed_ranges)
                attestations.check_free(tx, address)
                owner = challenges.of_newcomer(address, wallet)
                return self._issued(tx, Purpose.REGISTER, owner, now, address, wallet)
            worker = permissions.known(tx.worker_at(address), address)
            permissions.check_worker_key(signer, worker)
            return self._worker_challenge(tx, request.purpose, worker, now)

    def _worker_challenge(self, tx: Tx, purpose: Purpose, worker: Worker, now: datetime) -> messages.Challenge:
        owner = challenges.of_worker(worker.id)
        return self._issued(
            tx, purpose, owner, now, worker.ip_address, worker.payment_wallet, generation=worker.generation
        )

    def _issued(
        self,
        tx: Tx,
        purpose: Purpose,
        owner: challenges.Owner,
        now: datetime,
        ip_address: str | None = None,
        payment_wallet: str | None = None,
        generation: int | None = None,
    ) -> messages.Challenge:
        issued: Issued = challenges.issue(
            tx,
            purpose,
            owner,
            now=now,
            life=self._rules.challenge_life,
            token_bytes=self._ctx.token_bytes,
            generation=generation,
        )
        return messages.Challenge(
            challenge=issued.challenge,
            purpose=purpose,
            expires_at=issued.expires_at,
            ip_address=ip_address,
            payment_wallet=payment_wallet,
        )

    # --- commands -----------------------------------------------------------------------------------------------------
    def execute(self, signed: messages.Signed) -> tuple[str, messages.Worker | dict[str, Any]]:
        """A command signed by a wallet: its name, and the worker or subscriber that it affected."""
        return commands.execute(self._ctx, signed)

    def attest(self, ip: str, message: messages.Attest, *, signer: str) -> messages.Attested:
        """Evidence that answers an `attest` challenge. It is judged and recorded; the verdict says how."""
        return attestations.attest(self._ctx, ip, message, signer=signer)

    def preflight(self, message: Preflight) -> Preflighted:
        """What a node would be concluded of, if it registered. Nothing is."""
        return preflights.preflight(self._ctx, message)

    def report_liveliness(self, ip: str, message: messages.ReportLiveliness, *, signer: str) -> messages.Alive:
        """The answer to a liveliness challenge: alive from now on for a while. The next challenge comes with it."""
        with self._store.transaction() as tx:
            now = self._clock()
            worker = self._proved(tx, ip, signer)
            endpoints = message.endpoints
            if endpoints is not None:
                tls = worker.tls_spki_sha256
                endpoints = attestations.checked_endpoints(self._ctx, worker.ip_address, tls, endpoints)
            challenges.redeem(tx, message.challenge, Purpose.LIVELINESS, challenges.of_worker(worker.id), now)
            until = now + self._rules.liveliness
            after = registry.alive(worker, until, load=message.load, endpoints=endpoints, draining=message.draining)
            tx.put_worker(after, now)
            _record_changes(tx, worker, after, now)
            following = self._worker_challenge(tx, Purpose.LIVELINESS, after, now)
        self._ctx.publish(after.ip_address)
        why = registry.why(after, now)
        return messages.Alive(
            alive_until=after.alive_until or until,
            attest_due=after.is_due(now),
            challenge=following,
            routable=not why,
            why=why,
        )

    def report_work(self, ip: str, message: messages.ReportWork, *, signer: str) -> messages.WorkCounted:
        """Tokens served, counted once, for the wallet for which the worker was attested at that time."""
        rules_of_work.check_zones(message)
        with self._store.transaction() as tx:
            now = self._clock()
            worker = self._proved(tx, ip, signer)
            repeated = rules_of_work.check_sequence(message, tx.counted(message.epoch, worker.id))
            if not repeated:
                rules_of_work.check_times(message, self._rules.epochs, now)
                rules_of_work.check_content(message)
                spans = tx.spans(message.begin, message.end, worker_id=worker.id, fact=ATTESTED)
                wallet = rules_of_work.paid_wallet(message, spans)
                tx.add_counted(Counted.of(message, worker.id, wallet), now)
        return messages.WorkCounted(
            epoch=message.epoch,
            sequence=message.sequence,
            work=rules_of_work.work_of(message),
            repeated=repeated,
        )

    # --- queries ------------------------------------------------------------------------------------------------------
    def get_workers(self, subscriber_public_key: str, signature: str, challenge: str | None) -> messages.Workers:
        """All workers: for a subscriber in either form of signature, for the admin in the challenged form."""
        self._check_credential(subscriber_public_key, signature, challenge)
        now = self._clock()
        with self._store.reading() as view:
            return messages.Workers(workers=tuple(answers.shown(worker, now) for worker in view.workers()))

    def worker(self, ip: str) -> messages.Worker:
        """What anyone may see of a worker."""
        address = addresses.canonical(ip)
        with self._store.reading() as view:
            worker = permissions.known(view.worker_at(address), ip)
        return answers.public(worker, self._clock())

    def payouts(
        self, epoch: int, subscriber_public_key: str, signature: str, challenge: str | None
    ) -> messages.Payouts:
        """Each wallet's share of an epoch, uptime beside it. For whom GetWorkers is."""
        self._check_credential(subscriber_public_key, signature, challenge)
        now, epochs = self._clock(), self._rules.epochs
        if not 0 <= epoch <= epochs.at(now):
            raise Refused(
                reasons.FIELD_INVALID, "epoch", got=str(epoch), want=f"0 to {epochs.at(now)}, the one that runs"
            )
        with self._store.reading() as view:
            spans = view.spans(epochs.begin(epoch), epochs.end(epoch))
            return rules_of_work.payouts(epoch, epochs, spans, view.counted(epoch), now)

    def result(self, ip: str) -> SignedResult:
        """The last result on a worker, signed: an affirming one for as long as the worker is attested by it."""
        address = addresses.canonical(ip)
        with self._store.reading() as view:
            worker = permissions.known(view.worker_at(address), ip)
            judged = view.judged(worker.id)
        if judged is None or not judged.result or not registry.stands(worker, judged.evidence_sha256, self._clock()):
            raise Refused(reasons.RESULT_ABSENT, "ip_address", got=ip)
        return SignedResult(token=judged.result, ear=results.claims_of(judged.result))

    def key_set(self) -> KeySet:
        """What our results are checked by."""
        issuer = self._ctx.issuer
        return KeySet(keys=() if issuer is None else tuple(issuer.key_set()["keys"]))

    # --- policies -----------------------------------------------------------------------------------------------------
    def policies(self, subscriber_public_key: str, signature: str, challenge: str | None) -> PoliciesInForce:
        """The policies in force, and their history. For whom GetWorkers is."""
        self._check_credential(subscriber_public_key, signature, challenge)
        return policy_changes.in_force(self._ctx)

    def preview_policy(
        self,
        message: PreviewPolicy,
        subscriber_public_key: str,
        signature: str,
        challenge: str | None,
    ) -> PolicyPreview:
        """What a policy would make of the workers' last evidence. For the admin, in the challenged form."""
        if challenge is None:  # the other form can be replayed for ever
            raise Refused(reasons.SIGNATURE_MISSING, "challenge", want="the answer to a get_workers challenge")
        self._check_credential(subscriber_public_key, signature, challenge)
        with self._store.reading() as view:
            signer = wallets.address_of(bytes.fromhex(subscriber_public_key))
            permissions.check_admin(signer, self._ctx.admin(view))
        return policy_changes.preview(self._ctx, message)

    # --- ticks --------------------------------------------------------------------------------------------------------
    def sweep(self) -> None:
        """Record whose trust ran out, and forget what is spent. Nothing depends on it: time decides without it."""
        self.expire()
        self.forget()

    def expire(self) -> None:
        """Record and withdraw the workers whose attestation or liveliness ended since the last time."""
        now = self._clock()
        with self._store.reading() as view:
            if not view.ended_between(_swept_until(view), now):
                return
        with self._store.transaction() as tx:
            since = _swept_until(tx)
            ended = tx.ended_between(since, now)
            for worker in ended:
                for event, until in (
                    ("attestation-expired", worker.attested_until),
                    ("liveliness-expired", worker.alive_until),
                ):
                    if until is not None and since < until <= now:
                        details = {"until": until.isoformat()}
                        tx.add_event(Event(now, event, BY_CLOCK, worker, registry.why(worker, now), details))
            tx.set_meta(SWEPT, now.isoformat())
        self._ctx.publish(*(worker.ip_address for worker in ended))

    def forget(self) -> None:
        """Drop challenges and message ids that expired."""
        now = self._clock()
        with self._store.transaction() as tx:
            tx.forget_challenges(now)
            tx.forget_ids(now)

    # --- who asks? ----------------------------------------------------------------------------------------------------
    def _proved(self, tx: Tx, ip: str, signer: str) -> Worker:
        """The worker at this address, if the request was signed by its key."""
        worker = permissions.known(tx.worker_at(addresses.canonical(ip)), ip)
        permissions.check_worker_key(signer, worker)
        return worker

    def _check_credential(self, public_key: str, signature: str, challenge: str | None) -> None:
        if challenge is None:
            wallets.verify_get_workers(public_key, signature)
            with self._store.reading() as view:
                permissions.check_subscriber(view, public_key, self._ctx.admin(view), challenged=False)
            return
        wallets.verify_challenged(public_key, signature, challenge=challenge, domain=self._ctx.domain)
        with self._store.transaction() as tx:
            permissions.check_subscriber(tx, public_key, self._ctx.admin(tx), challenged=True)
            owner = challenges.of_subscriber(public_key)
            challenges.redeem(tx, challenge, Purpose.GET_WORKERS, owner, self._clock())


def _needed(value: str | None, field: str) -> str:
    if not value:
        raise Refused(reasons.FIELD_INVALID, field, got="nothing", want="a value, for this purpose")
    return value


def _swept_until(view: View) -> datetime:
    text = view.meta(SWEPT)
    return _LONG_AGO if text is None else datetime.fromisoformat(text)


def _record_changes(tx: Tx, before: Worker, after: Worker, now: datetime) -> None:
    """What a proof of liveliness changed about handing the worker out. That it merely lives on is no event."""
    changes = {
        "alive": not before.is_alive(now),
        "drains-itself": after.drains_itself and not before.drains_itself,
        "drains-no-more": before.drains_itself and not after.drains_itself,
        "endpoints-changed": before.endpoints != after.endpoints,
    }
    for event, happened in changes.items():
        if happened:
            tx.add_event(Event(now, event, attestations.BY_WORKER, after))
