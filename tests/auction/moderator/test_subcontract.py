"""Subcontracting: a part of a service under the agreement, never by the prime itself, bounded in depth, no cycles."""

from __future__ import annotations

import pytest
from markets import awarded, market, money, settled

from auction.model.block import Block
from auction.model.errors import Cycle, LinkedParties, NotAllowed, TooDeep, WrongState
from auction.moderator import AuctionTerms, BidEntry, Moderator
from auction.moderator.clock import ManualClock
from auction.moderator.config import MarketConfig
from auction.moderator.invariants import violations


def chain_market(providers: int = 7, depth_max: int = 4) -> tuple[Moderator, ManualClock, str]:
    """p0 provides to rita at 9,000; everybody has money."""
    moderator, clock = market(config=MarketConfig(subcontract_depth_max=depth_max), providers=providers)
    for number in range(providers):
        moderator.deposit(f"p{number}", 50_000, "EUR")
    name = awarded(moderator, clock, prices=(9_000,), reserve=9_000)
    return moderator, clock, name


def part_of(moderator: Moderator, prime: str) -> Block:
    whole = moderator.agreement(prime)
    return Block(id="", provider="", service="scan", starts_ms=whole.starts_ms, ends_ms=whole.ends_ms, maximum_bps=100)


def subcontract(moderator: Moderator, clock: ManualClock, prime: str, to: str, price: int) -> str:
    """The prime's provider subcontracts a part by the same auctions."""
    terms = AuctionTerms(receipts=False, reserve=price, open_for_ms=1_000)
    announcer = moderator.agreement(prime).provider
    auction = moderator.announce(announcer, part_of(moderator, prime), terms, prime=prime).auction
    moderator.bid(auction, BidEntry(to, price))
    clock.advance(1_000)
    moderator.tick()
    return moderator.auction(auction).agreements[0]


def test_a_part_is_subcontracted_delivered_and_paid_by_the_prime() -> None:
    moderator, clock, prime = chain_market()
    part = subcontract(moderator, clock, prime, "p1", 3_000)
    assert [one.id for one in moderator.chain(part)] == [part, prime]
    assert (moderator.agreement(part).recipient, moderator.agreement(part).depth) == ("p0", 1)
    settled(moderator, part)
    settled(moderator, prime)
    assert moderator.balance("p1") == 50_000 + 3_000
    assert moderator.balance("p0") == 50_000 - 3_000 + 9_000
    assert violations(moderator.state) == []


def test_the_subcontractor_is_never_the_prime_itself() -> None:
    moderator, _clock, prime = chain_market()
    auction = moderator.announce(
        "p0", part_of(moderator, prime), AuctionTerms(receipts=False, reserve=10, open_for_ms=1_000), prime=prime
    )
    with pytest.raises((NotAllowed, LinkedParties)):
        moderator.bid(auction.auction, BidEntry("p0", 5))
    moderator.register("p0twin", "provider", controller="p0", capacity_bps=10_000)
    with pytest.raises((NotAllowed, LinkedParties)):
        moderator.bid(auction.auction, BidEntry("p0twin", 5))


def test_cycles_are_refused() -> None:
    moderator, clock, prime = chain_market()
    part = subcontract(moderator, clock, prime, "p1", 3_000)
    terms = AuctionTerms(receipts=False, reserve=10, open_for_ms=1_000)
    below = moderator.announce("p1", part_of(moderator, part), terms, prime=part).auction
    with pytest.raises(Cycle):
        moderator.bid(below, BidEntry("p0", 5))


def test_depth_is_bounded() -> None:
    moderator, clock, prime = chain_market(depth_max=3)
    name = prime
    for number in range(1, 4):
        name = subcontract(moderator, clock, name, f"p{number}", 1_000)
    assert moderator.agreement(name).depth == 3
    with pytest.raises(TooDeep):
        subcontract(moderator, clock, name, "p5", 10)


def test_only_who_provides_may_subcontract_and_within_the_window() -> None:
    moderator, _clock, prime = chain_market()
    terms = AuctionTerms(receipts=False, reserve=10, open_for_ms=1_000)
    with pytest.raises(NotAllowed):
        moderator.announce("p3", part_of(moderator, prime), terms, prime=prime)
    whole = moderator.agreement(prime)
    late = Block(id="", provider="", service="x", starts_ms=whole.starts_ms, ends_ms=whole.ends_ms + 1, minimum_bps=1)
    with pytest.raises(WrongState):
        moderator.announce("p0", late, terms, prime=prime)


def test_each_agreement_of_a_chain_is_settled_between_its_own_two_sides() -> None:
    """The prime answers to its recipient, whatever its subcontractors did, and has its own claim on them."""
    moderator, clock, prime = chain_market()
    good = subcontract(moderator, clock, prime, "p1", 1_000)
    bad = subcontract(moderator, clock, prime, "p2", 1_000)
    settled(moderator, prime, 4_500)
    settled(moderator, good)
    moderator.end(bad, "p0", "blaming", 100)
    moderator.end(bad, "p2", "leaving", 100)
    assert moderator.agreement(bad).state == "settled"
    assert money(moderator, "rita") == 1_000_000 - 4_500
    assert money(moderator, "p0") == 150_000 + 4_500 - 1_000 - 100 + 90  # δ of the 900 that p2 left undone
    assert money(moderator, "p1") == 150_000 + 1_000
    assert money(moderator, "p2") == 150_000 + 100 - 90
    assert violations(moderator.state) == []


def test_ratings_run_along_the_chain() -> None:
    moderator, clock, prime = chain_market()
    part = subcontract(moderator, clock, prime, "p1", 3_000)
    settled(moderator, part, 0)
    settled(moderator, prime, 0)
    with pytest.raises(NotAllowed):
        moderator.rate(part, "rita", False, device="phone")  # rita rates whom she has an agreement with
    moderator.rate(part, "p0", False, remark="it never came")
    moderator.rate(part, "p1", True)
    shown = moderator.rating("p1", "scan")
    assert (shown.count, shown.evidence_count, shown.remarks) == (
        1,
        0,
        ("it never came",),
    )  # both have stated 0, which is nobody's fault
    assert moderator.rating("p0", "anonymise").evidence_count == 0
