"""The moderator: the only writer of the market.

`state` is the fold of the journal, and a command is decided on a `draft` of it by plain functions in `rules`. `core`
journals and commits what was decided. A caller calls one object, `Moderator`: its methods that write stand in
`commands` and `payments`, those that read in `queries`. `methods` is the table of them all. A file imports only what
stands before it here, so that nothing goes round in a circle:

config, clock, terms, records, reputation, state, upgrade, saved, invariants, draft, rules, arguments, methods, core,
assignments, overview, queries, payments, commands, awaited, aio
"""

from auction.moderator.commands import Moderator
from auction.moderator.terms import AuctionTerms, AuctionView, BidEntry, Held

__all__ = ["AuctionTerms", "AuctionView", "BidEntry", "Held", "Moderator"]
