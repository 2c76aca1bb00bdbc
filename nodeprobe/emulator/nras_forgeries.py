"""Answers of NRAS that are forged, old, or put together from others: nothing that NRAS ever signed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from attest.reasons import NONCE_MISMATCH, Reason
from attest.reasons.nras import (
    NRAS_ALGORITHM,
    NRAS_CLAIM,
    NRAS_EAT_MALFORMED,
    NRAS_HEADER,
    NRAS_INCOMPLETE,
    NRAS_ISSUER,
    NRAS_KEY_TIME,
    NRAS_KEY_UNKNOWN,
    NRAS_OVERALL_FALSE,
    NRAS_SIGNATURE,
    NRAS_SUBMODS,
    NRAS_TIME,
    NRAS_TOKEN_MALFORMED,
    NRAS_VERSION,
)
from nodeprobe.emulator.nras import AnswerDraft, Edit, TokenDraft
from nodeprobe.emulator.nras_edits import (
    FIRST,
    HOUR,
    MISSING,
    Change,
    NrasDefect,
    Row,
    defects,
    header,
    later,
    moved,
    on_all,
    on_device,
    on_overall,
    says,
)
from nodeprobe.emulator.pki import new_key


def _hs256(word: bytes) -> Change:
    def change(draft: TokenDraft) -> None:
        draft.header["alg"], draft.secret = "HS256", word

    return change


def _foreign_key(**entries: Any) -> Change:
    def change(draft: TokenDraft) -> None:
        draft.key = new_key()
        draft.header.update(entries)

    return change


def _own_jwk(draft: TokenDraft) -> None:
    draft.key = new_key()
    numbers = draft.key.public_key().public_numbers()
    draft.header["jwk"] = {"kty": "EC", "crv": "P-384", "x": f"{numbers.x:x}", "y": f"{numbers.y:x}"}


def _es256(draft: TokenDraft) -> None:
    draft.header["alg"], draft.key = "ES256", new_key(ec.SECP256R1())


def _local(draft: TokenDraft) -> None:
    """As the vendor's own tool for local verification makes its tokens."""
    _hs256(b"secret")(draft)
    draft.claims["iss"] = "LOCAL_GPU_VERIFIER"
    del draft.header["kid"]


def _flip_signature(draft: TokenDraft) -> None:
    draft.after_signing.append(lambda token: token[:-1] + ("A" if token[-1] != "A" else "B"))


def _another_payload(draft: TokenDraft) -> None:
    def change(token: str) -> str:
        header, payload, signature = token.split(".")
        return ".".join((header, payload[:-8] + "AAAAAAAA", signature))

    draft.after_signing.append(change)


