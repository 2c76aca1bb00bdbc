"""The API over a real socket, with the real manager on a real database: who may what, and how it refuses."""

import asyncio
import contextlib
import json
import select
import socket
import threading
from contextlib import closing
from datetime import timedelta
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from orchestrator.api.guard import RequestIds
from orchestrator.api.urls import QUERY_BYTES_MAX, HandOut, parse_query
from orchestrator.api.wire import HEAD_BYTES_MAX
from orchestrator.app import create_api, openapi_document
from orchestrator.client import Client, ServerRefused
from orchestrator.messages import (
    BODY_BYTES_MAX,
    COMMANDS,
    Attest,
    ChallengeRequest,
    Evict,
    ModelWork,
    Purpose,
    RegisterWorker,
    RemoveWorker,
    ReportLiveliness,
    ReportWork,
    SetWorkerAddress,
    SetWorkerWallet,
)
from orchestrator.reasons import CATALOGUE, Refused
from orchestrator.worker_keys import WorkerKey, sign_request
from tests.orchestrator.served import served_world
from tests.orchestrator.world import EVIDENCE, IP, MODEL, OTHER_IP, World, endpoint

# Every route, and what proves who asks. A new route without an entry here fails `test_every_route_asks_for_its_proof`.
PROOFS = {
    ("GET", "/livez"): "open",
    ("GET", "/readyz"): "open",
    ("GET", "/v1/about"): "open",
    ("GET", "/v1/models"): "open",
    ("GET", "/v1/urls"): "open",
    ("GET", "/.well-known/jwks.json"): "open",
    ("GET", "/v1/workers/{ip}"): "open",
    ("GET", "/v1/workers/{ip}/result"): "open",
    ("GET", "/v1/policies"): "subscriber",
    ("GET", "/v1/workers"): "subscriber",
    ("GET", "/v1/work/payouts"): "subscriber",
    ("POST", "/v1/challenges"): "worker, for two purposes",
    ("POST", "/v1/execute"): "wallet",
    ("POST", "/v1/preflight"): "a challenge, which anyone gets",
    ("POST", "/v1/policy/preview"): "subscriber",
    ("POST", "/v1/workers/{ip}/attest"): "worker",
    ("POST", "/v1/workers/{ip}/liveliness"): "worker",
    ("POST", "/v1/workers/{ip}/work"): "worker",
}


@pytest.fixture
def world(tmp_path):
    return World.good(tmp_path)


@pytest.fixture
def url(world):
    with served_world(world) as url:
        yield url


@pytest.fixture
def http(url):
    with httpx.Client(base_url=url) as http:
        yield http


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """A world that tests look at and do not change; a request by one is none of another's business."""
    with served_world(World.good(tmp_path_factory.mktemp("seen"))) as url, httpx.Client(base_url=url) as http:
        yield http


def client(world, url, *, key=None, wallet=None):
    return Client(url, worker_key=key, wallet=wallet, clock=world.clock)


def problem(response, status, code):
    """That a response is problem details with this status and code; the document."""
    assert response.headers["content-type"] == "application/problem+json"
    document = response.json()
    assert (response.status_code, document["status"], document["type"]) == (
        status,
        status,
        f"urn:workermanager:reason:{code}",
    )
    assert document["instance"] == response.headers["x-request-id"]
    assert document["title"]
    assert document["reasons"][0]["code"] == code
    assert document["reasons"][0]["fix"]
    return document


def signed(world, http, path, body, *, key=None, method="POST", at=None):
    """A request signed by a worker's key."""
    raw = body if isinstance(body, bytes) else body.model_dump_json(exclude_none=True).encode()
    headers = sign_request(key or world.key, method, path, raw, now=at or world.clock.now)
    return http.request(method, path, content=raw, headers=headers)


