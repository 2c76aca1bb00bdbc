"""
AMD's root keys (ARK), one for each line of processors, pinned as subject and RSA-4096 key.

Facts from the root certificates that AMD's key distribution service publishes; their own SHA-256 are, in the order
below, 69d063b4…0bcd, 4c6598d1…b2f1 and 1f084161…3f6a. Fingerprints here are over the SubjectPublicKeyInfo.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Protocol, Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from attest.snp.product import Product

RSA_BITS, RSA_EXPONENT = 4096, 65537
ROOTS_BYTES_MAX = 64 << 10
_COMMON_NAME = re.compile(r"(?:Emulated )?ARK-(Milan|Genoa|Turin)")


@dataclass(frozen=True, slots=True)
class Ark:
    """One root: the line it vouches for, the subject that its children name as issuer (RFC 4514), and its key."""

    product: Product
    subject: str
    key: RSAPublicKey

    @property
    def spki_sha256(self) -> str:
        return hashlib.sha256(self.key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()

    @property
    def emulated(self) -> bool:
        """Everything is, but what is pinned in this file."""
        return self.spki_sha256 not in AMD_FINGERPRINTS

    @classmethod
    def of(cls, certificate: x509.Certificate) -> Self:
        """The root that a certificate names. ValueError if it is none: another name or another kind of key."""
        names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        named = _COMMON_NAME.fullmatch(str(names[0].value)) if len(names) == 1 else None
        if named is None or certificate.subject != certificate.issuer:
            raise ValueError("a root of SEV-SNP must be self-issued, and its common name ARK- and a product")
        return cls(Product(named[1]), certificate.subject.rfc4514_string(), rsa_key(certificate))


class AmdAnchors(Protocol):
    """Whatever says which roots of SEV-SNP to trust."""

    @property
    def amd_ark(self) -> tuple[Ark, ...]: ...


@dataclass(frozen=True, slots=True)
class Arks:
    """Roots of SEV-SNP alone, for who has no other anchors to hand in."""

    amd_ark: tuple[Ark, ...] = ()


def rsa_key(certificate: x509.Certificate) -> RSAPublicKey:
    """The key of an authority of AMD's shape: RSA-4096, exponent 65537. ValueError for any other."""
    key = certificate.public_key()
    if not isinstance(key, RSAPublicKey) or key.key_size != RSA_BITS or key.public_numbers().e != RSA_EXPONENT:
        raise ValueError("the key of an authority must be RSA-4096 with exponent 65537")
    return key


def load_emulated(pem: bytes) -> tuple[Ark, ...]:
    """
    Roots of an emulator: PEM of at least one self-issued certificate, at most one for each product.

    ValueError if it is anything else, or holds a root of AMD's: those are built in and need no file.
    """
    if len(pem) > ROOTS_BYTES_MAX:
        raise ValueError(f"a file of roots has at most {ROOTS_BYTES_MAX} bytes")
    arks = tuple(map(Ark.of, x509.load_pem_x509_certificates(pem)))
    if len({ark.product for ark in arks}) != len(arks):
        raise ValueError("two roots for one product")
    if not all(ark.emulated for ark in arks):
        raise ValueError("AMD's roots are built in; the file must hold an emulator's")
    return arks


def _pinned(product: Product, modulus: str, spki_sha256: str) -> Ark:
    """AMD's roots differ in nothing but product and key."""
    subject = f"CN=ARK-{product},O=Advanced Micro Devices,ST=CA,L=Santa Clara,C=US,OU=Engineering"
    ark = Ark(product, subject, RSAPublicNumbers(RSA_EXPONENT, int(modulus, 16)).public_key())
    if ark.spki_sha256 != spki_sha256:
        raise ValueError(f"the pinned key of {subject} does not have its pinned fingerprint")
    return ark


MILAN_SPKI_SHA256 = "9f056bee44377e29308cb5ffa895bdfb62d18881fa6bed8d6f075b0204089cb9"
GENOA_SPKI_SHA256 = "429a69c9422aa258ee4d8db5fcda9c6470ef15f8cd5a9cebd6cbc7d90b863831"
TURIN_SPKI_SHA256 = "4f125410563a2ab9a50356f9243f6fe0b6f73de98603f53f90339c70e9d7ad08"
AMD_FINGERPRINTS = frozenset({MILAN_SPKI_SHA256, GENOA_SPKI_SHA256, TURIN_SPKI_SHA256})

