"""Bugs for the simulation to find, planted one at a time: each changes one rule of the market."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

import auction.moderator.core
import auction.storage.journal
from auction.model import agreement, closing, takeover
from auction.model import award as award_file
from auction.model.block import Block
from auction.model.fees import Fee
from auction.model.ledger import Ledger, funds
from auction.model.rating import Exchange
from auction.moderator import Moderator
from auction.moderator.draft import Draft
from auction.moderator.people import People
from auction.moderator.records import Auction, Committed
from auction.moderator.rules import (
    admission,
    awarding,
    bidding,
    chains,
    ending,
    groups,
    holds,
    parties,
    payments,
)
from auction.moderator.rules.due import DUE
from auction.storage.store import MemoryStore

Patch = pytest.MonkeyPatch
Plant = Callable[[Patch], None]
BUGS: list[Plant] = []


# The seed that found it last, of bugs that few seeds find: it is tried before the others.
FOUND_BY: dict[str, int] = {
    "capacity_of_a_split_block_is_forgotten": 44,
    "a_refund_may_exceed_the_charge": 21,
    "anyone_may_rate": 13,
    "cycles_are_allowed": 33,
    "what_comes_back_is_the_organisers": 90,
    "a_rest_costs_more_than_was_bid": 14,
    "a_forged_receipt_counts": 20,
    "a_stranger_may_arbitrate": 13,
    "a_card_is_captured_for_more": 11,
    "what_was_signed_is_not_owed": 14,
    "a_refused_party_wins": 11,
    "a_key_need_not_be_shown": 12,
    "the_members_pay_the_fee": 90,
}


def bug(plant: Plant) -> Plant:
    BUGS.append(plant)
    return plant


@bug
def money_appears(patch: Patch) -> None:
    def apply(self: Ledger, transfers: Any) -> None:
        for source, target, amount in transfers:
            self.balances[source] = self.balances.get(source, 0) - amount
            self.balances[target] = self.balances.get(target, 0) + amount + (amount % 97 == 0)

    patch.setattr(Ledger, "apply", apply)


@bug
def capacity_is_not_looked_at(patch: Patch) -> None:
    patch.setattr(Draft, "committed_peak", lambda *_: 0)


@bug
def capacity_of_a_split_block_is_forgotten(patch: Patch) -> None:
    whole_parts = auction.model.block.split_in_rate

    def split(block: Block, first_bps: int, ids: tuple[str, str], now_ms: int) -> tuple[Block, Block]:
        first, rest = whole_parts(block, first_bps, ids, now_ms)
        return first, msgspec.structs.replace(rest, maximum_bps=block.maximum_bps)

    patch.setattr("auction.moderator.rules.blocks.split_in_rate", split)


def award_decided(patch: Patch, change: Callable[[Any, Any], Any]) -> None:
    decide = awarding.decide_award

    def changed(announcement: Any, bids: Any, ratings: Any, seed: bytes) -> Any:
        return change(announcement, decide(announcement, bids, ratings, seed))

    patch.setattr(awarding, "decide_award", changed)


@bug
def the_winner_pays_its_own_price(patch: Patch) -> None:
    def change(announcement: Any, award: Any) -> Any:
        if award.winners and announcement.format == "second_score":
            own = msgspec.structs.replace(award.winners[0], price=award.standings[0].offered)
            return msgspec.structs.replace(award, winners=(own,))
        return award

    award_decided(patch, change)


@bug
def the_second_wins(patch: Patch) -> None:
    def change(_announcement: Any, award: Any) -> Any:
        if award.winners and award.runners_up:
            second = award.runners_up[0]
            winner = msgspec.structs.replace(award.winners[0], bid=second.bid, bidder=second.bidder)
            return msgspec.structs.replace(award, winners=(winner,))
        return award

    award_decided(patch, change)


@bug
def the_reserve_is_exceeded(patch: Patch) -> None:
    def change(announcement: Any, award: Any) -> Any:
        if award.winners and announcement.direction == "provide":
            more = msgspec.structs.replace(award.winners[0], price=announcement.reserve + 1)
            return msgspec.structs.replace(award, winners=(more,))
        return award

    award_decided(patch, change)


@bug
def ties_go_to_the_name(patch: Patch) -> None:
    patch.setattr(award_file.Draw, "of", lambda _self, party, _registered=0: party.encode())


@bug
def who_came_for_the_tie_wins_it(patch: Patch) -> None:
    original = award_file.Draw.of
    patch.setattr(award_file.Draw, "of", lambda self, party, _registered=0: original(self, party))


@bug
def late_bids_are_taken(patch: Patch) -> None:
    def bid(draft: Draft, name: str, entry: Any) -> Any:
        return bidding.place(draft, draft.auction(name), entry).bid

    patch.setattr(bidding, "bid", bid)


@bug
def a_block_is_sold_twice(patch: Patch) -> None:
    def make(draft: Draft, *decided: Any) -> None:
        original(draft, *decided)
        original(draft, *decided)

    original = awarding._make_agreements
    patch.setattr(awarding, "_make_agreements", make)


@bug
def the_higher_figure_is_paid(patch: Patch) -> None:
    original = closing.figures

    def higher(case: closing.Case) -> tuple[int, int]:
        return (original(case)[1],) * 2

    patch.setattr(closing, "figures", higher)


@bug
def figures_are_not_bounded_by_receipts(patch: Patch) -> None:
    def figures(case: closing.Case) -> tuple[int, int]:
        said = [one.figure for one in (case.provider, case.recipient) if one is not None]
        return (min(said), max(said)) if said else (case.signed, case.signed)

    patch.setattr(closing, "figures", figures)


@bug
def what_is_held_stays_held(patch: Patch) -> None:
    transfer = Draft.transfer

    def leak(self: Draft, source: str, target: str, amount: int, forced: bool = False) -> None:
        if source.startswith("held:") and target.startswith("funds:anna"):
            return
        transfer(self, source, target, amount, forced)

    patch.setattr(Draft, "transfer", leak)


@bug
def holds_of_losing_bids_are_kept(patch: Patch) -> None:
    patch.setattr(holds, "let_bid_go", lambda *_: None)


@bug
def unrevealed_commitments_are_forgotten(patch: Patch) -> None:
    patch.setattr(bidding, "forfeit_unrevealed", lambda *_: None)


@bug
def a_revealed_commitment_is_forfeited_too(patch: Patch) -> None:
    def forfeit(draft: Draft, record: Auction) -> None:
        for name in draft.state.commitments_of.get(record.id, ()):
            committed: Committed = draft.get("commitment", name)
            draft.transfers.append((f"held_bond:{name}", funds(record.announcer), max(committed.held, 1)))

    patch.setattr(bidding, "forfeit_unrevealed", forfeit)


@bug
def a_refund_may_exceed_the_charge(patch: Patch) -> None:
    patch.setattr(payments, "check_refund", lambda *_: None)


@bug
def anyone_may_rate(patch: Patch) -> None:
    def take(self: Exchange, opinion: Any, _rules: Any) -> Exchange:
        return msgspec.structs.replace(self, **{opinion.kind: opinion})

    patch.setattr(Exchange, "with_opinion", take)


@bug
def keys_are_ignored(patch: Patch) -> None:
    run = Moderator._run

    def forgetful(self: Moderator, command: str, _key: Any, *more: Any, **named: Any) -> Any:
        return run(self, command, None, *more, **named)

    patch.setattr(Moderator, "_run", forgetful)


@bug
def sealed_bids_are_open(patch: Patch) -> None:
    def bids(self: Moderator, name: str, _reader: str) -> list[Any]:
        return [placed.bid for placed in self._draft().placed_bids(name)]

    patch.setattr(Moderator, "bids", bids)


@bug
def cycles_are_allowed(patch: Patch) -> None:
    patch.setattr(chains, "check_subcontractor", lambda *_: None)


@bug
def pledges_are_not_given_back(patch: Patch) -> None:
    def due(draft: Draft, name: str, _due_ms: int) -> None:
        group = draft.get("group", name)
        if group.state == "open":
            draft.put("group", name, msgspec.structs.replace(group, state="failed", due_ms=0))

    patch.setitem(DUE, "group", due)


@bug
def what_comes_back_is_the_organisers(patch: Patch) -> None:
    patch.setattr(groups, "_payers", lambda *_: ())


@bug
def the_journal_forgets_transfers(patch: Patch) -> None:
    encode = auction.storage.journal.encode_body

    def forget(changes: Any, transfers: list[Any]) -> bytes:
        return encode(changes, transfers[:3])

    patch.setattr(auction.moderator.core, "encode_body", forget)
    patch.setattr(auction.storage.journal, "encode_body", forget)


@bug
def a_rest_costs_more_than_was_bid(patch: Patch) -> None:
    original = takeover.price_for
    patch.setattr(takeover, "price_for", lambda *given: original(*given) + 1)


@bug
def balances_may_go_below_zero(patch: Patch) -> None:
    def transfer(self: Draft, source: str, target: str, amount: int, forced: bool = False) -> None:
        if amount:
            self.transfers.append((source, target, amount))

    patch.setattr(Draft, "transfer", transfer)


@bug
def a_refused_command_leaves_something(patch: Patch) -> None:
    check, draft_of = bidding.check_bidder, Moderator._draft
    market: list[Moderator] = []

    def remember(self: Moderator, at_ms: int = 0) -> Draft:
        market[:] = [self]
        return draft_of(self, at_ms)

    def leave(draft: Draft, record: Auction, bidder: str, *more: Any) -> Any:
        if bidder.startswith("anna"):
            other = market[0]._draft(draft.at_ms)
            other.put("party", "anna", draft.state.records["party"]["anna"])
            market[0]._journal("leak", "", b"", other, None)
        return check(draft, record, bidder, *more)

    patch.setattr(Moderator, "_draft", remember)
    patch.setattr(bidding, "check_bidder", leave)


# --- ends, holds and deadlines ---


@bug
def an_end_is_believed_alone(patch: Patch) -> None:
    patch.setattr(ending, "is_over", lambda _provider, recipient: recipient is not None)


@bug
def different_figures_end_at_once(patch: Patch) -> None:
    patch.setattr(ending, "is_over", lambda provider, recipient: provider is not None and recipient is not None)


@bug
def money_goes_to_the_wrong_side(patch: Patch) -> None:
    patch.setitem(closing.TABLE, ("", "blaming"), (("provider", "recipient"),))


@bug
def what_is_nobodys_goes_to_somebody(patch: Patch) -> None:
    patch.setattr(ending, "NOBODY", "funds:p0")


@bug
def silence_counts_as_finished(patch: Patch) -> None:
    original = closing.endings

    def read(case: closing.Case) -> tuple[str, str]:
        provider, recipient = original(case)
        return provider or "finished", recipient or "finished"

    patch.setattr(closing, "endings", read)


@bug
def finished_early_is_finished(patch: Patch) -> None:
    def read(case: closing.Case) -> tuple[str, str]:
        says = [closing._counted(case.provider, case.provider_absent)]
        says.append(closing._counted(case.recipient, case.recipient_absent))
        provider, recipient = (one.ending if one is not None else "" for one in says)
        return provider, recipient

    patch.setattr(closing, "endings", read)


@bug
def the_absent_are_heard(patch: Patch) -> None:
    patch.setattr(closing, "_counted", lambda said, _absent: said)


@bug
def a_shortfall_costs_nothing(patch: Patch) -> None:
    original = closing.settle

    def settle(case: closing.Case) -> Any:
        return original(msgspec.structs.replace(case, shortfall=0))

    patch.setattr(agreement, "settle", settle)


@bug
def an_offer_holds_for_ever(patch: Patch) -> None:
    patch.setitem(DUE, "offer", lambda *_: None)


@bug
def a_deadline_comes_too_late(patch: Patch) -> None:
    patch.setattr(ending, "CLOSING_MS", 36_000_000)


@bug
def closing_is_over_too_early(patch: Patch) -> None:
    patch.setattr(ending, "CLOSING_MS", 60_000)
    patch.setattr(ending, "deadline_ms", lambda *_: 0)


@bug
def closing_does_not_end(patch: Patch) -> None:
    original = DUE["agreement"]

    def due(draft: Draft, name: str, due_ms: int) -> None:
        if draft.agreement(name).state != "closing":
            original(draft, name, due_ms)

    patch.setitem(DUE, "agreement", due)


@bug
def a_receipt_goes_back(patch: Patch) -> None:
    patch.setattr(ending, "better", lambda _terms, one, other: other if other.by_both else one)


@bug
def a_forged_receipt_counts(patch: Patch) -> None:
    patch.setattr(ending, "check_signatures", lambda *_: None)


@bug
def a_stranger_may_end_it(patch: Patch) -> None:
    def side(one: Any, party: str) -> str:
        return "recipient" if party == one.recipient else "provider"

    patch.setattr(ending, "_check_side", side)


@bug
def a_stranger_may_arbitrate(patch: Patch) -> None:
    original = ending.arbitrate

    def arbitrate(draft: Draft, name: str, _arbiter: str, *parts: int) -> Any:
        return original(draft, name, draft.agreement(name).arbiter, *parts)

    patch.setattr(ending, "arbitrate", arbitrate)


@bug
def a_card_is_captured_for_more(patch: Patch) -> None:
    original = holds.ask

    def ask(draft: Draft, name: str, step: str, amount: int) -> Any:
        return original(draft, name, step, amount + (step == "capture"))

    patch.setattr(holds, "ask", ask)


@bug
def what_was_signed_is_not_owed(patch: Patch) -> None:
    patch.setattr(holds, "owe", lambda *_: 0)


# --- who may deal with whom ---


@bug
def a_ban_is_ignored(patch: Patch) -> None:
    patch.setattr(admission, "barred_by", lambda *_: ("", ""))


@bug
def a_ban_leaves_the_bids(patch: Patch) -> None:
    patch.setattr(bidding, "withdraw_bids", lambda *_: None)


@bug
def a_refused_party_wins(patch: Patch) -> None:
    patch.setattr(admission, "is_on", lambda *_: False)


@bug
def what_a_block_requires_is_not_looked_at(patch: Patch) -> None:
    patch.setattr(admission, "lacks", lambda *_: "")


@bug
def capacity_goes_below_what_is_promised(patch: Patch) -> None:
    patch.setattr(parties, "_promised_bps", lambda *_: 0)


@bug
def a_key_of_another_is_taken(patch: Patch) -> None:
    patch.setattr(parties, "_check_is_free", lambda *_: None)


@bug
def a_key_need_not_be_shown(patch: Patch) -> None:
    original = parties.check_signature
    patch.setattr(
        parties, "check_signature", lambda d, purpose, *more: None if purpose == "key" else original(d, purpose, *more)
    )


@bug
def a_former_key_is_forgotten(patch: Patch) -> None:
    original = parties.change_key

    def change(draft: Draft, party: str, *more: Any) -> Any:
        record = msgspec.structs.replace(original(draft, party, *more), former_keys=())
        draft.put("party", party, record)
        return record

    patch.setattr(parties, "change_key", change)


@bug
def a_token_that_was_replaced_is_good_still(patch: Patch) -> None:
    original = auction.moderator.state.State._index_party

    def index(self: Any, _old: Any, new: Any) -> None:
        original(self, None, new)

    patch.setitem(auction.moderator.state.INDEXES, "party", index)


@bug
def a_cost_is_not_what_is_taken(patch: Patch) -> None:
    original = Draft.cost_to

    def cost(self: Draft, party: str) -> Any:
        told = original(self, party)
        return msgspec.structs.replace(told, of_bond=told.of_bond + 1)

    patch.setattr(Draft, "cost_to", cost)


# --- fees ---


@bug
def a_fee_is_taken_twice(patch: Patch) -> None:
    original = ending.settle

    def settle(draft: Draft, one: Any) -> Any:
        settled = original(draft, one)
        more = min(settled.fee_charged, draft.balance(funds(settled.provider)))
        draft.transfer(funds(settled.provider), "fees", more)
        return settled

    patch.setattr(ending, "settle", settle)


@bug
def a_fee_is_due_for_nothing(patch: Patch) -> None:
    patch.setattr(Fee, "of", lambda self, earned: earned * self.ppm // 1_000_000 + self.fixed)


@bug
def a_fee_is_not_held(patch: Patch) -> None:
    def without(record: Any, winning: Any) -> int:
        return winning.price + winning.price * record.announcement.delta_ppm // 1_000_000

    patch.setattr(agreement.Agreement, "own_hold", property(lambda one: one.price))
    patch.setattr(awarding, "_recipients_hold", without)


@bug
def the_members_pay_the_fee(patch: Patch) -> None:
    original = ending._give_back
    patch.setattr(ending, "_give_back", lambda draft, one, back, gained, _fee: original(draft, one, back, gained, 0))


# --- what is personal ---


@bug
def what_is_erased_stays_in_the_store(patch: Patch) -> None:
    append = MemoryStore.append

    def keep(self: MemoryStore, writes: list[Any]) -> None:
        append(self, [msgspec.structs.replace(one, erased=()) for one in writes])

    patch.setattr(MemoryStore, "append", keep)


@bug
def what_is_erased_stays_in_the_map(patch: Patch) -> None:
    patch.setattr(People, "drop", lambda *_: None)


@bug
def a_name_stays_in_the_record(patch: Patch) -> None:
    original = Draft.keep_personal

    def keep(self: Draft, about: str, **fields: str) -> str:
        original(self, about, **fields)
        return fields.get("name", "")

    patch.setattr(Draft, "keep_personal", keep)
