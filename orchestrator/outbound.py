"""
The way out: the one HTTP client for collateral, and the only module that knows httpcore.

It goes to addresses that the operator configured, and nowhere else. A name is resolved once, and the connection goes to
an address that was checked, so that a name which changes its mind between check and use gains nothing. There are no
redirects, no proxies of the environment, no cookies, no compression. One absolute deadline stands over name,
connection, headers and body together, and every body has a limit. A service that does not answer is left alone for a
while.
"""

from __future__ import annotations

import contextlib
import random
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from queue import Empty, SimpleQueue

import httpcore

from orchestrator.addresses import Ranges, canonical, check_allowed
from orchestrator.base_urls import Base
from orchestrator.reasons import Refused

DEADLINE_SECONDS = 10.0
ADDRESSES_MAX = 3  # of one name that are tried in turn
CONCURRENT_MAX = 4  # calls to one service at once; others wait in line, within their deadline
RESOLVING_MAX = 16  # names being looked up at once: the system's resolver cannot be interrupted
CHUNK_BYTES = 64 << 10
ALONE_SECONDS, ALONE_SECONDS_MAX = 30.0, 300.0  # how long a service is left alone: after its first failure, at most
RETRY_AFTER_SECONDS_MAX = 900.0  # where it says itself how long

_PATH = re.compile(r"/[\x21-\x7e]*")  # visible ASCII: nothing that could end a request line
_BUSY = frozenset({429, 503})
_ABSENT = frozenset({404, 410})

Resolve = Callable[[str, int], Sequence[str]]  # host, port -> addresses. OSError if there are none


class OutboundError(Exception):
    """No usable answer. The message says how it failed, for operators."""


class Absent(OutboundError):
    """The service answered: it has no such document."""


class Unavailable(OutboundError):
    """The service cannot be asked now. Everything else that was meant for it would fail, too."""


# --- calls and answers ------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Call:
    """One request. `path` begins with a slash, has its query, and is encoded already."""

    base: Base
    path: str
    answer_bytes_max: int
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def __post_init__(self) -> None:
        if not _PATH.fullmatch(self.path):
            raise ValueError(f"{self.path!r} is no path")


@dataclass(frozen=True, slots=True)
class Answer:
    """Status 200, or 304 where the call was conditional. Names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


# --- the client -------------------------------------------------------------------------------------------------------
class Deadline:
    """The moment until which everything must have happened, on a clock that only goes forward."""

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._end = clock() + seconds

    def left(self) -> float:
        """Seconds, more than none. httpcore.ReadTimeout when there are no more."""
        if (left := self._end - self._clock()) <= 0:
            raise httpcore.ReadTimeout("took too long")
        return left


def system_resolver(host: str, port: int) -> Sequence[str]:
    """What the system's resolver says, in its order."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(each[4][0]) for each in found))


class Outbound:
    """
    Calls services. Threads share it.

    `allowed` are ranges of the operator's that names may lead to although they are not public: a mirror of his own.
    """

    def __init__(
        self,
        *,
        allowed: Ranges = (),
        resolve: Resolve = system_resolver,
        context: ssl.SSLContext | None = None,
        deadline_seconds: float = DEADLINE_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._allowed = allowed
        self._resolve = _Resolver(resolve)
        self._given_context = context
        self._deadline_seconds = deadline_seconds
        self._monotonic = monotonic
        self._lines: dict[tuple[str, str, int], _Line] = {}
        self._lock = threading.Lock()

    def send(self, call: Call) -> Answer:
        """The answer with its whole body. Absent, Unavailable, or OutboundError for an answer that is none."""
        deadline = Deadline(self._deadline_seconds, self._monotonic)
        line = self._line(call.base)
        with line.turn(deadline):
            try:
                answer = self._exchange(call, deadline)
            except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError) as e:
                why = f"{call.base} {_told(e)}"
                line.fails(why)
                raise Unavailable(why) from e
            except _Busy as e:
                line.fails(str(e), e.seconds)
                raise Unavailable(str(e)) from e
            except OutboundError:
                line.answers()
                raise
            line.answers()
            return answer

    @cached_property
    def _context(self) -> ssl.SSLContext:
        return self._given_context or ssl.create_default_context()

    def _line(self, base: Base) -> _Line:
        with self._lock:
            return self._lines.setdefault(
                (base.scheme, base.host, base.port), _Line(base, self._monotonic, random.SystemRandom().random)
            )

    def _exchange(self, call: Call, deadline: Deadline) -> Answer:
        base = call.base
        host = f"[{base.host}]" if ":" in base.host else base.host
        headers = {
            "host": host if base.port == {"https": 443, "http": 80}[base.scheme] else f"{host}:{base.port}",
            "accept-encoding": "identity",
            "connection": "close",
            "user-agent": "workermanager",
            **call.headers,
        }
        if call.method != "GET":
            headers["content-length"] = str(len(call.body))
        url = httpcore.URL(
            scheme=base.scheme.encode(), host=host.encode(), port=base.port, target=(base.prefix + call.path).encode()
        )
        backend = _Pinned(self._resolve, self._allowed + base.allowed, deadline)
        context = self._context if base.scheme == "https" else None
        with (
            # A connection for each call: what it may last is the call's, and nothing is shared between names.
            httpcore.ConnectionPool(ssl_context=context, max_connections=1, network_backend=backend) as pool,
            pool.stream(call.method, url, headers=list(headers.items()), content=call.body or None) as response,
        ):
            return _read(call, response)


