"""Open bidding with proxies and a soft close: descending if providers bid, ascending if recipients do. Pure.

Each bid has a limit. The moderator bids for it by the increment up to the limit, and no further than it must. The
leader keeps the lead on an equal limit, so the moderator's sequence breaks ties and the seed is not used. The leader's
limit is never disclosed, not even after the close.

With fail-over, a bid that does not improve on the standing price is kept as a back-up: otherwise a bid that nobody can
beat, by a bidder that then leaves, would keep the others from taking over at the price that they ask.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

import msgspec

from auction.formats.format import Bidding, extend
from auction.model.award import Award, Draw, Outcome, Standing, Winning, check_bids, conclude, no_set_aside, price_only
from auction.model.bid import Announcement, Bid, Ratings
from auction.model.errors import AuctionError, BadValue, TooLate, WrongState
from auction.model.money import AMOUNT_MAX


def begin(announcement: Announcement) -> Bidding:
    """The state before the first bid."""
    return Bidding(closes_ms=announcement.closing.closes_ms)


def next_price(announcement: Announcement, state: Bidding) -> int | None:
    """The price that a new bid must reach: one increment better than the standing price, or the reserve before the
    first bid; None if no amount can improve on the standing price."""
    if state.leader is None:
        return announcement.reserve
    price = state.price + announcement.sign * announcement.increment
    return price if 0 <= price <= AMOUNT_MAX else None


def step(announcement: Announcement, state: Bidding, bid: Bid) -> Bidding:
    """Applies one bid. Returns the new state; `state` itself if the bid is a back-up.

    Raises TooLate at or after the close, WrongState before the opening, BadValue for a bid that does not reach
    `next_price`, unless it is a back-up.
    """
    sign, closing = announcement.sign, announcement.closing
    if bid.placed_ms >= state.closes_ms:
        raise TooLate(f"bid {bid.bid} came at {bid.placed_ms} ms, the bidding closed at {state.closes_ms} ms")
    if bid.placed_ms < closing.opens_ms:
        raise WrongState(f"the bidding opens at {closing.opens_ms} ms")
    offered, limit = _offered_and_limit(announcement, bid)
    leader = state.leader
    if leader is not None and leader.bidder == bid.bidder:
        if limit <= sign * state.limit:
            raise BadValue("the leader can only improve its limit")
        led = msgspec.structs.replace(state, leader=bid, limit=sign * limit)
        return extend(closing, led, bid.placed_ms)
    if leader is None:
        led = msgspec.structs.replace(state, leader=bid, price=sign * offered, limit=sign * limit)
        return extend(closing, led, bid.placed_ms)
    standing, increment = sign * state.price, announcement.increment
    if limit < standing + increment:
        if announcement.fail_over:
            return state
        raise BadValue(f"bid {bid.bid} does not improve on the standing price {state.price} by {increment}")
    leaders_limit = sign * state.limit
    if limit > leaders_limit:
        # Just enough to beat the old leader, or the bidder's own opening price, within its limit.
        price = min(limit, max(leaders_limit + increment, offered))
        led = msgspec.structs.replace(state, leader=bid, price=sign * price, limit=sign * limit)
    else:
        price = min(leaders_limit, limit + increment)
        led = msgspec.structs.replace(state, price=sign * price)
    return extend(closing, led, bid.placed_ms)


def check_back_up(announcement: Announcement, former: Bid | None, bid: Bid) -> None:
    """Raises BadValue for a back-up that is no better than what its bidder has already bid: bids bind."""
    if former is None:
        return
    (_, before), (_, now) = _offered_and_limit(announcement, former), _offered_and_limit(announcement, bid)
    if now <= before:
        raise BadValue(f"bid {bid.bid} does not improve on bid {former.bid} of the same bidder")


def again(announcement: Announcement, state: Bidding, bids: Iterable[Bid]) -> Bidding:
    """The leader and the price by these bids alone, in the moderator's sequence. The close stays where it was moved."""
    replayed = _latest(announcement)
    for bid in bids:
        with suppress(AuctionError):
            replayed = step(announcement, replayed, bid)
    return msgspec.structs.replace(replayed, closes_ms=state.closes_ms, extensions=state.extensions)


def _latest(announcement: Announcement) -> Bidding:
    """The state before the first bid, with the latest close that bids can move it to: by whose bids it was moved does
    not matter to those that are left."""
    closing = announcement.closing
    most = closing.extend_times_max
    return Bidding(closes_ms=closing.closes_ms + most * closing.extend_by_ms, extensions=most)


def _offered_and_limit(announcement: Announcement, bid: Bid) -> tuple[int, int]:
    """The bid's opening price, moved into the reserve if its limit allows, and its limit; both times `sign`."""
    sign = announcement.sign
    offered = sign * bid.price
    limit = offered if bid.limit is None else sign * bid.limit
    if limit < offered:
        raise BadValue(f"the limit of bid {bid.bid} is worse than its own price")
    bound = sign * announcement.reserve
    if limit < bound:
        raise BadValue(f"bid {bid.bid} is beyond the reserve of {announcement.reserve}")
    return max(offered, bound), limit


def show_without_limit(bid: Bid, reader: str, may_see: bool) -> Bid:
    """Everyone sees every bid. Only the bidder sees its limit, before and after the close."""
    return bid if bid.bidder == reader else msgspec.structs.replace(bid, limit=None)


def open_bidding(announcement: Announcement, bids: Iterable[Bid], ratings: Ratings, seed: bytes) -> Award:
    """Replays the bidding in the moderator's sequence: the last leader wins at the standing price. The moderator has
    taken no bid after the close; here a bid is too late only where no bids could have moved the close behind it, since
    it may have been moved by one that is excluded.

    Raises BadValue if quality should weigh or the seed is not the announced one.
    """
    price_only(announcement)
    no_set_aside(announcement)
    Draw(announcement, seed)
    state = _latest(announcement)
    last: dict[str, Bid] = {}
    refused: list[Standing] = []
    for bid in check_bids(announcement, bids):
        try:
            after = step(announcement, state, bid)
            if after is state:
                check_back_up(announcement, last.get(bid.bidder), bid)
        except AuctionError as error:
            signed = announcement.sign * bid.price
            refused.append(Standing(bid.bid, bid.bidder, bid.price, 0, signed, "refused", None, str(error)))
        else:
            state = after
            last[bid.bidder] = bid
    if state.leader is None:
        return conclude(announcement, seed, (), refused)
    leader = state.leader
    del last[leader.bidder]
    standings = [_standing(announcement, leader, state.price, "")]
    asked = next_price(announcement, state)
    why = "no better price was possible" if asked is None else f"at the close it could still have bid {asked}"
    why += ", and the leader's limit is not disclosed"
    losers = [_standing(announcement, bid, bid.price if bid.limit is None else bid.limit, why) for bid in last.values()]
    losers.sort(key=lambda standing: -standing.score)
    winning = Winning(bid=leader.bid, bidder=leader.bidder, price=state.price, quantity=announcement.quantity)
    return conclude(announcement, seed, (winning,), standings + losers + refused)


def _standing(announcement: Announcement, bid: Bid, reached: int, why: str) -> Standing:
    """A bid's standing at the close: a loser's at its limit, which the bidding has passed; the leader's at the standing
    price."""
    outcome: Outcome = "lost" if why else "won"
    return Standing(bid.bid, bid.bidder, reached, 0, announcement.sign * reached, outcome, None, why)