# --- the main job, by our own client ----------------------------------------------------------------------------------
def test_from_registration_to_url_and_out_again(tmp_path):
    world = World(tmp_path)
    with (
        served_world(world) as url,
        client(world, url, wallet=world.admin) as admin,
        client(world, url, key=world.key) as node,
        client(world, url, wallet=world.owner) as owner,
    ):
        registered = admin.execute(
            "register_worker",
            RegisterWorker(
                ip_address=IP,
                payment_wallet=world.owner.address,
                worker_type="1xH100",
                worker_key=world.key.public_hex,
            ),
        )
        assert (registered["ip_address"], registered["routable"]) == (IP, False)
        assert node.urls(MODEL).urls == ()

        asked = node.challenge(ChallengeRequest(purpose=Purpose.ATTEST, ip_address=IP))
        attested = node.attest(IP, Attest(challenge=asked.challenge, evidence=EVIDENCE, endpoints=(endpoint(),)))
        assert (attested.verdict.tier, attested.worker.routable) == ("affirming", True)
        assert [each.url for each in node.urls(MODEL, 5).urls] == [endpoint().url]
        assert node.models().models == (MODEL,)
        assert node.urls("another model").urls == ()

        asked = node.challenge(ChallengeRequest(purpose=Purpose.LIVELINESS, ip_address=IP))
        alive = node.report_liveliness(IP, ReportLiveliness(challenge=asked.challenge))
        assert alive.routable
        alive = node.report_liveliness(IP, ReportLiveliness(challenge=alive.challenge.challenge))
        assert alive.routable

        begin = world.clock.now
        world.clock.forward(timedelta(seconds=30))
        report = ReportWork(
            epoch=world.rules.epochs.at(begin),
            sequence=1,
            begin=begin,
            end=world.clock.now,
            models=(ModelWork(model=MODEL, input_tokens=10, output_tokens=5),),
        )
        assert node.report_work(IP, report).work == 30
        (payout,) = admin.payouts(report.epoch).payouts
        assert (payout.payment_wallet, payout.work, payout.share) == (world.owner.address, 30, "1")

        public = owner.worker(IP)
        assert (public.routable, public.payment_wallet, public.endpoints) == (True, "", ())
        (whole,) = admin.workers().workers
        assert (whole.payment_wallet, whole.endpoints) == (world.owner.address, (endpoint(),))

        assert owner.execute("remove_worker", RemoveWorker(ip_address=IP))["ip_address"] == IP
        assert node.urls().urls == ()
        with pytest.raises(ServerRefused) as refused:
            owner.worker(IP)
        assert (refused.value.status, refused.value.code) == (404, "worker-unknown")


def test_registering_answers_201_and_other_commands_200(world, http):
    signed_by_admin = world.sign(
        world.admin,
        "register_worker",
        ip_address=OTHER_IP,
        payment_wallet=world.owner.address,
        worker_type="1xH100",
    )
    answer = http.post("/v1/execute", content=signed_by_admin.model_dump_json())
    assert (answer.status_code, answer.json()["register_worker"]["ip_address"]) == (201, OTHER_IP)

    cordoned = world.sign(world.admin, "cordon", ip_address=IP, reason="to see")
    answer = http.post("/v1/execute", content=cordoned.model_dump_json())
    assert (answer.status_code, answer.json()["cordon"]["service"]) == (200, "cordoned")


# --- who may what -----------------------------------------------------------------------------------------------------
def routes():
    return {(method.upper(), path) for path, operations in openapi_document()["paths"].items() for method in operations}


def test_every_route_asks_for_its_proof(world, http):
    assert routes() == PROOFS.keys()
    for (method, path), proof in PROOFS.items():
        answer = http.request(method, path.replace("{ip}", IP), content=b"{}" if method == "POST" else b"")
        if proof == "worker" or proof == "subscriber":
            assert problem(answer, 401, "signature-missing")
            assert "www-authenticate" in answer.headers
        elif proof == "open":
            assert answer.status_code == 200, path
        else:
            assert answer.status_code in (401, 422), path


@pytest.mark.parametrize("purpose", ["attest", "liveliness"])
def test_a_worker_asks_for_challenges_by_its_key_only(world, http, purpose):
    request = ChallengeRequest(purpose=purpose, ip_address=IP)
    unsigned = http.post("/v1/challenges", content=request.model_dump_json(exclude_none=True))
    problem(unsigned, 401, "signature-missing")

    foreign = signed(world, http, "/v1/challenges", request, key=WorkerKey.generate())
    problem(foreign, 401, "worker-key-mismatch")

    assert signed(world, http, "/v1/challenges", request).status_code == 201


