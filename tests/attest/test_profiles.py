"""
Binding profiles: each equation holds in a good world, and falls with every part of it.

Report data is computed here by hand. Real: a Secret AI worker. Emulated: an Intel machine beside GPUs.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from attest.__main__ import main
from attest.anchors import load_emulated
from attest.appraise import appraise
from attest.binding import Binding, Presented, Statement, Strength, gpu_nonce, report_data
from attest.claims import Claims
from attest.evidence import AMD_SNP, INTEL_TDX, NVIDIA, NVIDIA_NRAS, Bundle, Evidence, Nonce, dumps
from attest.folder import Folder
from attest.policy import Asked, shipped
from attest.profiles import judge, to_verify_against
from attest.result import Tier
from attest.verify import Refusal, Verification, installed
from nodeprobe.emulator import MODELS, EmulatedGpu, Pki, publish
from nodeprobe.emulator.cpu import TDX_COLLATERAL, EmulatedCpu
from nodeprobe.emulator.serving import make_certificate
from nodeprobe.gathering import of_node
from tests.evidence import VECTORS, needs_vectors

NOW = datetime(2030, 1, 1, tzinfo=UTC)
CALLERS = Nonce(hashlib.sha256(b"a challenge").digest())
OTHER = hashlib.sha256(b"another").digest()
TLS, CERTIFICATE = hashlib.sha256(b"a key").digest(), hashlib.sha256(b"a certificate").digest()
ADDRESS, E2E_KEY, HPKE_KEY = bytes(range(1, 21)), base64.b64encode(b"e2e" * 30).decode(), hashlib.sha256(b"h").digest()
STATEMENT = Statement(CALLERS.hex(), "192.0.2.7", "secret1wallet", "02" + "ab" * 32, TLS.hex())
PEM = b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"


def h(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def gpu(nonce: bytes, number: int = 0) -> Evidence:
    """As much of a report as a profile reads."""
    return Evidence(NVIDIA, bytes.fromhex("11e001ff") + nonce + bytes([number]) * 90, PEM)


def claim(kind: str, **values: Any) -> Claims:
    return Claims(kind, f"{kind}-{len(values)}", False, NOW + timedelta(days=1), values, {})


@dataclass(frozen=True)
class Scene:
    """A node: what its CPU TEE was proved to have signed, its GPUs, and what is known of it by other means."""

    data: bytes | None
    gpus: Bundle
    known: Presented
    kind: str = INTEL_TDX

    @property
    def bundle(self) -> Bundle:
        return self.gpus if self.data is None else (Evidence(self.kind, b"quote"), *self.gpus)

    @property
    def claims(self) -> tuple[Claims, ...]:
        return () if self.data is None else (claim(self.kind, report_data=self.data.hex()),)

    def judge(self) -> Binding:
        return judge(self.claims, self.bundle, self.known)


def sections_of(gpus: Bundle, *more: bytes) -> tuple[bytes, ...]:
    listed = [
        {"evidence": base64.b64encode(g.payload).decode(), "certificate": base64.b64encode(g.certificates).decode()}
        for g in gpus
    ]
    return (json.dumps({"evidences": listed}, separators=(",", ":")).encode(), *more)


def ours(kind: str = INTEL_TDX) -> Scene:
    said = hashlib.sha256(rfc8785.dumps({name: getattr(STATEMENT, name) for name in STATEMENT.__slots__})).digest()
    nonce = h(b"workermanager/v1 gpu\0", said)
    gpus = (gpu(nonce), gpu(nonce, 1))
    return Scene(h(b"workermanager/v1 cpu\0", said, dumps(gpus)) + CALLERS, gpus, Presented(STATEMENT), kind)


def secretvm() -> Scene:
    own = h(b"drawn at boot")
    return Scene(TLS + own, (gpu(own),), Presented(tls_spki_sha256=TLS, tls_certificate_sha256=CERTIFICATE))


def secretvm_older() -> Scene:
    return replace(secretvm(), data=CERTIFICATE + h(b"drawn at boot"))


def chutes() -> Scene:
    own = h(CALLERS.hex().encode(), E2E_KEY.encode())
    known = Presented(nonce=CALLERS, e2e_key=E2E_KEY, tls_spki_sha256=TLS)
    return Scene(own + TLS, tuple(gpu(own, n) for n in range(8)), known)


def near() -> Scene:
    known = Presented(nonce=CALLERS, signing_address=ADDRESS, tls_spki_sha256=TLS)
    return Scene(h(ADDRESS, TLS) + CALLERS, (gpu(CALLERS),), known)


def phala() -> Scene:
    known = Presented(nonce=CALLERS, signing_address=ADDRESS)
    return Scene(ADDRESS.ljust(32, b"\0") + CALLERS, (gpu(CALLERS), gpu(CALLERS, 1)), known)


def tinfoil() -> Scene:
    gpus = (gpu(CALLERS), gpu(CALLERS, 1))
    sections = sections_of(gpus)
    data = h(TLS, HPKE_KEY, CALLERS, h(sections[0])) + bytes(32)
    known = Presented(nonce=CALLERS, tls_spki_sha256=TLS, hpke_key=HPKE_KEY, sections=sections)
    return Scene(data, gpus, known)


def tinfoil_with_switches() -> Scene:
    gpus, switches = (gpu(CALLERS),), (gpu(CALLERS, 9),)
    sections = (*sections_of(gpus), *sections_of(switches))
    data = h(TLS, HPKE_KEY, CALLERS, h(sections[0]), h(sections[1])) + bytes(32)
    known = Presented(nonce=CALLERS, tls_spki_sha256=TLS, hpke_key=HPKE_KEY, sections=sections)
    return Scene(data, gpus + switches, known)


PROFILES = [
    (ours, "workermanager/v1", Strength.EVIDENCE_COVERED, True),
    (lambda: ours(AMD_SNP), "workermanager/v1", Strength.EVIDENCE_COVERED, True),
    (tinfoil, "tinfoil", Strength.EVIDENCE_COVERED, True),
    (tinfoil_with_switches, "tinfoil", Strength.EVIDENCE_COVERED, True),
    (chutes, "chutes", Strength.COMMITTED, True),
    (secretvm, "secretvm", Strength.COMMITTED, False),
    (secretvm_older, "secretvm", Strength.COMMITTED, False),
    (near, "near", Strength.NONCE, True),
    (phala, "phala", Strength.NONCE, True),
]
SCENES = [pytest.param(make, id=f"{name}-{at}") for at, (make, name, _, _) in enumerate(PROFILES)]


@pytest.mark.parametrize(("make", "profile", "strength", "fresh"), PROFILES)
def test_each_profile_holds_in_its_own_world_and_in_no_other(make, profile, strength, fresh):
    scene = make()
    found = scene.judge()

    assert (found.profile, found.strength, found.mismatch) == (profile, strength, None)
    assert found.covers_cpu is fresh
    assert found.nonce == (scene.known.nonce.hex() if scene.known.nonce else None)


@pytest.mark.parametrize("make", SCENES)
@pytest.mark.parametrize("at", [0, 19, 31, 32, 40, 63])
def test_every_changed_byte_of_report_data_counts(make, at):
    scene = make()
    data = bytearray(scene.data)
    data[at] ^= 1
    found = replace(scene, data=bytes(data)).judge()

    assert (found.profile, found.strength, found.nonce) == ("none", Strength.NONE, None)
    assert found.mismatch is not None


@pytest.mark.parametrize("make", SCENES)
def test_every_gpu_must_answer(make):
    scene = make()
    for at, one in enumerate(scene.gpus):
        foreign = gpu(OTHER, one.payload[40])
        found = replace(scene, gpus=(*scene.gpus[:at], foreign, *scene.gpus[at + 1 :])).judge()
        assert (found.profile, found.mismatch is not None) == ("none", True)


@pytest.mark.parametrize("make", SCENES)
@pytest.mark.parametrize("garbage", [b"", b"\x11\xe0\x01\xff", bytes(64)])
def test_a_gpu_whose_nonce_cannot_be_read_answers_nothing(make, garbage):
    scene = make()
    assert replace(scene, gpus=(*scene.gpus, Evidence(NVIDIA, garbage))).judge().mismatch is not None


FACTS = {
    "statement": replace(STATEMENT, payment_wallet="secret1thief"),
    "nonce": Nonce(OTHER),
    "tls_spki_sha256": OTHER,
    "signing_address": bytes(20),
    "e2e_key": "b3RoZXI=",
    "hpke_key": OTHER,
}


@pytest.mark.parametrize("make", SCENES)
@pytest.mark.parametrize("fact", FACTS)
def test_every_fact_that_is_presented_must_be_committed_to(make, fact):
    """Whether the profile speaks of that fact and says another, or says nothing of it."""
    scene = make()
    changed = replace(scene.known, **{fact: FACTS[fact], **({"tls_certificate_sha256": None} if "tls" in fact else {})})
    found = replace(scene, known=changed).judge()

    assert (found.profile, found.nonce) == ("none", None)
    assert found.mismatch is not None


def test_a_section_that_is_not_the_evidence_covers_nothing():
    scene = tinfoil()
    for sections in (
        sections_of(scene.gpus[:1]),
        sections_of((*scene.gpus, gpu(CALLERS, 2))),
        sections_of(tuple(reversed(scene.gpus))),
        (b"{}",),
        (),
        (*sections_of(scene.gpus), b"{}", b"{}"),
    ):
        data = h(TLS, HPKE_KEY, CALLERS, *map(h, sections)) + bytes(32)
        found = replace(scene, data=data, known=replace(scene.known, sections=sections)).judge()
        assert found.profile == "none", sections


# --- what is not presented is not claimed -----------------------------------------------------------------------------
def test_secretvm_is_recognised_without_a_key_and_is_never_fresh():
    scene = replace(secretvm(), known=Presented())
    assert scene.judge() == Binding("secretvm", Strength.COMMITTED)

    asked = replace(scene, known=Presented(nonce=CALLERS)).judge()
    assert (asked.profile, asked.nonce) == ("none", None)
    assert asked.mismatch == ("secretvm, without the nonce", "evidence that commits to the nonce")


def test_a_secretvm_without_gpus_says_so_by_zeros():
    key = Presented(tls_spki_sha256=TLS)
    assert Scene(TLS + bytes(32), (), key).judge().profile == "secretvm"
    assert Scene(TLS + OTHER, (), key).judge().mismatch is not None  # it has one, and left it out
    assert Scene(TLS + bytes(32), (gpu(OTHER),), key).judge().mismatch is not None
    assert Scene(TLS + bytes(32), (), Presented()).judge() == Binding()


def test_the_callers_nonce_in_both_is_not_taken_for_a_value_of_the_vm():
    """Trap: the layouts of near and phala have the shape of secretvm's, whose strength is more."""
    for make in (near, phala):
        scene = make()
        assert replace(scene, known=Presented(nonce=CALLERS)).judge() == Binding(
            "none", covers_cpu=True, nonce=CALLERS.hex()
        )
    assert replace(phala(), known=Presented()).judge() == Binding()


