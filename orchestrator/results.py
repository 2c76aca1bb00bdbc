"""
Signed results: what was concluded of a worker, as an EAR (`attest.ear`) that anybody can check offline.

The orchestrator signs by a key of its own, made at first start in the state directory. Beside the claims of an EAR, a
result names whom it is about: `urn:workermanager:ear:worker`, {ip_address, worker_key, tls_spki_sha256}.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from attest import ear
from attest.ear import VerifierId
from attest.result import AttestationResult
from attest.result_key import ResultKey
from orchestrator.registry import Worker

WORKER = "urn:workermanager:ear:worker"
MEDIA_TYPE = "application/jwt"


@dataclass(frozen=True, slots=True)
class Issuer:
    """Who signs results, and as which software."""

    key: ResultKey
    verifier: VerifierId

    @classmethod
    def of(cls, path: Path, build: str) -> Issuer:
        """By the key in this file, which is made if there is none. Raises `attest.keyfiles.KeyFileError`."""
        if not path.exists():
            ResultKey.generate().save(path)
        return cls(ResultKey.load(path), VerifierId("workermanager", build))

    def issue(self, result: AttestationResult, worker: Worker, *, domain: str, now: datetime) -> str:
        """The result on this worker as a compact JWS. `domain` names us; it is issued no earlier than appraised."""
        issued_at = max(now, result.issued_at)
        claims = ear.to_ear(result, issuer=domain, issued_at=issued_at, verifier=self.verifier)
        about = {
            "ip_address": worker.ip_address,
            "worker_key": worker.worker_key,
            "tls_spki_sha256": worker.tls_spki_sha256,
        }
        return ear.sign({**claims, WORKER: about}, self.key)

    def key_set(self) -> dict[str, Any]:
        """What to check our results by."""
        return ear.jwks([self.key.public])


def claims_of(token: str) -> dict[str, Any]:
    """What a token of ours says, for those who take our word for it. Nothing is verified."""
    payload = token.split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return claims
