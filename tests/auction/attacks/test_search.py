"""A search for profit: coalitions of two play random sequences of commands against a truthful third. They end, hand in,
take over, stop fail-over, announce, bid, withdraw, refuse, change capacities and keys, and open, join, sponsor and
settle groups; there may be a fee, and the market may start anew. What the operator alone does (bans, attributes,
upgrades) is no move of theirs.

What is served is counted at its price. A coalition profits if its money and what it was served come to more than what
it served and the open interval e of each agreement; the third is harmed beyond the bound if it loses more than e and δ
of the price of each of its agreements. What a hole of each kind would give is found, so the search is not blind.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import pytest
from markets import asked, awarded, figure_of, key_of, market, money, poll, public_key_of

from auction.model import agreement as agreement_module
from auction.model import closing
from auction.model.agreement import Agreement
from auction.model.errors import AuctionError, NoAward
from auction.model.fees import NO_FEE, Fee
from auction.model.ledger import funds, held_bond, pledged
from auction.model.lifecycle import next_state
from auction.model.receipt import SignedReceipt, next_receipt
from auction.model.signing import party_body, sign_statement
from auction.moderator import AuctionTerms, BidEntry, Moderator, invariants
from auction.moderator.config import MarketConfig
from auction.moderator.draft import Draft
from auction.moderator.invariants import violations
from auction.moderator.rules import admission, announcing, ending, failing_over, groups, parties, payments
from auction.moderator.rules.due import DUE

SEQUENCES = int(os.environ["COALITION_SEEDS"])
TRIES = 120  # games of each coalition in which a planted hole must be found
ENDINGS = ("finished", "leaving", "blaming")
COALITIONS = (("rita", "p0"), ("rita", "p1"), ("p0", "p1"))


class Outcome(NamedTuple):
    profit: int
    harm: int
    allowed: int
    harm_allowed: int
    moves: tuple[str, ...]


class Game:
    """One market with a recipient, a provider and a runner-up, of whom one is truthful. An agreement is there from the
    start; the recipient announces further auctions, of which some are paid for by a group."""

    def __init__(self, seed: int, bad: tuple[str, str]) -> None:
        self.random = random.Random(seed)
        self.bad = bad
        (self.good,) = {"rita", "p0", "p1"} - set(bad)
        fee = self.random.choice((NO_FEE, Fee(ppm=25_000, fixed=10)))
        self.market, self.clock = market(providers=2, config=MarketConfig(fee=fee))
        for name in ("p0", "p1"):
            self.market.deposit(name, 50_000, "EUR")
        self.keys = {public_key_of(name): key_of(name) for name in ("rita", "p0", "p1")}
        self.had = {name: money(self.market, name) for name in ("rita", "p0", "p1")}
        self.moves: list[str] = []
        self.served: dict[str, int] = {}  # agreement -> intervals that were truly served
        self.receipts: dict[str, SignedReceipt] = {}  # what was last signed by both
        first = awarded(
            self.market, self.clock, (4_000, 4_200), reserve=5_000, receipts=True, fail_over=True,
            format="first_price",
        )  # fmt: skip
        self.agreements = [first]
        self.auctions: list[str] = []

    def play(self) -> Outcome:
        one = self.market.agreement(self.agreements[0])
        if "rita" in self.bad and self.random.random() < 0.6:
            self._note(self._announces("rita"))
            if self.random.random() < 0.6:
                self._note(self._opens_group("rita", ""))
        for _ in range(self.random.randint(0, 4)):
            self._move()
            self._truth()
        self.clock.advance(one.starts_ms - self.clock.now_ms)
        self._poll()
        self.clock.advance(10_000)
        self._serve()
        for _ in range(self.random.randint(2, 9)):
            self._move()
            self._truth()
            self._pass_time()
        for _ in range(22):  # to the end of every window, the truthful one being there
            self._truth()
            self.clock.advance(9_000)
            poll(self.market, self.good)
            self._serve()
        for _ in range(6):
            self._truth()
            self.clock.advance(3_700_000)
            self.market.tick()
        assert violations(self.market.state) == [], self.moves
        assert self.market.overdue() == [], self.moves
        return self._outcome()

    def _poll(self) -> None:
        for name in (self.good, *[name for name in self.bad if self.random.random() < 0.8]):
            poll(self.market, name)

    def _pass_time(self) -> None:
        self.clock.advance(self.random.choice((500, 3_000, 9_000, 10_000)))
        self._poll()
        self.market.tick()
        self._serve()

    def _find(self) -> None:
        """What has come of the auctions."""
        for auction in self.auctions:
            self.agreements += [name for name in self.market.auction(auction).agreements if name not in self.agreements]

    def _serve(self) -> None:
        """What is running is served in full, as far as both sides want it; receipts follow with an interval open."""
        self._find()
        for name in self.agreements:
            one = self.market.agreement(name)
            if one.state not in ("agreed", "running") or self.clock.now_ms <= one.starts_ms:
                continue
            window_ms = one.ends_ms - one.starts_ms
            gone = min(self.clock.now_ms - one.starts_ms, window_ms)
            intervals = self._intervals(name) * gone // window_ms
            if one.provider in self.bad and self.random.random() < 0.3:
                continue  # it does not serve
            if intervals > self.served.get(name, 0):
                self.served[name] = intervals
                self.receipts[name] = self._signed(one, intervals)

    def _intervals(self, name: str) -> int:
        return self.market.receipt_terms(name).intervals

    def _signed(self, one: Agreement, intervals: int) -> SignedReceipt:
        """The receipt after so many intervals, signed with the keys that the agreement was made with."""
        terms, before = self.market.receipt_terms(one.id), self.receipts.get(one.id)
        receipt = before.receipt if before is not None else None
        for number in range(receipt.number + 1 if receipt else 1, intervals + 1):
            bits = terms.bits_at(terms.maximum_bps or 0, terms.length_ms(number))
            receipt = next_receipt(terms, receipt, bits, bits, 0)
        assert receipt is not None
        said = receipt.to_sign()
        recipient, provider = (self.keys[key].sign(said) for key in (one.recipient_key, one.provider_key))
        return SignedReceipt(receipt, recipient, provider)

    # --- what the coalition does ---

    def _move(self) -> None:
        who = self.random.choice(self.bad)
        name = self.random.choice(self.agreements)
        moves = [self._ends] * 6 + [self._hands_in] * 2 + [self._takes_over] * 3
        moves += [self._refuses, self._changes_capacity, self._changes_key, self._bids, self._bids, self._restarts]
        if who == "rita":
            moves += [self._announces] * 2 + [
                self._withdraws,
                self._withdraws,
                self._stops_fail_over,
                self._opens_group,
            ]
        if self.market.state.records["group"]:
            moves += [self._joins, self._pledges, *[self._settles_group] * 4]
        with contextlib.suppress(AuctionError):
            self._note(self.random.choice(moves)(who, name))

    def _note(self, what: str) -> None:
        if what:
            self.moves.append(what)

    def _ends(self, who: str, name: str) -> str:
        one = self.market.agreement(name)
        figure = self.random.choice((0, one.price, one.price // 2, self.random.randint(0, one.price)))
        said = self.random.choice(ENDINGS)
        self.market.end(name, who, said, figure)
        return f"{who} ends {name} {said} {figure}"

    def _hands_in(self, who: str, name: str) -> str:
        if name not in self.receipts:
            return ""
        self.market.hand_in(name, who, self.receipts[name])
        return f"{who} hands in for {name}"

    def _takes_over(self, who: str, name: str) -> str:
        self.agreements.append(self.market.take_over(name, who).id)
        return f"{who} takes {name} over"

    def _refuses(self, who: str, _name: str) -> str:
        call = self.random.choice((self.market.refuse_party, self.market.refuse_party, self.market.accept_party))
        call(who, self.good)
        return f"{who} {call.__name__} {self.good}"

    def _changes_capacity(self, who: str, _name: str) -> str:
        capacity_bps = self.random.choice((0, 1_000, 2_000, 20_000))
        self.market.change_capacity(who, capacity_bps)
        return f"{who} has {capacity_bps} bit/s"

    def _changes_key(self, who: str, _name: str) -> str:
        seed = f"{who}-{len(self.keys)}"
        key, public = key_of(seed), public_key_of(seed)
        expires_ms = self.market.now_ms() + 1_000
        body = party_body(self.market.party(who).controller, public)
        signature = sign_statement(key, "key", "", who, body, nonce=seed, expires_ms=expires_ms)
        self.market.change_key(who, public, signature)
        self.keys[public] = key
        return f"{who} has another key"

    def _restarts(self, _who: str, _name: str) -> str:
        """The market is started anew: nobody's move, but anybody may wait for it."""
        self.market = Moderator(self.market.store, clock=self.clock)
        return "the market starts anew"

    def _announces(self, who: str, _name: str = "") -> str:
        if len(self.auctions) >= 2:
            return ""
        kind = self.random.choice(("first_price", "second_price", "open"))
        terms = AuctionTerms(reserve=5_000, open_for_ms=20_000, fail_over=self.random.random() < 0.5, format=kind)
        self.auctions.append(self.market.announce(who, asked(self.clock), terms).auction)
        return f"{who} announces {self.auctions[-1]} ({kind})"

    def _auction(self) -> str:
        if not self.auctions:
            raise NoAward("there is none")
        return self.random.choice(self.auctions)

    def _bids(self, who: str, _name: str) -> str:
        auction, price = self._auction(), self.random.choice((1, 2_000, 2_999, 4_900, self.random.randint(1, 5_000)))
        self.market.bid(auction, BidEntry(who, price))
        return f"{who} bids {price} in {auction}"

    def _withdraws(self, _who: str, _name: str) -> str:
        auction = self._auction()
        self.market.withdraw_auction(auction)
        return f"{auction} is withdrawn"

    def _stops_fail_over(self, _who: str, name: str) -> str:
        self.market.stop_fail_over(name)
        return f"fail-over of {name} is stopped"

    def _opens_group(self, who: str, _name: str) -> str:
        auction = self._auction()
        self.market.open_group(auction, who, extra_cost=self.random.choice((0, 100)))
        return f"{who} opens a group for {auction}"

    def _group(self) -> str:
        groups = [name for name, one in self.market.state.records["group"].items() if one.state == "open"]
        if not groups:
            raise NoAward("there is none")
        return self.random.choice(groups)

    def _joins(self, who: str, _name: str) -> str:
        group, limit = self._group(), self.random.choice((0, 500, 5_000))
        self.market.join_group(group, who, limit)
        return f"{who} joins {group} with {limit}"

    def _pledges(self, who: str, _name: str) -> str:
        group, amount = self._group(), self.random.choice((100, 3_000))
        self.market.pledge(group, who, amount, opted_in=True)
        return f"{who} pledges {amount} to {group}"

    def _settles_group(self, _who: str, _name: str) -> str:
        if "rita" not in self.bad:
            return ""
        group = self._group()
        self.market.settle_group(group)
        return f"{group} is settled"

    # --- what the truthful one does ---

    def _truth(self) -> None:
        """The truthful one hands in what it has, states what is so, takes over what it is offered, bids what it costs
        it, joins with what it is worth to it, and announces what it needs."""
        good = self.good
        self._find()
        if good == "rita":
            if self.random.random() < 0.2:
                self._note(self._announces(good))
        else:
            self._provide_truly()
        for name in self.agreements:
            one = self.market.agreement(name)
            if good not in (one.provider, one.recipient):
                continue
            if name in self.receipts:
                with contextlib.suppress(AuctionError):
                    self.market.hand_in(name, good, self.receipts[name])
            self._end_truly(one)

    def _provide_truly(self) -> None:
        good = self.good
        for name in list(self.agreements):
            with contextlib.suppress(AuctionError):
                self.agreements.append(self.market.take_over(name, good).id)
        for auction in self.auctions:
            if all(placed.bid.bidder != good for placed in self.market.state.bids_in(auction)):
                with contextlib.suppress(AuctionError):
                    self.market.bid(auction, BidEntry(good, 3_000))
        for name, group in list(self.market.state.records["group"].items()):
            if group.state == "open" and good not in group.limits:
                with contextlib.suppress(AuctionError):
                    self.market.join_group(name, good, 1_500)
                    self.market.pledge(name, good, 300, opted_in=True)

    def _end_truly(self, one: Agreement) -> None:
        good = self.good
        is_provider = good == one.provider
        own = one.provider_says if is_provider else one.recipient_says
        other = one.recipient_says if is_provider else one.provider_says
        figure = figure_of(self.market, one.id, self.receipts[one.id]) if one.id in self.receipts else 0
        whole = self.served.get(one.id, 0) >= self._intervals(one.id)
        if one.is_over or own is not None:
            return
        over = self.clock.now_ms >= one.ends_ms
        if one.state == "closing" or other is not None or over:
            said = "finished" if whole else "blaming"
            self.market.end(one.id, good, said, figure)

    def _outcome(self) -> Outcome:
        gain = {name: money(self.market, name) - had for name, had in self.had.items()}
        allowed = harm_allowed = 0
        for name in self.agreements:
            one = self.market.agreement(name)
            value = one.price * self.served.get(name, 0) // self._intervals(name)
            paying = dict(one.payers) or {one.recipient: 1}
            gain[one.provider] -= value  # what it has served is worth its price, to who pays for it
            whole = sum(paying.values())
            for payer, part in paying.items():
                gain[payer] += value * part // whole
                if one.payers and not one.of:  # what members pay beside the price is what they cost the organiser
                    gain[payer] += part - one.price * part // whole
            gain[one.recipient] -= whole - one.price if one.payers and not one.of else 0
            if self.good in (one.provider, one.recipient, *paying):
                allowed += one.exposure + len(paying)
                harm_allowed += one.exposure + one.price * one.delta_ppm // 1_000_000 + 2 + one.fee_charged
            if self.good in paying and self.good not in (one.provider, one.recipient):
                # Who joins goes by the word of the organiser, who may be one with the provider.
                allowed += paying[self.good]
                harm_allowed += paying[self.good]
        profit, harm = sum(gain[name] for name in self.bad), -gain[self.good]
        return Outcome(profit, harm, allowed, harm_allowed, tuple(self.moves))


