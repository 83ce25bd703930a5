"""The Dutch ramp against a twin that walks it millisecond by millisecond."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds import PARTIES, SEED, announce, bid_of

from auction.formats.dutch import dutch, ramp_price
from auction.model.bid import Announcement, Bid, Closing, Ramp
from auction.model.errors import BadValue

CLOSING = Closing(opens_ms=10, closes_ms=60)


@st.composite
def ramps(draw: st.DrawFn) -> tuple[Announcement, list[Bid]]:
    provides = draw(st.booleans())
    low, high = sorted((draw(st.integers(0, 40)), draw(st.integers(0, 40))))
    ramp = Ramp(start_price=low if provides else high, step=draw(st.integers(1, 9)), step_ms=draw(st.integers(1, 9)))
    announcement = announce(
        format="dutch",
        direction="provide" if provides else "receive",
        reserve=high if provides else low,
        ramp=ramp,
        closing=CLOSING,
    )
    bids, at_ms = [], 5
    for sequence in range(draw(st.integers(0, 6))):
        at_ms += draw(st.integers(0, 20))
        bids.append(bid_of(draw(st.sampled_from(PARTIES)), draw(st.integers(0, 45)), sequence, placed_ms=at_ms))
    return announcement, bids


def walk(announcement: Announcement) -> dict[int, int]:
    """Slow twin: the price of every millisecond, by walking."""
    ramp = announcement.ramp
    assert ramp is not None
    price, prices, since = ramp.start_price, {}, 0
    for at_ms in range(10, 60):
        if since == ramp.step_ms:
            since = 0
            if announcement.direction == "provide":
                price = min(price + ramp.step, announcement.reserve)
            else:
                price = max(price - ramp.step, announcement.reserve)
        prices[at_ms] = price
        since += 1
    return prices


@given(ramps())
def test_first_to_accept_the_walked_price_wins_at_it(world: tuple[Announcement, list[Bid]]) -> None:
    announcement, bids = world
    prices = walk(announcement)
    assert {at_ms: ramp_price(announcement, at_ms) for at_ms in range(10, 60)} == prices
    provides = announcement.direction == "provide"
    accepting = [
        bid
        for bid in bids
        if bid.placed_ms in prices
        and (bid.price <= prices[bid.placed_ms] if provides else bid.price >= prices[bid.placed_ms])
    ]
    award = dutch(announcement, list(reversed(bids)), {}, SEED)
    assert award.failed == (not accepting)
    if accepting:
        assert award.winners[0].bid == accepting[0].bid
        assert award.winners[0].price == prices[accepting[0].placed_ms]
    before = {price for at_ms, price in prices.items() if accepting and at_ms < accepting[0].placed_ms}
    for standing in award.standings:
        if standing.outcome == "lost":
            worse = [price for price in before if price != award.winners[0].price]
            nearest = (max(worse) if provides else min(worse)) if worse else None
            assert standing.needed == nearest


@pytest.mark.parametrize("change", [{"ramp": None}, {"ramp": Ramp(start_price=101, step=1, step_ms=1)}])
def test_a_ramp_must_be_there_and_start_within_the_reserve(change: dict[str, Any]) -> None:
    with pytest.raises(BadValue):
        dutch(announce(format="dutch", **change), [], {}, SEED)


def test_outside_its_time_there_is_no_price() -> None:
    announcement = announce(format="dutch", ramp=Ramp(start_price=1, step=1, step_ms=1), closing=CLOSING)
    for at_ms in (9, 60):
        with pytest.raises(BadValue):
            ramp_price(announcement, at_ms)
