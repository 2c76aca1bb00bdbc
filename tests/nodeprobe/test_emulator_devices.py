"""
The emulator makes what genuine devices make, byte for byte in shape.

Checked against the layout of spec/nvidia.md by recipes of their own, and against real recordings where they are at
hand; the verifier is not asked here.
"""

from __future__ import annotations

import base64
import hashlib
import json
import stat
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from nodeprobe.emulator import DEFECTS, MODELS, EmulatedGpu, EmulatorError, Pki, publish
from nodeprobe.emulator.defects import spoiled_manifests
from nodeprobe.emulator.families import HOPPER

NOW = datetime(2030, 1, 1, tzinfo=UTC)
NONCE = bytes(range(32))
ZERO = bytes(48)
VECTORS = Path(__file__).parents[3] / "shared" / "vectors" / "nvidia"
needs_vectors = pytest.mark.skipif(not VECTORS.is_dir(), reason="no real recordings beside the project")

SWID = "{http://standards.iso.org/iso/19770/-2/2015/schema.xsd}"
DS = "{http://www.w3.org/2000/09/xmldsig#}"
HASH = "{http://www.w3.org/2001/04/xmlenc#sha384}Hash"
DRIVER_ACTIVE = {7, *range(21, 41)}
VBIOS_ACTIVE = {*range(7), *range(8, 13)}
ALWAYS_ZERO = {*range(13, 21), *range(42, 64)}


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki.create(tmp_path_factory.mktemp("emulator") / "pki", now=NOW)


@pytest.fixture(scope="module")
def gpu(pki: Pki) -> EmulatedGpu:
    return EmulatedGpu.create(pki, "gpu-0", MODELS["h100-pcie"])


def opaque(report: bytes) -> list[tuple[int, bytes]]:
    """Types and values of the opaque fields; they must fill the opaque data."""
    (length,) = struct.unpack_from("<H", report, 3597)
    at, end, found = 3599, 3599 + length, []
    while at < end:
        kind, size = struct.unpack_from("<HH", report, at)
        found.append((kind, report[at + 4 : at + 4 + size]))
        at += 4 + size
    assert at == end
    assert len(report) == end + 96
    return found


def block(report: bytes, index: int) -> bytes:
    at = 45 + 55 * index
    assert report[at : at + 7] == bytes([index + 1, 1, 51, 0, 1, 48, 0])
    return report[at + 7 : at + 55]


def verify_raw(key: Any, signature: bytes, signed: bytes) -> None:
    r, s = int.from_bytes(signature[:48], "big"), int.from_bytes(signature[48:], "big")
    key.verify(encode_dss_signature(r, s), signed, ec.ECDSA(hashes.SHA384()))


def chain_of(gpu: EmulatedGpu) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(gpu.chain_pem)


