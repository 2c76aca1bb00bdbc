"""
The catalogue of reason codes: why evidence was not believed, or believed and not liked.

One table in code, `CATALOGUE`. Here are the reasons of every kind of evidence and NVIDIA's; the modules beside hold
those of SEV-SNP, TDX, NVIDIA's remote verifier and signed tokens. `docs/reasons.md` is rendered from the table.
"""

from __future__ import annotations

from attest.reasons.catalogue import CATALOGUE, Fault, Reason, Stage
from attest.reasons.catalogue import reason as _reason

__all__ = ["CATALOGUE", "Fault", "Reason", "Stage"]

_COLLECT_AGAIN = "Collect the evidence again on the node with `nodeprobe collect` and send it unchanged."
_NOT_GENUINE = (
    "Treat the node as hostile until explained: genuine hardware does not produce this. Collect again; if it "
    "persists, take the node out and ask the vendor."
)

# --- parse ------------------------------------------------------------------------------------------------------------
EVIDENCE_TOO_LARGE = _reason(
    "evidence-too-large",
    Stage.PARSE,
    "The evidence, or one part of it, is larger than any genuine one.",
    "Send the evidence of one node only, at most 1 MiB and 32 devices.",
)
EVIDENCE_MALFORMED = _reason(
    "evidence-malformed", Stage.PARSE, "The container of the evidence does not parse.", _COLLECT_AGAIN
)
EVIDENCE_EMPTY = _reason(
    "evidence-empty",
    Stage.PARSE,
    "The evidence names no device.",
    "Check with `nodeprobe show` that the node has GPUs in confidential-computing mode, then collect again.",
)
KIND_UNSUPPORTED = _reason(
    "kind-unsupported",
    Stage.PARSE,
    "No installed verifier reads this kind of evidence.",
    "Install a distribution that offers an `attest.verifiers` entry point for it, or leave this device out.",
)
REPORT_MALFORMED = _reason(
    "report-malformed",
    Stage.PARSE,
    "The report breaks the layout of an SPDM 1.1 MEASUREMENTS exchange.",
    "Cut the report to the length that the driver gives (`attestationReportSize`), and send it unchanged.",
)
REPORT_FIELD_MISSING = _reason(
    "report-field-missing",
    Stage.PARSE,
    "The report lacks a field that its verification needs.",
    "Update the driver: production drivers for confidential computing report it.",
)
CERTIFICATES_MALFORMED = _reason(
    "certificates-malformed", Stage.PARSE, "The certificate chain does not parse as PEM.", _COLLECT_AGAIN
)

# --- chain ------------------------------------------------------------------------------------------------------------
CHAIN_LENGTH = _reason(
    "chain-length",
    Stage.CHAIN,
    "The device chain is not exactly five certificates: attestation key, device, provisioner, identity, root.",
    "Send the whole attestation certificate chain as the driver gives it.",
)
CHAIN_DUPLICATE = _reason(
    "chain-duplicate", Stage.CHAIN, "A certificate stands twice in the device chain.", _NOT_GENUINE
)
CHAIN_LINK = _reason(
    "chain-link",
    Stage.CHAIN,
    "A certificate was not issued by the next one in the chain.",
    "Send the chain of the very device that made the report, leaf first; if it is, treat the node as hostile.",
)
CHAIN_ROOT = _reason(
    "chain-root",
    Stage.CHAIN,
    "The chain does not end at a pinned root.",
    "Genuine NVIDIA devices chain to NVIDIA's device root. An emulated node needs its root named by --trust-root.",
)
CHAIN_PROFILE = _reason(
    "chain-profile",
    Stage.CHAIN,
    "A certificate is not what its place in the chain demands (key, algorithm, CA flag, key usage, name).",
    _NOT_GENUINE,
)
CHAIN_CLASS = _reason(
    "chain-class",
    Stage.CHAIN,
    "The names in the chain do not belong to one class of NVIDIA device.",
    "Send the chain of the very device that made the report.",
)
CHAIN_TIME = _reason(
    "chain-time",
    Stage.CHAIN,
    "A certificate of the device chain is not valid at this time.",
    "Check the verifier's clock, and the time given with --at.",
)

