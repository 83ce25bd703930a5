"""Who sees which price when: each kind of caller, in each state, by each query of a served market.

The winner bids 3711, the loser 4177. A cell says whose price is in the answer (`W`, `L`), `-` for an answer without
either, and `x` where the caller is refused.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from markets import asked, market, settled
from serving import OPERATOR

from auction.model.bid import Bid, StandingOffer, commitment
from auction.model.errors import AuctionError
from auction.moderator import AuctionTerms, BidEntry, Moderator
from auction.moderator.clock import ManualClock
from auction.web.handler import Request, RequestHandler

CALLERS = ("rita", "p0", "p1", "stranger", "operator")  # announcer, winner, loser, who took no part, operator
PRICES = {"W": ("3711", "37.11"), "L": ("4177", "41.77")}
BEFORE = {
    "auction": "- - - - -",
    "await_close": "- - - - -",
    "explain": "x x x x x",
    "transcript": "x x x x x",
    "close": "x x x x x",
    "bids": "x W L x x",
    "overview": "- - - - -",
    "assignments": "- W L - -",  # its own
}
IN_THE_OPEN = BEFORE | {"bids": "WL WL WL WL WL"}  # who wants to bid has to see what there is
AFTER = {
    "auction": "WL WL WL - WL",
    "await_close": "WL WL WL - WL",
    "explain": "WL WL WL x WL",
    "transcript": "- - - x -",  # digests of bids
    "close": "WL WL WL x WL",
    "bids": "WL WL WL x WL",
    "overview": "WL WL WL - WL",
    "assignments": "W W - - W",
    "agreement": "W W x x W",
    "invoice": "W W x x W",
}
STANDING_BY = AFTER | {"agreement": "W W W x W", "assignments": "W W L - W"}  # who may take a rest over sees of what


class Served:
    """A market and what each caller is answered, without a network."""

    def __init__(self) -> None:
        self.market, self.clock = market()
        self.market.register("stranger", "provider", capacity_bps=10_000)
        self.handler = RequestHandler(self.market, OPERATOR)
        self.tokens = {name: self.market.replace_token(name).token for name in CALLERS[:-1]} | {"operator": OPERATOR}
        self.auction = self.agreement = ""

    def seen(self, caller: str, query: str) -> str:
        reader = "rita" if caller == "operator" else caller
        arguments: dict[str, Any] = {"auction": self.auction}
        if query == "bids":
            arguments["reader"] = reader
        elif query in ("agreement", "invoice"):
            arguments = {"agreement": self.agreement}
        elif query == "overview":
            arguments = {"party": "" if caller == "operator" else caller}
        elif query == "assignments":
            arguments = {"party": reader, "services": ("anonymise",)}
        request = Request(query, msgspec.json.encode(arguments), self.tokens[caller])
        try:
            answer = msgspec.json.encode(self.handler.carry_out(request)).decode()
        except AuctionError as reason:
            answer, refused = str(reason), "x"
        else:
            refused = ""
        letters = "".join(letter for letter, prices in PRICES.items() if any(one in answer for one in prices))
        return refused + letters or "-"

    def check(self, expected: dict[str, str]) -> None:
        found = {query: " ".join(self.seen(caller, query) for caller in CALLERS) for query in expected}
        assert found == expected

    def announce(self, **terms: Any) -> None:
        wanted = {"reserve": 5_000, "open_for_ms": 10_000, "receipts": False, "format": "first_price"} | terms
        self.auction = self.market.announce("rita", asked(self.clock), AuctionTerms(**wanted)).auction

    def to_the_award(self, after_ms: int = 10_000) -> None:
        self.clock.advance(after_ms)
        self.market.tick()
        (self.agreement,) = self.market.auction(self.auction).agreements
        assert self.market.agreement(self.agreement).price == 3_711


def bid(market: Moderator, auction: str, clock: ManualClock) -> None:
    market.bid(auction, BidEntry("p0", 3_711))
    market.bid(auction, BidEntry("p1", 4_177))


@pytest.mark.parametrize("fail_over", [False, True])
def test_sealed_bids_are_seen_by_who_took_part_and_after_the_close(fail_over: bool) -> None:
    grid = Served()
    grid.announce(fail_over=fail_over)
    bid(grid.market, grid.auction, grid.clock)
    grid.check(BEFORE)
    grid.to_the_award()
    after = STANDING_BY if fail_over else AFTER
    grid.check(after)
    grid.clock.advance(115_000)
    settled(grid.market, grid.agreement)
    grid.check(after | {"assignments": "- - - - -"})


def test_commitments_are_seen_by_nobody_and_revealed_bids_by_their_bidders_until_the_close() -> None:
    grid = Served()
    grid.announce(reveal_for_ms=5_000)
    entries = [BidEntry("p0", 3_711, salt="s"), BidEntry("p1", 4_177, salt="t")]
    for one in entries:
        hidden = Bid(bid="-", auction=grid.auction, bidder=one.bidder, price=one.price, currency="EUR", salt=one.salt)
        grid.market.commit(grid.auction, one.bidder, commitment(hidden))
    grid.check(BEFORE | {"bids": "- - - - -", "assignments": "- - - - -"})
    grid.clock.advance(10_000)
    for one in entries:
        grid.market.reveal(grid.auction, one)
    grid.check(BEFORE)
    grid.to_the_award(5_000)
    grid.check(AFTER)


def test_open_bids_are_seen_by_all_while_bidding_goes_on_and_limits_by_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = Served()
    grid.announce(format="open")
    grid.market.bid(grid.auction, BidEntry("p1", 4_177, limit=3_900))
    grid.market.bid(grid.auction, BidEntry("p0", 3_711, limit=123))
    grid.check(IN_THE_OPEN)
    grid.to_the_award()
    grid.check(AFTER | {"bids": "WL WL WL WL WL", "explain": "W W W x W", "auction": "W W W - W",
                        "await_close": "W W W - W", "close": "W W W x W", "overview": "W W W - W"})  # fmt: skip
    for caller in ("rita", "p1", "stranger", "operator"):
        for query in ("auction", "bids", "explain"):
            monkeypatch.setitem(PRICES, "limit", (":123,", "1.23"))
            assert "limit" not in grid.seen(caller, query), (caller, query)


def test_who_has_announced_and_called_off_shows_nothing() -> None:
    grid = Served()
    grid.announce()
    bid(grid.market, grid.auction, grid.clock)
    grid.market.ban("rita")
    grid.check({"auction": "- - - - -", "explain": "x x x x x", "close": "x x x x x", "bids": "WL WL WL x WL"})


def test_of_a_spot_award_who_offered_sees_what_the_announcer_sees() -> None:
    grid = Served()
    for provider, price in (("p0", 3_711), ("p1", 4_177)):
        offer = StandingOffer(
            offer=f"of-{provider}", provider=provider, service="anonymise", unit_price=price, currency="EUR",
            quantity=1, rate_bps_max=5_000, valid_until_ms=grid.clock.now_ms + 60_000,
        )  # fmt: skip
        grid.market.stand_offer(offer)
    terms = AuctionTerms(reserve=5_000, open_for_ms=1, receipts=False, format="spot")
    one = grid.market.spot("rita", asked(grid.clock), terms)
    grid.auction, grid.agreement = one.auction, one.id
    grid.check({"auction": "WL WL WL - WL", "explain": "WL WL WL x WL", "overview": "WL WL WL - WL"})


def test_without_a_token_nothing_is_seen_and_winners_are_no_secret() -> None:
    grid = Served()
    grid.announce()
    bid(grid.market, grid.auction, grid.clock)
    grid.to_the_award()
    grid.tokens["stranger"], token = "", grid.tokens["stranger"]
    assert {grid.seen("stranger", query) for query in AFTER} == {"x"}
    request = Request("auction", msgspec.json.encode({"auction": grid.auction}), token)
    view = grid.handler.carry_out(request)
    assert (view.state, view.winners, view.award) == ("agreed", ("p0",), None)
