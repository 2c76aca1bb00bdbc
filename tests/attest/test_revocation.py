"""Who was revoked: what is asked about whom, what the answers make of a verdict, and when they have run out."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from attest import reasons
from attest.anchors import VENDORS
from attest.appraise import appraise
from attest.collateral import CollateralKind, Document
from attest.containers import read
from attest.evidence import Nonce
from attest.memo import Memo
from attest.nvidia.revocation import judge
from attest.policy import Policy, parse, shipped
from attest.reasons import Fault
from attest.result import Tier
from attest.verify import gather, installed, verify
from tests.attest.responders import DAY, GOOD, HOLD, HOUR, OCSP_SIGNING, REVOKED, UNKNOWN, Party, answer
from tests.attest.world import AT, NONCE, codes
from tests.evidence import DRIVER_550, VBIOS_550, VECTORS, hopper_550, needs_vectors
from tests.real_ocsp import documents as real_answers
from tests.real_ocsp import inquiries as real_inquiries

SECOND = timedelta(seconds=1)
KEY_COMPROMISE = x509.ReasonFlags.key_compromise


class Vendor:
    """The responders of an emulated vendor: who answers about which certificate, and what."""

    def __init__(self, world, evidence):
        self.world, self.evidence = world, evidence
        pki = world.pki
        self.issuers = {
            each.certificate.subject.public_bytes(): each
            for each in (pki.device_root, pki.identity, pki.provisioner, pki.rim_root, pki.rim_ca, pki.rim_l3)
        }
        self.responders = {}

    def inquiries(self, verifier=None):
        """All that is asked about this device and its manifests."""
        verifier = verifier or self.world.verifier()
        collateral = gather(verifier, self.evidence, self.world.fetch)
        reading = verifier._reading(self.evidence)
        return (*reading.chain.inquiries, *verifier._reference(reading.wanted, collateral).inquiries)

    def said(self, inquiry, **spoiled):
        """The answer to an inquiry: good, of an hour ago, for a day, unless something of it is spoiled."""
        issuer = self.issuers[inquiry.issuer.subject.public_bytes()]
        name = issuer.certificate.subject.rfc4514_string()
        responder = self.responders.get(name)
        if responder is None:
            signer = Party(issuer.certificate, issuer.key)
            responder = self.responders[name] = Party.made(f"Responder of {name}"[:60], signer, purposes=OCSP_SIGNING)
        named = spoiled.pop("certificate", None) or self.certificate(inquiry)
        return answer(named, issuer.certificate, responder, **({"this_update": AT - HOUR} | spoiled))

    def certificate(self, inquiry):
        pki = self.world.pki
        known = [x509.load_pem_x509_certificates(self.evidence.certificates)[1]]
        known += [each.certificate for each in (pki.provisioner, pki.identity, pki.rim_ca, pki.rim_l3, pki.rim_l4)]
        (found,) = (each for each in known if each.serial_number == inquiry.question.serial)
        return found

    def answers(self, spoiled=None, **how):
        """Good answers to everything, but for what is said about `spoiled`, a part of a subject's name."""
        return {
            each.need: Document.of(self.said(each, **(how if spoiled and spoiled in each.subject else {})))
            for each in self.inquiries()
        }

    def judge(self, answers, *, policy="lab", now=AT, verifier=None):
        rules = policy if isinstance(policy, Policy) else shipped(policy)
        verifiers = {"nvidia": verifier or self.world.verifier()}
        bundle = (self.evidence,)

        def fetch(need):
            return answers.get(need) if need.kind is CollateralKind.NVIDIA_OCSP else self.world.fetch(need)

        verification = verify(bundle, verifiers, fetch, nonce=NONCE, now=now)
        return appraise(verification, rules, bundle=bundle, nonce=NONCE, now=now)


DEVICE, PROVISIONER, IDENTITY = "BROM", "Provisioner", "GH100 Identity"
SIGNER, L3, CA = "HCC RIM L4 Signer", "Reference Value L3", "Reference Value GH100 CA"
ALL = (DEVICE, PROVISIONER, IDENTITY, SIGNER, L3, CA)
STRICT = parse('name = "own"\norigins = ["emulated"]')


