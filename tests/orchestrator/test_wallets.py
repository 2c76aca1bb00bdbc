"""Wallets: recorded signatures of real ones hold, and nothing that differs in a bit does."""

import base64
import hashlib
import json
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import rfc8785
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from attest.keyfiles import KeyFileError
from orchestrator import amino, bech32, reasons
from orchestrator.amino import ORDER, StdSignature, adr36_sign_bytes, verify_adr36, verify_amino, verify_permit
from orchestrator.reasons import Problem, Refused
from orchestrator.wallets import (
    LIFETIME_MAX,
    MESSAGE_BYTES_MAX,
    MESSAGE_DEPTH_MAX,
    MESSAGE_VALUES_MAX,
    Wallet,
    address_of,
    challenged_message,
    new_id,
    open_signed,
    parse_address,
    verify_challenged,
    verify_get_workers,
)

NOW = datetime(2026, 5, 1, 12, 0, 0, tzinfo=UTC)
SOON = NOW + timedelta(minutes=5)
DOMAIN = "orchestrator.example"
ID = "0123456789abcdef"
WALLET, OTHER = Wallet.generate(), Wallet.generate()
VECTORS_FILE = Path(__file__).parents[3] / "shared" / "vectors" / "wallets.json"


def refusal(call, *args, **kwargs) -> Problem:
    with pytest.raises(Refused) as caught:
        call(*args, **kwargs)
    return caught.value.problem


# --- vectors ----------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def vectors() -> dict:
    if not VECTORS_FILE.is_file():
        pytest.skip("the folder shared/vectors, with signatures of real wallets, is not beside this checkout")
    return json.loads(VECTORS_FILE.read_bytes())


def std_of(vector: dict) -> StdSignature:
    return StdSignature(base64.b64decode(vector["pub_key"]), base64.b64decode(vector["signature"]))


def test_get_workers_of_the_deployed_contract(vectors: dict) -> None:
    v = vectors["get_workers_readme"]
    verify_get_workers(v["subscriber_public_key"], v["signature"])
    assert address_of(bytes.fromhex(v["subscriber_public_key"])) == v["address"]


def test_a_permit(vectors: dict) -> None:
    v = vectors["snip24_permit"]
    assert verify_permit(v["permit"]) == v["signer"]
    for spoiled in (
        {"chain_id": "secret-4"},
        {"permissions": ["history", "owner"]},
        {"permissions": []},
        {"allowed_tokens": []},
        {"permit_name": "x"},
    ):
        permit = v["permit"] | {"params": v["permit"]["params"] | spoiled}
        assert refusal(verify_permit, permit) is reasons.SIGNATURE_INVALID


def test_a_custom_document_signed_by_secretcli(vectors: dict) -> None:
    v = vectors["secretcli_sign_doc_custom_msg"]
    assert verify_amino(v["sign_doc"], std_of(v)) == v["signer"]
    for member in v["sign_doc"]:
        spoiled = {name: value for name, value in v["sign_doc"].items() if name != member}
        assert refusal(verify_amino, spoiled, std_of(v)) is reasons.SIGNATURE_INVALID


def test_adr36_of_keplr(vectors: dict) -> None:
    v = vectors["adr36_keplr"]
    verify_adr36(v["data_utf8"].encode(), v["signer"], std_of(v))
    assert refusal(verify_adr36, v["data_utf8"].encode() + b" ", v["signer"], std_of(v)) is reasons.SIGNATURE_INVALID
    assert refusal(verify_adr36, v["data_utf8"].encode(), WALLET.address, std_of(v)) is reasons.SIGNATURE_INVALID
    assert refusal(verify_adr36, v["data_utf8"].encode(), v["signer"][:-1], std_of(v)) is reasons.WALLET_MALFORMED


def test_adr36_sign_bytes_exactly(vectors: dict) -> None:
    v = vectors["adr36_golden_bytes"]
    assert adr36_sign_bytes(v["data_utf8"].encode(), v["signer"]) == v["sign_bytes"].encode()


