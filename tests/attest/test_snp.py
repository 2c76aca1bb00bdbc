"""Recordings of real SEV-SNP platforms are judged as those who recorded them say, and every spoiled byte is refused."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from attest import reasons as catalogue
from attest.claims import Claims
from attest.collateral import Document, Need
from attest.errors import AttestError, UntrustedCollateral
from attest.evidence import AMD_SNP, Evidence
from attest.reasons import snp as reasons
from attest.snp.anchors import AMD, Ark, Arks, load_emulated
from attest.snp.appraise import appraise_snp
from attest.snp.rules import SnpRules
from attest.snp.verifier import SnpVerifier
from attest.verify import gather
from tests.evidence import VECTORS, needs_vectors

SNP = VECTORS / "snp"
ROOTS = {
    "vcek/v1/Milan/cert_chain": "ask_ark_milan.pem",
    "vlek/v1/Milan/cert_chain": "ask_ark_milan_vlek.pem",
    "vcek/v1/Genoa/cert_chain": "ask_ark_genoa.pem",
    "vlek/v1/Genoa/cert_chain": "ask_ark_genoa_vlek.pem",
    "vcek/v1/Turin/cert_chain": "ask_ark_turin_vcek.pem",
    "vlek/v1/Turin/cert_chain": "ask_ark_turin_vlek.pem",
}
# SHA-256 of the root certificates, as AMD publishes them.
ARK_CERTIFICATES = {
    "milan": "69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd",
    "genoa": "4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1",
    "turin_vcek": "1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a",
}
AT = datetime(2026, 6, 1, tzinfo=UTC)
CLOUD = SnpRules(vmpl=frozenset({0, 1}), signing_keys=frozenset({"vcek", "vlek"}), masked_chip_id=True)

pytestmark = needs_vectors


@dataclass(frozen=True)
class Recording:
    """One real report, the certificates with it, and a time at which they are valid."""

    folder: str
    certificates: tuple[str, ...]
    at: datetime

    @property
    def evidence(self) -> Evidence:
        certificates = b"".join((SNP / self.folder / name).read_bytes() for name in self.certificates)
        return Evidence(AMD_SNP, (SNP / self.folder / "report.bin").read_bytes(), certificates)

    def fetch(self, need: Need) -> Document | None:
        if need.kind == "amd-vcek":
            (path,) = (SNP / self.folder).glob("vcek.*")
            return Document.of(path.read_bytes())
        return Document.of((SNP / "roots" / ROOTS[need.name]).read_bytes()) if need.name in ROOTS else None


MILAN = Recording("milan-v3", ("vcek.pem", "ask.pem"), AT)
TURIN = Recording("turin-v5", ("vcek.pem", "ask.pem"), AT)
VLEK = Recording("vlek-vmpl1", ("vlek.der",), datetime(2025, 6, 1, tzinfo=UTC))
DEBUG = Recording("debug-policy", ("vcek.der",), AT)
ALL = pytest.mark.parametrize("recording", [MILAN, TURIN, VLEK, DEBUG], ids=lambda each: each.folder)


def verified(
    recording: Recording,
    *,
    evidence: Evidence | None = None,
    at: datetime | None = None,
    verifier: SnpVerifier | None = None,
) -> Claims:
    verifier, evidence = verifier or SnpVerifier(AMD), evidence or recording.evidence
    collateral = gather(verifier, evidence, recording.fetch)
    return verifier.verify(evidence, collateral, nonce=None, now=at or recording.at)


def failed(claims: Claims, rules: SnpRules) -> set[str]:
    findings = list(appraise_snp(claims, SimpleNamespace(snp=rules), AT))
    assert findings
    return {finding.reason.code for finding in findings if not finding.holds}


# --- true verdicts ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("recording", [MILAN, TURIN], ids=lambda each: each.folder)
def test_a_real_guest_meets_the_strictest_rules(recording):
    claims = verified(recording)

    assert failed(claims, SnpRules()) == set()
    assert not claims.emulated
    assert claims.not_after == datetime(2033, 2, 5, 1, 4, 33, tzinfo=UTC)
    assert claims.values["revocation"] == "not checked"


def test_a_providers_key_and_vmpl_1_are_accepted_only_where_the_policy_says_so():
    claims = verified(VLEK)

    assert failed(claims, CLOUD) == set()
    assert failed(claims, SnpRules()) == {"snp-signing-key-not-accepted", "snp-chip-masked", "snp-vmpl"}
    assert failed(claims, replace_rules(CLOUD, vmpl={0})) == {"snp-vmpl"}


def test_a_debuggable_guest_is_refused_by_policy():
    claims = verified(DEBUG)

    assert "snp-debug" in failed(claims, SnpRules())
    assert failed(claims, SnpRules(alias_check_required=False)) == {"snp-debug"}


def replace_rules(rules: SnpRules, **values: object) -> SnpRules:
    return SnpRules.model_validate(rules.model_dump() | values)


def test_the_claims_of_a_real_milan():
    claims = verified(MILAN)
    hwid = MILAN.evidence.payload[0x1A0:0x1E0].hex()

    assert claims.device == f"amd-snp-{hwid}"
    assert {name: claims.values[name] for name in ("product", "signing_key", "chip_id", "csp", "firmware")} == {
        "product": "Milan",
        "signing_key": "vcek",
        "chip_id": "match",
        "csp": "",
        "firmware": "1.55.29",
    }
    assert claims.values["tcb_reported"] == claims.values["tcb_committed"] == (0, 4, 0, 24, 219)
    assert claims.values["abi_min"] == "0.31"
    assert (claims.values["vmpl"], claims.values["guest_svn"], claims.values["report_version"]) == (0, 2, 3)
    assert claims.values["report_data"] == "00" * 64
    assert claims.values["measurement"].startswith("5feee30d6d7e1a29")
    assert (claims.values["allows_smt"], claims.values["allows_debug"]) == (True, False)
    assert (claims.values["platform_smt"], claims.values["platform_tsme"]) == (True, False)


def test_turin_lays_out_its_tcb_otherwise():
    claims = verified(TURIN)

    assert claims.values["tcb_reported"] == (1, 1, 1, 4, 81)
    assert claims.device == "amd-snp-59790fb1c39f35c1"


def test_behind_a_masked_chip_id_the_device_is_the_guest():
    claims = verified(VLEK)

    assert claims.device.endswith(VLEK.evidence.payload[0x140:0x160].hex())
    assert claims.values["csp"] == "CN=cc-us-east-2.amazonaws.com"
    assert claims.values["tcb_reported"] == (0, 4, 0, 24, 217)
    assert claims.values["tcb_current"] == (0, 4, 0, 24, 220)


# --- certificates, carried and fetched --------------------------------------------------------------------------------
@ALL
def test_the_needs_are_the_paths_of_the_key_distribution_service(recording):
    parts = {"milan-v3": "Milan", "turin-v5": "Turin", "vlek-vmpl1": "Milan", "debug-policy": "Milan"}
    path = f"{'vlek' if recording is VLEK else 'vcek'}/v1/{parts[recording.folder]}"
    whole = len(recording.certificates) == 2

    needs = SnpVerifier(AMD).needs(recording.evidence, {})

    assert {need.name for need in needs} == {f"{path}/crl"} | (set() if whole else {f"{path}/cert_chain"})


def test_a_key_certificate_is_asked_for_by_chip_and_tcb():
    bare = replace(MILAN, certificates=())
    hwid = MILAN.evidence.payload[0x1A0:0x1E0].hex()

    names = {str(need) for need in SnpVerifier(AMD).needs(bare.evidence, {})}

    assert f"amd-vcek vcek/v1/Milan/{hwid}?blSPL=04&teeSPL=00&snpSPL=24&ucodeSPL=219" in names
    assert verified(bare).device == verified(MILAN).device


def test_a_turins_key_certificate_is_asked_for_by_its_short_id_and_fmc():
    bare = replace(TURIN, certificates=())

    (vcek,) = (need for need in SnpVerifier(AMD).needs(bare.evidence, {}) if need.kind == "amd-vcek")

    assert vcek.name == "vcek/v1/Turin/59790fb1c39f35c1?fmcSPL=01&blSPL=01&teeSPL=01&snpSPL=04&ucodeSPL=81"
    assert verified(bare).values["tcb_reported"] == (1, 1, 1, 4, 81)


def test_nothing_is_needed_once_it_is_there():
    bare, verifier = replace(MILAN, certificates=()), SnpVerifier(AMD)
    have = gather(verifier, bare.evidence, bare.fetch)

    assert {need.kind for need in verifier.needs(bare.evidence, have)} == {"amd-crl"}


def test_the_claims_name_the_documents_that_were_fetched():
    bare = replace(MILAN, certificates=())

    assert {name.split()[0] for name in verified(bare).collateral} == {"amd-vcek", "amd-issuers"}
    assert verified(MILAN).collateral == {}


@pytest.mark.parametrize("recording", [VLEK, DEBUG], ids=lambda each: each.folder)
def test_a_certificate_that_cannot_be_fetched_must_come_with_the_report(recording):
    """A provider's, and that of a version 2 report, which does not say what line it is of."""
    with pytest.raises(AttestError) as refused:
        verified(replace(recording, certificates=()))

    assert refused.value.reason is reasons.SNP_VEK_MISSING


