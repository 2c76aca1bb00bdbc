"""Vectors of emulated GPUs: every defect of a device and of its manifests, revocation, and nodes of several devices."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from attest.collateral import CollateralKind, Need
from attest.evidence import Bundle, Evidence
from nodeprobe.emulator import BOX_DEFECTS, DEFECTS, MODELS, SWITCH, EmulatedBox, EmulatedGpu, Pki, publish
from nodeprobe.emulator.defects import defects_of, spoiled_manifests
from nodeprobe.emulator.ocsp import AnswerDraft, Spoil, What, answers, asked_about
from nodeprobe.emulator.ocsp_defects import OCSP_DEFECTS
from tests.conformance.draft import Draft

MADE = datetime(2030, 1, 1, tzinfo=UTC)
AT = datetime(2030, 1, 2, tzinfo=UTC)
NONCE = bytes(range(32))
MODEL, HGX, B200 = MODELS["h100-pcie"], MODELS["h100-80gb"], MODELS["b200"]
HOUR = timedelta(hours=1)
PLACES: tuple[What, ...] = ("device", "provisioner", "identity", "rim-signer", "rim-l3", "rim-ca")

LAB = 'name = "lab"\norigins = ["vendor", "emulated"]\nnonce = "optional"\nrevocation = "optional"\n'
CHECKED = LAB.replace('revocation = "optional"', 'revocation = "required"')


# Refused before a verifier sees them.
_BY_CONTAINER = {"chain-absent": "evidence-malformed"}


def lab(*rules: str) -> str:
    """As `lab`, with these rules of `[nvidia]`."""
    return "\n".join([LAB, "[nvidia]", 'fwid = "optional"', 'topology = "optional"', *rules, ""])


@dataclass(frozen=True, slots=True)
class World:
    """One PKI with its manifests, and a good device."""

    pki: Pki
    gpu: EmulatedGpu
    rims: dict[Need, bytes]
    anchors: bytes

    @classmethod
    def made(cls, folder: Path) -> World:
        pki = Pki.create(folder / "gpu-pki", now=MADE)
        for model in (MODEL, HGX, B200, SWITCH):
            publish(pki, model)
        rims = {Need(CollateralKind.NVIDIA_RIM, path.stem): path.read_bytes() for path in pki.rims.glob("*.xml")}
        return cls(pki, EmulatedGpu.create(pki, "gpu-0", MODEL), rims, pki.anchors.read_bytes())

    def another(self, name: str) -> EmulatedGpu:
        return EmulatedGpu.create(self.pki, name, MODEL)

    def draft(self, name: str, made: str, evidence: Bundle | None = None, **more: Any) -> Draft:
        """The good device for NONCE, unless something else is handed in."""
        return Draft(
            **{
                "name": name,
                "made": made,
                "evidence": evidence or (self.gpu.evidence(NONCE),),
                "at": AT,
                "nonce": NONCE,
                "anchors": self.anchors,
                "collateral": self.rims,
                **more,
            }
        )


def drafts(folder: Path) -> Iterator[Draft]:
    """All of them, in a PKI made below `folder`."""
    world = World.made(folder)
    yield from _defects(world)
    yield from _revocation(world)
    yield from _families(world)
    yield from _nodes(world)
    yield from _policies(world)
    yield from _times(world)


def _defects(world: World) -> Iterator[Draft]:
    """Each line of the emulator's tables."""
    yield world.draft("good", "a good device", says={"emulated": True, "freshness": "nonce"})
    yield world.draft("good-decoder-on", "decoder on", (replace(world.gpu, nvdec_enabled=True).evidence(NONCE),))
    for name, defect in DEFECTS.items():
        if defect.manifest is None:
            evidence = (world.gpu.spoiled(name).evidence(NONCE),)
            code = _BY_CONTAINER.get(name, defect.reason.code)
            # A device of another class lacks more than its class: what, is not this table's to say.
            exactly = not name.startswith("class-")
            yield world.draft(name, defect.meaning, evidence, codes=(code,), exactly=exactly)
            continue
        for which in ("driver", "vbios"):
            spoiled = spoiled_manifests(MODEL, world.pki, name, driver=which == "driver")
            rims = {Need(CollateralKind.NVIDIA_RIM, rim): data for rim, data in spoiled.items()}
            made = f"{which} manifest: {defect.meaning}"
            yield world.draft(f"{name}-{which}", made, codes=(defect.reason.code,), collateral=rims)


# --- revocation -------------------------------------------------------------------------------------------------------
def answered(world: World, *spoils: Spoil, what: What = "device", without: What | None = None) -> dict[Need, bytes]:
    """The manifests, and an answer about each certificate of the good device; those about `what` spoiled."""
    given = answers(world.pki, (world.gpu,), AT, *spoils, what=what)
    absent = [asked.name for asked in asked_about(world.pki, world.gpu) if asked.what == without]
    told = {Need(CollateralKind.NVIDIA_OCSP, name): data for name, data in given.items() if name not in absent}
    return world.rims | told