def common_name(certificate: x509.Certificate) -> str:
    return str(certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


# --- report -----------------------------------------------------------------------------------------------------------
@settings(max_examples=40, deadline=None)
@given(nonce=st.binary(min_size=32, max_size=32), model=st.sampled_from(sorted(MODELS)), ppcie=st.booleans())
def test_report_is_a_signed_spdm_exchange_for_any_nonce(pki: Pki, nonce: bytes, model: str, ppcie: bool) -> None:
    hopper = MODELS[model].family == HOPPER
    gpu = EmulatedGpu.create(pki, "any", MODELS[model], protected_pcie=ppcie and hopper)

    report = gpu.report(nonce)

    assert report[:37] == b"\x11\xe0\x01\xff" + nonce + b"\0"
    assert report[37:45] == bytes.fromhex("1160000040c00d00")
    assert all(len(block(report, index)) == 48 for index in range(64))
    assert len({kind for kind, _ in opaque(report)}) == len(opaque(report))
    verify_raw(chain_of(gpu)[0].public_key(), report[-96:], report[:-96])


@needs_vectors
@pytest.mark.parametrize(("model", "ppcie"), [("h100-pcie", False), ("h100-80gb", True)])
def test_report_has_the_fields_of_a_genuine_one_in_order_and_size(pki: Pki, model: str, ppcie: bool) -> None:
    if ppcie:
        recorded = json.loads((VECTORS / "ppcie-8-gpus-4-switches" / "gpu_evidence.json").read_bytes())
        genuine = base64.b64decode(recorded[0]["evidence"])
    else:
        genuine = (VECTORS / "hopper-550.90.07" / "report.bin").read_bytes()

    emulated = EmulatedGpu.create(pki, "shape", MODELS[model], protected_pcie=ppcie).report(NONCE)

    def shape(report: bytes) -> list[tuple[int, int]]:
        return [(kind, 0 if kind == 3 else len(value)) for kind, value in opaque(report)]

    assert shape(emulated) == shape(genuine)
    same = {4, 13, 16, 19, 21, 34, 36}  # constants of the product and the mode
    assert [f for f in opaque(emulated) if f[0] in same] == [f for f in opaque(genuine) if f[0] in same]


def test_report_of_an_old_driver_names_no_firmware(pki: Pki) -> None:
    old = EmulatedGpu.create(pki, "old", replace(MODELS["h100-pcie"], driver="535.00.91"))

    assert [kind for kind, _ in opaque(old.report(NONCE))] == [6, 14, 15, 16, 17, 18, 19, 3, 4, 12, 13, 11]


def test_report_names_versions_as_the_catalogue_does(gpu: EmulatedGpu) -> None:
    fields = dict(opaque(gpu.report(NONCE)))

    assert fields[3] == gpu.model.driver.encode() + b"\0"
    b = fields[6]
    assert len(b) == 8
    assert f"{b[3]:02X}.{b[2]:02X}.{b[1]:02X}.{b[0]:02X}.{b[4]:02X}" == gpu.model.vbios
    assert fields[17].rstrip(b"\0").decode() == gpu.model.project


@pytest.mark.parametrize("size", [0, 31, 33])
def test_nonce_of_another_size_is_refused_as_the_driver_does(gpu: EmulatedGpu, size: int) -> None:
    with pytest.raises(ValueError, match="nonce"):
        gpu.report(bytes(size))


def test_two_reports_for_one_nonce_differ(gpu: EmulatedGpu) -> None:
    assert gpu.report(NONCE) != gpu.report(NONCE)


# --- chain ------------------------------------------------------------------------------------------------------------
def test_chain_is_five_certificates_that_verify_up_to_the_first_anchor(pki: Pki, gpu: EmulatedGpu) -> None:
    chain = chain_of(gpu)

    assert [common_name(each) for each in chain] == [
        "GH100 A01 GSP FMC LF",
        "GH100 A01 GSP BROM",
        "NVIDIA GH100 Provisioner ICA 1",
        "NVIDIA GH100 Identity",
        "Emulated Device Identity CA",
    ]
    assert len(gpu.chain_pem) <= 5120
    for child, issuer in zip(chain, [*chain[1:], chain[-1]], strict=True):
        child.verify_directly_issued_by(issuer)
        own = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        named = child.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
        assert named.key_identifier == own.digest
    assert chain[-1] == x509.load_pem_x509_certificates(pki.anchors.read_bytes())[0]


def test_only_the_leaf_is_no_ca(gpu: EmulatedGpu) -> None:
    leaf, *authorities = chain_of(gpu)

    with pytest.raises(x509.ExtensionNotFound):
        leaf.extensions.get_extension_for_class(x509.BasicConstraints)
    assert leaf.extensions.get_extension_for_class(x509.KeyUsage).value.digital_signature
    for each in authorities:
        constraints = each.extensions.get_extension_for_class(x509.BasicConstraints)
        assert constraints.critical
        assert constraints.value == x509.BasicConstraints(ca=True, path_length=None)
        assert each.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign


def test_serial_numbers_name_the_device(gpu: EmulatedGpu) -> None:
    leaf, brom, *_ = chain_of(gpu)

    for each in (leaf, brom):
        assert each.subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)[0].value == f"{each.serial_number:X}"
    assert brom.serial_number.to_bytes(9, "big") == b"\x41" + gpu.pdi


