"""
Vectors of answers of an emulated NRAS: every forgery, replay, mixture and bad judgement.

The command line takes no emulated issuer: so the tokens bear the address of the genuine one, and its keys are laid down
as collateral, as an operator lays down those of a mirror.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from attest.collateral import CollateralKind, Need
from attest.nvidia.nras_eat import split
from attest.nvidia.nras_issuer import NRAS_URL
from nodeprobe.emulator.nras import EmulatedNras
from nodeprobe.emulator.nras_defects import NRAS_DEFECTS
from tests.conformance.draft import Draft
from tests.conformance.gpu import NONCE, World

AT = datetime(2030, 1, 2, 12, tzinfo=UTC)
JWKS = Need(CollateralKind.NVIDIA_NRAS_JWKS, NRAS_URL)
_HEAD = """\
name = "nras"
kinds = ["nvidia-nras", "nvidia"]
required = ["nvidia-nras"]
origins = ["vendor", "emulated"]
nonce = "optional"
revocation = "optional"

[nvidia]
fwid = "optional"
topology = "optional"

[nras]
"""
BY_TOKEN = f"{_HEAD}certificates_required = false\n"
_OF_TWO = {"tokens-swapped"}  # defects that take a second device
# Of a token that is refused nobody knows which challenge it answers.
_REFUSED = ("binding-mismatch",)


def drafts(folder: Path) -> Iterator[Draft]:
    """All of them, with devices of a PKI made below `folder`."""
    world = World.made(folder)
    gpus = [world.gpu, world.another("gpu-1")]
    service = EmulatedNras.create(now=AT, base_url=NRAS_URL)
    keys = {JWKS: service.jwks()}

    def draft(
        name: str, made: str, *codes: str, edits: Any = (), version: str = "3.0", of: int = 1, **more: Any
    ) -> Draft:
        answer = service.answer(gpus[:of], NONCE, now=AT, edits=edits, version=version)
        more["company"] = _REFUSED if codes else ()
        given = {"evidence": {"answer.json": answer}, "policy": BY_TOKEN, "nonce": NONCE, "collateral": keys, **more}
        return Draft(name=f"nras-{name}", made=made, at=AT, codes=codes, **given)

    yield draft("good", "an answer for two devices", of=2, says={"freshness": "nonce"}, attacks=(8,))
    yield draft("good-v2", "claims of version 2.0", of=2, version="2.0", attacks=(8,))
    for name, defect in NRAS_DEFECTS.items():
        made = f"{defect.meaning} (an answer of NRAS)"
        yield draft(name, made, defect.reason.code, edits=[defect.edit], of=2 if name in _OF_TWO else 1)
    yield draft("no-keys", "the issuer's keys are not at hand", "nras-jwks-unavailable", collateral={})
    for name, made, jwks in (
        ("keys-malformed", "keys that are no JWKS", b'{"keys": 1}'),
        ("keys-twice", "a key of the same name twice", service.jwks(service.jwk())),
        ("keys-not-certified", "a key without its certificate", service.jwks().replace(b'"x5c"', b'"x5t"')),
    ):
        yield draft(name, made, "nras-jwks-malformed", collateral={JWKS: jwks})
    another = EmulatedNras.create(now=AT, base_url=NRAS_URL)
    yield draft("keys-other", "keys of another day", "nras-key-unknown", collateral={JWKS: another.jwks()})
    yield draft(
        "by-token", "no certificates", "nras-device-unidentified", policy=f"{_HEAD}certificates_required = true\n"
    )
    yield from _with_certificates(world, service, draft)


def _with_certificates(world: World, service: EmulatedNras, draft: Any) -> Iterator[Draft]:
    """Answers with the devices' own certificates, and beside other evidence."""
    answer = service.answer([world.gpu], NONCE, now=AT)
    (named,) = split(answer, [world.gpu.chain_pem])
    (bare,) = split(answer)
    shared = {"anchors": world.anchors, "collateral": {JWKS: service.jwks()} | world.rims}
    made = "an emulated device's certificates beside a token of a vendor's issuer"
    yield draft("origins-mixed", made, "nras-origins-mixed", evidence=(named,), **shared)
    (strange,) = split(answer, [world.another("gpu-1").chain_pem])
    yield draft(
        "chain-of-another", "certificates of another device", "nras-chain-mismatch", evidence=(strange,), **shared
    )
    beside = world.another("gpu-2").evidence(NONCE)
    made = "a token of a vendor's issuer beside an emulated device"
    yield draft("beside-emulated", made, "roots-mixed", evidence=(bare, beside), **shared)
    both = draft("twice", "one answer, twice", "device-duplicate", evidence=(bare, bare), exactly=False, **shared)
    yield replace(both, attacks=(4, 8))
    whole = split(service.answer([world.gpu, world.another("gpu-1")], NONCE, now=AT))
    yield draft("one-of-two", "a device of the answer was left out", "nras-incomplete", evidence=whole[:1], **shared)
