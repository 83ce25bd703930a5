"""Bids: who may bid and until when, what a bid holds, and bids that are first committed, then revealed.

`auction.formats` decides which bid wins, and what a single bid does in its format.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import msgspec

from auction.formats import format_of
from auction.formats.commit_reveal import Commitment, check_commitment, check_reveal
from auction.formats.format import Bidding, take_sealed
from auction.model.bid import QUANTITY_MAX, Announcement, Bid
from auction.model.block import check_capacity_left, most_of_units
from auction.model.errors import (
    BadValue,
    Exists,
    InsufficientFunds,
    LinkedParties,
    NotAllowed,
    Sealed,
    TooLate,
    WrongState,
)
from auction.model.ledger import NOBODY, held, held_bond
from auction.model.lifecycle import next_state
from auction.model.money import check_amount, check_integer
from auction.model.party import Signature
from auction.model.signing import bid_body, commitment_body
from auction.moderator.draft import Draft
from auction.moderator.records import SEQUENCES_OF_AN_ENTRY, Auction, Committed, PlacedBid
from auction.moderator.rules import admission, awarding, chains, holds, opinions, parties
from auction.moderator.state import State
from auction.moderator.terms import BidEntry

_NO_LINKS: Final[dict[str, str]] = {}
BIDDERS: Final = {"provide": frozenset({"provider"}), "receive": frozenset({"provider", "recipient"})}


def bid(draft: Draft, auction: str, entry: BidEntry) -> Bid:
    record = draft.auction(auction)
    announcement = record.announcement
    if record.state == "funding":
        raise WrongState(f"auction {auction} is not paid for yet")
    if record.state != "open" or draft.at_ms >= record.closes_ms:
        raise TooLate(f"auction {auction} closed before this bid arrived")
    if announcement.closing.reveal_until_ms is not None:
        raise WrongState("in this auction a bid must be committed first (see `commit`), then revealed")
    before: Bidding = draft.find("bidding", auction) or Bidding(closes_ms=record.closes_ms)
    if before.leader is not None and admission.why_excluded(draft, record, before.leader.bidder):
        before = _lead_again(draft, record, before)
    if before.leader is not None and before.leader.bidder == entry.bidder:
        awarding.free_lead(draft, record)  # the capacity of the former lead makes room for the new one
    placed = place(draft, record, entry)
    row = format_of(announcement)
    after = row.on_bid(announcement, before, placed.bid)
    if after is before and row.on_back_up is not None:
        row.on_back_up(announcement, _before(draft, record, placed.bid), placed.bid)
    if after is not before and after != before:
        draft.put("bidding", auction, after)
    if after.leader is not None and record.block is not None:
        _hold_lead(draft, record, after.leader.bidder)
    if after.closes_ms != record.closes_ms:
        moved = msgspec.structs.replace(
            record, closes_ms=after.closes_ms, due_ms=after.closes_ms, extensions=after.extensions
        )
        draft.put("auction", auction, moved)
    if after.ended:
        awarding.close(draft, draft.auction(auction))
    return placed.bid


def withdraw_bids(draft: Draft, record: Auction, bidders: Collection[str]) -> None:
    """Withdraws the bids of banned parties from an open auction: they hold nothing and cannot win, even if the ban is
    lifted before the close. In open bidding, the remaining bids decide who leads, and at what price."""
    gone = [one for one in draft.placed_bids(record.id) if one.bid.bidder in bidders and not one.withdrawn]
    for one in gone:
        release(draft, record.announcement, one)
        draft.put("bid", one.bid.bid, msgspec.structs.replace(one, held=0, withdrawn=True))
    before: Bidding | None = draft.find("bidding", record.id)
    if gone and before is not None and before.leader is not None:
        _lead_again(draft, record, before)


def _lead_again(draft: Draft, record: Auction, before: Bidding) -> Bidding:
    """The bidding that follows from the bids whose bidders could win. A close that was moved stays moved."""
    awarding.free_lead(draft, record)
    announcement = record.announcement
    placed = [one.bid for one in draft.placed_bids(record.id) if not one.withdrawn]
    out = {bid.bidder for bid in placed if admission.why_excluded(draft, record, bid.bidder)}
    while True:
        left = [bid for bid in placed if bid.bidder not in out]
        after = format_of(announcement).again(announcement, before, left)
        leader = after.leader.bidder if after.leader is not None else ""
        if not leader or record.block is None or draft.has_room(draft.party(leader), record.block):
            break
        out.add(leader)  # while it did not lead, its bid held no capacity, which has been promised since
    draft.put("bidding", record.id, after)
    if leader and record.block is not None:
        _hold_lead(draft, record, leader)
    return after


def _hold_lead(draft: Draft, record: Auction, leader: str) -> None:
    """Reserves the capacity that the leader of an open auction would need."""
    assert record.block is not None
    lead = msgspec.structs.replace(
        record.block, id=record.lead, provider=leader, parent=record.block.id, state="offered"
    )
    draft.put("block", lead.id, lead)


def place(draft: Draft, record: Auction, entry: BidEntry, deposit: int | None = None) -> PlacedBid:
    """Checks a bid and places its hold, whether it is placed directly or revealed. The hold of the bidder's former bid
    for the same is released. `deposit` is what its commitment held."""
    bidder, announcement = entry.bidder, record.announcement
    former = _former(draft, record, entry)
    if former is not None:
        release(draft, announcement, former)
    check_bidder(draft, record, bidder, entry.quantity)
    name = draft.new_id("bid")
    bid = Bid(
        bid=name,
        auction=record.id,
        bidder=bidder,
        price=entry.price,
        currency=announcement.currency,
        sequence=draft.sequence * SEQUENCES_OF_AN_ENTRY + len(draft.changes),
        placed_ms=draft.at_ms,
        quantity=entry.quantity,
        items=entry.items,
        limit=entry.limit,
        salt=entry.salt,
        registered=draft.party(bidder).registered,
        insured=entry.insured,
    )
    signature = b""
    if entry.signature is not None or draft.config.signatures:
        signed = parties.check_signature(draft, "bid", record.id, bidder, bid_body(bid), entry.signature)
        signature = signed.signature if signed else b""
    amount = holds.of_bid(draft, announcement, entry)
    if deposit is not None and announcement.direction == "receive" and amount > deposit:
        raise BadValue("a bid cannot be higher than its commitment's deposit")
    holds.hold_bid(draft, announcement, name, bidder, amount)
    rating = opinions.rating_at(draft, record, bidder) if announcement.weighs_ratings else None
    placed = PlacedBid(bid, rating, signature, amount, entry.arbiter)
    draft.put("bid", name, placed)
    return placed


def _before(draft: Draft, record: Auction, bid: Bid) -> Bid | None:
    """What the same bidder has bid before this bid and not withdrawn."""
    if not _has_bid(draft, record, bid.bidder):
        return None
    own = [one.bid for one in draft.placed_bids(record.id) if one.bid.bidder == bid.bidder and not one.withdrawn]
    return own[-2] if len(own) > 1 else None


def _former(draft: Draft, record: Auction, entry: BidEntry) -> PlacedBid | None:
    """The bidder's earlier bid that a new one replaces, if it holds anything."""
    if not _has_bid(draft, record, entry.bidder):
        return None
    for one in draft.placed_bids(record.id):
        if one.held and one.bid.bidder == entry.bidder and set(one.bid.items) == set(entry.items):
            return one
    return None


