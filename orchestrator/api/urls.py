"""
The hand-out over HTTP: `GET /v1/urls` and `GET /v1/models`, as a plain ASGI callable in front of the framework.

The bytes come ready-made from the routing table; reading the query and asking the clock is all that is done here.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl

from orchestrator import reasons
from orchestrator.reasons import Refused
from orchestrator.scheduler import LIMIT_MAX, RoutingTable

URLS, MODELS = "/v1/urls", "/v1/models"
QUERY_BYTES_MAX = 4096
QUERY_FIELDS_MAX = 32
QUERIES_REMEMBERED_MAX = 1024
_JSON_HEADERS = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]


def parse_query(raw: bytes) -> tuple[str | None, int | None]:
    """
    `model` and `limit` of a query string as received; None where absent. Other fields are ignored: clients send some.

    Refused: field-invalid for a bad limit and for a field given twice, request-malformed beyond the bounds.
    """
    if len(raw) > QUERY_BYTES_MAX:
        raise Refused(reasons.REQUEST_MALFORMED, "query", f"{len(raw)} bytes", f"at most {QUERY_BYTES_MAX} bytes")
    try:
        fields = parse_qsl(raw.decode("latin-1"), keep_blank_values=True, max_num_fields=QUERY_FIELDS_MAX)
    except ValueError:
        raise Refused(reasons.REQUEST_MALFORMED, "query", want=f"at most {QUERY_FIELDS_MAX} fields") from None
    found: dict[str, str] = {}
    for name, value in fields:
        if name in found and name in ("model", "limit"):
            raise Refused(reasons.FIELD_INVALID, name, got="several", want="one")
        found[name] = value
    limit = found.get("limit")
    return found.get("model"), None if limit is None else _parse_limit(limit)


def _parse_limit(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) <= 9 and 1 <= int(text) <= LIMIT_MAX:
        return int(text)
    raise Refused(reasons.FIELD_INVALID, "limit", got=text, want=f"a whole number from 1 to {LIMIT_MAX}")


class HandOut:
    """What the two paths answer, as bytes."""

    def __init__(self, table: RoutingTable, clock: Callable[[], datetime]) -> None:
        self._table = table
        self._clock = clock
        self._parse = lru_cache(QUERIES_REMEMBERED_MAX)(parse_query)

    def answer(self, path: str, query: bytes) -> bytes:
        """The JSON for a path and query string. Refused as in `parse_query`."""
        if path == MODELS:
            return self._table.models_body(self._clock())
        model, limit = self._parse(query)
        return self._table.urls_body(model, limit, self._clock())


def start_of_json(body: bytes, request_id: bytes | None) -> dict[str, Any]:
    """How an answer with status 200 begins, in ASGI. A request id is given back; none is made for what nobody logs."""
    headers = [*_JSON_HEADERS, (b"content-length", b"%d" % len(body))]
    if request_id is not None:
        headers.append((b"x-request-id", request_id))
    return {"type": "http.response.start", "status": 200, "headers": headers}
