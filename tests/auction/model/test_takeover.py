"""Fail-over: what is left, who is offered which part of it at its own bid, and that the reserve is never exceeded."""

from __future__ import annotations

from fractions import Fraction
from math import floor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auction.model.errors import BadValue, WrongState
from auction.model.holding import with_delta
from auction.model.takeover import (
    Rest,
    RestOffer,
    StandBy,
    may_cost,
    offer_of,
    offers,
    owed_at_most,
    price_for,
    rest_after,
    without,
)

TEN = 100_000


def rest(units: int = 1, items: tuple[str, ...] = (), from_ms: int = 30_000) -> Rest:
    return Rest(starts_ms=0, from_ms=from_ms, ends_ms=60_000, units=units, items=items)


def stand_by(price: int, units: int = 1, items: tuple[str, ...] = (), provider: str = "q") -> StandBy:
    return StandBy(provider=provider, bid=f"bid of {provider}", price=price, units=units, items=items)


def test_what_is_left_of_a_window() -> None:
    assert rest_after(1_000, 2_000, 500) == Rest(starts_ms=1_000, from_ms=1_000, ends_ms=2_000)
    assert rest_after(1_000, 2_000, 1_999, units=3).from_ms == 1_999
    with pytest.raises(WrongState):
        rest_after(1_000, 2_000, 2_000)
    with pytest.raises(BadValue):
        Rest(starts_ms=5, from_ms=4, ends_ms=9)


def test_the_example_of_a_block_that_dies_at_half() -> None:
    # R 60.00 is held with δ: 66.00. 20.00 were signed, e is 1.00: at most 21.00 and 10 % of 20.00 may be owed still.
    owed = owed_at_most(4_000, TEN, 2_000, 100)
    assert owed == 2_300
    assert may_cost(6_600, owed, TEN) == 3_909  # 39.09 and δ, 3.91, are 43.00
    # The runner-up's bid of 60.00 for the whole is 30.00 for the half.
    assert offers([stand_by(6_000)], rest(), 6_600, owed, TEN) == [
        RestOffer(provider="q", bid="bid of q", price=3_000, units=1, items=())
    ]


def test_a_runner_up_is_offered_its_own_units_at_its_own_bid() -> None:
    # It bid for 2 units at 500 in all; 5 are left for a third of the time.
    two = stand_by(500, units=2)
    assert price_for(two, rest(5, from_ms=40_000), 2) == 166
    offered = offers([two, stand_by(900, units=4, provider="s")], rest(5, from_ms=40_000), 10_000, 0, TEN)
    # Then 3 of the 4 units that bid 900: 900 * 3/4 / 3 = 225.
    assert [(one.provider, one.units, one.price) for one in offered] == [("q", 2, 166), ("s", 3, 225)]


def test_units_that_the_money_does_not_reach_are_not_offered() -> None:
    four = stand_by(400, units=4)
    assert offer_of(four, rest(4), 150) == RestOffer(provider="q", bid="bid of q", price=150, units=3, items=())
    assert offer_of(four, rest(4), 49) is None
    assert offer_of(stand_by(0, units=4), rest(4), 0) is not None


def test_a_package_is_taken_over_whole_or_not_at_all() -> None:
    both = stand_by(800, items=("a", "b"))
    assert offer_of(both, rest(items=("a",)), 10_000) is None
    assert offer_of(stand_by(800), rest(items=("a",)), 10_000) is None
    assert offer_of(both, rest(), 10_000) is None
    taken = offer_of(both, rest(items=("c", "b", "a")), 10_000)
    assert taken is not None
    assert (taken.price, taken.items) == (400, ("a", "b"))
    left = without(rest(items=("c", "b", "a")), taken)
    assert left is not None
    assert left.items == ("c",)
    assert without(rest(items=("a", "b")), taken) is None
    assert offer_of(both, rest(items=("a", "b")), 399) is None


def test_a_second_runner_up_takes_what_the_first_could_not() -> None:
    one, other = stand_by(5_000, items=("a",)), stand_by(100, items=("a",), provider="s")
    assert [offer.provider for offer in offers([one, other], rest(items=("a",)), 110, 0, TEN)] == ["s"]
    assert offers([one, other], rest(items=("a",)), 10, 10, TEN) == []


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(10_000, 500_000))
def test_the_most_that_may_be_paid_is_the_most(held: int, owed: int, delta_ppm: int) -> None:
    price, left = may_cost(held, owed, delta_ppm), max(0, held - owed)
    assert with_delta(price, delta_ppm) <= left
    assert with_delta(price + 1, delta_ppm) > left


@given(st.integers(0, 5_000), st.integers(1, 9), st.integers(1, 9), st.integers(0, 59_999), st.integers(0, 3_000))
def test_the_units_offered_are_the_most_that_fit(price: int, bid: int, left: int, from_ms: int, limit: int) -> None:
    one, of = stand_by(price, units=bid), rest(left, from_ms=from_ms)
    costs = {
        units: floor(Fraction(price * units * (60_000 - from_ms), bid * 60_000))
        for units in range(1, min(bid, left) + 1)
    }
    fit = [units for units, cost in costs.items() if cost <= limit]
    offer = offer_of(one, of, limit)
    assert (offer.units if offer else 0) == max(fit, default=0)
    assert offer is None or offer.price == costs[offer.units]


@given(
    st.lists(st.tuples(st.integers(0, 5_000), st.integers(1, 5)), max_size=6), st.integers(1, 9), st.integers(0, 9_000)
)
def test_take_overs_never_exceed_what_is_held(bids: list[tuple[int, int]], units: int, held: int) -> None:
    offered = offers([stand_by(*one) for one in bids], rest(units), held, 1_000, TEN)
    assert sum(with_delta(one.price, TEN) for one in offered) <= max(0, held - 1_000)
    assert sum(one.units for one in offered) <= units
