"""The TDX verifier, asked about recordings of real machines and about emulated ones, good and bad."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from attest.claims import Claims
from attest.collateral import CollateralKind, Document, Need
from attest.containers import read
from attest.errors import AttestError, MalformedEvidence, UntrustedCollateral, UntrustedEvidence
from attest.evidence import INTEL_TDX, Evidence, Nonce
from attest.reasons import CATALOGUE, Fault
from attest.reasons import tdx as reasons
from attest.tdx import quote as quotes
from attest.tdx import qvl
from attest.tdx.roots import INTEL, IntelRoots, Root, load_emulated
from attest.tdx.rules import TdxRules
from attest.tdx.verifier import TdxVerifier
from nodeprobe.emulator.pki import EmulatorError, new_key
from nodeprobe.emulator.tdx import EmulatedTd, IntelPki
from nodeprobe.emulator.tdx_collateral import CollateralDraft
from nodeprobe.emulator.tdx_defects import TDX_DEFECTS
from nodeprobe.emulator.tdx_pki import TCB_SIGNING, issue
from nodeprobe.emulator.tdx_quote import TD_1_0, TD_1_5, TD_1_5_EX
from tests.evidence import needs_vectors
from tests.tdx_world import (
    FOLDER,
    NONCE,
    NOW,
    REPORT_DATA,
    UP_TO_DATE,
    Emulated,
    appraised,
    recorded,
    recorded_collateral,
)

SECOND = timedelta(seconds=1)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Emulated:
    pki = IntelPki.create(tmp_path_factory.mktemp("tdx") / "pki")
    return Emulated(pki, EmulatedTd.create(pki, "machine-0", now=NOW))


def refused(check: Callable[[], object]) -> AttestError:
    with pytest.raises(AttestError) as caught:
        check()
    return caught.value


def judge(verifier: TdxVerifier, evidence: Evidence, documents: Mapping[Need, Document]) -> Claims:
    return verifier.verify(evidence, documents, nonce=None, now=NOW)


# --- recordings -------------------------------------------------------------------------------------------------------
@needs_vectors
@pytest.mark.parametrize("name", sorted(UP_TO_DATE))
def test_recordings_are_up_to_date_at_their_time(name: str) -> None:
    verifier, evidence = TdxVerifier(IntelRoots()), recorded(name)
    documents = recorded_collateral(name)

    assert verifier.needs(evidence, {}) == documents.keys()
    assert verifier.needs(evidence, documents) == frozenset()
    claims = verifier.verify(evidence, documents, nonce=None, now=UP_TO_DATE[name])

    assert (claims.emulated, claims.values["tcb_status"], claims.values["advisories"]) == (False, "UpToDate", "")
    assert claims.values["revocation"] == "good"
    assert appraised(claims) == set()
    assert len(claims.collateral) == 4


@needs_vectors
def test_the_recorded_debug_domain_is_refused_without_asking_intel() -> None:
    error = refused(lambda: TdxVerifier(IntelRoots()).needs(recorded("debug-td"), {}))

    assert (type(error), error.reason) == (UntrustedEvidence, reasons.TDX_DEBUG)


@needs_vectors
def test_a_secret_ai_workers_quote_commits_to_the_nonce_of_its_gpu() -> None:
    folder = FOLDER / "secretvm-tdx-and-h100"
    (gpu,) = read([(folder / "gpu_attest.json").read_bytes()])
    nonce = Nonce(gpu.payload[4:36])
    documents, now = recorded_collateral(folder.name), UP_TO_DATE[folder.name]

    claims = TdxVerifier(IntelRoots()).verify(recorded(folder.name), documents, nonce=nonce, now=now)

    assert bytes.fromhex(str(claims.values["report_data"]))[32:] == nonce
    assert claims.values["nonce"] == "match"
    assert appraised(claims) == set()


@needs_vectors
def test_collateral_serves_another_machine_of_the_family() -> None:
    """Trap: a bundle holds the PCK chain of the machine that it was fetched for."""
    documents = recorded_collateral("up-to-date-v5-td15ex")
    name = "secretvm-tdx-and-h100"

    claims = TdxVerifier(IntelRoots()).verify(recorded(name), documents, nonce=None, now=UP_TO_DATE[name])

    assert claims.values["tcb_status"] == "UpToDate"


@needs_vectors
def test_an_older_machine_goes_out_of_date_with_newer_collateral() -> None:
    """The same quote, judged by TCB info of evaluation 17 and 20."""
    documents = recorded_collateral("secretvm-tdx-and-h100")
    now = UP_TO_DATE["secretvm-tdx-and-h100"]

    claims = TdxVerifier(IntelRoots()).verify(recorded("up-to-date-v4"), documents, nonce=None, now=now)

    assert (claims.values["tcb_status"], claims.values["tcb_evaluation"]) == ("OutOfDate", 20)
    assert "INTEL-SA-01312" in str(claims.values["advisories"]).split(",")
    assert appraised(claims) == {"tdx-tcb-status", "tdx-advisory"}


@needs_vectors
def test_the_library_and_the_parser_read_all_fields_alike() -> None:
    import dcap_qvl

    theirs = dcap_qvl.parse_quote(recorded("up-to-date-v5-td15ex").payload).report
    ours = quotes.parse(recorded("up-to-date-v5-td15ex").payload).td

    pairs = {
        "tee_tcb_svn": "tee_tcb_svn", "mr_seam": "mrseam", "mr_signer_seam": "mrsignerseam",
        "seam_attributes": "seamattributes", "td_attributes": "td_attributes", "xfam": "xfam", "mr_td": "mrtd",
        "mr_config_id": "mrconfigid", "mr_owner": "mrowner", "mr_owner_config": "mrownerconfig", "rt_mr0": "rtmr0",
        "rt_mr1": "rtmr1", "rt_mr2": "rtmr2", "rt_mr3": "rtmr3", "report_data": "report_data",
        "tee_tcb_svn2": "tee_tcb_svn2", "mr_service_td": "mrservicetd", "td_id": "td_id", "dev_info": "dev_info",
        "init_service_td_hash": "initial_service_td_hash", "init_cpu_svn": "initial_cpu_svn",
        "init_tee_fmspc": "initial_fmspc", "cur_service_td_hash": "current_service_td_hash",
        "cur_service_td_attributes": "current_service_td_attributes",
    }  # fmt: skip
    assert {name: getattr(theirs, name) for name in pairs} == {name: getattr(ours, own) for name, own in pairs.items()}


@needs_vectors
def test_the_pinned_root_is_the_recorded_one() -> None:
    chain = quotes.parse(recorded("up-to-date-v4").payload).chain
    pem = chain[chain.rindex(b"-----BEGIN") :]

    assert not INTEL.emulated
    with pytest.raises(ValueError, match="built in"):
        load_emulated(pem)


# --- the good emulated world ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("ca", ["platform", "processor"])
@pytest.mark.parametrize(("body_type", "body"), [(TD_1_0, "td-1.0"), (TD_1_5, "td-1.5"), (TD_1_5_EX, "td-1.5ex")])
def test_emulated_machines_are_believed_and_marked(world: Emulated, ca: str, body_type: int, body: str) -> None:
    td = EmulatedTd.create(world.pki, f"good-{ca}-{body_type}", now=NOW, ca=ca, body_type=body_type)

    claims = world.claims(td)

    assert claims.emulated
    assert (claims.values["body"], claims.values["ca"], claims.values["nonce"]) == (body, ca, "match")
    assert claims.device == f"intel-tdx-{td.ppid.hex()}"
    # A machine with a certificate of the processor CA does not say what a platform has.
    assert claims.values["smt_enabled"] == ("yes" if ca == "platform" else "unstated")
    assert appraised(claims) == set()


def test_a_machine_keeps_its_identity(world: Emulated) -> None:
    again = EmulatedTd.create(IntelPki.open(world.pki.path), "machine-0", now=NOW + timedelta(days=9))

    assert world.claims(again).device == world.claims().device


def test_an_emulated_quote_is_nothing_under_intels_root(world: Emulated) -> None:
    error = refused(lambda: TdxVerifier(IntelRoots()).needs(world.td.evidence(REPORT_DATA), {}))

    assert (type(error), error.reason) == (UntrustedEvidence, reasons.TDX_ROOT)


def test_without_roots_nothing_is_believed(world: Emulated) -> None:
    error = refused(lambda: TdxVerifier(IntelRoots(())).needs(world.td.evidence(REPORT_DATA), {}))

    assert error.reason is reasons.TDX_ROOT


def test_names_of_emulated_collateral_are_never_intels(world: Emulated) -> None:
    from attest.tdx.needs import source

    needs = world.verifier.needs(world.td.evidence(REPORT_DATA), {})

    assert all("@" in need.name and source(need) is None for need in needs)


# --- defects ----------------------------------------------------------------------------------------------------------
def outcome(world: Emulated, td: EmulatedTd) -> set[str]:
    """Codes of a refusal, or of the rules that fail."""
    try:
        return appraised(world.claims(td))
    except AttestError as e:
        return {e.reason.code}


@pytest.mark.parametrize("name", sorted(TDX_DEFECTS))
def test_each_defect_is_refused_for_its_own_reason(world: Emulated, name: str) -> None:
    codes = outcome(world, world.td.spoiled(name))

    assert TDX_DEFECTS[name].code in codes
    # An advisory goes with a status that is not UpToDate; nothing else comes in company.
    assert codes - {TDX_DEFECTS[name].code} <= {"tdx-advisory"}


@pytest.mark.parametrize("name", sorted(TDX_DEFECTS))
def test_no_defect_is_hidden_by_what_is_remembered(world: Emulated, name: str) -> None:
    """The good quote first, with the same verifier; then the bad one, then the good one again."""
    verifier = world.fresh()
    remembering = Emulated(world.pki, world.td)
    remembering.verifier = verifier
    remembering.claims()

    assert TDX_DEFECTS[name].code in outcome(remembering, world.td.spoiled(name))
    assert outcome(remembering, world.td) == set()


def test_every_code_of_a_refusal_has_a_defect(world: Emulated) -> None:
    without = {
        "tdx-refused",  # for texts that nobody knows yet; tested below
        "tdx-tcb-evaluation", "tdx-platform", "tdx-mrtd", "tdx-rtmr", "tdx-mrconfigid",  # rules, tested below
        "tdx-event-log", "tdx-event", "tdx-event-log-malformed",  # tested with event logs
    }  # fmt: skip

    assert {each.code for each in TDX_DEFECTS.values()} | without == {
        code for code in CATALOGUE if code.startswith("tdx-")
    }


def test_a_collaterals_fault_is_never_the_nodes(world: Emulated) -> None:
    for name, defect in TDX_DEFECTS.items():
        if CATALOGUE[defect.code].fault is Fault.COLLATERAL and name not in (
            "tdx-other-family",
            "tdx-other-pce",
        ):
            assert defect.collateral is not None, name


# --- the library's texts ----------------------------------------------------------------------------------------------
TEXTS = {
    "tdx-debug": "Debug mode is enabled",
    "tdx-profiled": "TD profiling is enabled",
    "tdx-migratable": "TD migration is enabled",
    "tdx-service-td-allowed": "SERVTD_EXT is enabled",
    "tdx-service-td-bound": "Invalid MR service TD",
    "tdx-sept-ve": "SEPT_VE_DISABLE is not enabled",
    "tdx-reserved-high": "Reserved bits in TD attributes are set",
    "tdx-module-unlisted": "TDX module TCB level check",
    "tdx-module-foreign": "TDX module identity check",
    "tdx-module-attributes": "TDX module identity check",
    "tdx-firmware-ancient": "No matching TCB level found",
    "tdx-status-revoked": "TCB status is invalid: Revoked",
    "tdx-module-revoked": "TCB status is invalid: Revoked",
    "tdx-qe-revoked": "TCB status is invalid: Revoked",
    "tdx-qe-foreign": "QE MRSIGNER mismatch",
    "tdx-qe-debug": "QE report validation failed",
    "tdx-qe-attributes": "QE ATTRIBUTES mismatch",
    "tdx-qe-product": "QE ISVPRODID mismatch",
    "tdx-qe-misc-select": "QE MISCSELECT mismatch",
    "tdx-qe-ancient": "QE ISVSVN",
    "tdx-qe-none": "No TCB levels found in QE Identity",
    "tdx-qe-other-key": "QE report hash mismatch",
    "tdx-qe-unsigned": "Signature is invalid for qe_report",
    "tdx-other-signer": "ISV enclave report signature is invalid",
    "tdx-body-changed": "ISV enclave report signature is invalid",
    "tdx-foreign-root": "Failed to verify certificate chain",
    "tdx-foreign-swapped": "Failed to verify certificate chain",
    "tdx-pck-expired": "Failed to verify certificate chain",
    "tdx-pck-revoked": "Failed to verify certificate chain",
    "tdx-no-chain": "Certificate chain is too short in quote",
    "tdx-no-extension": "Intel extension not found",
    "tdx-no-pck": "Unsupported DCAP PCK cert format",
    "tdx-key-type": "Unsupported DCAP attestation key type",
    "tdx-qe-vendor": "Unknown QE vendor ID",
    "tdx-auth-data": "Invalid QE auth data length",
    "tdx-version-3": "Failed to decode quote",
    "tdx-tcb-info-stale": "TCBInfo expired",
    "tdx-qe-identity-stale": "QE Identity expired",
    "tdx-root-crl-stale": "CrlExpired",
    "tdx-tcb-info-future": "TCBInfo issue date is in the future",
    "tdx-qe-identity-future": "QE Identity issue date is in the future",
    "tdx-tcb-info-edited": "Signature is invalid for tcb_info",
    "tdx-qe-identity-edited": "Signature is invalid for qe_identity",
    "tdx-status-unheard-of": "Failed to decode TcbInfo",
    "tdx-tcb-info-date": "Failed to parse TCB Info",
    "tdx-tcb-info-sgx": "TDX quote with non-TDX TCB info",
    "tdx-tcb-info-family": "Fmspc mismatch",
    "tdx-qe-identity-sgx": "Unsupported QE Identity id/version",
    "tdx-root-revoked": "CertRevoked",
    "tdx-root-crl-key": "Failed to parse root CA CRL",
}
# What the library does not know as well as we do: said of it, and of us.
LESS_PRECISE = {
    "tdx-pck-expired": reasons.TDX_PCK_CHAIN,
    "tdx-pck-revoked": reasons.TDX_PCK_CHAIN,
    "tdx-foreign-root": reasons.TDX_PCK_CHAIN,
    "tdx-version-3": reasons.TDX_QUOTE_MALFORMED,
    "tdx-tcb-info-family": reasons.TDX_COLLATERAL_OTHER,
    "tdx-root-crl-key": reasons.TDX_COLLATERAL_MALFORMED,
}


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_texts_of_the_library_have_their_reasons(world: Emulated, name: str) -> None:
    """The library alone, without what we check before it: each text is provoked, and mapped."""
    import dcap_qvl

    td = world.td.spoiled(name)
    collateral = dcap_qvl.QuoteCollateralV3.from_json(td.collateral(NOW).decode())
    root = world.pki.root.certificate.public_bytes(Encoding.DER)
    with pytest.raises(ValueError, match=TEXTS[name]) as caught:
        dcap_qvl.verify_with_root_ca(td.quote(REPORT_DATA), collateral, root, int(NOW.timestamp()))

    error = qvl.refusal(str(caught.value))
    wanted = LESS_PRECISE.get(name, CATALOGUE[TDX_DEFECTS[name].code])
    assert error.reason is wanted
    assert isinstance(error, UntrustedCollateral) is (wanted.fault is Fault.COLLATERAL)


def test_a_text_that_nobody_knows_is_a_refusal() -> None:
    error = qvl.refusal("Verification failed: The moon is in the wrong house")

    assert (type(error), error.reason) == (UntrustedEvidence, reasons.TDX_REFUSED)
    assert "moon" in error.found


def test_what_the_library_leaves_open_is_closed_here(world: Emulated) -> None:
    """If one of these is refused by a later version, our check may go; until then it may not."""
    import dcap_qvl

    root = world.pki.root.certificate.public_bytes(Encoding.DER)
    for name in (
        "tdx-tcb-info-by-machine",
        "tdx-tcb-info-pce",
        "tdx-pck-crl-future",
        "tdx-reserved-low",
        "tdx-trailing",
    ):
        td = world.td.spoiled(name)
        collateral = dcap_qvl.QuoteCollateralV3.from_json(td.collateral(NOW).decode())
        report = dcap_qvl.verify_with_root_ca(td.quote(REPORT_DATA), collateral, root, int(NOW.timestamp()))
        assert report.status == "UpToDate", name
        assert outcome(world, td) == {TDX_DEFECTS[name].code}


@pytest.mark.parametrize("now", [datetime(1969, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)])
def test_times_out_of_reach_are_refusals(world: Emulated, now: datetime) -> None:
    documents = world.documents()
    error = refused(lambda: world.verifier.verify(world.td.evidence(REPORT_DATA), documents, nonce=None, now=now))

    assert error.reason is reasons.TDX_PCK_TIME


# --- time -------------------------------------------------------------------------------------------------------------
def test_collateral_holds_until_the_moment_before_it_runs_out(world: Emulated) -> None:
    documents, evidence = world.documents(), world.td.evidence(REPORT_DATA)
    end = world.verifier.verify(evidence, documents, nonce=None, now=NOW).not_after

    before = world.verifier.verify(evidence, documents, nonce=None, now=end - timedelta(microseconds=1))
    at = world.verifier.verify(evidence, documents, nonce=None, now=end)

    assert (before.values["collateral_stale_hours"], before.not_after) == (0, end)
    assert at.values["collateral_stale_hours"] == 1
    assert at.not_after > end  # how long it may be stale is the policy's to say
    assert appraised(at) == {"tdx-collateral-stale"}
    assert appraised(at, TdxRules(collateral_stale_hours_max=1)) == set()


def test_collateral_that_ran_out_long_ago_is_not_looked_at(world: Emulated) -> None:
    documents, evidence = world.documents(), world.td.evidence(REPORT_DATA)
    end = world.verifier.verify(evidence, documents, nonce=None, now=NOW).not_after

    last = world.verifier.verify(evidence, documents, nonce=None, now=end + timedelta(days=30))
    error = refused(
        lambda: world.verifier.verify(evidence, documents, nonce=None, now=end + timedelta(days=30) + SECOND)
    )

    assert last.values["collateral_stale_hours"] == 30 * 24 + 1
    assert (type(error), error.reason) == (UntrustedCollateral, reasons.TDX_COLLATERAL_STALE)


def test_revocation_counts_in_stale_collateral_too(world: Emulated) -> None:
    documents = world.documents(world.td.spoiled("tdx-pck-revoked"))
    later = NOW + timedelta(days=31)
    error = refused(lambda: world.verifier.verify(world.td.evidence(REPORT_DATA), documents, nonce=None, now=later))

    assert error.reason is reasons.TDX_PCK_REVOKED


def test_missing_documents_are_named(world: Emulated) -> None:
    documents = world.documents()
    for need in documents:
        rest = {each: document for each, document in documents.items() if each != need}
        error = refused(partial(judge, world.verifier, world.td.evidence(REPORT_DATA), rest))
        assert (type(error), error.reason) == (UntrustedCollateral, reasons.TDX_COLLATERAL_UNAVAILABLE)
        assert str(need) in error.wanted


def test_documents_remembered_for_one_machine_are_compared_with_the_next(world: Emulated) -> None:
    """The very same documents: good for the first machine, of another PCE than the second's."""
    documents = world.documents()
    judge(world.verifier, world.td.evidence(REPORT_DATA), documents)
    other = world.td.spoiled("tdx-other-pce")
    error = refused(partial(judge, world.verifier, other.evidence(REPORT_DATA), documents))

    assert error.reason is reasons.TDX_COLLATERAL_OTHER


