"""Device chains: odd certificates, odd PEM, and that nothing once believed makes something else believed."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from attest.errors import AttestError, MalformedEvidence, UntrustedEvidence
from attest.evidence import Evidence
from attest.memo import Memo
from attest.x509 import CERTIFICATES_MAX, Loaded, PathError, PathFault, verify_path
from nodeprobe.emulator.pki import FOREVER, authority_name
from tests.attest.responders import content, element, elements
from tests.attest.world import AT, MADE, NONCE, as_pem, codes


def ders(evidence):
    return [each.public_bytes(Encoding.DER) for each in x509.load_pem_x509_certificates(evidence.certificates)]


def chained(evidence, chain):
    return replace(evidence, certificates=as_pem(chain))


# --- what a certificate may not be ------------------------------------------------------------------------------------
def leaf(**changes):
    return lambda draft: setattr(draft, "leaf", replace(draft.leaf, **changes))


def brom(**changes):
    return lambda draft: setattr(draft, "brom", replace(draft.brom, **changes))


EKU = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING])


def extended(world, extension, *, critical=False, twice=False):
    """A chain whose device certificate has one extension more (or the same one twice), properly signed."""

    def edit(chain):
        old = chain[1]
        builder = x509.CertificateBuilder(
            issuer_name=old.issuer,
            subject_name=old.subject,
            public_key=old.public_key(),
            serial_number=old.serial_number,
            not_valid_before=old.not_valid_before_utc,
            not_valid_after=old.not_valid_after_utc,
            extensions=[*old.extensions, x509.Extension(extension.oid, critical, extension)],
        )
        if twice:
            builder._extensions.append(x509.Extension(extension.oid, critical, extension))
        return [chain[0], builder.sign(world.pki.provisioner.key, hashes.SHA384()), *chain[2:]]

    return lambda draft: draft.edits.append(edit)


def with_serial(world, serial):
    """A chain whose device certificate has this serial number (the content of an INTEGER), properly signed."""

    def edit(chain):
        version, _, *rest = elements(content(chain[1].tbs_certificate_bytes))
        signed = element(0x30, version, element(0x02, serial), *rest)
        signature = world.pki.provisioner.key.sign(signed, ec.ECDSA(hashes.SHA384()))
        algorithm = bytes.fromhex("300a06082a8648ce3d040303")
        whole = element(0x30, signed, algorithm, element(0x03, b"\0" + signature))
        return [chain[0], x509.load_der_x509_certificate(whole), *chain[2:]]

    return lambda draft: draft.edits.append(edit)


OTHER_NAME = x509.SubjectAlternativeName([x509.OtherName(x509.ObjectIdentifier("1.2.3"), b"\x0c\x01a")])
STRANGE = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\xff\xff")
BAD_NAME = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.17"), b"\x30\x03\xa3\x01\x00")  # an X.400 address
BAD_POLICY = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.32"), b"\xff")
CONSTRAINED = x509.NameConstraints([x509.DNSName("example.com")], None)


@pytest.mark.parametrize(
    ("extension", "options"),
    [
        pytest.param(STRANGE, {"critical": True}, id="unknown and critical"),
        pytest.param(CONSTRAINED, {"critical": True}, id="name constraints"),
        pytest.param(EKU, {}, id="extended key usage"),
        pytest.param(EKU, {"critical": True}, id="extended key usage, critical"),
        pytest.param(STRANGE, {"twice": True}, id="an extension twice"),
        pytest.param(BAD_NAME, {}, id="a name of a type that is not read"),
        pytest.param(BAD_POLICY, {}, id="an extension that is no DER"),
    ],
)
def test_extensions_that_mean_more_than_we_know_are_refused(world, extension, options):
    result = world.verify(world.evidence(chain=extended(world, extension, **options)))

    assert codes(result) == {"chain-profile"}


@pytest.mark.parametrize("serial", [b"\x01" + bytes(20), b"\x01" + bytes(19), bytes(1), b"\x80"])
def test_a_serial_number_of_any_size_is_none_of_a_device(world, serial):
    assert codes(world.verify(world.evidence(chain=with_serial(world, serial)))) == {"chain-profile"}


@pytest.mark.parametrize("extension", [OTHER_NAME, STRANGE], ids=["another name", "unknown"])
def test_extensions_that_may_be_ignored_are(world, extension):
    assert not world.verify(world.evidence(chain=extended(world, extension))).refusals


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        pytest.param(leaf(extensions=()), None, id="nothing spoiled"),
        pytest.param(leaf(path_length=0, ca=True), "chain-profile", id="leaf a CA"),
        pytest.param(leaf(usage=frozenset({"key_cert_sign"})), "chain-profile", id="leaf that signs certificates"),
        pytest.param(brom(path_length=0), None, id="path length that reaches"),
        pytest.param(brom(not_after=AT), "chain-time", id="ends at this instant"),
        pytest.param(brom(not_after=AT + timedelta(seconds=1)), None, id="ends a second later"),
        pytest.param(leaf(not_before=AT + timedelta(seconds=1)), "chain-time", id="begins a second later"),
        pytest.param(leaf(not_before=AT), None, id="begins at this instant"),
        pytest.param(brom(serial=0x42), "chain-profile", id="serial without a PDI"),
        pytest.param(brom(serial=0x50 << 64), "chain-profile", id="serial of a switch"),
        pytest.param(brom(subject=x509.Name([])), "chain-class", id="no name"),
    ],
)
def test_certificate_of_the_device(world, spoil, code):
    assert codes(world.verify(world.evidence(chain=spoil))) == ({code} if code else set())


def test_two_common_names_are_none(world):
    name = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, "GH100 A01 GSP BROM"), x509.NameAttribute(NameOID.COMMON_NAME, "x")]
    )

    assert codes(world.verify(world.evidence(chain=brom(subject=name)))) == {"chain-class"}


@pytest.mark.parametrize(
    "name",
    ["GH100 A01 GSP BROM\n", "xGH100 A01 GSP BROM", "gh100 A01 GSP BROM", "GH100 A٠١ GSP BROMx", "GH100\0A01 GSP BROM"],
)
def test_names_are_compared_whole(world, name):
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])

    result = world.verify(world.evidence(chain=brom(subject=subject)))

    assert codes(result) == {"chain-class"}
    assert result.refusals[0].found.isprintable()


OTHER_USAGES = [
    *("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
    *("encipher_only", "decipher_only", "crl_sign"),
]


# --- paths by themselves ----------------------------------------------------------------------------------------------
def certificate(name, key, issuer, issuer_key, *, ca=True, length=None, critical=True, usage=True, days=3650):
    builder = (
        x509.CertificateBuilder()
        .subject_name(authority_name(name))
        .issuer_name(authority_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(MADE)
        .not_valid_after(MADE + timedelta(days=days))
    )
    if ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca, length), critical=critical)
    if usage is not None:
        flags = dict.fromkeys(OTHER_USAGES, False)
        sign = usage and ca
        builder = builder.add_extension(
            x509.KeyUsage(digital_signature=usage and not ca, key_cert_sign=bool(sign), **flags), critical=True
        )
    algorithm = None if isinstance(issuer_key, ed25519.Ed25519PrivateKey) else hashes.SHA384()
    return builder.sign(issuer_key, algorithm)


@pytest.fixture(scope="module")
def keys():
    return {name: ec.generate_private_key(ec.SECP384R1()) for name in ("root", "ca", "leaf", "other")}


def verified(chain, anchors, memo):
    return verify_path([Loaded.of(each.public_bytes(Encoding.DER)) for each in chain], anchors, memo)


def path_of(keys, anchors, *, root=None, ca=None, leaf=None, memo=None):
    chain = [
        certificate("leaf", keys["leaf"], "ca", keys["ca"], ca=None) if leaf is None else leaf,
        certificate("ca", keys["ca"], "root", keys["root"]) if ca is None else ca,
        certificate("root", keys["root"], "root", keys["root"]) if root is None else root,
    ]
    return verified(chain, anchors, memo or Memo(100))


@pytest.fixture
def anchors(keys):
    from attest.anchors import Anchor

    return (Anchor.of(certificate("root", keys["root"], "root", keys["root"])),)


def fault(keys, anchors, **spoiled):
    with pytest.raises(PathError) as refused:
        path_of(keys, anchors, **spoiled)
    return refused.value.fault


def test_a_path_holds_as_long_as_its_shortest_lived_certificate(keys, anchors):
    ca = certificate("ca", keys["ca"], "root", keys["root"], days=10)

    path = path_of(keys, anchors, ca=ca)

    assert (path.not_before, path.not_after) == (MADE, MADE + timedelta(days=10))
    assert path.covers(MADE)
    assert not path.covers(MADE - timedelta(microseconds=1))
    assert not path.covers(MADE + timedelta(days=10))
    assert path.covers(MADE + timedelta(days=10) - timedelta(microseconds=1))


def test_the_presented_root_counts_by_key_and_name_only(keys, anchors):
    other = certificate("root", keys["root"], "somebody", keys["other"], ca=None, days=1)

    assert path_of(keys, anchors, root=other).not_after == MADE + timedelta(days=3650)


def test_a_root_of_another_name_or_key_is_none(keys, anchors):
    named = certificate("roots", keys["root"], "root", keys["root"])
    keyed = certificate("root", keys["other"], "root", keys["other"])

    assert fault(keys, anchors, root=named) is PathFault.ROOT
    assert fault(keys, anchors, root=keyed) is PathFault.ROOT
    assert fault(keys, ()) is PathFault.ROOT


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"ca": None}, PathFault.PROFILE),
        ({"ca": False}, PathFault.PROFILE),
        ({"critical": False}, PathFault.PROFILE),
        ({"usage": False}, PathFault.PROFILE),
        ({"usage": None}, PathFault.PROFILE),
        ({"issuer": "roots"}, PathFault.LINK),
        ({"issuer_key": "other"}, PathFault.LINK),
    ],
)
def test_an_authority_must_be_one(keys, anchors, options, wanted):
    issuer, key = options.pop("issuer", "root"), keys[options.pop("issuer_key", "root")]

    assert fault(keys, anchors, ca=certificate("ca", keys["ca"], issuer, key, **options)) is wanted


def test_path_lengths_count(keys, anchors):
    root = certificate("root", keys["root"], "root", keys["root"])
    top = certificate("ca", keys["ca"], "root", keys["root"], length=0)
    low = certificate("low", keys["other"], "ca", keys["ca"])
    leaf = certificate("leaf", keys["leaf"], "low", keys["other"], ca=None)

    with pytest.raises(PathError) as refused:
        verified([leaf, low, top, root], anchors, Memo(100))
    assert refused.value.fault is PathFault.PROFILE
    top = certificate("ca", keys["ca"], "root", keys["root"], length=1)
    assert verified([leaf, low, top, root], anchors, Memo(100))


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP521R1()),
        rsa.generate_private_key(65537, 2048),
        ed25519.Ed25519PrivateKey.generate(),
    ],
    ids=["P-256", "P-521", "RSA", "Ed25519"],
)
def test_keys_of_other_kinds_are_refused_wherever_they_stand(keys, anchors, key):
    leaf = certificate("leaf", key, "ca", keys["ca"], ca=None)
    assert fault(keys, anchors, leaf=leaf) is PathFault.PROFILE
    ca, leaf = (
        certificate("ca", key, "root", keys["root"]),
        certificate("leaf", keys["leaf"], "ca", key, ca=None),
    )
    assert fault(keys, anchors, ca=ca, leaf=leaf) is PathFault.PROFILE
    root = certificate("root", key, "root", key)
    assert fault(keys, anchors, root=root) in (PathFault.PROFILE, PathFault.ROOT)


def test_less_than_a_leaf_and_a_root_is_no_path(keys, anchors):
    root = certificate("root", keys["root"], "root", keys["root"])
    for chain in ([], [root]):
        with pytest.raises(PathError):
            verified(chain, anchors, Memo(100))


# --- what was once believed -------------------------------------------------------------------------------------------
def test_a_memory_of_good_paths_makes_no_other_path_good(keys, anchors):
    """After the good chain, with one memory: the leaf gone, an authority as leaf, another authority above."""
    memo = Memo(100)
    good = [
        certificate("leaf", keys["leaf"], "ca", keys["ca"], ca=None),
        certificate("ca", keys["ca"], "root", keys["root"]),
        certificate("root", keys["root"], "root", keys["root"]),
    ]
    assert verified(good, anchors, memo)
    assert verified(good, anchors, memo)
    stranger = certificate("ca", keys["other"], "root", keys["root"])
    bad = {
        "leaf removed": good[1:],
        "root only": good[2:],
        "root removed": good[:2],
        "reversed": good[::-1],
        "an authority twice": [good[0], good[1], good[1], good[2]],
        "leaf above leaf": [good[0], *good],
        "another authority of the same name": [good[0], stranger, good[2]],
        "root of another key": [*good[:2], certificate("root", keys["other"], "root", keys["other"])],
    }
    for chain in bad.values():
        with pytest.raises(PathError):
            verified(chain, anchors, memo)
    assert verified(good, anchors, memo)


def test_one_verifier_refuses_bad_chains_before_and_after_a_good_one(world, good):
    verifier = world.verifier()
    chain = ders(good)
    other = ders(world.evidence("gpu-1"))
    bad = {
        "chain-length": [chain[1:], chain[:4], chain[4:], [*chain, chain[4]][1:3]],
        "chain-link": [[chain[0], other[1], *chain[2:]], [chain[0], chain[2], chain[1], *chain[3:]]],
        "chain-duplicate": [[*chain[:2], chain[2], chain[2], chain[4]]],
        "report-signature": [other],
        "chain-root": [[*chain[:4], world.pki.rim_root.certificate.public_bytes(Encoding.DER)]],
    }
    for _ in range(2):
        for code, chains in bad.items():
            for each in chains:
                assert codes(world.verify(chained(good, each), verifier=verifier)) == {code}
        assert not world.verify(good, verifier=verifier).refusals


def test_time_is_compared_anew_with_every_use(world):
    verifier = world.verifier()
    short = world.evidence(chain=brom(not_after=AT + timedelta(hours=1)))

    assert not world.verify(short, verifier=verifier).refusals
    assert codes(world.verify(short, verifier=verifier, now=AT + timedelta(hours=1))) == {"chain-time"}
    assert not world.verify(short, verifier=verifier).refusals
    assert codes(world.verify(short, verifier=verifier, now=datetime(2000, 1, 1, tzinfo=UTC))) == {"chain-time"}


def test_a_chain_that_failed_is_not_remembered_as_one_that_holds(world, good):
    verifier = world.verifier()
    bad = world.evidence(chain=leaf(ca=True))
    for _ in range(3):
        assert codes(world.verify(bad, verifier=verifier)) == {"chain-profile"}


# --- PEM --------------------------------------------------------------------------------------------------------------
def refused(world, certificates):
    with pytest.raises(AttestError) as error:
        world.verifier().needs(Evidence("nvidia", world.evidence().payload, certificates), {})
    assert str(error.value).isprintable()
    return error.value


@pytest.mark.parametrize(
    "certificates",
    [
        b"",
        b"\n",
        b"no PEM",
        b"-----BEGIN CERTIFICATE-----",
        b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n" * 5,
        b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n" * 5,
        b"-----BEGIN CERTIFICATE-----\n" * 1000,
        b"-----BEGIN CERTIFICATE-----\n\xff\xfe\n-----END CERTIFICATE-----\n",
        b"A" * (32 << 10),
    ],
)
def test_what_is_no_pem_is_malformed(world, certificates):
    assert isinstance(refused(world, certificates), MalformedEvidence)


def test_more_certificates_than_any_chain_has_are_not_even_parsed(world, good):
    assert isinstance(refused(world, as_pem([ders(good)[4]] * (CERTIFICATES_MAX + 1))), MalformedEvidence)


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda pem: b"words\n" + pem, id="words before"),
        pytest.param(lambda pem: pem + b"words\n", id="words after"),
        pytest.param(lambda pem: pem.replace(b"-----\n-----", b"-----\nwords\n-----", 1), id="words between"),
        pytest.param(lambda pem: KEY + pem, id="a key before"),
        pytest.param(lambda pem: pem.replace(b"BEGIN", b"BEGIN X509", 1), id="another label"),
        pytest.param(lambda pem: pem.replace(b"END CERTIFICATE", b"END CERTIFICATES", 1), id="another end"),
        pytest.param(lambda pem: pem.replace(b"\n", b"\n!", 2), id="no base64"),
        pytest.param(lambda pem: pem.replace(b"MII", b"", 1), id="letters missing"),
        pytest.param(lambda pem: pem[: len(pem) // 2], id="half"),
    ],
)
def test_pem_is_certificates_and_nothing_else(world, good, spoil):
    assert isinstance(refused(world, spoil(good.certificates)), MalformedEvidence)


@pytest.mark.parametrize("spelling", [(b"\n", b"\r\n"), (b"-----\n-----", b"-----\n\n\n-----"), (b"=\n", b"=\n\n")])
def test_line_ends_do_not_count(world, good, spelling):
    assert not world.verify(replace(good, certificates=good.certificates.replace(*spelling))).refusals


KEY = b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damaged_certificates(world, good, data):
    """Whatever is done to a certificate below the root, all that comes out is a refusal of attest's."""
    chain = ders(good)
    which = data.draw(st.integers(0, 3))
    der, at = chain[which], data.draw(st.integers(0, len(chain[which]) - 1))
    damaged = data.draw(
        st.sampled_from(
            [
                der[:at] + bytes([der[at] ^ data.draw(st.integers(1, 255))]) + der[at + 1 :],
                der[:at] + der[at + data.draw(st.integers(1, 8)) :],
                der[:at],
                der[:at] + data.draw(st.binary(min_size=1, max_size=8)) + der[at:],
            ]
        )
    )

    error = refused(world, as_pem([*chain[:which], damaged, *chain[which + 1 :]]))

    assert isinstance(error, MalformedEvidence | UntrustedEvidence)


