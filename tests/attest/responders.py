"""
Authorities and OCSP responders for tests: they answer about certificates, good, or with one thing spoiled.

Made with pyca/cryptography's builders and none of our own code, so that our reader is not measured by itself.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NOW = datetime(2030, 1, 2, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
GOOD, REVOKED, UNKNOWN = ocsp.OCSPCertStatus.GOOD, ocsp.OCSPCertStatus.REVOKED, ocsp.OCSPCertStatus.UNKNOWN
HOLD = x509.ReasonFlags.certificate_hold
OCSP_SIGNING = (ExtendedKeyUsageOID.OCSP_SIGNING,)
LATER_THAN_THIS = object()  # of `next_update`: a day after `this_update`


def named(text):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


@dataclass(frozen=True)
class Party:
    """Whoever holds a key: an authority, a responder, a device."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def made(cls, name, issuer=None, *, purposes=None, curve=None, begins=None, ends=None, serial=None, signed_by=None):
        """Signed by `issuer`, or by itself; `signed_by` spoils that."""
        key = ec.generate_private_key(curve or ec.SECP384R1())
        builder = (
            x509.CertificateBuilder()
            .subject_name(named(name))
            .issuer_name(issuer.certificate.subject if issuer else named(name))
            .public_key(key.public_key())
            .serial_number(serial or x509.random_serial_number())
            .not_valid_before(begins or NOW - 365 * DAY)
            .not_valid_after(ends or NOW + 365 * DAY)
        )
        if purposes is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=True)
        signer = signed_by or issuer
        return cls(builder.sign(signer.key if signer else key, SHA384()), key)


def answer(
    certificate,
    issuer,
    by,
    *,
    status=GOOD,
    reason=None,
    this_update=NOW - HOUR,
    next_update=LATER_THAN_THIS,
    hashed=None,
    enclosed=None,
    encoding=ocsp.OCSPResponderEncoding.HASH,
):
    """What `by` says about a certificate that `issuer` issued, DER. Certificates are pyca's, parties ours."""
    builder = ocsp.OCSPResponseBuilder().add_response(
        certificate,
        issuer,
        hashed or SHA384(),
        status,
        this_update,
        this_update + DAY if next_update is LATER_THAN_THIS else next_update,
        this_update - HOUR if status is REVOKED else None,
        reason,
    )
    builder = builder.responder_id(encoding, by.certificate)
    enclosed = [by.certificate] if enclosed is None else enclosed
    if enclosed:
        builder = builder.certificates(enclosed)
    return builder.sign(by.key, SHA384()).public_bytes(Encoding.DER)


def elements(data):
    """The DER elements in `data`, each whole."""
    found = []
    while data:
        size, head = data[1], 2
        if size & 0x80:
            head += size & 0x7F
            size = int.from_bytes(data[2:head], "big")
        found.append(data[: head + size])
        data = data[head + size :]
    return found


def content(element):
    return element[2 + (element[1] & 0x7F if element[1] & 0x80 else 0) :]


def resigned(response, key, *, answers=lambda them: them, responder=lambda it: it):
    """The response with its answers (each DER) or its responder's name edited, signed anew by `key`."""
    loaded = ocsp.load_der_ocsp_response(response)
    who, produced, said, *rest = elements(content(loaded.tbs_response_bytes))
    tbs = element(0x30, responder(who), produced, element(0x30, *answers(elements(content(said)))), *rest)
    algorithm = bytes.fromhex("300a06082a8648ce3d040303")
    signature = element(0x03, b"\0", key.sign(tbs, ec.ECDSA(SHA384())))
    certificates = b"".join(each.public_bytes(Encoding.DER) for each in loaded.certificates)
    basic = element(0x30, tbs, algorithm, signature, element(0xA0, element(0x30, certificates)))
    content_ = element(0x30, bytes.fromhex("06092b0601050507300101"), element(0x04, basic))
    return element(0x30, bytes.fromhex("0a0100"), element(0xA0, content_))


def named_in(response):
    """Who the response says that its responder is, DER."""
    return elements(content(ocsp.load_der_ocsp_response(response).tbs_response_bytes))[0]


def element(tag, *parts):
    """One DER element."""
    data = b"".join(parts)
    size = len(data)
    length = [size] if size < 0x80 else [0x81, size] if size < 0x100 else [0x82, size >> 8, size & 0xFF]
    return bytes([tag, *length]) + data