@pytest.mark.parametrize("path", ["attest", "liveliness", "work"])
def test_a_worker_is_not_another(world, http, path):
    body = {
        "attest": Attest(challenge="00" * 32, evidence=EVIDENCE),
        "liveliness": ReportLiveliness(challenge="00" * 32),
        "work": ReportWork(
            epoch=world.rules.epochs.at(world.clock.now),
            sequence=1,
            begin=world.clock.now - timedelta(seconds=1),
            end=world.clock.now,
            models=(),
        ),
    }[path]
    answer = signed(world, http, f"/v1/workers/{IP}/{path}", body, key=WorkerKey.generate())
    problem(answer, 401, "worker-key-mismatch")
    problem(signed(world, http, f"/v1/workers/{OTHER_IP}/{path}", body), 404, "worker-unknown")


def test_a_signature_is_of_this_body_this_path_and_this_minute(world, http):
    path, body = f"/v1/workers/{IP}/liveliness", ReportLiveliness(challenge="00" * 32)
    raw = body.model_dump_json(exclude_none=True).encode()
    headers = sign_request(world.key, "POST", path, raw, now=world.clock.now)

    problem(http.post(path, content=raw, headers=headers), 409, "challenge-unknown")  # it holds; the challenge does not
    problem(http.post(path, content=raw + b" ", headers=headers), 401, "signature-invalid")
    problem(http.post(f"/v1/workers/{OTHER_IP}/liveliness", content=raw, headers=headers), 401, "signature-invalid")
    problem(http.post(path + "?x=1", content=raw, headers=headers), 401, "signature-invalid")
    late = signed(world, http, path, body, at=world.clock.now - timedelta(minutes=2))
    problem(late, 401, "signature-expired")


def test_an_unsigned_body_is_not_even_read(world, http):
    answer = http.post(f"/v1/workers/{IP}/attest", content=b"no json")
    problem(answer, 401, "signature-missing")


@pytest.mark.parametrize(
    ("command", "message", "status", "code"),
    [
        ("set_worker_wallet", SetWorkerWallet(ip_address=IP, payment_wallet="secret1x" + "q" * 37), 403, "not-owner"),
        ("set_worker_address", SetWorkerAddress(old_ip_address=IP, new_ip_address=OTHER_IP), 403, "not-owner"),
        ("remove_worker", RemoveWorker(ip_address=IP), 403, "not-owner"),
        ("remove_worker", RemoveWorker(ip_address=OTHER_IP), 404, "worker-unknown"),
        ("evict", Evict(ip_address=IP, reason="to see"), 403, "not-admin"),
    ],
)
def test_a_stranger_may_not(world, url, command, message, status, code):
    with client(world, url, wallet=world.stranger) as stranger, pytest.raises(ServerRefused) as refused:
        stranger.execute(command, message)
    assert (refused.value.status, refused.value.code) == (status, code)
    assert refused.value.fix
    assert world.urls() == [endpoint().url]


def test_an_address_that_is_taken(world, url):
    world.register(OTHER_IP, worker_key=WorkerKey.generate().public_hex)
    with client(world, url, wallet=world.owner) as owner, pytest.raises(ServerRefused) as refused:
        owner.execute("set_worker_address", SetWorkerAddress(old_ip_address=IP, new_ip_address=OTHER_IP))
    assert (refused.value.status, refused.value.code) == (409, "address-taken")


def test_a_command_counts_once(world, http):
    body = world.sign(world.admin, "cordon", ip_address=IP, reason="once").model_dump_json()
    assert http.post("/v1/execute", content=body).status_code == 200
    problem(http.post("/v1/execute", content=body), 409, "message-replayed")


def test_subscribers_only(world, url, http):
    with client(world, url, wallet=world.stranger) as stranger, pytest.raises(ServerRefused) as refused:
        stranger.workers()
    assert (refused.value.status, refused.value.code) == (403, "not-subscriber")

    deployed = {
        "subscriber_public_key": world.admin.public_hex,
        "signature": world.admin.get_workers_signature(),
    }
    problem(http.get("/v1/workers", params=deployed), 403, "not-subscriber")  # replayable: not for the admin

    world.execute(world.admin, "add_subscriber", public_key=world.stranger.public_hex, name="router")
    deployed = {
        "subscriber_public_key": world.stranger.public_hex,
        "signature": world.stranger.get_workers_signature(),
        "unknown": "field",
    }
    assert http.get("/v1/workers", params=deployed).json()["workers"][0]["ip_address"] == IP
    wrong = {**deployed, "signature": world.admin.get_workers_signature()}
    problem(http.get("/v1/workers", params=wrong), 401, "signature-invalid")


