"""
What a verdict means in the words of AR4SI: the trustworthiness vector of one device, and its tier.

Eight aspects, each a number of draft-ietf-rats-ar4si-10, section 2.3.4. An aspect that no rule appraised is 0, "no
assertion", and so is one that a policy only excused. The mapping is fixed; nobody configures it:

    instance-identity   2  revocation was asked about and is good, and a challenge was answered
    configuration       2  mode stated and accepted (GPU); attributes accepted (TDX); no unknown bit in the policy (SNP)
    executables         3  all reference values match (GPU); every measurement is on a list (TDX, SNP)
    hardware            2  a vendor's root, and firmware as the certificate endorses it
    runtime-opaque      2  no debugging (TDX, SNP); never said of a GPU, which sees nothing of its host
    file-system, storage-opaque, sourced-data: nobody appraises them, so always 0

A rule that failed through the node's fault counts against one aspect: 99 where cryptography failed, 97 where we should
know it and do not, 96 otherwise, 1 for a kind of evidence that we cannot read. Most go by their stage, some by their
code (`_AGAINST`). What a policy put up with is a warning: 33 for measurements that differ, 32 for known vulnerabilities
of the hardware, and for a guest that its host may debug.

Of an emulated device nothing is affirmed, and its hardware is -33, a warning of our own: a policy accepted a root that
is no vendor's. Of a result that could not be decided (tier none) every aspect is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum

from attest.claims import Claims
from attest.reasons import Fault, Stage
from attest.result import AttestationResult, Finding, Tier

NO_CLAIM, UNKNOWN = 0, 1
GENUINE, APPROVED, OPAQUE, RECOGNISED, APPROVED_AT_BOOT = 2, 2, 2, 2, 3
VULNERABLE, VISIBLE_TO_HOST, UNRECOGNISED = 32, 32, 33
CONTRAINDICATED, UNKNOWN_TO_US, CRYPTO_FAILED = 96, 97, 99
EMULATED = -33  # not a standard value: AR4SI leaves -33 to -96 to verifiers for warnings of their own


class Aspect(StrEnum):
    """The trustworthiness claims of AR4SI, in its names."""

    INSTANCE_IDENTITY = "instance-identity"
    CONFIGURATION = "configuration"
    EXECUTABLES = "executables"
    FILE_SYSTEM = "file-system"
    HARDWARE = "hardware"
    RUNTIME_OPAQUE = "runtime-opaque"
    STORAGE_OPAQUE = "storage-opaque"
    SOURCED_DATA = "sourced-data"


class Status(StrEnum):
    """The trustworthiness tiers of AR4SI; the verdicts of `attest.result.Tier`, and the warning between them."""

    NONE = "none"
    AFFIRMING = "affirming"
    WARNING = "warning"
    CONTRAINDICATED = "contraindicated"


Vector = dict[str, int]

_LEAST_TRUSTED_LAST = (Status.NONE, Status.AFFIRMING, Status.WARNING, Status.CONTRAINDICATED)

_BY_STAGE: Mapping[Stage, tuple[Aspect, int]] = {  # parse and binding say nothing of any aspect
    Stage.CHAIN: (Aspect.INSTANCE_IDENTITY, CRYPTO_FAILED),
    Stage.SIGNATURE: (Aspect.INSTANCE_IDENTITY, CRYPTO_FAILED),
    Stage.REFERENCE: (Aspect.EXECUTABLES, CONTRAINDICATED),
    Stage.BUNDLE: (Aspect.INSTANCE_IDENTITY, CONTRAINDICATED),
    Stage.APPRAISE: (Aspect.CONFIGURATION, CONTRAINDICATED),
}

# Where the stage would name the wrong aspect or number. By code, so that no kind of evidence is imported here.
_AGAINST: Mapping[str, tuple[Aspect, int]] = {
    code: against
    for against, codes in (
        ((Aspect.INSTANCE_IDENTITY, UNKNOWN_TO_US), "chain-root tdx-root snp-chip-masked"),
        ((Aspect.INSTANCE_IDENTITY, CRYPTO_FAILED), "nonce-mismatch tdx-nonce"),
        ((Aspect.INSTANCE_IDENTITY, CONTRAINDICATED), "snp-revoked tdx-pck-revoked snp-signing-key-not-accepted"),
        ((Aspect.HARDWARE, UNKNOWN_TO_US), "root-not-accepted snp-product-unsupported tdx-module-unknown"),
        ((Aspect.HARDWARE, UNKNOWN), "kind-unsupported"),
        (
            (Aspect.HARDWARE, CONTRAINDICATED),
            (
                "kind-not-accepted architecture-not-accepted fwid-mismatch fwid-malformed fwid-absent "
                "snp-product-not-accepted snp-tcb-too-old snp-firmware-too-old snp-alias-check "
                "tdx-qe-identity tdx-qe-too-old tdx-tcb-unsupported tdx-tcb-revoked tdx-tcb-status tdx-advisory "
                "tdx-platform"
            ),
        ),
        (
            (Aspect.EXECUTABLES, CONTRAINDICATED),
            "measurements-mismatch snp-measurement snp-guest-svn tdx-mrtd tdx-rtmr tdx-event tdx-event-log",
        ),
        ((Aspect.RUNTIME_OPAQUE, CONTRAINDICATED), "snp-debug tdx-debug tdx-profiling"),
    )
    for code in codes.split()
}

# Rules that hold, and yet warn: code -> aspect, number, and when. A policy put up with it; a reader should know.
_TOLERATED: Mapping[str, tuple[Aspect, int, Callable[[Finding], bool]]] = {
    "measurements-mismatch": (Aspect.EXECUTABLES, UNRECOGNISED, lambda f: f.found != "match"),
    "tdx-tcb-status": (Aspect.HARDWARE, VULNERABLE, lambda f: f.found != "UpToDate"),
    "tdx-advisory": (Aspect.HARDWARE, VULNERABLE, lambda f: f.found != "none"),
    "snp-debug": (Aspect.RUNTIME_OPAQUE, VISIBLE_TO_HOST, lambda f: f.found != "allowed: False"),
}


def _always(_: Finding) -> bool:
    return True  # no policy leaves this rule out


def _listed(finding: Finding) -> bool:
    return finding.wanted != "any"  # a policy without a list appraised nothing


# Aspect -> number if affirmed, and the rules that must all have looked and liked it: code -> whether it looked.
_FOR: Mapping[Aspect, tuple[int, Mapping[str, Callable[[Finding], bool]]]] = {
    Aspect.INSTANCE_IDENTITY: (RECOGNISED, {"revocation-not-checked": lambda f: f.found == "good"}),
    Aspect.CONFIGURATION: (
        APPROVED,
        {
            "mode-not-accepted": lambda f: f.found != "unstated",
            "tdx-attributes": _always,
            "snp-policy-unknown": _always,
        },
    ),
    Aspect.EXECUTABLES: (
        APPROVED_AT_BOOT,
        {
            "measurements-mismatch": lambda f: f.found == "match",
            "snp-measurement": _listed,
            "tdx-mrtd": _listed,
            "tdx-rtmr": _listed,
        },
    ),
    Aspect.HARDWARE: (
        GENUINE,
        {"root-not-accepted": lambda f: f.found == "vendor", "fwid-absent": lambda f: f.found == "match"},
    ),
    Aspect.RUNTIME_OPAQUE: (
        OPAQUE,
        {"snp-debug": lambda f: f.found == "allowed: False", "tdx-attributes": _always},
    ),
}


def vector(result: AttestationResult, device: str) -> Vector:
    """The trustworthiness vector of one device of a result: all eight aspects, 0 for those that were not appraised."""
    said = dict.fromkeys(Aspect, NO_CLAIM)
    if result.tier is Tier.NONE:
        return _plain(said)
    findings = [finding for finding in result.findings if finding.device == device]
    claims = [claim for claim in result.claims if claim.device == device]
    said |= _affirmed(result, claims, findings)
    for aspect, value in (*_warnings(claims, findings), *_contraindications(findings)):
        if _weight(value) > _weight(said[aspect]):
            said[aspect] = value
    return _plain(said)


def _plain(said: Mapping[Aspect, int]) -> Vector:
    return {str(aspect): value for aspect, value in said.items()}


def _affirmed(result: AttestationResult, claims: Sequence[Claims], findings: Sequence[Finding]) -> dict[Aspect, int]:
    if len(claims) != 1 or claims[0].emulated is not False:
        return {}
    affirmed: dict[Aspect, int] = {}
    for aspect, (value, rules) in _FOR.items():
        tried = [finding for finding in findings if finding.reason.code in rules]
        if tried and all(finding.holds and rules[finding.reason.code](finding) for finding in tried):
            affirmed[aspect] = value
    if result.freshness != "nonce":
        affirmed.pop(Aspect.INSTANCE_IDENTITY, None)  # it may be anybody's who kept a copy
    return affirmed


def _warnings(claims: Sequence[Claims], findings: Sequence[Finding]) -> Iterable[tuple[Aspect, int]]:
    if any(claim.emulated is not False for claim in claims):
        yield Aspect.HARDWARE, EMULATED
    for finding in findings:
        tolerated = _TOLERATED.get(finding.reason.code)
        if finding.holds and tolerated is not None and tolerated[2](finding):
            yield tolerated[0], tolerated[1]


def _contraindications(findings: Sequence[Finding]) -> Iterable[tuple[Aspect, int]]:
    for finding in findings:
        if finding.holds or finding.reason.fault is Fault.COLLATERAL:
            continue
        against = _AGAINST.get(finding.reason.code) or _BY_STAGE.get(finding.reason.stage)
        if against is not None:
            yield against


def tier_of(value: int) -> Status:
    """The tier of one number of AR4SI (section 2.3.2)."""
    if value in (-1, NO_CLAIM, UNKNOWN):
        return Status.NONE
    if -32 <= value < 32:
        return Status.AFFIRMING
    return Status.WARNING if -96 <= value < 96 else Status.CONTRAINDICATED


def status(tier: Tier, vector: Mapping[str, int]) -> Status:
    """The status of a device: that of the whole verdict, or worse if its vector says so. Undecided stays undecided."""
    if tier is Tier.NONE:
        return Status.NONE
    return worst([Status(tier), *(tier_of(value) for value in vector.values())])


def worst(statuses: Iterable[Status]) -> Status:
    """The least trusted of several, where one that asserts nothing counts for nothing; none of none."""
    return max(statuses, key=_LEAST_TRUSTED_LAST.index, default=Status.NONE)


def _weight(value: int) -> tuple[int, int]:
    """Which of two numbers stands: the worse tier; within it a standard number before our own, then the higher."""
    return _LEAST_TRUSTED_LAST.index(tier_of(value)), value
