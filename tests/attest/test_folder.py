"""A folder of RIMs: found by name or content, the right one of several, and nothing of it believed."""

import os

import pytest

from attest import folder as folders
from attest.collateral import CollateralKind, Need, nothing
from attest.folder import Folder, FolderError
from attest.result import Tier
from attest.verify import verify
from attest.xmldsig import DOCUMENT_BYTES_MAX
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
