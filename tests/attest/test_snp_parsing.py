"""Whatever bytes come, the parsers of SEV-SNP evidence answer with a value or an AttestError, and rules are strict."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from attest.collateral import Document
from attest.errors import AttestError, MalformedEvidence, UntrustedCollateral
from attest.evidence import AMD_SNP, Evidence
from attest.memo import Memo
from attest.reasons import CERTIFICATES_MALFORMED
from attest.reasons.snp import SNP_CRL_MALFORMED
from attest.snp import certificates, crl, report
from attest.snp.anchors import AMD
from attest.snp.product import Product, by_cpuid, tcb
from attest.snp.rules import SnpRules
from attest.snp.verifier import SnpVerifier

AT = datetime(2026, 6, 1, tzinfo=UTC)
AUTHORITY = SimpleNamespace(certificate=SimpleNamespace(sha256=bytes(32)))  # of no list that parses


def minimal(version: int, **put: tuple[int, bytes]) -> bytes:
    """The least that parses: nothing but constants."""
    data = bytearray(report.REPORT_BYTES)
    data[0] = version
    data[10] = 2  # guest policy, bit 17
    data[0x34] = 1
    for at, content in put.values():
        data[at : at + len(content)] = content
    return bytes(data)


@given(st.binary(max_size=1300))
def test_any_bytes_as_a_report(data: bytes):
    with pytest.raises(AttestError):
        report.parse(data)


@given(st.binary(min_size=report.REPORT_BYTES, max_size=report.REPORT_BYTES), st.sampled_from(range(1, 7)))
def test_any_bytes_of_the_right_size_as_a_report(data: bytes, version: int):
    try:
        parsed = report.parse(version.to_bytes(4, "little") + data[4:])
    except AttestError:
        return
    assert parsed.version in report.VERSIONS


@given(
    st.sampled_from(report.VERSIONS),
    st.binary(min_size=64, max_size=64),
    st.binary(min_size=48, max_size=48),
    st.binary(min_size=48, max_size=48),
)
def test_a_report_is_read_as_it_was_written(version: int, data: bytes, r: bytes, s: bytes):
    parsed = report.parse(minimal(version, data=(0x50, data), r=(0x2A0, r), s=(0x2E8, s)))

    assert parsed.report_data == data
    assert parsed.signature == r[::-1] + s[::-1]
    assert (parsed.cpuid is None) == (version == 2)
    assert parsed.chip_masked


@given(st.sampled_from(report.VERSIONS), st.integers(0x208, 0x29F), st.integers(1, 255))
def test_reserved_bytes_are_zero(version: int, at: int, value: int):
    with pytest.raises(MalformedEvidence):
        report.parse(minimal(version, reserved=(at, bytes([value]))))


@pytest.mark.parametrize(
    ("version", "at"), [(2, 0x188), (2, 0x19F), (3, 0x18B), (5, 0x19F), (3, 0x1F8), (4, 0x207), (5, 0x4C), (2, 0x1EB)]
)
def test_reserved_bytes_of_a_version_are_zero(version: int, at: int):
    with pytest.raises(MalformedEvidence):
        report.parse(minimal(version, reserved=(at, b"\1")))


@given(st.binary(max_size=600))
def test_any_bytes_as_certificates(data: bytes):
    if not data:
        assert certificates.load(data) == ()
        return
    with pytest.raises(MalformedEvidence) as refused:
        certificates.load(data)
    assert refused.value.reason is CERTIFICATES_MALFORMED


@given(st.text(alphabet="-BEGINCRTFAD \n=+/ab01", max_size=300))
def test_any_text_that_is_nearly_pem(text: str):
    for data in (b"-----BEGIN CERTIFICATE-----" + text.encode(), b"-----" + text.encode()):
        with pytest.raises(MalformedEvidence):
            certificates.load(data)


@pytest.mark.parametrize(
    "data",
    [
        b"\0" * (certificates.CERTIFICATES_BYTES_MAX + 1),
        b"\x30\x82\x20\x00" + b"\0" * 0x2000,
        b"\x30\x82\x00\x00" * 5,
        b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n" * 5,
        b"-----BEGIN CERTIFICATE-----\nMIIBA\n-----END CERTIFICATE-----\n",
    ],
    ids=["too many bytes", "one too large", "five empty ones", "five in PEM", "no base64"],
)
def test_certificates_are_bounded_and_whole(data: bytes):
    with pytest.raises(MalformedEvidence):
        certificates.load(data)


@given(st.binary(max_size=400), st.sampled_from([b"", b"-----BEGIN X509 CRL-----\n", b"\x30\x82"]))
def test_any_bytes_as_a_revocation_list(data: bytes, start: bytes):
    with pytest.raises(UntrustedCollateral) as refused:
        crl.check(Document.of(start + data), AUTHORITY, now=AT, known=Memo(1))
    assert refused.value.reason is SNP_CRL_MALFORMED


def test_a_revocation_list_is_bounded():
    with pytest.raises(UntrustedCollateral):
        crl.check(Document.of(bytes(crl.CRL_BYTES_MAX + 1)), AUTHORITY, now=AT, known=Memo(1))


@given(st.binary(max_size=200), st.sampled_from(report.VERSIONS), st.integers(0, 31), st.binary(min_size=3, max_size=3))
def test_any_evidence_is_refused_by_a_reason(data: bytes, version: int, flags: int, cpuid: bytes):
    put = {"flags": (0x48, bytes([flags]))} | ({"cpuid": (0x188, cpuid)} if version > 2 else {})
    evidence = Evidence(AMD_SNP, minimal(version, **put), data)

    with pytest.raises(AttestError):
        SnpVerifier(AMD).verify(evidence, {}, nonce=None, now=AT)


# --- products ---------------------------------------------------------------------------------------------------------
@given(st.integers(0, 255), st.integers(0, 255))
def test_only_known_processors_have_a_product(family: int, model: int):
    known = {
        **{(0x19, each): Product.MILAN for each in range(0x10)},
        **{(0x19, each): Product.GENOA for each in (*range(0x10, 0x20), *range(0xA0, 0xB0))},
        **{(0x1A, each): Product.TURIN for each in range(0x12)},
    }

    assert by_cpuid(family, model) == known.get((family, model))


@pytest.mark.parametrize(("family", "model"), [(0x1A, 0x50), (0x1A, 0x90), (0x1A, 0xA0), (0x1A, 0xC7), (0x19, 0x20)])
def test_processors_whose_root_is_not_pinned_have_none(family: int, model: int):
    assert by_cpuid(family, model) is None


def test_tcb_parts_stand_where_the_product_has_them():
    assert tcb(Product.MILAN, bytes(range(1, 9))) == (0, 1, 2, 7, 8)
    assert tcb(Product.GENOA, bytes(range(1, 9))) == (0, 1, 2, 7, 8)
    assert tcb(Product.TURIN, bytes(range(1, 9))) == (1, 2, 3, 4, 8)


# --- rules ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "rules",
    [
        {"unknown": 1},
        {"vmpl": []},
        {"vmpl": [4]},
        {"products": []},
        {"products": ["Rome"]},
        {"signing_keys": []},
        {"signing_keys": ["none"]},
        {"measurements": []},
        {"measurements": ["00"]},
        {"host_data": ["zz" * 32]},
        {"tcb_min": {"milan": {"microcode": 256}}},
        {"tcb_min": {"rome": {}}},
        {"tcb_min": {"milan": {"spl": 1}}},
        {"firmware_min": "new"},
        {"guest_svn_min": -1},
    ],
    ids=str,
)
def test_rules_that_make_no_sense_are_errors(rules: dict[str, object]):
    with pytest.raises(ValidationError):
        SnpRules.model_validate(rules)


def test_unwritten_rules_are_strict():
    rules = SnpRules()

    assert [rules.debug, rules.migrate_ma, rules.cxl, rules.masked_chip_id] == [False] * 4
    assert rules.alias_check_required
    assert rules.vmpl == {0}
    assert rules.signing_keys == {"vcek"}
