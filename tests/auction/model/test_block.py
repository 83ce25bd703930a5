"""Blocks of time: their bounds, the capacity at every instant, splitting, and reselling before they start."""

from __future__ import annotations

import random

import msgspec
import pytest
from markets import awarded, market, settled

from auction.model.block import Block, Timeline, check, split_in_rate, split_in_time
from auction.model.errors import BadValue, InsufficientFunds, NoCapacity, NotAllowed, WrongState
from auction.moderator import AuctionTerms, BidEntry
from auction.moderator.invariants import violations

T = 1_700_000_000_000


def block(**changes: object) -> Block:
    plain = Block(id="b", provider="p0", service="carry", starts_ms=T + 1_000, ends_ms=T + 2_000, maximum_bps=6_000)
    return msgspec.structs.replace(plain, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"ends_ms": T + 1_000},
        {"maximum_bps": None},
        {"minimum_bps": 6_001},
        {"minimum_bps": 0},
        {"maximum_bps": 1.5},
        {"starts_ms": -1},
        {"starts_ms": float("nan")},
        {"volume_bytes": 0},
        {"service": ""},
    ],
)
def test_a_block_that_makes_no_sense_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(BadValue):
        check(block(**changes))


def test_a_block_may_have_a_minimum_alone_or_both() -> None:
    assert check(block(maximum_bps=None, minimum_bps=10)).committed_bps == 10
    assert check(block(minimum_bps=10)).committed_bps == 6_000


def test_capacity_is_never_exceeded_at_any_instant() -> None:
    moderator, _ = market(providers=1)
    moderator.publish_block(block(id="one"))
    with pytest.raises(NoCapacity):
        moderator.publish_block(block(id="two"))
    with pytest.raises(NoCapacity):
        moderator.publish_block(block(id="two", starts_ms=T + 1_999, ends_ms=T + 9_000))
    moderator.publish_block(block(id="two", starts_ms=T + 2_000, ends_ms=T + 3_000))  # the window excludes its end
    moderator.publish_block(block(id="three", maximum_bps=4_000))
    assert violations(moderator.state) == []


@pytest.mark.parametrize("instants", [20, 200, 2_000])
def test_the_timeline_agrees_with_counting_every_instant(instants: int) -> None:
    numbers = random.Random(instants)
    timeline, plain, highest, known = Timeline(), [0] * instants, 0, []
    for _ in range(1_000):
        start = numbers.randrange(instants - 1)
        window = (start, numbers.randrange(start + 1, instants), numbers.randrange(1, 50))
        if known and numbers.random() < 0.4:  # somebody gives back what was promised
            start, end, rate = known.pop(numbers.randrange(len(known)))
            window = (start, end, -rate)
        else:
            known.append(window)
        timeline.add(*window)
        plain[window[0] : window[1]] = [level + window[2] for level in plain[window[0] : window[1]]]
        highest = max(highest, *plain)
        one = numbers.randrange(instants - 1)
        other = numbers.randrange(one + 1, instants)
        assert timeline.peak_bps(one, other) == max(plain[one:other])
        assert timeline.highest_bps == highest


def test_a_block_is_split_in_time() -> None:
    first, rest = split_in_time(block(volume_bytes=100), T + 1_250, ("a", "b"), T)
    assert (first.starts_ms, first.ends_ms, rest.starts_ms, rest.ends_ms) == (
        T + 1_000,
        T + 1_250,
        T + 1_250,
        T + 2_000,
    )
    assert (first.volume_bytes, rest.volume_bytes) == (25, 75)
    for wrong in (T + 1_000, T + 2_000):
        with pytest.raises(BadValue):
            split_in_time(block(), wrong, ("a", "b"), T)


def test_a_block_is_split_in_rate() -> None:
    first, rest = split_in_rate(block(minimum_bps=3_000), 2_000, ("a", "b"), T)
    assert (first.maximum_bps, rest.maximum_bps, first.minimum_bps, rest.minimum_bps) == (2_000, 4_000, 1_000, 2_000)


