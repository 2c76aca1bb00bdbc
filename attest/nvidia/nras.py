"""
Did NVIDIA's remote attestation service (NRAS) judge this device for our challenge, and what did it conclude?

A second way to the claims of an NVIDIA device: NRAS verifies report, chain and manifests, and signs what it found. What
is verified here is that the tokens are NRAS's, whole, current, about our challenge and about this device. Whether NRAS
is believed at all is the policy's to say, which names the kind.

**One device, one worker.** A token names a device by `ueid`, the serial number of its attestation key's certificate; it
does not name the PDI that local verification knows a device by, and the former changes with firmware, the latter never.
So the device's certificate chain goes along, is verified to the pinned root as ever, and must bear that `ueid`: the
device is then the same `nvidia-gh100-<PDI>` by either way. Without the chain it is `nvidia-ueid-<ueid>`, the claim
`identity` says "token" instead of "certificates", and a policy has to allow that. Both ways claim `ueid`: whoever keeps
devices unique over a fleet compares that, too.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from attest import reasons
from attest.anchors import Anchors
from attest.claims import Claims, Value
from attest.collateral import Collateral, Document, Need
from attest.errors import MalformedEvidence, NonceMismatch, UntrustedCollateral, UntrustedEvidence
from attest.evidence import NONCE_BYTES, NVIDIA_NRAS, Evidence, Nonce
from attest.jws import JwsError, Unverified
from attest.jws import verify as verify_token
from attest.memo import Memo
from attest.nvidia.chain import DeviceChain, verify_chain, verify_time
from attest.nvidia.nras_claims import VERSIONS, Judged, judge
from attest.nvidia.nras_eat import Eat, read, refused, vouched
from attest.nvidia.nras_issuer import NrasIssuer
from attest.nvidia.nras_keys import IssuerKey, key_named
from attest.reasons.nras import (
    NRAS_CHAIN_MISMATCH,
    NRAS_CLAIM,
    NRAS_FAILED,
    NRAS_INCOMPLETE,
    NRAS_ISSUER,
    NRAS_JWKS_UNAVAILABLE,
    NRAS_KEY_TIME,
    NRAS_ORIGINS_MIXED,
    NRAS_OVERALL_FALSE,
    NRAS_REFUSED,
    NRAS_SUBMODS,
    NRAS_TIME,
)
from attest.verify import Breach
from attest.x509 import Path

SKEW = timedelta(minutes=5)  # how far the issuer's clock may be ahead of ours
TOKEN_LIFETIME_MAX = timedelta(hours=2)  # NRAS gives one hour
SUBJECT = "NVIDIA-PLATFORM-ATTESTATION"
CHAINS_REMEMBERED, PATHS_REMEMBERED, KEYS_REMEMBERED, TOKENS_REMEMBERED, READ_REMEMBERED = (
    20_000,
    1_000,
    1_000,
    1_000,
    64,
)
_NONCE = re.compile(rf"[0-9a-f]{{{2 * NONCE_BYTES}}}")
_SERVER_ERROR = re.compile(r"5[0-9]{3}")  # 4xxx are the evidence's fault
_TIME = "%Y-%m-%dT%H:%M:%SZ"

_Says = Mapping[str, Any]


class NrasVerifier:
    """Tokens of NRAS, offline: the issuer's keys are collateral, or handed in with an emulated issuer."""

    kind = NVIDIA_NRAS

    def __init__(self, anchors: Anchors, issuers: Sequence[NrasIssuer] | None = None) -> None:
        """`issuers` are those of the anchors, unless others are handed in."""
        issuers = anchors.nras if issuers is None else issuers
        self._anchors = anchors
        self._issuers = {issuer.base_url: issuer for issuer in issuers}
        if len(self._issuers) != len(issuers):
            raise ValueError("an issuer of NRAS tokens twice, perhaps with other keys")
        self._handed_in = {issuer.base_url: Document.of(issuer.jwks) for issuer in issuers if issuer.jwks}
        self._chains: Memo[DeviceChain] = Memo(CHAINS_REMEMBERED)
        self._paths: Memo[Path] = Memo(PATHS_REMEMBERED)
        self._keys: Memo[IssuerKey] = Memo(KEYS_REMEMBERED)
        self._tokens: Memo[_Says] = Memo(TOKENS_REMEMBERED)
        self._read: Memo[Eat] = Memo(READ_REMEMBERED)

    def needs(self, evidence: Evidence, have: Collateral) -> frozenset[Need]:
        # The token chooses among the addresses that are pinned; it never names one.
        need = self._issuer(self._reading(evidence)).need
        return frozenset() if need is None or need in have else frozenset({need})

    def verify(self, evidence: Evidence, collateral: Collateral, *, nonce: Nonce | None, now: datetime) -> Claims:
        eat = self._reading(evidence)
        issuer = self._issuer(eat)
        jwks = self._jwks(issuer, collateral)
        overall, says = (self._verified(token, jwks, now=now) for token in (eat.overall, eat.device))
        version = _verify_overall(overall)
        _verify_digest(eat, overall)
        answered = _verify_nonce(overall, nonce, "the whole")
        _verify_judged(says, eat.name)
        if not hmac.compare_digest(answered, _verify_nonce(says, nonce, eat.name)):
            raise NonceMismatch(reasons.NONCE_MISMATCH, f"another for {eat.name}", answered.hex())
        judged = judge(says, eat.name, version, now=now)
        if overall["x-nvidia-overall-att-result"] is not True:
            raise UntrustedCollateral(NRAS_OVERALL_FALSE, "x-nvidia-overall-att-result false", "true")
        chain = self._chain(evidence, judged, issuer, now=now)
        return Claims(
            kind=self.kind,
            device=_device(chain, judged),
            emulated=issuer.emulated,
            not_after=_not_after(overall, says, judged, chain),
            values={**judged.values, "nonce": answered.hex(), **_answer(eat, issuer, overall), **_identity(chain)},
            collateral={} if issuer.need is None else {str(issuer.need): jwks.sha256},
        )

    def together(self, claims: Sequence[Claims]) -> Iterator[Breach]:
        """See the function of that name."""
        return together(claims)

    def _reading(self, evidence: Evidence) -> Eat:
        return self._read.get(evidence.payload) or self._read.put(evidence.payload, read(evidence.payload))

    def _issuer(self, eat: Eat) -> NrasIssuer:
        named = [token.states.get("iss") for token in (eat.overall, eat.device)]
        found = self._issuers.get(named[0]) if isinstance(named[0], str) and named[0] == named[1] else None
        if found is None:
            wanted = " or ".join(sorted(self._issuers)) or "no issuer is accepted"
            raise UntrustedEvidence(NRAS_ISSUER, " and ".join(dict.fromkeys(map(repr, named))), wanted)
        return found

    def _jwks(self, issuer: NrasIssuer, collateral: Collateral) -> Document:
        found = self._handed_in.get(issuer.base_url) if issuer.need is None else collateral.get(issuer.need)
        if found is None:
            raise UntrustedCollateral(NRAS_JWKS_UNAVAILABLE, "none", str(issuer.need))
        return found

    def _verified(self, token: Unverified, jwks: Document, *, now: datetime) -> _Says:
        """What a token of the issuer with these keys says, at a time at which it counts."""
        key = key_named(token.kid, jwks, known=self._keys)
        name = token.text, jwks.sha256
        try:
            says = self._tokens.get(name) or self._tokens.put(name, verify_token(token, key.key))
        except JwsError as e:
            raise refused(e) from e
        _verify_time(says, key, now=now)
        return says

    def _chain(self, evidence: Evidence, judged: Judged, issuer: NrasIssuer, *, now: datetime) -> DeviceChain | None:
        """The device's own certificates, if they came along: to a pinned root, and of the device that NRAS judged."""
        if not evidence.certificates:
            return None
        chain = verify_chain(evidence.certificates, self._anchors.nvidia_device, known=self._chains, paths=self._paths)
        verify_time(chain, now=now)
        if chain.ueid != judged.ueid or chain.hwmodel.split(" ")[0] != judged.hwmodel.split(" ")[0]:
            found = f"{chain.hwmodel} with ueid {chain.ueid}"
            raise UntrustedEvidence(NRAS_CHAIN_MISMATCH, found, f"{judged.hwmodel} with ueid {judged.ueid}")
        if chain.path.anchor.emulated is not issuer.emulated:
            raise UntrustedEvidence(NRAS_ORIGINS_MIXED, "a vendor's and an emulated one", "one origin")
        return chain


