"""
The verifier, asked about emulated SEV-SNP guests: the good are believed, each defect is refused for its own reason.

Emulator and verifier were written apart, from the same specification, and share no encoding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from attest.collateral import Document, Need
from attest.errors import UntrustedCollateral, UntrustedEvidence
from attest.evidence import Evidence
from attest.memo import Memo
from attest.reasons import CATALOGUE, CHAIN_PROFILE, CHAIN_ROOT, CHAIN_TIME, REVOCATION_NOT_CHECKED, Fault, Reason
from attest.reasons.snp import SNP_CRL_MALFORMED, SNP_CRL_TIME
from attest.snp import certificates, crl
from attest.snp.anchors import AMD, ROOTS_BYTES_MAX, Arks, _pinned, load_emulated
from attest.snp.appraise import appraise_snp
from attest.snp.chain import verify_authority
from attest.snp.crl import ENTRIES_MAX
from attest.snp.product import Product
from attest.snp.rules import SnpRules
from attest.snp.verifier import SnpVerifier
from attest.verify import Verification, verify
from nodeprobe.emulator.pki import EmulatorError
from nodeprobe.emulator.snp import HOST_DATA, MEASUREMENT, EmulatedSnp
from nodeprobe.emulator.snp_defects import SNP_DEFECTS
from nodeprobe.emulator.snp_pki import PRODUCTS, SnpPki, pss, revocation_list
from tests.attest.responders import content, element, elements

MADE = datetime(2030, 1, 1, 12, tzinfo=UTC)
AT = datetime(2030, 1, 2, tzinfo=UTC)
REPORT_DATA = bytes(range(64))
RULES = SnpRules.model_validate(
    {
        "tcb_min": {"milan": {"bootloader": 4, "snp": 24, "microcode": 219}},
        "firmware_min": "1.55",
        "abi_min": "0.31",
        "guest_svn_min": 2,
        "measurements": [MEASUREMENT.hex()],
        "host_data": [HOST_DATA.hex()],
    }
)
PROVIDER = RULES.model_copy(update={"signing_keys": frozenset({"vlek"}), "masked_chip_id": True})


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> SnpPki:
    return SnpPki.create(tmp_path_factory.mktemp("snp") / "Milan", now=MADE)


@pytest.fixture(scope="module")
def guest(pki: SnpPki) -> EmulatedSnp:
    return EmulatedSnp.create(pki, "guest-0", now=MADE)


@pytest.fixture(scope="module")
def verifier(pki: SnpPki) -> SnpVerifier:
    return SnpVerifier(Arks(load_emulated(pki.anchors.read_bytes())))


def concluded(
    guest: EmulatedSnp,
    verifier: SnpVerifier,
    *,
    now: datetime = AT,
    evidence: Evidence | None = None,
    documents: Mapping[str, bytes] | None = None,
) -> Verification:
    served = guest.documents() if documents is None else documents

    def fetch(need: Need) -> Document | None:
        return Document.of(served[need.name]) if need.name in served else None

    bundle = (evidence or guest.evidence(REPORT_DATA),)
    return verify(bundle, {verifier.kind: verifier}, fetch, nonce=None, now=now)


def failing(verification: Verification, rules: SnpRules = RULES) -> set[Reason]:
    """Every reason against this guest, by the rules that ask for no less than the good one has."""
    against = {refusal.reason for refusal in verification.refusals}
    for claims in verification.claims:
        against |= {f.reason for f in appraise_snp(claims, SimpleNamespace(snp=rules), AT) if not f.holds}
        if claims.values["revocation"] != "good":
            against.add(REVOCATION_NOT_CHECKED)
    return against


# --- the good world ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("version", [2, 3, 4, 5])
def test_every_version_is_believed_and_marked_as_emulated(guest: EmulatedSnp, verifier: SnpVerifier, version: int):
    verification = concluded(replace(guest, version=version), verifier)

    assert failing(verification) == set()
    (claims,) = verification.claims
    assert claims.emulated
    assert claims.device == f"amd-snp-{guest.chip.hex()}"
    assert claims.values["report_data"] == REPORT_DATA.hex()
    assert claims.values["revocation"] == "good"


@pytest.mark.parametrize("product", PRODUCTS[1:])
def test_every_product_is_believed(tmp_path, product: str):
    pki = SnpPki.create(tmp_path / product, product, now=MADE)
    guest = EmulatedSnp.create(pki, "guest-0", now=MADE)
    verifier = SnpVerifier(Arks(load_emulated(pki.anchors.read_bytes())))

    for carries in (0, 3):
        verification = concluded(replace(guest, carries=carries), verifier)
        assert failing(verification) == set()
        assert verification.claims[0].values["product"] == product


@pytest.mark.parametrize("carries", [0, 1, 2, 3])
def test_certificates_may_be_carried_or_fetched(guest: EmulatedSnp, verifier: SnpVerifier, carries: int):
    (claims,) = concluded(replace(guest, carries=carries), verifier).claims

    assert len(claims.collateral) == {0: 3, 1: 2, 2: 1, 3: 1}[carries]


def test_a_providers_key_is_believed_where_the_policy_accepts_it(guest: EmulatedSnp, verifier: SnpVerifier):
    verification = concluded(replace(guest, signing_key="vlek"), verifier)

    assert failing(verification, PROVIDER) == set()
    assert {reason.code for reason in failing(verification)} == {"snp-signing-key-not-accepted", "snp-chip-masked"}
    assert verification.claims[0].values["chip_id"] == "masked"


def test_a_provider_may_name_the_chip(guest: EmulatedSnp, verifier: SnpVerifier):
    """Then it is the report's word, and the device is that chip."""
    provider = replace(guest, signing_key="vlek")

    def named(draft):
        draft.report.chip_id = guest.chip

    defect = replace(SNP_DEFECTS["chip-masked"], spoil=named)
    (claims,) = concluded(replace(provider, defects=(defect,)), verifier).claims

    assert claims.values["chip_id"] == "stated"
    assert claims.device == f"amd-snp-{guest.chip.hex()}"