CHAIN_REVOKED = _reason(
    "chain-revoked",
    Stage.CHAIN,
    "The vendor revoked a certificate of the device chain.",
    "Take the node out: its keys are not trusted any more. Ask the vendor what happened to the device.",
)
CHAIN_STATUS_UNKNOWN = _reason(
    "chain-status-unknown",
    Stage.CHAIN,
    "The vendor's responder does not know a certificate of the device chain.",
    _NOT_GENUINE,
)
OCSP_MALFORMED = _reason(
    "ocsp-malformed",
    Stage.CHAIN,
    "A revocation answer is not one to the question asked, or is not by whom may give it.",
    "Fetch the answer again from the vendor's responder, and keep it unchanged.",
    Fault.COLLATERAL,
)

# --- signature --------------------------------------------------------------------------------------------------------
REPORT_SIGNATURE = _reason(
    "report-signature",
    Stage.SIGNATURE,
    "The report was not signed by the key of its certificate, or was changed since.",
    "Send report and chain of the same device, unchanged; if they are, treat the node as hostile.",
)
FWID_MISMATCH = _reason(
    "fwid-mismatch",
    Stage.SIGNATURE,
    "The report comes from other firmware than its certificate endorses.",
    "Power-cycle the GPU so that report and certificate are of the same boot, then collect again.",
)
FWID_MALFORMED = _reason(
    "fwid-malformed",
    Stage.SIGNATURE,
    "The firmware identity in the attestation certificate is missing or malformed.",
    _NOT_GENUINE,
)

# --- freshness --------------------------------------------------------------------------------------------------------
NONCE_MISMATCH = _reason(
    "nonce-mismatch",
    Stage.FRESHNESS,
    "The evidence answers another challenge: it is old, or somebody else's.",
    "Ask for a new challenge and collect evidence for it; do not store or share evidence between nodes.",
)
NONCE_NOT_GIVEN = _reason(
    "nonce-not-given",
    Stage.FRESHNESS,
    "No challenge was given to compare with, so nothing shows that the evidence is fresh.",
    "Give the challenge with --nonce, or use a policy whose `nonce` is `optional`.",
)

# --- reference values -------------------------------------------------------------------------------------------------
RIM_ID_MALFORMED = _reason(
    "rim-id-malformed",
    Stage.REFERENCE,
    "The versions in the report make no valid name of a reference manifest (RIM).",
    "Update driver and VBIOS to released versions.",
)
RIM_UNAVAILABLE = _reason(
    "rim-unavailable",
    Stage.REFERENCE,
    "A reference manifest (RIM) that the verification needs is not at hand.",
    "Put the named RIM into the --collateral folder, as `<RIM id>.xml` or under any name.",
    Fault.COLLATERAL,
)
RIM_TOO_LARGE = _reason(
    "rim-too-large",
    Stage.REFERENCE,
    "The RIM is larger than any genuine one.",
    "Fetch the RIM again.",
    Fault.COLLATERAL,
)
RIM_MALFORMED = _reason(
    "rim-malformed",
    Stage.REFERENCE,
    "The RIM breaks the strict profile of a signed SWID tag.",
    "Fetch the RIM again from its publisher; do not format or edit it.",
    Fault.COLLATERAL,
)
RIM_DIGEST = _reason(
    "rim-digest",
    Stage.REFERENCE,
    "The content of the RIM was changed after it was signed.",
    "Fetch the RIM again from its publisher; do not format or edit it.",
    Fault.COLLATERAL,
)
RIM_SIGNATURE = _reason(
    "rim-signature",
    Stage.REFERENCE,
    "The signature of the RIM does not hold.",
    "Fetch the RIM again from its publisher; do not format or edit it.",
    Fault.COLLATERAL,
)
RIM_CHAIN = _reason(
    "rim-chain",
    Stage.REFERENCE,
    "The signer of the RIM does not chain to a pinned RIM root.",
    "Fetch the RIM again from its publisher. An emulated node's RIM root must be named by --trust-root.",
    Fault.COLLATERAL,
)
RIM_TIME = _reason(
    "rim-time",
    Stage.REFERENCE,
    "The certificates of the RIM's signer are not valid yet at this time.",
    "Check the verifier's clock, and the time given with --at.",
    Fault.COLLATERAL,
)
RIM_BINDING = _reason(
    "rim-binding",
    Stage.REFERENCE,
    "The RIM is for another product or version than the report's.",
    "Name the RIM file after its own id, and fetch the one that the verification asks for.",
    Fault.COLLATERAL,
)
RIM_CONFLICT = _reason(
    "rim-conflict",
    Stage.REFERENCE,
    "Driver RIM and VBIOS RIM both claim the same measurement.",
    "Fetch both RIMs again; if the conflict stays, report the pair of versions to the vendor.",
    Fault.COLLATERAL,
)
RIM_REVOKED = _reason(
    "rim-revoked",
    Stage.REFERENCE,
    "The vendor does not stand by the RIM's signer: a certificate is revoked, or unknown to its responder.",
    "Fetch the RIM again: the vendor issues one under a new signer.",
    Fault.COLLATERAL,
)
NVDEC_STATUS = _reason(
    "nvdec-status",
    Stage.REFERENCE,
    "The report does not say clearly whether measurement 35 counts (NVDEC0 status is neither 0x55 nor 0xAA).",
    _NOT_GENUINE,
)

