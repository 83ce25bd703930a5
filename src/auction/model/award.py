"""The award: who won, at what price, where every bid stood and what it would have needed, and the words for it.

Here live the result and its explanation. How it is decided stands in formats, how a bidder checks it in transcript.
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
"""`lost` bids are within the reserve and stay armed as runners-up, best first; `not_considered` ones were set aside in
favour of newcomers; `refused` ones broke a rule of the format, which `Standing.why` names."""


class Winning(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What one winner gets: `price` is the whole price for `quantity` units or for all of `items`."""

    bid: str
    bidder: str
    price: int
    quantity: int = 1
    items: tuple[str, ...] = ()


class Standing(msgspec.Struct, frozen=True, gc=False):
    """Where one bid stood. `score` is what was compared (higher is better).

    `needed` is the worst price for the rivals, in the bid's own terms, that would have won for sure with all other bids
    unchanged: one minor unit short of it would at most have come to a draw. None for winners, and where no price would.
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

    `unit_price` is set where one price holds for all units; `gap_ppm` is how far the value of the selection may be
    below the best, as parts per million of the best (0: proved to be the best).
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
) -> Award:
    """The award of an announced auction, with what the announcement says already."""
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
    )


class Draw:
    """The tie breaker: among equal bids the lowest SHA-256 of seed, auction and bid goes first. Seeds are bound before
    bidding by their commitment; raises BadValue where the seed is not the announced one."""

    __slots__ = ("_prefix",)

    def __init__(self, announcement: Announcement, seed: bytes) -> None:
        if commit_seed(announcement.auction, seed) != announcement.seed_commitment:
            raise BadValue(f"the seed is not the one that auction {announcement.auction} was announced with")
        auction = announcement.auction.encode()
        self._prefix = b"auction.draw\0%d\0%b%d\0%b" % (len(seed), seed, len(auction), auction)

    def of(self, bid: str) -> bytes:
        return hashlib.sha256(self._prefix + bid.encode()).digest()

    def among(self, parts: int) -> int:
        """A number from 0 to parts - 1 that belongs to the auction and no bid."""
        return int.from_bytes(hashlib.sha256(self._prefix + b"\0share").digest(), "big") % parts


def check_bids(announcement: Announcement, bids: Iterable[Bid]) -> list[Bid]:
    """Return the bids in the moderator's order. Raises BadValue for another auction's bid, BadCurrency, and Exists
    where a bid or a sequence number stands twice."""
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
    """The last bid of each bidder: in sealed formats a later bid takes the place of the earlier."""
    return list({bid.bidder: bid for bid in ordered}.values())


def no_set_aside(announcement: Announcement) -> None:
    """Raises BadValue where a share was to be set aside for newcomers in a format that cannot."""
    if announcement.newcomer_share_ppm:
        raise BadValue(f"the format {announcement.format} sets nothing aside for newcomers; take a sealed one")


def price_only(announcement: Announcement) -> None:
    """Raises BadValue where quality was to weigh in a format that compares prices alone."""
    if announcement.quality.opinion or announcement.quality.evidence:
        raise BadValue(f"the format {announcement.format} compares prices alone; take a score format to weigh quality")


_RULES = {
    "second_score": "the best score wins at the price that brings it down to the runner-up's score, within the reserve",
    "first_score": "the best score wins at its own price",
    "first_price": "the best price wins and holds",
    "second_price": "the best price wins at the runner-up's price, or at the reserve where there is none",
    "open": "the last leader of the open bidding wins at the standing price",
    "dutch": "the first to accept the price on the ramp wins at it",
    "uniform_price": "units go to the best prices, all at the price of the best unit that lost, or at the reserve",
    "spot": "the standing offer with the best score wins at its own price",
    "packages": "the most valuable choice of packages wins; each is priced by what it changes for the others",
    "packages_large": "the most valuable choice of packages that was found wins at its own prices",
}


def explain(award: Award) -> str:
    """Say in words and numbers why the award is what it is: winner, price rule, second, and what each loser needed."""
    lines = [f"Auction {award.auction} ({award.format}): {_RULES.get(award.format, 'a format of its own')}."]
    lines.append(_conditions(award))
    standing_of = {standing.bid: standing for standing in award.standings}
    if award.failed:
        lines.append("No award: no bid was within the reserve.")
    for winning in award.winners:
        lines.append(_why_it_won(award, winning, standing_of[winning.bid]))
    runners_up = award.runners_up
    if not award.failed:
        if runners_up:
            second = runners_up[0]
            lines.append(f"Second was {second.bid} of {second.bidder} at {second.offered}, score {second.score}.")
        else:
            lines.append("There was no second bid within the reserve.")
    lines.extend(_why_it_lost(award, standing) for standing in award.standings if standing.outcome != "won")
    return "\n".join(lines)


def _conditions(award: Award) -> str:
    side = "at most" if award.direction == "provide" else "at least"
    words = f"Amounts are minor units of {award.currency}; the reserve is {side} {award.reserve}."
    if award.newcomers_only:
        words += " The seed drew this auction for newcomers, so they alone were considered."
    if award.tie_drawn:
        words += " A tie was broken by the lowest hash of seed, auction and bid."
    if award.gap_ppm:
        words += f" The choice is within {award.gap_ppm} millionths of the best possible value."
    return words


def _why_it_won(award: Award, winning: Winning, standing: Standing) -> str:
    what = f"{winning.quantity} units" if winning.quantity != 1 else "it"
    if winning.items:
        what = " + ".join(winning.items)
    verb = "is paid" if award.direction == "provide" else "pays"
    words = (
        f"{winning.bid} of {winning.bidder} won {what}: it offered {standing.offered}, its quality is worth "
        f"{standing.quality}, its score is {standing.score}; it {verb} {winning.price}"
    )
    return words + (f" ({award.unit_price} a unit)." if award.unit_price is not None else ".")


def _why_it_lost(award: Award, standing: Standing) -> str:
    words = f"{standing.bid} of {standing.bidder} offered {standing.offered}, score {standing.score}: "
    if standing.outcome == "not_considered":
        return words + "not considered, since this auction was drawn for newcomers."
    if standing.outcome == "refused":
        return words + f"refused, {standing.why}."
    words += "beyond the reserve; " if standing.outcome == "beyond_reserve" else ""
    if standing.needed is None:
        return words + (standing.why or "no price would have won") + "."
    side = "or less" if award.direction == "provide" else "or more"
    return words + f"{standing.needed} {side} would have won."
