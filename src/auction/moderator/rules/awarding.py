"""Closing an auction: exclusions, the award by the format's rule, and its agreements.

A winner whose hold cannot be placed is excluded, and the next bid wins; so an award never waits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from auction.formats import award as decide_award
from auction.formats import format_of
from auction.formats.spot import award_ranked
from auction.model import holding
from auction.model.agreement import Agreement
from auction.model.award import Award, Winning
from auction.model.bid import Announcement, Bid, Ratings, ShownRating
from auction.model.block import Block, most_of_units, units_of
from auction.model.errors import WrongState
from auction.model.ledger import NOBODY, funds, held, held_bond
from auction.model.lifecycle import GRACE_MS, by_time
from auction.model.money import PPM
from auction.model.receipt import exposure
from auction.moderator.draft import Draft
from auction.moderator.records import SEQUENCES_OF_AN_ENTRY, Auction, BidSheet, OfferSheet, PlacedBid
from auction.moderator.rules import admission, announcing, blocks, chains, groups, holds
from auction.moderator.state import State

Excluded = tuple[tuple[str, str], ...]


def close(draft: Draft, record: Auction) -> Auction:
    """Awards the auction and makes its agreements; or makes it void and releases everything."""
    free_lead(draft, record)
    placed = draft.placed_bids(record.id)
    bids: list[Bid] = []
    excluded: list[tuple[str, str]] = []
    held_of: dict[str, int] = {}
    this_entry = draft.sequence * SEQUENCES_OF_AN_ENTRY
    spare_bps, most_bps = _plainly_not_excluded(draft, record)
    for one in placed:
        bid = one.bid
        if one.withdrawn:
            excluded.append((bid.bid, "banned"))
            continue
        if one.held:
            held_of[bid.bidder] = held_of.get(bid.bidder, 0) + one.held
        # A bid that came with this command has just been checked.
        if bid.sequence >= this_entry or spare_bps.get(bid.bidder, -1) >= most_bps:
            bids.append(bid)
        elif why := _why_excluded(draft, record, bid):
            excluded.append((bid.bid, why))
        else:
            bids.append(bid)
    award, failing = decide_funded(draft, record, bids, ratings_of(placed), held_of)
    for one in placed:  # a bid holds nothing once its auction is over
        if one.held:
            go = holds.burn_bid if one.bid.bid in failing else holds.let_bid_go
            go(draft, record.announcement, one.bid.bid, one.bid.bidder, one.held)
    excluded += failing.items()
    arbiters = {one.bid.bid: one.arbiter for one in placed if one.arbiter}
    return take(draft, record, award, tuple(excluded), arbiters)


def decide_funded(
    draft: Draft, record: Auction, bids: Sequence[Bid], ratings: Ratings, held_of: dict[str, int]
) -> tuple[Award, dict[str, str]]:
    """The award to bids whose holds can be placed, and the excluded bids with the reason. What a bidder's bids hold
    (`held_of`) counts towards its own award. If one hold cannot be placed, all bids of the bidder are excluded, so an
    earlier and worse bid cannot come back."""
    failing: dict[str, str] = {}
    while True:
        award = decide(record, bids, ratings)
        unable = {one.bidder for one in award.winners if not can_hold(draft, record, one, held_of.get(one.bidder, 0))}
        if not unable:
            return award, failing
        failing |= {one.bid: "hold" for one in award.winners if one.bidder in unable}
        failing |= {bid.bid: "its bidder's hold" for bid in bids if bid.bidder in unable and bid.bid not in failing}
        bids = [bid for bid in bids if bid.bidder not in unable]


def can_hold(draft: Draft, record: Auction, winning: Winning, held_already: int) -> bool:
    """Whether the winner's hold can be placed."""
    delta_ppm = record.announcement.delta_ppm
    if record.announcement.direction == "receive":
        own = holding.with_delta(winning.price, delta_ppm) + record.announcement.fee.of(winning.price)
        return draft.balance(funds(winning.bidder)) + held_already >= own
    needed = holding.of_provider(winning.price, delta_ppm) + holds.insured_of(draft, record, winning.bid)
    return holds.secured_by(draft, winning.bidder) + held_already >= needed


