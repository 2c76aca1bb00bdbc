"""Results as signed tokens: what they say, and every way in which a token is refused."""

from __future__ import annotations

import base64
import errno
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws as joserfc_jws
from joserfc.errors import UnsupportedAlgorithmError
from joserfc.jwk import OctKey

from attest import ear, keyfiles, tokens, trustworthiness
from attest import reasons as why
from attest.appraise import appraise
from attest.binding import PROFILE, Binding, Strength
from attest.claims import Claims
from attest.commands_result import result as command
from attest.ear import DEVICE, RESULT, VerifierId, objections, to_ear
from attest.errors import AttestError
from attest.evidence import NVIDIA, Evidence, Nonce
from attest.policy import Policy, parse, shipped
from attest.reasons import Reason
from attest.reasons import tokens as reasons
from attest.result import AttestationResult, Finding, Tier
from attest.result_key import ResultKey
from attest.tokens import MalformedToken, UntrustedToken, read_keys
from attest.trustworthiness import Aspect, Status, tier_of, vector, worst
from attest.verify import Refusal, Verification
from tests.evidence import hopper_550, needs_vectors
from tests.reasons_page import verification_reasons

NOW = datetime(2026, 6, 1, 12, 0, 0, 250_000, tzinfo=UTC)
NONCE = Nonce(bytes(range(32)))
VERIFIER = VerifierId("https://example.org", "workermanager 0.1.0")
GOOD: Mapping[str, Any] = {
    "architecture": "GH100",
    "hwmodel": "GH100 A01 GSP BROM",
    "ueid": "123456789",
    "driver": "550.90.07",
    "vbios": "96.00.9F.00.01",
    "mode": "spt",
    "fwid": "match",
    "rim_driver": "verified",
    "rim_vbios": "verified",
    "rim_driver_id": "NV_GPU_DRIVER_GH100_550.90.07",
    "rim_vbios_id": "NV_GPU_VBIOS_1010_0200_882_96009F0001",
    "rim_expired_days": 0,
    "measurements": "match",
    "compared": 43,
    "mismatching_indices": (),
    "revocation": "good",
}


def gpu(device: str = "nvidia-gh100-00", *, emulated: bool = False, **values: Any) -> Claims:
    collateral = {f"nvidia-rim {GOOD['rim_driver_id']}": "ab" * 32}
    return Claims(NVIDIA, device, emulated, NOW + timedelta(days=30), {**GOOD, **values}, collateral)


def concluded(
    *claims: Claims,
    refusals: tuple[Refusal, ...] = (),
    policy: str | Policy = "production",
    nonce: Nonce | None = NONCE,
    devices: int | None = None,
) -> AttestationResult:
    rules = shipped(policy) if isinstance(policy, str) else policy
    bundle = tuple(Evidence(NVIDIA, bytes([index])) for index in range(devices or len(claims)))
    return appraise(
        Verification(claims, refusals),
        rules,
        bundle=bundle,
        nonce=nonce,
        now=NOW,
        binding=Binding(PROFILE, Strength.NONCE),
    )


def told(result: AttestationResult) -> dict[str, Any]:
    return to_ear(result, issuer="https://orchestrator.example.org", issued_at=NOW, verifier=VERIFIER)


def said(result: AttestationResult, device: str = "nvidia-gh100-00") -> dict[str, int]:
    """The aspects of a device that anything is said of."""
    return {aspect: value for aspect, value in vector(result, device).items() if value}


AFFIRMED = {"instance-identity": 2, "configuration": 2, "executables": 3, "hardware": 2}
KEYS = {algorithm: ResultKey.generate(algorithm) for algorithm in ("ES256", "EdDSA")}
KEY = KEYS["ES256"]
JWKS = read_keys(ear.jwks(key.public for key in KEYS.values()))
EAR = told(concluded(gpu()))
TOKEN = ear.sign(EAR, KEY)


def refused(reason: Reason, token: str, *, now: datetime = NOW, nonce: bytes | None = None, keys: Any = JWKS) -> None:
    with pytest.raises(AttestError) as caught:
        ear.verify(token, keys, now=now, nonce=nonce)
    assert caught.value.reason is reason
    assert isinstance(caught.value, MalformedToken if reason.code in MALFORMED else UntrustedToken)


MALFORMED = {"token-malformed", "token-too-large", "token-keys-malformed"}


# --- what an EAR says -------------------------------------------------------------------------------------------------
def test_names_are_those_of_the_draft() -> None:
    assert EAR["eat_profile"] == "tag:ietf.org,2026:rats/ear#04"
    assert EAR["ear_verifier_id"] == {"developer": "https://example.org", "build": "workermanager 0.1.0"}
    assert EAR["ear_status"] == "affirming"
    assert EAR["iat"] == EAR["nbf"] == int(NOW.timestamp())
    assert EAR["eat_nonce"] == base64.urlsafe_b64encode(NONCE).decode().rstrip("=")
    (label, appraisal), *others = EAR["submods"].items()
    assert (label, others) == ("nvidia-gh100-00", [])
    assert appraisal["ear_status"] == "affirming"
    assert set(appraisal["ear_trustworthiness_vector"]) == {
        "instance-identity",
        "configuration",
        "executables",
        "file-system",
        "hardware",
        "runtime-opaque",
        "storage-opaque",
        "sourced-data",
    }
    sha256 = shipped("production").sha256
    assert appraisal["ear_appraisal_policy_ids"] == [f"urn:workermanager:policy:production:sha256:{sha256}"]
    assert appraisal["eat_nonce"] == EAR["eat_nonce"]
    assert appraisal[DEVICE]["claims"]["driver"] == "550.90.07"
    assert all(
        name in {"eat_profile", "eat_nonce", "iss", "iat", "nbf", "exp", "submods"}
        or name.startswith(("ear_", "urn:workermanager:ear:"))
        for name in EAR
    )


