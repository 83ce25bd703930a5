"""Whole markets at random from a seed: every command, refusals, repeated sends, restarts. What an entry may do is
looked at in each, all invariants after every 25th event.

The events stand in simulated_events.py, simulated_ends.py and simulated_courses.py, what must hold of every entry in
watching.py, who gets what at an end in ends_reference.py. Winners and prices are compared with reference.py, money with
a plain count of what came in and went out. No code of the market decides what is right.
"""

from __future__ import annotations

import contextlib
import random
from typing import Any

from markets import counted_bytes, public_key_of
from reference import reference
from simulated_cards import Cards
from simulated_courses import Courses
from simulated_ends import PROVIDERS, RECIPIENTS
from simulated_events import SEALED
from watching import Found, check_entry, quick_signature, speaker

from auction.model.errors import AuctionError, BadSignature, BadValue
from auction.model.fees import NO_FEE, Fee
from auction.model.party import Signature, Verifier
from auction.model.rating import RatingRules
from auction.moderator import BidEntry, Moderator
from auction.moderator.clock import ManualClock
from auction.moderator.config import MarketConfig
from auction.moderator.invariants import INVARIANTS, replay, violations
from auction.moderator.state import State
from auction.storage.store import MemoryStore

__all__ = ["Found", "Simulation"]
KEYS = {name: public_key_of(name) for name in (*PROVIDERS, *RECIPIENTS)}
CHECK_EVERY = 25  # events; what an entry may do is looked at in every one
REFERENCED = {*SEALED, "open", "dutch", "uniform_price"}


class QuickVerifier(Verifier):
    def verify(self, public_key: str, statement: bytes, signature: Signature, now_ms: int) -> None:
        if signature.signature != quick_signature(public_key, statement):
            raise BadSignature("forged")


class Part:
    """The part of a state that an invariant reads: the records of these kinds, and the ledger if it is named. What it
    would read beside them is not there, so an invariant need not be looked at again until something of it changes."""

    bids_in = State.bids_in

    def __init__(self, state: State, reads: str) -> None:
        self.reads = set(reads.split())
        self.records = {kind: state.records[kind] for kind in self.reads - {"ledger"}}
        self.bids_of, self.rests_of, self.due = state.bids_of, state.rests_of, state.due
        self.state = state
        if "ledger" in self.reads:
            self.ledger = state.ledger

    @property
    def at_ms(self) -> int:
        return self.state.at_ms


READS = {
    "debits_equal_credits": "ledger agreement",
    "holds_have_owners": "ledger auction bid sheet commitment offered agreement",
    "promises_are_funded": "agreement",
    "fees_are_as_announced": "ledger agreement auction",
    "everything_ends": "auction agreement group offer offered overdue",
    "debts_are_kept": "debt agreement",
    "pledges_are_held": "ledger group",
    "one_award_for_a_block": "agreement auction",
    "capacity_never_exceeded": "block party offered",
    "charges_within_the_price": "agreement auction group",
    "no_bid_after_the_close": "bid sheet auction",
    "states_of_the_lifecycle": "auction agreement award",
    "bids_say_when_their_bidders_came": "bid party auction",
    "ratings_by_parties_alone": "exchange agreement",
    "chains_without_cycles": "agreement",
    "exclusions_have_grounds": "auction bid sheet party offer_sheet",
    "the_banned_begin_nothing": "party auction offer bid",
    "bids_of_the_banned_are_withdrawn": "party auction bid bidding",
}


