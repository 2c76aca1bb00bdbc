"""The inference server beside the node: what is read from it, and what is refused."""

from __future__ import annotations

import json
import math
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeprobe import inference
from nodeprobe.emulator.serving import InferenceFace, make_certificate
from nodeprobe.inference import (
    INPUT,
    OUTPUT,
    InferenceError,
    InferenceServer,
    Meters,
    Series,
    Tokens,
    carried,
    read_meters,
    read_models,
    work_between,
)
from nodeprobe.running import spki_sha256, trusting
from orchestrator.messages import MODELS_MAX

VLLM = b"""# HELP vllm:prompt_tokens_total Number of prefill tokens processed.
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{engine="0",model_name="llama3.1:70b"} 1200.0
vllm:prompt_tokens_total{engine="1",model_name="llama3.1:70b"} 34.0
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{engine="0",model_name="llama3.1:70b"} 5.6e+02
vllm:generation_tokens_total{engine="1",model_name="llama3.1:70b"} 7.0
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="llama3.1:70b"} 3.0
vllm:num_requests_running{engine="1",model_name="llama3.1:70b"} 1.0
vllm:num_requests_waiting{engine="0",model_name="llama3.1:70b"} 9.0
vllm:time_to_first_token_seconds_bucket{le="0.001",model_name="llama3.1:70b"} 0.0
process_start_time_seconds 1.7e+09
python_gc_objects_collected_total{generation="0"} 4242.0
"""
M = "llama3.1:70b"


def meters(tokens_in: int, tokens_out: int, *, started: float | None = None, model: str = M, rest: str = "") -> Meters:
    return Meters({Series(model, INPUT, rest): tokens_in, Series(model, OUTPUT, rest): tokens_out}, started)


# --- reading ----------------------------------------------------------------------------------------------------------
def test_reads_counters_as_vllm_names_them() -> None:
    read = read_meters(VLLM)
    assert read.models == (M,)
    assert read.counters[Series(M, INPUT, "engine=1")] == 34
    assert read.counters[Series(M, OUTPUT, "engine=0")] == 560
    assert (read.running, read.waiting, read.started) == (4, 9, 1.7e9)


def test_reads_counters_without_the_ending_total() -> None:
    read = read_meters(VLLM.replace(b"_tokens_total", b"_tokens"))
    assert read.counters == read_meters(VLLM).counters


def test_the_same_counter_by_both_names_counts_once() -> None:
    both = VLLM + VLLM.replace(b"_tokens_total", b"_tokens")
    assert read_meters(both).counters == read_meters(VLLM).counters


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"# nothing here\n",
        b"sglang:prompt_tokens_total 3\n",
        VLLM.replace(b"1200.0", b"NaN"),
        VLLM.replace(b"1200.0", b"+Inf"),
        VLLM.replace(b"1200.0", b"-1"),
        VLLM.replace(b"1200.0", b"1e300"),
        VLLM.replace(b"1200.0", b"many"),
        VLLM.replace(b'model_name="llama3.1:70b"} 1200', b"} 1200"),
        VLLM.replace(b'model_name="llama3.1:70b"} 1200', b'model_name=""} 1200'),
        VLLM.replace(b'model_name="llama3.1:70b"} 1200', b'model_name="a b"} 1200'),
        b"".join(
            b'vllm:prompt_tokens_total{engine="%d",model_name="m"} 1\n' % n for n in range(inference.SERIES_MAX + 1)
        ),
    ],
)
def test_refuses_metrics_without_honest_counters(body: bytes) -> None:
    with pytest.raises(InferenceError):
        read_meters(body)


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_any_bytes_are_read_or_refused(noise: bytes) -> None:
    for body in (noise, b"vllm:prompt_tokens_total" + noise, VLLM[:200] + noise + VLLM[200:]):
        try:
            read = read_meters(body)
        except InferenceError:
            continue
        assert read.counters
        assert all(value >= 0 for value in read.counters.values())


@given(
    st.binary(max_size=200)
    | st.recursive(
        st.none() | st.integers() | st.text(),
        lambda s: st.lists(s) | st.dictionaries(st.sampled_from(["data", "id"]), s),
    ).map(lambda v: json.dumps(v).encode())
)
def test_any_list_of_models_is_read_or_refused(body: bytes) -> None:
    try:
        names = read_models(body)
    except InferenceError:
        return
    assert all(1 <= len(name) <= 200 and name.isascii() and name.isprintable() for name in names)


