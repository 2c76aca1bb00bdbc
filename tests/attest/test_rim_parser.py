"""Signed documents: what XML can be abused for, that no abuse takes time or memory, and whatever bytes come."""

import base64
import re
import time
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from attest import reasons
from attest.collateral import CollateralKind, Document, Need
from attest.errors import AttestError, UntrustedCollateral
from attest.memo import Memo
from attest.nvidia import rim as rims
from attest.result import Tier
from attest.xmldsig import DOCUMENT_BYTES_MAX, SignatureMismatch, XmlMalformed, verify
from nodeprobe.emulator.pki import DIGITAL_SIGNATURE, end_name, rim_profiles
from tests.attest.world import MADE, MODEL, codes

SECONDS_MAX = 2.0  # for a document that is not to be believed; a good one takes some milliseconds


@pytest.fixture(scope="module")
def rim(world):
    """A good manifest."""
    return world.documents[MODEL.vbios_rim_id].data


def load(world, data):
    return rims.load(Document(data), world.anchors.nvidia_rim, known=Memo(1), paths=Memo(8))


def refused(world, data):
    """The reason, and that it did not take long."""
    start = time.process_time()
    with pytest.raises(UntrustedCollateral) as error:
        load(world, data)
    assert time.process_time() - start < SECONDS_MAX
    assert str(error.value).isprintable()
    return error.value.reason


def laughs(place):
    entities = b"".join(b'<!ENTITY %c "%s">' % (98 + n, b"&%c;" % (97 + n) * 10) for n in range(9))
    return b'<!DOCTYPE x [<!ENTITY a "' + b"A" * 100 + b'">' + entities + b"]>" + place


def test_the_good_one_is_believed(world, rim):
    assert load(world, rim).version == MODEL.vbios


# --- what XML is abused for -------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "document",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"<a>", id="not closed"),
        pytest.param(b"\0" * 100, id="zeros"),
        pytest.param(laughs(b"<x>&j;</x>"), id="billion laughs"),
        pytest.param(laughs(b'<x y="&j;"/>'), id="billion laughs in an attribute"),
        pytest.param(b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><x>&a;</x>', id="external entity"),
        pytest.param(b'<!DOCTYPE x [<!ENTITY % a SYSTEM "http://127.0.0.1:9/"> %a;]><x/>', id="parameter entity"),
        pytest.param(b'<!DOCTYPE x SYSTEM "http://127.0.0.1:9/x.dtd"><x/>', id="external DTD"),
        pytest.param(b"<a>" * 100 + b"</a>" * 100, id="deep"),
        pytest.param(b"<a>" * 80_000, id="deeper than the parser"),
        pytest.param(b"<r>" + b"<a/>" * 60_000 + b"</r>", id="wide"),
        pytest.param(b"<r " + b" ".join(b'a%d=""' % n for n in range(25_000)) + b"/>", id="attributes"),
        pytest.param(b"<r " + b" ".join(b'xmlns:a%d="u"' % n for n in range(15_000)) + b"/>", id="namespaces"),
        pytest.param(b'<?xml version="1.0" encoding="no-such"?><r/>', id="unknown encoding"),
        pytest.param("<r/>".encode("utf-16"), id="UTF-16"),
        pytest.param("<r/>".encode("utf-32"), id="UTF-32"),
        pytest.param(b'<?xml version="1.0" encoding="UTF-7"?><r/>', id="UTF-7"),
        pytest.param('<?xml version="1.0" encoding="IBM037"?><r/>'.encode("cp037"), id="EBCDIC"),
        pytest.param(
            b'<r xmlns:xi="http://www.w3.org/2001/XInclude"><xi:include href="/etc/passwd"/></r>', id="XInclude"
        ),
    ],
)
def test_documents_made_to_harm_are_refused(world, document):
    assert len(document) <= DOCUMENT_BYTES_MAX
    assert refused(world, document) is reasons.RIM_MALFORMED