def test_the_result_is_told_whole() -> None:
    result = concluded(gpu())
    whole = told(result)[RESULT]
    assert whole["tier"] == "affirming"
    assert whole["emulated"] is False
    assert (whole["revocation"], whole["freshness"], whole["cpu"]) == ("good", "nonce", "absent")
    assert whole["binding"] == {"profile": "workermanager/v1", "strength": "nonce"}
    assert whole["policy"] == {"name": "production", "sha256": result.policy_sha256}
    assert whole["evidence_sha256"] == result.evidence_sha256
    assert whole["collateral"] == {"nvidia-rim NV_GPU_DRIVER_GH100_550.90.07": "ab" * 32}
    assert whole["appraised_at"] == "2026-06-01T12:00:00.250000Z"
    assert whole["refusals"] == []


def test_equal_results_make_equal_tokens_but_for_the_signature() -> None:
    again = ear.sign(told(concluded(gpu())), KEY)
    assert again.split(".")[:2] == TOKEN.split(".")[:2]


def test_the_end_is_rounded_down() -> None:
    result = replace(concluded(gpu()), expires_at=NOW + timedelta(seconds=5))  # a quarter past a second
    assert told(result)["exp"] == int(NOW.timestamp()) + 5
    elsewhere = result.expires_at.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert told(replace(result, expires_at=elsewhere))["exp"] == int(NOW.timestamp()) + 5


def test_the_end_of_time_can_be_told() -> None:
    result = replace(concluded(gpu()), expires_at=datetime.max.replace(tzinfo=UTC))
    assert ear.verify(ear.sign(told(result), KEY), JWKS, now=NOW)["exp"] == 253_402_300_799


def test_it_is_not_issued_before_it_was_appraised_nor_by_nobody() -> None:
    with pytest.raises(ValueError, match="before"):
        to_ear(concluded(gpu()), issuer="x", issued_at=NOW - timedelta(microseconds=1), verifier=VERIFIER)
    for issuer in ("", "x" * 257):
        with pytest.raises(ValueError, match="issuer"):
            to_ear(concluded(gpu()), issuer=issuer, issued_at=NOW, verifier=VERIFIER)


# --- the trustworthiness vector ---------------------------------------------------------------------------------------
def test_a_good_gpu_affirms_what_was_appraised_and_no_more() -> None:
    assert said(concluded(gpu())) == AFFIRMED


@needs_vectors
def test_a_real_gpu_whose_revocation_nobody_asked_about() -> None:
    recording = hopper_550()
    result = recording.judge("lab")
    (device,) = (claim.device for claim in result.claims)
    assert result.tier is Tier.AFFIRMING
    assert "instance-identity" not in said(result, device)
    assert {"executables": 3, "hardware": 2}.items() <= said(result, device).items()


@pytest.mark.parametrize(
    ("claim", "missing"),
    [
        ({"revocation": "not checked"}, "instance-identity"),
        ({"mode": "unstated"}, "configuration"),
        ({"fwid": "absent", "driver": "545.23.08"}, "hardware"),
    ],
)
def test_what_a_policy_excused_is_not_affirmed(claim: dict[str, Any], missing: str) -> None:
    result = concluded(gpu(**claim), policy="lab")
    assert result.tier is Tier.AFFIRMING
    assert said(result) == {aspect: value for aspect, value in AFFIRMED.items() if aspect != missing}
    assert told(result)["ear_status"] == "affirming"


def test_evidence_that_answered_nothing_names_no_instance() -> None:
    result = concluded(gpu(), policy="lab", nonce=None)
    assert result.tier is Tier.AFFIRMING
    assert "instance-identity" not in said(result)
    document = told(result)
    assert "eat_nonce" not in document
    assert "eat_nonce" not in document["submods"]["nvidia-gh100-00"]


def test_tolerated_measurements_warn() -> None:
    policy = parse('name = "own"\n[nvidia]\nallowed_mismatching_indices = [9]')
    result = concluded(gpu(measurements="mismatch", mismatching_indices=(9,)), policy=policy)
    assert result.tier is Tier.AFFIRMING
    assert said(result)["executables"] == 33
    assert told(result)["ear_status"] == "warning"
    (objection,) = objections(told(result))
    assert objection.reason is reasons.RESULT_WARNS
    assert objections(told(result), emulated=True) == (objection,)
    assert objections(told(result), warnings=True) == ()


@pytest.mark.parametrize(
    ("claims", "policy", "expected"),
    [
        ({"measurements": "mismatch", "mismatching_indices": (4,)}, "production", {"executables": 96}),
        ({"driver": "535.1"}, "strict", {"configuration": 96}),
        ({"mode": "devtools"}, "production", {"configuration": 96}),
        ({"driver": "535.1", "mode": "devtools"}, "strict", {"configuration": 96}),  # twice is no worse
        ({"fwid": "absent"}, "production", {"hardware": 96}),
        ({"architecture": "GB202"}, "production", {"hardware": 96}),
    ],
)
def test_a_failed_rule_counts_against_its_aspect(claims: dict[str, Any], policy: str, expected: dict[str, int]) -> None:
    result = concluded(gpu(**claims), policy=policy)
    assert result.tier is Tier.CONTRAINDICATED
    assert {aspect: value for aspect, value in said(result).items() if value >= 32} == expected
    document = told(result)
    assert document["ear_status"] == "contraindicated"
    assert document["submods"]["nvidia-gh100-00"][DEVICE]["refusals"]