def test_chutes_without_its_key_is_committed_and_not_fresh():
    scene = replace(chutes(), known=Presented(tls_spki_sha256=TLS))
    assert scene.judge() == Binding("chutes", Strength.COMMITTED)
    without_key = replace(scene, known=Presented(nonce=CALLERS)).judge()
    assert (without_key.profile, without_key.nonce) == ("none", None)


def test_a_bare_nonce_in_both_is_an_answer_and_no_profile():
    for data in (CALLERS + OTHER, OTHER + CALLERS):
        found = Scene(data, (gpu(CALLERS),), Presented(nonce=CALLERS)).judge()
        assert found == Binding("none", Strength.NONE, covers_cpu=True, nonce=CALLERS.hex())
    assert Scene(OTHER + OTHER, (gpu(CALLERS),), Presented(nonce=CALLERS)).judge().mismatch is not None


# --- who speaks -------------------------------------------------------------------------------------------------------
def test_gpus_alone_are_bound_by_nonce():
    scene = replace(ours(), data=None)
    assert scene.judge() == Binding("workermanager/v1", Strength.NONCE)
    other = replace(STATEMENT, ip_address="192.0.2.8")
    assert replace(scene, known=Presented(other)).judge() == Binding()  # the verification refuses it: nonce-mismatch


