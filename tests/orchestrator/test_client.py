"""The client against servers that are good, away, hostile, or something else altogether."""

from datetime import UTC, datetime, timedelta

import pytest
import stamina
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from orchestrator import client as client_module
from orchestrator.client import GET_ATTEMPTS_MAX, Client, ServerRefused, Unreachable
from orchestrator.messages import Attest, ChallengeRequest, Purpose, RemoveWorker
from tests.orchestrator.served import served, served_world
from tests.orchestrator.world import IP, MODEL, World, endpoint


@pytest.fixture(autouse=True)
def _no_waiting():
    with stamina.set_testing(True, attempts=GET_ATTEMPTS_MAX, cap=True):
        yield


class Scripted:
    """A server that answers each request with the next of what it was given, the last one for ever."""

    def __init__(self, *answers):
        self._answers = list(answers)
        self.asked = []

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return
        self.asked.append(f"{scope['method']} {scope['path']}")
        status, body, *headers = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        for piece in body if isinstance(body, list) else [body]:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def asked_of(server, ask=lambda client: client.models(), **more):
    with served(server, lifespan="off") as url, Client(url, **more) as client:
        return ask(client)


MODELS = (200, b'{"models":["m"]}')


def test_answers_may_have_more_than_we_know():
    assert asked_of(Scripted((200, b'{"models":["m"],"new":1}'))).models == ("m",)


def test_nobody_is_there():
    with Client("http://127.0.0.1:1") as client, pytest.raises(Unreachable) as away:
        client.models()
    assert away.value.url == "http://127.0.0.1:1"
    assert "cannot be reached" in str(away.value)


@pytest.mark.parametrize(
    "url", ["", "o", "ftp://o", "http://", "http://u:p@o", "http://o?x=1", "http://o#x", "http://[::1", "/v1"]
)
def test_what_is_no_address(url):
    with pytest.raises(Unreachable):
        Client(url)


@pytest.mark.parametrize(
    "answer",
    [
        (200, b"<html>"),
        (200, b""),
        (200, b"[" * 100_000),
        (200, b'{"models":7}'),
        (200, b"null"),
        (204, b""),
        (302, b"", (b"location", b"http://127.0.0.1:1/")),
        (304, b""),
    ],
)
def test_what_does_not_answer_as_an_orchestrator(answer):
    server = Scripted(answer)
    with pytest.raises(Unreachable):
        asked_of(server)
    assert set(server.asked) == {"GET /v1/models"}  # no redirect was followed


@pytest.mark.parametrize(
    ("answer", "code", "fix"),
    [
        ((404, b"not here"), "http-404", ""),
        ((500, b""), "http-500", ""),
        ((403, b'{"type":7,"reasons":"x"}'), "7", ""),
        ((403, b'{"reasons":[1,{"fix":2}]}'), "http-403", "2"),
        (
            (403, b'{"type":"urn:workermanager:reason:not-owner","title":"t","reasons":[{"fix":"do"}]}'),
            "not-owner",
            "do",
        ),
    ],
)
def test_refusals_of_any_shape(answer, code, fix):
    with pytest.raises(ServerRefused) as refused:
        asked_of(Scripted(answer))
    assert (refused.value.status, refused.value.code, refused.value.fix) == (answer[0], code, fix)
    assert refused.value.title


def test_reads_are_tried_again():
    server = Scripted((503, b""), (502, b""), MODELS)
    assert asked_of(server).models == ("m",)
    assert len(server.asked) == GET_ATTEMPTS_MAX


def test_reads_are_not_tried_for_ever_and_refusals_not_again():
    server = Scripted((503, b""))
    with pytest.raises(ServerRefused):
        asked_of(server)
    assert len(server.asked) == GET_ATTEMPTS_MAX
    server = Scripted((404, b""))
    with pytest.raises(ServerRefused):
        asked_of(server)
    assert len(server.asked) == 1


def test_commands_are_sent_once():
    server = Scripted((503, b""))
    with pytest.raises(ServerRefused):
        asked_of(server, lambda client: client.challenge(ChallengeRequest(purpose=Purpose.REGISTER)))
    assert server.asked == ["POST /v1/challenges"]


def test_an_answer_that_never_ends_is_cut_off(monkeypatch):
    monkeypatch.setattr(client_module, "ANSWER_BYTES_MAX", 1000)
    with pytest.raises(Unreachable):
        asked_of(Scripted((200, [b" " * 400] * 5)))


def test_a_long_error_page_is_cut_off(monkeypatch):
    monkeypatch.setattr(client_module, "PROBLEM_BYTES_MAX", 1000)
    with pytest.raises(Unreachable):
        asked_of(Scripted((404, [b" " * 400] * 5)))


def test_a_path_prefix_is_kept_and_not_signed(tmp_path):
    """A proxy takes the prefix off; the signature is over what the orchestrator gets."""
    from orchestrator.app import create_app

    world = World.good(tmp_path)
    app = create_app(world.manager, world.table, clock=world.clock)

    async def proxy(scope, receive, send):
        if scope["type"] == "http":
            assert scope["path"].startswith("/prefix/v1/")
            path, raw = scope["path"].removeprefix("/prefix"), scope["raw_path"].removeprefix(b"/prefix")
            scope = {**scope, "path": path, "raw_path": raw}
        await app(scope, receive, send)

    with served(proxy) as url, Client(url + "/prefix/", worker_key=world.key, clock=world.clock) as client:
        assert client.urls(MODEL).urls[0].url == endpoint().url
        assert client.challenge(ChallengeRequest(purpose=Purpose.LIVELINESS, ip_address=IP)).ip_address == IP


def test_a_call_without_its_key_is_a_mistake_of_the_caller():
    with Client("http://127.0.0.1:1") as client:
        with pytest.raises(ValueError, match="worker key"):
            client.attest(IP, Attest(challenge="00" * 32, evidence=""))
        with pytest.raises(ValueError, match="wallet"):
            client.execute("remove_worker", RemoveWorker(ip_address=IP))
        with pytest.raises(ValueError, match="wallet"):
            client.workers()


def test_an_address_is_one_piece_of_the_path():
    server = Scripted((404, b""))
    with pytest.raises(ServerRefused):
        asked_of(server, lambda client: client.worker("../../livez?x=1#y"))
    assert server.asked == ["GET /v1/workers/../../livez?x=1#y"]  # decoded, so it went as one piece


def test_the_domain_is_asked_once(tmp_path):
    world = World.good(tmp_path)
    with served_world(world) as url, Client(url, wallet=world.owner, clock=world.clock) as client:
        first = client.about()
        assert client.about() is first
        assert first.domain == world.store.domain


# --- TLS --------------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for 127.0.0.1 that nobody trusts."""
    import ipaddress

    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    (folder / "cert.pem").write_bytes(made.public_bytes(Encoding.PEM))
    (folder / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return folder


def test_tls_is_verified_unless_the_root_is_named(certificate, monkeypatch):
    server = Scripted(MODELS)
    files = {"ssl_certfile": certificate / "cert.pem", "ssl_keyfile": certificate / "key.pem"}
    with served(server, lifespan="off", **files) as url:
        url = url.replace("http:", "https:")
        with Client(url) as client, pytest.raises(Unreachable):
            client.models()
        assert server.asked == []

        monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "cert.pem"))
        with Client(url) as client:
            assert client.models().models == ("m",)