def test_der_certificates_one_after_the_other_are_read_as_well():
    der = b"".join(
        x509.load_pem_x509_certificate((SNP / "milan-v3" / name).read_bytes()).public_bytes(Encoding.DER)
        for name in MILAN.certificates
    )

    assert verified(MILAN, evidence=replace(MILAN.evidence, certificates=der)).device == verified(MILAN).device


def test_a_root_may_come_along_and_must_be_the_pinned_one():
    def with_root(name: str) -> Evidence:
        ark = (SNP / "roots" / name).read_bytes().split(b"-----END CERTIFICATE-----\n", 1)[1]
        return replace(MILAN.evidence, certificates=MILAN.evidence.certificates + ark)

    assert verified(MILAN, evidence=with_root("ask_ark_milan.pem")).device == verified(MILAN).device
    with pytest.raises(AttestError) as refused:
        verified(MILAN, evidence=with_root("ask_ark_genoa.pem"))
    assert refused.value.reason is catalogue.CHAIN_ROOT


@pytest.mark.parametrize("roots", [Arks(), Arks(AMD.amd_ark[1:])], ids=["no root", "other roots"])
def test_without_its_root_nothing_is_believed(roots):
    with pytest.raises(AttestError) as refused:
        verified(MILAN, verifier=SnpVerifier(roots))

    assert refused.value.reason is catalogue.CHAIN_ROOT


