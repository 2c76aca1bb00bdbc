"""
Blackwell GPUs, LS10 switches, whole boxes and revocation answers of the emulator, against the layouts of
spec/nvidia.md and against real recordings where they are at hand; the verifier is not asked here.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from lxml import etree

from nodeprobe.emulator import (
    BOX_DEFECTS,
    MODELS,
    SWITCH,
    EmulatedBox,
    EmulatedGpu,
    EmulatedSwitch,
    EmulatorError,
    Pki,
    publish,
)
from nodeprobe.emulator.defects import defects_of, named
from nodeprobe.emulator.device import EmulatedDevice
from nodeprobe.emulator.families import FAMILIES
from nodeprobe.emulator.ocsp import MANIFEST, answers, asked_about, publish_answers
from nodeprobe.emulator.ocsp_defects import OCSP_DEFECTS

NOW = datetime(2030, 1, 1, tzinfo=UTC)
NONCE = bytes(range(32))
B200 = MODELS["b200"]
VECTORS = Path(__file__).parents[3] / "shared" / "vectors" / "nvidia"
needs_vectors = pytest.mark.skipif(not VECTORS.is_dir(), reason="no real recordings beside the project")
BLACKWELL, SWITCHES = VECTORS / "blackwell-575.32", VECTORS / "ppcie-8-gpus-4-switches" / "switch_evidence.json"
ANSWERS = VECTORS / "hopper-550.90.07" / "ocsp"


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki.create(tmp_path_factory.mktemp("emulator") / "pki", now=NOW)


@pytest.fixture(scope="module")
def blackwell(pki: Pki) -> EmulatedGpu:
    return EmulatedGpu.create(pki, "b200", B200)


@pytest.fixture(scope="module")
def box(pki: Pki) -> EmulatedBox:
    return EmulatedBox.create(pki, "box", MODELS["h100-80gb"])


@pytest.fixture(scope="module")
def switch(box: EmulatedBox) -> EmulatedSwitch:
    return box.switches[0]


@pytest.fixture(scope="module")
def genuine_switch() -> dict[str, str]:
    recorded: list[dict[str, str]] = json.loads(SWITCHES.read_bytes())
    return recorded[0]


def opaque(report: bytes) -> list[tuple[int, bytes]]:
    """Types and values of the opaque fields; they must fill the opaque data."""
    at = 45 + 55 * report[41] + 32
    (length,) = struct.unpack_from("<H", report, at)
    at, end, found = at + 2, at + 2 + length, []
    while at < end:
        kind, size = struct.unpack_from("<HH", report, at)
        found.append((kind, report[at + 4 : at + 4 + size]))
        at += 4 + size
    assert (at, len(report)) == (end, end + 96)
    return found


def shape(report: bytes) -> list[tuple[int, int]]:
    """Types and sizes; of the driver's version, which differs in length, the type only."""
    return [(kind, 0 if kind == 3 else len(value)) for kind, value in opaque(report)]


def same(report: bytes, kinds: Iterable[int]) -> list[tuple[int, bytes]]:
    return [(kind, value) for kind, value in opaque(report) if kind in set(kinds)]


def signed(device: EmulatedDevice, report: bytes) -> None:
    key: Any = chain_of(device)[0].public_key()
    r, s = int.from_bytes(report[-96:-48], "big"), int.from_bytes(report[-48:], "big")
    key.verify(encode_dss_signature(r, s), report[:-96], ec.ECDSA(hashes.SHA384()))


def chain_of(device: EmulatedDevice) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(device.chain_pem)


