"""The moderator: the only writer of the market.

`state` is the fold of the journal, and a command is decided on a `draft` of it by plain functions in `rules`. `core`
journals and commits what was decided; `commands` are what a caller calls, one class for each subject, and `Moderator`
in `facade` is all of them. A file imports only what stands before it here, so that nothing goes round in a circle:

config, clock, terms, records, reputation, state, invariants, draft, rules, core, assigned, overview, commands, facade,
awaited, aio
"""

from auction.moderator.facade import Moderator
from auction.moderator.terms import AuctionTerms, AuctionView, BidEntry, Held

__all__ = ["AuctionTerms", "AuctionView", "BidEntry", "Held", "Moderator"]
