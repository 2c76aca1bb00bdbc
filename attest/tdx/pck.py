"""
The certificate chain in a quote: which machine it names, and the root that it rests on.

Signatures are checked with the quote, by the library; here is what they do not cover: that the chain is exactly PCK
certificate, CA and pinned root, that none has expired at the true time, and whom to ask for collateral.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from attest.errors import MalformedEvidence, UntrustedEvidence
from attest.memo import Memo
from attest.reasons.tdx import TDX_CERTIFICATES_MALFORMED, TDX_PCK_CHAIN, TDX_PCK_TIME, TDX_ROOT
from attest.tdx import qvl
from attest.tdx.needs import CAS, Needs
from attest.tdx.roots import Root
from attest.x509 import UNREADABLE

PCK_NAME = "Intel SGX PCK Certificate"
FMSPC_BYTES, ID_BYTES = 6, 16
_PEM = rb"\s*-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----"
_CHAIN = re.compile(rb"(%b)(%b%b)\s*" % (_PEM, _PEM, _PEM))


@dataclass(frozen=True, slots=True)
class Pck:
    """
    A PCK chain as it presents itself; `root_der` is the pinned root's, byte by byte.

    `ppid` names the machine: Intel derives it from the processor package (or the platform that several make up), it
    does not depend on the TCB, so it stays through updates, and unlike the serial number it is not issued anew.
    """

    fmspc: str  # 12 upper hex digits
    pce_id: str  # 4 hex digits
    ca: str  # "platform" or "processor"
    ppid: bytes
    instance: bytes | None  # made when the platform was set up; anew if its processors change
    serial: int
    ca_serial: int
    ca_name: bytes  # DER
    root: Root
    root_der: bytes
    not_before: datetime
    not_after: datetime
    flags: Mapping[str, str]  # of qvl.FLAGS: "yes", "no" or "unstated"
    needs: Needs


@dataclass(frozen=True, slots=True)
class Upper:
    """What stands above a PCK certificate: its CA and the root, as they present themselves."""

    ca: str
    subject: x509.Name
    serial: int
    not_before: datetime
    not_after: datetime
    linked: bool  # by name; signatures are the library's
    root_der: bytes
    root_sha256: str


KnownPcks = Memo[Pck]
KnownUppers = Memo[Upper]


def read_chain(pem: bytes, roots: Sequence[Root], *, known: KnownPcks, uppers: KnownUppers) -> Pck:
    """
    The chain of a quote. MalformedEvidence, or UntrustedEvidence where the root is none of `roots`.

    `known` remembers machines, `uppers` what stands above them, which all machines share.
    """
    key = hashlib.sha256(pem).digest()
    return known.get(key) or known.put(key, _read(pem, roots, uppers))


def check_time(pck: Pck, *, now: datetime) -> None:
    """Whether the PCK certificate and its CA are valid at `now`. UntrustedEvidence if not."""
    if not pck.not_before <= now <= pck.not_after:
        found = f"valid from {pck.not_before:%Y-%m-%d} to {pck.not_after:%Y-%m-%d}"
        raise UntrustedEvidence(TDX_PCK_TIME, found, f"valid at {now:%Y-%m-%d %H:%M}")


def _read(pem: bytes, roots: Sequence[Root], uppers: KnownUppers) -> Pck:
    try:
        parts = _CHAIN.fullmatch(pem)
        if parts is None:
            raise ValueError("no PEM text of exactly three certificates")
        leaf = x509.load_pem_x509_certificate(parts[1])
        machine = qvl.pck_extension(parts[1])
        upper = uppers.get(parts[2]) or uppers.put(parts[2], _read_upper(parts[2]))
        subject, issuer = _common_name(leaf.subject), leaf.issuer
        serial, before, after = leaf.serial_number, leaf.not_valid_before_utc, leaf.not_valid_after_utc
    except UNREADABLE as e:
        raise MalformedEvidence(TDX_CERTIFICATES_MALFORMED, str(e), "PCK certificate, its CA, the root") from e
    sizes = len(machine.fmspc), len(machine.ppid)
    if sizes != (FMSPC_BYTES, ID_BYTES) or not any(machine.ppid):
        found = f"FMSPC and PPID of {sizes} bytes, or no PPID"
        raise MalformedEvidence(TDX_CERTIFICATES_MALFORMED, found, f"{FMSPC_BYTES} and {ID_BYTES} bytes")
    root, ca = _trusted(upper.root_sha256, roots), CAS.get(upper.ca)
    if not upper.linked or issuer != upper.subject or ca is None or subject != PCK_NAME:
        found = f"{subject} issued by {issuer.rfc4514_string()}, above it {upper.ca}"
        raise UntrustedEvidence(TDX_PCK_CHAIN, found, f"{PCK_NAME}, by {' or '.join(CAS)}")
    fmspc = machine.fmspc.hex().upper()
    return Pck(
        fmspc=fmspc,
        pce_id=machine.pce_id.hex(),
        ca=ca,
        ppid=machine.ppid,
        instance=machine.instance,
        serial=serial,
        ca_serial=upper.serial,
        ca_name=upper.subject.public_bytes(),
        root=root,
        root_der=upper.root_der,
        not_before=max(before, upper.not_before),
        not_after=min(after, upper.not_after),
        flags=machine.flags,
        needs=Needs.of(fmspc, ca, root),
    )


def _read_upper(pem: bytes) -> Upper:
    """CA and root. ValueError and others of UNREADABLE if they do not parse."""
    ca, root = x509.load_pem_x509_certificates(pem)
    der = root.public_bytes(Encoding.DER)
    return Upper(
        ca=_common_name(ca.subject),
        subject=ca.subject,
        serial=ca.serial_number,
        not_before=ca.not_valid_before_utc,
        not_after=ca.not_valid_after_utc,
        linked=ca.issuer == root.subject,
        root_der=der,
        root_sha256=hashlib.sha256(der).hexdigest(),
    )


def _trusted(presented: str, roots: Sequence[Root]) -> Root:
    for root in roots:
        if root.sha256 == presented:
            return root
    wanted = " or ".join(root.sha256[:16] for root in roots) or "no root is trusted for this"
    raise UntrustedEvidence(TDX_ROOT, f"a root with SHA-256 {presented[:16]}…", wanted)


def _common_name(name: x509.Name) -> str:
    (attribute,) = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(attribute.value)
