"""Every change of one byte in what is signed is refused: the report, each certificate below the root, each RIM."""

import base64
import re

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_pem_x509_certificates

from attest.anchors import VENDORS
from attest.collateral import Document
from attest.errors import AttestError
from attest.evidence import NVIDIA, Evidence
from attest.memo import Memo
from attest.nvidia import rim as rims
from attest.verify import gather, installed
from tests.evidence import REAL

FLIP = 0x01


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ FLIP]) + data[at + 1 :]


def survivors(pieces, check):
    """The positions whose change went unnoticed. Whatever else than AttestError comes out fails the test."""
    unnoticed = []
    for at, piece in pieces:
        try:
            check(piece)
        except AttestError:
            continue
        unnoticed.append(at)
    return unnoticed


@pytest.mark.parametrize("recording", REAL)
def test_every_byte_of_the_report(recording):
    world = recording()
    verifier = installed(VENDORS)["nvidia"]
    collateral = gather(verifier, world.bundle[0], world.fetch)
    verifier.verify(world.bundle[0], collateral, nonce=world.nonce, now=world.at)  # it is good before we spoil it

    def check(report):
        verifier.verify(Evidence(NVIDIA, report, world.chain), collateral, nonce=world.nonce, now=world.at)

    assert survivors(((at, flipped(world.report, at)) for at in range(len(world.report))), check) == []


@pytest.mark.parametrize("height", range(4))
@pytest.mark.parametrize("recording", REAL)
def test_every_byte_of_a_certificate(recording, height):
    world = recording()
    verifier = installed(VENDORS)["nvidia"]
    collateral = gather(verifier, world.bundle[0], world.fetch)
    chain = [certificate.public_bytes(Encoding.DER) for certificate in load_pem_x509_certificates(world.chain)]

    def check(der):
        pem = "".join(
            f"-----BEGIN CERTIFICATE-----\n{base64.encodebytes(each).decode()}-----END CERTIFICATE-----\n"
            for each in [*chain[:height], der, *chain[height + 1 :]]
        )
        evidence = Evidence(NVIDIA, world.report, pem.encode())
        verifier.verify(evidence, collateral, nonce=world.nonce, now=world.at)

    check(chain[height])
    spoiled = ((at, flipped(chain[height], at)) for at in range(len(chain[height])))
    assert survivors(spoiled, check) == []


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("recording", REAL)
def test_every_byte_of_a_rim(recording, which):
    """The signed content, the signature and the certificates; the whole document but for the presented root."""
    world = recording()
    name, document = sorted(world.rims.items())[which]
    paths = Memo(1000)
    rims.load(Document.of(document), VENDORS.nvidia_rim, known=Memo(1), paths=paths)
    certificates = [match.span(1) for match in re.finditer(rb"X509Certificate>([^<]+)<", document)]
    root = range(*certificates[-1])  # its key counts, its other bytes do not
    base64_text = [range(*span) for span in certificates]

    def check(data):
        rims.load(Document(data), VENDORS.nvidia_rim, known=Memo(1), paths=paths)

    def insignificant(at):
        """White space in base64, and bits of its last digit that stand for nothing, may change without meaning."""
        return any(at in span for span in base64_text) and _decoded(document, at) == _decoded(flipped(document, at), at)

    def _decoded(data, at):
        (start, end) = next((span.start, span.stop) for span in base64_text if at in span)
        try:
            return base64.b64decode(b"".join(data[start:end].split()), validate=True)
        except ValueError:
            return None

    positions = [at for at in range(len(document)) if at not in root and not insignificant(at)]
    assert len(positions) > 15_000, name
    after = document.rindex(b">") + 1  # white space after the root element is no content
    spoiled = ((at, flipped(document, at)) for at in positions if at < after)
    assert survivors(spoiled, check) == []