def common_name(certificate: x509.Certificate) -> str:
    return str(certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


def same_certificates(ours: list[x509.Certificate], genuine: list[x509.Certificate]) -> None:
    for mine, theirs in zip(ours, genuine, strict=True):
        assert {(e.oid, e.critical) for e in mine.extensions} == {(e.oid, e.critical) for e in theirs.extensions}
        window = mine.not_valid_before_utc, mine.not_valid_after_utc
        assert window == (theirs.not_valid_before_utc, theirs.not_valid_after_utc)
        assert [each.oid for each in mine.subject] == [each.oid for each in theirs.subject]
    assert [*map(common_name, ours[:-1])] == [*map(common_name, genuine[:-1])]


# --- Blackwell --------------------------------------------------------------------------------------------------------
@needs_vectors
def test_blackwell_report_has_the_fields_of_a_genuine_one(pki: Pki) -> None:
    genuine = (BLACKWELL / "report.bin").read_bytes()

    emulated = EmulatedGpu.create(pki, "shape", replace(B200, driver="575.32")).report(NONCE)

    assert shape(emulated) == shape(genuine)
    constants = {4, 11, 13, 14, 15, 16, 17, 18, 19, 33, 34}
    assert same(emulated, constants) == same(genuine, constants)
    assert len(emulated) == len(genuine)


def test_blackwell_of_a_later_driver_names_chip_and_mode(blackwell: EmulatedGpu) -> None:
    report = blackwell.report(NONCE)

    signed(blackwell, report)
    assert [kind for kind, _ in opaque(report)][-5:] == [20, 33, 35, 34, 36]
    assert same(report, (34, 35, 36)) == [(35, b"GB100\0"), (34, b"\1\0"), (36, b"\1\0")]


@needs_vectors
def test_blackwell_certificates_are_of_the_shape_of_genuine_ones(blackwell: EmulatedGpu) -> None:
    genuine = x509.load_pem_x509_certificates((BLACKWELL / "chain.pem").read_bytes())

    same_certificates(chain_of(blackwell), genuine)


@needs_vectors
def test_blackwell_leaf_endorses_firmware_as_a_genuine_one_does(blackwell: EmulatedGpu) -> None:
    oid = x509.ObjectIdentifier("2.23.133.5.4.1.1")
    genuine = x509.load_pem_x509_certificates((BLACKWELL / "chain.pem").read_bytes())[0]

    ours, theirs = (
        each.extensions.get_extension_for_oid(oid).value.public_bytes() for each in (chain_of(blackwell)[0], genuine)
    )

    firmware = dict(opaque(blackwell.report(NONCE)))[20], dict(opaque((BLACKWELL / "report.bin").read_bytes()))[20]
    assert ours.replace(firmware[0], firmware[1]) == theirs


def test_blackwell_manifests_are_named_by_chip_and_name_the_sets_of_genuine_ones(pki: Pki) -> None:
    publish(pki, B200)

    assert B200.driver_rim_id == f"NV_GPU_CC_DRIVER_GB100_{B200.driver}"
    assert B200.vbios_rim_id == "NV_GPU_VBIOS_G525_0220_886_9700FE0001"
    assert set(B200.vbios_goldens) == {*range(14), *range(15, 21)}
    assert not set(B200.vbios_goldens) & set(B200.driver_goldens)
    meta = etree.fromstring((pki.rims / f"{B200.driver_rim_id}.xml").read_bytes())[1]
    assert (meta.get("product"), meta.get("edition")) == ("GB100", "GPU")


def test_blackwell_has_no_protected_pcie_mode(pki: Pki) -> None:
    with pytest.raises(EmulatorError, match="protected-PCIe"):
        EmulatedGpu.create(pki, "b200", B200, protected_pcie=True)


def test_device_of_another_family_under_the_same_name_is_another_device(pki: Pki) -> None:
    hopper, other = (EmulatedGpu.create(pki, "renamed", MODELS[name]) for name in ("h200", "b200"))

    assert hopper.pdi != other.pdi
    assert common_name(chain_of(other)[1]) == "GB100 A01 GSP BROM"


# --- switches ---------------------------------------------------------------------------------------------------------
@needs_vectors
def test_switch_report_has_the_fields_of_a_genuine_one(switch: EmulatedSwitch, genuine_switch: dict[str, str]) -> None:
    genuine, emulated = base64.b64decode(genuine_switch["evidence"]), switch.report(NONCE)

    assert shape(emulated) == shape(genuine)
    assert same(emulated, (23, 24, 25)) == same(genuine, (23, 24, 25))
    assert emulated[36:45] == genuine[36:45]
    assert len(emulated) == len(genuine)


@needs_vectors
def test_switch_certificates_are_of_the_shape_of_genuine_ones(
    switch: EmulatedSwitch, genuine_switch: dict[str, str]
) -> None:
    genuine = x509.load_pem_x509_certificates(base64.b64decode(genuine_switch["certificate"]))

    same_certificates(chain_of(switch), genuine)


def test_switch_says_who_it_is(switch: EmulatedSwitch) -> None:
    report = switch.report(NONCE)
    fields = dict(opaque(report))

    signed(switch, report)
    assert report[41:45] == bytes.fromhex("1fa90600")
    assert fields[6].decode() == SWITCH.bios
    assert fields[22] == switch.pdi
    assert chain_of(switch)[1].serial_number.to_bytes(9, "big") == b"\x50" + switch.pdi


@needs_vectors
def test_switch_manifest_has_the_shape_of_a_genuine_one(pki: Pki) -> None:
    publish(pki, SWITCH)
    genuine = etree.fromstring((VECTORS / "ls10-96.10.55.00.01" / "bios_rim.xml").read_bytes())
    ours = etree.fromstring((pki.rims / f"{SWITCH.bios_rim_id}.xml").read_bytes())

    def signers(root: Any) -> list[str]:
        found = [base64.b64decode(each.text or "") for each in root.iter("{*}X509Certificate")]
        return [common_name(x509.load_der_x509_certificate(der)) for der in found][:-1]

    def counted(root: Any) -> list[tuple[str, str, str]]:
        return [(each.get("index"), each.get("active"), each.get("alternatives")) for each in root[2]]

    assert counted(ours) == counted(genuine)
    assert [ours[1].get(each) for each in ("product", "edition")] == ["LS10", "SWITCH"]
    assert signers(ours) == signers(genuine)


# --- a box ------------------------------------------------------------------------------------------------------------
def test_devices_of_a_box_name_each_other_as_their_certificates_do(box: EmulatedBox) -> None:
    def pdi(device: EmulatedDevice) -> bytes:
        return chain_of(device)[1].serial_number.to_bytes(9, "big")[1:]

    def pieces(data: bytes) -> list[bytes]:
        return [data[at : at + 8] for at in range(0, len(data), 8)]

    gpus, switches = {pdi(each) for each in box.gpus}, {pdi(each) for each in box.switches}

    for gpu in box.gpus:
        named_by_gpu = pieces(dict(opaque(gpu.report(NONCE)))[22])
        assert {each[::-1] for each in named_by_gpu} == switches
        assert len(named_by_gpu) == 18
    for position, each in enumerate(box.switches):
        fields = dict(opaque(each.report(NONCE)))
        assert set(pieces(fields[26][:64])) == gpus
        assert {*fields[26][64:]} == {*range(8), 0xFF}
        assert fields[24] == struct.pack("<H", position)
    assert len(gpus) == 8
    assert len(switches) == 4


def test_box_keeps_its_devices_over_restarts(pki: Pki, box: EmulatedBox) -> None:
    again = EmulatedBox.create(Pki.open(pki.path), "box", MODELS["h100-80gb"])

    assert [each.chain_pem for each in again.devices] == [each.chain_pem for each in box.devices]


def test_unknown_defects_are_errors_that_list_all(box: EmulatedBox, switch: EmulatedSwitch) -> None:
    with pytest.raises(EmulatorError, match="gpu-unseen"):
        box.spoiled("gpu-unsen")
    with pytest.raises(EmulatorError, match="switch-unlocked"):
        switch.spoiled("nvdec-status-absent")


def test_every_defect_of_a_box_changes_its_evidence_and_not_the_box(box: EmulatedBox) -> None:
    before = [each.kept for each in box.devices], box

    for name, defect in BOX_DEFECTS.items():
        assert (defect.name, defect.meaning[-1]) == (name, ".")
        assert box.spoiled(name) != box, name

    assert ([each.kept for each in box.devices], box) == before


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.product)
def test_every_family_has_defects_of_its_own_and_shared_ones(family: Any) -> None:
    found = defects_of(family)

    assert {"measurement-changed", "chain-signature", "rim-edited", "replayed"} <= set(found)
    assert all(named(name, family) is each for name, each in found.items())


