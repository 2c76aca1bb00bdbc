"""The one good world of these tests, made once."""

import pytest
from hypothesis import settings

from tests.attest.world import World

# No example has a time limit of its own: on a busy machine any may take long. Those that must be quick measure it.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    return World.made(tmp_path_factory.mktemp("attest"))


@pytest.fixture(scope="session")
def good(world):
    """Evidence of one good device for NONCE."""
    return world.evidence()