def test_an_emulated_device_is_never_affirming() -> None:
    result = concluded(gpu(emulated=True), policy="lab")
    assert result.tier is Tier.AFFIRMING
    assert said(result) == {"hardware": -33}
    document = told(result)
    assert document["ear_status"] == "warning"
    assert document[RESULT]["emulated"] is True
    assert [each.reason for each in objections(document)] == [reasons.RESULT_EMULATED]
    assert [each.reason for each in objections(document, warnings=True)] == [reasons.RESULT_EMULATED]
    assert objections(document, emulated=True) == ()


def test_an_emulated_device_where_only_real_ones_are_accepted() -> None:
    result = concluded(gpu(emulated=True))
    assert said(result) == {"hardware": 97}
    assert told(result)["ear_status"] == "contraindicated"
    assert objections(told(result), emulated=True, warnings=True)


@pytest.mark.parametrize("slip", ["the result", "the device"])
def test_emulation_told_in_one_place_is_enough(slip: str) -> None:
    document = told(concluded(gpu(emulated=True), policy="lab"))
    if slip == "the result":
        document[RESULT]["emulated"] = False
    else:
        document["submods"]["nvidia-gh100-00"]["ear_trustworthiness_vector"]["hardware"] = 2
    assert reasons.RESULT_EMULATED in {each.reason for each in objections(document, warnings=True)}


def test_an_undecided_result_asserts_nothing() -> None:
    result = concluded(gpu(rim_driver="missing", measurements="incomplete"))
    assert result.tier is Tier.NONE
    document = told(result)
    assert document["ear_status"] == "none"
    (appraisal,) = document["submods"].values()
    assert appraisal["ear_status"] == "none"
    assert set(appraisal["ear_trustworthiness_vector"].values()) == {0}
    assert {each["code"] for each in appraisal[DEVICE]["refusals"]} == {"rim-unavailable"}
    assert {each.reason for each in objections(document, emulated=True, warnings=True)} == {
        reasons.RESULT_NOT_AFFIRMING
    }


def test_several_devices_and_one_that_was_not_believed() -> None:
    good = gpu("nvidia-gh100-01")
    refusal = Refusal(2, why.REPORT_SIGNATURE, "", "")
    result = concluded(gpu(), good, refusals=(refusal,), devices=3)
    document = told(result)
    assert list(document["submods"]) == ["nvidia-gh100-00", "nvidia-gh100-01", "device 2"]
    assert {each["ear_status"] for each in document["submods"].values()} == {"contraindicated"}  # one node
    assert said(result, "nvidia-gh100-01") == AFFIRMED  # and yet each device's own appraisal
    assert said(result, "device 2") == {"instance-identity": 99}
    assert "eat_nonce" not in document["submods"]["device 2"]
    assert "kind" not in document["submods"]["device 2"][DEVICE]
    assert ear.verify(ear.sign(document, KEY), JWKS, now=NOW) == document


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        (why.CHAIN_ROOT, {"instance-identity": 97}),
        (why.CHAIN_TIME, {"instance-identity": 99}),
        (why.NONCE_MISMATCH, {"instance-identity": 99}),
        (why.FWID_MISMATCH, {"hardware": 96}),
        (why.NVDEC_STATUS, {"executables": 96}),
        (why.KIND_UNSUPPORTED, {"hardware": 1}),
        (why.REPORT_MALFORMED, {}),
        (why.RIM_SIGNATURE, {}),  # not the node's fault
    ],
)
def test_a_device_that_was_not_believed(reason: Reason, expected: dict[str, int]) -> None:
    also = Refusal(1, why.REPORT_MALFORMED, "", "")  # so that the node is out whatever the reason
    result = concluded(refusals=(Refusal(0, reason, "", ""), also), devices=2)
    assert said(result, "device 0") == expected
    assert told(result)["ear_status"] == "contraindicated"


def test_a_node_that_is_refused_as_a_whole() -> None:
    result = concluded(gpu(), gpu("nvidia-gh100-01"), refusals=(Refusal(-1, why.DEVICES_DIFFER, "a", "b"),))
    document = told(result)
    assert {each["ear_status"] for each in document["submods"].values()} == {"contraindicated"}
    assert [each["code"] for each in document[RESULT]["refusals"]] == ["devices-differ"]


def test_a_device_of_another_worker() -> None:
    finding = Finding("nvidia-gh100-00", "is no other worker's", why.DEVICE_TAKEN, False, "another's", "its own")
    result = concluded(gpu())
    result = replace(result, tier=Tier.CONTRAINDICATED, findings=(*result.findings, finding))
    assert said(result)["instance-identity"] == 96


def test_the_same_device_twice_affirms_nothing() -> None:
    result = concluded(gpu(), gpu(), refusals=(Refusal(-1, why.DEVICE_DUPLICATE, "x", "y"),))
    assert said(result) == {}
    assert list(told(result)["submods"]) == ["nvidia-gh100-00"]


def test_a_node_without_devices_is_named() -> None:
    result = replace(concluded(gpu()), tier=Tier.CONTRAINDICATED, claims=(), findings=())
    (label,) = told(result)["submods"]
    assert label == "node"
    assert told(result)["ear_status"] == "contraindicated"


@pytest.mark.parametrize(
    ("first", "last", "status"),
    [
        (-1, 1, Status.NONE),
        (2, 31, Status.AFFIRMING),
        (-32, -2, Status.AFFIRMING),
        (32, 95, Status.WARNING),
        (-96, -33, Status.WARNING),
        (96, 127, Status.CONTRAINDICATED),
        (-128, -97, Status.CONTRAINDICATED),
    ],
)
def test_tiers_of_numbers(first: int, last: int, status: Status) -> None:
    assert {tier_of(value) for value in range(first, last + 1)} == {status}


