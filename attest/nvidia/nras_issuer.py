"""
Who may issue NRAS tokens, and where the keys are.

Unlike device roots, an issuer is pinned by its address: NVIDIA publishes the keys there as a JWKS, anew every day, and
the root above them nowhere. So a JWKS is as good as the TLS connection that it was fetched over, and a mirror of it is
trusted like the issuer. An emulator's keys are handed in with its address, and never fetched.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field

from attest.collateral import CollateralKind, Need
from attest.jws import strict_json

NVIDIA_NRAS_JWKS = CollateralKind.NVIDIA_NRAS_JWKS
ISSUER_BYTES_MAX = 1 << 20
JWKS_PATH = "/.well-known/jwks.json"

NRAS_URL = "https://nras.attestation.nvidia.com"
VENDOR_ISSUERS = frozenset({NRAS_URL})
_BASE_URL = re.compile(r"https://[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?(:[1-9][0-9]{0,4})?")


@dataclass(frozen=True, slots=True)
class NrasIssuer:
    """
    One issuer to accept: the `iss` of its tokens, without a slash at the end. With a `jwks` it is used with those keys
    only; ValueError if the address is none.
    """

    base_url: str
    jwks: bytes = field(default=b"", repr=False)

    def __post_init__(self) -> None:
        if not _BASE_URL.fullmatch(self.base_url):
            raise ValueError(f"{self.base_url!r} is no address of an issuer: want https://host, without a path")

    @property
    def emulated(self) -> bool:
        """Everything is, but a vendor's address whose keys come from there: keys that are handed in are anybody's."""
        return bool(self.jwks) or self.base_url not in VENDOR_ISSUERS

    @property
    def need(self) -> Need | None:
        """The document with its keys, by the pinned address; None where they are handed in."""
        return None if self.jwks else Need(NVIDIA_NRAS_JWKS, self.base_url)


NRAS = NrasIssuer(NRAS_URL)


def source(need: Need) -> str | None:
    """Where the JWKS of an issuer is; None for needs of other kinds."""
    return need.name + JWKS_PATH if need.kind == NVIDIA_NRAS_JWKS else None


def load_emulated(data: bytes) -> NrasIssuer:
    """An emulator's issuer: JSON `{"issuer": "https://…", "jwks": {"keys": […]}}`. ValueError for all else."""
    if len(data) > ISSUER_BYTES_MAX:
        raise ValueError(f"a file of an issuer has at most {ISSUER_BYTES_MAX} bytes")
    document = strict_json(data)
    if not isinstance(document, dict) or document.keys() != {"issuer", "jwks"} or not document["jwks"]:
        raise ValueError('want {"issuer": "https://…", "jwks": {"keys": […]}}')
    if document["issuer"] in VENDOR_ISSUERS:
        raise ValueError("vendors' issuers are built in; the file must hold an emulator's")
    return NrasIssuer(str(document["issuer"]), json.dumps(document["jwks"]).encode())
