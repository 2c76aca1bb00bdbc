"""
The application: the hot paths in front, the framework behind its guard. `orchestrator.server` runs it.

    request -> Front -> /v1/urls, /v1/models: ready-made bytes
                     -> Guard (request id, bounds, log) -> FastAPI: everything else
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from importlib.metadata import version
from typing import Any

import structlog
from fastapi import FastAPI

from orchestrator import reasons
from orchestrator.api import openapi, problems, rest
from orchestrator.api.guard import Asgi, Guard, Receive, RequestIds, Scope, Send, given_id
from orchestrator.api.urls import MODELS, URLS, HandOut, start_of_json
from orchestrator.manager import WorkerManager
from orchestrator.reasons import Refused
from orchestrator.scheduler import RoutingTable

_HOT = frozenset((URLS, MODELS))
Clock = Callable[[], datetime]
Lifespan = Callable[[object], AbstractAsyncContextManager[None]]


def create_app(
    manager: WorkerManager,
    table: RoutingTable,
    *,
    clock: Clock,
    draining: threading.Event | None = None,
    lifespan: Lifespan | None = None,
) -> Asgi:
    """
    The ASGI application. `clock` tells the time in UTC; once `draining` is set, /readyz says 503; `lifespan` is entered
    before the first request and left after the last.
    """
    api = create_api()
    api.router.lifespan_context = lifespan or _no_lifespan
    api.state.manager = manager
    api.state.clock = clock
    api.state.hand_out = HandOut(table, clock)
    api.state.draining = (draining or threading.Event()).is_set
    request_ids = RequestIds()
    return _front(api.state.hand_out, Guard(api, request_ids), request_ids)


def create_api() -> FastAPI:
    """The routes alone: what documents are made of, and what `create_app` gives a manager."""
    api = FastAPI(
        title="WorkerManager orchestrator",
        description="Registry of Confidential GPU workers, each believed as far as its attestation evidence.",
        version=version("workermanager"),
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        separate_input_output_schemas=False,
        exception_handlers=problems.HANDLERS,
        telemetry={"tracing": False, "metrics": False, "logs": False, "operation_spans": False},
    )
    api.include_router(rest.router)
    api.include_router(rest.well_known)
    api.include_router(rest.health)
    return api


def openapi_document() -> dict[str, Any]:
    """The OpenAPI document of the API, as committed in docs/openapi.json."""
    return openapi.document(create_api())


def _front(hand_out: HandOut, guard: Guard, request_ids: RequestIds) -> Asgi:
    log = structlog.get_logger("orchestrator.api")

    async def front(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] not in _HOT or scope["method"] != "GET":
            await guard(scope, receive, send)
            return
        try:
            body = hand_out.answer(scope["path"], scope["query_string"])
        except Exception as error:
            request_id = request_ids.of(scope["headers"]).decode()
            if not isinstance(error, Refused):
                log.exception("bug", request_id=request_id, path=scope["path"])
                error = Refused(reasons.INTERNAL)
            answer = problems.response((error,), request_id)
            answer.headers["x-request-id"] = request_id
            await answer(scope, receive, send)
            return
        await send(start_of_json(body, given_id(scope["headers"])))
        await send({"type": "http.response.body", "body": body})

    return front


@asynccontextmanager
async def _no_lifespan(_: FastAPI) -> AsyncIterator[None]:
    yield
