"""
Revocation by OCSP (RFC 6960): which question to ask about a certificate, and whether an answer is one.

A question is named by hashes of the issuer's name and key and by the serial number, so that whoever fetches needs
nothing else, and a cache can share answers about certificates that a whole fleet has in common.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP384R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, SignatureAlgorithmOID

from attest.x509 import ECDSA_WITH_SHA384, UNREADABLE, der_element

RESPONSE_BYTES_MAX = 16 << 10
SKEW = timedelta(minutes=5)  # how far a responder's clock may be ahead of ours
NEXT_UPDATE_DEFAULT = timedelta(hours=1)  # for responders that do not say when they will know more
_SUCCESSFUL, _BASIC = bytes.fromhex("0a0100"), bytes.fromhex("06092b0601050507300101")  # ENUMERATED, OID; both DER
_HASHES: dict[str, Callable[[bytes], hashlib._Hash]] = {
    "sha1": hashlib.sha1,  # names a certificate, proves nothing: what proves is the responder's signature
    "sha256": hashlib.sha256,
    "sha384": hashlib.sha384,
}


class OcspError(Exception):
    """The bytes are no valid answer to the question. Says nothing about the certificate."""


class Status(StrEnum):
    GOOD = "good"
    REVOKED = "revoked"
    HOLD = "hold"  # revoked with the reason certificateHold: may be taken back
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Issuer:
    """Who issued a certificate, as questions about it name them."""

    name: bytes  # Name, DER
    key: bytes  # public point, X9.62 uncompressed
    hashes: str  # SHA-384 of both, lower hex, with a colon between

    @classmethod
    def of(cls, name: bytes, key: object) -> Issuer:
        point = _point(key)
        return cls(name, point, ":".join(hashlib.sha384(part).hexdigest() for part in (name, point)))


@dataclass(frozen=True, slots=True)
class Question:
    """About one certificate: is it revoked? Asked of whom its issuer's key appointed."""

    issuer: Issuer
    serial: int

    @classmethod
    def about(cls, certificate: x509.Certificate, issuer: x509.Certificate) -> Question:
        return cls(Issuer.of(certificate.issuer.public_bytes(), issuer.public_key()), certificate.serial_number)

    @property
    def name(self) -> str:
        """The hashes of the issuer, and the serial: lower hex, with colons between."""
        return f"{self.issuer.hashes}:{self.serial:x}"


@dataclass(frozen=True, slots=True)
class Answer:
    """A genuine answer, signed by whom it may be while that certificate was valid; `check_time` compares with now."""

    status: Status
    this_update: datetime
    next_update: datetime  # from here on it has run out; whether that matters, a policy says
    reason: str  # of a revocation; empty if none was given


def request(name: str) -> bytes:
    """The DER request for a question of that name. ValueError if it is none."""
    issuer_name, issuer_key, serial = name.split(":")
    builder = ocsp.OCSPRequestBuilder().add_certificate_by_hash(
        bytes.fromhex(issuer_name), bytes.fromhex(issuer_key), int(serial, 16), SHA384()
    )
    return builder.build().public_bytes(Encoding.DER)


def read(response: bytes, question: Question, issuer: x509.Certificate) -> Answer:
    """
    The answer in a response, DER, if it is one to this question, by the issuer or whom it appointed. OcspError if not.
    """
    if len(response) > RESPONSE_BYTES_MAX:
        raise OcspError(f"{len(response)} bytes, at most {RESPONSE_BYTES_MAX}")
    try:
        loaded = ocsp.load_der_ocsp_response(response)
        answer = _read(loaded, question, issuer)
        if response != _encoded(loaded):
            raise OcspError("encoded otherwise, or with something beside the answer")
        return answer
    except UNREADABLE as e:
        raise OcspError(f"malformed: {e}") from e


def named(response: bytes) -> tuple[str, datetime] | None:
    """
    What a response says it answers, by `Question.name`, and since when; None for all else. Believed for finding only:
    it names its issuer by SHA-384, as our questions do, or is not found.
    """
    if len(response) > RESPONSE_BYTES_MAX:
        return None
    try:
        loaded = ocsp.load_der_ocsp_response(response)
        if loaded.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
            return None
        (single,) = loaded.responses
        if single.hash_algorithm.name != "sha384":
            return None
        name = f"{single.issuer_name_hash.hex()}:{single.issuer_key_hash.hex()}:{single.serial_number:x}"
        return name, single.this_update_utc
    except UNREADABLE:
        return None


def check_time(answer: Answer, now: datetime) -> None:
    """That the answer had been given by `now`, give or take the skew of clocks. OcspError otherwise."""
    if answer.this_update > now + SKEW:
        raise OcspError(f"answered at {answer.this_update}, which is to come")


