"""Who is wired to whom in an HGX box: a real one, and one with one thing spoiled."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache

import pytest

from attest import reasons
from attest.anchors import VENDORS
from attest.appraise import appraise
from attest.claims import Claims
from attest.collateral import nothing
from attest.containers import read
from attest.evidence import NVIDIA, Nonce
from attest.nvidia import topology
from attest.policy import shipped
from attest.verify import installed, verify
from tests.evidence import VECTORS, needs_vectors

AT = datetime(2026, 1, 1, tzinfo=UTC)
FOLDER = VECTORS / "nvidia" / "ppcie-8-gpus-4-switches"


@cache
def box():
    """Eight GPUs, then four switches."""
    return read([(FOLDER / f"{each}_evidence.json").read_bytes() for each in ("gpu", "switch")])


def foreign_switch():
    folder = VECTORS / "nvidia" / "ls10-96.10.55.00.01"
    (switch,) = read([(folder / "report.bin").read_bytes(), (folder / "chain.pem").read_bytes()])
    return switch


VERIFIERS = installed(VENDORS)


def refused(bundle, nonce=None):
    return [refusal.reason.code for refusal in verify(bundle, VERIFIERS, nothing, nonce=nonce, now=AT).refusals]


# --- a real box -------------------------------------------------------------------------------------------------------
@needs_vectors
def test_a_real_box_names_itself():
    nonce = Nonce(box()[0].payload[4:36])
    verification = verify(box(), VERIFIERS, nothing, nonce=nonce, now=AT)

    assert verification.refusals == ()
    assert len({claim.device for claim in verification.claims}) == 12
    assert {claim.values["mode"] for claim in verification.claims} == {"ppcie"}
    result = appraise(verification, shipped("lab"), bundle=box(), nonce=nonce, now=AT)
    assert {finding.reason.code for finding in result.failed} == {"rim-unavailable"}  # they were not recorded


@needs_vectors
def test_the_order_of_the_devices_does_not_matter():
    assert refused(box()[::-1]) == refused(box()[5:] + box()[:5]) == []


@needs_vectors
@pytest.mark.parametrize("place", range(12))
def test_a_box_lacks_none_of_its_devices(place):
    assert refused(box()[:place] + box()[place + 1 :]) == ["topology"]


@needs_vectors
@pytest.mark.parametrize(("place", "other"), [(0, 7), (7, 0), (8, 11), (11, 9)])
def test_no_device_stands_for_another(place, other):
    """Eight and four by number, but one of them twice."""
    spoiled = list(box())
    spoiled[place] = spoiled[other]

    assert refused(tuple(spoiled))[0] == "device-duplicate"
    assert set(refused(tuple(spoiled))) == {"device-duplicate", "topology"}


@needs_vectors
def test_a_device_more_is_another_box():
    assert set(refused((*box(), box()[0]))) == {"device-duplicate", "topology"}
    assert refused((*box(), foreign_switch())) == ["topology"]


@needs_vectors
@pytest.mark.parametrize("place", [8, 9, 10, 11])
def test_a_genuine_switch_of_another_box_is_none_of_this(place):
    spoiled = list(box())
    spoiled[place] = foreign_switch()

    # Every GPU names the switch that is gone; the foreign one names GPUs that are not here.
    assert refused(tuple(spoiled)) == ["topology"] * 9


@needs_vectors
@pytest.mark.parametrize(("first", "second"), [(0, 1), (8, 9)])
def test_reports_with_each_others_chains_are_not_believed(first, second):
    spoiled = list(box())
    spoiled[first] = replace(box()[first], certificates=box()[second].certificates)
    spoiled[second] = replace(box()[second], certificates=box()[first].certificates)

    assert refused(tuple(spoiled))[:2] == ["report-signature", "report-signature"]


@needs_vectors
def test_gpus_without_their_switches_are_refused_by_policy_only():
    gpus = box()[:8]
    nonce = Nonce(gpus[0].payload[4:36])
    verification = verify(gpus, VERIFIERS, nothing, nonce=nonce, now=AT)

    assert verification.refusals == ()
    for policy, told in (("production", True), ("strict", True), ("lab", False)):
        result = appraise(verification, shipped(policy), bundle=gpus, nonce=nonce, now=AT)
        assert ("topology-absent" in {finding.reason.code for finding in result.failed}) is told


@needs_vectors
def test_switches_alone_contradict_nobody_and_are_no_node():
    switches = box()[8:]
    verification = verify(switches, VERIFIERS, nothing, nonce=None, now=AT)

    assert verification.refusals == ()
    result = appraise(verification, shipped("production"), bundle=switches, nonce=None, now=AT)
    assert "device-count" in {finding.reason.code for finding in result.failed}


@needs_vectors
def test_every_device_of_a_box_answers_the_same_challenge():
    wire = json.loads((FOLDER / "switch_evidence.json").read_bytes())
    assert len(wire) == 4
    spoiled = (*box()[:11], foreign_switch())
    nonce = Nonce(box()[0].payload[4:36])

    assert "nonce-mismatch" in refused(spoiled, nonce)


# --- claims -----------------------------------------------------------------------------------------------------------
GPUS = tuple(f"{n:016x}" for n in range(1, 9))
SWITCHES = tuple(f"{n:016x}" for n in range(17, 21))
ABSENT = object()


def claims(known, **values):
    kept = {name: value for name, value in ({"pdi": known, "mode": "ppcie"} | values).items() if value is not ABSENT}
    return Claims(NVIDIA, f"nvidia-{known}", False, AT, kept, {})


def made(gpu=None, switch=None):
    """A good box, but for what is changed of its first GPU and its first switch."""
    gpus = [
        claims(pdi, **({"switch": False, "switch_pdis": SWITCHES} | ((gpu or {}) if n == 0 else {})))
        for n, pdi in enumerate(GPUS)
    ]
    switches = [
        claims(pdi, **({"switch": True, "own_pdi": pdi, "gpu_pdis": GPUS} | ((switch or {}) if n == 0 else {})))
        for n, pdi in enumerate(SWITCHES)
    ]
    return [*gpus, *switches]


def test_a_good_box_contradicts_itself_nowhere():
    assert list(topology.check(made())) == []
    assert list(topology.check([])) == []


OTHER = "f" * 16


@pytest.mark.parametrize(
    ("gpu", "switch"),
    [
        ({}, {"own_pdi": OTHER}),
        ({}, {"own_pdi": ABSENT}),
        ({}, {"own_pdi": SWITCHES[1]}),
        ({}, {"gpu_pdis": ABSENT}),
        ({}, {"gpu_pdis": ()}),
        ({}, {"gpu_pdis": GPUS[:7]}),
        ({}, {"gpu_pdis": (*GPUS, OTHER)}),
        ({}, {"gpu_pdis": (*GPUS[:7], OTHER)}),
        ({}, {"gpu_pdis": SWITCHES}),
        ({}, {"gpu_pdis": ",".join(GPUS)}),
        ({}, {"pdi": OTHER}),
        ({}, {"pdi": ABSENT}),
        ({}, {"mode": "unlocked", "switch": False}),
        ({"pdi": OTHER}, {}),
        ({"pdi": ABSENT}, {}),
        ({"mode": "spt"}, {}),
        ({"mode": "unstated"}, {}),
        ({"mode": ABSENT}, {}),
    ],
)
def test_what_one_device_says_otherwise_is_a_contradiction(gpu, switch):
    found = list(topology.check(made(gpu, switch)))

    assert found
    assert {reason for reason, _, _ in found} == {reasons.TOPOLOGY}


@pytest.mark.parametrize("named", [ABSENT, (), SWITCHES[:3], (*SWITCHES, OTHER), (*SWITCHES[:3], OTHER), GPUS, 4])
def test_every_gpu_names_the_switches_that_are_there(named):
    box = made()
    values = {name: value for name, value in box[3].values.items() if name != "switch_pdis"}
    box[3] = replace(box[3], values=values if named is ABSENT else values | {"switch_pdis": named})

    (contradiction,) = topology.check(box)
    assert contradiction[0] is reasons.TOPOLOGY
    assert GPUS[3] in contradiction[1]


def test_two_boxes_are_no_box():
    assert [reason.code for reason, _, _ in topology.check(made() + made())] == ["topology"]
