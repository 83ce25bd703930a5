"""Commit and reveal: the commitments, and the bonds of who does not reveal.

What a commitment binds to stands in `formats.commit_reveal`.
"""

from __future__ import annotations

import msgspec

from auction.formats.commit_reveal import Commitment, check_commitment, check_reveal
from auction.model.bid import Bid
from auction.model.errors import Exists, TooLate
from auction.model.ledger import bond, funds, held_bond
from auction.model.party import Signature
from auction.model.signing import commitment_body
from auction.moderator.draft import Draft
from auction.moderator.records import SEQUENCES_OF_AN_ENTRY, Auction, Committed
from auction.moderator.rules import bidding, parties, standing
from auction.moderator.terms import BidEntry


def commit(draft: Draft, auction: str, bidder: str, commitment: str, signature: Signature | None) -> Commitment:
    record = draft.auction(auction)
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
    rating = bidding.check_bidder(draft, record, bidder)
    parties.check_signature(draft, "commitment", auction, bidder, commitment_body(commitment), signature)
    name = f"{auction}/{bidder}"
    amount = standing.bond_needed(draft, record, rating)
    draft.transfer(bond(bidder), held_bond(name), amount)
    draft.add("commitment", name, Committed(id=name, commitment=new, bond=amount))
    return new


def reveal(draft: Draft, auction: str, entry: BidEntry) -> Bid:
    record = draft.auction(auction)
    committed: Committed = draft.get("commitment", f"{auction}/{entry.bidder}")
    if record.state != "open":
        raise TooLate(f"auction {auction} is {record.state}: the time for revealing is over")
    if committed.revealed:
        raise Exists(f"{entry.bidder} has revealed its bid already")
    draft.transfer(held_bond(committed.id), bond(entry.bidder), committed.bond)
    placed = bidding.place(draft, record, entry)
    check_reveal(record.announcement, committed.commitment, placed.bid)
    # A revealed bid stands where its commitment stood.
    sequence = committed.commitment.sequence * SEQUENCES_OF_AN_ENTRY
    bid = msgspec.structs.replace(placed.bid, sequence=sequence)
    draft.put("bid", bid.bid, msgspec.structs.replace(placed, bid=bid))
    draft.put("commitment", committed.id, msgspec.structs.replace(committed, revealed=bid.bid))
    return bid


def forfeit_unrevealed(draft: Draft, record: Auction) -> None:
    """The bond of who did not reveal goes to the announcer, who was kept from a better award."""
    for name in draft.state.commitments_of.get(record.id, ()):
        committed: Committed = draft.get("commitment", name)
        if not committed.revealed and not committed.forfeited:
            draft.transfer(held_bond(name), funds(record.announcer), committed.bond)
            draft.put("commitment", name, msgspec.structs.replace(committed, forfeited=True))
