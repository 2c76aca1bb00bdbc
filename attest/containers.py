"""
Reads evidence in every container met in the wild, into a Bundle. Bounded, strict, and believing nothing that it says.

    our own bundle      {"format": "workermanager/evidence-v1", "evidence": [{kind, payload, certificates, log}]}
    nvattest            [{arch, nonce, evidence, certificate}], or the same under "evidences"
    NRAS request        {nonce, arch, evidence_list: [{evidence, certificate}]}
    NRAS answer         [["JWT", …], {"GPU-0": …}]
    go-nvattest         {gpus: [{AttestationReport: {"py/b64"}, CertificateChains: {…: [{pem}]}}], nvswitches: […]}
    SecretVM            {cpu: quote or report as text, gpu: NRAS request}; or the two as files
    dstack              {quote: hex, event_log: JSON}
    files               a report as bytes, as hex or base64 text or as NVML's structs; its certificates as PEM or DER

Any JSON may also come as a JSON string of it.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from attest.errors import AttestError, MalformedEvidence
from attest.evidence import (
    AMD_SNP,
    BUNDLE_BYTES_MAX,
    CERTIFICATES_BYTES_MAX,
    DEVICES_MAX,
    FORMAT,
    INTEL_TDX,
    LOG_BYTES_MAX,
    NVIDIA,
    PAYLOAD_BYTES_MAX,
    Bundle,
    Evidence,
)
from attest.nvidia import nras_eat
from attest.reasons import EVIDENCE_EMPTY, EVIDENCE_MALFORMED, EVIDENCE_TOO_LARGE

FILES_MAX = 2 * DEVICES_MAX
WRAPPINGS_MAX = 2  # JSON that is a string of JSON, base64 of a report
SETS_MAX = 4  # JSON that holds other containers: SecretVM's, dstack's; one may hold the other

_REPORT_START = bytes.fromhex("11e001ff")  # SPDM 1.1 GET_MEASUREMENTS, signature, all
_PEM_START = b"-----BEGIN CERTIFICATE-----"
_DER_START = b"\x30\x82"  # a certificate, of 256 bytes or more
_TDX_START = (bytes.fromhex("0400020081000000"), bytes.fromhex("0500020081000000"))
_SNP_BYTES = 1184
_SNP_VERSIONS_MAX = 0xFF  # u32 at the start; 5 is the newest
_NVIDIA_CERTIFICATES = 5  # of a chain; SEV-SNP has at most three
_KIND = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")  # as entry points and policies write it
_HEX_TEXT = re.compile(rb"[\s,0-9a-fA-FxX]+")
_BASE64_TEXT = re.compile(rb"[0-9A-Za-z+/\s]{100,}={0,2}")  # nothing repeats twice: no text takes long

# NVML's structs as nvml.h lays them out: total size, offset of the used size, offset and size of the buffer.
_NVML_REPORT = (12332, 4, 44, 8192)
_NVML_CERTIFICATE = (9224, 4, 4104, 5120)


@dataclass(slots=True)
class _Found:
    """What the files gave so far: devices, some still without certificates, and certificates that came before any."""

    devices: list[Evidence] = field(default_factory=list)
    chains: list[bytes] = field(default_factory=list)
    logs: list[bytes] = field(default_factory=list)
    sets: int = 0  # that were opened


def read(files: Sequence[bytes]) -> Bundle:
    """
    The evidence in these files together: whole containers, or reports and chains, which pair up in their order.

    MalformedEvidence if it is none, nothing, or more than a node can have; another AttestError for tokens of NRAS that
    cannot be taken apart.
    """
    if sum(map(len, files)) > BUNDLE_BYTES_MAX or len(files) > FILES_MAX:
        found = f"{sum(map(len, files))} bytes in {len(files)} files"
        raise MalformedEvidence(EVIDENCE_TOO_LARGE, found, f"at most {BUNDLE_BYTES_MAX} in {FILES_MAX}")
    sorted_out = _Found()
    for data in files:
        _sort_in(data, sorted_out)
    bundle = _paired(sorted_out)
    _check(bundle)
    return bundle


def _sort_in(data: bytes, found: _Found, wrappings: int = 0) -> None:
    text = data.rstrip(b"\0 \t\r\n").lstrip()
    device = _as_device(data)
    if device is not None:
        found.devices.append(device)
    elif text.startswith(_PEM_START):
        found.chains.append(text + b"\n")
    elif _is_struct(data, *_NVML_CERTIFICATE):
        found.chains.append(_from_struct(data, *_NVML_CERTIFICATE[1:]).rstrip(b"\0"))
    elif data.startswith(_DER_START):
        found.chains.append(data)
    elif text[:1] in (b"{", b"[", b'"'):
        _sort_in_json(text, found)
    elif text and _HEX_TEXT.fullmatch(text):
        _sort_in(_from_hex(text), found, wrappings)
    elif wrappings < WRAPPINGS_MAX and _BASE64_TEXT.fullmatch(text):
        _sort_in(_from_base64_text(text), found, wrappings + 1)
    else:
        raise MalformedEvidence(EVIDENCE_MALFORMED, f"{len(data)} bytes of no known form", "a container of evidence")


def _as_device(data: bytes) -> Evidence | None:
    if data.startswith(_REPORT_START):
        return Evidence(NVIDIA, data)
    if _is_struct(data, *_NVML_REPORT):
        return Evidence(NVIDIA, _from_struct(data, *_NVML_REPORT[1:]))
    if data.startswith(_TDX_START):
        return Evidence(INTEL_TDX, data)
    if len(data) == _SNP_BYTES and int.from_bytes(data[:4], "little") <= _SNP_VERSIONS_MAX:
        return Evidence(AMD_SNP, data)
    return None


def _paired(found: _Found) -> Bundle:
    """
    Each chain with the first report that lacks one and can have it; every GPU needs one, CPUs may go without. The only
    SEV-SNP report takes what is left, in its order.
    """
    devices = list(found.devices)
    for chain in found.chains:
        kind = NVIDIA if chain.count(_PEM_START) == _NVIDIA_CERTIFICATES else AMD_SNP
        lacking = [at for at, each in enumerate(devices) if each.kind in (NVIDIA, AMD_SNP) and not each.certificates]
        cpus = [at for at, each in enumerate(devices) if each.kind == kind == AMD_SNP]
        at = next((at for at in lacking if devices[at].kind == kind), next(iter(lacking), None))
        if at is None and len(cpus) == 1:
            (at,) = cpus  # whose certificates may come in files of their own
        if at is None:
            raise MalformedEvidence(EVIDENCE_MALFORMED, "a certificate chain too many", "one for each report")
        devices[at] = replace(devices[at], certificates=devices[at].certificates + chain)
    for log in found.logs:
        at = next((i for i, device in enumerate(devices) if device.kind == INTEL_TDX and not device.log), None)
        if at is None:
            raise MalformedEvidence(EVIDENCE_MALFORMED, "an event log without its quote", "a log for each quote")
        devices[at] = replace(devices[at], log=log)
    if bare := [at for at, device in enumerate(devices) if device.kind == NVIDIA and not device.certificates]:
        wanted = "a certificate chain for each report"
        raise MalformedEvidence(EVIDENCE_MALFORMED, f"{len(bare)} reports without their chains", wanted)
    return tuple(devices)


def _check(bundle: Bundle) -> None:
    if not bundle:
        raise MalformedEvidence(EVIDENCE_EMPTY, "no device", "at least one")
    if len(bundle) > DEVICES_MAX:
        raise MalformedEvidence(EVIDENCE_TOO_LARGE, f"{len(bundle)} devices", f"at most {DEVICES_MAX}")
    for index, evidence in enumerate(bundle):
        sizes = (
            (evidence.payload, PAYLOAD_BYTES_MAX),
            (evidence.certificates, CERTIFICATES_BYTES_MAX),
            (evidence.log, LOG_BYTES_MAX),
        )
        if any(len(data) > most for data, most in sizes):
            raise MalformedEvidence(EVIDENCE_TOO_LARGE, f"device {index}", "a report and chain of genuine size")


def _is_struct(data: bytes, total: int, size_at: int, _at: int, _room: int) -> bool:
    """Text of this very length has letters where the struct has the upper half of a small number."""
    return len(data) == total and data[size_at + 2 : size_at + 4] == b"\0\0"


def _from_struct(data: bytes, size_at: int, at: int, room: int) -> bytes:
    size = int.from_bytes(data[size_at : size_at + 4], "little")
    if not 0 < size <= room:
        raise MalformedEvidence(EVIDENCE_MALFORMED, f"an NVML struct of size {size}", f"1 to {room}")
    return data[at : at + size]


def _from_hex(text: bytes) -> bytes:
    """Hex digits in any case, with white space, or as `0x11, 0xe0, …`."""
    digits = re.sub(rb"0[xX]|[\s,]", b"", text)
    try:
        return bytes.fromhex(digits.decode("ascii"))
    except ValueError as e:
        raise MalformedEvidence(EVIDENCE_MALFORMED, "text that is nearly hex", "an even number of hex digits") from e


def _from_base64_text(text: bytes) -> bytes:
    try:
        return base64.b64decode(b"".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as e:
        raise MalformedEvidence(EVIDENCE_MALFORMED, "text that is nearly base64", "base64 of a report") from e


def _sort_in_json(text: bytes, found: _Found, wrappings: int = 0) -> None:
    try:
        document = json.loads(text, object_pairs_hook=_unambiguous)
    except (ValueError, RecursionError) as e:
        raise MalformedEvidence(EVIDENCE_MALFORMED, f"no JSON: {e}", "a container of evidence") from e
    if isinstance(document, str) and wrappings < WRAPPINGS_MAX:
        _sort_in_string(document, found, wrappings)
        return
    try:
        _sort_in_document(document, text, found)
    except AttestError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as e:
        what = f"{type(e).__name__} {e}"
        raise MalformedEvidence(EVIDENCE_MALFORMED, what, "a container of evidence, complete") from e


def _sort_in_string(text: str, found: _Found, wrappings: int) -> None:
    """A JSON string that holds JSON, or a report as hex or base64."""
    inner = text.encode("utf-8", "surrogatepass")
    if inner.lstrip()[:1] in (b"{", b"[", b'"'):
        _sort_in_json(inner.strip(), found, wrappings + 1)
    else:
        _sort_in(inner, found, wrappings + 1)


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """What two readers might read differently is no evidence."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name twice in one object")
    return found