def test_signatures_of_others_do_not_pass_for_each_other(vectors: dict) -> None:
    a, b = vectors["adr36_keplr"], vectors["secretcli_sign_doc_custom_msg"]
    assert refusal(verify_amino, b["sign_doc"], std_of(a)) is reasons.SIGNATURE_INVALID
    assert refusal(verify_adr36, a["data_utf8"].encode(), a["signer"], std_of(b)) is reasons.SIGNATURE_INVALID


# --- documents --------------------------------------------------------------------------------------------------------
def test_amino_json_is_sorted_compact_and_escaped() -> None:
    doc = {"b": ["<&>", "é\u2028"], "a": {"z": "1", "y": None}}
    assert amino.amino_sign_bytes(doc) == '{"a":{"y":null,"z":"1"},"b":["\\u003c\\u0026\\u003e","é\u2028"]}'.encode()


def test_what_is_no_document_is_refused() -> None:
    deep: dict = {}
    for _ in range(100_000):
        deep = {"a": deep}
    for doc in (deep, {"a": float("nan")}, {"a": b""}, {"a": "\ud800"}, {1: 1, "a": 1}):
        assert refusal(amino.amino_sign_bytes, doc) is reasons.REQUEST_MALFORMED


def test_a_permit_of_another_shape_is_refused() -> None:
    params = {"allowed_tokens": ["a"], "chain_id": "c", "permissions": ["p"], "permit_name": "n"}
    signature = {"pub_key": {"type": amino.KEY_TYPE, "value": "x"}, "signature": "x"}
    for spoiled in (
        None,
        {},
        params | {"extra": ""},
        params | {"chain_id": 1},
        params | {"permissions": "p"},
        params | {"permissions": [1]},
    ):
        assert refusal(verify_permit, {"params": spoiled, "signature": signature}) is reasons.REQUEST_MALFORMED
    assert refusal(verify_permit, {"params": params}) is reasons.SIGNATURE_MISSING
    assert refusal(verify_permit, {"params": params, "signature": {}}) is reasons.SIGNATURE_MISSING
    assert refusal(verify_permit, {"params": params, "signature": signature}) is reasons.SIGNATURE_INVALID


# --- addresses --------------------------------------------------------------------------------------------------------
ADDRESS = "secret1ap26qrlp8mcq2pg6r47w43l0y8zkqm8a450s03"


def test_an_address_is_parsed() -> None:
    assert parse_address(ADDRESS) == ADDRESS
    assert parse_address(WALLET.address) == WALLET.address
    assert len(WALLET.address) == 45


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "secret1",
        ADDRESS.upper(),
        ADDRESS.capitalize(),
        ADDRESS[:-1],
        ADDRESS + "q",
        ADDRESS + " ",
        " " + ADDRESS,
        ADDRESS + "\n",
        ADDRESS.replace("secret", "cosmos"),
        ADDRESS.replace("s03", "s0b"),
        bech32.encode("cosmos", bytes(20)),
        bech32.encode("secret", bytes(19)),
        bech32.encode("secret", bytes(32)),
        bech32.encode("secret", b""),
        "ſecret" + ADDRESS[6:],
        "x" * 10_000,
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    assert refusal(parse_address, text) is reasons.WALLET_MALFORMED


def test_every_character_of_an_address_counts() -> None:
    for i, c in enumerate(ADDRESS):
        for other in "qpzry9x8gf2tvdw0s3jn54khce6mua7l1":
            if other != c:
                assert refusal(parse_address, ADDRESS[:i] + other + ADDRESS[i + 1 :]) is reasons.WALLET_MALFORMED


def of_groups(prefix: str, *groups: int) -> str:
    """Bech32 with a good checksum over any 5-bit groups."""
    remainder = bech32._polymod([*bech32._expanded(prefix), *groups, *[0] * 6]) ^ 1
    return (
        prefix
        + "1"
        + "".join(bech32._ALPHABET[v] for v in [*groups, *(remainder >> 5 * (5 - i) & 31 for i in range(6))])
    )


