"""The stores that a market test runs on."""

from __future__ import annotations

from pathlib import Path

import pytest

from auction.store import MemoryStore, SqlStore, Store


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return MemoryStore() if request.param == "memory" else SqlStore(f"sqlite:///{tmp_path / 'market.db'}")
