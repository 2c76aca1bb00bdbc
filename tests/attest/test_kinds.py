"""Evidence of every kind goes the same way: containers, installed verifiers, rules by kind. All of real devices."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from click.testing import CliRunner

from attest.__main__ import main
from attest.anchors import VENDORS
from attest.appraise import appraise
from attest.collateral import Document, Fetch, Need, nothing
from attest.containers import read
from attest.evidence import AMD_SNP, INTEL_TDX, NVIDIA, NVIDIA_NRAS, Bundle, Nonce
from attest.folder import Folder
from attest.policy import Policy, parse
from attest.result import AttestationResult, Tier
from attest.verify import installed, verify
from tests.attest.test_snp import AT as SNP_AT
from tests.attest.test_snp import MILAN, SNP, TURIN, VLEK
from tests.evidence import VECTORS, hopper_550, needs_vectors
from tests.tdx_world import FOLDER as TDX
from tests.tdx_world import UP_TO_DATE, recorded_collateral

pytestmark = needs_vectors
VERIFIERS = installed(VENDORS)
VM = "secretvm-tdx-and-h100"


def policy(*kinds: str, gpus: int = 0, **rules: Any) -> Policy:
    """A policy for vendors' devices of these kinds, all of them required, fresh or not."""
    own = {"name": "own", "kinds": kinds, "required": kinds, "nonce": "optional", "nvidia": {"gpus_min": gpus}}
    return Policy.model_validate(own | rules)


def judged(
    bundle: Bundle, fetch: Fetch, rules: Policy, *, at: datetime, nonce: Nonce | None = None
) -> AttestationResult:
    verification = verify(bundle, VERIFIERS, fetch, nonce=nonce, now=at)
    return appraise(verification, rules, bundle=bundle, nonce=nonce, now=at)


def codes(result: AttestationResult) -> set[str]:
    return {finding.reason.code for finding in result.failed}


def snp_files(folder: str, *names: str) -> Bundle:
    return read([(SNP / folder / name).read_bytes() for name in ("report.bin", *names)])


def test_all_four_kinds_are_installed_by_the_same_door() -> None:
    assert sorted(VERIFIERS) == sorted([NVIDIA, NVIDIA_NRAS, INTEL_TDX, AMD_SNP])


# --- SEV-SNP ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("recording", [MILAN, TURIN], ids=lambda each: each.folder)
def test_a_real_snp_guest_is_affirmed(recording: Any) -> None:
    bundle = snp_files(recording.folder, *recording.certificates)

    result = judged(bundle, nothing, policy(AMD_SNP, revocation="optional"), at=SNP_AT)

    assert (result.tier, codes(result)) == (Tier.AFFIRMING, set())
    assert (result.cpu, result.emulated, result.freshness) == (AMD_SNP, False, "not checked")
    assert result.revocation == "not checked"  # its list was not recorded


def test_production_asks_a_real_snp_guest_for_more() -> None:
    bundle = snp_files("milan-v3", "vcek.pem", "ask.pem")
    rules = policy(AMD_SNP, nonce="required")

    assert codes(judged(bundle, nothing, rules, at=SNP_AT)) == {"revocation-not-checked", "nonce-not-given"}
    # A report answers by its report data, which a binding profile reads: no nonce of ours is in this one.
    assert "nonce-not-given" in codes(judged(bundle, nothing, rules, at=SNP_AT, nonce=Nonce(bytes(32))))


def test_a_guest_without_its_certificates_is_nobodys_fault() -> None:
    result = judged(snp_files("milan-v3"), nothing, policy(AMD_SNP, revocation="optional"), at=SNP_AT)

    assert (result.tier, codes(result)) == (Tier.NONE, {"snp-vek-unavailable"})
    fetched = judged(snp_files("milan-v3"), MILAN.fetch, policy(AMD_SNP, revocation="optional"), at=SNP_AT)
    assert fetched.tier is Tier.AFFIRMING