# --- revocation answers -----------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def given(pki: Pki, blackwell: EmulatedGpu, box: EmulatedBox) -> dict[str, bytes]:
    return answers(pki, (blackwell, *box.devices), NOW)


def test_one_answer_for_each_certificate_between_leaf_and_root(given: dict[str, bytes]) -> None:
    # 13 devices; provisioners of three families, identities of two; signer, L3 and CA of three families' manifests.
    assert len(given) == 13 + 3 + 2 + 3 * 3


def test_answer_is_named_by_issuer_and_serial_and_root(
    pki: Pki, blackwell: EmulatedGpu, given: dict[str, bytes]
) -> None:
    _, own, provisioner, *_, root = chain_of(blackwell)
    point = provisioner.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    spki = root.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    issuer = f"{hashlib.sha384(own.issuer.public_bytes()).hexdigest()}:{hashlib.sha384(point).hexdigest()}"

    assert f"{issuer}:{own.serial_number:x}@{hashlib.sha256(spki).hexdigest()[:16]}" in given


def test_answers_are_by_responders_that_the_issuer_appointed(
    pki: Pki, blackwell: EmulatedGpu, given: dict[str, bytes]
) -> None:
    for asked in asked_about(pki, blackwell):
        response = ocsp.load_der_ocsp_response(given[asked.name])
        (responder,), (single,) = response.certificates, response.responses
        responder.verify_directly_issued_by(asked.issuer.certificate)
        key: Any = responder.public_key()
        key.verify(response.signature, response.tbs_response_bytes, ec.ECDSA(hashes.SHA384()))
        usage = responder.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
        assert ExtendedKeyUsageOID.OCSP_SIGNING in usage.value
        assert single.certificate_status is ocsp.OCSPCertStatus.GOOD
        assert single.serial_number == asked.certificate.serial_number
        assert (single.this_update_utc, single.next_update_utc) == (NOW, NOW + timedelta(days=1))


