"""
Results as EAT Attestation Results (EAR): draft-ietf-rats-ear-04, signed as a JWT of type `eat+jwt`.

    eat_profile            tag:ietf.org,2026:rats/ear#04
    iss                    who issued it
    iat, nbf, exp          issued; holds from then on; `expires_at`, rounded down: the instant itself is too late
    ear_verifier_id        developer and build of the verifier
    ear_status             the worst of all devices, and of the verdict on the node as a whole
    eat_nonce              what the evidence answered, base64url; absent if nothing was asked
    submods                one appraisal for each device, labelled by its identity; a device that was not believed by
                           its place, "device 0"; "node" alone if there is none at all
    urn:workermanager:ear:result    all that AR4SI has no word for (`_of_result`)

    of each device
    eat_profile            urn:workermanager:ear:v1, which is this page
    ear_status             none, affirming, warning or contraindicated: never better than the verdict on the node, so
                           that nobody takes one good device for a good node
    ear_trustworthiness_vector    all eight aspects; `attest.trustworthiness` says which rule speaks of which
    ear_appraisal_policy_ids      urn:workermanager:policy:NAME:sha256:DIGEST
    eat_nonce              as above, if this device signed it
    urn:workermanager:ear:device    kind, origin, claims, collateral, refusals

An emulated device is never affirming, whatever its policy accepts: its status is warning, and `emulated` is true. Up to
draft 02 the names had dots and hyphens (`ear.status`); the profile says that these are the later ones.
"""

from __future__ import annotations

import base64
import calendar
import hmac
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from attest import tokens
from attest.claims import Claims
from attest.errors import printable
from attest.evidence import DEVICES_MAX
from attest.reasons import Reason
from attest.reasons import tokens as reasons
from attest.result import NODE, AttestationResult, Finding, Tier
from attest.result_key import ALGORITHMS, ResultKey
from attest.tokens import Keys, MalformedToken, PublicKey, UntrustedToken
from attest.trustworthiness import EMULATED, Aspect, Status, status, tier_of, vector, worst

PROFILE = "tag:ietf.org,2026:rats/ear#04"
APPRAISAL_PROFILE = "urn:workermanager:ear:v1"
TYPE = "eat+jwt"  # application/eat+jwt, RFC 9782
RESULT, DEVICE = "urn:workermanager:ear:result", "urn:workermanager:ear:device"

SUBMODS_MAX = 2 * DEVICES_MAX  # a device that was not believed and one taken by another worker may both be named
ISSUER_CHARS_MAX = 256
_TIME_MAX = 253_402_300_799  # the last second of the year 9999


@dataclass(frozen=True, slots=True)
class VerifierId:
    """What software appraised: who made it, and which build. Both for people and logs."""

    developer: str
    build: str


def to_ear(result: AttestationResult, *, issuer: str, issued_at: datetime, verifier: VerifierId) -> dict[str, Any]:
    """The claims of an EAR, as JSON types. ValueError if it were issued before it was appraised, or by nobody."""
    if issued_at < result.issued_at:
        raise ValueError(f"issued at {issued_at}, before it was appraised at {result.issued_at}")
    if not 0 < len(issuer) <= ISSUER_CHARS_MAX:
        raise ValueError(f"an issuer has 1 to {ISSUER_CHARS_MAX} characters, this has {len(issuer)}")
    issued = _seconds(issued_at)
    submods = {label: _appraisal(result, label, claims) for label, claims in _devices(result).items()}
    return {
        "eat_profile": PROFILE,
        "iss": issuer,
        "iat": issued,
        "nbf": issued,
        "exp": _seconds(result.expires_at),
        "ear_verifier_id": asdict(verifier),
        "ear_status": str(worst(Status(each["ear_status"]) for each in submods.values())),
        "submods": submods,
        RESULT: _of_result(result),
    } | _nonce(result)


def _devices(result: AttestationResult) -> dict[str, Claims | None]:
    """Whom the result is about, and what each proved: None for those that were not believed."""
    named: dict[str, Claims | None] = {claims.device: claims for claims in result.claims}
    for finding in result.findings:
        if finding.device != NODE:
            named.setdefault(finding.device, None)
    return named or {NODE: None}


