"""Fail-over: which runner-up is offered the rest of a service whose provider has left, and how it takes over.

`model/takeover` computes parts and prices; here are the order of the offers and the holds.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from auction.formats import format_of
from auction.model import holding
from auction.model.agreement import Agreement
from auction.model.award import Winning
from auction.model.block import Block, units_of
from auction.model.errors import NoAward, WrongState
from auction.model.ledger import card, funds, held, held_bond
from auction.model.lifecycle import GRACE_MS, is_present, step_of
from auction.model.party import are_linked
from auction.model.takeover import Rest, RestOffer, StandBy, may_cost, offer_of, owed_at_most, rest_after
from auction.moderator.draft import Draft
from auction.moderator.records import Auction, PlacedBid
from auction.moderator.rules import admission, awarding, blocks, chains, holds
from auction.payment.protocol import PREPAID

KEPT_MAX = 10_000  # auctions whose stand-bys are cached


def stand_bys(draft: Draft, record: Auction) -> Sequence[StandBy]:
    """The losing bids within the reserve, best first, each at its own price for everything that it bid on."""
    known = draft.state.stand_bys.get(record.id)
    if known is None:
        if len(draft.state.stand_bys) >= KEPT_MAX:
            draft.state.stand_bys.clear()
        known = draft.state.stand_bys[record.id] = tuple(_stand_bys(draft, record))
    return known


def _stand_bys(draft: Draft, record: Auction) -> list[StandBy]:
    announcement, award = record.announcement, awarding.find_award(draft.state, record)
    if award is None or record.block is None:
        return []
    row = format_of(announcement)
    bids = {one.bid.bid: one.bid for one in draft.state.bids_in(record.id)}
    found = []
    for loser in award.runners_up:
        bid = bids.get(loser.bid)
        units = announcement.quantity if bid is None else row.units(announcement, bid.quantity)
        price: int | None = loser.offered
        items: tuple[str, ...] = ()
        if bid is not None:
            items = bid.items
            own = Winning(bid=bid.bid, bidder=bid.bidder, price=0, quantity=units, items=items)
            price = row.runner_up(own, bid, loser)
        if price is not None:
            found.append(StandBy(provider=loser.bidder, bid=loser.bid, price=price, units=units, items=items))
    return found


def has_failed(agreement: Agreement) -> bool:
    """Whether its provider has left, is blamed, or was absent at the start."""
    says, recipient = agreement.provider_says, agreement.recipient_says
    if agreement.state != "closing" or (recipient is not None and recipient.ending == "leaving"):
        return False
    left = agreement.provider_absent or (says is not None and says.ending in ("leaving", "blaming"))
    early = says is not None and says.ending == "finished" and says.at_ms < agreement.ends_ms
    blamed = recipient is not None and recipient.ending == "blaming"
    return left or blamed or (early and recipient is None)


def offer_to(draft: Draft, agreement: Agreement, provider: str) -> RestOffer | None:
    """The part of the rest that this provider may take over now. The best connected runner-up gets the offer first;
    after each further G, the next one gets it too. No provider serves one service twice, or without the capacity."""
    record = draft.auction(agreement.auction)
    if not record.announcement.fail_over or agreement.stopped or agreement.is_over or not has_failed(agreement):
        return None
    rest = _rest_of(draft, agreement)
    if rest is None:
        return None
    turns = 1 + max(0, draft.at_ms - agreement.ended_ms) // GRACE_MS
    limit = may_cost(agreement.recipient_held, _owed(draft, agreement), agreement.delta_ppm, agreement.fee)
    for stand_by in stand_bys(draft, record):
        if turns <= 0:
            return None
        offer = offer_of(stand_by, rest, limit)
        if offer is None or not _is_able(draft, record, agreement, offer, rest):
            continue
        if stand_by.provider == provider:
            return offer
        turns -= 1
    return None


def _owed(draft: Draft, agreement: Agreement) -> int:
    """The most that may still be owed for agreements that have ended. Receipts not handed in yet count as if everything
    possible was earned."""
    earned = agreement.earnings(draft.config.name)
    window_ms = agreement.ends_ms - agreement.starts_ms
    until_ms = min(max(agreement.ended_ms - agreement.starts_ms, 0), window_ms)
    could_earn = -(-agreement.price * until_ms // window_ms)
    more = max(0, could_earn - earned.signed - earned.shortfall)
    exposed = more + agreement.exposure
    return owed_at_most(agreement.price, agreement.delta_ppm, earned.signed, exposed, earned.shortfall, agreement.fee)


def has_rest(draft: Draft, agreement: Agreement) -> bool:
    """Whether a rest is left that nobody has taken over."""
    return _rest_of(draft, agreement) is not None


def _rest_of(draft: Draft, agreement: Agreement) -> Rest | None:
    """What is left to serve, without what others have taken over."""
    if draft.at_ms >= agreement.ends_ms:
        return None
    taken = [draft.agreement(name) for name in draft.state.rests_of.get(agreement.id, ())]
    units = agreement.units - sum(one.units for one in taken)
    gone = {item for one in taken for item in one.items}
    items = tuple(item for item in agreement.items if item not in gone)
    if (agreement.items and not items) or (not agreement.items and units < 1):
        return None
    # Bids are for the whole announced window, of which this agreement may itself be a rest.
    starts_ms = draft.auction(agreement.auction).announcement.starts_ms
    return rest_after(starts_ms, agreement.ends_ms, max(agreement.starts_ms, draft.at_ms), max(1, units), items)


def _is_able(draft: Draft, record: Auction, agreement: Agreement, offer: RestOffer, rest: Rest) -> bool:
    provider = offer.provider
    if not is_present(draft.state.polled.get(provider), draft.at_ms):
        return False
    one: Agreement | None = agreement
    while one is not None:
        if one.provider == provider:
            return False
        one = draft.agreement(one.of) if one.of else None
    if not chains.may_take_over(draft, agreement, provider) or admission.is_on(draft.state, record.refused, provider):
        return False
    if admission.why_unfit(draft, agreement.recipient, record.announcement.requires, provider):
        return False
    if are_linked(draft.party(provider), draft.party(agreement.recipient)):
        return False
    needed = holding.of_provider(offer.price, agreement.delta_ppm)
    if holds.secured_by(draft, provider) < needed:
        return False
    block = _block_of(draft, record, agreement, offer, rest)
    return draft.committed_peak(provider, block) + block.committed_bps <= draft.party(provider).capacity_bps


def _block_of(draft: Draft, record: Auction, agreement: Agreement, offer: RestOffer, rest: Rest) -> Block:
    former = draft.block(agreement.block)
    name = f"{agreement.block}~{offer.provider}"
    part = former if offer.units == agreement.units else units_of(former, 0, offer.units, agreement.units, name)
    attributes = {**former.attributes, "items": ",".join(offer.items)} if offer.items else former.attributes
    return msgspec.structs.replace(
        part,
        id=name,
        provider=offer.provider,
        holder=agreement.recipient,
        parent=agreement.block,
        offer="",
        starts_ms=rest.from_ms,
        ends_ms=rest.ends_ms,
        attributes=attributes,
        state="sold",
    )


def take_over(draft: Draft, name: str, provider: str) -> Agreement:
    """Makes a separate agreement for the rest, at the runner-up's own bid for it, paid from the hold of R."""
    agreement = draft.agreement(name)
    offer = offer_to(draft, agreement, provider)
    if offer is None:
        raise NoAward(f"nothing of {name} is offered to {provider} now")
    rest = _rest_of(draft, agreement)
    if rest is None:
        raise WrongState("the window is over: there is nothing left to serve")
    record = draft.auction(agreement.auction)
    block = _block_of(draft, record, agreement, offer, rest)
    block = msgspec.structs.replace(block, id=blocks.own_name(draft, block.id))
    draft.put("block", block.id, block)
    new = draft.new_id("agreement")
    own = holding.with_delta(offer.price, agreement.delta_ppm) + agreement.fee.of(offer.price)
    is_whole = offer.units == rest.units and (not rest.items or set(offer.items) == set(rest.items))
    # A takeover of the whole rest gets the free part of the reserve, to pay the next one if it fails too.
    moved = agreement.recipient_held - _owed(draft, agreement) if is_whole else own
    of_provider = holding.of_provider(offer.price, agreement.delta_ppm)
    draft.transfer(held(name), held(new), moved)
    holds.secure(draft, provider, held_bond(new), of_provider)
    left = msgspec.structs.replace(agreement, recipient_held=agreement.recipient_held - moved)
    draft.put("agreement", name, left)
    taken = awarding.make_agreement(
        draft,
        record,
        block,
        name=new,
        provider=provider,
        recipient=agreement.recipient,
        price=offer.price,
        recipient_held=moved,
        provider_held=of_provider,
        units=offer.units,
        items=offer.items,
        of=name,
        arbiter=record.announcement.arbiter if _named(draft, offer.bid) == record.announcement.arbiter else "",
        payers=agreement.payers,
    )
    step_of("agreed", "take_over")
    due_ms = max(taken.due_ms, draft.at_ms + GRACE_MS)
    taken = msgspec.structs.replace(taken, due_ms=due_ms)
    draft.put("agreement", new, taken)
    return taken


def stop(draft: Draft, name: str) -> Agreement:
    """The recipient stops further takeovers: what is held beyond P(1+δ) goes back at once. Rests that were already
    taken over are separate agreements, and continue."""
    agreement = draft.agreement(name)
    step_of(agreement.state, "stop_fail_over")
    record = draft.auction(agreement.auction)
    if not record.announcement.fail_over:
        raise WrongState(f"{name} was announced without fail-over: nobody takes a rest of it over")
    if agreement.stopped:
        raise WrongState(f"fail-over of {name} was stopped already")
    kept = min(agreement.recipient_held, agreement.own_hold)
    # A later buyer of the block has the agreement, with everything that is returned.
    payer = funds(agreement.recipient) if agreement.method == PREPAID else card(agreement.method)
    draft.transfer(held(name), payer, agreement.recipient_held - kept)
    stopped = msgspec.structs.replace(agreement, stopped=True, recipient_held=kept)
    draft.put("agreement", name, stopped)
    return stopped


def _named(draft: Draft, bid: str) -> str:
    """The arbiter that a bid names."""
    placed: PlacedBid | None = draft.find("bid", bid)
    return placed.arbiter if placed is not None else ""