def search(bad: tuple[str, str], sequences: int = SEQUENCES) -> list[Outcome]:
    """Outcomes beyond what is allowed."""
    found = []
    for seed in range(sequences):
        outcome = Game(seed, bad).play()
        if is_beyond(outcome):
            found.append(outcome)
    return found


def is_beyond(outcome: Outcome) -> bool:
    return outcome.profit > outcome.allowed or outcome.harm > outcome.harm_allowed


@pytest.mark.parametrize("bad", COALITIONS, ids="+".join)
def test_no_coalition_of_two_profits_or_harms_beyond_the_bound(bad: tuple[str, str]) -> None:
    found = search(bad)
    assert not found, max(found, key=lambda one: one.profit)


def _silence_pays_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    table = {
        **closing.TABLE,
        ("", "blaming"): (("provider", "recipient"),),
        ("finished", ""): (("recipient", "provider"),),
    }
    table["blaming", "blaming"] = (("provider", "recipient"),)
    monkeypatch.setattr(closing, "TABLE", table)


def _figures_are_not_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    def stated(case: closing.Case) -> tuple[int, int]:
        said = [one.figure for one in (case.provider, case.recipient) if one is not None]
        return (min(said), max(said)) if said else (case.signed, case.signed)

    monkeypatch.setattr(closing, "figures", stated)


