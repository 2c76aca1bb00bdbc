"""A folder of RIMs: found by name or content, the right one of several, and nothing of it believed."""

import os
from datetime import timedelta

import pytest

from attest import folder as folders
from attest.collateral import CollateralKind, Document, Need, nothing
from attest.folder import FILE_BYTES_MAX, Folder, FolderError
from attest.manifest import MANIFEST, Entry
from attest.manifest import dumps as manifest
from attest.ocsp import RESPONSE_BYTES_MAX, Question
from attest.result import Tier
from attest.tdx.documents import BUNDLE_BYTES_MAX, split
from attest.verify import verify
from attest.xmldsig import DOCUMENT_BYTES_MAX
from nodeprobe.emulator.tdx_collateral import CollateralDraft
from nodeprobe.emulator.tdx_pki import IntelPki
from tests.attest import responders
from tests.attest.world import AT, MODEL, NONCE, codes

VBIOS = Need(CollateralKind.NVIDIA_RIM, MODEL.vbios_rim_id)
DRIVER = Need(CollateralKind.NVIDIA_RIM, MODEL.driver_rim_id)


@pytest.fixture
def vbios(world):
    return world.documents[MODEL.vbios_rim_id].data


def test_the_id_as_file_name_is_found(tmp_path, vbios):
    (tmp_path / f"{MODEL.vbios_rim_id}.xml").write_bytes(vbios)

    found = Folder(tmp_path).at(AT)

    assert found(VBIOS).data == vbios
    assert found(DRIVER) is None
    assert nothing(VBIOS) is None


@pytest.mark.parametrize("name", ["rim.swidtag", "x", ".hidden", "ü.txt", MODEL.driver_rim_id + ".bak"])
def test_any_name_is_found_by_content(tmp_path, vbios, name):
    (tmp_path / name).write_bytes(vbios)

    assert Folder(tmp_path).at(AT)(VBIOS).data == vbios


def test_a_file_named_after_an_id_is_taken_at_its_word_and_refused_by_the_verifier(tmp_path, world, vbios, good):
    (tmp_path / f"{MODEL.driver_rim_id}.xml").write_bytes(vbios)
    (tmp_path / f"{MODEL.vbios_rim_id}.xml").write_bytes(vbios)

    verification = verify((good,), {"nvidia": world.verifier()}, Folder(tmp_path).at(AT), nonce=NONCE, now=AT)

    assert codes(verification) == {"rim-binding"}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<SoftwareIdentity/>",
        b"\xff" * 1000,
        b'SoftwareIdentity Signature colloquialVersion="96.00.FE.00.02" X509Certificate>AAAA<',
        b'SoftwareIdentity Signature colloquialVersion="96.00.FE.00.02" X509Certificate>====<',
        b"X509Certificate>" * 10_000,
    ],
)
def test_other_files_are_passed_over(tmp_path, vbios, data):
    (tmp_path / "a").write_bytes(data)
    (tmp_path / "b").mkdir()
    (tmp_path / "c").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "d")
    (tmp_path / "e").write_bytes(vbios)

    assert Folder(tmp_path).at(AT)(VBIOS).data == vbios


def test_large_files_are_not_read(tmp_path, vbios, monkeypatch):
    with (tmp_path / "large.xml").open("wb") as file:
        file.truncate(5 << 30)  # sparse
    (tmp_path / "just over.xml").write_bytes(vbios.ljust(DOCUMENT_BYTES_MAX + 1))

    assert Folder(tmp_path).at(AT)(VBIOS) is None


def test_a_file_that_went_away_is_absent(tmp_path, vbios):
    path = tmp_path / "rim.xml"
    path.write_bytes(vbios)
    found = Folder(tmp_path).at(AT)
    path.unlink()

    assert found(VBIOS) is None


def test_a_folder_is_read_again_when_asked(tmp_path, vbios):
    folder = Folder(tmp_path)
    (tmp_path / "rim.xml").write_bytes(vbios)
    assert folder.at(AT)(VBIOS) is None

    folder.read()

    assert folder.at(AT)(VBIOS).data == vbios