def patient(hours, **rules):
    own = {"name": "own", "origins": {"emulated"}, "revocation_stale_hours_max": hours}
    return Policy.model_validate(own | rules)


@pytest.fixture(scope="module")
def vendor(world):
    return Vendor(world, world.evidence())


# --- what is asked ----------------------------------------------------------------------------------------------------
def test_all_certificates_are_asked_about_but_the_attestation_key_and_the_roots(vendor):
    asked = vendor.inquiries()

    assert [sum(part in each.subject for each in asked) for part in ALL] == [1] * 6
    assert [each.of_device for each in asked] == [True] * 3 + [False] * 3  # both manifests share a signer here
    assert len({each.need for each in asked}) == len(asked)


def test_what_is_asked_about_emulated_certificates_names_their_root(vendor, world):
    """So that nobody asks a vendor's responder about them."""
    names = {each.need.name.partition("@")[2] for each in vendor.inquiries()}

    assert names == {world.anchors.nvidia_device[0].spki_sha256[:16], world.anchors.nvidia_rim[0].spki_sha256[:16]}


def test_answers_are_needs_like_others(vendor, world):
    verifier, evidence = world.verifier(), vendor.evidence
    first = verifier.needs(evidence, {})
    rims = {need: world.fetch(need) for need in first if need.kind is CollateralKind.NVIDIA_RIM}
    then = verifier.needs(evidence, rims)

    assert [need.kind for need in first].count(CollateralKind.NVIDIA_OCSP) == 3
    assert [need.kind for need in then].count(CollateralKind.NVIDIA_OCSP) == 6
    assert {need.kind for need in then} == {CollateralKind.NVIDIA_OCSP}
    assert verifier.needs(evidence, rims | vendor.answers()) == frozenset()


# --- what the answers make of it --------------------------------------------------------------------------------------
def test_good_answers_about_all_are_good(vendor):
    result = vendor.judge(vendor.answers(), policy=STRICT)

    assert (result.tier, codes(result), result.revocation) == (Tier.AFFIRMING, set(), "good")
    (claims,) = result.claims
    until = AT - HOUR + DAY
    assert claims.values["revocation_asked"] == 6
    assert claims.values["revocation_until"] == int(until.timestamp())
    assert claims.values["revocation_stale_hours"] == 0
    assert len([name for name in claims.collateral if name.startswith("nvidia-ocsp")]) == 6


@pytest.mark.parametrize("absent", ALL)
def test_one_answer_less_is_not_checked(vendor, absent):
    answers = {each.need: vendor.answers()[each.need] for each in vendor.inquiries() if absent not in each.subject}

    strict, lab = vendor.judge(answers, policy=STRICT), vendor.judge(answers)

    assert (strict.tier, codes(strict)) == (Tier.NONE, {"revocation-not-checked"})
    assert (lab.tier, lab.revocation) == (Tier.AFFIRMING, "not checked")
    assert lab.claims[0].values["revocation_asked"] == 5


@pytest.mark.parametrize("spoiled", ALL)
@pytest.mark.parametrize(
    ("how", "device", "manifest"),
    [
        ({"status": REVOKED}, "chain-revoked", "rim-revoked"),
        ({"status": REVOKED, "reason": KEY_COMPROMISE}, "chain-revoked", "rim-revoked"),
        ({"status": UNKNOWN}, "chain-status-unknown", "rim-revoked"),
    ],
    ids=["revoked", "compromised", "unknown"],
)
def test_what_was_revoked_or_is_unknown_is_refused_by_every_policy(vendor, spoiled, how, device, manifest):
    """Of the device: the node is out. Of a manifest's signer: nothing is decided, and nobody is to blame."""
    for policy in ("lab", STRICT, patient(720, allow_hold=True, revocation="optional")):
        result = vendor.judge(vendor.answers(spoiled, **how), policy=policy)

        of_device = spoiled in (DEVICE, PROVISIONER, IDENTITY)
        assert codes(result) == {device if of_device else manifest}
        assert result.tier is (Tier.CONTRAINDICATED if of_device else Tier.NONE)


