"""The moderator: the only writer of the market."""

from auction.moderator.aio import AsyncModerator
from auction.moderator.facade import Moderator
from auction.moderator.terms import AuctionTerms, AuctionView, BidEntry, Held

__all__ = ["AsyncModerator", "AuctionTerms", "AuctionView", "BidEntry", "Held", "Moderator"]