@pytest.mark.parametrize("groups", [(0,) * 30 + (1,), (0,), (0,) * 33, (31,)])
def test_padding_that_is_not_zero_or_too_long_is_refused(groups: tuple[int, ...]) -> None:
    assert bech32.decode(of_groups("secret", *[0] * 32)) == ("secret", bytes(20))
    with pytest.raises(ValueError, match="padding"):
        bech32.decode(of_groups("secret", *groups))


def test_mixed_case_is_refused() -> None:
    with pytest.raises(ValueError, match="lower-case prefix"):
        bech32.decode(of_groups("Secret", *[0] * 32))


# The valid and invalid strings of BIP-173's own test vectors, but for those in upper case, which we refuse on purpose.
@pytest.mark.parametrize(
    "text",
    [
        "a12uel5l",
        "an83characterlonghumanreadablepartthatcontainsthenumber1andtheexcludedcharactersbio1tt5tgs",
        "abcdef1qpzry9x8gf2tvdw0s3jn54khce6mua7lmqqqxw",
        "?1ezyfcl",
    ],
)
def test_valid_bech32(text: str) -> None:
    assert bech32.encode(*bech32.decode(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "\x201nwldj5",
        "\x7f1axkwrx",
        "\x801eym55h",
        "an84characterslonghumanreadablepartthatcontainsthenumber1andtheexcludedcharactersbio1569pvx",
        "pzry9x0s0muk",
        "1pzry9x0s0muk",
        "x1b4n0q5v",
        "li1dgmt3",
        "de1lg7wt\xff",
        "A12UEL5L",
        "10a06t8",
        "1qzzfhee",
    ],
)
def test_invalid_bech32(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        bech32.decode(text)


@given(st.binary(max_size=40), st.from_regex(r"[a-z]{1,20}", fullmatch=True))
def test_bech32_both_ways(payload: bytes, prefix: str) -> None:
    assert bech32.decode(bech32.encode(prefix, payload)) == (prefix, payload)


@given(st.text(max_size=100))
def test_any_text_is_an_address_or_refused(text: str) -> None:
    assert refusal(parse_address, text) is reasons.WALLET_MALFORMED


def test_without_ripemd160_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str, *args, **kwargs):
        raise ValueError(f"unsupported hash type {name}")

    monkeypatch.setattr(hashlib, "new", missing)
    with pytest.raises(amino.NoRipemd160, match=r"OpenSSL 3\.0\.7"):
        address_of(WALLET.public_key)


# --- GetWorkers -------------------------------------------------------------------------------------------------------
def twin(signature: bytes) -> bytes:
    """The other signature that ECDSA accepts: s on the other side of the order."""
    return signature[:32] + (ORDER - int.from_bytes(signature[32:], "big")).to_bytes(32, "big")


def test_the_deployed_form() -> None:
    signature = WALLET.get_workers_signature()
    verify_get_workers(WALLET.public_hex, signature)
    assert refusal(verify_get_workers, OTHER.public_hex, signature) is reasons.SIGNATURE_INVALID
    assert refusal(verify_get_workers, WALLET.public_hex, OTHER.get_workers_signature()) is reasons.SIGNATURE_INVALID


def test_every_byte_of_a_signature_and_its_high_twin() -> None:
    good = bytes.fromhex(WALLET.get_workers_signature())
    spoiled = [good[:i] + bytes([good[i] ^ 1]) + good[i + 1 :] for i in range(64)]
    zeros = [bytes(64), good[:32] + bytes(32), bytes(32) + good[32:], b"\xff" * 64]
    for signature in [*spoiled, *zeros, twin(good)]:
        assert refusal(verify_get_workers, WALLET.public_hex, signature.hex()) is reasons.SIGNATURE_INVALID


def test_signatures_are_made_with_low_s() -> None:
    for i in range(40):
        assert int.from_bytes(WALLET.sign(bytes([i]))[32:], "big") <= ORDER // 2


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (str.upper, reasons.FIELD_INVALID),
        (lambda text: "0x" + text, reasons.FIELD_INVALID),
        (lambda text: text[:-2], reasons.FIELD_INVALID),
        (lambda text: text + "00", reasons.FIELD_INVALID),
        (lambda text: text + "\n", reasons.FIELD_INVALID),
        (lambda text: text[:-1] + "٣", reasons.FIELD_INVALID),  # a digit, to some parsers
        (lambda text: "", reasons.SIGNATURE_MISSING),
    ],
)
def test_one_spelling_of_key_and_signature(change, problem: Problem) -> None:
    key, signature = WALLET.public_hex, WALLET.get_workers_signature()
    assert refusal(verify_get_workers, change(key), signature) is problem
    assert refusal(verify_get_workers, key, change(signature)) is problem


