"""The award: the winners, their prices, the standing of every bid and the price that it would have needed.

`auction.formats` decides, explains and checks awards.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Literal

import msgspec

from auction.model.bid import Announcement, Bid, Direction, commit_seed
from auction.model.errors import BadCurrency, BadValue, Exists

Outcome = Literal["won", "lost", "beyond_reserve", "not_considered", "refused"]
"""`lost` bids are within the reserve and stand by as runners-up, best first; `not_considered` ones gave way to
newcomers; `refused` ones broke a rule of the format, which `Standing.why` names."""


class Winning(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One winner's part: `price` is the whole price for `quantity` units or for all of `items`."""

    bid: str
    bidder: str
    price: int
    quantity: int = 1
    items: tuple[str, ...] = ()


class Standing(msgspec.Struct, frozen=True, gc=False):
    """The standing of one bid. Bids were compared by `score` (higher is better).

    `needed` is the least aggressive price that would have won for certain with all other bids unchanged: a price one
    minor unit less aggressive would at best have been a tie. None for winners, and if no price would have won.
    """

    bid: str
    bidder: str
    offered: int
    quality: int
    score: int
    outcome: Outcome
    needed: int | None = None
    why: str = ""


class Award(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The moderator's selection. Without winners the auction has failed. `standings` has every bid, best first.

    `unit_price` is set if all units have one price. `gap_ppm` bounds how far the value of the selection is below the
    best possible, in parts per million of the best (0: it is proved to be the best).
    `late` are the bids of parties that registered after the announcement; they come last in ties.
    """

    auction: str
    format: str
    direction: Direction
    currency: str
    reserve: int
    seed: str
    winners: tuple[Winning, ...]
    standings: tuple[Standing, ...]
    newcomers_only: bool = False
    tie_drawn: bool = False
    unit_price: int | None = None
    gap_ppm: int = 0
    late: tuple[str, ...] = ()

    @property
    def failed(self) -> bool:
        return not self.winners

    @property
    def runners_up(self) -> tuple[Standing, ...]:
        """The losing bids that are within the reserve, best first."""
        return self.first_runners_up(len(self.standings))

    def first_runners_up(self, count: int) -> tuple[Standing, ...]:
        """The best of them."""
        best: list[Standing] = []
        for standing in self.standings:
            if len(best) >= count:
                break
            if standing.outcome == "lost":
                best.append(standing)
        return tuple(best)


def conclude(
    announcement: Announcement,
    seed: bytes,
    winners: Sequence[Winning],
    standings: Sequence[Standing],
    *,
    newcomers_only: bool = False,
    tie_drawn: bool = False,
    unit_price: int | None = None,
    gap_ppm: int = 0,
    late: Sequence[str] = (),
) -> Award:
    """The award of an announced auction, completed from the announcement."""
    return Award(
        auction=announcement.auction,
        format=announcement.format,
        direction=announcement.direction,
        currency=announcement.currency,
        reserve=announcement.reserve,
        seed=seed.hex(),
        winners=tuple(winners),
        standings=tuple(standings),
        newcomers_only=newcomers_only,
        tie_drawn=tie_drawn,
        unit_price=unit_price,
        gap_ppm=gap_ppm,
        late=tuple(late),
    )


class Draw:
    """The tie breaker: of equal bids the one whose party has the lowest SHA-256 of seed, auction, announcer's nonce and
    party goes first. Parties that registered after the announcement come after all others, so a name made for a tie
    does not win it. The announcement commits to the seed before bidding. Raises BadValue if the seed is not the
    announced one."""

    __slots__ = ("_announced", "_prefix")

    def __init__(self, announcement: Announcement, seed: bytes) -> None:
        if commit_seed(announcement.auction, seed) != announcement.seed_commitment:
            raise BadValue(f"the seed is not the one that auction {announcement.auction} commits to")
        nonce = announcement.nonce
        auction = (f"{announcement.auction}\0{nonce}" if nonce else announcement.auction).encode()
        self._prefix = b"auction.draw\0%d\0%b%d\0%b" % (len(seed), seed, len(auction), auction)
        self._announced = announcement.sequence

    def of(self, party: str, registered: int = 0) -> bytes:
        """What decides between equal bids, the lowest first. `registered`: the entry that the party came with."""
        is_late = b"\1" if registered > self._announced else b"\0"
        return is_late + hashlib.sha256(self._prefix + party.encode()).digest()

    def among(self, parts: int) -> int:
        """A number from 0 to parts - 1 that depends on the auction and on no bid."""
        return int.from_bytes(hashlib.sha256(self._prefix + b"\0share").digest(), "big") % parts


def check_bids(announcement: Announcement, bids: Iterable[Bid]) -> list[Bid]:
    """Returns the bids in the moderator's order. Raises BadValue for another auction's bid, BadCurrency, and Exists if
    a bid or a sequence number occurs twice."""
    ordered = sorted(bids, key=attrgetter("sequence"))
    auction, currency = announcement.auction, announcement.currency
    names = set()
    previous = -1
    for bid in ordered:
        if bid.auction != auction:
            raise BadValue(f"bid {bid.bid} was made in auction {bid.auction}, not {auction}")
        if bid.currency != currency:
            raise BadCurrency(f"bid {bid.bid} is in {bid.currency}, the auction in {currency}")
        if bid.sequence == previous:
            raise Exists(f"bid {bid.bid} has the sequence number of another bid")
        previous = bid.sequence
        names.add(bid.bid)
    if len(names) != len(ordered):
        raise Exists("two bids have the same name")
    return ordered


def latest_of_each(ordered: Iterable[Bid]) -> list[Bid]:
    """The last bid of each bidder: in sealed formats a later bid replaces an earlier one."""
    return list({bid.bidder: bid for bid in ordered}.values())


def no_set_aside(announcement: Announcement) -> None:
    """Raises BadValue if the announcement reserves a share for newcomers and the format cannot."""
    if announcement.newcomer_share_ppm:
        raise BadValue(f"the format {announcement.format} reserves nothing for newcomers; use a sealed format")


def price_only(announcement: Announcement) -> None:
    """Raises BadValue if the announcement weighs quality and the format compares only prices."""
    if announcement.quality.opinion or announcement.quality.evidence:
        raise BadValue(f"the format {announcement.format} compares only prices; use a score format to weigh quality")
