"""Announcing an auction: for a block that a recipient asks for, or of a block that its holder sells. It is funded
before anyone bids: from a balance at once, from a card when it is authorised."""

from __future__ import annotations

import msgspec

from auction.formats import check_announcement
from auction.model import holding
from auction.model.bid import Announcement, Closing, commit_seed
from auction.model.block import Block, check, check_units_of
from auction.model.errors import BadValue, Exists, NotAllowed, WrongState
from auction.model.lifecycle import AUTHORISED_MS, CLOSING_MS, FUNDING_MS, GRACE_MS, OPEN_MS_MAX, REVEAL_MS, next_state
from auction.model.money import check_integer
from auction.model.party import check_chosen
from auction.moderator.draft import Draft
from auction.moderator.records import Auction
from auction.moderator.reputation import PAYMENTS
from auction.moderator.rules import admission, blocks, chains, holds, parties
from auction.moderator.terms import AuctionTerms
from auction.payment.protocol import PREPAID


def announce_openly(
    draft: Draft, announcer: str, block: Block | str, terms: AuctionTerms, name: str, prime: str
) -> Announcement:
    """Announces the auction and places its hold. Returns the public announcement."""
    record = announce(draft, announcer, block, terms, name, prime)
    _check_ends_before_start(record.announcement)
    if record.state == "open":
        record = holds.hold_announcement(draft, record)
        draft.put("auction", record.id, record)
    return record.announcement


def _check_ends_before_start(announcement: Announcement) -> None:
    """A winner must be able to be present: an award after the start would make it absent at once."""
    closing = announcement.closing
    last_ms = closing.reveal_until_ms or closing.closes_ms + closing.extend_by_ms * closing.extend_times_max
    if announcement.starts_ms is not None and last_ms > announcement.starts_ms:
        raise BadValue(f"bidding can last until {last_ms}, but the service starts at {announcement.starts_ms}")


def announce(draft: Draft, announcer: str, block: Block | str, terms: AuctionTerms, name: str, prime: str) -> Auction:
    """The auction, before anything is held."""
    party = parties.check_organisation(draft, announcer)
    admission.check_not_barred(draft, announcer)
    auction = _chosen(draft, name) if name else draft.new_id("auction")
    if prime:
        chains.check_prime(draft, announcer, block, prime)
    if terms.receipts and not party.public_key:
        raise BadValue(f"{announcer} has no key to sign receipts with: announce without them, or register a key")
    if terms.arbiter:
        draft.party(terms.arbiter)
    asked = _asked_for(draft, announcer, block, auction)
    if terms.method != PREPAID and terms.method not in draft.methods:
        raise BadValue(f"this market does not accept payment by {terms.method!r}")
    is_prepaid = terms.method == PREPAID
    if not is_prepaid and asked.ends_ms + GRACE_MS + CLOSING_MS > draft.at_ms + AUTHORISED_MS:
        raise BadValue("a card authorisation would not live until this is settled: announce later, or deposit")
    seed = draft.random_bytes(16)
    closes_ms = draft.at_ms + check_integer(terms.open_for_ms, "time to bid", 1, OPEN_MS_MAX)
    check_integer(terms.reveal_for_ms, "time to reveal", 0, REVEAL_MS)
    if isinstance(block, str) and terms.method != PREPAID:
        raise BadValue("a seller secures its promise with its bond or balance, not with a card")
    start = draft.state.reputation.start(PAYMENTS if isinstance(block, str) else asked.service, draft.at_ms)
    announcement = Announcement(
        auction=auction,
        block=asked.id,
        service=asked.service,
        currency=draft.config.currency,
        reserve=terms.reserve,
        closing=Closing(
            opens_ms=draft.at_ms,
            closes_ms=closes_ms,
            extend_within_ms=terms.extend_within_ms,
            extend_by_ms=terms.extend_by_ms,
            extend_times_max=terms.extend_times_max,
            reveal_until_ms=closes_ms + terms.reveal_for_ms if terms.reveal_for_ms else None,
        ),
        seed_commitment=commit_seed(auction, seed),
        direction="receive" if isinstance(block, str) else "provide",
        format=terms.format,
        quality=terms.quality,
        quantity=terms.quantity,
        items=terms.items,
        increment=terms.increment,
        ramp=terms.ramp,
        newcomer_share_ppm=terms.newcomer_share_ppm,
        delta_ppm=holding.check_delta(terms.delta_ppm),
        fail_over=terms.fail_over,
        receipts=terms.receipts,
        arbiter=terms.arbiter,
        judge=terms.judge,
        nonce=terms.nonce,
        region=asked.attributes.get("region", ""),
        rate_bps=asked.committed_bps,
        starts_ms=asked.starts_ms,
        ends_ms=asked.ends_ms,
        requires=asked.requires,
        fee=draft.config.fee,
        sequence=draft.sequence,
        start_ppm=start.opinion_ppm,
        evidence_start_ppm=start.evidence_ppm,
    )
    check_announcement(announcement)
    if announcement.quantity > 1:
        check_units_of(asked, announcement.quantity)
    if announcement.items and isinstance(block, str):
        check_units_of(asked, len(announcement.items))
    record = Auction(
        id=auction,
        announcement=announcement,
        announcer=announcer,
        announced_sequence=draft.sequence,
        announced_ms=draft.at_ms,
        seed=seed.hex(),
        state=next_state("", "announce", "open" if is_prepaid else "funding"),
        closes_ms=closes_ms,
        due_ms=closes_ms if is_prepaid else min(draft.at_ms + FUNDING_MS, closes_ms),
        block=None if isinstance(block, str) else asked,
        prime=prime,
        method=terms.method,
        source=terms.source,
        refused=admission.refused_by(draft, announcer),
    )
    draft.add("auction", auction, record)
    return record