def _sort_in_document(document: Any, text: bytes, found: _Found) -> None:
    """Any of the JSON containers. KeyError, TypeError and the like where one is incomplete."""
    if nras_eat.is_answer(document):
        found.devices += nras_eat.split(text)
    elif isinstance(document, list) and _is_event_log(document):
        found.logs.append(text)
    elif isinstance(document, dict) and {"quote", "event_log"} <= document.keys():
        _open(found)
        _sort_in_string(document["quote"], found, 0)
        log = document["event_log"]
        if not isinstance(log, str | list):
            raise TypeError("the event log is neither a list nor the text of one")
        found.logs.append((log if isinstance(log, str) else json.dumps(log)).encode())
    elif isinstance(document, dict) and {"cpu", "gpu"} <= document.keys():
        _open(found)
        for part in (document["cpu"], document["gpu"]):
            _sort_in_string(part if isinstance(part, str) else json.dumps(part), found, 0)
    else:
        found.devices += _from_document(document)


def _open(found: _Found) -> None:
    """Count a set of containers: each holds others, and sets within sets would go as deep as somebody likes."""
    found.sets += 1
    if found.sets > SETS_MAX:
        raise MalformedEvidence(EVIDENCE_MALFORMED, f"more than {SETS_MAX} sets of containers", "one a node")


