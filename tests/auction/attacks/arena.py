"""A served market in which parties attack each other, each with its own token, and what each has gained."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from markets import asked, key_of, money, nobody, public_key_of
from serving import OPERATOR, served
from simulated_cards import Cards

from auction.model.errors import AuctionError
from auction.model.party import Signature
from auction.model.rating import RatingRules
from auction.model.signing import party_body, sign_statement
from auction.moderator import AuctionTerms, BidEntry, Moderator
from auction.moderator.clock import ManualClock
from auction.moderator.config import MarketConfig
from auction.moderator.invariants import violations
from auction.storage.store import MemoryStore
from auction.web.client import MarketClient

START = 200_000


class Arena:
    """The market, a client for each party that was added, and what each had when it came."""

    def __init__(self, url: str, market: Moderator, clock: ManualClock) -> None:
        self.url, self.market, self.clock = url, market, clock
        self.operator = MarketClient(url, OPERATOR, retry_for_ms=0)
        self._by: dict[str, MarketClient] = {}
        self._had: dict[str, int] = {}

    def add(self, name: str, kind: str = "provider", funds: int = START, **more: Any) -> MarketClient:
        token = self.operator.register(
            name, kind, public_key=public_key_of(name), capacity_bps=more.pop("capacity_bps", 10_000), **more
        ).token
        if funds:
            self.operator.deposit(name, funds, "EUR")
        self._had[name] = funds
        self._by[name] = MarketClient(self.url, token, retry_for_ms=0)
        return self._by[name]

    def by(self, name: str) -> MarketClient:
        return self._by[name]

    def gain(self, *names: str) -> int:
        """What they have together beyond what they came with; what is held of them is lost until it comes back."""
        return sum(money(self.market, name) - self._had[name] for name in names)

    @property
    def nobody(self) -> int:
        return nobody(self.market)

    def award(self, recipient: str, *bids: tuple[str, int], **terms: Any) -> str:
        """The agreement of an auction among these bids."""
        wanted = {"reserve": 5_000, "open_for_ms": 10_000, "format": "first_price", **terms}
        auction = self.by(recipient).announce(recipient, asked(self.clock), AuctionTerms(**wanted)).auction
        for name, price in bids:
            self.by(name).bid(auction, BidEntry(name, price))
        self.clock.advance(10_000)
        self.market.tick()
        return self.market.auction(auction).agreements[0]

    def start(self, agreement: str, *present: str) -> None:
        """Time goes on to 10 s after the start; these parties have polled then."""
        one = self.market.agreement(agreement)
        self.clock.advance(max(0, one.starts_ms - self.clock.now_ms))
        for name in present:
            self.by(name).assignments(name)
        self.clock.advance(10_000)
        self.market.tick()

    def to_the_end(self) -> None:
        """Nobody does anything any more, until nothing is due."""
        for _ in range(8):
            self.clock.advance(2 * 3_600_000)
            self.market.tick()
        assert violations(self.market.state) == []

    def signature(self, party: str, key_owner: str, controller: str = "") -> Signature:
        """A signature of the key of `key_owner` under the registration of `party`."""
        return sign_statement(
            key_of(key_owner),
            "party",
            "",
            party,
            party_body(controller, public_key_of(key_owner)),
            nonce=secrets.token_hex(8),
            expires_ms=self.clock.now_ms + 60_000,
        )


def refused(call: Any, *arguments: Any, **named: Any) -> str:
    """The code of the error by which the market refuses the call; it must."""
    try:
        call(*arguments, **named)
    except AuctionError as error:
        return error.code
    raise AssertionError("the market took it")


@contextmanager
def arena(open_registration: bool = True) -> Iterator[Arena]:
    clock = ManualClock()
    config = MarketConfig(rating=RatingRules(newcomer_bond=0))
    market = Moderator(MemoryStore(), clock=clock, config=config, processors={"card": Cards()})
    with served(market, open_registration) as url:
        yield Arena(url, market, clock)