VALUES = {
    "architecture": st.sampled_from(["GH100", "GB100", None]),
    "driver": st.sampled_from(["550.90.07", "535.1", "545.1", "x", None]),
    "mode": st.sampled_from(["spt", "unstated", "devtools", None]),
    "fwid": st.sampled_from(["match", "absent", None]),
    "rim_driver": st.sampled_from(["verified", "missing", None]),
    "measurements": st.sampled_from(["match", "mismatch", "incomplete", None]),
    "mismatching_indices": st.sampled_from([(), (9,), (4, 9)]),
    "compared": st.sampled_from([0, 43, None]),
    "revocation": st.sampled_from(["good", "not checked", "revoked", None]),
}


@given(
    devices=st.lists(st.tuples(st.booleans(), st.fixed_dictionaries(VALUES)), min_size=1, max_size=3),
    refused_reasons=st.lists(st.sampled_from(sorted(why.CATALOGUE.values(), key=lambda r: r.code)), max_size=2),
    policy=st.sampled_from(["strict", "production", "lab"]),
    nonce=st.sampled_from([None, NONCE]),
)
def test_no_status_is_better_than_what_it_sums_up(
    devices: list[tuple[bool, dict[str, Any]]], refused_reasons: list[Reason], policy: str, nonce: Nonce | None
) -> None:
    claims = [gpu(f"gpu-{i}", emulated=emulated, **values) for i, (emulated, values) in enumerate(devices)]
    refusals = tuple(Refusal(len(claims) + i, reason, "", "") for i, reason in enumerate(refused_reasons))
    result = concluded(
        *claims, refusals=refusals, policy=policy, nonce=nonce, devices=len(claims) + len(refused_reasons)
    )
    document = told(result)
    for device, appraisal in document["submods"].items():
        status = Status(appraisal["ear_status"])
        tiers = [tier_of(value) for value in appraisal["ear_trustworthiness_vector"].values()]
        assert worst([status, *tiers]) is status or result.tier is Tier.NONE
        assert worst([Status(document["ear_status"]), status]) == document["ear_status"]
        assert set(appraisal["ear_trustworthiness_vector"]) == set(Aspect)
        if status is Status.AFFIRMING:
            assert result.tier is Tier.AFFIRMING
            assert appraisal[DEVICE]["emulated"] is False
        assert device in {claim.device for claim in claims} or appraisal[DEVICE]["refusals"]
    accepted = not objections(document)
    assert accepted <= (result.tier is Tier.AFFIRMING and not result.emulated)
    assert ear.verify(ear.sign(document, KEY), JWKS, now=NOW) == document


REASONS = {reason.code: reason for reason in verification_reasons()}


def guest(*found: tuple[str, str, str]) -> AttestationResult:
    """A CPU's result, by rules that all hold: code, found, wanted."""
    claims = Claims("a-cpu", "cpu-0", False, NOW + timedelta(days=1), {}, {})
    findings = [Finding("cpu-0", "a rule", REASONS[code], True, found, wanted) for code, found, wanted in found]
    return replace(concluded(gpu()), claims=(claims,), findings=tuple(findings))


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (("snp-measurement", "ab", "one of 2 listed"), {"executables": 3}),
        (("snp-measurement", "ab", "any"), {}),
        (("snp-policy-unknown", "0x0", "no unknown bits"), {"configuration": 2}),
        (("snp-debug", "allowed: False", "allowed: False"), {"runtime-opaque": 2}),
        (("snp-debug", "allowed: True", "allowed: False"), {"runtime-opaque": 32}),
        (("tdx-attributes", "sept_ve_disable", "sept_ve_disable"), {"configuration": 2, "runtime-opaque": 2}),
        (("tdx-tcb-status", "UpToDate", "UpToDate"), {}),
        (("tdx-tcb-status", "OutOfDate", "OutOfDate or UpToDate"), {"hardware": 32}),
        (("tdx-advisory", "INTEL-SA-00001", "INTEL-SA-00001"), {"hardware": 32}),
    ],
)
def test_a_cpu(found: tuple[str, str, str], expected: dict[str, int]) -> None:
    assert said(guest(found), "cpu-0") == expected


def test_one_register_without_a_list_leaves_the_software_open() -> None:
    listed, unlisted = ("tdx-mrtd", "ab", "ab"), ("tdx-rtmr", "cd", "any")
    assert said(guest(listed), "cpu-0") == {"executables": 3}
    assert said(guest(listed, unlisted), "cpu-0") == {}


def test_a_host_that_may_read_the_guest() -> None:
    refusals = (Refusal(0, REASONS["tdx-debug"], "debug", "none"),)
    assert said(concluded(refusals=refusals, devices=1), "device 0") == {"runtime-opaque": 96}


def test_codes_of_the_mapping_exist() -> None:
    named = {*trustworthiness._AGAINST, *trustworthiness._TOLERATED}
    named |= {code for _, rules in trustworthiness._FOR.values() for code in rules}
    assert named <= REASONS.keys()


# --- round trips ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA"])
def test_round_trip(algorithm: str) -> None:
    key = KEYS[algorithm]
    token = ear.sign(EAR, key)
    assert ear.verify(token, JWKS, now=NOW, nonce=NONCE) == EAR
    assert header_of(token) == {"alg": algorithm, "kid": key.kid, "typ": "eat+jwt"}
    assert algorithm == key.algorithm


