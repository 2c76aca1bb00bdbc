"""
An emulated NRAS: it answers for emulated devices as the genuine service does, with tokens of a throw-away issuer.

    made = EmulatedNras.create(now=now)
    made.issuer_file()                      what a verifier is told to trust: address and keys
    made.answer(devices, nonce, now=now)    the detached EAT, claims version 3.0 or 2.0

It judges nothing: what it says of a device is that all is well, unless a defect (`nras_defects`) says otherwise.
Shapes: spec/nvidia.md §11, §12. Tokens are put together by hand, since no library signs the wrong ones that tests need.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding

from nodeprobe.emulator.pki import DIGITAL_SIGNATURE, Profile, end_name, issue, new_key

BASE_URL = "https://nras.emulator.invalid"  # reserved (RFC 2606): nobody can ever answer there
VERSIONS = ("3.0", "2.0")
TOKEN_SECONDS = 3600
KEY_LIFETIME = timedelta(hours=48)
SUBJECT = "NVIDIA-PLATFORM-ATTESTATION"
RIM_EXPIRY = "2099-12-31T23:59:59Z"
DEVICE_EXPIRY = "9999-12-31T23:59:59Z"
_HWMODEL = "GH100 A01 GSP BROM"
_SWITCH_HWMODEL = "LS_10 A01 FSP BROM"

Claims = dict[str, Any]


class Device(Protocol):
    """What the service learns from a device's evidence."""

    @property
    def model(self) -> Any: ...
    @property
    def chain_pem(self) -> bytes: ...


@dataclass
class TokenDraft:
    """One token before it is signed; defects change it."""

    claims: Claims
    header: Claims
    key: ec.EllipticCurvePrivateKey
    secret: bytes = b""  # of HS256
    after_signing: list[Callable[[str], str]] = field(default_factory=list)

    def signed(self) -> str:
        """The token, compact. The header's `alg` says how it is signed."""
        text = f"{_base64url(_json(self.header))}.{_base64url(_json(self.claims))}"
        token = f"{text}.{_base64url(self._signature(text.encode()))}"
        for change in self.after_signing:
            token = change(token)
        return token

    def _signature(self, signed: bytes) -> bytes:
        algorithm = self.header.get("alg")
        if algorithm == "none":
            return b""
        if algorithm == "HS256":
            return hmac.new(self.secret, signed, hashlib.sha256).digest()
        digest = hashes.SHA256() if algorithm == "ES256" else hashes.SHA384()
        size = (self.key.key_size + 7) // 8
        r, s = decode_dss_signature(self.key.sign(signed, ec.ECDSA(digest)))
        return r.to_bytes(size) + s.to_bytes(size)


@dataclass
class AnswerDraft:
    """One answer before it is signed; defects change it."""

    overall: TokenDraft
    devices: dict[str, TokenDraft]
    submods: Claims = field(default_factory=dict)  # entries that take the place of those by the rules
    before_overall: list[Callable[[dict[str, str]], None]] = field(default_factory=list)  # change tokens, then digest
    after_signing: list[Callable[[dict[str, str]], None]] = field(default_factory=list)  # change tokens, not digests

    def signed(self) -> bytes:
        """The detached EAT, as JSON."""
        tokens = {name: draft.signed() for name, draft in self.devices.items()}
        for change in self.before_overall:
            change(tokens)
        digests = {
            name: ["DIGEST", ["SHA-256", hashlib.sha256(token.encode()).hexdigest()]] for name, token in tokens.items()
        }
        submods = {name: entry for name, entry in {**digests, **self.submods}.items() if entry is not None}
        self.overall.claims.setdefault("submods", submods)
        overall = self.overall.signed()
        for change in self.after_signing:
            change(tokens)
        return json.dumps([["JWT", overall], tokens]).encode()


Edit = Callable[[AnswerDraft], None]


