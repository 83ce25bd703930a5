"""The moderator as a whole: every command of the market."""

from __future__ import annotations

from auction.moderator.commands.agreements import Agreements
from auction.moderator.commands.auctions import Auctions
from auction.moderator.commands.blocks import Blocks
from auction.moderator.commands.endpoints import Endpoints
from auction.moderator.commands.groups import Groups
from auction.moderator.commands.parties import Parties
from auction.moderator.commands.payments import Payments
from auction.moderator.commands.ratings import Ratings
from auction.moderator.commands.shares import Shares
from auction.moderator.commands.spot import Spot


class Moderator(Parties, Blocks, Auctions, Spot, Agreements, Payments, Ratings, Shares, Groups, Endpoints):
    """Conducts auctions, keeps agreements, charges and ratings; the only writer of its market.

    `store` is where the market is kept (in memory without one); `clock` returns ms since 1970; `random_bytes` makes
    tokens and tie-breaking seeds. Every command takes a `key`: sent again under the same key, it has one effect and the
    same answer. Every command either does all it says or raises an `AuctionError` and changes nothing."""