def test_leaf_endorses_the_device_key_and_the_firmware_that_the_report_names(gpu: EmulatedGpu) -> None:
    leaf, brom, *_ = chain_of(gpu)

    extension = leaf.extensions.get_extension_for_oid(x509.ObjectIdentifier("2.23.133.5.4.1"))

    der, spki = (
        extension.value.public_bytes(),
        brom.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
    )
    fwid = dict(opaque(gpu.report(NONCE)))[20]
    assert not extension.critical
    assert der == (bytes.fromhex("3081ba020101") + spki + bytes.fromhex("303d06096086480165030402020430") + fwid)
    assert len(der) == 189


@needs_vectors
def test_certificates_have_the_extensions_and_dates_of_genuine_ones(gpu: EmulatedGpu) -> None:
    genuine = x509.load_pem_x509_certificates((VECTORS / "hopper-550.90.07" / "chain.pem").read_bytes())

    for ours, theirs in zip(chain_of(gpu), genuine, strict=True):
        assert {(e.oid, e.critical) for e in ours.extensions} == {(e.oid, e.critical) for e in theirs.extensions}
        assert ours.signature_algorithm_oid == theirs.signature_algorithm_oid
        assert (ours.not_valid_before_utc, ours.not_valid_after_utc) == (
            theirs.not_valid_before_utc,
            theirs.not_valid_after_utc,
        )
        assert [each.oid for each in ours.subject] == [each.oid for each in theirs.subject]
    leaf = x509.SubjectAlternativeName
    ours_name = chain_of(gpu)[0].extensions.get_extension_for_class(leaf).value.get_values_for_type(x509.OtherName)[0]
    their_name = genuine[0].extensions.get_extension_for_class(leaf).value.get_values_for_type(x509.OtherName)[0]
    assert ours_name.type_id == their_name.type_id
    assert ours_name.value[:15] == their_name.value[:15]
    assert len(ours_name.value) == len(their_name.value)


# --- manifests --------------------------------------------------------------------------------------------------------
def check_signature(document: bytes) -> Any:
    """The root of a signed document without its signature; raises where digest or signature do not hold."""
    root = etree.fromstring(document)
    signature = root[-1]
    assert signature.tag == f"{DS}Signature"
    certificates = [
        x509.load_der_x509_certificate(base64.b64decode(each.text or ""))
        for each in signature.iter(f"{DS}X509Certificate")
    ]
    for child, issuer in pairwise(certificates):
        child.verify_directly_issued_by(issuer)
    info = etree.tostring(signature.find(f"{DS}SignedInfo"), method="c14n")
    verify_raw(certificates[0].public_key(), base64.b64decode(signature.findtext(f"{DS}SignatureValue", "")), info)
    assert signature.tail is None
    root.remove(signature)
    digest = base64.b64decode(signature.findtext(f".//{DS}DigestValue", ""))
    if hashlib.sha384(etree.tostring(root, method="c14n")).digest() != digest:
        raise InvalidSignature
    return root


def active(root: Any) -> dict[int, tuple[bytes, ...]]:
    """Index to allowed values of the measurements that count."""
    return {
        int(each.get("index")): tuple(
            bytes.fromhex(each.get(f"{HASH}{n}")) for n in range(int(each.get("alternatives")))
        )
        for each in root.find(f"{SWID}Payload")
        if each.get("active") == "True"
    }


@pytest.fixture(scope="module")
def manifests(pki: Pki, gpu: EmulatedGpu) -> dict[str, bytes]:
    publish(pki, gpu.model)
    return {path.stem: path.read_bytes() for path in pki.rims.glob("*.xml")}


def test_manifests_are_signed_under_the_second_anchor(pki: Pki, manifests: dict[str, bytes]) -> None:
    anchor = x509.load_pem_x509_certificates(pki.anchors.read_bytes())[1]

    for document in manifests.values():
        check_signature(document)
        embedded = list(etree.fromstring(document).iter(f"{DS}X509Certificate"))
        assert len(embedded) == 4
        assert base64.b64decode(embedded[-1].text or "") == anchor.public_bytes(Encoding.DER)


