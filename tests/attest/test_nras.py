"""
Tokens of NRAS: the good are believed, and every forgery, replay, mixture and bad judgement has its own reason.

Real answers of NRAS were recorded without the keys of that day, so of those everything but the signatures is judged
(with a stand-in for the one function that verifies them). Signatures are put to the test with an emulated issuer.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attest import appraise as appraising
from attest import reasons
from attest.anchors import VENDORS, Anchors, load_emulated
from attest.claims import Claims
from attest.collateral import Document, Need
from attest.errors import AttestError, UntrustedCollateral
from attest.evidence import NVIDIA, Bundle, Evidence, Nonce
from attest.nvidia import nras, nras_eat, nras_issuer
from attest.nvidia.nras import NrasVerifier, together
from attest.nvidia.nras_appraise import appraise_nras
from attest.nvidia.nras_claims import judge
from attest.nvidia.nras_eat import NVIDIA_NRAS, split
from attest.nvidia.nras_issuer import NRAS, NVIDIA_NRAS_JWKS, NrasIssuer
from attest.nvidia.nras_keys import IssuerKey
from attest.nvidia.nras_rules import NrasRules
from attest.nvidia.verifier import NvidiaVerifier
from attest.policy import Asked, NvidiaRules, Origin, Policy, shipped
from attest.reasons import Fault
from attest.reasons.nras import NRAS_REFUSED
from attest.result import AttestationResult, Tier
from attest.verify import verify
from nodeprobe.emulator import MODELS, EmulatedGpu, Pki, publish
from nodeprobe.emulator.nras import EmulatedNras
from nodeprobe.emulator.nras_defects import NRAS_DEFECTS
from tests.evidence import VECTORS, hopper_550, needs_vectors

MADE = datetime(2030, 1, 1, tzinfo=UTC)
AT = datetime(2030, 1, 2, 12, tzinfo=UTC)
NONCE = Nonce(bytes(range(32)))
SECOND = timedelta(seconds=1)
REAL_GPU = VECTORS / "nvidia" / "hopper-550.90.07" / "nras_v3claims_detached_eat.json"
REAL_SWITCH = VECTORS / "nvidia" / "ls10-96.10.55.00.01" / "nras_stg_v3claims_detached_eat.json"
REAL_NONCE = Nonce(bytes.fromhex("931d8dd0add203ac3d8b4fbde75e115278eefcdceac5b87671a748f32364dfcb"))
STAGING = NrasIssuer("https://nras.attestation-stg.nvidia.com")
REAL_AT = datetime.fromtimestamp(1749601858 + 60, UTC)


def policy_like(name: str, **changes: Any) -> Policy:
    """A shipped policy that accepts tokens of NRAS, and them alone."""
    kinds = frozenset({NVIDIA_NRAS})
    return Policy.model_validate({**dict(shipped(name)), "kinds": kinds, "required": kinds, **changes})


LAB = policy_like("lab")
PRODUCTION = policy_like("production", binding_min="none", origins={Origin.VENDOR, Origin.EMULATED})


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki.create(tmp_path_factory.mktemp("emulator") / "pki", now=MADE)


@pytest.fixture(scope="module")
def anchors(pki: Pki) -> Anchors:
    return load_emulated(pki.anchors.read_bytes())


@pytest.fixture(scope="module")
def gpus(pki: Pki) -> list[EmulatedGpu]:
    return [EmulatedGpu.create(pki, f"gpu-{n}", MODELS["h100-pcie"]) for n in range(2)]


@pytest.fixture(scope="module")
def service() -> EmulatedNras:
    return EmulatedNras.create(now=AT)


@pytest.fixture(scope="module")
def issuer(service: EmulatedNras) -> NrasIssuer:
    return nras_issuer.load_emulated(service.issuer_file())


def chains(gpus: list[EmulatedGpu]) -> list[bytes]:
    return [gpu.chain_pem for gpu in gpus]


def nothing(_need: Need) -> Document | None:
    return None


def concluded(
    bundle: Bundle, verifier: NrasVerifier, *, policy: Policy = LAB, now: datetime = AT, nonce: Nonce | None = NONCE
) -> AttestationResult:
    verification = verify(bundle, {NVIDIA_NRAS: verifier}, nothing, nonce=nonce, now=now)
    return appraising.appraise(verification, policy, bundle=bundle, nonce=nonce, now=now)


def codes(result: AttestationResult) -> set[str]:
    return {finding.reason.code for finding in result.failed}


def one(verifier: NrasVerifier, evidence: Evidence, *, now: datetime = AT, nonce: Nonce | None = NONCE) -> Claims:
    return verifier.verify(evidence, {}, nonce=nonce, now=now)


def refusal(call: Any, *arguments: Any, **named: Any) -> str:
    with pytest.raises(AttestError) as caught:
        call(*arguments, **named)
    return caught.value.reason.code


@pytest.fixture
def verifier(anchors: Anchors, issuer: NrasIssuer) -> NrasVerifier:
    return NrasVerifier(anchors, (NRAS, issuer))


@pytest.fixture
def bundle(service: EmulatedNras, gpus: list[EmulatedGpu]) -> Bundle:
    return split(service.answer(gpus, NONCE, now=AT), chains(gpus), devices=2)


# Claims of local verification that NRAS makes otherwise, or not at all.
UNSAID = {"compared", "mode", "revocation", "revocation_asked", "rim_driver_id", "rim_vbios_id"}


# --- the good world ---------------------------------------------------------------------------------------------------
def test_devices_that_nras_finds_well_are_believed_and_marked_as_emulated(
    verifier: NrasVerifier, bundle: Bundle, gpus: list[EmulatedGpu]
) -> None:
    result = concluded(bundle, verifier, policy=PRODUCTION)

    assert (result.tier, codes(result), result.emulated) == (Tier.AFFIRMING, set(), True)
    assert [claim.device for claim in result.claims] == [f"nvidia-gh100-{gpu.pdi.hex()}" for gpu in gpus]
    assert result.revocation == "good"
    assert result.expires_at == AT + timedelta(hours=1)


def test_production_refuses_an_emulated_issuer(verifier: NrasVerifier, bundle: Bundle) -> None:
    assert codes(concluded(bundle, verifier, policy=policy_like("production", binding_min="none"))) == {
        "root-not-accepted"
    }


def test_both_ways_make_the_same_claims_of_a_gpu(
    verifier: NrasVerifier, bundle: Bundle, gpus: list[EmulatedGpu], anchors: Anchors, pki: Pki
) -> None:
    publish(pki, gpus[0].model)
    rims = {path.stem: Document.of(path.read_bytes()) for path in pki.rims.glob("*.xml")}
    local = NvidiaVerifier(anchors)
    here = gpus[0].evidence(NONCE)
    have = {need: rims[need.name] for need in local.needs(here, {}) if need.name in rims}

    local_claims = local.verify(here, have, nonce=NONCE, now=AT)
    remote_claims = one(verifier, bundle[0])

    assert remote_claims.device == local_claims.device
    for name in local_claims.values.keys() - UNSAID:
        assert remote_claims.values.get(name) == local_claims.values[name], name
    assert {name: remote_claims.values.get(name) for name in ("compared", "mode", "revocation", "rim_driver_id")} == {
        "compared": "unstated",
        "mode": "unstated",
        "revocation": "good",
        "rim_driver_id": None,
    }


def test_claims_of_version_2_leave_more_unsaid_so_that_only_a_lax_policy_takes_them(
    verifier: NrasVerifier, service: EmulatedNras, gpus: list[EmulatedGpu]
) -> None:
    bundle = split(service.answer(gpus, NONCE, now=AT, version="2.0"), chains(gpus))

    assert concluded(bundle, verifier, policy=LAB).tier is Tier.AFFIRMING
    assert codes(concluded(bundle, verifier, policy=PRODUCTION)) == {"fwid-absent", "revocation-not-checked"}


@pytest.mark.parametrize("version", ["2.0", "3.0"])
def test_switches_make_claims_of_their_own(verifier: NrasVerifier, service: EmulatedNras, version: str) -> None:
    pieces = split(service.switch_answer([7, 8], NONCE, now=AT, version=version))

    claims = [one(verifier, each) for each in pieces]

    assert [claim.device for claim in claims] == ["nvidia-ueid-7", "nvidia-ueid-8"]
    assert (claims[0].values["architecture"], claims[0].values["bios"]) == ("LS_10", "96.10.FE.00.01")
    assert list(together(claims)) == []
    lax = policy_like("lab", nras=NrasRules(certificates_required=False))
    assert concluded(pieces, verifier, policy=lax).tier is Tier.AFFIRMING
    assert codes(concluded(pieces, verifier, policy=PRODUCTION)) >= {"device-count"}  # no GPU among them


def test_gpus_in_protected_pcie_are_not_compared_with_switches_here(
    verifier: NrasVerifier, service: EmulatedNras, gpus: list[EmulatedGpu]
) -> None:
    """So their topology is unknown, even where NRAS vouches for switches beside them."""

    def edit(draft: Any) -> None:
        draft.devices["GPU-0"].claims["x-nvidia-gpu-switch-pdis"] = ["0123456789ABCDEF"]

    wired = split(service.answer(gpus[:1], NONCE, now=AT, edits=[edit]), chains(gpus[:1]))
    beside = split(service.switch_answer([7, 8], NONCE, now=AT))
    bare = {"binding_min": "none", "origins": {Origin.VENDOR, Origin.EMULATED},
            "nras": NrasRules(certificates_required=False)}  # fmt: skip

    assert codes(concluded(wired, verifier, policy=PRODUCTION)) == {"topology-absent"}
    policy = policy_like("production", **bare)
    assert codes(concluded((*wired, *beside), verifier, policy=policy)) == {"topology-absent"}
    optional = policy_like("production", **bare, nvidia=NvidiaRules(topology=Asked.OPTIONAL))
    assert concluded((*wired, *beside), verifier, policy=optional).tier is Tier.AFFIRMING


def test_switches_beside_a_gpu_mean_protected_pcie(
    verifier: NrasVerifier, service: EmulatedNras, gpus: list[EmulatedGpu]
) -> None:
    def mode(pdis: list[str]) -> object:
        def edit(draft: Any) -> None:
            draft.devices["GPU-0"].claims["x-nvidia-gpu-switch-pdis"] = pdis

        return one(verifier, split(service.answer(gpus[:1], NONCE, now=AT, edits=[edit]))[0]).values["mode"]

    assert mode(["0" * 16, "0123456789ABCDEF"]) == "ppcie"
    assert (mode(["0" * 16]), mode([])) == ("unstated", "unstated")


@pytest.mark.parametrize(("driver", "fwid"), [("550.54", "match"), ("549.99", "absent"), ("535.86.09", "absent")])
def test_nothing_matches_the_firmware_of_an_old_driver(
    verifier: NrasVerifier, service: EmulatedNras, gpus: list[EmulatedGpu], driver: str, fwid: str
) -> None:
    """Its reports name no firmware, and NRAS says "match" all the same."""

    def edit(draft: Any) -> None:
        draft.devices["GPU-0"].claims["x-nvidia-gpu-driver-version"] = driver

    bundle = split(service.answer(gpus[:1], NONCE, now=AT, edits=[edit]), chains(gpus[:1]))

    assert one(verifier, bundle[0]).values["fwid"] == fwid
    assert ("fwid-absent" in codes(concluded(bundle, verifier, policy=PRODUCTION))) is (fwid == "absent")


@pytest.mark.parametrize(
    ("claim", "code"),
    [
        ("attestation-report-cert-chain-validated", "nras-check-failed"),
        ("driver-rim-cert-validated", "rim-chain"),
        ("vbios-rim-cert-validated", "rim-chain"),
        ("attestation-report-signature-verified", "report-signature"),
    ],
)
def test_version_2_has_one_word_for_a_chain(
    verifier: NrasVerifier, service: EmulatedNras, gpus: list[EmulatedGpu], claim: str, code: str
) -> None:
    def edit(draft: Any) -> None:
        draft.devices["GPU-0"].claims[f"x-nvidia-gpu-{claim}"] = False

    assert (
        refusal(one, verifier, split(service.answer(gpus[:1], NONCE, now=AT, version="2.0", edits=[edit]))[0]) == code
    )


# --- every defect -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", sorted(NRAS_DEFECTS))
def test_each_defect_is_refused_for_its_own_reason(
    verifier: NrasVerifier, service: EmulatedNras, gpus: list[EmulatedGpu], name: str
) -> None:
    defect = NRAS_DEFECTS[name]
    answer = service.answer(gpus, NONCE, now=AT, edits=[defect.edit])
    try:
        bundle = split(answer)
    except AttestError:
        assert refusal(split, answer) == defect.reason.code
        return

    result = concluded(bundle, verifier, policy=policy_like("lab", nras=NrasRules(certificates_required=False)))

    assert result.tier is not Tier.AFFIRMING
    assert defect.reason.code in codes(result)
    assert result.failed[0].reason is defect.reason  # device 0 comes first


@pytest.mark.parametrize("name", sorted(name for name, each in NRAS_DEFECTS.items() if each.reason.fault is Fault.NODE))
def test_a_defect_of_one_device_condemns_the_node(
    verifier: NrasVerifier, service: EmulatedNras, gpus: list[EmulatedGpu], name: str
) -> None:
    """Also where the other device is good, and where the node hides that there is another."""
    answer = service.answer(gpus, NONCE, now=AT, edits=[NRAS_DEFECTS[name].edit])
    try:
        bundle = split(answer, chains(gpus))
    except AttestError:
        return

    assert concluded(bundle, verifier).tier is Tier.CONTRAINDICATED
    assert concluded(bundle[:1], verifier).tier is Tier.CONTRAINDICATED


def test_what_is_not_the_nodes_fault_postpones(
    verifier: NrasVerifier, service: EmulatedNras, gpus: list[EmulatedGpu]
) -> None:
    for name in ("error-server", "driver-rim-fetched-false", "result-false", "all-kid-unknown"):
        bundle = split(service.answer(gpus, NONCE, now=AT, edits=[NRAS_DEFECTS[name].edit]), chains(gpus))
        assert concluded(bundle, verifier).tier is Tier.NONE, name


def test_a_refusal_of_nras_names_its_code(
    verifier: NrasVerifier, service: EmulatedNras, gpus: list[EmulatedGpu]
) -> None:
    bundle = split(service.answer(gpus, NONCE, now=AT, edits=[NRAS_DEFECTS["error-nonce"].edit]), chains(gpus))

    with pytest.raises(AttestError) as caught:
        one(verifier, bundle[0])

    assert caught.value.reason is NRAS_REFUSED
    assert "4010" in caught.value.found


def test_every_defect_has_a_reason_that_another_lacks_and_every_reason_is_shown() -> None:
    """But for those that no answer can have: of keys, of certificates beside it, of a policy."""
    elsewhere = {
        "nras-jwks-unavailable",
        "nras-jwks-malformed",
        "nras-chain-mismatch",
        "nras-origins-mixed",
        "nras-device-unidentified",
    }

    shown = {defect.reason.code for defect in NRAS_DEFECTS.values()}

    assert {code for code in reasons.CATALOGUE if code.startswith("nras-")} - shown == elsewhere


# --- a locally made token is never evidence ---------------------------------------------------------------------------
@pytest.mark.parametrize("accepted", [(), (NRAS,)])
def test_an_issuer_that_nobody_named_is_none(
    anchors: Anchors, service: EmulatedNras, gpus: list[EmulatedGpu], accepted: tuple[NrasIssuer, ...]
) -> None:
    (evidence,) = split(service.answer(gpus[:1], NONCE, now=AT))

    assert refusal(NrasVerifier(anchors, accepted).needs, evidence, {}) == "nras-issuer"


def test_keys_that_are_handed_in_under_a_vendors_address_are_still_emulated(
    anchors: Anchors, gpus: list[EmulatedGpu]
) -> None:
    forger = EmulatedNras.create(now=AT, base_url=NRAS.base_url)
    verifier = NrasVerifier(anchors, (NrasIssuer(NRAS.base_url, forger.jwks()),))

    assert one(verifier, split(forger.answer(gpus[:1], NONCE, now=AT))[0]).emulated is True
    with pytest.raises(ValueError, match="twice"):
        NrasVerifier(anchors, (NRAS, NrasIssuer(NRAS.base_url, forger.jwks())))
    with pytest.raises(ValueError, match="built in"):
        nras_issuer.load_emulated(forger.issuer_file())


def test_a_foreign_issuer_with_the_same_address_is_refused(
    verifier: NrasVerifier, service: EmulatedNras, gpus: list[EmulatedGpu]
) -> None:
    """Its key is not among the issuer's; under the name of one that is, its signature does not hold."""
    forger = EmulatedNras.create(now=AT)
    (unknown,) = split(forger.answer(gpus[:1], NONCE, now=AT))
    (posing,) = split(replace(forger, kid=service.kid).answer(gpus[:1], NONCE, now=AT))

    assert refusal(one, verifier, unknown) == "nras-key-unknown"
    assert refusal(one, verifier, posing) == "nras-signature"


