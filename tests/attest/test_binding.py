"""What a nonce commits to: every word of the statement, under its own tag, in a form that others can compute."""

import hashlib
import json
from dataclasses import fields, replace

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from attest.binding import PROFILE, Statement, Strength, gpu_nonce

STATEMENT = Statement("11" * 32, "192.0.2.7", "secret1wallet", "02" + "ab" * 32, "cd" * 32)


def test_the_nonce_is_what_the_profile_says():
    """Computed here by hand, with nothing of ours but the names."""
    text = (
        '{"challenge":"' + "11" * 32 + '","ip_address":"192.0.2.7","payment_wallet":"secret1wallet",'
        '"tls_spki_sha256":"' + "cd" * 32 + '","worker_key":"02' + "ab" * 32 + '"}'
    )
    inner = hashlib.sha256(text.encode()).digest()

    assert PROFILE == "workermanager/v1"
    assert gpu_nonce(STATEMENT) == hashlib.sha256(b"workermanager/v1 gpu\x00" + inner).digest()
    assert len(gpu_nonce(STATEMENT)) == 32


@pytest.mark.parametrize("name", [each.name for each in fields(Statement)])
def test_every_word_counts(name):
    assert gpu_nonce(replace(STATEMENT, **{name: getattr(STATEMENT, name) + "0"})) != gpu_nonce(STATEMENT)


def test_words_do_not_run_into_each_other():
    one = replace(STATEMENT, ip_address="192.0.2.7", payment_wallet="0a")
    other = replace(STATEMENT, ip_address="192.0.2.70", payment_wallet="a")

    assert gpu_nonce(one) != gpu_nonce(other)


texts = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=20)


@given(st.tuples(*[texts] * len(fields(Statement))))
def test_the_statement_is_canonical_json(words):
    statement = Statement(*words)
    said = dict(zip([each.name for each in fields(Statement)], words, strict=True))

    assert statement.digest() == hashlib.sha256(rfc8785.dumps(said)).digest()
    assert json.loads(rfc8785.dumps(said)) == said


def test_a_challenge_is_not_its_own_nonce():
    assert gpu_nonce(STATEMENT).hex() != STATEMENT.challenge


def test_strengths_are_in_order():
    order = list(Strength)
    for place, strength in enumerate(order):
        assert [strength.reaches(each) for each in order] == [each <= place for each in range(len(order))]
