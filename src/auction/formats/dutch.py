"""The Dutch ramp: the price improves for the bidders step by step, and the first to accept it wins. Pure.

If providers bid, it rises from the start to the reserve; if recipients bid, it falls. The moderator's sequence says who
was first, so there are no ties.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from auction.formats.format import Bidding
from auction.model.award import Award, Draw, Standing, Winning, check_bids, conclude, no_set_aside, price_only
from auction.model.bid import Announcement, Bid, Ramp, Ratings
from auction.model.errors import BadValue


def ramp_of(announcement: Announcement) -> Ramp:
    """The announced ramp. Raises BadValue if there is none, or if it starts beyond the reserve."""
    ramp = announcement.ramp
    if ramp is None:
        raise BadValue("a Dutch auction needs a ramp")
    if announcement.sign * ramp.start_price < announcement.sign * announcement.reserve:
        raise BadValue("the ramp starts beyond the reserve")
    return ramp


def ramp_price(announcement: Announcement, at_ms: int) -> int:
    """The ramp's price at `at_ms`, in minor units. Raises BadValue outside the time for bidding."""
    ramp, closing = ramp_of(announcement), announcement.closing
    if not closing.opens_ms <= at_ms < closing.closes_ms:
        raise BadValue(f"the ramp runs from {closing.opens_ms} to {closing.closes_ms} ms, and it is {at_ms} ms")
    sign = announcement.sign
    moved = (at_ms - closing.opens_ms) // ramp.step_ms * ramp.step
    return sign * max(sign * ramp.start_price - moved, sign * announcement.reserve)


def accept(announcement: Announcement, bidding: Bidding, bid: Bid) -> Bidding:
    """Ends the auction with the first bid that accepts the current price. Raises BadValue for a bid that does not."""
    price, sign = ramp_price(announcement, bid.placed_ms), announcement.sign
    if sign * bid.price < sign * price:
        raise BadValue(f"the ramp is at {price} and has not reached {bid.price}")
    return msgspec.structs.replace(bidding, ended=True)


def dutch(announcement: Announcement, bids: Iterable[Bid], ratings: Ratings, seed: bytes) -> Award:
    """The first bid that accepts the price of its time wins at that price, which may be better than its own.

    Raises BadValue if quality should weigh, the ramp is missing or wrong, or the seed is not the announced one.
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
            why = f"the ramp was at {price} and had not reached {bid.price}"
            refused.append(Standing(bid.bid, bid.bidder, bid.price, 0, signed, "refused", None, why))
        elif not winners:
            winners.append(Winning(bid=bid.bid, bidder=bid.bidder, price=price, quantity=announcement.quantity))
            standings.append(Standing(bid.bid, bid.bidder, bid.price, 0, signed, "won"))
        else:
            standings.append(_second_comer(announcement, bid, winners[0].price, ramp))
    return conclude(announcement, seed, winners, standings + refused)


def _second_comer(announcement: Announcement, bid: Bid, won_at: int, ramp: Ramp) -> Standing:
    """The standing of a later bid: it would have won by accepting one step earlier, if there was one."""
    sign = announcement.sign
    signed = sign * bid.price
    # The reserve may have shortened the last step, so the step before it is counted from the start.
    steps = -(-(sign * ramp.start_price - sign * won_at) // ramp.step)
    if steps == 0:
        why = "only an earlier acceptance of the opening price would have won"
        return Standing(bid.bid, bid.bidder, bid.price, 0, signed, "lost", None, why)
    needed = ramp.start_price - sign * (steps - 1) * ramp.step
    return Standing(bid.bid, bid.bidder, bid.price, 0, signed, "lost", needed)
