"""`auction demo`: a whole market in simulated time, explained as it goes. It uses the public methods alone."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from auction.command.options import Parents, Parser
from auction.model.bid import QualityWeights
from auction.model.billing import as_text
from auction.model.block import Block
from auction.model.delivery import Delivery, Sample
from auction.model.money import as_decimal
from auction.model.rating import RatingRules
from auction.moderator import AuctionTerms, BidEntry, Moderator
from auction.moderator.clock import ManualClock
from auction.moderator.config import MarketConfig
from auction.moderator.invariants import violations

PROVIDERS = {"northwind": 41_00, "copperline": 36_50, "larkspur": 45_00}  # what each asks, in cents


def add(parser: Parser, parents: Parents) -> None:
    sub = parser.add("demo", "plays a whole market in simulated time and explains it", parents=[parents.common])
    sub.set_defaults(run=_demo)


def _demo(options: argparse.Namespace) -> int:
    lines: list[str] = []
    result = Demonstration(lines.append if options.json else print).play()
    if options.json:
        print(msgspec.json.encode({"told": lines, **result}).decode())
    return 1 if result["violations"] else 0


def numbered_bytes(seed: str) -> Callable[[int], bytes]:
    """Bytes that are the same in every run, so that the demonstration is."""

    def blocks() -> Iterator[bytes]:
        number = 0
        while True:
            yield hashlib.sha256(f"{seed} {number}".encode()).digest()
            number += 1

    source = blocks()
    return lambda size: b"".join(next(source) for _ in range(-(-size // 32)))[:size]


class Demonstration:
    """Plays the market and tells it to `tell`, line by line."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self.clock = ManualClock()
        rules = RatingRules(newcomer_bond=20_00, value_full=50_00)
        self.moderator = Moderator(
            clock=self.clock, config=MarketConfig(rating=rules), random_bytes=numbered_bytes("demo")
        )

    def play(self) -> dict[str, Any]:
        """Two auctions with all that lies between them; returns what came of it."""
        self._register()
        first = self._auction("The first auction: nobody is known yet, so the price decides.")
        self._serve(first)
        second = self._auction("The second auction: the ratings of the first are shown, and outweigh the lower price.")
        market, names = self.moderator, [first, second]
        broken = violations(market.state)
        self._tell("")
        self._tell(f"Every invariant was checked over {market.state.sequence} journal entries: {len(broken)} broken.")
        return {
            "entries": market.state.sequence,
            "violations": broken,
            "agreements": [msgspec.to_builtins(market.agreement(name)) for name in names],
            "ratings": {name: msgspec.to_builtins(market.rating(name, "anonymise")) for name in PROVIDERS},
            "balances": {name: market.balance(name) for name in ("harbour-clinic", *PROVIDERS)},
        }

    def _register(self) -> None:
        market = self.moderator
        market.register("harbour-clinic", "recipient")
        market.register("front-desk", "device", belongs_to="harbour-clinic")
        market.deposit("harbour-clinic", 500_00, "EUR")
        for name in PROVIDERS:
            market.register(name, "provider", capacity_bps=100_000_000)
            market.deposit(name, 100_00, "EUR")
            market.post_bond(name, 60_00, "EUR")
        self._tell("harbour-clinic has paid in 500.00 EUR; three providers of 100 Mbit/s put up bonds of 60.00 each.")

    def _auction(self, title: str) -> str:
        market, start = self.moderator, self.clock.now_ms
        self._tell("")
        self._tell(title)
        block = Block(
            id="",
            provider="",
            service="anonymise",
            starts_ms=start + 60_000,
            ends_ms=start + 120_000,
            minimum_bps=8_000_000,
            maximum_bps=20_000_000,
        )
        terms = AuctionTerms(reserve=60_00, open_for_ms=5_000, quality=QualityWeights(opinion=90_00, evidence=10_00))
        auction = market.announce("harbour-clinic", block, terms).auction
        for name, price in PROVIDERS.items():
            market.bid(auction, BidEntry(name, price))
        for shown in market.auction(auction).ratings:
            self._tell(
                f"  {shown.party:<12} {shown.count} opinions, mean {shown.mean_ppm / 10_000:.1f}%, lower bound "
                f"{shown.lower_ppm / 10_000:.1f}%; measured {shown.evidence_count} times, "
                f"{shown.evidence_mean_ppm / 10_000:.1f}%"
            )
        self.clock.advance(5_000)
        market.tick()
        for line in market.explain(auction).splitlines():
            self._tell("  " + line)
        name = market.auction(auction).agreements[0]
        market.agree(name)
        self._tell(f"  {self._shown(market.agreement(name).price)} are held on the clinic's balance for {name}.")
        return name

    def _serve(self, name: str) -> None:
        """The winner fails half-way, its runner-up takes over, the delivered parts are charged, both sides rate."""
        market = self.moderator
        self.clock.advance(60_000)
        market.start(name)
        leg = market.agreement(name).legs[-1]
        self.clock.advance(leg.from_ms + 30_000 - self.clock.now_ms)
        market.deliver(self._measured(name, leg.from_ms, self.clock.now_ms, 3_000_000))
        failed = market.agreement(name).provider
        taken = market.replace(name)
        self._tell(
            f"  {failed} carried 3 of the 8 Mbit/s that it owed; half-way {taken.provider} takes over. The price stays "
            f"{self._shown(taken.price)}; {failed}'s bond adds {self._shown(taken.legs[-1].topped_up)}."
        )
        leg = taken.legs[-1]
        self.clock.advance(leg.until_ms - self.clock.now_ms)
        market.deliver(self._measured(name, leg.from_ms, leg.until_ms, 8_000_000))
        market.finish(name)
        market.charge(name)
        for line in as_text(market.invoice(name)).splitlines():
            self._tell("  " + line if line else "")
        market.rate(name, "harbour-clinic", True, device="front-desk", remark="took over without a gap")
        market.rate(name, taken.provider, bool(market.drafted_payment_rating(name)))
        self._tell(f"  The clinic rates {taken.provider}: satisfied. {taken.provider} rates the clinic: it paid.")

    def _shown(self, amount: int) -> str:
        currency = self.moderator.config.currency
        return f"{as_decimal(amount, currency)} {currency}"

    def _measured(self, name: str, from_ms: int, until_ms: int, rate_bps: int) -> Delivery:
        bits = rate_bps * (until_ms - from_ms) // 1000
        asked = 8_000_000 * (until_ms - from_ms) // 1000
        sample = Sample(starts_ms=from_ms, ends_ms=until_ms, asked_bits=asked, got_bits=bits, latency_ms=12)
        return Delivery(agreement=name, measured_by="front-desk", samples=(sample,), audited=20)