def test_no_folder_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "nowhere", tmp_path / "file"):
        with pytest.raises(FolderError):
            Folder(path)


def test_too_many_files_are_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "FILES_MAX", 3)
    for name in "abcd":
        (tmp_path / name).touch()

    with pytest.raises(FolderError):
        Folder(tmp_path)


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path, monkeypatch):
    def forbidden(_path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(tmp_path), "iterdir", forbidden)

    with pytest.raises(FolderError, match="Permission denied"):
        Folder(tmp_path)


def test_a_whole_verdict_from_a_folder(tmp_path, world, good):
    for number, document in enumerate(world.documents.values()):
        (tmp_path / f"{number}.xml").write_bytes(document.data)

    verification = verify((good,), {"nvidia": world.verifier()}, Folder(tmp_path).at(AT), nonce=NONCE, now=AT)

    assert not verification.refusals
    assert verification.claims[0].values["measurements"] == "match"
    assert world.judge(good).tier is Tier.AFFIRMING


# --- what a manifest lists --------------------------------------------------------------------------------------------
def listed(folder, need, data, *, expires_at=None):
    """The folder, in which a manifest lists this document."""
    document = Document.of(data)
    (folder / "listed").write_bytes(data)
    entry = Entry(need, "listed", document.sha256, AT - timedelta(hours=1), expires_at)
    (folder / MANIFEST).write_bytes(manifest([entry], AT))
    return Folder(folder)


def test_what_is_listed_is_found_by_its_need(tmp_path):
    folder = listed(tmp_path, VBIOS, b"any bytes")

    assert list(folder.listed) == [VBIOS]
    assert folder.document(VBIOS).data == folder.at(AT)(VBIOS).data == b"any bytes"
    assert folder.document(DRIVER) is folder.at(AT)(DRIVER) is None


def test_without_a_manifest_nothing_is_listed(tmp_path):
    folder = Folder(tmp_path)

    assert (dict(folder.listed), folder.document(VBIOS)) == ({}, None)


@pytest.mark.parametrize(("hours", "stale"), [(-1, True), (0, True), (1, False), (None, False)])
def test_what_should_have_been_fetched_anew_is_stale_since_then(tmp_path, hours, stale):
    ends = None if hours is None else AT + timedelta(hours=hours)

    found = listed(tmp_path, VBIOS, b"any bytes", expires_at=ends).at(AT)(VBIOS)

    assert (found.data, found.stale_since) == (b"any bytes", ends if stale else None)


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda path: path.unlink(), id="gone"),
        pytest.param(lambda path: path.write_bytes(b"any byte"), id="half"),
        pytest.param(lambda path: path.write_bytes(b"any bytez"), id="another"),
        pytest.param(lambda path: os.truncate(path, FILE_BYTES_MAX + 1), id="too large"),
        pytest.param(lambda path: (path.unlink(), path.mkdir()), id="a folder"),
    ],
)
def test_a_listed_file_that_is_not_what_is_listed_is_absent(tmp_path, spoil):
    folder = listed(tmp_path, VBIOS, b"any bytes")
    spoil(tmp_path / "listed")

    assert folder.document(VBIOS) is folder.at(AT)(VBIOS) is None


def unreadable(monkeypatch, path):
    """A file that is there and that we may not open."""
    opened = type(path).open

    def forbidden(this, *arguments, **options):
        if this == path:
            raise PermissionError(13, "Permission denied")
        return opened(this, *arguments, **options)

    monkeypatch.setattr(type(path), "open", forbidden)


def test_a_listed_file_that_cannot_be_read_is_absent(tmp_path, monkeypatch):
    folder = listed(tmp_path, VBIOS, b"any bytes")
    unreadable(monkeypatch, tmp_path / "listed")

    assert folder.document(VBIOS) is None


def test_a_manifest_that_is_none_is_an_error(tmp_path):
    (tmp_path / MANIFEST).write_bytes(b"{}")

    with pytest.raises(FolderError, match=r"manifest\.json is no manifest of collateral: want format"):
        Folder(tmp_path)


