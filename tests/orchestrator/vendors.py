"""The vendors' services on loopback, in their formats, and every way in which they may fail."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp as x509_ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID

from attest import ocsp
from nodeprobe.emulator.pki import DIGITAL_SIGNATURE, Authority, Profile, end_name
from orchestrator.sources import Service

DAY = timedelta(days=1)
PATIENCE = 30.0


@dataclass
class Reply:
    """What a service answers; `headers` replace the ones that it would have."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Seen:
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


Handler = Callable[[Seen], Reply]


class Vendors:
    """A real HTTP server. `routes` maps paths (of OCSP: the name of the question) to what answers there."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.routes: dict[str, Handler | Reply] = {}
        self.seen: list[Seen] = []
        self.closing = threading.Event()
        self.raw: Callable[[BaseHTTPRequestHandler], None] | None = None  # instead of all that

    @property
    def urls(self) -> dict[Service, str]:
        return dict.fromkeys(Service, self.url)

    def answer(self, seen: Seen) -> Reply:
        self.seen.append(seen)
        name = seen.path
        if seen.headers.get("content-type") == "application/ocsp-request":
            asked = x509_ocsp.load_der_ocsp_request(seen.body)
            name = f"{asked.issuer_name_hash.hex()}:{asked.issuer_key_hash.hex()}:{asked.serial_number:x}"
        route = self.routes.get(name)
        if route is None:
            return Reply(b'{"message":"NOT_FOUND"}', 404)
        return route(seen) if callable(route) else route

    def count(self, path: str) -> int:
        return sum(seen.path == path for seen in self.seen)


@contextmanager
def serving(host: str = "127.0.0.1") -> Iterator[Vendors]:
    class Answering(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def _respond(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            if vendors.raw is not None:
                vendors.raw(self)
                return
            headers = {name.lower(): value for name, value in self.headers.items()}
            reply = vendors.answer(Seen(self.command, self.path, headers, body))
            self.send_response(reply.status)
            for name, value in ({"content-length": str(len(reply.body))} | dict(reply.headers)).items():
                self.send_header(name, value)
            self.end_headers()
            with suppress(OSError):  # who asked had enough
                self.wfile.write(reply.body)

        do_GET = do_POST = _respond  # noqa: N815

    class Server(ThreadingHTTPServer):
        daemon_threads = False
        block_on_close = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # clients hang up on purpose

    server = Server((host, 0), Answering)
    vendors = Vendors(f"http://{host}:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield vendors
    finally:
        vendors.closing.set()
        server.shutdown()
        server.server_close()
        thread.join(PATIENCE)


def closed_port() -> int:
    """A port of loopback at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


# --- what they say ----------------------------------------------------------------------------------------------------
def rim_answer(rim_id: str, document: bytes, **spoiled: Any) -> Reply:
    """As NVIDIA's RIM service wraps a document."""
    fields = {
        "id": rim_id,
        "rim": base64.b64encode(document).decode(),
        "sha256": hashlib.sha256(document).hexdigest(),
        "rim_format": "TCG_RIM",
        "request_id": "1",
    }
    etag = f'"{hashlib.sha256(document).hexdigest()[:8]}"'
    return Reply(json.dumps(fields | spoiled).encode(), headers={"etag": etag})


def responder_below(issuer: Authority, now: datetime) -> Authority:
    """Appointed by the issuer to answer for it."""
    profile = Profile(
        end_name("Emulated OCSP Responder"),
        now - DAY,
        now + 365 * DAY,
        DIGITAL_SIGNATURE,
        ca=None,
        extensions=(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING]),),
    )
    return issuer.below(profile)


def question_of(certificate: x509.Certificate, issuer: Authority) -> ocsp.Question:
    return ocsp.Question.about(certificate, issuer.certificate)


def ocsp_answer(
    name: str,
    responder: Authority,
    now: datetime,
    *,
    lasts: timedelta = DAY,
    begins: timedelta = timedelta(0),
    status: x509_ocsp.OCSPCertStatus = x509_ocsp.OCSPCertStatus.GOOD,
    algorithm: hashes.HashAlgorithm | None = None,
) -> bytes:
    """A DER response about the question of that name."""
    issuer_name, issuer_key, serial = name.split(":")
    begin = (now + begins).astimezone(UTC).replace(microsecond=0)
    revoked = status is x509_ocsp.OCSPCertStatus.REVOKED
    builder = x509_ocsp.OCSPResponseBuilder().add_response_by_hash(
        bytes.fromhex(issuer_name),
        bytes.fromhex(issuer_key),
        int(serial, 16),
        algorithm or hashes.SHA384(),
        status,
        begin,
        begin + lasts,
        begin if revoked else None,
        None,
    )
    builder = builder.responder_id(x509_ocsp.OCSPResponderEncoding.HASH, responder.certificate)
    response = builder.certificates([responder.certificate]).sign(responder.key, hashes.SHA384())
    return response.public_bytes(Encoding.DER)
