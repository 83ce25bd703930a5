"""The interface of an auction format, and the functions that most formats share.

The table of formats is in `__init__`; the rule of each format is in its own file. Everything here is pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import msgspec

from auction.model.award import Award, Standing, Winning
from auction.model.bid import Announcement, Bid, Closing, Ratings


class Decide(Protocol):
    """Selects the winners and sets their prices. Equal arguments give equal awards on every machine."""

    def __call__(self, announcement: Announcement, bids: Iterable[Bid], ratings: Ratings, seed: bytes, /) -> Award: ...


class Bidding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An auction while bids come in: its close, how often that was moved, and `ended` once a bid has ended it. In an
    open format also the leader, the standing price, and the leader's secret limit."""

    closes_ms: int
    extensions: int = 0
    ended: bool = False
    leader: Bid | None = None
    price: int = 0
    limit: int = 0


class ByPrice(Protocol):
    """Computes the winners of `decide` from columns of prices alone: a short cut for auctions held in one command.
    Returns None if only `decide` can tell."""

    def __call__(
        self,
        announcement: Announcement,
        name_of: Callable[[int], str],
        bidders: Sequence[str],
        prices: Sequence[int],
        /,
    ) -> tuple[Winning, ...] | None: ...


def extend(closing: Closing, bidding: Bidding, placed_ms: int) -> Bidding:
    """The soft close: a bid shortly before the close moves it, at most a stated number of times."""
    if bidding.extensions >= closing.extend_times_max or placed_ms < bidding.closes_ms - closing.extend_within_ms:
        return bidding
    later_ms = placed_ms + closing.extend_by_ms
    if later_ms <= bidding.closes_ms:
        return bidding
    return msgspec.structs.replace(bidding, closes_ms=later_ms, extensions=bidding.extensions + 1)


def take_sealed(announcement: Announcement, bidding: Bidding, bid: Bid) -> Bidding:
    """A sealed bid can only move the close."""
    return extend(announcement.closing, bidding, bid.placed_ms)


def keep(announcement: Announcement, bidding: Bidding, bids: Iterable[Bid]) -> Bidding:
    """No bid but the last one matters while bidding goes on."""
    return bidding


def show_after_close(bid: Bid, reader: str, may_see: bool) -> Bid | None:
    """Only its bidder can see a sealed bid before the close, and only those who took part after it."""
    return bid if may_see or bid.bidder == reader else None


def reserve_bounds(announcement: Announcement, quantity: int, items: tuple[str, ...]) -> int:
    """The reserve is for everything that a winner gets."""
    return announcement.reserve


def every_unit(announcement: Announcement, quantity: int) -> int:
    """A bid is for everything announced, whatever quantity it states."""
    return announcement.quantity


def stands_by_at_own_price(winning: Winning, bid: Bid, standing: Standing) -> int | None:
    """Every losing bid was for what the winner got, so it stands by at its own price."""
    return standing.offered


def nothing_more(announcement: Announcement, award: Award, bid: Bid, ratings: Ratings) -> None:
    """One bidder alone can only check that its bid was counted."""


class Format(msgspec.Struct, frozen=True, kw_only=True):
    """One auction format, as a row of the table.

    `decide`: makes the award. `words`: its rule, for `explain`. `checks`: the checks of an announcement; each raises.
    `price_bound`: the worst price, in minor units, at which so many units or these items may be won (the highest if
    providers bid, the lowest if recipients do). `units`: how many of the announced units a bid that states a quantity
    may be awarded; the bidder needs the capacity for them. `on_bid`: handles a bid during bidding; raises for one that
    the format refuses. `on_back_up`: checks a bid that leaves the bidding as it is beside its bidder's former one;
    raises. None: the format has no back-ups. `again`: the bidding as it would be by these bids alone, in the
    moderator's order, with its close where it is. `shows`: the bid as a reader may see it, or None; the last
    argument says whether the auction is over and the reader took part in it. `runner_up`: the price at which a
    losing bid stands by for exactly what a winner got, or None if it was for something else. `check_own`: checks an
    award as far as one bidder can without the others' bids; raises TranscriptWrong. `by_price`: see `ByPrice`.
    """

    decide: Decide
    words: str
    checks: tuple[Callable[[Announcement], object], ...] = ()
    price_bound: Callable[[Announcement, int, tuple[str, ...]], int] = reserve_bounds
    units: Callable[[Announcement, int], int] = every_unit
    on_bid: Callable[[Announcement, Bidding, Bid], Bidding] = take_sealed
    on_back_up: Callable[[Announcement, Bid | None, Bid], None] | None = None
    again: Callable[[Announcement, Bidding, Iterable[Bid]], Bidding] = keep
    shows: Callable[[Bid, str, bool], Bid | None] = show_after_close
    runner_up: Callable[[Winning, Bid, Standing], int | None] = stands_by_at_own_price
    check_own: Callable[[Announcement, Award, Bid, Ratings], None] = nothing_more
    by_price: ByPrice | None = None
