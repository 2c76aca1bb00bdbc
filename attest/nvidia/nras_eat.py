"""
What NRAS answers: a detached EAT, `[["JWT", overall], {"GPU-0": token, …}]` (spec/nvidia.md §11.4).

A verifier reads the evidence of one device, so an answer is taken apart: evidence of the kind `nvidia-nras` is the same
shape with the overall token and the token of one device. The overall token names all devices that it answers for, so
nothing is lost: who leaves one out is found out when the devices of a node are looked at together. The device's own
certificate chain goes along as the evidence's certificates: NRAS names no device identity (PDI), the chain does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from attest.errors import AttestError, MalformedEvidence, UntrustedEvidence
from attest.evidence import DEVICES_MAX, NVIDIA_NRAS, Bundle, Evidence
from attest.jws import JwsError, JwsFault, Unverified, strict_json
from attest.jws import read as read_token
from attest.reasons.nras import (
    NRAS_ALGORITHM,
    NRAS_EAT_MALFORMED,
    NRAS_HEADER,
    NRAS_INCOMPLETE,
    NRAS_SIGNATURE,
    NRAS_SUBMODS,
    NRAS_TOKEN_MALFORMED,
)

EAT_BYTES_MAX = 512 << 10
_NAME = re.compile(r"(GPU|SWITCH)-(0|[1-9][0-9]{0,2})")

_FAULTS = {
    JwsFault.MALFORMED: (MalformedEvidence, NRAS_TOKEN_MALFORMED),
    JwsFault.ALGORITHM: (UntrustedEvidence, NRAS_ALGORITHM),
    JwsFault.HEADER: (UntrustedEvidence, NRAS_HEADER),
    JwsFault.KEY: (UntrustedEvidence, NRAS_SIGNATURE),
    JwsFault.SIGNATURE: (UntrustedEvidence, NRAS_SIGNATURE),
}


@dataclass(frozen=True, slots=True)
class Eat:
    """The tokens about one device. `name` is NRAS's for it: its kind, and its place in the request."""

    overall: Unverified
    name: str
    device: Unverified


def read(payload: bytes) -> Eat:
    """The tokens in a piece of evidence. AttestError if they are not exactly two that could be NRAS's."""
    overall, tokens = _parts(payload)
    if len(tokens) != 1:
        raise MalformedEvidence(NRAS_EAT_MALFORMED, f"tokens of {len(tokens)} devices", "one device's")
    ((name, token),) = tokens.items()
    try:
        return Eat(read_token(overall), name, read_token(token))
    except JwsError as e:
        raise refused(e) from e


def split(answer: bytes, chains: Sequence[bytes] = (), *, devices: int | None = None) -> Bundle:
    """
    An answer of NRAS as evidence, one piece a device, in the order of its request.

    `chains` are the certificate chains (PEM) of the request's evidence list, in its order; `devices` is how many were
    asked about. Believes nothing; MalformedEvidence if tokens are left out or added, or there are more or fewer.
    """
    overall, tokens = _parts(answer)
    try:
        submods = read_token(overall).states.get("submods")
    except JwsError as e:
        raise refused(e) from e
    named = set(submods) if isinstance(submods, dict) else set()
    if named != tokens.keys():
        found = f"tokens of {', '.join(sorted(tokens))}"
        raise MalformedEvidence(NRAS_INCOMPLETE, found, ", ".join(sorted(map(str, named))) or "submods")
    expected = devices if devices is not None else len(chains) or len(tokens)
    if len(tokens) != expected or (chains and len(chains) != expected):
        raise MalformedEvidence(NRAS_INCOMPLETE, f"{len(tokens)} tokens, {len(chains)} chains", f"{expected} devices")
    names = sorted(tokens, key=_place)
    if [_place(name)[1] for name in names] != list(range(len(names))):
        raise MalformedEvidence(NRAS_EAT_MALFORMED, ", ".join(names), "devices of one kind, counted from 0")
    certificates = chains or [b""] * len(names)
    return tuple(
        Evidence(NVIDIA_NRAS, _payload(overall, name, tokens[name]), chain)
        for name, chain in zip(names, certificates, strict=True)
    )


def is_answer(document: Any) -> bool:
    """Whether JSON is an answer of NRAS rather than another list of evidence."""
    first = document[0] if isinstance(document, list) and document else None
    return isinstance(first, list) and first[:1] == ["JWT"]


def refused(error: JwsError) -> AttestError:
    """What to raise for a token that is not to be used."""
    kind, reason = _FAULTS[error.fault]
    return kind(reason, error.found, error.wanted)


def vouched(submods: object, name: str) -> str:
    """The SHA-256 that an overall token states of a device's token, lower hex. UntrustedEvidence if it states none."""
    entry = submods.get(name) if isinstance(submods, dict) else None
    match entry:
        case ["DIGEST", ["SHA-256", str(digest)]]:
            return digest
    raise UntrustedEvidence(NRAS_SUBMODS, f"{name}: {entry!r}", '["DIGEST", ["SHA-256", hex]]')


def _parts(data: bytes) -> tuple[str, dict[str, str]]:
    """The overall token, and the token of each device by its name."""
    if len(data) > EAT_BYTES_MAX:
        raise MalformedEvidence(NRAS_EAT_MALFORMED, f"{len(data)} bytes", f"at most {EAT_BYTES_MAX}")
    try:
        document = strict_json(data)
    except ValueError as e:
        raise MalformedEvidence(NRAS_EAT_MALFORMED, f"no JSON: {e}", "a detached EAT") from e
    match document:
        case [["JWT", str(overall)], dict(tokens)] if 1 <= len(tokens) <= DEVICES_MAX:
            if all(_NAME.fullmatch(name) and isinstance(token, str) for name, token in tokens.items()):
                return overall, tokens
    raise MalformedEvidence(NRAS_EAT_MALFORMED, "JSON of another form", '[["JWT", token], {"GPU-0": token, …}]')


def _place(name: str) -> tuple[str, int]:
    kind, _, number = name.partition("-")
    return kind, int(number)


def _payload(overall: str, name: str, token: str) -> bytes:
    return json.dumps([["JWT", overall], {name: token}], separators=(",", ":")).encode()