def test_documents_of_another_intel_are_not_believed(world: Emulated) -> None:
    """Names right, root wrong: filed under the needs of the first."""
    other = IntelPki.create(world.pki.path.parent / "other")
    documents = world.documents()
    theirs = Emulated(other, EmulatedTd.create(other, "machine", now=NOW)).documents()
    swapped = dict(zip(sorted(documents), (theirs[need] for need in sorted(theirs)), strict=True))
    for need in documents:
        mixed = documents | {need: swapped[need]}
        error = refused(partial(judge, world.fresh(), world.td.evidence(REPORT_DATA), mixed))
        assert isinstance(error, UntrustedCollateral), need
        assert error.reason in (
            reasons.TDX_COLLATERAL_CHAIN,
            reasons.TDX_COLLATERAL_SIGNATURE,  # the root's list has no chain, only an issuer of the same name
        )


# --- rules ------------------------------------------------------------------------------------------------------------
def test_statuses_and_advisories_are_accepted_by_name(world: Emulated) -> None:
    claims = world.claims(world.td.spoiled("tdx-status-out-of-date"))

    assert appraised(claims, TdxRules(statuses=frozenset({"OutOfDate"}))) == {"tdx-advisory"}
    rules = TdxRules(statuses=frozenset({"OutOfDate"}), advisories=frozenset({"INTEL-SA-00001"}))
    assert appraised(claims, rules) == set()
    assert appraised(world.claims(), rules) == {"tdx-tcb-status"}


