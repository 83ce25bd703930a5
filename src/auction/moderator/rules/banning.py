"""The operator's ban: a party and those linked to it can begin nothing new. Their agreements go on."""

from __future__ import annotations

import msgspec

from auction.model.lifecycle import next_state
from auction.model.party import Party
from auction.moderator.draft import Draft
from auction.moderator.records import Auction, Committed
from auction.moderator.rules import announcing, at_once, awarding, bidding, groups, holds, parties


def ban(draft: Draft, party: str) -> Party:
    """Makes its open auctions void and releases their holds; ends its offers, bids and commitments, which forfeit
    nothing."""
    record = parties.check_organisation(draft, party)
    if record.banned_sequence:
        return record
    banned = msgspec.structs.replace(record, banned_sequence=draft.sequence)
    draft.put("party", party, banned)
    state = draft.state
    names = {name for interest in state.interests[party] for name in state.sharing[interest]}
    for auction in sorted({name for _, kind, name in state.due if kind == "auction"}):
        announced = draft.auction(auction)
        if announced.state not in ("open", "funding"):
            continue
        if announced.announcer in names:
            call_off(draft, announced)
            continue
        bidding.withdraw_bids(draft, announced, names)
        for name in sorted(names):
            _let_commitment_go(draft, announced, f"{auction}/{name}")
    for offers in state.offers_of.values():
        for offer in list(offers.values()):
            if offer.provider in names:
                at_once.withdraw_offer(draft, offer.offer, offer.provider)
    return banned


def lift(draft: Draft, party: str) -> Party:
    record = draft.party(party)
    if not record.banned_sequence:
        return record
    lifted = msgspec.structs.replace(record, banned_sequence=0)
    draft.put("party", party, lifted)
    return lifted


def call_off(draft: Draft, record: Auction) -> None:
    """Makes an auction with bids void, and releases all holds."""
    announcement = record.announcement
    awarding.free_lead(draft, record)
    for placed in draft.placed_bids(record.id):
        bidding.release(draft, announcement, placed)
    for name in draft.state.commitments_of.get(record.id, ()):
        _let_commitment_go(draft, record, name)
    announcing.make_void(draft, record, next_state(record.state, "ban"))
    if record.group:
        groups.give_back(draft, record.group)


def _let_commitment_go(draft: Draft, record: Auction, name: str) -> None:
    committed: Committed | None = draft.find("commitment", name)
    if committed is not None and committed.is_live:
        holds.let_bid_go(draft, record.announcement, name, committed.commitment.bidder, committed.held)
        draft.put("commitment", name, msgspec.structs.replace(committed, held=0, withdrawn=True))