class Simulation(Courses):
    """One market. `run` plays events and raises Found at the first thing that is wrong."""

    def __init__(self, seed: int, replayed: bool = True) -> None:
        self.replayed = replayed
        self.random = random.Random(seed)
        self.clock = ManualClock()
        self.fee = self.random.choice((NO_FEE, Fee(ppm=25_000, fixed=7), Fee(ppm=333_333), Fee(fixed=30)))
        self.rules = RatingRules(newcomer_bond=50, value_full=500)
        self.cards = Cards()
        self.bytes = counted_bytes()
        self.store = MemoryStore()
        self.inside = self.charged_back_of_cards = self.sent = self.done = 0  # inside: paid in, less paid out
        self.ticked_ms = -1
        self.actor = ""
        self.awarded: list[str] = []
        self.salts: dict[tuple[str, str], BidEntry] = {}
        self.played: set[str] = set()
        self.restart()
        for name in PROVIDERS:
            self.market.register(name, "provider", capacity_bps=1_000, public_key=KEYS[name])
        for name in RECIPIENTS:
            self.market.register(name, "recipient", public_key=KEYS[name])
            self.market.register(f"{name}-phone", "device", belongs_to=name)
        self.market.register("judy", "recipient")
        for name in PROVIDERS + RECIPIENTS:
            self.pay_in(name, 20_000)
        for name in PROVIDERS:
            self.market.post_bond(name, 5_000, "EUR")

    def restart(self) -> None:
        """A process that starts: it knows what the journal says, and when it came back."""
        config = MarketConfig(rating=self.rules, subcontract_depth_max=3, fee=self.fee, taker="charity")
        self.market = Moderator(
            self.store, clock=self.clock, config=config, processors={"card": self.cards}, random_bytes=self.bytes
        )
        self.market._verifier = QuickVerifier()
        self.market.judges["again"] = lambda _agreement, proof: proof.results != (b"out",) or proof.before is None
        state = self.market.state
        self.invariants: list[tuple[Any, Any]] = [(one, Part(state, READS[one.__name__])) for one in INVARIANTS]
        self.changed: set[str] = set(state.records) | {"ledger"}
        self.ticked_ms = -1
        journal = self.market._journal

        def watched(command: str, key: str, request: bytes, draft: Any, answer: Any, wait: bool = True) -> Any:
            is_due = command.startswith(("due_", "answer_payment"))
            check_entry(command, "" if is_due else self.actor, draft, state.back_ms)
            self.changed.update([kind for kind, _ in draft.changes])
            self.awarded += [
                name for (kind, name), one in draft.changes.items() if kind == "auction" and not one.due_ms
            ]
            if draft.transfers:
                self.changed.add("ledger")
            return journal(command, key, request, draft, answer, wait)

        self.market._journal = watched  # type: ignore[method-assign]

    def run(self, events: int) -> None:
        weighted = self.weighted()
        calls = [call for _, call in weighted]
        weights = [weight for weight, _ in weighted]
        for number, call in enumerate(self.random.choices(calls, weights, k=events)):
            with contextlib.suppress(AuctionError, ValueError):
                call()
                self.done += 1
            if number % CHECK_EVERY == 0:
                self.check()
        for call in self.courses():
            with contextlib.suppress(AuctionError, ValueError):
                call()
        self.wind_up()
        wrong = violations(self.market.state)
        if wrong:
            raise Found("; ".join(wrong[:3]))
        if self.replayed:
            self.check_replay()

    def check_replay(self) -> None:
        again = replay(self.store.entries(), self.rules)
        if again.records != self.market.state.records or again.ledger.balances != self.market.state.ledger.balances:
            raise Found("the replay is another state")

    def wind_up(self) -> None:
        """Time goes on, and nobody says any more: everything ends, nothing is held, and after long nothing is kept."""
        for _ in range(6):
            self.clock.advance(30 * 3_600_000)
            with contextlib.suppress(AuctionError):
                self.market.tick()
            try:
                self.market.resume_payments()
            except BadValue as reason:
                raise Found(f"a payment cannot come to its end: {reason}") from None
        self.check()
        self.ended = {kind: dict(of_kind) for kind, of_kind in self.market.state.records.items()}
        for days in (46, 130):
            self.clock.advance(days * 86_400_000)
            with contextlib.suppress(AuctionError):
                self.market.tick()
            self.pay_in("anna", 1)
        self.check()
        records = self.market.state.records
        kept = {kind for kind in ("auction", "bid", "award", "block", "exchange", "offer", "group") if records[kind]}
        owed = {name for name, one in records["agreement"].items() if not one.debt}
        if kept or owed:
            raise Found(f"all is over for long, and these are kept: {kept or owed}")
        balances = self.market.state.ledger.balances
        held = {name: amount for name, amount in balances.items() if amount and name.startswith(("held", "pledged"))}
        if held:
            raise Found(f"all time has passed, and this is held still: {held}")
        of_cards = self.cards.outside - self.charged_back_of_cards
        if balances.get("outside:card", 0) != -of_cards:
            raise Found(f"{of_cards} came of cards, the ledger says {-balances.get('outside:card', 0)}")

    def check(self) -> None:
        changed, self.changed = self.changed, set()
        if not changed:
            return  # the event was refused, and `send` saw that it changed nothing
        state = self.market.state
        if state.records["overdue"]:
            raise Found(f"a deadline has failed: {state.records['overdue']}")
        for invariant, part in self.invariants:
            if not part.reads.isdisjoint(changed):
                for wrong in invariant(part):
                    raise Found(f"{invariant.__name__}: {wrong}")
        if "ledger" in changed and -state.ledger.balances.get("outside", 0) != self.inside:
            raise Found(f"{-state.ledger.balances['outside']} is in the market, {self.inside} was paid in")
        awarded, self.awarded = self.awarded, []
        for name in awarded:
            check_award(self.market, name)

    def send(self, command: str, *arguments: Any, **named: Any) -> Any:
        """Sends a command, and again under its key, as a client does that got no answer."""
        self.sent += 1
        key = f"key-{self.sent}"
        now_ms = self.market.now_ms()
        if now_ms != self.ticked_ms:  # else nothing can have become due since
            self.actor = ""
            self.market.tick()
            is_in_doubt = self.market.state.is_clock_in_doubt  # then nothing comes about, until it is confirmed
            self.ticked_ms = -1 if is_in_doubt else now_ms
            due = self.market.state.due
            if due and due[0][0] <= now_ms and not is_in_doubt:
                raise Found(f"{due[0]} was due, and is still to come")
        before = self.market.state.sequence
        self.actor = speaker(command, arguments)
        try:
            answer = getattr(self.market, command)(*arguments, key=key, **named)
        except AuctionError:
            if self.market.state.sequence != before and command not in ("pay", "refund"):  # a request is written first
                raise Found(f"{command} was refused, and has changed something") from None
            raise
        self.played.add(command)
        while self.random.random() < 0.3:
            again = getattr(self.market, command)(*arguments, key=key, **named)
            if again != answer and not (command == "end" and answer.method == "card"):  # it may be captured by now
                raise Found(f"{command} sent again got another answer")
        return answer

    def pay_in(self, name: str, amount: int) -> None:
        self.send("deposit", name, amount, "EUR")
        self.inside += amount

    def pay_fees_out(self) -> None:
        amount = self.random.randrange(1, 40)
        self.send("withdraw_fees", amount, "EUR")
        self.inside -= amount

    def pay_out(self, name: str, amount: int) -> None:
        self.send("withdraw", name, amount, "EUR")
        self.inside -= amount


def check_award(market: Moderator, name: str) -> None:
    """The award by the slow and obvious rule, over the bids that were not excluded."""
    record = market.state.records["auction"].get(name)
    if record is None:
        return  # it is over for so long that it is kept no more
    announcement = record.announcement
    if announcement.format not in REFERENCED:
        return
    award = market.state.records["award"].get(name)
    excluded = {bid for bid, _ in record.excluded}
    placed = [one for one in market.state.bids_in(name) if one.bid.bid not in excluded]
    if award is None and not placed and not record.winners:
        return  # nobody has bid, or it was withdrawn
    if award is None and record.state == "void" and market.state.bids_of.get(name):
        return  # its announcer was banned: by what else an open auction may end, `check_auction` looks
    ratings = {one.bid.bidder: one.rating for one in placed if one.rating is not None}
    expected = reference(announcement, [one.bid for one in placed], ratings, bytes.fromhex(record.seed))
    winners = award.winners if award is not None else record.winners
    got = sorted((winning.bid, winning.price, winning.quantity) for winning in winners)
    if announcement.format != "uniform_price":
        got = [(bid, price, 1) for bid, price, _ in got]
    if got != expected:
        raise Found(f"{name} ({announcement.format}) was awarded as {got}, the reference says {expected}")
