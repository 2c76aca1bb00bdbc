"""
Rules for the claims of a SEV-SNP guest, and the names of those claims.

    product               "Milan" | "Genoa" | "Turin", from the certificates; the report agrees
    signing_key           "vcek" | "vlek"; `csp` names the cloud provider of a VLEK, and is empty for a VCEK
    chip_id               "match" with the certificate | "stated" by a report under a VLEK | "masked" by the host
    tcb_reported          security versions (fmc, bootloader, tee, snp, microcode), fmc 0 but on Turin: those that
                          the certificate of the signing key is for
    tcb_committed         ... that the host cannot go back behind
    tcb_current           ... that run now
    tcb_launch            ... that ran when the guest was launched
    firmware              SEV firmware that the host committed to, "1.55.29"; firmware_current is what runs now
    platform_*            bool: smt, tsme, ecc, rapl_disabled, ciphertext_hiding, alias_check, tio
    allows_*              bool, what the guest's policy lets the host do: smt, migrate_ma, debug, cxl; and
                          allows_single_socket, which means that the guest insists on one
    abi_min               oldest firmware interface that the guest's policy accepts, "1.31"
    policy_unknown_bits   bits of the guest's policy that nobody here knows; 0 if none
    vmpl                  level that asked, 0 to 3; 4294967295 where the host did
    guest_svn             of the guest image, as its id block says
    measurement           of the launched guest, SHA-384, hex; id_key_digest and author_key_digest likewise
    host_data             32 bytes that the host set at launch, hex
    report_data           64 bytes that the guest asked to have signed, hex: what they commit to, binding profiles judge
    report_id             of this launch of the guest, hex
    report_version        2 to 5
    revocation            "good": the authority (ASK, ASVK) is not on its root's list | "not checked"

The device is the chip: its id from the VCEK's certificate, or from the report under a VLEK. One chip may run several
guests. Where a VLEK signs and the chip is masked, the device is no chip but this launch of the guest, by report id.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Protocol

from attest.claims import Claims
from attest.reasons import Reason
from attest.reasons import snp as reasons
from attest.result import Finding
from attest.snp.product import Tcb
from attest.snp.rules import SnpRules

TCB_CLAIMS = ("reported", "committed", "launch")


class WithSnpRules(Protocol):
    """A policy that has rules for SEV-SNP."""

    @property
    def snp(self) -> SnpRules: ...


def appraise_snp(claims: Claims, policy: WithSnpRules, _now: datetime) -> Iterator[Finding]:
    """Every rule of `policy.snp`, tried on one guest."""
    rules = policy.snp
    yield from _platform(claims, rules)
    yield from (_tcb(claims, rules, which) for which in TCB_CLAIMS)
    yield _version(claims, "firmware", rules.firmware_min, reasons.SNP_FIRMWARE_TOO_OLD)
    yield from _guest(claims, rules)
    yield _version(claims, "abi_min", rules.abi_min, reasons.SNP_ABI_TOO_OLD)
    yield from _image(claims, rules)


def _platform(claims: Claims, rules: SnpRules) -> Iterator[Finding]:
    product = claims.values.get("product")
    rule, reason = "is of an accepted product", reasons.SNP_PRODUCT_NOT_ACCEPTED
    yield _rule(claims, rule, reason, product in rules.products, str(product), _either(rules.products))
    key = claims.values.get("signing_key")
    rule, reason = "is signed by an accepted kind of key", reasons.SNP_SIGNING_KEY_NOT_ACCEPTED
    yield _rule(claims, rule, reason, key in rules.signing_keys, str(key), _either(rules.signing_keys))
    chip = claims.values.get("chip_id")
    holds = chip in ("match", "stated") or (chip == "masked" and rules.masked_chip_id)
    yield _rule(claims, "names its chip, or need not", reasons.SNP_CHIP_MASKED, holds, str(chip), "a chip id")
    checked = claims.values.get("platform_alias_check")
    holds = checked is True or (checked is False and not rules.alias_check_required)
    rule, reason = "has checked its memory for aliases, or need not", reasons.SNP_ALIAS_CHECK
    yield _rule(claims, rule, reason, holds, str(checked), "True")


def _tcb(claims: Claims, rules: SnpRules, which: str) -> Finding:
    """Each part counts by itself: a new bootloader does not make up for old microcode."""
    found, product = claims.values.get(f"tcb_{which}"), str(claims.values.get("product")).lower()
    least = getattr(rules.tcb_min, product, None)
    minimum = None if least is None else Tcb(**least.model_dump())
    holds = (
        minimum is not None
        and isinstance(found, tuple)
        and len(found) == len(minimum)
        and all(isinstance(part, int) and part >= least for part, least in zip(found, minimum, strict=True))
    )
    shown, wanted = (_parts(each) for each in (found, minimum))
    rule = f"has a {which} TCB that is new enough"
    return _rule(claims, rule, reasons.SNP_TCB_TOO_OLD, holds, shown, wanted)


def _guest(claims: Claims, rules: SnpRules) -> Iterator[Finding]:
    """What the guest lets its host do, and who asked for the report."""
    for name, reason, accepted in (
        ("debug", reasons.SNP_DEBUG, rules.debug),
        ("migrate_ma", reasons.SNP_MIGRATION_AGENT, rules.migrate_ma),
        ("smt", reasons.SNP_SMT, rules.smt),
        ("cxl", reasons.SNP_CXL, rules.cxl),
    ):
        allowed = claims.values.get(f"allows_{name}")
        holds = allowed is False or (allowed is True and accepted)
        yield _rule(claims, f"does not allow {name}, or may", reason, holds, f"allowed: {allowed}", "allowed: False")
    unknown = claims.values.get("policy_unknown_bits")
    shown = f"{unknown:#x}" if isinstance(unknown, int) else str(unknown)
    rule, reason = "has a policy that is understood", reasons.SNP_POLICY_UNKNOWN
    yield _rule(claims, rule, reason, type(unknown) is int and unknown == 0, shown, "no unknown bits")
    vmpl = claims.values.get("vmpl")
    holds = type(vmpl) is int and vmpl in rules.vmpl
    wanted = " or ".join(map(str, sorted(rules.vmpl)))
    yield _rule(claims, "asked from an accepted level", reasons.SNP_VMPL, holds, f"VMPL {vmpl}", wanted)


def _image(claims: Claims, rules: SnpRules) -> Iterator[Finding]:
    svn, least = claims.values.get("guest_svn"), rules.guest_svn_min
    holds = type(svn) is int and svn >= least
    yield _rule(claims, "is an image that is new enough", reasons.SNP_GUEST_SVN, holds, str(svn), f"at least {least}")
    yield _listed(claims, "measurement", rules.measurements, reasons.SNP_MEASUREMENT)
    yield _listed(claims, "host_data", rules.host_data, reasons.SNP_HOST_DATA)


def _listed(claims: Claims, claim: str, allowed: frozenset[str] | None, reason: Reason) -> Finding:
    found = claims.values.get(claim)
    holds = isinstance(found, str) and bool(found) and (allowed is None or found in allowed)
    wanted = "any" if allowed is None else f"one of {len(allowed)} listed"
    return _rule(claims, f"has {claim} that is listed, if there is a list", reason, holds, str(found), wanted)


def _version(claims: Claims, claim: str, minimum: str | None, reason: Reason) -> Finding:
    found = str(claims.values.get(claim, ""))
    holds = bool(found) and (minimum is None or _reaches(found, minimum))
    return _rule(claims, f"names a version for {claim} that is new enough", reason, holds, found, minimum or "any")


def _reaches(found: str, minimum: str) -> bool:
    try:
        return list(map(int, found.split("."))) >= list(map(int, minimum.split(".")))
    except ValueError:
        return False  # a version that is no number is not known to be new enough


def _parts(found: object) -> str:
    if not isinstance(found, tuple) or len(found) != len(Tcb._fields):
        return str(found)
    return " ".join(f"{name} {part}" for name, part in zip(Tcb._fields, found, strict=True))


def _either(names: frozenset[str]) -> str:
    return " or ".join(sorted(names))


def _rule(claims: Claims, rule: str, reason: Reason, holds: bool, found: str, wanted: str) -> Finding:
    return Finding(claims.device, rule, reason, holds, found, wanted)