def decide(record: Auction, bids: Sequence[Bid], ratings: Ratings) -> Award:
    return decide_award(record.announcement, bids, ratings, bytes.fromhex(record.seed))


def ratings_of(placed: Iterable[PlacedBid]) -> dict[str, ShownRating]:
    """The ratings that weigh, by bidder."""
    return {one.bid.bidder: one.rating for one in placed if one.rating is not None}


def take(
    draft: Draft, record: Auction, award: Award, excluded: Excluded = (), arbiters: dict[str, str] | None = None
) -> Auction:
    """Records an award and makes its agreements. If the seller cannot secure what it sold, nobody has won."""
    if award.winners and not seller_can_hold(draft, record, award.winners):
        known = {bid for bid, _ in excluded}
        sheet: BidSheet | None = draft.find("sheet", record.id)
        bids = sheet.names() if sheet is not None else [one.bid.bid for one in draft.placed_bids(record.id)]
        excluded += tuple((bid, "the seller's hold") for bid in bids if bid not in known)
        draft.put("award", record.id, decide(record, (), {}))
        return _make_void(draft, record, excluded, sellers_fault=True)
    draft.put("award", record.id, award)
    return conclude(draft, record, award.winners, excluded, arbiters or {})


def conclude(
    draft: Draft,
    record: Auction,
    winners: tuple[Winning, ...],
    excluded: Excluded = (),
    arbiters: dict[str, str] | None = None,
) -> Auction:
    """Closes an auction with these winners, and makes an agreement with each. Without winners it is void."""
    if not winners:
        return _make_void(draft, record, excluded)
    closed = msgspec.structs.replace(
        record,
        state=by_time(record.state, "agreed"),
        winners=winners,
        excluded=excluded,
        due_ms=0,
        held=0,
        closed_sequence=draft.sequence,
        over_ms=draft.at_ms,
    )
    draft.put("auction", record.id, closed)
    _make_agreements(draft, closed, record.held > 0, arbiters or {})
    if record.held:
        holds.let_announcement_go(draft, record)
    if record.group:
        groups.awarded(draft, closed)
    return closed


def seller_can_hold(draft: Draft, record: Auction, winners: tuple[Winning, ...]) -> bool:
    announcement = record.announcement
    if announcement.direction == "provide":
        return True
    needed = sum(holding.of_provider(one.price, announcement.delta_ppm) for one in winners)
    return holds.secured_by(draft, record.announcer) + record.held >= needed


def _make_void(draft: Draft, record: Auction, excluded: Excluded, sellers_fault: bool = False) -> Auction:
    if sellers_fault and record.held:
        burnt = holding.delta_of(holds.whole_reserve(record.announcement), record.announcement.delta_ppm)
        draft.transfer(held_bond(record.id), NOBODY, min(burnt, record.held))
    void = announcing.make_void(draft, record, by_time(record.state, "void"), excluded)
    if record.group:
        groups.give_back(draft, record.group)
    return void


def find_award(state: State, record: Auction) -> Award | None:
    """The whole award of an auction, or None while there is none. If it is not recorded, it is derived: from the order
    of the standing offers, or from the bids of an auction held in one command."""
    if record.state not in ("agreed", "void"):
        return None
    award: Award | None = state.records["award"].get(record.id)
    if award is not None:
        return award
    offers: OfferSheet | None = state.records["offer_sheet"].get(record.id)
    if offers is not None:
        return award_ranked(record.announcement, offers.ranked(), bytes.fromhex(record.seed))
    if record.state == "void" and state.bids_of.get(record.id):
        return None  # it was called off, whatever the bids
    excluded = {bid for bid, _ in record.excluded}
    placed = [one for one in state.bids_in(record.id) if one.bid.bid not in excluded]
    return decide(record, [one.bid for one in placed], ratings_of(placed))


