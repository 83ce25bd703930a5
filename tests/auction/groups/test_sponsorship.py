"""Sponsorship: shares against all orders of joining, lying in groups tried out, pledges that are all or nothing."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auction.groups.sponsorship import (
    Cost,
    Pledge,
    check_submodular,
    moulin,
    round_shares,
    settle_group,
    settle_pledges,
    shapley_shares,
    shared_cost,
)
from auction.model.errors import BadAmount, BadValue, Exists, NotAllowed

NAMES = "abcd"
BIDS = st.dictionaries(st.sampled_from(NAMES), st.integers(0, 60))
OWN = st.fixed_dictionaries({name: st.integers(0, 20) for name in NAMES})


def peak_cost(needs: dict[str, int]) -> Cost:
    """Another submodular cost than the market's: that of the largest need alone."""
    return lambda members: max((needs[member] for member in members), default=0)


COSTS = st.builds(shared_cost, st.integers(0, 90), OWN) | st.builds(peak_cost, OWN)


def shares_by_orders(members: list[str], cost: Cost) -> dict[str, Fraction]:
    """Slow twin: every order of joining, one after the other."""
    sums = dict.fromkeys(members, 0)
    orders = list(itertools.permutations(members))
    for order in orders:
        inside: frozenset[str] = frozenset()
        for member in order:
            sums[member] += cost(inside | {member}) - cost(inside)
            inside |= {member}
    return {member: Fraction(total, len(orders)) for member, total in sums.items()}


@given(st.lists(st.sampled_from(NAMES), unique=True), COSTS)
def test_shares_are_the_mean_over_all_orders(members: list[str], cost: Cost) -> None:
    shares = shapley_shares(members, cost)
    assert shares == shares_by_orders(members, cost)
    assert sum(shares.values()) == cost(frozenset(members))
    payments = round_shares(shares)
    assert sum(payments.values()) == cost(frozenset(members))
    for member, payment in payments.items():
        assert abs(payment - shares[member]) < 1


@given(BIDS, COSTS)
def test_moulin_is_budget_balanced_and_nobody_pays_above_its_bid(bids: dict[str, int], cost: Cost) -> None:
    result = moulin(bids, cost)
    assert sum(result.payments.values()) == cost(frozenset(result.payments))
    for member, payment in result.payments.items():
        assert 0 <= payment <= bids[member]
    assert {*result.payments, *result.declined} == set(bids)
    # It serves the largest set in which everyone is willing: any such set lies within it.
    for size in range(len(bids) + 1):
        for chosen in itertools.combinations(sorted(bids), size):
            shares = shares_by_orders(list(chosen), cost)
            if all(bids[member] >= share for member, share in shares.items()):
                assert set(chosen) <= set(result.payments)


@given(st.fixed_dictionaries({name: st.integers(0, 40) for name in "abc"}), COSTS, st.data())
def test_lying_in_a_group_gains_nobody_without_hurting_another(
    truth: dict[str, int], cost: Cost, data: st.DataObject
) -> None:
    """Group-strategyproof in exact shares: no group can lie so that one gains and none of them loses."""
    group = data.draw(st.lists(st.sampled_from("abc"), unique=True, min_size=1))
    lies = truth | {member: data.draw(st.integers(0, 60)) for member in group}
    honest = shapley_shares(moulin(truth, cost).payments, cost)
    lied = shapley_shares(moulin(lies, cost).payments, cost)
    gains = [surplus_of(truth, lied, member) - surplus_of(truth, honest, member) for member in group]
    assert not (all(gain >= 0 for gain in gains) and any(gain > 0 for gain in gains))


@given(st.fixed_dictionaries({name: st.integers(0, 40) for name in "abc"}), COSTS, st.integers(0, 60))
def test_lying_alone_gains_less_than_two_minor_units(truth: dict[str, int], cost: Cost, lie: int) -> None:
    """Rounded payments differ from the exact shares by less than one unit on either side."""
    honest, lied = moulin(truth, cost).payments, moulin(truth | {"a": lie}, cost).payments
    assert surplus_of(truth, lied, "a") - surplus_of(truth, honest, "a") < 2


def surplus_of(truth: dict[str, int], payments: Mapping[str, int | Fraction], member: str) -> int | Fraction:
    return truth[member] - payments[member] if member in payments else 0