def test_evidence_that_cannot_be_read_names_the_reason_of_the_verifier(world, http):
    asked = world.challenge(Purpose.ATTEST)
    body = Attest(challenge=asked.challenge, evidence="no container")
    document = problem(signed(world, http, f"/v1/workers/{IP}/attest", body), 422, "evidence-refused")
    assert document["reasons"][1]["code"].startswith("evidence-")


# --- the hand-out -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("", 1),
        (f"model={MODEL}", 1),
        ("model=llama3.1%3A70b", 1),
        ("model=%6Clama3.1:70b&limit=1000", 1),
        ("model=llama3.1:70b&unknown=1&unknown=2&%ff=%ff", 1),
        ("limit=%31", 1),
        ("model=", 0),
        ("model=other", 0),
        ("model=%ff%fe", 0),
        ("model=a+b", 0),
    ],
)
def test_queries_of_the_hand_out(seen, query, count):
    answer = seen.get(f"/v1/urls?{query}")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    assert len(answer.json()["urls"]) == count


@pytest.mark.parametrize(
    ("query", "status", "code", "field"),
    [
        ("limit=0", 422, "field-invalid", "limit"),
        ("limit=1001", 422, "field-invalid", "limit"),
        ("limit=-1", 422, "field-invalid", "limit"),
        ("limit=", 422, "field-invalid", "limit"),
        ("limit=1.0", 422, "field-invalid", "limit"),
        ("limit=%D9%A3", 422, "field-invalid", "limit"),  # a digit, but no ASCII
        ("limit=" + "9" * 50, 422, "field-invalid", "limit"),
        ("limit=1&limit=2", 422, "field-invalid", "limit"),
        ("model=a&model=b", 422, "field-invalid", "model"),
        ("x=" + "y" * QUERY_BYTES_MAX, 400, "request-malformed", "query"),
        ("&".join(f"a{i}=1" for i in range(40)), 400, "request-malformed", "query"),
    ],
)
def test_bad_queries_of_the_hand_out(seen, query, status, code, field):
    document = problem(seen.get(f"/v1/urls?{query}"), status, code)
    assert document["reasons"][0]["field"] == field


@pytest.mark.parametrize("path", ["/v1/urls", "/v1/models"])
@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "DELETE", "OPTIONS"])
def test_the_hand_out_is_for_get_only(seen, path, method):
    answer = seen.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET")
    if method != "HEAD":
        problem(answer, 405, "method-not-allowed")


def test_the_framework_alone_answers_the_same(world):
    """The fast path in front is faster, and nothing else."""
    api = create_api()
    api.state.hand_out = HandOut(world.table, world.clock)

    async def ask(query):
        transport = httpx.ASGITransport(app=api)
        async with httpx.AsyncClient(transport=transport, base_url="http://o") as http:
            return (await http.get(f"/v1/urls?{query}")).json(), (await http.get("/v1/models")).json()

    urls, models = asyncio.run(ask(f"model={MODEL}"))
    assert urls == json.loads(world.table.urls_body(MODEL, None, world.clock.now))
    assert models == {"models": [MODEL]}


def test_a_withdrawal_counts_for_the_next_request(world, http):
    assert len(http.get("/v1/urls").json()["urls"]) == 1
    world.execute(world.admin, "cordon", ip_address=IP, reason="now")
    assert http.get("/v1/urls").json()["urls"] == []
    assert http.get("/v1/models").json() == {"models": []}


def test_trust_ends_by_the_clock_alone(world, http):
    ends = min(world.worker().attested_until, world.worker().alive_until)
    world.clock.now = ends - timedelta(microseconds=1)
    assert len(http.get("/v1/urls?limit=1").json()["urls"]) == 1
    world.clock.now = ends
    assert http.get("/v1/urls?limit=1").json()["urls"] == []


@given(st.binary(max_size=200))
@settings(max_examples=300)
def test_any_query_string_is_read_or_refused(raw):
    try:
        model, limit = parse_query(raw)
    except Refused:
        pass  # the only thing that may leave it
    else:
        assert model is None or isinstance(model, str)
        assert limit is None or 1 <= limit <= 1000


