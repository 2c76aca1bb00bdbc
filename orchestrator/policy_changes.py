"""Policies as use cases: activate one, see which are in force, foresee what one would do to the fleet."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from typing import Any

from attest.policy import Policy
from attest.result import AttestationResult, Tier
from orchestrator import addresses, attestations, messages_appraisal, permissions, policies, reasons, registry, wallets
from orchestrator.attestations import Answered
from orchestrator.context import Context
from orchestrator.messages import SetPolicy
from orchestrator.messages_appraisal import PreviewPolicy
from orchestrator.policies import FLEET, Key, Policies
from orchestrator.reasons import Refused
from orchestrator.registry import Worker
from orchestrator.store import Event, Tx, View
from orchestrator.store_policies import Activated, Judged, Scope
from orchestrator.verdicts import EvidenceRefused, told

PREVIEWED_MAX = 200  # workers in one answer
BY_SETTINGS = "settings"
NOT_JUDGED = "not judged"


# --- activate ---------------------------------------------------------------------------------------------------------
def activate(ctx: Context, tx: Tx, command: SetPolicy, *, signer: str, now: datetime) -> dict[str, Any]:
    """
    Put a policy in force, or withdraw it. The workers that it is for are asked to attest again; what they have holds
    until it ends. Refused: policy-invalid, policy-widens, worker-unknown.
    """
    key = _key(tx, command)
    found = _checked(ctx, tx, key, command.policy)
    policy = policies.parsed(command.policy) if command.policy else found.fleet if key == FLEET else None
    name, sha256 = ("", "") if policy is None else (policy.name, policy.sha256)
    tx.add_policy(Activated(*key, name, sha256, command.policy, now, signer))
    concerned = list(_concerned(tx, key))
    for worker in concerned:
        tx.put_worker(registry.under_another_policy(worker, now), now)
    told_of = {"scope": str(key[0]), "subject": _shown_subject(tx, key), "name": name, "sha256": sha256}
    event = "policy-activated" if command.policy else "policy-withdrawn"
    tx.add_event(Event(now, event, signer, concerned[0] if key[0] is Scope.WORKER else None, details=told_of))
    return {**told_of, "workers": len(concerned)}


def _key(view: View, command: SetPolicy) -> Key:
    """Whom a command is about. Each scope has its own field, and no other."""
    scope = Scope(command.scope)
    given = {"payment_wallet": command.payment_wallet, "ip_address": command.ip_address}
    wanted = {Scope.WALLET: "payment_wallet", Scope.WORKER: "ip_address"}.get(scope)
    for field, value in given.items():
        if (value is not None) != (field == wanted):
            want = f"a value, for scope {scope}" if field == wanted else f"nothing, for scope {scope}"
            raise Refused(reasons.FIELD_INVALID, field, got=value or "nothing", want=want)
    if command.payment_wallet is not None:
        return scope, wallets.parse_address(command.payment_wallet)
    if command.ip_address is not None:
        address = addresses.canonical(command.ip_address)
        return scope, permissions.known(view.worker_at(address), address).id
    return FLEET


def _checked(ctx: Context, view: View, key: Key, text: str) -> Policies:
    """All policies as they would be. Refused: policy-invalid, policy-widens."""
    found = policies.in_force(view, ctx.judge.policy).with_(key, text)
    found.check(policies.with_own(view, found))
    return found


def _concerned(view: View, key: Key) -> Iterator[Worker]:
    scope, subject = key
    if scope is Scope.WORKER:
        worker = view.worker(subject)
        return iter(() if worker is None else (worker,))
    return (worker for worker in view.workers() if scope is Scope.FLEET or worker.payment_wallet == subject)


def _shown_subject(view: View, key: Key) -> str:
    """A worker is told by its address: its id means nothing to anybody else."""
    scope, subject = key
    if scope is not Scope.WORKER:
        return subject
    worker = view.worker(subject)
    return f"removed worker {subject}" if worker is None else worker.ip_address


# --- show -------------------------------------------------------------------------------------------------------------
def in_force(ctx: Context) -> messages_appraisal.PoliciesInForce:
    """What is in force, and what was."""
    with ctx.store.reading() as view:
        active = view.policies()
        history = tuple(_shown(view, each) for each in view.policy_history())
        by_key = {(each.scope, each.subject): each for each in active}
        fleet = by_key.pop(FLEET, None)
        own = ctx.judge.policy
        return messages_appraisal.PoliciesInForce(
            fleet=_of_settings(own) if fleet is None else _shown(view, fleet),
            narrowed=tuple(_shown(view, each) for each in by_key.values()),
            history=history,
        )


def _of_settings(policy: Policy) -> messages_appraisal.PolicyInForce:
    name, sha256 = policy.name, policy.sha256
    return messages_appraisal.PolicyInForce(
        scope=Scope.FLEET, subject="", name=name, sha256=sha256, text="", since=None, actor=BY_SETTINGS
    )


def _shown(view: View, each: Activated) -> messages_appraisal.PolicyInForce:
    return messages_appraisal.PolicyInForce(
        scope=each.scope,
        subject=_shown_subject(view, (each.scope, each.subject)),
        name=each.name,
        sha256=each.sha256,
        text=each.text,
        since=each.at,
        actor=each.actor,
    )


# --- foresee ----------------------------------------------------------------------------------------------------------
def preview(ctx: Context, command: PreviewPolicy) -> messages_appraisal.PolicyPreview:
    """
    Every worker's last evidence, verified and appraised anew under a policy that is not in force.

    Verified as of the moment of its verdict; where the documents of that moment are gone, as of now. What is told is
    for the policy alone: whether the node would still give the same evidence, nobody knows.
    """
    with ctx.store.reading() as view:
        key = _key(view, command)
        found = _checked(ctx, view, key, command.policy)
        page = list(islice(_concerned(view, key), command.skip, command.skip + PREVIEWED_MAX + 1))
        known = [(worker, view.judged(worker.id)) for worker in page[:PREVIEWED_MAX]]
    policy = policies.parsed(command.policy) if command.policy else found.fleet
    return messages_appraisal.PolicyPreview(
        name=policy.name,
        sha256=policy.sha256,
        workers=tuple(_foreseen(ctx, found, worker, judged) for worker, judged in known),
        skip_next=command.skip + PREVIEWED_MAX if len(page) > PREVIEWED_MAX else None,
    )


def _foreseen(ctx: Context, found: Policies, worker: Worker, judged: Judged | None) -> messages_appraisal.Foreseen:
    ip, was = worker.ip_address, worker.verdict
    if judged is None or was is None or judged.evidence_sha256 != was.evidence_sha256:
        return messages_appraisal.Foreseen(ip_address=ip, was=NOT_JUDGED, would_be=NOT_JUDGED, falls=False, as_of=None)
    result = _judged_anew(ctx, found.of_worker(worker.payment_wallet, worker.id), worker, judged)
    if result is None:  # it was read when it was judged, so another version of ours wrote or reads it
        return messages_appraisal.Foreseen(ip_address=ip, was=was.tier, would_be=NOT_JUDGED, falls=False, as_of=None)
    falls = worker.is_attested(ctx.clock()) and result.tier is not Tier.AFFIRMING
    return messages_appraisal.Foreseen(
        ip_address=ip,
        was=was.tier,
        would_be=result.tier,
        falls=falls,
        as_of=result.issued_at,
        reasons=told(result).reasons,
    )


def _judged_anew(ctx: Context, policy: Policy, worker: Worker, judged: Judged) -> AttestationResult | None:
    judge = ctx.judge.under(policy)
    answered = Answered(judged.evidence, "evidence", judged.challenge, judged.tls_spki_sha256)
    try:
        result = attestations.judged(judge, worker, answered, judged.at)
        return attestations.judged(judge, worker, answered, ctx.clock()) if result.tier is Tier.NONE else result
    except EvidenceRefused:
        return None
