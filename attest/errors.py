"""
What can go wrong before there is a verdict.

    AttestError
      MalformedEvidence      the bytes do not parse: the node's fault
      UntrustedEvidence      they parse, but a signature, chain or binding does not hold
        NonceMismatch        ... because it answers somebody else's challenge, or an old one
      UnsupportedEvidence    nothing installed can read it, or not this class of device
      UntrustedCollateral    a manufacturer's document is absent, broken or forged: not the node's fault

A policy that is not met is no error; it is an AttestationResult.
"""

from __future__ import annotations

from attest.reasons import Reason

SHOWN_CHARS_MAX = 200


class AttestError(Exception):
    """Base of everything attest raises on purpose: a reason of the catalogue, what was found and what was wanted."""

    def __init__(self, reason: Reason, found: str = "", wanted: str = "") -> None:
        self.reason = reason
        self.found = printable(found)
        self.wanted = printable(wanted)
        super().__init__(reason.code, self.found, self.wanted)

    def __str__(self) -> str:
        found = f", found {self.found}" if self.found else ""
        wanted = f", wanted {self.wanted}" if self.wanted else ""
        return f"{self.reason.code}: {self.reason.meaning[:-1]}{found}{wanted}"


class MalformedEvidence(AttestError):
    """The bytes do not parse."""


class UntrustedEvidence(AttestError):
    """The bytes parse, but they are not proved genuine, whole and fresh."""


class NonceMismatch(UntrustedEvidence):
    """The evidence answers another challenge."""


class UnsupportedEvidence(AttestError):
    """No installed verifier reads this evidence."""


class UntrustedCollateral(AttestError):
    """A document that the verification needs cannot be believed. Postpone; the node is not to blame."""


def printable(text: str) -> str:
    """Errors end up on terminals and in logs, and may quote hostile bytes."""
    cut = text if len(text) <= SHOWN_CHARS_MAX else text[: SHOWN_CHARS_MAX - 1] + "…"
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in cut)
