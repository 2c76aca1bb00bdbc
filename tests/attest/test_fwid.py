"""The firmware that a leaf certificate endorses: two shapes, each read strictly, and every byte of the real ones."""

from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA384
from hypothesis import given
from hypothesis import strategies as st

from attest import reasons
from attest.errors import UntrustedEvidence
from attest.nvidia.fwid import COMPOSITE_DEVICE_ID, TCB_INFO, composite, tcb_info
from tests.attest.responders import content, element, elements, named
from tests.evidence import VECTORS, hopper_550, needs_vectors

KEY = ec.generate_private_key(ec.SECP384R1())
FWID, ZEROS = bytes(range(48)), bytes(48)
SHA384_OID = bytes.fromhex("0609608648016503040202")
SHA256_OID = bytes.fromhex("0609608648016503040201")


def leaf(oid, value):
    builder = (
        x509.CertificateBuilder()
        .subject_name(named("leaf"))
        .issuer_name(named("leaf"))
        .public_key(KEY.public_key())
        .serial_number(1)
        .not_valid_before(datetime(2030, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2040, 1, 1, tzinfo=UTC))
    )
    if value is not None:
        builder = builder.add_extension(x509.UnrecognizedExtension(oid, value), critical=False)
    return builder.sign(KEY, SHA384())


@dataclass(frozen=True)
class Of:
    """What `composite` and `tcb_info` ask of a certificate, without a signature over it for every spoiled byte."""

    value: bytes | None
    oid: x509.ObjectIdentifier = TCB_INFO

    @property
    def extensions(self):
        known = [] if self.value is None else [x509.UnrecognizedExtension(self.oid, self.value)]
        return x509.Extensions([x509.Extension(each.oid, False, each) for each in known])


def read(value):
    return tcb_info(Of(value), "GB100")


def refused(value):
    with pytest.raises(UntrustedEvidence) as why:
        read(value)
    assert why.value.reason is reasons.FWID_MALFORMED


# --- DiceTcbInfo ------------------------------------------------------------------------------------------------------
def fwids(*entries):
    return element(0xA6, *entries)


def entry(digest=FWID, oid=SHA384_OID, *more):
    return element(0x30, oid, element(0x04, digest), *more)


FIELDS = {
    0x80: element(0x80, b"NVIDIA"),
    0x81: element(0x81, b"GB100 A01 GSP"),
    0x82: element(0x82, b"01"),
    0x83: element(0x83, b"\0"),
    0x84: element(0x84, b"\1"),
    0x85: element(0x85, b"\0"),
    0xA6: fwids(entry(), entry(ZEROS)),
    0x87: element(0x87, bytes.fromhex("0080000001")),
    0x88: element(0x88, b"\0\0\0\0"),
    0x89: element(0x89, b"\0"),
}


def info(**changes):
    """A good one, but for these fields, by their tags in hex; None leaves one out."""
    fields = FIELDS | {int(tag[1:], 16): value for tag, value in changes.items()}
    return element(0x30, *(value for value in fields.values() if value is not None))


def test_the_first_firmware_id_counts():
    assert read(info()) == tcb_info(leaf(TCB_INFO, info()), "GB100") == FWID
    assert read(info(xA6=fwids(entry(ZEROS), entry()))) == ZEROS
    assert read(info(xA6=fwids(entry()))) == FWID


def test_without_the_extension_there_is_none():
    refused(None)
    with pytest.raises(UntrustedEvidence):
        tcb_info(leaf(COMPOSITE_DEVICE_ID, info()), "GB100")
    with pytest.raises(UntrustedEvidence):
        composite(leaf(TCB_INFO, info()), None)


@pytest.mark.parametrize("tag", sorted(FIELDS))
def test_every_field_is_there_once_and_in_its_place(tag):
    name = f"x{tag:X}"
    others = [each for each in FIELDS if each != tag]
    neighbour = others[-1] if tag != 0x89 else others[0]
    swapped = {each: FIELDS[{tag: neighbour, neighbour: tag}.get(each, each)] for each in FIELDS}

    refused(info(**{name: None}))
    refused(info(**{name: FIELDS[tag] * 2}))
    refused(element(0x30, *swapped.values()))
    refused(info(**{name: bytes([tag ^ 0x20]) + FIELDS[tag][1:]}))