def test_a_token_is_checked_with_the_key_that_it_names_and_no_other(
    anchors: Anchors, service: EmulatedNras, gpus: list[EmulatedGpu]
) -> None:
    """Swapped kid: both keys are the issuer's, and each signs for itself only."""
    other = EmulatedNras.create(now=AT)
    jwks = NrasIssuer(service.base_url, service.jwks(other.jwk()))
    verifier = NrasVerifier(anchors, (jwks,))
    swapped = replace(service, kid=other.kid)

    assert one(verifier, split(other.answer(gpus[:1], NONCE, now=AT))[0]).values["submod"] == "GPU-0"
    assert refusal(one, verifier, split(swapped.answer(gpus[:1], NONCE, now=AT))[0]) == "nras-signature"


# --- keys -------------------------------------------------------------------------------------------------------------
def vendors(service: EmulatedNras, document: bytes | None, anchors: Anchors, gpus: list[EmulatedGpu]) -> Claims:
    """One device, by an issuer whose keys are collateral."""
    verifier = NrasVerifier(anchors, (NrasIssuer(service.base_url),))
    (evidence,) = split(service.answer(gpus[:1], NONCE, now=AT), chains(gpus[:1]))
    (need,) = verifier.needs(evidence, {})
    assert need == Need(NVIDIA_NRAS_JWKS, service.base_url)
    assert nras_issuer.source(need) == service.base_url + "/.well-known/jwks.json"
    have = {} if document is None else {need: Document.of(document)}
    assert verifier.needs(evidence, have) == (frozenset() if have else {need})
    return verifier.verify(evidence, have, nonce=NONCE, now=AT)