def test_a_malformed_signature_is_not_quoted() -> None:
    signature = WALLET.get_workers_signature()
    with pytest.raises(Refused) as caught:
        verify_get_workers(WALLET.public_hex, "0x" + signature)
    assert signature not in repr(caught.value)


@pytest.mark.parametrize("prefix", ["00", "04", "05", "06"])
def test_only_compressed_points(prefix: str) -> None:
    key = prefix + WALLET.public_hex[2:]
    assert refusal(verify_get_workers, key, WALLET.get_workers_signature()) is reasons.SIGNATURE_INVALID


def test_an_uncompressed_key_is_refused_though_its_signature_holds() -> None:
    point = WALLET._key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    assert refusal(amino.verify_digest_of, b"x", StdSignature(point, WALLET.sign(b"x"))) is reasons.SIGNATURE_INVALID


def test_the_challenged_form() -> None:
    challenge = "ab" * 32
    signature = WALLET.challenged_signature(challenge=challenge, domain=DOMAIN)
    verify_challenged(WALLET.public_hex, signature, challenge=challenge, domain=DOMAIN)
    assert json.loads(challenged_message(WALLET.public_hex, challenge=challenge, domain=DOMAIN)) == {
        "challenge": challenge,
        "domain": DOMAIN,
        "purpose": "get_workers",
        "subscriber_public_key": WALLET.public_hex,
    }

    def refused(key: str = WALLET.public_hex, challenge: str = challenge, domain: str = DOMAIN) -> Problem:
        return refusal(verify_challenged, key, signature, challenge=challenge, domain=domain)

    assert refused(key=OTHER.public_hex) is reasons.SIGNATURE_INVALID
    assert refused(challenge="cd" * 32) is reasons.SIGNATURE_INVALID
    assert refused(domain="other.example") is reasons.SIGNATURE_INVALID


def test_the_two_forms_do_not_pass_for_each_other() -> None:
    challenged = WALLET.challenged_signature(challenge="ab" * 32, domain=DOMAIN)
    assert refusal(verify_get_workers, WALLET.public_hex, challenged) is reasons.SIGNATURE_INVALID


# --- messages ---------------------------------------------------------------------------------------------------------
def message(**changes) -> dict:
    content = {"message": {"remove_worker": {"ip_address": "8.8.4.4"}}, "domain": DOMAIN, "expires": SOON}
    return WALLET.sign_message(**content | {"message_id": ID} | changes)


def signed_data(data: str | bytes, wallet: Wallet = WALLET) -> dict:
    """Any data, properly signed."""
    raw = data.encode() if isinstance(data, str) else data
    signature = base64.b64encode(wallet.sign(adr36_sign_bytes(raw, wallet.address))).decode()
    key = {"type": amino.KEY_TYPE, "value": base64.b64encode(wallet.public_key).decode()}
    return {"data": raw.decode(), "pub_key": key, "signature": signature}


def content(**changes) -> dict:
    return {"domain": DOMAIN, "message": {}, "expires": "2026-05-01T12:05:00Z", "id": ID} | changes


def opening(signed, now: datetime = NOW) -> Problem:
    return refusal(open_signed, signed, domain=DOMAIN, now=now)


def test_a_signed_message_opens() -> None:
    opened = open_signed(message(), domain=DOMAIN, now=NOW)
    assert opened.signer == WALLET.address
    assert opened.id == ID
    assert opened.expires == SOON
    assert opened.message == {"remove_worker": {"ip_address": "8.8.4.4"}}


def test_members_that_wallets_add_are_not_believed() -> None:
    assert open_signed(message() | {"signer": OTHER.address}, domain=DOMAIN, now=NOW).signer == WALLET.address