@needs_vectors
def test_answers_have_the_shape_of_genuine_ones(pki: Pki, given: dict[str, bytes], box: EmulatedBox) -> None:
    genuine = ocsp.load_der_ocsp_response((ANSWERS / "certificate_l4.der").read_bytes())
    ours = ocsp.load_der_ocsp_response(given[asked_about(pki, box.gpus[0])[0].name])

    def facts(response: ocsp.OCSPResponse) -> list[object]:
        (single,), (responder,) = response.responses, response.certificates
        point = responder.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        usage = responder.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
        return [
            response.response_status,
            response.signature_algorithm_oid,
            response.responder_name,
            response.responder_key_hash == hashlib.sha1(point).digest(),
            single.hash_algorithm.name,
            single.certificate_status,
            (single.next_update_utc or NOW) - single.this_update_utc,
            [*usage.value],
            usage.critical,
            len(list(response.extensions)),
        ]

    assert facts(ours) == facts(genuine)


@pytest.mark.parametrize("name", sorted(OCSP_DEFECTS))
def test_defect_of_an_answer_changes_that_answer_only(pki: Pki, blackwell: EmulatedGpu, name: str) -> None:
    defect, bad = OCSP_DEFECTS[name], asked_about(pki, blackwell)[0].name

    spoiled = answers(pki, (blackwell,), NOW, defect.spoil)

    assert (defect.name, defect.meaning[-1]) == (name, ".")
    for each, data in spoiled.items():
        if each != bad:
            (single,) = ocsp.load_der_ocsp_response(data).responses
            assert single.certificate_status is ocsp.OCSPCertStatus.GOOD


def test_two_answers_are_rightly_signed(pki: Pki, blackwell: EmulatedGpu) -> None:
    data = answers(pki, (blackwell,), NOW, OCSP_DEFECTS["two-answers"].spoil)[asked_about(pki, blackwell)[0].name]

    response = ocsp.load_der_ocsp_response(data)

    key: Any = response.certificates[0].public_key()
    key.verify(response.signature, response.tbs_response_bytes, ec.ECDSA(hashes.SHA384()))
    assert len(list(response.responses)) == 2


def test_published_answers_are_listed_once_whoever_publishes(pki: Pki, blackwell: EmulatedGpu, tmp_path: Path) -> None:
    gpus = [EmulatedGpu.create(pki, f"published-{n}", MODELS["h200"]) for n in range(6)]

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda gpu: publish_answers(tmp_path, answers(pki, (gpu, blackwell), NOW), NOW), gpus))

    listed = json.loads((tmp_path / MANIFEST).read_bytes())["documents"]
    # Each GPU; both provisioners and identities; signers of both families' manifests; and the other GPU.
    assert len(listed) == len({each["name"] for each in listed}) == 6 + 2 + 2 + 6 + 1
    for each in listed:
        assert hashlib.sha256((tmp_path / each["file"]).read_bytes()).hexdigest() == each["sha256"]
