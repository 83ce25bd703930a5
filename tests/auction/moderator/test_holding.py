"""A whole auction in one command, beside the same auction step by step."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auction import AuctionTerms, BidEntry, Block, ManualClock, MarketConfig, MemoryStore, Moderator
from auction.model.bid import QualityWeights
from auction.model.errors import AuctionError, BadAmount, NotAllowed, Unknown
from auction.model.rating import RatingRules
from auction.moderator.invariants import replay, violations
from tests.examples import examples

ENTRIES = st.lists(
    st.builds(
        BidEntry,
        st.sampled_from(["p0", "p1", "p2", "p3", "twin-a", "twin-b", "phone", "nobody"]),
        st.one_of(st.integers(0, 1_000), st.sampled_from([-1, 2**63, True, 1.5])),
        salt=st.sampled_from(["", "", "", "grain"]),
    ),
    max_size=6,
)
TERMS = st.builds(
    AuctionTerms,
    reserve=st.integers(0, 1_000),
    open_for_ms=st.just(1_000),
    format=st.sampled_from(["second_score", "first_score"]),
    receipts=st.just(False),
    quality=st.sampled_from([QualityWeights(), QualityWeights(opinion=500)]),
)


def a_market(newcomer_bond: int) -> tuple[Moderator, ManualClock]:
    clock = ManualClock()
    rules = RatingRules(newcomer_bond=newcomer_bond)
    numbers = iter(range(1, 10_000))
    moderator = Moderator(
        MemoryStore(),
        clock=clock,
        config=MarketConfig(rating=rules),
        random_bytes=lambda count: next(numbers).to_bytes(count, "big"),
    )
    moderator.register("rita", "recipient")
    moderator.deposit("rita", 1_000, "EUR")
    moderator.register("phone", "device", belongs_to="rita")
    for number in range(4):
        moderator.register(f"p{number}", "provider", capacity_bps=100 if number else 9)
        moderator.deposit(f"p{number}", 900 if number != 3 else 200, "EUR")
        if number != 3:
            moderator.post_bond(f"p{number}", 300, "EUR")
    for name in ("twin-a", "twin-b"):
        moderator.register(name, "provider", controller="holding", capacity_bps=100)
        moderator.deposit(name, 400, "EUR")
        moderator.post_bond(name, 100, "EUR")
    return moderator, clock


def the_block(clock: ManualClock) -> Block:
    start_ms = clock.now_ms + 10_000
    return Block(id="", provider="", service="s", starts_ms=start_ms, ends_ms=start_ms + 1_000, maximum_bps=10)


def step_by_step(moderator: Moderator, clock: ManualClock, terms: AuctionTerms, entries: Sequence[BidEntry]) -> object:
    auction = moderator.announce("rita", the_block(clock), terms).auction
    for entry in entries:
        moderator.bid(auction, entry)
    clock.advance(1_000)
    award = moderator.close(auction)
    agreements = [moderator.agreement(name) for name in moderator.auction(auction).agreements]
    return outcome(award, agreements)


def outcome(award: object, agreements: Sequence[object]) -> object:
    """What both ways must agree in; names differ."""
    standings = [(one.bidder, one.offered, one.score, one.outcome, one.needed) for one in award.standings]  # type: ignore[attr-defined]
    deals = [(one.provider, one.price, one.recipient_held, one.provider_held) for one in agreements]  # type: ignore[attr-defined]
    return standings, deals


@settings(max_examples=examples(250), deadline=None)
@given(TERMS, ENTRIES, st.sampled_from([0, 500]))
def test_it_comes_to_what_the_steps_come_to(terms: AuctionTerms, entries: list[BidEntry], newcomer_bond: int) -> None:
    prices = [entry.price for entry in entries]
    if len(set(prices)) != len(prices):
        return  # ties are drawn by names, which differ
    by_steps, clock = a_market(newcomer_bond)
    expected: object
    try:
        expected = step_by_step(by_steps, clock, terms, entries)
    except AuctionError as reason:
        expected = reason
    at_once, clock = a_market(newcomer_bond)
    before = at_once.state.sequence
    if isinstance(expected, AuctionError):
        with pytest.raises(AuctionError):
            at_once.hold_auction("rita", the_block(clock), terms, entries)
        assert at_once.state.sequence == before
        return
    held = at_once.hold_auction("rita", the_block(clock), terms, entries)
    award = at_once.auction(held.auction).award
    assert outcome(award, [at_once.agreement(name) for name in held.agreements]) == expected
    assert [bid.price for bid in at_once.bids(held.auction, "rita")] == prices
    assert not violations(at_once.state)
    assert not violations(replay(at_once.store.entries(), at_once.config.rating))


@pytest.mark.parametrize(
    ("entry", "error"),
    [(BidEntry("p1", -1), BadAmount), (BidEntry("phone", 5), NotAllowed), (BidEntry("nobody", 5), Unknown)],
)
def test_one_refused_bid_refuses_the_whole(entry: BidEntry, error: type[AuctionError]) -> None:
    moderator, clock = a_market(0)
    before = moderator.state.sequence
    with pytest.raises(error):
        moderator.hold_auction(
            "rita",
            the_block(clock),
            AuctionTerms(receipts=False, reserve=900, open_for_ms=1),
            [BidEntry("p2", 5), entry],
        )
    assert moderator.state.sequence == before


def test_the_transcript_of_a_held_auction_verifies() -> None:
    from auction.formats.transcript import verify as verify_transcript

    moderator, clock = a_market(0)
    entries = [BidEntry("p1", 300), BidEntry("p2", 200, salt="grain"), BidEntry("p1", 100)]
    held = moderator.hold_auction(
        "rita", the_block(clock), AuctionTerms(receipts=False, reserve=900, open_for_ms=1), entries
    )
    award = moderator.auction(held.auction).award
    assert award is not None
    assert award.winners[0].bidder == "p1"
    assert award.winners[0].price == 200
    verify_transcript(moderator.transcript(held.auction), award, moderator.bids(held.auction, "p1"))