def test_splitting_keeps_the_capacity_and_leaves_no_room() -> None:
    moderator, _ = market(providers=1)
    moderator.publish_block(block(id="whole", maximum_bps=10_000))
    moderator.split_block_in_time("whole", "p0", T + 1_500)
    moderator.split_block_in_rate("whole.1", "p0", 4_000)
    assert {name: one.state for name, one in moderator.state.records["block"].items()} == {
        "whole": "split",
        "whole.1": "split",
        "whole.2": "free",
        "whole.1.1": "free",
        "whole.1.2": "free",
    }
    with pytest.raises(NoCapacity):
        moderator.publish_block(block(id="more", maximum_bps=1))
    with pytest.raises(WrongState):
        moderator.split_block_in_time("whole", "p0", T + 1_500)
    with pytest.raises(NotAllowed):
        moderator.split_block_in_rate("whole.1.1", "rita", 1_000)


def test_a_sold_block_is_resold_before_it_starts_and_its_agreement_goes_along() -> None:
    moderator, clock = market()
    moderator.register("buyer", "recipient")
    moderator.deposit("buyer", 500, "EUR")
    name = awarded(moderator, clock)
    bought = moderator.agreement(name).block
    with pytest.raises(NotAllowed):
        moderator.resell_block(bought, "buyer", "rita", 100)
    with pytest.raises(InsufficientFunds):
        moderator.resell_block(bought, "rita", "buyer", 501)
    moderator.resell_block(bought, "rita", "buyer", 300)
    assert (moderator.balance("rita"), moderator.balance("buyer")) == (1_000_000 - 275 + 300, 200)
    settled(moderator, name, 0)
    assert moderator.balance("buyer") == 200 + 275  # what was not delivered goes back to who holds it now
    assert violations(moderator.state) == []


def test_a_block_that_has_started_is_not_resold() -> None:
    moderator, clock = market()
    moderator.register("buyer", "recipient")
    name = awarded(moderator, clock)
    clock.advance(60_000)
    with pytest.raises(WrongState):
        moderator.resell_block(moderator.agreement(name).block, "rita", "buyer", 0)


def test_recipients_bid_for_a_providers_block_by_the_same_code() -> None:
    moderator, clock = market(providers=1)
    for name in ("anna", "bert"):
        moderator.register(name, "recipient")
        moderator.deposit(name, 10_000, "EUR")
    moderator.publish_block(block(id="sale", starts_ms=T + 60_000, ends_ms=T + 90_000))
    terms = AuctionTerms(receipts=False, reserve=100, open_for_ms=1_000, format="second_price")
    auction = moderator.announce("p0", "sale", terms).auction
    with pytest.raises(WrongState):  # at most one award for a block
        moderator.announce("p0", "sale", terms)
    moderator.bid(auction, BidEntry("anna", 700))
    moderator.bid(auction, BidEntry("bert", 400))
    clock.advance(1_000)
    moderator.tick()
    agreement = moderator.agreement(moderator.auction(auction).agreements[0])
    assert (agreement.recipient, agreement.provider, agreement.price) == ("anna", "p0", 400)
    assert moderator.block("sale").holder == "anna"


def test_a_part_of_a_bought_block_is_auctioned_on() -> None:
    moderator, clock = market(providers=1)
    for name in ("anna", "bert"):
        moderator.register(name, "recipient")
        moderator.deposit(name, 10_000, "EUR")
    name = awarded(moderator, clock, prices=(300,))
    bought = moderator.agreement(name).block
    first, _ = moderator.split_block_in_rate(bought, "rita", 400)
    terms = AuctionTerms(receipts=False, reserve=50, open_for_ms=1_000, format="first_price")
    auction = moderator.announce("rita", first.id, terms).auction
    moderator.bid(auction, BidEntry("anna", 90))
    clock.advance(1_000)
    moderator.tick()
    assert moderator.block(first.id).holder == "anna"
    assert moderator.agreement(moderator.auction(auction).agreements[0]).price == 90
    assert violations(moderator.state) == []
