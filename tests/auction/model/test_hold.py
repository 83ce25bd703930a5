"""What is held: the amounts of an example (R 60.00, P 40.00, δ 10 %), computed by hand; and that holds cover."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auction.model.closing import ENDINGS, Case, Statement, settle
from auction.model.errors import BadAmount, BadValue
from auction.model.holding import (
    check_delta,
    delta_of,
    of_announcer,
    of_bidder,
    of_commitment,
    of_offer,
    of_provider,
    penalty_of,
    with_delta,
)

TEN = 100_000


def test_where_providers_bid() -> None:
    assert of_announcer("provide", 6_000, TEN) == 6_600
    assert of_bidder("provide", 6_000, 0, TEN) == 600
    assert of_commitment("provide", 6_000, 0, TEN) == 6_000
    assert with_delta(4_000, TEN) == 4_400
    assert of_provider(4_000, TEN) == 1_400


def test_where_recipients_bid() -> None:
    assert of_announcer("receive", 6_000, TEN) == 2_100
    assert of_bidder("receive", 6_000, 9_000, TEN) == 9_900
    assert of_commitment("receive", 6_000, 9_000, TEN) == 9_900


def test_offers() -> None:
    assert of_offer(150, 20, TEN) == 300
    with pytest.raises(BadAmount):
        of_offer(2**62, 2, TEN)


def test_holds_are_rounded_up() -> None:
    assert with_delta(1, 10_000) == 2
    assert penalty_of(5) == 2
    assert (with_delta(0, TEN), of_provider(0, TEN)) == (0, 0)
    assert (with_delta(1, TEN), of_provider(1, TEN)) == (2, 2)


@given(st.integers(0, 2**63 - 1), st.integers(10_000, 500_000))
def test_shares_are_rounded_up_and_never_more_than_one_unit(amount: int, delta_ppm: int) -> None:
    assert 0 <= delta_of(amount, delta_ppm) - Fraction(amount) * delta_ppm / 1_000_000 < 1
    assert 0 <= penalty_of(amount) - Fraction(amount) / 4 < 1


@pytest.mark.parametrize("delta_ppm", [0, 9_999, 500_001, 0.1, True, None])
def test_a_share_for_leaving_is_from_1_to_50_percent(delta_ppm: object) -> None:
    with pytest.raises(BadValue):
        check_delta(delta_ppm)


def test_what_cannot_be_held_is_refused() -> None:
    with pytest.raises(BadAmount):
        of_announcer("provide", 2**63 - 1, TEN)
    with pytest.raises(BadAmount):
        of_bidder("provide", -1, 0, TEN)


@given(st.integers(0, 100_000), st.integers(10_000, 500_000), st.data(), st.booleans(), st.sampled_from([*ENDINGS, ""]))
def test_what_an_award_holds_covers_every_end(
    price: int, delta_ppm: int, data: st.DataObject, falsified: bool, ending: str
) -> None:
    signed = data.draw(st.integers(0, price))
    shortfall = data.draw(st.integers(0, price - signed))
    figure = data.draw(st.integers(0, price))
    for other in (*ENDINGS, ""):
        case = Case(
            price=price,
            delta_ppm=delta_ppm,
            exposure=price,
            ends_ms=0,
            recipient_held=with_delta(price, delta_ppm),
            provider_held=of_provider(price, delta_ppm),
            penalty=penalty_of(price),
            signed=signed,
            shortfall=shortfall,
            falsified=falsified,
            provider=Statement(ending, figure, 0) if ending else None,  # type: ignore[arg-type]
            recipient=Statement(other, data.draw(st.integers(0, price)), 0) if other else None,  # type: ignore[arg-type]
        )
        assert all(payout.amount > 0 for payout in settle(case).payouts)