def test_a_cpu_that_was_refused_says_nothing():
    """Intel's documents may be out of reach: the GPUs' word counts, and nobody is accused."""
    scene = ours()
    assert judge((), scene.bundle, scene.known) == Binding("workermanager/v1", Strength.NONCE)
    assert judge((), secretvm().bundle, secretvm().known) == Binding()


def test_two_cpus_are_none():
    scene = ours()
    twice = judge(scene.claims * 2, (scene.bundle[0], *scene.bundle), scene.known)
    assert (twice.profile, twice.mismatch is not None) == ("none", True)
    bare = Presented(nonce=CALLERS)
    one = Scene(CALLERS + OTHER, (gpu(CALLERS),), bare)
    assert judge(one.claims * 2, (one.bundle[0], *one.bundle), bare).nonce is None


@pytest.mark.parametrize("said", [None, 5, "", "zz" * 64, "00" * 63])
def test_report_data_that_is_none_commits_to_nothing(said):
    scene = ours()
    found = judge((claim(INTEL_TDX, report_data=said),), scene.bundle, scene.known)
    assert found.mismatch is not None


def test_tokens_of_a_remote_verifier_count_by_their_claims():
    scene = replace(ours(), data=None, gpus=(Evidence(NVIDIA_NRAS, b"token"),))
    nonce = gpu_nonce(STATEMENT).hex()
    assert judge((claim(NVIDIA_NRAS, nonce=nonce),), scene.bundle, scene.known).strength is Strength.NONCE
    for claims in ((), (claim(NVIDIA_NRAS, nonce=OTHER.hex()),), (claim(NVIDIA_NRAS, nonce=7),)):
        assert judge(claims, scene.bundle, scene.known).strength is Strength.NONE


