"""Whether a response is an answer to the question: every rule held and spoiled, and every byte of the real ones."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA1, SHA224, SHA256, SHA384, SHA512
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp as pyca
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given, settings
from hypothesis import strategies as st

from attest import ocsp
from attest.ocsp import NEXT_UPDATE_DEFAULT, RESPONSE_BYTES_MAX, SKEW, OcspError, Question, Status
from tests.attest.responders import (
    DAY,
    GOOD,
    HOLD,
    HOUR,
    NOW,
    OCSP_SIGNING,
    REVOKED,
    UNKNOWN,
    Party,
    answer,
    named_in,
    resigned,
)  # fmt: skip
from tests.evidence import needs_vectors
from tests.real_ocsp import ANSWERS, inquiries, recorded

SECOND = timedelta(seconds=1)


@pytest.fixture(scope="module")
def ca():
    return Party.made("An authority")


@pytest.fixture(scope="module")
def responder(ca):
    return Party.made("Its responder", ca, purposes=OCSP_SIGNING)


@pytest.fixture(scope="module")
def device(ca):
    return Party.made("A device", ca)


@pytest.fixture(scope="module")
def ask(ca, device):
    """Reads a response as an answer about the device."""
    question = Question.about(device.certificate, ca.certificate)
    return lambda response: ocsp.read(response, question, ca.certificate)


@pytest.fixture
def said(ca, responder, device):
    """A response about the device, or with one thing spoiled."""

    def make(by=responder, *, certificate=device.certificate, issuer=ca.certificate, **spoiled):
        return answer(certificate, issuer, by, **spoiled)

    return make


def refused(ask, response):
    with pytest.raises(OcspError) as why:
        ask(response)
    return str(why.value)


# --- what it says -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("status", "reason", "read"),
    [
        (GOOD, None, (Status.GOOD, "")),
        (UNKNOWN, None, (Status.UNKNOWN, "")),
        (REVOKED, None, (Status.REVOKED, "")),
        (REVOKED, HOLD, (Status.HOLD, "certificateHold")),
        (REVOKED, x509.ReasonFlags.key_compromise, (Status.REVOKED, "keyCompromise")),
        (REVOKED, x509.ReasonFlags.remove_from_crl, (Status.REVOKED, "removeFromCRL")),
        (REVOKED, x509.ReasonFlags.superseded, (Status.REVOKED, "superseded")),
    ],
)
def test_an_answer_says_one_of_four_things(ask, said, status, reason, read):
    found = ask(said(status=status, reason=reason))

    assert (found.status, found.reason) == read
    assert (found.this_update, found.next_update) == (NOW - HOUR, NOW - HOUR + DAY)


def test_an_answer_without_an_end_runs_out_after_an_hour(ask, said):
    found = ask(said(next_update=None))

    assert found.next_update - found.this_update == NEXT_UPDATE_DEFAULT == HOUR


def test_an_answer_must_not_end_before_it_begins(ask, ca, responder, device):
    """The builder would not make one, so the two times trade places."""
    response = answer(device.certificate, ca.certificate, responder)
    begin, end = (each.strftime("%Y%m%d%H%M%SZ").encode() for each in (NOW - HOUR, NOW - HOUR + DAY))

    def turned(answers):
        return [answers[0].replace(begin, b"BEGIN").replace(end, begin).replace(b"BEGIN", end)]

    assert "ends before" in refused(ask, resigned(response, responder.key, answers=turned))


def test_an_answer_is_not_of_the_future_but_for_the_skew_of_clocks(ask, said):
    found = ask(said(this_update=NOW))

    ocsp.check_time(found, NOW)
    ocsp.check_time(found, NOW - SKEW)
    ocsp.check_time(found, NOW + 1000 * DAY)  # that it has run out is no fault of its own: a policy decides
    with pytest.raises(OcspError):
        ocsp.check_time(found, NOW - SKEW - SECOND)


# --- is it an answer to the question ----------------------------------------------------------------------------------
@pytest.mark.parametrize("hashed", [SHA1(), SHA256(), SHA384()], ids=lambda each: each.name)
def test_the_certificate_may_be_named_by_any_of_three_hashes(ask, said, hashed):
    assert ask(said(hashed=hashed)).status is Status.GOOD


@pytest.mark.parametrize("hashed", [SHA224(), SHA512()], ids=lambda each: each.name)
def test_the_certificate_is_named_by_no_other_hash(ask, said, hashed):
    assert "named by" in refused(ask, said(hashed=hashed))


def test_a_good_answer_about_another_certificate_is_none(ask, ca, said):
    other = Party.made("Another device", ca)

    assert "about certificate" in refused(ask, said(certificate=other.certificate))


@pytest.mark.parametrize("spoiled", ["name", "key"])
def test_a_serial_number_means_nothing_without_its_issuer(ask, said, device, responder, spoiled):
    """The same number, of an issuer of the same name with another key, or of another name with the same key."""
    name = "An authority" if spoiled == "key" else "Another authority"
    other = Party.made(name)
    certificate = Party.made("A device", other, serial=device.certificate.serial_number).certificate

    assert "about certificate" in refused(ask, said(certificate=certificate, issuer=other.certificate))


@pytest.mark.parametrize("count", [0, 2, 3])
def test_there_is_exactly_one_answer(ask, said, responder, count):
    again = resigned(said(), responder.key, answers=lambda them: them * count)

    assert f"{count} answers" in refused(ask, again)


def test_an_answer_that_is_made_anew_is_still_one(ask, said, responder):
    """So it was the number of answers that was refused above."""
    assert ask(resigned(said(), responder.key)).status is Status.GOOD


@pytest.mark.parametrize("status", [s for s in pyca.OCSPResponseStatus if s is not pyca.OCSPResponseStatus.SUCCESSFUL])
def test_what_is_not_successful_says_nothing(ask, status):
    response = pyca.OCSPResponseBuilder.build_unsuccessful(status).public_bytes(Encoding.DER)

    assert status.name.lower() in refused(ask, response)


# --- is it by whom may give it ----------------------------------------------------------------------------------------
def test_the_issuer_itself_may_answer(ask, said, ca):
    assert ask(said(ca)).status is Status.GOOD
    assert ask(said(ca, enclosed=[])).status is Status.GOOD


def test_the_responder_may_be_named_by_key_or_by_name(ask, said):
    for encoding in pyca.OCSPResponderEncoding:
        assert ask(said(encoding=encoding)).status is Status.GOOD


@pytest.mark.parametrize("encoding", list(pyca.OCSPResponderEncoding), ids=lambda each: each.name)
def test_who_is_named_must_be_who_signed(ask, said, ca, responder, encoding):
    other = said(Party.made("Another responder", ca, purposes=OCSP_SIGNING), encoding=encoding)
    posing = resigned(said(), responder.key, responder=lambda _: named_in(other))

    assert "named is not" in refused(ask, posing)


def test_nobody_answers_for_himself(ask, said, device):
    """A device that its authority certified, to answer about revocation of nothing."""
    assert "may not sign" in refused(ask, said(device))


@pytest.mark.parametrize(
    "purposes", [None, (ExtendedKeyUsageOID.SERVER_AUTH,), (ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,)]
)
def test_a_responder_is_appointed_by_its_extended_key_usage(ask, said, ca, purposes):
    assert "may not sign" in refused(ask, said(Party.made("A clerk", ca, purposes=purposes)))


def test_the_responder_of_another_authority_is_nobody_here(ask, said):
    other = Party.made("Another authority")

    assert "appointed by" in refused(ask, said(Party.made("Its responder", other, purposes=OCSP_SIGNING)))


def test_an_authority_of_the_same_name_is_another_by_its_key(ask, said, ca):
    forger = Party.made("An authority")
    assert "not appointed" in refused(ask, said(Party.made("Its responder", forger, purposes=OCSP_SIGNING)))
    assert refused(ask, said(forger))
    assert refused(ask, said(forger, enclosed=[]))
    assert refused(ask, said(forger, enclosed=[ca.certificate]))


def test_a_responder_must_be_certified_by_the_authoritys_signature(ask, said, ca, device):
    posing = Party.made("Its responder", ca, purposes=OCSP_SIGNING, signed_by=device)

    assert "not appointed" in refused(ask, said(posing))


def test_a_responders_responder_is_none(ask, said, responder):
    below = Party.made("Below", responder, purposes=OCSP_SIGNING)

    assert "appointed by" in refused(ask, said(below))
    assert refused(ask, said(below, enclosed=[below.certificate, responder.certificate]))


def test_a_responder_that_nobody_enclosed_is_unknown(ask, said):
    assert refused(ask, said(enclosed=[]))


def test_somebody_elses_certificate_does_not_help(ask, said, device):
    """The certificate of an appointed responder, beside an answer signed by somebody else."""
    assert "signature does not hold" in refused(ask, resigned(said(), device.key))


@pytest.mark.parametrize(
    ("begins", "ends", "holds"),
    [
        (NOW - DAY, NOW + DAY, True),
        (NOW - HOUR, NOW + DAY, True),
        (NOW - DAY, NOW - HOUR, True),
        (NOW - HOUR + SECOND, NOW + DAY, False),
        (NOW - DAY, NOW - HOUR - SECOND, False),
    ],
)
def test_a_responder_answers_while_its_certificate_is_valid(ask, said, ca, begins, ends, holds):
    response = said(Party.made("Its responder", ca, purposes=OCSP_SIGNING, begins=begins, ends=ends))

    if holds:
        assert ask(response).status is Status.GOOD
    else:
        assert "not valid when it answered" in refused(ask, response)


def test_keys_are_p384(ask, said, ca):
    weak = Party.made("Its responder", ca, purposes=OCSP_SIGNING, curve=ec.SECP256R1())
    with pytest.raises(OcspError, match="P-384"):
        Question.about(weak.certificate, weak.certificate)
    assert "P-384" in refused(ask, said(weak))


# --- bytes ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "change", [lambda data: data + b"\0", lambda data: data[:-1], lambda _: b"", lambda _: b"\x30"]
)
def test_what_does_not_parse_is_no_answer(ask, said, change):
    refused(ask, change(said()))


def test_a_response_has_a_size(ask, said):
    assert "at most" in refused(ask, said() + bytes(RESPONSE_BYTES_MAX))


def test_every_byte_of_an_answer_counts(ask, said):
    response = said()
    for at in range(len(response)):
        refused(ask, response[:at] + bytes([response[at] ^ 1]) + response[at + 1 :])


@given(st.binary(max_size=300))
def test_random_bytes(data):
    issuer, question = _anybody()
    with pytest.raises(OcspError):
        ocsp.read(data, question, issuer)


@settings(max_examples=200)
@given(st.data())
def test_cut_and_changed(data):
    issuer, question = _anybody()
    whole = _answered(issuer)
    at = data.draw(st.integers(0, len(whole) - 1))
    piece = data.draw(st.binary(max_size=4))
    changed = whole[:at] + piece + whole[at + data.draw(st.integers(0, 4)) :]
    if changed == whole:
        return
    with pytest.raises(OcspError):
        ocsp.read(changed, question, issuer)


_ANYBODY = Party.made("Anybody")


def _anybody():
    return _ANYBODY.certificate, Question.about(_ANYBODY.certificate, _ANYBODY.certificate)


_ANSWERED = {}


def _answered(issuer):
    return _ANSWERED.setdefault("once", answer(issuer, issuer, _ANYBODY))


# --- questions --------------------------------------------------------------------------------------------------------
def test_a_question_is_named_by_its_issuer_and_a_serial_number(ca, device):
    question = Question.about(device.certificate, ca.certificate)
    name, key, serial = question.name.split(":")

    assert (len(name), len(key), int(serial, 16)) == (96, 96, device.certificate.serial_number)
    loaded = pyca.load_der_ocsp_request(ocsp.request(question.name))
    assert loaded.serial_number == device.certificate.serial_number
    assert (loaded.issuer_name_hash.hex(), loaded.issuer_key_hash.hex()) == (name, key)
    assert loaded.hash_algorithm.name == "sha384"


@pytest.mark.parametrize("name", ["", "a:b", "00:00:xyz", "zz:00:1", ":::", "00"])
def test_what_names_no_question_makes_no_request(name):
    with pytest.raises(ValueError, match=r".*"):
        ocsp.request(name)


# --- real responses ---------------------------------------------------------------------------------------------------
@needs_vectors
@pytest.mark.parametrize("file", ANSWERS)
def test_a_real_response_answers_about_its_certificate_and_no_other(file):
    """Seven responses, about six certificates of the device and its manifests; and the signer of the VBIOS's."""
    says, response = recorded(file)
    holding = []
    for inquiry in inquiries():
        try:
            found = ocsp.read(response, inquiry.question, inquiry.issuer)
        except OcspError:
            continue
        holding.append(inquiry)
        assert found.status is Status.GOOD
        assert (str(found.this_update), str(found.next_update)) == (says["this_update"], says["next_update"])

    assert [f"{each.question.serial:x}" for each in holding] == [says["target_serial"]]