def test_advisories_of_the_quoting_enclave_and_the_module_count(world: Emulated) -> None:
    old_module = world.claims(world.td.spoiled("tdx-module-old"))

    assert old_module.values["advisories"] == "INTEL-SA-00003"


def test_a_relaunch_is_advised_where_the_module_was_updated_below(world: Emulated) -> None:
    assert world.claims(world.td.spoiled("tdx-relaunch")).values["tcb_status"] == "TDRelaunchAdvised"


MEASURED = {"mrtd": "tdx-mrtd", "mrconfigid": "tdx-mrconfigid", **{f"rtmr{n}": "tdx-rtmr" for n in range(4)}}


@pytest.mark.parametrize(("claim", "code"), sorted(MEASURED.items()))
def test_measured_values_are_held_to_the_list(world: Emulated, claim: str, code: str) -> None:
    claims = world.claims()
    right, wrong = frozenset({str(claims.values[claim])}), frozenset({"ab" * 48})

    assert appraised(claims, TdxRules.model_validate({claim: right | wrong})) == set()
    assert appraised(claims, TdxRules.model_validate({claim: wrong})) == {code}


def test_platform_flags_and_evaluation_can_be_asked_for(world: Emulated) -> None:
    claims = world.claims()

    assert appraised(claims, TdxRules(platform=frozenset())) == {"tdx-platform"}
    assert appraised(claims, TdxRules(tcb_evaluation_min=20)) == set()
    assert appraised(claims, TdxRules(tcb_evaluation_min=21)) == {"tdx-tcb-evaluation"}


