"""
A small server with the face of an inference server, for emulated nodes: it answers an echo, and counts tokens.

`/v1/models` and `/v1/chat/completions` as OpenAI has them, `/metrics` by the names of vLLM. It serves TLS with a
certificate of its own that is made at start and thrown away, or plain http. A token is a word.
"""

from __future__ import annotations

import hashlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

BODY_BYTES_MAX = 1 << 20
REQUEST_SECONDS_MAX = 10.0
LIFETIME = timedelta(days=7)
ECHO_CHARS_MAX = 2000


class Certificate(NamedTuple):
    """A throw-away certificate on disk, key and certificate in one PEM file (0600)."""

    path: Path
    spki_sha256: str  # of its public key, lower hex


def make_certificate(path: Path, ip: str, *, now: datetime) -> Certificate:
    """Make a self-signed certificate for an address; an older file is replaced. Raises OSError."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "emulated inference server")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(ip))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(private + certificate.public_bytes(Encoding.PEM))
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return Certificate(path, hashlib.sha256(spki).hexdigest())


class Counters:
    """Tokens and requests, counted from any thread."""

    def __init__(self, models: Iterable[str]) -> None:
        self._lock = threading.Lock()
        self._tokens = {model: [0, 0] for model in models}
        self._running = 0
        self._started = time.time()

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(self._tokens)

    def begin(self) -> None:
        with self._lock:
            self._running += 1

    def end(self) -> None:
        with self._lock:
            self._running -= 1

    def count(self, model: str, tokens_in: int, tokens_out: int) -> None:
        with self._lock:
            self._tokens[model][0] += tokens_in
            self._tokens[model][1] += tokens_out

    def exposition(self) -> str:
        """The counters as a Prometheus text, by the names of vLLM."""
        with self._lock:
            tokens = {model: tuple(each) for model, each in self._tokens.items()}
            running = self._running
        lines = [f"process_start_time_seconds {self._started}"]
        for name, index in (("vllm:prompt_tokens_total", 0), ("vllm:generation_tokens_total", 1)):
            lines.append(f"# TYPE {name.removesuffix('_total')} counter")
            lines += [f"{name}{{{_labels(model)}}} {float(each[index])}" for model, each in tokens.items()]
        first = next(iter(tokens), "")
        for name, value in (("vllm:num_requests_running", running), ("vllm:num_requests_waiting", 0)):
            lines += [f"# TYPE {name} gauge", f"{name}{{{_labels(first)}}} {float(value)}"]
        return "\n".join(lines) + "\n"


class InferenceFace:
    """The server, in a thread of its own. A context manager; `port` 0 takes any that is free."""

    def __init__(
        self, models: Iterable[str], ip: str, port: int = 0, *, certificate: Certificate | None = None
    ) -> None:
        self.counters = Counters(models)
        self._server = _Server((ip, port), _handler(self.counters), certificate)
        host = f"[{ip}]" if ":" in ip else ip
        self.url = f"http{'s' if certificate else ''}://{host}:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="inference", daemon=True)

    def __enter__(self) -> InferenceFace:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a client that keeps its connection does not keep the node

    def __init__(
        self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler], certificate: Certificate | None
    ) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, handler)
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.load_cert_chain(certificate.path)
            # The handshake is the handler's: here, one slow client would hold up all others.
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that breaks off, or speaks no TLS, is nothing to print a traceback for."""


def _handler(counters: Counters) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = REQUEST_SECONDS_MAX
        server_version = "emulated-inference"

        def do_GET(self) -> None:
            if self.path == "/v1/models":
                self._answer(HTTPStatus.OK, _model_list(counters.models))
            elif self.path == "/metrics":
                self._send(HTTPStatus.OK, "text/plain; version=0.0.4", counters.exposition().encode())
            elif self.path == "/health":
                self._send(HTTPStatus.OK, "text/plain", b"")
            else:
                self._answer(HTTPStatus.NOT_FOUND, _error("there is nothing here; try /v1/models"))

        def do_POST(self) -> None:
            if self.path != "/v1/chat/completions":
                self._answer(HTTPStatus.NOT_FOUND, _error("there is nothing here; try /v1/chat/completions"))
                return
            length = self.headers.get("Content-Length", "")
            if not length.isascii() or not length.isdigit() or len(length) > 8 or int(length) > BODY_BYTES_MAX:
                self.close_connection = True  # the body is left unread
                self._answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, _error(f"send at most {BODY_BYTES_MAX} bytes"))
                return
            counters.begin()
            try:
                self._answer(*_complete(counters, self.rfile.read(int(length))))
            finally:
                counters.end()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in http.server
            """Requests are not logged: the agent's lines are what is read."""

        def _answer(self, status: HTTPStatus, document: dict[str, Any]) -> None:
            self._send(status, "application/json", json.dumps(document).encode())

        def _send(self, status: HTTPStatus, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler


def _complete(counters: Counters, body: bytes) -> tuple[HTTPStatus, dict[str, Any]]:
    """Echo the last message."""
    try:
        request = json.loads(body)
        model, content = request["model"], request["messages"][-1]["content"]
        words = [len(str(message["content"]).split()) for message in request["messages"]]
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        return HTTPStatus.BAD_REQUEST, _error("send JSON with model, and messages with content")
    if not isinstance(model, str) or model not in counters.models:
        return HTTPStatus.NOT_FOUND, _error(f"the model is not served here; there are: {', '.join(counters.models)}")
    if request.get("stream"):
        return HTTPStatus.BAD_REQUEST, _error("this emulated server does not stream")
    reply = f"(emulated) You said: {str(content)[:ECHO_CHARS_MAX]}"
    tokens_in, tokens_out = sum(words), len(reply.split())
    counters.count(model, tokens_in, tokens_out)
    return HTTPStatus.OK, {
        "id": f"chatcmpl-{time.time_ns():x}",
        "object": "chat.completion",
        "created": int(datetime.now(UTC).timestamp()),
        "model": model,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": reply}, "finish_reason": "stop"}],
        "usage": {
            "prompt_tokens": tokens_in,
            "completion_tokens": tokens_out,
            "total_tokens": tokens_in + tokens_out,
        },
    }


def _model_list(models: tuple[str, ...]) -> dict[str, Any]:
    return {
        "object": "list",
        "data": [{"id": model, "object": "model", "created": 0, "owned_by": "emulator"} for model in models],
    }


def _error(text: str) -> dict[str, Any]:
    return {"error": {"message": text, "type": "invalid_request_error"}}


def _labels(model: str) -> str:
    escaped = model.replace("\\", r"\\").replace('"', r"\"")
    return f'engine="0",model_name="{escaped}"'