def test_two_launches_behind_a_masked_chip_are_two_devices(pki: SnpPki, guest: EmulatedSnp, verifier: SnpVerifier):
    other = EmulatedSnp.create(pki, "guest-1", now=MADE)
    devices = {concluded(replace(each, signing_key="vlek"), verifier).claims[0].device for each in (guest, other)}

    assert len(devices) == 2


def test_a_masked_chip_with_its_own_key_is_still_that_chip(guest: EmulatedSnp, verifier: SnpVerifier):
    verification = concluded(guest.spoiled("chip-masked"), verifier)

    assert verification.claims[0].device == f"amd-snp-{guest.chip.hex()}"
    assert failing(verification, RULES.model_copy(update={"masked_chip_id": True})) == set()


def test_a_chip_keeps_its_identity_over_restarts(pki: SnpPki, guest: EmulatedSnp):
    assert EmulatedSnp.create(pki, guest.name, now=MADE).chip == guest.chip
    assert SnpPki.open(pki.path).ark.certificate == pki.ark.certificate


def test_a_vendor_root_does_not_vouch_for_an_emulated_guest(guest: EmulatedSnp):
    assert failing(concluded(guest, SnpVerifier(AMD))) == {CHAIN_ROOT}


# --- one thing spoiled ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", sorted(SNP_DEFECTS))
def test_a_defect_is_refused_for_its_reason(guest: EmulatedSnp, verifier: SnpVerifier, name: str):
    against = failing(concluded(guest.spoiled(name), verifier))

    assert against == {SNP_DEFECTS[name].reason}


@pytest.mark.parametrize("name", sorted(name for name, each in SNP_DEFECTS.items() if each.carries == 3))
def test_what_was_remembered_of_the_good_does_not_help_the_bad(guest: EmulatedSnp, pki: SnpPki, name: str):
    fresh = SnpVerifier(Arks(load_emulated(pki.anchors.read_bytes())))
    first = failing(concluded(guest.spoiled(name), fresh))

    concluded(guest, fresh)

    assert failing(concluded(guest.spoiled(name), fresh)) == first


@pytest.mark.parametrize("carries", [1, 2, 3])
def test_a_version_2_report_is_of_no_line_that_its_certificate_does_not_name(
    guest: EmulatedSnp, verifier: SnpVerifier, carries: int
):
    old = replace(guest.spoiled("vek-product-unknown"), version=2, carries=carries)

    assert {reason.code for reason in failing(concluded(old, verifier))} == {"snp-product-unsupported"}


