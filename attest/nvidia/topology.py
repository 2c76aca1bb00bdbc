"""
Who is wired to whom in an HGX box: GPUs and NVSwitches name each other in their reports.

A GPU in protected-PCIe mode lists the switches at its links, a switch the GPUs at its ports, each by identity (PDI).
NVIDIA's own rules compare these lists with each other only; the identities in the certificates are compared here as
well, so that evidence of a GPU that the switches do not see, or of the same GPU twice, is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from attest import reasons
from attest.claims import Claims
from attest.reasons import Reason

GPUS, SWITCHES = 8, 4  # of a box


Contradiction = tuple[Reason, str, str]  # why, found, wanted


def check(claims: Sequence[Claims]) -> Iterator[Contradiction]:
    """What the devices of one node say against each other. Nothing, where there are GPUs or switches only."""
    switches = [claim for claim in claims if claim.values.get("switch") is True]
    gpus = [claim for claim in claims if claim.values.get("mode") == "ppcie" and claim not in switches]
    if not switches or len(switches) == len(claims):
        return
    if len(gpus) != GPUS or len(switches) != SWITCHES or len(gpus) + len(switches) != len(claims):
        found = f"{len(gpus)} protected GPUs and {len(switches)} switches of {len(claims)} devices"
        yield reasons.TOPOLOGY, found, f"{GPUS} and {SWITCHES}"
        return
    seen_gpus, seen_switches = _identities(gpus), _identities(switches)
    for gpu in gpus:
        yield from _compare(gpu, "switch_pdis", seen_switches, "the switches in the evidence")
    for switch in switches:
        yield from _compare(switch, "gpu_pdis", seen_gpus, "the GPUs in the evidence")
        if switch.values.get("own_pdi") != switch.values.get("pdi"):
            yield reasons.TOPOLOGY, f"{switch.device} naming itself otherwise", "the identity in its certificate"


def _identities(claims: Sequence[Claims]) -> frozenset[str]:
    return frozenset(pdi for claim in claims if isinstance(pdi := claim.values.get("pdi"), str))


def _compare(claim: Claims, name: str, present: frozenset[str], what: str) -> Iterator[Contradiction]:
    named = claim.values.get(name)
    if not isinstance(named, tuple) or frozenset(named) != present:
        found = ", ".join(map(str, named)) if isinstance(named, tuple) else "nobody"
        yield reasons.TOPOLOGY, f"{claim.device} naming {found}", what
