"""Intel's documents before there is a quote: each is what its name says, below a root that is trusted for that name."""

from __future__ import annotations

import pytest

from attest.collateral import Document, Need
from attest.errors import UntrustedCollateral
from attest.reasons import Reason
from attest.reasons.tdx import (
    TDX_COLLATERAL_CHAIN,
    TDX_COLLATERAL_MALFORMED,
    TDX_COLLATERAL_OTHER,
    TDX_COLLATERAL_SIGNATURE,
)
from attest.tdx.collateral import check_alone
from attest.tdx.documents import split
from attest.tdx.needs import INTEL_PCK_CRL, INTEL_QE_IDENTITY, INTEL_ROOT_CRL, INTEL_TCB_INFO
from attest.tdx.roots import INTEL, Root
from nodeprobe.emulator.tdx_collateral import CollateralDraft
from nodeprobe.emulator.tdx_pki import IntelPki, new_ca, new_root
from tests.tdx_world import NOW

KINDS = (INTEL_TCB_INFO, INTEL_QE_IDENTITY, INTEL_PCK_CRL, INTEL_ROOT_CRL)
SIGNED_TEXTS = (INTEL_TCB_INFO, INTEL_QE_IDENTITY)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> IntelPki:
    return IntelPki.create(tmp_path_factory.mktemp("alone") / "pki")


@pytest.fixture
def draft(pki: IntelPki) -> CollateralDraft:
    return CollateralDraft.of(pki, pki.platform_ca.certificate, now=NOW)


@pytest.fixture(scope="module")
def roots(pki: IntelPki) -> tuple[Root, ...]:
    return INTEL, Root.of(pki.root.certificate)


def document(draft: CollateralDraft, kind: str) -> tuple[Need, Document]:
    """Of what the draft publishes, the document of this kind and the need that it is filed under."""
    ((need, found),) = ((need, each) for need, each in split(draft.made()).items() if need.kind == kind)
    return need, found


def refused(document: Document, need: Need, roots: tuple[Root, ...]) -> Reason:
    with pytest.raises(UntrustedCollateral) as why:
        check_alone(document, need, roots)
    return why.value.reason


@pytest.mark.parametrize("kind", KINDS)
def test_a_good_document_says_when_it_was_issued_and_when_the_next_is_due(draft, roots, kind):
    need, found = document(draft, kind)

    issued, due = check_alone(found, need, roots)

    assert issued == draft.pck_crl.last_update
    assert due == {INTEL_PCK_CRL: draft.pck_crl, INTEL_ROOT_CRL: draft.root_crl}.get(kind, draft.pck_crl).next_update


@pytest.mark.parametrize(
    ("kind", "name"),
    [(INTEL_TCB_INFO, "00A06D080000"), (INTEL_QE_IDENTITY, "QE"), (INTEL_PCK_CRL, "processor")],
)
def test_a_document_filed_under_another_name_is_another(draft, roots, kind, name):
    need, found = document(draft, kind)
    other = Need(need.kind, name + roots[1].mark)
    assert other != need

    assert refused(found, other, roots) is TDX_COLLATERAL_OTHER


@pytest.mark.parametrize("kind", [INTEL_TCB_INFO, INTEL_QE_IDENTITY, INTEL_PCK_CRL])
def test_an_emulators_document_is_none_of_intels(draft, roots, kind):
    """Its root is trusted, but for names with its mark; a name without a mark means Intel's root."""
    need, found = document(draft, kind)
    intels = Need(need.kind, need.name.partition("@")[0])

    assert refused(found, intels, roots) is TDX_COLLATERAL_CHAIN
    assert refused(found, need, (INTEL,)) is TDX_COLLATERAL_CHAIN
    assert refused(found, need, ()) is TDX_COLLATERAL_CHAIN


@pytest.mark.parametrize("kind", SIGNED_TEXTS)
def test_a_text_signed_by_another_key_is_not_believed(pki, draft, roots, kind):
    draft.tcb_signer = draft.qe_signer = pki.platform_ca
    need, found = document(draft, kind)

    assert refused(found, need, roots) is TDX_COLLATERAL_SIGNATURE


@pytest.mark.parametrize("kind", SIGNED_TEXTS)
def test_a_text_signed_by_a_ca_of_machines_is_not_believed(pki, draft, roots, kind):
    draft.tcb_signer = draft.qe_signer = pki.platform_ca
    draft.tcb_chain = draft.qe_chain = [pki.platform_ca.certificate, pki.root.certificate]
    need, found = document(draft, kind)

    assert refused(found, need, roots) is TDX_COLLATERAL_CHAIN


def test_a_list_signed_by_another_key_is_not_believed(pki, draft, roots):
    draft.pck_crl.key = pki.processor_ca.key
    need, found = document(draft, INTEL_PCK_CRL)

    assert refused(found, need, roots) is TDX_COLLATERAL_SIGNATURE


def test_a_list_below_the_right_root_by_a_ca_of_another_root_is_not_believed(pki, draft, roots):
    stranger = new_ca(new_root(), "Intel SGX PCK Platform CA")
    draft.pck_crl.issuer = stranger
    draft.pck_crl_chain = [stranger.certificate, pki.root.certificate]
    need, found = document(draft, INTEL_PCK_CRL)

    assert refused(found, need, roots) is TDX_COLLATERAL_CHAIN


def test_a_list_of_a_ca_that_is_none_of_intels_two_is_another(pki, draft, roots):
    """The list itself is named as it must be, or it would not be filed; its issuer is another CA below the root."""
    other = new_ca(pki.root, "Intel SGX PCK Other CA")
    draft.pck_crl_chain = [other.certificate, pki.root.certificate]
    need, found = document(draft, INTEL_PCK_CRL)

    assert refused(found, need, roots) is TDX_COLLATERAL_OTHER


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("data", [b"", b"{}", b"\x30\x03\x02\x01\x01", b'{"body": "{}", "issuer_chain": ""}'])
def test_what_does_not_parse_is_malformed(draft, roots, kind, data):
    need, _ = document(draft, kind)

    assert refused(Document.of(data), need, roots) is TDX_COLLATERAL_MALFORMED


@pytest.mark.parametrize("kind", SIGNED_TEXTS)
def test_a_text_without_what_it_is_named_by_is_malformed(draft, roots, kind):
    need, _ = document(draft, kind)
    del draft.tcb_info["pceId"], draft.qe_identity["id"]
    draft.tcb_info.pop("issueDate")
    _, found = document(draft, kind)

    assert refused(found, need, roots) is TDX_COLLATERAL_MALFORMED
