"""
The targets: each gives bytes to one parser, and lets pass what that documents.

Imported under atheris, which counts the branches of `attest` and `orchestrator`. A function here takes the folder of
seeds (`tests.fuzz.seeds`), where it needs roots that the seeds lead to, and returns what takes an input.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from pydantic import ValidationError

from attest import anchors, containers, ear, manifest, ocsp, policy
from attest.collateral import CollateralKind, Document, Need
from attest.errors import AttestError
from attest.evidence import AMD_SNP, INTEL_TDX, Evidence
from attest.memo import Memo
from attest.nvidia import chain, nras_claims, nras_eat, report, rim
from attest.nvidia.revocation import KnownQuestions
from attest.result_key import ResultKey
from attest.snp.anchors import AMD
from attest.snp.verifier import SnpVerifier
from attest.tdx import documents, eventlog
from attest.tdx.roots import IntelRoots, load_emulated
from attest.tdx.verifier import TdxVerifier
from attest.tokens import read_keys
from orchestrator import addresses, messages, wallets
from orchestrator.reasons import Refused

AT = datetime(2030, 1, 2, tzinfo=UTC)
DOMAIN = "fuzz.example.org"
Input = Callable[[bytes], object]


def _containers(_: Path) -> Input:
    def one(data: bytes) -> None:
        with suppress(AttestError):
            containers.read([data])
        half = len(data) // 2
        with suppress(AttestError):
            containers.read([data[:half], data[half:]])

    return one


def _report(_: Path) -> Input:
    def one(data: bytes) -> None:
        with suppress(AttestError):
            parsed = report.parse(data)
            for version in (rim.driver_version, rim.vbios_version, rim.bios_version):
                with suppress(AttestError):
                    version(parsed)

    return one


def _chain(folder: Path) -> Input:
    roots = anchors.load_emulated((folder / "anchors.pem").read_bytes()).nvidia_device

    def one(data: bytes) -> None:
        with suppress(AttestError):
            chain.verify_chain(data, roots, known=Memo(1), paths=Memo(1))

    return one


def _rim(folder: Path) -> Input:
    roots = anchors.load_emulated((folder / "anchors.pem").read_bytes()).nvidia_rim

    def one(data: bytes) -> None:
        with suppress(AttestError):
            rim.load(Document.of(data), roots, known=Memo(1), paths=Memo(1), questions=KnownQuestions())

    return one


def _ocsp(folder: Path) -> Input:
    issuer = x509.load_pem_x509_certificate((folder / "issuer.pem").read_bytes())
    asked = ocsp.Issuer.of(issuer.subject.public_bytes(), issuer.public_key())
    question = ocsp.Question(asked, json.loads((folder / "question.json").read_text())["serial"])

    def one(data: bytes) -> None:
        with suppress(ocsp.OcspError):
            ocsp.check_time(ocsp.read(data, question, issuer), AT)

    return one


def _quote(folder: Path) -> Input:
    root = load_emulated((folder / "tdx-pki" / "root.pem").read_bytes())

    def one(data: bytes) -> None:
        with suppress(AttestError):
            TdxVerifier(IntelRoots((root,))).needs(Evidence(INTEL_TDX, data), {})

    return one


def _tdx_collateral(_: Path) -> Input:
    needs = [Need(kind, "fuzz") for kind in (CollateralKind.INTEL_TCB_INFO, CollateralKind.INTEL_QE_IDENTITY)]

    def one(data: bytes) -> None:
        with suppress(AttestError):
            for need, document in documents.split(data).items():
                crl = need.kind in (CollateralKind.INTEL_PCK_CRL, CollateralKind.INTEL_ROOT_CRL)
                (documents.revocation_list if crl else documents.signed)(document, need)
        for need in needs:
            with suppress(AttestError):
                documents.signed(Document.of(data), need)
        with suppress(AttestError):
            documents.revocation_list(Document.of(data), Need(CollateralKind.INTEL_PCK_CRL, "platform"))

    return one


def _event_log(_: Path) -> Input:
    def one(data: bytes) -> None:
        with suppress(AttestError):
            eventlog.replay(eventlog.read(data))

    return one


def _snp_report(_: Path) -> Input:
    verifier = SnpVerifier(AMD)

    def one(data: bytes) -> None:
        with suppress(AttestError):
            verifier.needs(Evidence(AMD_SNP, data[:1184], data[1184:]), {})

    return one


def _nras(_: Path) -> Input:
    def one(data: bytes) -> None:
        for reader in (nras_eat.read, nras_eat.split):
            with suppress(AttestError):
                reader(data)

    return one


def _nras_claims(_: Path) -> Input:
    def one(data: bytes) -> None:
        try:
            says = json.loads(data)
        except (ValueError, RecursionError):
            return
        if isinstance(says, dict):
            for version in nras_claims.VERSIONS:
                for name in ("GPU-0", "SWITCH-0"):
                    with suppress(AttestError):
                        nras_claims.judge(says, name, version, now=AT)

    return one


def _policy(_: Path) -> Input:
    def one(data: bytes) -> None:
        with suppress(UnicodeDecodeError, policy.PolicyError):
            _ = policy.parse(data.decode()).sha256

    return one


def _token(_: Path) -> Input:
    """The first byte says whether the rest is a token, or claims that are signed first, so that all is looked at."""
    key = ResultKey.generate()
    keys = read_keys(ear.jwks([key.public]))

    def one(data: bytes) -> None:
        text = data[1:].decode("utf-8", "surrogateescape")
        with suppress(AttestError):
            read_keys(data[1:])
        if data[:1] == b"\1":
            try:
                text = ear.sign(json.loads(text), key)
            except (ValueError, TypeError, AttributeError, RecursionError):
                return  # no claims
        with suppress(AttestError):
            ear.objections(ear.verify(text, keys, now=AT, nonce=bytes(32)))

    return one


def _wallet(_: Path) -> Input:
    """As for tokens: a signed message, or the message of one that is signed first."""
    wallet = wallets.Wallet.generate()

    def one(data: bytes) -> None:
        try:
            said = json.loads(data[1:])
            if data[:1] == b"\1":
                until = AT + timedelta(minutes=5)
                said = wallet.sign_message(said, domain=DOMAIN, expires=until, message_id="m" * 16)
        except (ValueError, TypeError, RecursionError):
            return  # no JSON, or none that can be signed
        with suppress(Refused):
            opened = wallets.open_signed(said, domain=DOMAIN, now=AT)
            for command in messages.COMMANDS.values():
                with suppress(ValidationError):
                    command.model_validate(opened.message)

    return one


def _addresses(_: Path) -> Input:
    def one(data: bytes) -> None:
        text = data.decode("utf-8", "surrogateescape")
        with suppress(Refused):
            addresses.check_allowed(addresses.canonical(text), ())
        with suppress(Refused):
            addresses.parse_ranges(text.split(","))
        for spki in ("", "00" * 32):
            with suppress(Refused):
                addresses.check_endpoint(text, ip_address="192.0.2.1", tls_spki_sha256=spki, allowed_ranges=())

    return one


def _messages(_: Path) -> Input:
    others = (messages.Signed, messages.Attest, messages.ReportLiveliness, messages.ReportWork)
    models = (*messages.COMMANDS.values(), *others, messages.ChallengeRequest)

    def one(data: bytes) -> None:
        for model in models:
            with suppress(ValidationError):
                model.model_validate_json(data)

    return one


def _manifest(_: Path) -> Input:
    def one(data: bytes) -> None:
        with suppress(manifest.ManifestError):
            manifest.parse(data)

    return one


TARGETS: Mapping[str, Callable[[Path], Input]] = {
    "containers": _containers,
    "report": _report,
    "chain": _chain,
    "rim": _rim,
    "ocsp": _ocsp,
    "quote": _quote,
    "tdx-collateral": _tdx_collateral,
    "event-log": _event_log,
    "snp-report": _snp_report,
    "nras": _nras,
    "nras-claims": _nras_claims,
    "policy": _policy,
    "token": _token,
    "wallet": _wallet,
    "addresses": _addresses,
    "messages": _messages,
    "manifest": _manifest,
}