def test_key_sets_are_public() -> None:
    published = ear.jwks(key.public for key in KEYS.values())
    assert [entry["alg"] for entry in published["keys"]] == ["ES256", "EdDSA"]
    assert all("d" not in entry and entry["use"] == "sig" for entry in published["keys"])
    assert read_keys(json.dumps(published).encode()).keys() == {key.kid for key in KEYS.values()}


def test_a_thumbprint_as_rfc_8037_has_it() -> None:
    public = base64.urlsafe_b64decode("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo=")
    key = ed25519.Ed25519PublicKey.from_public_bytes(public)
    assert tokens.public_jwk(key)["kid"] == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


# --- tokens that are refused ------------------------------------------------------------------------------------------
def part(value: object) -> str:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def header_of(token: str) -> dict[str, Any]:
    text = token.split(".")[0]
    return dict(json.loads(base64.urlsafe_b64decode(text + "==")))


def signed(header: object, payload: object, key: ResultKey = KEY) -> str:
    """A token whose signature holds, whatever it says: an issuer's slip, or an attack with a stolen key."""
    text = f"{part(header)}.{part(payload)}"
    assert isinstance(key.private, ec.EllipticCurvePrivateKey)
    der = key.private.sign(text.encode(), ec.ECDSA(hashes.SHA256()))
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

    r, s = decode_dss_signature(der)
    return f"{text}.{part(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


HEADER = header_of(TOKEN)


def test_the_test_can_sign() -> None:
    assert ear.verify(signed(HEADER, EAR), JWKS, now=NOW) == EAR


@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA"])
def test_every_changed_character_is_refused(algorithm: str) -> None:
    token = ear.sign(EAR, KEYS[algorithm])
    for index, character in enumerate(token):
        for other in {"A", "B", "."} - {character}:
            with pytest.raises(AttestError):
                ear.verify(token[:index] + other + token[index + 1 :], JWKS, now=NOW)


def test_every_shorter_token_is_refused() -> None:
    for end in range(0, len(TOKEN), 7):
        with pytest.raises(AttestError):
            ear.verify(TOKEN[:end], JWKS, now=NOW)
    with pytest.raises(AttestError):
        ear.verify(TOKEN + "A", JWKS, now=NOW)


def test_another_payload_under_the_same_signature() -> None:
    head, _, signature = TOKEN.split(".")
    refused(reasons.TOKEN_SIGNATURE, f"{head}.{part({**EAR, 'exp': EAR['exp'] + 1})}.{signature}")


def test_no_algorithm() -> None:
    refused(reasons.TOKEN_ALGORITHM, f"{part({**HEADER, 'alg': 'none'})}.{part(EAR)}.AAAA")
    refused(reasons.TOKEN_MALFORMED, f"{part({**HEADER, 'alg': 'none'})}.{part(EAR)}.")


def test_a_public_key_taken_for_a_secret() -> None:
    for secret in (KEY.kid.encode(), json.dumps(tokens.public_jwk(KEY.public)).encode()):
        text = f"{part({**HEADER, 'alg': 'HS256'})}.{part(EAR)}"
        mac = hmac.HMAC(secret, hashes.SHA256())
        mac.update(text.encode())
        refused(reasons.TOKEN_ALGORITHM, f"{text}.{part(mac.finalize())}")
    key = OctKey.import_key("x" * 32)
    token = joserfc_jws.serialize_compact({**HEADER, "alg": "HS256"}, json.dumps(EAR), key, algorithms=["HS256"])
    refused(reasons.TOKEN_ALGORITHM, token)


@pytest.mark.parametrize("alg", ["ES384", "RS256", "Ed25519", "es256", "ES256 ", ""])
def test_algorithms_that_are_not_allowed(alg: str) -> None:
    refused(reasons.TOKEN_ALGORITHM, signed({**HEADER, "alg": alg}, EAR))


def test_the_library_is_held_to_one_algorithm() -> None:
    registry = tokens._Registry(algorithms=["ES256"])
    assert registry.get_alg("ES256").name == "ES256"
    for held, name in ((registry, "HS256"), (registry, "none"), (tokens._Registry(), "ES256")):
        with pytest.raises(UnsupportedAlgorithmError):
            held.get_alg(name)


def test_the_algorithm_of_another_key() -> None:
    refused(reasons.TOKEN_ALGORITHM, signed({**HEADER, "alg": "EdDSA"}, EAR))
    refused(reasons.TOKEN_ALGORITHM, signed({**HEADER, "kid": KEYS["EdDSA"].kid}, EAR))


def test_another_key_of_the_same_kind() -> None:
    stranger = ResultKey.generate()
    refused(reasons.TOKEN_KEY_UNKNOWN, ear.sign(EAR, stranger))
    refused(reasons.TOKEN_SIGNATURE, signed(HEADER, EAR, stranger))  # under a name that we know
    refused(reasons.TOKEN_KEY_UNKNOWN, TOKEN, keys={})


@pytest.mark.parametrize(
    "change",
    [
        {"kid": None},
        {"kid": 5},
        {"typ": "JWT"},
        {"typ": None},
        {"jku": "https://example.org/keys"},
        {"x5u": "https://example.org/key.pem"},
        {"jwk": tokens.public_jwk(KEY.public)},
        {"x5c": ["AAAA"]},
        {"crit": ["exp"]},
        {"crit": []},
        {"b64": False, "crit": ["b64"]},
        {"zip": "DEF"},
        {"cty": "JWT"},
        {"pad": "x" * 400},
    ],
)
def test_headers_that_say_more_or_less(change: dict[str, Any]) -> None:
    header = {name: value for name, value in {**HEADER, **change}.items() if value is not None}
    token = signed(header, EAR)
    refused(reasons.TOKEN_TOO_LARGE if "pad" in change else reasons.TOKEN_MALFORMED, token)