@pytest.mark.parametrize("spoiled", ALL)
def test_what_is_on_hold_is_refused_unless_the_policy_says_otherwise(vendor, spoiled):
    answers = vendor.answers(spoiled, status=REVOKED, reason=HOLD)

    for policy in ("lab", STRICT):
        result = vendor.judge(answers, policy=policy)
        assert (codes(result), result.revocation) == ({"revocation-hold"}, "hold")
        assert result.tier is Tier.CONTRAINDICATED
    allowed = vendor.judge(answers, policy=patient(0, allow_hold=True))
    assert (allowed.tier, allowed.revocation) == (Tier.AFFIRMING, "hold")


@pytest.mark.parametrize("silent", [False, True])
def test_a_revoked_device_is_revoked_also_where_other_answers_are_missing(vendor, silent):
    answers = vendor.answers(DEVICE, status=REVOKED)
    some = {each.need: answers[each.need] for each in vendor.inquiries() if DEVICE in each.subject}

    assert codes(vendor.judge(some if silent else answers)) == {"chain-revoked"}


# --- answers that are none --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("spoiled", ALL)
@pytest.mark.parametrize("how", ["empty", "cut", "flipped", "future", "another's", "unappointed", "two names"])
def test_what_is_no_answer_decides_nothing(vendor, spoiled, how):
    (inquiry,) = (each for each in vendor.inquiries() if spoiled in each.subject)
    good = vendor.said(inquiry)
    other = next(each for each in vendor.inquiries() if spoiled not in each.subject)
    data = {
        "empty": lambda: b"",
        "cut": lambda: good[:-1],
        "flipped": lambda: good[:-1] + bytes([good[-1] ^ 1]),
        "future": lambda: vendor.said(inquiry, this_update=AT + HOUR),
        "another's": lambda: vendor.said(other),
        "unappointed": lambda: answer(
            vendor.certificate(inquiry), inquiry.issuer, Party.made("Anybody", purposes=OCSP_SIGNING), this_update=AT
        ),
        "two names": lambda: good + good,
    }[how]()

    result = vendor.judge(vendor.answers() | {inquiry.need: Document.of(data)}, policy="lab")

    assert (result.tier, codes(result)) == (Tier.NONE, {"ocsp-malformed"})


def test_a_good_answer_about_a_sibling_does_not_serve(vendor, world):
    """Every rule but one held: the same responder, the same authority, another device's serial number."""
    sibling = Vendor(world, world.evidence("gpu-1"))
    answers = vendor.answers()
    (mine,) = (each for each in vendor.inquiries() if DEVICE in each.subject)
    (its,) = (each for each in sibling.inquiries() if DEVICE in each.subject)
    assert mine.need != its.need

    result = vendor.judge(answers | {mine.need: Document.of(sibling.said(its))})

    assert codes(result) == {"ocsp-malformed"}


# --- time -------------------------------------------------------------------------------------------------------------
END = AT - HOUR + DAY


@pytest.mark.parametrize(
    ("now", "hours"),
    [
        (END - SECOND, 0),
        (END, 1),  # the instant itself is too late
        (END + HOUR - SECOND, 1),
        (END + HOUR, 2),
        (END + DAY - SECOND, 24),
        (END + DAY, 25),
    ],
)
def test_answers_run_out_and_policies_may_be_patient(vendor, now, hours):
    answers = vendor.answers()
    result = vendor.judge(answers, policy=STRICT, now=now)
    claimed = result.claims[0].values["revocation_stale_hours"]

    assert claimed == hours
    assert codes(result) == ({"revocation-stale"} if hours else set())
    assert result.tier is (Tier.NONE if hours else Tier.AFFIRMING)
    if hours:
        assert vendor.judge(answers, policy=patient(hours), now=now).tier is Tier.AFFIRMING
        assert codes(vendor.judge(answers, policy=patient(hours - 1), now=now)) == {"revocation-stale"}