# --- bundle -----------------------------------------------------------------------------------------------------------
DEVICE_DUPLICATE = _reason(
    "device-duplicate",
    Stage.BUNDLE,
    "The same device stands in the evidence more than once.",
    "Send each device of the node once.",
)
DEVICE_TAKEN = _reason(
    "device-taken",
    Stage.BUNDLE,
    "A device in the evidence belongs to another worker that is attested now: one device, one worker.",
    "Remove the other worker, or let its attestation run out, and attest again. If it is not yours, report a relay.",
)
DEVICES_DIFFER = _reason(
    "devices-differ",
    Stage.BUNDLE,
    "The GPUs of one node disagree about something that they must share (mode, driver, architecture).",
    "Bring all GPUs of the node to the same mode and driver, then collect again.",
)
TOPOLOGY = _reason(
    "topology",
    Stage.BUNDLE,
    "GPUs and switches of the box do not name each other as the devices in the evidence are.",
    "Send the evidence of all eight GPUs and all four switches of one box, each once.",
)
ROOTS_MIXED = _reason(
    "roots-mixed",
    Stage.BUNDLE,
    "Device and RIM, or devices of one node, rest on roots of different origin, one a vendor's and one emulated.",
    "Use vendors' RIMs and devices together, and emulated ones together.",
    Fault.COLLATERAL,
)

# --- binding ----------------------------------------------------------------------------------------------------------
BINDING_WEAK = _reason(
    "binding-weak",
    Stage.BINDING,
    "The evidence commits to less of the worker's identity than the policy asks for.",
    "Let `nodeprobe agent` attest: it binds address, wallet, worker key and TLS key to the evidence.",
)
BINDING_MISMATCH = _reason(
    "binding-mismatch",
    Stage.BINDING,
    "The evidence commits to somebody else, or to another challenge, than what was presented with it.",
    "Collect all evidence of the node anew for one challenge, CPU and GPUs together, and give the very keys that the "
    "node serves. If it persists, somebody presents another machine's evidence.",
)

