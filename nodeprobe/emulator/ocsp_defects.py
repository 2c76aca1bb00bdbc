"""What may be wrong with a revocation answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from types import MappingProxyType

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID

from attest.reasons import (
    CHAIN_REVOKED,
    CHAIN_STATUS_UNKNOWN,
    OCSP_MALFORMED,
    REVOCATION_HOLD,
    REVOCATION_STALE,
    RIM_REVOKED,
    Reason,
)
from nodeprobe.emulator.der import BIT_STRING, ENUMERATED, OCTET_STRING, SEQUENCE, content, context, der, elements
from nodeprobe.emulator.ocsp import VALIDITY, AnswerDraft, Spoil, responder_below, responder_profile
from nodeprobe.emulator.pki import Authority, issue, new_key

RESPONSE_BYTES_MAX = 16 << 10
_SUCCESSFUL = der(ENUMERATED, b"\0")
_CLIENT = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])


@dataclass(frozen=True, slots=True)
class OcspDefect:
    """One thing that is wrong with an answer."""

    name: str
    meaning: str
    reason: Reason  # that a verifier must give, with the policy `lab`, of a certificate in a device's chain
    spoil: Spoil
    of_rim: Reason | None = None  # of one in a manifest's, where it is another


def _revoked(reason: x509.ReasonFlags | None) -> Spoil:
    def spoil(draft: AnswerDraft) -> None:
        draft.status, draft.reason = ocsp.OCSPCertStatus.REVOKED, reason

    return spoil


def _unknown(draft: AnswerDraft) -> None:
    draft.status = ocsp.OCSPCertStatus.UNKNOWN


def _other_certificate(draft: AnswerDraft) -> None:
    """A good answer about another certificate of the same issuer, made for this."""
    draft.subject = draft.about.issuer.below(responder_profile(draft.this_update)).certificate


def _at(shift: timedelta) -> Spoil:
    """As given at another time, all else the same."""

    def spoil(draft: AnswerDraft) -> None:
        draft.this_update, draft.next_update = draft.this_update + shift, draft.next_update + shift

    return spoil


def _by(draft: AnswerDraft, responder: Authority) -> None:
    draft.responder = responder


def _usage(*critical: x509.ExtensionType) -> Spoil:
    return lambda draft: _by(draft, draft.about.issuer.below(responder_profile(draft.this_update, critical)))


def _of_another_authority(draft: AnswerDraft) -> None:
    root = draft.pki.device_root if draft.about.root == draft.pki.rim_root else draft.pki.rim_root
    _by(draft, responder_below(root, draft.this_update))


def _of_a_namesake(draft: AnswerDraft) -> None:
    """The issuer's name is right, and the key is somebody else's."""
    key, stranger = new_key(), new_key()
    profile, name = responder_profile(draft.this_update), draft.about.issuer.certificate.subject
    _by(draft, Authority(issue(profile, key.public_key(), name, stranger), key))


def _expired_responder(draft: AnswerDraft) -> None:
    profile = responder_profile(draft.this_update)
    _by(draft, draft.about.issuer.below(replace(profile, not_after=draft.this_update - timedelta(days=1))))


def _edit(edit: Callable[[bytes], bytes]) -> Spoil:
    return lambda draft: draft.edits.append(edit)


def _flipped(data: bytes) -> bytes:
    """The last bit of the signature turned."""
    signature = ocsp.load_der_ocsp_response(data).signature
    return data.replace(signature, signature[:-1] + bytes([signature[-1] ^ 1]))


def _end_edited(data: bytes) -> bytes:
    """The last bit of what was signed, of the end of its validity, turned after signing."""
    tbs = ocsp.load_der_ocsp_response(data).tbs_response_bytes
    return data.replace(tbs, tbs[:-1] + bytes([tbs[-1] ^ 1]))


def _other_key(draft: AnswerDraft) -> None:
    draft.edits.append(lambda data: _signed_again(data, new_key()))


def _twice(draft: AnswerDraft) -> None:
    """The answer stands in the response twice, all of it rightly signed."""
    draft.edits.append(lambda data: _signed_again(data, draft.responder.key, times=2))


def _signed_again(data: bytes, key: ec.EllipticCurvePrivateKey, *, times: int = 1) -> bytes:
    """A response with its answer so many times, signed by this key, which no library would do."""
    (body,) = elements(content(data)[len(_SUCCESSFUL) :])
    ((kind, octets),) = [elements(content(each)) for each in elements(content(body))]
    tbs, algorithm, _signature, certificates = elements(content(content(octets)))
    *head, singles = elements(content(tbs))
    tbs = der(SEQUENCE, *head, der(SEQUENCE, content(singles) * times))
    signature = der(BIT_STRING, b"\0", key.sign(tbs, ec.ECDSA(hashes.SHA384())))
    basic = der(OCTET_STRING, der(SEQUENCE, tbs, algorithm, signature, certificates))
    return der(SEQUENCE, _SUCCESSFUL, context(0, der(SEQUENCE, kind, basic), constructed=True))


def _unsuccessful(status: ocsp.OCSPResponseStatus) -> Callable[[bytes], bytes]:
    return lambda _data: ocsp.OCSPResponseBuilder.build_unsuccessful(status).public_bytes(Encoding.DER)


def _malformed(name: str, meaning: str, spoil: Spoil) -> OcspDefect:
    return OcspDefect(name, meaning, OCSP_MALFORMED, spoil)


_KEY_COMPROMISE, _HOLD = x509.ReasonFlags.key_compromise, x509.ReasonFlags.certificate_hold
_ALL = (
    OcspDefect("revoked", "Revoked: its key leaked.", CHAIN_REVOKED, _revoked(_KEY_COMPROMISE), RIM_REVOKED),
    OcspDefect("revoked-unexplained", "Revoked, nobody says why.", CHAIN_REVOKED, _revoked(None), RIM_REVOKED),
    OcspDefect("unknown", "The responder does not know it.", CHAIN_STATUS_UNKNOWN, _unknown, RIM_REVOKED),
    OcspDefect("hold", "On hold, which may be taken back.", REVOCATION_HOLD, _revoked(_HOLD)),
    OcspDefect("ran-out", "An answer of the day before yesterday.", REVOCATION_STALE, _at(-2 * VALIDITY)),
    _malformed("future", "An answer of the day after tomorrow.", _at(2 * VALIDITY)),
    _malformed("other-certificate", "The answer is about another certificate.", _other_certificate),
    _malformed("responder-no-usage", "The responder may not sign answers.", _usage()),
    _malformed("responder-other-usage", "The responder may do something else.", _usage(_CLIENT)),
    _malformed("responder-other-authority", "Another authority appointed the responder.", _of_another_authority),
    _malformed("responder-namesake", "The responder's issuer has the right name only.", _of_a_namesake),
    _malformed("responder-expired", "The responder was none any more when it answered.", _expired_responder),
    _malformed("signature-other-key", "Signed by a key that no certificate names.", _other_key),
    _malformed("signature-bad", "The signature is wrong by one bit.", _edit(_flipped)),
    _malformed("edited", "Good for longer than the responder said, after signing.", _edit(_end_edited)),
    _malformed("two-answers", "The same answer twice in one response.", _twice),
    _malformed("try-later", "No answer: try later.", _edit(_unsuccessful(ocsp.OCSPResponseStatus.TRY_LATER))),
    _malformed(
        "unauthorized", "No answer: not authorised.", _edit(_unsuccessful(ocsp.OCSPResponseStatus.UNAUTHORIZED))
    ),
    _malformed("empty", "No byte at all.", _edit(lambda _data: b"")),
    _malformed("not-der", "Something else.", _edit(lambda _data: b"not found")),
    _malformed("too-large", "More bytes than any answer has.", _edit(lambda data: data.ljust(RESPONSE_BYTES_MAX + 1))),
)
OCSP_DEFECTS: Mapping[str, OcspDefect] = MappingProxyType({each.name: each for each in _ALL})
