"""Ratings: the tally against a recount of the history, the bound against the exact Beta, and what buys nothing."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from auction.model.circles import without_circles
from auction.model.errors import BadAmount, BadValue, Exists, NotAllowed, TooLate
from auction.model.rating import (
    DAY_MS,
    EMPTY,
    Exchange,
    History,
    Kind,
    Opinion,
    RatingRules,
    Tally,
    aged,
    draft_of_payment,
    lower_ppm,
    mean_ppm,
    payment_terms,
    probability_of_payment_ppm,
    show,
)
from auction.model.weighing import EMPTY_PAIR, Pair, weigh

RULES = RatingRules()


def counted(times: int, yes_ppm: int, counterparties: int = 1) -> Tally:
    """The total after so many deals of full value, with each counterparty in turn."""
    total, pairs = EMPTY, dict[int, Pair]()
    for number in range(times):
        who = number % counterparties
        total, pairs[who] = weigh(total, pairs.get(who, EMPTY_PAIR), yes_ppm, 10_000, 0, RULES)
    return total


def test_many_deals_with_one_friend_buy_less_than_as_many_with_strangers() -> None:
    friend, strangers = counted(100, 1_000_000), counted(100, 1_000_000, 100)
    bounds = [show(History(party="p", opinions=tally), 0, RULES).lower_ppm for tally in (friend, strangers)]
    assert bounds[0] < bounds[1]


@given(st.integers(1, 10**9), st.integers(1, 10**9), st.integers(1, 10**8))
def test_bound_is_below_the_mean_and_moves_the_right_way(yes: int, no: int, more: int) -> None:
    bound = lower_ppm(yes, no, RULES.z_squared)
    assert 0 <= bound <= 1_000_000
    assert lower_ppm(yes + more, no, RULES.z_squared) >= bound - 1
    assert lower_ppm(yes, no + more, RULES.z_squared) <= bound + 1
    if yes >= no:
        assert bound <= mean_ppm(yes, no)


@pytest.mark.parametrize(("yes", "no"), [(5, 1), (10, 2), (30, 1), (60, 40), (500, 3), (3, 10)])
def test_bound_is_near_the_quantile_of_the_exact_beta(yes: int, no: int) -> None:
    """The quantile by summing the density in small steps: an oracle that shares nothing with the closed form."""
    steps = 200_000
    area, places = 0.0, []
    for step in range(steps):
        x = (step + 0.5) / steps
        area += x ** (yes - 1) * (1 - x) ** (no - 1)
        places.append(area)
    quantile = next(step for step in range(steps) if places[step] >= 0.05 * area) / steps
    assert abs(lower_ppm(yes * 10**6, no * 10**6, RULES.z_squared) / 1e6 - quantile) < 0.06


def test_old_ratings_fade_by_half_in_a_half_life() -> None:
    total = Tally(8_000_000, 4_000_000, 100, 12)
    assert aged(total, 100 + RULES.half_life_days, RULES) == Tally(4_000_000, 2_000_000, 100 + RULES.half_life_days, 12)
    assert aged(total, 50, RULES) is total


def test_a_clock_that_steps_back_changes_no_weight() -> None:
    total, pair = weigh(EMPTY, EMPTY_PAIR, 1_000_000, 10_000, 500, RULES)
    total, _ = weigh(total, pair, 1_000_000, 10_000, 400, RULES)
    assert (total.yes, total.day) == (2_000_000, 500)


def test_a_newcomer_starts_at_the_prior() -> None:
    shown = show(History(party="new"), 0, RULES)
    assert (shown.mean_ppm, shown.count, shown.newcomer) == (500_000, 0, True)
    known = show(History(party="known", opinions=counted(6, 1_000_000, 6)), 0, RULES)
    assert not known.newcomer
    assert known.lower_ppm > shown.lower_ppm


def test_a_new_name_is_worth_less_than_a_fair_old_one() -> None:
    """Whitewashing: with as much as six full yes and one no, the old name still ranks above a new one."""
    total = Tally(6_000_000, 1_000_000, 0, 7)
    assert (
        show(History(party="old", opinions=total), 0, RULES).lower_ppm > show(History(party="new"), 0, RULES).lower_ppm
    )


def test_shown_are_latest_remarks_silence_and_evidence_beside_opinion() -> None:
    history = History(
        party="p",
        opinions=Tally(9_000_000, 0, 0, 9),
        evidence=Tally(0, 9_000_000, 0, 9),
        finished=8,
        silent=2,
        remarks=tuple("abcdefg"),
    )
    shown = show(history, 0, RULES)
    assert shown.remarks == tuple("cdefg")
    assert shown.silence_ppm == 250_000
    assert shown.lower_ppm > 600_000 > 200_000 > shown.evidence_lower_ppm


def test_payment_is_predicted_and_terms_follow() -> None:
    terms = [payment_terms(probability_of_payment_ppm(counted(times, 0, 8), 0, RULES), RULES) for times in range(8)]
    assert terms[0] == "postpaid"
    assert terms[2:] == ["prepaid"] * 6
    assert payment_terms(probability_of_payment_ppm(Tally(0, 30_000_000, 0, 30), 0, RULES), RULES) == "refused"


def opinion(kind: Kind = "service", **change: Any) -> Opinion:
    fields: dict[str, Any] = {
        "agreement": "g",
        "kind": kind,
        "rater": "r",
        "ratee": "p",
        "satisfied": True,
        "at_ms": 10,
    }
    if kind == "payment":
        fields |= {"rater": "p", "ratee": "r"}
    else:
        fields |= {"device": "phone"}
    return Opinion(**fields | change)


EXCHANGE = Exchange(agreement="g", provider="p", recipient="r", finished_ms=0)


def test_opinions_stay_hidden_until_both_are_in_or_14_days_have_passed() -> None:
    one = EXCHANGE.with_opinion(opinion(), RULES)
    assert not one.revealed(14 * DAY_MS - 1, RULES)
    assert one.revealed(14 * DAY_MS, RULES)
    both = one.with_opinion(opinion("payment", satisfied=False), RULES)
    assert both.revealed(11, RULES)


def test_rating_twice_late_for_oneself_or_as_another_is_refused() -> None:
    one = EXCHANGE.with_opinion(opinion(), RULES)
    with pytest.raises(Exists):
        one.with_opinion(opinion(satisfied=False), RULES)
    with pytest.raises(TooLate):
        EXCHANGE.with_opinion(opinion(at_ms=14 * DAY_MS), RULES)
    for wrong in (opinion(agreement="h"), opinion(rater="x"), opinion(ratee="x"), opinion(rater="p", ratee="r")):
        with pytest.raises(NotAllowed):
            EXCHANGE.with_opinion(wrong, RULES)
    with pytest.raises(NotAllowed):
        opinion(rater="p")
    for change in ({"satisfied": 1}, {"satisfied": None}, {"device": ""}, {"remark": "x" * 281}, {"kind": "food"}):
        with pytest.raises(BadValue):
            opinion(**{"kind": "service", **change})


def test_draft_follows_the_processor_and_spares_the_sponsored() -> None:
    drafts = [draft_of_payment(charge) for charge in ("captured", "refunded", "declined", "charged_back", "pending")]
    assert drafts == [True, True, False, False, None]
    assert draft_of_payment("declined", sponsored=True) is None


PAYMENTS = st.lists(st.tuples(st.sampled_from("abcde"), st.sampled_from("abcde"), st.integers(0, 9)), max_size=20)


@given(PAYMENTS)
def test_circles_are_gone_and_balances_stay(payments: list[tuple[str, str, int]]) -> None:
    left = without_circles(payments)
    paid: dict[tuple[str, str], int] = {}
    balance = dict.fromkeys("abcde", 0)
    for payer, payee, amount in payments:
        paid[payer, payee] = paid.get((payer, payee), 0) + amount
        balance[payer] -= amount
        balance[payee] += amount
    for (payer, payee), amount in left.items():
        assert 0 < amount <= paid[payer, payee]
        balance[payer] += amount
        balance[payee] -= amount
    assert not any(balance.values())
    for length in range(1, 6):  # no circle of any length is left, by looking at all of them
        for circle in itertools.permutations("abcde", length):
            assert not all(edge in left for edge in zip(circle, circle[1:] + circle[:1], strict=True))


def test_accomplices_in_a_ring_leave_nothing_and_a_chain_stays() -> None:
    assert without_circles([("a", "b", 5), ("b", "c", 5), ("c", "a", 5)]) == {}
    assert without_circles([("a", "b", 5), ("b", "a", 3)]) == {("a", "b"): 2}
    assert without_circles([("r", "p", 9), ("p", "s", 4)]) == {("r", "p"): 9, ("p", "s"): 4}
    with pytest.raises(BadAmount):
        without_circles([("a", "b", -1)])


def test_rules_are_checked_and_states_travel() -> None:
    with pytest.raises(BadValue):
        RatingRules(half_life_days=0)
    with pytest.raises(BadValue):
        RatingRules(prior_yes=0, prior_no=0)
    assert msgspec.json.decode(msgspec.json.encode(EXCHANGE), type=Exchange) == EXCHANGE