def test_keys_are_asked_for_by_the_address_that_is_pinned(
    service: EmulatedNras, anchors: Anchors, gpus: list[EmulatedGpu]
) -> None:
    claims = vendors(service, service.jwks(), anchors, gpus)

    digest = hashlib.sha256(service.jwks()).hexdigest()
    assert claims.collateral == {f"nvidia-nras-jwks {service.base_url}": digest}
    assert refusal(vendors, service, None, anchors, gpus) == "nras-jwks-unavailable"
    assert nras_issuer.source(Need(NVIDIA, "anything")) is None  # type: ignore[arg-type]


def _spoiled_jwks(service: EmulatedNras) -> Iterator[tuple[str, bytes]]:
    good = service.jwk()
    other = EmulatedNras.create(now=AT).jwk()
    p256 = {**good, "crv": "P-256"}
    for name, keys in {
        "no-keys": [],
        "twice": [good, good],
        "twice-other": [good, {**other, "kid": service.kid}],
        "p256": [p256],
        "rsa": [{**good, "kty": "RSA"}],
        "secret": [{"kty": "oct", "kid": service.kid, "k": "c2VjcmV0"}],
        "for-encryption": [{**good, "use": "enc"}],
        "for-another-algorithm": [{**good, "alg": "ES256"}],
        "private": [{**good, "d": good["x"]}],
        "off-the-curve": [{**good, "y": good["x"]}],
        "no-point": [{**good, "x": 1}],
        "no-certificate": [{name: value for name, value in good.items() if name != "x5c"}],
        "empty-certificate": [{**good, "x5c": []}],
        "odd-certificate": [{**good, "x5c": ["AAAA"]}],
        "certificate-no-base64": [{**good, "x5c": ["!"]}],
        "certificate-of-another": [{**good, "x5c": other["x5c"]}],
        "nameless": [good, {**other, "kid": None}],
        "list": [good, []],
        "too-many": [good, *({**good, "kid": str(n)} for n in range(256))],
    }.items():
        yield name, json.dumps({"keys": keys}).encode()
    yield "no-json", b"{"
    yield "no-object", b"[]"
    yield "huge", b" " * (1 << 20) + service.jwks()


