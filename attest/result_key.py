"""The key that an issuer signs its results with: P-256 for ES256, or Ed25519 for EdDSA."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from attest import keyfiles, tokens
from attest.keyfiles import KeyFileError

ALGORITHMS = (tokens.ES256, tokens.EDDSA)


@dataclass(frozen=True, slots=True, eq=False)
class ResultKey:
    """A private key for signing results. It is named by its thumbprint (RFC 7638), and never shown."""

    private: tokens.PrivateKey = field(repr=False)

    @classmethod
    def generate(cls, algorithm: str = tokens.ES256) -> ResultKey:
        """A new random key for ES256 or EdDSA. ValueError for another algorithm."""
        if algorithm not in ALGORITHMS:
            raise ValueError(f"results are signed by {' or '.join(ALGORITHMS)}, not {algorithm!r}")
        if algorithm == tokens.EDDSA:
            return cls(ed25519.Ed25519PrivateKey.generate())
        return cls(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def load(cls, path: Path) -> ResultKey:
        """Read a key from a file that only its owner can read. Raises `keyfiles.KeyFileError`."""
        key = keyfiles.load_any(path)
        if isinstance(key, ec.EllipticCurvePrivateKey) and not isinstance(key.curve, ec.SECP256R1):
            raise KeyFileError(f"{path} holds a key of another kind; P-256 or Ed25519 is needed: name another file")
        return cls(key)

    def save(self, path: Path) -> None:
        """Write the key to a new file, mode 0600. Raises `keyfiles.KeyFileError`."""
        keyfiles.save(self.private, path)

    @property
    def public(self) -> tokens.PublicKey:
        return self.private.public_key()

    @property
    def kid(self) -> str:
        """The name of the key in key sets and in the headers of tokens."""
        return tokens.public_jwk(self.public)["kid"]

    @property
    def algorithm(self) -> str:
        return tokens.public_jwk(self.public)["alg"]

    def __repr__(self) -> str:
        return f"ResultKey({self.algorithm}, {self.kid})"