def _higher_figure_is_paid(monkeypatch: pytest.MonkeyPatch) -> None:
    former: Callable[[closing.Case], tuple[int, int]] = closing.figures

    def higher(case: closing.Case) -> tuple[int, int]:
        _, figure = former(case)
        return figure, figure

    def generous(agreement: Agreement, market: str) -> closing.Settlement:
        loose = agreement_module.msgspec.structs.replace(agreement, exposure=agreement.price)
        return settlement(loose, market)

    settlement = agreement_module.settlement_of
    monkeypatch.setattr(closing, "figures", higher)
    monkeypatch.setattr(ending, "settlement_of", generous)


def _receipts_count_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Agreement, "earnings", lambda _self, _market: agreement_module.Earnings())


def _ends_as_it_likes(draft: Draft, party: str, name: str = "") -> None:
    """The hole of a rule by which a side gets rid of its agreements: each ends at once as that side would have it."""
    for one in list(draft.state.records["agreement"].values()):
        if party in (one.provider, one.recipient) and not one.is_over and name in ("", one.id):
            now = draft.find("agreement", one.id)
            said = closing.Statement("finished", one.price if party == one.provider else 0, draft.at_ms)
            ending.settle(draft, msgspec.structs.replace(now, provider_says=said, recipient_says=said))


