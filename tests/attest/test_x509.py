"""Certificates and raw signatures by themselves; chains of them are in test_chain."""

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.serialization import Encoding

from attest.x509 import CERTIFICATES_MAX, SIGNATURE_BYTES, load_pem, verify_raw_signature
from tests.attest.responders import Party

SIGNED = b"what is signed"


def raw(key, *, hashed=SHA384, half=48):
    r, s = decode_dss_signature(key.sign(SIGNED, ec.ECDSA(hashed())))
    return r.to_bytes(half, "big") + s.to_bytes(half, "big")


@pytest.fixture(scope="module")
def key():
    return ec.generate_private_key(ec.SECP384R1())


def test_a_raw_signature_holds_for_its_key_and_content(key):
    signature = raw(key)
    other = ec.generate_private_key(ec.SECP384R1()).public_key()

    assert verify_raw_signature(key.public_key(), signature, SIGNED)
    assert not verify_raw_signature(key.public_key(), signature, SIGNED + b"!")
    assert not verify_raw_signature(other, signature, SIGNED)
    assert not verify_raw_signature(key.public_key(), raw(key, hashed=SHA256), SIGNED)


@pytest.mark.parametrize("size", [0, SIGNATURE_BYTES - 1, SIGNATURE_BYTES + 1])
def test_a_raw_signature_has_one_size(key, size):
    assert not verify_raw_signature(key.public_key(), raw(key).ljust(size, b"\0")[:size], SIGNED)


@pytest.mark.parametrize("curve", [ec.SECP256R1, ec.SECP521R1])
def test_a_raw_signature_of_another_curve_is_none(curve):
    """It would hold, were it asked."""
    other = ec.generate_private_key(curve())
    signature = raw(other, half=66 if curve is ec.SECP521R1 else 48)

    assert not verify_raw_signature(other.public_key(), signature, SIGNED)


@pytest.mark.parametrize("zeros", [(0, 48), (48, 96), (0, 96)])
def test_a_raw_signature_of_zeros_is_none(key, zeros):
    start, end = zeros
    signature = raw(key)

    assert not verify_raw_signature(key.public_key(), signature[:start] + bytes(end - start) + signature[end:], SIGNED)


def test_so_many_certificates_are_read():
    pem = Party.made("any").certificate.public_bytes(Encoding.PEM)

    assert len(load_pem(pem * CERTIFICATES_MAX)) == CERTIFICATES_MAX
    with pytest.raises(ValueError, match=f"more than {CERTIFICATES_MAX} certificates"):
        load_pem(pem * (CERTIFICATES_MAX + 1))