def test_keys_that_are_not_what_they_must_be_are_nobodys_fault_but_theirs(
    service: EmulatedNras, anchors: Anchors, gpus: list[EmulatedGpu]
) -> None:
    for name, document in _spoiled_jwks(service):
        with pytest.raises(UntrustedCollateral) as caught:
            vendors(service, document, anchors, gpus)
        assert caught.value.reason.code == "nras-jwks-malformed", name
    assert refusal(vendors, service, EmulatedNras.create(now=AT).jwks(), anchors, gpus) == "nras-key-unknown"


@pytest.mark.parametrize(
    "url", ["http://a.invalid", "https://a.invalid/", "https://a.invalid/x", "", "https://A.invalid"]
)
def test_an_issuer_has_an_address_over_tls(url: str) -> None:
    with pytest.raises(ValueError, match="no address"):
        NrasIssuer(url)


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"issuer": "https://a.invalid", "jwks": {}}', b" " * (1 << 21)])
def test_a_file_of_an_issuer_names_address_and_keys(data: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        nras_issuer.load_emulated(data)


# --- time -------------------------------------------------------------------------------------------------------------
def test_the_instant_at_which_a_token_runs_out_is_too_late(verifier: NrasVerifier, bundle: Bundle) -> None:
    end = AT + timedelta(hours=1)

    assert one(verifier, bundle[0], now=end - timedelta(microseconds=1)).not_after == end
    assert refusal(one, verifier, bundle[0], now=end) == "nras-time"


def test_clocks_may_differ_by_five_minutes_at_the_beginning_and_not_more(
    verifier: NrasVerifier, bundle: Bundle
) -> None:
    assert one(verifier, bundle[0], now=AT - nras.SKEW).emulated is True
    assert refusal(one, verifier, bundle[0], now=AT - nras.SKEW - timedelta(microseconds=1)) == "nras-time"


def test_a_manifest_that_expires_before_the_token_ends_the_claims(
    verifier: NrasVerifier, service: EmulatedNras, gpus: list[EmulatedGpu]
) -> None:
    def edit(draft: Any) -> None:
        chain = draft.devices["GPU-0"].claims["x-nvidia-gpu-driver-rim-cert-chain"]
        chain["x-nvidia-cert-expiration-date"] = "2030-01-02T12:10:00Z"

    (evidence,) = split(service.answer(gpus[:1], NONCE, now=AT, edits=[edit]))

    assert one(verifier, evidence).not_after == AT + timedelta(minutes=10)
    later = one(verifier, evidence, now=AT + timedelta(minutes=10))
    assert (later.values["rim_expired_days"], later.not_after) == (1, AT + timedelta(hours=1))


# --- challenges -------------------------------------------------------------------------------------------------------
def test_an_answer_for_another_challenge_is_refused(verifier: NrasVerifier, bundle: Bundle) -> None:
    assert refusal(one, verifier, bundle[0], nonce=Nonce(bytes(32))) == "nonce-mismatch"


def test_without_a_challenge_whole_and_part_must_still_agree(
    verifier: NrasVerifier, service: EmulatedNras, gpus: list[EmulatedGpu]
) -> None:
    (good,) = split(service.answer(gpus[:1], NONCE, now=AT))
    (mixed,) = split(service.answer(gpus[:1], NONCE, now=AT, edits=[NRAS_DEFECTS["device-nonce-wrong"].edit]))

    assert one(verifier, good, nonce=None).values["submod"] == "GPU-0"
    assert refusal(one, verifier, mixed, nonce=None) == "nonce-mismatch"


def test_tokens_of_an_earlier_answer_do_not_fit_into_a_new_one(
    verifier: NrasVerifier, service: EmulatedNras, gpus: list[EmulatedGpu]
) -> None:
    (new,) = split(service.answer(gpus[:1], NONCE, now=AT))
    (old,) = split(service.answer(gpus[:1], NONCE, now=AT - timedelta(minutes=5)))
    overall, device = json.loads(new.payload)[0], json.loads(old.payload)[1]

    assert refusal(one, verifier, Evidence(NVIDIA_NRAS, json.dumps([overall, device]).encode())) == "nras-submods"


# --- one device, one worker -------------------------------------------------------------------------------------------
def test_without_certificates_a_device_has_another_name_which_a_policy_must_allow(
    verifier: NrasVerifier, service: EmulatedNras, gpus: list[EmulatedGpu]
) -> None:
    bundle = split(service.answer(gpus[:1], NONCE, now=AT))
    with_chain = split(service.answer(gpus[:1], NONCE, now=AT), chains(gpus[:1]))

    bare, known = one(verifier, bundle[0]), one(verifier, with_chain[0])

    assert bare.values["ueid"] == known.values["ueid"]
    assert (bare.device, bare.values["identity"]) == (f"nvidia-ueid-{bare.values['ueid']}", "token")
    assert codes(concluded(bundle, verifier)) == {"nras-device-unidentified"}
    lax = policy_like("lab", nras=NrasRules(certificates_required=False))
    assert concluded(bundle, verifier, policy=lax).tier is Tier.AFFIRMING


def test_certificates_of_another_device_are_refused(
    verifier: NrasVerifier, service: EmulatedNras, gpus: list[EmulatedGpu]
) -> None:
    crossed = split(service.answer(gpus, NONCE, now=AT), chains(gpus)[::-1])

    assert refusal(one, verifier, crossed[0]) == "nras-chain-mismatch"


def test_certificates_lead_to_a_pinned_root_of_the_same_origin(
    service: EmulatedNras, issuer: NrasIssuer, gpus: list[EmulatedGpu], anchors: Anchors
) -> None:
    (evidence,) = split(service.answer(gpus[:1], NONCE, now=AT), chains(gpus[:1]))
    assert refusal(one, NrasVerifier(VENDORS, (issuer,)), evidence) == "chain-root"

    vendor = EmulatedNras.create(now=AT, base_url=NRAS.base_url)
    (evidence,) = split(vendor.answer(gpus[:1], NONCE, now=AT), chains(gpus[:1]))
    verifier = NrasVerifier(anchors, (NRAS,))
    (need,) = verifier.needs(evidence, {})
    have = {need: Document.of(vendor.jwks())}
    assert refusal(verifier.verify, evidence, have, nonce=NONCE, now=AT) == "nras-origins-mixed"


def test_certificates_are_valid_at_the_time(gpus: list[EmulatedGpu], anchors: Anchors) -> None:
    before = datetime(2021, 1, 1, tzinfo=UTC)  # the emulated identity authority begins in 2022
    early = EmulatedNras.create(now=before)
    verifier = NrasVerifier(anchors, (nras_issuer.load_emulated(early.issuer_file()),))
    (evidence,) = split(early.answer(gpus[:1], NONCE, now=before), chains(gpus[:1]))

    assert refusal(one, verifier, evidence, now=before) == "chain-time"


def test_the_same_device_twice_counts_once_however_it_is_named(
    verifier: NrasVerifier, service: EmulatedNras, gpus: list[EmulatedGpu]
) -> None:
    twice = split(service.answer([gpus[0], gpus[0]], NONCE, now=AT), [gpus[0].chain_pem] * 2)
    result = concluded(twice, verifier)
    assert codes(result) == {"device-duplicate"}

    half_named = (twice[0], replace(twice[1], certificates=b""))
    claims = [one(verifier, each) for each in half_named]
    assert claims[0].device != claims[1].device
    assert [reason.code for reason, _, _ in together(claims)] == ["device-duplicate"]


def test_the_same_device_by_both_ways_counts_once(
    verifier: NrasVerifier, service: EmulatedNras, gpus: list[EmulatedGpu], anchors: Anchors
) -> None:
    local = NvidiaVerifier(anchors).verify(gpus[0].evidence(NONCE), {}, nonce=NONCE, now=AT)
    remote = one(verifier, split(service.answer(gpus[:1], NONCE, now=AT))[0])

    assert [reason.code for reason, _, _ in together([local, remote])] == ["device-duplicate"]


# --- the whole answer -------------------------------------------------------------------------------------------------
def test_an_answer_is_there_whole(verifier: NrasVerifier, bundle: Bundle) -> None:
    claims = [one(verifier, each) for each in bundle]

    assert list(together(claims)) == []
    assert [reason.code for reason, _, _ in together(claims[:1])] == ["nras-incomplete"]
    assert {reason.code for reason, _, _ in together([claims[0], claims[0]])} == {"nras-incomplete", "device-duplicate"}


def test_two_answers_of_one_node_are_counted_apart(
    verifier: NrasVerifier, service: EmulatedNras, gpus: list[EmulatedGpu]
) -> None:
    """NRAS takes GPUs and switches in requests of their own."""
    pieces = [
        *split(service.answer(gpus, NONCE, now=AT), chains(gpus)),
        *split(service.switch_answer([7, 8], NONCE, now=AT)),
    ]

    assert list(together(one(verifier, each) for each in pieces)) == []
    assert [reason.code for reason, _, _ in together(one(verifier, each) for each in pieces[:-1])] == [
        "nras-incomplete"
    ]


def test_as_many_devices_as_were_asked_about(service: EmulatedNras, gpus: list[EmulatedGpu]) -> None:
    answer = service.answer(gpus, NONCE, now=AT)

    assert len(split(answer)) == len(split(answer, devices=2)) == 2
    for named in ({"devices": 1}, {"devices": 3}, {"devices": 8, "chains": chains(gpus)}, {"chains": [b"", b"", b""]}):
        assert refusal(split, answer, **named) == "nras-incomplete"


def test_a_piece_of_evidence_is_about_one_device(
    verifier: NrasVerifier, service: EmulatedNras, gpus: list[EmulatedGpu]
) -> None:
    whole = Evidence(NVIDIA_NRAS, service.answer(gpus, NONCE, now=AT))

    assert refusal(verifier.needs, whole, {}) == "nras-eat-malformed"


def test_devices_keep_their_places(service: EmulatedNras, gpus: list[EmulatedGpu]) -> None:
    """GPU-10 comes after GPU-9, and none is left out."""
    pieces = split(service.answer([gpus[0]] * 11, NONCE, now=AT), [bytes([n]) for n in range(11)])
    assert [next(iter(json.loads(each.payload)[1])) for each in pieces] == [f"GPU-{n}" for n in range(11)]
    assert [each.certificates for each in pieces] == [bytes([n]) for n in range(11)]

    def renumber(draft: Any) -> None:
        draft.devices["GPU-5"] = draft.devices.pop("GPU-1")

    assert refusal(split, service.answer(gpus, NONCE, now=AT, edits=[renumber])) == "nras-eat-malformed"


def test_what_an_answer_is_not(service: EmulatedNras, gpus: list[EmulatedGpu]) -> None:
    answer = json.loads(service.answer(gpus[:1], NONCE, now=AT))
    overall, tokens = answer[0][1], answer[1]
    documents: tuple[Any, ...] = (
        [],
        {},
        "text",
        [["JWT", overall]],
        [["JWT", overall], {}],
        [["JWT", overall], tokens, {}],
        [["JWT", overall, overall], tokens],
        [["CWT", overall], tokens],
        [["JWT", None], tokens],
        [["JWT", overall], [tokens]],
        [["JWT", overall], {"GPU-0": None}],
        [["JWT", overall], {"GPU-00": tokens["GPU-0"]}],
        [["JWT", overall], {"CPU-0": tokens["GPU-0"]}],
        [["JWT", overall], {f"GPU-{n}": "" for n in range(33)}],
    )
    for document in documents:
        assert refusal(split, json.dumps(document).encode()) == "nras-eat-malformed", document
    twice = json.dumps(answer).replace('{"GPU-0"', '{"GPU-0": "", "GPU-0"').encode()
    for data in (b"", b"\xff", twice, b"[" * 100_000, b" " * (nras_eat.EAT_BYTES_MAX + 1)):
        assert refusal(split, data) == "nras-eat-malformed"
    assert nras_eat.is_answer(answer)
    assert not nras_eat.is_answer([{"evidence": ""}])
    assert not nras_eat.is_answer([])


# --- spoiling and fuzzing ---------------------------------------------------------------------------------------------
def test_every_byte_of_an_answer(verifier: NrasVerifier, service: EmulatedNras, gpus: list[EmulatedGpu]) -> None:
    (evidence,) = split(service.answer(gpus[:1], NONCE, now=AT))
    one(verifier, evidence)  # it is good before we spoil it
    data, unnoticed = evidence.payload, []
    for at in range(len(data)):
        spoiled = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        try:
            one(verifier, Evidence(NVIDIA_NRAS, spoiled))
        except AttestError:
            continue
        unnoticed.append(at)
    assert unnoticed == []


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
_TOKENS = st.tuples(_JSON, _JSON, st.binary(max_size=100)).map(
    lambda parts: ".".join(_base64url(part if isinstance(part, bytes) else json.dumps(part).encode()) for part in parts)
)


@given(
    st.binary(max_size=200)
    | st.tuples(_TOKENS, _TOKENS).map(lambda two: json.dumps([["JWT", two[0]], {"GPU-0": two[1]}]).encode())
)
def test_any_bytes_are_an_answer_or_refused(data: bytes) -> None:
    for read in (split, nras_eat.read):
        try:
            read(data)
        except AttestError:
            continue


_NAMES = st.sampled_from(
    sorted(
        {
            "measres", "secboot", "dbgstat", "hwmodel", "ueid", "x-nvidia-attestation-warning",
            *(f"x-nvidia-gpu-{each}" for each in (
                "arch-check", "driver-version", "vbios-version", "switch-pdis", "attestation-report-cert-chain",
                "driver-rim-cert-chain", "driver-rim-fetched", "vbios-index-no-conflict",
            )),
        }
    )
)  # fmt: skip


@given(data=st.data())
def test_any_claims_are_judged_or_refused(data: st.DataObject) -> None:
    version = data.draw(st.sampled_from(["2.0", "3.0"]))
    said = {**_SAID, **data.draw(st.dictionaries(_NAMES, _JSON, max_size=3))}
    try:
        judged = judge(said, "GPU-0", version, now=AT)
    except AttestError:
        return
    assert judged.values["measurements"] == "match"
    assert said["measres"] == "success"


_FLAGS = {
    f"x-nvidia-gpu-{flag}": True
    for flag in (
        "arch-check", "vbios-index-no-conflict",
        *(f"attestation-report-{each}" for each in (
            "parsed", "signature-verified", "nonce-match", "cert-chain-fwid-match", "cert-chain-validated",
        )),
        *(f"{role}-rim-{each}" for role in ("driver", "vbios") for each in (
            "fetched", "schema-validated", "cert-validated", "signature-verified", "version-match",
            "measurements-available",
        )),
    )
}  # fmt: skip
_CHAIN = {
    "x-nvidia-cert-status": "valid",
    "x-nvidia-cert-ocsp-status": "good",
    "x-nvidia-cert-expiration-date": "9999-12-31T23:59:59Z",
    "x-nvidia-cert-revocation-reason": None,
}
_SAID = {
    **_FLAGS,
    **{f"x-nvidia-gpu-{each}-cert-chain": _CHAIN for each in ("attestation-report", "driver-rim", "vbios-rim")},
    "measres": "success",
    "secboot": True,
    "dbgstat": "disabled",
    "hwmodel": "GH100",
    "ueid": "1",
    "x-nvidia-gpu-driver-version": "550.54",
    "x-nvidia-gpu-vbios-version": "96.00.9F.00.01",
}


# --- real answers -----------------------------------------------------------------------------------------------------
@pytest.fixture
def unsigned(monkeypatch: pytest.MonkeyPatch) -> NrasVerifier:
    """A verifier that takes the keys for granted, since they were not recorded. No such thing ships."""
    always = IssuerKey(None, REAL_AT - timedelta(days=30), REAL_AT + timedelta(days=60))  # type: ignore[arg-type]
    monkeypatch.setattr(nras, "key_named", lambda *_, **__: always)
    monkeypatch.setattr(nras, "verify_token", lambda token, _key: token.states)
    return NrasVerifier(VENDORS, (NRAS, STAGING))


NO_KEYS = {each.need: Document.of(b"") for each in (NRAS, STAGING) if each.need is not None}


@needs_vectors
def test_what_the_real_service_says_of_a_real_gpu(unsigned: NrasVerifier) -> None:
    recorded = hopper_550()
    (evidence,) = split(REAL_GPU.read_bytes(), [recorded.chain], devices=1)

    claims = unsigned.verify(evidence, NO_KEYS, nonce=REAL_NONCE, now=REAL_AT)
    (local,) = recorded.verify().claims

    assert (claims.device, claims.values["identity"], claims.emulated) == (local.device, "certificates", False)
    for name in local.values.keys() - UNSAID:
        assert claims.values.get(name) == local.values[name], name
    assert (claims.values["revocation"], claims.values["mode"]) == ("good", "unstated")
    assert [finding.reason.code for finding in appraise_nras(claims, PRODUCTION, REAL_AT) if not finding.holds] == []


@needs_vectors
def test_a_real_answer_for_another_challenge_or_time_is_refused(unsigned: NrasVerifier) -> None:
    (evidence,) = split(REAL_GPU.read_bytes())

    for nonce, now, code in (
        (Nonce(bytes(32)), REAL_AT, "nonce-mismatch"),
        (REAL_NONCE, REAL_AT + timedelta(hours=1), "nras-time"),
        (REAL_NONCE, REAL_AT - timedelta(hours=1), "nras-time"),
    ):
        assert refusal(unsigned.verify, evidence, NO_KEYS, nonce=nonce, now=now) == code


@needs_vectors
def test_what_the_real_service_says_of_a_real_switch(unsigned: NrasVerifier) -> None:
    (evidence,) = split(REAL_SWITCH.read_bytes())

    claims = unsigned.verify(evidence, NO_KEYS, nonce=REAL_NONCE, now=datetime.fromtimestamp(1751155060, UTC))

    assert (claims.values["architecture"], claims.values["bios"]) == ("LS_10", "96.10.55.00.01")
    assert claims.emulated is True  # a staging service is no vendor's word


@needs_vectors
@pytest.mark.parametrize("path", [REAL_GPU, REAL_SWITCH], ids=["gpu", "switch"])
def test_real_tokens_need_the_issuers_keys(path: Any) -> None:
    """With no keys, or with others, nothing of them is believed."""
    verifier = NrasVerifier(VENDORS, (NRAS, STAGING))
    (evidence,) = split(path.read_bytes())
    (need,) = verifier.needs(evidence, {})
    forger = EmulatedNras.create(now=REAL_AT)
    kid = nras_eat.read(evidence.payload).overall.kid

    assert refusal(verifier.verify, evidence, {}, nonce=REAL_NONCE, now=REAL_AT) == "nras-jwks-unavailable"
    assert (
        refusal(verifier.verify, evidence, {need: Document.of(forger.jwks())}, nonce=REAL_NONCE, now=REAL_AT)
        == "nras-key-unknown"
    )
    named = replace(forger, kid=kid)
    assert (
        refusal(verifier.verify, evidence, {need: Document.of(named.jwks())}, nonce=REAL_NONCE, now=REAL_AT)
        == "nras-signature"
    )
