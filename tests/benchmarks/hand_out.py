"""
`GET /v1/urls?model=…&limit=5` with 100,000 workers, against a bare uvicorn route that returns the same bytes.

The routing table is filled through `publish`, 50 models over 100,000 workers; nothing is registered in the database,
which this path never reads. Both servers run all the time, each in one process of its own, and are measured in turn.
"""

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

WORKERS, MODELS, LIMIT = 100_000, 50, 5
ROUNDS, SECONDS, CONNECTIONS = 14, 1, 32
TARGET = 0.7
START_SECONDS_MAX = 60
PATH = f"/v1/urls?model=model-7&limit={LIMIT}"


def run() -> list[dict]:
    """The ratio of requests per second, median over the rounds."""
    if note := _without_wrk():
        return [_figure(None, note)]
    with ExitStack() as stack:
        ours = stack.enter_context(_Server("ours"))
        with urllib.request.urlopen(ours.url + PATH, timeout=20) as answer:
            body = answer.read()
        assert len(json.loads(body)["urls"]) == LIMIT
        bare = stack.enter_context(_Server("bare", body))
        for server in (ours, bare):  # warm
            _requests_per_second(server.url, 1)
        rounds = [
            (_requests_per_second(ours.url, SECONDS), _requests_per_second(bare.url, SECONDS)) for _ in range(ROUNDS)
        ]
    ratio = statistics.median(mine / theirs for mine, theirs in rounds)
    detail = f"wrk, {CONNECTIONS} connections, {len(body)} bytes; median of {ROUNDS} rounds of {SECONDS} s each"
    return [{**_figure(ratio, detail), "requests_per_second": [[round(rate) for rate in each] for each in rounds]}]


def _figure(ratio: float | None, detail: str) -> dict:
    return {
        "name": f"GET /v1/urls with {WORKERS:,} workers",
        "ratio": None if ratio is None else round(ratio, 3),
        "target": TARGET,
        "bound": "at least",
        "unit": "x of the requests per second of a bare uvicorn route with the same bytes",
        "holds": None if ratio is None else ratio >= TARGET,
        "detail": detail,
    }


def _without_wrk() -> str:
    """Why wrk cannot be had, or nothing. Installs it where it may."""
    if shutil.which("wrk"):
        return ""
    if os.geteuid() == 0 and shutil.which("apt-get"):
        subprocess.run(["apt-get", "install", "-y", "-q", "wrk"], check=False, capture_output=True, timeout=300)
    return "" if shutil.which("wrk") else "wrk is not here: install it with `apt-get install wrk`"


def _requests_per_second(url: str, seconds: int) -> float:
    done = subprocess.run(
        ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", url + PATH],
        check=True,
        capture_output=True,
        text=True,
        timeout=seconds + 30,
    )
    assert "Non-2xx" not in done.stdout, done.stdout
    found = re.search(r"Requests/sec:\s+([0-9.]+)", done.stdout)
    assert found, done.stdout
    return float(found.group(1))


class _Server:
    """A process that serves until it is told to stop."""

    def __init__(self, kind: str, body: bytes = b"") -> None:
        self._kind = kind
        self._body = body

    def __enter__(self) -> "_Server":
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.hand_out", self._kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._process.stdin.write(self._body)
        self._process.stdin.close()
        self.url = self._process.stdout.readline().decode().strip()
        assert self.url, "the server did not start"
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(timeout=20)
        self._process.stdout.close()


# --- within the processes ---------------------------------------------------------------------------------------------
def _serve(app: object, protocol: object = "httptools") -> None:
    import socket

    import uvicorn

    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        config = uvicorn.Config(app, loop="uvloop", http=protocol, ws="none", log_config=None, access_log=False)
        print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        uvicorn.Server(config).run(sockets=[listener])


def _bare(body: bytes) -> object:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]

    async def app(scope: dict, receive: object, send: object) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app


def _ours(folder: Path) -> object:
    from orchestrator.app import create_app
    from tests.orchestrator.world import World, verdict

    world = World(folder)
    now = datetime.now(UTC)
    _fill(world.table, now + timedelta(hours=1), verdict(now).model_dump(mode="json"))
    return create_app(world.manager, world.table, clock=lambda: datetime.now(UTC))


def _fill(table: object, not_after: datetime, whole: dict) -> None:
    from orchestrator.scheduler import Route

    told = {name: whole[name] for name in ("tier", "emulated", "revocation", "binding", "policy", "evidence_sha256")}
    for number in range(WORKERS):
        ip = f"9.{number >> 16}.{number >> 8 & 255}.{number & 255}"
        model, ends = f"model-{number % MODELS}", not_after + timedelta(milliseconds=number)
        table.publish(ip, (Route(f"https://{ip}:21434", model, ip, "h100.80g.x8.cc", "ab" * 32, ends, told),))


if __name__ == "__main__":
    _given = sys.stdin.buffer.read()
    if sys.argv[1] == "bare":
        _serve(_bare(_given))
    else:
        from orchestrator.api.wire import BoundedHttp

        with tempfile.TemporaryDirectory() as _folder:
            _serve(_ours(Path(_folder)), BoundedHttp)
