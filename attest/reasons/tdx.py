"""Reason codes of TDX evidence."""

from __future__ import annotations

from attest.reasons.catalogue import Fault, Stage
from attest.reasons.catalogue import reason as _reason

_COLLECT_AGAIN = "Ask the node for a new quote, and send it unchanged."
_FETCH_AGAIN = "Fetch Intel's collateral for this machine again, from Intel or from a PCCS that is kept current."
_NOT_GENUINE = (
    "Treat the node as hostile until explained: genuine hardware does not produce this. Collect again; if it "
    "persists, take the node out."
)
_RELAUNCH = "Launch the trust domain again without it, and attest again. There is no policy that allows it."

# --- parse ------------------------------------------------------------------------------------------------------------
TDX_QUOTE_MALFORMED = _reason(
    "tdx-quote-malformed", Stage.PARSE, "The quote breaks the layout of a TDX quote.", _COLLECT_AGAIN
)
TDX_QUOTE_UNSUPPORTED = _reason(
    "tdx-quote-unsupported",
    Stage.PARSE,
    "The quote is of a kind that is not verified: it is no TDX quote v4 or v5 with its PCK chain inside.",
    "Send a quote of a TDX trust domain, made by Intel's quoting enclave with the PCK certificate chain inside.",
)
TDX_CERTIFICATES_MALFORMED = _reason(
    "tdx-certificates-malformed",
    Stage.PARSE,
    "The certificate chain in the quote is not three readable certificates: PCK, its CA, the root.",
    "Check that the node's quote provider has its PCK certificate chain, then collect again.",
)
TDX_EVENT_LOG_MALFORMED = _reason(
    "tdx-event-log-malformed", Stage.PARSE, "The event log does not parse.", "Send the log as the guest keeps it."
)

# --- chain ------------------------------------------------------------------------------------------------------------
TDX_ROOT = _reason(
    "tdx-root",
    Stage.CHAIN,
    "The chain in the quote does not end at a pinned root.",
    "Genuine machines chain to Intel's SGX root. An emulated one needs its root named as trusted.",
)
TDX_PCK_CHAIN = _reason(
    "tdx-pck-chain",
    Stage.CHAIN,
    "The machine's PCK certificate was not issued by the CA and root that stand above it.",
    _NOT_GENUINE,
)
TDX_PCK_TIME = _reason(
    "tdx-pck-time",
    Stage.CHAIN,
    "A certificate of the PCK chain is not valid at this time.",
    "Check the verifier's clock. If it is right, let the machine fetch its PCK certificate again.",
)
TDX_PCK_REVOKED = _reason(
    "tdx-pck-revoked",
    Stage.CHAIN,
    "Intel has revoked the machine's PCK certificate, or the CA that issued it.",
    "Take the machine out. Intel revokes what is known to be compromised.",
)

# --- signature --------------------------------------------------------------------------------------------------------
TDX_QUOTE_SIGNATURE = _reason(
    "tdx-quote-signature",
    Stage.SIGNATURE,
    "Header and body were not signed by the attestation key, or were changed since.",
    _NOT_GENUINE,
)
TDX_QE_SIGNATURE = _reason(
    "tdx-qe-signature",
    Stage.SIGNATURE,
    "The report of the quoting enclave was not signed by the machine's PCK key.",
    "Send quote and chain of the same machine, unchanged. A PCK chain cached for another machine does this, too.",
)
TDX_QE_BINDING = _reason(
    "tdx-qe-binding",
    Stage.SIGNATURE,
    "The quoting enclave did not vouch for the attestation key that signed the quote.",
    _NOT_GENUINE,
)
TDX_QE_IDENTITY = _reason(
    "tdx-qe-identity",
    Stage.SIGNATURE,
    "The quote was made by an enclave that is not Intel's TD quoting enclave, or by a debug build of it.",
    "Install Intel's quoting enclave on the host, and collect again.",
)
TDX_QE_TOO_OLD = _reason(
    "tdx-qe-too-old",
    Stage.SIGNATURE,
    "The quoting enclave is older than any that Intel still knows.",
    "Update the quoting enclave on the host, and collect again.",
)