def test_where_a_token_was_refused_nothing_is_missed_for_its_sake():
    """What a refused token commits to is not known, perhaps through no fault of the node; of a report it is."""
    known, reports = Presented(tls_spki_sha256=OTHER), (gpu(CALLERS),)

    assert judge((), (Evidence(NVIDIA_NRAS, b"token"),), known) == Binding()
    assert judge((), (Evidence(NVIDIA_NRAS, b"token"), *reports), known) == Binding()
    assert judge((), reports, known).mismatch is not None


def test_what_is_verified_against_what():
    gpus, both = (gpu(CALLERS),), ours().bundle
    assert to_verify_against(gpus, Presented(nonce=CALLERS)) == CALLERS
    assert to_verify_against(both, Presented(nonce=CALLERS)) is None
    assert to_verify_against(both, Presented(STATEMENT)) == gpu_nonce(STATEMENT)


def test_a_challenge_that_is_no_challenge_makes_no_report_data():
    with pytest.raises(ValueError, match="bytes"):
        report_data(replace(STATEMENT, challenge="11"), ())
    for challenge in ("", "11", "zz" * 32):
        scene = replace(ours(), known=Presented(replace(STATEMENT, challenge=challenge)))
        assert scene.judge().mismatch is not None


@given(st.binary(min_size=64, max_size=64), st.lists(st.binary(min_size=32, max_size=32), max_size=3))
def test_nothing_random_is_bound(data, nonces):
    found = Scene(data, tuple(map(gpu, nonces)), Presented(STATEMENT)).judge()
    assert (found.profile, found.strength) == ("none", Strength.NONE)


# --- the appraisal rests on it ----------------------------------------------------------------------------------------
def appraised(scene: Scene, binding: Binding, *, refusals: tuple[Refusal, ...] = (), **rules: Any) -> Any:
    """Of claims that a lab policy has nothing against but what the CPU's own rules say."""
    policy = shipped("lab").model_copy(update={"nonce": Asked.REQUIRED, **rules})
    verification = Verification(scene.claims, refusals)
    return appraise(verification, policy, bundle=scene.bundle, nonce=None, now=NOW, binding=binding)


def codes(result: Any) -> set[str]:
    return {finding.reason.code for finding in result.failed}


def test_fresh_by_profile_is_fresh_and_by_none_is_not():
    scene = chutes()
    good = appraised(scene, scene.judge())
    assert (good.freshness, good.nonce, "nonce-not-given" in codes(good)) == ("nonce", CALLERS.hex(), False)
    static = replace(secretvm(), known=Presented())
    stale = appraised(static, static.judge())
    assert (stale.freshness, stale.nonce, "nonce-not-given" in codes(stale)) == ("not checked", None, True)


def test_a_mismatch_is_a_finding_whatever_the_policy_says():
    scene = replace(secretvm(), known=Presented(tls_spki_sha256=OTHER))
    result = appraised(scene, scene.judge(), nonce=Asked.OPTIONAL)
    assert "binding-mismatch" in codes(result)
    assert result.tier is Tier.CONTRAINDICATED


# --- a real Secret AI worker ------------------------------------------------------------------------------------------
SECRET_AI = VECTORS / "tdx" / "secretvm-tdx-and-h100"


def verified(*more: str, files: tuple[str, ...] = ("cpu_quote.txt", "gpu_attest.json")) -> tuple[int, dict[str, Any]]:
    paths = [str(SECRET_AI / name) for name in files]
    at = ["--at", "2026-10-20T00:00:00Z", "--collateral", str(SECRET_AI), "--policy", "lab", "--json"]
    done = CliRunner().invoke(main, ["verify", *paths, *at, *more])
    return done.exit_code, json.loads(done.stdout) if done.stdout.startswith("{") else {"output": done.output}