@needs_vectors
@pytest.mark.parametrize("file", ANSWERS)
def test_every_byte_of_a_real_response_counts(file):
    says, response = recorded(file)
    (inquiry,) = (each for each in inquiries() if f"{each.question.serial:x}" == says["target_serial"])
    assert ocsp.read(response, inquiry.question, inquiry.issuer).status is Status.GOOD

    for at in range(len(response)):
        spoiled = response[:at] + bytes([response[at] ^ 1]) + response[at + 1 :]
        with pytest.raises(OcspError):
            ocsp.read(spoiled, inquiry.question, inquiry.issuer)


@needs_vectors
def test_a_real_response_is_not_of_the_future():
    says, response = recorded("certificate_l4.der")
    (inquiry,) = (each for each in inquiries() if f"{each.question.serial:x}" == says["target_serial"])
    found = ocsp.read(response, inquiry.question, inquiry.issuer)

    ocsp.check_time(found, datetime(2025, 8, 21, 6, 47, 7, tzinfo=UTC))
    with pytest.raises(OcspError):
        ocsp.check_time(found, datetime(2025, 8, 21, tzinfo=UTC))


# --- what a response names --------------------------------------------------------------------------------------------
def test_a_response_names_its_question_and_since_when(ca, device, said):
    assert ocsp.named(said()) == (Question.about(device.certificate, ca.certificate).name, NOW - HOUR)


@pytest.mark.parametrize("hashed", [SHA1(), SHA256()])
def test_a_response_that_names_its_issuer_otherwise_names_no_question(said, hashed):
    assert ocsp.named(said(hashed=hashed)) is None


def test_a_response_of_two_answers_names_no_question(said, responder):
    assert ocsp.named(resigned(said(), responder.key, answers=lambda them: them * 2)) is None


@pytest.mark.parametrize(
    "response",
    [
        b"",
        b"nonsense",
        pyca.OCSPResponseBuilder.build_unsuccessful(pyca.OCSPResponseStatus.TRY_LATER).public_bytes(Encoding.DER),
    ],
)
def test_what_answers_nothing_names_no_question(response):
    assert ocsp.named(response) is None


def test_a_large_response_names_no_question(said):
    assert ocsp.named(said().ljust(RESPONSE_BYTES_MAX + 1, b"\0")) is None