def test_attributes_are_accepted_by_name(world: Emulated) -> None:
    claims = world.claims(world.td.spoiled("tdx-perfmon"))

    assert appraised(claims, TdxRules(attributes=frozenset({"perfmon"}))) == set()


def test_a_quote_that_answers_nothing_is_old_unless_a_profile_binds_it(world: Emulated) -> None:
    claims = world.claims(report_data=bytes(64))

    assert claims.values["nonce"] == "absent"
    assert appraised(claims) == {"tdx-nonce"}
    assert appraised(claims, bound=True) == set()
    assert world.claims(report_data=NONCE + bytes(32)).values["nonce"] == "match"
    assert world.claims(nonce=None).values["nonce"] == "not asked"


def test_claims_that_are_absent_fail_every_rule(world: Emulated) -> None:
    empty = replace(world.claims(), values={})

    assert appraised(empty) == {
        "tdx-tcb-status", "tdx-advisory", "tdx-tcb-evaluation", "tdx-collateral-stale", "tdx-attributes", "tdx-mrtd",
        "tdx-rtmr", "tdx-mrconfigid", "tdx-event-log", "tdx-nonce",
    }  # fmt: skip


def test_rules_refuse_what_they_do_not_know() -> None:
    from pydantic import ValidationError

    for wrong in ({"statuses": []}, {"statuses": ["Revoked"]}, {"mrtd": ["ab"]}, {"debug": True}, {"rtmr0": []}):
        with pytest.raises(ValidationError):
            TdxRules.model_validate(wrong)


