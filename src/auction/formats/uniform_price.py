"""The uniform price for many equal units: the best prices get the units, and all units have one price. Pure.

The price is that of the best losing unit, or the reserve if none lost. This is truthful for bidders that want one unit
each; a bidder for several may gain by bidding for fewer (Ausubel and Cramton 2002). No more is claimed.
"""

from __future__ import annotations

from collections.abc import Iterable

from auction.formats.scored import Row, rank
from auction.model.award import (
    Award,
    Draw,
    Outcome,
    Standing,
    Winning,
    check_bids,
    conclude,
    latest_of_each,
    no_set_aside,
    price_only,
)
from auction.model.bid import Announcement, Bid, Ratings
from auction.model.money import AMOUNT_MAX, check_amount


def check_units(announcement: Announcement) -> None:
    """Raises BadAmount if the reserve for all units is out of bounds."""
    check_amount(announcement.reserve * announcement.quantity, "the reserve for all units")


def reserve_for_units(announcement: Announcement, quantity: int, items: tuple[str, ...]) -> int:
    """The reserve is for each unit."""
    return announcement.reserve * quantity


def stated_units(announcement: Announcement, quantity: int) -> int:
    """A bid is for the units that it states, up to the announced number."""
    return min(quantity, announcement.quantity)


def stands_by_for_units(winning: Winning, bid: Bid, standing: Standing) -> int | None:
    """A losing bid's price is for each unit. It stands by for the winner's units if it was for as many."""
    return standing.offered * winning.quantity if bid.quantity >= winning.quantity else None


def uniform_price(announcement: Announcement, bids: Iterable[Bid], ratings: Ratings, seed: bytes) -> Award:
    """Assigns `quantity` units from the best price on; the last winner may get fewer units than it bid for.

    Bids and reserve are for one unit each. Raises BadAmount if a total could be out of bounds, BadValue if quality
    should weigh or the seed is not the announced one.
    """
    price_only(announcement)
    no_set_aside(announcement)
    draw = Draw(announcement, seed)
    sign = announcement.sign
    check_units(announcement)
    rows: list[Row] = []
    beyond: list[Row] = []
    for bid in latest_of_each(check_bids(announcement, bids)):
        check_amount(bid.price * bid.quantity, f"bid {bid.bid} for all its units")
        signed = sign * bid.price
        (rows if signed >= sign * announcement.reserve else beyond).append((signed, 0, bid))
    rank(rows, draw)
    rank(beyond, draw)
    left = announcement.quantity
    best_lost: int | None = None
    filled: list[tuple[Row, int]] = []
    for row in rows:
        units = min(left, row[2].quantity)
        left -= units
        filled.append((row, units))
        if best_lost is None and units < row[2].quantity:
            best_lost = row[2].price
    price = announcement.reserve if best_lost is None else best_lost
    last_served = next((row for row, units in reversed(filled) if units), None) if left == 0 else None
    winners: list[Winning] = []
    standings: list[Standing] = []
    for row, units in filled:
        bid = row[2]
        if units:
            winners.append(Winning(bid=bid.bid, bidder=bid.bidder, price=price * units, quantity=units))
            standings.append(Standing(bid.bid, bid.bidder, bid.price, 0, row[0], "won"))
        else:
            standings.append(_losing(announcement, row, "lost", last_served, draw))
    standings += [_losing(announcement, row, "beyond_reserve", last_served, draw) for row in beyond]
    tie_drawn = any(row[0] == last_served[0] and not units for row, units in filled) if last_served else False
    return conclude(announcement, seed, winners, standings, unit_price=price if winners else None, tie_drawn=tie_drawn)


def _losing(announcement: Announcement, row: Row, outcome: Outcome, last_served: Row | None, draw: Draw) -> Standing:
    """The standing of a bid that got no unit: it needed to beat the winner of the last unit, or the reserve if units
    are left."""
    sign = announcement.sign
    score, _, bid = row
    signed = sign * announcement.reserve
    if last_served is not None:
        last = last_served[2]
        is_after = draw.of(last.bidder, last.registered) < draw.of(bid.bidder, bid.registered)
        signed = max(signed, last_served[0] + is_after)
    needed = sign * signed
    return Standing(bid.bid, bid.bidder, bid.price, 0, score, outcome, needed if 0 <= needed <= AMOUNT_MAX else None)
