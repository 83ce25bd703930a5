"""Subcontracting: a part of a service under the agreement, never by the prime itself, bounded in depth, no cycles."""

from __future__ import annotations

import pytest
from markets import awarded, market, measured

from auction.model.block import Block
from auction.model.errors import Cycle, LinkedParties, NotAllowed, TooDeep, WrongState
from auction.model.ledger import bond
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
    moderator.agree(name)
    return moderator, clock, name


def part_of(moderator: Moderator, prime: str) -> Block:
    whole = moderator.agreement(prime)
    return Block(id="", provider="", service="scan", starts_ms=whole.starts_ms, ends_ms=whole.ends_ms, maximum_bps=100)


def subcontract(moderator: Moderator, clock: ManualClock, prime: str, to: str, price: int, bond_asked: int = 0) -> str:
    """The prime's provider subcontracts a part by the same auctions."""
    terms = AuctionTerms(reserve=price, open_for_ms=1_000, bond=bond_asked)
    announcer = moderator.agreement(prime).provider
    auction = moderator.announce(announcer, part_of(moderator, prime), terms, prime=prime).auction
    moderator.bid(auction, BidEntry(to, price))
    clock.advance(1_000)
    moderator.tick()
    return moderator.auction(auction).agreements[0]


def finish(moderator: Moderator, name: str, measured_by: str, delivered_ppm: int) -> None:
    moderator.deliver(measured(moderator, name, measured_by, delivered_ppm))
    moderator.finish(name)
    moderator.charge(name)


def test_a_part_is_subcontracted_delivered_and_paid_by_the_prime() -> None:
    moderator, clock, prime = chain_market()
    part = subcontract(moderator, clock, prime, "p1", 3_000)
    assert [one.id for one in moderator.chain(part)] == [part, prime]
    assert (moderator.agreement(part).recipient, moderator.agreement(part).depth) == ("p0", 1)
    moderator.agree(part)
    moderator.start(prime)
    moderator.start(part)
    finish(moderator, part, "p0", 1_000_000)
    finish(moderator, prime, "rita", 1_000_000)
    assert moderator.balance("p1") == 50_000 + 3_000
    assert moderator.balance("p0") == 50_000 - 3_000 + 9_000
    assert violations(moderator.state) == []


def test_the_subcontractor_is_never_the_prime_itself() -> None:
    moderator, _clock, prime = chain_market()
    auction = moderator.announce(
        "p0", part_of(moderator, prime), AuctionTerms(reserve=10, open_for_ms=1_000), prime=prime
    )
    with pytest.raises((NotAllowed, LinkedParties)):
        moderator.bid(auction.auction, BidEntry("p0", 5))
    moderator.register("p0twin", "provider", controller="p0", capacity_bps=10_000)
    with pytest.raises((NotAllowed, LinkedParties)):
        moderator.bid(auction.auction, BidEntry("p0twin", 5))


def test_cycles_are_refused() -> None:
    moderator, clock, prime = chain_market()
    part = subcontract(moderator, clock, prime, "p1", 3_000)
    moderator.agree(part)
    terms = AuctionTerms(reserve=10, open_for_ms=1_000)
    below = moderator.announce("p1", part_of(moderator, part), terms, prime=part).auction
    with pytest.raises(Cycle):
        moderator.bid(below, BidEntry("p0", 5))


def test_depth_is_bounded() -> None:
    moderator, clock, prime = chain_market(depth_max=3)
    name = prime
    for number in range(1, 4):
        name = subcontract(moderator, clock, name, f"p{number}", 1_000)
        moderator.agree(name)
    assert moderator.agreement(name).depth == 3
    with pytest.raises(TooDeep):
        subcontract(moderator, clock, name, "p5", 10)


def test_only_who_provides_may_subcontract_and_within_the_window() -> None:
    moderator, _clock, prime = chain_market()
    terms = AuctionTerms(reserve=10, open_for_ms=1_000)
    with pytest.raises(NotAllowed):
        moderator.announce("p3", part_of(moderator, prime), terms, prime=prime)
    whole = moderator.agreement(prime)
    late = Block(id="", provider="", service="x", starts_ms=whole.starts_ms, ends_ms=whole.ends_ms + 1, minimum_bps=1)
    with pytest.raises(WrongState):
        moderator.announce("p0", late, terms, prime=prime)


def test_liability_runs_along_the_chain() -> None:
    moderator, clock, prime = chain_market()
    good = subcontract(moderator, clock, prime, "p1", 1_000, bond_asked=6_000)
    bad = subcontract(moderator, clock, prime, "p2", 1_000, bond_asked=6_000)
    for name in (good, bad):
        moderator.agree(name)
    for name in (prime, good, bad):
        moderator.start(name)
    finish(moderator, good, "p0", 1_000_000)
    with pytest.raises(WrongState, match="bottom"):
        finish(moderator, prime, "rita", 500_000)
    finish(moderator, bad, "p0", 100_000)
    moderator.charge(prime)
    # The prime lost 4,500 of 9,000; the one who fell short makes it good from its bond, the other does not.
    assert moderator.balance("rita") == 1_000_000 - 4_500
    assert moderator.balance("p0") == 50_000 - 1_000 - 100 + 4_500 + 4_500
    assert moderator.state.ledger.balance(bond("p1")) == 100_000
    assert moderator.state.ledger.balance(bond("p2")) == 100_000 - 4_500
    assert moderator.agreement(bad).recourse == 4_500
    assert violations(moderator.state) == []


def test_ratings_run_along_the_chain() -> None:
    moderator, clock, prime = chain_market()
    part = subcontract(moderator, clock, prime, "p1", 3_000)
    moderator.agree(part)
    moderator.start(prime)
    moderator.start(part)
    finish(moderator, part, "p0", 0)
    finish(moderator, prime, "rita", 0)
    with pytest.raises(NotAllowed):
        moderator.rate(part, "rita", False, device="phone")  # rita rates whom she has an agreement with
    moderator.rate(part, "p0", False, remark="it never came")
    moderator.rate(part, "p1", True)
    shown = moderator.rating("p1", "scan")
    assert (shown.count, shown.evidence_count, shown.remarks) == (1, 1, ("it never came",))
    assert moderator.rating("p0", "anonymise").evidence_count == 1