def test_every_reason_has_a_defect_that_gives_it():
    without = {
        "snp-smt",  # the good guest allows it, as nearly all do: a rule refuses it, below
        "snp-product-not-accepted",
        "snp-signing-key-not-accepted",
    }

    ours = {code for code in CATALOGUE if code.startswith("snp-")}

    assert ours - {each.reason.code for each in SNP_DEFECTS.values()} == without


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"smt": False}, "snp-smt"),
        ({"products": frozenset({"Turin"})}, "snp-product-not-accepted"),
        ({"signing_keys": frozenset({"vlek"})}, "snp-signing-key-not-accepted"),
    ],
)
def test_a_stricter_policy_refuses_the_good_guest(guest: EmulatedSnp, verifier: SnpVerifier, changed, code: str):
    against = failing(concluded(guest, verifier), RULES.model_copy(update=changed))

    assert {reason.code for reason in against} == {code}


@pytest.mark.parametrize("part", ["fmc", "bootloader", "tee", "snp", "microcode"])
@pytest.mark.parametrize("which", ["reported", "committed", "launch"])
def test_each_part_of_each_tcb_counts_by_itself(guest: EmulatedSnp, verifier: SnpVerifier, which: str, part: str):
    (claims,) = concluded(guest, verifier).claims
    minimum = SnpRules.model_validate({"tcb_min": {"milan": {part: 255}}})

    found = [f for f in appraise_snp(claims, SimpleNamespace(snp=minimum), AT) if which in f.rule]

    assert [(f.holds, f.reason.code) for f in found] == [(False, "snp-tcb-too-old")]


@pytest.mark.parametrize("loose", ["debug", "migrate_ma", "cxl", "masked_chip_id"])
def test_a_policy_may_accept_what_strictness_refuses(guest: EmulatedSnp, verifier: SnpVerifier, loose: str):
    names = {
        "debug": "debug-allowed",
        "migrate_ma": "migration-agent-allowed",
        "cxl": "cxl-allowed",
        "masked_chip_id": "chip-masked",
    }

    assert failing(concluded(guest.spoiled(names[loose]), verifier), RULES.model_copy(update={loose: True})) == set()


def test_claims_that_say_nothing_meet_no_rule(guest: EmulatedSnp, verifier: SnpVerifier):
    (claims,) = concluded(guest, verifier).claims
    empty = replace(claims, values={})

    assert not [f.rule for f in appraise_snp(empty, SimpleNamespace(snp=SnpRules()), AT) if f.holds]


def test_an_authority_may_not_stand_in_for_a_signing_key(guest: EmulatedSnp, verifier: SnpVerifier):
    """Two certificates, each below the one after, up to the root: but the second is no authority for keys."""
    good = guest.evidence(REPORT_DATA)
    chain = guest.documents()["vcek/v1/Milan/cert_chain"]

    assert failing(concluded(guest, verifier, evidence=replace(good, certificates=chain))) == {CHAIN_PROFILE}


def resigned(pki: SnpPki, edit: Callable[[bytes], bytes]) -> bytes:
    """The certificate of the authority of chip keys, DER, with what is signed changed and signed anew by the root."""
    certificate = pki.ask.certificate
    der, tbs = certificate.public_bytes(Encoding.DER), certificate.tbs_certificate_bytes
    between = der[4 + len(tbs) : -len(certificate.signature)]
    changed = edit(tbs)
    assert len(changed) == len(tbs)
    return der[:4] + changed + between + pss(pki.ark.key, changed)


def authority_refused(pki: SnpPki, der: bytes) -> UntrustedEvidence:
    with pytest.raises(UntrustedEvidence) as refused:
        verify_authority(certificates.load(der), load_emulated(pki.anchors.read_bytes()), Memo(1))
    return refused.value


def test_an_authority_that_is_signed_anew_is_still_one(pki: SnpPki):
    der = resigned(pki, lambda tbs: tbs)

    authority = verify_authority(certificates.load(der), load_emulated(pki.anchors.read_bytes()), Memo(1))

    assert (str(authority.ark.product), str(authority.signing_key)) == ("Milan", "vcek")