def test_a_large_message_opens() -> None:
    report = "A" * (1 << 20)
    assert open_signed(message(message={"report": report}), domain=DOMAIN, now=NOW).message == {"report": report}


def test_every_byte_of_the_data_and_signature_counts() -> None:
    good = message()
    for i, c in enumerate(good["data"]):
        data = good["data"][:i] + chr(ord(c) ^ 1) + good["data"][i + 1 :]
        assert opening(good | {"data": data}) is reasons.SIGNATURE_INVALID
    raw = base64.b64decode(good["signature"])
    for i in range(64):
        signature = base64.b64encode(raw[:i] + bytes([raw[i] ^ 1]) + raw[i + 1 :]).decode()
        assert opening(good | {"signature": signature}) is reasons.SIGNATURE_INVALID
    assert opening(good | {"signature": base64.b64encode(twin(raw)).decode()}) is reasons.SIGNATURE_INVALID


def test_another_key_is_another_signer_whose_signature_does_not_hold() -> None:
    key = {"type": amino.KEY_TYPE, "value": base64.b64encode(OTHER.public_key).decode()}
    assert opening(message() | {"pub_key": key}) is reasons.SIGNATURE_INVALID


def test_a_wallet_that_signs_in_the_name_of_another_is_refused() -> None:
    forged = signed_data(rfc8785.dumps(content()))
    raw = rfc8785.dumps(content())
    forged["signature"] = base64.b64encode(WALLET.sign(adr36_sign_bytes(raw, OTHER.address))).decode()
    assert opening(forged | {"signer": OTHER.address}) is reasons.SIGNATURE_INVALID


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"data": None}, reasons.REQUEST_MALFORMED),
        ({"data": {}}, reasons.REQUEST_MALFORMED),
        ({"data": "\ud800"}, reasons.REQUEST_MALFORMED),
        ({"data": "x" * (MESSAGE_BYTES_MAX + 1)}, reasons.BODY_TOO_LARGE),
        ({"data": "é" * (MESSAGE_BYTES_MAX // 2 + 1)}, reasons.BODY_TOO_LARGE),
        ({"pub_key": None}, reasons.SIGNATURE_MISSING),
        ({"pub_key": {}}, reasons.SIGNATURE_MISSING),
        ({"pub_key": "A" * 44}, reasons.REQUEST_MALFORMED),
        ({"pub_key": {"type": "tendermint/PubKeyEd25519", "value": "A" * 44}}, reasons.REQUEST_MALFORMED),
        ({"pub_key": {"type": amino.KEY_TYPE}}, reasons.REQUEST_MALFORMED),
        ({"pub_key": {"type": amino.KEY_TYPE, "value": 1}}, reasons.SIGNATURE_INVALID),
        ({"pub_key": {"type": amino.KEY_TYPE, "value": "A" * 44}}, reasons.SIGNATURE_INVALID),
        ({"pub_key": {"type": amino.KEY_TYPE, "value": "A" * 40}}, reasons.SIGNATURE_INVALID),
        ({"signature": ""}, reasons.SIGNATURE_MISSING),
        ({"signature": None}, reasons.SIGNATURE_MISSING),
        ({"signature": 1}, reasons.SIGNATURE_INVALID),
        ({"signature": "é"}, reasons.SIGNATURE_INVALID),
        ({"signature": "A" * 87}, reasons.SIGNATURE_INVALID),
        ({"signature": "A" * 86 + "=="}, reasons.SIGNATURE_INVALID),  # r and s zero
    ],
)
def test_spoiled_envelopes(changes: dict, problem: Problem) -> None:
    assert opening(message() | changes) is problem


def test_what_is_no_envelope_is_refused() -> None:
    for wire in ([], "x", None, 1):
        assert opening(wire) is reasons.REQUEST_MALFORMED
    assert opening({}) is reasons.REQUEST_MALFORMED


def test_base64_has_one_spelling() -> None:
    good = message()
    twisted = good["signature"][:-3] + chr(ord(good["signature"][-3]) + 1) + "=="  # bits that decode to nothing
    for signature in (twisted, good["signature"].rstrip("="), good["signature"] + "\n", good["signature"] + "===="):
        assert opening(good | {"signature": signature}) is reasons.SIGNATURE_INVALID


GOOD = rfc8785.dumps(content()).decode()


@pytest.mark.parametrize(
    "data",
    [
        "",
        "x",
        "null",
        "[]",
        " " + GOOD,
        GOOD + "\n",
        GOOD.replace(":", ": "),
        GOOD.replace('"message":{}', '"message":{},"message":{}'),  # a key twice
        GOOD.replace('{"domain"', '{"id":"' + ID + '","domain"'),
        GOOD.replace("orchestrator", "\\u006frchestrator"),  # another spelling of the same text
        GOOD.replace('"message":{}', '"message":{"b":1,"a":1}'),  # not sorted
        GOOD.replace('"message":{}', '"message":{"a":1.0}'),
        GOOD.replace('"message":{}', '"message":{"a":-0}'),
        GOOD.replace('"message":{}', '"message":{"a":NaN}'),
        GOOD.replace('"message":{}', '"message":{"a":9007199254740993}'),
        GOOD.replace('"message":{}', '"message":{"a":' + "9" * 5000 + "}"),
        GOOD.replace('"message":{}', '"message":{"a":"\\ud800"}'),
        GOOD.replace('"message":{}', '"message":{"\\ud800":1}'),
        GOOD.replace('"message":{}', '"message":{"a":"\\/"}'),
        "[" * 500_000,
        '{"a":' * 100_000 + "1" + "}" * 100_000,
        "\ufeff" + GOOD,
        GOOD.replace(',"message":{}', ""),
        GOOD.replace('"message":{}', '"message":{},"zzz":1'),
    ],
)
def test_signed_data_that_is_no_canonical_message(data: str) -> None:
    assert opening(signed_data(data)) is reasons.REQUEST_MALFORMED


def test_depth_and_number_of_values_are_bounded() -> None:
    def nested(depth: int) -> dict:
        value: dict = {}
        for _ in range(depth):
            value = {"a": value}
        return value

    inside = MESSAGE_DEPTH_MAX - 2  # two levels are the envelope's
    assert open_signed(signed_data(rfc8785.dumps(content(message=nested(inside)))), domain=DOMAIN, now=NOW)
    assert opening(signed_data(rfc8785.dumps(content(message=nested(inside + 1))))) is reasons.REQUEST_MALFORMED
    many = content(message={"a": [0] * MESSAGE_VALUES_MAX})
    assert opening(signed_data(rfc8785.dumps(many))) is reasons.REQUEST_MALFORMED


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"domain": "other.example"}, reasons.DOMAIN_MISMATCH),
        ({"domain": ""}, reasons.DOMAIN_MISMATCH),
        ({"domain": None}, reasons.DOMAIN_MISMATCH),
        ({"message": []}, reasons.FIELD_INVALID),
        ({"message": "x"}, reasons.FIELD_INVALID),
        ({"message": None}, reasons.FIELD_INVALID),
        ({"id": ID[:-1]}, reasons.FIELD_INVALID),
        ({"id": "a" * 65}, reasons.FIELD_INVALID),
        ({"id": ID + " "}, reasons.FIELD_INVALID),
        ({"id": ID + "é"}, reasons.FIELD_INVALID),
        ({"id": 1234567890123456}, reasons.FIELD_INVALID),
        ({"expires": None}, reasons.FIELD_INVALID),
        ({"expires": 1777636800}, reasons.FIELD_INVALID),
        ({"expires": ""}, reasons.FIELD_INVALID),
        ({"expires": "2026-05-01"}, reasons.FIELD_INVALID),
        ({"expires": "2026-05-01T12:05:00"}, reasons.FIELD_INVALID),
        ({"expires": "2026-05-01T12:05:00+00:00"}, reasons.FIELD_INVALID),
        ({"expires": "2026-05-01T14:05:00+02:00"}, reasons.FIELD_INVALID),
        ({"expires": "2026-05-01t12:05:00z"}, reasons.FIELD_INVALID),
        ({"expires": "2026-05-01 12:05:00Z"}, reasons.FIELD_INVALID),
        ({"expires": "2026-13-01T12:05:00Z"}, reasons.FIELD_INVALID),
        ({"expires": "2026-05-01T12:05:60Z"}, reasons.FIELD_INVALID),
        ({"expires": "2026-05-01T12:05:00Z\n"}, reasons.FIELD_INVALID),
        ({"expires": "٢٠٢٦-05-01T12:05:00Z"}, reasons.FIELD_INVALID),
        ({"expires": "0000-00-00T00:00:00Z"}, reasons.FIELD_INVALID),
        ({"expires": "9999-12-31T23:59:59Z"}, reasons.FIELD_INVALID),  # further ahead than a message may live
        ({"expires": "2026-05-01T12:00:00Z"}, reasons.SIGNATURE_EXPIRED),
        ({"expires": "2001-01-01T00:00:00Z"}, reasons.SIGNATURE_EXPIRED),
    ],
)
def test_signed_messages_that_say_something_wrong(changes: dict, problem: Problem) -> None:
    assert opening(signed_data(rfc8785.dumps(content(**changes)))) is problem


