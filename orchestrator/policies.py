"""
Which policy a worker is judged by.

The fleet's is the one that an admin activated last; until then, and after it is withdrawn, the one that the settings
name (`--policy`). So a restart with other settings never undoes what an admin signed for. A wallet's and a worker's own
narrow it, in this order (`attest.narrowing`). All that are in force together must fit: what would not, is refused when
it is to be activated, and names the key.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from attest.narrowing import Widened, narrowed
from attest.policy import Policy, PolicyError, parse
from orchestrator import reasons
from orchestrator.reasons import Refused
from orchestrator.registry import Worker
from orchestrator.store import View
from orchestrator.store_policies import Activated, Scope

PARSED_REMEMBERED = 256

Key = tuple[Scope, str]
FLEET: Key = (Scope.FLEET, "")


@dataclass(frozen=True, slots=True)
class Policies:
    """All policies in force, and the one of the settings, for when the fleet has none."""

    settings: Policy
    texts: Mapping[Key, str]

    @classmethod
    def of(cls, settings: Policy, activated: Iterable[Activated]) -> Policies:
        return cls(settings, {(each.scope, each.subject): each.text for each in activated})

    @property
    def fleet(self) -> Policy:
        return parsed(self.texts[FLEET]) if FLEET in self.texts else self.settings

    def with_(self, key: Key, text: str) -> Policies:
        """With another policy for this subject; with none of its own, if the text is empty."""
        others = {each: its for each, its in self.texts.items() if each != key}
        return Policies(self.settings, others | ({key: text} if text else {}))

    def of_worker(self, payment_wallet: str, worker_id: str) -> Policy:
        """The policy that a worker is judged by. Widened if what narrows it does not; that is never activated."""
        policy = self.fleet
        for key in ((Scope.WALLET, payment_wallet), (Scope.WORKER, worker_id)):
            if key in self.texts:
                policy = narrowed(policy, parsed(self.texts[key]))
        return policy

    def check(self, workers: Iterable[Worker]) -> None:
        """That all of them fit together. Refused: policy-invalid, policy-widens."""
        try:
            for scope, subject in self.texts:
                parsed(self.texts[scope, subject])
                if scope is Scope.WALLET:
                    self._check(f"wallet {subject}", subject, "")
            for worker in workers:
                self._check(f"worker {worker.ip_address}", worker.payment_wallet, worker.id)
        except PolicyError as e:
            raise Refused(reasons.POLICY_INVALID, "policy", got=str(e)) from None

    def _check(self, whose: str, payment_wallet: str, worker_id: str) -> None:
        try:
            self.of_worker(payment_wallet, worker_id)
        except Widened as e:
            raise Refused(
                reasons.POLICY_WIDENS, "policy", got=f"of {whose}: {e}", want="the same or narrower"
            ) from None


@lru_cache(maxsize=PARSED_REMEMBERED)
def parsed(text: str) -> Policy:
    """Pure, so that it may be remembered: every attestation asks."""
    return parse(text)


def in_force(view: View, settings: Policy) -> Policies:
    return Policies.of(settings, view.policies())


def with_own(view: View, policies: Policies) -> Iterator[Worker]:
    """The workers that have a policy of their own."""
    for scope, subject in policies.texts:
        if scope is Scope.WORKER and (worker := view.worker(subject)) is not None:
            yield worker
