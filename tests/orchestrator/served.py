"""A real server on a real socket around a small world, and what tests ask of it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from orchestrator.api.wire import BoundedHttp
from orchestrator.app import create_app
from tests.orchestrator.world import World


@contextmanager
def served(app: Any, **config: Any) -> Iterator[str]:
    """Serve an ASGI application on loopback, on a port that is free. Gives the URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        settings = {"http": BoundedHttp, "ws": "none", "log_config": None, "access_log": False, **config}
        server = uvicorn.Server(uvicorn.Config(app, loop="uvloop", **settings))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(timeout=20)
            assert not thread.is_alive()


@contextmanager
def served_world(world: World, **more: Any) -> Iterator[str]:
    with served(create_app(world.manager, world.table, clock=world.clock, **more)) as url:
        yield url
