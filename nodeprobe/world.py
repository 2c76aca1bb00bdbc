"""All that an agent meets, as it is handed in: who it speaks for, the orchestrator, the devices, the clocks."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from random import Random
from typing import Any, Protocol

from attest.binding import Statement
from attest.evidence import Bundle
from nodeprobe.inference import Meters
from nodeprobe.telling import Tell
from nodeprobe.worklog import Epochs, WorkLog
from orchestrator.messages import (
    About,
    Alive,
    Attest,
    Attested,
    Challenge,
    ChallengeRequest,
    Endpoint,
    RegisterWorker,
    ReportLiveliness,
    ReportWork,
    WorkCounted,
    Worker,
)

Source = Callable[[Statement], Bundle]  # evidence of all devices, bound to what the node states


class Server(Protocol):
    """What the agent asks of an orchestrator: `orchestrator.client.Client` has it."""

    def about(self) -> About: ...
    def challenge(self, request: ChallengeRequest, /) -> Challenge: ...
    def attest(self, ip: str, message: Attest, /) -> Attested: ...
    def report_liveliness(self, ip: str, message: ReportLiveliness, /) -> Alive: ...
    def report_work(self, ip: str, message: ReportWork, /) -> WorkCounted: ...
    def worker(self, ip: str, /) -> Worker: ...
    def execute(self, command: str, message: RegisterWorker, /) -> dict[str, Any]: ...


class Inference(Protocol):
    """What the agent asks of the inference server: `nodeprobe.inference.InferenceServer` has it."""

    def models(self) -> tuple[str, ...]: ...
    def meters(self) -> Meters: ...


@dataclass(frozen=True, slots=True)
class Node:
    """Who the agent speaks for."""

    ip_address: str
    worker_key: str  # public, hex
    worker_type: str | None = None
    public_url: str | None = None  # where the inference server's models are served to users
    endpoints: tuple[Endpoint, ...] = ()  # given by the operator: they stand whatever the inference server says
    wallet: str | None = None  # with an admin's key in the client: register for this wallet if need be


@dataclass(frozen=True, slots=True)
class World:
    """All that is outside the agent."""

    server: Server
    evidence: Source
    tls_spki_sha256: Callable[[], str | None]
    inference: Inference | None
    save: Callable[[WorkLog], None]
    tell: Tell
    now: Callable[[], datetime]  # UTC, for what is told to others
    monotonic: Callable[[], float]  # seconds, for what is due
    wait: Callable[[float], bool]  # up to so many seconds; True when the agent shall stop
    random: Random


@dataclass(frozen=True, slots=True)
class Pace:
    """How often, in seconds. The orchestrator's own settings decide the rest."""

    work: float = 60.0
    attest_longest: float = math.inf  # attest at least so often
    retry_first: float = 0.5  # the orchestrator cannot be reached, or is busy
    retry_longest: float = 60.0
    refused_first: float = 2.0  # it refuses; somebody has to do something
    refused_longest: float = 30.0
    contraindicated_first: float = 30.0
    contraindicated_longest: float = 900.0


@dataclass(frozen=True, slots=True)
class Terms:
    """What the orchestrator says of itself, as far as the agent needs it."""

    liveliness_seconds: float
    epochs: Epochs