def _is_event_log(items: list[Any]) -> bool:
    return bool(items) and all(isinstance(item, dict) and {"imr", "digest"} <= item.keys() for item in items)


def _from_document(document: Any) -> Iterator[Evidence]:
    if isinstance(document, list):
        yield from map(_from_nvattest, _devices(document))
    elif "format" in document:
        if document["format"] != FORMAT:
            raise MalformedEvidence(EVIDENCE_MALFORMED, "another format", FORMAT)
        yield from map(_from_own, _devices(document["evidence"]))
    elif "evidences" in document:
        yield from map(_from_nvattest, _devices(document["evidences"]))
    elif "evidence_list" in document:
        yield from map(_from_nvattest, _devices(document["evidence_list"]))
    elif "gpus" in document or "nvswitches" in document:
        yield from map(_from_go_nvattest, _devices((document.get("gpus") or []) + (document.get("nvswitches") or [])))
    else:
        raise MalformedEvidence(EVIDENCE_MALFORMED, "JSON of no known form", "a container of evidence")


def _devices(items: Any) -> list[Any]:
    if not isinstance(items, list):
        raise TypeError("the devices are no list")
    if len(items) > DEVICES_MAX:
        raise MalformedEvidence(EVIDENCE_TOO_LARGE, f"{len(items)} devices", f"at most {DEVICES_MAX}")
    return items


def _from_own(item: Any) -> Evidence:
    kind = item["kind"]
    if not isinstance(kind, str) or not _KIND.fullmatch(kind):
        raise TypeError("the kind is no short name of a-z, 0-9 and dashes")
    return Evidence(kind, _base64(item["payload"]), _base64(item["certificates"]), _base64(item.get("log", "")))


def _from_nvattest(item: Any) -> Evidence:
    return Evidence(NVIDIA, _base64(item["evidence"]), _pem(_base64(item["certificate"])))


def _from_go_nvattest(item: Any) -> Evidence:
    report = _base64(item["AttestationReport"]["py/b64"])
    (chain,) = (links for links in item["CertificateChains"].values() if isinstance(links, list))
    return Evidence(NVIDIA, report, _pem(b"\n".join(_base64(link["pem"]) for link in chain)))


def _pem(text: bytes) -> bytes:
    """Chains cut out of the driver's buffer may carry its padding."""
    return text.strip(b"\0 \t\r\n") + b"\n"


def _base64(text: Any) -> bytes:
    if not isinstance(text, str):
        raise TypeError("base64 that is no text")
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as e:
        raise ValueError("no base64") from e
