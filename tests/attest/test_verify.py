"""The loop around verifiers: plugins, collateral, several devices, one verifier for many, and for many threads."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import timedelta
from importlib.metadata import EntryPoint

import pytest

from attest import reasons
from attest import verify as verifying
from attest.anchors import VENDORS, Anchors
from attest.claims import Claims
from attest.collateral import CollateralKind, Document, Need
from attest.errors import MalformedEvidence, UntrustedCollateral
from attest.evidence import NVIDIA, Evidence, Nonce
from attest.memo import Memo
from attest.nvidia.verifier import NvidiaVerifier
from attest.result import Tier
from attest.verify import ROUNDS_MAX, gather, installed, verify
from tests.attest.world import AT, MODEL, NONCE, codes


def need(name):
    return Need(CollateralKind.NVIDIA_RIM, name)


@dataclass
class Toy:
    """A verifier that asks for what its evidence names, and claims what its evidence says."""

    kind: str = "toy"
    asked: list = field(default_factory=list)
    seen: list = field(default_factory=list)
    met: list = field(default_factory=list)

    def needs(self, evidence, have):
        self.asked.append(dict(have))
        return frozenset(map(need, json.loads(evidence.payload).get("needs", []))) - have.keys()

    def verify(self, evidence, collateral, *, nonce, now):
        self.seen.append(dict(collateral))
        said = json.loads(evidence.payload)
        if said.get("bad"):
            raise MalformedEvidence(reasons.REPORT_MALFORMED)
        if said.get("undecided"):
            raise UntrustedCollateral(reasons.RIM_DIGEST)
        values = said.get("values", {})
        return Claims(
            said.get("kind", self.kind), said.get("device", "toy-0"), said.get("emulated", False), AT, values, {}
        )

    def together(self, claims):
        """Toys of one node must be of one colour."""
        self.met.append([claim.device for claim in claims])
        colours = {claim.values["colour"] for claim in claims if claim.kind == self.kind and "colour" in claim.values}
        if len(colours) > 1:
            yield reasons.DEVICES_DIFFER, " and ".join(sorted(colours)), "one colour"


def toy(**said):
    return Evidence("toy", json.dumps(said).encode())


def ask(*bundle, verifier=None, fetch=lambda _need: None):
    return verify(bundle, {"toy": verifier or Toy()}, fetch, nonce=None, now=AT)


# --- plugins ----------------------------------------------------------------------------------------------------------
class Point(EntryPoint):
    def load(self):
        return {"toy": lambda _anchors: Toy(), "liar": lambda _anchors: Toy("nvidia"), "ours": NvidiaVerifier}[
            self.value
        ]


def offering(monkeypatch, *points):
    monkeypatch.setattr(verifying, "entry_points", lambda group: [Point(name, value, group) for name, value in points])


def test_ours_is_installed_by_the_same_door_as_anyones():
    assert isinstance(installed(VENDORS)[NVIDIA], NvidiaVerifier)


def test_a_verifier_is_found_by_the_kind_that_it_reads(monkeypatch):
    offering(monkeypatch, ("toy", "toy"), ("nvidia", "ours"))

    assert sorted(installed(VENDORS)) == ["nvidia", "toy"]


def test_two_verifiers_of_one_kind_are_an_error(monkeypatch):
    offering(monkeypatch, ("nvidia", "ours"), ("nvidia", "ours"))

    with pytest.raises(ValueError, match="nvidia"):
        installed(VENDORS)


def test_a_verifier_under_another_name_than_its_kind_is_an_error(monkeypatch):
    offering(monkeypatch, ("toy", "liar"))

    with pytest.raises(ValueError, match="nvidia"):
        installed(VENDORS)


@pytest.mark.parametrize("kind", ["", "nvidia", "TOY", "toy ", "intel-tdx"])
def test_a_kind_that_nobody_reads_is_unsupported(kind):
    (refusal,) = ask(replace(toy(), kind=kind)).refusals

    assert (refusal.device, refusal.reason) == (0, reasons.KIND_UNSUPPORTED)


def test_without_verifiers_nothing_is_verified():
    verification = verify((toy(),), {}, lambda _need: None, nonce=None, now=AT)

    assert (verification.claims, codes(verification)) == ((), {"kind-unsupported"})


def test_no_verifier_speaks_for_another_kind():
    verification = ask(toy(kind="nvidia"))

    assert (verification.claims, codes(verification)) == ((), {"kind-unsupported"})


# --- collateral -------------------------------------------------------------------------------------------------------
def test_a_verifier_sees_what_it_asked_for_and_nothing_else():
    verifier, fetched = Toy(), []

    def fetch(wanted):
        fetched.append(wanted.name)
        return Document(wanted.name.encode()) if wanted.name != "absent" else None

    ask(toy(needs=["a", "b", "absent"]), verifier=verifier, fetch=fetch)

    assert fetched == ["a", "absent", "b"]
    assert [sorted(each.name for each in seen) for seen in verifier.seen] == [["a", "b"]]


def test_what_cannot_be_had_is_asked_for_once():
    calls = []
    gather(Toy(), toy(needs=["a"]), lambda wanted: calls.append(wanted))

    assert len(calls) == 1


def test_a_verifier_may_ask_again_but_not_for_ever():
    @dataclass
    class Greedy(Toy):
        def needs(self, evidence, have):
            return frozenset({need(f"document {len(have)}")})

    fetched = []

    have = gather(Greedy(), toy(), lambda wanted: fetched.append(wanted) or Document(b""))

    assert len(fetched) == len(have) == ROUNDS_MAX


def test_documents_are_named_by_their_content():
    assert Document(b"a").sha256 == Document.of(b"a").sha256 != Document(b"b").sha256
    with pytest.raises(TypeError):
        Document(b"a", sha256=Document(b"b").sha256)
    assert "secret" not in repr(Document(b"secret"))


# --- several devices --------------------------------------------------------------------------------------------------
def test_one_failure_fails_all_wherever_it_stands():
    for place in range(3):
        bundle = [toy(device=f"toy-{n}", bad=n == place) for n in range(3)]

        verification = ask(*bundle)

        assert [(refusal.device, refusal.reason) for refusal in verification.refusals] == [
            (place, reasons.REPORT_MALFORMED)
        ]
        assert len(verification.claims) == 2


def test_every_failing_device_is_told():
    assert [refusal.device for refusal in ask(toy(bad=True), toy(), toy(bad=True)).refusals] == [0, 2]


def test_a_device_counts_once():
    (refusal,) = ask(toy(device="a"), toy(device="b"), toy(device="a")).refusals

    assert (refusal.device, refusal.reason, refusal.found) == (-1, reasons.DEVICE_DUPLICATE, "a")


def test_devices_of_one_kind_are_compared_by_its_verifier():
    refusals = ask(toy(device="a", values={"colour": "red"}), toy(device="b", bad=True),
                   toy(device="c", values={"colour": "blue"})).refusals  # fmt: skip

    assert [(each.device, each.reason) for each in refusals] == [
        (1, reasons.REPORT_MALFORMED),
        (-1, reasons.DEVICES_DIFFER),
    ]
    assert refusals[1].found == "blue and red"


def test_a_vendors_device_beside_an_emulated_one_is_refused():
    (refusal,) = ask(toy(device="a"), toy(device="b", emulated=True)).refusals

    assert (refusal.device, refusal.reason) == (-1, reasons.ROOTS_MIXED)


def test_every_kind_in_the_bundle_looks_at_all_claims_together_once():
    verifiers = {"toy": Toy(), "other": Toy("other"), "absent": Toy("absent")}
    bundle = (toy(device="a", values={"colour": "1"}), replace(toy(device="b", values={"colour": "2"}), kind="other"))

    assert not verify(bundle, verifiers, lambda _need: None, nonce=None, now=AT).refusals
    assert [verifiers[kind].met for kind in ("toy", "other", "absent")] == [[["a", "b"]], [["a", "b"]], []]


def test_neighbours_of_an_undecided_device_are_not_blamed_for_its_absence():
    """A box of twelve of which one lacks a document is no box of eleven. That each counts once holds all the same."""
    verifier = Toy()
    bundle = (toy(device="a", values={"colour": "1"}), toy(undecided=True), toy(device="b", values={"colour": "2"}))

    assert codes(ask(*bundle, verifier=verifier)) == {"rim-digest"}
    assert verifier.met == []
    assert codes(ask(*bundle, toy(device="a"))) == {"rim-digest", "device-duplicate"}


def test_no_evidence_is_no_claim():
    assert ask() == verifying.Verification((), ())


# --- one verifier for many --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("vendors", ["nvidia_device", "nvidia_rim"])
def test_a_vendors_device_is_not_measured_by_an_emulators_manifest_nor_the_other_way_round(
    world, good, monkeypatch, vendors
):
    """One of the emulator's two roots is taken for the vendor's."""
    (root,) = getattr(world.anchors, vendors)
    monkeypatch.setattr("attest.anchors.VENDOR_FINGERPRINTS", frozenset({root.spki_sha256}))

    (refusal,) = world.verify(good).refusals

    assert (refusal.device, refusal.reason) == (0, reasons.ROOTS_MIXED)


def test_a_bad_device_never_reports_its_predecessors_success(world):
    verifier = world.verifier()
    good, bad = world.gpu("gpu-0"), world.gpu("gpu-0").spoiled("measurement-changed")
    for _ in range(3):
        assert world.judge(good.evidence(NONCE), verifier=verifier).tier is Tier.AFFIRMING
        result = world.judge(bad.evidence(NONCE), verifier=verifier)
        assert (result.tier, codes(result)) == (Tier.CONTRAINDICATED, {"measurements-mismatch"})


@pytest.mark.parametrize(
    "defect", ["signature-zero", "nonce-patched", "fwid-mismatch", "leaf-removed", "foreign-root", "field-truncated"]
)
def test_a_refusal_before_and_after_success_is_the_same(world, good, defect):
    bad = world.gpu().spoiled(defect).evidence(NONCE)
    alone = world.verify(bad).refusals
    verifier = world.verifier()
    world.verify(good, verifier=verifier)

    assert world.verify(bad, verifier=verifier).refusals == alone
    assert world.verify(good, bad, verifier=verifier).refusals[0].device == 1


def test_the_nonce_is_compared_anew_with_every_use(world, good):
    verifier = world.verifier()
    other = Nonce(bytes(32))

    assert not world.verify(good, verifier=verifier).refusals
    assert codes(world.verify(good, verifier=verifier, nonce=other)) == {"nonce-mismatch"}
    assert not world.verify(good, verifier=verifier).refusals


def test_a_rim_that_was_good_makes_no_other_rim_good(world, good):
    verifier = world.verifier()
    spoiled = world.documents[MODEL.vbios_rim_id].data.replace(b'active="True"', b'active="False"', 1)
    edited, absent = world.with_vbios_rim(spoiled), replace(world, documents={})

    for _ in range(2):
        assert world.judge(good, verifier=verifier).tier is Tier.AFFIRMING
        assert codes(edited.judge(good, verifier=verifier)) >= {"rim-digest"}
        assert codes(absent.judge(good, verifier=verifier)) == {"rim-unavailable"}


def test_rims_in_each_others_place_are_refused_also_once_both_are_known(world, good):
    verifier = world.verifier()
    world.verify(good, verifier=verifier)
    swapped = dict(zip(world.documents, reversed(world.documents.values()), strict=True))

    assert codes(replace(world, documents=swapped).verify(good, verifier=verifier)) == {"rim-binding"}


def test_times_of_rims_are_compared_anew_with_every_use(world, good):
    verifier = world.verifier()
    end = world.pki.rim_l4.certificate.not_valid_after_utc

    for _ in range(2):
        assert world.judge(good, verifier=verifier).tier is Tier.AFFIRMING
        assert codes(world.judge(good, verifier=verifier, now=end)) == {"rim-expired"}
        begin = world.pki.rim_l4.certificate.not_valid_before_utc - timedelta(seconds=1)
        assert codes(world.judge(good, verifier=verifier, now=begin)) >= {"rim-time"}


def test_what_one_verifier_trusts_no_other_does(world, good):
    assert not world.verify(good).refusals
    assert codes(world.verify(good, verifier=NvidiaVerifier(VENDORS))) == {"chain-root"}
    assert codes(world.verify(good, verifier=NvidiaVerifier(Anchors()))) == {"chain-root"}
    only_rims = NvidiaVerifier(Anchors(nvidia_device=VENDORS.nvidia_device, nvidia_rim=world.anchors.nvidia_rim))
    assert codes(world.verify(good, verifier=only_rims)) == {"chain-root"}
    only_devices = NvidiaVerifier(Anchors(nvidia_device=world.anchors.nvidia_device, nvidia_rim=VENDORS.nvidia_rim))
    assert codes(world.verify(good, verifier=only_devices)) == {"rim-chain"}


def test_threads_share_a_verifier(world):
    """Good and bad devices in turn, from cold, eight at a time: each gets its own verdict."""
    gpus = [world.gpu(f"thread-{n}") for n in range(6)]
    defects = ["measurement-changed", "fwid-mismatch", "signature-zero", "foreign-root", "wrong-nonce", "leaf-removed"]
    asked = [(gpu.evidence(NONCE), set()) for gpu in gpus]
    asked += [(gpu.spoiled(name).evidence(NONCE), codes(world.judge(gpu.spoiled(name).evidence(NONCE))))
              for gpu, name in zip(gpus, defects, strict=True)]  # fmt: skip
    verifier = world.verifier()

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda each: codes(world.judge(each[0], verifier=verifier)), asked * 8))

    assert found == [wanted for _, wanted in asked * 8]
    assert all(wanted for _, wanted in asked[6:])


# --- memory -----------------------------------------------------------------------------------------------------------
def test_memory_is_bounded_and_forgets_what_was_not_asked_for_longest():
    memo = Memo(2)
    memo.put(b"a", 1)
    memo.put(b"b", 2)
    memo.get(b"a")
    memo.put(b"c", 3)

    assert [memo.get(key) for key in (b"a", b"b", b"c")] == [1, None, 3]


def test_memory_holds_between_threads():
    memo = Memo(8)

    def work(n):
        memo.put(str(n % 20), n % 20)
        return memo.get(str(n % 20))

    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(work, range(2_000)))

    assert found <= {None, *range(20)}
    assert sum(memo.get(str(n)) is not None for n in range(20)) <= 8