def test_a_manifest_that_cannot_be_read_is_an_error(tmp_path, monkeypatch):
    listed(tmp_path, VBIOS, b"any bytes")
    unreadable(monkeypatch, tmp_path / MANIFEST)

    with pytest.raises(FolderError, match=r"manifest\.json cannot be read: Permission denied"):
        Folder(tmp_path)


# --- what somebody laid down beside RIMs ------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """Intel's documents, as one JSON."""
    pki = IntelPki.create(tmp_path_factory.mktemp("folder") / "pki")
    return CollateralDraft.of(pki, pki.platform_ca.certificate, now=AT).made()


@pytest.fixture(scope="module")
def authority():
    return responders.Party.made("An authority")


@pytest.fixture(scope="module")
def device(authority):
    return responders.Party.made("A device", authority)


@pytest.fixture(scope="module")
def asked(authority, device):
    return Need(CollateralKind.NVIDIA_OCSP, Question.about(device.certificate, authority.certificate).name)


@pytest.fixture(scope="module")
def answer(authority, device):
    def make(**spoiled):
        return responders.answer(device.certificate, authority.certificate, authority, **spoiled)

    return make


def test_intels_documents_are_found_in_a_bundle_of_any_name(tmp_path, bundle):
    (tmp_path / "any.json").write_bytes(bundle)

    found = Folder(tmp_path).at(AT)

    assert {need: found(need) for need in split(bundle)} == split(bundle)
    assert found(VBIOS) is None


def test_a_bundle_is_no_json_by_another_name_nor_a_large_one(tmp_path, bundle):
    (tmp_path / "any.txt").write_bytes(bundle)
    (tmp_path / "other.json").write_bytes(b"{}")
    (tmp_path / "large.json").write_bytes(bundle.ljust(BUNDLE_BYTES_MAX + 1))

    found = Folder(tmp_path).at(AT)

    assert not [need for need in split(bundle) if found(need) is not None]


def test_an_ocsp_answer_is_found_by_what_it_answers(tmp_path, asked, answer):
    given = answer()
    (tmp_path / "any.der").write_bytes(given)

    assert Folder(tmp_path).at(AT)(asked).data == given
    assert Folder(tmp_path).at(AT)(asked._replace(name=asked.name + "0")) is None


def test_of_several_answers_the_last_one_given_by_then_counts(tmp_path, asked, answer):
    times = [AT - timedelta(hours=2), AT - timedelta(hours=1), AT + timedelta(hours=1)]
    given = [answer(this_update=each) for each in times]
    for name, data in zip("cab", given, strict=True):
        (tmp_path / f"{name}.der").write_bytes(data)
    folder = Folder(tmp_path)

    assert folder.at(AT)(asked).data == given[1]
    assert folder.at(AT + timedelta(hours=1))(asked).data == given[2]
    assert folder.at(AT - timedelta(hours=3))(asked) is None


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("any.bin", lambda data: data),
        ("any.der", lambda data: data.ljust(RESPONSE_BYTES_MAX + 1, b"\0")),
        ("any.der", lambda data: data[:-1]),
        ("any.der", lambda data: b""),
    ],
)
def test_other_files_are_no_answers(tmp_path, asked, answer, name, change):
    (tmp_path / name).write_bytes(change(answer()))

    assert Folder(tmp_path).at(AT)(asked) is None


@pytest.mark.parametrize("name", ["a.xml", "a.der", "a.json"])
def test_a_file_that_cannot_be_read_is_passed_over(tmp_path, monkeypatch, name, vbios, asked, answer, bundle):
    """The others beside it are found all the same."""
    contents = {"a.xml": vbios, "a.der": answer(), "a.json": bundle}
    needs = {"a.xml": VBIOS, "a.der": asked, "a.json": next(iter(split(bundle)))}
    for each, data in contents.items():
        (tmp_path / each).write_bytes(data)
    unreadable(monkeypatch, tmp_path / name)

    found = Folder(tmp_path).at(AT)

    assert {each for each, need in needs.items() if found(need) is None} == {name}
