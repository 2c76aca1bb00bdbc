"""
Binding profiles: what the report data of a CPU TEE and the nonces of GPUs commit to, by the layouts met in the field.

A profile is a pure function of verified report data, the GPUs' nonces and what was presented. [0:32] and [32:64] are
the halves of REPORTDATA; H is SHA-256; the GPU's nonce is that of every GPU and switch.

    profile           REPORTDATA                                             GPU's nonce   strength          ours?
    workermanager/v1  H(tag, H(statement), GPU evidence), challenge          of statement  evidence-covered  yes
    same, GPUs only   none                                                   of statement  nonce             yes
    tinfoil           H(TLS key, HPKE key, nonce, H(gpu)[, H(nvswitch)]), 0  nonce         evidence-covered  yes
    chutes            H(nonce as hex, E2E key as base64), H(TLS key)         [0:32]        committed         E2E key
    secretvm          H(TLS key) or H(TLS certificate), VM's own nonce       [32:64]       committed         never
    near              H(address, TLS fingerprint), nonce                     nonce         nonce             yes
    phala             address and zeros, nonce                               nonce         nonce             yes

"ours?" is whether the evidence answers our own challenge; chutes' does if its E2E key is presented, too.

What none of them proves: that the GPU sits in the machine of that CPU. With the caller's nonce in both (near, phala),
anybody may have asked a GPU anywhere. Where the nonce is the TEE's own (secretvm, chutes), or the quote covers the GPU
evidence (tinfoil, ours), this trust domain took part; yet software in it could ask a GPU elsewhere. Only measured guest
code closes that, which is why no profile here reaches `measured`. A secretvm quote is made at boot: it is as old as
that, and only a TLS connection with the key it names is fresh. NEAR's form without TLS is that of phala.

The equations are those of each system's own verifier, recomputed from its public description.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from attest import containers
from attest.binding import CPUS, NOTHING_PRESENTED, PROFILE, Binding, Presented, Strength, gpu_nonce, report_data
from attest.claims import Claims
from attest.errors import AttestError
from attest.evidence import NONCE_BYTES, NVIDIA, NVIDIA_NRAS, Bundle, Evidence, Nonce

REPORT_DATA_BYTES = 64
SECTIONS_MAX = 2
_HALF = REPORT_DATA_BYTES // 2
_SPDM_REQUEST = bytes.fromhex("11e001ff")  # the nonce of an NVIDIA report follows it, and its signature covers both
_ADDRESS_BYTES = (20, 32)
_ETHEREUM_BYTES = 20

STATEMENT, NONCE, TLS, ADDRESS, E2E_KEY, HPKE_KEY = (
    "the statement",
    "the nonce",
    "the TLS key",
    "the signing address",
    "the E2E key",
    "the HPKE key",
)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the profiles compare."""

    report_data: bytes | None  # of the one CPU TEE, verified; None if there is none, or more than one
    devices: Bundle  # all but the CPU TEEs, in their order
    nonces: tuple[bytes | None, ...]  # theirs; None where it cannot be read
    alone: bool  # there is no CPU TEE in the bundle, believed or not
    known: Presented


@dataclass(frozen=True, slots=True)
class _Held:
    profile: str
    strength: Strength
    proves: frozenset[str]  # which of the presented facts the evidence commits to
    covers_cpu: bool = True


def judge(claims: Sequence[Claims], bundle: Bundle, presented: Presented = NOTHING_PRESENTED) -> Binding:
    """
    The strongest profile that holds and commits to all that was presented; `mismatch` says what it does not commit to.

    Genuineness is the verification's to say: report data counts only from claims, and a GPU that was refused lets no
    verdict be affirmed, whatever its nonce. Where a CPU TEE was refused, nothing is known of its report data, so there
    is no mismatch to tell of.
    """
    asked = _facts(presented)
    cpus = sum(evidence.kind in CPUS for evidence in bundle)
    proved = [claim for claim in claims if claim.kind in CPUS]
    seen = _Seen(_report_data(proved) if cpus == 1 else None, *_devices(claims, bundle), not cpus, presented)
    held = [found for profile in _PROFILES if (found := profile(seen)) is not None]
    if not cpus or len(proved) < cpus:
        held += [found for found in [_ours_of_gpus(seen)] if found is not None]
    fitting = [each for each in held if asked <= each.proves]
    if fitting:
        best = max(fitting, key=lambda each: list(Strength).index(each.strength))
        nonce = presented.nonce.hex() if presented.nonce is not None else None
        return Binding(best.profile, best.strength, best.covers_cpu, nonce)
    if len(proved) < cpus or (asked <= {STATEMENT} and not cpus):
        return Binding()  # refused already, by the verification
    if len(claims) < len(bundle) and NVIDIA_NRAS in {evidence.kind for evidence in bundle}:
        return Binding()  # nothing is known of a token that was refused, perhaps through no fault of the node
    lacking = [f"{each.profile}, without {_listed(asked - each.proves)}" for each in held if each.profile != "none"]
    wanted = f"evidence that commits to {_listed(asked)}"
    return Binding(mismatch=("; ".join(lacking) or "no profile that holds", wanted))