def test_manifests_name_the_sets_of_genuine_ones(gpu: EmulatedGpu, manifests: dict[str, bytes]) -> None:
    driver = active(check_signature(manifests["NV_GPU_DRIVER_GH100_550.00.91"]))
    vbios = active(check_signature(manifests["NV_GPU_VBIOS_1010_0200_882_9600FE0002"]))

    assert (set(driver), set(vbios)) == (DRIVER_ACTIVE, VBIOS_ACTIVE)
    assert any(ZERO in allowed for allowed in vbios.values())
    assert any(len(allowed) > 1 for allowed in driver.values())
    assert gpu.model.driver_rim_id in manifests
    assert gpu.model.vbios_rim_id in manifests


@needs_vectors
@pytest.mark.parametrize("which", ["driver", "vbios"])
def test_manifests_have_the_shape_of_genuine_ones(gpu: EmulatedGpu, manifests: dict[str, bytes], which: str) -> None:
    genuine = check_signature((VECTORS / "hopper-550.90.07" / f"{which}_rim.xml").read_bytes())
    name = gpu.model.driver_rim_id if which == "driver" else gpu.model.vbios_rim_id
    ours = check_signature(manifests[name])

    def shape(element: Any) -> Any:
        return element.tag, sorted(element.attrib), [shape(child) for child in element]

    assert shape(ours) == shape(genuine)
    fixed = ("edition", "product", "revision", "PayloadType")
    assert [ours[1].get(each) for each in fixed] == [genuine[1].get(each) for each in fixed]


@pytest.mark.parametrize("nvdec", [False, True])
def test_measurements_are_those_of_the_manifests(pki: Pki, manifests: dict[str, bytes], nvdec: bool) -> None:
    gpu = EmulatedGpu.create(pki, "measured", MODELS["h100-pcie"], nvdec_enabled=nvdec)
    goldens = {
        **active(check_signature(manifests[gpu.model.driver_rim_id])),
        **active(check_signature(manifests[gpu.model.vbios_rim_id])),
    }
    report = gpu.report(NONCE)

    differing = {index for index, allowed in goldens.items() if block(report, index) not in allowed}

    assert dict(opaque(report))[11] == (b"\xaa" if nvdec else b"\x55")
    assert differing == (set() if nvdec else {35})
    assert all(block(report, index) == ZERO for index in ALWAYS_ZERO)


def test_publishing_again_changes_nothing(pki: Pki, gpu: EmulatedGpu, manifests: dict[str, bytes]) -> None:
    publish(pki, gpu.model)

    assert all((pki.rims / f"{name}.xml").read_bytes() == document for name, document in manifests.items())


# --- identity and storage ---------------------------------------------------------------------------------------------
def test_device_keeps_its_identity_over_restarts(pki: Pki, gpu: EmulatedGpu) -> None:
    again = EmulatedGpu.create(Pki.open(pki.path), "gpu-0", MODELS["h100-pcie"])
    other = EmulatedGpu.create(pki, "gpu-1", MODELS["h100-pcie"])

    def identity(each: EmulatedGpu) -> tuple[object, ...]:
        return each.pdi, each.uuid, each.serial, each.chain_pem

    assert identity(again) == identity(gpu)
    assert not set(identity(other)) & set(identity(gpu))


def test_processes_that_start_at_once_share_one_pki_and_one_device(tmp_path: Path) -> None:
    def start(_n: int) -> tuple[bytes, bytes]:
        pki = Pki.create(tmp_path / "new" / "pki", now=NOW)
        return pki.anchors.read_bytes(), EmulatedGpu.create(pki, "gpu", MODELS["h200"]).chain_pem

    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(start, range(8)))

    assert len(found) == 1
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["pki"]


def test_keys_are_readable_by_their_owner_only(pki: Pki, gpu: EmulatedGpu) -> None:
    keys = list(pki.path.rglob("*.key"))

    assert len(keys) >= 9
    assert {stat.S_IMODE(path.stat().st_mode) for path in keys} == {0o600}
    assert "PRIVATE" not in pki.anchors.read_text()
    assert "key" not in repr(gpu)


