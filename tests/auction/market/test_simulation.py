"""Seeded simulation of whole markets, and bugs planted one at a time that it has to find.

AUCTION_SEEDS says how many seeds of 500 events are played; tests/conftest.py says how many without it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from simulation import Found, Simulation

import auction.moderator.core
import auction.storage.journal
from auction.model import award as award_file
from auction.model import block as block_file
from auction.model.agreement import Leg
from auction.model.block import Block
from auction.model.ledger import Ledger, Transfer, funds
from auction.model.rating import Exchange
from auction.moderator import Moderator
from auction.moderator.draft import Draft
from auction.moderator.records import Auction, Committed
from auction.moderator.rules import agreements, awarding, bidding, chains, delivering
from auction.moderator.rules.due import DUE

SEEDS = int(os.environ["AUCTION_SEEDS"])
SEEDS_A_TEST = 50
TRIES = 60

Patch = pytest.MonkeyPatch


@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", range(0, SEEDS, SEEDS_A_TEST))
def test_no_seed_breaks_an_invariant(first: int) -> None:
    taken = 0
    for seed in range(first, first + SEEDS_A_TEST):
        simulation = Simulation(seed)
        try:
            simulation.run(500)
        except Found as reason:
            pytest.fail(f"seed {seed}: {reason}")
        taken += simulation.done
    assert taken > SEEDS_A_TEST * 100  # the rest were refused; or nothing was tested


def money_appears(patch: Patch) -> None:
    def apply(self: Ledger, transfers: Any) -> None:
        for source, target, amount in transfers:
            self.balances[source] = self.balances.get(source, 0) - amount
            self.balances[target] = self.balances.get(target, 0) + amount + (amount % 97 == 0)

    patch.setattr(Ledger, "apply", apply)


def capacity_is_not_looked_at(patch: Patch) -> None:
    patch.setattr(Draft, "committed_peak", lambda *_: 0)


def capacity_of_a_split_block_is_forgotten(patch: Patch) -> None:
    whole_parts = block_file.split_in_rate

    def split(block: Block, first_bps: int, ids: tuple[str, str], now_ms: int) -> tuple[Block, Block]:
        first, rest = whole_parts(block, first_bps, ids, now_ms)
        return first, msgspec.structs.replace(rest, maximum_bps=block.maximum_bps)

    patch.setattr("auction.moderator.rules.blocks.split_in_rate", split)


def award_decided(patch: Patch, change: Callable[[Any, Any], Any]) -> None:
    decide = awarding.decide_award

    def changed(announcement: Any, bids: Any, ratings: Any, seed: bytes) -> Any:
        return change(announcement, decide(announcement, bids, ratings, seed))

    patch.setattr(awarding, "decide_award", changed)


def the_winner_pays_its_own_price(patch: Patch) -> None:
    def change(announcement: Any, award: Any) -> Any:
        if award.winners and announcement.format == "second_score":
            own = msgspec.structs.replace(award.winners[0], price=award.standings[0].offered)
            return msgspec.structs.replace(award, winners=(own,))
        return award

    award_decided(patch, change)


def the_second_wins(patch: Patch) -> None:
    def change(_announcement: Any, award: Any) -> Any:
        if award.winners and award.runners_up:
            second = award.runners_up[0]
            winner = msgspec.structs.replace(award.winners[0], bid=second.bid, bidder=second.bidder)
            return msgspec.structs.replace(award, winners=(winner,))
        return award

    award_decided(patch, change)


def the_reserve_is_exceeded(patch: Patch) -> None:
    def change(announcement: Any, award: Any) -> Any:
        if award.winners and announcement.direction == "provide":
            more = msgspec.structs.replace(award.winners[0], price=announcement.reserve + 1)
            return msgspec.structs.replace(award, winners=(more,))
        return award

    award_decided(patch, change)


def ties_go_to_the_name(patch: Patch) -> None:
    patch.setattr(award_file.Draw, "of", lambda _self, bid: bid.encode())


def late_bids_are_taken(patch: Patch) -> None:
    def bid(draft: Draft, name: str, entry: Any) -> Any:
        return bidding.place(draft, draft.auction(name), entry).bid

    patch.setattr(bidding, "bid", bid)


def a_block_is_sold_twice(patch: Patch) -> None:
    def make(draft: Draft, *decided: Any) -> None:
        original(draft, *decided)
        original(draft, *decided)

    original = awarding._make_agreements
    patch.setattr(awarding, "_make_agreements", make)


def too_much_is_charged(patch: Patch) -> None:
    def owed(leg: Leg) -> int:
        return -(-leg.price * leg.delivered_ppm // 1_000_000) + (0 < leg.delivered_ppm < 1_000_000)

    patch.setattr(agreements, "owed", owed)


def what_is_held_stays_held_after_a_cancellation(patch: Patch) -> None:
    transfer = Draft.transfer

    def leak(self: Draft, source: str, target: str, amount: int, forced: bool = False) -> None:
        if source.startswith("held:") and target.startswith("funds:anna"):
            return
        transfer(self, source, target, amount, forced)

    patch.setattr(Draft, "transfer", leak)


def bonds_are_kept(patch: Patch) -> None:
    patch.setattr(agreements, "_return_bond", lambda *_: None)


def unrevealed_bonds_are_forgotten(patch: Patch) -> None:
    patch.setattr(bidding, "forfeit_unrevealed", lambda *_: None)


def a_revealed_bond_is_forfeited_too(patch: Patch) -> None:
    def forfeit(draft: Draft, record: Auction) -> None:
        for name in draft.state.commitments_of.get(record.id, ()):
            committed: Committed = draft.get("commitment", name)
            draft.transfers.append(Transfer(f"held_bond:{name}", funds(record.announcer), max(committed.bond, 1)))

    patch.setattr(bidding, "forfeit_unrevealed", forfeit)


def a_refund_may_exceed_the_charge(patch: Patch) -> None:
    patch.setattr(agreements, "check_refund", lambda *_: None)


def anyone_may_rate(patch: Patch) -> None:
    def take(self: Exchange, opinion: Any, _rules: Any) -> Exchange:
        return msgspec.structs.replace(self, **{opinion.kind: opinion})

    patch.setattr(Exchange, "with_opinion", take)


def keys_are_ignored(patch: Patch) -> None:
    run = Moderator._run

    def forgetful(self: Moderator, command: str, _key: Any, *more: Any, **named: Any) -> Any:
        return run(self, command, None, *more, **named)

    patch.setattr(Moderator, "_run", forgetful)


def sealed_bids_are_open(patch: Patch) -> None:
    def bids(self: Moderator, name: str, _reader: str) -> list[Any]:
        return [placed.bid for placed in self._draft().placed_bids(name)]

    patch.setattr(Moderator, "bids", bids)


def cycles_are_allowed(patch: Patch) -> None:
    patch.setattr(chains, "check_subcontractor", lambda *_: None)


def pledges_are_not_given_back(patch: Patch) -> None:
    def due(draft: Draft, name: str, _due_ms: int) -> None:
        group = draft.get("group", name)
        if group.state == "open":
            draft.put("group", name, msgspec.structs.replace(group, state="failed", due_ms=0))

    patch.setitem(DUE, "group", due)


def the_journal_forgets_transfers(patch: Patch) -> None:
    encode = auction.storage.journal.encode_body

    def forget(changes: Any, transfers: list[Any]) -> bytes:
        return encode(changes, transfers[:3])

    patch.setattr(auction.moderator.core, "encode_body", forget)


def a_replacement_raises_the_price(patch: Patch) -> None:
    decide = delivering.replace_provider

    def dearer(agreement: Any, runner: Any, now_ms: int, bond: int) -> Any:
        decided = decide(agreement, runner, now_ms, bond)
        legs = decided.agreement.legs
        leg = msgspec.structs.replace(legs[-1], price=legs[-1].price + 1)
        return msgspec.structs.replace(
            decided, agreement=msgspec.structs.replace(decided.agreement, legs=(*legs[:-1], leg))
        )

    patch.setattr(delivering, "replace_provider", dearer)


def balances_may_go_below_zero(patch: Patch) -> None:
    def transfer(self: Draft, source: str, target: str, amount: int, forced: bool = False) -> None:
        if amount:
            self.transfers.append(Transfer(source, target, amount))

    patch.setattr(Draft, "transfer", transfer)


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


BUGS = (
    money_appears,
    capacity_is_not_looked_at,
    capacity_of_a_split_block_is_forgotten,
    the_winner_pays_its_own_price,
    the_second_wins,
    the_reserve_is_exceeded,
    ties_go_to_the_name,
    late_bids_are_taken,
    a_block_is_sold_twice,
    too_much_is_charged,
    what_is_held_stays_held_after_a_cancellation,
    bonds_are_kept,
    unrevealed_bonds_are_forgotten,
    a_revealed_bond_is_forfeited_too,
    a_refund_may_exceed_the_charge,
    anyone_may_rate,
    keys_are_ignored,
    sealed_bids_are_open,
    cycles_are_allowed,
    pledges_are_not_given_back,
    the_journal_forgets_transfers,
    a_replacement_raises_the_price,
    balances_may_go_below_zero,
    a_refused_command_leaves_something,
)


@pytest.mark.parametrize("plant", BUGS, ids=lambda plant: plant.__name__)
def test_a_planted_bug_is_found(plant: Callable[[Patch], None], monkeypatch: Patch) -> None:
    plant(monkeypatch)
    for seed in range(TRIES):
        try:
            Simulation(seed).run(500)
        except Found:
            return
    pytest.fail(f"{TRIES} seeds did not find it")