@pytest.mark.parametrize("size", [DOCUMENT_BYTES_MAX + 1, 100 << 20])
def test_large_documents_are_not_parsed(world, rim, size):
    assert refused(world, rim + b" " * (size - len(rim))) is reasons.RIM_TOO_LARGE


@pytest.mark.parametrize("many", [100, 5_000])
def test_many_namespaces_on_a_document_with_genuine_certificates_take_no_time(world, rim, many):
    """Certificates are public: whoever copies them gets as far as canonicalisation, which is slow in namespaces."""
    declared = b"".join(b' xmlns:a%d="u:%d"' % (n, n) for n in range(many))

    assert refused(world, rim.replace(b"<SoftwareIdentity ", b"<SoftwareIdentity" + declared + b" ", 1)) in (
        reasons.RIM_MALFORMED,
        reasons.RIM_DIGEST,
    )


@pytest.mark.parametrize(
    "encoded",
    [
        pytest.param(lambda text: text.encode("utf-16"), id="UTF-16"),
        pytest.param(
            lambda text: ('<?xml version="1.0" encoding="utf-16"?>' + text).encode("utf-16"), id="UTF-16, declared"
        ),
        pytest.param(lambda text: b'<?xml version="1.0" encoding="iso-8859-1"?>' + text.encode(), id="Latin-1"),
        pytest.param(lambda text: b"<?go now?>" + text.encode(), id="an instruction before"),
        pytest.param(lambda text: text.encode() + b"<!-- after -->", id="a comment after"),
        pytest.param(lambda text: text.encode() + b"<more/>", id="a second root"),
        pytest.param(lambda text: text.encode() * 2, id="the document twice"),
        pytest.param(lambda text: b"<!DOCTYPE SoftwareIdentity>" + text.encode(), id="a DTD"),
    ],
)
def test_the_same_signed_content_in_another_wrapping_is_refused(world, rim, encoded):
    assert refused(world, encoded(rim.decode())) is reasons.RIM_MALFORMED


@pytest.mark.parametrize("wrapping", [b"\xef\xbb\xbf%b", b'<?xml version="1.0"?>\n%b\n', b"%b\n\n"])
def test_what_xml_calls_the_same_document_is_the_same(world, rim, wrapping):
    assert load(world, wrapping % rim).goldens == load(world, rim).goldens


# --- signed, but not as the profile wants -----------------------------------------------------------------------------
def before_signing(edit):
    return lambda draft: draft.before_signing.append(edit)


def after_signing(edit):
    return lambda draft: draft.after_signing.append(edit)


def edited(*pairs):
    def edit(data):
        for old, new in pairs:
            assert old in data
            data = data.replace(old, new, 1)
        return data

    return lambda draft: draft.edits.append(edit)


DS = "{http://www.w3.org/2000/09/xmldsig#}"


