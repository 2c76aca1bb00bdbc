"""The way out: real sockets on loopback; names are resolved as the test says."""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import outbound
from orchestrator.addresses import parse_ranges
from orchestrator.base_urls import Base
from orchestrator.outbound import Absent, Call, Outbound, OutboundError, Unavailable
from tests.orchestrator.vendors import PATIENCE, Reply, Vendors, closed_port, serving

LOOPBACK = parse_ranges(["127.0.0.0/8"])
QUICK = 0.5  # seconds; what is to time out, times out soon


@pytest.fixture
def vendors() -> Iterator[Vendors]:
    with serving() as vendors:
        yield vendors


class Hands:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def call(base: str, path: str = "/doc", most: int = 1000, **more: object) -> Call:
    return Call(Base.parse(base), path, most, **more)  # type: ignore[arg-type]


def why(send: Outbound, asked: Call, kind: type[OutboundError] = OutboundError) -> str:
    with pytest.raises(kind) as raised:
        send.send(asked)
    return str(raised.value)


# --- base URLs --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("https://rim.example.com", "https://rim.example.com:443"),
        ("https://RIM.example.com/", "https://rim.example.com:443"),
        ("https://mirror.example.com:8443/nvidia/rim", "https://mirror.example.com:8443/nvidia/rim"),
        ("https://8.8.8.8", "https://8.8.8.8:443"),
        ("https://10.0.0.7:444", "https://10.0.0.7:444"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://192.168.1.2/x", "http://192.168.1.2:80/x"),
        ("http://[::1]:81", "http://[::1]:81"),
        ("https://[::ffff:10.0.0.7]", "https://10.0.0.7:443"),
        ("https://[fd00::7]", "https://[fd00::7]:443"),
    ],
)
def test_bases(url: str, told: str) -> None:
    assert str(Base.parse(url)) == told


@pytest.mark.parametrize(
    "url",
    [
        "",
        "rim.example.com",
        "ftp://rim.example.com",
        "http://rim.example.com",  # plain http to a name, or to anybody
        "http://localhost",
        "http://8.8.8.8",
        "https://",
        "https://user@rim.example.com",
        "https://rim.example.com:0",
        "https://rim.example.com:65536",
        "https://rim.example.com?x=1",
        "https://rim.example.com/#x",
        "https://rim.example.com/../x",
        "https://rim.example.com/%2e",
        "https://rim_.example.com",
        "https://-rim.example.com",
        "https://rim..example.com",
        "https://rïm.example.com",
        "https://2130706433",  # 127.0.0.1 to some
        "https://0177.0.0.1",
        "https://127.1",
        "https://0x7f.1",
        "https://[fe80::1%25eth0]",
        "https://169.254.169.254",  # whoever configured it, it is not a mirror
        "https://[fd00:ec2::254]",
        "https://0.0.0.0",
        "https://224.0.0.1",
        "https://rim.example.com\n",
        "https://" + "a" * 600,
    ],
)
def test_what_is_no_base(url: str) -> None:
    with pytest.raises(ValueError, match=r"want|no DNS name"):
        Base.parse(url)


@given(st.text(max_size=60))
def test_any_text_is_a_base_or_a_value_error(text: str) -> None:
    for url in (text, f"https://{text}"):
        with contextlib.suppress(ValueError):
            assert Base.parse(url).host


@pytest.mark.parametrize("path", ["", "doc", "/a b", "/a\r\nx: y", "/ä", "/a\x00"])
def test_paths_that_are_none(path: str) -> None:
    with pytest.raises(ValueError, match="no path"):
        call("https://rim.example.com", path)


# --- answers ----------------------------------------------------------------------------------------------------------
def test_a_document_is_fetched(vendors: Vendors) -> None:
    vendors.routes["/nv/doc?a=1"] = Reply(b"document", headers={"ETag": '"1"'})
    answer = Outbound().send(call(vendors.url + "/nv", "/doc?a=1"))
    assert (answer.status, answer.body, answer.headers["etag"]) == (200, b"document", '"1"')
    (seen,) = vendors.seen
    assert seen.headers["accept-encoding"] == "identity"
    assert seen.headers["host"] == vendors.url.removeprefix("http://")
    assert "cookie" not in seen.headers


def test_a_question_is_posted(vendors: Vendors) -> None:
    seen: list[bytes] = []
    vendors.answer = lambda each: (seen.append(each.body), Reply(b"answer"))[1]  # type: ignore[method-assign]
    asked = call(vendors.url, "/", method="POST", body=b"question", headers={"content-type": "x/y"})
    assert Outbound().send(asked).body == b"answer"
    assert seen == [b"question"]