def test_the_instant_of_expiry_is_too_late() -> None:
    signed = message()
    assert open_signed(signed, domain=DOMAIN, now=SOON - timedelta(microseconds=1)).id == ID
    assert opening(signed, now=SOON) is reasons.SIGNATURE_EXPIRED


def test_a_message_lives_an_hour_at_most() -> None:
    signed = message(expires=NOW + LIFETIME_MAX)
    assert open_signed(signed, domain=DOMAIN, now=NOW).expires == NOW + LIFETIME_MAX
    assert opening(signed, now=NOW - timedelta(microseconds=1)) is reasons.FIELD_INVALID


def test_the_same_message_opens_twice_under_the_same_id() -> None:
    """Spending the id is the store's work: opening is pure, and says what there is to spend."""
    signed = message()
    assert open_signed(signed, domain=DOMAIN, now=NOW) == open_signed(signed, domain=DOMAIN, now=NOW)
    assert len({new_id() for _ in range(100)}) == 100


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_any_json_is_refused_as_an_envelope(wire) -> None:
    assert opening(wire).status in (400, 401)


@given(st.fixed_dictionaries({"data": JSON, "pub_key": JSON, "signature": JSON}))
def test_any_members_are_refused(wire: dict) -> None:
    assert opening(wire).status in (400, 401)