def test_a_providers_key_is_accepted_openly_only() -> None:
    bundle = snp_files("vlek-vmpl1", "vlek.der")
    strict = policy(AMD_SNP, revocation="optional")
    open_ = policy(
        AMD_SNP,
        revocation="optional",
        snp={"vmpl": [1], "signing_keys": ["vlek"], "masked_chip_id": True},
    )

    assert codes(judged(bundle, VLEK.fetch, strict, at=VLEK.at)) == {
        "snp-signing-key-not-accepted",
        "snp-chip-masked",
        "snp-vmpl",
    }
    assert judged(bundle, VLEK.fetch, open_, at=VLEK.at).tier is Tier.AFFIRMING


def test_no_kind_is_accepted_that_the_policy_does_not_name() -> None:
    bundle = snp_files("milan-v3", "vcek.pem", "ask.pem")
    result = judged(bundle, nothing, policy(INTEL_TDX, revocation="optional"), at=SNP_AT)

    assert codes(result) == {"kind-absent", "kind-not-accepted"}


# --- TDX --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["up-to-date-v4", "up-to-date-v5-td15ex"])
def test_a_real_trust_domain_is_affirmed(name: str) -> None:
    bundle = read([(TDX / name / "quote.bin").read_bytes()])

    result = judged(bundle, recorded_collateral(name).get, policy(INTEL_TDX), at=UP_TO_DATE[name])

    assert (result.tier, codes(result)) == (Tier.AFFIRMING, set())
    assert (result.cpu, result.revocation, result.emulated) == (INTEL_TDX, "good", False)
    assert len(result.collateral) == 4


def test_without_intels_documents_nothing_is_decided() -> None:
    bundle = read([(TDX / "up-to-date-v4" / "quote.bin").read_bytes()])

    result = judged(bundle, nothing, policy(INTEL_TDX), at=UP_TO_DATE["up-to-date-v4"])

    assert (result.tier, codes(result)) == (Tier.NONE, {"tdx-collateral-unavailable"})


def test_a_debug_domain_is_refused_whatever_the_policy() -> None:
    bundle = read([(TDX / "debug-td" / "quote.bin").read_bytes()])

    assert codes(judged(bundle, nothing, policy(INTEL_TDX), at=UP_TO_DATE["up-to-date-v4"])) == {"tdx-debug"}


def test_documents_that_could_not_be_fetched_anew_are_told_and_limit_the_verdict() -> None:
    name, hour = "up-to-date-v4", timedelta(hours=1)
    at = UP_TO_DATE[name]
    bundle = read([(TDX / name / "quote.bin").read_bytes()])

    def fetch(need: Need) -> Document | None:
        found = recorded_collateral(name).get(need)
        return found and Document(found.data, stale_since=at - (hour if "crl" in need.kind else 0 * hour))

    result = judged(bundle, fetch, policy(INTEL_TDX), at=at)
    assert (result.tier, codes(result)) == (Tier.NONE, {"collateral-stale"})
    patient = judged(bundle, fetch, policy(INTEL_TDX, collateral_stale_hours_max=2, lifetime_seconds=86_400), at=at)
    assert (patient.tier, patient.expires_at) == (Tier.AFFIRMING, at + hour)


def test_a_real_worker_is_read_as_a_whole() -> None:
    """A Secret AI worker: its quote commits to the nonce of its GPU; only NVIDIA's documents were not recorded."""
    bundle = read([(TDX / VM / "cpu_quote.txt").read_bytes(), (TDX / VM / "gpu_attest.json").read_bytes()])
    assert [evidence.kind for evidence in bundle] == [INTEL_TDX, NVIDIA]
    nonce = Nonce(bundle[1].payload[4:36])
    rules = policy(INTEL_TDX, NVIDIA, gpus=1, revocation="optional", nonce="required")

    result = judged(bundle, recorded_collateral(VM).get, rules, at=UP_TO_DATE[VM], nonce=nonce)

    assert (result.tier, codes(result)) == (Tier.NONE, {"rim-unavailable"})
    assert (result.freshness, result.cpu) == ("nonce", INTEL_TDX)
    assert "nonce-mismatch" in codes(
        judged(bundle, recorded_collateral(VM).get, rules, at=UP_TO_DATE[VM], nonce=Nonce(bytes(32)))
    )


