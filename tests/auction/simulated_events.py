"""The events of a simulated market: every command of it, by who may and by who may not, at likely and unlikely times.

`Simulation` (simulation.py) plays them and looks at what comes of each.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from simulated_ends import PROVIDERS, RECIPIENTS, Ends
from simulated_parties import Parties
from watching import Found

from auction.groups.sharing import Share
from auction.model.bid import Bid, QualityWeights, Ramp, StandingOffer, commitment
from auction.model.block import Block
from auction.model.errors import AuctionError, ClockInDoubt, Sealed
from auction.moderator import AuctionTerms, BidEntry

SEALED = ("second_score", "first_score", "first_price", "second_price")
FORMATS = (*SEALED, "second_score", "first_price", "open", "dutch", "uniform_price", "packages", "packages_large")
CALLING = ("second_price", "first_price", "first_price")


class Events(Ends, Parties):
    def weighted(self) -> list[tuple[float, Callable[[], Any]]]:
        one, number = self.one, self.random.randrange
        return [
            (2, lambda: self.pay_in(self.anyone(), number(1, 5_000))),
            (1, lambda: self.pay_out(self.anyone(), number(1, 9_000))),
            (0.5, self.pay_all_out),
            (0.5, self.pay_fees_out),
            (2, lambda: self.send("post_bond", one(PROVIDERS), number(1, 500), "EUR")),
            (1, lambda: self.send("release_bond", one(PROVIDERS), number(1, 2_000), "EUR")),
            (8, self.announce),
            (3, self.sell),
            (22, self.bid),
            (3, self.commit),
            (4, self.reveal),
            (1, lambda: self.send("withdraw_auction", self.one(self.open_auctions()))),
            (4, lambda: self.send("pay", self.one(self.auctions("funding")))),
            (1, lambda: self.send("close", self.one(self.auctions()))),
            (1, self.hold),
            (9, lambda: self.clock.advance(one((1, 50, 1_000, 9_000, 9_000, -300)))),
            (6, self.go_on),
            (0.5, lambda: self.clock.advance(one((3_600_000, 90_000_000)))),
            (0.2, lambda: self.restart()),
            (0.2, self.jump),
            (0.5, self.pay_taker),
            (0.15, lambda: self.clock.advance(one((46, 130)) * 86_400_000)),
            (0.5, lambda: self.send("stop_fail_over", self.agreement("agreed", "running", "closing"))),
            (5, self.begin),
            (2, lambda: self.market.assignments(self.anyone(), services=("carry",))),
            (8, self.hand_in),
            (12, self.end),
            (6, self.end_together),
            (2, self.prove),
            (4, self.arbitrate),
            (8, self.take_over),
            (2, lambda: self.send("refund", self.agreement("settled"), number(1, 400))),
            (1, self.charge_back),
            (5, self.rate),
            (3, lambda: self.send("publish_block", self.block(one(PROVIDERS)))),
            (3, self.split),
            (2, self.resell),
            (3, self.stand_offer),
            (0.5, lambda: self.send("withdraw_offer", f"offer-{number(8)}", one(PROVIDERS))),
            (4, self.spot),
            (3, self.subcontract),
            (9, self.group),
            (2, self.share),
            (3, self.read_sealed),
            (0.5, self.refuse),
            (0.3, self.ban),
            (1.5, self.change_capacity),
            (0.6, self.change_attributes),
            (0.7, self.change_key),
            (0.3, self.change_token),
            (2, self.ask_costs),
            (0.5, self.erase),
        ]

    def pay_taker(self) -> None:
        amount = self.random.randrange(1, 300)
        self.send("pay_taker", amount, "EUR")
        self.inside -= amount

    def jump(self) -> None:
        """The clock is set back by two hours: nothing that depends on time is decided until the operator says so."""
        before = self.market.now_ms()
        self.clock.advance(-7_200_000)
        with contextlib.suppress(ClockInDoubt):
            self.market.withdraw("anna", 1, "EUR")
            raise Found("money was paid out by a clock that had jumped")
        self.market.tick()
        self.clock.advance(5_000)
        if self.market.now_ms() != before:
            raise Found("time went on while the clock was in doubt")
        self.send("confirm_clock", self.clock.now_ms)
        self.clock.advance(7_195_000)

    def pay_all_out(self) -> None:
        name = self.one(RECIPIENTS)
        self.pay_out(name, self.market.balance(name))

    # --- announcing and bidding ---

    def block(self, provider: str = "") -> Block:
        number = self.random.randrange
        rate = number(50, 600)
        start = self.clock.now_ms + number(5_000, 60_000)
        return Block(
            id="",
            provider=provider,
            service=self.one(("carry", "scan")),
            starts_ms=start,
            ends_ms=start + number(5_000, 90_000),
            minimum_bps=self.one((None, rate // 2)),
            maximum_bps=rate,
            shareable=self.likely(0.5),
            requires={"tier": self.one(("1", ""))} if self.likely(0.1) else {},
        )

    def terms(self, **named: Any) -> AuctionTerms:
        kind = self.one(FORMATS)
        reserve = self.random.randrange(200, 900)
        more: dict[str, Any] = {}
        if kind in SEALED:
            more["reveal_for_ms"] = self.one((0, 0, 9_000))
            if kind.endswith("score") and self.likely(0.5):
                more["quality"] = QualityWeights(opinion=self.random.randrange(1, 200))
        elif kind == "open":
            more |= {"extend_within_ms": 600, "extend_by_ms": 600, "extend_times_max": 3}
        elif kind == "dutch":
            more["ramp"] = Ramp(start_price=100, step=50, step_ms=2_000)
        elif kind == "uniform_price":
            more["quantity"] = self.one((2, 3))
        else:
            more["items"] = ("left", "middle", "right")
        if more.get("quantity") or more.get("items"):
            reserve //= 3
        more |= {"receipts": self.likely(0.7), "fail_over": self.likely(0.5), "arbiter": self.one(("", "judy"))}
        more |= {"judge": self.one(("", "again", "again")), "delta_ppm": self.one((10_000, 100_000, 500_000, 123_457))}
        if self.likely(0.2):
            more |= {"method": "card", "source": "token"}
        more |= {"format": kind, "reserve": reserve, "open_for_ms": self.random.randrange(2_000, 12_000)}
        return AuctionTerms(**more | named)

    def announce(self) -> None:
        self.send("announce", self.one(RECIPIENTS), self.block(), self.terms())

    def sell(self) -> None:
        name = self.one([one.id for one in self.records("block") if one.state in ("free", "sold", "offered")])
        block = self.market.block(name)
        kind = self.one(CALLING)
        reserve, open_ms = self.random.randrange(1, 300), self.random.randrange(2_000, 9_000)
        terms = AuctionTerms(reserve=reserve, open_for_ms=open_ms, format=kind, receipts=self.likely(0.7))
        self.send("announce", block.holder or block.provider, name, terms)

    def entry(self, auction: str, bidder: str) -> BidEntry:
        record = self.market.state.records["auction"][auction].announcement
        price = self.one((self.random.randrange(1, 1_000), self.random.randrange(20) * 50))
        more: dict[str, Any] = {}
        if record.format == "open":
            more["limit"] = max(price - 200 * -record.sign, 0)
        elif record.format == "uniform_price":
            more["quantity"] = self.one((1, 2))
            price //= 3
        elif record.items:
            more["items"] = tuple(self.random.sample(record.items, self.random.randrange(1, 4)))
            price //= 2
        if record.quality.opinion and record.direction == "provide" and self.likely(0.3):
            more["insured"] = self.random.randrange(record.reserve)
        return BidEntry(bidder, price, salt=str(self.random.random()), arbiter=self.one(("", "judy")), **more)

    def bid(self) -> None:
        auction = self.one(self.open_auctions())
        bidder = self.one(PROVIDERS if self.likely(0.8) else RECIPIENTS)
        self.send("bid", auction, self.entry(auction, bidder))

    def hold(self) -> None:
        bidders = self.random.sample(PROVIDERS, self.random.randrange(4))
        entries = [BidEntry(bidder, self.random.randrange(1, 900)) for bidder in bidders]
        self.send("hold_auction", self.one(RECIPIENTS), self.block(), self.terms(reveal_for_ms=0), entries)

    def commit(self) -> None:
        auction = self.one(self.open_auctions(revealing=True))
        entry = self.entry(auction, self.one(PROVIDERS))
        bid = Bid(bid="-", auction=auction, bidder=entry.bidder, price=entry.price, currency="EUR", salt=entry.salt,
                  insured=entry.insured)  # fmt: skip
        self.send("commit", auction, entry.bidder, commitment(bid), deposit=self.one((0, 300)))
        self.salts[auction, entry.bidder] = entry

    def reveal(self) -> None:
        auctions = self.market.state.records["auction"]
        known = [one for one in self.salts if one[0] in auctions]
        auction, bidder = self.one([one for one in known if auctions[one[0]].state == "open"])
        closes_ms = auctions[auction].closes_ms
        if self.likely(0.8) and self.clock.now_ms < closes_ms:
            self.clock.advance(closes_ms - self.clock.now_ms)
        self.send("reveal", auction, self.salts[auction, bidder])

    def subcontract(self) -> None:
        prime = self.market.agreement(self.agreement("agreed", "running"))
        start = max(prime.starts_ms, self.clock.now_ms + 21_000)
        part = Block(id="", provider="", service="scan", starts_ms=start, ends_ms=prime.ends_ms, maximum_bps=60)
        auction = self.send("announce", prime.provider, part, self.terms(), prime=prime.id).auction
        for bidder in self.random.sample(PROVIDERS, 3):
            with contextlib.suppress(AuctionError):
                self.send("bid", auction, self.entry(auction, bidder))

    def stand_offer(self) -> None:
        offer = StandingOffer(
            offer=f"offer-{self.random.randrange(8)}",
            provider=self.one(PROVIDERS),
            service=self.one(("carry", "scan")),
            unit_price=self.random.randrange(50, 900),
            currency="EUR",
            quantity=self.random.randrange(1, 4),
            rate_bps_max=self.random.randrange(100, 700),
            valid_until_ms=self.clock.now_ms + self.random.randrange(100, 300_000),
        )
        self.send("stand_offer", offer)

    def spot(self) -> None:
        self.send("spot", self.one(RECIPIENTS), self.block(), self.terms(format="spot", reveal_for_ms=0))

    # --- blocks, groups, shares ---

    def split(self) -> None:
        block = self.one([one for one in self.records("block") if one.state in ("free", "sold")])
        holder = block.holder or block.provider
        if self.likely(0.5):
            self.send("split_block_in_time", block.id, holder, (block.starts_ms + block.ends_ms) // 2)
        else:
            self.send("split_block_in_rate", block.id, holder, block.committed_bps // 3)

    def resell(self) -> None:
        block = self.one([one for one in self.records("block") if one.state == "sold"])
        self.send("resell_block", block.id, block.holder, self.one(RECIPIENTS), self.random.randrange(300))

    def group(self) -> None:
        groups = [one for one in self.records("group") if one.state == "open"]
        awarded = [one for one in groups if one.agreement]
        if not groups or self.likely(0.3):
            bid_in = self.market.state.bids_of
            auctions = self.market.state.records["auction"]
            alone = [name for name in self.auctions("open", "funding") if auctions[name].method == "prepaid"]
            name = self.one([name for name in alone if name not in bid_in and not auctions[name].group])
            announcer = auctions[name].announcer
            self.send("open_group", name, announcer, extra_cost=self.one((0, 20)), device=f"{announcer}-phone")
            return
        group = self.one(awarded or groups)
        kind = self.random.randrange(7)
        if kind == 6:
            for member in self.random.sample(RECIPIENTS, 2):
                self.send("join_group", group.id, member, self.random.randrange(200, 900))
            self.send("settle_group", group.id)
        elif kind <= 2:
            self.send("join_group", group.id, self.one(RECIPIENTS), self.one((0, self.random.randrange(900))))
        elif kind == 3:
            self.send("pledge", group.id, self.one(RECIPIENTS), self.random.randrange(300), opted_in=True)
        elif kind == 4:
            one = self.market.agreement(group.agreement)
            self.send("offer_price", group.id, group.organiser, self.random.randrange(one.price + 5), group.due_ms)
            self.send("accept_price", group.id, one.provider)
        else:
            self.send("settle_group", group.id)

    def share(self) -> None:
        block = self.one([one for one in self.records("block") if one.shareable and one.state == "sold"])
        if self.market.state.records["shares"].get(block.id) is None:
            self.send("share_block", block.id, block.holder, "recipients")
        self.send("join_share", block.id, Share(member=self.one(RECIPIENTS), guaranteed=self.random.randrange(300)))
        rates = self.market.rates(block.id)
        if sum(rates.values()) > block.committed_bps:
            raise Found(f"{block.id} is shared out beyond its rate: {rates}")

    def read_sealed(self) -> None:
        formats = self.market.state.records["auction"]
        auction = self.one([one for one in self.open_auctions() if formats[one].announcement.format in SEALED])
        reader = self.anyone()
        try:
            seen = {bid.bidder for bid in self.market.bids(auction, reader)}
        except Sealed:
            return
        if seen - {reader} and self.market.auction(auction).state == "open":
            raise Found(f"{reader} has read the sealed bids of {seen - {reader}}")
