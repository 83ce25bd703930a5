"""Commit and reveal: who opens its hash in time bids, everyone else forfeits R to nobody. Played through the
moderator."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import PARTIES, announce, bid_of

from auction import AuctionTerms, BidEntry, Block, ManualClock, MarketConfig, Moderator
from auction.formats.commit_reveal import Commitment, check_commitment, check_reveal
from auction.model.bid import Bid, Closing, commitment
from auction.model.errors import BadSignature, BadValue, Exists, NotAllowed, TooLate, WrongState
from auction.model.ledger import bond
from auction.model.rating import RatingRules
from tests.examples import examples

CLOSING = Closing(opens_ms=10, closes_ms=100, reveal_until_ms=200)
ANNOUNCEMENT = announce(closing=CLOSING)


def commit(bid: Bid, **change: Any) -> Commitment:
    fields = {"auction": "a", "bidder": bid.bidder, "commitment": commitment(bid), "sequence": bid.sequence}
    return Commitment(**fields | {"placed_ms": 50} | change)  # type: ignore[arg-type]


def reveal_of(bidder: str, price: int, sequence: int, **change: Any) -> Bid:
    return bid_of(bidder, price, sequence, **{"placed_ms": 150, "salt": "salt of " + bidder} | change)


FATES = st.dictionaries(
    st.sampled_from(PARTIES), st.tuples(st.integers(0, 120), st.sampled_from(["in time", "late", "never", "changed"]))
)


@settings(max_examples=examples(60), deadline=None)
@given(FATES)
def test_bonds_are_lost_by_exactly_those_who_did_not_reveal(fates: dict[str, tuple[int, str]]) -> None:
    clock = ManualClock()
    moderator = Moderator(clock=clock, config=MarketConfig(rating=RatingRules(newcomer_bond=0)))
    moderator.register("rita", "recipient")
    moderator.deposit("rita", 110, "EUR")
    for name in fates:
        moderator.register(name, "provider", capacity_bps=1)
        moderator.deposit(name, 500, "EUR")
        moderator.post_bond(name, 500, "EUR")
    terms = AuctionTerms(receipts=False, reserve=100, open_for_ms=90, reveal_for_ms=100)
    block = Block("", "", "s", clock.now_ms + 500, clock.now_ms + 600, maximum_bps=1)
    auction = moderator.announce("rita", block, terms).auction
    for name, (price, _) in fates.items():
        bid = Bid(bid="-", auction=auction, bidder=name, price=price, currency="EUR", salt="grain")
        moderator.commit(auction, name, commitment(bid))
    clock.advance(90)
    for name, (price, fate) in fates.items():
        if fate == "changed":
            with pytest.raises(BadSignature):
                moderator.reveal(auction, BidEntry(name, price + 1, salt="grain"))
        if fate == "in time":
            moderator.reveal(auction, BidEntry(name, price, salt="grain"))
            with pytest.raises(Exists):
                moderator.reveal(auction, BidEntry(name, price, salt="grain"))
    clock.advance(100)
    for name, (price, fate) in fates.items():
        if fate == "late":
            with pytest.raises(TooLate):
                moderator.reveal(auction, BidEntry(name, price, salt="grain"))
    award = moderator.close(auction)
    lost = {name for name in fates if moderator.state.ledger.balance(bond(name)) == 400}
    assert lost == {name for name, (_, fate) in fates.items() if fate != "in time"}
    assert {one.bidder for one in award.standings} == set(fates) - lost
    placed = sorted((one.sequence, one.bidder) for one in moderator.bids(auction, "rita"))
    assert [name for _, name in placed] == [name for name in fates if name not in lost]


def test_reveals_that_are_refused() -> None:
    bid = reveal_of("p", 30, 1)
    committed = commit(bid)
    check_reveal(ANNOUNCEMENT, committed, bid)
    for change, error in (
        ({"placed_ms": 99}, WrongState),
        ({"placed_ms": 200}, TooLate),
        ({"price": 29}, BadSignature),
        ({"salt": "other"}, BadSignature),
        ({"quantity": 2}, BadSignature),
        ({"bidder": "q"}, NotAllowed),
        ({"auction": "b"}, NotAllowed),
    ):
        with pytest.raises(error):
            check_reveal(ANNOUNCEMENT, committed, msgspec.structs.replace(bid, **change))  # type: ignore[arg-type]


def test_commitments_that_are_refused() -> None:
    mine = commit(reveal_of("p", 30, 1))
    check_commitment(ANNOUNCEMENT, [], mine)
    copied = msgspec.structs.replace(mine, bidder="thief")
    for handed_in, new, error in (
        ([mine], mine, Exists),
        ([mine], copied, Exists),
        ([], msgspec.structs.replace(mine, placed_ms=9), WrongState),
        ([], msgspec.structs.replace(mine, placed_ms=100), TooLate),
        ([], msgspec.structs.replace(mine, auction="b"), BadValue),
    ):
        with pytest.raises(error):
            check_commitment(ANNOUNCEMENT, handed_in, new)
    with pytest.raises(BadValue):
        check_commitment(announce(), [], mine)