@pytest.mark.parametrize(
    "header", [b"[]", b"{", b'"ES256"', b'{"alg":"ES256","alg":"ES256"}', b"[" * 300, b"\xff", b"null"]
)
def test_headers_that_are_none(header: bytes) -> None:
    refused(reasons.TOKEN_MALFORMED, f"{part(header)}.{part(EAR)}.AAAA")


@pytest.mark.parametrize(
    "text", ["", ".", "..", "a.b", "a.b.c", "eyJ.b.c", "a.b.c.d", "é.b.c", "eyJ.b.c\n", " eyJ.b.c", "a" * 99]
)
def test_texts_that_are_no_tokens(text: str) -> None:
    refused(reasons.TOKEN_MALFORMED, text)


def test_a_token_too_large() -> None:
    refused(reasons.TOKEN_TOO_LARGE, "a" * (tokens.TOKEN_CHARS_MAX + 1))
    with pytest.raises(ValueError, match="at most"):
        ear.sign({**EAR, "pad": "x" * tokens.TOKEN_CHARS_MAX}, KEY)


def test_a_whole_box_fits() -> None:
    many = told(concluded(*(gpu(f"nvidia-gh100-{i:016x}", note="x" * 500) for i in range(32))))
    assert ear.verify(ear.sign(many, KEY), JWKS, now=NOW) == many


def changed(**changes: Any) -> dict[str, Any]:
    return {name: value for name, value in {**EAR, **changes}.items() if value is not ...}


def of_device(**changes: Any) -> dict[str, Any]:
    appraisal = {**EAR["submods"]["nvidia-gh100-00"], **changes}
    return changed(submods={"gpu": {name: value for name, value in appraisal.items() if value is not ...}})


VECTOR = EAR["submods"]["nvidia-gh100-00"]["ear_trustworthiness_vector"]


@pytest.mark.parametrize(
    "claims",
    [
        changed(eat_profile="tag:ietf.org,2025-07:ear"),
        changed(eat_profile=...),
        changed(iss=""),
        changed(iss=...),
        changed(iss=["x"]),
        changed(ear_verifier_id=...),
        changed(ear_verifier_id={"build": "x"}),
        changed(submods=...),
        changed(submods={}),
        changed(submods={str(i): {} for i in range(65)}),
        changed(submods=["JWT", "x"]),
        changed(submods={"gpu": "x"}),
        changed(ear_status=...),
        changed(ear_status="warning"),  # not what the devices say
        changed(eat_nonce=5),
        changed(eat_nonce=""),
        changed(eat_nonce=None),
        changed(eat_nonce=["AAAA", "BBBB"]),
        changed(eat_nonce="é"),
        changed(iat=...),
        changed(exp=...),
        changed(nbf=...),
        changed(exp=float(EAR["exp"])),
        changed(exp=str(EAR["exp"])),
        changed(iat=True),
        changed(exp=-1),
        changed(exp=10**20),
        changed(**{RESULT: ...}),
        changed(**{RESULT: "affirming"}),
        of_device(ear_status=...),
        of_device(ear_status="good"),
        of_device(ear_status=2),
        of_device(ear_status=["affirming"]),
        of_device(ear_trustworthiness_vector=...),
        of_device(ear_trustworthiness_vector={}),
        of_device(ear_trustworthiness_vector={**VECTOR, "hardware": 128}),
        of_device(ear_trustworthiness_vector={**VECTOR, "hardware": 2.0}),
        of_device(ear_trustworthiness_vector={**VECTOR, "hardware": True}),
        of_device(ear_trustworthiness_vector={**VECTOR, "more": 2}),
        of_device(**{DEVICE: ...}),
    ],
)
def test_signed_claims_of_another_form(claims: dict[str, Any]) -> None:
    refused(reasons.TOKEN_MALFORMED, signed(HEADER, claims))


@pytest.mark.parametrize("payload", [b"[]", b"", b"{", b'{"exp":1,"exp":2}', b'{"exp":NaN}', b"\xff", b"[" * 9000])
def test_signed_payloads_that_are_no_claims(payload: bytes) -> None:
    refused(reasons.TOKEN_MALFORMED, signed(HEADER, payload))


