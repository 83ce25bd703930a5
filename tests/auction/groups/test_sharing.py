"""Shares against a twin that hands out one bit a second at a time, and each of the three rules by itself."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auction.groups.sharing import (
    Share,
    allocate,
    allocate_channels,
    allocate_devices,
    fill,
    join,
    leave,
)
from auction.model.errors import BadValue, Exists, NoCapacity, Unknown
from auction.model.meter import Meter, measure, split_cost

WEIGHTS_AND_LIMITS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 30)), min_size=1, max_size=6)


def fill_drop_by_drop(amount: int, weights: list[int], limits: list[int]) -> list[Fraction]:
    """Slow twin, in drops of 1/60: each goes to whoever has the least for its weight and is not full."""
    parts = [Fraction(0)] * len(weights)
    for _ in range(amount * 60):
        open_ones = [i for i, weight in enumerate(weights) if weight and parts[i] < limits[i]]
        if not open_ones:
            break
        thirstiest = min(open_ones, key=lambda i: (parts[i] + Fraction(1, 60)) / weights[i])
        parts[thirstiest] += Fraction(1, 60)
    return parts


@given(st.integers(0, 40), WEIGHTS_AND_LIMITS)
def test_fill_is_max_min_fair_and_exact(amount: int, members: list[tuple[int, int]]) -> None:
    weights, limits = [weight for weight, _ in members], [limit for _, limit in members]
    parts = fill(amount, weights, limits)
    assert sum(parts) == min(amount, sum(limit for weight, limit in members if weight))
    for part, exact, weight, limit in zip(
        parts, fill_drop_by_drop(amount, weights, limits), weights, limits, strict=True
    ):
        assert 0 <= part <= limit
        assert abs(part - exact) <= Fraction(61, 60) + Fraction(weight, 60)
        assert part == 0 or weight


@given(st.integers(0, 40), WEIGHTS_AND_LIMITS)
def test_nobody_could_get_more_except_from_who_has_less(amount: int, members: list[tuple[int, int]]) -> None:
    weights, limits = [weight for weight, _ in members], [limit for _, limit in members]
    parts = fill(amount, weights, limits)
    for i, weight in enumerate(weights):
        if not weight or parts[i] == limits[i]:
            continue
        for j, other in enumerate(weights):
            if other and parts[j]:  # moving a unit from j to i must not leave i still the poorer of the two
                assert Fraction(parts[j] - 1, other) <= Fraction(parts[i] + 1, weight)


SHARES = st.lists(
    st.builds(
        lambda weight, guaranteed, more: (weight, guaranteed, guaranteed + more),
        st.integers(0, 4),
        st.integers(0, 20),
        st.integers(0, 60),
    ),
    max_size=6,
).map(lambda rows: [Share(member=f"m{i}", weight=w, guaranteed=g, cap=c) for i, (w, g, c) in enumerate(rows)])


@given(st.integers(0, 200), SHARES, st.data())
def test_recipients_get_guarantees_first_and_never_more_than_the_block(
    capacity: int, shares: list[Share], data: st.DataObject
) -> None:
    asked = {share.member: data.draw(st.integers(0, 60)) for share in shares}
    if sum(share.guaranteed for share in shares) > capacity:
        with pytest.raises(NoCapacity):
            allocate(capacity, shares, asked)
        return
    parts = allocate(capacity, shares, asked)
    assert sum(parts.values()) <= capacity
    wanting = []
    for share in shares:
        part = parts[share.member]
        assert min(share.guaranteed, asked[share.member]) <= part <= min(share.cap, asked[share.member])
        if share.weight and part < min(share.cap, asked[share.member]):
            wanting.append(share)
    if wanting:  # nothing is left over while someone with a weight wants more
        assert sum(parts.values()) == capacity


def test_recipients_worked_by_hand() -> None:
    shares = [Share(member="a", guaranteed=40), Share(member="b", weight=2), Share(member="c", cap=10)]
    assert allocate(100, shares) == {"a": 40 + 17, "b": 33, "c": 10}
    assert allocate(100, shares, {"a": 5, "b": 1000, "c": 1}) == {"a": 5, "b": 94, "c": 1}


def test_telephone_numbers_get_whole_channels_or_none() -> None:
    one, two, three = "+4930123456", "+442071838750", "+12125550123"
    shares = [Share(member=one, guaranteed=1), Share(member=two), Share(member=three, cap=2)]
    calls = {one: 1, two: 9, three: 9}
    assert allocate_channels(790_000, 100_000, shares, calls) == {one: 1, two: 4, three: 2}
    assert allocate_channels(99_999, 100_000, [Share(member=two)], {two: 1}) == {two: 0}
    assert allocate_channels(300_000, 100_000, shares, {one: 0, two: 1, three: 5}) == {one: 0, two: 1, three: 2}
    with pytest.raises(BadValue):
        allocate_channels(1, 0, [], {})


@given(st.integers(0, 300), st.integers(1, 8), st.integers(0, 50))
def test_more_devices_gain_a_user_nothing(capacity: int, count: int, wanted: int) -> None:
    users = [Share(member="anna"), Share(member="ben")]
    one = [Share(member="a0", user="anna"), Share(member="b0", user="ben")]
    asked = {f"a{i}": wanted for i in range(count)} | {"b0": 10**9}
    many = [Share(member=f"a{i}", user="anna") for i in range(count)] + one[1:]
    parts = allocate_devices(capacity, users, many, asked)
    alone = allocate_devices(capacity, users, one, {"a0": wanted * count, "b0": 10**9})
    assert sum(part for name, part in parts.items() if name != "b0") == alone["a0"]
    assert parts["b0"] == alone["b0"]
    own = [part for name, part in parts.items() if name != "b0"]
    assert max(own) - min(own) <= 1


def test_devices_keep_their_guarantees_within_the_users() -> None:
    users = [Share(member="anna", guaranteed=50), Share(member="ben", guaranteed=10)]
    devices = [
        Share(member="phone", user="anna", guaranteed=40),
        Share(member="tv", user="anna", cap=30),
        Share(member="laptop", user="ben"),
    ]
    assert allocate_devices(60, users, devices) == {"phone": 40 + 5, "tv": 5, "laptop": 10}
    # An idle guarantee is lent out, and does not count as a promise that cannot be kept.
    assert allocate_devices(60, users, devices, {"phone": 0, "tv": 100, "laptop": 100}) == {
        "phone": 0,
        "tv": 30,
        "laptop": 30,
    }
    with pytest.raises(NoCapacity, match="anna"):
        allocate_devices(60, users, [*devices, Share(member="watch", user="anna", guaranteed=11)])
    with pytest.raises(Unknown):
        allocate_devices(60, users, [Share(member="x", user="carl")])


def test_joining_and_leaving_while_it_runs() -> None:
    shares = join(100, (), Share(member="a", guaranteed=60))
    with pytest.raises(NoCapacity):
        join(100, shares, Share(member="b", guaranteed=41))
    with pytest.raises(Exists):
        join(100, shares, Share(member="a"))
    shares = join(100, shares, Share(member="b", guaranteed=40))
    assert allocate(100, shares) == {"a": 60, "b": 40}
    assert allocate(100, leave(shares, "a")) == {"b": 100}
    with pytest.raises(Unknown):
        leave(shares, "c")
    with pytest.raises(BadValue):
        Share(member="d", guaranteed=2, cap=1)


def test_meters_count_each_share_through_joining_and_leaving() -> None:
    meters: dict[str, Meter] = {}
    meters = measure(meters, 1000, {"a": 60, "b": 40}, {"a": 70, "b": 10})
    meters = measure(meters, 500, {"b": 100}, {})
    assert meters["a"] == Meter(member="a", metered_ms=1000, allowed_bits=60, used_bits=70, over_bits=10)
    assert meters["b"] == Meter(member="b", metered_ms=1500, allowed_bits=90, used_bits=10, over_bits=0)
    with pytest.raises(Unknown):
        measure(meters, 1000, {"a": 1}, {"c": 1})
    assert split_cost(1000, meters) == {"a": 400, "b": 600}
    idle = {name: Meter(member=name, metered_ms=ms) for name, ms in (("a", 1), ("b", 3))}
    assert split_cost(1000, idle) == {"a": 250, "b": 750}


@given(st.integers(0, 10**9), st.lists(st.integers(0, 10**6), min_size=1, max_size=6))
def test_the_price_is_split_exactly(price: int, allowed: list[int]) -> None:
    meters = {f"m{i}": Meter(member=f"m{i}", metered_ms=1, allowed_bits=bits) for i, bits in enumerate(allowed)}
    assert sum(split_cost(price, meters).values()) == price
