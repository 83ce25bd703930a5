"""The sealed formats for one block: first and second score, first and second price. Pure.

Score = value of measured quality - price where providers bid, + price where recipients bid. The second-score rule is
truthful for one-shot, private-cost, single-unit supply; no more is claimed (after Vickrey 1961; Che 1993).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter

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
from auction.model.errors import TranscriptWrong
from auction.model.money import AMOUNT_MAX, PPM
from auction.model.weighing import insured_quality_ppm

Row = tuple[int, int, Bid]  # score, quality value, bid


def second_score(announcement: Announcement, bids: Iterable[Bid], ratings: Ratings, seed: bytes) -> Award:
    """The best score wins at the price that brings it down to the runner-up's score, bounded by the reserve."""
    return _decide(announcement, bids, ratings, seed, second_best_price)


def first_score(announcement: Announcement, bids: Iterable[Bid], ratings: Ratings, seed: bytes) -> Award:
    """The best score wins at its own price: for bidders that do not trust the moderator to state the runner-up's."""
    return _decide(announcement, bids, ratings, seed, own_price)


def first_price(announcement: Announcement, bids: Iterable[Bid], ratings: Ratings, seed: bytes) -> Award:
    """The best price wins at its own price. Raises BadValue if quality should weigh."""
    price_only(announcement)
    return first_score(announcement, bids, ratings, seed)


def second_price(announcement: Announcement, bids: Iterable[Bid], ratings: Ratings, seed: bytes) -> Award:
    """The best price wins at the runner-up's, or at the reserve. Raises BadValue if quality should weigh."""
    price_only(announcement)
    return second_score(announcement, bids, ratings, seed)


def own_price(announcement: Announcement, ranked: list[Row]) -> int:
    """The first row's own price."""
    return ranked[0][2].price


def second_best_price(announcement: Announcement, ranked: list[Row]) -> int:
    """The price at which the first row's score equals the second row's, bounded by the reserve. Without a second row,
    the reserve."""
    sign = announcement.sign
    signed = sign * announcement.reserve
    if len(ranked) > 1:
        signed = max(signed, ranked[1][0] - ranked[0][1])
    return sign * signed


def _decide(
    announcement: Announcement,
    bids: Iterable[Bid],
    ratings: Ratings,
    seed: bytes,
    price_of: Callable[[Announcement, list[Row]], int],
) -> Award:
    """The award of any of these formats; `price_of` computes the first ranked bid's price."""
    draw = Draw(announcement, seed)
    considered, beyond = _score(announcement, latest_of_each(check_bids(announcement, bids)), ratings)
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
        price = price_of(announcement, considered)
        winners = (Winning(bid=best.bid, bidder=best.bidder, price=price, quantity=announcement.quantity),)
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
    late = [row[2].bid for row in (*considered, *beyond, *aside) if row[2].registered > announcement.sequence]
    drawn = {"newcomers_only": newcomers_only, "tie_drawn": tie_drawn}
    return conclude(announcement, seed, winners, standings, late=late, **drawn)


def first_by_price(
    announcement: Announcement, name_of: Callable[[int], str], bidders: Sequence[str], prices: Sequence[int]
) -> tuple[Winning, ...] | None:
    """See `ByPrice`: the best price wins at its own price. None if quality weighs, a draw or a share for newcomers
    decides, or a bidder bids twice."""
    best = _best_prices(announcement, bidders, prices)
    return best and _won_by_price(announcement, name_of, bidders, prices, best[0], best[0])


def second_by_price(
    announcement: Announcement, name_of: Callable[[int], str], bidders: Sequence[str], prices: Sequence[int]
) -> tuple[Winning, ...] | None:
    """See `ByPrice`: the best price wins at the second-best price, or at the reserve. None as in `first_by_price`."""
    best = _best_prices(announcement, bidders, prices)
    return best and _won_by_price(announcement, name_of, bidders, prices, *best)


def _best_prices(
    announcement: Announcement, bidders: Sequence[str], prices: Sequence[int]
) -> tuple[int, int] | tuple[()] | None:
    """The best price within the reserve, and the second-best or else the reserve; empty if no price is within the
    reserve. None if prices alone do not decide."""
    if announcement.weighs_ratings:
        return None
    if len(set(prices)) < len(prices) or len(set(bidders)) < len(bidders):
        return None
    sign, reserve = announcement.sign, announcement.reserve
    ranked = sorted(prices, reverse=sign > 0)
    if not ranked or sign * ranked[0] < sign * reserve:
        return ()
    return ranked[0], ranked[1] if len(ranked) > 1 and sign * ranked[1] >= sign * reserve else reserve


def _won_by_price(
    announcement: Announcement,
    name_of: Callable[[int], str],
    bidders: Sequence[str],
    prices: Sequence[int],
    best: int,
    price: int,
) -> tuple[Winning, ...]:
    place = prices.index(best)
    return (Winning(bid=name_of(place), bidder=bidders[place], price=price, quantity=announcement.quantity),)


