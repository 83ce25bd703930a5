"""The table of formats: what an announcement may ask of each, refused before bidding and not at the close."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds import SEED, announce

from auction.formats import FORMATS, award, check_announcement
from auction.model.bid import QualityWeights, Ramp
from auction.model.errors import AuctionError, BadAmount, BadValue
from auction.model.money import AMOUNT_MAX

CHANGES = st.fixed_dictionaries(
    {"format": st.sampled_from([*FORMATS, "lottery"])},
    optional={
        "quality": st.just(QualityWeights(evidence=1)),
        "newcomer_share_ppm": st.just(1),
        "ramp": st.builds(Ramp, start_price=st.integers(99, 101), step=st.just(1), step_ms=st.just(1)),
        "items": st.integers(0, 14).map(lambda count: tuple(f"i{place}" for place in range(count))),
        "quantity": st.integers(1, 3),
        "reserve": st.sampled_from([100, AMOUNT_MAX, AMOUNT_MAX // 2]),
        "direction": st.sampled_from(["provide", "receive"]),
    },
)


@given(CHANGES)
def test_the_check_refuses_exactly_what_the_award_would(change: dict[str, Any]) -> None:
    announcement = announce(**change)
    refused: list[type[AuctionError] | None] = []
    for call in (lambda: check_announcement(announcement), lambda: award(announcement, (), {}, SEED)):
        try:
            call()
            refused.append(None)
        except AuctionError as error:
            refused.append(type(error))
    assert refused[0] == refused[1]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"format": "lottery"}, BadValue),
        ({"format": "dutch"}, BadValue),
        ({"format": "packages"}, BadValue),
        ({"format": "packages", "items": tuple("abcdefghijklm")}, BadValue),
        ({"format": "open", "newcomer_share_ppm": 1}, BadValue),
        ({"format": "second_price", "quality": QualityWeights(opinion=1)}, BadValue),
        ({"format": "uniform_price", "reserve": AMOUNT_MAX, "quantity": 2}, BadAmount),
    ],
)
def test_what_cannot_be_announced(change: dict[str, Any], error: type[AuctionError]) -> None:
    check_announcement(announce())
    with pytest.raises(error):
        check_announcement(announce(**change))