@pytest.mark.parametrize(
    "changes",
    [
        {"x80": element(0x80, b"NVIDIA ")},
        {"x80": element(0x80, b"nvidia")},
        {"x80": element(0x80)},
        {"x81": element(0x81, b"GH100 A01 GSP")},
        {"x81": element(0x81, b" GB100")},
        {"x81": element(0x81)},
        {"x87": element(0x87, bytes.fromhex("0090000001"))},  # bit 3: debug
        {"x87": element(0x87, bytes.fromhex("0010"))},
        {"x87": element(0x87, bytes.fromhex("0180000000"))},  # unused bits, where the debug bit could hide
        {"x87": element(0x87, b"\0")},
        {"x87": element(0x87)},
        {"xA6": fwids()},
        {"xA6": fwids(entry(), entry(), entry())},
        {"xA6": fwids(entry(FWID[:-1]))},
        {"xA6": fwids(entry(FWID + b"\0"))},
        {"xA6": fwids(entry(b""))},
        {"xA6": fwids(entry(FWID[:32], SHA256_OID))},
        {"xA6": fwids(entry(FWID, SHA256_OID))},
        {"xA6": fwids(entry(FWID, SHA384_OID, b"\5\0"))},
        {"xA6": fwids(element(0x31, content(entry())))},
        {"xA6": fwids(element(0x30, element(0x04, FWID), SHA384_OID))},
        {"xA6": fwids(entry()) + b"\0"},
        {"xA6": b"\xa6\x82\0" + bytes([len(content(fwids(entry())))]) + content(fwids(entry()))},
    ],
)
def test_each_field_is_what_it_must_be(changes):
    refused(info(**changes))


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\x30",
        b"\x30\0",
        b"\x30\x81",
        info()[:-1],
        info() + b"\0",
        info() + info(),
        b"\x31" + info()[1:],
        b"\x30\x82\0" + info()[2:],  # a length in more bytes than it needs
        b"\x30\x80" + content(info()) + b"\0\0",  # one without an end
        content(info()),
    ],
)
def test_what_is_not_der_is_refused(value):
    refused(value)


@given(st.binary(max_size=250))
def test_random_bytes(data):
    refused(data)


@given(st.data())
def test_changed_bytes_are_refused_or_say_a_firmware(data):
    whole = info()
    at = data.draw(st.integers(0, len(whole) - 1))
    changed = whole[:at] + data.draw(st.binary(max_size=3)) + whole[at + data.draw(st.integers(0, 3)) :]
    try:
        found = read(changed)
    except UntrustedEvidence:
        return
    assert len(found) == 48


# --- real certificates ------------------------------------------------------------------------------------------------
def real_leaf(chain, oid):
    certificate = x509.load_pem_x509_certificates(chain)[0]
    return certificate, certificate.extensions.get_extension_for_oid(oid).value.public_bytes()


@needs_vectors
def test_every_byte_of_a_real_blackwells_counts_but_for_free_text():
    """Refused, or another firmware; or in a field that nobody reads: version, indices, vendor's info, second id."""
    certificate, value = real_leaf((VECTORS / "nvidia" / "blackwell-575.32" / "chain.pem").read_bytes(), TCB_INFO)
    fwid, unread = tcb_info(certificate, "GB100"), set()
    for at in range(len(value)):
        spoiled = value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :]
        try:
            if read(spoiled) == fwid:
                unread.add(at)
        except UntrustedEvidence:
            continue

    fields = {each[0]: each for each in elements(content(value))}
    free = set()
    for tag in (0x82, 0x83, 0x84, 0x85, 0x88, 0x89):
        start = value.index(fields[tag]) + len(fields[tag]) - len(content(fields[tag]))
        free |= set(range(start, start + len(content(fields[tag]))))
    model = value.index(fields[0x81]) + 2
    free |= set(range(model + len("GB100"), model + len(content(fields[0x81]))))
    flags = value.index(fields[0x87]) + 2
    free |= set(range(flags + 1, flags + 5))  # of which one bit is read: see below
    second = value.index(elements(content(fields[0xA6]))[1])
    free |= set(range(second, second + len(elements(content(fields[0xA6]))[1])))
    assert unread <= free
    refused(value.replace(bytes.fromhex("0080000001"), bytes.fromhex("0090000001")))


@needs_vectors
def test_every_byte_of_a_real_hoppers_counts():
    certificate, value = real_leaf(hopper_550().chain, COMPOSITE_DEVICE_ID)
    device = x509.load_pem_x509_certificates(hopper_550().chain)[1]

    @dataclass(frozen=True)
    class Device:
        key: ec.EllipticCurvePublicKey

    holder = Device(device.public_key())
    fwid = composite(certificate, holder)
    assert fwid == value[-48:]
    for at in range(len(value)):
        spoiled = value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :]
        if at >= len(value) - 48:
            assert composite(Of(spoiled, COMPOSITE_DEVICE_ID), holder) != fwid
            continue
        with pytest.raises(UntrustedEvidence) as why:
            composite(Of(spoiled, COMPOSITE_DEVICE_ID), holder)
        assert why.value.reason is reasons.FWID_MALFORMED


@needs_vectors
def test_a_blackwell_is_no_other_model():
    certificate, _ = real_leaf((VECTORS / "nvidia" / "blackwell-575.32" / "chain.pem").read_bytes(), TCB_INFO)

    with pytest.raises(UntrustedEvidence):
        tcb_info(certificate, "GB202")