def _who_refuses_ends_its_agreements(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse = admission.refuse

    def refused(draft: Draft, party: str, other: str) -> Any:
        _ends_as_it_likes(draft, party)
        return refuse(draft, party, other)

    monkeypatch.setattr(admission, "refuse", refused)


def _who_changes_its_capacity_ends_its_agreements(monkeypatch: pytest.MonkeyPatch) -> None:
    change = parties.change_capacity

    def changed(draft: Draft, party: str, capacity_bps: int) -> Any:
        _ends_as_it_likes(draft, party)
        return change(draft, party, capacity_bps)

    monkeypatch.setattr(parties, "change_capacity", changed)


def _another_key_disowns_receipts(monkeypatch: pytest.MonkeyPatch) -> None:
    """An agreement goes by the keys that its sides have now."""
    hand_in = ending.hand_in

    def handed_in(draft: Draft, name: str, *more: Any) -> Any:
        one = draft.agreement(name)
        keys = {f"{side}_key": draft.party(getattr(one, side)).public_key for side in ("recipient", "provider")}
        draft.put("agreement", name, msgspec.structs.replace(one, **keys))
        return hand_in(draft, name, *more)

    monkeypatch.setattr(ending, "hand_in", handed_in)


def _who_stops_fail_over_gets_all_back(monkeypatch: pytest.MonkeyPatch) -> None:
    stop = failing_over.stop

    def stopped(draft: Draft, name: str) -> Any:
        one = stop(draft, name)
        _ends_as_it_likes(draft, one.recipient, name)
        return draft.agreement(name)

    monkeypatch.setattr(failing_over, "stop", stopped)


def _who_withdraws_gets_what_bids_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    def withdraw(draft: Draft, auction: str) -> Any:
        record = draft.auction(auction)
        for placed in draft.placed_bids(auction):
            draft.transfer(held_bond(placed.bid.bid), funds(record.announcer), placed.held)
            draft.put("bid", placed.bid.bid, msgspec.structs.replace(placed, held=0))
        announcing.make_void(draft, record, next_state(record.state, "withdraw"))
        return record.announcement

    monkeypatch.setattr(payments, "withdraw", withdraw)


def _the_fee_is_a_partys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "FEES", funds("p0"))
    monkeypatch.setattr(invariants, "INVARIANTS", ())


