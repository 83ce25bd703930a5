"""The sealed formats for one block: first and second score, first and second price. Pure.

Score = value of measured quality - price where providers bid, + price where recipients bid. The second-score rule is
truthful for one-shot, private-cost, single-unit supply, and no more is said of it (after Vickrey 1961; Che 1993).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter
from typing import Any, Protocol

from auction.model.award import (
    Award,
    Draw,
    Outcome,
    Standing,
    Winning,
    check_bids,
    conclude,
    latest_of_each,
    price_only,
)
from auction.model.bid import Announcement, Bid, Ratings, quality_value
from auction.model.money import AMOUNT_MAX, PPM


class Offered(Protocol):
    """What these rules read of a bid."""

    @property
    def bid(self) -> str: ...
    @property
    def bidder(self) -> str: ...
    @property
    def price(self) -> int: ...


SEALED_FOR_ONE = frozenset({"second_score", "first_score", "first_price", "second_price"})
Row = tuple[int, int, Any]  # score, quality value, bid (Offered)


def second_score(announcement: Announcement, bids: Iterable[Bid], ratings: Ratings, seed: bytes) -> Award:
    """The best score wins at the price that brings it down to the runner-up's score, bounded by the reserve."""
    return award_among(announcement, _arrived(announcement, bids), ratings, seed)


def first_score(announcement: Announcement, bids: Iterable[Bid], ratings: Ratings, seed: bytes) -> Award:
    """The best score wins at its own price: for a moderator whom the bidders do not trust with the runner-up's."""
    return award_among(announcement, _arrived(announcement, bids), ratings, seed)


def first_price(announcement: Announcement, bids: Iterable[Bid], ratings: Ratings, seed: bytes) -> Award:
    """The best price wins at its own price. Raises BadValue where quality was to weigh."""
    price_only(announcement)
    return award_among(announcement, _arrived(announcement, bids), ratings, seed)


def second_price(announcement: Announcement, bids: Iterable[Bid], ratings: Ratings, seed: bytes) -> Award:
    """The best price wins at the runner-up's, or at the reserve. Raises BadValue where quality was to weigh."""
    price_only(announcement)
    return award_among(announcement, _arrived(announcement, bids), ratings, seed)


def _arrived(announcement: Announcement, bids: Iterable[Bid]) -> list[Bid]:
    return latest_of_each(check_bids(announcement, bids))


def award_among(announcement: Announcement, bids: Iterable[Offered], ratings: Ratings, seed: bytes) -> Award:
    """The award of any of these formats among bids that are this auction's, one of each bidder, in order."""
    second = announcement.format in ("second_score", "second_price")
    draw = Draw(announcement, seed)
    considered, beyond = _score(announcement, bids, ratings)
    for_newcomers = bool(announcement.newcomer_share_ppm) and draw.among(PPM) < announcement.newcomer_share_ppm
    aside: list[Row] = []
    if for_newcomers and any(is_newcomer(ratings, row[2].bidder) for row in considered):
        aside = [row for row in considered if not is_newcomer(ratings, row[2].bidder)]
        considered = [row for row in considered if is_newcomer(ratings, row[2].bidder)]
    tie_drawn = rank(considered, draw)
    rank(beyond, draw)
    rank(aside, draw)
    standings: list[Standing] = []
    winners: tuple[Winning, ...] = ()
    newcomers_only = False
    if considered:
        best_score, best_value, best = considered[0]
        newcomers_only = for_newcomers and is_newcomer(ratings, best.bidder)
        price = second_best_price(announcement, considered) if second else best.price
        winners = (Winning(bid=best.bid, bidder=best.bidder, price=price),)
        standings.append(Standing(best.bid, best.bidder, best.price, best_value, best_score, "won"))
        standings += _losing(announcement, considered[1:], "lost", considered[0])
    for row in beyond:
        newcomer = for_newcomers and is_newcomer(ratings, row[2].bidder)
        if newcomers_only and not newcomer:
            score, value, bid = row
            why = "and this auction was drawn for newcomers"
            standings.append(Standing(bid.bid, bid.bidder, bid.price, value, score, "beyond_reserve", None, why))
        else:
            rival = considered[0] if considered and newcomers_only == newcomer else None
            standings += _losing(announcement, [row], "beyond_reserve", rival)
    standings += [
        Standing(bid.bid, bid.bidder, bid.price, value, score, "not_considered") for score, value, bid in aside
    ]
    return conclude(announcement, seed, winners, standings, newcomers_only=newcomers_only, tie_drawn=tie_drawn)


