"""The uniform price against a twin that sells the units one by one."""

from __future__ import annotations

import hashlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds import PARTIES, SEED, announce, bid_of

from auction.formats.uniform_price import uniform_price
from auction.model.award import Award
from auction.model.bid import Announcement, Bid
from auction.model.errors import BadAmount
from auction.model.money import AMOUNT_MAX


@st.composite
def multi_units(draw: st.DrawFn) -> tuple[Announcement, list[Bid]]:
    announcement = announce(
        format="uniform_price",
        direction=draw(st.sampled_from(["provide", "receive"])),
        reserve=draw(st.integers(0, 12)),
        quantity=draw(st.integers(1, 8)),
    )
    bids = [
        bid_of(bidder, draw(st.integers(0, 15)), place, quantity=draw(st.integers(1, 4)))
        for place, bidder in enumerate(draw(st.lists(st.sampled_from(PARTIES), unique=True)))
    ]
    return announcement, bids


def sell_one_by_one(announcement: Announcement, bids: list[Bid]) -> tuple[dict[str, int], int]:
    """Slow twin: (units by bid, price). Every bid is cut into units, the best unit left is served next."""
    provides = announcement.direction == "provide"

    def order(unit: tuple[int, str]) -> tuple[int, bytes]:
        price, name = unit
        prefix = b"auction.draw\0%d\0" % len(SEED) + SEED + b"1\0a"
        return (price if provides else -price, hashlib.sha256(prefix + bidder_of[name].encode()).digest())

    bidder_of = {bid.bid: bid.bidder for bid in bids}

    units = [(bid.price, bid.bid) for bid in bids for _ in range(bid.quantity)]
    units = [unit for unit in units if (unit[0] <= announcement.reserve) == provides or unit[0] == announcement.reserve]
    served: dict[str, int] = {}
    for _ in range(announcement.quantity):
        if units:
            best = min(units, key=order)
            units.remove(best)
            served[best[1]] = served.get(best[1], 0) + 1
    if not units:
        return served, announcement.reserve
    return served, (min if provides else max)(price for price, _ in units)


def served_by(award: Award) -> dict[str, int]:
    return {winning.bid: winning.quantity for winning in award.winners}


@given(multi_units())
def test_units_and_price_are_as_sold_one_by_one(world: tuple[Announcement, list[Bid]]) -> None:
    announcement, bids = world
    award = uniform_price(announcement, bids, {}, SEED)
    served, price = sell_one_by_one(announcement, bids)
    assert served_by(award) == served
    for winning in award.winners:
        assert winning.price == price * winning.quantity
        own = next(bid.price for bid in bids if bid.bid == winning.bid)
        assert own <= price if announcement.direction == "provide" else own >= price
    assert award.unit_price == (price if served else None)
    assert len(award.standings) == len(bids)


@given(multi_units())
def test_needed_is_exactly_what_would_have_got_a_unit(world: tuple[Announcement, list[Bid]]) -> None:
    announcement, bids = world
    award = uniform_price(announcement, bids, {}, SEED)
    for standing in award.standings:
        if standing.outcome == "won":
            continue
        prices = []
        for price in range(20):
            other = [msgspec.structs.replace(bid, price=price) if bid.bid == standing.bid else bid for bid in bids]
            if standing.bid in served_by(uniform_price(announcement, other, {}, SEED)):
                prices.append(price)
        if standing.needed is None:
            assert not prices
        else:
            assert standing.needed == (max(prices) if announcement.direction == "provide" else min(prices))


@given(multi_units(), st.integers(0, 15), st.data())
def test_the_truth_is_a_best_answer_for_one_unit(
    world: tuple[Announcement, list[Bid]], lie: int, data: st.DataObject
) -> None:
    announcement, bids = world
    bids = [msgspec.structs.replace(bid, quantity=1) for bid in bids]
    if not bids:
        return
    liar = data.draw(st.sampled_from(bids))
    gain = 1 if announcement.direction == "provide" else -1

    def surplus(price: int) -> int:
        said = [msgspec.structs.replace(bid, price=price) if bid is liar else bid for bid in bids]
        award = uniform_price(announcement, said, {}, SEED)
        return sum(gain * (winning.price - liar.price) for winning in award.winners if winning.bid == liar.bid)

    assert surplus(lie) <= surplus(liar.price)


def test_amounts_of_many_units_stay_within_bounds() -> None:
    with pytest.raises(BadAmount):
        uniform_price(announce(format="uniform_price", reserve=AMOUNT_MAX, quantity=2), [], {}, SEED)
    bid = bid_of("p", AMOUNT_MAX, 0, quantity=2)
    with pytest.raises(BadAmount):
        uniform_price(announce(format="uniform_price", quantity=2), [bid], {}, SEED)
