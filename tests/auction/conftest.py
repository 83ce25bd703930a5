"""The stores that a market test runs on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import Phase, settings

import auction
from auction.storage.store import MemoryStore, Store
from tests.examples import examples

# No deadline: machines differ, and a slow example is no wrong one. `planted` only looks for a failure and shrinks
# nothing: test_planted_bugs.py starts pytest with it.
settings.register_profile(
    "planted", deadline=None, derandomize=True, database=None, max_examples=300, phases=(Phase.explicit, Phase.generate)
)
settings.register_profile("thorough", deadline=None, max_examples=3000)  # AUCTION_TEST_PROFILE=thorough pytest …


def pytest_configure() -> None:
    settings.register_profile("auction", deadline=None, max_examples=examples(100))
    settings.load_profile(os.environ.get("AUCTION_TEST_PROFILE", "auction"))


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return MemoryStore() if request.param == "memory" else auction.SqlStore(f"sqlite:///{tmp_path / 'market.db'}")