ARK_MILAN = _pinned(
    Product.MILAN,
    "d0b779d9124e75e88996a2b625db15983ec592dba8b56c17d5f3605b8d5763d5f3d471214949a12f3f42bbd0c7465be02523716de618"
    "b2725fbf28f1d4c7d4d15e6d90a894d447ac345b5ad644c0d2cccd8ac75873d8acaa4ee65d3e7e29f1916df73857ff73448704f23947"
    "37ad52d63bbc5fddfee9dc4352b1b64b3c6a278061ab2626503aee3d72525f8bd4734d4fee3f7c329a8e4bde6b3917461de239d8d6b3"
    "e66d81f8efaf8ec0b4eb4777ee363d2c57ae38fe0c7ab8bcaa07e2d92e642aa83f685e9a3edb80650551eeedca1585cfe7d5e6260b5c"
    "a20d398262344ff3a2b4b86ecd5be965c2e9874a1d87fd483d7ab1dfe3278c3f7b03b7d7a6a19dff2f0ac57ee392c4c4cc03a06ca01e"
    "6a6de59bedf228871360c96c44c5cf72335b22f9ac072903fffc529e2bacb870648279443445b1d5471b410aecfa054392e54f86c9f3"
    "21136062f338f18fbb2c6889627ae613cc5cadec5e901c6bbdad95f53250aa7377439de4b79be2422dfe8027e69300b4174b62ac865b"
    "2e45cfacfc3367433d78dc6123249bda7a497e09eacf9e48d2edf7c21e2bd1935079319fc34dcc054b72bb319eb0691cc3e968a8c6aa"
    "d6a478b6319b3d8c42be90aaefe3a0a420a830d8addae2e8f4cd7c7c7cf5d2538c4fc9d6014bd1645ced7970a6fbb3c77583e5990c14"
    "c372ef7a727f20b5e840f1df6e41f40b23df865d635a124565ab",
    MILAN_SPKI_SHA256,
)
ARK_GENOA = _pinned(
    Product.GENOA,
    "dc277de52fee14eb9122c916f6fcfd543045ebd343405efda1184bfcbd8f5501a12b761d7c4060a45fc98b058506c4ff7d70e1cc0d35"
    "a772e4713ffb2dd8dc45f2978c797ed10abf338759921e900e851e2b33412c37012830c65a8defdf9372af16c0d439e463050a539000"
    "9383fde2d2972e9f34a31b7ce1a8721e82e673f2eab06b29fa8ab5073e0f3ec60bc131b888c29569a4fdd3fa19e08f2889b4abbbddaf"
    "26196a58edbb77f47173789433284d7864e83af831fe2528e201a91bad4d0e990452f233b8a71a331f08753a568360c5e92c05d08815"
    "31f7e7bed26603af01c09356a351383cb25d68f7c189f709a6e045c0d55020f404557dda3fcf47252a7c61b63d972492e8f95512a4c1"
    "06d6909a2e004c698c47e9f62bf7be240854d868fb8c8a4984e91d1fd7e2ad00e79a50364857c9fc27349863735bd466221c8e527345"
    "a1c966911865dff01053962cf50b1a9f58d3fc48b24fea42a669c0fb2f5e76f84309b386f05da8c47191753064ca5ba782b917246622"
    "c06ad1f246a2aafecd37c42138132a62371bae412bd1ff1030a925212e6bb8e7ea94b302070f092c1dcb923a5682d0fb3a9c64cd2b28"
    "84de3b5289bce9163a969ef683c7971cfd6a62b9ef873686d52ef4bf0e8e91b69a0bd123887fee1e0009406c689fbbb443bc60a11116"
    "03f7bb25c050c0b83cd07abfb1b46ea9eb31cfbc01592636e787",
    GENOA_SPKI_SHA256,
)
ARK_TURIN = _pinned(
    Product.TURIN,
    "c1a02b881ec422e55ce19075c03dd87c3c4bfbd7b24bbfa2ce6d098f75bbef63483425a5f018f7c3f243d998e66d1c56748abfe1df62"
    "6ab08aa2b5e5a09501d6345d831a9c713c7568ea22838fb6c355e1555253ecae39ef04f964b3498106b1a9af44b64c2377afbdb0e865"
    "08313d978de443447606291525afeecb254e4b0124e70e6d5ca3ae1bd8efaba42d00c25ab16dfcc25a910da2841ad67d554806a27dbb"
    "66e2f8b1326e0bf6b3cfdfe2401c3c9048a5cce97de4089391e6398d21010d66c0aa7664e6a94cee4212286db4920426d789a134a0c8"
    "da9da8b9afb3b801bb8b9d9ea68445d867d4d13624ff27febc2341dad9de721150b8fd9ef1b2e4f7965da8f8bdfd45b0e095e3b5d100"
    "e2ed896299524943d05405cab7a2d5aae8ed25c339f492abdaed1743be4ac3170ca75e604978417c89ef3c0c2e018e1d130c06a93f28"
    "220e1eb0f1f012c98286161e0c8c4f1bd4787f1f4ed2aea9f066fe1d7953892e3b3fd60d78ea6274e50acc397f4b53afca10ed48bf0b"
    "25cdb84004c5c9da3f883fca51dbc54d1943d1cae400c9192e8590f212c319ce816495ec75ded97f67b8516ded23fd6887fdaddb73ad"
    "df3ca14dcbf98036c006ed0b8d57bdf2e4674b5e523302bffe526df5ee41a8abe0001912a0005ff81e1516d3d5117d3282b61a15a23d"
    "8b9001af19d5066cd7a516f6d622353653427ce1943c8855a561",
    TURIN_SPKI_SHA256,
)
AMD = Arks((ARK_MILAN, ARK_GENOA, ARK_TURIN))