# --- identity ---------------------------------------------------------------------------------------------------------
def test_padding_and_encoding_do_not_rename_a_quote(world: Emulated) -> None:
    quote = world.td.quote(REPORT_DATA)
    documents = world.documents()
    names = {
        world.verifier.verify(Evidence(INTEL_TDX, form), documents, nonce=None, now=NOW).values["quote_sha256"]
        for form in (quote, quote + bytes(70), quote + bytes(3065))
    }

    assert len(names) == 1


def test_two_domains_of_one_machine_are_one_device(world: Emulated) -> None:
    one, other = world.claims(report_data=bytes(32) + NONCE), world.claims(report_data=b"\1" * 32 + NONCE)

    assert one.device == other.device
    assert one.values["quote_sha256"] != other.values["quote_sha256"]


def test_a_file_of_roots_is_one_emulators_root(world: Emulated) -> None:
    pem = world.pki.anchor.read_bytes()
    ca = world.pki.platform_ca.certificate.public_bytes(Encoding.PEM)

    assert isinstance(load_emulated(pem), Root)
    for wrong in (b"", pem + pem, ca, b"x" * 100_000):
        with pytest.raises(ValueError, match=r"."):
            load_emulated(wrong)


def test_a_panic_of_the_library_is_a_refusal(world: Emulated, monkeypatch: pytest.MonkeyPatch) -> None:
    class PanicException(BaseException):
        pass

    def panic(*_: object) -> None:
        raise PanicException("index out of bounds")

    monkeypatch.setattr(qvl.dcap_qvl, "verify_with_root_ca", panic)
    error = refused(world.claims)

    assert error.reason is reasons.TDX_REFUSED