def _revocation(world: World) -> Iterator[Draft]:
    def draft(name: str, made: str, documents: dict[Need, bytes], *codes: str, **more: Any) -> Draft:
        return world.draft(f"ocsp-{name}", made, **{"policy": CHECKED, "collateral": documents, "codes": codes, **more})

    yield draft("good", "six good answers", answered(world), says={"revocation": "good"})
    for what in PLACES:
        of_device = not what.startswith("rim-")
        for name, defect in OCSP_DEFECTS.items():
            reason = defect.reason if of_device else defect.of_rim or defect.reason
            made = f"{what}: {defect.meaning}"
            yield draft(f"{name}-{what}", made, answered(world, defect.spoil, what=what), reason.code)
        made = f"no answer about the {what}"
        yield draft(f"absent-{what}", made, answered(world, without=what), "revocation-not-checked")
    yield draft("optional", "no answer, and none asked for", world.rims, policy=LAB)
    hold = answered(world, OCSP_DEFECTS["hold"].spoil)
    yield draft("hold-allowed", "on hold, and allowed", hold, policy=f"{CHECKED}allow_hold = true\n")
    patient = f"{CHECKED}revocation_stale_hours_max = 12\n"
    yield draft("stale", "an answer ran out", answered(world, _ran_out(6)), "revocation-stale")
    yield draft("stale-allowed", "an answer ran out, and may have", answered(world, _ran_out(6)), policy=patient)
    made = "an answer ran out longer ago than allowed"
    yield draft("stale-too-long", made, answered(world, _ran_out(13)), "revocation-stale", policy=patient)
    yield draft("ends-now", "the very instant is too late", answered(world, _ran_out(0)), "revocation-stale")
    late = dict.fromkeys(answered(world), AT - HOUR)
    made = "documents due an hour ago"
    yield draft("documents-late", made, answered(world), "collateral-stale", expires_at=late)
    patient = f"{CHECKED}collateral_stale_hours_max = 2\n"
    yield draft("documents-late-allowed", "... and may be", answered(world), expires_at=late, policy=patient)


def _ran_out(hours: int) -> Spoil:
    """So many hours ago."""

    def spoil(draft: AnswerDraft) -> None:
        draft.next_update = AT - hours * HOUR
        draft.this_update = draft.next_update - timedelta(days=1)

    return spoil


# --- Blackwell, switches, boxes ---------------------------------------------------------------------------------------
def _families(world: World) -> Iterator[Draft]:
    blackwell, box = EmulatedGpu.create(world.pki, "b200", B200), EmulatedBox.create(world.pki, "box", HGX)
    for name, device in {"blackwell": blackwell, "switch": box.switches[0]}.items():
        yield world.draft(f"{name}-good", f"a good {name}", (device.evidence(NONCE),))
        for defect in defects_of(device.family).values():
            if defect.manifest is None:
                code = _BY_CONTAINER.get(defect.name, defect.reason.code)
                evidence = (device.spoiled(defect.name).evidence(NONCE),)
                exactly = not defect.name.startswith("class-")
                vector = f"{name}-{defect.name}"
                yield world.draft(vector, f"a {name}: {defect.meaning}", evidence, codes=(code,), exactly=exactly)
    yield world.draft("box-good", "eight GPUs and four switches", box.evidence(NONCE), policy=LAB, attacks=(4,))
    for name, wrong in BOX_DEFECTS.items():
        evidence, made = box.spoiled(name).evidence(NONCE), f"a box: {wrong.meaning}"
        codes = (wrong.reason.code,)
        yield world.draft(f"box-{name}", made, evidence, codes=codes, policy=LAB, attacks=(2, 4), exactly=False)
    alone = tuple(each.evidence(NONCE) for each in box.switches)
    yield world.draft("switches-alone", "switches without GPUs", alone, codes=("device-count",), policy=LAB)
    alone = tuple(each.evidence(NONCE) for each in box.gpus)
    yield world.draft("gpus-alone", "GPUs without their switches", alone, codes=("topology-absent",), policy=LAB)
    made = "GPUs without their switches, which need not be shown"
    yield world.draft("gpus-alone-allowed", made, alone, attacks=(4,))
    made = "one GPU of the box left out, and no switch shown"
    yield world.draft("gpus-alone-seven", made, alone[:7], codes=("device-count",), policy=lab("gpus_min = 8"))