def _score(announcement: Announcement, bids: Iterable[Bid], ratings: Ratings) -> tuple[list[Row], list[Row]]:
    """The scored bids: those within the reserve, and those beyond it."""
    sign, weights = announcement.sign, announcement.quality
    weighs = bool(weights.opinion or weights.evidence)
    bound = sign * announcement.reserve
    within: list[Row] = []
    beyond: list[Row] = []
    value = 0
    for bid in bids:
        signed = sign * bid.price
        if weighs:
            value = quality_value(
                weights, ratings.get(bid.bidder), insured_ppm(announcement, bid) if bid.insured else 0
            )
        (within if signed >= bound else beyond).append((value + signed, value, bid))
    return within, beyond


def insured_ppm(announcement: Announcement, bid: Bid) -> int:
    """The quality that a bid insures: the share of the reserve, which no price exceeds. It hangs on no price, so that
    the second-score rule stays truthful."""
    return insured_quality_ppm(0, bid.insured, announcement.reserve) if bid.insured else 0


def rank(rows: list[Row], draw: Draw) -> bool:
    """Sorts the rows in place, best first, equal ones by the draw. Returns True if the first place was a tie."""
    scores = [row[0] for row in rows]
    if len(set(scores)) == len(scores):
        rows.sort(key=itemgetter(0), reverse=True)
        return False
    often = Counter(scores)
    rows.sort(key=lambda row: (-row[0], draw.of(row[2].bidder, row[2].registered) if often[row[0]] > 1 else b""))
    return often[rows[0][0]] > 1


def _losing(announcement: Announcement, rows: list[Row], outcome: Outcome, rival: Row | None) -> list[Standing]:
    """The standings of bids that lost to `rival`, with the price that would have won for certain."""
    sign = announcement.sign
    bound = sign * announcement.reserve
    standings = []
    known: int | None = None
    needed: int | None = None
    for score, value, bid in rows:
        if value != known:  # of one quality, what is needed is the same
            # One minor unit above the rival's score: the draw would decide between equal scores.
            signed = bound if rival is None else max(bound, rival[0] - value + 1)
            needed = sign * signed if 0 <= sign * signed <= AMOUNT_MAX else None
            known = value
        standings.append(Standing(bid.bid, bid.bidder, bid.price, value, score, outcome, needed))
    return standings


def is_newcomer(ratings: Ratings, bidder: str) -> bool:
    """Whether a bidder is new to the service: its rating says so, or it has none."""
    rating = ratings.get(bidder)
    return rating is None or rating.newcomer


def check_first(announcement: Announcement, award: Award, bid: Bid, ratings: Ratings) -> None:
    """Checks what a bidder can alone: its score and place by the announced rule, and that the winner gets its own
    price. Raises TranscriptWrong."""
    if _check_place(announcement, award, bid, ratings):
        _check_price(award, award.standings[0].offered)


def check_second(announcement: Announcement, award: Award, bid: Bid, ratings: Ratings) -> None:
    """Checks as `check_first`, but that the winner's price follows from the second score. Raises TranscriptWrong."""
    if _check_place(announcement, award, bid, ratings) and award.winners:
        signed = announcement.sign * announcement.reserve
        runners_up = award.first_runners_up(1)
        if runners_up:
            signed = max(signed, runners_up[0].score - award.standings[0].quality)
        _check_price(award, announcement.sign * signed)


def _check_place(announcement: Announcement, award: Award, bid: Bid, ratings: Ratings) -> bool:
    """Checks that the bid was scored as announced and not passed over. Returns False if a later bid of the same bidder
    replaced it, so that there is nothing to check."""
    draw = Draw(announcement, bytes.fromhex(award.seed))
    share_ppm = announcement.newcomer_share_ppm
    if award.newcomers_only and not (share_ppm and draw.among(PPM) < share_ppm):
        raise TranscriptWrong("the seed did not draw this auction for newcomers")
    own = next((standing for standing in award.standings if standing.bid == bid.bid), None)
    if own is None:
        if not any(standing.bidder == bid.bidder for standing in award.standings):
            raise TranscriptWrong(f"bid {bid.bid} was left out of the standings")
        return False
    quality = quality_value(announcement.quality, ratings.get(bid.bidder), insured_ppm(announcement, bid))
    score = quality + announcement.sign * bid.price
    if (own.offered, own.quality, own.score) != (bid.price, quality, score):
        raise TranscriptWrong(f"bid {bid.bid} was not scored by the announced rule")
    within = announcement.sign * own.offered >= announcement.sign * announcement.reserve
    if own.outcome == "beyond_reserve" and within:
        raise TranscriptWrong(f"bid {own.bid} is within the reserve, but was treated as beyond it")
    if own.outcome in ("won", "lost"):
        best = award.standings[0]
        if best.outcome != "won" or not award.winners or award.winners[0].bid != best.bid:
            raise TranscriptWrong("the winner is not first in the standings")
        bests = announcement.sequence + 1 if best.bid in award.late else 0
        if (-best.score, draw.of(best.bidder, bests)) > (-own.score, draw.of(own.bidder, bid.registered)):
            raise TranscriptWrong(f"bid {own.bid} should be ahead of the winner")
    return True


def _check_price(award: Award, price: int) -> None:
    if award.winners and award.winners[0].price != price:
        raise TranscriptWrong("the winner's price does not follow from the standings")
