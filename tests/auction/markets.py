"""A small market for tests: a clock that stands still, numbers instead of randomness, parties with money."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Mapping
from unittest import mock

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import auction
from auction.model.agreement import Agreement
from auction.model.block import Block
from auction.model.earned import figure
from auction.model.receipt import Receipt, SignedReceipt, next_receipt
from auction.moderator import AuctionTerms, BidEntry, Moderator
from auction.moderator.clock import ManualClock
from auction.moderator.config import MarketConfig
from auction.moderator.invariants import differences, replay
from auction.payment.protocol import Processor
from auction.storage.store import MemoryStore, Store


def counted_bytes() -> Callable[[int], bytes]:
    """Bytes that differ at every call and are the same in every run."""
    numbers = itertools.count(1)
    return lambda size: next(numbers).to_bytes(size, "big")


def key_of(party: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(party.encode()).digest())


def public_key_of(party: str) -> str:
    return key_of(party).public_key().public_bytes_raw().hex()


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
    store: Store | None = None,
    config: MarketConfig | None = None,
    providers: int = 3,
    processors: Mapping[str, Processor] | None = None,
) -> tuple[Moderator, ManualClock]:
    """A moderator with a recipient `rita` who has 1,000,000 and providers `p0`, `p1`, ... of 10,000 bit/s each, with a
    bond of 100,000. All have keys (`key_of`)."""
    clock = ManualClock()
    moderator = Moderator(
        store or MemoryStore(), clock=clock, config=config, processors=processors, random_bytes=counted_bytes()
    )
    moderator.register("rita", "recipient", public_key=public_key_of("rita"))
    moderator.deposit("rita", 1_000_000, "EUR")
    for number in range(providers):
        moderator.register(f"p{number}", "provider", capacity_bps=10_000, public_key=public_key_of(f"p{number}"))
        moderator.deposit(f"p{number}", 100_000, "EUR")
        moderator.post_bond(f"p{number}", 100_000, "EUR")
    moderator.register("phone", "device", belongs_to="rita")
    return moderator, clock


def awarded(
    moderator: Moderator, clock: ManualClock, prices: tuple[int, ...] = (300, 200, 250), **terms: object
) -> str:
    """The agreement that comes out of an auction in which the providers bid these prices."""
    wanted = AuctionTerms(**{"reserve": 1_000, "open_for_ms": 10_000, "receipts": False, **terms})  # type: ignore[arg-type]
    announcement = moderator.announce("rita", asked(clock), wanted)
    for number, price in enumerate(prices):
        moderator.bid(announcement.auction, BidEntry(f"p{number}", price))
    clock.advance(10_000)
    moderator.tick()
    return moderator.auction(announcement.auction).agreements[0]


def settled(moderator: Moderator, agreement: str, figure: int | None = None) -> Agreement:
    """Both sides state the same: what of the price has been earned (None: all of it)."""
    one = moderator.agreement(agreement)
    amount = one.price if figure is None else figure
    for party in (one.provider, one.recipient):
        one = moderator.end(agreement, party, "finished", amount)
    return one


def signed(
    moderator: Moderator, agreement: str, intervals: int, got_ppm: int = 1_000_000, after: SignedReceipt | None = None
) -> SignedReceipt:
    """The receipt after so many intervals of a service that gave this part of what was asked, signed by both. `after`:
    those before are as they are."""
    terms = moderator.receipt_terms(agreement)
    receipt: Receipt | None = after.receipt if after is not None else None
    for number in range(receipt.number + 1 if receipt else 1, intervals + 1):
        rate = terms.minimum_bps if terms.minimum_bps is not None else terms.maximum_bps or 0
        asked_bits = terms.bits_at(rate, terms.length_ms(number))
        receipt = next_receipt(terms, receipt, asked_bits, asked_bits * got_ppm // 1_000_000, 0)
    assert receipt is not None
    return both_sign(moderator, agreement, receipt)


def both_sign(moderator: Moderator, agreement: str, receipt: Receipt) -> SignedReceipt:
    one = moderator.agreement(agreement)
    said = receipt.to_sign()
    return SignedReceipt(receipt, key_of(one.recipient).sign(said), key_of(one.provider).sign(said))


def figure_of(moderator: Moderator, agreement: str, receipt: SignedReceipt) -> int:
    return figure(moderator.receipt_terms(agreement), receipt.receipt)


def poll(moderator: Moderator, *parties: str) -> None:
    for party in parties:
        moderator.assignments(party)


def money(moderator: Moderator, party: str) -> int:
    """All that a party has in the market that is not held."""
    balances = moderator.state.ledger.balances
    return balances.get(f"funds:{party}", 0) + balances.get(f"bond:{party}", 0)


def nobody(moderator: Moderator) -> int:
    return moderator.state.ledger.balances.get("nobody", 0)


@mock.patch("auction.moderator.rules.holds.MONEY_MAX", 2**70)  # as in markets of older versions
def check_snapshot(url: str) -> None:
    """What is written after the journal was read is not seen in the rest of the snapshot. Its sums are exact."""
    store, own = auction.SqlStore(url), auction.SqlStore(url)
    moderator, _ = market(own)
    for party in ("p0", "p1", "p2"):
        moderator.deposit(party, 2**62, "EUR")
    with store.snapshot() as snapshot:
        assert snapshot.balances()["outside"] == -3 * 2**62 - 1_300_000  # more than 64 bits
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