def test_moulin_is_not_efficient_and_we_say_so() -> None:
    """Three who value it at 40, 25 and 19 could share a cost of 80, yet nobody is served."""
    result = moulin({"a": 40, "b": 25, "c": 19}, shared_cost(80, dict.fromkeys("abc", 0)))
    assert result.payments == {}
    assert result.rounds > 1


def test_costs_that_are_refused() -> None:
    def together(members: frozenset[str]) -> int:
        return len(members) ** 2

    with pytest.raises(BadValue, match="submodular"):
        moulin({"a": 9, "b": 9}, together)
    with pytest.raises(BadValue, match="nobody"):
        shapley_shares("ab", lambda members: 5)
    with pytest.raises(BadValue, match="at most"):
        shapley_shares([str(i) for i in range(13)], lambda members: 0)
    with pytest.raises(BadAmount):
        moulin({"a": -1}, shared_cost(1, {"a": 1}))
    with pytest.raises(BadAmount):
        shared_cost(1.5, {})  # type: ignore[arg-type]
    check_submodular("abcd", shared_cost(5, dict.fromkeys(NAMES, 2)))


PLEDGES = st.dictionaries(st.sampled_from(NAMES), st.integers(0, 50))


@given(st.integers(0, 120), PLEDGES)
def test_pledges_are_all_or_nothing_and_every_unit_comes_back_or_counts(target: int, amounts: dict[str, int]) -> None:
    pledges = [Pledge(sponsor=name, amount=amount, opted_in=True) for name, amount in amounts.items()]
    result = settle_pledges(target, pledges)
    assert result.funded == (sum(amounts.values()) >= target)
    assert sum(result.taken.values()) == (target if result.funded else 0)
    for sponsor, amount in amounts.items():
        assert result.taken[sponsor] + result.refunded[sponsor] == amount
        assert 0 <= result.taken[sponsor] <= amount


def test_pledges_that_are_refused() -> None:
    with pytest.raises(NotAllowed):
        Pledge(sponsor="a", amount=1, opted_in=False)
    pledge = Pledge(sponsor="a", amount=1, opted_in=True)
    with pytest.raises(Exists):
        settle_pledges(1, [pledge, pledge])
    with pytest.raises(NotAllowed):
        settle_group({"b": 5}, [pledge], shared_cost(5, {"b": 0}))
    with pytest.raises(BadAmount):
        Pledge(sponsor="a", amount=-1, opted_in=True)


@given(BIDS, PLEDGES, COSTS)
def test_a_group_covers_its_cost_and_the_sponsored_owe_nothing(
    bids: dict[str, int], amounts: dict[str, int], cost: Cost
) -> None:
    pledges = [Pledge(sponsor=name, amount=amount, opted_in=True) for name, amount in amounts.items() if name in bids]
    outcome = settle_group(bids, pledges, cost)
    assert sum(outcome.owes(member) for member in bids) == cost(frozenset(outcome.served))
    for member in outcome.sponsored:
        assert outcome.owes(member) == 0
    assert {*outcome.served, *outcome.without} == set(bids)
    for pledge in pledges:
        taken = outcome.sponsorship.taken[pledge.sponsor]
        assert taken + outcome.sponsorship.refunded[pledge.sponsor] == pledge.amount
        assert taken == 0 or pledge.sponsor in outcome.payments


def test_a_group_worked_by_hand() -> None:
    """The shares of the whole group are 22.5, 22.5, 32.5 and 32.5; the two unwilling's are 65."""
    cost = shared_cost(90, {"a": 0, "b": 0, "c": 10, "d": 10})
    bids = {"a": 60, "b": 50, "c": 0, "d": 0}
    pledges = [Pledge(sponsor="a", amount=120, opted_in=True), Pledge(sponsor="b", amount=10, opted_in=True)]
    outcome = settle_group(bids, pledges, cost)
    assert outcome.payments == {"a": 23, "b": 23}
    assert outcome.sponsored == ("c", "d")
    assert outcome.sponsorship.taken == {"a": 59, "b": 5}
    assert outcome.sponsorship.refunded == {"a": 61, "b": 5}
    assert [outcome.owes(member) for member in "abcd"] == [82, 28, 0, 0]
    short = settle_group(bids, pledges[1:], cost)
    assert (short.payments, short.sponsored, short.without) == ({"a": 45, "b": 45}, (), ("c", "d"))
    assert short.sponsorship.refunded == {"b": 10}