def test_not_modified_counts_only_where_it_was_asked(vendors: Vendors) -> None:
    vendors.routes["/doc"] = Reply(status=304)
    assert Outbound().send(call(vendors.url, headers={"if-none-match": '"1"'})).status == 304
    assert "304" in why(Outbound(), call(vendors.url))


@pytest.mark.parametrize("status", [404, 410])
def test_what_is_not_there_is_absent(vendors: Vendors, status: int) -> None:
    vendors.routes["/doc"] = Reply(status=status)
    send = Outbound()
    why(send, call(vendors.url), Absent)
    vendors.routes["/doc"] = Reply(b"document")
    assert send.send(call(vendors.url)).body == b"document"  # an absent document is no outage


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(vendors: Vendors, status: int) -> None:
    vendors.routes["/doc"] = Reply(status=status, headers={"location": "http://169.254.169.254/latest/meta-data/"})
    vendors.routes["/elsewhere"] = Reply(b"document")
    assert "redirects are not followed" in why(Outbound(), call(vendors.url))
    vendors.routes["/doc"] = Reply(status=status, headers={"location": "/elsewhere"})
    assert "redirects are not followed" in why(Outbound(), call(vendors.url))
    assert vendors.count("/elsewhere") == 0


@pytest.mark.parametrize("status", [201, 204, 206, 400, 403, 500, 502])
def test_other_statuses_are_no_answer_and_no_outage(vendors: Vendors, status: int) -> None:
    vendors.routes["/doc"] = Reply(status=status)
    send = Outbound()
    assert str(status) in why(send, call(vendors.url))
    vendors.routes["/doc"] = Reply(b"document")
    assert send.send(call(vendors.url)).body == b"document"


def test_a_body_has_a_limit(vendors: Vendors) -> None:
    vendors.routes["/doc"] = Reply(bytes(1000))
    assert len(Outbound().send(call(vendors.url, most=1000)).body) == 1000
    assert "more than 999 bytes" in why(Outbound(), call(vendors.url, most=999))


def test_an_endless_body_is_cut(vendors: Vendors) -> None:
    def pour(handler: object) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")  # type: ignore[attr-defined]
        while not vendors.closing.is_set():
            handler.wfile.write(b"10000\r\n" + bytes(0x10000) + b"\r\n")  # type: ignore[attr-defined]

    vendors.raw = pour  # type: ignore[assignment]
    assert "more than 100000 bytes" in why(Outbound(), call(vendors.url, most=100_000))


def test_endless_headers_are_cut(vendors: Vendors) -> None:
    def pour(handler: object) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")  # type: ignore[attr-defined]
        while not vendors.closing.is_set():
            handler.wfile.write(b"x: " + b"a" * 60_000)  # type: ignore[attr-defined]

    vendors.raw = pour  # type: ignore[assignment]
    assert "does not speak HTTP" in why(Outbound(), call(vendors.url), Unavailable)


def test_compression_is_refused(vendors: Vendors) -> None:
    vendors.routes["/doc"] = Reply(b"\x1f\x8b...", headers={"content-encoding": "gzip"})
    assert "gzip" in why(Outbound(), call(vendors.url))


@pytest.mark.parametrize(
    ("beginning", "drop"),
    [
        (b"", b""),
        (b"HTTP/1.1 200 ", b"K"),
        (b"HTTP/1.1 200 OK\r\n", b"x: y\r\n"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
    ids=["silence", "a line without end", "headers", "body", "chunks", "interim answers"],
)
def test_one_deadline_stands_over_all_that_drips(vendors: Vendors, beginning: bytes, drop: bytes) -> None:
    def drip(handler: object) -> None:
        handler.wfile.write(beginning)  # type: ignore[attr-defined]
        while not vendors.closing.wait(0.02):
            handler.wfile.write(drop)  # type: ignore[attr-defined]

    vendors.raw = drip  # type: ignore[assignment]
    began = outbound.time.monotonic()
    assert "in time" in why(Outbound(deadline_seconds=QUICK), call(vendors.url), Unavailable)
    assert outbound.time.monotonic() - began < 10 * QUICK


def test_one_that_hangs_up_or_speaks_something_else(vendors: Vendors) -> None:
    vendors.raw = lambda handler: handler.connection.close()
    why(Outbound(), call(vendors.url), Unavailable)
    vendors.raw = lambda handler: handler.wfile.write(b"SSH-2.0-OpenSSH\r\n\r\n") and None
    why(Outbound(), call(vendors.url), Unavailable)


def test_proxies_of_the_environment_are_not_asked(vendors: Vendors, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port()}")
    vendors.routes["/doc"] = Reply(b"document")
    assert Outbound().send(call(vendors.url)).body == b"document"


# --- names and addresses ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.0.1",
        "169.254.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "100.100.100.200",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "192.0.2.1",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "fe80::1",
        "fe80::1%eth0",
        "fd00::1",
        "fd00:ec2::254",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "nonsense",
        "",
    ],
)
def test_names_that_lead_inside_are_refused(address: str) -> None:
    send = Outbound(resolve=lambda host, port: [address])
    assert "must not come from" in why(send, call("https://rim.example.com"), Unavailable)


