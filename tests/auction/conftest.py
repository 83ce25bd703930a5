"""The stores that a market test runs on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import Phase, settings
from seeds import Players

from auction.store import MemoryStore, SqlStore, Store

# No deadline: machines differ, and a slow example is no wrong one. `planted` only looks for a failure and shrinks
# nothing: test_planted_bugs.py starts pytest with it.
settings.register_profile("auction", deadline=None)
settings.register_profile(
    "planted", deadline=None, derandomize=True, database=None, max_examples=300, phases=(Phase.explicit, Phase.generate)
)
settings.register_profile("thorough", deadline=None, max_examples=3000)  # AUCTION_TEST_PROFILE=thorough pytest …
settings.load_profile(os.environ.get("AUCTION_TEST_PROFILE", "auction"))


# The seeds of the simulation are played while the other tests run: see seeds.py.
PLAYING = "test_no_seed_breaks_an_invariant"
PLAYERS = pytest.StashKey[Players]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.name == PLAYING)  # the last one asks what they have found


def pytest_collection_finish(session: pytest.Session) -> None:
    if session.items and session.items[-1].name == PLAYING and not session.config.option.collectonly:
        session.config.stash[PLAYERS] = Players(int(os.environ.get("AUCTION_SEEDS", "150")))


def pytest_unconfigure(config: pytest.Config) -> None:
    if PLAYERS in config.stash:
        config.stash[PLAYERS].stop()


@pytest.fixture
def seed_players(request: pytest.FixtureRequest) -> Players:
    return request.config.stash[PLAYERS]


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return MemoryStore() if request.param == "memory" else SqlStore(f"sqlite:///{tmp_path / 'market.db'}")