def test_an_interrupt_is_no_refusal(world: Emulated, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(qvl.dcap_qvl, "verify_with_root_ca", interrupt)
    with pytest.raises(KeyboardInterrupt):
        world.claims()


def test_two_readings_are_none(world: Emulated, monkeypatch: pytest.MonkeyPatch) -> None:
    """Should library and parser ever disagree about what a quote says, it says nothing."""
    other = world.td.quote(bytes(64))
    genuine = qvl.dcap_qvl.parse_quote
    monkeypatch.setattr(qvl.dcap_qvl, "parse_quote", lambda _: genuine(other))
    error = refused(world.claims)

    assert error.reason is reasons.TDX_REFUSED


# --- documents --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "bundle", [b"", b"{}", b"[]", b"{", b'{"tcb_info": 1}', b"\xff", b'{"tcb_info":"{}"}', b"[" * 100_000]
)
def test_bundles_that_are_none(bundle: bytes) -> None:
    from attest.tdx.documents import split

    error = refused(lambda: split(bundle))

    assert (type(error), error.reason) == (UntrustedCollateral, reasons.TDX_COLLATERAL_MALFORMED)


def test_lists_in_hex_are_read(world: Emulated) -> None:
    """Trap: some caching services answer the root's list as hex text, which clients then write as hex of hex."""
    from attest.tdx.documents import split

    bundle = json.loads(world.td.collateral(NOW))
    good = split(json.dumps(bundle).encode())
    for _ in range(2):
        for name in ("root_ca_crl", "pck_crl"):
            bundle[name] = bundle[name].encode().hex()
        assert split(json.dumps(bundle).encode()) == good


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'"x"', b"\xff", b'{"body":1,"issuer_chain":""}', b"[" * 100_000])
def test_documents_that_are_none(world: Emulated, data: bytes) -> None:
    documents = world.documents()
    for need in documents:
        spoiled = documents | {need: Document.of(data)}
        error = refused(partial(judge, world.verifier, world.td.evidence(REPORT_DATA), spoiled))
        assert isinstance(error, UntrustedCollateral), need
        assert error.reason is reasons.TDX_COLLATERAL_MALFORMED


