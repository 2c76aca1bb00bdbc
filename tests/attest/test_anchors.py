"""Roots: pinned by key and name; an emulator's are two self-issued certificates, and whatever else is an error."""

import hashlib

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding, load_der_public_key
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from attest.anchors import (
    ANCHORS_BYTES_MAX,
    NVIDIA_DEVICE,
    NVIDIA_RIM,
    VENDORS,
    Anchor,
    Anchors,
    _pinned,
    load_emulated,
    spki_of,
)
from nodeprobe.emulator.pki import pem
from tests.attest.world import AT, MADE, as_pem


def test_the_pinned_keys_have_their_published_fingerprints():
    for anchor, fingerprint in (
        (NVIDIA_DEVICE, "a90c4eb5acfd3e3d03a25db6a26b84f720ad0503196c627c21ddd48dd85b06a4"),
        (NVIDIA_RIM, "dec1dc316477aa851eebdf51327ae9f864bc8d89254657ed1e7eb9168af1e1a3"),
    ):
        assert hashlib.sha256(anchor.spki).hexdigest() == anchor.spki_sha256 == fingerprint
        assert not anchor.emulated


def test_a_pinned_key_that_does_not_fit_its_fingerprint_stops_the_program():
    point = spki_of(ec.generate_private_key(ec.SECP384R1()).public_key())[-97:]

    with pytest.raises(ValueError, match="fingerprint"):
        _pinned("CN=x", point.hex(), NVIDIA_DEVICE.spki_sha256)


def test_a_vendors_name_over_another_key_is_emulated():
    other = spki_of(ec.generate_private_key(ec.SECP384R1()).public_key())

    assert Anchor(NVIDIA_DEVICE.subject, other).emulated


def test_a_roots_key_is_p384():
    for key in (ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(65537, 2048)):
        with pytest.raises(ValueError, match="P-384"):
            spki_of(key.public_key())


def root_of(public, key, name="a root"):
    """PEM of a certificate that names itself as its issuer."""
    named = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateBuilder().subject_name(named).issuer_name(named).public_key(public)
    builder = builder.serial_number(1).not_valid_before(MADE).not_valid_after(AT)
    return pem([builder.sign(key, SHA384())])


def test_a_root_has_a_key_of_one_of_three_kinds():
    key = ec.generate_private_key(ec.SECP521R1())

    with pytest.raises(ValueError, match="another kind of key"):
        load_emulated(root_of(key.public_key(), key))


def test_a_vendors_key_is_no_emulators_whoever_wrote_the_certificate():
    key = ec.generate_private_key(ec.SECP384R1())
    vendors = root_of(load_der_public_key(NVIDIA_DEVICE.spki), key)

    assert len(load_emulated(root_of(key.public_key(), key) * 2).nvidia_device) == 1
    with pytest.raises(ValueError, match="built in"):
        load_emulated(vendors + root_of(key.public_key(), key))


def test_an_emulators_roots_stand_beside_the_vendors(world):
    both = VENDORS.trusting(world.anchors)

    assert both.nvidia_device == (NVIDIA_DEVICE, *world.anchors.nvidia_device)
    assert both.nvidia_rim == (NVIDIA_RIM, *world.anchors.nvidia_rim)
    assert all(anchor.emulated for anchor in (*world.anchors.nvidia_device, *world.anchors.nvidia_rim))
    assert Anchors() == Anchors((), ())


@pytest.fixture(scope="module")
def roots(world):
    return world.pki.anchors.read_bytes()


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda roots, pki: b"", id="empty"),
        pytest.param(lambda roots, pki: b"roots", id="no PEM"),
        pytest.param(lambda roots, pki: pem([pki.device_root.certificate]), id="one"),
        pytest.param(lambda roots, pki: roots + pem([pki.rim_root.certificate]), id="three"),
        pytest.param(
            lambda roots, pki: pem([pki.device_root.certificate, pki.rim_ca.certificate]), id="not self-issued"
        ),
        pytest.param(lambda roots, pki: roots[: len(roots) // 2], id="half"),
        pytest.param(lambda roots, pki: roots.replace(b"M", b"N", 1), id="damaged"),
        pytest.param(lambda roots, pki: roots.rjust(ANCHORS_BYTES_MAX + 1, b"\n"), id="too large"),
    ],
)
def test_anything_else_than_two_roots_is_an_error(world, roots, spoil):
    with pytest.raises(ValueError, match=r"."):
        load_emulated(spoil(roots, world.pki))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damaged_roots_load_or_are_an_error_and_are_never_a_vendors(world, roots, data):
    ders = [each.public_bytes(Encoding.DER) for each in x509.load_pem_x509_certificates(roots)]
    at = data.draw(st.integers(0, len(ders[0]) - 1))
    damaged = ders[0][:at] + bytes([ders[0][at] ^ data.draw(st.integers(1, 255))]) + ders[0][at + 1 :]
    try:
        loaded = load_emulated(as_pem([damaged, *ders[1:]]))
    except ValueError:
        return
    assert loaded.nvidia_device[0].emulated


@given(st.binary(max_size=200))
def test_random_bytes_are_no_roots(data):
    with pytest.raises(ValueError, match=r"."):
        load_emulated(data)
