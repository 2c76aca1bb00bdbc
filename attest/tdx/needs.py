"""
The documents of Intel's that a TDX verification needs, by kind and by Intel's own name, and where Intel has them.

    intel-tdx-tcb-info      FMSPC, 12 upper hex digits   TCB levels of one family of machines
    intel-tdx-qe-identity   TD_QE                        which quoting enclave is Intel's
    intel-pck-crl           platform | processor         revoked PCK certificates, by the CA that issued them
    intel-root-crl          IntelSGXRootCA               revoked CAs and signers

A name ends in `@` and 16 hex digits of the root's SHA-256 where the root is not Intel's: those documents are not
Intel's to give, and one store can hold both.
"""

from __future__ import annotations

from dataclasses import dataclass

from attest.collateral import CollateralKind, Need
from attest.tdx.roots import Root

INTEL_TCB_INFO, INTEL_QE_IDENTITY = CollateralKind.INTEL_TCB_INFO, CollateralKind.INTEL_QE_IDENTITY
INTEL_PCK_CRL, INTEL_ROOT_CRL = CollateralKind.INTEL_PCK_CRL, CollateralKind.INTEL_ROOT_CRL

PCS = "https://api.trustedservices.intel.com"
CERTIFICATES = "https://certificates.trustedservices.intel.com"
TD_QE, SGX_ROOT = "TD_QE", "IntelSGXRootCA"
CAS = {"Intel SGX PCK Platform CA": "platform", "Intel SGX PCK Processor CA": "processor"}


@dataclass(frozen=True, slots=True)
class Needs:
    """The four documents of one machine."""

    tcb_info: Need
    qe_identity: Need
    pck_crl: Need
    root_crl: Need

    @classmethod
    def of(cls, fmspc: str, ca: str, root: Root) -> Needs:
        """`fmspc` in upper hex, `ca` one of the values of CAS."""
        return cls(
            Need(INTEL_TCB_INFO, fmspc + root.mark),
            Need(INTEL_QE_IDENTITY, TD_QE + root.mark),
            Need(INTEL_PCK_CRL, ca + root.mark),
            Need(INTEL_ROOT_CRL, SGX_ROOT + root.mark),
        )

    @property
    def all(self) -> tuple[Need, ...]:
        return self.tcb_info, self.qe_identity, self.pck_crl, self.root_crl


@dataclass(frozen=True, slots=True)
class Source:
    """Where Intel has a document: base URL and path, and the response header with the issuer chain, if it has one."""

    base: str
    path: str
    chain_header: str = ""


def source(need: Need) -> Source | None:
    """Where Intel's PCS (API v4) has it; None for what is not Intel's to give."""
    if "@" in need.name:
        return None
    if need.kind == INTEL_TCB_INFO:
        return Source(PCS, f"/tdx/certification/v4/tcb?fmspc={need.name}", "TCB-Info-Issuer-Chain")
    if need.kind == INTEL_QE_IDENTITY:
        return Source(PCS, "/tdx/certification/v4/qe/identity", "SGX-Enclave-Identity-Issuer-Chain")
    if need.kind == INTEL_PCK_CRL:
        return Source(PCS, f"/sgx/certification/v4/pckcrl?ca={need.name}&encoding=der", "SGX-PCK-CRL-Issuer-Chain")
    if need.kind == INTEL_ROOT_CRL:
        return Source(CERTIFICATES, "/IntelSGXRootCA.der")
    return None