def _set(name, value):
    return before_signing(lambda root: root.set(name, value))


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(_set("{http://www.w3.org/XML/1998/namespace}base", "http://x/"), id="xml:base"),
        pytest.param(_set("{http://www.w3.org/XML/1998/namespace}space", "preserve"), id="xml:space"),
        pytest.param(_set("{http://www.w3.org/XML/1998/namespace}id", "x"), id="xml:id"),
        pytest.param(
            _set("{http://www.w3.org/2001/XMLSchema-instance}schemaLocation", "a http://x/"), id="xsi:schemaLocation"
        ),
        pytest.param(before_signing(lambda root: root.insert(0, etree.Comment("x"))), id="a signed comment"),
        pytest.param(before_signing(lambda root: root[1].set("product", "")), id="product empty"),
        pytest.param(before_signing(lambda root: root[1].attrib.pop("edition")), id="edition absent"),
        pytest.param(before_signing(lambda root: root.append(root[1])), id="Meta after Payload"),
        pytest.param(before_signing(lambda root: root[2][0].set("index", "٣")), id="index in other digits"),
        pytest.param(before_signing(lambda root: root[2][0].set("index", "64")), id="index too large"),
        pytest.param(before_signing(lambda root: root[2][0].set("index", "-1")), id="index negative"),
        pytest.param(before_signing(lambda root: root[2][0].set("index", "0" * 5000)), id="index of many digits"),
        pytest.param(before_signing(lambda root: root[2][0].set("active", "true")), id="active in lower case"),
        pytest.param(before_signing(lambda root: root[2][0].set("size", "32")), id="size of another digest"),
        pytest.param(before_signing(lambda root: root[2][0].set("type", "measurement")), id="type in lower case"),
        pytest.param(before_signing(lambda root: root[2][0].set("alternatives", "0")), id="no alternative"),
        pytest.param(
            before_signing(lambda root: etree.SubElement(root[2][0], root[2][0].tag)), id="a Resource in a Resource"
        ),
        pytest.param(
            after_signing(lambda root: etree.SubElement(root[-1], f"{DS}Object").append(root[2][0])),
            id="moved to Object",
        ),
        pytest.param(after_signing(lambda root: root[2].append(root[-1])), id="the signature moved down"),
        pytest.param(after_signing(lambda root: root[-1][2].append(root[-1][2][0][0])), id="a certificate moved"),
        pytest.param(after_signing(lambda root: setattr(root[-1][1], "text", "AAAA")), id="signature too short"),
        pytest.param(after_signing(lambda root: setattr(root[-1][1], "text", "ä")), id="signature no base64"),
        pytest.param(after_signing(lambda root: setattr(root[-1], "text", "x")), id="text in Signature"),
        pytest.param(
            after_signing(lambda root: etree.SubElement(root[-1][1], f"{DS}Object")), id="an element in SignatureValue"
        ),
        pytest.param(after_signing(lambda root: setattr(root[-1][2][0][0], "text", "AAAA")), id="no certificate"),
        pytest.param(after_signing(lambda root: root[-1][2][0].clear()), id="no certificates"),
        pytest.param(edited((b"<ds:SignedInfo>", b'<ds:SignedInfo xmlns:ds="urn:x">')), id="prefix bound anew"),
        pytest.param(edited((b"<Payload>", b'<Payload xmlns="urn:x">')), id="namespace of the content changed"),
        pytest.param(edited((b"</Payload>", b"<![CDATA[x]]></Payload>")), id="CDATA with text"),
        pytest.param(edited((b"True", b"&#84;rue&#10;")), id="an attribute by references"),
    ],
)
def test_one_thing_spoiled_is_refused(world, spoil):
    assert refused(world, world.vbios_rim(spoil)) in (reasons.RIM_MALFORMED, reasons.RIM_DIGEST)


def test_an_unused_namespace_is_part_of_what_was_signed(world, rim):
    assert refused(world, rim.replace(b"<Payload>", b'<Payload xmlns:u="urn:u">', 1)) is reasons.RIM_DIGEST


def test_a_namespace_of_a_relative_name_has_no_canonical_form(world, rim):
    with pytest.raises(UntrustedCollateral, match="no canonical form") as error:
        load(world, rim.replace(b"<Payload>", b'<Payload xmlns:u="u">', 1))
    assert error.value.reason is reasons.RIM_MALFORMED


@pytest.mark.parametrize(
    "change", [(b"True", b"&#84;rue"), (b"<Payload>", b"<Payload >"), (b"<Entity ", b"<Entity\n ")]
)
def test_another_spelling_of_what_was_signed_is_what_was_signed(world, rim, change):
    assert load(world, rim.replace(*change, 1)).goldens == load(world, rim).goldens


def test_a_document_of_nothing_but_its_signature_is_signed_and_no_rim(world):
    data = world.vbios_rim(before_signing(lambda root: [root.remove(each) for each in list(root)]))

    with pytest.raises(UntrustedCollateral, match="a SWID tag of Entity, Meta and Payload") as error:
        load(world, data)
    assert error.value.reason is reasons.RIM_MALFORMED


