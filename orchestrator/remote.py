"""
Remote verification: NVIDIA's service (NRAS) judges the reports of GPUs and switches, where the operator prefers that.

The service's tokens take the place of the reports in what is verified, so a policy must accept `nvidia-nras`, and what
it says of that kind decides. What a node is to answer for, and what the service, is kept apart: a report whose chain or
nonce is wrong is the node's fault, is found here, and nobody is asked. No answer, or one that is not a genuine,
current and whole answer to our question, is the service's: nothing is decided then, and never by verifying here
instead. What the service says in a genuine answer is wrong with a device, is the device's fault again.

The question: spec/nvidia.md §12. It goes to the address that the operator configured, and holds what the node sent.
"""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

import structlog

from attest import reasons
from attest.anchors import Anchor
from attest.claims import Claims
from attest.collateral import Collateral, Need
from attest.errors import AttestError, NonceMismatch, UntrustedCollateral
from attest.evidence import NVIDIA, NVIDIA_NRAS, Bundle, Evidence, Nonce
from attest.memo import Memo
from attest.nvidia import report
from attest.nvidia.chain import DeviceChain, DeviceClass, verify_chain, verify_time
from attest.nvidia.nras_eat import EAT_BYTES_MAX, split
from attest.reasons import Fault
from attest.reasons.nras import NRAS_CHECK_FAILED, NRAS_DEBUG, NRAS_FAILED, NRAS_REFUSED
from attest.verify import Breach, Verifier, Verifiers
from attest.x509 import Path
from orchestrator.base_urls import Base
from orchestrator.outbound import Answer, Call, OutboundError

CHAINS_REMEMBERED, PATHS_REMEMBERED = 20_000, 1_000
CLAIMS_VERSION = "3.0"

# Where to ask about which class of device, and the service's word for it.
_ASKED: Mapping[DeviceClass, tuple[str, str]] = {
    DeviceClass.GH100: ("/v4/attest/gpu", "HOPPER"),
    DeviceClass.GB100: ("/v4/attest/gpu", "BLACKWELL"),
    DeviceClass.LS10: ("/v4/attest/switch", "LS10"),
}
# What a genuine token may say that is a device's fault. All else that is wrong with a token is the service's: we asked
# it ourselves, with the right nonce and a chain that we had verified.
_OF_DEVICE = frozenset(
    {
        reasons.REPORT_MALFORMED,
        reasons.REPORT_SIGNATURE,
        reasons.FWID_MISMATCH,
        reasons.MEASUREMENTS_MISMATCH,
        reasons.CHAIN_TIME,
        NRAS_CHECK_FAILED,
        NRAS_DEBUG,
        NRAS_REFUSED,
    }
)

_T = TypeVar("_T")

log = structlog.get_logger("orchestrator.remote")


@dataclass(frozen=True, slots=True)
class Answers:
    """A bundle in which tokens stand in the places of NVIDIA's reports, and what is known of them already."""

    bundle: Bundle
    asked: frozenset[Evidence]  # what stands there: tokens that we asked for ourselves
    refused: Mapping[Evidence, AttestError]  # those of them that are none, and why

    def verifiers(self, installed: Verifiers) -> Verifiers:
        """The installed ones, of which the one for tokens knows which of them the node has no part in."""
        tokens = installed.get(NVIDIA_NRAS)
        if tokens is None:
            return installed
        return {**installed, NVIDIA_NRAS: _Asked(tokens, self.asked, self.refused)}


