"""Where collateral comes from, what an answer must hold, and what is checked before it is cached."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.x509 import ocsp as x509_ocsp
from hypothesis import given
from hypothesis import strategies as st

from attest import ocsp
from attest.anchors import VENDORS, load_emulated
from attest.collateral import CollateralKind, Document, Need
from attest.nvidia.nras_issuer import NRAS_URL
from attest.snp.anchors import load_emulated as load_amd
from attest.tdx.roots import load_emulated as load_intel
from nodeprobe.emulator import MODELS, Pki
from nodeprobe.emulator.nras import EmulatedNras
from nodeprobe.emulator.rim import driver_rim, vbios_rim
from nodeprobe.emulator.snp import EmulatedSnp
from nodeprobe.emulator.snp_pki import SnpPki
from nodeprobe.emulator.tdx import EmulatedTd
from nodeprobe.emulator.tdx_pki import IntelPki
from orchestrator.base_urls import Base
from orchestrator.collateral_checks import Checker, Rejected, Term
from orchestrator.outbound import Answer
from orchestrator.sources import VENDOR_URLS, NotTheDocument, Service, Sources, document_of
from tests.evidence import needs_vectors
from tests.orchestrator.vendors import DAY, ocsp_answer, question_of, responder_below, rim_answer
from tests.orchestrator.world import NOON, SECOND

K = CollateralKind
MODEL = MODELS["h100-pcie"]
OCSP_NAME = f"{'ab' * 48}:{'cd' * 48}:1f"
CHIP = "vcek/v1/Milan/" + "ab" * 64 + "?blSPL=04&teeSPL=00&snpSPL=24&ucodeSPL=219"
TURIN = "vcek/v1/Turin/" + "ab" * 8 + "?fmcSPL=01&blSPL=01&teeSPL=01&snpSPL=04&ucodeSPL=81"
SOURCES = Sources.of({})
HOUR = timedelta(hours=1)


# --- what is asked ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("need", "method", "url"),
    [
        (
            Need(K.NVIDIA_RIM, "NV_GPU_DRIVER_GH100_550.90.07"),
            "GET",
            "https://rim.attestation.nvidia.com:443/v1/rim/NV_GPU_DRIVER_GH100_550.90.07",
        ),
        (Need(K.NVIDIA_OCSP, OCSP_NAME), "POST", "https://ocsp.ndis.nvidia.com:443/"),
        (Need(K.NVIDIA_NRAS_JWKS, NRAS_URL), "GET", "https://nras.attestation.nvidia.com:443/.well-known/jwks.json"),
        (
            Need(K.INTEL_TCB_INFO, "00A06D080000"),
            "GET",
            "https://api.trustedservices.intel.com:443/tdx/certification/v4/tcb?fmspc=00A06D080000",
        ),
        (
            Need(K.INTEL_QE_IDENTITY, "TD_QE"),
            "GET",
            "https://api.trustedservices.intel.com:443/tdx/certification/v4/qe/identity",
        ),
        (
            Need(K.INTEL_PCK_CRL, "platform"),
            "GET",
            "https://api.trustedservices.intel.com:443/sgx/certification/v4/pckcrl?ca=platform&encoding=der",
        ),
        (
            Need(K.INTEL_ROOT_CRL, "IntelSGXRootCA"),
            "GET",
            "https://certificates.trustedservices.intel.com:443/IntelSGXRootCA.der",
        ),
        (Need(K.AMD_VCEK, CHIP), "GET", f"https://kdsintf.amd.com:443/{CHIP}"),
        (Need(K.AMD_VCEK, TURIN), "GET", f"https://kdsintf.amd.com:443/{TURIN}"),
        (
            Need(K.AMD_ISSUERS, "vlek/v1/Genoa/cert_chain"),
            "GET",
            "https://kdsintf.amd.com:443/vlek/v1/Genoa/cert_chain",
        ),
        (Need(K.AMD_CRL, "vcek/v1/Milan/crl"), "GET", "https://kdsintf.amd.com:443/vcek/v1/Milan/crl"),
    ],
    ids=str,
)
def test_each_kind_is_asked_of_its_vendor(need: Need, method: str, url: str) -> None:
    call = SOURCES.call(need)
    assert call is not None
    assert (call.method, f"{call.base}{call.path}") == (method, url)


def test_every_kind_of_attest_has_a_source() -> None:
    from orchestrator import sources

    assert set(sources._NAMES) == set(sources._ASKED) == set(CollateralKind)


def test_a_question_is_the_request_that_attest_makes_of_its_name() -> None:
    call = SOURCES.call(Need(K.NVIDIA_OCSP, OCSP_NAME))
    assert call is not None
    asked = x509_ocsp.load_der_ocsp_request(call.body)
    assert (asked.serial_number, asked.issuer_key_hash.hex()) == (0x1F, "cd" * 48)
    assert len(list(asked.extensions)) == 0
    assert call.headers["content-type"] == "application/ocsp-request"


def test_a_mirror_serves_the_same_paths_and_needs_no_sparing() -> None:
    sources = Sources.of({Service.AMD_KDS: "https://mirror.example.com/amd"})
    call = sources.call(Need(K.AMD_VCEK, CHIP))
    assert call is not None
    assert call.base == Base.parse("https://mirror.example.com/amd")
    vendors = SOURCES.call(Need(K.AMD_VCEK, CHIP))
    assert vendors is not None
    assert vendors.base.pace_seconds == 1


def test_a_document_that_is_known_is_asked_for_only_if_it_changed() -> None:
    call = SOURCES.call(Need(K.AMD_CRL, "vcek/v1/Milan/crl"), etag='"1"')
    assert call is not None
    assert call.headers["if-none-match"] == '"1"'


@pytest.mark.parametrize(
    "need",
    [
        Need(K.NVIDIA_RIM, ""),
        Need(K.NVIDIA_RIM, "../../latest/meta-data"),
        Need(K.NVIDIA_RIM, "NV_GPU_DRIVER_GH100_550/../../x"),
        Need(K.NVIDIA_RIM, "NV_GPU_DRIVER_GH100_550?x=1"),
        Need(K.NVIDIA_RIM, "NV_GPU_DRIVER_GH100_550\r\nx: y"),
        Need(K.NVIDIA_OCSP, "1:2:3"),
        Need(K.NVIDIA_OCSP, OCSP_NAME + "\n"),
        Need(K.NVIDIA_NRAS_JWKS, "https://evil.example.com"),
        Need(K.NVIDIA_NRAS_JWKS, NRAS_URL + ".evil.example.com"),
        Need(K.INTEL_TCB_INFO, "00A06D080000@0123456789abcdef"),  # an emulator's, which Intel does not have
        Need(K.INTEL_TCB_INFO, "00a06d080000"),
        Need(K.INTEL_TCB_INFO, "00A06D080000&x=1"),
        Need(K.INTEL_QE_IDENTITY, "QE"),
        Need(K.INTEL_PCK_CRL, "root"),
        Need(K.INTEL_ROOT_CRL, "IntelSGXRootCA@0123456789abcdef"),
        Need(K.AMD_VCEK, "vcek/v1/Milan/../../x"),
        Need(K.AMD_VCEK, CHIP.replace("vcek", "vlek", 1)),
        Need(K.AMD_VCEK, CHIP + "&x=1"),
        Need(K.AMD_VCEK, CHIP.replace("Milan", "Venice")),
        Need(K.AMD_CRL, "https://evil.example.com/"),
    ],
    ids=str,
)
def test_names_of_another_shape_are_asked_of_nobody(need: Need) -> None:
    assert SOURCES.call(need) is None


@given(st.sampled_from(list(CollateralKind)), st.text())
def test_whatever_the_name_it_goes_where_the_operator_said(kind: CollateralKind, name: str) -> None:
    call = SOURCES.call(Need(kind, name))
    assert call is None or call.base in SOURCES.bases.values()


def test_a_url_that_is_none_is_named() -> None:
    with pytest.raises(ValueError, match="ftp"):
        Sources.of({Service.RIM: "ftp://x"})
    assert set(VENDOR_URLS) == set(Service)


def test_a_service_that_is_switched_off_is_not_asked() -> None:
    assert Sources({}).call(Need(K.AMD_CRL, "vcek/v1/Milan/crl")) is None


# --- what an answer holds ---------------------------------------------------------------------------------------------
RIM = Need(K.NVIDIA_RIM, "NV_X_1.2")


def answered(body: bytes, **headers: str) -> Answer:
    return Answer(200, headers, body)


def test_a_rim_is_unwrapped() -> None:
    assert document_of(RIM, answered(rim_answer(RIM.name, b"<xml/>").body)) == b"<xml/>"
    digest = hashlib.sha256(b"<xml/>").hexdigest().upper()
    assert document_of(RIM, answered(rim_answer(RIM.name, b"<xml/>", sha256=digest).body)) == b"<xml/>"


@pytest.mark.parametrize(
    "body",
    [
        rim_answer("NV_X_1.3", b"<xml/>").body,
        rim_answer(RIM.name.lower(), b"<xml/>").body,
        rim_answer(RIM.name, b"<xml/>", sha256="00" * 32).body,
        rim_answer(RIM.name, b"<xml/>", sha256="").body,
        rim_answer(RIM.name, b"<xml/>", sha256="ä").body,
        rim_answer(RIM.name, b"<xml/>", rim="not base64!").body,
        rim_answer(RIM.name, b"<xml/>", rim=None).body,
        json.dumps({"id": RIM.name, "rim": base64.b64encode(b"x").decode()}).encode(),
        b"<html>",
        b"[]",
        b'"x"',
        b"",
        b"\xff",
        b"[" * 100_000,
    ],
)
def test_an_answer_that_is_no_rim(body: bytes) -> None:
    with pytest.raises(NotTheDocument):
        document_of(RIM, answered(body))


def test_intel_sends_the_issuer_chain_in_a_header() -> None:
    need = Need(K.INTEL_TCB_INFO, "00A06D080000")
    wrapped = json.loads(document_of(need, answered(b"{}", **{"tcb-info-issuer-chain": quote("a b\n")})))
    assert wrapped == {"body": "{}", "issuer_chain": "a b\n"}
    with pytest.raises(NotTheDocument):
        document_of(need, answered(b"{}"))
    assert document_of(Need(K.INTEL_ROOT_CRL, "IntelSGXRootCA"), answered(b"\x30\x00")) == b"\x30\x00"


def test_other_documents_are_the_body() -> None:
    assert document_of(Need(K.AMD_CRL, "vcek/v1/Milan/crl"), answered(b"x")) == b"x"


# --- what is checked --------------------------------------------------------------------------------------------------
@dataclass
class Good:
    """A good document of each kind, and who checks it."""

    checker: Checker
    documents: dict[Need, bytes]
    pki: Pki
    spoil: Callable[[CollateralKind], Need]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Good:
    folder = tmp_path_factory.mktemp("vendors")
    pki = Pki.create(folder / "nvidia", now=NOON)
    intel = IntelPki.create(folder / "intel")
    snp = EmulatedSnp.create(SnpPki.create(folder / "amd", now=NOON), "chip", now=NOON)
    anchors = VENDORS.trusting(load_emulated(pki.anchors.read_bytes()))
    anchors = replace(
        anchors, amd_ark=load_amd(snp.pki.anchors.read_bytes()), intel_sgx=(load_intel(intel.anchor.read_bytes()),)
    )
    question = question_of(pki.provisioner.certificate, pki.identity)
    kinds = {"cert_chain": K.AMD_ISSUERS, "crl": K.AMD_CRL}
    from attest.tdx.documents import split

    documents = {
        Need(K.NVIDIA_RIM, MODEL.driver_rim_id): driver_rim(MODEL, pki),
        Need(K.NVIDIA_OCSP, question.name): ocsp_answer(question.name, responder_below(pki.identity, NOON), NOON),
        Need(K.NVIDIA_NRAS_JWKS, NRAS_URL): EmulatedNras.create(now=NOON).jwks(),
        **{need: each.data for need, each in split(EmulatedTd.create(intel, "td", now=NOON).collateral(NOON)).items()},
        **{Need(kinds.get(n.rsplit("/", 1)[-1], K.AMD_VCEK), n): data for n, data in snp.documents().items()},
    }
    by_kind = {need.kind: need for need in documents}
    return Good(Checker(anchors), documents, pki, by_kind.__getitem__)


def check(good: Good, need: Need, data: bytes | None = None, at: datetime = NOON) -> Term:
    return good.checker.check(need, Document.of(good.documents[need] if data is None else data), at)


@pytest.mark.parametrize("kind", list(CollateralKind))
def test_a_good_document_has_a_term(good: Good, kind: CollateralKind) -> None:
    term = check(good, good.spoil(kind))
    if kind == K.AMD_VCEK:
        assert term == Term(None, None)  # its name holds chip and firmware
        return
    assert term.renew_at is not None
    assert term.expires_at is not None
    assert NOON < term.renew_at < term.expires_at


@pytest.mark.parametrize("kind", list(CollateralKind))
@pytest.mark.parametrize("data", [b"", b"\0", b"{}", b"[]", b'{"keys":[]}', b'{"keys":[{}]}', b"<a/>", bytes(9 << 20)])
def test_what_is_no_document_is_rejected(good: Good, kind: CollateralKind, data: bytes) -> None:
    with pytest.raises(Rejected):
        check(good, good.spoil(kind), data)


@pytest.mark.parametrize("kind", [K.NVIDIA_RIM, K.NVIDIA_NRAS_JWKS, K.AMD_ISSUERS, K.INTEL_TCB_INFO])
def test_a_document_of_another_need_is_rejected(good: Good, kind: CollateralKind) -> None:
    for other, data in good.documents.items():
        if other.kind != kind:
            with pytest.raises(Rejected):
                check(good, good.spoil(kind), data)


def test_a_rim_is_kept_a_day(good: Good) -> None:
    assert check(good, good.spoil(K.NVIDIA_RIM)) == Term(NOON + 18 * HOUR, NOON + DAY)


def test_a_rim_of_another_version_edited_or_of_another_root_is_rejected(good: Good, tmp_path: Path) -> None:
    need = good.spoil(K.NVIDIA_RIM)
    other = Pki.create(tmp_path / "other", now=NOON)
    edited = good.documents[need].replace(b'alternatives="1"', b'alternatives="2"', 1)
    for data in (vbios_rim(MODEL, good.pki), driver_rim(MODEL, other), edited):
        with pytest.raises(Rejected):
            check(good, need, data)


def test_an_answer_about_revocation_is_kept_until_the_next_is_due(good: Good) -> None:
    need = good.spoil(K.NVIDIA_OCSP)
    assert check(good, need) == Term(NOON + DAY / 2, NOON + DAY, NOON)
    assert check(good, need, at=NOON + DAY).expires_at == NOON + DAY


@pytest.mark.parametrize(
    "spoiled",
    [
        {"name": f"{'00' * 48}:{'00' * 48}:1"},
        {"begins": ocsp.SKEW + SECOND},
        {"serial": 1},
    ],
)
def test_an_answer_about_another_certificate_or_from_the_future_is_rejected(
    good: Good, spoiled: dict[str, str]
) -> None:
    need = good.spoil(K.NVIDIA_OCSP)
    responder = responder_below(good.pki.identity, NOON)
    name = spoiled.pop("name", need.name)
    if (delta := spoiled.pop("serial", 0)) != 0:
        hashed, key, serial = name.split(":")
        name = f"{hashed}:{key}:{int(serial, 16) + int(delta):x}"
    with pytest.raises(Rejected):
        check(good, need, ocsp_answer(name, responder, NOON, **spoiled))  # type: ignore[arg-type]


def test_an_answer_that_names_the_issuer_by_another_hash_is_left_to_the_verifier(good: Good) -> None:
    need = good.spoil(K.NVIDIA_OCSP)
    hashed, key, serial = need.name.split(":")
    by_sha1 = ocsp_answer(f"{hashed[:40]}:{key[:40]}:{serial}", _responder(good), NOON, algorithm=hashes.SHA1())
    assert check(good, need, by_sha1).expires_at == NOON + DAY


def test_a_responder_that_refuses_gives_no_answer(good: Good) -> None:
    from cryptography.hazmat.primitives.serialization import Encoding

    refusal = x509_ocsp.OCSPResponseBuilder.build_unsuccessful(x509_ocsp.OCSPResponseStatus.UNAUTHORIZED)
    with pytest.raises(Rejected, match="unauthorized"):
        check(good, good.spoil(K.NVIDIA_OCSP), refusal.public_bytes(Encoding.DER))


def test_lists_are_renewed_daily_and_kept_until_the_next_is_due(good: Good) -> None:
    for kind in (K.INTEL_TCB_INFO, K.INTEL_QE_IDENTITY, K.INTEL_PCK_CRL, K.INTEL_ROOT_CRL, K.AMD_CRL):
        term = check(good, good.spoil(kind))
        assert term.renew_at == NOON + DAY
        assert term.expires_at is not None
        assert term.expires_at > NOON + 20 * DAY
        with pytest.raises(Rejected, match="to come"):
            check(good, good.spoil(kind), at=NOON - 400 * DAY)


def test_a_list_of_keys_is_kept_an_hour_and_every_key_is_looked_at(good: Good) -> None:
    need = good.spoil(K.NVIDIA_NRAS_JWKS)
    assert check(good, need) == Term(NOON + 0.75 * HOUR, NOON + HOUR)
    keys = json.loads(good.documents[need])
    keys["keys"].append(keys["keys"][0] | {"kid": "another", "x": "AAAA"})
    with pytest.raises(Rejected):
        check(good, need, json.dumps(keys).encode())


@pytest.mark.parametrize("kind", [K.INTEL_TCB_INFO, K.INTEL_QE_IDENTITY, K.INTEL_PCK_CRL])
def test_intels_documents_are_signed_below_a_trusted_root_by_whom_they_must_be(
    good: Good, kind: CollateralKind
) -> None:
    need = good.spoil(kind)
    kept = json.loads(good.documents[need])
    text = base64.b64decode(kept["body"]) if kind == K.INTEL_PCK_CRL else kept["body"].encode()
    at = text.find(b"2026") if kind != K.INTEL_PCK_CRL else len(text) // 2
    changed = text[:at] + bytes([text[at] ^ 1]) + text[at + 1 :]
    body = base64.b64encode(changed).decode() if kind == K.INTEL_PCK_CRL else changed.decode()
    for data in (
        json.dumps(kept | {"body": body}).encode(),
        json.dumps(kept | {"issuer_chain": kept["issuer_chain"][: len(kept["issuer_chain"]) // 2]}).encode(),
    ):
        with pytest.raises(Rejected):
            check(good, need, data)
    vendors_name = Need(kind, need.name.partition("@")[0])
    with pytest.raises(Rejected):  # what is an emulator's is not Intel's
        check(good, vendors_name, good.documents[need])
    with pytest.raises(Rejected):
        Checker(VENDORS).check(need, Document.of(good.documents[need]), NOON)


@needs_vectors
def test_what_intel_really_published_is_good(tmp_path: Path) -> None:
    from tests.tdx_world import UP_TO_DATE, recorded_collateral

    for name, at in UP_TO_DATE.items():
        for need, document in recorded_collateral(name).items():
            term = Checker(VENDORS).check(need, document, at)
            assert term.expires_at is not None
            assert term.expires_at > at
            if need.kind != K.INTEL_ROOT_CRL:
                wrong = {"platform": "processor", "TD_QE": "QE"}.get(need.name, "000000000000")
                with pytest.raises(Rejected):
                    Checker(VENDORS).check(Need(need.kind, wrong), document, at)


@pytest.mark.parametrize("name", ["vcek/v1/Genoa/crl", "vcek/v1/Turin/crl"])
def test_amds_list_is_signed_by_the_root_of_its_product(good: Good, name: str) -> None:
    need = good.spoil(K.AMD_CRL)
    data = good.documents[need]
    for spoiled in (Need(need.kind, name), need):
        changed = data if spoiled != need else data[:-1] + bytes([data[-1] ^ 1])
        with pytest.raises(Rejected):
            check(good, spoiled, changed)


def test_issuers_of_another_root_are_rejected(good: Good) -> None:
    with pytest.raises(Rejected):
        Checker(VENDORS).check(good.spoil(K.AMD_ISSUERS), Document.of(good.documents[good.spoil(K.AMD_ISSUERS)]), NOON)


def _responder(good: Good):  # type: ignore[no-untyped-def]
    return responder_below(good.pki.identity, NOON)
