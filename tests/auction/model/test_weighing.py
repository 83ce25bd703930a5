"""Weights of deals: money that stayed, within pairs that grow slower than in proportion; newcomers; what is seen."""

from __future__ import annotations

from math import isqrt, sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auction.model.errors import BadAmount, BadValue
from auction.model.rating import EMPTY, RatingRules, Tally, lower_ppm
from auction.model.weighing import (
    EMPTY_PAIR,
    Pair,
    Stayed,
    circular_share_ppm,
    contested_ppm,
    insured_quality_ppm,
    newcomer_start_ppm,
    pair_bound,
    payment_value,
    public_eighths,
    service_value,
    weigh,
    weight_of,
)

RULES = RatingRules()
PPM = 1_000_000


def test_what_can_be_had_for_nothing_weighs_nothing() -> None:
    for free in (Stayed(), Stayed(charged=4_000, refunded=4_000), Stayed(charged=4_000, charged_back=4_000)):
        assert service_value(free, True) == payment_value(free, True) == 0
    assert service_value(Stayed(charged=4_000, refunded=1_000, charged_back=500), True) == 2_500


def test_a_no_weighs_the_charge_that_stayed_and_what_was_lost_besides() -> None:
    never = Stayed(charged=0, lost=4_000)
    assert service_value(never, False) == 4_000
    assert service_value(never, True) == 0
    assert service_value(Stayed(charged=2_000, lost=2_195), False) == 4_195


def test_what_is_said_of_a_payer_is_about_the_capture() -> None:
    assert payment_value(Stayed(charged=2_000), True) == 2_000
    assert payment_value(Stayed(charged=2_000), False) == 0
    assert payment_value(Stayed(charged=1_500, owed=745), False) == 745
    assert payment_value(Stayed(charged=2_000, charged_back=2_000), False) == 2_000


@pytest.mark.parametrize("wrong", [{"charged": -1}, {"lost": 1.5}, {"owed": True}])
def test_money_that_is_none_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(BadAmount):
        Stayed(**wrong)


def test_more_cannot_go_back_than_was_charged() -> None:
    with pytest.raises(BadValue):
        Stayed(charged=10, refunded=6, charged_back=5)


def test_weights_in_public_are_eighths() -> None:
    assert [weight_of(value, RULES) for value in (0, 1, 5_000, 10_000, 10**9)] == [0, 100, 500_000, PPM, PPM]
    assert [public_eighths(weight) for weight in (0, 62_499, 62_500, 125_000, 500_000, 937_499, 937_500, PPM)] == [
        0,
        0,
        1,
        1,
        4,
        7,
        8,
        8,
    ]


def test_a_pair_grows_slower_than_in_proportion() -> None:
    three = 3 * PPM
    assert [pair_bound(weight, RULES) for weight in (0, PPM, three)] == [0, PPM, three]
    assert pair_bound(4 * three, RULES) == 2 * three
    assert pair_bound(100 * three, RULES) == 10 * three
    total, pair = EMPTY, EMPTY_PAIR
    for _ in range(300):
        total, pair = weigh(total, pair, PPM, 10_000, 20_000, RULES)
    assert total == Tally(isqrt(300 * PPM * three), 0, 20_000, 300)


DEALS = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.sampled_from([0, PPM, 400_000]),
        st.sampled_from([0, 3_333, 10_000, 30_000]),
        st.sampled_from([0, 1, 7, 400]),
    ),
    max_size=25,
)


@given(DEALS)
def test_the_total_is_that_of_a_recount(deals: list[tuple[str, int, int, int]]) -> None:
    """Slow twin in floats: each pair's deals, decayed to the day of its last deal and scaled to the square root there,
    then decayed to the end."""
    total, pairs, day = EMPTY, dict[str, Pair](), 20_000
    history: dict[str, list[tuple[int, float, float]]] = {}
    for name, yes_ppm, value, days in deals:
        day += days
        total, pairs[name] = weigh(total, pairs.get(name, EMPTY_PAIR), yes_ppm, value, day, RULES)
        weight = min(1.0, value / 10_000)
        history.setdefault(name, []).append((day, weight * yes_ppm / PPM, weight * (1 - yes_ppm / PPM)))
    yes = no = 0.0
    for of_pair in history.values():
        last = of_pair[-1][0]
        at_last = [(0.5 ** ((last - when) / 180), good, bad) for when, good, bad in of_pair]
        good, bad = (sum(remains * one[place] for remains, *one in at_last) for place in (0, 1))
        scale = sqrt(3 / (good + bad)) if good + bad > 3 else 1.0
        remains = 0.5 ** ((day - last) / 180)
        yes, no = yes + remains * scale * good, no + remains * scale * bad
    assert total.yes / PPM == pytest.approx(yes, abs=1e-4)
    assert total.no / PPM == pytest.approx(no, abs=1e-4)
    assert total.count == len(deals)


def test_a_newcomer_starts_at_the_lower_of_prior_and_quantile() -> None:
    prior = lower_ppm(RULES.prior_yes, RULES.prior_no, RULES.z_squared)
    assert newcomer_start_ppm([], RULES) == prior
    good = [(900_000, 100_000)] * 9
    assert newcomer_start_ppm(good, RULES) == prior, "never above the prior"
    assert newcomer_start_ppm([*good, (10, 50_000)], RULES) == prior, "a bad name with little money moves nothing"
    assert newcomer_start_ppm([*good, (10, 0)], RULES) == prior
    assert newcomer_start_ppm([*good, (10, 100_000)], RULES) == 10, "a tenth of the money was served so badly"
    assert newcomer_start_ppm([(50_000, 1), (40_000, 1)], RULES) == 40_000


def test_a_bond_insures_quality() -> None:
    assert insured_quality_ppm(120_000, 0, 4_000) == 120_000
    assert insured_quality_ppm(120_000, 2_000, 4_000) == 500_000
    assert insured_quality_ppm(120_000, 9_000, 4_000) == PPM
    assert insured_quality_ppm(700_000, 2_000, 4_000) == 700_000
    assert insured_quality_ppm(120_000, 2_000, 0) == 120_000


def test_the_circular_share_is_what_came_back() -> None:
    ring = [("a", "b", 100), ("b", "c", 100), ("c", "a", 100)]
    assert circular_share_ppm(ring, "b") == PPM
    assert circular_share_ppm([*ring, ("d", "b", 300)], "b") == 250_000
    assert circular_share_ppm([("d", "b", 300)], "b") == 0
    assert circular_share_ppm([], "b") == 0


def test_contested_counterparties_by_money() -> None:
    assert contested_ppm({"a": (0, 300), "b": (100, 100)}) == (1, 2, 250_000)
    assert contested_ppm({}) == (0, 0, 0)


def test_what_is_no_deal_is_refused() -> None:
    for yes_ppm, value in ((-1, 0), (PPM + 1, 0), (True, 0), (0, -1), (0, 1.5)):
        with pytest.raises((BadValue, BadAmount)):
            weigh(EMPTY, EMPTY_PAIR, yes_ppm, value, 0, RULES)  # type: ignore[arg-type]