def release(draft: Draft, announcement: Announcement, placed: PlacedBid) -> None:
    """Releases the hold of a bid that can no longer win."""
    if placed.held:
        holds.let_bid_go(draft, announcement, placed.bid.bid, placed.bid.bidder, placed.held)
        draft.put("bid", placed.bid.bid, msgspec.structs.replace(placed, held=0))


def check_bidder(draft: Draft, record: Auction, bidder: str, quantity: int = 1) -> None:
    """Checks that this party may bid for that many units. A commitment hides its quantity: it is checked for one unit
    now, and for its real quantity when it is revealed."""
    announcement = record.announcement
    party = draft.party(bidder)
    if party.kind not in BIDDERS[announcement.direction]:
        raise NotAllowed(f"{bidder} is a {party.kind}, and cannot bid to {announcement.direction}")
    admission.check_not_barred(draft, bidder)
    if announcement.receipts and not party.public_key:
        raise NotAllowed(f"auction {record.id} requires receipts, and {bidder} has no key to sign them with")
    _check_links(draft, record, bidder)
    row = format_of(announcement)
    admission.check_bidder(draft, record, party, decides_at_once=row.on_bid is not take_sealed)
    if announcement.direction == "provide":
        _check_newcomer(draft, record, bidder)
    if record.block is not None:
        units = row.units(announcement, check_integer(quantity, "quantity", 1, QUANTITY_MAX))
        asked = most_of_units(record.block, units, announcement.quantity)
        if not draft.has_room(party, asked):
            check_capacity_left(party.capacity_bps, draft.committed_peak(bidder, asked), asked, bidder)
    if record.prime:
        chains.check_allowed(draft, record, bidder)


def _check_newcomer(draft: Draft, record: Auction, bidder: str) -> None:
    """Raises InsufficientFunds for a newcomer that cannot secure what every newcomer must."""
    needed, free = holds.newcomers_balance(draft, record.announcement), holds.secured_by(draft, bidder)
    if free >= needed or free + _held_of(draft, record, bidder) >= needed:
        return
    if opinions.rating_at(draft, record, bidder).newcomer:
        raise InsufficientFunds(f"a newcomer needs a bond and balance of at least {needed} to bid here")


def _has_bid(draft: Draft, record: Auction, bidder: str) -> bool:
    """Whether it has, before this command: its own name is among its interests."""
    return draft.state.links_of.get(record.id, _NO_LINKS).get(bidder) == bidder


def _held_of(draft: Draft, record: Auction, bidder: str) -> int:
    """What the bidder's other bids in this auction hold."""
    if not _has_bid(draft, record, bidder):
        return 0
    return sum(one.held for one in draft.placed_bids(record.id) if one.bid.bidder == bidder)