@pytest.mark.parametrize("product", sorted(ARK_CERTIFICATES))
def test_the_pinned_roots_are_those_of_the_published_certificates(product):
    pem = (SNP / "roots" / f"ask_ark_{product}.pem").read_bytes()
    published = x509.load_pem_x509_certificates(pem)[1]

    assert hashlib.sha256(published.public_bytes(Encoding.DER)).hexdigest() == ARK_CERTIFICATES[product]
    ark = Ark.of(published)
    assert (ark.subject, ark.key) in [(each.subject, each.key) for each in AMD.amd_ark]
    assert not ark.emulated


def test_amds_own_root_is_no_emulators():
    pem = (SNP / "roots" / "ask_ark_milan.pem").read_bytes().split(b"-----END CERTIFICATE-----\n", 1)[1]

    with pytest.raises(ValueError, match="built in"):
        load_emulated(pem)


def test_serial_number_zero_raises_no_warning():
    """pyca warns of it and will refuse it one day; half of all verifications must not depend on that."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert verified(DEBUG).device


@pytest.mark.parametrize(
    ("recording", "of", "reason"),
    [
        (MILAN, TURIN, reasons.SNP_PRODUCT_MISMATCH),
        (TURIN, MILAN, reasons.SNP_PRODUCT_MISMATCH),
        (MILAN, DEBUG, reasons.SNP_TCB_MISMATCH),
        (VLEK, DEBUG, catalogue.CHAIN_LINK),  # a VCEK below the authority of VLEKs
    ],
)
def test_the_report_of_one_chip_with_certificates_of_another_is_refused(recording, of, reason):
    with pytest.raises(AttestError) as refused:
        verified(recording, evidence=replace(recording.evidence, certificates=of.evidence.certificates))

    assert refused.value.reason is reason


def test_a_wrong_fetched_certificate_is_not_the_nodes_fault():
    bare, verifier = replace(MILAN, certificates=()), SnpVerifier(AMD)
    have = dict(gather(verifier, bare.evidence, bare.fetch))
    (vcek,) = (need for need in have if need.kind == "amd-vcek")
    have[vcek] = Document.of((SNP / "debug-policy" / "vcek.der").read_bytes())

    with pytest.raises(UntrustedCollateral) as refused:
        verifier.verify(bare.evidence, have, nonce=None, now=AT)

    assert refused.value.reason is reasons.SNP_DOCUMENT_UNTRUSTED


# --- time -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("recording", "start", "end"),
    [
        (MILAN, datetime(2026, 2, 5, 1, 4, 33, tzinfo=UTC), datetime(2033, 2, 5, 1, 4, 33, tzinfo=UTC)),
        (VLEK, datetime(2024, 12, 10, 22, 14, 21, tzinfo=UTC), datetime(2025, 12, 10, 22, 14, 21, tzinfo=UTC)),
    ],
    ids=["vcek", "vlek"],
)
def test_certificates_count_from_their_first_to_their_last_instant(recording, start, end):
    tick = timedelta(microseconds=1)

    assert verified(recording, at=start).not_after == end
    assert verified(recording, at=end).not_after == end  # of which an AttestationResult says: the instant is too late
    for outside in (start - tick, end + tick):
        with pytest.raises(AttestError) as refused:
            verified(recording, at=outside)
        assert refused.value.reason is catalogue.CHAIN_TIME


def test_what_is_remembered_is_still_compared_with_the_clock():
    verifier = SnpVerifier(AMD)
    verified(MILAN, verifier=verifier)

    with pytest.raises(AttestError) as refused:
        verified(MILAN, verifier=verifier, at=datetime(2034, 1, 1, tzinfo=UTC))

    assert refused.value.reason is catalogue.CHAIN_TIME


# --- spoiling ---------------------------------------------------------------------------------------------------------
@ALL
def test_every_changed_byte_of_a_report_is_refused(recording):
    verifier, good = SnpVerifier(AMD), recording.evidence
    collateral = gather(verifier, good, recording.fetch)
    accepted = []
    for at in range(len(good.payload)):
        spoiled = good.payload[:at] + bytes([good.payload[at] ^ 1]) + good.payload[at + 1 :]
        try:
            verifier.verify(replace(good, payload=spoiled), collateral, nonce=None, now=recording.at)
        except AttestError:
            continue
        accepted.append(at)

    assert accepted == []


@pytest.mark.parametrize("recording", [MILAN, VLEK, DEBUG], ids=lambda each: each.folder)
def test_every_changed_byte_of_a_signing_keys_certificate_is_refused(recording):
    verifier, good = SnpVerifier(AMD), recording.evidence
    name = recording.certificates[0]
    data = (SNP / recording.folder / name).read_bytes()
    der = x509.load_pem_x509_certificate(data).public_bytes(Encoding.DER) if name.endswith("pem") else data
    issuers = [(SNP / recording.folder / each).read_bytes() for each in recording.certificates[1:]]
    ders = [x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER) for pem in issuers]
    collateral = gather(verifier, good, recording.fetch)
    accepted = []
    for at in range(len(der)):
        spoiled = b"".join([der[:at] + bytes([der[at] ^ 1]) + der[at + 1 :], *ders])
        try:
            verifier.verify(replace(good, certificates=spoiled), collateral, nonce=None, now=recording.at)
        except AttestError:
            continue
        accepted.append(at)

    assert accepted == []


@pytest.mark.parametrize("size", [0, 1, 672, 1183, 1185, 1 << 16])
def test_a_report_of_another_size_is_refused(size):
    payload = MILAN.evidence.payload.ljust(size, b"\0")[:size]

    with pytest.raises(AttestError) as refused:
        verified(MILAN, evidence=replace(MILAN.evidence, payload=payload))

    assert refused.value.reason is reasons.SNP_REPORT_MALFORMED
