"""Closing an auction: who cannot win any more, the award by the format's rule, and the agreements that come of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from auction.formats import award as decide_award
from auction.formats import format_of
from auction.formats.spot import award_ranked
from auction.model.agreement import Agreement, Runner, next_state
from auction.model.award import Award, Winning
from auction.model.bid import Announcement, Bid, Ratings, ShownRating
from auction.model.block import Block, most_of_units, units_of
from auction.model.errors import WrongState
from auction.model.ledger import bond, held_bond
from auction.moderator.draft import Draft
from auction.moderator.records import SEQUENCES_OF_AN_ENTRY, Auction, OfferSheet, PlacedBid
from auction.moderator.rules import chains, opinions
from auction.moderator.state import State


def close(draft: Draft, record: Auction) -> Auction:
    """Awards, and makes the agreements; or fails, and frees the block."""
    placed = draft.placed_bids(record.id)
    bids: list[Bid] = []
    excluded: list[tuple[str, str]] = []
    this_entry = draft.sequence * SEQUENCES_OF_AN_ENTRY
    for one in placed:
        if one.bid.sequence >= this_entry:  # placed by this very command, and checked a moment ago
            bids.append(one.bid)
            continue
        why = _why_excluded(draft, record, one)
        if why:
            excluded.append((one.bid.bid, why))
        else:
            bids.append(one.bid)
    return take(draft, record, decide(record, bids, ratings_of(placed)), bids, tuple(excluded))


def decide(record: Auction, bids: Sequence[Bid], ratings: Ratings) -> Award:
    return decide_award(record.announcement, bids, ratings, bytes.fromhex(record.seed))


def ratings_of(placed: Iterable[PlacedBid]) -> dict[str, ShownRating]:
    """The ratings that weigh, by bidder."""
    return {one.bid.bidder: one.rating for one in placed if one.rating is not None}


def take(
    draft: Draft, record: Auction, award: Award, bids: Sequence[Bid], excluded: tuple[tuple[str, str], ...]
) -> Auction:
    """Writes an award down, and makes its agreements, each with the runners-up that stand by for it."""
    draft.put("award", record.id, award)
    runners = [
        _runners_up(record, award, winning, bids, draft.config.runners_up_max) if record.block is not None else ()
        for winning in award.winners
    ]
    return conclude(draft, record, award.winners, runners, excluded)


def conclude(
    draft: Draft,
    record: Auction,
    winners: tuple[Winning, ...],
    runners: Sequence[tuple[Runner, ...]],
    excluded: tuple[tuple[str, str], ...] = (),
) -> Auction:
    """Closes an auction with these winners, and makes an agreement with each; `runners` stand by for each. Without
    winners it has failed, and its block is free again."""
    closed = msgspec.structs.replace(
        record,
        state=next_state(record.state, "close" if winners else "fail"),
        winners=winners,
        excluded=excluded,
        due_ms=0,
        closed_sequence=draft.sequence,
    )
    draft.put("auction", record.id, closed)
    if winners:
        _make_agreements(draft, closed, runners)
    elif record.block is None:
        _free_block(draft, record)
    return closed


def _runners_up(record: Auction, award: Award, winning: Winning, bids: Sequence[Bid], count: int) -> tuple[Runner, ...]:
    """The first losing bids that were for what this winner got, at their own price for it."""
    stands_by_at = format_of(record.announcement).runner_up
    bid_of = {bid.bid: bid for bid in bids}
    runners: list[Runner] = []
    for loser in award.runners_up:
        if len(runners) >= count:
            break
        price = stands_by_at(winning, bid_of[loser.bid], loser)
        if price is not None:
            runners.append(Runner(loser.bidder, loser.bid, price))
    return tuple(runners)


def find_award(state: State, record: Auction) -> Award | None:
    """The whole award of an auction, or None while there is none. Where it is not written down it follows from what
    is: of an auction among standing offers from their order, of one that was held at once from its bids."""
    if record.state not in ("awarded", "failed"):
        return None
    award: Award | None = state.records["award"].get(record.id)
    if award is not None:
        return award
    offers: OfferSheet | None = state.records["offer_sheet"].get(record.id)
    if offers is not None:
        return award_ranked(record.announcement, offers.ranked(), bytes.fromhex(record.seed))
    placed = state.bids_in(record.id)
    return decide(record, [one.bid for one in placed], ratings_of(placed))


def award_of(draft: Draft, auction: str) -> Award:
    """The award of an auction that is closed."""
    record = draft.auction(auction)
    if record.state == "open":
        raise WrongState(f"auction {auction} is open until {record.closes_ms}, it is {draft.at_ms}")
    award = find_award(draft.state, record)
    if award is None:
        raise WrongState(f"auction {auction} has no award")
    return award


def agreements_made(draft: Draft) -> list[str]:
    """The names of the agreements that this very command has made."""
    return [name for kind, name in draft.changes if kind == "agreement"]


def _why_excluded(draft: Draft, record: Auction, placed: PlacedBid) -> str:
    """What a bidder has lost since it bid: its capacity went elsewhere, or its bond; or it has come into the chain, as
    who took the prime over."""
    bidder = placed.bid.bidder
    if record.prime and not chains.is_allowed(draft, record.prime, bidder):
        return "chain"
    needed = opinions.bond_needed(draft, record, placed.rating)
    if needed and draft.balance(bond(bidder)) < needed:
        return "bond"
    if record.block is not None:
        units = format_of(record.announcement).units(record.announcement, placed.bid.quantity)
        asked = most_of_units(record.block, units, record.announcement.quantity)
        peak = draft.committed_peak(bidder, asked)
        if peak + asked.committed_bps > draft.party(bidder).capacity_bps:
            return "capacity"
    return ""


def _free_block(draft: Draft, record: Auction) -> None:
    block = draft.block(record.announcement.block)
    is_providers = block.holder in ("", block.provider)
    draft.put("block", block.id, msgspec.structs.replace(block, state="free" if is_providers else "sold"))


def _make_agreements(draft: Draft, record: Auction, runners: Sequence[tuple[Runner, ...]]) -> None:
    announcement = record.announcement
    is_providing = announcement.direction == "provide"
    blocks = _awarded_blocks(draft, record)
    for winning, block, stand_by in zip(record.winners, blocks, runners, strict=True):
        name = draft.new_id("agreement")
        provider = winning.bidder if is_providing else record.announcer
        recipient = record.announcer if is_providing else winning.bidder
        needed_bond = opinions.bond_needed(draft, record, opinions.rating_at(draft, record, winning.bidder))
        draft.transfer(bond(winning.bidder), held_bond(name), needed_bond)
        agreement = Agreement(
            id=name,
            auction=record.id,
            recipient=recipient,
            provider=provider,
            service=announcement.service,
            block=block.id,
            price=winning.price,
            currency=announcement.currency,
            starts_ms=block.starts_ms,
            ends_ms=block.ends_ms,
            runners_up=stand_by,
            bond=needed_bond,
            bond_of=winning.bidder if needed_bond else "",
            method=record.method,
            source=record.source,
            prime=record.prime,
            depth=draft.agreement(record.prime).depth + 1 if record.prime else 0,
            minimum_bps=block.minimum_bps,
            maximum_bps=block.maximum_bps,
            availability_ppm=block.availability_ppm,
            latency_ms_max=block.latency_ms_max,
        )
        draft.put("agreement", name, agreement)


def _awarded_blocks(draft: Draft, record: Auction) -> list[Block]:
    """A block for each winner: the whole, or its part where units were sold."""
    announcement = record.announcement
    is_providing = record.block is not None
    whole = record.block or draft.block(announcement.block)
    blocks: list[Block] = []
    before = 0
    for number, winning in enumerate(record.winners):
        block = whole
        if len(record.winners) > 1 or winning.quantity != announcement.quantity:
            name = f"{whole.id}.{number + 1}"
            if winning.items:
                block = units_of(whole, 0, 1, 1, name)
            else:
                block = units_of(whole, before, winning.quantity, announcement.quantity, name)
                before += winning.quantity
        if winning.items:
            block = msgspec.structs.replace(block, attributes={**block.attributes, "items": ",".join(winning.items)})
        if is_providing:
            block = msgspec.structs.replace(block, provider=winning.bidder, holder=record.announcer, state="sold")
        else:
            block = msgspec.structs.replace(block, holder=winning.bidder, state="sold")
        blocks.append(block)
    if not is_providing and blocks != [] and blocks[0].id != whole.id:
        draft.put("block", whole.id, msgspec.structs.replace(whole, state="split"))
        _keep_rest(draft, whole, record.winners, announcement)
    for block in blocks:
        draft.put("block", block.id, block)
    return blocks


def _keep_rest(draft: Draft, whole: Block, winners: tuple[Winning, ...], announcement: Announcement) -> None:
    """The units that nobody bought stay with the seller."""
    left = announcement.quantity - sum(winning.quantity for winning in winners)
    if left > 0:
        rest = units_of(whole, announcement.quantity - left, left, announcement.quantity, f"{whole.id}.0")
        state = "free" if whole.holder in ("", whole.provider) else "sold"
        draft.put("block", rest.id, msgspec.structs.replace(rest, state=state))