# --- reference values -------------------------------------------------------------------------------------------------
TDX_COLLATERAL_UNAVAILABLE = _reason(
    "tdx-collateral-unavailable",
    Stage.REFERENCE,
    "A document of Intel's that the verification needs is not at hand.",
    "Put the named document into the --collateral folder, or let the orchestrator fetch it.",
    Fault.COLLATERAL,
)
TDX_COLLATERAL_MALFORMED = _reason(
    "tdx-collateral-malformed",
    Stage.REFERENCE,
    "A document of Intel's does not parse.",
    _FETCH_AGAIN,
    Fault.COLLATERAL,
)
TDX_COLLATERAL_SIGNATURE = _reason(
    "tdx-collateral-signature",
    Stage.REFERENCE,
    "A document of Intel's was changed after it was signed, or somebody else signed it.",
    _FETCH_AGAIN,
    Fault.COLLATERAL,
)
TDX_COLLATERAL_CHAIN = _reason(
    "tdx-collateral-chain",
    Stage.REFERENCE,
    "The signer of a document is not the one Intel signs such documents with, below the root that the quote rests on.",
    _FETCH_AGAIN,
    Fault.COLLATERAL,
)
TDX_COLLATERAL_REVOKED = _reason(
    "tdx-collateral-revoked",
    Stage.REFERENCE,
    "Intel has revoked the signer of its own document.",
    _FETCH_AGAIN,
    Fault.COLLATERAL,
)
TDX_COLLATERAL_TIME = _reason(
    "tdx-collateral-time",
    Stage.REFERENCE,
    "A document of Intel's is not valid yet, or its signer's certificate has expired.",
    "Check the verifier's clock; then fetch the document again.",
    Fault.COLLATERAL,
)
TDX_COLLATERAL_OTHER = _reason(
    "tdx-collateral-other",
    Stage.REFERENCE,
    "A document is for another kind of machine than the quote's.",
    "Keep TCB info by the FMSPC in it and PCK lists by their CA; then fetch the one that is asked for.",
    Fault.COLLATERAL,
)
TDX_COLLATERAL_STALE = _reason(
    "tdx-collateral-stale",
    Stage.REFERENCE,
    "Intel's documents ran out longer ago than is accepted, so a newer revocation or TCB level could be unknown to us.",
    _FETCH_AGAIN + " `tdx.collateral_stale_hours_max` accepts documents that ran out, for a limited time.",
    Fault.COLLATERAL,
)
TDX_MODULE_UNKNOWN = _reason(
    "tdx-module-unknown",
    Stage.REFERENCE,
    "Intel's TCB info knows no such TDX module: neither its signer and attributes nor its version are listed.",
    "Load a released TDX module on the host. If it is a very new one, fetch the TCB info again.",
)
TDX_TCB_UNSUPPORTED = _reason(
    "tdx-tcb-unsupported",
    Stage.REFERENCE,
    "The machine's firmware is below every TCB level that Intel still lists.",
    "Update BIOS, microcode and TDX module, and attest again.",
)
TDX_TCB_REVOKED = _reason(
    "tdx-tcb-revoked",
    Stage.REFERENCE,
    "Intel has revoked the machine's TCB level.",
    "Update BIOS, microcode and TDX module, and attest again.",
)
TDX_REFUSED = _reason(
    "tdx-refused",
    Stage.REFERENCE,
    "The quote was refused for a reason without a code of its own.",
    "Report the text that was found, with the quote, to the maintainers; the node stays out until then.",
)

