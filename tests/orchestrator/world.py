"""
A small world to test the registry in: real store, real table, real signatures; clock and judge are handed in.

`World.good()` is a fleet of one worker that is handed out. Tests spoil one thing.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from attest import reasons as why
from attest.binding import PROFILE, UNBOUND, Binding, Presented, Strength
from attest.claims import Claims
from attest.ear import VerifierId
from attest.evidence import NVIDIA, Bundle, Evidence, Nonce, digest, dumps
from attest.policy import Policy, shipped
from attest.reasons import Fault, Reason
from attest.result import NODE, AttestationResult, Finding, Tier
from attest.result_key import ResultKey
from orchestrator.context import Rules
from orchestrator.manager import WorkerManager
from orchestrator.messages import (
    Alive,
    Attest,
    Attested,
    Challenge,
    ChallengeRequest,
    Endpoint,
    ModelWork,
    Purpose,
    ReportLiveliness,
    ReportWork,
    Signed,
    Verdict,
    WorkCounted,
    Worker,
)
from orchestrator.results import Issuer
from orchestrator.scheduler import RoutingTable
from orchestrator.store import ADMIN, Store
from orchestrator.verdicts import told
from orchestrator.wallets import Wallet, new_id
from orchestrator.worker_keys import WorkerKey

NOON = datetime(2026, 11, 18, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MICROSECOND = timedelta(microseconds=1)
LIFETIME = timedelta(minutes=10)
IP, OTHER_IP = "9.9.9.1", "9.9.9.2"
MODEL = "llama3.1:70b"
TLS = "ab" * 32
RESULT_KEY = ResultKey.generate()
EVIDENCE = dumps((Evidence(NVIDIA, b"a report", b"a chain"),)).decode()


def endpoint(ip: str = IP, model: str = MODEL) -> Endpoint:
    return Endpoint(model=model, url=f"https://{ip}:21434")


@dataclass
class Clock:
    now: datetime = NOON

    def __call__(self) -> datetime:
        return self.now

    def forward(self, by: timedelta) -> None:
        self.now += by


def result(
    now: datetime = NOON,
    *,
    tier: Tier = Tier.AFFIRMING,
    devices: tuple[str, ...] = ("gpu-1",),
    failed: tuple[Reason, ...] = (),
    lifetime: timedelta = LIFETIME,
    bundle: Bundle = (),
    nonce: Nonce | None = None,
    binding: Binding = UNBOUND,
) -> AttestationResult:
    """A forged verdict, as `attest` would conclude it. Its tier follows from what failed, unless it is told."""
    if failed:
        blameless = all(reason.fault is Fault.COLLATERAL for reason in failed)
        tier = Tier.NONE if blameless else Tier.CONTRAINDICATED
    return AttestationResult(
        tier=tier,
        findings=tuple(Finding(NODE, "holds", reason, False, "found", "wanted") for reason in failed),
        claims=tuple(Claims(NVIDIA, device, True, now + timedelta(days=1), {}, {}) for device in devices),
        emulated=True,
        revocation="not checked",
        freshness="nonce" if nonce else "not checked",
        binding=binding.profile,
        strength=binding.strength,
        cpu="absent",
        policy="lab",
        policy_sha256="00" * 32,
        evidence_sha256=digest(bundle),
        collateral={"driver RIM": "11" * 32},
        nonce=nonce.hex() if nonce else None,
        issued_at=now,
        expires_at=now + lifetime,
    )


def verdict(now: datetime = NOON, **changes: Any) -> Verdict:
    return told(result(now, **changes))


@dataclass
class ForgedJudge:
    """Concludes what it is told to. `meanwhile` is called while it judges."""

    devices: tuple[str, ...] = ("gpu-1",)
    failed: tuple[Reason, ...] = ()
    lifetime: timedelta = LIFETIME
    meanwhile: Callable[[], object] | None = None
    policy: Policy = field(default_factory=lambda: shipped("lab"))
    emulated_roots: bool = True
    nonces: list[Nonce | None] = field(default_factory=list)
    policies: list[Policy] = field(default_factory=list)

    def __call__(self, bundle: Bundle, nonce: Nonce | None, now: datetime, presented: Presented) -> AttestationResult:
        self.nonces.append(nonce)
        concluded = result(
            now,
            devices=self.devices,
            failed=self.failed,
            lifetime=self.lifetime,
            bundle=bundle,
            nonce=nonce,
            binding=Binding(PROFILE, Strength.NONCE) if presented.statement else UNBOUND,
        )
        if self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            meanwhile()
        return concluded

    def under(self, policy: Policy) -> ForgedJudge:
        """The same judge, whatever the policy; it notes by which it was asked."""
        self.policies.append(policy)
        return self

    def dislikes(self, *failed: Reason) -> None:
        self.failed = failed or (why.MEASUREMENTS_MISMATCH,)


@cache
def empty_database() -> bytes:
    """A store that was just made. To build the tables anew for every test takes longer than the test."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "registry.sqlite"
        Store(path).close()
        return path.read_bytes()


