"""Packages: choice and prices against brute force over every subset of bids, and the larger solver beside it."""

from __future__ import annotations

import importlib
import itertools
import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import SEED, announce, bid_of

from auction.formats.explain import explain
from auction.formats.packages import packages
from auction.formats.packages_large import packages_large
from auction.model.award import Award
from auction.model.bid import Announcement, Bid
from auction.model.errors import BadAmount, BadValue
from auction.model.money import AMOUNT_MAX
from tests.examples import examples

solver = importlib.import_module("auction.formats.packages_large")  # the module, not the rule of the same name
ITEMS = ("i", "j", "k", "l")
World = tuple[Announcement, list[Bid]]


@st.composite
def package_worlds(draw: st.DrawFn, single_minded: bool = False) -> World:
    announcement = announce(
        format="packages",
        direction=draw(st.sampled_from(["provide", "receive"])),
        reserve=draw(st.integers(0, 12)),
        items=ITEMS[: draw(st.integers(1, 4))],
    )
    bids = []
    for sequence in range(draw(st.integers(0, 7))):
        bidder = f"b{sequence}" if single_minded else draw(st.sampled_from("pqrs"))
        items = draw(st.lists(st.sampled_from(announcement.items), unique=True, min_size=1))
        price = draw(st.integers(0, 12 * len(items) + 8))
        bids.append(bid_of(bidder, price, sequence, items=tuple(items)))
    return announcement, bids


def surplus_of(announcement: Announcement, bid: Bid) -> int:
    reserve = announcement.reserve * len(bid.items)
    return reserve - bid.price if announcement.direction == "provide" else bid.price - reserve


def best_by_force(announcement: Announcement, bids: list[Bid]) -> tuple[int, int]:
    """Slow twin: (surplus, items placed) of the best of all subsets of bids."""
    latest = {(bid.bidder, frozenset(bid.items)): bid for bid in bids}
    inside = [bid for bid in latest.values() if surplus_of(announcement, bid) >= 0]
    best = (0, 0)
    for size in range(len(inside) + 1):
        for chosen in itertools.combinations(inside, size):
            items = [item for bid in chosen for item in bid.items]
            if len(set(items)) == len(items) and len({bid.bidder for bid in chosen}) == size:
                best = max(best, (sum(surplus_of(announcement, bid) for bid in chosen), len(items)))
    return best


def reached(announcement: Announcement, award: Award, bids: list[Bid]) -> tuple[int, int]:
    """(surplus at the bid prices, items placed) of an award, checked to be a choice that is possible."""
    chosen = [bid for bid in bids for winning in award.winners if winning.bid == bid.bid]
    items = [item for bid in chosen for item in bid.items]
    assert len(set(items)) == len(items)
    assert len({bid.bidder for bid in chosen}) == len(chosen) == len(award.winners)
    assert all(surplus_of(announcement, bid) >= 0 for bid in chosen)
    return sum(surplus_of(announcement, bid) for bid in chosen), len(items)


@given(package_worlds())
def test_the_choice_is_the_best_of_all_subsets(world: World) -> None:
    announcement, bids = world
    award = packages(announcement, bids, {}, SEED)
    assert reached(announcement, award, bids) == best_by_force(announcement, bids)
    assert award == packages(announcement, list(reversed(bids)), {}, SEED)
    assert all(standing.bid in explain(award) for standing in award.standings)


@given(package_worlds())
def test_prices_are_what_each_presence_changes_for_the_others(world: World) -> None:
    """VCG by force: the others' best surplus without the winner, against what they have beside it."""
    announcement, bids = world
    award = packages(announcement, bids, {}, SEED)
    whole, _ = best_by_force(announcement, bids)
    for winning in award.winners:
        own = next(bid for bid in bids if bid.bid == winning.bid)
        without, _ = best_by_force(announcement, [bid for bid in bids if bid.bidder != winning.bidder])
        harm = without - (whole - surplus_of(announcement, own))
        reserve = announcement.reserve * len(own.items)
        if announcement.direction == "provide":
            assert winning.price == reserve - harm
            assert own.price <= winning.price <= reserve
        else:
            assert winning.price == reserve + harm
            assert reserve <= winning.price <= own.price


@given(package_worlds(single_minded=True), st.integers(0, 60), st.data())
def test_the_truth_is_a_best_answer(world: World, lie: int, data: st.DataObject) -> None:
    announcement, bids = world
    if not bids:
        return
    liar = data.draw(st.sampled_from(bids))
    gain = 1 if announcement.direction == "provide" else -1

    def surplus(price: int) -> int:
        said = [msgspec.structs.replace(bid, price=price) if bid is liar else bid for bid in bids]
        award = packages(announcement, said, {}, SEED)
        return sum(gain * (winning.price - liar.price) for winning in award.winners if winning.bid == liar.bid)

    assert surplus(lie) <= surplus(liar.price)


