"""Vectors of emulated SEV-SNP guests: every defect of report, certificates and AMD's documents, and rules."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from attest.collateral import CollateralKind, Need
from nodeprobe.emulator.snp import HOST_DATA, MEASUREMENT, EmulatedSnp
from nodeprobe.emulator.snp_defects import SNP_DEFECTS
from nodeprobe.emulator.snp_pki import SnpPki
from tests.conformance.draft import Draft

MADE = datetime(2030, 1, 1, 12, tzinfo=UTC)
AT = datetime(2030, 1, 2, tzinfo=UTC)
REPORT_DATA = bytes(range(64))
_STRICT = (
    'firmware_min = "1.55"',
    'abi_min = "0.31"',
    "guest_svn_min = 2",
    f'measurements = ["{MEASUREMENT.hex()}"]',
    f'host_data = ["{HOST_DATA.hex()}"]',
    "tcb_min.milan = { bootloader = 4, snp = 24, microcode = 219 }",
)
_HEAD = """\
name = "snp"
kinds = ["amd-snp"]
required = ["amd-snp"]
origins = ["vendor", "emulated"]
nonce = "optional"

[nvidia]
gpus_min = 0

[snp]
"""


def policy(*rules: str, head: str = _HEAD) -> str:
    """Rules that ask for no less than the good guest has, and these."""
    return head + "\n".join([*_STRICT, *rules, ""])


def documents(guest: EmulatedSnp) -> dict[Need, bytes]:
    """AMD's, for this guest."""
    return {Need(_kind(path), path): data for path, data in guest.documents().items()}


def drafts(folder: Path) -> Iterator[Draft]:
    """All of them, in a PKI made below `folder`."""
    pki = SnpPki.create(folder / "snp-pki", now=MADE)
    guest = EmulatedSnp.create(pki, "guest-0", now=MADE)
    anchors = pki.anchors.read_bytes()

    def draft(name: str, made: str, *codes: str, of: EmulatedSnp = guest, **more: Any) -> Draft:
        evidence = (of.evidence(REPORT_DATA),)
        given = {"policy": policy(), "anchors": anchors, "collateral": documents(of), **more}
        return Draft(f"snp-{name}", made, evidence, AT, codes, **given)

    yield draft("good", "a guest on a chip", says={"emulated": True, "cpu": "amd-snp", "revocation": "good"})
    for version in (2, 3, 4):
        yield draft(f"good-v{version}", f"a report of version {version}", of=replace(guest, version=version))
    yield draft("good-fetched", "certificates that are fetched", of=replace(guest, carries=0))
    for name, defect in SNP_DEFECTS.items():
        yield draft(name, defect.meaning, defect.reason.code, of=guest.spoiled(name))
    yield draft("unnamed-root", "nobody named its root", "chain-root", anchors=b"", attacks=(7, 15))
    for name, rule, code in _RULES:
        yield draft(f"rule-{name}", f"the policy: {rule}", code, policy=policy(rule))
    provider = replace(guest, signing_key="vlek")
    hosted = policy('signing_keys = ["vlek"]', "masked_chip_id = true")
    yield draft("provider", "a provider's key, accepted", of=provider, policy=hosted)
    codes = ("snp-signing-key-not-accepted", "snp-chip-masked")
    yield draft("provider-refused", "a provider's key behind a masked chip", *codes, of=provider)
    fresh = policy(head=_HEAD.replace('nonce = "optional"', 'nonce = "required"'))
    made = "report data that no binding profile ties to the challenge"
    yield draft("unbound", made, "nonce-not-given", "binding-mismatch", policy=fresh, nonce=bytes(32), attacks=(1, 2))


_RULES = (
    ("product", 'products = ["Genoa"]', "snp-product-not-accepted"),
    ("smt", "smt = false", "snp-smt"),
    ("vmpl", "vmpl = [1]", "snp-vmpl"),
)


def _kind(path: str) -> CollateralKind:
    if path.endswith("/crl"):
        return CollateralKind.AMD_CRL
    return CollateralKind.AMD_ISSUERS if path.endswith("/cert_chain") else CollateralKind.AMD_VCEK
