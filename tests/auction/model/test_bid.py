"""The words before an award: bounds of every field, the commitment, and the value of quality."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from auction.model.bid import (
    Announcement,
    Bid,
    Closing,
    QualityWeights,
    Ramp,
    ShownRating,
    StandingOffer,
    commit_seed,
    commitment,
    digest,
    quality_value,
)
from auction.model.errors import BadAmount, BadCurrency, BadValue
from auction.model.money import AMOUNT_MAX

CLOSING = Closing(opens_ms=0, closes_ms=1000)
SEED = b"seed of the tests"
ANNOUNCEMENT: dict[str, Any] = {
    "auction": "a1",
    "block": "b1",
    "service": "anonymise",
    "currency": "EUR",
    "reserve": 1000,
    "closing": CLOSING,
    "seed_commitment": commit_seed("a1", SEED),
}
BID: dict[str, Any] = {"bid": "x", "auction": "a1", "bidder": "p", "price": 10, "currency": "EUR"}
OFFER: dict[str, Any] = {
    "offer": "o",
    "provider": "p",
    "service": "anonymise",
    "unit_price": 3,
    "currency": "EUR",
    "quantity": 5,
    "rate_bps_max": 10**6,
    "valid_until_ms": 1000,
}
BAD_AMOUNTS = [1.5, float("nan"), True, -1, AMOUNT_MAX + 1, "1", None]


@pytest.mark.parametrize("value", BAD_AMOUNTS)
def test_amounts_are_refused_wherever_they_stand(value: object) -> None:
    for build in (
        lambda: Bid(**BID | {"price": value}),
        lambda: Announcement(**ANNOUNCEMENT | {"reserve": value}),
        lambda: Announcement(**ANNOUNCEMENT | {"increment": value}),
        lambda: StandingOffer(**OFFER | {"unit_price": value}),
        lambda: QualityWeights(opinion=value),  # type: ignore[arg-type]
        lambda: Ramp(start_price=value, step=1, step_ms=1),  # type: ignore[arg-type]
    ):
        with pytest.raises(BadAmount):
            build()


@pytest.mark.parametrize(
    "change",
    [
        {"auction": ""},
        {"block": "a\nb"},
        {"quantity": 0},
        {"quantity": True},
        {"direction": "sideways"},
        {"seed_commitment": "short"},
        {"items": ("a", "a")},
        {"items": ["a"]},
        {"newcomer_share_ppm": 1_000_001},
        {"starts_ms": 5, "ends_ms": 5},
        {"rate_bps": -1},
    ],
)
def test_announcements_that_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BadValue):
        Announcement(**ANNOUNCEMENT | change)


@pytest.mark.parametrize(
    "change", [{"bid": ""}, {"quantity": 0}, {"quantity": 1.0}, {"items": ("a", "a")}, {"salt": "é"}, {"sequence": -1}]
)
def test_bids_that_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BadValue):
        Bid(**BID | change)
    with pytest.raises(BadCurrency):
        Bid(**BID | {"currency": "eur"})


def test_closing_is_a_time_that_passes() -> None:
    for change in ({"opens_ms": 1000}, {"closes_ms": float("inf")}, {"reveal_until_ms": 1000}, {"extend_by_ms": -1}):
        with pytest.raises(BadValue):
            Closing(**{"opens_ms": 0, "closes_ms": 1000} | change)  # type: ignore[arg-type]


CHOSEN = st.fixed_dictionaries(
    {
        "auction": st.sampled_from(["a", "aa"]),
        "bidder": st.sampled_from(["p", "q", "ap"]),
        "price": st.integers(0, 3),
        "quantity": st.integers(1, 2),
        "items": st.sampled_from([(), ("a",), ("a", "b")]),
        "limit": st.sampled_from([None, 0, 1]),
        "salt": st.sampled_from(["", "s", "ss"]),
    }
)


@given(CHOSEN, CHOSEN, st.integers(0, 9))
def test_commitment_binds_what_the_bidder_chose_and_no_more(one: Any, other: Any, sequence: int) -> None:
    first = commitment(Bid(bid="1", currency="EUR", sequence=sequence, placed_ms=sequence, **one))
    assert (first == commitment(Bid(bid="2", currency="EUR", **other))) == (one == other)


@given(st.lists(st.binary(max_size=3), max_size=3), st.lists(st.binary(max_size=3), max_size=3))
def test_digest_tells_every_list_of_parts_apart(one: list[bytes], other: list[bytes]) -> None:
    assert (digest("t", *one) == digest("t", *other)) == (one == other)


def test_quality_is_worth_its_lower_bounds_and_nothing_for_a_stranger() -> None:
    weights = QualityWeights(opinion=1000, evidence=10)
    rating = ShownRating(party="p", mean_ppm=999_999, lower_ppm=899_999, evidence_lower_ppm=500_000)
    assert quality_value(weights, rating) == 899 + 5
    assert quality_value(weights, None) == 0


def test_words_survive_the_wire() -> None:
    announcement = Announcement(**ANNOUNCEMENT, ramp=Ramp(start_price=1, step=1, step_ms=1))
    assert msgspec.json.decode(msgspec.json.encode(announcement), type=Announcement) == announcement
    bid = Bid(**BID, items=("a",), limit=3)
    assert msgspec.json.decode(msgspec.json.encode(bid), type=Bid) == bid
