"""
Every error of the API as problem details (RFC 9457), with the reason codes of `orchestrator.reasons`.

What went wrong inside is for the log, under the request id; the answer never tells.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from orchestrator import reasons
from orchestrator.reasons import Refused

PROBLEM_JSON = "application/problem+json"
TYPE_PREFIX = "urn:workermanager:reason:"
REASONS_MAX = 16
RETRY_AFTER_SECONDS = {429: 10, 503: 2}
_BY_STATUS = {404: reasons.NOT_FOUND, 405: reasons.METHOD_NOT_ALLOWED}


class ProblemReason(BaseModel):
    """One reason of a refusal, by a stable code."""

    code: str
    field: str
    got: str
    want: str
    fix: str


class ProblemDetails(BaseModel):
    """The body of every error."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    reasons: tuple[ProblemReason, ...]


class Unreadable(Exception):
    """A request that does not parse or has fields that are not valid: one refusal for each, the first decides."""

    def __init__(self, refusals: tuple[Refused, ...]) -> None:
        self.refusals = refusals
        super().__init__(*refusals)


def unreadable(error: ValidationError | RequestValidationError, where: tuple[str, ...] = ()) -> Unreadable:
    """What pydantic found wrong, field by field. A text that is no JSON has no fields."""
    found = []
    for each in error.errors()[:REASONS_MAX]:
        if each["type"] == "json_invalid":
            return Unreadable((Refused(reasons.REQUEST_MALFORMED, got=str(each["msg"]), want="JSON"),))
        path = ".".join(str(part) for part in each["loc"] if part not in where)
        got = each.get("input")
        shown = json.dumps(got)[: reasons.SHOWN_CHARS_MAX + 1] if isinstance(got, str | int | float | None) else ""
        found.append(Refused(reasons.FIELD_INVALID, path or "body", got=shown, want=str(each["msg"])))
    return Unreadable(tuple(found))


def document(refusals: tuple[Refused, ...], request_id: str) -> ProblemDetails:
    """Problem details of at least one refusal; the first decides type, title and status."""
    first = refusals[0]
    said = [
        f"{name} {value}" for name, value in (("field", first.field), ("got", first.got), ("want", first.want)) if value
    ]
    return ProblemDetails(
        type=TYPE_PREFIX + first.problem.code,
        title=first.problem.title,
        status=first.problem.status,
        detail=", ".join(said) or first.problem.fix,
        instance=request_id,
        reasons=tuple(
            ProblemReason(code=r.problem.code, field=r.field, got=r.got, want=r.want, fix=r.problem.fix)
            for r in refusals[:REASONS_MAX]
        ),
    )


def response(refusals: tuple[Refused, ...], request_id: str, headers: Mapping[str, str] | None = None) -> Response:
    """The answer to a refused request. It can be sent by Starlette or as plain ASGI."""
    status = refusals[0].problem.status
    more = dict(headers or {})
    more["cache-control"] = "no-store"
    if status in RETRY_AFTER_SECONDS:
        more["retry-after"] = str(RETRY_AFTER_SECONDS[status])
    if status == 401:
        more["www-authenticate"] = 'Signature realm="workermanager"'
    body = document(refusals, request_id).model_dump_json()
    return Response(body, status, more, PROBLEM_JSON)


def request_id_of(request: Request) -> str:
    return str(getattr(request.state, "request_id", ""))


async def _on_refused(request: Request, error: Exception) -> Response:
    if isinstance(error, Unreadable):
        return response(error.refusals, request_id_of(request))
    if not isinstance(error, Refused):
        raise error
    because: tuple[Refused, ...] = getattr(error, "because", ())  # of evidence: the verifier's own reasons
    return response((error, *because), request_id_of(request))


async def _on_invalid(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    return response(unreadable(error, ("query", "path", "body")).refusals, request_id_of(request))


async def _on_http(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    problem = _BY_STATUS.get(error.status_code, reasons.REQUEST_MALFORMED)
    got = f"{request.method} {request.url.path}"
    return response((Refused(problem, got=got),), request_id_of(request), error.headers)


async def _on_bug(request: Request, _: Exception) -> Response:
    return response((Refused(reasons.INTERNAL),), request_id_of(request))


HANDLERS: dict[int | type[Exception], Any] = {
    Refused: _on_refused,
    Unreadable: _on_refused,
    RequestValidationError: _on_invalid,
    HTTPException: _on_http,
    Exception: _on_bug,
}