def _read(response: ocsp.OCSPResponse, question: Question, issuer: x509.Certificate) -> Answer:
    if response.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
        raise OcspError(f"the responder said {response.response_status.name.lower()}")
    singles = list(response.responses)
    if len(singles) != 1:
        raise OcspError(f"{len(singles)} answers, want one")
    single = singles[0]
    _check_subject(single, question)
    signer = _check_signature(response, issuer)
    this_update = single.this_update_utc
    if not signer.not_valid_before_utc <= this_update <= signer.not_valid_after_utc:
        raise OcspError("the responder's certificate was not valid when it answered")
    next_update = single.next_update_utc or this_update + NEXT_UPDATE_DEFAULT
    if next_update <= this_update:
        raise OcspError("the answer ends before it begins")
    status, reason = _status(single)
    return Answer(status, this_update, next_update, reason)


def _encoded(response: ocsp.OCSPResponse) -> bytes:
    """
    The one encoding that a successful response with these signed bytes and this signature has. So what is outside of
    them cannot be otherwise either, and every byte counts.
    """
    certificates = b"".join(each.public_bytes(Encoding.DER) for each in response.certificates)
    basic = response.tbs_response_bytes + ECDSA_WITH_SHA384 + der_element(0x03, b"\0" + response.signature)
    if certificates:
        basic += der_element(0xA0, der_element(0x30, certificates))
    content = _BASIC + der_element(0x04, der_element(0x30, basic))
    return der_element(0x30, _SUCCESSFUL + der_element(0xA0, der_element(0x30, content)))


def _status(single: ocsp.OCSPSingleResponse) -> tuple[Status, str]:
    if single.certificate_status is ocsp.OCSPCertStatus.GOOD:
        return Status.GOOD, ""
    if single.certificate_status is not ocsp.OCSPCertStatus.REVOKED:
        return Status.UNKNOWN, ""
    if single.revocation_reason is x509.ReasonFlags.certificate_hold:
        return Status.HOLD, x509.ReasonFlags.certificate_hold.value
    return Status.REVOKED, single.revocation_reason.value if single.revocation_reason else ""


def _check_subject(single: ocsp.OCSPSingleResponse, question: Question) -> None:
    digest = _HASHES.get(single.hash_algorithm.name)
    if digest is None:
        raise OcspError(f"the certificate is named by {single.hash_algorithm.name}")
    same = (
        hmac.compare_digest(single.issuer_name_hash, digest(question.issuer.name).digest())
        and hmac.compare_digest(single.issuer_key_hash, digest(question.issuer.key).digest())
        and single.serial_number == question.serial
    )
    if not same:
        raise OcspError(f"about certificate {single.serial_number:x}, not {question.serial:x}")


def _check_signature(response: ocsp.OCSPResponse, issuer: x509.Certificate) -> x509.Certificate:
    """By the issuer itself, or by a responder that this very issuer appointed; which of them."""
    signer = issuer
    if response.certificates:
        signer = response.certificates[0]
        if signer != issuer:
            _check_appointed(signer, issuer)
    key = _key(signer)
    named = response.responder_key_hash
    if named is not None and not hmac.compare_digest(named, hashlib.sha1(_point(key)).digest()):  # noqa: S324 - RFC 6960
        raise OcspError("the responder named is not the one that signed")
    if response.responder_name is not None and response.responder_name != signer.subject:
        raise OcspError("the responder named is not the one that signed")
    if response.signature_algorithm_oid != SignatureAlgorithmOID.ECDSA_WITH_SHA384:
        raise OcspError("signed otherwise than by ecdsa-with-SHA384")
    try:
        key.verify(response.signature, response.tbs_response_bytes, ECDSA(SHA384()))
    except InvalidSignature as e:
        raise OcspError("the responder's signature does not hold") from e
    return signer


def _check_appointed(responder: x509.Certificate, issuer: x509.Certificate) -> None:
    if responder.issuer != issuer.subject:
        raise OcspError(f"the responder was appointed by {responder.issuer.rfc4514_string()}")
    try:
        usage = responder.extensions.get_extension_for_oid(ExtensionOID.EXTENDED_KEY_USAGE).value
    except x509.ExtensionNotFound as e:
        raise OcspError("the responder may not sign answers") from e
    if not isinstance(usage, x509.ExtendedKeyUsage) or ExtendedKeyUsageOID.OCSP_SIGNING not in usage:
        raise OcspError("the responder may not sign answers")
    signed, signature = responder.tbs_certificate_bytes, der_element(0x03, b"\0" + responder.signature)
    if responder.public_bytes(Encoding.DER) != der_element(0x30, signed + ECDSA_WITH_SHA384 + signature):
        raise OcspError("the responder's certificate is encoded or signed otherwise than by ecdsa-with-SHA384")
    try:
        _key(issuer).verify(responder.signature, signed, ECDSA(SHA384()))
    except InvalidSignature as e:
        raise OcspError("the responder was not appointed by the issuer's key") from e


def _key(certificate: x509.Certificate) -> EllipticCurvePublicKey:
    return _p384(certificate.public_key())


def _p384(key: object) -> EllipticCurvePublicKey:
    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP384R1):
        raise OcspError("a key other than P-384")
    return key


def _point(key: object) -> bytes:
    return _p384(key).public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