def award_of(draft: Draft, auction: str) -> Award:
    """The award of a closed auction."""
    record = draft.auction(auction)
    if record.state in ("open", "funding"):
        raise WrongState(f"auction {auction} is {record.state} until {record.closes_ms} ms, now it is {draft.at_ms} ms")
    award = find_award(draft.state, record)
    if award is None:
        raise WrongState(f"auction {auction} has no award")
    return award


def agreements_made(draft: Draft) -> list[str]:
    """The names of the agreements that this command has made."""
    return [name for kind, name in draft.changes if kind == "agreement"]


def free_lead(draft: Draft, record: Auction) -> None:
    lead: Block | None = draft.find("block", record.lead)
    if lead is not None:
        draft.put("block", lead.id, msgspec.structs.replace(lead, state="void"))


def _plainly_not_excluded(draft: Draft, record: Auction) -> tuple[dict[str, int], int]:
    """The capacity that providers have never promised, and how much of it suffices for any bid of this auction. A
    provider with that much would not be excluded by `_why_excluded`. Empty if there may be other reasons to exclude."""
    state = draft.state
    if record.block is None or record.prime or record.refused or record.announcement.requires:
        return {}, 0
    if state.debts_of or state.banned or state.erased or draft.has_blocks:
        return {}, 0
    return state.spare_bps, record.block.committed_bps


def _why_excluded(draft: Draft, record: Auction, bid: Bid) -> str:
    """Why a bid cannot win any more: its bidder has used its capacity elsewhere, has come into the chain by taking over
    the prime, has a debt, is banned, or is refused by the announcer. It forfeits nothing."""
    bidder = bid.bidder
    why = admission.why_excluded(draft, record, bidder)
    if why:
        return why
    if record.prime and not chains.is_allowed(draft, record.prime, bidder):
        return "chain"
    if record.block is not None:
        units = format_of(record.announcement).units(record.announcement, bid.quantity)
        asked = most_of_units(record.block, units, record.announcement.quantity)
        if not draft.has_room(draft.party(bidder), asked):
            return "capacity"
    return ""


def _make_agreements(draft: Draft, record: Auction, was_held: bool, arbiters: dict[str, str]) -> None:
    """Makes an agreement for each winner and places both sides' holds. `was_held` says whether the announcer's part is
    held for the auction; in a one-command auction it is still on its balance."""
    announcement = record.announcement
    is_providing = announcement.direction == "provide"
    for winning, block in zip(record.winners, _awarded_blocks(draft, record), strict=True):
        name = draft.new_id("agreement")
        provider = winning.bidder if is_providing else record.announcer
        recipient = record.announcer if is_providing else winning.bidder
        of_recipient = _recipients_hold(record, winning)
        insured = holds.insured_of(draft, record, winning.bid)
        of_provider = holding.of_provider(winning.price, announcement.delta_ppm) + insured
        if is_providing:
            draft.transfer(held(record.id) if was_held else funds(recipient), held(name), of_recipient)
            holds.secure(draft, provider, held_bond(name), of_provider)
        else:
            draft.transfer(funds(recipient), held(name), of_recipient)
            of_hold = min(of_provider, draft.balance(held_bond(record.id)))
            draft.transfer(held_bond(record.id), held_bond(name), of_hold)
            holds.secure(draft, provider, held_bond(name), of_provider - of_hold)
        agreement = make_agreement(
            draft,
            record,
            block,
            name=name,
            provider=provider,
            recipient=recipient,
            price=winning.price,
            recipient_held=of_recipient,
            provider_held=of_provider,
            insured=insured,
            units=winning.quantity,
            items=winning.items,
            arbiter=announcement.arbiter if arbiters.get(winning.bid) == announcement.arbiter else "",
        )
        draft.put("agreement", name, agreement)


