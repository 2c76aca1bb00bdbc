"""The manifest of a folder of collateral: what is written is read, and what is none says why."""

import hashlib
import json
from datetime import UTC, datetime, timedelta

import pytest

from attest import manifest as manifests
from attest.collateral import CollateralKind, Need
from attest.manifest import MANIFEST_BYTES_MAX, Entry, ManifestError, dumps, parse

NOW = datetime(2030, 1, 2, tzinfo=UTC)
SHA256 = hashlib.sha256(b"a document").hexdigest()
RIM = Entry(Need(CollateralKind.NVIDIA_RIM, "NV_GPU_DRIVER_GH100_1"), "a.xml", SHA256, NOW, None)
TCB = Entry(Need(CollateralKind.INTEL_TCB_INFO, "00A06D080000"), "b.json", SHA256, NOW, NOW + timedelta(days=30))


def listed(**changes):
    """The manifest of one document as JSON, with members of its entry changed."""
    document = json.loads(dumps([TCB], NOW))
    document["documents"][0] |= changes
    return json.dumps(document).encode()


def refused(data):
    with pytest.raises(ManifestError) as why:
        parse(data)
    return str(why.value)


def test_what_is_written_is_read():
    assert parse(dumps([RIM, TCB], NOW)) == {RIM.need: RIM, TCB.need: TCB}


def test_a_manifest_says_its_form_and_when_it_was_written():
    said = json.loads(dumps([RIM], NOW))

    assert (said["format"], said["written_at"]) == ("workermanager/collateral/v1", "2030-01-02T00:00:00+00:00")
    assert [each["expires_at"] for each in said["documents"]] == [None]


def test_times_are_read_in_any_zone():
    (entry,) = parse(listed(fetched_at="2030-01-02T02:00:00+02:00")).values()

    assert entry.fetched_at == NOW
    assert entry.fetched_at.utcoffset() == timedelta(0)


def test_kinds_of_newer_versions_are_left_out():
    newer = json.loads(listed(kind="a-kind-to-come"))["documents"]
    document = json.loads(dumps([RIM], NOW))
    document["documents"] += newer

    assert parse(json.dumps(document).encode()) == {RIM.need: RIM}


def test_a_manifest_has_a_size():
    whole = dumps([RIM], NOW)

    assert parse(whole.ljust(len(whole) + 9)) == {RIM.need: RIM}
    assert f"at most {MANIFEST_BYTES_MAX}" in refused(whole.ljust(MANIFEST_BYTES_MAX + 1))


def test_a_manifest_lists_so_many(monkeypatch):
    monkeypatch.setattr(manifests, "ENTRIES_MAX", 1)

    assert parse(dumps([RIM], NOW)) == {RIM.need: RIM}
    assert "at most 1 documents" in refused(dumps([RIM, TCB], NOW))


def test_one_document_is_listed_once():
    assert "listed twice" in refused(dumps([RIM, RIM], NOW))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", ""),
        (b"\xff", ""),
        (b"[]", "want format"),
        (b"{}", "want format"),
        (b'{"format": "workermanager/collateral/v2", "documents": []}', "want format"),
        (b'{"format": "workermanager/collateral/v1"}', "want a list"),
        (b'{"format": "workermanager/collateral/v1", "documents": {}}', "want a list"),
        (b'{"format": "workermanager/collateral/v1", "documents": [5]}', "exactly"),
        (b'{"format": "workermanager/collateral/v1", "documents": [{}]}', "exactly"),
    ],
)
def test_what_is_no_manifest_is_refused(data, why):
    assert why in refused(data)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"more": 1}, "exactly"),
        ({"kind": 5}, "kind is no text"),
        ({"name": None}, "name is no text"),
        ({"name": ""}, "no name of a document"),
        ({"name": "a b"}, "no name of a document"),
        ({"name": "a" * 513}, "no name of a document"),
        ({"file": "../a"}, "no name of a file"),
        ({"file": ".hidden"}, "no name of a file"),
        ({"file": ""}, "no name of a file"),
        ({"sha256": SHA256.upper()}, "no SHA-256"),
        ({"sha256": SHA256[1:]}, "no SHA-256"),
        ({"fetched_at": "yesterday"}, "yesterday"),
        ({"fetched_at": "2030-01-02T00:00:00"}, "no time zone"),
        ({"fetched_at": "0001-01-01T00:00:00+14:00"}, "out of range"),
        ({"fetched_at": None}, "fetched_at is no text"),
        ({"expires_at": "2030-01-02T00:00:00"}, "no time zone"),
        ({"expires_at": "9999-12-31T23:59:59-14:00"}, "out of range"),
        ({"expires_at": 5}, "expires_at is no text"),
    ],
)
def test_an_entry_with_one_thing_wrong_is_refused(changes, why):
    assert why in refused(listed(**changes))