# --- appraise ---------------------------------------------------------------------------------------------------------
KIND_NOT_ACCEPTED = _reason(
    "kind-not-accepted",
    Stage.APPRAISE,
    "The policy does not accept this kind of evidence.",
    "Add it to `kinds` in the policy, or leave this device out.",
)
KIND_ABSENT = _reason(
    "kind-absent",
    Stage.APPRAISE,
    "The policy requires a kind of device that the evidence does not contain.",
    "Send the evidence of all devices of the node.",
)
DEVICE_COUNT = _reason(
    "device-count",
    Stage.APPRAISE,
    "The evidence has fewer or more devices than the policy, or the worker type, says.",
    "Send the evidence of every GPU once, and register the worker under the type that `nodeprobe show` prints.",
)
ROOT_NOT_ACCEPTED = _reason(
    "root-not-accepted",
    Stage.APPRAISE,
    "The evidence is emulated: it rests on a root that is no vendor's, and the policy accepts vendors' only.",
    "Attest with real hardware. For a trial, run the orchestrator with the policy `lab`.",
)
ARCHITECTURE_NOT_ACCEPTED = _reason(
    "architecture-not-accepted",
    Stage.APPRAISE,
    "The policy does not accept this GPU architecture.",
    "Add it to `nvidia.architectures` in the policy, or take the node out.",
)
DRIVER_TOO_OLD = _reason(
    "driver-too-old",
    Stage.APPRAISE,
    "The driver is older than the policy allows.",
    "Update the driver, reboot and attest again.",
)
VBIOS_NOT_ACCEPTED = _reason(
    "vbios-not-accepted",
    Stage.APPRAISE,
    "The VBIOS is older than the policy allows.",
    "Update the VBIOS, reboot and attest again.",
)
MODE_NOT_ACCEPTED = _reason(
    "mode-not-accepted",
    Stage.APPRAISE,
    "The policy does not accept the confidential-computing mode of this GPU.",
    "Set the mode that the policy names with the vendor's tools, reset the GPU and attest again.",
)
FWID_ABSENT = _reason(
    "fwid-absent",
    Stage.APPRAISE,
    "The report names no firmware, so it cannot be compared with the certificate's.",
    "Update the driver to 550 or newer.",
)
MEASUREMENTS_MISMATCH = _reason(
    "measurements-mismatch",
    Stage.APPRAISE,
    "Firmware or driver state differs from the reference values, at the indices named.",
    "Power-cycle the node, update driver and VBIOS to a released pair, and attest again. If a RIM was issued anew, "
    "fetch it again. Index 9 alone usually means a stale RIM or a driver and VBIOS that do not belong together.",
)
RIM_EXPIRED = _reason(
    "rim-expired",
    Stage.APPRAISE,
    "The RIM's signer expired longer ago than the policy allows.",
    "Fetch the RIM again: the vendor signs them anew. Or allow it with `nvidia.rim_expired_days_max`.",
    Fault.COLLATERAL,
)
REVOCATION_NOT_CHECKED = _reason(
    "revocation-not-checked",
    Stage.APPRAISE,
    "Not every certificate was asked about revocation, and the policy requires it.",
    "Give the vendor's answers: let the orchestrator fetch them, or put them into the --collateral folder. A policy "
    'with `revocation = "optional"` accepts their absence openly.',
    Fault.COLLATERAL,
)
REVOCATION_HOLD = _reason(
    "revocation-hold",
    Stage.APPRAISE,
    "The vendor put a certificate on hold: it may be revoked, or taken back into service.",
    "Ask the vendor. A policy with `allow_hold` accepts it openly.",
)
REVOCATION_STALE = _reason(
    "revocation-stale",
    Stage.APPRAISE,
    "A revocation answer ran out longer ago than the policy allows.",
    "Fetch it again; or allow older ones with `revocation_stale_hours_max`.",
    Fault.COLLATERAL,
)
COLLATERAL_STALE = _reason(
    "collateral-stale",
    Stage.APPRAISE,
    "A document should have been fetched anew longer ago than the policy allows, and could not be.",
    "See `orchestrator collateral list` for what fails; or allow older ones with `collateral_stale_hours_max`.",
    Fault.COLLATERAL,
)
TOPOLOGY_ABSENT = _reason(
    "topology-absent",
    Stage.APPRAISE,
    "A GPU in protected-PCIe mode came without the switches that it is wired to.",
    'Send the evidence of the switches, too; or allow their absence with `nvidia.topology = "optional"`.',
)

# The rest of the table: importing these modules enters their reasons.
from attest.reasons import nras, snp, tdx, tokens  # noqa: E402, F401
