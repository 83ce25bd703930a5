"""Bids: who may bid, when it is too late, and what a bid moves. The formats decide who wins."""

from __future__ import annotations

from typing import Final

import msgspec

from auction.formats.dutch import ramp_price
from auction.formats.open_bidding import OpenState, begin, step
from auction.model.bid import Bid, ShownRating
from auction.model.block import check_capacity_left
from auction.model.errors import BadValue, InsufficientFunds, LinkedParties, NotAllowed, TooLate, WrongState
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
    if announcement.format == "open":
        _bid_openly(draft, record, placed.bid)
    elif announcement.format == "dutch":
        _accept(draft, record, placed.bid)
    else:
        _extend(draft, record)
    return placed.bid


def _bid_openly(draft: Draft, record: Auction, bid: Bid) -> None:
    """The bidding takes one step, which may move the close; raises BadValue for a bid that is not good enough."""
    bidding: OpenState = draft.find("bidding", record.id) or begin(record.announcement)
    stepped = step(record.announcement, bidding, bid)
    draft.put("bidding", record.id, stepped)
    if stepped.closes_ms != record.closes_ms:
        moved = msgspec.structs.replace(
            record, closes_ms=stepped.closes_ms, due_ms=stepped.closes_ms, extensions=stepped.extensions
        )
        draft.put("auction", record.id, moved)


def _accept(draft: Draft, record: Auction, bid: Bid) -> None:
    """The first who accepts the ramp's price ends the auction at once."""
    price, sign = ramp_price(record.announcement, bid.placed_ms), record.announcement.sign
    if sign * bid.price < sign * price:
        raise BadValue(f"the ramp stands at {price} and has not come to {bid.price}")
    awarding.close(draft, record)


def _extend(draft: Draft, record: Auction) -> None:
    """The soft close: a bid near the end moves it."""
    closing = record.announcement.closing
    if not closing.extend_within_ms or record.extensions >= closing.extend_times_max:
        return
    if draft.at_ms < record.closes_ms - closing.extend_within_ms:
        return
    closes_ms = max(record.closes_ms, draft.at_ms + closing.extend_by_ms)
    if closes_ms != record.closes_ms:
        changed = msgspec.structs.replace(
            record, closes_ms=closes_ms, due_ms=closes_ms, extensions=record.extensions + 1
        )
        draft.put("auction", record.id, changed)


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


def rated_bids(draft: Draft, record: Auction) -> list[PlacedBid]:
    """The bids of an auction with the ratings that every bidder of it was shown."""
    placed = draft.placed_bids(record.id)
    return [
        one if one.rating is not None else PlacedBid(one.bid, standing.rating_at(draft, record, one.bid.bidder))
        for one in placed
    ]
