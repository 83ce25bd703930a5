"""Bargaining: whose turn it is, what stands, and that nothing happens after a deadline."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auction.groups.negotiation import Negotiation, Offer
from auction.model.errors import AuctionError, BadValue, Expired, NotAllowed, WrongState

START = Negotiation(group="g", seller="s", ends_ms=100)


def offer(by: str, price: int, expires_ms: int = 50) -> Offer:
    return Offer(by=by, price=price, expires_ms=expires_ms)


def test_offer_counter_offer_and_acceptance() -> None:
    talk = START.with_offer(offer("s", 900), 0).with_offer(offer("g", 500), 10).with_offer(offer("s", 700), 20)
    done = talk.accept("g", 49)
    assert (done.state(60), done.price) == ("accepted", 700)
    assert talk.price is None
    for call in (
        lambda: done.accept("g", 50),
        lambda: done.reject("s", 50),
        lambda: done.with_offer(offer("g", 1), 49),
    ):
        with pytest.raises(WrongState):
            call()


def test_deadlines_hold_to_the_millisecond() -> None:
    talk = START.with_offer(offer("s", 900), 0)
    assert talk.standing(49) is not None
    assert talk.standing(50) is None
    with pytest.raises(Expired):
        talk.accept("g", 50)
    again = talk.with_offer(offer("s", 800, 100), 60)  # its own offer has run out, so it may make another
    assert again.accept("g", 99).price == 800
    with pytest.raises(Expired):
        again.accept("g", 100)
    assert again.state(100) == "expired"


def test_what_a_side_may_not_do() -> None:
    talk = START.with_offer(offer("s", 900), 0)
    for call, error in (
        (lambda: talk.with_offer(offer("s", 800), 1), NotAllowed),
        (lambda: talk.accept("s", 1), NotAllowed),
        (lambda: talk.accept("x", 1), NotAllowed),
        (lambda: talk.with_offer(offer("g", 1, 101), 1), BadValue),
        (lambda: talk.with_offer(offer("g", 1, 1), 1), BadValue),
        (lambda: START.accept("g", 1), WrongState),
        (lambda: talk.with_offer(offer("g", 500), 1).with_offer(offer("s", 901), 2), BadValue),
        (lambda: talk.with_offer(offer("g", 5), 1).with_offer(offer("s", 9), 2).with_offer(offer("g", 4), 3), BadValue),
        (lambda: talk.reject("g", 1).accept("g", 2), WrongState),
        (lambda: Negotiation(group="g", seller="g", ends_ms=1), BadValue),
    ):
        with pytest.raises(error):
            call()


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["offer", "accept", "reject"]), st.sampled_from("gs"), st.integers(0, 9), st.integers(0, 40)
    ),
    max_size=12,
)


@given(STEPS)
def test_an_accepted_price_was_offered_by_the_other_side_in_time(steps: list[tuple[str, str, int, int]]) -> None:
    talk, now_ms = START, 0
    for what, by, price, wait_ms in steps:
        now_ms += wait_ms
        before = talk
        try:
            if what == "offer":
                talk = talk.with_offer(offer(by, price, min(100, now_ms + 20)), now_ms)
            else:
                talk = talk.accept(by, now_ms) if what == "accept" else talk.reject(by, now_ms)
        except AuctionError:
            assert talk is before
            continue
        assert now_ms < 100
        assert not before.ended
        if talk.ended == "accepted":
            assert talk.offers[-1].by != by
            assert now_ms < talk.offers[-1].expires_ms
    asked = [one.price for one in talk.offers if one.by == "s"]
    assert asked == sorted(asked, reverse=True)
