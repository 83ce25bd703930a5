"""The moderator: the only writer of the market.

`state` is the fold of the journal. Plain functions in `rules` decide a command on a `draft` of it; `core` journals and
commits the draft. Callers use one object, `Moderator`: `commands` and `payments` have the methods that write, `queries`
those that read, and `methods` is the table of all. There are no import cycles: a file imports only those before it in
this list.

config, clock, terms, records, people, reputation, retiring, state, older, upgrade, saved, invariants, draft, rules,
arguments,
methods, core, assignments, overview, queries, payments, commands, awaited, aio
"""

from auction.moderator.commands import Moderator
from auction.moderator.terms import AuctionTerms, AuctionView, BidEntry, Held

__all__ = ["AuctionTerms", "AuctionView", "BidEntry", "Held", "Moderator"]