def _check_links(draft: Draft, record: Auction, bidder: str) -> None:
    """Refuses bids in one's own auction, and against oneself under another name."""
    state = draft.state
    interests = state.interests[bidder]
    if not interests.isdisjoint(state.interests[record.announcer]):
        raise LinkedParties(f"{bidder} is linked to {record.announcer}, who announced the auction")
    before = state.links_of.get(record.id)
    if before is None:
        return
    for name in interests:
        other = before.get(name, bidder)
        if other != bidder:
            raise LinkedParties(f"{bidder} is linked to {other}, who has bid already")


def took_part(state: State, record: Auction) -> set[str]:
    """The parties that may learn the prices of an auction once it is over: the announcer, and whoever bid, committed or
    offered. They need the whole award to check it; others only learn who won."""
    award = awarding.find_award(state, record)
    names = {record.announcer, *(winning.bidder for winning in record.winners)}
    names |= {placed.bid.bidder for placed in state.bids_in(record.id)}
    names |= {state.records["commitment"][one].commitment.bidder for one in state.commitments_of.get(record.id, ())}
    return names | {standing.bidder for standing in award.standings} if award is not None else names


def bids_shown_to(draft: Draft, auction: str, reader: str) -> list[Bid]:
    """The bids that the reader may see by the format. Raises Sealed if there are bids and this reader may see none."""
    record = draft.auction(auction)
    is_over = record.state not in ("open", "funding")
    shows, may_see = format_of(record.announcement).shows, is_over and reader in took_part(draft.state, record)
    placed = draft.placed_bids(auction)
    shown = [bid for one in placed if (bid := shows(one.bid, reader, may_see)) is not None]
    if placed and not shown:
        until = "for everyone who took no part in it" if is_over else "until its close"
        raise Sealed(f"the bids of auction {auction} are sealed {until}")
    return shown


def rated_bids(draft: Draft, record: Auction) -> list[PlacedBid]:
    """The bids of an auction with the ratings shown at its announcement."""
    placed = draft.placed_bids(record.id)
    return [
        one if one.rating is not None else PlacedBid(one.bid, opinions.rating_at(draft, record, one.bid.bidder))
        for one in placed
    ]


def commit(
    draft: Draft, auction: str, bidder: str, commitment: str, deposit: int, signature: Signature | None
) -> Commitment:
    record = draft.auction(auction)
    next_state(record.state, "commit")
    check_amount(deposit, "deposit")
    new = Commitment(
        auction=auction,
        bidder=bidder,
        commitment=commitment,
        sequence=draft.sequence,
        placed_ms=draft.at_ms,
    )
    names = draft.state.commitments_of.get(auction, ())
    handed_in = [draft.get("commitment", name).commitment for name in names]
    check_commitment(record.announcement, handed_in, new)
    check_bidder(draft, record, bidder)
    body = commitment_body(commitment, deposit)
    parties.check_signature(draft, "commitment", auction, bidder, body, signature)
    name = f"{auction}/{bidder}"
    amount = holds.of_commitment(record.announcement, deposit)
    holds.hold_bid(draft, record.announcement, name, bidder, amount)
    draft.add("commitment", name, Committed(id=name, commitment=new, held=amount, deposit=deposit))
    return new


def reveal(draft: Draft, auction: str, entry: BidEntry) -> Bid:
    record = draft.auction(auction)
    committed: Committed = draft.get("commitment", f"{auction}/{entry.bidder}")
    if record.state != "open":
        raise TooLate(f"auction {auction} is {record.state}: the time for revealing is over")
    if committed.revealed:
        raise Exists(f"{entry.bidder} has revealed its bid already")
    if committed.withdrawn:
        raise WrongState(f"the commitment of {entry.bidder} was withdrawn when it was banned")
    holds.let_bid_go(draft, record.announcement, committed.id, entry.bidder, committed.held)
    placed = place(draft, record, entry, committed.held)
    check_reveal(record.announcement, committed.commitment, placed.bid, record.due_ms)
    # A revealed bid takes its commitment's place in the order.
    sequence = committed.commitment.sequence * SEQUENCES_OF_AN_ENTRY
    bid = msgspec.structs.replace(placed.bid, sequence=sequence)
    draft.put("bid", bid.bid, msgspec.structs.replace(placed, bid=bid))
    draft.put("commitment", committed.id, msgspec.structs.replace(committed, revealed=bid.bid, held=0))
    return bid


def forfeit_unrevealed(draft: Draft, record: Auction) -> None:
    """The hold of an unrevealed commitment goes to nobody."""
    account = held_bond if record.announcement.direction == "provide" else held
    for name in draft.state.commitments_of.get(record.id, ()):
        committed: Committed = draft.get("commitment", name)
        if committed.is_live:
            draft.transfer(account(name), NOBODY, committed.held)
            draft.put("commitment", name, msgspec.structs.replace(committed, forfeited=True, held=0))