def test_reads_an_openai_list_each_model_once() -> None:
    body = {"object": "list", "data": [{"id": "a", "object": "model"}, {"id": "b"}, {"id": "a"}]}
    assert read_models(json.dumps(body).encode()) == ("a", "b")


def test_refuses_more_models_than_a_worker_serves() -> None:
    body = {"data": [{"id": f"m{n}"} for n in range(MODELS_MAX + 1)]}
    with pytest.raises(InferenceError):
        read_models(json.dumps(body).encode())


# --- counting ---------------------------------------------------------------------------------------------------------
def test_work_is_the_difference() -> None:
    assert work_between(meters(10, 20), meters(15, 27)) == {M: Tokens(5, 7)}


def test_a_model_that_did_nothing_is_there_with_zeros() -> None:
    before = Meters({**meters(1, 1).counters, **meters(5, 5, model="idle").counters})
    after = Meters({**meters(2, 1).counters, **meters(5, 5, model="idle").counters})
    assert work_between(before, after) == {M: Tokens(1, 0), "idle": Tokens(0, 0)}


def test_a_counter_that_went_down_started_again_from_zero() -> None:
    assert work_between(meters(1000, 1000), meters(3, 4)) == {M: Tokens(3, 4)}


def test_a_restart_is_seen_by_its_time_though_the_counters_have_grown() -> None:
    assert work_between(meters(10, 10, started=1.0), meters(30, 30, started=2.0)) == {M: Tokens(30, 30)}
    assert work_between(meters(10, 10, started=1.0), meters(30, 30, started=1.0)) == {M: Tokens(20, 20)}


def test_engines_are_counted_one_by_one() -> None:
    """Summed first, a restart of one engine would look like work of the other."""
    before = Meters({Series(M, INPUT, "engine=0"): 100, Series(M, INPUT, "engine=1"): 100})
    after = Meters({Series(M, INPUT, "engine=0"): 100, Series(M, INPUT, "engine=1"): 5})
    assert work_between(before, after) == {M: Tokens(5, 0)}


def test_a_counter_that_was_missing_once_is_not_counted_from_zero() -> None:
    first, without, back = meters(100, 100), meters(0, 0, model="other"), meters(101, 100)
    assert work_between(carried(first, without), back)[M] == Tokens(1, 0)


counts = st.lists(st.integers(0, 1000), min_size=1, max_size=20)


@given(counts, st.sets(st.integers(0, 19)))
def test_no_token_is_counted_twice_and_none_is_lost_but_by_restarts(done: list[int], restarts: set[int]) -> None:
    """A server that does so much between readings, and restarts before some of them."""
    value, counted, last = 0, 0, meters(0, 0, started=0.0)
    for step, more in enumerate(done):
        lost = step in restarts
        value = more if lost else value + more
        reading = meters(value, 0, started=float(step) if lost else last.started)
        counted += work_between(last, reading)[M].input
        last = carried(last, reading)
    assert counted == sum(done)


@given(counts, st.sets(st.integers(0, 19)), st.sets(st.integers(0, 19)))
def test_never_more_than_was_done_without_a_start_time(done: list[int], restarts: set[int], gone: set[int]) -> None:
    value, counted, last = 0, 0, meters(0, 0)
    for step, more in enumerate(done):
        value = more if step in restarts else value + more
        reading = Meters({Series("other", INPUT, ""): 0}) if step in gone else meters(value, 0)
        counted += work_between(last, reading)[M].input
        last = carried(last, reading)
    assert counted <= sum(done)


# --- over the wire ----------------------------------------------------------------------------------------------------
def chat(url: str, model: str, text: str, verify: object = True) -> dict[str, object]:
    body = {"model": model, "messages": [{"role": "user", "content": text}]}
    answer = httpx.post(f"{url}/v1/chat/completions", json=body, verify=verify, trust_env=False)  # type: ignore[arg-type]
    assert answer.status_code == 200, answer.text
    document: dict[str, object] = answer.json()
    return document


def test_reads_the_emulated_server_over_http() -> None:
    with InferenceFace(["m1", "m2"], "127.0.0.1") as face, InferenceServer(face.url) as server:
        assert server.models() == ("m1", "m2")
        before = server.meters()
        usage = chat(face.url, "m1", "one two three")["usage"]
        work = work_between(before, server.meters())
    assert isinstance(usage, dict)
    assert work == {"m1": Tokens(3, usage["completion_tokens"]), "m2": Tokens(0, 0)}
    assert usage["completion_tokens"] > 3