@pytest.mark.parametrize("spoiled", ALL)
def test_one_answer_that_has_run_out_counts_for_all(vendor, spoiled):
    answers = vendor.answers(spoiled, this_update=AT - 3 * DAY)

    result = vendor.judge(answers, policy=STRICT)

    assert codes(result) == {"revocation-stale"}
    assert result.claims[0].values["revocation_until"] == int((AT - 2 * DAY).timestamp())


def test_a_verdict_ends_with_its_answers_and_the_operators_patience(vendor):
    answers = vendor.answers(DEVICE, this_update=AT - DAY + 60 * SECOND)

    assert vendor.judge(answers, policy=STRICT).expires_at == AT + 60 * SECOND
    assert vendor.judge(answers, policy=patient(0, lifetime_seconds=30)).expires_at == AT + 30 * SECOND
    assert vendor.judge(answers, policy=patient(1, lifetime_seconds=7200)).expires_at == AT + HOUR + 60 * SECOND


def test_times_of_answers_are_compared_anew_with_every_use(vendor, world):
    verifier, answers = world.verifier(), vendor.answers()

    for _ in range(2):
        assert vendor.judge(answers, policy=STRICT, verifier=verifier).tier is Tier.AFFIRMING
        assert codes(vendor.judge(answers, policy=STRICT, verifier=verifier, now=END)) == {"revocation-stale"}
        early = AT - HOUR - timedelta(minutes=6)
        assert codes(vendor.judge(answers, policy=STRICT, verifier=verifier, now=early)) == {"ocsp-malformed"}


def test_a_remembered_answer_serves_its_question_only(vendor, world):
    verifier, answers = world.verifier(), vendor.answers()
    first, second, *_ = vendor.inquiries()
    assert vendor.judge(answers, policy=STRICT, verifier=verifier).tier is Tier.AFFIRMING

    swapped = answers | {first.need: answers[second.need], second.need: answers[first.need]}

    assert codes(vendor.judge(swapped, policy=STRICT, verifier=verifier)) == {"ocsp-malformed"}


def test_a_revocation_that_comes_later_is_seen(vendor, world):
    verifier, answers = world.verifier(), vendor.answers()
    assert vendor.judge(answers, policy=STRICT, verifier=verifier).tier is Tier.AFFIRMING

    later = vendor.answers(DEVICE, status=REVOKED)

    assert codes(vendor.judge(later, policy=STRICT, verifier=verifier)) == {"chain-revoked"}
    assert vendor.judge(answers, policy=STRICT, verifier=verifier).tier is Tier.AFFIRMING


# --- judging ----------------------------------------------------------------------------------------------------------
def test_nothing_asked_is_not_good():
    assert judge((), {}, now=AT, known=Memo(1)) == {"revocation": "not checked", "revocation_asked": 0}


def test_hold_is_the_weaker_word(vendor):
    answers = vendor.answers(L3, status=REVOKED, reason=HOLD)

    said = judge(vendor.inquiries(), answers, now=AT, known=Memo(9))

    assert (said["revocation"], said["revocation_asked"]) == ("hold", 6)


def test_reasons_say_whose_fault_it_is():
    assert {each.fault for each in (reasons.CHAIN_REVOKED, reasons.CHAIN_STATUS_UNKNOWN, reasons.REVOCATION_HOLD)} == {
        Fault.NODE
    }
    assert {each.fault for each in (reasons.RIM_REVOKED, reasons.OCSP_MALFORMED, reasons.REVOCATION_STALE)} == {
        Fault.COLLATERAL
    }


# --- real answers -----------------------------------------------------------------------------------------------------
DEVICE_ANSWERED = datetime(2025, 8, 21, 6, 47, 8, tzinfo=UTC)
MANIFESTS_ANSWERED = datetime(2025, 10, 24, 11, 32, 22, tzinfo=UTC)
HOURS = 1517  # between the end of the former and the latter, begun ones too


