"""A thin auction and rating layer for blocks of time of a service. It imports nothing of streamcore.

`from auction import Moderator` is where to begin; docs/auction.md has twenty lines to copy.
"""

from auction.block import Block
from auction.clock import ManualClock
from auction.config import MarketConfig
from auction.delivery import Delivery, Sample
from auction.errors import AuctionError
from auction.moderator import AsyncModerator, AuctionTerms, BidEntry, Moderator
from auction.store import MemoryStore, SqlStore

__all__ = [
    "AsyncModerator",
    "AuctionError",
    "AuctionTerms",
    "BidEntry",
    "Block",
    "Delivery",
    "ManualClock",
    "MarketConfig",
    "MemoryStore",
    "Moderator",
    "Sample",
    "SqlStore",
]