def test_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")

    with pytest.raises(EmulatorError, match="holds no PKI"):
        Pki.create(tmp_path / "mine", now=NOW)

    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["letter.txt"]


@pytest.mark.parametrize("name", ["", "..", "a/b", "A", "x" * 65])
def test_device_name_that_is_no_file_name_is_refused(pki: Pki, name: str) -> None:
    with pytest.raises(EmulatorError):
        EmulatedGpu.create(pki, name, MODELS["h200"])


# --- defects ----------------------------------------------------------------------------------------------------------
def test_every_defect_says_what_is_wrong_and_where() -> None:
    for name, defect in DEFECTS.items():
        hooks = [defect.report, defect.chain, defect.manifest, defect.replays or None]
        assert sum(hook is not None for hook in hooks) == 1, name
        assert defect.name == name
        assert defect.meaning.endswith(".")


def test_unknown_defect_is_an_error_that_lists_all(gpu: EmulatedGpu) -> None:
    with pytest.raises(EmulatorError, match="measurement-changed"):
        gpu.spoiled("measurement-changd")


def parts(report: bytes) -> Callable[[int], bytes]:
    return lambda index: block(report, index)


def test_spoiling_changes_one_thing_and_keeps_the_identity(gpu: EmulatedGpu) -> None:
    bad = gpu.spoiled("measurement-changed")
    good_part, bad_part = parts(gpu.report(NONCE)), parts(bad.report(NONCE))

    assert [index for index in range(64) if good_part(index) != bad_part(index)] == [9]
    assert (bad.pdi, bad.chain_pem) == (gpu.pdi, gpu.chain_pem)
    verify_raw(chain_of(bad)[0].public_key(), (report := bad.report(NONCE))[-96:], report[:-96])
    assert bad.spoiled() == gpu


def test_replayed_report_is_genuine_and_always_the_same(pki: Pki, gpu: EmulatedGpu) -> None:
    first = gpu.spoiled("replayed").report(NONCE)
    later = EmulatedGpu.create(Pki.open(pki.path), "gpu-0", gpu.model).spoiled("replayed").report(bytes(32))

    assert first == later
    assert first[4:36] not in (NONCE, bytes(32))
    verify_raw(chain_of(gpu)[0].public_key(), first[-96:], first[:-96])


def test_chain_defects_leave_the_good_chain_of_the_device_alone(pki: Pki, gpu: EmulatedGpu) -> None:
    before = gpu.chain_pem

    changed = {name for name, each in DEFECTS.items() if each.chain and gpu.spoiled(name).chain_pem != before}

    assert changed == {name for name, each in DEFECTS.items() if each.chain}
    assert EmulatedGpu.create(pki, "gpu-0", gpu.model).chain_pem == before


def test_manifest_defect_of_a_device_is_an_error(pki: Pki, gpu: EmulatedGpu) -> None:
    with pytest.raises(EmulatorError, match="of a device"):
        spoiled_manifests(gpu.model, pki, "wrong-nonce")


@pytest.mark.parametrize(
    "name", ["rim-comment", "rim-xml-attribute", "rim-other-product", "rim-conflict", "rim-expired"]
)
def test_manifest_with_a_defect_of_content_is_validly_signed(pki: Pki, gpu: EmulatedGpu, name: str) -> None:
    document = spoiled_manifests(gpu.model, pki, name)[gpu.model.vbios_rim_id]

    if name == "rim-comment":
        document = document.replace(b"<!-- nothing to see -->", b"")
    check_signature(document)


@pytest.mark.parametrize("name", ["rim-edited", "rim-signature-bad", "rim-other-key"])
def test_manifest_with_a_broken_signature_has_one(pki: Pki, gpu: EmulatedGpu, name: str) -> None:
    with pytest.raises(InvalidSignature):
        check_signature(spoiled_manifests(gpu.model, pki, name)[gpu.model.vbios_rim_id])