def real(policy, now, *, answers=None):
    world, known = hopper_550(), real_answers() if answers is None else answers

    def fetch(need):
        return known.get(need.name) or world.fetch(need)

    verification = verify(world.bundle, installed(VENDORS), fetch, nonce=world.nonce, now=now)
    return appraise(verification, policy, bundle=world.bundle, nonce=world.nonce, now=now)


@needs_vectors
def test_seven_real_answers_are_about_seven_real_certificates():
    assert len(real_answers()) == 7
    assert not any("@" in name for name in real_answers())


@needs_vectors
def test_real_answers_are_good_where_a_policy_is_patient_enough():
    """Those about the device had run out for two months when those about the manifests were given."""
    policy = shipped("production").model_dump() | {"binding_min": "none"}
    impatient = Policy.model_validate(policy)
    result = real(impatient, MANIFESTS_ANSWERED)
    (claims,) = result.claims

    assert (result.revocation, codes(result), result.tier) == ("good", {"revocation-stale"}, Tier.NONE)
    assert claims.values["revocation_asked"] == 7
    assert claims.values["revocation_stale_hours"] == HOURS
    assert claims.values["revocation_until"] == int((DEVICE_ANSWERED - SECOND + DAY).timestamp())
    assert HOURS > 30 * 24  # more than any policy may allow


@needs_vectors
@pytest.mark.parametrize("now", [DEVICE_ANSWERED, DEVICE_ANSWERED + DAY - 2 * SECOND])
def test_real_answers_about_a_device_hold_in_their_day(now):
    """Without those about its manifests, which came later: so they are no answers yet."""
    asked = {inquiry.need.name for inquiry in real_inquiries() if inquiry.of_device}
    device = {name: each for name, each in real_answers().items() if name in asked}
    result = real(shipped("lab"), now, answers=device)

    assert result.tier is Tier.AFFIRMING
    assert (result.revocation, result.claims[0].values["revocation_asked"]) == ("not checked", 3)
    assert codes(real(shipped("lab"), now)) == {"ocsp-malformed"}  # of the future


@needs_vectors
def test_a_device_on_hold_falls_by_its_answer_alone():
    """
    The recorded device is genuine, and NVIDIA's responder says that it is on hold. That answer was not recorded, and
    nobody but NVIDIA can give it: so the verifier is asked what it makes of one that an own authority gave.
    """
    folder = VECTORS / "nvidia" / "refuse-ocsp-cert-hold"
    (evidence,) = read([(folder / "report.bin").read_bytes(), (folder / "chain.pem").read_bytes()])
    verifier = installed(VENDORS)["nvidia"]
    reading = verifier._reading(evidence)
    forged = []
    for inquiry in reading.chain.inquiries:
        authority = Party.made("NVIDIA")
        asked = replace(
            inquiry,
            question=type(inquiry.question).about(authority.certificate, authority.certificate),
            issuer=authority.certificate,
        )
        held = "BROM" in inquiry.subject
        data = answer(
            authority.certificate,
            authority.certificate,
            authority,
            status=REVOKED if held else GOOD,
            reason=HOLD if held else None,
        )
        forged.append((asked, Document.of(data)))
    collateral = {asked.need: document for asked, document in forged}

    said = judge([asked for asked, _ in forged], collateral, now=AT, known=Memo(9))

    assert (said["revocation"], said["revocation_asked"]) == ("hold", 3)
    verification = verify(
        (evidence,), {"nvidia": verifier}, collateral.get, nonce=Nonce(evidence.payload[4:36]), now=AT
    )
    assert codes(verification) == {"ocsp-malformed"}  # as an answer about the real device it is none


@needs_vectors
def test_the_real_questions_are_asked_of_the_real_vendor():
    names = {need.name for need in gather_needs()}

    assert {DRIVER_550, VBIOS_550} < names
    assert not any("@" in name for name in names)


def gather_needs():
    world, asked = hopper_550(), set()

    def fetch(need):
        asked.add(need)
        return world.fetch(need)

    gather(installed(VENDORS)["nvidia"], world.bundle[0], fetch)
    return asked
