"""Worker keys and signed requests: what a worker signs holds, and any other request does not."""

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from attest import keyfiles
from attest.keyfiles import KeyFileError
from orchestrator import reasons
from orchestrator.reasons import Problem, Refused
from orchestrator.wallets import Wallet
from orchestrator.worker_keys import (
    SIGNATURE_HEADER_CHARS_MAX,
    SKEW_MAX,
    TARGET_CHARS_MAX,
    WorkerKey,
    parse_public,
    sign_request,
    verify_request,
)

NOW = datetime(2026, 5, 1, 12, 0, 0, tzinfo=UTC)
KEY, OTHER = WorkerKey.generate(), WorkerKey.generate()
BODY = b'{"challenge":"00"}'


def signed(**changes) -> dict:
    """A good request as `verify_request` takes it, with some of its parts changed after it was signed."""
    headers = sign_request(KEY, "POST", "/v1/liveliness?dry=1", BODY, now=NOW)
    headers |= changes.pop("headers", {})
    good = {"method": "POST", "path": "/v1/liveliness", "query": "dry=1", "body": BODY, "now": NOW}
    return good | {"headers": list(headers.items())} | changes


def refusal(**request) -> Problem:
    with pytest.raises(Refused) as caught:
        verify_request(**request)
    return caught.value.problem


def resigned(components: tuple[str, ...], **options) -> list[tuple[str, str]]:
    """Headers of the good request, signed by the real library and the right key, but in another way."""
    from http_message_signatures import HTTPMessageSigner, algorithms

    from orchestrator.worker_keys import _Keys, _Message

    message = _Message("POST", "https://any.invalid/v1/liveliness?dry=1", {"Date": "today"})
    body = options.pop("body", BODY)
    signer = HTTPMessageSigner(signature_algorithm=algorithms.ECDSA_P256_SHA256, key_resolver=_Keys(KEY))
    options = {"key_id": KEY.public_hex, "created": NOW, "tag": "workermanager/v1"} | options
    signer.sign(message, covered_component_ids=components, body=body, **options)
    return list(message.headers.items())


ALL = ("@method", "@path", "@query", "content-digest")


# --- requests ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("method", "path", "query", "body"),
    [
        ("POST", "/v1/liveliness", "", BODY),
        ("POST", "/v1/work", "dry=1&x=%20", b""),
        ("GET", "/", "", b""),
        ("PUT", "/v1/workers/2606:4700::1", "", b"\x00\xff" * 1000),
    ],
)
def test_a_signed_request_names_its_key(method: str, path: str, query: str, body: bytes) -> None:
    headers = sign_request(KEY, method, f"{path}?{query}" if query else path, body, now=NOW)
    assert verify_request(method, path, query, headers.items(), body, now=NOW) == KEY.public_hex


def test_the_expected_key_is_demanded() -> None:
    assert verify_request(**signed(), expected=KEY.public_hex) == KEY.public_hex
    assert refusal(**signed(), expected=OTHER.public_hex) is reasons.WORKER_KEY_MISMATCH
    assert refusal(**signed(), expected="") is reasons.WORKER_KEY_MISMATCH


def test_other_headers_do_not_matter() -> None:
    request = signed()
    request["headers"] = [
        ("Host", "proxy.example"),
        ("X-Forwarded-For", "8.8.8.8"),
        ("X-Forwarded-For", "::1"),
        *request["headers"],
    ]
    assert verify_request(**request) == KEY.public_hex


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "PUT"},
        {"method": "post"},
        {"path": "/v1/work"},
        {"path": "/v1/liveliness/"},
        {"path": "/v1/%6civeliness"},
        {"path": ""},
        {"path": "v1"},
        {"path": "/v1/liveliness?dry=1", "query": ""},
        {"path": "/v1/é"},
        {"path": "/v1/\n"},
        {"query": ""},
        {"query": "dry=0"},
        {"query": "dry=1&x"},
        {"body": BODY + b" "},
        {"body": b""},
        {"path": "/" + "a" * TARGET_CHARS_MAX},
    ],
)
def test_a_changed_request_is_refused(changes: dict) -> None:
    assert refusal(**signed(**changes)) is reasons.SIGNATURE_INVALID


def test_a_digest_corrected_to_the_changed_body_is_refused() -> None:
    digest = sign_request(KEY, "POST", "/", b"other", now=NOW)["Content-Digest"]
    assert refusal(**signed(body=b"other", headers={"Content-Digest": digest})) is reasons.SIGNATURE_INVALID


