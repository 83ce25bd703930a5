"""A thin auction and rating layer for blocks of time of a service. It imports nothing of streamcore.

Start with `from auction import Moderator`; docs/auction.md has twenty lines to copy.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from auction.model.block import Block
from auction.model.errors import AuctionError
from auction.model.fees import Fee
from auction.moderator import AuctionTerms, BidEntry, Moderator
from auction.moderator.clock import ManualClock
from auction.moderator.config import MarketConfig
from auction.storage.store import MemoryStore

if TYPE_CHECKING:
    from auction.moderator.aio import AsyncModerator
    from auction.storage.sql_store import SqlStore
    from auction.web.client import MarketClient

__all__ = [
    "AsyncModerator",
    "AuctionError",
    "AuctionTerms",
    "BidEntry",
    "Block",
    "Fee",
    "ManualClock",
    "MarketClient",
    "MarketConfig",
    "MemoryStore",
    "Moderator",
    "SqlStore",
]

# Imported on first use: SQLAlchemy, asyncio and HTTP take twice as long to import as everything else.
_WHEN_ASKED = {
    "AsyncModerator": "auction.moderator.aio",
    "MarketClient": "auction.web.client",
    "SqlStore": "auction.storage.sql_store",
}


def __getattr__(name: str) -> Any:
    if name not in _WHEN_ASKED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_WHEN_ASKED[name]), name)
