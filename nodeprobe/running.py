"""What an agent's process needs around it: its key and state on disk, signals, and where this machine is."""

from __future__ import annotations

import fcntl
import hashlib
import os
import select
import signal
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from random import SystemRandom
from types import FrameType
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from stamina.instrumentation import set_on_retry_hooks

from attest.keyfiles import KeyFileError
from nodeprobe.problems import Problem, ProblemError
from nodeprobe.telling import Tell
from nodeprobe.worklog import Memory
from nodeprobe.world import Inference, Source, World
from orchestrator.client import Client, Unreachable
from orchestrator.wallets import Wallet
from orchestrator.worker_keys import WorkerKey

KEY_FILE, LOG_FILE, LOCK_FILE = "worker.key", "work.json", "lock"
CERTIFICATE_BYTES_MAX = 64 << 10
DRAIN_SECONDS = 15.0
PORT_OF = {"http": 80, "https": 443}


def default_state_dir(environment: Mapping[str, str]) -> Path:
    """$NODEPROBE_STATE, else $XDG_STATE_HOME/nodeprobe, else ~/.local/state/nodeprobe."""
    if chosen := environment.get("NODEPROBE_STATE"):
        return Path(chosen)
    if xdg := environment.get("XDG_STATE_HOME"):
        return Path(xdg) / "nodeprobe"
    return Path.home() / ".local" / "state" / "nodeprobe"


class State:
    """
    An agent's folder, held by one process at a time; a context manager. The worker's key is made in it, and never
    leaves. Raises ProblemError where the folder cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(path / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as e:
            raise ProblemError(
                Problem("state-unusable", f"The folder {path} cannot be used ({e.strerror}).", "Name another: --state.")
            ) from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise ProblemError(
                Problem("state-in-use", f"Another agent runs with {path}.", "Stop it, or name another: --state.")
            ) from None

    def key(self) -> WorkerKey:
        """The worker's key, made now unless it is there."""
        path = self.path / KEY_FILE
        try:
            if not path.exists():
                WorkerKey.generate().save(path)
            return WorkerKey.load(path)
        except KeyFileError as e:
            raise ProblemError(Problem("key-unusable", f"{e}.", "Without its key, nobody knows this worker.")) from None

    def __enter__(self) -> State:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._lock)


class Stop:
    """
    Waits, and ends waiting when the process is told to stop. A context manager that holds SIGTERM and SIGINT.

    The first signal asks; what is being done then may take `limit_seconds` more. The second one ends at once.
    """

    def __init__(self, limit_seconds: float = DRAIN_SECONDS) -> None:
        self._limit_seconds = limit_seconds
        self._asked = False
        # A pipe, since locks must not be taken in a signal handler.
        self._read, self._write = os.pipe()

    def __enter__(self) -> Stop:
        self._before = {each: signal.signal(each, self._handle) for each in (signal.SIGTERM, signal.SIGINT)}
        self._before[signal.SIGALRM] = signal.signal(signal.SIGALRM, _too_late)
        return self

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._read)
        os.close(self._write)

    def wait(self, seconds: float) -> bool:
        """Sleep; True, and at once, when the process shall stop."""
        return bool(select.select([self._read], [], [], max(0.0, seconds))[0])

    def _handle(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - signal's signature
        if self._asked:
            os._exit(128 + number)
        self._asked = True
        signal.setitimer(signal.ITIMER_REAL, self._limit_seconds)
        os.write(self._write, b"!")


def _too_late(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - signal's signature
    """Nothing is lost by it: work that was not reported is on disk."""
    os.write(2, b"nodeprobe: not all could be told in time; leaving.\n")
    os._exit(0)


def source_address(server_url: str) -> str:
    """
    The address from which this machine reaches the server; nothing is sent. ProblemError if there is no way.

    Behind address translation it is not the worker's public address, so `--ip` can say better.
    """
    try:
        parts = urlsplit(server_url)
        host, port = parts.hostname or "", parts.port or PORT_OF.get(parts.scheme, 443)
        for family, kind, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM):
            with socket.socket(family, kind) as probe:
                probe.connect(address)
                return str(probe.getsockname()[0])
    except (OSError, ValueError, UnicodeError):
        pass
    what = f"No way from this machine to {server_url} was found, so its address is not known."
    raise ProblemError(Problem("no-route", what, "Check --server, or give the worker's address with --ip."))


def spki_sha256(path: Path) -> str:
    """SHA-256 of the public key (SubjectPublicKeyInfo) of the first certificate in a PEM file, lower hex."""
    try:
        with path.open("rb") as file:
            data = file.read(CERTIFICATE_BYTES_MAX)
        certificate = x509.load_pem_x509_certificate(data)
        spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (OSError, ValueError) as e:
        what = f"{path} cannot be read as a certificate ({e})."
        fix = "Name the PEM file of the certificate that the endpoints serve: --tls-certificate."
        raise ProblemError(Problem("certificate-unusable", what, fix)) from None
    return hashlib.sha256(spki).hexdigest()


def trusting(certificate: Path | None) -> ssl.SSLContext:
    """TLS to the inference server: system trust, or exactly the certificate that it is known to serve."""
    if certificate is None:
        return ssl.create_default_context()
    context = ssl.create_default_context(cafile=str(certificate))
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.check_hostname = False  # the certificate itself is pinned; loopback is not among its names
    return context


def real_world(
    opened: ExitStack,
    state: State,
    *,
    server: str,
    ip: str,
    admin_key: Path | None,
    evidence: Source,
    tls_spki_sha256: Callable[[], str | None],
    inference: Inference | None,
    tell: Tell,
    wait: Callable[[float], bool],
) -> tuple[World, Memory]:
    """A world with a real orchestrator, real clocks and the state on disk; `opened` closes it. Raises ProblemError."""
    set_on_retry_hooks([])  # by itself, stamina prints on stdout, which is ours
    try:
        wallet = None if admin_key is None else Wallet.load(admin_key)
        client = opened.enter_context(Client(server, worker_key=state.key(), wallet=wallet))
    except KeyFileError as e:
        raise ProblemError(Problem("key-unusable", f"{e}.", "Name the admin's key file: --admin-key.")) from None
    except Unreachable as e:
        raise ProblemError(Problem("server-address", f"{e}.", "Check --server.")) from None
    memory = Memory(state.path / LOG_FILE, server=server, ip_address=ip)
    world = World(
        server=client,
        evidence=evidence,
        tls_spki_sha256=tls_spki_sha256,
        inference=inference,
        save=memory.save,
        tell=tell,
        now=lambda: datetime.now(UTC),
        monotonic=time.monotonic,
        wait=wait,
        random=SystemRandom(),
    )
    return world, memory
