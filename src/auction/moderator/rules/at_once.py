"""Auctions in one command: held among the bids that come with it, or awarded among the offers that stand.

What a single bidder must fulfil is said in `bidding`; here it is only seen quickly that all of them do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from auction.formats import format_of
from auction.formats.spot import SPOT, rank_offers
from auction.model.agreement import Agreement, Runner
from auction.model.bid import ShownRating, StandingOffer
from auction.model.block import Block
from auction.model.errors import BadValue, Expired, NoAward, NotAllowed
from auction.model.ledger import bond
from auction.model.money import AMOUNT_MAX
from auction.model.party import Party, Signature
from auction.model.signing import bid_body, offer_body
from auction.moderator.draft import Draft
from auction.moderator.records import SEQUENCES_OF_AN_ENTRY, Auction, BidSheet, OfferSheet
from auction.moderator.rules import agreements, announcing, awarding, bidding, chains, opinions, parties
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
        for entry in entries:
            bidding.check_bidder(draft, record, entry.bidder, entry.quantity)
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
        ratings=tuple([opinions.rating_at(draft, record, bidder) for bidder in bidders]) if weighs else (),
        entries=() if is_plain else tuple(entries),
    )


def _plainly_may_bid(draft: Draft, record: Auction, bidders: Sequence[str]) -> bool:
    """Whether it is plain that `bidding.check_bidder` would refuse none of them. False says nothing."""
    state, announcement = draft.state, record.announcement
    if (
        announcement.quantity != 1
        or not state.linked.isdisjoint(bidders)
        or len({record.announcer, *bidders}) <= len(bidders)
    ):
        return False
    registered, timelines = state.records["party"], state.timelines
    kinds = bidding.BIDDERS[announcement.direction]
    block = record.block
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
            needed = opinions.bond_needed(draft, record, rating)
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


def stand_offer(draft: Draft, offer: StandingOffer, signature: Signature | None) -> StandingOffer:
    if draft.party(offer.provider).kind != "provider":
        raise NotAllowed(f"{offer.provider} is no provider")
    if offer.valid_until_ms <= draft.at_ms:
        raise Expired("the offer is over before it stands")
    former = draft.find("offer", offer.offer)
    if former is not None and former.provider != offer.provider:
        raise NotAllowed(f"{offer.offer} is an offer of {former.provider}")
    body = offer_body(
        offer.service,
        offer.unit_price,
        offer.currency,
        offer.quantity,
        offer.rate_bps_max,
        offer.valid_until_ms,
        offer.region,
    )
    parties.check_signature(draft, "offer", offer.offer, offer.provider, body, signature)
    numbered = msgspec.structs.replace(offer, sequence=draft.sequence)
    draft.put("offer", offer.offer, numbered)
    return numbered


def withdraw_offer(draft: Draft, offer: str, provider: str) -> StandingOffer:
    former: StandingOffer = draft.get("offer", offer)
    if former.provider != provider:
        raise NotAllowed(f"{offer} is an offer of {former.provider}")
    ended = msgspec.structs.replace(former, valid_until_ms=draft.at_ms)
    draft.put("offer", offer, ended)
    return ended


def award_at_once(draft: Draft, recipient: str, block: Block, terms: AuctionTerms, prime: str) -> Agreement:
    terms = msgspec.structs.replace(terms, format=SPOT)
    record = announcing.announce(draft, recipient, block, terms, "", prime)
    announcement = record.announcement
    offers, ratings = _able(draft, record, record.block or block, prime)
    seed = bytes.fromhex(record.seed)
    ranked = rank_offers(announcement, offers, ratings, seed, draft.at_ms)
    if not ranked.within:
        raise NoAward("no standing offer fulfils the terms within the reserve")
    armed = ranked.within[1 : 1 + draft.config.runners_up_max]
    runners = tuple([Runner(provider, offer, price) for _, _, price, offer, provider in armed])
    draft.put("offer_sheet", record.id, OfferSheet.of(ranked))
    winners = tuple(ranked.winners(announcement.quantity))
    awarding.conclude(draft, record, winners, (runners,))
    name = awarding.agreements_made(draft)[0]
    _use_units(draft, winners[0].bid, terms.quantity)
    return agreements.agree(draft, name)


def _able(
    draft: Draft, record: Auction, block: Block, prime: str
) -> tuple[list[StandingOffer], dict[str, ShownRating]]:
    """The standing offers of who has the capacity, the bond a newcomer owes, and no link to the recipient; with
    their ratings where they weigh. One pass, for it is what a spot award spends its time on."""
    state, at_ms = draft.state, draft.at_ms
    service, reputation = block.service, state.reputation
    known_ratings = reputation.latest(service, at_ms)
    owes_bond = record.announcement.bond or draft.config.rating.newcomer_bond
    weights = record.announcement.quality
    rated = bool(owes_bond or weights.opinion or weights.evidence or record.announcement.newcomer_share_ppm)
    announcer, interests, timelines = record.announcer, state.interests, state.timelines
    own, is_linked = interests[announcer], announcer in state.linked
    starts_ms, ends_ms, rate_bps = block.starts_ms, block.ends_ms, block.committed_bps
    providers: dict[str, Party] = state.records["party"]
    ratings: dict[str, ShownRating] = {}
    able: dict[str, bool] = {}
    offers = []
    for offer in state.offers_of.get(service, {}).values():
        provider = offer.provider
        known = able.get(provider)
        if known is None:
            timeline = timelines.get(provider)
            peak_bps = 0
            if timeline is not None:
                peak_bps = timeline.highest_bps
                if peak_bps + rate_bps > providers[provider].capacity_bps:
                    peak_bps = timeline.peak_bps(starts_ms, ends_ms)
            needed = 0
            if rated:
                rating = ratings[provider] = reputation.latest_of(known_ratings, provider, service, at_ms)
                needed = opinions.bond_needed(draft, record, rating) if owes_bond else 0
            known = able[provider] = (
                peak_bps + rate_bps <= providers[provider].capacity_bps
                and provider != announcer
                and (not is_linked or own.isdisjoint(interests[provider]))
                and (not prime or chains.is_allowed(draft, prime, provider))
                and (not needed or draft.balance(bond(provider)) >= needed)
            )
        if known:
            offers.append(offer)
    return offers, ratings


def _use_units(draft: Draft, name: str, quantity: int) -> None:
    """A firm offer is good for its quantity, and no more than that."""
    offer: StandingOffer = draft.get("offer", name)
    left = offer.quantity - quantity
    if left > 0:
        draft.put("offer", name, msgspec.structs.replace(offer, quantity=left))
    else:
        draft.put("offer", name, msgspec.structs.replace(offer, valid_until_ms=draft.at_ms))
