"""The one good world of these tests, made once."""

import pytest

from tests.attest.world import World


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    return World.made(tmp_path_factory.mktemp("attest"))


@pytest.fixture(scope="session")
def good(world):
    """Evidence of one good device for NONCE."""
    return world.evidence()
