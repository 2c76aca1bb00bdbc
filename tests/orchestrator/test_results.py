"""Signed results, end to end: a real server issues them, `attest result verify` checks them offline."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner, Result

from attest.__main__ import main
from attest.binding import gpu_nonce
from attest.keyfiles import KeyFileError
from attest.policy import shipped
from nodeprobe.emulator import MODELS, Pki, publish
from orchestrator import reasons
from orchestrator.client import Client, ServerRefused
from orchestrator.messages import Purpose
from orchestrator.results import WORKER, Issuer, claims_of
from tests.orchestrator.served import served_world
from tests.orchestrator.test_judge import TWO_GPUS, Node, use
from tests.orchestrator.world import IP, NOON, RESULT_KEY, TLS, World

PATH = f"/v1/workers/{IP}/result"


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    pki = Pki.create(tmp_path_factory.mktemp("emulated") / "pki", now=NOON)
    publish(pki, MODELS["h100-pcie"])
    return pki


@pytest.fixture
def world(tmp_path: Path, pki: Pki) -> World:
    """One worker of two emulated GPUs, attested by the real judge."""
    world = World(tmp_path)
    use(world, pki, shipped("lab"))
    world.register(worker_type=TWO_GPUS)
    Node(pki, world).attest()
    return world


@pytest.fixture
def url(world: World) -> Iterator[str]:
    with served_world(world) as url:
        yield url


def verified(folder: Path, url: str, *options: str, at: object = NOON) -> Result:
    """What `attest result verify` says of the result that the server hands out now."""
    token, jwks = folder / "token.jwt", folder / "jwks.json"
    token.write_text(httpx.get(url + PATH, headers={"accept": "application/jwt"}).raise_for_status().text)
    jwks.write_text(httpx.get(url + "/.well-known/jwks.json").raise_for_status().text)
    arguments = ["result", "verify", str(token), "--jwks", str(jwks), "--at", f"{at}", "--json", *options]
    return CliRunner().invoke(main, arguments, prog_name="attest")


# --- end to end -------------------------------------------------------------------------------------------------------
def test_a_result_is_checked_offline(world: World, url: str, tmp_path: Path) -> None:
    ended = verified(tmp_path, url, "--accept-emulated", "--accept-warnings")

    document = json.loads(ended.stdout)
    verdict = world.worker().verdict
    assert verdict is not None
    assert (ended.exit_code, document["status"]) == (0, "accepted")
    claims = document["ear"]
    assert claims["iss"] == world.store.domain
    assert set(claims["submods"]) == set(verdict.devices)
    assert claims[WORKER] == {"ip_address": IP, "worker_key": world.key.public_hex, "tls_spki_sha256": TLS}
    assert claims["urn:workermanager:ear:result"]["evidence_sha256"] == verdict.evidence_sha256
    assert claims["exp"] == int(verdict.not_after.timestamp())


def test_an_emulated_node_is_told_as_such(url: str, tmp_path: Path) -> None:
    document = json.loads(verified(tmp_path, url).stdout)

    assert document["status"] == "refused"
    assert "result-emulated" in {each["code"] for each in document["objections"]}


def test_the_nonce_is_that_of_the_statement(world: World, pki: Pki, url: str, tmp_path: Path) -> None:
    node = Node(pki, world)
    challenge = world.challenge(Purpose.ATTEST).challenge
    nonce = gpu_nonce(node.statement(challenge))
    world.attest(challenge=challenge, evidence=node.evidence(nonce), tls_spki_sha256=TLS)
    accepted = ("--accept-emulated", "--accept-warnings", "--nonce")

    assert verified(tmp_path, url, *accepted, nonce.hex()).exit_code == 0
    other = verified(tmp_path, url, *accepted, "00" * 32)

    assert (other.exit_code, "token-nonce-mismatch" in other.stdout) == (10, True)


def test_at_its_end_a_result_is_too_late(world: World, url: str, tmp_path: Path) -> None:
    verdict = world.worker().verdict
    assert verdict is not None
    options = ("--accept-emulated", "--accept-warnings")

    assert verified(tmp_path, url, *options, at=verdict.not_after - timedelta(seconds=1)).exit_code == 0
    assert verified(tmp_path, url, *options, at=verdict.not_after).exit_code == 10


def test_another_key_does_not_check_it(world: World, url: str, tmp_path: Path) -> None:
    ended = verified(tmp_path, url)
    assert ended.exit_code == 10
    (tmp_path / "jwks.json").write_text(json.dumps(Issuer.of(tmp_path / "other.key", "test").key_set()))

    arguments = ["result", "verify", str(tmp_path / "token.jwt"), "--jwks", str(tmp_path / "jwks.json")]
    other = CliRunner().invoke(main, [*arguments, "--at", str(NOON), "--json"])

    assert {each["code"] for each in json.loads(other.stdout)["objections"]} == {"token-key-unknown"}


def test_as_json_it_is_the_same_token(url: str) -> None:
    token = httpx.get(url + PATH, headers={"accept": "application/jwt"})
    with Client(url) as client:
        signed, keys = client.result(IP), client.key_set().keys

    assert token.headers["content-type"].startswith("application/jwt")
    assert signed.token == token.text
    assert signed.ear == claims_of(token.text)
    assert [key["kid"] for key in keys] == [RESULT_KEY.kid]
    assert not [key for key in keys if "d" in key]


# --- for how long it is handed out ------------------------------------------------------------------------------------
def absent(url: str) -> bool:
    with Client(url) as client, pytest.raises(ServerRefused) as refused:
        client.result(IP)
    return (refused.value.status, refused.value.code) == (404, "result-absent")


def test_none_before_the_first_verdict(world: World, url: str) -> None:
    world.execute(world.owner, "remove_worker", ip_address=IP)
    world.register(worker_type=TWO_GPUS)

    assert absent(url)


def test_none_when_trust_has_ended(world: World, url: str) -> None:
    until = world.worker().attested_until
    assert until is not None
    world.clock.now = until - timedelta(microseconds=1)
    assert httpx.get(url + PATH).status_code == 200

    world.clock.now = until
    assert absent(url)


def test_none_when_who_the_worker_is_has_changed(world: World, url: str) -> None:
    world.execute(world.owner, "set_worker_wallet", ip_address=IP, payment_wallet=world.stranger.address)

    assert absent(url)


def test_none_of_old_when_what_came_is_no_evidence(world: World, url: str) -> None:
    with pytest.raises(reasons.Refused):
        world.attest(evidence="no evidence")

    assert absent(url)


def test_a_refusal_is_signed_too(world: World, pki: Pki, url: str) -> None:
    Node(pki, world).attest(ip_address="another's")

    ear = httpx.get(url + PATH).json()["ear"]

    assert ear["ear_status"] == "contraindicated"


def test_what_cannot_be_signed_counts_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attest.tokens.TOKEN_CHARS_MAX", 100)
    world = World.good(tmp_path)

    assert world.worker().routable
    with pytest.raises(reasons.Refused) as refused:
        world.manager.result(IP)
    assert refused.value.problem is reasons.RESULT_ABSENT


# --- the key ----------------------------------------------------------------------------------------------------------
def test_the_key_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "result.key"

    first, second = Issuer.of(path, "test"), Issuer.of(path, "test")

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert first.key_set() == second.key_set()
    assert first.key.algorithm == "ES256"


def test_a_key_that_others_can_read_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "result.key"
    Issuer.of(path, "test")
    path.chmod(0o640)

    with pytest.raises(KeyFileError):
        Issuer.of(path, "test")