def test_a_critical_extension_of_an_authority_that_nobody_understands_is_refused(pki: SnpPki):
    """Its key identifier, turned into an extension of another name that must be understood."""
    known, other = bytes.fromhex("0603551d0e0416"), bytes.fromhex("0603551d7e0101ff0413")

    def critical(tbs: bytes) -> bytes:
        at = tbs.index(known)
        return tbs[:at] + other + tbs[at + len(other) :]

    refused = authority_refused(pki, resigned(pki, critical))

    assert (refused.reason, refused.found) == (CHAIN_PROFILE, "critical extension 2.5.29.126")


def test_an_authority_whose_name_cannot_be_read_has_none(pki: SnpPki):
    refused = authority_refused(pki, resigned(pki, lambda tbs: tbs.replace(b"SEV-Milan", b"SEV-\xff\xfe\xff\xfe\xff")))

    assert (refused.reason, refused.found) == (CHAIN_PROFILE, "an authority named ")


@pytest.mark.parametrize(("ends", "holds"), [(True, True), (False, False)])
def test_a_list_without_an_end_is_none(pki: SnpPki, ends: bool, holds: bool):
    window = (MADE, MADE + timedelta(days=30))
    parsed = x509.load_der_x509_crl(revocation_list(pki.ark, pki.ark.certificate.subject, window))
    version, algorithm, issuer, begins, *rest = elements(content(parsed.tbs_certlist_bytes))
    signed = element(0x30, version, algorithm, issuer, begins, *(rest if ends else rest[1:]))
    document = Document.of(element(0x30, signed, algorithm, element(0x03, b"\0" + pss(pki.ark.key, signed))))
    chain = certificates.load(resigned(pki, lambda tbs: tbs))
    authority = verify_authority(chain, load_emulated(pki.anchors.read_bytes()), Memo(1))

    if holds:
        assert crl.check(document, authority, now=AT, known=Memo(1)).not_after == window[1]
        return
    with pytest.raises(UntrustedCollateral, match="a list without next update") as refused:
        crl.check(document, authority, now=AT, known=Memo(1))
    assert refused.value.reason is SNP_CRL_MALFORMED


def test_a_pinned_key_that_does_not_fit_its_fingerprint_stops_the_program():
    with pytest.raises(ValueError, match="fingerprint"):
        _pinned(Product.MILAN, f"{AMD.amd_ark[1].key.public_numbers().n:x}", AMD.amd_ark[0].spki_sha256)


def test_a_file_of_roots_has_a_size(pki: SnpPki):
    pem = pki.anchors.read_bytes()

    assert len(load_emulated(pem.ljust(ROOTS_BYTES_MAX, b"\n"))) == 1
    with pytest.raises(ValueError, match=f"at most {ROOTS_BYTES_MAX} bytes"):
        load_emulated(pem.ljust(ROOTS_BYTES_MAX + 1, b"\n"))


def test_reserved_security_versions_may_be_absent_from_a_certificate(guest: EmulatedSnp, verifier: SnpVerifier):
    """Turin's certificates lack one of them; they are zero then, as in the report."""
    lean = replace(
        SNP_DEFECTS["vek-without-microcode"],
        spoil=lambda draft: draft.vek.replaced.update({"3.4": None, "3.5": None, "3.6": None, "3.7": None}),
    )

    assert failing(concluded(replace(guest, defects=(lean,)), verifier)) == set()


def test_a_fetched_chain_with_too_many_certificates_is_not_believed(guest: EmulatedSnp, verifier: SnpVerifier):
    served = guest.documents()
    path = next(path for path in served if path.endswith("cert_chain"))
    served[path] += guest.pki.ark.certificate.public_bytes(Encoding.DER)

    verification = concluded(replace(guest, carries=1), verifier, documents=served)

    assert {refusal.reason.code for refusal in verification.refusals} == {"snp-document-untrusted"}


def test_a_list_with_too_many_entries_is_not_read(guest: EmulatedSnp, verifier: SnpVerifier, pki: SnpPki):
    window, issuer = (MADE - timedelta(days=1), MADE + timedelta(days=1)), pki.ark.certificate.subject
    crl = revocation_list(pki.ark, issuer, window, range(1, ENTRIES_MAX + 2))

    verification = concluded(guest, verifier, documents={"vcek/v1/Milan/crl": crl})

    assert {refusal.reason.code for refusal in verification.refusals} == {"snp-crl-malformed"}


