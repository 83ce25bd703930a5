"""Several winners: who stands by for whom and at which price, capacity for the units bid, units that add up."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markets import asked, market

from auction import AuctionTerms, BidEntry, Block, ManualClock, Moderator
from auction.model.block import most_of_units, units_of
from auction.model.errors import BadValue, NoCapacity
from auction.moderator.invariants import violations


def closed(
    moderator: Moderator, clock: ManualClock, block: Block | str, terms: AuctionTerms, *entries: BidEntry
) -> list[str]:
    seller = "rita" if isinstance(block, Block) else moderator.block(block).holder or moderator.block(block).provider
    name = moderator.announce(seller, block, terms).auction
    for entry in entries:
        moderator.bid(name, entry)
    clock.advance(terms.open_for_ms)
    moderator.close(name)
    return list(moderator.auction(name).agreements)


def offered(moderator: Moderator, clock: ManualClock, agreement: str, *parties: str) -> list[tuple[str, int, int]]:
    """Who is offered what of the whole, once its provider has left before the start: (provider, units, price). Each
    turn is 10 s long, and all are there."""
    moderator.end(agreement, moderator.agreement(agreement).provider, "leaving", 0)
    found = []
    for _ in parties:
        for party in parties:
            moderator.assignments(party)
        for party in parties:
            for one in moderator.assignments(party).assignments:
                told = (party, one.units, one.price)
                if one.role == "offer" and one.agreement == agreement and told not in found:
                    found.append(told)
        clock.advance(10_000)
    return found


UNITS = AuctionTerms(receipts=False, reserve=100, open_for_ms=1_000, format="uniform_price", quantity=3, fail_over=True)
ITEMS = AuctionTerms(
    receipts=False, reserve=900, open_for_ms=1_000, format="packages", items=("up", "down"), fail_over=True
)


def test_a_runner_up_for_units_stands_by_at_its_price_for_all_of_them() -> None:
    moderator, clock = market(providers=4)
    entries = (
        BidEntry("p0", 10, quantity=2),
        BidEntry("p1", 20, quantity=1),
        BidEntry("p2", 40, quantity=2),
        BidEntry("p3", 30, quantity=1),
    )
    two, one = closed(moderator, clock, asked(clock, 3_000), UNITS, *entries)
    assert [moderator.agreement(name).price for name in (two, one)] == [60, 30]
    # Each at its own price for as many as it bid for, and no more than are left.
    assert offered(moderator, clock, two, "p2", "p3") == [("p3", 1, 30), ("p2", 2, 80)]
    assert offered(moderator, clock, one, "p2", "p3") == [("p3", 1, 30), ("p2", 1, 40)]


def test_a_runner_up_stands_by_for_the_items_that_it_bid_for() -> None:
    moderator, clock = market(providers=4)
    entries = (
        BidEntry("p0", 100, items=("up",)),
        BidEntry("p1", 100, items=("down",)),
        BidEntry("p2", 150, items=("down",)),
        BidEntry("p3", 700, items=("up", "down")),
    )
    up, down = sorted(
        closed(moderator, clock, asked(clock), ITEMS, *entries), key=lambda n: moderator.agreement(n).provider
    )
    assert [moderator.agreement(name).provider for name in (up, down)] == ["p0", "p1"]
    assert offered(moderator, clock, up, "p2", "p3") == []  # p3 bid for both or none
    assert offered(moderator, clock, down, "p2", "p3") == [("p2", 1, 150)]


def test_capacity_is_looked_at_for_the_units_of_a_bid() -> None:
    moderator, clock = market()  # 10,000 bit/s each
    name = moderator.announce("rita", asked(clock, 15_000), UNITS).auction
    moderator.bid(name, BidEntry("p0", 10, quantity=2))
    with pytest.raises(NoCapacity):
        moderator.bid(name, BidEntry("p1", 10, quantity=3))
    closed(
        moderator,
        clock,
        asked(clock, 4_000),
        AuctionTerms(receipts=False, reserve=100, open_for_ms=500),
        BidEntry("p0", 10),
    )
    clock.advance(500)
    award = moderator.close(name)
    assert award.failed  # 4,000 of its 10,000 bit/s went elsewhere, and two units are 10,000
    assert violations(moderator.state) == []
    with pytest.raises(NoCapacity):
        moderator.hold_auction("rita", asked(clock, 15_000), UNITS, [BidEntry("p1", 10, quantity=3)])


def test_more_units_than_bits_cannot_be_announced() -> None:
    moderator, clock = market()
    with pytest.raises(BadValue, match="some would be empty"):
        moderator.announce("rita", asked(clock, 2), UNITS)


@pytest.mark.parametrize("format", ["second_score", "first_price", "open"])
def test_one_winner_gets_every_unit(format: str) -> None:
    moderator, clock = market()
    terms = msgspec.structs.replace(UNITS, format=format)
    (agreement,) = closed(moderator, clock, asked(clock, 3_000), terms, BidEntry("p0", 60), BidEntry("p1", 50))
    assert moderator.agreement(agreement).maximum_bps == 3_000


RATES = st.none() | st.integers(20, 10**6)


@given(RATES, RATES, st.integers(20, 10**6), st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_parts_add_up_to_the_whole(minimum: int | None, volume: int | None, maximum: int, units: list[int]) -> None:
    whole = Block("b", "p", "s", 0, 1, minimum_bps=minimum, maximum_bps=maximum, volume_bytes=volume)
    parts, before = [], 0
    for number, count in enumerate(units):
        parts.append(units_of(whole, before, count, sum(units), f"b.{number}"))
        assert 0 < parts[-1].committed_bps <= most_of_units(whole, count, sum(units)).committed_bps
        before += count
    for field in ("minimum_bps", "maximum_bps", "volume_bytes"):
        amounts = [getattr(part, field) for part in parts]
        expected = getattr(whole, field)
        assert amounts == [None] * len(parts) if expected is None else sum(amounts) == expected