# --- bad input --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"\x00",
        b'{"data": "\\ud800"}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"purpose":' + b"[" * 5000 + b"]" * 5000 + b"}",
    ],
)
@pytest.mark.parametrize("path", ["/v1/challenges", "/v1/execute"])
def test_what_is_no_json_is_malformed(seen, path, body):
    problem(seen.post(path, content=body), 400, "request-malformed")


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/v1/challenges", [], "body"),
        ("/v1/challenges", 7, "body"),
        ("/v1/challenges", {}, "purpose"),
        ("/v1/challenges", {"purpose": "fun"}, "purpose"),
        ("/v1/challenges", {"purpose": "register", "ip_address": 7}, "ip_address"),
        ("/v1/challenges", {"purpose": "register", "surprise": 1}, "surprise"),
        ("/v1/challenges", {"purpose": "get_workers", "subscriber_public_key": "zz"}, "subscriber_public_key"),
        ("/v1/execute", {"data": "x", "pub_key": {"type": "other", "value": ""}, "signature": ""}, "pub_key.type"),
    ],
)
def test_a_field_that_is_not_valid_is_named(seen, path, body, field):
    document = problem(seen.post(path, json=body), 422, "field-invalid")
    assert field in [reason["field"] for reason in document["reasons"]]


def test_a_body_that_says_it_is_too_long(seen):
    problem(seen.post("/v1/execute", content=b"x" * (BODY_BYTES_MAX + 1)), 413, "body-too-large")


def test_a_body_of_the_largest_size_is_read(seen):
    problem(seen.post("/v1/execute", content=b"x" * BODY_BYTES_MAX), 400, "request-malformed")