def test_a_list_may_come_as_pem(guest: EmulatedSnp, verifier: SnpVerifier):
    pem = x509.load_der_x509_crl(guest.documents()["vcek/v1/Milan/crl"]).public_bytes(Encoding.PEM)

    assert failing(concluded(guest, verifier, documents={"vcek/v1/Milan/crl": pem})) == set()


def test_a_version_that_is_no_number_is_not_new_enough(guest: EmulatedSnp, verifier: SnpVerifier):
    (claims,) = concluded(guest, verifier).claims
    strange = replace(claims, values={**claims.values, "firmware": "newest"})

    found = [f.reason.code for f in appraise_snp(strange, SimpleNamespace(snp=RULES), AT) if not f.holds]

    assert found == ["snp-firmware-too-old"]


def test_faults_say_whether_to_blame_the_node():
    collateral = {
        code for code, reason in CATALOGUE.items() if code.startswith("snp-") and reason.fault is Fault.COLLATERAL
    }

    assert collateral == {
        "snp-vek-unavailable",
        "snp-issuers-unavailable",
        "snp-document-untrusted",
        "snp-crl-malformed",
        "snp-crl-signature",
        "snp-crl-time",
    }


# --- time -------------------------------------------------------------------------------------------------------------
def test_claims_end_with_the_first_document_that_they_rest_on(guest: EmulatedSnp, verifier: SnpVerifier):
    (listed,) = concluded(guest, verifier).claims
    (unlisted,) = concluded(guest, verifier, documents={}).claims

    assert listed.not_after == datetime(2030, 12, 31, tzinfo=UTC)  # next update of the list
    assert unlisted.not_after == datetime(2036, 12, 29, tzinfo=UTC)  # of the certificate
    assert (listed.values["revocation"], unlisted.values["revocation"]) == ("good", "not checked")


def test_the_list_counts_from_its_first_to_its_last_instant(guest: EmulatedSnp, verifier: SnpVerifier):
    tick, start, end = timedelta(microseconds=1), datetime(2029, 12, 31, tzinfo=UTC), datetime(2030, 12, 31, tzinfo=UTC)

    assert failing(concluded(guest, verifier, now=start)) == set()
    assert failing(concluded(guest, verifier, now=end)) == set()
    assert failing(concluded(guest, verifier, now=end + tick)) == {SNP_CRL_TIME}


def test_the_certificate_counts_to_its_last_instant(guest: EmulatedSnp, verifier: SnpVerifier):
    tick, end = timedelta(microseconds=1), datetime(2036, 12, 29, tzinfo=UTC)

    assert failing(concluded(guest, verifier, now=end, documents={})) == {REVOCATION_NOT_CHECKED}
    assert failing(concluded(guest, verifier, now=end + tick, documents={})) == {CHAIN_TIME}


# --- the emulator itself ----------------------------------------------------------------------------------------------
def test_mistakes_of_the_user_are_said(tmp_path, pki: SnpPki, guest: EmulatedSnp):
    for mistake in (
        lambda: guest.spoiled("no-such-defect"),
        lambda: EmulatedSnp.create(pki, "../elsewhere", now=MADE),
        lambda: SnpPki.create(tmp_path / "pki", "Rome", now=MADE),
        lambda: SnpPki.create(pki.path, "Turin", now=MADE),
        lambda: SnpPki.open(tmp_path),
    ):
        with pytest.raises(EmulatorError):
            mistake()
    with pytest.raises(ValueError, match="64"):
        guest.evidence(bytes(32))


def test_private_keys_are_readable_by_their_owner_only(pki: SnpPki, guest: EmulatedSnp):
    keys = list(pki.path.rglob("*.key"))

    assert len(keys) >= 4
    assert {path.stat().st_mode & 0o777 for path in keys} == {0o600}


def test_several_roots_of_one_product_are_refused(pki: SnpPki):
    pem = pki.anchors.read_bytes()

    for data in (pem + pem, b"", pki.path.joinpath("authorities", "ask.pem").read_bytes()):
        with pytest.raises(ValueError, match=r"."):
            load_emulated(data)