def to_verify_against(bundle: Bundle, presented: Presented) -> Nonce | None:
    """
    The nonce that the devices are to be verified against. None where a CPU TEE is among them and the challenge is a
    bare one: what each device then answers is the profile's to say, and evidence that answers none is not fresh.
    """
    if presented.statement is not None:
        return gpu_nonce(presented.statement)
    return None if any(evidence.kind in CPUS for evidence in bundle) else presented.nonce


def _facts(known: Presented) -> frozenset[str]:
    given = {
        STATEMENT: known.statement,
        NONCE: known.nonce,
        TLS: known.tls_spki_sha256 or known.tls_certificate_sha256,
        ADDRESS: known.signing_address,
        E2E_KEY: known.e2e_key,
        HPKE_KEY: known.hpke_key,
    }
    return frozenset(name for name, value in given.items() if value is not None)


def _report_data(proved: Sequence[Claims]) -> bytes | None:
    if len(proved) != 1:
        return None
    said = proved[0].values.get("report_data")
    try:
        data = bytes.fromhex(said) if isinstance(said, str) else b""
    except ValueError:
        return None
    return data if len(data) == REPORT_DATA_BYTES else None


def _devices(claims: Sequence[Claims], bundle: Bundle) -> tuple[Bundle, tuple[bytes | None, ...]]:
    """All but the CPU TEEs, and their nonces: of NVIDIA's reports from the very bytes that are signed, else claimed."""
    devices = tuple(evidence for evidence in bundle if evidence.kind not in CPUS)
    others = [claim for claim in claims if claim.kind not in CPUS and claim.kind != NVIDIA]
    complete = len(others) == sum(evidence.kind != NVIDIA for evidence in devices)
    said = iter([_hex(claim.values.get("nonce")) for claim in others] if complete else [])
    return devices, tuple(_nonce(each) if each.kind == NVIDIA else next(said, None) for each in devices)


def _nonce(evidence: Evidence) -> bytes | None:
    """Where the nonce stands in an NVIDIA report (SPDM 1.1 GET_MEASUREMENTS): 32 bytes after the head."""
    start, end = len(_SPDM_REQUEST), len(_SPDM_REQUEST) + NONCE_BYTES
    fits = evidence.payload.startswith(_SPDM_REQUEST) and len(evidence.payload) >= end
    return evidence.payload[start:end] if fits else None


def _hex(said: object) -> bytes | None:
    try:
        return bytes.fromhex(said) if isinstance(said, str) else None
    except ValueError:
        return None


# --- the profiles: None where one does not hold, else which of the presented facts it commits to ----------------------
def _ours(seen: _Seen) -> _Held | None:
    statement, data = seen.known.statement, seen.report_data
    if statement is None or data is None or not _challenged(statement.challenge):
        return None
    holds = _same(data, report_data(statement, seen.devices)) and _all_answer(seen, gpu_nonce(statement))
    return _Held(PROFILE, Strength.EVIDENCE_COVERED, frozenset({STATEMENT})) if holds else None


def _ours_of_gpus(seen: _Seen) -> _Held | None:
    """Without a CPU TEE that was believed, so that only the GPUs speak."""
    statement = seen.known.statement
    if statement is None or not seen.devices or not _all_answer(seen, gpu_nonce(statement)):
        return None
    return _Held(PROFILE, Strength.NONCE, frozenset({STATEMENT}), covers_cpu=False)


def _tinfoil(seen: _Seen) -> _Held | None:
    known, data = seen.known, seen.report_data
    if data is None or known.nonce is None or known.tls_spki_sha256 is None or known.hpke_key is None:
        return None
    if not seen.devices or not 1 <= len(known.sections) <= SECTIONS_MAX or not _covered(known.sections, seen.devices):
        return None
    hashes = b"".join(hashlib.sha256(section).digest() for section in known.sections)
    wanted = hashlib.sha256(known.tls_spki_sha256 + known.hpke_key + known.nonce + hashes).digest()
    holds = _same(data, wanted + bytes(_HALF)) and _all_answer(seen, known.nonce)
    return _Held("tinfoil", Strength.EVIDENCE_COVERED, frozenset({NONCE, TLS, HPKE_KEY})) if holds else None


