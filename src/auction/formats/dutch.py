"""The Dutch ramp: the price gets better for the bidders step by step, and the first to accept it wins. Pure.

Where providers bid it rises from the start to the reserve, where recipients bid it falls. The moderator's sequence says
who was first, so no tie is left to draw.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from auction.formats.format import Bidding
from auction.model.award import Award, Draw, Standing, Winning, check_bids, conclude, no_set_aside, price_only
from auction.model.bid import Announcement, Bid, Ramp, Ratings
from auction.model.errors import BadValue


def ramp_of(announcement: Announcement) -> Ramp:
    """The announced ramp. Raises BadValue where there is none, or where it starts beyond the reserve."""
    ramp = announcement.ramp
    if ramp is None:
        raise BadValue("a Dutch auction is announced with a ramp")
    if announcement.sign * ramp.start_price < announcement.sign * announcement.reserve:
        raise BadValue("the ramp starts beyond the reserve")
    return ramp


def ramp_price(announcement: Announcement, at_ms: int) -> int:
    """The price that stands at `at_ms`, in minor units. Raises BadValue outside the time of bidding."""
    ramp, closing = ramp_of(announcement), announcement.closing
    if not closing.opens_ms <= at_ms < closing.closes_ms:
        raise BadValue(f"the ramp stands from {closing.opens_ms} to {closing.closes_ms} ms, not at {at_ms} ms")
    sign = announcement.sign
    moved = (at_ms - closing.opens_ms) // ramp.step_ms * ramp.step
    return sign * max(sign * ramp.start_price - moved, sign * announcement.reserve)


def accept(announcement: Announcement, bidding: Bidding, bid: Bid) -> Bidding:
    """The first bid that accepts the price of its moment ends the auction. Raises BadValue for one that does not."""
    price, sign = ramp_price(announcement, bid.placed_ms), announcement.sign
    if sign * bid.price < sign * price:
        raise BadValue(f"the ramp stands at {price} and has not come to {bid.price}")
    return msgspec.structs.replace(bidding, ended=True)


def dutch(announcement: Announcement, bids: Iterable[Bid], ratings: Ratings, seed: bytes) -> Award:
    """The first bid that accepts the price of its moment wins at that price, which may be better than it asked.

    Raises BadValue where quality was to weigh, the ramp is missing or wrong, or the seed is another.
    """
    price_only(announcement)
    no_set_aside(announcement)
    Draw(announcement, seed)
    sign, ramp = announcement.sign, ramp_of(announcement)
    winners: list[Winning] = []
    standings: list[Standing] = []
    refused: list[Standing] = []
    for bid in check_bids(announcement, bids):
        signed = sign * bid.price
        try:
            price = ramp_price(announcement, bid.placed_ms)
        except BadValue as error:
            refused.append(Standing(bid.bid, bid.bidder, bid.price, 0, signed, "refused", None, str(error)))
            continue
        if signed < sign * price:
            why = f"the ramp stood at {price} and had not come to {bid.price}"
            refused.append(Standing(bid.bid, bid.bidder, bid.price, 0, signed, "refused", None, why))
        elif not winners:
            winners.append(Winning(bid=bid.bid, bidder=bid.bidder, price=price, quantity=announcement.quantity))
            standings.append(Standing(bid.bid, bid.bidder, bid.price, 0, signed, "won"))
        else:
            standings.append(_second_comer(announcement, bid, winners[0].price, ramp))
    return conclude(announcement, seed, winners, standings + refused)


def _second_comer(announcement: Announcement, bid: Bid, won_at: int, ramp: Ramp) -> Standing:
    """A bid after the first: it would have won by accepting one step earlier, if there was one."""
    sign = announcement.sign
    signed = sign * bid.price
    # The last step may have been cut short by the reserve, so the step before is counted from the start.
    steps = -(-(sign * ramp.start_price - sign * won_at) // ramp.step)
    if steps == 0:
        why = "only an earlier acceptance of the opening price would have won"
        return Standing(bid.bid, bid.bidder, bid.price, 0, signed, "lost", None, why)
    needed = ramp.start_price - sign * (steps - 1) * ramp.step
    return Standing(bid.bid, bid.bidder, bid.price, 0, signed, "lost", needed)
