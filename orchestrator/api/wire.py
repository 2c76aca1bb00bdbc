"""Bounds on what precedes a body: uvicorn's parser takes request line and headers of any length, for any time."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES_MAX = 64 << 10
HEAD_SECONDS_MAX = 20.0  # from the connection, or the head's first byte, to its end


class BoundedHttp(HttpToolsProtocol):
    """HTTP/1.1 by httptools; a head that is too long or too slow ends the connection."""

    _head_bytes = 0
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._deadline = self.loop.call_later(HEAD_SECONDS_MAX, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_of_head()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # The parser makes a scope where a head begins, and a cycle with it where the head ends.
        if self.cycle is not None and self.cycle.scope is self.scope:
            if self._deadline is not None:
                self._end_of_head()
            return
        if self.transport.is_closing():
            return
        self._head_bytes += len(data)
        if self._head_bytes > HEAD_BYTES_MAX:
            self.send_400_response("The head of the request is too long.")
        elif self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_SECONDS_MAX, self.transport.close)

    def _end_of_head(self) -> None:
        self._head_bytes = 0
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
