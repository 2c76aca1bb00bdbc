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
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, SignatureAlgorithmOID

from attest.x509 import UNREADABLE

RESPONSE_BYTES_MAX = 16 << 10
SKEW = timedelta(minutes=5)  # how far a responder's clock may be ahead of ours
NEXT_UPDATE_DEFAULT = timedelta(hours=1)  # for responders that do not say when they will know more
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
class Question:
    """About one certificate: is it revoked? Asked of whom its issuer's key appointed."""

    issuer_name: bytes  # Name, DER
    issuer_key: bytes  # public point, X9.62 uncompressed
    serial: int

    @classmethod
    def about(cls, certificate: x509.Certificate, issuer: x509.Certificate) -> Question:
        return cls(certificate.issuer.public_bytes(), _point(issuer.public_key()), certificate.serial_number)

    @property
    def name(self) -> str:
        """SHA-384 of the issuer's name and of its key, and the serial: lower hex, with colons between."""
        hashes = (hashlib.sha384(part).hexdigest() for part in (self.issuer_name, self.issuer_key))
        return ":".join((*hashes, f"{self.serial:x}"))


@dataclass(frozen=True, slots=True)
class Answer:
    """A genuine answer. It counts from `this_update` on; at `next_update` it has run out."""

    status: Status
    this_update: datetime
    next_update: datetime
    reason: str  # of a revocation; empty if none was given


def request(name: str) -> bytes:
    """The DER request for a question of that name. ValueError if it is none."""
    issuer_name, issuer_key, serial = name.split(":")
    builder = ocsp.OCSPRequestBuilder().add_certificate_by_hash(
        bytes.fromhex(issuer_name), bytes.fromhex(issuer_key), int(serial, 16), SHA384()
    )
    return builder.build().public_bytes(Encoding.DER)


def read(response: bytes, question: Question, issuer: x509.Certificate, now: datetime) -> Answer:
    """
    The answer in a response, DER, if it is one to this question, by the issuer or whom it appointed. OcspError if not.

    Whether the answer has run out is the caller's to judge: that is a matter of policy.
    """
    if len(response) > RESPONSE_BYTES_MAX:
        raise OcspError(f"{len(response)} bytes, at most {RESPONSE_BYTES_MAX}")
    try:
        return _read(ocsp.load_der_ocsp_response(response), question, issuer, now)
    except UNREADABLE as e:
        raise OcspError(f"malformed: {e}") from e


def _read(response: ocsp.OCSPResponse, question: Question, issuer: x509.Certificate, now: datetime) -> Answer:
    if response.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
        raise OcspError(f"the responder said {response.response_status.name.lower()}")
    singles = list(response.responses)
    if len(singles) != 1:
        raise OcspError(f"{len(singles)} answers, want one")
    single = singles[0]
    _check_subject(single, question)
    _check_signature(response, issuer, now)
    this_update = single.this_update_utc
    if this_update > now + SKEW:
        raise OcspError(f"answered at {this_update}, which is to come")
    next_update = single.next_update_utc or this_update + NEXT_UPDATE_DEFAULT
    if next_update <= this_update:
        raise OcspError("the answer ends before it begins")
    status, reason = _status(single)
    return Answer(status, this_update, next_update, reason)


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
        hmac.compare_digest(single.issuer_name_hash, digest(question.issuer_name).digest())
        and hmac.compare_digest(single.issuer_key_hash, digest(question.issuer_key).digest())
        and single.serial_number == question.serial
    )
    if not same:
        raise OcspError(f"about certificate {single.serial_number:x}, not {question.serial:x}")


def _check_signature(response: ocsp.OCSPResponse, issuer: x509.Certificate, now: datetime) -> None:
    """By the issuer itself, or by a responder that this very issuer appointed, and that is valid now."""
    signer = issuer
    if response.certificates:
        signer = response.certificates[0]
        if signer != issuer:
            _check_appointed(signer, issuer, now)
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


def _check_appointed(responder: x509.Certificate, issuer: x509.Certificate, now: datetime) -> None:
    if responder.issuer != issuer.subject:
        raise OcspError(f"the responder was appointed by {responder.issuer.rfc4514_string()}")
    try:
        usage = responder.extensions.get_extension_for_oid(ExtensionOID.EXTENDED_KEY_USAGE).value
    except x509.ExtensionNotFound as e:
        raise OcspError("the responder may not sign answers") from e
    if not isinstance(usage, x509.ExtendedKeyUsage) or ExtendedKeyUsageOID.OCSP_SIGNING not in usage:
        raise OcspError("the responder may not sign answers")
    if not responder.not_valid_before_utc <= now <= responder.not_valid_after_utc:
        raise OcspError("the responder's certificate is not valid at this time")
    if responder.signature_algorithm_oid != SignatureAlgorithmOID.ECDSA_WITH_SHA384:
        raise OcspError("the responder's certificate is signed otherwise than by ecdsa-with-SHA384")
    try:
        _key(issuer).verify(responder.signature, responder.tbs_certificate_bytes, ECDSA(SHA384()))
    except InvalidSignature as e:
        raise OcspError("the responder was not appointed by the issuer's key") from e


def _key(certificate: x509.Certificate) -> EllipticCurvePublicKey:
    key = certificate.public_key()
    if not isinstance(key, EllipticCurvePublicKey) or key.curve.name != "secp384r1":
        raise OcspError("a key other than P-384")
    return key


def _point(key: object) -> bytes:
    if not isinstance(key, EllipticCurvePublicKey):
        raise OcspError("a key other than P-384")
    return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
