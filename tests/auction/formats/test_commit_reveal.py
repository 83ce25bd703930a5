"""Commit and reveal: who opens its hash in time bids, everyone else forfeits the bond."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds import PARTIES, SEED, announce, bid_of

from auction.formats.commit_reveal import Commitment, Forfeit, award_revealed, check_commitment, check_reveal, open_bids
from auction.formats.scored import second_score
from auction.model.bid import Bid, Closing, commitment
from auction.model.errors import BadSignature, BadValue, Exists, NotAllowed, TooLate, WrongState

CLOSING = Closing(opens_ms=10, closes_ms=100, reveal_until_ms=200)
ANNOUNCEMENT = announce(closing=CLOSING, bond=7)


def commit(bid: Bid, **change: Any) -> Commitment:
    fields = {"auction": "a", "bidder": bid.bidder, "commitment": commitment(bid), "sequence": bid.sequence}
    return Commitment(**fields | {"placed_ms": 50} | change)  # type: ignore[arg-type]


def reveal_of(bidder: str, price: int, sequence: int, **change: Any) -> Bid:
    return bid_of(bidder, price, sequence, **{"placed_ms": 150, "salt": "salt of " + bidder} | change)


FATES = st.dictionaries(
    st.sampled_from(PARTIES), st.tuples(st.integers(0, 120), st.sampled_from(["in time", "late", "never", "changed"]))
)


@given(FATES)
def test_bonds_are_lost_by_exactly_those_who_did_not_reveal(fates: dict[str, tuple[int, str]]) -> None:
    bids = {name: reveal_of(name, price, place) for place, (name, (price, _)) in enumerate(sorted(fates.items()))}
    handed_in = [commit(bid) for bid in bids.values()]
    reveals = []
    for name, (price, fate) in fates.items():
        if fate == "late":
            reveals.append(msgspec.structs.replace(bids[name], placed_ms=200))
        elif fate == "changed":
            reveals.append(msgspec.structs.replace(bids[name], price=price + 1))
        elif fate == "in time":
            reveals.append(bids[name])
    award, forfeits = award_revealed(ANNOUNCEMENT, handed_in, reveals, {}, SEED)
    honest = [bids[name] for name, (_, fate) in fates.items() if fate == "in time"]
    assert {one.bidder for one in forfeits} == {name for name, (_, fate) in fates.items() if fate != "in time"}
    assert all(one.amount == 7 for one in forfeits)
    assert award == second_score(ANNOUNCEMENT, honest, {}, SEED)


def test_a_slip_can_be_mended_in_time_and_nothing_is_bid_twice() -> None:
    bid = reveal_of("p", 30, 1)
    wrong = reveal_of("p", 31, 2)
    again = reveal_of("p", 30, 3)
    opened = open_bids(ANNOUNCEMENT, [commit(bid, sequence=5)], [wrong, again, reveal_of("stranger", 1, 4)])
    assert opened.forfeits == ()
    assert [(one.bidder, one.price, one.sequence) for one in opened.bids] == [("p", 30, 5)]
    assert open_bids(ANNOUNCEMENT, [commit(bid)], []).forfeits == (Forfeit(bidder="p", amount=7),)


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