def _chutes(seen: _Seen) -> _Held | None:
    known, data = seen.known, seen.report_data
    if data is None or not seen.devices or not _all_answer(seen, data[:_HALF]):
        return None
    proves: set[str] = set()
    if known.nonce is not None and known.e2e_key is not None:
        text = known.nonce.hex() + known.e2e_key
        if _same(data[:_HALF], hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()):
            proves |= {NONCE, E2E_KEY}
    if _same(data[_HALF:], known.tls_spki_sha256):
        proves.add(TLS)
    return _Held("chutes", Strength.COMMITTED, frozenset(proves), covers_cpu=NONCE in proves)


def _secretvm(seen: _Seen) -> _Held | None:
    """
    The nonce is the VM's own; zeros if it has no GPU. A first half that is an address and zeros, or a second half that
    is the caller's nonce, belong to other systems, whose strength is less.
    """
    known, data = seen.known, seen.report_data
    if data is None or not any(data[_ETHEREUM_BYTES:_HALF]) or _same(data[_HALF:], known.nonce):
        return None
    if not (_all_answer(seen, data[_HALF:]) if seen.devices else not any(data[_HALF:])):
        return None
    of_tls = _same(data[:_HALF], known.tls_spki_sha256) or _same(data[:_HALF], known.tls_certificate_sha256)
    if not seen.devices and not of_tls:
        return None
    return _Held("secretvm", Strength.COMMITTED, frozenset({TLS} if of_tls else ()), covers_cpu=False)


def _near(seen: _Seen) -> _Held | None:
    known, data = seen.known, seen.report_data
    address = known.signing_address
    if data is None or address is None or len(address) not in _ADDRESS_BYTES or not _caller_answered(seen):
        return None
    fingerprints = [each for each in (known.tls_spki_sha256, known.tls_certificate_sha256) if each is not None]
    holds = any(_same(data[:_HALF], hashlib.sha256(address + each).digest()) for each in fingerprints)
    return _Held("near", Strength.NONCE, frozenset({NONCE, ADDRESS, TLS})) if holds else None


def _phala(seen: _Seen) -> _Held | None:
    known, data = seen.known, seen.report_data
    address = known.signing_address
    if data is None or address is None or len(address) not in _ADDRESS_BYTES or not _caller_answered(seen):
        return None
    holds = _same(data[:_HALF], address.ljust(_HALF, b"\0"))
    return _Held("phala", Strength.NONCE, frozenset({NONCE, ADDRESS})) if holds else None


def _bare(seen: _Seen) -> _Held | None:
    """No profile at all: the caller's nonce stands in the report data, in whichever half, and in every GPU's report."""
    known, data = seen.known, seen.report_data
    if known.nonce is None or not _all_answer(seen, known.nonce):
        return None
    if data is None or not any(_same(half, known.nonce) for half in (data[:_HALF], data[_HALF:])):
        return None
    return _Held("none", Strength.NONE, frozenset({NONCE}))


def _nothing(seen: _Seen) -> _Held:
    """No profile, and nothing proved: enough where nothing was presented, and where there is nothing to compare."""
    nonce = seen.known.nonce
    answered = seen.alone and nonce is not None and bool(seen.devices) and _all_answer(seen, nonce)
    return _Held("none", Strength.NONE, frozenset({NONCE} if answered else ()), covers_cpu=False)


_PROFILES: tuple[Callable[[_Seen], _Held | None], ...] = (
    *(_ours, _tinfoil, _chutes, _secretvm, _near, _phala),
    *(_bare, _nothing),
)


# --- what they share --------------------------------------------------------------------------------------------------
def _same(found: bytes, wanted: bytes | None) -> bool:
    return wanted is not None and hmac.compare_digest(found, wanted)


def _all_answer(seen: _Seen, nonce: bytes) -> bool:
    """That every device signed this very nonce. Of none, that is true: who needs one says so."""
    return all(each is not None and _same(each, nonce) for each in seen.nonces)


def _caller_answered(seen: _Seen) -> bool:
    nonce, data = seen.known.nonce, seen.report_data
    return nonce is not None and data is not None and _same(data[_HALF:], nonce) and _all_answer(seen, nonce)


def _covered(sections: Sequence[bytes], devices: Bundle) -> bool:
    """That these sections, which the quote covers, are the very evidence that was verified: no device more or less."""
    try:
        said = [each for section in sections for each in containers.read([section])]
    except AttestError:
        return False
    return said == list(devices)


def _challenged(challenge: str) -> bool:
    return len(challenge) == 2 * NONCE_BYTES and _hex(challenge) is not None


def _listed(facts: frozenset[str]) -> str:
    return ", ".join(sorted(facts)) or "nothing"
