"""
The verifier, asked about emulated devices: the good are believed, and each defect is refused for its own reason.

Emulator and verifier were written apart, from the same specification, and share no encoding: where they agree, it is
not because one copied the other's mistake. The recordings in `fixtures/` go through the same verifier.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from attest.__main__ import main
from attest.anchors import VENDORS, Anchors, load_emulated
from attest.appraise import appraise
from attest.collateral import Document, Need
from attest.containers import read
from attest.errors import MalformedEvidence
from attest.evidence import Bundle, Nonce
from attest.folder import Folder
from attest.nvidia.verifier import NvidiaVerifier
from attest.policy import shipped
from attest.reasons import RIM_UNAVAILABLE, Fault
from attest.result import AttestationResult, Tier
from attest.verify import verify
from nodeprobe.emulator import DEFECTS, MODELS, EmulatedGpu, Pki, publish
from nodeprobe.emulator.defects import spoiled_manifests
from nodeprobe.emulator.families import HOPPER

MADE = datetime(2030, 1, 1, tzinfo=UTC)
AT = datetime(2030, 1, 2, tzinfo=UTC)
NONCE = Nonce(bytes(range(32)))
FIXTURES = Path(__file__).parents[2] / "fixtures"
CASES = sorted(path.parent for path in FIXTURES.glob("*/case.toml"))
MODEL = MODELS["h100-pcie"]

DEVICE_DEFECTS = sorted(name for name, each in DEFECTS.items() if each.manifest is None)
MANIFEST_DEFECTS = sorted(name for name, each in DEFECTS.items() if each.manifest is not None)

Documents = Mapping[str, bytes]


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki.create(tmp_path_factory.mktemp("emulator") / "pki", now=MADE)


@pytest.fixture(scope="module")
def anchors(pki: Pki) -> Anchors:
    return load_emulated(pki.anchors.read_bytes())


@pytest.fixture(scope="module")
def documents(pki: Pki) -> Documents:
    for model in MODELS.values():
        publish(pki, model)
    return {path.stem: path.read_bytes() for path in pki.rims.glob("*.xml")}


@pytest.fixture(scope="module")
def gpu(pki: Pki) -> EmulatedGpu:
    return EmulatedGpu.create(pki, "gpu-0", MODEL)


def concluded(
    bundle: Bundle,
    documents: Documents,
    anchors: Anchors,
    *,
    now: datetime = AT,
    nonce: Nonce | None = NONCE,
    policy: str = "lab",
) -> AttestationResult:
    def fetch(need: Need) -> Document | None:
        return Document.of(documents[need.name]) if need.name in documents else None

    verifiers = {NvidiaVerifier.kind: NvidiaVerifier(anchors)}
    verification = verify(bundle, verifiers, fetch, nonce=nonce, now=now)
    return appraise(verification, shipped(policy), bundle=bundle, nonce=nonce, now=now)


def codes(result: AttestationResult) -> set[str]:
    return {finding.reason.code for finding in result.failed}


# --- the good world ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_model_is_believed_and_marked_as_emulated(
    pki: Pki, documents: Documents, anchors: Anchors, name: str
) -> None:
    gpu = EmulatedGpu.create(pki, name, MODELS[name])

    result = concluded((gpu.evidence(NONCE),), documents, anchors)

    assert (result.tier, codes(result), result.emulated) == (Tier.AFFIRMING, set(), True)
    (claim,) = result.claims
    assert claim.device.endswith(gpu.pdi.hex())
    assert (claim.values["driver"], claim.values["vbios"]) == (gpu.model.driver, gpu.model.vbios)
    alone = ("spt", 32) if gpu.family == HOPPER else ("mpt", 39)
    assert (claim.values["mode"], claim.values["compared"]) == alone


def test_measurement_35_counts_where_the_decoder_is_on(pki: Pki, documents: Documents, anchors: Anchors) -> None:
    gpu = EmulatedGpu.create(pki, "decoder", MODEL, nvdec_enabled=True)

    (claim,) = concluded((gpu.evidence(NONCE),), documents, anchors).claims

    assert (claim.values["measurements"], claim.values["compared"]) == ("match", 33)


def test_eight_gpus_of_a_box_are_eight_devices_in_one_mode(pki: Pki, documents: Documents, anchors: Anchors) -> None:
    gpus = [EmulatedGpu.create(pki, f"box-{n}", MODELS["h200"], protected_pcie=True) for n in range(8)]

    result = concluded(tuple(each.evidence(NONCE) for each in gpus), documents, anchors)

    assert result.tier is Tier.AFFIRMING
    assert len({claim.device for claim in result.claims}) == 8
    assert {claim.values["mode"] for claim in result.claims} == {"ppcie"}


def test_devices_in_different_modes_are_refused(pki: Pki, documents: Documents, anchors: Anchors) -> None:
    one = EmulatedGpu.create(pki, "mode-0", MODELS["h200"], protected_pcie=True)
    other = EmulatedGpu.create(pki, "mode-1", MODELS["h200"])

    result = concluded((one.evidence(NONCE), other.evidence(NONCE)), documents, anchors)

    assert "devices-differ" in codes(result)


def test_firmware_may_be_absent_from_reports_of_old_drivers_only(pki: Pki, anchors: Anchors) -> None:
    model = replace(MODEL, driver="535.00.91")
    publish(pki, model)
    rims = {path.stem: path.read_bytes() for path in pki.rims.glob("*.xml")}
    old = EmulatedGpu.create(pki, "old", model)

    assert concluded((old.evidence(NONCE),), rims, anchors).tier is Tier.AFFIRMING


def test_emulated_evidence_is_nothing_to_who_trusts_vendors_only(gpu: EmulatedGpu, documents: Documents) -> None:
    assert "chain-root" in codes(concluded((gpu.evidence(NONCE),), documents, VENDORS))


def test_emulated_evidence_is_refused_by_a_production_policy(
    gpu: EmulatedGpu, documents: Documents, anchors: Anchors
) -> None:
    result = concluded((gpu.evidence(NONCE),), documents, VENDORS.trusting(anchors), policy="production")

    assert "root-not-accepted" in codes(result)


def test_manifest_expires_at_its_instant(pki: Pki, gpu: EmulatedGpu, documents: Documents, anchors: Anchors) -> None:
    end = pki.rim_l4.certificate.not_valid_after_utc
    bundle = (gpu.evidence(NONCE),)

    before = concluded(bundle, documents, anchors, now=end - timedelta(seconds=1))
    after = concluded(bundle, documents, anchors, now=end + timedelta(seconds=1))

    assert before.tier is Tier.AFFIRMING
    assert before.expires_at == end
    assert codes(after) == {"rim-expired"}


# --- one thing spoiled ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", DEVICE_DEFECTS)
def test_defect_of_a_device_is_refused_for_its_reason(
    gpu: EmulatedGpu, documents: Documents, anchors: Anchors, name: str
) -> None:
    result = concluded((gpu.spoiled(name).evidence(NONCE),), documents, anchors)

    assert DEFECTS[name].reason.code in codes(result)
    assert result.tier is (Tier.CONTRAINDICATED if DEFECTS[name].reason.fault is Fault.NODE else Tier.NONE)


@pytest.mark.parametrize("which", ["driver", "vbios"])
@pytest.mark.parametrize("name", MANIFEST_DEFECTS)
def test_defect_of_a_manifest_is_refused_for_its_reason(
    pki: Pki, gpu: EmulatedGpu, anchors: Anchors, name: str, which: str
) -> None:
    spoiled = spoiled_manifests(MODEL, pki, name, driver=which == "driver")

    result = concluded((gpu.evidence(NONCE),), spoiled, anchors)

    assert DEFECTS[name].reason.code in codes(result)
    assert result.tier is not Tier.AFFIRMING


@pytest.mark.parametrize("absent", [MODEL.driver_rim_id, MODEL.vbios_rim_id])
def test_absent_manifest_is_named(gpu: EmulatedGpu, documents: Documents, anchors: Anchors, absent: str) -> None:
    some = {name: document for name, document in documents.items() if name != absent}

    result = concluded((gpu.evidence(NONCE),), some, anchors)

    named = [finding.wanted for finding in result.failed if finding.reason is RIM_UNAVAILABLE]
    assert absent in named
    assert result.tier is Tier.NONE


def test_manifests_in_each_others_place_are_refused(gpu: EmulatedGpu, documents: Documents, anchors: Anchors) -> None:
    swapped = {
        MODEL.driver_rim_id: documents[MODEL.vbios_rim_id],
        MODEL.vbios_rim_id: documents[MODEL.driver_rim_id],
    }

    assert "rim-binding" in codes(concluded((gpu.evidence(NONCE),), swapped, anchors))


@pytest.mark.parametrize("place", range(3))
def test_one_bad_device_of_three_fails_the_node_wherever_it_stands(
    pki: Pki, documents: Documents, anchors: Anchors, place: int
) -> None:
    gpus = [EmulatedGpu.create(pki, f"three-{n}", MODEL) for n in range(3)]
    gpus[place] = gpus[place].spoiled("signature-zero")

    result = concluded(tuple(each.evidence(NONCE) for each in gpus), documents, anchors)

    assert result.tier is Tier.CONTRAINDICATED
    assert [f.device for f in result.failed if f.reason.code == "report-signature"] == [f"device {place}"]
    assert len(result.claims) == 2


# --- recordings -------------------------------------------------------------------------------------------------------
def test_there_are_recordings() -> None:
    assert len(CASES) >= 15


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.name)
def test_recording_is_judged_as_its_case_says(case: Path) -> None:
    says: dict[str, Any] = tomllib.loads((case / "case.toml").read_text())
    roots = load_emulated((case / says["anchors"]).read_bytes())
    bundle = read([(case / name).read_bytes() for name in says["evidence"]])
    nonce = Nonce(bytes.fromhex(says["nonce"]))
    verifiers = {NvidiaVerifier.kind: NvidiaVerifier(VENDORS.trusting(roots))}

    verification = verify(
        bundle, verifiers, Folder(case / says["collateral"]).at(says["at"]), nonce=nonce, now=says["at"]
    )
    result = appraise(verification, shipped(says["policy"]), bundle=bundle, nonce=nonce, now=says["at"])

    assert set(says["reasons"]) <= codes(result)
    assert (result.tier is Tier.AFFIRMING) == (says["exit_status"] == 0) == (not says["reasons"])


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.name)
def test_command_ends_with_the_status_of_the_case(case: Path) -> None:
    says: dict[str, Any] = tomllib.loads((case / "case.toml").read_text())
    options = ["--nonce", says["nonce"], "--at", says["at"].isoformat(), "--policy", says["policy"], "--json"]
    folders = ["--collateral", str(case / says["collateral"]), "--trust-root", str(case / says["anchors"])]

    ended = CliRunner().invoke(main, ["verify", *(str(case / name) for name in says["evidence"]), *folders, *options])

    assert ended.exit_code == says["exit_status"]


def test_no_recording_holds_a_private_key() -> None:
    assert not [path for path in FIXTURES.rglob("*") if path.is_file() and b"PRIVATE KEY" in path.read_bytes()]


def test_empty_recording_is_no_evidence() -> None:
    with pytest.raises(MalformedEvidence):
        read([])
