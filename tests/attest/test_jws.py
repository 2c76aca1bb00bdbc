"""Compact tokens are read in their one spelling and verified with one algorithm, or refused for what is wrong."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws as library
from joserfc.jwk import ECKey

from attest import jws
from attest.jws import JwsError, JwsFault

HEADER = {"alg": "ES384", "kid": "a-key"}
KEY = ec.generate_private_key(ec.SECP384R1())


def b64(data: bytes | dict[str, Any]) -> str:
    return (
        base64.urlsafe_b64encode(data if isinstance(data, bytes) else json.dumps(data).encode()).rstrip(b"=").decode()
    )


def token(
    header: bytes | dict[str, Any] = b"", payload: bytes | dict[str, Any] = b"{}", signature: bytes = bytes(96)
) -> str:
    return ".".join((b64(header or HEADER), b64(payload), b64(signature)))


def fault(text: object) -> JwsFault:
    with pytest.raises(JwsError) as caught:
        jws.read(text)
    return caught.value.fault


def test_what_another_library_signed_is_verified() -> None:
    text = library.serialize_compact({**HEADER, "typ": "JWT"}, b'{"iss": "me"}', ECKey.import_key(KEY), ["ES384"])
    read = jws.read(text)
    own, other = (
        jws.read_key(dict(ECKey.import_key(key.public_key()).as_dict()))
        for key in (KEY, ec.generate_private_key(ec.SECP384R1()))
    )

    assert (read.kid, jws.verify(read, own)) == ("a-key", {"iss": "me"})
    with pytest.raises(JwsError) as caught:
        jws.verify(read, other)
    assert caught.value.fault is JwsFault.SIGNATURE


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (None, JwsFault.MALFORMED),
        (b"bytes", JwsFault.MALFORMED),
        ("", JwsFault.MALFORMED),
        ("a.b", JwsFault.MALFORMED),
        (token() + ".c", JwsFault.MALFORMED),
        (token() + "\n", JwsFault.MALFORMED),
        (token() + "=", JwsFault.MALFORMED),
        (" " + token(), JwsFault.MALFORMED),
        ("A." + token().partition(".")[2], JwsFault.MALFORMED),  # no number of bytes is written with one character
        (token(payload=b"{} ").replace("e30g", "e30h"), JwsFault.MALFORMED),
        (token(payload=b"{}").replace(".e30.", ".e31."), JwsFault.MALFORMED),  # unused bits
        (token(header=b"[]"), JwsFault.MALFORMED),
        (token(header=b"\xff"), JwsFault.MALFORMED),
        (token(header=b'{"alg": "none", "alg": "ES384", "kid": "a"}'), JwsFault.MALFORMED),
        (token(payload=b"[]"), JwsFault.MALFORMED),
        (token(payload=b"NaN"), JwsFault.MALFORMED),
        (token(payload=b'{"a": -Infinity}'), JwsFault.MALFORMED),
        (token(payload=b'{"a": ' * 17 + b"1" + b"}" * 17), JwsFault.MALFORMED),
        (token(payload=b"[" * 20_000), JwsFault.MALFORMED),
        (token(payload=b'{"a": 1, "a": 1}'), JwsFault.MALFORMED),
        (token(payload=b'{"a": "' + b"x" * jws.TOKEN_CHARS_MAX + b'"}'), JwsFault.MALFORMED),
        (token(header={"alg": "none"}, signature=b""), JwsFault.ALGORITHM),
        (token(header={"alg": ["ES384"], "kid": "a"}), JwsFault.ALGORITHM),
        (token(header={**HEADER, "zip": "DEF"}), JwsFault.HEADER),
        (token(header={**HEADER, "kid": "a\n"}), JwsFault.HEADER),
        (token(signature=b""), JwsFault.SIGNATURE),
        (token(signature=bytes(95)), JwsFault.SIGNATURE),
        (token(signature=bytes(97)), JwsFault.SIGNATURE),
    ],
)
def test_what_is_no_token_of_ours(text: object, wanted: JwsFault) -> None:
    assert fault(text) is wanted


def test_the_zero_signature_is_nobodys() -> None:
    """As verifiers once accepted it that forgot to look whether r and s are in range."""
    key = jws.read_key(dict(ECKey.import_key(KEY.public_key()).as_dict()))
    with pytest.raises(JwsError) as caught:
        jws.verify(jws.read(token()), key)
    assert caught.value.fault is JwsFault.SIGNATURE


@given(
    st.text(max_size=300)
    | st.tuples(st.binary(), st.binary(), st.binary()).map(lambda parts: ".".join(map(b64, parts)))
)
def test_any_text_is_a_token_or_refused(text: str) -> None:
    try:
        jws.read(text)
    except JwsError:
        return