# --- the trust domain itself ------------------------------------------------------------------------------------------
TDX_DEBUG = _reason(
    "tdx-debug", Stage.APPRAISE, "The trust domain runs in debug mode: its host can read its memory.", _RELAUNCH
)
TDX_PROFILING = _reason(
    "tdx-profiling", Stage.APPRAISE, "The host may profile the trust domain, which leaks what it computes.", _RELAUNCH
)
TDX_MIGRATABLE = _reason(
    "tdx-migratable", Stage.APPRAISE, "The trust domain may be migrated to another machine.", _RELAUNCH
)
TDX_SERVICE_TD = _reason(
    "tdx-service-td",
    Stage.APPRAISE,
    "Another trust domain has power over this one: a service TD is bound to it.",
    _RELAUNCH,
)
TDX_SEPT_VE = _reason(
    "tdx-sept-ve",
    Stage.APPRAISE,
    "The trust domain runs without SEPT_VE_DISABLE, so its host can inject exceptions by unmapping its memory.",
    "Launch the trust domain with SEPT_VE_DISABLE, and attest again.",
)
TDX_RESERVED = _reason(
    "tdx-reserved-attributes",
    Stage.APPRAISE,
    "Attributes of the trust domain are set that have no meaning yet.",
    _RELAUNCH,
)

# --- appraise ---------------------------------------------------------------------------------------------------------
TDX_TCB_STATUS = _reason(
    "tdx-tcb-status",
    Stage.APPRAISE,
    "The policy does not accept the TCB status that Intel gives this machine.",
    "Update BIOS, microcode and TDX module, and attest again; the advisories say what for. Or add the status to "
    "`tdx.statuses`.",
)
TDX_ADVISORY = _reason(
    "tdx-advisory",
    Stage.APPRAISE,
    "Security advisories apply to this machine that the policy does not accept.",
    "Follow the advisories, and attest again. Or add them to `tdx.advisories`.",
)
TDX_TCB_EVALUATION = _reason(
    "tdx-tcb-evaluation",
    Stage.APPRAISE,
    "The TCB was judged by an older evaluation of Intel's than the policy asks for.",
    _FETCH_AGAIN,
    Fault.COLLATERAL,
)
TDX_PLATFORM = _reason(
    "tdx-platform",
    Stage.APPRAISE,
    "The machine has a property (dynamic platform, cached keys, SMT) that the policy does not accept, or hides it.",
    "Change the BIOS setting, or add the property to `tdx.platform` in the policy.",
)
TDX_ATTRIBUTES = _reason(
    "tdx-attributes",
    Stage.APPRAISE,
    "The trust domain has attributes that the policy does not accept.",
    "Launch the trust domain without them, or add them to `tdx.attributes`.",
)
TDX_MRTD = _reason(
    "tdx-mrtd",
    Stage.APPRAISE,
    "The measured firmware (MRTD) is none that the policy lists.",
    "Boot a released image, or add its value to `tdx.mrtd`.",
)
TDX_RTMR = _reason(
    "tdx-rtmr",
    Stage.APPRAISE,
    "A run-time measurement (RTMR) is none that the policy lists.",
    "Boot a released image, or add its value to `tdx.rtmr0` to `tdx.rtmr3`.",
)
TDX_MRCONFIGID = _reason(
    "tdx-mrconfigid",
    Stage.APPRAISE,
    "The configuration that the trust domain was launched with (MRCONFIGID) is none that the policy lists.",
    "Launch it with a released configuration, or add its value to `tdx.mrconfigid`.",
)
TDX_EVENT_LOG = _reason(
    "tdx-event-log",
    Stage.APPRAISE,
    "The event log does not give the measured registers, or is missing where the policy requires one.",
    "Send the whole log of this boot. One that does not match was changed, or is another guest's.",
)
TDX_EVENT = _reason(
    "tdx-event",
    Stage.APPRAISE,
    "An event of the log is absent, or has a value that the policy does not list.",
    "Deploy what the policy lists, or add the value to `tdx.events`.",
)
TDX_NONCE = _reason(
    "tdx-nonce",
    Stage.APPRAISE,
    "REPORTDATA neither holds the challenge nor is tied to it by a binding profile: the quote may be old.",
    "Ask for a new challenge and collect evidence for it.",
)