@given(st.text(max_size=200) | JSON.map(json.dumps) | JSON.map(lambda value: json.dumps(content(message=value))))
def test_any_signed_data_opens_or_is_refused(data: str) -> None:
    try:
        opened = open_signed(signed_data(data.encode(errors="replace")), domain=DOMAIN, now=NOW)
    except Refused:
        return
    assert opened.signer == WALLET.address


@given(st.dictionaries(st.text(max_size=8), st.text(max_size=20) | st.integers(-(2**53) + 1, 2**53 - 1), max_size=5))
def test_what_a_wallet_signs_opens(inner: dict) -> None:
    assert open_signed(message(message=inner), domain=DOMAIN, now=NOW).message == inner


# --- the file of a wallet ---------------------------------------------------------------------------------------------
def test_a_wallet_is_kept_in_a_file_of_its_owner_and_never_shown(tmp_path: Path) -> None:
    path = tmp_path / "admin.pem"
    WALLET.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Wallet.load(path).address == WALLET.address
    assert f"{WALLET._key.private_numbers().private_value:x}" not in repr(WALLET)
    assert WALLET.address in repr(WALLET)


def test_a_wallet_is_not_overwritten_nor_read_where_others_can(tmp_path: Path) -> None:
    path = tmp_path / "admin.pem"
    WALLET.save(path)
    with pytest.raises(KeyFileError, match="not overwritten"):
        OTHER.save(path)
    path.chmod(0o640)
    with pytest.raises(KeyFileError, match="chmod 600"):
        Wallet.load(path)
