"""A whole auction at once. The bids are taken and decided as columns.

What a single bidder must fulfil is said in `bidding`; here it is only seen quickly that all of them do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from auction.formats import format_of
from auction.model.agreement import Runner
from auction.model.block import Block
from auction.model.errors import BadValue
from auction.model.ledger import bond
from auction.model.money import AMOUNT_MAX
from auction.model.signing import bid_body
from auction.moderator.draft import Draft
from auction.moderator.records import SEQUENCES_OF_AN_ENTRY, Auction, BidSheet
from auction.moderator.rules import agreements, announcing, awarding, bidding, parties, standing
from auction.moderator.terms import AuctionTerms, BidEntry, Held

_ONLY_INTEGERS: Final = {int}


def hold(
    draft: Draft, announcer: str, block: Block | str, terms: AuctionTerms, entries: Sequence[BidEntry], auction: str
) -> Held:
    record = announcing.announce(draft, announcer, block, terms, auction, "")
    bidders = [entry.bidder for entry in entries]
    if len(bidders) >= SEQUENCES_OF_AN_ENTRY:
        raise BadValue(f"at most {SEQUENCES_OF_AN_ENTRY - 1} bids come in one command")
    if not _plainly_may_bid(draft, record, bidders):
        for bidder in bidders:
            bidding.check_bidder(draft, record, bidder)
    sheet = _sheet(draft, record, entries, bidders)
    draft.put("sheet", record.id, sheet)
    closed = _close_by_price(draft, record, sheet) or _close(draft, record, sheet)
    made = awarding.agreements_made(draft)
    for name in made:
        agreements.agree(draft, name)
    return Held(record.id, closed.state, tuple(made))


def _close_by_price(draft: Draft, record: Auction, sheet: BidSheet) -> Auction | None:
    """Closes from the columns alone, where the format can; the award then follows from the sheet. This is what the
    columns are for: without them an auction of 10 bids takes 1.9 times as long, one of 100 bids 4.9 times."""
    by_price = format_of(record.announcement).by_price
    if by_price is None or sheet.entries:
        return None
    decided = by_price(record.announcement, sheet.name_of, sheet.bidders, sheet.prices)
    if decided is None:
        return None
    winners, ranked = decided
    armed = ranked[1 : 1 + draft.config.runners_up_max] if record.block is not None else ()
    runners = tuple([Runner(sheet.bidders[i], sheet.name_of(i), sheet.prices[i]) for i in armed])
    return awarding.conclude(draft, record, winners, (runners,))


def _close(draft: Draft, record: Auction, sheet: BidSheet) -> Auction:
    bids = sheet.bids()
    for bid, signature in zip(bids, sheet.signatures(), strict=True):
        if signature is not None or draft.config.signatures:
            parties.check_signature(draft, "bid", record.id, bid.bidder, bid_body(bid), signature)
    return awarding.take(draft, record, awarding.decide(record, bids, sheet.rating_of()), bids, ())


def _sheet(draft: Draft, record: Auction, entries: Sequence[BidEntry], bidders: Sequence[str]) -> BidSheet:
    """The bids as columns. Ratings are written down where they weigh; elsewhere the history shows them."""
    announcement = record.announcement
    prices = [entry.price for entry in entries]
    is_plain = not draft.config.signatures and all(map(_says_only_a_price, entries))
    is_plain = is_plain and (not prices or (set(map(type, prices)) == _ONLY_INTEGERS and min(prices) >= 0))
    is_plain = is_plain and (not prices or max(prices) <= AMOUNT_MAX)
    weighs = announcement.quality.opinion or announcement.quality.evidence or announcement.newcomer_share_ppm
    return BidSheet(
        auction=record.id,
        sequence=draft.sequence,
        placed_ms=draft.at_ms,
        currency=announcement.currency,
        bidders=tuple(bidders),
        prices=tuple(prices),
        ratings=tuple([standing.rating_at(draft, record, bidder) for bidder in bidders]) if weighs else (),
        entries=() if is_plain else tuple(entries),
    )


def _plainly_may_bid(draft: Draft, record: Auction, bidders: Sequence[str]) -> bool:
    """Whether it is plain that `bidding.check_bidder` would refuse none of them. False says nothing."""
    state, announcement = draft.state, record.announcement
    if not state.linked.isdisjoint(bidders) or len({record.announcer, *bidders}) <= len(bidders):
        return False
    registered, timelines = state.records["party"], state.timelines
    kinds = bidding.BIDDERS[announcement.direction]
    block = record.block if announcement.quantity == 1 else None
    rate_bps = block.committed_bps if block is not None else 0
    asks_bond = announcement.bond or (announcement.direction == "provide" and draft.config.rating.newcomer_bond)
    service = announcement.service
    known_ratings = state.reputation.latest(service, draft.at_ms)
    for bidder in bidders:
        party = registered.get(bidder)
        if party is None or party.kind not in kinds:
            return False
        if block is not None:
            timeline = timelines.get(bidder)
            promised_bps = 0 if timeline is None else timeline.highest_bps
            if promised_bps + rate_bps > party.capacity_bps:
                return False
        if asks_bond:
            rating = state.reputation.latest_of(known_ratings, bidder, service, draft.at_ms)
            needed = standing.bond_needed(draft, record, rating)
            if needed and draft.balance(bond(bidder)) < needed:
                return False
    return True


def _says_only_a_price(entry: BidEntry) -> bool:
    return (
        entry.quantity == 1
        and type(entry.quantity) is int
        and entry.signature is None
        and entry.limit is None
        and entry.items == ()
        and entry.salt == ""
    )