def real_report_data() -> bytes:
    return bytes.fromhex((SECRET_AI / "cpu_quote.txt").read_text())[568:632]


@needs_vectors
def test_a_real_secret_ai_worker_verifies_end_to_end():
    """Its quote and its GPU are genuine; only the reference values of its driver are not in the recordings."""
    status, said = verified("--bind-tls", real_report_data()[:32].hex())

    cpu, gpu = said["devices"]
    assert (cpu["kind"], cpu["emulated"], cpu["claims"]["tcb_status"]) == ("intel-tdx", False, "UpToDate")
    assert (gpu["kind"], gpu["emulated"], gpu["claims"]["fwid"]) == ("nvidia", False, "match")
    assert len(cpu["collateral"]) == 4
    assert said["binding"] == {"profile": "secretvm", "strength": "committed"}
    assert (said["cpu"], said["freshness"], said["emulated"]) == ("intel-tdx", "not checked", False)
    assert {each["code"] for each in said["refusals"]} == {"rim-unavailable"}
    assert (status, said["tier"]) == (10, "none")  # undecided: no fault of the worker


@needs_vectors
def test_a_real_secret_ai_worker_behind_another_key_is_refused():
    _, said = verified("--bind-tls", OTHER.hex())
    assert {each["code"] for each in said["refusals"]} == {"rim-unavailable", "binding-mismatch"}
    assert (said["tier"], said["binding"]["profile"]) == ("contraindicated", "none")


@needs_vectors
def test_a_real_secret_ai_worker_answers_nobodys_challenge():
    _, said = verified("--nonce", OTHER.hex())
    assert "binding-mismatch" in {each["code"] for each in said["refusals"]}
    assert said["freshness"] == "not checked"


@needs_vectors
def test_a_real_quote_beside_another_machines_gpu_is_unbound():
    """Cuckoo: a genuine GPU of elsewhere."""
    folder = VECTORS / "nvidia" / "hopper-550.90.07"
    elsewhere = (str(folder / "report.bin"), str(folder / "chain.pem"))
    _, said = verified(files=("cpu_quote.txt", *elsewhere))
    assert said["binding"] == {"profile": "none", "strength": "none"}
    assert said["cpu"] == "intel-tdx"


@pytest.mark.parametrize(
    "options",
    [
        ["--bind-tls", "nonsense"],
        ["--bind-tls", __file__],
        ["--bind-address", "0x12"],
        ["--bind-e2e-key", ""],
        ["--statement", __file__],
    ],
)
def test_facts_that_say_nothing_are_wrong_usage(options, tmp_path):
    file = tmp_path / "any"
    file.write_bytes(b"x")
    done = CliRunner().invoke(main, ["verify", str(file), *options])
    assert done.exit_code == 2, done.output
    assert isinstance(done.exception, SystemExit)


@pytest.mark.parametrize("text", ["[]", "{}", '{"challenge": 5}', '{"challenge": "11"}', '{"other": "x"}', "{"])
def test_a_statement_that_is_none_is_wrong_usage(text, tmp_path):
    file = tmp_path / "statement.json"
    file.write_text(text)
    done = CliRunner().invoke(main, ["verify", str(file), "--statement", str(file)])
    assert done.exit_code == 2, done.output
    assert isinstance(done.exception, SystemExit)


def test_a_statement_and_a_nonce_are_one_too_many(tmp_path):
    file = tmp_path / "statement.json"
    file.write_text(json.dumps({name: getattr(STATEMENT, name) for name in STATEMENT.__slots__}))
    done = CliRunner().invoke(main, ["verify", str(file), "--statement", str(file), "--nonce", "00" * 32])
    assert done.exit_code == 2


# --- facts on the command line ----------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> tuple[Pki, EmulatedCpu]:
    """An emulated Intel machine, and the root that vouches for it."""
    pki = Pki.create(tmp_path_factory.mktemp("emulated") / "pki", now=NOW)
    publish(pki, MODELS["h100-pcie"])
    return pki, EmulatedCpu.create(pki, "tdx", "machine", now=NOW)


def asked(node: tuple[Pki, EmulatedCpu], folder: Path, bundle: Bundle, *facts: str) -> dict[str, Any]:
    pki, _ = node
    file = folder / "evidence.json"
    file.write_bytes(dumps(bundle))
    world = ["--trust-root", str(pki.anchors), "--collateral", str(pki.rims), "--policy", "lab", "--at", "2030-01-02"]
    done = CliRunner().invoke(main, ["verify", str(file), *world, "--json", *facts])
    assert done.exit_code in (0, 10), done.output
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def one_gpu(node: tuple[Pki, EmulatedCpu], nonce: bytes) -> Evidence:
    return EmulatedGpu.create(node[0], "gpu", MODELS["h100-pcie"]).evidence(Nonce(nonce))


