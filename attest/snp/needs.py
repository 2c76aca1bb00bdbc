"""
Documents that a report needs, named by the path at which AMD's key distribution service (KDS, AMD 57230) serves them.

    amd-vcek      vcek/v1/{product}/{chip id}?blSPL=..&teeSPL=..&snpSPL=..&ucodeSPL=..   certificate of the key, DER
    amd-issuers   vcek/v1/{product}/cert_chain, vlek/v1/{product}/cert_chain             ASK or ASVK, and ARK, PEM
    amd-crl       vcek/v1/{product}/crl, vlek/v1/{product}/crl                           revocation list of the ARK

A VLEK's certificate is served to its cloud provider only: it must come with the evidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from attest.collateral import CollateralKind, Need
from attest.errors import UnsupportedEvidence, UntrustedEvidence
from attest.reasons.snp import SNP_PRODUCT_UNSUPPORTED, SNP_SIGNING_KEY
from attest.snp.certificates import Certificate
from attest.snp.chain import HWID_BYTES, SigningKey, product_named
from attest.snp.product import Product, by_cpuid, tcb
from attest.snp.report import Report

_SIGNING_KEYS = {0: SigningKey.VCEK, 1: SigningKey.VLEK}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a report calls for; a document is None where the evidence carries it, or does not say enough to name it."""

    signing_key: SigningKey
    product: Product | None  # None: version 2, without a certificate
    vek: Need | None
    issuers: Need | None
    crl: Need | None

    @property
    def all(self) -> frozenset[Need]:
        return frozenset(need for need in (self.vek, self.issuers, self.crl) if need is not None)


def wanted_by(report: Report, carried: Sequence[Certificate]) -> Wanted:
    """
    What to fetch for this report, beside the certificates that came with it (signing key, authority, root).

    UntrustedEvidence if no key signed it, UnsupportedEvidence if its processor is of no line that we know.
    """
    signing_key = _SIGNING_KEYS.get(report.flags.signing_key)
    if signing_key is None:
        found = f"signing key {report.flags.signing_key}"
        raise UntrustedEvidence(SNP_SIGNING_KEY, found, "0, a VCEK, or 1, a VLEK")
    product = _product(report, carried)
    if product is None:
        return Wanted(signing_key, None, None, None, None)
    path = f"{signing_key}/v1/{product}"
    fetchable = not carried and signing_key is SigningKey.VCEK and not report.chip_masked
    return Wanted(
        signing_key,
        product,
        vek=Need(CollateralKind.AMD_VCEK, f"{path}/{_key_name(report, product)}") if fetchable else None,
        issuers=Need(CollateralKind.AMD_ISSUERS, f"{path}/cert_chain") if len(carried) < 2 else None,
        crl=Need(CollateralKind.AMD_CRL, f"{path}/crl"),
    )


def _product(report: Report, carried: Sequence[Certificate]) -> Product | None:
    """The line by the report's CPUID; a report of version 2 has none, so that the certificate's word counts."""
    if report.cpuid is None:
        if not carried:
            return None
        product, found = product_named(carried[0]), "a certificate that names none"
    else:
        product, found = by_cpuid(*report.cpuid), "CPUID family {:#x}, model {:#x}".format(*report.cpuid)
    if product is None:
        raise UnsupportedEvidence(SNP_PRODUCT_UNSUPPORTED, found, " or ".join(Product))
    return product


def _key_name(report: Report, product: Product) -> str:
    parts = tcb(product, report.reported_tcb)
    fmc = f"fmcSPL={parts.fmc:02}&" if product is Product.TURIN else ""
    versions = f"blSPL={parts.bootloader:02}&teeSPL={parts.tee:02}&snpSPL={parts.snp:02}&ucodeSPL={parts.microcode:02}"
    return f"{report.chip_id[: HWID_BYTES[product]].hex()}?{fmc}{versions}"
