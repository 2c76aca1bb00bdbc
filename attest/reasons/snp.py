"""Reason codes of SEV-SNP evidence."""

from __future__ import annotations

from attest.reasons.catalogue import Fault, Stage
from attest.reasons.catalogue import reason as _reason

_NOT_GENUINE = (
    "Treat the node as hostile until explained: genuine hardware does not produce this. Collect again; if it "
    "persists, take the node out and ask the vendor."
)
_FETCH_AGAIN = "Fetch it again from AMD's key distribution service, and keep it unchanged."

# --- parse ------------------------------------------------------------------------------------------------------------
SNP_REPORT_MALFORMED = _reason(
    "snp-report-malformed",
    Stage.PARSE,
    "The report breaks the layout of a SEV-SNP attestation report.",
    "Send the 1,184 bytes of the report unchanged, without the header that some interfaces put before it.",
)
SNP_VERSION_UNSUPPORTED = _reason(
    "snp-version-unsupported",
    Stage.PARSE,
    "The report has a version whose layout this verifier does not know.",
    "Versions 2 to 5 are read. Update the verifier for newer firmware, or the firmware of an old one.",
)

# --- chain ------------------------------------------------------------------------------------------------------------
SNP_PRODUCT_UNSUPPORTED = _reason(
    "snp-product-unsupported",
    Stage.CHAIN,
    "The processor is of a line whose root certificate is not pinned.",
    "Milan, Genoa (with Bergamo and Siena) and Turin are verified by this version.",
)
SNP_PRODUCT_MISMATCH = _reason(
    "snp-product-mismatch",
    Stage.CHAIN,
    "Report and certificates name different processor lines.",
    "Send the certificates of the very processor that made the report.",
)
SNP_SIGNING_KEY = _reason(
    "snp-signing-key",
    Stage.CHAIN,
    "The report says that it was signed by no key, or by another kind of key than its certificate holds.",
    "Let the host use the VCEK or the VLEK, and send the certificate of the one that signed.",
)
SNP_VEK_PROFILE = _reason(
    "snp-vek-profile",
    Stage.CHAIN,
    "The certificate of the signing key lacks, or garbles, what AMD writes into it (product, versions, chip).",
    _NOT_GENUINE,
)
SNP_VEK_MISSING = _reason(
    "snp-vek-missing",
    Stage.CHAIN,
    "The evidence has no certificate for its signing key, and does not say enough to fetch it.",
    "Send it with the report: a VLEK's, a masked chip's and that of a version 2 report cannot be fetched.",
)
SNP_VEK_UNAVAILABLE = _reason(
    "snp-vek-unavailable",
    Stage.CHAIN,
    "The certificate of the signing key is neither in the evidence nor at hand.",
    "Send it with the report, or fetch the named document from AMD's key distribution service.",
    Fault.COLLATERAL,
)
SNP_ISSUERS_UNAVAILABLE = _reason(
    "snp-issuers-unavailable",
    Stage.CHAIN,
    "The certificate of AMD's signing authority (ASK or ASVK) is neither in the evidence nor at hand.",
    "Send it with the report, or fetch the named document from AMD's key distribution service.",
    Fault.COLLATERAL,
)
SNP_DOCUMENT_UNTRUSTED = _reason(
    "snp-document-untrusted",
    Stage.CHAIN,
    "A fetched certificate does not hold, or is not the one that was asked for.",
    _FETCH_AGAIN,
    Fault.COLLATERAL,
)

# --- signature --------------------------------------------------------------------------------------------------------
SNP_TCB_MISMATCH = _reason(
    "snp-tcb-mismatch",
    Stage.SIGNATURE,
    "The certificate is for other security versions of the firmware than the report names.",
    "Send the certificate for the TCB that the report names as reported; after a firmware update it is another one.",
)
SNP_CHIP_MISMATCH = _reason(
    "snp-chip-mismatch",
    Stage.SIGNATURE,
    "The certificate is for another chip than the report names.",
    "Send the certificate of the very processor that made the report; if it is, treat the node as hostile.",
)

# --- revocation -------------------------------------------------------------------------------------------------------
SNP_CRL_MALFORMED = _reason(
    "snp-crl-malformed",
    Stage.REFERENCE,
    "The revocation list does not parse, is too large, or is of a form that AMD does not issue.",
    _FETCH_AGAIN,
    Fault.COLLATERAL,
)
SNP_CRL_SIGNATURE = _reason(
    "snp-crl-signature",
    Stage.REFERENCE,
    "The revocation list was not signed by the root of this processor line, or was changed since.",
    _FETCH_AGAIN,
    Fault.COLLATERAL,
)
SNP_CRL_TIME = _reason(
    "snp-crl-time",
    Stage.REFERENCE,
    "The revocation list is not valid at this time.",
    "Fetch a current list, and check the verifier's clock and the time given with --at.",
    Fault.COLLATERAL,
)
SNP_REVOKED = _reason(
    "snp-revoked",
    Stage.REFERENCE,
    "AMD revoked the authority that certified the signing key.",
    "Take the node out. Update its firmware, so that it gets keys below a current authority.",
)