def test_a_statement_on_the_command_line_is_what_an_agent_answers(node, tmp_path):
    _, cpu = node
    file = tmp_path / "statement.json"
    file.write_text(json.dumps({name: getattr(STATEMENT, name) for name in STATEMENT.__slots__}))
    good = of_node(lambda nonce: (one_gpu(node, nonce),), cpu.evidence)(STATEMENT)
    said = asked(node, tmp_path, good, "--statement", str(file))

    assert (said["status"], said["freshness"], said["emulated"]) == ("accepted", "nonce", True)
    assert said["binding"] == {"profile": "workermanager/v1", "strength": "evidence-covered"}
    file.write_text(json.dumps({name: getattr(FACTS["statement"], name) for name in STATEMENT.__slots__}))
    other = asked(node, tmp_path, good, "--statement", str(file))
    assert {"nonce-mismatch", "binding-mismatch"} <= {each["code"] for each in other["refusals"]}


def test_an_address_a_key_and_a_certificate_on_the_command_line(node, tmp_path):
    _, cpu = node
    nonce = ["--nonce", CALLERS.hex()]
    by_address = (cpu.evidence(ADDRESS.ljust(32, b"\0") + CALLERS), one_gpu(node, CALLERS))
    said = asked(node, tmp_path, by_address, *nonce, "--bind-address", f"0x{ADDRESS.hex()}")
    assert (said["status"], said["nonce"], said["binding"]["profile"]) == ("accepted", CALLERS.hex(), "phala")

    own = h(CALLERS.hex().encode(), E2E_KEY.encode())
    by_key = (cpu.evidence(own + TLS), one_gpu(node, own))
    said = asked(node, tmp_path, by_key, *nonce, "--bind-e2e-key", E2E_KEY, "--bind-tls", TLS.hex())
    assert (said["status"], said["freshness"], said["binding"]["profile"]) == ("accepted", "nonce", "chutes")

    certificate = make_certificate(tmp_path / "served.pem", "127.0.0.1", now=NOW)
    spki = bytes.fromhex(certificate.spki_sha256)
    der = x509.load_pem_x509_certificate(certificate.path.read_bytes()).public_bytes(Encoding.DER)
    for first in (spki, h(der)):
        by_tls = (cpu.evidence(first + own), one_gpu(node, own))
        said = asked(node, tmp_path, by_tls, "--bind-tls", str(certificate.path))
        assert (said["status"], said["freshness"], said["binding"]["profile"]) == (
            "accepted",
            "not checked",
            "secretvm",
        )


def test_a_verdict_in_words_tells_of_the_cpu(node, tmp_path):
    pki, cpu = node
    file = tmp_path / "quote.bin"
    file.write_bytes(cpu.evidence(TLS + bytes(32)).payload)
    world = ["--trust-root", str(pki.anchors), "--collateral", str(pki.rims), "--policy", "lab", "--at", "2030-01-02"]
    done = CliRunner().invoke(main, ["verify", str(file), *world, "--bind-tls", TLS.hex()])
    assert done.exit_code == 0  # `lab` asks for no GPU
    assert "TCB UpToDate" in done.stdout
    assert "binding: secretvm (committed)    CPU TEE: intel-tdx" in done.stdout


def test_intels_documents_may_lie_in_the_folder_under_any_name(node, tmp_path):
    """One JSON as PCCS clients exchange it; another JSON, or a broken one, is passed over."""
    pki, cpu = node
    quote = cpu.evidence(TLS + bytes(32))
    (tmp_path / "any name.json").write_bytes((pki.rims / TDX_COLLATERAL).read_bytes())
    (tmp_path / "other.json").write_text("{}")
    (tmp_path / "broken.json").write_text("{")
    with (tmp_path / "huge.json").open("wb") as huge:
        huge.truncate(9 << 20)
    verifier = installed(load_emulated(pki.anchors.read_bytes()))[INTEL_TDX]
    fetch = Folder(tmp_path).at(NOW)
    assert all(fetch(need) is not None for need in verifier.needs(quote, {}))
    (tmp_path / "any name.json").unlink()
    assert not any(Folder(tmp_path).at(NOW)(need) for need in verifier.needs(quote, {}))