# --- times and challenges ---------------------------------------------------------------------------------------------
def at(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


TICK = timedelta(microseconds=1)


def test_the_moment_of_expiry_is_too_late() -> None:
    end = at(EAR["exp"])
    assert ear.verify(TOKEN, JWKS, now=end - TICK) == EAR
    refused(reasons.TOKEN_EXPIRED, TOKEN, now=end)
    refused(reasons.TOKEN_EXPIRED, TOKEN, now=end + TICK)


def test_a_token_of_the_future() -> None:
    begin = at(EAR["iat"])
    assert ear.verify(TOKEN, JWKS, now=begin) == EAR
    refused(reasons.TOKEN_NOT_YET_VALID, TOKEN, now=begin - TICK)
    later = EAR["iat"] + 60
    refused(reasons.TOKEN_NOT_YET_VALID, signed(HEADER, changed(iat=later)))
    refused(reasons.TOKEN_NOT_YET_VALID, signed(HEADER, changed(nbf=later)))


def test_another_challenge() -> None:
    other = bytes(32)
    refused(reasons.TOKEN_NONCE_MISMATCH, TOKEN, nonce=other)
    refused(reasons.TOKEN_NONCE_MISMATCH, TOKEN, nonce=b"")
    unasked = ear.sign(told(concluded(gpu(), policy="lab", nonce=None)), KEY)
    assert ear.verify(unasked, JWKS, now=NOW)
    refused(reasons.TOKEN_NONCE_MISMATCH, unasked, nonce=NONCE)
    refused(reasons.TOKEN_NONCE_MISMATCH, unasked, nonce=b"")


# --- key sets ---------------------------------------------------------------------------------------------------------
PUBLIC = tokens.public_jwk(KEY.public)


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"keys": {}},
        {"keys": ["x"]},
        {"keys": [PUBLIC] * 65},
        {"keys": [PUBLIC, PUBLIC]},
        {"keys": [{**PUBLIC, "kid": ""}]},
        {"keys": [{**PUBLIC, "kid": 5}]},
        {"keys": [{**PUBLIC, "kid": "x" * 129}]},
        {"keys": [{name: value for name, value in PUBLIC.items() if name != "kid"}]},
        {"keys": [{**PUBLIC, "d": "AAAA"}]},
        {"keys": [{"kty": "oct", "k": "AAAA", "kid": "x"}]},
        {"keys": [{**PUBLIC, "x": "A" * 43}]},  # off the curve
        {"keys": [{**PUBLIC, "x": PUBLIC["x"][:-1]}]},
        {"keys": [{**PUBLIC, "x": None}]},
        {"keys": [{**PUBLIC, "x": "é" * 43}]},
    ],
)
def test_key_sets_that_are_none(document: dict[str, Any]) -> None:
    for form in (document, json.dumps(document).encode()):
        with pytest.raises(MalformedToken) as caught:
            read_keys(form)
        assert caught.value.reason is reasons.TOKEN_KEYS_MALFORMED


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b'{"keys":[],"keys":[]}'])
def test_texts_that_are_no_key_set(text: bytes) -> None:
    with pytest.raises(MalformedToken):
        read_keys(text)


def test_a_key_set_too_large() -> None:
    with pytest.raises(MalformedToken) as caught:
        read_keys(b" " * (tokens.KEYS_CHARS_MAX + 1))
    assert caught.value.reason is reasons.TOKEN_TOO_LARGE


@pytest.mark.parametrize(
    "change", [{"use": "enc"}, {"alg": "ES384"}, {"crv": "P-384"}, {"kty": "RSA"}, {"kty": ["EC"]}, {"crv": None}]
)
def test_keys_for_something_else_are_left_out(change: dict[str, Any]) -> None:
    keys = read_keys({"keys": [{**PUBLIC, **change}, tokens.public_jwk(KEYS["EdDSA"].public)]})
    assert keys.keys() == {KEYS["EdDSA"].kid}


# --- keys in files ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA"])
def test_a_key_is_kept(tmp_path: Path, algorithm: str) -> None:
    path = tmp_path / "result.key"
    KEYS[algorithm].save(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert ResultKey.load(path).kid == KEYS[algorithm].kid
    with pytest.raises(keyfiles.KeyFileError, match="exists"):
        KEYS[algorithm].save(path)
    path.chmod(0o640)
    with pytest.raises(keyfiles.KeyFileError, match="chmod 600"):
        ResultKey.load(path)


def test_a_key_is_never_shown() -> None:
    for key in KEYS.values():
        assert repr(key) == f"ResultKey({key.algorithm}, {key.kid})"


def pem(key: Any) -> bytes:
    return bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


@pytest.mark.parametrize(
    "content",
    [
        lambda: pem(ec.generate_private_key(ec.SECP384R1())),
        lambda: pem(ed448.Ed448PrivateKey.generate()),
        lambda: b"",
        lambda: b"x" * 5000,
    ],
)
def test_key_files_that_hold_something_else(tmp_path: Path, content: Callable[[], bytes]) -> None:
    path = tmp_path / "result.key"
    path.write_bytes(content())
    path.chmod(0o600)
    with pytest.raises(keyfiles.KeyFileError):
        ResultKey.load(path)


def test_key_files_that_are_no_files(tmp_path: Path) -> None:
    with pytest.raises(keyfiles.KeyFileError, match="cannot be read"):
        ResultKey.load(tmp_path / "absent")
    with pytest.raises(keyfiles.KeyFileError, match="no regular file"):
        ResultKey.load(tmp_path)
    with pytest.raises(keyfiles.KeyFileError, match="cannot be written"):
        KEY.save(tmp_path / "absent" / "result.key")


def test_half_a_key_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(keyfiles.KeyFileError, match="free some space"):
        KEY.save(tmp_path / "result.key")
    assert list(tmp_path.iterdir()) == []


def test_a_key_of_one_curve(tmp_path: Path) -> None:
    KEYS["ES256"].save(tmp_path / "p256")
    KEYS["EdDSA"].save(tmp_path / "ed25519")
    assert keyfiles.load(tmp_path / "p256", ec.SECP256R1).curve.name == "secp256r1"
    for name, curve in (("p256", ec.SECP256K1), ("ed25519", ec.SECP256R1)):
        with pytest.raises(keyfiles.KeyFileError, match="another kind"):
            keyfiles.load(tmp_path / name, curve)


def test_keys_that_do_not_sign_results() -> None:
    with pytest.raises(ValueError, match="HS256"):
        ResultKey.generate("HS256")
    with pytest.raises(ValueError, match="secp384r1"):
        tokens.public_jwk(ec.generate_private_key(ec.SECP384R1()).public_key())


# --- the command ------------------------------------------------------------------------------------------------------
@pytest.fixture
def jwks(tmp_path: Path) -> Path:
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps(ear.jwks(key.public for key in KEYS.values())))
    return path


