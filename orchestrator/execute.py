"""
Commands signed by wallets: `POST /v1/execute`.

A command is opened, read, and carried out in one transaction together with the spending of its id; so it takes effect
once, or not at all. `register_worker` alone is judged in between, in `attestations`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from orchestrator import (
    addresses,
    attestations,
    messages,
    permissions,
    policies,
    policy_changes,
    reasons,
    registry,
    wallets,
)
from orchestrator.answers import shown
from orchestrator.context import Context
from orchestrator.messages import COMMANDS, Command, Service, Signed
from orchestrator.reasons import Refused
from orchestrator.registry import Worker
from orchestrator.store import Event, Subscriber, Tx
from orchestrator.wallets import Opened

SUBSCRIBER_UNKNOWN = replace(
    reasons.NOT_FOUND, title="No subscriber has this public key", fix="Check the key: 66 characters of lower hex."
)
Answer = messages.Worker | dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Order:
    """A command that is being carried out: by whom, within which transaction, when."""

    ctx: Context
    tx: Tx
    signer: str
    now: datetime

    @property
    def admin(self) -> str:
        return self.ctx.admin(self.tx)

    def record(self, event: str, worker: Worker | None, /, **details: str) -> None:
        self.tx.add_event(Event(self.now, event, self.signer, worker, details=details))

    def put(self, before: Worker, after: Worker, event: str, /, **details: str) -> Done:
        """Replace a worker by what became of it."""
        self.tx.put_worker(after, self.now)
        self.record(event, after, **details)
        return Done(shown(after, self.now), (before.ip_address, after.ip_address))

    def remove(self, worker: Worker, event: str, /, **details: str) -> Done:
        self.tx.remove_worker(worker, self.now)
        self.record(event, worker, **details)
        return Done(shown(worker, self.now), (worker.ip_address,))


@dataclass(frozen=True, slots=True)
class Done:
    """What a command answers, and at which addresses the hand-out may have changed."""

    answer: Answer
    ip_addresses: tuple[str, ...] = ()


def execute(ctx: Context, signed: Signed) -> tuple[str, Answer]:
    """Open a command, carry it out, publish what changed. Its name, and the worker or subscriber that it touched."""
    opened = wallets.open_signed(signed.model_dump(), domain=ctx.domain, now=ctx.clock())
    name, command = parse(opened.message)
    if isinstance(command, messages.RegisterWorker):
        return name, shown(attestations.register(ctx, opened, command), ctx.clock())
    done = _carry_out(ctx, opened, command)
    ctx.publish(*done.ip_addresses)
    return name, done.answer


def parse(message: Mapping[str, Any]) -> tuple[str, Command]:
    """A command by its name on the wire: exactly one. Refused: request-malformed, field-invalid."""
    if len(message) != 1:
        raise Refused(reasons.REQUEST_MALFORMED, "message", got=", ".join(message) or "none", want="one command")
    ((name, content),) = message.items()
    if name not in COMMANDS:
        raise Refused(reasons.REQUEST_MALFORMED, "message", got=name, want=f"one of {', '.join(COMMANDS)}")
    try:
        return name, COMMANDS[name].model_validate_json(json.dumps(content))
    except ValidationError as e:
        first = e.errors()[0]
        path = ".".join(map(str, (name, *first["loc"])))
        raise Refused(reasons.FIELD_INVALID, path, got=_shown(first.get("input")), want=first["msg"]) from None


def _carry_out(ctx: Context, opened: Opened, command: Command) -> Done:
    with ctx.store.transaction() as tx:
        order = _Order(ctx, tx, opened.signer, ctx.clock())
        if not tx.spend_id(opened.signer, opened.id, opened.expires):
            raise Refused(reasons.MESSAGE_REPLAYED, "id", got=opened.id)
        return _HANDLERS[type(command)](order, command)


def _shown(value: object) -> str:
    return json.dumps(value) if isinstance(value, str | int | float | None) else ""


# --- the owner's ------------------------------------------------------------------------------------------------------
def _set_wallet(order: _Order, command: messages.SetWorkerWallet) -> Done:
    worker = _find(order, command.ip_address)
    permissions.check_owner(order.signer, worker, reasons.NOT_OWNER_WALLET)
    after = registry.set_wallet(worker, wallets.parse_address(command.payment_wallet), order.now)
    policies.in_force(order.tx, order.ctx.judge.policy).check([after])
    return order.put(worker, after, "wallet-changed", before=worker.payment_wallet)


def _set_address(order: _Order, command: messages.SetWorkerAddress) -> Done:
    worker = _find(order, command.old_ip_address, reasons.WORKER_UNKNOWN_ADDRESS)
    permissions.check_owner(order.signer, worker, reasons.NOT_OWNER_ADDRESS)
    address = addresses.canonical(command.new_ip_address)
    addresses.check_allowed(address, order.ctx.rules.allowed_ranges)
    attestations.check_free(order.tx, address)
    after = registry.set_address(worker, address, order.now)
    return order.put(worker, after, "address-changed", before=worker.ip_address)


def _set_type(order: _Order, command: messages.SetWorkerType) -> Done:
    worker = _find(order, command.ip_address)
    permissions.check_owner(order.signer, worker, reasons.NOT_OWNER_TYPE)
    after = registry.set_type(worker, command.worker_type, order.now)
    return order.put(worker, after, "type-changed", before=worker.worker_type)


def _set_key(order: _Order, command: messages.SetWorkerKey) -> Done:
    worker = _find(order, command.ip_address)
    permissions.check_owner_or_admin(order.signer, worker, order.admin)
    after = registry.set_key(worker, command.worker_key, order.now)
    return order.put(worker, after, "key-changed", before=worker.worker_key or "")


def _remove(order: _Order, command: messages.RemoveWorker) -> Done:
    worker = _find(order, command.ip_address)
    permissions.check_owner(order.signer, worker, reasons.NOT_OWNER_REMOVE)
    return order.remove(worker, "removed")


# --- the admin's ------------------------------------------------------------------------------------------------------
def _serve(service: Service, event: str) -> Callable[[_Order, messages.SetService], Done]:
    def handler(order: _Order, command: messages.SetService) -> Done:
        permissions.check_admin(order.signer, order.admin)
        worker = _find(order, command.ip_address)
        return order.put(worker, registry.set_service(worker, service), event, reason=command.reason)

    return handler


def _evict(order: _Order, command: messages.Evict) -> Done:
    permissions.check_admin(order.signer, order.admin)
    return order.remove(_find(order, command.ip_address), "evicted", reason=command.reason)


def _add_subscriber(order: _Order, command: messages.AddSubscriber) -> Done:
    permissions.check_admin(order.signer, order.admin)
    order.tx.put_subscriber(Subscriber(command.public_key, command.name, order.now))
    order.record("subscriber-added", None, public_key=command.public_key, name=command.name)
    return Done({"public_key": command.public_key, "name": command.name})


def _remove_subscriber(order: _Order, command: messages.RemoveSubscriber) -> Done:
    permissions.check_admin(order.signer, order.admin)
    subscriber = order.tx.subscriber(command.public_key)
    if subscriber is None:
        raise Refused(SUBSCRIBER_UNKNOWN, "public_key", got=command.public_key)
    order.tx.remove_subscriber(command.public_key)
    order.record("subscriber-removed", None, public_key=command.public_key, name=subscriber.name)
    return Done({"public_key": subscriber.public_key, "name": subscriber.name})


def _set_policy(order: _Order, command: messages.SetPolicy) -> Done:
    permissions.check_admin(order.signer, order.admin)
    return Done(policy_changes.activate(order.ctx, order.tx, command, signer=order.signer, now=order.now))


def _find(order: _Order, ip_address: str, problem: reasons.Problem = reasons.WORKER_UNKNOWN) -> Worker:
    return permissions.known(order.tx.worker_at(addresses.canonical(ip_address)), ip_address, problem)


_HANDLERS: Mapping[type[Command], Callable[[_Order, Any], Done]] = {
    messages.SetWorkerWallet: _set_wallet,
    messages.SetWorkerAddress: _set_address,
    messages.SetWorkerType: _set_type,
    messages.SetWorkerKey: _set_key,
    messages.RemoveWorker: _remove,
    messages.Uncordon: _serve(Service.IN_SERVICE, "uncordoned"),
    messages.Drain: _serve(Service.DRAINING, "drained"),
    messages.Cordon: _serve(Service.CORDONED, "cordoned"),
    messages.Quarantine: _serve(Service.QUARANTINED, "quarantined"),
    messages.Evict: _evict,
    messages.AddSubscriber: _add_subscriber,
    messages.RemoveSubscriber: _remove_subscriber,
    messages.SetPolicy: _set_policy,
}