class World:
    def __init__(self, folder: Path, *, rules: Rules | None = None) -> None:
        self.path = folder / "registry.sqlite"
        self.path.write_bytes(empty_database())
        self.clock, self.judge, self.table = Clock(), ForgedJudge(), RoutingTable()
        self.store = Store(self.path)
        self.rules = rules or Rules()
        self.admin, self.owner, self.stranger = Wallet.generate(), Wallet.generate(), Wallet.generate()
        self.key = WorkerKey.generate()
        with self.store.transaction() as tx:
            tx.set_meta(ADMIN, self.admin.address)
        self.manager = self.another_manager(self.table)

    @classmethod
    def good(cls, folder: Path, *, rules: Rules | None = None) -> World:
        """One worker, registered, attested and alive."""
        world = cls(folder, rules=rules)
        world.register()
        world.attest()
        return world

    def another_manager(self, table: RoutingTable) -> WorkerManager:
        """A manager beside ours over the same store, or after it: a replica, or a restart."""
        return WorkerManager(
            self.store,
            table,
            self.judge,
            rules=self.rules,
            clock=self.clock,
            jitter=lambda: 0.5,
            issuer=Issuer(RESULT_KEY, VerifierId("workermanager", "test")),
        )

    # --- commands ---
    def sign(self, wallet: Wallet, command: str, message_id: str | None = None, /, **content: Any) -> Signed:
        expires = self.clock.now + timedelta(minutes=5)
        signed = wallet.sign_message(
            {command: content}, domain=self.store.domain, expires=expires, message_id=message_id or new_id()
        )
        return Signed.model_validate(signed)

    def execute(self, wallet: Wallet, command: str, /, **content: Any) -> Any:
        name, answer = self.manager.execute(self.sign(wallet, command, **content))
        assert name == command
        return answer

    def register(self, ip: str = IP, /, **changes: Any) -> Worker:
        content: dict[str, Any] = {
            "ip_address": ip,
            "payment_wallet": self.owner.address,
            "worker_type": "llama3.1:70b",
            "worker_key": self.key.public_hex,
        }
        answer = self.execute(self.admin, "register_worker", **{**content, **changes})
        assert isinstance(answer, Worker)
        return answer

    # --- the worker's calls ---
    def challenge(self, purpose: Purpose, ip: str = IP, *, key: WorkerKey | None = None) -> Challenge:
        request = ChallengeRequest(purpose=purpose, ip_address=ip)
        return self.manager.challenge(request, signer=(key or self.key).public_hex)

    def attest(self, ip: str = IP, *, key: WorkerKey | None = None, **changes: Any) -> Attested:
        key = key or self.key
        message = Attest(
            challenge=changes.pop("challenge", None) or self.challenge(Purpose.ATTEST, ip, key=key).challenge,
            evidence=changes.pop("evidence", EVIDENCE),
            endpoints=changes.pop("endpoints", (endpoint(ip),)),
            **changes,
        )
        return self.manager.attest(ip, message, signer=key.public_hex)

    def live(self, ip: str = IP, *, key: WorkerKey | None = None, **changes: Any) -> Alive:
        key = key or self.key
        challenge = changes.pop("challenge", None) or self.challenge(Purpose.LIVELINESS, ip, key=key).challenge
        message = ReportLiveliness(challenge=challenge, **changes)
        return self.manager.report_liveliness(ip, message, signer=key.public_hex)

    def work(self, begin: datetime, end: datetime, *, sequence: int = 1, **changes: Any) -> WorkCounted:
        report = replace_model(
            ReportWork(
                epoch=changes.pop("epoch") if "epoch" in changes else self.rules.epochs.at(begin),
                sequence=sequence,
                begin=begin,
                end=end,
                models=(ModelWork(model=MODEL, input_tokens=100, output_tokens=25),),
            ),
            **changes,
        )
        return self.manager.report_work(IP, report, signer=self.key.public_hex)

    # --- what came of it ---
    def worker(self, ip: str = IP) -> Worker:
        return self.manager.worker(ip)

    def urls(self, model: str | None = MODEL) -> list[str]:
        """What is handed out now."""
        body = json.loads(self.table.urls_body(model, None, self.clock.now))
        return [url["url"] for url in body["urls"]]

    def events(self) -> list[str]:
        with self.store.reading() as view:
            return [event["event"] for event in view.events()]

    def reasons_of(self, event: str) -> list[list[str]]:
        with self.store.reading() as view:
            return [each["reasons"] for each in view.events() if each["event"] == event]


def replace_model(model: ReportWork, **changes: Any) -> ReportWork:
    return ReportWork(**{**dict(model), **changes})
