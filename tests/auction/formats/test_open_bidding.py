"""Open bidding: what bidders rely on after every step, worked examples, the end against a second price, soft close."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds import PARTIES, SEED, announce, bid_of

from auction.formats.explain import explain
from auction.formats.open_bidding import again, begin, check_back_up, next_price, open_bidding, step
from auction.model.bid import Announcement, Bid, Closing, QualityWeights
from auction.model.errors import AuctionError, BadValue, TooLate, WrongState

SOFT = Closing(opens_ms=0, closes_ms=1000, extend_within_ms=100, extend_by_ms=150, extend_times_max=3)


def announce_open(**change: Any) -> Announcement:
    return announce(**{"format": "open", "closing": SOFT, "increment": 5} | change)


@st.composite
def biddings(draw: st.DrawFn) -> tuple[Announcement, list[Bid]]:
    direction = draw(st.sampled_from(["provide", "receive"]))
    reserve = draw(st.integers(0, 60))
    announcement = announce_open(direction=direction, reserve=reserve, increment=draw(st.integers(1, 6)))
    bids, at_ms = [], 0
    for sequence in range(draw(st.integers(0, 10))):
        at_ms += draw(st.integers(0, 300))
        price = draw(st.integers(0, 60))
        limit = draw(st.none() | st.integers(0, 60))
        bidder = draw(st.sampled_from(PARTIES[:4]))
        bids.append(bid_of(bidder, price, sequence, placed_ms=at_ms, limit=limit))
    return announcement, bids


@given(biddings())
def test_every_step_keeps_what_bidders_rely_on(world: tuple[Announcement, list[Bid]]) -> None:
    announcement, bids = world
    sign = -1 if announcement.direction == "provide" else 1
    state = begin(announcement)
    limits: dict[str, int] = {}
    for bid in bids:
        asked = next_price(announcement, state)
        limit = bid.price if bid.limit is None else bid.limit
        try:
            after = step(announcement, state, bid)
        except AuctionError:
            in_time = bid.placed_ms < state.closes_ms
            leads = state.leader is not None and state.leader.bidder == bid.bidder
            good = sign * limit >= sign * bid.price and sign * limit >= sign * announcement.reserve
            betters = sign * limit > sign * state.limit if leads else asked is not None and sign * (limit - asked) >= 0
            assert not (in_time and good and betters)
            continue
        limits[bid.bidder] = sign * limit
        assert after.leader is not None
        assert limits[after.leader.bidder] == max(limits.values())
        assert sign * after.limit == limits[after.leader.bidder]
        assert sign * announcement.reserve <= sign * after.price <= sign * after.limit
        if state.leader is not None:
            assert sign * after.price >= sign * state.price
            assert after.leader.bidder in (state.leader.bidder, bid.bidder)
            if limits[bid.bidder] <= limits[state.leader.bidder]:
                assert after.leader.bidder == state.leader.bidder
        assert state.closes_ms <= after.closes_ms <= 1000 + 3 * 150
        state = after


@given(
    st.sampled_from(["provide", "receive"]), st.lists(st.integers(0, 200), min_size=1, max_size=6), st.integers(1, 9)
)
def test_proxies_end_at_the_second_best_limit(direction: str, limits: list[int], increment: int) -> None:
    """Everyone opens at the reserve with a true limit: the best limit wins within an increment of the second best."""
    provides = direction == "provide"
    reserve = 200 if provides else 0
    announcement = announce_open(direction=direction, reserve=reserve, increment=increment)
    bids = [bid_of(f"b{i}", reserve, i, limit=limit) for i, limit in enumerate(limits)]
    award = open_bidding(announcement, bids, {}, SEED)
    taken = [s.bidder for s in award.standings if s.outcome != "refused"]
    strengths = {f"b{i}": (reserve - limit if provides else limit) for i, limit in enumerate(limits)}
    paid = abs(award.winners[0].price - reserve)
    best = max(strengths[bidder] for bidder in taken)
    assert strengths[award.winners[0].bidder] == best
    others = [strengths[bidder] for bidder in taken if bidder != award.winners[0].bidder]
    assert paid == (min(best, max(others) + increment) if others else 0)
    for bidder in strengths.keys() - set(taken):  # refused, since the standing price was out of their reach
        assert strengths[bidder] < paid + increment


def test_a_bidding_worked_by_hand() -> None:
    announcement = announce_open(direction="receive", reserve=50)
    state = begin(announcement)
    assert next_price(announcement, state) == 50
    state = step(announcement, state, bid_of("p", 40, 0, limit=100))  # its opening is moved into the reserve
    assert (state.price, state.limit) == (50, 100)
    with pytest.raises(BadValue, match="standing price"):
        step(announcement, state, bid_of("q", 54, 1))
    state = step(announcement, state, bid_of("q", 70, 2))  # p's proxy answers with 75
    assert (state.leader and state.leader.bidder, state.price) == ("p", 75)
    state = step(announcement, state, bid_of("q", 80, 3, limit=100))  # equal limits: who came first leads
    assert (state.leader and state.leader.bidder, state.price) == ("p", 100)
    state = step(announcement, state, bid_of("r", 120, 4, limit=300))  # what it calls of its own accord holds
    assert (state.leader and state.leader.bidder, state.price) == ("r", 120)
    state = step(announcement, state, bid_of("r", 120, 5, limit=400))  # bettering one's limit costs nothing
    assert (state.price, state.limit) == (120, 400)
    with pytest.raises(BadValue, match="only improve"):
        step(announcement, state, bid_of("r", 120, 6, limit=400))
    state = step(announcement, state, bid_of("p", 125, 7, limit=402))  # past the limit by less than the increment
    assert (state.leader and state.leader.bidder, state.price) == ("p", 402)


def test_descending_goes_the_other_way_and_stops_at_zero() -> None:
    announcement = announce_open(direction="provide", reserve=100)
    state = step(announcement, begin(announcement), bid_of("p", 90, 0, limit=3))
    assert state.price == 90
    state = step(announcement, state, bid_of("q", 80, 1, limit=0))
    assert (state.leader and state.leader.bidder, state.price) == ("q", 0)
    assert next_price(announcement, state) is None
    with pytest.raises(BadValue, match="beyond the reserve"):
        step(announcement, begin(announcement), bid_of("p", 101, 0))
    with pytest.raises(BadValue, match="worse than its own price"):
        step(announcement, begin(announcement), bid_of("p", 50, 0, limit=60))


def test_with_fail_over_a_bid_that_does_not_improve_is_a_back_up() -> None:
    announcement = announce_open(reserve=100, fail_over=True)
    first, shill = bid_of("mole", 90, 0), bid_of("shill", 1, 1)
    state = step(announcement, step(announcement, begin(announcement), first), shill)
    late = bid_of("north", 40, 2, placed_ms=950)
    assert step(announcement, state, late) is state  # no other leader, price or close
    with pytest.raises(BadValue, match="standing price"):
        step(announce_open(reserve=100), state, late)
    check_back_up(announcement, None, late)
    check_back_up(announcement, late, bid_of("north", 39, 3))
    for worse in (40, 41):
        with pytest.raises(BadValue, match="same bidder"):
            check_back_up(announcement, late, bid_of("north", worse, 3))
    worse = bid_of("north", 60, 3)
    award = open_bidding(announcement, [first, shill, late, worse], {}, SEED)
    assert (award.winners[0].bidder, award.winners[0].price) == ("shill", 1)
    assert [(one.bidder, one.offered) for one in award.runners_up] == [("north", 40), ("mole", 90)]
    assert [(one.bid, one.outcome) for one in award.standings if one.bid == worse.bid] == [(worse.bid, "refused")]
    assert again(announcement, state, [first, late]).leader == late


def test_soft_close_moves_a_stated_number_of_times() -> None:
    announcement = announce_open(direction="receive", reserve=0)
    state = begin(announcement)
    closes = []
    for sequence, at_ms in enumerate([800, 950, 1050, 1190, 1300, 1339]):
        state = step(announcement, state, bid_of("pq"[sequence % 2], 10 * sequence + 5, sequence, placed_ms=at_ms))
        closes.append(state.closes_ms)
    assert closes == [1000, 1100, 1200, 1340, 1340, 1340]
    with pytest.raises(TooLate):
        step(announcement, state, bid_of("r", 999, 9, placed_ms=1340))
    early = announce_open(closing=Closing(opens_ms=10, closes_ms=20))
    with pytest.raises(WrongState):
        step(early, begin(early), bid_of("r", 1, 9, placed_ms=9))


@given(biddings())
def test_award_is_the_replay_and_keeps_the_limit_secret(world: tuple[Announcement, list[Bid]]) -> None:
    announcement, bids = world
    state, taken = begin(announcement), []
    for bid in bids:
        try:
            state = step(announcement, state, bid)
        except TooLate:
            continue  # the moderator takes none after the close
        except AuctionError:
            pass
        taken.append(bid)
    award = open_bidding(announcement, list(reversed(taken)), {}, SEED)
    assert award.failed == (state.leader is None)
    if state.leader is not None:
        assert (award.winners[0].bid, award.winners[0].price) == (state.leader.bid, state.price)
        assert next(standing for standing in award.standings if standing.outcome == "won").offered == state.price
    words = explain(award)
    assert all(standing.bid in words for standing in award.standings)


def test_open_bidding_compares_prices_alone() -> None:
    with pytest.raises(BadValue, match="only prices"):
        open_bidding(announce_open(quality=QualityWeights(evidence=1)), [], {}, SEED)


def test_a_bid_counts_though_the_one_that_moved_the_close_is_excluded() -> None:
    announcement = announce_open(direction="provide", reserve=100)
    bids = [
        bid_of("p", 90, 0, placed_ms=10),
        bid_of("shill", 50, 1, placed_ms=950),  # moves the close to 1,100
        bid_of("q", 40, 2, placed_ms=1_050),
    ]
    state = begin(announcement)
    for bid in bids:
        state = step(announcement, state, bid)
    left = [bids[0], bids[2]]
    assert open_bidding(announcement, left, {}, SEED).winners[0].bidder == "q"
    after = again(announcement, state, left)
    assert (after.leader, after.price, after.closes_ms) == (bids[2], 40, state.closes_ms)
    beyond = bid_of("r", 1, 3, placed_ms=1_000 + 3 * 150)  # later than any bids can move it to
    assert open_bidding(announcement, [*left, beyond], {}, SEED).winners[0].bidder == "q"
