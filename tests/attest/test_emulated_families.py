"""
The verifier, asked about emulated Blackwell GPUs, switches, boxes and revocation answers: the good are believed, also
by a policy that leaves nothing unasked, and each defect is refused for its own reason.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from attest.anchors import Anchors, load_emulated
from attest.appraise import appraise
from attest.collateral import CollateralKind, Document, Fetch, Need
from attest.containers import read
from attest.evidence import Bundle, Nonce
from attest.folder import Folder
from attest.nvidia.verifier import NvidiaVerifier
from attest.policy import Policy, parse, shipped
from attest.reasons import Fault
from attest.result import AttestationResult, Tier
from attest.verify import verify
from nodeprobe.emulator import BOX_DEFECTS, MODELS, SWITCH, EmulatedBox, EmulatedGpu, EmulatedSwitch, Pki, publish
from nodeprobe.emulator.defects import defects_of, spoiled_manifests
from nodeprobe.emulator.device import EmulatedDevice
from nodeprobe.emulator.families import BLACKWELL, LS10
from nodeprobe.emulator.models import Model
from nodeprobe.emulator.ocsp import What, answers, asked_about, publish_answers
from nodeprobe.emulator.ocsp_defects import OCSP_DEFECTS

MADE = datetime(2030, 1, 1, tzinfo=UTC)
AT = datetime(2030, 1, 2, tzinfo=UTC)
NONCE = Nonce(bytes(range(32)))
FIXTURES = Path(__file__).parents[2] / "fixtures"
LAB = shipped("lab")
# As `production`, of whosoever's root: revocation, nonce, firmware and topology are asked for, and no hold allowed.
STRICT = parse('name = "emulated-production"\norigins = ["emulated"]\n')
SWITCHES_ALONE = parse('name = "switches"\norigins = ["emulated"]\n[nvidia]\ngpus_min = 0\n')
HGX, B200 = MODELS["h100-80gb"], MODELS["b200"]
PLACES: tuple[What, ...] = ("device", "provisioner", "identity", "rim-signer", "rim-l3", "rim-ca")

Documents = Mapping[Need, Document]


def device_defects(family: object) -> list[str]:
    found = defects_of(family)  # type: ignore[arg-type]
    return sorted(name for name, each in found.items() if each.manifest is None)


def manifest_defects(family: object) -> list[str]:
    found = defects_of(family)  # type: ignore[arg-type]
    return sorted(name for name, each in found.items() if each.manifest is not None)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki.create(tmp_path_factory.mktemp("emulator") / "pki", now=MADE)


@pytest.fixture(scope="module")
def anchors(pki: Pki) -> Anchors:
    return load_emulated(pki.anchors.read_bytes())


@pytest.fixture(scope="module")
def blackwell(pki: Pki) -> EmulatedGpu:
    return EmulatedGpu.create(pki, "b200", B200)


@pytest.fixture(scope="module")
def box(pki: Pki) -> EmulatedBox:
    return EmulatedBox.create(pki, "box", HGX)


@pytest.fixture(scope="module")
def manifests(pki: Pki) -> Documents:
    models: tuple[Model, ...] = (HGX, B200, SWITCH)
    for model in models:
        publish(pki, model)
    return as_documents(CollateralKind.NVIDIA_RIM, {each.stem: each.read_bytes() for each in pki.rims.glob("*.xml")})


@pytest.fixture(scope="module")
def given(pki: Pki, blackwell: EmulatedGpu, box: EmulatedBox) -> Documents:
    """Good answers about every certificate, as of now."""
    return as_documents(CollateralKind.NVIDIA_OCSP, answers(pki, (blackwell, *box.devices), AT))


def as_documents(kind: CollateralKind, named: Mapping[str, bytes]) -> Documents:
    return {Need(kind, name): Document.of(data) for name, data in named.items()}


def concluded(
    bundle: Bundle, documents: Documents, anchors: Anchors, policy: Policy = LAB, *, fetch: Fetch | None = None
) -> AttestationResult:
    verifiers = {NvidiaVerifier.kind: NvidiaVerifier(anchors)}
    verification = verify(bundle, verifiers, fetch or documents.get, nonce=NONCE, now=AT)
    return appraise(verification, policy, bundle=bundle, nonce=NONCE, now=AT)


def codes(result: AttestationResult) -> set[str]:
    return {finding.reason.code for finding in result.failed}


# --- the good world ---------------------------------------------------------------------------------------------------
def test_blackwell_is_believed_where_nothing_is_left_unasked(
    blackwell: EmulatedGpu, manifests: Documents, given: Documents, anchors: Anchors
) -> None:
    result = concluded((blackwell.evidence(NONCE),), {**manifests, **given}, anchors, STRICT)

    assert (result.tier, codes(result), result.revocation) == (Tier.AFFIRMING, set(), "good")
    (claim,) = result.claims
    assert claim.device == f"nvidia-gb100-{blackwell.pdi.hex()}"
    said = [claim.values[each] for each in ("architecture", "mode", "fwid", "measurements", "compared")]
    assert said == ["GB100", "mpt", "match", "match", 39]


def test_blackwells_of_an_older_driver_do_not_state_their_mode(pki: Pki, anchors: Anchors) -> None:
    model = replace(B200, driver="575.00.91")
    publish(pki, model)
    older = EmulatedGpu.create(pki, "older", model)
    documents = as_documents(
        CollateralKind.NVIDIA_RIM, {each.stem: each.read_bytes() for each in pki.rims.glob("*.xml")}
    )

    (claim,) = concluded((older.evidence(NONCE),), documents, anchors).claims

    assert (claim.values["mode"], claim.values["measurements"]) == ("unstated", "match")


def test_switches_alone_are_believed_where_no_gpu_is_asked_for(
    box: EmulatedBox, manifests: Documents, given: Documents, anchors: Anchors
) -> None:
    bundle = tuple(each.evidence(NONCE) for each in box.switches)

    result = concluded(bundle, {**manifests, **given}, anchors, SWITCHES_ALONE)

    assert (result.tier, codes(result), result.revocation) == (Tier.AFFIRMING, set(), "good")
    assert {claim.values["mode"] for claim in result.claims} == {"ppcie"}
    assert {(claim.values["bios"], claim.values["compared"]) for claim in result.claims} == {(SWITCH.bios, 31)}
    assert "device-count" in codes(concluded(bundle, {**manifests, **given}, anchors, STRICT))


def test_whole_box_is_believed_where_nothing_is_left_unasked(
    box: EmulatedBox, manifests: Documents, given: Documents, anchors: Anchors
) -> None:
    result = concluded(box.evidence(NONCE), {**manifests, **given}, anchors, STRICT)

    assert (result.tier, codes(result), result.revocation) == (Tier.AFFIRMING, set(), "good")
    assert len(result.claims) == 12
    for claim in result.claims:
        if claim.values["switch"]:
            assert claim.values["own_pdi"] == claim.values["pdi"]
            assert set(claim.values["gpu_pdis"]) == {each.pdi.hex() for each in box.gpus}  # type: ignore[arg-type]
        else:
            assert set(claim.values["switch_pdis"]) == {each.pdi.hex() for each in box.switches}  # type: ignore[arg-type]


def test_gpus_of_a_box_without_their_switches_need_a_policy_that_says_so(
    box: EmulatedBox, manifests: Documents, given: Documents, anchors: Anchors
) -> None:
    bundle = tuple(each.evidence(NONCE) for each in box.gpus)

    assert codes(concluded(bundle, {**manifests, **given}, anchors, STRICT)) == {"topology-absent"}
    assert concluded(bundle, {**manifests, **given}, anchors).tier is Tier.AFFIRMING


def test_boxes_beside_each_other_are_no_box(pki: Pki, box: EmulatedBox, manifests: Documents, anchors: Anchors) -> None:
    other = EmulatedBox.create(pki, "other", HGX)
    half = (*box.gpus[:4], *other.gpus[4:], *box.switches[:2], *other.switches[2:])

    assert "topology" in codes(concluded(tuple(each.evidence(NONCE) for each in half), manifests, anchors))


def test_unasked_revocation_is_told_and_refused_where_asked_for(
    blackwell: EmulatedGpu, manifests: Documents, given: Documents, anchors: Anchors
) -> None:
    bundle = (blackwell.evidence(NONCE),)

    assert concluded(bundle, manifests, anchors).revocation == "not checked"
    assert codes(concluded(bundle, manifests, anchors, STRICT)) == {"revocation-not-checked"}
    for absent in given:
        some = {need: document for need, document in given.items() if need != absent}
        result = concluded(bundle, {**manifests, **some}, anchors, STRICT)
        matters = "revocation-not-checked" in codes(result)
        assert matters == (absent.name in {each.name for each in asked_about(blackwell.pki, blackwell)})


def test_published_answers_are_found_in_their_folder(
    pki: Pki, box: EmulatedBox, blackwell: EmulatedGpu, anchors: Anchors, tmp_path: Path
) -> None:
    for model in (HGX, SWITCH):
        publish(pki, model)
    (tmp_path / "pki").mkdir()
    for path in pki.rims.glob("*.xml"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    publish_answers(tmp_path, answers(pki, (blackwell,), AT), AT)
    publish_answers(tmp_path, answers(pki, box.devices, AT), AT)

    fetch = Folder(tmp_path).at(AT)

    assert concluded(box.evidence(NONCE), {}, anchors, STRICT, fetch=fetch).tier is Tier.AFFIRMING
    assert concluded((blackwell.evidence(NONCE),), {}, anchors, STRICT, fetch=fetch).tier is Tier.AFFIRMING


@pytest.mark.parametrize("case", ["good-asked", "good-blackwell", "good-box"])
def test_recording_with_answers_is_believed_where_nothing_is_left_unasked(case: str) -> None:
    folder = FIXTURES / case
    says = tomllib.loads((folder / "case.toml").read_text())
    nonce, roots = Nonce(bytes.fromhex(says["nonce"])), load_emulated((folder / says["anchors"]).read_bytes())
    bundle = read([(folder / name).read_bytes() for name in says["evidence"]])

    fetch, verifiers = Folder(folder / says["collateral"]).at(AT), {NvidiaVerifier.kind: NvidiaVerifier(roots)}
    verification = verify(bundle, verifiers, fetch, nonce=nonce, now=AT)
    result = appraise(verification, STRICT, bundle=bundle, nonce=nonce, now=AT)

    assert (result.tier, codes(result), result.revocation) == (Tier.AFFIRMING, set(), "good")


# --- one thing spoiled ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", device_defects(BLACKWELL))
def test_defect_of_a_blackwell_is_refused_for_its_reason(
    blackwell: EmulatedGpu, manifests: Documents, anchors: Anchors, name: str
) -> None:
    assert_refused(blackwell, name, manifests, anchors)


@pytest.mark.parametrize("name", device_defects(LS10))
def test_defect_of_a_switch_is_refused_for_its_reason(
    box: EmulatedBox, manifests: Documents, anchors: Anchors, name: str
) -> None:
    assert_refused(box.switches[0], name, manifests, anchors)


def assert_refused(device: EmulatedDevice, name: str, manifests: Documents, anchors: Anchors) -> None:
    reason = defects_of(device.family)[name].reason

    result = concluded((device.spoiled(name).evidence(NONCE),), manifests, anchors)

    assert reason.code in codes(result)
    assert result.tier is (Tier.CONTRAINDICATED if reason.fault is Fault.NODE else Tier.NONE)


@pytest.mark.parametrize("name", manifest_defects(LS10))
def test_defect_of_a_bios_manifest_is_refused_for_its_reason(
    pki: Pki, box: EmulatedBox, anchors: Anchors, name: str
) -> None:
    spoiled = as_documents(CollateralKind.NVIDIA_RIM, spoiled_manifests(SWITCH, pki, name))

    result = concluded((box.switches[0].evidence(NONCE),), spoiled, anchors)

    assert defects_of(LS10)[name].reason.code in codes(result)
    assert result.tier is not Tier.AFFIRMING


@pytest.mark.parametrize("driver", [True, False])
@pytest.mark.parametrize("name", manifest_defects(BLACKWELL))
def test_defect_of_a_blackwell_manifest_is_refused_for_its_reason(
    pki: Pki, blackwell: EmulatedGpu, anchors: Anchors, name: str, driver: bool
) -> None:
    spoiled = as_documents(CollateralKind.NVIDIA_RIM, spoiled_manifests(B200, pki, name, driver=driver))

    result = concluded((blackwell.evidence(NONCE),), spoiled, anchors)

    assert defects_of(BLACKWELL)[name].reason.code in codes(result)
    assert result.tier is not Tier.AFFIRMING


@pytest.mark.parametrize("name", sorted(BOX_DEFECTS))
def test_defect_of_a_box_is_refused_for_its_reason(
    box: EmulatedBox, manifests: Documents, anchors: Anchors, name: str
) -> None:
    result = concluded(box.spoiled(name).evidence(NONCE), manifests, anchors)

    assert BOX_DEFECTS[name].reason.code in codes(result)
    assert result.tier is Tier.CONTRAINDICATED


@pytest.mark.parametrize("what", PLACES)
@pytest.mark.parametrize("name", sorted(OCSP_DEFECTS))
def test_defect_of_an_answer_is_refused_for_its_reason(
    pki: Pki, blackwell: EmulatedGpu, manifests: Documents, anchors: Anchors, name: str, what: What
) -> None:
    defect = OCSP_DEFECTS[name]
    wanted = defect.of_rim if what.startswith("rim-") and defect.of_rim is not None else defect.reason
    spoiled = as_documents(CollateralKind.NVIDIA_OCSP, answers(pki, (blackwell,), AT, defect.spoil, what=what))

    result = concluded((blackwell.evidence(NONCE),), {**manifests, **spoiled}, anchors)

    assert codes(result) == {wanted.code}
    assert result.tier is (Tier.CONTRAINDICATED if wanted.fault is Fault.NODE else Tier.NONE)


def test_hold_is_accepted_where_the_policy_allows_it(
    pki: Pki, blackwell: EmulatedGpu, manifests: Documents, anchors: Anchors
) -> None:
    held = as_documents(CollateralKind.NVIDIA_OCSP, answers(pki, (blackwell,), AT, OCSP_DEFECTS["hold"].spoil))
    tolerant = STRICT.model_copy(update={"allow_hold": True})

    result = concluded((blackwell.evidence(NONCE),), {**manifests, **held}, anchors, tolerant)

    assert (result.tier, result.revocation) == (Tier.AFFIRMING, "hold")


def test_answer_ends_at_its_instant_and_a_verdict_with_it(
    pki: Pki, blackwell: EmulatedGpu, manifests: Documents, anchors: Anchors
) -> None:
    def given_at(moment: datetime) -> AttestationResult:
        documents = as_documents(CollateralKind.NVIDIA_OCSP, answers(pki, (blackwell,), moment))
        return concluded((blackwell.evidence(NONCE),), {**manifests, **documents}, anchors, STRICT)

    day, second = timedelta(days=1), timedelta(seconds=1)

    assert given_at(AT - day + second).expires_at == AT + second
    assert codes(given_at(AT - day)) >= {"revocation-stale"}


def test_answers_of_another_emulator_answer_nothing(
    blackwell: EmulatedGpu, manifests: Documents, anchors: Anchors, tmp_path: Path
) -> None:
    other = Pki.create(tmp_path / "pki", now=MADE)
    theirs = as_documents(CollateralKind.NVIDIA_OCSP, answers(other, (EmulatedGpu.create(other, "b200", B200),), AT))

    result = concluded((blackwell.evidence(NONCE),), {**manifests, **theirs}, anchors, STRICT)

    assert codes(result) == {"revocation-not-checked"}


def test_switch_of_a_trusted_root_is_no_gpu(pki: Pki, manifests: Documents, given: Documents, anchors: Anchors) -> None:
    alone = EmulatedSwitch.create(pki, "alone")
    documents = {**manifests, **as_documents(CollateralKind.NVIDIA_OCSP, answers(pki, (alone,), AT))}

    result = concluded((alone.evidence(NONCE),), documents, anchors, STRICT)

    assert codes(result) == {"device-count"}
