"""Reason codes of NRAS tokens."""

from __future__ import annotations

from attest.reasons.catalogue import Fault, Stage
from attest.reasons.catalogue import reason as _reason

_ASK_AGAIN = "Ask NRAS again with the node's evidence for this challenge, and send its answer unchanged."
_FETCH_KEYS = "Fetch the issuer's JWKS again from its own address over TLS, and keep it unchanged."

# --- parse ------------------------------------------------------------------------------------------------------------
NRAS_EAT_MALFORMED = _reason(
    "nras-eat-malformed",
    Stage.PARSE,
    "The answer of NRAS does not parse as an overall token and the token of one device.",
    _ASK_AGAIN + " Answers for several devices are taken apart first, one piece of evidence a device.",
)
NRAS_TOKEN_MALFORMED = _reason(
    "nras-token-malformed", Stage.PARSE, "A token of NRAS does not parse as a compact JWS.", _ASK_AGAIN
)
NRAS_VERSION = _reason(
    "nras-version",
    Stage.PARSE,
    "The token's claims are of a version that this verifier does not know.",
    'Ask NRAS for claims version "3.0" (or "2.0").',
)
NRAS_CLAIM = _reason(
    "nras-claim",
    Stage.PARSE,
    "A token of NRAS lacks or garbles a claim that must be there.",
    _ASK_AGAIN + " If it persists, NRAS has changed its claims: report it.",
)

# --- signature --------------------------------------------------------------------------------------------------------
NRAS_ALGORITHM = _reason(
    "nras-algorithm",
    Stage.SIGNATURE,
    "A token is not signed with ES384, so NRAS did not make it.",
    "Send what NRAS answered. Tokens that a tool on the node made (algorithm none, or HS256 with a word that everybody "
    "knows) are no evidence.",
)
NRAS_HEADER = _reason(
    "nras-header",
    Stage.SIGNATURE,
    "A token's header names its own key, or holds something else that NRAS does not write.",
    "Treat the node as hostile: this is how tokens are forged.",
)
NRAS_ISSUER = _reason(
    "nras-issuer",
    Stage.SIGNATURE,
    "A token is by an issuer that is not accepted.",
    "Ask NVIDIA's NRAS. Tokens of a local verifier are no evidence; an emulated issuer must be named to the verifier.",
)
NRAS_SIGNATURE = _reason(
    "nras-signature",
    Stage.SIGNATURE,
    "A token was not signed by the issuer's key that it names, or was changed since.",
    _ASK_AGAIN + " If it is unchanged, treat the node as hostile.",
)
NRAS_KEY_TIME = _reason(
    "nras-key-time",
    Stage.SIGNATURE,
    "A token was issued before or after the time in which its key was the issuer's.",
    _ASK_AGAIN + " If it persists, treat the node as hostile: a retired key may have leaked.",
)
NRAS_JWKS_UNAVAILABLE = _reason(
    "nras-jwks-unavailable",
    Stage.SIGNATURE,
    "The issuer's public keys (JWKS) are not at hand.",
    "Fetch the named document from the issuer's address, `/.well-known/jwks.json`.",
    Fault.COLLATERAL,
)
NRAS_JWKS_MALFORMED = _reason(
    "nras-jwks-malformed",
    Stage.SIGNATURE,
    "The issuer's public keys (JWKS) do not parse, or are not what they must be (P-384, with a certificate of theirs).",
    _FETCH_KEYS,
    Fault.COLLATERAL,
)
NRAS_KEY_UNKNOWN = _reason(
    "nras-key-unknown",
    Stage.SIGNATURE,
    "The token names a key that is not among the issuer's.",
    _FETCH_KEYS + " Keys change daily. If the key is still unknown, the token is forged.",
    Fault.COLLATERAL,
)
NRAS_SUBMODS = _reason(
    "nras-submods",
    Stage.SIGNATURE,
    "The overall token does not vouch for the token of this device (name or digest).",
    _ASK_AGAIN + " Do not put tokens of different answers together.",
)

# --- chain ------------------------------------------------------------------------------------------------------------
NRAS_CHAIN_MISMATCH = _reason(
    "nras-chain-mismatch",
    Stage.CHAIN,
    "The certificates beside the token are of another device than the token's.",
    "Send with each token the certificate chain that was sent to NRAS for that device.",
)

NRAS_ORIGINS_MIXED = _reason(
    "nras-origins-mixed",
    Stage.CHAIN,
    "The certificates beside the token are a vendor's and the token an emulated issuer's, or the other way round.",
    "Let a vendor's service judge a vendor's device, and emulated ones together.",
)

# --- freshness --------------------------------------------------------------------------------------------------------
NRAS_TIME = _reason(
    "nras-time",
    Stage.FRESHNESS,
    "A token of NRAS has run out, is from the future, or would live longer than any genuine one.",
    _ASK_AGAIN + " Check the verifier's clock, and the time given with --at.",
)

# --- reference values -------------------------------------------------------------------------------------------------
NRAS_REFUSED = _reason(
    "nras-refused",
    Stage.REFERENCE,
    "NRAS refused the evidence of this device, with the error code named.",
    "Look the code up in NVIDIA's troubleshooting guide. Collect again with `nodeprobe collect` and ask NRAS anew.",
)
NRAS_FAILED = _reason(
    "nras-failed",
    Stage.REFERENCE,
    "NRAS could not judge this device, through a failure on its own side.",
    "Ask NRAS again later.",
    Fault.COLLATERAL,
)
NRAS_CHECK_FAILED = _reason(
    "nras-check-failed",
    Stage.REFERENCE,
    "NRAS says that a check of this device failed.",
    "Collect again with `nodeprobe collect` and ask NRAS anew. If it persists, treat the node as hostile.",
)
NRAS_DEBUG = _reason(
    "nras-debug",
    Stage.REFERENCE,
    "NRAS does not say that the device booted securely with debugging disabled.",
    "Power-cycle the node, and attest again.",
)
NRAS_OVERALL_FALSE = _reason(
    "nras-overall-false",
    Stage.REFERENCE,
    "NRAS's result for the node is false, though it finds nothing wrong with this device.",
    "Look at the other devices of the same answer: what NRAS says of them decides.",
    Fault.COLLATERAL,
)

# --- bundle -----------------------------------------------------------------------------------------------------------
NRAS_INCOMPLETE = _reason(
    "nras-incomplete",
    Stage.BUNDLE,
    "NRAS answered for more or other devices than the evidence holds tokens of.",
    "Send the tokens of all devices of an answer, each once.",
)

# --- appraise ---------------------------------------------------------------------------------------------------------
NRAS_DEVICE_UNIDENTIFIED = _reason(
    "nras-device-unidentified",
    Stage.APPRAISE,
    "No certificates came with the token, so the device is known only by a number that changes with its firmware.",
    "Send the device's certificate chain with the token, or set `nras.certificates_required = false` in the policy.",
)
