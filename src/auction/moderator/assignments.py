"""A party's assignments: agreements, takeovers, offers kept warm, and auctions to bid in. This file only reads."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import msgspec

from auction.model.agreement import Agreement
from auction.model.bid import StandingOffer
from auction.model.endpoint import Assignment, Assignments, Endpoint, OpenAuction
from auction.model.errors import NotAllowed
from auction.model.party import ORGANISATIONS
from auction.moderator.draft import Draft
from auction.moderator.rules import failing_over

STAND_BYS_SHOWN = 3  # runners-up that are asked to stay connected


def find_assignments(draft: Draft, party: str, services: tuple[str, ...]) -> Assignments:
    """See `Queries.assignments`. Raises Unknown, NotAllowed."""
    if draft.party(party).kind not in ORGANISATIONS:
        raise NotAllowed(f"{party} neither provides nor receives")
    found = (*_agreed_with(draft, party), *_kept_warm(draft, party))
    auctions = tuple(_biddable(draft, party, services)) if services else ()
    version = hashlib.sha256(msgspec.json.encode((found, auctions))).hexdigest()[:16]
    return Assignments(version=version, now_ms=draft.at_ms, assignments=found, auctions=auctions)


def _agreed_with(draft: Draft, party: str) -> Iterator[Assignment]:
    for one in map(draft.agreement, draft.state.alive["agreement"]):
        if draft.at_ms >= one.ends_ms:
            continue
        if one.provider == party:
            yield _assigned(draft, one, "winner", one.price)
        elif one.recipient == party:
            yield _assigned(draft, one, "recipient", one.price)
        else:
            yield from _stands_by(draft, one, party)


def _stands_by(draft: Draft, one: Agreement, party: str) -> Iterator[Assignment]:
    record = draft.auction(one.auction)
    if not record.announcement.fail_over or one.stopped or not failing_over.has_rest(draft, one):
        return
    offer = failing_over.offer_to(draft, one, party)
    if offer is not None:
        whole = _assigned(draft, one, "offer", offer.price)
        yield msgspec.structs.replace(whole, units=offer.units, items=offer.items)
        return
    for stand_by in failing_over.stand_bys(draft, record)[:STAND_BYS_SHOWN]:
        if stand_by.provider == party:
            yield _assigned(draft, one, "runner_up", stand_by.price)
            return


def _kept_warm(draft: Draft, provider: str) -> Iterator[Assignment]:
    for warm in draft.state.records["warm"].values():
        if warm.until_ms <= draft.at_ms:
            continue
        for name in warm.offers:
            offer: StandingOffer | None = draft.find("offer", name)
            if offer is None or offer.provider != provider or offer.valid_until_ms <= draft.at_ms:
                continue
            yield Assignment(
                role="standing",
                recipient=warm.recipient,
                service=offer.service,
                price=offer.unit_price,
                offer=name,
                starts_ms=offer.available_from_ms,
                ends_ms=min(offer.available_until_ms, warm.until_ms),
                maximum_bps=offer.rate_bps_max,
                **_met_at(draft, warm.recipient),
            )


def _biddable(draft: Draft, provider: str, services: tuple[str, ...]) -> Iterator[OpenAuction]:
    for one in map(draft.auction, draft.state.alive["auction"]):
        if one.state != "open" or one.block is None or one.announcement.service not in services:
            continue
        own = [placed.bid.price for placed in draft.placed_bids(one.id) if placed.bid.bidder == provider]
        yield OpenAuction(
            announcement=one.announcement,
            announcer=one.announcer,
            block=one.block,
            own_price=own[-1] if own else None,
        )


def _assigned(draft: Draft, one: Agreement, role: Any, price: int) -> Assignment:
    return Assignment(
        role=role,
        recipient=one.recipient,
        service=one.service,
        price=price,
        agreement=one.id,
        party=one.provider if role == "recipient" else "",
        state=one.state,
        units=one.units,
        items=one.items,
        receipts=one.receipts,
        starts_ms=one.starts_ms,
        ends_ms=one.ends_ms,
        minimum_bps=one.minimum_bps,
        maximum_bps=one.maximum_bps,
        attributes=draft.block(one.block).attributes,
        **_met_at(draft, one.recipient),
    )


def _met_at(draft: Draft, recipient: str) -> dict[str, Any]:
    endpoint: Endpoint | None = draft.find("endpoint", recipient)
    return {"address": endpoint.address, "curve_key": endpoint.curve_key} if endpoint is not None else {}