# --- several kinds ----------------------------------------------------------------------------------------------------
def test_a_gpu_and_a_cpu_are_one_node() -> None:
    gpu, cpu = hopper_550(), snp_files("milan-v3", "vcek.pem", "ask.pem")
    at = datetime(2026, 3, 1, tzinfo=UTC)
    rims = Folder(VECTORS / "nvidia" / "hopper-550.90.07").at(at)
    bundle = (*gpu.bundle, *cpu)
    rules = policy(NVIDIA, AMD_SNP, gpus=1, revocation="optional")

    result = judged(bundle, rims, rules, at=at, nonce=gpu.nonce)

    assert (result.tier, codes(result)) == (Tier.AFFIRMING, set())
    assert {claim.kind for claim in result.claims} == {NVIDIA, AMD_SNP}
    # Its CPU has answered nothing: that alone makes the whole not fresh.
    assert result.freshness == "not checked"
    assert codes(judged(gpu.bundle, rims, rules, at=at)) == {"kind-absent"}
    assert codes(judged(cpu, rims, rules, at=at)) == {"kind-absent", "device-count"}


def test_one_cpu_twice_is_no_two() -> None:
    bundle = snp_files("milan-v3", "vcek.pem", "ask.pem") * 2

    assert codes(judged(bundle, nothing, policy(AMD_SNP, revocation="optional"), at=SNP_AT)) == {"device-duplicate"}


# --- NRAS -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "file",
    [
        "hopper-550.90.07/nras_v3claims_detached_eat.json",
    ],
)
def test_a_real_answer_of_nras_waits_for_the_keys_of_its_day(file: str) -> None:
    bundle = read([(VECTORS / "nvidia" / file).read_bytes()])
    assert [evidence.kind for evidence in bundle] == [NVIDIA_NRAS]

    result = judged(bundle, nothing, policy(NVIDIA_NRAS, gpus=1), at=datetime(2025, 6, 11, tzinfo=UTC))

    assert (result.tier, codes(result)) == (Tier.NONE, {"nras-jwks-unavailable"})


def test_an_answer_of_a_staging_service_is_by_nobody() -> None:
    file = VECTORS / "nvidia" / "ls10-96.10.55.00.01" / "nras_stg_v3claims_detached_eat.json"
    result = judged(read([file.read_bytes()]), nothing, policy(NVIDIA_NRAS), at=datetime(2025, 6, 29, tzinfo=UTC))

    assert (result.tier, codes(result)) == (Tier.CONTRAINDICATED, {"nras-issuer"})


# --- the command ------------------------------------------------------------------------------------------------------
RULES = """
name = "own"
kinds = ["amd-snp", "intel-tdx"]
required = ["{kind}"]
nonce = "optional"
revocation = "optional"
[nvidia]
gpus_min = 0
"""


@pytest.mark.parametrize(
    ("kind", "files", "at", "status", "said"),
    [
        ("amd-snp", ["snp/milan-v3/report.bin", "snp/milan-v3/vcek.pem", "snp/milan-v3/ask.pem"], "2026-06-01", 0, ""),
        ("amd-snp", ["snp/milan-v3/report.bin"], "2026-06-01", 10, "snp-vek-unavailable"),
        ("amd-snp", ["snp/milan-v3/report.bin", "snp/turin-v5/vcek.pem"], "2026-06-01", 10, "snp-"),
        ("intel-tdx", ["tdx/debug-td/quote.bin"], "2026-06-01", 10, "tdx-debug"),
        ("intel-tdx", ["snp/milan-v3/report.bin", "snp/milan-v3/vcek.pem"], "2026-06-01", 10, "kind-absent"),
    ],
)
def test_the_command_verifies_cpus(tmp_path: Any, kind: str, files: list[str], at: str, status: int, said: str) -> None:
    rules = tmp_path / "own.toml"
    rules.write_text(RULES.format(kind=kind))
    assert parse(rules.read_text()).required == {kind}
    paths = [str(VECTORS / file) for file in files]

    ended = CliRunner().invoke(main, ["verify", *paths, "--at", f"{at}T00:00:00Z", "--policy", str(rules)])

    assert ended.exit_code == status
    assert said in ended.output
    assert "Traceback" not in ended.output
