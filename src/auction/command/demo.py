"""`auction demo`: plays a whole market in simulated time and explains each step. It uses only public methods."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from auction.command.options import Parents, Parser
from auction.model.agreement import Agreement
from auction.model.bid import QualityWeights
from auction.model.billing import as_text
from auction.model.block import Block
from auction.model.earned import figure
from auction.model.lifecycle import CLOSING_MS
from auction.model.money import as_decimal
from auction.model.rating import RatingRules
from auction.model.receipt import Receipt, SignedReceipt, next_receipt
from auction.moderator import AuctionTerms, BidEntry, Moderator
from auction.moderator.clock import ManualClock
from auction.moderator.config import MarketConfig
from auction.moderator.invariants import violations

PROVIDERS = {"northwind": 41_00, "copperline": 36_50, "larkspur": 45_00}  # each one's price, in cents
RESERVE = 100_00  # the part above the price pays a provider that takes over


def add(parser: Parser, parents: Parents) -> None:
    sub = parser.add("demo", "play a whole market in simulated time and explain each step", parents=[parents.common])
    sub.set_defaults(run=_demo)


def _demo(options: argparse.Namespace) -> int:
    lines: list[str] = []
    result = Demonstration(lines.append if options.json else print).play()
    if options.json:
        print(msgspec.json.encode({"told": lines, **result}).decode())
    return 1 if result["violations"] else 0


def numbered_bytes(seed: str) -> Callable[[int], bytes]:
    """Returns a source of bytes that are the same in every run, so that every run of the demonstration is the same."""

    def blocks() -> Iterator[bytes]:
        number = 0
        while True:
            yield hashlib.sha256(f"{seed} {number}".encode()).digest()
            number += 1

    source = blocks()
    return lambda size: b"".join(next(source) for _ in range(-(-size // 32)))[:size]


class Demonstration:
    """Plays the market and passes each line of the explanation to `tell`."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        secrets = numbered_bytes("keys")
        names = ("harbour-clinic", *PROVIDERS)
        self.keys = {name: Ed25519PrivateKey.from_private_bytes(secrets(32)) for name in names}
        self.clock = ManualClock()
        rules = RatingRules(newcomer_bond=20_00, value_full=50_00)
        self.moderator = Moderator(
            clock=self.clock, config=MarketConfig(rating=rules), random_bytes=numbered_bytes("demo")
        )

    def play(self) -> dict[str, Any]:
        """Plays two auctions and the service between them. Returns the agreements, ratings and balances."""
        self._register()
        first = self._auction("The first auction: no provider has a rating yet, so the price decides.")
        rest = self._serve(first)
        second = self._auction(
            "The second auction: the ratings from the first are shown, and outweigh the lower price."
        )
        market, names = self.moderator, [first, rest, second]
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
        public = {name: key.public_key().public_bytes_raw().hex() for name, key in self.keys.items()}
        market.register("harbour-clinic", "recipient", public_key=public["harbour-clinic"])
        market.register("front-desk", "device", belongs_to="harbour-clinic")
        market.deposit("harbour-clinic", 500_00, "EUR")
        for name in PROVIDERS:
            market.register(name, "provider", public_key=public[name], capacity_bps=100_000_000)
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
        quality = QualityWeights(opinion=90_00, evidence=10_00)
        terms = AuctionTerms(reserve=RESERVE, open_for_ms=5_000, quality=quality, fail_over=True)
        auction = market.announce("harbour-clinic", block, terms).auction
        held = RESERVE + RESERVE // 10
        self._tell(f"  It is announced, up to {money(RESERVE)}; {money(held)} of the clinic's balance are held for it.")
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
        agreement = market.agreement(name)
        self._tell(
            f"  The award is the agreement {name}: the clinic's {money(agreement.recipient_held)} stay held, "
            f"and {money(agreement.provider_held)} of {agreement.provider}'s bond are."
        )
        return name

    def _serve(self, name: str) -> str:
        """The winner fails half-way and stays silent, and a runner-up takes over. Both agreements end: one at once, one
        when closing is over. Returns the second agreement's name."""
        market = self.moderator
        failing = market.agreement(name)
        half_ms = (failing.starts_ms + failing.ends_ms) // 2
        self._until(half_ms)
        receipt = self._receipts(failing, half_ms, 3_000_000)
        market.hand_in(name, "harbour-clinic", receipt)
        due = figure(market.receipt_terms(name), receipt.receipt)
        market.end(name, "harbour-clinic", "blaming", due)
        self._tell(
            f"  {failing.provider} carried 3 of the 8 Mbit/s that it owed, and left half-way. The receipts that it "
            f"signed show that it earned {money(due)}."
        )
        taken = self._taken_over(name)
        self._tell(
            f"  {taken.provider} takes over, at its own price for the time left: {money(taken.price)}, paid from the "
            "reserve that is held."
        )
        self._until(taken.ends_ms)
        receipt = self._receipts(taken, taken.ends_ms, 8_000_000)
        for party in ("harbour-clinic", taken.provider):
            market.hand_in(taken.id, party, receipt)
            ended = market.end(taken.id, party, "finished", figure(market.receipt_terms(taken.id), receipt.receipt))
        self._tell(f"  Both sides of {taken.id} state the same: {money(ended.charged)} are paid at once.")
        self.clock.advance(CLOSING_MS)
        market.tick()
        settled = market.agreement(name)
        self._tell(
            f"  {settled.provider} says nothing for an hour, so {name} is settled by the clinic's figure. "
            f"{money(settled.charged)} are paid. Of {settled.provider}'s bond {money(settled.burnt)} go to nobody for "
            f"the part not delivered, and {money(settled.lost // 10)} to the clinic for the shortfall that it signed."
        )
        for line in as_text(market.invoice(taken.id)).splitlines():
            self._tell("  " + line if line else "")
        for one, words in ((settled, "it left half-way"), (ended, "took over without a gap")):
            market.rate(one.id, "harbour-clinic", one is ended, device="front-desk", remark=words)
            market.rate(one.id, one.provider, bool(market.drafted_payment_rating(one.id)))
        self._tell(
            f"  The clinic rates {settled.provider}: not satisfied, and {ended.provider}: satisfied. Both rate the "
            "clinic: it paid."
        )
        return taken.id

    def _until(self, at_ms: int) -> None:
        """Advances the clock. Every party polls its assignments on the way."""
        while self.clock.now_ms < at_ms:
            self.clock.advance(min(5_000, at_ms - self.clock.now_ms))
            for party in ("harbour-clinic", *PROVIDERS):
                self.moderator.assignments(party)
            self.moderator.tick()

    def _taken_over(self, name: str) -> Agreement:
        """The runner-up that is offered the rest takes over."""
        market = self.moderator
        for party in PROVIDERS:
            offered = [one.agreement for one in market.assignments(party).assignments if one.role == "offer"]
            if name in offered:
                return market.take_over(name, party)
        raise AssertionError("no runner-up is offered the rest")

    def _receipts(self, agreement: Agreement, until_ms: int, rate_bps: int) -> SignedReceipt:
        """Both sides sign a receipt after each interval, at this rate, with 8 Mbit/s asked for. Returns the last
        one."""
        about = self.moderator.receipt_terms(agreement.id)
        receipt: Receipt | None = None
        interval_ms = (agreement.ends_ms - agreement.starts_ms) // about.intervals
        for _ in range((until_ms - agreement.starts_ms) // interval_ms):
            asked, got = 8_000_000 * interval_ms // 1000, rate_bps * interval_ms // 1000
            receipt = next_receipt(about, receipt, asked, got, 0, (b"in",), (b"out",))
        assert receipt is not None
        words = receipt.to_sign()
        recipient, provider = (self.keys[side].sign(words) for side in (agreement.recipient, agreement.provider))
        return SignedReceipt(receipt, recipient, provider)


def money(amount: int) -> str:
    return as_decimal(amount, MarketConfig().currency)
