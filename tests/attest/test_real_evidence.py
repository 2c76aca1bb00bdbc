"""Recordings of real devices are accepted or refused exactly as those who recorded them say."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from attest import reasons
from attest.anchors import VENDORS, Anchors
from attest.appraise import appraise
from attest.collateral import Document, nothing
from attest.containers import read
from attest.errors import NonceMismatch, UntrustedCollateral
from attest.evidence import Nonce
from attest.folder import Folder
from attest.memo import Memo
from attest.nvidia import rim as rims
from attest.policy import shipped
from attest.result import Tier
from attest.verify import installed, verify
from tests.evidence import (
    DRIVER_550,
    REAL,
    VBIOS_545,
    VBIOS_550,
    VECTORS,
    hopper_545,
    hopper_550,
    needs_vectors,
    needs_wheel,
    wheel_member,
)


def codes(result):
    return {f.reason.code for f in result.failed}


@pytest.mark.parametrize("recording", REAL)
def test_a_real_h100_is_affirmed(recording):
    result = recording().judge("lab")

    assert result.tier is Tier.AFFIRMING
    assert not result.emulated
    assert (result.revocation, result.freshness) == ("not checked", "nonce")
    assert result.claims[0].values["measurements"] == "match"
    assert result.claims[0].values["compared"] == 32  # 33 active, less index 35: its decoder is off


@pytest.mark.parametrize("recording", REAL)
def test_production_does_not_accept_what_nobody_asked_revocation_about(recording):
    result = recording().judge("production")

    assert result.tier is not Tier.AFFIRMING
    assert reasons.REVOCATION_NOT_CHECKED.code in codes(result)


@needs_vectors
def test_the_claims_of_a_real_h100():
    (claims,) = hopper_550().verify().claims

    assert claims.device == "nvidia-gh100-431d480fe5e87274"
    assert claims.values["driver"] == "550.90.07"
    assert claims.values["vbios"] == "96.00.9F.00.01"
    assert claims.values["mode"] == "spt"
    assert claims.values["fwid"] == "match"
    assert claims.values["rim_driver_id"] == DRIVER_550
    assert claims.values["rim_vbios_id"] == VBIOS_550
    assert claims.not_after == datetime(2026, 2, 22, 23, 17, 58, tzinfo=UTC)  # of the VBIOS RIM's signer


@needs_wheel
def test_an_old_driver_names_no_firmware_and_only_lab_accepts_that():
    assert hopper_545().verify().claims[0].values["fwid"] == "absent"
    assert reasons.FWID_ABSENT.code in codes(hopper_545().judge("production"))


@pytest.mark.parametrize("recording", REAL)
def test_another_nonce_is_refused(recording):
    (refusal,) = recording().verify(nonce=Nonce(bytes(32))).refusals

    assert refusal.reason is reasons.NONCE_MISMATCH


@pytest.mark.parametrize("recording", REAL)
def test_without_a_root_nothing_is_believed(recording):
    world = recording()
    verification = verify(world.bundle, installed(Anchors()), world.fetch, nonce=world.nonce, now=world.at)

    assert [r.reason for r in verification.refusals] == [reasons.CHAIN_ROOT]
    assert not verification.claims


@needs_vectors
@pytest.mark.parametrize(
    ("at", "tier", "code"),
    [
        (
            datetime(2024, 6, 1, 2, 8, 28, tzinfo=UTC),
            Tier.NONE,
            reasons.RIM_TIME,
        ),  # a second before the driver RIM's signer
        (datetime(2024, 6, 1, 2, 8, 29, tzinfo=UTC), Tier.AFFIRMING, None),
        (datetime(2026, 2, 22, 23, 17, 57, tzinfo=UTC), Tier.AFFIRMING, None),
        (datetime(2026, 2, 22, 23, 17, 59, tzinfo=UTC), Tier.NONE, reasons.RIM_EXPIRED),
    ],
)
def test_rims_count_while_their_signers_are_valid(at, tier, code):
    result = hopper_550().judge("lab", at=at)

    assert result.tier is tier
    assert codes(result) == (set() if code is None else {code.code})


@needs_vectors
def test_a_verdict_ends_with_the_certificates_that_it_rests_on():
    at = datetime(2026, 2, 22, 23, 17, 0, tzinfo=UTC)

    assert hopper_550().judge("lab", at=at).expires_at == datetime(2026, 2, 22, 23, 17, 58, tzinfo=UTC)


@needs_vectors
def test_an_expired_rim_is_accepted_only_as_long_as_a_policy_says():
    late = datetime(2026, 3, 1, tzinfo=UTC)
    (claims,) = hopper_550().verify(at=late).claims

    assert claims.values["rim_expired_days"] == 7
    assert (
        claims.not_after == hopper_550().verify().claims[0].not_after.max.replace(tzinfo=UTC) or claims.not_after > late
    )


@needs_vectors
def test_a_re_signed_rim_serves_the_same_device_later():
    folder = VECTORS / "nvidia" / "hopper-550.90.07"
    old = hopper_550()
    resigned = replace(
        old,
        rims={DRIVER_550: old.rims[DRIVER_550], VBIOS_550: (folder / "vbios_rim_resigned.xml").read_bytes()},
        at=datetime(2026, 3, 1, tzinfo=UTC),
    )

    assert resigned.judge("lab").tier is Tier.AFFIRMING


@needs_vectors
def test_a_folder_finds_rims_by_content_and_picks_the_one_valid_then():
    folder = Folder(VECTORS / "nvidia" / "hopper-550.90.07")
    world = hopper_550()
    for at in (datetime(2024, 7, 1, tzinfo=UTC), datetime(2026, 3, 1, tzinfo=UTC)):
        verification = verify(world.bundle, installed(VENDORS), folder.at(at), nonce=world.nonce, now=at)
        assert not verification.refusals
        assert verification.claims[0].values["rim_expired_days"] == 0


@needs_vectors
def test_one_mismatching_measurement_is_named_by_its_index():
    """Genuine evidence and a genuine RIM of the same version, issued anew with another value at index 9."""
    folder = VECTORS / "nvidia" / "refuse-measurement-mismatch-idx9-535"
    bundle = read([(folder / "report.bin").read_bytes(), (folder / "chain.pem").read_bytes()])
    document = Document.of((folder / "vbios_rim.xml").read_bytes())
    verification = verify(
        bundle,
        installed(VENDORS),
        lambda need: document if need.name == VBIOS_545 else None,
        nonce=Nonce(bundle[0].payload[4:36]),
        now=datetime(2024, 6, 1, tzinfo=UTC),
    )

    assert verification.claims[0].values["mismatching_indices"] == (9,)
    assert verification.claims[0].values["measurements"] == "incomplete"  # the driver RIM of 535.86.09 is not at hand


@needs_vectors
@needs_wheel
def test_another_genuine_rim_of_the_same_version_has_no_mismatch():
    """Yet another issue of that VBIOS RIM, from the wheel, agrees with the same evidence."""
    folder = VECTORS / "nvidia" / "refuse-measurement-mismatch-idx9-535"
    bundle = read([(folder / "report.bin").read_bytes(), (folder / "chain.pem").read_bytes()])
    document = Document.of(wheel_member("1010_0200_882_96005E0001_PROD.swidtag"))
    verification = verify(
        bundle,
        installed(VENDORS),
        lambda need: document if need.name == VBIOS_545 else None,
        nonce=None,
        now=datetime(2024, 6, 1, tzinfo=UTC),
    )

    assert verification.claims[0].values["mismatching_indices"] == ()


@needs_vectors
@pytest.mark.parametrize(
    ("folder", "reason"),
    [
        ("refuse-rim-digest-mismatch-535", reasons.RIM_DIGEST),
        ("refuse-rim-signature-bad", reasons.RIM_SIGNATURE),
    ],
)
def test_spoiled_rims_are_refused_for_their_reason(folder, reason):
    document = Document.of((VECTORS / "nvidia" / folder / "rim.xml").read_bytes())

    with pytest.raises(UntrustedCollateral) as refused:
        rims.load(document, VENDORS.nvidia_rim, known=Memo(1), paths=Memo(1))

    assert refused.value.reason is reason


# --- switches and Blackwell -------------------------------------------------------------------------------------------
def recorded(name, chain="chain.pem"):
    """The device of a folder, what verifies it at a time, and the nonce that it answers."""
    folder = VECTORS / "nvidia" / name
    bundle = read([(folder / "report.bin").read_bytes(), (folder / chain).read_bytes()])
    return bundle, Folder(folder), Nonce(bundle[0].payload[4:36])


def judged(name, at, chain="chain.pem", policy="lab"):
    bundle, folder, nonce = recorded(name, chain)
    verification = verify(bundle, installed(VENDORS), folder.at(at), nonce=nonce, now=at)
    return appraise(verification, shipped(policy), bundle=bundle, nonce=nonce, now=at)


LS10 = "ls10-96.10.55.00.01"


@needs_vectors
@pytest.mark.parametrize(
    ("at", "code"),
    [
        (datetime(2024, 5, 20, 17, 59, 5, tzinfo=UTC), "rim-time"),
        (datetime(2024, 5, 20, 17, 59, 6, tzinfo=UTC), None),
        (datetime(2026, 5, 20, 17, 59, 5, tzinfo=UTC), None),
        # Between the two signings of its manifest there are four hours without a valid one.
        (datetime(2026, 5, 20, 17, 59, 6, tzinfo=UTC), "rim-time"),
        (datetime(2026, 5, 20, 22, 2, 50, tzinfo=UTC), "rim-time"),
        (datetime(2026, 5, 20, 22, 2, 51, tzinfo=UTC), None),
        (datetime(2027, 11, 2, 23, 59, 58, tzinfo=UTC), None),
        (datetime(2027, 11, 2, 23, 59, 59, tzinfo=UTC), "rim-expired"),
    ],
)
def test_a_real_switch_is_affirmed_while_one_signing_of_its_manifest_is_valid(at, code):
    result = judged(LS10, at)

    assert codes(result) == ({code} if code else set())
    assert result.tier is (Tier.NONE if code else Tier.AFFIRMING)


@needs_vectors
def test_the_claims_of_a_real_switch():
    result = judged(LS10, datetime(2026, 6, 1, tzinfo=UTC))
    (claims,) = result.claims

    assert claims.device == "nvidia-ls_10-203eb31ad9ed0008"
    wanted = {
        "architecture": "LS_10",
        "switch": True,
        "bios": "96.10.55.00.01",
        "mode": "ppcie",
        "own_pdi": claims.values["pdi"],
        "fwid": "not reported",
        "measurements": "match",
        "compared": 31,
        "rim_bios": "verified",
    }
    assert {name: claims.values[name] for name in wanted} == wanted
    assert len(claims.values["gpu_pdis"]) == 7  # this one sees no eighth
    assert not result.emulated


@needs_vectors
def test_a_switch_alone_is_no_node():
    assert codes(judged(LS10, datetime(2026, 6, 1, tzinfo=UTC), policy="production")) >= {"device-count"}


@needs_vectors
def test_the_chain_of_a_sibling_switch_does_not_fit():
    name, at = "refuse-chain-of-sibling-switch", datetime(2026, 1, 1, tzinfo=UTC)

    assert codes(judged(name, at)) == {"report-signature"}
    assert codes(judged(name, at, chain="correct_chain.pem")) == {"rim-unavailable"}


@needs_vectors
def test_a_real_blackwell_holds_but_for_its_missing_rims():
    result = judged("blackwell-575.32", datetime(2026, 1, 1, tzinfo=UTC))
    (claims,) = result.claims

    assert (result.tier, codes(result)) == (Tier.NONE, {"rim-unavailable"})
    assert claims.device == "nvidia-gb100-e6de55c3bdc14277"
    wanted = {
        "architecture": "GB100",
        "switch": False,
        "fwid": "match",
        "rim_driver_id": "NV_GPU_CC_DRIVER_GB100_575.32",
        "rim_driver": "missing",
        "rim_vbios": "missing",
        "measurements": "incomplete",
    }
    assert {name: claims.values[name] for name in wanted} == wanted


@needs_vectors
def test_a_device_on_hold_is_genuine_until_somebody_asks():
    """Its certificate is on hold; offline nobody knows. `test_revocation` has the answer."""
    result = judged("refuse-ocsp-cert-hold", datetime(2026, 1, 1, tzinfo=UTC))

    assert (codes(result), result.revocation) == ({"rim-unavailable"}, "not checked")
    assert "revocation-not-checked" in codes(
        judged("refuse-ocsp-cert-hold", datetime(2026, 1, 1, tzinfo=UTC), policy="production")
    )


# --- bundles ----------------------------------------------------------------------------------------------------------
@needs_vectors
def test_a_whole_box_holds_but_for_its_missing_rims():
    wire = (VECTORS / "nvidia" / "ppcie-8-gpus-4-switches" / "gpu_evidence.json").read_bytes()
    bundle = read([wire])
    nonce = Nonce(bundle[0].payload[4:36])
    verification = verify(bundle, installed(VENDORS), nothing, nonce=nonce, now=datetime(2026, 1, 1, tzinfo=UTC))

    assert not verification.refusals
    assert len({claims.device for claims in verification.claims}) == 8
    assert {claims.values["mode"] for claims in verification.claims} == {"ppcie"}


@needs_vectors
def test_the_same_gpu_eight_times_is_no_box():
    wire = json.loads((VECTORS / "nvidia" / "ppcie-8-gpus-4-switches" / "gpu_evidence.json").read_bytes())
    bundle = read([json.dumps([wire[0]] * 8).encode()])
    verification = verify(bundle, installed(VENDORS), nothing, nonce=None, now=datetime(2026, 1, 1, tzinfo=UTC))

    assert reasons.DEVICE_DUPLICATE in [r.reason for r in verification.refusals]


@needs_vectors
def test_one_bad_device_fails_all():
    wire = json.loads((VECTORS / "nvidia" / "ppcie-8-gpus-4-switches" / "gpu_evidence.json").read_bytes())
    wire[3]["certificate"] = wire[4]["certificate"]
    bundle = read([json.dumps(wire).encode()])
    verification = verify(bundle, installed(VENDORS), nothing, nonce=None, now=datetime(2026, 1, 1, tzinfo=UTC))

    assert [(r.device, r.reason) for r in verification.refusals] == [(3, reasons.REPORT_SIGNATURE)]
    assert len(verification.claims) == 7


@needs_vectors
def test_a_secret_ai_workers_gpu_is_read_from_its_nras_request():
    folder = VECTORS / "tdx" / "secretvm-tdx-and-h100"
    bundle = read([(folder / "gpu_attest.json").read_bytes()])
    nonce = Nonce(bytes.fromhex(json.loads((folder / "gpu_attest.json").read_bytes())["nonce"]))
    verification = verify(bundle, installed(VENDORS), nothing, nonce=nonce, now=datetime(2026, 10, 20, tzinfo=UTC))

    assert not verification.refusals
    assert verification.claims[0].values["rim_driver"] == "missing"


@needs_vectors
def test_a_missing_rim_is_nobodys_fault_and_still_no_yes():
    world = replace(hopper_550(), rims={})

    assert world.judge("lab").tier is Tier.NONE


@needs_vectors
def test_a_rim_of_another_version_does_not_stand_in():
    other = (VECTORS / "nvidia" / "refuse-measurement-mismatch-idx9-535" / "vbios_rim.xml").read_bytes()
    world = replace(hopper_550(), rims=hopper_550().rims | {VBIOS_550: other})

    assert [r.reason for r in world.verify().refusals] == [reasons.RIM_BINDING]


@needs_vectors
def test_a_driver_rim_does_not_stand_in_for_a_vbios_rim():
    world = hopper_550()
    world = replace(world, rims=world.rims | {VBIOS_550: world.rims[DRIVER_550]})

    assert [r.reason for r in world.verify().refusals] == [reasons.RIM_BINDING]


@needs_vectors
def test_the_pinned_roots_are_those_of_the_published_certificates():
    from cryptography.x509 import load_pem_x509_certificates

    from attest.anchors import NVIDIA_DEVICE, Anchor

    presented = load_pem_x509_certificates(hopper_550().chain)[-1]
    assert Anchor.of(presented) == NVIDIA_DEVICE
    assert not NVIDIA_DEVICE.emulated


@needs_vectors
def test_the_nonce_error_is_one_of_trust():
    verifier = installed(VENDORS)["nvidia"]
    world = hopper_550()
    with pytest.raises(NonceMismatch):
        verifier.verify(world.bundle[0], {}, nonce=Nonce(b"\1" * 32), now=world.at + timedelta(0))


@needs_vectors
def test_policies_that_ship_all_refuse_an_empty_verification():
    from attest.verify import Verification

    for name in ("strict", "production", "lab"):
        result = appraise(
            Verification((), ()), shipped(name), bundle=(), nonce=None, now=datetime(2026, 1, 1, tzinfo=UTC)
        )
        assert result.tier is Tier.CONTRAINDICATED