def _read(call: Call, response: httpcore.Response) -> Answer:
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
    status = response.status
    if status in _ABSENT:
        raise Absent(f"{call.base} has no {call.path}")
    if status in _BUSY:
        raise _Busy(f"{call.base} answers with status {status}", _seconds(headers.get("retry-after", "")))
    conditional = status == 304 and any(name.lower() == "if-none-match" for name in call.headers)
    if 300 <= status < 400 and not conditional:
        raise OutboundError(f"{call.base} answers with status {status}; redirects are not followed")
    if status != 200 and not conditional:
        raise OutboundError(f"{call.base} answers with status {status}")
    if headers.get("content-encoding", "identity").lower() not in ("identity", ""):
        raise OutboundError(f"{call.base} answers in {headers['content-encoding']}, which was not asked for")
    body = bytearray()
    for chunk in response.iter_stream():
        body += chunk
        if len(body) > call.answer_bytes_max:
            raise OutboundError(f"{call.base} answers with more than {call.answer_bytes_max} bytes")
    return Answer(status, headers, bytes(body))


class _Busy(OutboundError):
    def __init__(self, why: str, seconds: float | None) -> None:
        self.seconds = seconds
        super().__init__(why)


def _seconds(retry_after: str) -> float | None:
    """Retry-After in seconds, within our bounds; dates are not read."""
    return min(float(retry_after), RETRY_AFTER_SECONDS_MAX) if re.fullmatch(r"[0-9]{1,9}", retry_after) else None


def _told(error: Exception) -> str:
    if isinstance(error, httpcore.TimeoutException):
        return "did not answer in time"
    if isinstance(error, httpcore.ProtocolError):
        return f"does not speak HTTP ({error})"
    return f"cannot be reached ({error or 'connection lost'})"


# --- one service: who waits, and whether it is left alone -------------------------------------------------------------
class _Line:
    """The line in front of one service."""

    def __init__(self, base: Base, monotonic: Callable[[], float], jitter: Callable[[], float]) -> None:
        self._base, self._monotonic, self._jitter = base, monotonic, jitter
        self._places = threading.BoundedSemaphore(CONCURRENT_MAX)
        self._lock = threading.Lock()
        self._next_start = self._alone_until = monotonic()
        self._failures, self._why = 0, ""

    @contextlib.contextmanager
    def turn(self, deadline: Deadline) -> Iterator[None]:
        """Wait for a turn. Unavailable if the service is to be left alone, or the line is longer than the deadline."""
        self._check()
        crowded = OutboundError(f"{self._base}: too many calls are waiting for it")
        if not self._places.acquire(timeout=deadline.left()):
            raise crowded
        try:
            try:
                self._keep_pace(deadline)
            except (
                httpcore.TimeoutException
            ) as e:  # our time ran out while we waited, which says nothing of the service
                raise crowded from e
            self._check()  # what the one before us found out
            yield
        finally:
            self._places.release()

    def fails(self, why: str, seconds: float | None = None) -> None:
        with self._lock:
            self._failures += 1
            doubled = ALONE_SECONDS * 2 ** min(self._failures - 1, 10)
            wait = min(doubled, ALONE_SECONDS_MAX) if seconds is None else max(seconds, 1.0)
            self._alone_until, self._why = self._monotonic() + wait * (0.9 + 0.1 * self._jitter()), why

    def answers(self) -> None:
        with self._lock:
            self._failures, self._alone_until = 0, self._monotonic()

    def _check(self) -> None:
        with self._lock:
            if self._monotonic() < self._alone_until:
                raise Unavailable(f"{self._why}; left alone for a while")

    def _keep_pace(self, deadline: Deadline) -> None:
        with self._lock:
            start = max(self._monotonic(), self._next_start)
            wait = start - self._monotonic()
            if wait >= deadline.left():
                raise OutboundError(f"{self._base}: too many calls are waiting for it")
            self._next_start = start + self._base.pace_seconds
        if wait > 0:
            time.sleep(wait)


