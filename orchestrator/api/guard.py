"""
What stands around every route but the hot two: a request id, bodies within bounds, one log line a request, no leaks.

A body is taken in whole before a route sees it, and refused as soon as it is too long, whatever its headers promised.
"""

from __future__ import annotations

import itertools
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

import structlog

from orchestrator import reasons
from orchestrator.api import problems
from orchestrator.messages import BODY_BYTES_MAX
from orchestrator.reasons import Refused, printable

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]

HEALTH = ("/livez", "/readyz")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


def given_id(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """The client's own id of a request, if it has a plain one."""
    for name, value in headers:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return value
    return None


class RequestIds:
    """Ids of requests: the client's own, else one of ours, unique and cheap."""

    def __init__(self) -> None:
        self._prefix = secrets.token_hex(4).encode()
        self._next = itertools.count(1)

    def of(self, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
        return given_id(headers) or b"%b-%x" % (self._prefix, next(self._next))


class Guard:
    """ASGI middleware around the framework."""

    def __init__(self, inner: Asgi, request_ids: RequestIds) -> None:
        self._inner = inner
        self._request_ids = request_ids
        self._log = structlog.get_logger("orchestrator.api")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        request_id = self._request_ids.of(scope["headers"])
        scope.setdefault("state", {})["request_id"] = request_id.decode()
        watched, began = _Watched(send, request_id), time.monotonic()
        log = self._log.bind(request_id=request_id.decode(), method=scope["method"], path=printable(scope["path"]))
        try:
            body = await _whole_body(scope, receive)
            if body is None:
                return  # the client went away
            await self._inner(scope, _replay(body, receive), watched)
        except Refused as refused:
            await problems.response((refused,), request_id.decode())(scope, receive, watched)
        except Exception:  # the last line: told in the log, answered without a word about it
            log.exception("bug")
            if watched.status is None:
                await problems.response((Refused(reasons.INTERNAL),), request_id.decode())(scope, receive, watched)
        if scope["path"] not in HEALTH:
            log.info("request", status=watched.status, ms=round((time.monotonic() - began) * 1000, 1))


class _Watched:
    """Sends on, with the request id, and remembers the status."""

    def __init__(self, send: Send, request_id: bytes) -> None:
        self._send = send
        self._request_id = request_id
        self.status: int | None = None

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), (b"x-request-id", self._request_id)]
        await self._send(message)


async def _whole_body(scope: Scope, receive: Receive) -> bytes | None:
    """The body, or None if the client went away. Refused: body-too-large, before more than the bound is held."""
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and _exceeds(int(value[:20])):
            raise _too_large(value[:20].decode())
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if _exceeds(len(body)):
            raise _too_large(f"more than {BODY_BYTES_MAX}")
        if not message.get("more_body", False):
            return bytes(body)


def _exceeds(length: int) -> bool:
    return length > BODY_BYTES_MAX


def _too_large(got: str) -> Refused:
    return Refused(reasons.BODY_TOO_LARGE, "body", got=f"{got} bytes", want=f"at most {BODY_BYTES_MAX} bytes")


def _replay(body: bytes, receive: Receive) -> Receive:
    """Give the body in one piece, then whatever really comes: nothing, until the client goes away."""
    given = False

    async def replay() -> MutableMapping[str, Any]:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