def test_the_size_is_looked_at_before_the_content():
    with pytest.raises(XmlMalformed, match=f"at most {DOCUMENT_BYTES_MAX}"):
        verify(b" " * (DOCUMENT_BYTES_MAX + 1), lambda _certificates: None)


def test_a_signer_with_another_kind_of_key_signs_nothing(rim):
    """Whoever authenticates lets it pass here; the signature is still not checked by a key of another kind."""
    key = rsa.generate_private_key(65537, 2048)
    builder = x509.CertificateBuilder().subject_name(end_name("x")).issuer_name(end_name("x")).serial_number(1)
    builder = builder.not_valid_before(MADE).not_valid_after(MADE + timedelta(days=1)).public_key(key.public_key())
    der = builder.sign(key, SHA384()).public_bytes(Encoding.DER)
    root = etree.fromstring(rim)
    root.find(f".//{DS}X509Certificate").text = base64.b64encode(der).decode()

    with pytest.raises(SignatureMismatch, match="not P-384"):
        verify(etree.tostring(root), lambda _certificates: None)


# --- what it is for ---------------------------------------------------------------------------------------------------
def not_bound(rim, wanted):
    with pytest.raises(UntrustedCollateral) as error:
        rims.check(rim, wanted)
    return error.value.reason is reasons.RIM_BINDING


def test_a_rim_is_for_one_product_and_version(world, rim):
    good = load(world, rim)
    wanted = rims.Wanted(rims.Role.VBIOS, Need(CollateralKind.NVIDIA_RIM, "x"), MODEL.vbios, rims.DeviceClass.GH100)

    rims.check(good, wanted)
    assert not_bound(replace(good, product="GB100"), wanted)
    assert not_bound(replace(good, version=MODEL.vbios + "0"), wanted)
    assert not_bound(replace(good, signer="CN=a signer of GB100"), wanted)


@pytest.mark.parametrize(("role", "version"), [("VBIOS", "550.54"), ("DRIVER", "96.00.9F.00.01")])
def test_a_version_of_the_other_kind_is_for_nobody(world, rim, role, version):
    """The version is the wanted one, and the RIM for another role all the same."""
    wanted = rims.Wanted(rims.Role[role], Need(CollateralKind.NVIDIA_RIM, "x"), version, rims.DeviceClass.GH100)

    assert not_bound(replace(load(world, rim), version=version), wanted)


# --- who signed -------------------------------------------------------------------------------------------------------
def signer(world, **changes):
    """A manifest signed under the L3 authority by somebody whose certificate differs in this."""
    profile = replace(rim_profiles(MADE)[3], **changes)
    authority = world.pki.rim_l3.below(profile)

    def spoil(draft):
        draft.key = authority.key
        draft.certificates = [authority.certificate, *draft.certificates[1:]]

    return world.vbios_rim(spoil)


def test_another_signer_of_the_same_authority_counts(world):
    assert load(world, signer(world)).version == MODEL.vbios


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"ca": True, "usage": frozenset({"key_cert_sign"})}, id="a CA"),
        pytest.param({"usage": frozenset({"key_agreement"})}, id="may not sign"),
        pytest.param(
            {"extensions": (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING]),)}, id="an OCSP responder"
        ),
        pytest.param({"extensions": (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]),)}, id="a code signer"),
    ],
)
def test_not_everybody_under_a_rim_authority_may_sign_rims(world, changes):
    changes = {"subject": end_name("Somebody"), "usage": DIGITAL_SIGNATURE} | changes

    assert refused(world, signer(world, **changes)) is reasons.RIM_CHAIN


def test_a_device_signs_no_rims(world):
    gpu = world.gpu()
    chain = x509.load_pem_x509_certificates(gpu.chain_pem)

    def spoil(draft):
        draft.key, draft.certificates = gpu.leaf_key, chain

    assert refused(world, world.vbios_rim(spoil)) is reasons.RIM_CHAIN