def together(claims: Iterable[Claims]) -> Iterator[Breach]:
    """
    What must hold between the devices of one node, whichever way they were verified: reason, found and wanted for each
    breach. Every answer of NRAS is there whole, and no attestation key stands for two devices.
    """
    listed = list(claims)
    answers: dict[str, list[Claims]] = {}
    for claim in listed:
        if claim.kind == NVIDIA_NRAS:
            answers.setdefault(str(claim.values.get("answer")), []).append(claim)
    for parts in answers.values():
        names = {str(claim.values.get("submod")) for claim in parts}
        wanted = {claim.values.get("answers_for") for claim in parts}
        if wanted != {len(names)} or len(names) != len(parts):
            found = f"{len(parts)} tokens, of {', '.join(sorted(names))}"
            yield NRAS_INCOMPLETE, found, f"{' or '.join(map(str, wanted))} devices, each once"
    for ueid, times in Counter(claim.values["ueid"] for claim in listed if "ueid" in claim.values).items():
        if times > 1:
            yield reasons.DEVICE_DUPLICATE, f"ueid {ueid} {times} times", "each device once"


def _verify_time(says: _Says, key: IssuerKey, *, now: datetime) -> None:
    """The instant `exp` itself is too late. Clocks may differ at the beginning, where it harms nobody."""
    issued, begins, ends = (_instant(says, name) for name in ("iat", "nbf", "exp"))
    if not begins < ends or not issued < ends or ends - min(issued, begins) > TOKEN_LIFETIME_MAX:
        found = f"{issued:{_TIME}} to {ends:{_TIME}}"
        raise UntrustedEvidence(NRAS_TIME, found, f"at most {TOKEN_LIFETIME_MAX} of life")
    if now >= ends or now < max(issued, begins) - SKEW:
        raise UntrustedEvidence(NRAS_TIME, f"{max(issued, begins):{_TIME}} to {ends:{_TIME}}", f"at {now:{_TIME}}")
    if not key.not_before <= issued < key.not_after:
        wanted = f"{key.not_before:{_TIME}} to {key.not_after:{_TIME}}"
        raise UntrustedEvidence(NRAS_KEY_TIME, f"issued {issued:{_TIME}}", wanted)


