"""Sealed formats for one block against a twin that searches prices one by one, and what a bidder can rely on."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from worlds import PARTIES, SEED, World, announce, bid_of, rate, worlds

from auction.formats import FORMATS
from auction.formats.explain import explain
from auction.formats.scored import first_price, first_score, second_price, second_score
from auction.model.award import Award
from auction.model.bid import Announcement, Bid, QualityWeights, Ratings
from auction.model.errors import BadCurrency, BadValue, Exists

AWARDS = {
    "second_score": second_score,
    "first_score": first_score,
    "first_price": first_price,
    "second_price": second_price,
}


def best_by_hand(announcement: Announcement, bids: list[Bid], ratings: Ratings, seed: bytes) -> tuple[str, int] | None:
    """Slow twin: (bidder, score) of the winner by pairwise comparison, from the words of the design."""
    latest: dict[str, Bid] = {}
    for bid in bids:
        if bid.bidder not in latest or latest[bid.bidder].sequence < bid.sequence:
            latest[bid.bidder] = bid
    provides = announcement.direction == "provide"
    inside = [
        bid
        for bid in latest.values()
        if (bid.price <= announcement.reserve if provides else bid.price >= announcement.reserve)
    ]
    prefix = b"auction.draw\0" + str(len(seed)).encode() + b"\0" + seed + b"1\0a"
    share = int.from_bytes(hashlib.sha256(prefix + b"\0share").digest(), "big") % 1_000_000
    new = [bid for bid in inside if bid.bidder not in ratings or ratings[bid.bidder].newcomer]
    if share < announcement.newcomer_share_ppm and new:
        inside = new

    def score(bid: Bid) -> int:
        rating = ratings.get(bid.bidder)
        value = 0
        if rating:
            value += announcement.quality.opinion * rating.lower_ppm // 10**6
            value += announcement.quality.evidence * rating.evidence_lower_ppm // 10**6
        return value - bid.price if provides else value + bid.price

    def beats(one: Bid, other: Bid) -> bool:
        if score(one) != score(other):
            return score(one) > score(other)
        hashes = [hashlib.sha256(prefix + bid.bidder.encode()).hexdigest() for bid in (one, other)]
        return hashes[0] < hashes[1]

    for bid in inside:
        if all(other is bid or beats(bid, other) for other in inside):
            return bid.bidder, score(bid)
    return None


def test_who_registered_after_the_announcement_wins_no_tie() -> None:
    announcement = announce(format="first_price", sequence=10)
    for number in range(30):
        bids = [bid_of(f"late{number}", 50, 0, registered=11), bid_of(f"early{number}", 50, 1, registered=10)]
        assert winner(first_price(announcement, bids, {}, SEED)) == f"early{number}"


def changed(bids: list[Bid], name: str, price: int) -> list[Bid]:
    return [msgspec.structs.replace(bid, price=price) if bid.bid == name else bid for bid in bids]


def winner(award: Award) -> str | None:
    return award.winners[0].bidder if award.winners else None


@given(st.sampled_from(["second_score", "first_score"]).flatmap(lambda name: worlds(format=name)))
def test_winner_is_the_best_score_within_the_reserve(world: World) -> None:
    announcement, bids, ratings, seed = world
    award = AWARDS[announcement.format](announcement, bids, ratings, seed)
    expected = best_by_hand(announcement, bids, ratings, seed)
    assert winner(award) == (expected[0] if expected else None)
    assert len(award.winners) <= 1
    assert len(award.standings) == len({bid.bidder for bid in bids})


@given(worlds(format="second_score"))
def test_second_score_pays_the_worst_price_that_still_wins(world: World) -> None:
    """The price is the critical one up to a tie: one unit worse loses, one better wins (Myerson's condition)."""
    announcement, bids, ratings, seed = world
    award = second_score(announcement, bids, ratings, seed)
    assume(not award.failed)
    won = award.winners[0]
    worse = 1 if announcement.direction == "provide" else -1
    own = next(bid.price for bid in bids if bid.bid == won.bid)
    assert won.price * worse >= own * worse
    assert won.price * worse <= announcement.reserve * worse
    at = {price: best_by_hand(announcement, changed(bids, won.bid, price), ratings, seed) for price in range(90)}
    winning_prices = [price for price, best in at.items() if best and best[0] == won.bidder]
    last = max(winning_prices) if worse == 1 else min(winning_prices)
    assert won.price in (last, last + worse)
    if won.price != last:  # only a lost draw on an equal score keeps the price itself from winning
        best = at.get(won.price)
        assert best is not None
        value = award.standings[0].quality
        assert best[1] == value - worse * won.price


@given(st.sampled_from(["first_score", "first_price"]).flatmap(lambda name: worlds(format=name, weighs=False)))
def test_first_formats_pay_what_was_bid(world: World) -> None:
    announcement, bids, ratings, seed = world
    award = AWARDS[announcement.format](announcement, bids, ratings, seed)
    for won in award.winners:
        assert won.price == next(bid.price for bid in bids if bid.bid == won.bid)


@given(worlds(format="second_price", weighs=False, newcomers=False))
def test_second_price_is_the_next_price_or_the_reserve(world: World) -> None:
    announcement, bids, ratings, seed = world
    award = second_price(announcement, bids, ratings, seed)
    assume(not award.failed)
    prices = sorted(standing.offered for standing in award.standings if standing.outcome in ("won", "lost"))
    if announcement.direction == "receive":
        prices.reverse()
    assert award.winners[0].price == (prices[1] if len(prices) > 1 else announcement.reserve)


@given(worlds(format="second_score", newcomers=False), st.data())
def test_the_truth_is_a_best_answer_in_second_score(world: World, data: st.DataObject) -> None:
    """One-shot, private cost, single unit: no other price earns a bidder more than its true one."""
    announcement, bids, ratings, seed = world
    bids = list({bid.bidder: bid for bid in bids}.values())
    assume(bids)
    liar = data.draw(st.sampled_from(bids))
    truth = liar.price
    gain = -1 if announcement.direction == "receive" else 1

    def surplus(price: int) -> int:
        award = second_score(announcement, changed(bids, liar.bid, price), ratings, seed)
        return gain * (award.winners[0].price - truth) if winner(award) == liar.bidder else 0

    honest = surplus(truth)
    assert honest >= 0
    assert surplus(data.draw(st.integers(0, 90))) <= honest


@given(st.sampled_from(sorted(AWARDS)).flatmap(lambda name: worlds(format=name, weighs="score" in name)))
def test_needed_would_have_won_for_sure(world: World) -> None:
    announcement, bids, ratings, seed = world
    award_of = AWARDS[announcement.format]
    award = award_of(announcement, bids, ratings, seed)
    worse = 1 if announcement.direction == "provide" else -1
    for standing in award.standings:
        if standing.outcome == "won":
            continue
        prices = [
            price
            for price in range(90)
            if winner(award_of(announcement, changed(bids, standing.bid, price), ratings, seed)) == standing.bidder
        ]
        if standing.needed is None:  # no price would win for sure; for nothing at all a draw may be won
            assert prices in ([], [0])
        else:
            last = max(prices) if worse == 1 else min(prices)
            assert standing.needed in (last, last - worse)


@given(worlds(), st.data())
def test_order_of_hearing_changes_nothing(world: World, data: st.DataObject) -> None:
    announcement, bids, ratings, seed = world
    again = second_score(announcement, data.draw(st.permutations(bids)), ratings, seed)
    assert again == second_score(announcement, bids, ratings, seed)


def test_ties_go_by_the_seed_and_not_by_who_came_first() -> None:
    winners = []
    for number in range(200):
        seed = b"%d" % number
        bids = [bid_of(party, 50, place) for place, party in enumerate(PARTIES[:4])]
        award = second_score(announce(seed), bids, {}, seed)
        assert award.tie_drawn
        assert award.winners[0].price == 50
        winners.append(award.winners[0].bidder)
    for party in PARTIES[:4]:
        assert 25 <= winners.count(party) <= 80


def test_the_seed_must_be_the_announced_one() -> None:
    with pytest.raises(BadValue, match="seed"):
        second_score(announce(b"one"), [], {}, b"other")


def test_newcomers_get_their_stated_share() -> None:
    bids = [bid_of("old", 10, 0), bid_of("new", 90, 1)]
    ratings = {"old": rate("old", 900_000), "new": rate("new", 0, newcomer=True)}
    won = 0
    for number in range(1000):
        seed = b"%d" % number
        award = second_score(announce(seed, newcomer_share_ppm=100_000), bids, ratings, seed)
        won += award.winners[0].bidder == "new"
        assert award.newcomers_only == (award.winners[0].bidder == "new")
    assert 70 <= won <= 130


def test_quality_weighs_against_price() -> None:
    announcement = announce(quality=QualityWeights(opinion=50))
    bids = [bid_of("good", 60, 0), bid_of("cheap", 40, 1)]
    ratings = {"good": rate("good", 900_000), "cheap": rate("cheap", 200_000)}
    award = second_score(announcement, bids, ratings, b"the seed of the tests")
    # 45 - 60 = -15 against 10 - 40 = -30: the good one may ask 45 + 30 = 75 and still be as good.
    assert (award.winners[0].bidder, award.winners[0].price) == ("good", 75)
    assert award.standings[1].needed == 24
    words = explain(award)
    for word in ("good0", " 0.75", "-0.15", "Second was cheap1", "-0.30", " 0.24 or less", "Amounts are in EUR"):
        assert word in words


@pytest.mark.parametrize(
    ("bids", "error"),
    [
        ([bid_of("p", 1, 0, auction="other")], BadValue),
        ([bid_of("p", 1, 0, currency="USD")], BadCurrency),
        ([bid_of("p", 1, 0), bid_of("q", 1, 0)], Exists),
        ([bid_of("p", 1, 0, bid="x"), bid_of("q", 1, 1, bid="x")], Exists),
    ],
)
def test_bids_that_do_not_belong_are_refused(bids: list[Bid], error: type[Exception]) -> None:
    for name, award in AWARDS.items():
        with pytest.raises(error):
            award(announce(format=name), bids, {}, b"the seed of the tests")


def test_price_formats_refuse_to_weigh_quality() -> None:
    announcement: Any = announce(quality=QualityWeights(opinion=1))
    for award in (first_price, second_price):
        with pytest.raises(BadValue, match="only prices"):
            award(announcement, [], {}, b"the seed of the tests")


@given(st.sampled_from(sorted(AWARDS)).flatmap(lambda name: worlds(format=name, weighs="score" in name)))
def test_explain_names_every_bid(world: World) -> None:
    announcement, bids, ratings, seed = world
    award = AWARDS[announcement.format](announcement, bids, ratings, seed)
    words = explain(award)
    for standing in award.standings:
        assert f"{standing.bid} of {standing.bidder}" in words
    if award.failed:
        assert "No award" in words


@given(
    st.sampled_from(sorted(AWARDS)),
    st.sampled_from(["provide", "receive"]),
    st.lists(st.integers(0, 200), max_size=8),
    st.sampled_from([{}, {"newcomer_share_ppm": 500_000}, {"quality": QualityWeights(opinion=10)}]),
)
def test_what_prices_alone_decide_is_decided_by_them(
    form: str, direction: str, prices: list[int], more: dict[str, Any]
) -> None:
    assume(not (form.endswith("price") and "quality" in more))
    announcement = announce(format=form, direction=direction, **more)
    bidders = [f"p{index}" for index in range(len(prices))]
    bids = [bid_of(bidder, price, index) for index, (bidder, price) in enumerate(zip(bidders, prices, strict=True))]
    by_price = FORMATS[form].by_price
    assert by_price is not None
    decided = by_price(announcement, lambda index: bids[index].bid, bidders, prices)
    if more or len(set(prices)) < len(prices):
        assert decided is None
        return
    assert decided == AWARDS[form](announcement, bids, {}, SEED).winners
