"""The full path of the market: a whole auction as one command, decided, journalled, and durable where it says so.

The rules alone stand in bench_auction_rules.py, the peers and the tails of the times in peers_auction.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from peers_auction import Market, spot_step

from auction import MemoryStore, SqlStore


@pytest.mark.parametrize("bids", [10, 100])
def test_a_sealed_auction_in_memory(benchmark: Any, bids: int) -> None:
    benchmark(Market(MemoryStore(), bids).auction)


def test_a_sealed_auction_of_ten_signed_bids_in_memory(benchmark: Any) -> None:
    market = Market(MemoryStore(), 10, signed=True)

    def setup() -> tuple[tuple[Any, ...], dict[str, Any]]:
        return next(market.ready), {}

    def hold(name: str, entries: list[Any]) -> None:
        market.moderator.hold_auction("rita", market.block(), market.terms, entries, auction=name)

    benchmark.pedantic(hold, setup=setup, rounds=300)


def test_spot_among_a_hundred_standing_offers(benchmark: Any) -> None:
    benchmark(spot_step(Market(MemoryStore(), 100)))


@pytest.mark.parametrize("auctions", [1, 64])
def test_auctions_of_ten_bids_a_commit_on_sqlite(benchmark: Any, tmp_path: Path, auctions: int) -> None:
    market = Market(SqlStore(f"sqlite:///{tmp_path / 'market.db'}"), 10)
    benchmark.extra_info["auctions"] = auctions
    benchmark(market.group, auctions)