def award_by_price(
    announcement: Announcement, name_of: Callable[[int], str], bidders: Sequence[str], prices: Sequence[int]
) -> tuple[tuple[Winning, ...], list[int]] | None:
    """The winners that `award_among` gives where prices alone decide and no two are equal, and the places of the bids
    within the reserve, best first. None where it takes more than that. One bid of each bidder.

    `name_of` says what the bid in a place is called."""
    weights = announcement.quality
    if weights.opinion or weights.evidence or announcement.newcomer_share_ppm or len(set(prices)) < len(prices):
        return None
    sign, reserve = announcement.sign, announcement.reserve
    ranked = sorted(range(len(prices)), key=prices.__getitem__, reverse=sign > 0)
    ranked = [place for place in ranked if sign * prices[place] >= sign * reserve]
    winners: tuple[Winning, ...] = ()
    if ranked:
        best = ranked[0]
        price = prices[best]
        if announcement.format in ("second_score", "second_price"):
            price = prices[ranked[1]] if len(ranked) > 1 else reserve
        winners = (Winning(bid=name_of(best), bidder=bidders[best], price=price),)
    return winners, ranked


def _score(announcement: Announcement, bids: Iterable[Offered], ratings: Ratings) -> tuple[list[Row], list[Row]]:
    """The bids within the reserve and those beyond it, scored."""
    sign, weights = announcement.sign, announcement.quality
    weighs = bool(weights.opinion or weights.evidence)
    bound = sign * announcement.reserve
    within: list[Row] = []
    beyond: list[Row] = []
    value = 0
    for bid in bids:
        signed = sign * bid.price
        if weighs:
            value = quality_value(weights, ratings.get(bid.bidder))
        (within if signed >= bound else beyond).append((value + signed, value, bid))
    return within, beyond


def rank(rows: list[Row], draw: Draw) -> bool:
    """Sort the rows in place, best first, equal ones by the draw. True if the first place was a tie."""
    scores = [row[0] for row in rows]
    if len(set(scores)) == len(scores):
        rows.sort(key=itemgetter(0), reverse=True)
        return False
    often = Counter(scores)
    rows.sort(key=lambda row: (-row[0], draw.of(row[2].bid) if often[row[0]] > 1 else b""))
    return often[rows[0][0]] > 1


def second_best_price(announcement: Announcement, ranked: list[Row]) -> int:
    """The price at which the first row's score equals the second row's; the reserve bounds it, or is it if alone."""
    sign = announcement.sign
    signed = sign * announcement.reserve
    if len(ranked) > 1:
        signed = max(signed, ranked[1][0] - ranked[0][1])
    return sign * signed


def _losing(announcement: Announcement, rows: list[Row], outcome: Outcome, rival: Row | None) -> list[Standing]:
    """Standings of bids that did not win against `rival`, with the price that would have for sure."""
    sign = announcement.sign
    bound = sign * announcement.reserve
    standings = []
    for score, value, bid in rows:
        # One minor unit above the rival's score: with an equal one the draw would decide.
        signed = bound if rival is None else max(bound, rival[0] - value + 1)
        needed = sign * signed
        reachable = needed if 0 <= needed <= AMOUNT_MAX else None
        standings.append(Standing(bid.bid, bid.bidder, bid.price, value, score, outcome, reachable))
    return standings


def is_newcomer(ratings: Ratings, bidder: str) -> bool:
    """Whether a bidder is new to the service: its rating says so, or there is none."""
    rating = ratings.get(bidder)
    return rating is None or rating.newcomer