@dataclass(frozen=True, slots=True)
class EmulatedNras:
    """The service, with one key at a time."""

    base_url: str
    kid: str
    key: ec.EllipticCurvePrivateKey = field(repr=False)
    certificate: x509.Certificate = field(repr=False)

    @classmethod
    def create(cls, *, now: datetime, base_url: str = BASE_URL) -> EmulatedNras:
        """A new issuer, whose key is in use from now on."""
        key = new_key()
        start = now.astimezone(UTC).replace(microsecond=0)
        name = end_name("Emulated Attestation Service GPU GH100")
        profile = Profile(name, start - timedelta(minutes=10), start + KEY_LIFETIME, DIGITAL_SIGNATURE, ca=False)
        certificate = issue(profile, key.public_key(), end_name("Emulated Attestation Service CA 001"), new_key())
        kid = f"emulated-eat-kid-{start:%Y%m%d%H%M%S}000-{uuid.uuid4()}"
        return cls(base_url, kid, key, certificate)

    def jwk(self) -> Claims:
        """Its public key, as the service publishes it: no `alg`, no `use`, a certificate beside it."""
        numbers = self.key.public_key().public_numbers()
        x, y = (_base64url(number.to_bytes(48)) for number in (numbers.x, numbers.y))
        x5c = [base64.b64encode(self.certificate.public_bytes(Encoding.DER)).decode()]
        return {"kty": "EC", "crv": "P-384", "kid": self.kid, "x": x, "y": y, "x5c": x5c}

    def jwks(self, *more: Claims) -> bytes:
        """The document at `/.well-known/jwks.json`."""
        return _json({"keys": [*more, self.jwk()]})

    def issuer_file(self) -> bytes:
        """Address and keys in one file, for verifiers: `attest.nvidia.nras_issuer.load_emulated` reads it."""
        return _json({"issuer": self.base_url, "jwks": json.loads(self.jwks())})

    def answer(
        self,
        devices: Sequence[Device],
        nonce: bytes,
        *,
        now: datetime,
        version: str = "3.0",
        edits: Sequence[Edit] = (),
    ) -> bytes:
        """The detached EAT for these devices, in their order, with what `edits` make wrong."""
        draft = self.draft([(gpu_claims(each, version), "GPU") for each in devices], nonce, now=now, version=version)
        for edit in edits:
            edit(draft)
        return draft.signed()

    def switch_answer(self, ueids: Sequence[int], nonce: bytes, *, now: datetime, version: str = "3.0") -> bytes:
        """The same for NVSwitches, of which the emulator has no devices: only their numbers."""
        judged = [(switch_claims(ueid, version), "SWITCH") for ueid in ueids]
        return self.draft(judged, nonce, now=now, version=version).signed()

    def draft(self, judged: Sequence[tuple[Claims, str]], nonce: bytes, *, now: datetime, version: str) -> AnswerDraft:
        """An answer that can still be changed: claims and kind of each device."""
        if version not in VERSIONS:
            raise ValueError(f"claims version {version!r} is none of {', '.join(VERSIONS)}")
        overall = {"sub": SUBJECT, "x-nvidia-ver": version, "x-nvidia-overall-att-result": True}
        return AnswerDraft(
            self._token({**overall, "eat_nonce": nonce.hex()}, now),
            {
                f"{kind}-{place}": self._token({**claims, "eat_nonce": nonce.hex()}, now)
                for place, (claims, kind) in enumerate(judged)
            },
        )

    def _token(self, claims: Claims, now: datetime) -> TokenDraft:
        start = int(now.timestamp())
        times = {"iat": start, "nbf": start, "exp": start + TOKEN_SECONDS}
        every = {**claims, "iss": self.base_url, **times, "jti": str(uuid.uuid4())}
        return TokenDraft(every, {"kid": self.kid, "alg": "ES384"}, self.key)


def gpu_claims(device: Device, version: str) -> Claims:
    """What the service says of a GPU that it finds nothing wrong with."""
    leaf = x509.load_pem_x509_certificates(device.chain_pem)[0]
    flags = ["arch-check", *_report(version), *_rim("driver", version), *_rim("vbios", version)]
    chains = {f"x-nvidia-gpu-{role}-rim-cert-chain": _chain(RIM_EXPIRY) for role in ("driver", "vbios")}
    return {
        **_common(leaf.serial_number, _HWMODEL),
        **{f"x-nvidia-gpu-{flag}": True for flag in (*flags, "vbios-index-no-conflict")},
        **({"x-nvidia-gpu-attestation-report-cert-chain": _chain(DEVICE_EXPIRY), **chains} if version == "3.0" else {}),
        "oemid": "5703",
        "x-nvidia-gpu-driver-version": device.model.driver,
        "x-nvidia-gpu-vbios-version": device.model.vbios,
    }


def switch_claims(ueid: int, version: str) -> Claims:
    """What the service says of an NVSwitch that it finds nothing wrong with."""
    flags = ["arch-check", *_report(version), *_rim("bios", version)]
    chains = {
        "x-nvidia-switch-attestation-report-cert-chain": _chain(DEVICE_EXPIRY),
        "x-nvidia-switch-bios-rim-cert-chain": _chain(RIM_EXPIRY),
    }
    return {
        **_common(ueid, _SWITCH_HWMODEL),
        **{f"x-nvidia-switch-{flag}": True for flag in flags},
        **(chains if version == "3.0" else {}),
        "oemid": None,
        "x-nvidia-switch-bios-version": "96.10.FE.00.01",
    }


def _common(ueid: int, hwmodel: str) -> Claims:
    return {
        "measres": "success",
        "secboot": True,
        "dbgstat": "disabled",
        "hwmodel": hwmodel,
        "ueid": str(ueid),
        "x-nvidia-attestation-warning": None,
    }


def _report(version: str) -> list[str]:
    last = "cert-chain-fwid-match" if version == "3.0" else "cert-chain-validated"
    return [f"attestation-report-{each}" for each in ("parsed", "nonce-match", "signature-verified", last)]


def _rim(role: str, version: str) -> list[str]:
    last = "version-match" if version == "3.0" else "cert-validated"
    checks = ("fetched", "schema-validated", "signature-verified", "measurements-available", last)
    return [f"{role}-rim-{each}" for each in checks]


def _chain(expires: str) -> Claims:
    return {
        "x-nvidia-cert-status": "valid",
        "x-nvidia-cert-ocsp-status": "good",
        "x-nvidia-cert-expiration-date": expires,
        "x-nvidia-cert-revocation-reason": None,
    }


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
