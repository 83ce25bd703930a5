"""A small market for tests: a clock that stands still, numbers instead of randomness, parties with money."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import auction
from auction.model.block import Block
from auction.model.delivery import Delivery, Sample
from auction.moderator import AuctionTerms, BidEntry, Moderator
from auction.moderator.clock import ManualClock
from auction.moderator.config import MarketConfig
from auction.moderator.invariants import differences, replay
from auction.storage.store import MemoryStore, Store


def counted_bytes() -> Callable[[int], bytes]:
    """Bytes that differ at every call and are the same in every run."""
    numbers = itertools.count(1)
    return lambda size: next(numbers).to_bytes(size, "big")


def asked(clock: ManualClock, rate_bps: int = 1_000, service: str = "anonymise") -> Block:
    """A block that starts in a minute and lasts for one."""
    return Block(
        id="",
        provider="",
        service=service,
        starts_ms=clock.now_ms + 60_000,
        ends_ms=clock.now_ms + 120_000,
        maximum_bps=rate_bps,
    )


def market(
    store: Store | None = None, config: MarketConfig | None = None, providers: int = 3
) -> tuple[Moderator, ManualClock]:
    """A moderator with a recipient `rita` who has 1,000,000 and providers `p0`, `p1`, ... of 10,000 bit/s each."""
    clock = ManualClock()
    moderator = Moderator(store or MemoryStore(), clock=clock, config=config, random_bytes=counted_bytes())
    moderator.register("rita", "recipient")
    moderator.deposit("rita", 1_000_000, "EUR")
    for number in range(providers):
        moderator.register(f"p{number}", "provider", capacity_bps=10_000)
        moderator.deposit(f"p{number}", 100_000, "EUR")
        moderator.post_bond(f"p{number}", 100_000, "EUR")
    moderator.register("phone", "device", belongs_to="rita")
    return moderator, clock


def awarded(
    moderator: Moderator, clock: ManualClock, prices: tuple[int, ...] = (300, 200, 250), **terms: object
) -> str:
    """The agreement that comes out of an auction in which the providers bid these prices."""
    wanted = AuctionTerms(**{"reserve": 1_000, "open_for_ms": 10_000, **terms})  # type: ignore[arg-type]
    announcement = moderator.announce("rita", asked(clock), wanted)
    for number, price in enumerate(prices):
        moderator.bid(announcement.auction, BidEntry(f"p{number}", price))
    clock.advance(10_000)
    moderator.tick()
    return moderator.auction(announcement.auction).agreements[0]


def measured(moderator: Moderator, agreement: str, by: str, delivered_ppm: int) -> Delivery:
    """A measurement by which the provider that serves now was there for this part of its time."""
    leg = moderator.agreement(agreement).legs[-1]
    ends_ms = leg.from_ms + (leg.until_ms - leg.from_ms) * delivered_ppm // 1_000_000
    samples = (Sample(starts_ms=leg.from_ms, ends_ms=ends_ms, asked_bits=1, got_bits=1),) if delivered_ppm else ()
    return Delivery(agreement=agreement, measured_by=by, samples=samples)


def check_snapshot(url: str) -> None:
    """What is written after the journal was read is not seen in the rest of the snapshot."""
    store, own = auction.SqlStore(url), auction.SqlStore(url)
    moderator, _ = market(own)
    with store.snapshot() as snapshot:
        state = replay(snapshot.entries())
        moderator.deposit("rita", 1, "EUR")
        moderator.register("late", "recipient")
        assert differences(state, snapshot) == []
        assert ("party", "late") not in snapshot.records()
    with store.snapshot() as snapshot:
        assert ("party", "late") in snapshot.records()
        assert len(differences(state, snapshot)) > 1
    own.close()
    store.close()