def test_a_body_without_a_length_is_cut_off(seen):
    """The server answers while the client would still send: it does not wait for the end."""
    parts = urlsplit(str(seen.base_url))
    with closing(socket.create_connection((parts.hostname, parts.port), timeout=20)) as raw:
        raw.sendall(b"POST /v1/execute HTTP/1.1\r\nHost: o\r\nTransfer-Encoding: chunked\r\n\r\n")
        chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
        for _ in range(BODY_BYTES_MAX // 0x10000 + 1):
            raw.sendall(chunk)
        answer = raw.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"body-too-large" in answer


def test_a_length_that_lies_changes_nothing(seen):
    parts = urlsplit(str(seen.base_url))
    for length in (b"-1", b"1e9", b"99999999999999999999999999", b"3000000"):
        with closing(socket.create_connection((parts.hostname, parts.port), timeout=20)) as raw:
            raw.sendall(b"POST /v1/execute HTTP/1.1\r\nHost: o\r\nContent-Length: " + length + b"\r\n\r\n")
            assert raw.recv(65536).split(b" ")[1] in (b"400", b"413")


@pytest.mark.parametrize("head", [b"GET /" + b"a" * 100, b"GET / HTTP/1.1\r\nHost: o\r\nX: " + b"a" * 100])
def test_a_head_that_never_ends_is_cut_off(seen, head):
    parts = urlsplit(str(seen.base_url))
    with closing(socket.create_connection((parts.hostname, parts.port), timeout=20)) as raw:
        raw.sendall(head)
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 100 * HEAD_BYTES_MAX:
                raw.sendall(b"a" * 1024)
                sent += 1024
                if select.select([raw], [], [], 0)[0]:
                    assert raw.recv(100).startswith(b"HTTP/1.1 400 ")
                    break
        assert HEAD_BYTES_MAX <= sent < 100 * HEAD_BYTES_MAX


def test_a_head_that_never_comes_is_not_waited_for(world, monkeypatch):
    monkeypatch.setattr("orchestrator.api.wire.HEAD_SECONDS_MAX", 0.2)
    with served_world(world) as url:
        parts = urlsplit(url)
        for head in (b"", b"GET / HTTP/1.1\r\n", b"GET /livez HTTP/1.1\r\nHost: o\r\n\r\nGET /l"):
            with closing(socket.create_connection((parts.hostname, parts.port), timeout=4)) as raw:
                raw.sendall(head)
                while raw.recv(65536):
                    pass  # the server ends it, long before the keep-alive of 5 seconds


def test_there_is_nothing_elsewhere(seen):
    for path in ("/", "/docs", "/redoc", "/openapi.json", "/v1/urls/", "/v1/nodes", "/v1/workers/%2e%2e/x", "/%00"):
        problem(seen.get(path), 404, "not-found")
    problem(seen.delete("/v1/workers"), 405, "method-not-allowed")


def test_an_address_in_the_path_that_is_none(seen):
    problem(seen.get("/v1/workers/010.0.0.1"), 422, "address-malformed")
    problem(seen.get("/v1/workers/" + "9" * 100), 422, "field-invalid")
    problem(seen.get("/v1/workers/2001:db8::1"), 404, "worker-unknown")


def test_two_spellings_are_one_worker(seen):
    assert seen.get(f"/v1/workers/::ffff:{IP}").json()["ip_address"] == IP


@given(body=st.binary(max_size=300), path=st.sampled_from(["/v1/challenges", "/v1/execute"]))
@settings(max_examples=100, deadline=None)
def test_random_bytes_are_the_senders_fault(seen, path, body):
    assert seen.post(path, content=body).status_code in (400, 401, 409, 422)


# --- request ids, bugs, health ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("path", ["/v1/urls", "/v1/about", "/nowhere", "/v1/urls?limit=0"])
def test_request_ids_come_back(seen, path):
    assert seen.get(path, headers={"x-request-id": "abc-1.2_Z"}).headers["x-request-id"] == "abc-1.2_Z"
    for bad in ("", "a b", "x" * 65, "ä", "<script>"):
        own = seen.get(path, headers=[(b"x-request-id", bad.encode())]).headers.get("x-request-id", "none")
        assert own != bad
        assert own.isascii()


@pytest.mark.parametrize("path", ["/v1/about", "/nowhere", "/v1/urls?limit=0"])
def test_a_request_without_an_id_gets_one(seen, path):
    """But for what is handed out: nobody logs that, so there is nothing to find by it."""
    first, second = seen.get(path).headers["x-request-id"], seen.get(path).headers["x-request-id"]
    assert first != second
    assert "x-request-id" not in seen.get("/v1/urls").headers


def test_ids_of_two_servers_differ():
    assert RequestIds().of([]) != RequestIds().of([])


def test_a_bug_is_told_to_the_log_and_to_nobody_else(world, http, monkeypatch):
    def bug():
        raise RuntimeError("the inside of the orchestrator")

    monkeypatch.setattr(world.manager, "about", bug)
    with capture_logs() as logs:
        answer = http.get("/v1/about", headers={"x-request-id": "find-me"})
    problem(answer, 500, "internal")
    assert "inside" not in answer.text
    (told,) = [entry for entry in logs if entry["event"] == "bug"]
    assert (told["request_id"], told["log_level"], told["path"]) == ("find-me", "error", "/v1/about")
    assert http.get("/v1/models").status_code == 200


def test_a_bug_on_the_fast_path_too(world, http, monkeypatch):
    def bug(*_):
        raise RuntimeError("the inside of the orchestrator")

    monkeypatch.setattr(world.table, "urls_body", bug)
    with capture_logs() as logs:
        answer = http.get("/v1/urls")
    problem(answer, 500, "internal")
    assert "inside" not in answer.text
    assert [entry["event"] for entry in logs] == ["bug"]


def test_every_request_is_logged_once_and_what_it_says_is_escaped(seen):
    with capture_logs() as logs:
        seen.get("/nowhere%0a%1b[31m", headers={"x-request-id": "r1"})
        seen.get("/livez")
    (entry,) = [entry for entry in logs if entry["event"] == "request"]
    assert (entry["status"], entry["request_id"], entry["path"]) == (404, "r1", "/nowhere\\x0a\\x1b[31m")


def test_readiness_ends_when_the_server_drains(world):
    draining = threading.Event()
    with served_world(world, draining=draining) as url, httpx.Client(base_url=url) as http:
        assert http.get("/readyz").json() == {"status": "ok"}
        draining.set()
        refused = http.get("/readyz")
        problem(refused, 503, "draining")
        assert int(refused.headers["retry-after"]) > 0
        assert http.get("/livez").status_code == 200
        assert http.get("/v1/urls").status_code == 200  # until the port closes


def test_too_many_challenges_say_when_to_come_again(world, http, monkeypatch):
    monkeypatch.setattr("orchestrator.challenges.OPEN_CHALLENGES_MAX", 2)
    body = {"purpose": "get_workers", "subscriber_public_key": world.admin.public_hex}
    answers = [http.post("/v1/challenges", json=body) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [201, 201, 429]
    problem(answers[2], 429, "too-many")
    assert int(answers[2].headers["retry-after"]) > 0


def test_every_problem_has_a_status_that_http_knows():
    assert {entry.status for entry in CATALOGUE.values()} <= {400, 401, 403, 404, 405, 409, 413, 422, 429, 500, 503}
    assert COMMANDS.keys() >= {"register_worker", "remove_worker"}