def test_reads_it_over_tls_and_pins_its_certificate(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    certificate = make_certificate(tmp_path / "a.pem", "127.0.0.1", now=now)
    other = make_certificate(tmp_path / "b.pem", "127.0.0.1", now=now)
    assert spki_sha256(certificate.path) == certificate.spki_sha256 != other.spki_sha256
    assert certificate.path.stat().st_mode & 0o077 == 0
    with InferenceFace(["m"], "127.0.0.1", certificate=certificate) as face:
        assert face.url.startswith("https://")
        with InferenceServer(face.url, verify=trusting(certificate.path)) as server:
            assert server.models() == ("m",)
        for wrong in (trusting(other.path), trusting(None)):
            with InferenceServer(face.url, verify=wrong) as server, pytest.raises(InferenceError):
                server.models()


def test_a_client_that_does_not_speak_holds_up_no_other(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path / "a.pem", "127.0.0.1", now=datetime.now(UTC))
    with InferenceFace(["m"], "127.0.0.1", certificate=certificate) as face:
        url = httpx.URL(face.url)
        with (
            socket.create_connection((url.host, url.port)),
            InferenceServer(face.url, verify=trusting(certificate.path)) as server,
        ):
            assert server.models() == ("m",)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{}", 400),
        (b"[]", 400),
        (b"\xff", 400),
        (b'{"model": "m", "messages": []}', 400),
        (b'{"model": "m", "messages": [3]}', 400),
        (b'{"model": "m", "messages": [{"content": "x"}], "stream": true}', 400),
        (b'{"model": "other", "messages": [{"content": "x"}]}', 404),
        (b'{"model": ["m"], "messages": [{"content": "x"}]}', 404),
        (b"x" * ((1 << 20) + 1), 413),
    ],
)
def test_the_emulated_server_refuses_and_goes_on(body: bytes, status: int) -> None:
    with InferenceFace(["m"], "127.0.0.1") as face:
        try:
            assert httpx.post(f"{face.url}/v1/chat/completions", content=body, trust_env=False).status_code == status
        except httpx.WriteError:  # refused while we were still sending
            assert status == 413
        chat(face.url, "m", "well?")
        with InferenceServer(face.url) as server:
            assert server.meters().running == 0


@contextmanager
def answering(*chunks: bytes, pause: float = 0.0) -> Iterator[str]:
    """A server that answers every connection with these bytes."""
    stop = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.05)

    def serve() -> None:
        while not stop.is_set():
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            with connection:
                try:
                    connection.recv(4096)
                    for chunk in chunks:
                        connection.sendall(chunk)
                        if stop.wait(pause):
                            return
                except OSError:
                    continue

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        stop.set()
        thread.join()
        listener.close()


OK = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://192.0.2.1/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
        OK + b"<html>hello</html>",
        b"not http at all\r\n\r\n",
        b"",
    ],
)
def test_what_is_no_inference_server_is_an_error_with_a_fix(answer: bytes) -> None:
    with answering(answer) as url, InferenceServer(url) as server, pytest.raises(InferenceError) as error:
        server.models()
    assert error.value.fix


def test_nobody_there_is_an_error_with_a_fix() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for url in (f"http://127.0.0.1:{port}", "http://", "nonsense", "http://[::1", "ftp://127.0.0.1/"):
        with InferenceServer(url) as server, pytest.raises(InferenceError):
            server.meters()


def test_an_endless_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "METRICS_BYTES_MAX", 10_000)
    with answering(OK, *[b"x" * 4096] * 10) as url, InferenceServer(url) as server, pytest.raises(InferenceError):
        server.meters()


def test_a_trickling_answer_is_cut_off() -> None:
    with (
        answering(OK, *[b"x"] * 1000, pause=0.01) as url,
        InferenceServer(url, timeout_seconds=0.2) as server,
        pytest.raises(InferenceError),
    ):
        server.meters()


def test_infinity_is_no_start_time() -> None:
    assert read_meters(VLLM.replace(b"1.7e+09", b"+Inf")).started is None
    assert math.isfinite(read_meters(VLLM).started or math.inf)
