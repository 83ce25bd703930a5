"""Amounts: what is refused, and splits against a twin that hands out one unit at a time."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auction.model.errors import BadAmount, BadCurrency, BadValue
from auction.model.money import (
    AMOUNT_MAX,
    as_decimal,
    check_amount,
    check_currency,
    decimals_of,
    split_proportionally,
)

AMOUNTS = st.integers(0, AMOUNT_MAX)


@pytest.mark.parametrize("value", [1.0, 0.0, float("nan"), float("inf"), True, False, -1, AMOUNT_MAX + 1, "1", None])
def test_amounts_that_are_refused(value: object) -> None:
    with pytest.raises(BadAmount):
        check_amount(value)


@pytest.mark.parametrize("value", ["eur", "EURO", "", "ÄÖÜ", "EU1", None, 978])
def test_currencies_that_are_refused(value: object) -> None:
    with pytest.raises(BadCurrency):
        check_currency(value)


def test_two_currencies_never_mix() -> None:
    assert check_currency("EUR", "EUR") == "EUR"
    with pytest.raises(BadCurrency):
        check_currency("USD", "EUR")


def split_by_hand(total: int, weights: list[int]) -> list[int]:
    """Slow twin: floors in fractions, then one unit at a time to the largest missing part, the earliest first."""
    exact = [Fraction(total) * weight / sum(weights) for weight in weights]
    parts = [int(share) for share in exact]
    while sum(parts) < total:
        missing = [share - part for share, part in zip(exact, parts, strict=True)]
        parts[missing.index(max(missing))] += 1
    return parts


@given(AMOUNTS, st.lists(st.integers(0, 1000), min_size=1, max_size=12).filter(any))
def test_split_is_exact_fair_and_as_by_hand(total: int, weights: list[int]) -> None:
    parts = split_proportionally(total, weights)
    assert sum(parts) == total
    assert parts == split_by_hand(total, weights)
    for part, weight in zip(parts, weights, strict=True):
        assert abs(part - Fraction(total) * weight / sum(weights)) < 1


def test_split_refuses_what_it_cannot_split() -> None:
    assert split_proportionally(0, [0, 0]) == [0, 0]
    for total, weights in ((1, [0, 0]), (1, []), (1, [1, -1]), (1, [True]), (1, [0.5])):
        with pytest.raises(BadValue):
            split_proportionally(total, weights)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("amount", "currency", "shown"),
    [
        (4150, "JPY", "4150"),
        (4150, "EUR", "41.50"),
        (4150, "KWD", "4.150"),
        (4150, "CLF", "0.4150"),
        (5, "EUR", "0.05"),
        (-5, "KWD", "-0.005"),
        (0, "JPY", "0"),
        (0, "EUR", "0.00"),
        (2**63 - 1, "EUR", "92233720368547758.07"),
    ],
)
def test_an_amount_is_shown_with_the_decimals_of_its_currency(amount: int, currency: str, shown: str) -> None:
    assert as_decimal(amount, currency) == shown


def test_thousands_are_parted_where_that_is_asked_for() -> None:
    assert as_decimal(123456789, "EUR", ",") == "1,234,567.89"
    assert as_decimal(123456789, "JPY", ",") == "123,456,789"


def test_decimals_are_those_of_the_standard() -> None:
    """ISO 4217, list one: the minor units of some currencies of each kind."""
    minor_units = {"JPY": 0, "KRW": 0, "VND": 0, "ISK": 0, "XAF": 0, "EUR": 2, "USD": 2, "CHF": 2, "HUF": 2, "MGA": 2}
    minor_units |= {"KWD": 3, "BHD": 3, "TND": 3, "OMR": 3, "JOD": 3, "IQD": 3, "LYD": 3, "CLF": 4, "UYW": 4}
    assert {currency: decimals_of(currency) for currency in minor_units} == minor_units