@settings(max_examples=examples(40))
@given(package_worlds())
def test_needed_would_have_won_and_nothing_two_units_worse(world: World) -> None:
    announcement, bids = world
    award = packages(announcement, bids, {}, SEED)
    worse = 1 if announcement.direction == "provide" else -1

    def wins_at(name: str, price: int) -> bool:
        said = [msgspec.structs.replace(bid, price=price) if bid.bid == name else bid for bid in bids]
        return any(winning.bid == name for winning in packages(announcement, said, {}, SEED).winners)

    for standing in award.standings:
        if standing.outcome == "won":
            continue
        if standing.needed is None:  # only a provider can be short of room: no price is below nothing
            assert announcement.direction == "provide"
            continue
        assert wins_at(standing.bid, standing.needed)
        if standing.needed + 2 * worse >= 0:
            assert not wins_at(standing.bid, standing.needed + 2 * worse)


def large_world(seed: int, items: int, count: int) -> World:
    chance = random.Random(seed)
    names = tuple(f"i{place}" for place in range(items))
    bids = []
    for sequence in range(count):
        own = tuple(chance.sample(names, chance.randint(1, 4)))
        price = sum(chance.randint(500, 1500) for _ in own)
        bids.append(bid_of(f"b{chance.randrange(count // 2)}", price, sequence, items=own, bid=f"n{sequence}"))
    return announce(format="packages", direction="receive", reserve=400, items=names), bids


@pytest.mark.parametrize("seed", range(5))
def test_the_larger_solver_agrees_where_both_can(seed: int) -> None:
    pytest.importorskip("highspy", reason="the extra `packages` is not installed")
    announcement, bids = large_world(seed, 12, 60)
    exact = packages(announcement, bids, {}, SEED)
    solved = packages_large(announcement, bids, {}, SEED)
    assert solved.gap_ppm == 0
    assert reached(announcement, solved, bids) == reached(announcement, exact, bids)
    for winning in solved.winners:
        assert winning.price == next(bid.price for bid in bids if bid.bid == winning.bid)


def test_the_larger_solver_reports_its_gap() -> None:
    pytest.importorskip("highspy", reason="the extra `packages` is not installed")
    announcement, bids = large_world(1, 40, 300)
    award = packages_large(announcement, bids, {}, SEED)
    surplus, _ = reached(announcement, award, bids)
    assert surplus > 0
    assert 0 <= award.gap_ppm <= 1_000_000
    assert award == packages_large(announcement, bids, {}, SEED)
    assert packages_large(announcement, [], {}, SEED).failed


def tangled_world(seed: int) -> World:
    """Packages of much the same worth that cross each other: the kind that a solver leaves with a gap."""
    chance = random.Random(seed)
    names = tuple(f"i{place}" for place in range(24))
    bids = []
    for sequence in range(100):
        own = tuple(chance.sample(names, chance.randint(4, 7)))
        price = 1000 * len(own) + chance.randint(0, 300)
        bids.append(bid_of(f"b{sequence}", price, sequence, items=own, bid=f"n{sequence}"))
    return announce(format="packages_large", direction="receive", reserve=400, items=names), bids


@pytest.mark.parametrize("seed", range(2))
def test_the_gap_of_a_choice_that_was_stopped_early_is_no_lie(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("highspy", reason="the extra `packages` is not installed")
    announcement, bids = tangled_world(seed)
    monkeypatch.setattr(solver, "GAP_ENOUGH_PPM", 0)
    proved = packages_large(announcement, bids, {}, SEED)
    assert proved.gap_ppm == 0
    monkeypatch.setattr(solver, "GAP_ENOUGH_PPM", 400_000)
    early = packages_large(announcement, bids, {}, SEED)
    ranks = [surplus * 25 + items for surplus, items in (reached(announcement, one, bids) for one in (proved, early))]
    assert ranks[1] <= ranks[0]
    assert ranks[0] * (1_000_000 - early.gap_ppm) <= ranks[1] * 1_000_000


def test_the_gap_is_counted_from_the_bound_and_rules_hold_whatever_the_solver_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    announcement = announce(format="packages_large", direction="receive", reserve=0, items=ITEMS)
    bids = [bid_of("p", 30, 0, items=("i", "j")), bid_of("q", 20, 1, items=("j", "k")), bid_of("p", 9, 2, items=("l",))]
    monkeypatch.setattr(solver, "_solve", lambda fit, items: (solver._fitting(fit, [0, 1, 2]), 30 * 5 + 2 + 38))
    award = packages_large(announcement, bids, {}, SEED)
    assert [winning.bid for winning in award.winners] == ["p0"]
    assert award.gap_ppm == 200_000
    assert "within 200000 millionths" in explain(award)


def test_packages_that_are_refused() -> None:
    announcement = announce(format="packages", items=ITEMS)
    for bids in ([bid_of("p", 1, 0)], [bid_of("p", 1, 0, items=("x",))]):
        with pytest.raises(BadValue):
            packages(announcement, bids, {}, SEED)
    with pytest.raises(BadValue, match="must announce its items"):
        packages(announce(format="packages"), [], {}, SEED)
    with pytest.raises(BadValue, match="at most 12 items"):
        packages(announce(format="packages", items=tuple("abcdefghijklm")), [], {}, SEED)
    big = announce(format="packages", direction="receive", items=ITEMS)
    with pytest.raises(BadAmount):
        packages(big, [bid_of("p", AMOUNT_MAX, 0, items=("i",))], {}, SEED)
    beyond = announce(format="packages", direction="provide", items=ITEMS)
    assert packages(beyond, [bid_of("p", AMOUNT_MAX, 0, items=("i",))], {}, SEED).failed