class Remote:
    """Asks the service. Threads share it."""

    def __init__(self, base: Base, send: Callable[[Call], Answer], anchors: Sequence[Anchor]) -> None:
        """`send` is an Outbound's; `anchors` are the roots of NVIDIA's devices that the verifiers trust, too."""
        self._base, self._send, self._anchors = base, send, anchors
        self._chains: Memo[DeviceChain] = Memo(CHAINS_REMEMBERED)
        self._paths: Memo[Path] = Memo(PATHS_REMEMBERED)

    def ask(self, bundle: Bundle, nonce: Nonce, *, now: datetime) -> Answers:
        """
        The bundle with the service's tokens for NVIDIA's reports that answer `nonce`, which must be one that we issued.
        Takes at most the deadline of `send` for each class of device. Raises nothing.
        """
        places: dict[DeviceClass, list[int]] = {}
        there: dict[int, Evidence] = {}
        refused: dict[Evidence, AttestError] = {}
        for place, evidence in enumerate(bundle):
            if evidence.kind != NVIDIA:
                continue
            there[place] = Evidence(NVIDIA_NRAS, evidence.payload, evidence.certificates)  # no token, until there is
            try:
                places.setdefault(self._checked(evidence, nonce, now), []).append(place)
            except AttestError as e:
                refused[there[place]] = e
        if refused:  # the node is not believed, whatever the service says of its other devices
            failed = "not asked, since another device was refused"
            refused = {each: refused.get(each, _failed(failed)) for each in there.values()}
        else:
            for device_class, asked in places.items():
                try:
                    answer = self._tokens(device_class, [bundle[place] for place in asked], nonce)
                    there |= dict(zip(asked, answer, strict=True))
                except UntrustedCollateral as e:
                    refused |= {there[place]: e for place in asked}
        judged = tuple(there.get(place, evidence) for place, evidence in enumerate(bundle))
        return Answers(judged, frozenset(there.values()), refused)

    def _checked(self, evidence: Evidence, nonce: Nonce, now: datetime) -> DeviceClass:
        """The class of a device, by its certificates. AttestError for what a verifier would refuse without asking."""
        chain = verify_chain(evidence.certificates, self._anchors, known=self._chains, paths=self._paths)
        verify_time(chain, now=now)
        found = report.parse(evidence.payload).nonce
        if not hmac.compare_digest(found, nonce):
            raise NonceMismatch(reasons.NONCE_MISMATCH, found.hex(), nonce.hex())
        return chain.device_class

    def _tokens(self, device_class: DeviceClass, devices: Sequence[Evidence], nonce: Nonce) -> Bundle:
        """One token a device, in their order; believed by nobody yet. UntrustedCollateral if there are none."""
        path, architecture = _ASKED[device_class]
        headers = {"content-type": "application/json", "accept": "application/json"}
        call = Call(self._base, path, EAT_BYTES_MAX, "POST", headers, _question(architecture, devices, nonce))
        try:
            answer = self._send(call).body
        except OutboundError as e:
            log.warning("remote verification failed", path=path, devices=len(devices), why=str(e))
            raise _failed("no answer") from e
        try:
            return split(answer, [each.certificates for each in devices], devices=len(devices))
        except AttestError as e:
            log.warning("remote verification answered something else", path=path, devices=len(devices), why=str(e))
            raise _failed(f"an answer that is none: {e.reason.code}") from e


class _Asked:
    """
    The verifier of tokens, for those that we asked for: what is wrong with them is not the node's fault, unless it is
    what they say of the device. Tokens that a node sent itself are verified as ever.
    """

    kind = NVIDIA_NRAS

    def __init__(self, tokens: Verifier, asked: frozenset[Evidence], refused: Mapping[Evidence, AttestError]) -> None:
        self._tokens, self._ours, self._refused = tokens, asked, refused

    def needs(self, evidence: Evidence, have: Collateral) -> frozenset[Need]:
        return self._tried(evidence, lambda: self._tokens.needs(evidence, have))

    def verify(self, evidence: Evidence, collateral: Collateral, *, nonce: Nonce | None, now: datetime) -> Claims:
        return self._tried(evidence, lambda: self._tokens.verify(evidence, collateral, nonce=nonce, now=now))

    def together(self, claims: Sequence[Claims]) -> Sequence[Breach]:
        return tuple(self._tokens.together(claims))

    def _tried(self, evidence: Evidence, attempt: Callable[[], _T]) -> _T:
        if (known := self._refused.get(evidence)) is not None:
            raise known
        try:
            return attempt()
        except AttestError as e:
            if evidence not in self._ours or e.reason.fault is Fault.COLLATERAL or e.reason in _OF_DEVICE:
                raise
            log.warning("remote verification answered with a token that is none", why=str(e))
            raise _failed(f"a token that is none: {e.reason.code}") from e


def _question(architecture: str, devices: Sequence[Evidence], nonce: Nonce) -> bytes:
    return json.dumps(
        {
            "nonce": nonce.hex(),
            "arch": architecture,
            "evidence_list": [
                {"evidence": _base64(each.payload), "certificate": _base64(each.certificates)} for each in devices
            ],
            "claims_version": CLAIMS_VERSION,
        }
    ).encode()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _failed(found: str) -> UntrustedCollateral:
    """Told to workers, so it names no address."""
    return UntrustedCollateral(NRAS_FAILED, found, "a judgement")
