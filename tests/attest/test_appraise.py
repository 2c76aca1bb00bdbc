"""Each rule held and spoiled: a claim absent, of another type, at the edge; the tiers; the instant of expiry."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attest import reasons
from attest.appraise import appraise
from attest.binding import PROFILE, UNBOUND, Binding, Strength
from attest.claims import Claims
from attest.evidence import NVIDIA, NVIDIA_NRAS, Evidence, Nonce, digest
from attest.nvidia.nras_rules import NrasRules
from attest.policy import SHIPPED, NvidiaRules, Policy, shipped
from attest.reasons import Fault
from attest.result import NODE, Tier
from attest.verify import Refusal, Verification
from tests.attest.world import codes

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
LATER = NOW + timedelta(days=1)
NONCE = Nonce(b"\x11" * 32)
GOOD = {
    "architecture": "GH100",
    "hwmodel": "GH100 A01 GSP BROM",
    "ueid": "1",
    "driver": "550.90.07",
    "vbios": "96.00.9F.00.01",
    "mode": "spt",
    "fwid": "match",
    "rim_driver": "verified",
    "rim_driver_id": "NV_GPU_DRIVER_GH100_550.90.07",
    "rim_vbios": "verified",
    "rim_vbios_id": "NV_GPU_VBIOS_1010_0200_882_96009F0001",
    "rim_expired_days": 0,
    "measurements": "match",
    "compared": 32,
    "mismatching_indices": (),
    "revocation": "good",
}
POLICY = Policy(name="mine", nvidia=NvidiaRules(driver_min="550", vbios_min="96.00"))
BUNDLE = (Evidence(NVIDIA, b"report", b"chain"),)
BOUND = Binding(PROFILE, Strength.NONCE)
ABSENT = object()


def claims(**changes):
    """The claims of a good device, some of them changed; ABSENT leaves one out."""
    values = {name: value for name, value in (GOOD | changes).items() if value is not ABSENT}
    return Claims(NVIDIA, "nvidia-gh100-00", False, LATER, values, {"nvidia-rim X": "00"})


def judge(*made, policy=POLICY, bundle=None, refusals=(), nonce=NONCE, now=NOW, binding=BOUND):
    bundle = BUNDLE * (len(made) + len(refusals)) if bundle is None else bundle
    return appraise(Verification(made, refusals), policy, bundle=bundle, nonce=nonce, now=now, binding=binding)


def test_good_claims_are_affirmed():
    result = judge(claims())

    assert (result.tier, result.failed) == (Tier.AFFIRMING, ())
    assert (result.emulated, result.revocation, result.freshness) == (False, "good", "nonce")
    assert (result.binding, result.strength, result.cpu) == (PROFILE, "nonce", "absent")
    assert (result.policy, result.policy_sha256) == ("mine", POLICY.sha256)
    assert (result.evidence_sha256, result.nonce) == (digest(BUNDLE), NONCE.hex())
    assert result.collateral == {"nvidia-rim X": "00"}
    assert (result.issued_at, result.expires_at) == (NOW, NOW + POLICY.lifetime)


# --- the rules of a GPU -----------------------------------------------------------------------------------------------
WRONG_TYPES = [ABSENT, None, 0, 1, True, False, "", " ", "unknown", (), (0,), b"match"]


@pytest.mark.parametrize("wrong", WRONG_TYPES, ids=lambda value: "absent" if value is ABSENT else repr(value))
@pytest.mark.parametrize(
    ("claim", "reason"),
    [
        ("architecture", reasons.ARCHITECTURE_NOT_ACCEPTED),
        ("driver", reasons.DRIVER_TOO_OLD),
        ("vbios", reasons.VBIOS_NOT_ACCEPTED),
        ("mode", reasons.MODE_NOT_ACCEPTED),
        ("fwid", reasons.FWID_ABSENT),
        ("rim_driver", reasons.RIM_UNAVAILABLE),
        ("rim_vbios", reasons.RIM_UNAVAILABLE),
        ("rim_expired_days", reasons.RIM_EXPIRED),
        ("measurements", reasons.MEASUREMENTS_MISMATCH),
        ("compared", reasons.MEASUREMENTS_MISMATCH),
        ("mismatching_indices", reasons.MEASUREMENTS_MISMATCH),
        ("revocation", reasons.REVOCATION_NOT_CHECKED),
    ],
)
@pytest.mark.parametrize("minimum", [True, False])
def test_a_claim_that_is_absent_or_of_another_type_fails_its_rule(claim, reason, wrong, minimum):
    fitting = type(wrong) is type(GOOD[claim]) and (wrong == GOOD[claim] or (claim == "compared" and wrong == 1))
    policy = POLICY if minimum else Policy(name="mine")

    result = judge(claims(**{claim: wrong}), policy=policy)

    if fitting:
        assert result.tier is Tier.AFFIRMING
    else:
        assert reason.code in codes(result)
        assert result.tier is not Tier.AFFIRMING


@pytest.mark.parametrize(
    ("rules", "held", "spoiled", "reason"),
    [
        ({"driver_min": "550.54"}, {"driver": "550.54"}, {"driver": "550.53.99"}, reasons.DRIVER_TOO_OLD),
        ({"driver_min": "550.54"}, {"driver": "1000.0"}, {"driver": "99.99"}, reasons.DRIVER_TOO_OLD),
        ({"driver_min": "550"}, {"driver": "550.0"}, {"driver": "549.999"}, reasons.DRIVER_TOO_OLD),
        ({"driver_min": "550.90.08"}, {"driver": "550.90.8"}, {"driver": "550.90.07"}, reasons.DRIVER_TOO_OLD),
        ({"driver_min": "550"}, {"driver": "551.0"}, {"driver": "0x227.0"}, reasons.DRIVER_TOO_OLD),
        ({}, {"driver": "1.0"}, {"driver": "r550"}, reasons.DRIVER_TOO_OLD),
        (
            {"vbios_min": "96.00.9F"},
            {"vbios": "96.00.A0.00.00"},
            {"vbios": "96.00.9E.FF.FF"},
            reasons.VBIOS_NOT_ACCEPTED,
        ),
        (
            {"vbios_min": "96.00.9f"},
            {"vbios": "96.00.9F.00.00"},
            {"vbios": "95.FF.FF.FF.FF"},
            reasons.VBIOS_NOT_ACCEPTED,
        ),
        ({"modes": {"mpt"}}, {"mode": "mpt"}, {"mode": "spt"}, reasons.MODE_NOT_ACCEPTED),
        ({"topology": "optional"}, {"mode": "ppcie"}, {"mode": "unlocked"}, reasons.MODE_NOT_ACCEPTED),
        ({}, {"mode": "mpt"}, {"mode": "ppcie"}, reasons.TOPOLOGY_ABSENT),
        ({"modes": {"spt"}}, {"mode": "spt"}, {"mode": "unstated"}, reasons.MODE_NOT_ACCEPTED),
        ({}, {"architecture": "GB100"}, {"architecture": "GB202"}, reasons.ARCHITECTURE_NOT_ACCEPTED),
        (
            {"architectures": {"GH100"}},
            {"architecture": "GH100"},
            {"architecture": "GB100"},
            reasons.ARCHITECTURE_NOT_ACCEPTED,
        ),
        ({}, {"rim_expired_days": 0}, {"rim_expired_days": 1}, reasons.RIM_EXPIRED),
        ({"rim_expired_days_max": 7}, {"rim_expired_days": 7}, {"rim_expired_days": 8}, reasons.RIM_EXPIRED),
        ({}, {"rim_expired_days": 0}, {"rim_expired_days": -1}, reasons.RIM_EXPIRED),
        ({}, {}, {"fwid": "absent"}, reasons.FWID_ABSENT),
        ({"fwid": "optional"}, {"fwid": "absent", "driver": "549.99"}, {"fwid": "absent"}, reasons.FWID_ABSENT),
        ({"fwid": "optional"}, {"fwid": "match"}, {"fwid": "absent", "driver": "550"}, reasons.FWID_ABSENT),
        ({"fwid": "optional"}, {"fwid": "match"}, {"fwid": "absent", "driver": "old"}, reasons.FWID_ABSENT),
        ({"fwid": "optional"}, {"fwid": "match"}, {"fwid": "absent", "driver": ABSENT}, reasons.FWID_ABSENT),
        ({"fwid": "optional"}, {"fwid": "match"}, {"fwid": "other", "driver": "545.00"}, reasons.FWID_ABSENT),
    ],
)
def test_rules_of_a_gpu(rules, held, spoiled, reason):
    policy = Policy(name="mine", nvidia=NvidiaRules.model_validate(rules))

    assert judge(claims(**held), policy=policy).tier is Tier.AFFIRMING
    assert codes(judge(claims(**spoiled), policy=policy)) >= {reason.code}


@pytest.mark.parametrize(
    ("allowed", "state", "differing", "code"),
    [
        ((), "match", (), None),
        ((), "mismatch", (9,), "measurements-mismatch"),
        ((9,), "mismatch", (9,), None),
        ((7, 9), "mismatch", (9,), None),
        ((7, 9), "mismatch", (7, 9), None),
        ((9,), "mismatch", (7, 9), "measurements-mismatch"),
        ((9,), "mismatch", (), "measurements-mismatch"),  # "all that differ are allowed" is true of none
        ((9,), "match", (9,), "measurements-mismatch"),  # claims that contradict each other
        ((9,), "incomplete", (9,), "measurements-mismatch"),
        ((9,), "incomplete", (), "rim-unavailable"),
        ((), "incomplete", (9,), "measurements-mismatch"),
        ((), "success", (), "measurements-mismatch"),
    ],
)
def test_mismatching_measurements(allowed, state, differing, code):
    policy = Policy(name="mine", nvidia=NvidiaRules(allowed_mismatching_indices=frozenset(allowed)))

    result = judge(claims(measurements=state, mismatching_indices=differing), policy=policy)

    assert codes(result) == ({code} if code else set())


def test_nothing_compared_is_nothing_matched():
    assert codes(judge(claims(compared=0))) == {"measurements-mismatch"}


# --- the rules of a node ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"nonce": None}, "nonce-not-given"),
        ({"bundle": ()}, "kind-absent"),
        ({"bundle": (Evidence("amd-snp", b""),)}, "kind-absent"),
        ({"policy": Policy(name="m", devices_min=2)}, "device-count"),
        ({"policy": Policy(name="m", required={"nvidia", "amd-snp"})}, "kind-absent"),
        ({"policy": Policy(name="m", kinds={"amd-snp"})}, "kind-not-accepted"),
        ({"policy": Policy(name="m", origins={"emulated"})}, "root-not-accepted"),
        ({"binding": UNBOUND, "policy": Policy(name="m", binding_min="nonce")}, "binding-weak"),
        ({"policy": Policy(name="m", binding_min="committed")}, "binding-weak"),
    ],
)
def test_rules_of_a_node(changes, code):
    result = judge(claims(), **changes)

    assert code in codes(result)
    assert result.tier is Tier.CONTRAINDICATED


def test_more_devices_than_the_policy_says_are_refused():
    policy = Policy(name="m", devices_max=1)

    assert judge(claims(), policy=policy).tier is Tier.AFFIRMING
    assert codes(judge(claims(), claims(), policy=policy)) == {"device-count"}


def test_optional_is_optional():
    policy = Policy(name="m", nonce="optional", revocation="optional")

    result = judge(claims(revocation="not checked"), policy=policy, nonce=None)

    assert result.tier is Tier.AFFIRMING
    assert (result.revocation, result.freshness, result.nonce) == ("not checked", "not checked", None)


@pytest.mark.parametrize("revocation", ["not checked", "revoked", "unknown", "GOOD", True, ABSENT])
def test_revocation_is_good_or_is_not(revocation):
    assert "revocation-not-checked" in codes(judge(claims(revocation=revocation)))


@pytest.mark.parametrize("revocation", ["revoked", "unknown", "", True, ABSENT])
def test_optional_revocation_excuses_silence_only(revocation):
    policy = Policy(name="m", revocation="optional")

    assert "revocation-not-checked" in codes(judge(claims(revocation=revocation), policy=policy))


@pytest.mark.parametrize("emulated", [True, None, 0, "no"])
def test_what_is_not_said_to_be_a_vendors_is_emulated(emulated):
    result = judge(replace(claims(), emulated=emulated))

    assert codes(result) == {"root-not-accepted"}
    assert result.emulated


@pytest.mark.parametrize("name", ["production", "strict"])
def test_policies_for_production_refuse_what_is_emulated(name):
    result = judge(replace(claims(), emulated=True), policy=shipped(name))

    assert "root-not-accepted" in codes(result)
    assert result.tier is Tier.CONTRAINDICATED


@pytest.mark.parametrize("name", SHIPPED)
def test_every_policy_that_ships_affirms_the_best_and_refuses_the_worst(name):
    assert judge(claims(), policy=shipped(name)).tier is Tier.AFFIRMING
    assert judge(replace(claims(), values={}), policy=shipped(name)).tier is Tier.CONTRAINDICATED
    assert judge(policy=shipped(name), bundle=()).tier is Tier.CONTRAINDICATED


def test_kinds_without_rules_are_not_accepted():
    toy = replace(claims(), kind="toy")
    policy = Policy(name="m", kinds={"toy"}, required={"toy"})

    result = judge(toy, policy=policy, bundle=(Evidence("toy", b""),))

    assert codes(result) == {"kind-not-accepted", "device-count"}  # a toy is no GPU


# --- GPUs and switches ------------------------------------------------------------------------------------------------
BIOS = {"rim_bios": "verified", "rim_bios_id": "NV_SWITCH_BIOS_5612_0002_890_9610550001", "bios": "96.10.55.00.01"}
NO_GPU = dict.fromkeys(["driver", "vbios", "rim_driver", "rim_driver_id", "rim_vbios", "rim_vbios_id"], ABSENT)


def switch(**changes):
    return claims(
        **({"architecture": "LS_10", "switch": True, "mode": "ppcie", "fwid": "not reported"} | BIOS | NO_GPU | changes)
    )


def test_a_switch_is_asked_for_its_own_manifest_and_no_firmware_identity():
    policy = Policy(name="m", nvidia=NvidiaRules(gpus_min=0))

    assert judge(switch(), policy=policy).tier is Tier.AFFIRMING
    assert codes(judge(switch(rim_bios=ABSENT), policy=policy)) == {"rim-unavailable"}
    assert codes(judge(switch(mode="unlocked"), policy=policy)) == {"mode-not-accepted"}
    pretender = judge(claims(**(BIOS | NO_GPU | {"fwid": "not reported"})), policy=policy)
    assert codes(pretender) >= {"fwid-absent", "rim-unavailable", "driver-too-old"}


@pytest.mark.parametrize("said", [1, "true", None, "LS_10"])
def test_what_does_not_say_that_it_is_a_switch_is_a_gpu(said):
    assert "driver-too-old" in codes(judge(switch(switch=said)))


def test_switches_are_no_gpus():
    two = Policy(name="m", nvidia=NvidiaRules(gpus_min=2))

    assert judge(claims(mode="ppcie"), claims(mode="ppcie"), switch(), policy=two).tier is Tier.AFFIRMING
    assert codes(judge(claims(mode="ppcie"), switch(), policy=two)) == {"device-count"}
    assert codes(judge(switch())) == {"device-count"}


def test_gpus_that_are_wired_come_with_their_switches():
    assert judge(claims(mode="ppcie"), switch()).tier is Tier.AFFIRMING
    assert codes(judge(claims(mode="ppcie"))) == {"topology-absent"}
    assert codes(judge(claims(mode="ppcie"), claims())) == {"topology-absent"}
    assert judge(claims(mode="spt"), claims(mode="mpt")).tier is Tier.AFFIRMING
    optional = Policy(name="m", nvidia=NvidiaRules(topology="optional"))
    assert judge(claims(mode="ppcie"), policy=optional).tier is Tier.AFFIRMING


def test_switches_that_another_verifier_vouches_for_were_compared_with_nobody():
    policy = Policy(name="m", kinds={NVIDIA, NVIDIA_NRAS}, nras=NrasRules(certificates_required=False))
    theirs = {"identity": "token", "compared": "unstated"}
    bundle = (*BUNDLE, Evidence(NVIDIA_NRAS, b"tokens"))

    for gpu, beside in (
        (claims(mode="ppcie"), replace(switch(**theirs), kind=NVIDIA_NRAS)),
        (replace(claims(mode="ppcie", **theirs), kind=NVIDIA_NRAS), switch()),
    ):
        assert codes(judge(gpu, beside, policy=policy, bundle=bundle)) == {"topology-absent"}


@pytest.mark.parametrize("made", [[], [claims()], [claims(mode="ppcie")], [switch()]])
def test_a_device_that_nobody_could_decide_about_is_not_held_against_the_others(made):
    """It may be the GPU that is missing, or the switch; nothing of it is known, but whose fault that is."""
    refusals = (Refusal(len(made), reasons.RIM_DIGEST, "found", "wanted"),)

    result = judge(*made, refusals=refusals, policy=Policy(name="m", binding_min="nonce"), binding=UNBOUND)

    assert (result.tier, codes(result)) == (Tier.NONE, {"rim-digest"})
    assert result.freshness == ("nonce" if made else "not checked")


# --- old answers and old documents ------------------------------------------------------------------------------------
def test_what_is_on_hold_is_accepted_only_openly():
    result = judge(claims(revocation="hold"))
    assert (codes(result), result.tier) == ({"revocation-hold"}, Tier.CONTRAINDICATED)

    allowed = judge(claims(revocation="hold"), policy=Policy(name="m", allow_hold=True))
    assert (allowed.tier, allowed.revocation) == (Tier.AFFIRMING, "hold")
    assert "revocation-not-checked" in codes(
        judge(claims(revocation="revoked"), policy=Policy(name="m", allow_hold=True, revocation="optional"))
    )


@pytest.mark.parametrize(
    ("hours", "most", "holds"),
    [(0, 0, True), (1, 0, False), (1, 1, True), (24, 24, True), (25, 24, False), (-1, 0, False), ("0", 0, False),
     (True, 1, False), (None, 1, False), ((0,), 1, False)],
)  # fmt: skip
def test_answers_may_be_as_old_as_a_policy_says(hours, most, holds):
    policy = Policy(name="m", revocation_stale_hours_max=most)

    result = judge(claims(revocation_stale_hours=hours), policy=policy)

    assert codes(result) == (set() if holds else {"revocation-stale"})
    assert result.tier is (Tier.AFFIRMING if holds else Tier.NONE)


HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    ("since", "most", "holds"),
    [
        (None, 0, True),
        (NOW, 0, False),
        (NOW - SECOND, 0, False),
        (NOW, 1, True),
        (NOW - HOUR + SECOND, 1, True),
        (NOW - HOUR, 1, False),
        (NOW - 24 * HOUR + SECOND, 24, True),
        (NOW - 24 * HOUR, 24, False),
    ],
)
def test_documents_may_be_as_old_as_a_policy_says(since, most, holds):
    policy = Policy(name="m", collateral_stale_hours_max=most)

    result = judge(replace(claims(), stale_since=since), policy=policy)

    assert codes(result) == (set() if holds else {"collateral-stale"})
    assert result.tier is (Tier.AFFIRMING if holds else Tier.NONE)


@pytest.mark.parametrize("until", [NOW + HOUR, NOW + SECOND])
@pytest.mark.parametrize("patience", [0, 2])
def test_a_verdict_ends_when_its_answers_have_run_out_for_too_long(until, patience):
    policy = Policy(name="m", revocation_stale_hours_max=patience, lifetime_seconds=4 * 3600)

    result = judge(claims(revocation_until=int(until.timestamp())), policy=policy)

    assert result.expires_at == until + patience * HOUR


def test_a_verdict_ends_when_its_documents_are_too_old():
    policy = Policy(name="m", collateral_stale_hours_max=3, lifetime_seconds=4 * 3600)
    old = replace(claims(), stale_since=NOW - HOUR)

    assert judge(old, policy=policy).expires_at == NOW + 2 * HOUR
    assert judge(claims(), old, policy=policy).expires_at == NOW + 2 * HOUR
    assert judge(claims(), policy=policy).expires_at == NOW + 4 * HOUR


@pytest.mark.parametrize("until", ["1893499200", True, None, 1.5])
def test_a_limit_that_is_no_time_is_none(until):
    assert judge(claims(revocation_until=until)).expires_at == NOW + POLICY.lifetime


# --- CPUs -------------------------------------------------------------------------------------------------------------
def cpu(kind="amd-snp", **values):
    """Of a kind whose own rules are tried elsewhere: here it matters only whether it answers the challenge."""
    return Claims(kind, f"{kind}-00", False, LATER, {"revocation": "good"} | values, {})


@pytest.mark.parametrize("kind", ["amd-snp", "intel-tdx"])
@pytest.mark.parametrize(
    ("values", "covered", "fresh"),
    [({}, False, False), ({}, True, True), ({"nonce": "match"}, False, True), ({"nonce": "absent"}, False, False)],
)
def test_a_cpu_answers_a_challenge_by_its_report_data_only(kind, values, covered, fresh):
    bundle = (*BUNDLE, Evidence(kind, b"quote"))
    binding = replace(BOUND, covers_cpu=covered)

    result = judge(claims(), cpu(kind, **values), bundle=bundle, binding=binding)

    assert result.freshness == ("nonce" if fresh else "not checked")
    assert ("nonce-not-given" in codes(result)) is not fresh
    assert result.cpu == kind


def test_two_kinds_of_cpu_in_one_node_are_none_that_could_be_named():
    assert judge(claims(), cpu("amd-snp"), cpu("intel-tdx")).cpu == "absent"


# --- tiers ------------------------------------------------------------------------------------------------------------
def refusal(reason, device=0):
    return Refusal(device, reason, "found", "wanted")


@pytest.mark.parametrize(
    ("made", "tier"),
    [
        ({"made": [claims()]}, Tier.AFFIRMING),
        ({"made": []}, Tier.CONTRAINDICATED),
        ({"made": [claims(), claims(mode="x")]}, Tier.CONTRAINDICATED),
        ({"made": [claims(mode="x"), claims()]}, Tier.CONTRAINDICATED),
        ({"made": [claims()], "refusals": (refusal(reasons.REPORT_SIGNATURE, 1),)}, Tier.CONTRAINDICATED),
        ({"made": [claims()], "refusals": (refusal(reasons.DEVICE_DUPLICATE, -1),)}, Tier.CONTRAINDICATED),
        ({"made": [], "refusals": (refusal(reasons.RIM_DIGEST),)}, Tier.NONE),
        ({"made": [claims()], "refusals": (refusal(reasons.RIM_DIGEST, 1),)}, Tier.NONE),
        ({"made": [claims(mode="x")], "refusals": (refusal(reasons.RIM_DIGEST, 1),)}, Tier.CONTRAINDICATED),
        ({"made": [claims(rim_driver="missing", measurements="incomplete")]}, Tier.NONE),
        ({"made": [claims(rim_driver="missing", measurements="incomplete", fwid="absent")]}, Tier.CONTRAINDICATED),
        ({"made": [claims(rim_expired_days=1)]}, Tier.NONE),
        ({"made": [claims(revocation="not checked")]}, Tier.NONE),
    ],
)
def test_tiers(made, tier):
    assert judge(*made.pop("made"), **made).tier is tier


def test_claims_for_fewer_devices_than_there_are_affirm_nothing():
    assert judge(claims(), bundle=BUNDLE * 2).tier is Tier.CONTRAINDICATED


def test_every_rule_is_tried_and_every_finding_kept():
    good, bad = judge(claims()), judge(replace(claims(), values={}))

    assert len(good.findings) == len(bad.findings) >= 14
    assert {finding.rule for finding in bad.failed} >= {
        "is of an accepted architecture",
        "is in an accepted mode",
        "runs the firmware that its certificate endorses",
        "measures what the RIMs say",
    }


def test_a_refusal_of_the_bundle_is_the_nodes():
    result = judge(claims(), refusals=(refusal(reasons.DEVICE_DUPLICATE, -1),), bundle=BUNDLE)

    assert [finding.device for finding in result.failed] == [NODE]


def test_devices_that_say_different_things_about_revocation_have_said_nothing():
    policy = Policy(name="m", revocation="optional")
    result = judge(claims(), claims(revocation="not checked"), policy=policy)

    assert (result.tier, result.revocation) == (Tier.AFFIRMING, "not checked")


def test_one_emulated_device_makes_the_node_emulated():
    assert judge(claims(), replace(claims(), emulated=True), policy=shipped("lab")).emulated


# --- time -------------------------------------------------------------------------------------------------------------
TICK = timedelta(microseconds=1)


def test_a_verdict_ends_with_the_policys_lifetime_or_the_first_certificate():
    early = NOW + timedelta(seconds=10)

    assert judge(claims()).expires_at == NOW + timedelta(seconds=POLICY.lifetime_seconds)
    assert judge(claims(), replace(claims(), not_after=early)).expires_at == early


@pytest.mark.parametrize(("left", "tier"), [(TICK, Tier.AFFIRMING), (timedelta(0), Tier.CONTRAINDICATED)])
def test_the_instant_of_expiry_is_too_late(left, tier):
    assert judge(replace(claims(), not_after=NOW + left)).tier is tier


def test_the_end_of_time_is_no_error():
    end = datetime.max.replace(tzinfo=UTC)

    result = judge(replace(claims(), not_after=end), now=end - timedelta(seconds=1))

    assert (result.tier, result.expires_at) == (Tier.AFFIRMING, end)


# --- whatever comes ---------------------------------------------------------------------------------------------------
values = st.one_of(
    st.text(max_size=8), st.integers(), st.booleans(), st.lists(st.integers(0, 70), max_size=3).map(tuple)
)


@given(st.dictionaries(st.sampled_from(sorted(GOOD)), values | st.sampled_from(list(GOOD.values())), max_size=16))
def test_no_claims_make_appraisal_fail_or_affirm_by_chance(changed):
    result = judge(replace(claims(), values=changed))

    assert result.tier is not Tier.AFFIRMING or all(
        changed[name] == GOOD[name] for name in ("mode", "measurements", "fwid")
    )
    assert (result.tier is Tier.AFFIRMING) == (not result.failed)
    if result.tier is Tier.NONE:
        assert {finding.reason.fault for finding in result.failed} == {Fault.COLLATERAL}
