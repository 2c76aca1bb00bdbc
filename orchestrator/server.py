"""
The running orchestrator: puts the parts together as the settings say, serves until it is told to stop, then drains.

The first SIGTERM or SIGINT turns /readyz to 503, waits `drain_seconds`, closes the port and finishes what runs; the
second one ends it at once.
"""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from types import FrameType

import uvicorn

from attest.anchors import Anchors
from attest.policy import POLICY_BYTES_MAX, SHIPPED, Policy, PolicyError, parse, shipped
from attest.verify import installed
from orchestrator import logs
from orchestrator.api.wire import BoundedHttp
from orchestrator.app import create_app
from orchestrator.broker import Broker
from orchestrator.manager import Rules, WorkerManager
from orchestrator.parts import anchors_of, broker_of, ranges_of, remote_of, store_of
from orchestrator.reasons import Refused
from orchestrator.results import Issuer
from orchestrator.scheduler import RoutingTable
from orchestrator.settings import Settings, SettingsError
from orchestrator.ticks import Ticks
from orchestrator.verdicts import VerifyingJudge
from orchestrator.work import Epochs

FINISH_SECONDS_MAX = 10  # for requests that still run when the port closes
BACKLOG = 2048
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def serve(settings: Settings, *, announce: Callable[[str, str], None]) -> None:
    """Run until told to stop. `announce` gets URL and policy once it takes requests. SettingsError says why not."""
    draining = threading.Event()
    with closing(store_of(settings)) as store, closing(_listen(settings.host, settings.port)) as listener:
        table = RoutingTable()
        anchors = anchors_of(settings)
        broker = broker_of(settings, store, anchors, _utc_now)
        manager = WorkerManager(
            store,
            table,
            _judge(settings, anchors, broker),
            rules=_rules(settings),
            clock=_utc_now,
            issuer=Issuer.of(settings.result_key_path, version("workermanager")),
        )
        _load(manager)
        url = _url_of(listener)
        logs.configure(settings.log_format)

        @asynccontextmanager
        async def lifespan(_: object) -> AsyncIterator[None]:
            async with Ticks.of(manager, broker).running():
                announce(url, manager.about().policy)
                yield

        app = create_app(manager, table, clock=_utc_now, draining=draining, lifespan=lifespan)
        config = uvicorn.Config(
            app,
            loop="uvloop",
            http=BoundedHttp,
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            backlog=BACKLOG,
            timeout_graceful_shutdown=FINISH_SECONDS_MAX,
        )
        _Server(config, draining, settings.drain_seconds).run(sockets=[listener])


def _utc_now() -> datetime:
    return datetime.now(UTC)


class _Server(uvicorn.Server):
    """Drains before it stops, and ends with status 0 when it was asked to."""

    def __init__(self, config: uvicorn.Config, draining: threading.Event, drain_seconds: float) -> None:
        super().__init__(config)
        self._draining = draining
        self._drain_seconds = drain_seconds
        self._drained_at: float | None = None

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {number: signal.signal(number, self.handle_exit) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 — uvicorn's signature
        if self._draining.is_set():
            self.should_exit = self.force_exit = True
        self._draining.set()
        self._drained_at = self._drained_at or time.monotonic() + self._drain_seconds

    async def on_tick(self, counter: int) -> bool:
        if self._drained_at is not None and time.monotonic() >= self._drained_at:
            self.should_exit = True
        return await super().on_tick(counter)


# --- parts, as the settings say ---------------------------------------------------------------------------------------
def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as e:
        why = e.strerror or str(e)
        raise SettingsError(f"cannot listen on {host} port {port} ({why}): choose by --host and --port") from e


def _url_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _judge(settings: Settings, anchors: Anchors, broker: Broker) -> VerifyingJudge:
    policy, emulated = _policy(settings.policy), settings.trust_root is not None
    return VerifyingJudge(installed(anchors), policy, broker, emulated, remote_of(settings, anchors, policy))


def _load(manager: WorkerManager) -> None:
    try:
        manager.load()
    except Refused as e:
        raise SettingsError(f"the policies in the registry do not fit --policy: {e}. {e.problem.fix}") from e


def _policy(name: str) -> Policy:
    try:
        if name in SHIPPED:
            return shipped(name)
        return parse(Path(name).read_bytes()[: POLICY_BYTES_MAX + 1].decode())
    except OSError:
        raise SettingsError(f"--policy {name}: want {', '.join(SHIPPED)} or a TOML file") from None
    except (PolicyError, UnicodeDecodeError) as e:
        raise SettingsError(f"--policy {name}: {e}") from e


def _rules(settings: Settings) -> Rules:
    return Rules(
        liveliness=timedelta(seconds=settings.liveliness_seconds),
        challenge_life=timedelta(seconds=settings.challenge_seconds),
        epochs=Epochs(settings.epoch_zero, timedelta(seconds=settings.epoch_seconds)),
        allowed_ranges=ranges_of(settings.allow_ranges, "--allow-range"),
        domain=settings.domain,
        admin_address=settings.admin_address,
    )