# --- names, addresses, connections ------------------------------------------------------------------------------------
class _Resolver:
    """Looks names up within a deadline, though the system's resolver knows none: in threads that may outlive it."""

    def __init__(self, resolve: Resolve) -> None:
        self._resolve = resolve
        self._places = threading.BoundedSemaphore(RESOLVING_MAX)

    def __call__(self, host: str, port: int, deadline: Deadline) -> Sequence[str]:
        found: SimpleQueue[Sequence[str] | Exception] = SimpleQueue()
        if not self._places.acquire(timeout=deadline.left()):
            raise httpcore.ConnectTimeout("too many names are being looked up")

        def look_up() -> None:
            try:
                found.put(self._resolve(host, port))
            except (OSError, UnicodeError) as e:
                found.put(e)
            finally:
                self._places.release()

        threading.Thread(target=look_up, name=f"resolve {host}", daemon=True).start()
        try:
            answer = found.get(timeout=deadline.left())
        except Empty:
            raise httpcore.ConnectTimeout(f"{host} was not resolved in time") from None
        if isinstance(answer, Exception):
            raise httpcore.ConnectError(f"{host} does not resolve: {answer}") from answer
        return answer


class _Pinned(httpcore.NetworkBackend):
    """Connects to addresses that it has checked, and lets nothing on the connection outlast the deadline."""

    def __init__(self, resolve: _Resolver, allowed: Ranges, deadline: Deadline) -> None:
        self._resolve, self._allowed, self._deadline = resolve, allowed, deadline
        self._below = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002 - the deadline counts
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        host = host.strip("[]")
        addresses = self._checked(host, [host] if _is_literal(host) else self._resolve(host, port, self._deadline))
        for left, address in zip(range(len(addresses) - 1, -1, -1), addresses, strict=True):
            try:
                share = self._deadline.left() / (left + 1)  # one address that is deaf must not cost the others' time
                stream = self._below.connect_tcp(address, port, share, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if not left:
                    raise
                continue
            return _Bounded(stream, self._deadline)
        raise httpcore.ConnectError(f"{host} leads to no address that we may go to")

    def _checked(self, host: str, found: Sequence[str]) -> list[str]:
        """The addresses that may be connected to, each in its one spelling."""
        good: list[str] = []
        for text in found:
            try:
                address = canonical(text)
                check_allowed(address, self._allowed)
            except Refused:
                continue
            good.append(address)
        if not good:
            shown = ", ".join(found[:ADDRESSES_MAX]) or "nothing"
            raise httpcore.ConnectError(f"{host} leads to {shown}, where collateral must not come from")
        return list(dict.fromkeys(good))[:ADDRESSES_MAX]


def _is_literal(host: str) -> bool:
    return ":" in host or host.rsplit(".", 1)[-1][:1].isdigit()


class _Bounded(httpcore.NetworkStream):
    """A connection on which every single wait ends at the deadline."""

    def __init__(self, below: httpcore.NetworkStream, deadline: Deadline) -> None:
        self._below, self._deadline = below, deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002 - the deadline counts
        return self._below.read(min(max_bytes, CHUNK_BYTES), self._deadline.left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002 - the deadline counts
        self._below.write(buffer, self._deadline.left())

    def close(self) -> None:
        self._below.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002 - the deadline counts
    ) -> httpcore.NetworkStream:
        return _Bounded(self._below.start_tls(ssl_context, server_hostname, self._deadline.left()), self._deadline)

    def get_extra_info(self, info: str) -> object:
        return self._below.get_extra_info(info)