def _forged(where: str, on: Callable[[Change], Edit]) -> tuple[NrasDefect, ...]:
    """Everything that makes a token another's, on one token or all."""

    def defect(name: str, meaning: str, reason: Reason, change: Change) -> NrasDefect:
        return NrasDefect(f"{where}-{name}", f"{meaning} ({where})", reason, on(change))

    return (
        defect("alg-none", "not signed at all", NRAS_ALGORITHM, header(alg="none")),
        defect("alg-none-shouted", "not signed, spelt otherwise", NRAS_ALGORITHM, header(alg="None")),
        defect("alg-missing", "no algorithm named", NRAS_ALGORITHM, header(alg=MISSING)),
        defect("hs256-secret", "signed with the word `secret`", NRAS_ALGORITHM, _hs256(b"secret")),
        defect("hs256-notasecret", "signed with the word `notasecret`", NRAS_ALGORITHM, _hs256(b"notasecret")),
        defect("es256", "signed with another algorithm", NRAS_ALGORITHM, _es256),
        defect("local", "made by a verifier on the node", NRAS_ALGORITHM, _local),
        defect("foreign-key", "signed with another key", NRAS_SIGNATURE, _foreign_key()),
        defect("jku", "names where its key is", NRAS_HEADER, _foreign_key(jku="https://evil.invalid/jwks.json")),
        defect("x5u", "names where its certificate is", NRAS_HEADER, _foreign_key(x5u="https://evil.invalid/x.pem")),
        defect("x5c", "brings its certificate along", NRAS_HEADER, _foreign_key(x5c=["AAAA"])),
        defect("jwk", "brings its key along", NRAS_HEADER, _own_jwk),
        defect("crit", "demands an extension", NRAS_HEADER, header(crit=["exp"])),
        defect("b64", "has its payload not encoded", NRAS_HEADER, header(b64=False)),
        defect("typ", "is of another type", NRAS_HEADER, header(typ="at+jwt")),
        defect("kid-missing", "names no key", NRAS_HEADER, header(kid=MISSING)),
        defect("kid-path", "names a path as key", NRAS_HEADER, header(kid="../../etc/passwd")),
        defect("kid-number", "names a number as key", NRAS_HEADER, header(kid=1)),
        defect("kid-unknown", "names a key that the issuer does not have", NRAS_KEY_UNKNOWN, header(kid="nobody")),
        defect("signature-changed", "has another signature", NRAS_SIGNATURE, _flip_signature),
        defect("payload-changed", "says something else than was signed", NRAS_TOKEN_MALFORMED, _another_payload),
        defect("issuer-local", "is by a local verifier", NRAS_ISSUER, says("iss", "NVAT-LOCAL-VERIFIER")),
        defect("issuer-missing", "names no issuer", NRAS_ISSUER, says("iss", MISSING)),
        defect("expired", "ran out an hour ago", NRAS_TIME, moved(-2 * HOUR)),
        defect("future", "counts from the next hour on", NRAS_TIME, moved(HOUR)),
        defect("nbf-future", "must not be used yet", NRAS_TIME, later("nbf", HOUR // 2)),
        defect("long-lived", "lives for a day", NRAS_TIME, later("exp", 23 * HOUR)),
        defect("ends-before-it-begins", "has run out before it began", NRAS_TIME, later("exp", -2 * HOUR)),
        defect("exp-missing", "never ends", NRAS_CLAIM, says("exp", MISSING)),
        defect("exp-text", "ends at a text", NRAS_CLAIM, says("exp", "tomorrow")),
        defect("exp-huge", "ends after all time", NRAS_CLAIM, says("exp", 1 << 80)),
        defect("iat-bool", "was issued at true", NRAS_CLAIM, says("iat", True)),
        defect("old-key", "was issued before its key was in use", NRAS_KEY_TIME, moved(-HOUR // 2)),
        defect("nonce-wrong", "answers another challenge", NONCE_MISMATCH, says("eat_nonce", "00" * 32)),
        defect("nonce-missing", "answers no challenge", NRAS_CLAIM, says("eat_nonce", MISSING)),
        defect("nonce-short", "answers half a challenge", NRAS_CLAIM, says("eat_nonce", "00" * 16)),
        defect("nonce-list", "answers several challenges", NRAS_CLAIM, says("eat_nonce", ["00" * 32])),
    )


# --- the whole and its parts ------------------------------------------------------------------------------------------
def _submods(value: Any) -> Edit:
    return on_overall(says("submods", value))


def _entry(value: Any) -> Edit:
    def edit(draft: AnswerDraft) -> None:
        draft.submods[FIRST] = value

    return edit


def _add_unseen_device(draft: AnswerDraft) -> None:
    draft.submods["GPU-99"] = ["DIGEST", ["SHA-256", "00" * 32]]


def _swap(tokens: dict[str, str]) -> None:
    names = list(tokens)
    tokens[names[0]], tokens[names[-1]] = tokens[names[-1]], tokens[names[0]]


def _overall_as_device(draft: AnswerDraft) -> None:
    device = draft.devices[FIRST]
    device.claims = {**draft.overall.claims, "submods": {}}


def _device_as_overall(draft: AnswerDraft) -> None:
    claims = draft.devices[FIRST].claims
    draft.overall.claims = {**claims}


def _no_devices(draft: AnswerDraft) -> None:
    draft.after_signing.append(dict.clear)


def _odd_name(draft: AnswerDraft) -> None:
    draft.devices["CPU-0"] = draft.devices.pop(FIRST)


_PARTS: tuple[Row, ...] = (
    ("submods-missing", "the whole names no devices", NRAS_INCOMPLETE, _submods({})),
    ("submods-list", "the whole names its devices in a list", NRAS_INCOMPLETE, _submods([FIRST])),
    (
        "digest-wrong",
        "the whole vouches for another token",
        NRAS_SUBMODS,
        _entry(["DIGEST", ["SHA-256", "00" * 32]]),
    ),
    ("digest-bare", "the whole gives a digest without saying of what kind", NRAS_SUBMODS, _entry("00" * 32)),
    ("digest-local", "a digest as local tools write it", NRAS_SUBMODS, _entry(["DIGEST", ["SHA256", "00" * 32]])),
    ("device-left-out", "the whole names a device whose token is not there", NRAS_INCOMPLETE, _add_unseen_device),
    ("tokens-none", "no device's token is there", NRAS_EAT_MALFORMED, _no_devices),
    ("device-odd", "a device that is neither GPU nor switch", NRAS_EAT_MALFORMED, _odd_name),
    (
        "tokens-swapped",
        "two devices have each other's token",
        NRAS_SUBMODS,
        lambda draft: draft.after_signing.append(_swap),
    ),
    ("sub-other", "the whole is about something else", NRAS_SUBMODS, on_overall(says("sub", "SOMETHING"))),
    ("sub-of-another", "a token says that it is another device's", NRAS_SUBMODS, on_device(says("sub", "GPU-7"))),
    ("overall-as-device", "the whole stands in for a device", NRAS_SUBMODS, _overall_as_device),
    ("device-as-overall", "a device stands in for the whole", NRAS_SUBMODS, _device_as_overall),
    (
        "issuers-differ",
        "whole and device have different issuers",
        NRAS_ISSUER,
        on_device(says("iss", "https://evil.invalid")),
    ),
    ("version-unknown", "claims of a version nobody knows", NRAS_VERSION, on_overall(says("x-nvidia-ver", "9.0"))),
    ("version-number", "a version that is a number", NRAS_CLAIM, on_overall(says("x-nvidia-ver", 3.0))),
    ("version-2-over-3", "claims of 3.0 under version 2.0", NRAS_CLAIM, on_overall(says("x-nvidia-ver", "2.0"))),
    (
        "result-false",
        "the result is false, and nobody says why",
        NRAS_OVERALL_FALSE,
        on_overall(says("x-nvidia-overall-att-result", False)),
    ),
    ("result-missing", "there is no result", NRAS_CLAIM, on_overall(says("x-nvidia-overall-att-result", MISSING))),
    ("result-text", "the result is a word", NRAS_CLAIM, on_overall(says("x-nvidia-overall-att-result", "true"))),
    ("result-one", "the result is 1", NRAS_CLAIM, on_overall(says("x-nvidia-overall-att-result", 1))),
)


FORGERIES = (
    *_forged("overall", on_overall),
    *_forged("device", on_device),
    *_forged("all", on_all),
    *defects(_PARTS),
)