def run(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(command, ["verify", *arguments], input=stdin)


AT = ("--at", "2026-06-01T12:00:01Z")


def test_command_accepts(jwks: Path, tmp_path: Path) -> None:
    file = tmp_path / "result.ear.jwt"
    file.write_text(TOKEN + "\n")
    for token, stdin in ((TOKEN, None), (str(file), None), ("-", TOKEN + "\n")):
        outcome = run(token, "--jwks", str(jwks), *AT, "--nonce", NONCE.hex(), stdin=stdin)
        assert outcome.exit_code == 0, outcome.output
        assert outcome.output.startswith("ACCEPTED\n")
    for shown in (
        "nvidia-gh100-00: affirming",
        "hardware 2",
        "production",
        "workermanager/v1 (nonce)",
        "revocation: good",
    ):
        assert shown in outcome.output


def test_command_as_json(jwks: Path) -> None:
    document = json.loads(run(TOKEN, "--jwks", str(jwks), *AT, "--json").output)
    assert document == {"status": "accepted", "objections": [], "ear": EAR}


def verdict(outcome: Result) -> tuple[int, str, list[str]]:
    document = json.loads(outcome.output)
    return outcome.exit_code, document["status"], [each["code"] for each in document["objections"]]


def test_command_refuses(jwks: Path) -> None:
    late = run(TOKEN, "--jwks", str(jwks), "--at", "2030-01-01", "--json")
    assert verdict(late) == (10, "refused", ["token-expired"])
    other = run(TOKEN, "--jwks", str(jwks), *AT, "--nonce", "00" * 32, "--json")
    assert verdict(other) == (10, "refused", ["token-nonce-mismatch"])
    stranger = run(ear.sign(EAR, ResultKey.generate()), "--jwks", str(jwks), *AT, "--json")
    assert verdict(stranger) == (10, "refused", ["token-key-unknown"])
    bad = ear.sign(told(concluded(gpu(measurements="mismatch", mismatching_indices=(4,)))), KEY)
    outcome = run(bad, "--jwks", str(jwks), *AT, "--accept-emulated", "--accept-warnings", "--json")
    assert verdict(outcome) == (10, "refused", ["result-not-affirming"] * 2)
    assert "measurements-mismatch" in run(bad, "--jwks", str(jwks), *AT).output


def test_command_and_emulated_devices(jwks: Path) -> None:
    token = ear.sign(told(concluded(gpu(emulated=True), policy="lab")), KEY)
    assert verdict(run(token, "--jwks", str(jwks), *AT, "--json")) == (10, "refused", ["result-emulated"])
    outcome = run(token, "--jwks", str(jwks), *AT, "--accept-emulated")
    assert outcome.exit_code == 0
    assert outcome.output.startswith("ACCEPTED — EMULATED, not real hardware\n")


def test_command_on_malformed_tokens(jwks: Path, tmp_path: Path) -> None:
    file = tmp_path / "noise"
    file.write_bytes(b"\xff\x00 no token")
    for token in ("eyJ.x.y", str(file)):
        assert verdict(run(token, "--jwks", str(jwks), "--json")) == (30, "malformed", ["token-malformed"])
    assert run(str(file), "--jwks", str(jwks)).output.startswith("MALFORMED\n")


def test_command_used_wrongly(jwks: Path, tmp_path: Path) -> None:
    noise = tmp_path / "noise"
    noise.write_text("{}")
    assert run(TOKEN).exit_code == 2
    assert run(TOKEN, "--jwks", str(noise)).exit_code == 2
    assert run("absent", "--jwks", str(jwks)).exit_code == 2
    assert run("a" * 5000, "--jwks", str(jwks)).exit_code == 2
    assert run("nul\0", "--jwks", str(jwks)).exit_code == 2
    assert run(str(tmp_path), "--jwks", str(jwks)).exit_code == 2
    assert run(TOKEN, "--jwks", str(jwks), "--nonce", "00").exit_code == 2


def test_command_on_a_result_of_odd_form(jwks: Path) -> None:
    odd = {**EAR, RESULT: {"binding": "x", "policy": 5, "refusals": "x", "tier": None}}
    outcome = run(ear.sign(odd, KEY), "--jwks", str(jwks), *AT, "--json")
    assert verdict(outcome) == (10, "refused", ["result-not-affirming", "result-emulated"])
    assert run(ear.sign(odd, KEY), "--jwks", str(jwks), *AT).exit_code == 10


def test_nothing_on_the_terminal_but_print(jwks: Path) -> None:
    nasty = {**EAR, "iss": "x\x1b[2J"}
    output = run(ear.sign(nasty, KEY), "--jwks", str(jwks), *AT).output
    assert "\x1b" not in output
    assert "\\x1b[2J" in output


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda data: f"{part(HEADER)}.{part(data)}.{part(data)}"))
def test_any_text_is_refused_by_a_reason(text: str) -> None:
    with pytest.raises(AttestError):
        ear.verify(text, JWKS, now=NOW)


@given(
    st.dictionaries(
        st.sampled_from(["alg", "kid", "typ", "crit", "jku", "b64"]),
        st.sampled_from(["ES256", "none", "EdDSA", "eat+jwt", KEY.kid, None, 1, [], {}, True]),
    )
)
def test_any_header_is_refused_by_a_reason(header: dict[str, Any]) -> None:
    with pytest.raises(AttestError):
        ear.verify(f"{part(header)}.{part(EAR)}.{TOKEN.split('.')[2]}", JWKS, now=NOW)