def _appraisal(result: AttestationResult, device: str, claims: Claims | None) -> dict[str, Any]:
    trust = vector(result, device)
    told: dict[str, Any] = {"refusals": _refusals(f for f in result.failed if f.device == device)}
    if claims is not None:
        told |= {
            "kind": claims.kind,
            "emulated": claims.emulated is not False,
            "not_after": _time(claims.not_after),
            "claims": {name: list(each) if isinstance(each, tuple) else each for name, each in claims.values.items()},
            "collateral": dict(claims.collateral),
        }
    return {
        "eat_profile": APPRAISAL_PROFILE,
        "ear_status": str(status(result.tier, trust)),
        "ear_trustworthiness_vector": trust,
        "ear_appraisal_policy_ids": [f"urn:workermanager:policy:{result.policy}:sha256:{result.policy_sha256}"],
        DEVICE: told,
    } | (_nonce(result) if claims is not None and result.freshness == "nonce" else {})


def _of_result(result: AttestationResult) -> dict[str, Any]:
    return {
        "tier": str(result.tier),
        "emulated": result.emulated,
        "revocation": result.revocation,
        "freshness": result.freshness,
        "binding": {"profile": result.binding, "strength": str(result.strength)},
        "cpu": result.cpu,
        "policy": {"name": result.policy, "sha256": result.policy_sha256},
        "evidence_sha256": result.evidence_sha256,
        "collateral": dict(result.collateral),
        "appraised_at": _time(result.issued_at),
        "expires_at": _time(result.expires_at),
        "refusals": _refusals(f for f in result.failed if f.device == NODE),
    }


def _refusals(findings: Iterable[Finding]) -> list[dict[str, str]]:
    return [
        {"code": f.reason.code, "rule": f.rule, "found": printable(f.found), "wanted": printable(f.wanted)}
        for f in findings
    ]


def _nonce(result: AttestationResult) -> dict[str, str]:
    return {} if result.nonce is None else {"eat_nonce": _base64url(bytes.fromhex(result.nonce))}


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _seconds(moment: datetime) -> int:
    """Rounded down: an end comes no later for it."""
    return calendar.timegm(moment.astimezone(UTC).timetuple())


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


# --- as a token -------------------------------------------------------------------------------------------------------
def sign(ear: Mapping[str, Any], key: ResultKey) -> str:
    """The EAR as a compact JWS, by the algorithm of the key; its header has `alg`, `kid` and `typ`."""
    return tokens.sign(ear, key.private, typ=TYPE)


def jwks(keys: Iterable[PublicKey]) -> dict[str, Any]:
    """The key set that `verify` takes, for `/.well-known/jwks.json`. Keep a key in it as long as its results hold."""
    return tokens.key_set(keys)


def verify(token: str, keys: Keys, *, now: datetime, nonce: bytes | None = None) -> dict[str, Any]:
    """
    The claims of an EAR that one of `keys` (`attest.tokens.read_keys`) signed and that holds at `now`.

    That it is genuine says nothing of what it says: look at `ear_status`. With `nonce`, it must be the result of that
    very challenge. MalformedToken or UntrustedToken, with a reason of `attest.reasons.tokens`.
    """
    claims = tokens.verify(token, keys, typ=TYPE, algorithms=ALGORITHMS)
    _check_form(claims)
    _check_times(claims, now)
    if nonce is not None:
        _check_nonce(claims.get("eat_nonce"), _base64url(nonce))
    return claims


def _check_nonce(found: str | None, wanted: str) -> None:
    if found is None or not hmac.compare_digest(found, wanted):
        raise UntrustedToken(reasons.TOKEN_NONCE_MISMATCH, found or "none", wanted)


def _check_form(claims: Mapping[str, Any]) -> None:
    """That what others will look at is there, and of its type. An issuer's slip must not read as a yes."""
    _check(claims.get("eat_profile") == PROFILE, "eat_profile", PROFILE)
    issuer, nonce = claims.get("iss"), claims.get("eat_nonce", "absent")
    _check(isinstance(issuer, str) and 0 < len(issuer) <= ISSUER_CHARS_MAX, "iss", "the issuer's name")
    _check(isinstance(nonce, str) and nonce.isascii() and bool(nonce), "eat_nonce", "one nonce in base64url")
    verifier = claims.get("ear_verifier_id")
    _check(isinstance(verifier, dict) and {"developer", "build"} <= verifier.keys(), "ear_verifier_id", "both parts")
    submods, whole = claims.get("submods"), claims.get(RESULT)
    _check(isinstance(whole, dict), RESULT, "an object")
    if not isinstance(submods, dict) or not 0 < len(submods) <= SUBMODS_MAX:
        raise MalformedToken(reasons.TOKEN_MALFORMED, "submods", f"1 to {SUBMODS_MAX} appraisals")
    for appraisal in submods.values():
        _check_appraisal(appraisal)
    said = claims.get("ear_status")
    _check(said == worst(Status(each["ear_status"]) for each in submods.values()), "ear_status", "the worst of all")


