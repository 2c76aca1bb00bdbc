"""Reason codes of signed tokens and their keys."""

from __future__ import annotations

from attest.reasons.catalogue import Fault, Reason, Stage, reason


def _reason(code: str, stage: Stage, meaning: str, remedy: str, fault: Fault = Fault.COLLATERAL) -> Reason:
    """A token that is not believed says nothing about a node, good or bad: it is not the node's fault."""
    return reason(code, stage, meaning, remedy, fault)


_GET_AGAIN = "Get the token again from its issuer, and keep it unchanged, on one line."

TOKEN_TOO_LARGE = _reason(
    "token-too-large", Stage.PARSE, "The token, or its key set, is larger than any genuine one.", _GET_AGAIN
)
TOKEN_MALFORMED = _reason(
    "token-malformed",
    Stage.PARSE,
    "The text is no signed token of this kind: a part does not parse, is missing, or is not what it must be.",
    _GET_AGAIN,
)
TOKEN_KEYS_MALFORMED = _reason(
    "token-keys-malformed",
    Stage.PARSE,
    "The key set (JWKS) does not parse, names a key twice, or holds what no published key set may hold.",
    "Fetch the issuer's key set again from `/.well-known/jwks.json`.",
)
TOKEN_ALGORITHM = _reason(
    "token-algorithm",
    Stage.SIGNATURE,
    "The token is signed by an algorithm that is not accepted, or that is not its key's.",
    "Do not use this token: no genuine issuer makes it. Get another from its issuer.",
)
TOKEN_KEY_UNKNOWN = _reason(
    "token-key-unknown",
    Stage.CHAIN,
    "The token names a key that is not in the key set.",
    "Fetch the issuer's key set again: keys are exchanged from time to time. If it is current, the issuer is another.",
)
TOKEN_SIGNATURE = _reason(
    "token-signature",
    Stage.SIGNATURE,
    "The token was not signed by the key that it names, or was changed since.",
    _GET_AGAIN,
)
TOKEN_EXPIRED = _reason(
    "token-expired", Stage.FRESHNESS, "The token has expired.", "Ask its issuer for a current one; check the clock."
)
TOKEN_NOT_YET_VALID = _reason(
    "token-not-yet-valid",
    Stage.FRESHNESS,
    "The token is of the future: it was issued, or begins to hold, later than now.",
    "Check the clock, here and at the issuer, and the time given with --at.",
)
TOKEN_NONCE_MISMATCH = _reason(
    "token-nonce-mismatch",
    Stage.FRESHNESS,
    "The result in the token is about evidence that answered another challenge, or none.",
    "Ask for a result of the very challenge that you issued.",
)

# --- what a genuine result says ---------------------------------------------------------------------------------------
RESULT_NOT_AFFIRMING = _reason(
    "result-not-affirming",
    Stage.APPRAISE,
    "The result is genuine, and it is no yes: its issuer did not affirm this.",
    "See the issuer's reasons in the result, and ask for a new one when the node has attested again.",
    Fault.NODE,
)
RESULT_EMULATED = _reason(
    "result-emulated",
    Stage.APPRAISE,
    "The result is about emulated devices: it rests on a root that is no vendor's.",
    "Use a node with real hardware. For a trial, accept it with --accept-emulated.",
    Fault.NODE,
)
RESULT_WARNS = _reason(
    "result-warns",
    Stage.APPRAISE,
    "The issuer's policy put up with something that this result warns of.",
    "Look the aspect up in the result. If you put up with it, too, accept it with --accept-warnings.",
    Fault.NODE,
)
