"""Announcing an auction: of what a recipient asks for, or of a block that its holder sells."""

from __future__ import annotations

import msgspec

from auction.formats import check_announcement
from auction.model.bid import Announcement, Closing, commit_seed
from auction.model.block import Block, check, check_units_of
from auction.model.errors import BadValue, NotAllowed, WrongState
from auction.model.money import check_integer
from auction.model.party import check_id
from auction.moderator.draft import Draft
from auction.moderator.records import Auction
from auction.moderator.rules import blocks, chains, parties
from auction.moderator.terms import AuctionTerms
from auction.payment.protocol import PREPAID


def announce_openly(
    draft: Draft, announcer: str, block: Block | str, terms: AuctionTerms, name: str, prime: str
) -> Announcement:
    """Announces; returns what everyone may see of it."""
    return announce(draft, announcer, block, terms, name, prime).announcement


def announce(draft: Draft, announcer: str, block: Block | str, terms: AuctionTerms, name: str, prime: str) -> Auction:
    parties.check_organisation(draft, announcer)
    auction = check_id(name) if name else draft.new_id("auction")
    if prime:
        chains.check_prime(draft, announcer, block, prime)
    asked = _asked_for(draft, announcer, block, auction)
    if terms.method != PREPAID and terms.method not in draft.methods:
        raise BadValue(f"this market takes no payment by {terms.method!r}")
    seed = draft.random_bytes(16)
    closes_ms = draft.at_ms + check_integer(terms.open_for_ms, "time to bid", 1)
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
        bond=terms.bond,
        newcomer_share_ppm=terms.newcomer_share_ppm,
        region=asked.attributes.get("region", ""),
        rate_bps=asked.committed_bps,
        starts_ms=asked.starts_ms,
        ends_ms=asked.ends_ms,
    )
    check_announcement(announcement)
    if announcement.quantity > 1:
        check_units_of(asked, announcement.quantity)
    record = Auction(
        id=auction,
        announcement=announcement,
        announcer=announcer,
        announced_sequence=draft.sequence,
        announced_ms=draft.at_ms,
        seed=seed.hex(),
        closes_ms=closes_ms,
        due_ms=closes_ms,
        block=None if isinstance(block, str) else asked,
        prime=prime,
        method=terms.method,
        source=terms.source,
    )
    draft.add("auction", auction, record)
    return record


def _asked_for(draft: Draft, announcer: str, block: Block | str, auction: str) -> Block:
    """The block that is auctioned: as the recipient describes it, or the holder's own, which is then offered."""
    if isinstance(block, Block):
        return check(msgspec.structs.replace(block, id=block.id or f"block-of-{auction}", provider="", holder=""))
    known = draft.block(block)
    if announcer != (known.holder or known.provider):
        raise NotAllowed(f"{announcer} does not hold the block {block}")
    if known.state not in ("free", "sold"):
        raise WrongState(f"the block {block} is {known.state}: at most one award for a block")
    blocks.check_paid_for(draft, block)
    if draft.at_ms >= known.starts_ms:
        raise WrongState("a block is sold before it starts")
    draft.put("block", block, msgspec.structs.replace(known, state="offered"))
    return known