# --- appraise ---------------------------------------------------------------------------------------------------------
SNP_PRODUCT_NOT_ACCEPTED = _reason(
    "snp-product-not-accepted",
    Stage.APPRAISE,
    "The policy does not accept this processor line.",
    "Add it to `snp.products` in the policy, or take the node out.",
)
SNP_SIGNING_KEY_NOT_ACCEPTED = _reason(
    "snp-signing-key-not-accepted",
    Stage.APPRAISE,
    "The policy does not accept reports signed by this kind of key.",
    "Sign with a key that `snp.signing_keys` names. A VLEK belongs to a cloud provider, not to one chip.",
)
SNP_CHIP_MASKED = _reason(
    "snp-chip-masked",
    Stage.APPRAISE,
    "The host hides which chip made the report, and the policy wants to know.",
    "Let the host report chip ids, or accept this with `snp.masked_chip_id`.",
)
SNP_DEBUG = _reason(
    "snp-debug",
    Stage.APPRAISE,
    "The guest allows its host to debug it: nothing in it is confidential.",
    "Launch the guest with a policy that forbids debugging.",
)
SNP_MIGRATION_AGENT = _reason(
    "snp-migration-agent",
    Stage.APPRAISE,
    "The guest may be handed to a migration agent, which may move it anywhere.",
    "Launch the guest with a policy that forbids migration agents, or accept them with `snp.migrate_ma`.",
)
SNP_VMPL = _reason(
    "snp-vmpl",
    Stage.APPRAISE,
    "The report was asked for at a privilege level (VMPL) that the policy does not accept, or by the host.",
    "Ask from the level that `snp.vmpl` names. Above 0, whoever runs at 0 must be measured and trusted too.",
)
SNP_SMT = _reason(
    "snp-smt",
    Stage.APPRAISE,
    "The guest allows simultaneous multithreading, and the policy does not.",
    "Launch the guest with a policy that forbids it, or accept it with `snp.smt`.",
)
SNP_CXL = _reason(
    "snp-cxl",
    Stage.APPRAISE,
    "The guest allows CXL devices and memory, and the policy does not.",
    "Launch the guest with a policy that forbids them, or accept them with `snp.cxl`.",
)
SNP_POLICY_UNKNOWN = _reason(
    "snp-policy-unknown",
    Stage.APPRAISE,
    "The guest's policy sets bits whose meaning this verifier does not know; they may allow anything.",
    "Launch the guest without them, or update the verifier.",
)
SNP_TCB_TOO_OLD = _reason(
    "snp-tcb-too-old",
    Stage.APPRAISE,
    "A security version of the platform's firmware is below the policy's minimum.",
    "Update BIOS and SEV firmware of the host, commit them, and launch the guest again.",
)
SNP_FIRMWARE_TOO_OLD = _reason(
    "snp-firmware-too-old",
    Stage.APPRAISE,
    "The SEV firmware that the host has committed to is older than the policy allows.",
    "Update the SEV firmware of the host and commit it.",
)
SNP_ABI_TOO_OLD = _reason(
    "snp-abi-too-old",
    Stage.APPRAISE,
    "The guest may be run by firmware with an older interface (ABI) than the policy allows.",
    "Launch the guest with a policy that asks for a newer ABI.",
)
SNP_GUEST_SVN = _reason(
    "snp-guest-svn",
    Stage.APPRAISE,
    "The security version of the guest image is below the policy's minimum.",
    "Launch a newer image.",
)
SNP_MEASUREMENT = _reason(
    "snp-measurement",
    Stage.APPRAISE,
    "The guest was launched from other code than the policy lists.",
    "Launch a listed image, or add its measurement to `snp.measurements`.",
)
SNP_HOST_DATA = _reason(
    "snp-host-data",
    Stage.APPRAISE,
    "The host launched the guest with other host data than the policy lists.",
    "Launch the guest with listed host data, or add it to `snp.host_data`.",
)
SNP_ALIAS_CHECK = _reason(
    "snp-alias-check",
    Stage.APPRAISE,
    "The platform did not check its memory for aliases at boot, which lets a host replay memory (BadRAM).",
    "Update BIOS and SEV firmware of the host, or accept this with `snp.alias_check_required = false`.",
)