def test_a_mirror_range_allows_its_addresses_and_never_metadata() -> None:
    ranges = parse_ranges(["127.0.0.0/8", "169.254.0.0/16"])
    refused = Outbound(allowed=ranges, resolve=lambda host, port: ["169.254.169.254"])
    assert "must not come from" in why(refused, call("https://rim.example.com"), Unavailable)
    allowed = Outbound(allowed=ranges, resolve=lambda host, port: ["127.0.0.1"])
    told = why(allowed, call(f"https://rim.example.com:{closed_port()}"), Unavailable)
    assert "must not come from" not in told


def test_a_name_that_resolves_to_nothing_or_too_late() -> None:
    def fails(host: str, port: int) -> list[str]:
        raise socket.gaierror(-2, "Name or service not known")

    late = threading.Event()

    def hangs(host: str, port: int) -> list[str]:
        late.wait(PATIENCE)
        return ["8.8.8.8"]

    assert "does not resolve" in why(Outbound(resolve=fails), call("https://rim.example.com"), Unavailable)
    assert "must not" in why(Outbound(resolve=lambda h, p: []), call("https://rim.example.com"), Unavailable)
    told = why(Outbound(resolve=hangs, deadline_seconds=0.1), call("https://rim.example.com"), Unavailable)
    late.set()
    assert "in time" in told


class Tls:
    """A server certificate for `rim.example.com`, and who trusts it."""

    def __init__(self, folder: Path) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a test")])
        now = dt.datetime.now(dt.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(1)
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(
                x509.SubjectAlternativeName(
                    [x509.DNSName("rim.example.com"), x509.IPAddress(ipaddress.ip_address("127.0.0.9"))]
                ),
                critical=False,
            )
            .add_extension(x509.BasicConstraints(True, None), critical=True)
            .sign(key, hashes.SHA256())
        )
        path = folder / "tls.pem"
        pem = certificate.public_bytes(Encoding.PEM)
        path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + pem)
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.server.load_cert_chain(path)
        self.client = ssl.create_default_context(cadata=pem.decode())
        self.names: list[str | None] = []
        self.server.sni_callback = lambda _socket, name, _context: self.names.append(name)


def serve_one(tls: Tls, body: bytes = b"document") -> tuple[threading.Thread, int]:
    """A TLS server for one connection, which may come to nothing."""
    listener = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        with listener:
            listener.settimeout(PATIENCE)
            raw, _ = listener.accept()
            with raw:
                raw.settimeout(PATIENCE)
                try:
                    with tls.server.wrap_socket(raw, server_side=True) as connection:
                        connection.recv(65536)
                        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
                except OSError:
                    pass

    thread = threading.Thread(target=run)
    thread.start()
    return thread, listener.getsockname()[1]


