"""The spot award: at once, from standing firm offers, before a deadline. Pure; takes no I/O and no lock.

The offers are firm at their own price, so the best score wins and is paid what it offered for the units needed.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import itemgetter

from auction.award import Award, Draw, Outcome, Standing, Winning, conclude
from auction.bid import Announcement, Bid, Ratings, StandingOffer, quality_value
from auction.errors import BadValue, TooLate
from auction.formats.scored import first_score, is_newcomer
from auction.money import AMOUNT_MAX, PPM

Row = tuple[int, int, int, StandingOffer]  # cost (price less quality value), quality value, price, offer


def spot(announcement: Announcement, bids: Iterable[Bid], ratings: Ratings, seed: bytes) -> Award:
    """The same rule for bids that were made for this very need: first score."""
    return first_score(announcement, bids, ratings, seed)


def spot_award(
    announcement: Announcement, offers: Iterable[StandingOffer], ratings: Ratings, seed: bytes, now_ms: int
) -> Award:
    """Award `quantity` units of the announced service, rate, window and region from standing offers.

    The reserve is for all units. Offers that are over, elsewhere, too small or in another currency are `refused` in the
    award with the reason. `now_ms` is the moderator's time. Raises TooLate from the close (the deadline of the answer)
    on, and BadValue where recipients were to bid.
    """
    if announcement.direction != "provide":
        raise BadValue("standing offers are offers to provide")
    if now_ms >= announcement.closing.closes_ms:
        raise TooLate(f"the answer was due before {announcement.closing.closes_ms} ms, now it is {now_ms} ms")
    draw = Draw(announcement, seed)
    weights, quantity, reserve = announcement.quality, announcement.quantity, announcement.reserve
    weighs = bool(weights.opinion or weights.evidence)
    service, currency, region = announcement.service, announcement.currency, announcement.region
    rate_bps, starts_ms, ends_ms = announcement.rate_bps, announcement.starts_ms, announcement.ends_ms
    fit: list[Row] = []
    beyond: list[Row] = []
    unfit: list[Standing] = []
    value = 0
    for offer in offers:
        price = offer.unit_price * quantity
        if weighs:
            value = quality_value(weights, ratings.get(offer.provider))
        if (
            offer.service == service
            and offer.currency == currency
            and offer.valid_until_ms > now_ms
            and offer.quantity >= quantity
            and offer.rate_bps_max >= rate_bps
            and offer.available_from_ms <= starts_ms
            and offer.available_until_ms >= ends_ms
            and (not offer.region or not region or offer.region == region)
            and price <= AMOUNT_MAX
        ):
            (fit if price <= reserve else beyond).append((price - value, value, price, offer))
        else:
            why = _misfit(announcement, offer, now_ms)
            unfit.append(Standing(offer.offer, offer.provider, price, value, value - price, "refused", None, why))
    newcomers_only = False
    aside: list[Standing] = []
    if announcement.newcomer_share_ppm and draw.among(PPM) < announcement.newcomer_share_ppm:
        new = [row for row in fit if is_newcomer(ratings, row[3].provider)]
        if new:
            newcomers_only = True
            aside = [
                Standing(offer.offer, offer.provider, price, value, -cost, "not_considered")
                for cost, value, price, offer in fit
                if not is_newcomer(ratings, offer.provider)
            ]
            fit = new
    costs = [row[0] for row in fit]
    if len(set(costs)) == len(costs):
        fit.sort(key=itemgetter(0))
    else:
        fit.sort(key=lambda row: (row[0], draw.of(row[3].offer)))
    if not fit:
        return conclude(announcement, seed, (), _losing(beyond, "beyond_reserve", reserve) + unfit)
    cost, value, price, offer = fit[0]
    standings = [Standing(offer.offer, offer.provider, price, value, -cost, "won")]
    # One minor unit below the winner's cost: with an equal one the draw would decide.
    standings += _losing(fit[1:], "lost", reserve, cost - 1)
    standings += _losing(beyond, "beyond_reserve", reserve, cost - 1)
    winning = Winning(bid=offer.offer, bidder=offer.provider, price=price, quantity=quantity)
    tie_drawn = len(fit) > 1 and fit[1][0] == cost
    standings += aside + unfit
    return conclude(announcement, seed, (winning,), standings, newcomers_only=newcomers_only, tie_drawn=tie_drawn)


def _losing(rows: list[Row], outcome: Outcome, reserve: int, winning_cost: int = AMOUNT_MAX) -> list[Standing]:
    """Standings of offers that did not win, with the price for all units that would have for sure."""
    if any(value for _, value, _, _ in rows):
        bounds = [min(winning_cost + value, reserve) for _, value, _, _ in rows]
    else:
        bounds = [min(winning_cost, reserve)] * len(rows)
    return [
        Standing(offer.offer, offer.provider, price, value, -cost, outcome, bound if bound >= 0 else None)
        for (cost, value, price, offer), bound in zip(rows, bounds, strict=True)
    ]


def _misfit(announcement: Announcement, offer: StandingOffer, now_ms: int) -> str:
    """Why an offer cannot serve the need."""
    if offer.service != announcement.service:
        return "it is for another service"
    if offer.currency != announcement.currency:
        return "it is in another currency"
    if offer.valid_until_ms <= now_ms:
        return "it is over"
    if offer.quantity < announcement.quantity or offer.rate_bps_max < announcement.rate_bps:
        return "it is too small"
    if offer.available_from_ms > announcement.starts_ms or offer.available_until_ms < announcement.ends_ms:
        return "it is for another time"
    if offer.region and announcement.region and offer.region != announcement.region:
        return "it is for another region"
    return "its price is out of bounds"