@pytest.mark.parametrize("name", ["Content-Digest", "Signature-Input", "Signature"])
def test_each_header_is_needed_once_and_short(name: str) -> None:
    good = signed()
    without = [h for h in good["headers"] if h[0] != name]
    twice = [*good["headers"], (name.lower(), dict(good["headers"])[name])]
    long = [*without, (name, "x" * (SIGNATURE_HEADER_CHARS_MAX + 1))]
    assert refusal(**good | {"headers": without}) is reasons.SIGNATURE_MISSING
    assert refusal(**good | {"headers": [*without, (name, "")]}) is reasons.SIGNATURE_MISSING
    assert refusal(**good | {"headers": twice}) is reasons.SIGNATURE_INVALID
    assert refusal(**good | {"headers": long}) is reasons.SIGNATURE_INVALID
    assert refusal(**good | {"headers": [*without, (name, "é")]}) is reasons.SIGNATURE_INVALID


def test_headers_are_bounded_even_where_they_hold() -> None:
    value = dict(signed()["headers"])["Signature-Input"]
    short = signed(headers={"Signature-Input": value.ljust(SIGNATURE_HEADER_CHARS_MAX)})
    assert verify_request(**short) == KEY.public_hex
    long = signed(headers={"Signature-Input": value.ljust(SIGNATURE_HEADER_CHARS_MAX + 1)})
    assert refusal(**long) is reasons.SIGNATURE_INVALID
    assert refusal(**signed(headers={"Content-Digest": "\ud800"})) is reasons.SIGNATURE_INVALID


def test_a_query_cannot_hide_in_the_path() -> None:
    headers = sign_request(KEY, "GET", "/v1/work", b"", now=NOW).items()
    for path in ("/v1/work?dry=1", "/v1/work#x", "/v1/work?"):
        request = {"method": "GET", "path": path, "query": "", "headers": headers, "body": b"", "now": NOW}
        assert refusal(**request) is reasons.SIGNATURE_INVALID


def test_every_byte_of_the_signature_counts() -> None:
    import base64

    request = signed()
    value = dict(request["headers"])["Signature"]
    raw = base64.b64decode(value.removeprefix("worker=:").removesuffix(":"))
    for i in range(len(raw)):
        spoiled = raw[:i] + bytes([raw[i] ^ 1]) + raw[i + 1 :]
        headers = {"Signature": f"worker=:{base64.b64encode(spoiled).decode()}:"}
        assert refusal(**signed(headers=headers)) is reasons.SIGNATURE_INVALID


@pytest.mark.parametrize(
    "skew", [SKEW_MAX - timedelta(microseconds=1), -SKEW_MAX + timedelta(microseconds=1), timedelta()]
)
def test_the_clock_may_differ_a_little(skew: timedelta) -> None:
    assert verify_request(**signed(now=NOW + skew)) == KEY.public_hex


@pytest.mark.parametrize("skew", [SKEW_MAX, -SKEW_MAX, timedelta(days=1), -timedelta(days=1)])
def test_an_old_or_future_request_is_refused(skew: timedelta) -> None:
    assert refusal(**signed(now=NOW + skew)) is reasons.SIGNATURE_EXPIRED


def test_the_time_that_counts_is_handed_in() -> None:
    past = datetime(2001, 1, 1, tzinfo=UTC)
    headers = sign_request(KEY, "GET", "/", b"", now=past)
    assert verify_request("GET", "/", "", headers.items(), b"", now=past) == KEY.public_hex


def test_our_profile_signed_by_the_library_directly_holds() -> None:
    assert verify_request(**signed() | {"headers": resigned(ALL)}) == KEY.public_hex
    assert verify_request(**signed() | {"headers": resigned(ALL[::-1], label="x")}) == KEY.public_hex


@pytest.mark.parametrize(
    "components",
    [
        *(tuple(c for c in ALL if c != left_out) for left_out in ALL if left_out != "content-digest"),
        (*ALL, "date"),
        (*ALL, "@authority"),
    ],
)
def test_covering_less_or_more_is_refused(components: tuple[str, ...]) -> None:
    assert refusal(**signed() | {"headers": resigned(components)}) is reasons.SIGNATURE_INVALID


def test_leaving_the_body_uncovered_is_refused() -> None:
    digest = sign_request(KEY, "POST", "/", BODY, now=NOW)["Content-Digest"]
    headers = [*resigned(ALL[:3], body=None), ("Content-Digest", digest)]
    assert refusal(**signed() | {"headers": headers}) is reasons.SIGNATURE_INVALID


@pytest.mark.parametrize(
    "options",
    [
        {"tag": "workermanager/v2"},
        {"tag": None},
        {"include_alg": False},
        {"nonce": "x"},
        {"expires": NOW + timedelta(seconds=9)},
    ],
)
def test_other_parameters_are_refused(options: dict) -> None:
    assert refusal(**signed() | {"headers": resigned(ALL, **options)}) is reasons.SIGNATURE_INVALID


def test_two_signatures_of_ours_are_refused_and_a_proxys_beside_it_is_not() -> None:
    def beside(tag: str) -> dict:
        ours, more = dict(signed()["headers"]), dict(resigned(ALL, label="two", tag=tag))
        joined = {name: f"{ours[name]}, {more[name]}" for name in ("Signature-Input", "Signature")}
        return signed(headers=joined)

    assert verify_request(**beside("proxy")) == KEY.public_hex
    assert refusal(**beside("workermanager/v1")) is reasons.SIGNATURE_INVALID


