"""How a worker is shown: whole to subscribers and its owner, without wallet and endpoints to everybody."""

from __future__ import annotations

from datetime import datetime

from orchestrator import messages, registry


def shown(worker: registry.Worker, now: datetime) -> messages.Worker:
    """The contract's four strings and what became of them, as of `now`."""
    why = registry.why(worker, now)
    return messages.Worker(
        ip_address=worker.ip_address,
        payment_wallet=worker.payment_wallet,
        attestation_report=worker.evidence_sha256,
        worker_type=worker.worker_type,
        worker_key=worker.worker_key,
        service=worker.serving,
        routable=not why,
        why=why,
        attested_until=worker.attested_until,
        alive_until=worker.alive_until,
        due_at=worker.due_at,
        endpoints=worker.endpoints,
        tls_spki_sha256=worker.tls_spki_sha256,
        generation=worker.generation,
        verdict=worker.verdict,
    )


def public(worker: registry.Worker, now: datetime) -> messages.Worker:
    """What anyone may see."""
    return shown(worker, now).model_copy(update={"payment_wallet": "", "attestation_report": "", "endpoints": ()})