# --- nodes and relays ------------------------------------------------------------------------------------------------
def _nodes(world: World) -> Iterator[Draft]:
    other = hashlib.sha256(b"a challenge for somebody else").digest()
    good, second = world.gpu.evidence(NONCE), world.another("gpu-1").evidence(NONCE)
    yield world.draft("two", "two devices", (good, second), attacks=(4,))
    yield world.draft("two-reordered", "the same, in another order", (second, good), attacks=(4,))
    yield world.draft("doubled", "one device, twice", (good, good), codes=("device-duplicate",), attacks=(2, 4))
    again = (good, world.gpu.evidence(NONCE))
    yield world.draft("asked-twice", "one device, two reports", again, codes=("device-duplicate",), attacks=(2, 4))
    of_b = (world.another("gpu-b").evidence(other),)
    made = "evidence that worker B gave for its own challenge"
    yield world.draft("relayed", made, of_b, codes=("nonce-mismatch",), attacks=(1, 2))
    mixed = (good, *of_b)
    yield world.draft(
        "relayed-beside-good", "... beside a good device", mixed, codes=("nonce-mismatch",), attacks=(1, 2)
    )
    stolen = (replace(good, certificates=world.another("gpu-b").chain_pem),)
    yield world.draft("chain-relayed", "B's certificates", stolen, codes=("report-signature",), attacks=(2, 7))
    left_out = lab("gpus_min = 2")
    yield world.draft("one-of-two", "a device was left out", codes=("device-count",), policy=left_out, attacks=(4,))
    few = f"{LAB}devices_max = 1\n"
    yield world.draft(
        "too-many", "a device too many", (good, second), codes=("device-count",), policy=few, attacks=(4,)
    )
    ppcie = (replace(world.gpu, protected_pcie=True).evidence(NONCE), second)
    yield world.draft("modes-differ", "two modes", ppcie, codes=("devices-differ",))
    tied = f'{CHECKED.replace("required", "optional")}binding_min = "nonce"\n'
    yield world.draft("bound-by-nothing", "only a bare nonce", codes=("binding-weak",), policy=tied, attacks=(2, 3))
    unknown = (Evidence("some-other-tee", b"\0" * 64),)
    yield world.draft("other-kind", "a kind that nobody reads", unknown, codes=("kind-unsupported",), exactly=False)
    yield world.draft(
        "other-kind-beside-good",
        "... beside a good device",
        (good, *unknown),
        codes=("kind-unsupported",),
        attacks=(4,),
    )


# --- policies and time ------------------------------------------------------------------------------------------------
def _policies(world: World) -> Iterator[Draft]:
    production = ("root-not-accepted", "binding-weak", "revocation-not-checked")
    for policy in ("production", "strict"):
        made = f"emulated hardware, and a yes for it, under the policy {policy}"
        yield world.draft(f"emulated-in-{policy}", made, codes=production, policy=policy, attacks=(15,))
    made = "emulated hardware, and nobody named its root"
    yield world.draft("emulated-unnamed", made, codes=("chain-root",), anchors=b"", attacks=(7, 15))
    rules = {
        "mode": ('modes = ["ppcie"]', "mode-not-accepted"),
        "architecture": ('architectures = ["LS_10"]', "architecture-not-accepted"),
        "driver": ('driver_min = "551"', "driver-too-old"),
        "vbios": ('vbios_min = "97.00"', "vbios-not-accepted"),
    }
    for name, (rule, code) in rules.items():
        yield world.draft(f"rule-{name}", f"the policy wants {rule}", codes=(code,), policy=lab(rule))
    changed = (world.gpu.spoiled("measurement-changed").evidence(NONCE),)
    made = "a measurement differs, and may"
    yield world.draft("rule-index", made, changed, policy=lab("allowed_mismatching_indices = [9]"))
    required = f'{LAB}kinds = ["nvidia", "intel-tdx"]\nrequired = ["nvidia", "intel-tdx"]\n'
    yield world.draft("rule-required", "the CPU's evidence was left out", codes=("kind-absent",), policy=required)
    others = f'{LAB}kinds = ["intel-tdx"]\nrequired = ["nvidia"]\n'
    yield world.draft("rule-kinds", "a kind that the policy does not name", codes=("kind-not-accepted",), policy=others)
    asked = LAB.replace('nonce = "optional"', 'nonce = "required"')
    yield world.draft("no-nonce", "nobody asked", codes=("nonce-not-given",), policy=asked, nonce=None, attacks=(1,))
    yield world.draft("no-nonce-optional", "... and nobody had to", nonce=None, says={"freshness": "not checked"})


def _times(world: World) -> Iterator[Draft]:
    end = world.pki.rim_l4.certificate.not_valid_after_utc
    second = timedelta(seconds=1)
    yield world.draft("rim-last-second", "the last second of the manifests", at=end - second, attacks=(13,))
    yield world.draft("rim-end", "the instant at which they expire", at=end, codes=("rim-expired",))
    patient = lab("rim_expired_days_max = 2")
    yield world.draft(
        "rim-expired-allowed", "a day later, and allowed", at=end + timedelta(days=1), policy=patient, attacks=(13,)
    )
    begin = world.pki.rim_root.certificate.not_valid_before_utc
    yield world.draft("rim-before", "before there were manifests", at=begin - second, codes=("rim-time",))
    early = datetime(2020, 1, 1, tzinfo=UTC)
    yield world.draft("chain-before", "before there were such devices", at=early, codes=("chain-time",))