def _the_organiser_keeps_what_members_put_in(monkeypatch: pytest.MonkeyPatch) -> None:
    give_back = groups.give_back

    def kept(draft: Draft, name: str) -> None:
        group = draft.get("group", name)
        if group.state == "open":
            for put_in in (group.limits, group.pledges):
                for amount in put_in.values():
                    draft.transfer(pledged(name), funds(group.organiser), amount)
            draft.put("group", name, msgspec.structs.replace(group, limits={}, pledges={}))
        give_back(draft, name)

    monkeypatch.setattr(groups, "give_back", kept)


def _a_start_forgets_receipts(monkeypatch: pytest.MonkeyPatch) -> None:
    due = DUE["agreement"]

    def forgotten(draft: Draft, name: str, due_ms: int) -> None:
        one = draft.agreement(name)
        if draft.state.back_ms and one.receipt is not None:
            draft.state.records["agreement"][name] = msgspec.structs.replace(one, receipt=None)
        due(draft, name, due_ms)

    monkeypatch.setitem(DUE, "agreement", forgotten)


HOLES = (
    _silence_pays_the_other,
    _figures_are_not_bounded,
    _higher_figure_is_paid,
    _receipts_count_for_nothing,
    _who_refuses_ends_its_agreements,
    _who_changes_its_capacity_ends_its_agreements,
    _another_key_disowns_receipts,
    _who_stops_fail_over_gets_all_back,
    _who_withdraws_gets_what_bids_hold,
    _the_fee_is_a_partys,
    _the_organiser_keeps_what_members_put_in,
    _a_start_forgets_receipts,
)


@pytest.mark.parametrize("hole", HOLES, ids=lambda one: one.__name__.strip("_"))
def test_planted_hole_is_found(hole: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    hole(monkeypatch)
    for seed in range(TRIES):
        for bad in COALITIONS:
            outcome = Game(seed, bad).play()
            if is_beyond(outcome):
                return
    pytest.fail(f"{TRIES} games of each coalition did not find it")