def test_a_response_becomes_the_same_document(world: Emulated) -> None:
    """What the broker fetches, body and URL-encoded header, is what a bundle is split into."""
    from urllib.parse import quote

    from attest.tdx.documents import from_response, split

    bundle = json.loads(world.td.collateral(NOW))
    documents = split(json.dumps(bundle).encode())
    bodies = {
        "intel-tdx-tcb-info": (
            f'{{"tcbInfo":{bundle["tcb_info"]},"signature":"{bundle["tcb_info_signature"]}"}}'.encode(),
            bundle["tcb_info_issuer_chain"],
        ),
        "intel-tdx-qe-identity": (
            f'{{"enclaveIdentity":{bundle["qe_identity"]},"signature":"{bundle["qe_identity_signature"]}"}}'.encode(),
            bundle["qe_identity_issuer_chain"],
        ),
        "intel-pck-crl": (bytes.fromhex(bundle["pck_crl"]), bundle["pck_crl_issuer_chain"]),
        "intel-root-crl": (bytes.fromhex(bundle["root_ca_crl"]), ""),
    }

    assert documents == {
        need: from_response(need, bodies[need.kind][0], quote(bodies[need.kind][1])) for need in documents
    }


def test_certificates_of_the_emulator_name_it(world: Emulated) -> None:
    chain = quotes.parse(world.td.quote(REPORT_DATA)).chain

    for certificate in x509.load_pem_x509_certificates(chain):
        assert "WorkerManager emulator" in certificate.subject.rfc4514_string()