@settings(deadline=None)
@given(st.binary(max_size=200) | st.binary(max_size=100).map(lambda data: as_pem([data] * 5)))
def test_random_certificates(world, data):
    assert isinstance(refused(world, data), MalformedEvidence)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_certificates_well_signed_with_random_insides(world, data):
    """A hostile authority may sign anything; here the device certificate holds a random extension of a known name."""
    oid = data.draw(st.sampled_from(["2.5.29.14", "2.5.29.15", "2.5.29.17", "2.5.29.19", "2.5.29.31", "2.5.29.35"]))
    extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), data.draw(st.binary(max_size=12)))

    def edit(chain):
        old = chain[1]
        kept = [each for each in old.extensions if each.oid != extension.oid]
        builder = x509.CertificateBuilder(
            old.issuer,
            old.subject,
            old.public_key(),
            old.serial_number,
            old.not_valid_before_utc,
            FOREVER,
            [*kept, x509.Extension(extension.oid, data.draw(st.booleans()), extension)],
        )
        return [chain[0], builder.sign(world.pki.provisioner.key, hashes.SHA384()), *chain[2:]]

    evidence = world.evidence(nonce=NONCE, chain=lambda draft: draft.edits.append(edit))
    try:
        world.verifier().needs(evidence, {})
    except AttestError as e:
        assert isinstance(e, UntrustedEvidence), e  # noqa: PT017 - what is asserted is the type that left
