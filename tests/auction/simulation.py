"""Whole markets at random from a seed: every command, refusals, repeated sends; all invariants after every event.

Winners and prices are compared with a reference that shares no code with the formats, and money with a plain count of
what came in and went out.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Callable
from typing import Any

from markets import counted_bytes, measured

from auction.groups.sharing import Share
from auction.model.bid import Bid, StandingOffer, commitment
from auction.model.block import Block
from auction.model.errors import AuctionError, Sealed
from auction.model.rating import RatingRules
from auction.moderator import AuctionTerms, BidEntry, Moderator
from auction.moderator.clock import ManualClock
from auction.moderator.config import MarketConfig
from auction.moderator.invariants import INVARIANTS, replay, violations
from auction.moderator.state import State

PROVIDERS = tuple(f"p{number}" for number in range(5))
RECIPIENTS = ("anna", "bert", "cleo")
SEALED = ("second_score", "first_score", "first_price", "second_price")


class Found(AssertionError):
    """The simulation has found something wrong."""


class Part:
    """The part of a state that an invariant reads: the records of these kinds, and the ledger if it is named. What it
    would read beside them is not there, so an invariant need not be looked at again until something of it changes."""

    bids_in = State.bids_in

    def __init__(self, state: State, reads: str) -> None:
        self.reads = set(reads.split())
        self.records = {kind: state.records[kind] for kind in self.reads - {"ledger"}}
        self.bids_of = state.bids_of
        if "ledger" in self.reads:
            self.ledger = state.ledger


READS = {
    "debits_equal_credits": "ledger agreement",
    "holds_match_agreements": "ledger agreement",
    "pledges_are_held": "ledger group",
    "one_award_for_a_block": "agreement auction",
    "capacity_never_exceeded": "block party",
    "charges_within_the_price": "agreement auction group",
    "charges_follow_delivery": "agreement",
    "bonds_are_let_go": "ledger agreement commitment auction",
    "no_bid_after_the_close": "bid sheet auction",
    "states_of_the_lifecycle": "auction agreement award",
    "ratings_by_parties_alone": "exchange agreement",
    "chains_without_cycles": "agreement",
}


class Simulation:
    """One market. `run` plays events and raises Found at the first thing that is wrong."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.clock = ManualClock()
        rules = RatingRules(newcomer_bond=50, value_full=500)
        config = MarketConfig(rating=rules, subcontract_depth_max=3)
        self.market = Moderator(clock=self.clock, config=config, random_bytes=counted_bytes())
        self.rules = rules
        self.inside = 0  # what was paid in, less what was paid out
        self.sent = 0
        self.ticked_ms = -1
        self.done = 0
        self.checked: set[str] = set()
        state = self.market.state
        self.invariants: list[tuple[Any, Any]] = [(one, Part(state, READS[one.__name__])) for one in INVARIANTS]
        self.changed: set[str] = set()
        self.note_changes()
        self.salts: dict[tuple[str, str], BidEntry] = {}
        for name in PROVIDERS:
            self.market.register(name, "provider", capacity_bps=1_000)
        for name in RECIPIENTS:
            self.market.register(name, "recipient")
            self.market.register(f"{name}-phone", "device", belongs_to=name)
        for name in PROVIDERS + RECIPIENTS:
            self.pay_in(name, 20_000)
        for name in PROVIDERS:
            self.market.post_bond(name, 5_000, "EUR")
        self.events: list[tuple[int, Callable[[], Any]]] = [
            (2, lambda: self.pay_in(self.anyone(), self.random.randrange(1, 5_000))),
            (1, lambda: self.pay_out(self.anyone(), self.random.randrange(1, 9_000))),
            (2, lambda: self.send("post_bond", self.one(PROVIDERS), self.random.randrange(1, 500), "EUR")),
            (1, lambda: self.send("release_bond", self.one(PROVIDERS), self.random.randrange(1, 2_000), "EUR")),
            (6, self.announce),
            (2, self.sell),
            (22, self.bid),
            (4, self.commit),
            (4, self.reveal),
            (9, lambda: self.clock.advance(self.random.choice((1, 50, 400, 400, -300)))),
            (9, lambda: self.step("agree")),
            (8, lambda: self.step("start")),
            (8, self.deliver),
            (3, lambda: self.step("replace")),
            (7, lambda: self.step("finish")),
            (7, lambda: self.step("charge")),
            (2, lambda: self.step("cancel")),
            (2, self.refund),
            (1, self.charge_back),
            (6, self.rate),
            (3, self.publish),
            (3, self.split),
            (2, self.resell),
            (3, self.stand_offer),
            (3, self.spot),
            (4, self.subcontract),
            (6, self.group),
            (2, self.share),
            (3, self.read_sealed),
        ]

    def run(self, events: int) -> None:
        calls = [call for _, call in self.events]
        weights = [weight for weight, _ in self.events]
        for call in self.random.choices(calls, weights, k=events):
            with contextlib.suppress(AuctionError):
                call()
                self.done += 1
            self.check()
        wrong = violations(self.market.state)
        if wrong:
            raise Found("; ".join(wrong[:3]))
        again = replay(self.market.store.entries(), self.rules)
        if again.records != self.market.state.records or again.ledger.balances != self.market.state.ledger.balances:
            raise Found("the replay is another state")

    def note_changes(self) -> None:
        """Notes the kinds of records that each entry changes, and whether it moves money."""
        apply = self.market.state.apply

        def noted(sequence: int, at_ms: int, changes: list[tuple[str, str, Any]], transfers: list[Any]) -> Any:
            self.changed.update([kind for kind, _, _ in changes])
            if transfers:
                self.changed.add("ledger")
            return apply(sequence, at_ms, changes, transfers)

        self.market.state.apply = noted  # type: ignore[method-assign]

    def check(self) -> None:
        changed, self.changed = self.changed, set()
        if not changed:
            return  # the event was refused, and `send` saw that it changed nothing
        state = self.market.state
        for invariant, part in self.invariants:
            if not part.reads.isdisjoint(changed):
                for wrong in invariant(part):
                    raise Found(f"{invariant.__name__}: {wrong}")
        if "ledger" in changed:
            inside = sum(state.ledger.balances.values()) - state.ledger.balances.get("outside", 0)
            if inside != self.inside:
                raise Found(f"{inside} is in the market, {self.inside} was paid in")
        if "auction" not in changed:
            return
        for name, record in state.records["auction"].items():
            if record.state != "open" and name not in self.checked:
                self.checked.add(name)
                check_award(self.market, name)

    # The events. `send` repeats a command under its key, as a client does that got no answer.

    def send(self, command: str, *arguments: Any, **named: Any) -> Any:
        self.sent += 1
        key = f"key-{self.sent}"
        if self.clock.now_ms != self.ticked_ms:  # else nothing can have become due since
            self.ticked_ms = self.clock.now_ms
            self.market.tick()
        before = self.market.state.sequence
        try:
            answer = getattr(self.market, command)(*arguments, key=key, **named)
        except AuctionError:
            if self.market.state.sequence != before:
                raise Found(f"{command} was refused, and has changed something") from None
            raise
        while self.random.random() < 0.3:
            if getattr(self.market, command)(*arguments, key=key, **named) != answer:
                raise Found(f"{command} sent again got another answer")
        return answer

    def one(self, names: Any) -> Any:
        if not names:
            raise AuctionError("there is none")
        return self.random.choice(list(names))

    def anyone(self) -> str:
        return str(self.one(PROVIDERS + RECIPIENTS))

    def pay_in(self, name: str, amount: int) -> None:
        self.send("deposit", name, amount, "EUR")
        self.inside += amount

    def pay_out(self, name: str, amount: int) -> None:
        self.send("withdraw", name, amount, "EUR")
        self.inside -= amount

    def window(self) -> dict[str, int]:
        start = self.clock.now_ms + self.random.randrange(300, 2_000)
        return {"starts_ms": start, "ends_ms": start + self.random.randrange(200, 1_500)}

    def block(self, provider: str = "") -> Block:
        rate = self.random.randrange(50, 600)
        minimum = self.random.choice((None, rate // 2))
        shareable = self.random.random() < 0.5
        return Block(
            id="",
            provider=provider,
            service=self.random.choice(("carry", "scan")),
            minimum_bps=minimum,
            maximum_bps=rate,
            shareable=shareable,
            **self.window(),
        )

    def terms(self) -> AuctionTerms:
        name = self.random.choice((*SEALED, "second_score", "open"))
        reveal = self.random.choice((0, 0, 300)) if name in SEALED else 0
        asked = self.random.choice((0, 0, 100))
        return AuctionTerms(
            reserve=self.random.randrange(200, 900),
            open_for_ms=self.random.randrange(50, 600),
            format=name,
            bond=asked,
            reveal_for_ms=reveal,
            extend_within_ms=20 if name == "open" else 0,
            extend_by_ms=20 if name == "open" else 0,
            extend_times_max=3 if name == "open" else 0,
        )

    def announce(self) -> None:
        self.send("announce", self.one(RECIPIENTS), self.block(), self.terms())

    def publish(self) -> None:
        self.send("publish_block", self.block(self.one(PROVIDERS)))

    def sell(self) -> None:
        name = self.one([one.id for one in self.records("block") if one.state in ("free", "sold", "offered")])
        block = self.market.block(name)
        terms = AuctionTerms(
            reserve=self.random.randrange(1, 300),
            open_for_ms=self.random.randrange(50, 400),
            format=self.random.choice(("first_price", "second_price")),
        )
        self.send("announce", block.holder or block.provider, name, terms)

    def open_auctions(self, revealing: bool = False) -> list[str]:
        return [
            one.id
            for one in self.records("auction")
            if one.state == "open" and (one.announcement.closing.reveal_until_ms is not None) == revealing
        ]

    def entry(self, auction: str, bidder: str) -> BidEntry:
        record = self.market.state.records["auction"][auction].announcement
        price = self.random.choice((self.random.randrange(1, 1_000), self.random.randrange(20) * 50))
        limit = max(price - 200 * -record.sign, 0) if record.format == "open" else None
        return BidEntry(bidder, price, limit=limit, salt=str(self.random.random()))

    def bid(self) -> None:
        auction = self.one(self.open_auctions())
        bidder = self.one(PROVIDERS if self.random.random() < 0.8 else RECIPIENTS)
        self.send("bid", auction, self.entry(auction, bidder))

    def commit(self) -> None:
        auction = self.one(self.open_auctions(revealing=True))
        entry = self.entry(auction, self.one(PROVIDERS))
        bid = Bid(bid="-", auction=auction, bidder=entry.bidder, price=entry.price, currency="EUR", salt=entry.salt)
        self.send("commit", auction, entry.bidder, commitment(bid))
        self.salts[auction, entry.bidder] = entry

    def reveal(self) -> None:
        auctions = self.market.state.records["auction"]
        auction, bidder = self.one([name for name in self.salts if auctions[name[0]].state == "open"])
        self.send("reveal", auction, self.salts[auction, bidder])

    def records(self, kind: str) -> list[Any]:
        return list(self.market.state.records[kind].values())

    def agreement(self, *states: str) -> str:
        return str(self.one([one.id for one in self.records("agreement") if not states or one.state in states]))

    def step(self, name: str) -> None:
        likely = {"agree": "awarded", "start": "agreed", "finish": "delivering", "charge": "delivered"}
        states = (likely[name],) if name in likely and self.random.random() < 0.9 else ()
        self.send(name, self.agreement(*states))

    def deliver(self) -> None:
        record = self.market.agreement(self.agreement("delivering"))
        by = self.one((record.recipient, record.provider, self.anyone()))
        self.send("deliver", measured(self.market, record.id, by, self.one((0, 250_000, 500_000, 1_000_000))))

    def refund(self) -> None:
        self.send("refund", self.agreement("charged"), self.random.randrange(1, 400))

    def charge_back(self) -> None:
        self.send("charge_back", self.agreement("charged"), self.random.randrange(1, 200))

    def rate(self) -> None:
        record = self.market.agreement(self.agreement("charged", "declined"))
        rater = self.one((record.recipient, record.provider, self.anyone()))
        device = f"{rater}-phone" if rater in RECIPIENTS else ""
        self.send("rate", record.id, rater, self.random.random() < 0.7, device=device)

    def split(self) -> None:
        block = self.one([one for one in self.records("block") if one.state in ("free", "sold")])
        holder = block.holder or block.provider
        if self.random.random() < 0.5:
            self.send("split_block_in_time", block.id, holder, (block.starts_ms + block.ends_ms) // 2)
        else:
            self.send("split_block_in_rate", block.id, holder, block.committed_bps // 3)

    def resell(self) -> None:
        block = self.one([one for one in self.records("block") if one.state == "sold"])
        self.send("resell_block", block.id, block.holder, self.one(RECIPIENTS), self.random.randrange(300))

    def stand_offer(self) -> None:
        offer = StandingOffer(
            offer=f"offer-{self.random.randrange(8)}",
            provider=self.one(PROVIDERS),
            service=self.one(("carry", "scan")),
            unit_price=self.random.randrange(50, 900),
            currency="EUR",
            quantity=self.random.randrange(1, 4),
            rate_bps_max=self.random.randrange(100, 700),
            valid_until_ms=self.clock.now_ms + self.random.randrange(100, 3_000),
        )
        self.send("stand_offer", offer)

    def spot(self) -> None:
        terms = AuctionTerms(reserve=self.random.randrange(200, 900), open_for_ms=10, format="spot")
        self.send("spot", self.one(RECIPIENTS), self.block(), terms)

    def subcontract(self) -> None:
        prime = self.market.agreement(self.agreement("agreed", "delivering"))
        part = Block(
            id="", provider="", service="scan", starts_ms=prime.starts_ms, ends_ms=prime.ends_ms, maximum_bps=60
        )
        auction = self.send("announce", prime.provider, part, self.terms(), prime=prime.id).auction
        for bidder in self.random.sample(PROVIDERS, 3):
            try:
                self.send("bid", auction, self.entry(auction, bidder))
            except AuctionError:
                continue

    def group(self) -> None:
        groups = [one.id for one in self.records("group") if one.state == "open"]
        if not groups:
            record = self.market.agreement(self.agreement("awarded"))
            self.send("open_group", record.id, record.recipient, self.random.randrange(100, 900))
            return
        name = self.one(groups)
        command = self.random.randrange(6)
        member = self.one(RECIPIENTS)
        if command <= 2:
            self.send("join_group", name, member, self.random.choice((0, self.random.randrange(1, 500))))
        elif command == 3:
            self.send("pledge", name, member, self.random.randrange(0, 300), opted_in=True)
        elif command == 4:
            group = self.market.group_of(name)
            price = self.market.agreement(group.agreement).price
            self.send("offer_price", name, group.organiser, self.random.randrange(price + 5), group.due_ms)
            self.send("accept_price", name, self.market.agreement(group.agreement).provider)
        else:
            self.send("settle_group", name, extra_cost=self.random.choice((0, 20)))

    def share(self) -> None:
        block = self.one([one for one in self.records("block") if one.shareable and one.state == "sold"])
        if self.market.state.records["shares"].get(block.id) is None:
            self.send("share_block", block.id, block.holder, "recipients")
        self.send("join_share", block.id, Share(member=self.one(RECIPIENTS), guaranteed=self.random.randrange(300)))
        rates = self.market.rates(block.id)
        if sum(rates.values()) > block.committed_bps:
            raise Found(f"{block.id} is shared out beyond its rate: {rates}")

    def read_sealed(self) -> None:
        auction = self.one([name for name in self.open_auctions() if self.format_of(name) in SEALED])
        reader = self.anyone()
        try:
            seen = {bid.bidder for bid in self.market.bids(auction, reader)}
        except Sealed:
            return
        if seen - {reader} and self.market.auction(auction).state == "open":
            raise Found(f"{reader} has read the sealed bids of {seen - {reader}}")

    def format_of(self, auction: str) -> str:
        return str(self.market.state.records["auction"][auction].announcement.format)


def check_award(market: Moderator, name: str) -> None:
    """The award of a sealed auction by the slow and obvious rule: score all, take the best, ties by the hash."""
    record = market.state.records["auction"][name]
    announcement, winners = record.announcement, record.winners
    if announcement.format not in SEALED:
        return
    excluded = {bid for bid, _ in record.excluded}
    placed = market.state.bids_in(name)
    latest: dict[str, Any] = {}
    for one in sorted(placed, key=lambda one: one.bid.sequence):
        if one.bid.bid not in excluded:
            latest[one.bid.bidder] = one
    buys = announcement.direction == "receive"

    def score(one: Any) -> int:
        quality = 0
        if one.rating is not None and announcement.format.endswith("score"):
            quality += announcement.quality.opinion * one.rating.lower_ppm // 1_000_000
            quality += announcement.quality.evidence * one.rating.evidence_lower_ppm // 1_000_000
        return quality + (one.bid.price if buys else -one.bid.price)

    def draw(one: Any) -> bytes:
        seed, auction = bytes.fromhex(record.seed), name.encode()
        text = b"auction.draw\0" + str(len(seed)).encode() + b"\0" + seed + str(len(auction)).encode() + b"\0" + auction
        return hashlib.sha256(text + one.bid.bid.encode()).digest()

    fit = [
        one
        for one in latest.values()
        if (one.bid.price >= announcement.reserve if buys else one.bid.price <= announcement.reserve)
    ]
    fit.sort(key=lambda one: (-score(one), draw(one)))
    if not fit:
        if winners:
            raise Found(f"{name} has a winner, and no bid was within the reserve")
        return
    best = fit[0]
    price = best.bid.price
    if announcement.format.startswith("second"):
        price = announcement.reserve
        if len(fit) > 1:
            gap = score(best) - score(fit[1])
            price = best.bid.price - gap if buys else min(announcement.reserve, best.bid.price + gap)
    expected = [(best.bid.bidder, price)]
    got = [(winning.bidder, winning.price) for winning in winners]
    if got != expected:
        raise Found(f"{name} was awarded to {got}, the reference says {expected}")