def test_a_chain_of_no_certificates_is_malformed(world: Emulated) -> None:
    error = refused(lambda: world.claims(world.td.spoiled("tdx-no-chain")))

    assert isinstance(error, MalformedEvidence)


def test_documents_and_bundles_have_bounds(world: Emulated) -> None:
    from attest.tdx.documents import BUNDLE_BYTES_MAX, DOCUMENT_BYTES_MAX, split

    documents, evidence = world.documents(), world.td.evidence(REPORT_DATA)
    for need in documents:
        large = documents | {need: Document.of(bytes(DOCUMENT_BYTES_MAX + 1))}
        assert refused(partial(judge, world.verifier, evidence, large)).reason is reasons.TDX_COLLATERAL_MALFORMED
    assert refused(lambda: split(bytes(BUNDLE_BYTES_MAX + 1))).reason is reasons.TDX_COLLATERAL_MALFORMED


@pytest.mark.parametrize(
    "body", ["", "{}", '{"tcbInfo":[1],"signature":"00"}', '{"tcbInfo":{x},"signature":"' + "0" * 128 + '"}']
)
def test_bodies_that_are_none(world: Emulated, body: str) -> None:
    documents = world.documents()
    for need in documents:
        spoiled = documents | {need: Document.of(json.dumps({"body": body or "?", "issuer_chain": ""}).encode())}
        error = refused(partial(judge, world.verifier, world.td.evidence(REPORT_DATA), spoiled))
        assert error.reason is reasons.TDX_COLLATERAL_MALFORMED


def test_a_list_of_another_issuer_is_not_the_roots(world: Emulated) -> None:
    draft = CollateralDraft.of(world.pki, world.td.pck, now=NOW)
    documents = world.documents()
    (need,) = (need for need in documents if need.kind == "intel-root-crl")
    spoiled = documents | {need: Document.of(draft.pck_crl.signed())}
    error = refused(partial(judge, world.verifier, world.td.evidence(REPORT_DATA), spoiled))

    assert error.reason is reasons.TDX_COLLATERAL_OTHER


def test_a_signer_with_a_key_of_another_curve_is_none(world: Emulated) -> None:
    from attest.tdx.documents import split

    draft = CollateralDraft.of(world.pki, world.td.pck, now=NOW)
    term = (draft.pck.not_valid_before_utc, draft.pck.not_valid_after_utc)
    draft.tcb_chain[0] = issue(TCB_SIGNING, new_key().public_key(), world.pki.root, term)
    error = refused(partial(judge, world.verifier, world.td.evidence(REPORT_DATA), split(draft.made())))

    assert error.reason is reasons.TDX_COLLATERAL_MALFORMED


def test_intel_has_each_document_somewhere() -> None:
    from attest.tdx.needs import Needs, source

    needs = Needs.of("B0C06F000000", "platform", INTEL)
    sources = [source(need) for need in needs.all]

    assert all(each is not None and each.base.startswith("https://") and each.path.startswith("/") for each in sources)
    assert len({each.path for each in sources if each is not None}) == 4
    assert source(Need(CollateralKind.NVIDIA_RIM, "x")) is None


def test_a_code_is_taken_once() -> None:
    with pytest.raises(ValueError, match="taken"):
        reasons._reason("tdx-root", reasons.Stage.PARSE, "Again.", "No.")


# --- the emulator -----------------------------------------------------------------------------------------------------
def test_the_emulator_says_what_can_be_mended(world: Emulated) -> None:
    (world.pki.path / "platforms" / "broken").mkdir()
    for wrong in (
        lambda: EmulatedTd.create(world.pki, "../x", now=NOW),
        lambda: EmulatedTd.create(world.pki, "broken", now=NOW),
        lambda: IntelPki.open(world.pki.path / "platforms"),
        lambda: world.td.spoiled("no-such-defect"),
    ):
        with pytest.raises(EmulatorError):
            wrong()
    with pytest.raises(ValueError, match="64"):
        world.td.quote(bytes(63))


def test_the_emulator_publishes_what_it_would_hand_over(world: Emulated) -> None:
    from attest.tdx.documents import split

    documents = split(world.td.publish(NOW).read_bytes())

    assert judge(world.verifier, world.td.evidence(REPORT_DATA), documents).values["tcb_status"] == "UpToDate"
    assert IntelPki.create(world.pki.path).root.certificate == world.pki.root.certificate