def _check_appraisal(appraisal: object) -> None:
    if not isinstance(appraisal, dict):
        raise MalformedToken(reasons.TOKEN_MALFORMED, "an appraisal", "an object")
    _check(appraisal.get("ear_status") in list(Status), "ear_status", "a tier")
    trust = appraisal.get("ear_trustworthiness_vector")
    numbers = isinstance(trust, dict) and all(type(n) is int and -128 <= n <= 127 for n in trust.values())
    _check(numbers and trust.keys() == set(Aspect), "ear_trustworthiness_vector", "eight numbers")  # type: ignore[union-attr]
    _check(isinstance(appraisal.get(DEVICE), dict), DEVICE, "an object")


def _check(holds: bool, found: str, wanted: str) -> None:
    if not holds:
        raise MalformedToken(reasons.TOKEN_MALFORMED, found, wanted)


def _check_times(claims: Mapping[str, Any], now: datetime) -> None:
    issued, begins, ends = (_moment(claims, name) for name in ("iat", "nbf", "exp"))
    if max(issued, begins) > now:
        raise UntrustedToken(reasons.TOKEN_NOT_YET_VALID, _time(max(issued, begins)), f"at most {_time(now)}")
    if ends <= now:
        raise UntrustedToken(reasons.TOKEN_EXPIRED, _time(ends), f"later than {_time(now)}")


def _moment(claims: Mapping[str, Any], name: str) -> datetime:
    """Whole seconds: EAR forbids fractions, and true is no number."""
    value = claims.get(name)
    if type(value) is not int or not 0 <= value <= _TIME_MAX:
        raise MalformedToken(reasons.TOKEN_MALFORMED, f"{name} {value!r}", "whole seconds since 1970")
    return datetime.fromtimestamp(value, UTC)


# --- what a relying party makes of it ---------------------------------------------------------------------------------
class Objection(NamedTuple):
    """Why a genuine result is not accepted: about which device (or `node`), what it says and what would do."""

    device: str
    reason: Reason
    found: str
    wanted: str


def objections(claims: Mapping[str, Any], *, emulated: bool = False, warnings: bool = False) -> tuple[Objection, ...]:
    """
    What speaks against a result that `verify` returned: nothing, if it affirms all devices and the node.

    `emulated` accepts emulated devices, `warnings` what the issuer's policy put up with. Neither accepts the other, and
    neither makes a yes of a no.
    """
    whole, found = claims[RESULT], list[Objection]()
    if whole.get("tier") != Tier.AFFIRMING:
        said = _codes(whole, whole.get("tier"))
        found.append(Objection(NODE, reasons.RESULT_NOT_AFFIRMING, said, Tier.AFFIRMING))
    vectors = [appraisal["ear_trustworthiness_vector"] for appraisal in claims["submods"].values()]
    genuine = whole.get("emulated") is False and not any(EMULATED in trust.values() for trust in vectors)
    if not genuine and not emulated:
        found.append(Objection(NODE, reasons.RESULT_EMULATED, "emulated", "a vendor's root"))
    for device, appraisal in claims["submods"].items():
        found += _objections(device, appraisal, warnings)
    return tuple(found)


def _objections(device: str, appraisal: Mapping[str, Any], accept_warnings: bool) -> Iterator[Objection]:
    said, trust = appraisal["ear_status"], appraisal["ear_trustworthiness_vector"]
    if said not in (Status.AFFIRMING, Status.WARNING):
        yield Objection(device, reasons.RESULT_NOT_AFFIRMING, _codes(appraisal[DEVICE], said), Status.AFFIRMING)
        return
    warned = [aspect for aspect, value in trust.items() if tier_of(value) is Status.WARNING]
    own = [aspect for aspect in warned if trust[aspect] == EMULATED]  # told of by `emulated` of the whole
    if accept_warnings or said == Status.AFFIRMING or (own and own == warned):
        return
    others = ", ".join(f"{aspect} {trust[aspect]}" for aspect in warned if aspect not in own)
    yield Objection(device, reasons.RESULT_WARNS, others or Status.WARNING, "no warning")


def _codes(told: Mapping[str, Any], status: object) -> str:
    refusals = told.get("refusals")
    codes = [str(each.get("code")) for each in refusals if isinstance(each, dict)] if isinstance(refusals, list) else []
    return f"{status} ({', '.join(codes)})" if codes else str(status)