def test_a_rim_signer_attests_no_device(world, good):
    chain = [world.pki.rim_l4, world.pki.rim_l3, world.pki.rim_ca, world.pki.rim_root, world.pki.device_root]
    pem = b"".join(each.certificate.public_bytes(Encoding.PEM) for each in chain)

    assert codes(world.verify(replace(good, certificates=pem))) & {"chain-link", "chain-profile"}


def test_a_rim_ends_at_its_instant(world, good):
    end = world.pki.rim_l4.certificate.not_valid_after_utc
    tick = timedelta(microseconds=1)

    assert world.judge(good, now=end - tick).tier is Tier.AFFIRMING
    for late in (end, end + tick):
        result = world.judge(good, now=late)
        assert (result.tier, codes(result)) == (Tier.NONE, {"rim-expired"})
        assert result.claims[0].values["rim_expired_days"] == 1
        assert result.expires_at > late


def test_a_rim_begins_at_its_instant(world, good):
    begin = world.pki.rim_l4.certificate.not_valid_before_utc

    assert world.judge(good, now=begin).tier is Tier.AFFIRMING
    assert codes(world.judge(good, now=begin - timedelta(microseconds=1))) >= {"rim-time"}


# --- whatever comes ---------------------------------------------------------------------------------------------------
def only_its_own(world, data):
    try:
        return load(world, data)
    except AttestError as e:
        assert isinstance(e, UntrustedCollateral), e  # noqa: PT017 - what is asserted is the type that left
        assert e.reason.fault is reasons.Fault.COLLATERAL, e  # noqa: PT017
        return None


@given(st.binary(max_size=300) | st.text(alphabet="<>/a&;![]-\"' =x:", max_size=60).map(str.encode))
def test_random_bytes(world, data):
    assert only_its_own(world, data) is None


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_flipped_truncated_and_doubled_documents_say_the_same_or_nothing(world, rim, data):
    at = data.draw(st.integers(0, len(rim) - 1))
    size = data.draw(st.integers(1, 400))
    cuts = [
        rim[:at] + bytes([rim[at] ^ data.draw(st.integers(1, 255))]) + rim[at + 1 :],
        rim[:at],
        rim[:at] + rim[at + size :],
        rim[: at + size] + rim[at:],
    ]

    found = only_its_own(world, data.draw(st.sampled_from(cuts)))

    assert found is None or found.goldens == load(world, rim).goldens


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_moved_copied_and_removed_elements_say_the_same_or_nothing(world, rim, data):
    root = etree.fromstring(rim)
    elements = list(root.iter())
    chosen, place = data.draw(st.sampled_from(elements[1:])), data.draw(st.sampled_from(elements))
    match data.draw(st.sampled_from(["remove", "move", "copy", "rename", "attribute"])):
        case "remove":
            chosen.getparent().remove(chosen)
        case "move" if chosen not in place.iterancestors() and chosen is not place:
            place.insert(data.draw(st.integers(0, len(place))), chosen)
        case "copy":
            place.append(etree.fromstring(etree.tostring(chosen, with_tail=False)))
        case "rename":
            chosen.tag = data.draw(st.sampled_from(sorted({each.tag for each in elements})))
        case "attribute":
            chosen.set(
                data.draw(st.sampled_from(["index", "active", "Id", "URI", "x"])), data.draw(st.sampled_from("0Tx"))
            )

    found = only_its_own(world, etree.tostring(root))

    assert found is None or found.goldens == load(world, rim).goldens


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_damaged_certificates_in_a_document(world, rim, data):
    (start, end), *_ = [match.span(1) for match in re.finditer(rb"X509Certificate>([^<]+)<", rim)]
    at = data.draw(st.integers(start, end - 1))
    other = data.draw(st.sampled_from(b"ABCDwxyz0129+/="))

    only_its_own(world, rim[:at] + bytes([other]) + rim[at + 1 :])