def test_a_name_is_resolved_once_and_its_certificate_checked_at_that_address(tmp_path: Path) -> None:
    """A name that flips between check and use gains nothing: nobody asks it twice."""
    tls = Tls(tmp_path)
    asked: list[str] = []

    def flips(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["169.254.169.254"]

    thread, port = serve_one(tls)
    send = Outbound(allowed=LOOPBACK, resolve=flips, context=tls.client)
    assert send.send(call(f"https://rim.example.com:{port}")).body == b"document"
    assert (asked, tls.names) == (["rim.example.com"], ["rim.example.com"])
    assert "must not come from" in why(send, call(f"https://rim.example.com:{port}"), Unavailable)
    thread.join(PATIENCE)


@pytest.mark.parametrize("host", ["ocsp.example.com", "127.0.0.1"])
def test_a_certificate_for_another_name_is_refused(tmp_path: Path, host: str) -> None:
    tls = Tls(tmp_path)
    thread, port = serve_one(tls)
    send = Outbound(allowed=LOOPBACK, resolve=lambda host, port: ["127.0.0.1"], context=tls.client)
    assert "CERTIFICATE_VERIFY_FAILED" in why(send, call(f"https://{host}:{port}"), Unavailable)
    thread.join(PATIENCE)


def test_an_unknown_root_is_refused(tmp_path: Path) -> None:
    tls = Tls(tmp_path)
    thread, port = serve_one(tls)
    send = Outbound(allowed=LOOPBACK, resolve=lambda host, port: ["127.0.0.1"])
    assert "CERTIFICATE_VERIFY_FAILED" in why(send, call(f"https://rim.example.com:{port}"), Unavailable)
    thread.join(PATIENCE)


def test_of_several_addresses_those_that_may_be_are_tried_in_turn(tmp_path: Path) -> None:
    tls = Tls(tmp_path)
    thread, port = serve_one(tls)
    addresses = ["169.254.169.254", "127.0.0.77", "127.0.0.1"]  # nobody listens at the second
    send = Outbound(allowed=LOOPBACK, resolve=lambda host, port: addresses, context=tls.client)
    assert send.send(call(f"https://rim.example.com:{port}")).body == b"document"
    thread.join(PATIENCE)


# --- services that fail -----------------------------------------------------------------------------------------------
def test_a_service_that_fails_is_left_alone_longer_and_longer(vendors: Vendors) -> None:
    hands = Hands()
    send = Outbound(monotonic=hands)
    gone = f"http://127.0.0.1:{closed_port()}"
    vendors.routes["/doc"] = Reply(b"document")
    for seconds in (30, 60, 120, 240, 300, 300):
        assert "left alone" not in why(send, call(gone), Unavailable)
        hands.now += 0.89 * seconds
        assert "left alone" in why(send, call(gone, "/other"), Unavailable)
        assert send.send(call(vendors.url)).body == b"document"  # others do not suffer
        hands.now += 0.12 * seconds


def test_a_service_that_answers_again_is_asked_as_before(vendors: Vendors) -> None:
    hands = Hands()
    send = Outbound(monotonic=hands)
    vendors.routes["/doc"] = Reply(status=503)
    why(send, call(vendors.url), Unavailable)
    assert "left alone" in why(send, call(vendors.url), Unavailable)
    hands.now += outbound.ALONE_SECONDS + 1
    vendors.routes["/doc"] = Reply(b"document")
    assert send.send(call(vendors.url)).body == b"document"
    assert send.send(call(vendors.url)).body == b"document"
    assert vendors.count("/doc") == 3


@pytest.mark.parametrize(("said", "seconds"), [("120", 120), ("999999", 900), ("0", 1), ("soon", 30), ("", 30)])
def test_a_busy_service_says_how_long(vendors: Vendors, said: str, seconds: int) -> None:
    hands = Hands()
    send = Outbound(monotonic=hands)
    vendors.routes["/doc"] = Reply(status=429, headers={"retry-after": said})
    why(send, call(vendors.url), Unavailable)
    hands.now += 0.85 * seconds
    assert "left alone" in why(send, call(vendors.url), Unavailable)
    hands.now += 0.2 * seconds
    assert "left alone" not in why(send, call(vendors.url), Unavailable)


def test_a_pace_is_kept_and_a_line_that_is_too_long_is_said_so(vendors: Vendors) -> None:
    vendors.routes["/doc"] = Reply(b"document")
    base = Base.parse(vendors.url, pace_seconds=0.05)
    send = Outbound()
    began = outbound.time.monotonic()
    for _ in range(3):
        send.send(Call(base, "/doc", 1000))
    assert outbound.time.monotonic() - began >= 0.1
    slow = Base.parse(vendors.url, pace_seconds=60)
    send = Outbound(deadline_seconds=QUICK)
    send.send(Call(slow, "/doc", 1000))
    assert "too many calls" in why(send, Call(slow, "/doc", 1000))


def test_no_more_than_so_many_calls_at_once(vendors: Vendors) -> None:
    running, most, go_on, lock = [0], [0], threading.Event(), threading.Lock()
    full = threading.Semaphore(0)

    def answer(_seen: object) -> Reply:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        full.release()
        go_on.wait(PATIENCE)
        with lock:
            running[0] -= 1
        return Reply(b"document")

    vendors.routes["/doc"] = answer
    send = Outbound(deadline_seconds=PATIENCE)
    got: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: got.append(send.send(call(vendors.url)).body))
        for _ in range(3 * outbound.CONCURRENT_MAX)
    ]
    for thread in threads:
        thread.start()
    for _ in range(outbound.CONCURRENT_MAX):
        assert full.acquire(timeout=PATIENCE)
    go_on.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(got) == len(threads)
    assert most[0] == outbound.CONCURRENT_MAX
