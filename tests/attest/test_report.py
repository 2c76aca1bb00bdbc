"""The layout of a report, byte by byte: each constant spoiled, each length, each field; and whatever bytes come."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attest import reasons
from attest.errors import AttestError, MalformedEvidence
from attest.nvidia.report import REPORT_BYTES_MAX, Field, parse
from attest.result import Tier
from nodeprobe.emulator import spdm
from tests.attest.world import codes

BLOCKS = 3


def record(blocks=BLOCKS):
    return b"".join(struct.pack("<BBHBH", n + 1, 1, 51, 1, 48) + bytes([n]) * 48 for n in range(blocks))


def field(kind, value):
    return struct.pack("<HH", kind, len(value)) + value


FIELDS = field(3, b"550.54\0") + field(11, b"\x55")


def report(*, blocks=BLOCKS, measured=None, opaque=FIELDS, signature=bytes(96)):
    measured = record(blocks) if measured is None else measured
    head = bytes.fromhex("11e001ff") + bytes(range(32)) + b"\0" + bytes.fromhex("11600000") + bytes([blocks])
    middle = len(measured).to_bytes(3, "little") + measured + b"\xee" * 32
    return head + middle + struct.pack("<H", len(opaque)) + opaque + signature


GOOD = report()


def test_a_report_says_what_it_says():
    parsed = parse(GOOD)

    assert parsed.nonce == bytes(range(32))
    assert parsed.measurements == (b"\0" * 48, b"\1" * 48, b"\2" * 48)
    assert parsed.opaque == {3: b"550.54\0", 11: b"\x55"}
    assert parsed.signed + parsed.signature == GOOD


def test_fields_nobody_knows_are_kept():
    assert parse(report(opaque=field(999, b"new"))).opaque == {999: b"new"}


@pytest.mark.parametrize(
    "spoiled",
    [
        *(pytest.param(GOOD[:at] + b"\x7f" + GOOD[at + 1 :], id=f"constant at {at}") for at in (0, 1, 2, 3, 36)),
        *(pytest.param(GOOD[:at] + b"\x7f" + GOOD[at + 1 :], id=f"constant at {at}") for at in (37, 38, 39, 40)),
        *(pytest.param(GOOD[:at] + b"\x7f" + GOOD[at + 1 :], id=f"count or length at {at}") for at in (41, 42, 43, 44)),
        *(pytest.param(GOOD[:at] + b"\x7f" + GOOD[at + 1 :], id=f"block head at {at}") for at in range(45, 52)),
        *(
            pytest.param(GOOD[:at] + b"\x7f" + GOOD[at + 1 :], id=f"second block head at {at}")
            for at in range(100, 107)
        ),
        pytest.param(report(blocks=0), id="no measurement"),
        pytest.param(report(blocks=2, measured=record(3)), id="one measurement more than counted"),
        pytest.param(report(blocks=3, measured=record(2)), id="one measurement fewer than counted"),
        pytest.param(report(measured=record(2) + record(1)), id="an index twice"),
        pytest.param(report(opaque=field(3, b"a") + field(3, b"a")), id="a field twice"),
        pytest.param(report(opaque=field(3, b"abc")[:-1]), id="a field cut"),
        pytest.param(report(opaque=field(3, b"abc") + b"\0"), id="one byte after the fields"),
        pytest.param(report(opaque=field(3, b"abc") + b"\0\0\0"), id="three bytes after the fields"),
        pytest.param(report(opaque=struct.pack("<HH", 3, 0xFFFF)), id="a field longer than all"),
        pytest.param(report(signature=bytes(95)), id="signature short"),
        pytest.param(report(signature=bytes(97)), id="signature long"),
        pytest.param(GOOD + b"\0", id="a byte too many"),
        pytest.param(b"", id="empty"),
        pytest.param(bytes(REPORT_BYTES_MAX), id="zeros"),
        pytest.param(GOOD.ljust(REPORT_BYTES_MAX + 1, b"\0"), id="too large"),
    ],
)
def test_one_thing_spoiled_is_malformed(spoiled):
    with pytest.raises(MalformedEvidence) as refused:
        parse(spoiled)

    assert refused.value.reason is reasons.REPORT_MALFORMED


def test_every_truncation_is_malformed():
    for size in range(len(GOOD)):
        with pytest.raises(MalformedEvidence):
            parse(GOOD[:size])


@settings(max_examples=300)
@given(st.binary(max_size=600) | st.binary(max_size=200).map(lambda tail: GOOD[:45] + tail))
def test_random_bytes(data):
    try:
        parse(data)
    except AttestError as e:
        refused = e
    else:
        return
    assert isinstance(refused, MalformedEvidence)


@settings(max_examples=300)
@given(st.data())
def test_flipped_bits_parse_to_what_was_flipped_or_not_at_all(data):
    at = data.draw(st.integers(0, len(GOOD) - 1))
    flipped = GOOD[:at] + bytes([GOOD[at] ^ data.draw(st.integers(1, 255))]) + GOOD[at + 1 :]
    try:
        parsed = parse(flipped)
    except MalformedEvidence:
        return
    assert parsed.signed + parsed.signature == flipped
    assert parsed != parse(GOOD)


# --- fields that a genuine device signed, and that still are none -----------------------------------------------------
def put(kind, value):
    def spoil(draft):
        draft.drop(kind)
        draft.fields.append((kind, value))

    return spoil


def flag(version, mode):
    def spoil(draft):
        put(spdm.OPAQUE_DATA_VERSION, version)(draft)
        put(spdm.FEATURE_FLAG, mode)(draft)

    return spoil


@pytest.mark.parametrize(
    ("spoil", "mode"),
    [
        (lambda draft: None, "spt"),
        (lambda draft: draft.drop(spdm.PROTECTED_PCIE_STATUS), "unstated"),
        (flag(b"\1\0", b"\0\0"), "spt"),
        (flag(b"\1\0", b"\1\0"), "mpt"),
        (flag(b"\0\0", b"\2\0"), "spt"),  # before version 1 the flag means nothing
        (flag(b"\1\0", b"\3\0"), "unknown"),
        (flag(b"\1\0", b"\0"), "unknown"),
        (flag(b"\1\0", b"\0\0\0"), "unknown"),
        (flag(b"\2\0", b"\0\0"), "unknown"),
        (flag(b"\1", b"\0\0"), "unknown"),
    ],
)
def test_the_mode_is_what_is_said_clearly(world, spoil, mode):
    result = world.judge(world.evidence(report=spoil))

    assert result.claims[0].values["mode"] == mode
    assert (result.tier is Tier.AFFIRMING) == (mode != "unknown")


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (put(spdm.PROTECTED_PCIE_STATUS, b"\0"), "report-malformed"),
        (put(spdm.PROTECTED_PCIE_STATUS, b"\x55\x55"), "report-malformed"),
        (flag(b"\1\0", b"\2\0"), "report-malformed"),  # beside a status that says off
        (put(spdm.NVDEC0_STATUS, b""), "nvdec-status"),
        (put(spdm.NVDEC0_STATUS, b"\x55\x55"), "nvdec-status"),
        (put(spdm.FWID, b""), "fwid-mismatch"),
        (put(spdm.FWID, bytes(48)), "fwid-mismatch"),
        (put(spdm.VBIOS_VERSION, bytes(7)), "report-malformed"),
        (put(spdm.DRIVER_VERSION, b""), "rim-id-malformed"),
        (put(spdm.DRIVER_VERSION, b"\0"), "rim-id-malformed"),
        (put(spdm.DRIVER_VERSION, b"550"), "rim-id-malformed"),
        (put(spdm.DRIVER_VERSION, b"550.1\n"), "rim-id-malformed"),
        (put(spdm.DRIVER_VERSION, "٥٥٠.١".encode()), "rim-id-malformed"),
        (put(spdm.DRIVER_VERSION, b"1." * 50 + b"1"), "rim-id-malformed"),
        (put(spdm.PROJECT, b"../.."), "rim-id-malformed"),
        (put(spdm.PROJECT_SKU, b"0_0"), "rim-id-malformed"),
        (put(spdm.CHIP_SKU, b"\x1b[2J"), "rim-id-malformed"),
        (put(spdm.CHIP_SKU, b""), "rim-id-malformed"),
        (put(Field.PDIS, b"12345678"), "report-malformed"),
    ],
)
def test_a_signed_field_that_is_none_is_refused(world, spoil, code):
    result = world.judge(world.evidence(report=spoil))

    assert code in codes(result)
    assert result.tier is Tier.CONTRAINDICATED


def test_a_report_of_another_size_than_a_gpus_is_refused(world):
    result = world.judge(world.evidence(report=lambda draft: draft.measurements.pop()))

    assert codes(result) >= {"report-malformed"}


def test_the_memory_of_what_was_read_knows_where_the_report_ends(world, good):
    """The same bytes, cut elsewhere between report and chain, are other evidence."""
    verifier = world.verifier()
    assert not world.verify(good, verifier=verifier).refusals
    cut = type(good)(good.kind, good.payload + good.certificates[:1], good.certificates[1:])

    assert codes(world.verify(cut, verifier=verifier)) == {"report-malformed"}
