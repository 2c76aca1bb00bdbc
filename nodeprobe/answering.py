"""Answers challenges with evidence: what a node says of itself, bound to who it is and to this one question."""

from __future__ import annotations

from typing import NamedTuple

from attest.binding import Statement
from attest.evidence import dumps
from nodeprobe.world import Node, Server, Source
from orchestrator.client import Client
from orchestrator.messages import (
    Attest,
    Attested,
    Challenge,
    ChallengeRequest,
    Endpoint,
    Purpose,
    RegisterWorker,
    Worker,
)
from orchestrator.messages_appraisal import Preflight, Preflighted

UNSAID_TYPE = "unknown"


class Says(NamedTuple):
    """What goes with the evidence."""

    tls_spki_sha256: str | None
    endpoints: tuple[Endpoint, ...]


def attest(server: Server, node: Node, says: Says, evidence: Source) -> Attested:
    """One attestation of a worker that the orchestrator knows. Raises what orchestrator and devices raise."""
    challenge = server.challenge(ChallengeRequest(purpose=Purpose.ATTEST, ip_address=node.ip_address))
    message = Attest(
        challenge=challenge.challenge,
        tls_spki_sha256=says.tls_spki_sha256,
        worker_type=node.worker_type,
        endpoints=says.endpoints,
        evidence=_answer(challenge, node, says, evidence),
    )
    return server.attest(node.ip_address, message)


def register(server: Server, node: Node, says: Says, evidence: Source) -> Worker:
    """Register the node with its evidence, by the signature of the admin's wallet. `node.wallet` will own it."""
    if node.wallet is None:
        raise ValueError("a worker is registered for a wallet")
    asked = ChallengeRequest(purpose=Purpose.REGISTER, ip_address=node.ip_address, payment_wallet=node.wallet)
    challenge = server.challenge(asked)
    message = RegisterWorker(
        ip_address=node.ip_address,
        payment_wallet=node.wallet,
        attestation_report=_answer(challenge, node, says, evidence),
        worker_type=node.worker_type or UNSAID_TYPE,
        worker_key=node.worker_key,
        challenge=challenge.challenge,
        tls_spki_sha256=says.tls_spki_sha256,
        endpoints=says.endpoints,
    )
    return Worker.model_validate(server.execute("register_worker", message))


def preflight(client: Client, node: Node, tls_spki_sha256: str | None, evidence: Source) -> Preflighted:
    """Whether the orchestrator would admit the node, for `node.wallet` if it has one. Nothing is registered."""
    asked = ChallengeRequest(purpose=Purpose.PREFLIGHT, ip_address=node.ip_address, payment_wallet=node.wallet)
    challenge = client.challenge(asked)
    message = Preflight(
        challenge=challenge.challenge,
        ip_address=node.ip_address,
        payment_wallet=node.wallet,
        worker_key=node.worker_key,
        tls_spki_sha256=tls_spki_sha256,
        worker_type=node.worker_type,
        evidence=_answer(challenge, node, Says(tls_spki_sha256, ()), evidence),
    )
    return client.preflight(message)


def _answer(challenge: Challenge, node: Node, says: Says, evidence: Source) -> str:
    """The evidence of all devices, over values that commit to challenge, address, wallet and keys."""
    statement = Statement(
        challenge=challenge.challenge,
        ip_address=challenge.ip_address or node.ip_address,
        payment_wallet=challenge.payment_wallet or "",
        worker_key=node.worker_key,
        tls_spki_sha256=says.tls_spki_sha256 or "",
    )
    return dumps(evidence(statement)).decode()