def test_another_algorithm_is_refused() -> None:
    value = dict(signed()["headers"])["Signature-Input"]
    headers = {"Signature-Input": value.replace("ecdsa-p256-sha256", "hmac-sha256")}
    assert refusal(**signed(headers=headers)) is reasons.SIGNATURE_INVALID


def test_a_signature_moved_under_another_key_id_is_refused() -> None:
    value = dict(signed()["headers"])["Signature-Input"]
    for key_id in (OTHER.public_hex, KEY.public_hex.upper(), "", "x", "02" + "ff" * 32):
        headers = {"Signature-Input": value.replace(KEY.public_hex, key_id)}
        assert refusal(**signed(headers=headers)) is reasons.SIGNATURE_INVALID


@given(st.sampled_from(["Content-Digest", "Signature-Input", "Signature"]), st.data())
def test_spoiled_headers_are_refused_or_still_say_who_signed(name: str, data: st.DataObject) -> None:
    value = dict(signed()["headers"])[name]
    i = data.draw(st.integers(0, len(value)))
    j = data.draw(st.integers(i, len(value)))
    spoiled = data.draw(st.text(max_size=80) | st.text(max_size=3).map(lambda text: value[:i] + text + value[j:]))
    try:
        signer = verify_request(**signed(headers={name: spoiled}))
    except Refused:
        return
    assert signer == KEY.public_hex  # a space more, say: the same signature in other words


@given(st.text(max_size=40), st.text(max_size=40), st.text(max_size=40))
def test_any_target_is_refused(method: str, path: str, query: str) -> None:
    if (method, path, query) != ("POST", "/v1/liveliness", "dry=1"):
        assert refusal(**signed(method=method, path=path, query=query)) is reasons.SIGNATURE_INVALID


@pytest.mark.parametrize("target", ["", "v1", "/a b", "/é", "/a#b"])
def test_a_target_that_is_none_is_not_signed(target: str) -> None:
    with pytest.raises(ValueError, match="cannot sign"):
        sign_request(KEY, "GET", target, b"", now=NOW)


# --- keys -------------------------------------------------------------------------------------------------------------
def test_a_public_key_is_read_from_its_name() -> None:
    assert parse_public(KEY.public_hex).public_numbers() == KEY._key.public_key().public_numbers()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00",
        KEY.public_hex.upper(),
        "0x" + KEY.public_hex,
        KEY.public_hex[:-2],
        "04" + KEY.public_hex[2:],
        "02" + "ff" * 32,
    ],
    ids=["empty", "a byte", "upper case", "0x", "short", "uncompressed", "not on the curve"],  # keys differ each time
)
def test_other_names_are_refused(text: str) -> None:
    with pytest.raises(Refused) as caught:
        parse_public(text)
    assert caught.value.problem is reasons.FIELD_INVALID


def test_a_key_is_kept_in_a_file_of_its_owner_and_never_shown(tmp_path: Path) -> None:
    path = tmp_path / "worker.pem"
    KEY.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert WorkerKey.load(path).public_hex == KEY.public_hex
    secret = f"{KEY._key.private_numbers().private_value:x}"
    assert secret not in repr(KEY)
    assert KEY.public_hex in repr(KEY)


def test_a_key_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "worker.pem"
    KEY.save(path)
    with pytest.raises(KeyFileError, match="not overwritten"):
        OTHER.save(path)
    assert WorkerKey.load(path).public_hex == KEY.public_hex


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o610])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "worker.pem"
    KEY.save(path)
    path.chmod(mode)
    with pytest.raises(KeyFileError, match="chmod 600"):
        WorkerKey.load(path)


def test_files_that_hold_no_such_key_are_refused(tmp_path: Path) -> None:
    def file(name: str, content: bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content)
        path.chmod(0o600)
        return path

    Wallet.generate().save(tmp_path / "wallet.pem")  # another curve
    KEY.save(tmp_path / "good.pem")
    half = (tmp_path / "good.pem").read_bytes()[:100]
    for path in (
        tmp_path / "absent.pem",
        tmp_path,
        tmp_path / "wallet.pem",
        file("empty", b""),
        file("noise", b"\x00" * 100),
        file("large", b"-" * (keyfiles.KEY_FILE_BYTES_MAX + 1)),
        file("half", half),
    ):
        with pytest.raises(KeyFileError):
            WorkerKey.load(path)
    with pytest.raises(KeyFileError):
        KEY.save(tmp_path / "no" / "folder.pem")


def test_a_key_of_another_curve_is_refused_on_load(tmp_path: Path) -> None:
    keyfiles.save(ec.generate_private_key(ec.SECP384R1()), tmp_path / "p384.pem")
    with pytest.raises(KeyFileError, match="another kind"):
        WorkerKey.load(tmp_path / "p384.pem")
