"""
Reads evidence in every container met in the wild, into a Bundle. Bounded, strict, and believing nothing that it says.

    our own bundle         {"format": "workermanager/evidence-v1", "evidence": [{kind, payload, certificates}]}
    nvattest               [{arch, nonce, evidence, certificate}], or the same under "evidences"
    NRAS request           {nonce, arch, evidence_list: [{evidence, certificate}]}; also as a JSON string of that JSON
    go-nvattest            {gpus: [{AttestationReport: {"py/b64"}, CertificateChains: {…: [{pem}]}}], nvswitches: […]}
    report + chain         files of their own: a report as bytes, as hex text or as NVML's structs; chains as PEM text
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from attest.errors import AttestError, MalformedEvidence
from attest.evidence import (
    AMD_SNP,
    BUNDLE_BYTES_MAX,
    CERTIFICATES_BYTES_MAX,
    DEVICES_MAX,
    FORMAT,
    INTEL_TDX,
    NVIDIA,
    PAYLOAD_BYTES_MAX,
    Bundle,
    Evidence,
)
from attest.reasons import EVIDENCE_EMPTY, EVIDENCE_MALFORMED, EVIDENCE_TOO_LARGE

FILES_MAX = 2 * DEVICES_MAX
WRAPPINGS_MAX = 2  # JSON that is a string of JSON

_REPORT_START = bytes.fromhex("11e001ff")  # SPDM 1.1 GET_MEASUREMENTS, signature, all
_PEM_START = b"-----BEGIN CERTIFICATE-----"
_TDX_START = (bytes.fromhex("0400020081000000"), bytes.fromhex("0500020081000000"))
_SNP_BYTES = 1184
_SNP_VERSIONS_MAX = 0xFF  # u32 at the start; 5 is the newest
_KIND = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")  # as entry points and policies write it
_HEX_TEXT = re.compile(rb"[\s,0-9a-fA-FxX]+")

# NVML's structs as nvml.h lays them out: total size, offset of the used size, offset and size of the buffer.
_NVML_REPORT = (12332, 4, 44, 8192)
_NVML_CERTIFICATE = (9224, 4, 4104, 5120)


def read(files: Sequence[bytes]) -> Bundle:
    """
    The evidence in these files together: whole containers, or reports and chains, which pair up in their order.

    MalformedEvidence if it is none, nothing, or more than a node can have.
    """
    if sum(map(len, files)) > BUNDLE_BYTES_MAX or len(files) > FILES_MAX:
        found = f"{sum(map(len, files))} bytes in {len(files)} files"
        raise MalformedEvidence(EVIDENCE_TOO_LARGE, found, f"at most {BUNDLE_BYTES_MAX} in {FILES_MAX}")
    whole: list[Evidence] = []
    reports: list[bytes] = []
    chains: list[bytes] = []
    for data in files:
        _sort_in(data, whole, reports, chains)
    if len(reports) != len(chains):
        found = f"{len(reports)} reports and {len(chains)} chains"
        raise MalformedEvidence(EVIDENCE_MALFORMED, found, "a certificate chain for each report")
    bundle = (*whole, *(Evidence(NVIDIA, r, c) for r, c in zip(reports, chains, strict=True)))
    _check(bundle)
    return bundle


def _sort_in(data: bytes, whole: list[Evidence], reports: list[bytes], chains: list[bytes]) -> None:
    text = data.rstrip(b"\0 \t\r\n").lstrip()
    if data.startswith(_REPORT_START):
        reports.append(data)
    elif text.startswith(_PEM_START):
        chains.append(text + b"\n")
    elif _is_struct(data, *_NVML_REPORT):
        reports.append(_from_struct(data, *_NVML_REPORT[1:]))
    elif _is_struct(data, *_NVML_CERTIFICATE):
        chains.append(_from_struct(data, *_NVML_CERTIFICATE[1:]).rstrip(b"\0"))
    elif data.startswith(_TDX_START):
        whole.append(Evidence(INTEL_TDX, data))
    elif len(data) == _SNP_BYTES and int.from_bytes(data[:4], "little") <= _SNP_VERSIONS_MAX:
        whole.append(Evidence(AMD_SNP, data))
    elif text[:1] in (b"{", b"[", b'"'):
        whole.extend(_from_json(text))
    elif text and _HEX_TEXT.fullmatch(text):
        _sort_in(_from_hex(text), whole, reports, chains)
    else:
        raise MalformedEvidence(EVIDENCE_MALFORMED, f"{len(data)} bytes of no known form", "a container of evidence")


def _check(bundle: Bundle) -> None:
    if not bundle:
        raise MalformedEvidence(EVIDENCE_EMPTY, "no device", "at least one")
    if len(bundle) > DEVICES_MAX:
        raise MalformedEvidence(EVIDENCE_TOO_LARGE, f"{len(bundle)} devices", f"at most {DEVICES_MAX}")
    for index, evidence in enumerate(bundle):
        if len(evidence.payload) > PAYLOAD_BYTES_MAX or len(evidence.certificates) > CERTIFICATES_BYTES_MAX:
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


def _from_json(text: bytes, wrappings: int = 0) -> Iterator[Evidence]:
    try:
        document = json.loads(text, object_pairs_hook=_unambiguous)
    except (ValueError, RecursionError) as e:
        raise MalformedEvidence(EVIDENCE_MALFORMED, f"no JSON: {e}", "a container of evidence") from e
    if isinstance(document, str) and wrappings < WRAPPINGS_MAX:
        yield from _from_json(document.encode("utf-8", "surrogatepass"), wrappings + 1)
        return
    try:
        yield from _from_document(document)
    except AttestError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as e:
        found = f"{type(e).__name__} {e}"
        raise MalformedEvidence(EVIDENCE_MALFORMED, found, "a container of evidence, complete") from e


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """What two readers might read differently is no evidence."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name twice in one object")
    return found


def _from_document(document: Any) -> Iterator[Evidence]:
    """Any of the JSON containers. KeyError, TypeError and the like where one is incomplete."""
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
    return Evidence(kind, _base64(item["payload"]), _base64(item["certificates"]))


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