def make_agreement(
    draft: Draft, record: Auction, block: Block, *, name: str, provider: str, recipient: str, price: int, **more: object
) -> Agreement:
    """A new agreement, from the terms of its auction and its block."""
    announcement = record.announcement
    window_ms = block.ends_ms - block.starts_ms
    with_receipts = announcement.receipts
    return Agreement(
        id=name,
        auction=record.id,
        recipient=recipient,
        provider=provider,
        service=announcement.service,
        block=block.id,
        price=price,
        currency=announcement.currency,
        starts_ms=block.starts_ms,
        ends_ms=block.ends_ms,
        delta_ppm=announcement.delta_ppm,
        fee=announcement.fee,
        penalty=holding.penalty_of(price),
        exposure=exposure(price, window_ms, with_receipts),
        due_ms=block.starts_ms + GRACE_MS,
        receipts=with_receipts,
        provider_key=draft.party(provider).public_key if with_receipts else "",
        recipient_key=draft.party(recipient).public_key if with_receipts else "",
        method=record.method,
        processor_reference=record.processor_reference,
        judge=announcement.judge,
        prime=record.prime,
        depth=draft.agreement(record.prime).depth + 1 if record.prime else 0,
        minimum_bps=block.minimum_bps,
        maximum_bps=block.maximum_bps,
        availability_ppm=block.availability_ppm,
        latency_ms_max=block.latency_ms_max,
        **more,  # type: ignore[arg-type]
    )


def _recipients_hold(record: Auction, winning: Winning) -> int:
    """P(1+δ), or with fail-over this winner's part of R(1+δ). With several winners each δ is rounded down, so that the
    parts are within the whole."""
    announcement = record.announcement
    amount = winning.price
    if announcement.fail_over and announcement.direction == "provide":
        amount = max(amount, holds.part_of_reserve(announcement, winning.quantity, winning.items))
    if len(record.winners) == 1:
        return holding.with_delta(amount, announcement.delta_ppm) + announcement.fee.of(amount)
    return amount + amount * announcement.delta_ppm // PPM + announcement.fee.of(amount)


def _awarded_blocks(draft: Draft, record: Auction) -> list[Block]:
    """A block for each winner: the whole, or its part if units were sold."""
    announcement = record.announcement
    is_providing = record.block is not None
    whole = record.block or draft.block(announcement.block)
    if is_providing and (name := blocks.own_name(draft, whole.id)) != whole.id:
        whole = msgspec.structs.replace(whole, id=name)
    awarded: list[Block] = []
    before = 0
    for number, winning in enumerate(record.winners):
        block = whole
        if len(record.winners) > 1 or winning.quantity != announcement.quantity:
            name = blocks.own_name(draft, f"{whole.id}.{number + 1}")
            if winning.items and is_providing:
                block = units_of(whole, 0, 1, 1, name)  # each item is a service of the whole rate
            elif winning.items:
                block = units_of(whole, before, len(winning.items), len(announcement.items), name)
                before += len(winning.items)
            else:
                block = units_of(whole, before, winning.quantity, announcement.quantity, name)
                before += winning.quantity
        if winning.items:
            block = msgspec.structs.replace(block, attributes={**block.attributes, "items": ",".join(winning.items)})
        if is_providing:
            block = msgspec.structs.replace(block, provider=winning.bidder, holder=record.announcer, state="sold")
        else:
            block = msgspec.structs.replace(block, holder=winning.bidder, state="sold")
        awarded.append(block)
    if not is_providing and awarded != [] and awarded[0].id != whole.id:
        draft.put("block", whole.id, msgspec.structs.replace(whole, state="split"))
        _keep_rest(draft, whole, record.winners, announcement)
    for block in awarded:
        draft.put("block", block.id, block)
    return awarded


def _keep_rest(draft: Draft, whole: Block, winners: tuple[Winning, ...], announcement: Announcement) -> None:
    """Units that nobody bought stay with the seller."""
    of_units = len(announcement.items) or announcement.quantity
    left = of_units - sum(len(winning.items) or winning.quantity for winning in winners)
    if left > 0:
        name = blocks.own_name(draft, f"{whole.id}.0")
        rest = units_of(whole, of_units - left, left, of_units, name)
        state = "free" if whole.holder in ("", whole.provider) else "sold"
        draft.put("block", rest.id, msgspec.structs.replace(rest, state=state))
