"""The spot award: at once, from firm standing offers, before a deadline. Pure; no I/O and no lock.

The offers are firm at their own price, so the best score wins and is paid its own price for the units needed.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import itemgetter
from typing import NamedTuple

from auction.formats.scored import first_score, is_newcomer
from auction.model.award import Award, Draw, Outcome, Standing, Winning, conclude
from auction.model.bid import Announcement, Bid, Ratings, StandingOffer, quality_value
from auction.model.errors import BadValue, TooLate
from auction.model.money import AMOUNT_MAX, PPM

SPOT = "spot"  # its name in the table of formats; an award among standing offers is always announced under it
Row = tuple[int, int, int, str, str]  # cost (price less quality value), quality value, price, offer, provider


class Ranked(NamedTuple):
    """The ranked offers, best first: those within the reserve, those beyond it, and the standings of unsuitable
    offers."""

    within: list[Row]
    beyond: list[Row]
    others: list[Standing]
    newcomers_only: bool = False

    @property
    def tie_drawn(self) -> bool:
        return len(self.within) > 1 and self.within[0][0] == self.within[1][0]

    def winners(self, quantity: int) -> list[Winning]:
        """The best offer, at its own price."""
        return [
            Winning(bid=offer, bidder=provider, price=price, quantity=quantity)
            for _, _, price, offer, provider in self.within[:1]
        ]

    def standings(self, reserve: int) -> list[Standing]:
        """The standing of every offer, best first."""
        if not self.within:
            return [*_losing(self.beyond, "beyond_reserve", reserve), *self.others]
        cost, value, price, offer, provider = self.within[0]
        # One minor unit below the winner's cost: the draw would decide between equal costs.
        return [
            Standing(offer, provider, price, value, -cost, "won"),
            *_losing(self.within[1:], "lost", reserve, cost - 1),
            *_losing(self.beyond, "beyond_reserve", reserve, cost - 1),
            *self.others,
        ]


def spot(announcement: Announcement, bids: Iterable[Bid], ratings: Ratings, seed: bytes) -> Award:
    """The same rule for ordinary bids: first score."""
    return first_score(announcement, bids, ratings, seed)


def spot_award(
    announcement: Announcement, offers: Iterable[StandingOffer], ratings: Ratings, seed: bytes, now_ms: int
) -> Award:
    """Awards `quantity` units of the announced service, rate, window and region from standing offers.

    The reserve is for all units. Offers that have expired, are for another region, are too small or in another currency
    are `refused` in the award, with the reason. `now_ms` is the moderator's time. Raises TooLate from the close (the
    deadline of the answer) on, and BadValue for an auction in which recipients bid.
    """
    return award_ranked(announcement, rank_offers(announcement, offers, ratings, seed, now_ms), seed)


def award_ranked(announcement: Announcement, ranked: Ranked, seed: bytes) -> Award:
    """The award to the best offer."""
    return conclude(
        announcement,
        seed,
        ranked.winners(announcement.quantity),
        ranked.standings(announcement.reserve),
        newcomers_only=ranked.newcomers_only,
        tie_drawn=ranked.tie_drawn,
    )


def rank_offers(
    announcement: Announcement, offers: Iterable[StandingOffer], ratings: Ratings, seed: bytes, now_ms: int
) -> Ranked:
    """Ranks the offers for `spot_award`; raises what that raises."""
    if announcement.direction != "provide":
        raise BadValue("standing offers can only provide, not receive")
    if now_ms >= announcement.closing.closes_ms:
        raise TooLate(f"the answer was due before {announcement.closing.closes_ms} ms, and it is {now_ms} ms")
    draw = Draw(announcement, seed)
    weights, quantity, reserve = announcement.quality, announcement.quantity, announcement.reserve
    weighs = bool(weights.opinion or weights.evidence)
    service, currency, region = announcement.service, announcement.currency, announcement.region
    rate_bps, starts_ms, ends_ms = announcement.rate_bps, announcement.starts_ms, announcement.ends_ms
    within: list[Row] = []
    beyond: list[Row] = []
    unfit: list[Standing] = []
    value, any_region = 0, not region
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
            and (any_region or not offer.region or offer.region == region)
        ):
            if price <= reserve:
                within.append((price - value, value, price, offer.offer, offer.provider))
                continue
            if price <= AMOUNT_MAX:
                beyond.append((price - value, value, price, offer.offer, offer.provider))
                continue
        why = _misfit(announcement, offer, now_ms)
        unfit.append(Standing(offer.offer, offer.provider, price, value, value - price, "refused", None, why))
    newcomers_only = False
    if announcement.newcomer_share_ppm and draw.among(PPM) < announcement.newcomer_share_ppm:
        new = [row for row in within if is_newcomer(ratings, row[4])]
        if new:
            newcomers_only = True
            unfit = [
                Standing(offer, provider, price, value, -cost, "not_considered")
                for cost, value, price, offer, provider in within
                if not is_newcomer(ratings, provider)
            ] + unfit
            within = new
    if len({row[0] for row in within}) == len(within):
        within.sort(key=itemgetter(0))
    else:
        within.sort(key=lambda row: (row[0], draw.of(row[4]), row[3]))  # of one provider by the offers' names
    return Ranked(within, beyond, unfit, newcomers_only)


def _losing(rows: list[Row], outcome: Outcome, reserve: int, winning_cost: int = AMOUNT_MAX) -> list[Standing]:
    """The standings of losing offers, with the price for all units that would have won for certain."""
    if any(row[1] for row in rows):
        bounds = [min(winning_cost + value, reserve) for _, value, _, _, _ in rows]
    else:
        bounds = [min(winning_cost, reserve)] * len(rows)
    return [
        Standing(offer, provider, price, value, -cost, outcome, bound if bound >= 0 else None)
        for (cost, value, price, offer, provider), bound in zip(rows, bounds, strict=True)
    ]


def _misfit(announcement: Announcement, offer: StandingOffer, now_ms: int) -> str:
    """Why an offer is unsuitable."""
    if offer.service != announcement.service:
        return "it is for another service"
    if offer.currency != announcement.currency:
        return "it is in another currency"
    if offer.valid_until_ms <= now_ms:
        return "it has expired"
    if offer.quantity < announcement.quantity or offer.rate_bps_max < announcement.rate_bps:
        return "it is too small"
    if offer.available_from_ms > announcement.starts_ms or offer.available_until_ms < announcement.ends_ms:
        return "it is for another time"
    if offer.region and announcement.region and offer.region != announcement.region:
        return "it is for another region"
    return "its price is out of bounds"