def _chosen(draft: Draft, name: str) -> str:
    """The name that the announcer gives the auction. Offers hold money by their names too, so it is no offer's."""
    if draft.find("offer", check_chosen(name)) is not None:
        raise Exists(f"there is an offer {name!r} already")
    for kind in ("auction", "offer"):
        draft.check_unused(kind, name)
    return name


def _asked_for(draft: Draft, announcer: str, block: Block | str, auction: str) -> Block:
    """The block to auction: the one that the recipient describes, or the holder's own, which becomes `offered`."""
    if isinstance(block, Block):
        name = block.id
        if not name:
            name = blocks.own_name(draft, f"block-of-{auction}")
        elif draft.find("block", check_chosen(name)) is not None:
            raise Exists(f"there is a block {name!r} already")
        else:
            draft.check_unused("block", name)
        asked = msgspec.structs.replace(block, id=name, provider="", holder="", parent="", offer="", state="free")
        check(asked)
        if asked.ends_ms <= draft.at_ms:
            raise BadValue("the window of the block is over")
        return asked
    known = draft.block(block)
    if announcer != (known.holder or known.provider):
        raise NotAllowed(f"{announcer} does not hold the block {block}")
    if known.state not in ("free", "sold"):
        raise WrongState(f"the block {block} is {known.state}: a block has at most one award")
    if draft.at_ms >= known.starts_ms:
        raise WrongState("a block can only be sold before it starts")
    draft.put("block", block, msgspec.structs.replace(known, state="offered"))
    return known


def withdraw(draft: Draft, auction: str) -> Announcement:
    """Withdraws an announcement before its first bid."""
    record = draft.auction(auction)
    state = next_state(record.state, "withdraw")
    if draft.placed_bids(auction) or draft.state.commitments_of.get(auction):
        raise WrongState(f"auction {auction} has bids: it can only be withdrawn before the first one")
    make_void(draft, record, state)
    return record.announcement


def make_void(draft: Draft, record: Auction, state: str, excluded: tuple[tuple[str, str], ...] = ()) -> Auction:
    """Ends an auction without an award: the block is free again, and the announcer's hold is released."""
    holds.let_announcement_go(draft, record)
    closed = msgspec.structs.replace(
        record,
        state=state,
        due_ms=0,
        held=0,
        excluded=excluded,
        closed_sequence=draft.sequence,
        over_ms=draft.at_ms,
    )
    draft.put("auction", record.id, closed)
    if record.processor_reference:
        holds.ask(draft, record.id, "void", 0)
    if record.block is None:
        blocks.free_block(draft, record.announcement.block)
    return closed
