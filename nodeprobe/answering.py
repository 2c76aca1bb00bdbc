"""Answers challenges with evidence: what a node says of itself, bound to who it is and to this one question."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from attest.binding import Statement, gpu_nonce
from attest.evidence import Bundle, Nonce, dumps
from nodeprobe.world import Node, Server
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

UNSAID_TYPE = "unknown"


class Says(NamedTuple):
    """What goes with the evidence."""

    tls_spki_sha256: str | None
    endpoints: tuple[Endpoint, ...]


def attest(server: Server, node: Node, says: Says, evidence: Callable[[Nonce], Bundle]) -> Attested:
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


def register(server: Server, node: Node, says: Says, evidence: Callable[[Nonce], Bundle]) -> Worker:
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


def _answer(challenge: Challenge, node: Node, says: Says, evidence: Callable[[Nonce], Bundle]) -> str:
    """The evidence of all devices, over a nonce that commits to challenge, address, wallet and keys."""
    statement = Statement(
        challenge=challenge.challenge,
        ip_address=challenge.ip_address or node.ip_address,
        payment_wallet=challenge.payment_wallet or "",
        worker_key=node.worker_key,
        tls_spki_sha256=says.tls_spki_sha256 or "",
    )
    return dumps(evidence(gpu_nonce(statement))).decode()
