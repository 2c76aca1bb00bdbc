"""Good inputs to begin from, made by the emulator: what a fuzzer changes bit by bit."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding

from attest import ear
from attest.containers import read
from attest.evidence import dumps
from attest.policy import SHIPPED, shipped
from attest.result_key import ResultKey
from attest.verify import Verification
from nodeprobe.emulator import MODELS, EmulatedGpu, EmulatedSwitch, Pki, publish
from nodeprobe.emulator.nras import EmulatedNras, gpu_claims
from nodeprobe.emulator.ocsp import Spoil, answers, asked_about
from nodeprobe.emulator.ocsp_defects import OCSP_DEFECTS
from nodeprobe.emulator.snp import EmulatedSnp
from nodeprobe.emulator.snp_pki import SnpPki
from nodeprobe.emulator.tdx import EmulatedTd
from nodeprobe.emulator.tdx_pki import IntelPki
from nodeprobe.emulator.tdx_quote import EVENTS, TD_1_5_EX
from orchestrator.wallets import Wallet

MADE = datetime(2030, 1, 1, tzinfo=UTC)
AT = datetime(2030, 1, 2, tzinfo=UTC)
NONCE = bytes(range(32))
DOMAIN = "fuzz.example.org"
ANCHORS, ISSUER, QUESTION = (
    "anchors.pem",
    "issuer.pem",
    "question.json",
)  # what targets need to know of the world that seeds are of


def _gpu(folder: Path) -> Iterator[tuple[str, str, bytes]]:
    pki, model = Pki.create(folder / "gpu-pki", now=MADE), MODELS["h100-pcie"]
    publish(pki, model)
    gpu = EmulatedGpu.create(pki, "gpu-0", model)
    good = gpu.evidence(NONCE)
    yield "containers", "bundle", dumps((good,))
    yield "containers", "chain", good.certificates
    yield "containers", "hex", good.payload.hex().encode()
    items = [{"evidence": "AAAA", "certificate": "AAAA"}]
    yield "containers", "nvattest", json.dumps(items).encode()
    yield "containers", "request", json.dumps({"nonce": NONCE.hex(), "evidence_list": items}).encode()
    yield "report", "report", good.payload
    for name, device in {
        "blackwell": EmulatedGpu.create(pki, "b200", MODELS["b200"]),
        "switch": EmulatedSwitch.create(pki, "switch"),
    }.items():
        yield "report", name, device.report(NONCE)
        yield "chain", name, device.chain_pem
    yield "chain", "chain", good.certificates
    for path in pki.rims.glob("*.xml"):
        yield "rim", path.stem, path.read_bytes()
    asked = asked_about(pki, gpu)[0]
    spoils: tuple[Spoil, ...] = tuple(OCSP_DEFECTS[name].spoil for name in ("hold", "unknown", "two-answers"))
    for number, given in enumerate([answers(pki, (gpu,), AT), *(answers(pki, (gpu,), AT, each) for each in spoils)]):
        yield "ocsp", str(number), given[asked.name]
    (folder / ANCHORS).write_bytes(pki.anchors.read_bytes())
    (folder / ISSUER).write_bytes(asked.issuer.certificate.public_bytes(Encoding.PEM))
    (folder / QUESTION).write_text(json.dumps({"serial": asked.certificate.serial_number}))
    service = EmulatedNras.create(now=AT, base_url="https://nras.attestation.nvidia.com")
    answer = service.answer([gpu], NONCE, now=AT)
    yield "nras", "answer", answer
    yield "containers", "answer", answer
    for version in ("3.0", "2.0"):
        yield "nras-claims", version, json.dumps(gpu_claims(gpu, version)).encode()


def _cpus(folder: Path) -> Iterator[tuple[str, str, bytes]]:
    intel = IntelPki.create(folder / "tdx-pki")
    td = EmulatedTd.create(intel, "machine-0", now=AT)
    quote = td.quote(bytes(64))
    later = EmulatedTd.create(intel, "machine-1", now=AT, body_type=TD_1_5_EX).quote(bytes(64))
    yield from (("quote", name, data) for name, data in (("v4", quote), ("v5", later)))
    yield "containers", "quote", quote.hex().encode()
    yield "tdx-collateral", "bundle", td.collateral(AT)
    events = [{"imr": n, "event_type": 1, "digest": EVENTS[n].hex(), "event": "boot"} for n in range(4)]
    yield "event-log", "json", json.dumps(events).encode()
    yield "event-log", "ccel", _ccel()
    amd = SnpPki.create(folder / "snp-pki", now=MADE)
    report = EmulatedSnp.create(amd, "guest-0", now=MADE).evidence(bytes(64))
    yield "snp-report", "report", report.payload
    yield "snp-report", "with-certificates", report.payload + report.certificates
    yield "containers", "snp", dumps((report,))


def _ccel() -> bytes:
    """The least firmware log: its head, and one event."""
    head = b"Spec ID Event03\0" + bytes(4) + bytes([0, 2, 0, 2]) + (1).to_bytes(4, "little") + b"\x0c\0\x30\0" + b"\0"
    first = bytes(4) + (3).to_bytes(4, "little") + bytes(20) + len(head).to_bytes(4, "little") + head
    event = (1).to_bytes(4, "little") * 3 + b"\x0c\0" + EVENTS[0] + (4).to_bytes(4, "little") + b"boot"
    return first + event


def _texts() -> Iterator[tuple[str, str, bytes]]:
    for name in SHIPPED:
        yield "policy", name, files("attest").joinpath("policies", f"{name}.toml").read_bytes()
    yield "policy", "tables", b'name = "a"\n[tdx]\nevents = { a = ["00"] }\n[snp]\ntcb_min.milan = { snp = 1 }\n'
    for name, text in {
        "ipv4": "192.0.2.1", "ipv6": "2001:db8::1", "mapped": "::ffff:192.0.2.1", "range": "10.0.0.0/8",
        "url": "https://[2001:db8::1]:8443/v1", "name": "https://worker.example.org:443",
    }.items():  # fmt: skip
        yield "addresses", name, text.encode()
    register = {
        "ip_address": "192.0.2.1",
        "payment_wallet": "secret1" + "q" * 38,
        "worker_type": "h100x8",
        "endpoints": [{"url": "https://192.0.2.1:443", "models": ["a"]}],
    }
    for name, message in {"register": register, "key": {"public_key": "02" + "11" * 32, "name": "a"}}.items():
        yield "messages", name, json.dumps(message).encode()
        yield "wallet", name, b"\1" + json.dumps(message).encode()
    signed = Wallet.generate().sign_message({"a": 1}, domain=DOMAIN, expires=AT, message_id="m" * 16)
    yield "wallet", "signed", b"\0" + json.dumps(signed).encode()
    manifest = {"format": "workermanager/collateral/v1", "written_at": AT.isoformat(), "documents": [
        {"kind": "nvidia-rim", "name": "A", "file": "a.xml", "sha256": "00" * 32, "fetched_at": AT.isoformat(),
         "expires_at": None},
    ]}  # fmt: skip
    yield "manifest", "one", json.dumps(manifest).encode()


def _results() -> Iterator[tuple[str, str, bytes]]:
    from attest.appraise import appraise

    bundle = read([b'{"format":"workermanager/evidence-v1","evidence":[{"kind":"x","payload":"","certificates":""}]}'])
    result = appraise(Verification((), ()), shipped("lab"), bundle=bundle, nonce=None, now=AT)
    verifier = ear.VerifierId("https://example.org", "1")
    said = ear.to_ear(result, issuer="https://example.org", issued_at=AT, verifier=verifier)
    yield "token", "claims", b"\1" + json.dumps(said).encode()
    yield "token", "signed", b"\0" + ear.sign(said, ResultKey.generate()).encode()


def lay_down(folder: Path) -> None:
    """Write `corpus/<target>/<seed>` below `folder`, and what targets need beside."""
    for made in (_gpu(folder), _cpus(folder), _texts(), _results()):
        for target, name, data in made:
            place = folder / "corpus" / target
            place.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(data)


if __name__ == "__main__":
    lay_down(Path(sys.argv[1]))
