"""Every change of one byte in what is signed is refused, in quotes and in Intel's documents; the parser meets noise."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable
from datetime import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from attest.collateral import Document, Need
from attest.errors import AttestError, MalformedEvidence, UnsupportedEvidence
from attest.evidence import INTEL_TDX, Evidence
from attest.tdx import quote as quotes
from attest.tdx.roots import IntelRoots
from attest.tdx.verifier import TdxVerifier
from nodeprobe.emulator.tdx import EmulatedTd, IntelPki
from nodeprobe.emulator.tdx_quote import TD_1_0, TD_1_5, TD_1_5_EX
from tests.evidence import needs_vectors
from tests.tdx_world import NOW, REPORT_DATA, UP_TO_DATE, Emulated, recorded, recorded_collateral

FLIP = 0x01


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Emulated:
    pki = IntelPki.create(tmp_path_factory.mktemp("tdx") / "pki")
    return Emulated(pki, EmulatedTd.create(pki, "machine-0", now=NOW))


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ FLIP]) + data[at + 1 :]


def survivors(pieces: Iterable[tuple[int, bytes]], check: Callable[[bytes], object]) -> list[int]:
    """The positions whose change went unnoticed. Whatever else than AttestError comes out fails the test."""
    unnoticed = []
    for at, piece in pieces:
        try:
            check(piece)
        except AttestError:
            continue
        unnoticed.append(at)
    return unnoticed


def spoil(data: bytes, positions: Iterable[int], check: Callable[[bytes], object]) -> list[int]:
    check(data)  # it is good before we spoil it
    return survivors(((at, flipped(data, at)) for at in positions), check)


def before_chain(payload: bytes) -> range:
    """All up to the PEM text of the chain: header, body, signatures, key, QE report, sizes and types."""
    return range(payload.index(b"-----BEGIN CERTIFICATE-----"))


def with_chain(payload: bytes, certificates: list[bytes]) -> bytes:
    """The same quote with another chain, sizes corrected."""
    start = payload.index(b"-----BEGIN CERTIFICATE-----")
    pem = b"".join(
        b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(each) + b"-----END CERTIFICATE-----\n"
        for each in certificates
    )
    body_end = len(quotes.parse(payload).signed)
    fixed = bytearray(payload[:start] + pem)
    data = body_end + 4  # of the signature: 128 bytes, type, size, certification data
    sizes = {body_end: len(fixed) - data, data + 130: len(fixed) - data - 134, start - 4: len(pem)}
    for at, size in sizes.items():
        fixed[at : at + 4] = size.to_bytes(4, "little")
    return bytes(fixed)


def verify(verifier: TdxVerifier, documents: dict[Need, Document], now: datetime) -> Callable[[bytes], object]:
    return lambda payload: verifier.verify(Evidence(INTEL_TDX, payload), documents, nonce=None, now=now)


# --- quotes -----------------------------------------------------------------------------------------------------------
@needs_vectors
@pytest.mark.parametrize("name", sorted(UP_TO_DATE))
def test_every_byte_of_a_recorded_quote(name: str) -> None:
    check = verify(TdxVerifier(IntelRoots()), recorded_collateral(name), UP_TO_DATE[name])
    payload = recorded(name).payload

    assert spoil(payload, before_chain(payload), check) == []


@pytest.mark.parametrize("body_type", [TD_1_0, TD_1_5, TD_1_5_EX])
def test_every_byte_of_an_emulated_quote(world: Emulated, body_type: int) -> None:
    td = EmulatedTd.create(world.pki, f"spoiled-{body_type}", now=NOW, body_type=body_type)
    payload = td.quote(REPORT_DATA)

    assert spoil(payload, before_chain(payload), verify(world.verifier, world.documents(td), NOW)) == []


@needs_vectors
@pytest.mark.parametrize("height", range(3))
def test_every_byte_of_a_recorded_certificate(height: int) -> None:
    """Leaf, CA, and the root, too: it is pinned byte by byte."""
    name = "secretvm-tdx-and-h100"
    payload = quotes.parse(recorded(name).payload).whole
    certificates = x509.load_pem_x509_certificates(quotes.parse(payload).chain)
    chain = [each.public_bytes(Encoding.DER) for each in certificates]
    judge = verify(TdxVerifier(IntelRoots()), recorded_collateral(name), UP_TO_DATE[name])

    def check(der: bytes) -> None:
        judge(with_chain(payload, [*chain[:height], der, *chain[height + 1 :]]))

    assert spoil(chain[height], range(len(chain[height])), check) == []


# --- Intel's documents ------------------------------------------------------------------------------------------------
@needs_vectors
@pytest.mark.parametrize("kind", ["intel-tdx-tcb-info", "intel-tdx-qe-identity"])
def test_every_byte_of_a_signed_document(kind: str) -> None:
    name = "secretvm-tdx-and-h100"
    documents, evidence = recorded_collateral(name), recorded(name)
    (need,) = (need for need in documents if need.kind == kind)
    wrapper = json.loads(documents[need].data)
    verifier = TdxVerifier(IntelRoots())

    def check(body: bytes) -> None:
        data = json.dumps(wrapper | {"body": body.decode("utf-8", "replace")}).encode()
        verifier.verify(evidence, documents | {need: Document.of(data)}, nonce=None, now=UP_TO_DATE[name])

    body = wrapper["body"].encode()
    assert spoil(body, range(len(body)), check) == []


@needs_vectors
@pytest.mark.parametrize("kind", ["intel-pck-crl", "intel-root-crl"])
def test_every_byte_of_a_revocation_list(kind: str) -> None:
    name = "secretvm-tdx-and-h100"
    documents, evidence = recorded_collateral(name), recorded(name)
    (need,) = (need for need in documents if need.kind == kind)
    wrapped = kind == "intel-pck-crl"
    wrapper = json.loads(documents[need].data) if wrapped else {}
    verifier = TdxVerifier(IntelRoots())

    def check(crl: bytes) -> None:
        data = json.dumps(wrapper | {"body": base64.b64encode(crl).decode()}).encode() if wrapped else crl
        verifier.verify(evidence, documents | {need: Document.of(data)}, nonce=None, now=UP_TO_DATE[name])

    crl = base64.b64decode(wrapper["body"]) if wrapped else documents[need].data
    assert spoil(crl, range(len(crl)), check) == []


@needs_vectors
def test_every_byte_of_a_signers_certificate() -> None:
    name = "secretvm-tdx-and-h100"
    documents, evidence = recorded_collateral(name), recorded(name)
    (need,) = (need for need in documents if need.kind == "intel-tdx-tcb-info")
    wrapper = json.loads(documents[need].data)
    signer, root = (
        each.public_bytes(Encoding.DER) for each in x509.load_pem_x509_certificates(wrapper["issuer_chain"].encode())
    )
    verifier = TdxVerifier(IntelRoots())

    def check(der: bytes) -> None:
        chain = "".join(
            f"-----BEGIN CERTIFICATE-----\n{base64.encodebytes(each).decode()}-----END CERTIFICATE-----\n"
            for each in (der, root)
        )
        data = json.dumps(wrapper | {"issuer_chain": chain}).encode()
        verifier.verify(evidence, documents | {need: Document.of(data)}, nonce=None, now=UP_TO_DATE[name])

    assert spoil(signer, range(len(signer)), check) == []


# --- the parser -------------------------------------------------------------------------------------------------------
@given(st.binary(max_size=2048))
def test_noise_is_no_quote(data: bytes) -> None:
    with pytest.raises((MalformedEvidence, UnsupportedEvidence)):
        quotes.parse(data)


@given(
    st.sampled_from([bytes.fromhex("0400020081000000"), bytes.fromhex("0500020081000000")]), st.binary(max_size=2048)
)
def test_noise_behind_a_good_start_is_no_quote(start: bytes, data: bytes) -> None:
    with pytest.raises((MalformedEvidence, UnsupportedEvidence)):
        quotes.parse(start + bytes(4) + quotes.INTEL_QE + data)


@settings(max_examples=300)
@given(data=st.data())
def test_a_quote_cut_or_changed_parses_or_says_why(world: Emulated, data: st.DataObject) -> None:
    """Cut anywhere, with any few bytes changed: a quote whose sizes add up, or a refusal. Never anything else."""
    payload = bytearray(_quote(world))
    for _ in range(data.draw(st.integers(0, 4))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(payload[: data.draw(st.integers(0, len(payload)))])
    try:
        parsed = quotes.parse(cut)
    except (MalformedEvidence, UnsupportedEvidence):
        return
    assert cut.startswith(parsed.whole)
    assert not cut[len(parsed.whole) :].strip(b"\0")
    assert parsed.whole.startswith(parsed.signed)


@settings(max_examples=100)
@given(data=st.data())
def test_no_changed_quote_is_believed_or_breaks_the_verifier(world: Emulated, data: st.DataObject) -> None:
    """Anywhere before the chain, any other byte."""
    payload = _quote(world)
    at = data.draw(st.integers(0, before_chain(payload).stop - 1))
    value = data.draw(st.integers(0, 255).filter(lambda value: value != payload[at]))
    changed = payload[:at] + bytes([value]) + payload[at + 1 :]
    with pytest.raises(AttestError):
        verify(world.verifier, world.documents(), NOW)(changed)


def _quote(world: Emulated) -> bytes:
    return EmulatedTd.create(world.pki, "noisy", now=NOW, body_type=TD_1_5).quote(REPORT_DATA)


@pytest.mark.parametrize("size", [1, 70, 3065, 20_000])
def test_padding_with_zeros_is_cut_off(world: Emulated, size: int) -> None:
    quote = world.td.quote(REPORT_DATA)

    assert quotes.parse(quote + bytes(size)).whole == quote


@pytest.mark.parametrize("size", [0, 40_000])
def test_sizes_have_bounds(world: Emulated, size: int) -> None:
    with pytest.raises(MalformedEvidence):
        quotes.parse((world.td.quote(REPORT_DATA) + bytes(size))[:size])


def test_a_chain_has_a_bound(world: Emulated) -> None:
    with pytest.raises(MalformedEvidence):
        quotes.parse(with_chain(world.td.quote(REPORT_DATA), [bytes(13_000)]))


def test_sizes_that_overflow_are_no_quote(world: Emulated) -> None:
    """Every size field at its largest, and every truncation: a shortfall, never an allocation."""
    quote = world.td.quote(REPORT_DATA)
    start = before_chain(quote).stop
    for at in (632, 766, 1218, start - 4):
        with pytest.raises((MalformedEvidence, UnsupportedEvidence)):
            quotes.parse(quote[:at] + b"\xff" * 4 + quote[at + 4 :])
    for cut in range(0, len(quote), 7):
        with pytest.raises((MalformedEvidence, UnsupportedEvidence)):
            quotes.parse(quote[:cut])
