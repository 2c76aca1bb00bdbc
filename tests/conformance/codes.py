"""Which attacks of the catalogue a reason code answers, and which codes `attest verify` cannot be made to give."""

from __future__ import annotations

from collections.abc import Iterable

# The attacks that concern verification, in few words.
ATTACKS = {
    1: "evidence replayed",
    2: "genuine evidence relayed from another machine",
    3: "evidence of another TLS key",
    4: "devices left out, doubled or not of this node",
    5: "confidential computing off, debug, other privilege levels",
    6: "old firmware, downgraded or revoked TCB",
    7: "collateral or certificates believed without proof",
    8: "tokens confused",
    9: "signed XML misread",
    10: "parsers crashed, or starved",
    13: "expiry and clocks",
    15: "shown as verified without being so",
}

# fmt: off
_BY_CODE: dict[int, tuple[str, ...]] = {
    1: (
        "nonce-mismatch", "nonce-not-given", "tdx-nonce",
    ),
    2: (
        "binding-weak", "binding-mismatch", "device-duplicate", "report-signature", "snp-chip-mismatch",
        "nras-chain-mismatch",
    ),
    4: (
        "device-duplicate", "device-count", "kind-absent", "topology", "topology-absent", "devices-differ",
        "nras-incomplete",
    ),
    5: (
        "mode-not-accepted", "nras-debug", "tdx-debug", "tdx-profiling", "tdx-migratable", "tdx-service-td",
        "tdx-sept-ve", "tdx-reserved-attributes", "tdx-attributes", "snp-debug", "snp-migration-agent", "snp-vmpl",
        "snp-smt", "snp-cxl", "snp-policy-unknown", "nvdec-status",
    ),
    6: (
        "measurements-mismatch", "driver-too-old", "vbios-not-accepted", "fwid-absent", "fwid-mismatch",
        "tdx-tcb-status", "tdx-tcb-revoked", "tdx-tcb-unsupported", "tdx-advisory", "tdx-module-unknown",
        "tdx-qe-too-old", "tdx-tcb-evaluation", "snp-tcb-too-old", "snp-tcb-mismatch", "snp-firmware-too-old",
        "snp-abi-too-old", "snp-guest-svn", "snp-alias-check", "chain-revoked", "snp-revoked", "tdx-pck-revoked",
    ),
    7: (
        "chain-length", "chain-duplicate", "chain-link", "chain-root", "chain-profile", "chain-class",
        "chain-status-unknown", "ocsp-malformed", "report-signature", "rim-chain", "rim-signature", "rim-revoked",
        "tdx-root", "tdx-pck-chain", "tdx-quote-signature", "tdx-qe-signature", "tdx-qe-binding", "tdx-qe-identity",
        "tdx-collateral-signature", "tdx-collateral-chain", "tdx-collateral-revoked", "tdx-collateral-other",
        "snp-vek-profile", "snp-signing-key", "snp-product-mismatch", "snp-document-untrusted", "snp-crl-signature",
        "snp-vek-missing", "revocation-not-checked",
    ),
    9: (
        "rim-malformed", "rim-digest", "rim-signature", "rim-chain", "rim-binding", "rim-conflict", "rim-too-large",
    ),
    10: (
        "evidence-too-large", "evidence-malformed", "report-malformed", "certificates-malformed",
        "tdx-quote-malformed", "tdx-certificates-malformed", "tdx-event-log-malformed", "snp-report-malformed",
        "nras-eat-malformed", "nras-token-malformed", "rim-too-large", "snp-crl-malformed",
    ),
    13: (
        "chain-time", "rim-time", "rim-expired", "revocation-stale", "collateral-stale", "tdx-pck-time",
        "tdx-collateral-time", "tdx-collateral-stale", "snp-crl-time", "nras-time", "nras-key-time",
    ),
    15: (
        "root-not-accepted", "roots-mixed", "nras-origins-mixed",
    ),
}
# fmt: on

# Codes without a vector, and why.
WITHOUT_VECTOR = {
    "device-taken": "about the fleet: given by the registry, which knows other workers",
    "tdx-refused": "for texts of the quote library that nobody knows yet; none can be provoked",
}
# Codes that follow from others: who was refused answers no challenge, and leaves a gap.
_COMPANY = {
    "nonce-mismatch": ("binding-mismatch",),
    "report-malformed": ("binding-mismatch",),
    "kind-unsupported": ("binding-mismatch",),
    "tdx-tcb-status": ("tdx-advisory",),
}
_OF_RESULTS = "of signed results and their tokens: given by `attest result verify`"


def without_vector(code: str) -> str | None:
    """Why no vector of `attest verify` can name this code; None where one must."""
    return _OF_RESULTS if code.startswith(("token-", "result-")) else WITHOUT_VECTOR.get(code)


def company_of(codes: Iterable[str]) -> tuple[str, ...]:
    """Codes that may be named beside these."""
    return tuple(beside for code in codes for beside in _COMPANY.get(code, ()))


def attacks_of(codes: Iterable[str]) -> tuple[int, ...]:
    """The attacks that are answered by being refused for these codes."""
    codes = set(codes)
    found = {attack for attack, answers in _BY_CODE.items() if codes & set(answers)}
    if any(code.startswith("nras-") for code in codes):
        found.add(8)
    return tuple(sorted(found))