def _instant(says: _Says, name: str) -> datetime:
    found = says.get(name)
    if type(found) is not int:
        raise MalformedEvidence(NRAS_CLAIM, f"{name} {found!r}", "seconds since 1970")
    try:
        return datetime.fromtimestamp(found, UTC)
    except (ValueError, OverflowError, OSError) as e:
        raise MalformedEvidence(NRAS_CLAIM, f"{name} {found}", "seconds since 1970") from e


def _verify_overall(overall: _Says) -> str:
    """That it is the token about a whole; returns the version of all claims."""
    if overall.get("sub") != SUBJECT:
        raise UntrustedEvidence(NRAS_SUBMODS, f"sub {overall.get('sub')!r}", SUBJECT)
    if not isinstance(overall.get("x-nvidia-overall-att-result"), bool):
        found = repr(overall.get("x-nvidia-overall-att-result"))
        raise MalformedEvidence(NRAS_CLAIM, f"x-nvidia-overall-att-result {found}", "true or false")
    version = overall.get("x-nvidia-ver")
    if not isinstance(version, str):
        raise MalformedEvidence(NRAS_CLAIM, f"x-nvidia-ver {version!r}", " or ".join(VERSIONS))
    return version


def _verify_digest(eat: Eat, overall: _Says) -> None:
    stated = vouched(overall.get("submods"), eat.name)
    found = hashlib.sha256(eat.device.text.encode("ascii")).hexdigest()
    if not hmac.compare_digest(found.encode(), stated.encode("utf-8", "replace")):
        raise UntrustedEvidence(NRAS_SUBMODS, f"{eat.name} with SHA-256 {found}", stated)


def _verify_nonce(says: _Says, nonce: Nonce | None, of: str) -> bytes:
    found = says.get("eat_nonce")
    if not isinstance(found, str) or not _NONCE.fullmatch(found):
        raise MalformedEvidence(NRAS_CLAIM, f"eat_nonce {found!r} for {of}", f"{NONCE_BYTES} bytes in lower hex")
    answered = bytes.fromhex(found)
    if nonce is not None and not hmac.compare_digest(answered, nonce):
        raise NonceMismatch(reasons.NONCE_MISMATCH, f"{found} for {of}", nonce.hex())
    return answered


def _verify_judged(says: _Says, name: str) -> None:
    """That it is a device's token, of this device, and judges it instead of telling an error."""
    if says.get("sub", name) != name or "submods" in says or "x-nvidia-overall-att-result" in says:
        raise UntrustedEvidence(NRAS_SUBMODS, f"a token of {says.get('sub')!r}", f"the token of {name}")
    error = says.get("x-nvidia-error-details")
    if error is None:
        return
    details = error if isinstance(error, dict) else {}
    code = details.get("code")
    found = " ".join(str(details[key]) for key in ("code", "message", "description") if details.get(key) is not None)
    if _SERVER_ERROR.fullmatch(str(code)):
        raise UntrustedCollateral(NRAS_FAILED, f"{name}: error {found}", "a judgement")
    raise UntrustedEvidence(NRAS_REFUSED, f"{name}: error {found or 'without a code'}", "a judgement")


def _device(chain: DeviceChain | None, judged: Judged) -> str:
    return f"nvidia-ueid-{judged.ueid}" if chain is None else f"nvidia-{chain.device_class.lower()}-{chain.pdi}"


def _identity(chain: DeviceChain | None) -> dict[str, Value]:
    return {"identity": "token"} if chain is None else {"identity": "certificates", "pdi": chain.pdi}


def _answer(eat: Eat, issuer: NrasIssuer, overall: _Says) -> dict[str, Value]:
    """Which answer of whom this is part of, and of how many devices: `together` counts them."""
    return {
        "verified_by": issuer.base_url,
        "answer": hashlib.sha256(eat.overall.text.encode("ascii")).hexdigest(),
        "answers_for": len(overall["submods"]),
        "submod": eat.name,
    }


def _not_after(overall: _Says, says: _Says, judged: Judged, chain: DeviceChain | None) -> datetime:
    ends = [_instant(overall, "exp"), _instant(says, "exp")]
    ends += [] if judged.not_after is None else [judged.not_after]
    return min(ends if chain is None else [*ends, chain.path.not_after])
