"""Courses of a simulated market that hardly ever come about at random. They are played behind the random events, so
that a seed stays the market that it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from markets import public_key_of
from simulated_ends import ENDINGS, PROVIDERS, RECIPIENTS
from simulated_events import SEALED, Events

from auction.model.bid import QualityWeights
from auction.moderator import BidEntry


class Courses(Events):
    actor: str
    check: Callable[[], None]
    came_late = 0

    def courses(self) -> list[Callable[[], Any]]:
        return [self.come_late, self.serve_falsely, self.end_somehow, self.end_somehow] * 3

    def auction_of(self, *bidders: str, **terms: Any) -> tuple[str, int]:
        """An auction of a block that each of these can serve, and a price within its reserve."""
        announcer = self.one(RECIPIENTS)
        for party in (announcer, *bidders):
            self.pay_in(party, 5_000)
        start_ms = self.clock.now_ms + 60_000
        block = msgspec.structs.replace(self.block(), starts_ms=start_ms, ends_ms=start_ms + 60_000, requires={})
        plain = {"reveal_for_ms": 0, "quality": QualityWeights(), "method": "prepaid", "source": ""}
        announced = self.send("announce", announcer, block, self.terms_of(**plain | terms))
        return announced.auction, self.random.randrange(1, announced.reserve)

    def terms_of(self, **named: Any) -> Any:
        terms = self.terms()
        while terms.format not in SEALED:
            terms = self.terms()
        return msgspec.structs.replace(terms, **named)

    def to_the_close(self, auction: str) -> None:
        self.clock.advance(self.market.state.records["auction"][auction].closes_ms - self.clock.now_ms)
        self.market.tick()
        self.check()

    def come_late(self) -> None:
        """Who comes for the tie: it registers once the auction is announced, and bids what another has bid."""
        first = self.one(PROVIDERS)
        auction, price = self.auction_of(first)
        self.send("bid", auction, BidEntry(first, price, salt="first"))
        self.came_late += 1
        late = f"late-{self.came_late}"
        self.actor = ""
        self.market.register(late, "provider", capacity_bps=1_000, public_key=public_key_of(late))
        self.pay_in(late, 5_000)
        self.send("post_bond", late, 1_000, "EUR")
        self.send("bid", auction, BidEntry(late, price, salt="late"))
        self.to_the_close(auction)

    def running(self, **terms: Any) -> Any:
        """An agreement whose sides have both come."""
        provider = self.one(PROVIDERS)
        auction, price = self.auction_of(provider, **terms)
        self.send("bid", auction, BidEntry(provider, price, salt="one"))
        self.to_the_close(auction)
        one = self.market.agreement(self.one(self.market.auction(auction).agreements))
        self.clock.advance(one.starts_ms - self.clock.now_ms)
        for party in (one.provider, one.recipient):
            self.market.assignments(party)
        self.clock.advance(10_000)  # the time in which both must have come
        self.market.tick()
        return self.market.agreement(one.id)

    def serve_falsely(self) -> None:
        """A judge decides about an interval."""
        self.prove_of(self.running(receipts=True, judge="again"))

    def end_somehow(self) -> None:
        """At its end each side says what it likes, or nothing."""
        one = self.running()
        self.clock.advance(one.ends_ms - self.clock.now_ms)
        for party in (one.provider, one.recipient):
            ending = self.one(("", *sorted(set(ENDINGS))))
            if ending:
                self.send("end", one.id, party, ending, self.figure(one))
