"""What a standing offer holds while it stands: δ of its price, and its capacity, of which spot awards then take.

p0 has 10,000 bit/s and a bond of 100,000. Expected values are worked out by hand.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from markets import asked, market, money, settled

from auction.model.bid import StandingOffer
from auction.model.block import Block, Timeline
from auction.model.errors import BadValue, NoAward, NoCapacity
from auction.moderator import AuctionTerms, BidEntry, Moderator
from auction.moderator.clock import ManualClock
from auction.moderator.invariants import replay, violations

SPOT = AuctionTerms(reserve=10_000, open_for_ms=1_000, receipts=False, format="spot")
DAY_MS = 86_400_000


def an_offer(clock: ManualClock, **change: Any) -> StandingOffer:
    fields: dict[str, Any] = {
        "offer": "o",
        "provider": "p0",
        "service": "anonymise",
        "unit_price": 1_000,
        "currency": "EUR",
        "quantity": 10,
        "rate_bps_max": 6_000,
        "valid_until_ms": clock.now_ms + DAY_MS,
    }
    return StandingOffer(**fields | change)


def place_bid(moderator: Moderator, clock: ManualClock, rate_bps: int) -> str:
    terms = AuctionTerms(reserve=1_000, open_for_ms=10_000, receipts=False)
    auction = moderator.announce("rita", asked(clock, rate_bps), terms).auction
    return moderator.bid(auction, BidEntry("p0", 500)).bid


def test_money_and_capacity_are_held_while_it_stands() -> None:
    moderator, clock = market(providers=1)
    moderator.stand_offer(an_offer(clock))
    assert money(moderator, "p0") == 100_000 - 1_000  # 10 % of 10 units at 1,000
    with pytest.raises(NoCapacity):
        place_bid(moderator, clock, 4_001)
    place_bid(moderator, clock, 4_000)
    with pytest.raises(NoCapacity):
        moderator.publish_block(msgspec.structs.replace(asked(clock, 4_001), provider="p0"))
    assert violations(moderator.state) == []
    moderator.withdraw_offer("o", "p0")
    place_bid(moderator, clock, 10_000)
    assert violations(moderator.state) == []


def test_it_holds_until_its_time_is_over_and_can_be_placed_again() -> None:
    moderator, clock = market(providers=1)
    moderator.stand_offer(an_offer(clock))
    with pytest.raises(BadValue):
        moderator.stand_offer(an_offer(clock, valid_until_ms=clock.now_ms + DAY_MS + 1))
    clock.advance(DAY_MS - 1)
    with pytest.raises(NoCapacity):
        place_bid(moderator, clock, 4_001)
    moderator.stand_offer(an_offer(clock, rate_bps_max=7_000))  # for a day more, and for more
    clock.advance(DAY_MS - 1)
    with pytest.raises(NoCapacity):
        place_bid(moderator, clock, 3_001)
    clock.advance(1)
    moderator.tick()
    place_bid(moderator, clock, 10_000)
    assert money(moderator, "p0") == 100_000 - 100  # of the bid alone
    assert violations(moderator.state) == []


def test_several_offers_hold_their_capacity_together() -> None:
    moderator, clock = market(providers=1)
    moderator.stand_offer(an_offer(clock))
    with pytest.raises(NoCapacity):
        moderator.stand_offer(an_offer(clock, offer="more", rate_bps_max=4_001))
    moderator.stand_offer(an_offer(clock, offer="more", rate_bps_max=4_000))
    with pytest.raises(NoCapacity):
        moderator.stand_offer(an_offer(clock, rate_bps_max=6_001))  # what stood goes on standing
    assert moderator.spot("rita", asked(clock, 6_000), SPOT).provider == "p0"
    assert violations(moderator.state) == []


def test_a_spot_award_takes_of_what_the_offer_holds_and_of_nothing_else() -> None:
    moderator, clock = market(providers=1)
    moderator.publish_block(msgspec.structs.replace(asked(clock, 4_000), provider="p0"))  # the rest is promised
    moderator.stand_offer(an_offer(clock))
    first = moderator.spot("rita", asked(clock, 4_000), SPOT)
    assert (first.provider, first.price) == ("p0", 1_000)
    assert moderator.state.timeline("p0").peak_bps(first.starts_ms, first.ends_ms) == 10_000
    with pytest.raises(NoAward):
        moderator.spot("rita", asked(clock, 2_001), SPOT)  # 2,000 are left in this window
    moderator.spot("rita", asked(clock, 2_000), SPOT)
    later = msgspec.structs.replace(asked(clock, 6_000), starts_ms=first.ends_ms, ends_ms=first.ends_ms + 60_000)
    moderator.spot("rita", later, SPOT)  # the next window is as it was
    assert violations(moderator.state) == []
    settled(moderator, first.id)  # what has ended is free again, within the offer
    moderator.spot("rita", asked(clock, 4_000), SPOT)
    assert violations(moderator.state) == []


def test_what_was_awarded_stays_promised_when_the_offer_is_gone_or_placed_again() -> None:
    moderator, clock = market(providers=1)
    moderator.stand_offer(an_offer(clock))
    moderator.spot("rita", asked(clock, 5_000), SPOT)
    moderator.withdraw_offer("o", "p0")
    with pytest.raises(NoCapacity):
        place_bid(moderator, clock, 5_001)
    with pytest.raises(NoCapacity):
        moderator.stand_offer(an_offer(clock, rate_bps_max=5_001))
    moderator.stand_offer(an_offer(clock, rate_bps_max=5_000))
    with pytest.raises(NoCapacity):
        moderator.stand_offer(an_offer(clock, rate_bps_max=5_001))
    moderator.stand_offer(an_offer(clock, rate_bps_max=5_000))
    with pytest.raises(NoAward):
        moderator.spot("rita", asked(clock, 5_001), SPOT)
    moderator.spot("rita", asked(clock, 5_000), SPOT)
    assert violations(moderator.state) == []
    state = replay(moderator.store.entries())
    assert state.timeline("p0").peak_bps(0, 2**53) == moderator.state.timeline("p0").peak_bps(0, 2**53) == 10_000


def test_an_offer_for_a_window_holds_capacity_in_that_window_alone() -> None:
    moderator, clock = market(providers=1)
    from_ms, until_ms = clock.now_ms + 200_000, clock.now_ms + 300_000
    moderator.stand_offer(an_offer(clock, available_from_ms=from_ms, available_until_ms=until_ms))
    place_bid(moderator, clock, 10_000)
    block = msgspec.structs.replace(asked(clock, 5_000), starts_ms=from_ms, ends_ms=until_ms, provider="p0")
    with pytest.raises(NoCapacity):
        moderator.publish_block(block)
    with pytest.raises(BadValue):
        moderator.stand_offer(an_offer(clock, available_from_ms=0, available_until_ms=clock.now_ms))


def test_nobody_says_of_its_own_block_that_it_comes_of_an_offer() -> None:
    """A block that took of another's offer would free that one's capacity."""
    moderator, clock = market(providers=2)
    moderator.stand_offer(an_offer(clock))
    key = moderator.state.records["offered"]["o"].key  # what blocks that come of it have as their offer
    stolen: Block = msgspec.structs.replace(asked(clock, 4_000), provider="p1", offer=key)
    assert moderator.publish_block(stolen).offer == ""
    auction = moderator.announce(
        "rita",
        msgspec.structs.replace(asked(clock, 6_000), offer=key),
        AuctionTerms(reserve=1_000, open_for_ms=10_000, receipts=False),
    ).auction
    with pytest.raises(NoCapacity):
        moderator.bid(auction, BidEntry("p0", 500))
    moderator.bid(auction, BidEntry("p1", 500))
    clock.advance(10_000)
    moderator.tick()
    assert moderator.agreement(moderator.auction(auction).agreements[0]).provider == "p1"
    moderator.spot("rita", asked(clock, 6_000), SPOT)
    assert violations(moderator.state) == []


def test_an_award_costs_no_more_after_many_from_the_same_offer(monkeypatch: pytest.MonkeyPatch) -> None:
    moderator, clock = market(providers=1)
    moderator.stand_offer(an_offer(clock, unit_price=10, quantity=100))
    changed: list[int] = []
    add = Timeline.add

    def counted(self: Timeline, *given: int) -> None:
        changed[-1] += 1
        add(self, *given)

    monkeypatch.setattr(Timeline, "add", counted)
    for _ in range(20):
        changed.append(0)
        moderator.spot("rita", asked(clock, rate_bps=1), SPOT)
    assert set(changed) == {1}  # the block is taken of the offer's capacity, and nothing else moves
    assert violations(moderator.state) == []
