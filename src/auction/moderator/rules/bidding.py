"""Bids: who may bid, when it is too late, and what a bid moves. The formats decide who wins."""

from __future__ import annotations

from typing import Final

import msgspec

from auction.formats import format_of
from auction.formats.format import Bidding
from auction.model.bid import Bid, ShownRating
from auction.model.block import check_capacity_left
from auction.model.errors import InsufficientFunds, LinkedParties, NotAllowed, Sealed, TooLate, WrongState
from auction.model.ledger import bond
from auction.model.signing import bid_body
from auction.moderator.draft import Draft
from auction.moderator.records import SEQUENCES_OF_AN_ENTRY, Auction, PlacedBid
from auction.moderator.rules import awarding, chains, parties, standing
from auction.moderator.terms import BidEntry

_NO_LINKS: Final[dict[str, str]] = {}
BIDDERS: Final = {"provide": frozenset({"provider"}), "receive": frozenset({"provider", "recipient"})}


def bid(draft: Draft, auction: str, entry: BidEntry) -> Bid:
    record = draft.auction(auction)
    announcement = record.announcement
    if record.state != "open" or draft.at_ms >= record.closes_ms:
        raise TooLate(f"auction {auction} was closed before this bid came")
    if announcement.closing.reveal_until_ms is not None:
        raise WrongState("in this auction bids are committed first (see `commit`), then revealed")
    placed = place(draft, record, entry)
    before: Bidding = draft.find("bidding", auction) or Bidding(closes_ms=record.closes_ms)
    after = format_of(announcement).on_bid(announcement, before, placed.bid)
    if after != before:
        draft.put("bidding", auction, after)
    if after.closes_ms != record.closes_ms:
        moved = msgspec.structs.replace(
            record, closes_ms=after.closes_ms, due_ms=after.closes_ms, extensions=after.extensions
        )
        draft.put("auction", auction, moved)
    if after.ended:
        awarding.close(draft, record)
    return placed.bid


def place(draft: Draft, record: Auction, entry: BidEntry) -> PlacedBid:
    """What a bid has to fulfil, whether it is placed at once or revealed after its commitment."""
    bidder = entry.bidder
    rating = check_bidder(draft, record, bidder)
    name = draft.new_id("bid")
    bid = Bid(
        bid=name,
        auction=record.id,
        bidder=bidder,
        price=entry.price,
        currency=record.announcement.currency,
        sequence=draft.sequence * SEQUENCES_OF_AN_ENTRY + len(draft.changes),
        placed_ms=draft.at_ms,
        quantity=entry.quantity,
        items=entry.items,
        limit=entry.limit,
        salt=entry.salt,
    )
    signature = b""
    if entry.signature is not None or draft.config.signatures:
        signed = parties.check_signature(draft, "bid", record.id, bidder, bid_body(bid), entry.signature)
        signature = signed.signature if signed else b""
    placed = PlacedBid(bid, rating, signature)
    draft.put("bid", name, placed)
    return placed


def check_bidder(draft: Draft, record: Auction, bidder: str) -> ShownRating:
    """Whether this party may bid; returns the rating that counts for it."""
    announcement = record.announcement
    party = draft.party(bidder)
    if party.kind not in BIDDERS[announcement.direction]:
        raise NotAllowed(f"{bidder} is a {party.kind}, and cannot bid to {announcement.direction}")
    _check_links(draft, record, bidder)
    rating = standing.rating_at(draft, record, bidder)
    needed_bond = standing.bond_needed(draft, record, rating)
    if needed_bond and draft.balance(bond(bidder)) < needed_bond:
        raise InsufficientFunds(f"a bid needs a free bond of {needed_bond}")
    if record.block is not None and announcement.quantity == 1:
        check_capacity_left(party.capacity_bps, draft.committed_peak(bidder, record.block), record.block, bidder)
    if record.prime:
        chains.check_allowed(draft, record, bidder)
    return rating


def _check_links(draft: Draft, record: Auction, bidder: str) -> None:
    """Nobody bids in its own auction, or against itself under two names."""
    state, auction = draft.state, record.id
    interests = state.interests[bidder]
    if not interests.isdisjoint(state.interests[record.announcer]):
        raise LinkedParties(f"{bidder} is linked to {record.announcer}, who announced the auction")
    before = state.links_of.get(auction, _NO_LINKS)
    now = draft.links
    for name in interests:
        other = before.get(name) or now.get((auction, name))
        if other is not None and other != bidder:
            raise LinkedParties(f"{bidder} is linked to {other}, who has bid already")
        now[auction, name] = bidder


def bids_shown_to(draft: Draft, auction: str, reader: str) -> list[Bid]:
    """The bids that the reader may see by the format. Raises Sealed if there are some, and none for this reader."""
    record = draft.auction(auction)
    shows, is_over = format_of(record.announcement).shows, record.state != "open"
    placed = draft.placed_bids(auction)
    shown = [bid for one in placed if (bid := shows(one.bid, reader, is_over)) is not None]
    if placed and not shown:
        raise Sealed(f"the bids of auction {auction} are sealed until its close")
    return shown


def rated_bids(draft: Draft, record: Auction) -> list[PlacedBid]:
    """The bids of an auction with the ratings that every bidder of it was shown."""
    placed = draft.placed_bids(record.id)
    return [
        one if one.rating is not None else PlacedBid(one.bid, standing.rating_at(draft, record, one.bid.bidder))
        for one in placed
    ]
