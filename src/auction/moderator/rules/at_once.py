"""Auctions in one command: among the bids that come with it, or among standing offers.

`bidding` has the conditions for a single bidder; here is only a fast check that all bidders meet them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from auction.formats import format_of
from auction.formats.spot import SPOT, rank_offers
from auction.model import holding
from auction.model.agreement import Agreement
from auction.model.bid import ShownRating, StandingOffer
from auction.model.block import Block
from auction.model.errors import (
    BadValue,
    Exists,
    Expired,
    InsufficientFunds,
    LinkedParties,
    NoAward,
    NoCapacity,
    NotAllowed,
)
from auction.model.ledger import NOBODY, bond, funds, held_bond
from auction.model.money import check_currency
from auction.model.party import Party, Signature, check_chosen
from auction.model.signing import bid_body, offer_body
from auction.moderator.draft import Draft
from auction.moderator.records import SEQUENCES_OF_AN_ENTRY, Auction, BidSheet, Offered, OfferSheet
from auction.moderator.rules import admission, announcing, awarding, bidding, chains, holds, opinions, parties
from auction.moderator.terms import AuctionTerms, BidEntry, Held
from auction.payment.protocol import PREPAID

OFFER_MS_MAX: Final = 24 * 3_600_000


def hold(
    draft: Draft, announcer: str, block: Block | str, terms: AuctionTerms, entries: Sequence[BidEntry], auction: str
) -> Held:
    record = _announce(draft, announcer, block, terms, auction, "")
    bidders = [entry.bidder for entry in entries]
    if len(bidders) >= SEQUENCES_OF_AN_ENTRY:
        raise BadValue(f"one command takes at most {SEQUENCES_OF_AN_ENTRY - 1} bids")
    only_prices = _say_only_prices(entries)
    insures = not only_prices and any(entry.insured for entry in entries)
    if insures or not _plainly_may_bid(draft, record, bidders):
        for entry in entries:
            bidding.check_bidder(draft, record, entry.bidder, entry.quantity)
            _check_bid_held(draft, record, entry)
        _check_links(draft, bidders)
    sheet = _sheet(draft, record, entries, bidders, only_prices)
    draft.put("sheet", record.id, sheet)
    closed = _close_by_price(draft, record, sheet) or _close(draft, record, sheet)
    return Held(record.id, closed.state, tuple(awarding.agreements_made(draft)))


def _check_links(draft: Draft, bidders: Sequence[str]) -> None:
    """Refuses bids against oneself under another name among those of this command."""
    has_bid: dict[str, str] = {}
    for bidder in bidders:
        for name in draft.state.interests[bidder]:
            other = has_bid.setdefault(name, bidder)
            if other != bidder:
                raise LinkedParties(f"{bidder} is linked to {other}, who has bid already")


def _announce(
    draft: Draft, announcer: str, block: Block | str, terms: AuctionTerms, auction: str, prime: str
) -> Auction:
    """Announces an auction that the same command awards. The announcer must have the money; only the award's hold is
    placed."""
    record = announcing.announce(draft, announcer, block, terms, auction, prime)
    if terms.method != PREPAID:
        raise BadValue("a card must be authorised before bidding opens: announce, then pay")
    needed = holds.of_announcement(draft, record.announcement)
    if record.announcement.direction == "provide":
        there = draft.balance(funds(announcer))
    else:
        there = holds.secured_by(draft, announcer)
    if there < needed:
        raise InsufficientFunds(f"{announcer} has {there} minor units, {needed} are to be held")
    return record


def _check_bid_held(draft: Draft, record: Auction, entry: BidEntry) -> None:
    """Checks that the bidder has what the bid would hold. Nothing is held: the award comes in the same command."""
    announcement, bidder = record.announcement, entry.bidder
    needed = holds.of_bid(draft, announcement, entry)
    providing = announcement.direction == "provide"
    there = holds.secured_by(draft, bidder) if providing else draft.balance(funds(bidder))
    if there < needed:
        raise InsufficientFunds(f"{bidder} has {there} minor units, {needed} are to be held for its bid")


def _close_by_price(draft: Draft, record: Auction, sheet: BidSheet) -> Auction | None:
    """Closes from the columns alone, if the format can; the award then follows from the sheet. Without the columns an
    auction of 10 bids takes 1.9 times as long, one of 100 bids 4.9 times."""
    by_price = format_of(record.announcement).by_price
    if by_price is None or sheet.entries or record.refused:
        return None
    winners = by_price(record.announcement, sheet.name_of, sheet.bidders, sheet.prices)
    if winners is None:
        return None
    for one in winners:
        if not awarding.can_hold(draft, record, one, 0):
            return None
    if not awarding.seller_can_hold(draft, record, winners):
        return None
    return awarding.conclude(draft, record, winners)


def _close(draft: Draft, record: Auction, sheet: BidSheet) -> Auction:
    bids = sheet.bids()
    for bid, signature in zip(bids, sheet.signatures(), strict=True):
        if signature is not None or draft.config.signatures:
            parties.check_signature(draft, "bid", record.id, bid.bidder, bid_body(bid), signature)
    unmatched = {
        bid.bid: admission.NOT_MATCHED for bid in bids if admission.is_on(draft.state, record.refused, bid.bidder)
    }
    considered = [bid for bid in bids if bid.bid not in unmatched]
    award, failing = awarding.decide_funded(draft, record, considered, sheet.rating_of(), {})
    burnt = holding.delta_of(holds.whole_reserve(record.announcement), record.announcement.delta_ppm)
    for bid in bids:
        if failing.get(bid.bid) == "hold":  # the bid was worthless: what it would have held goes to nobody
            holds.secure(draft, bid.bidder, NOBODY, min(burnt, holds.secured_by(draft, bid.bidder)))
    arbiters = {bid.bid: entry.arbiter for bid, entry in zip(bids, sheet.entries, strict=False)}
    return awarding.take(draft, record, award, (*unmatched.items(), *failing.items()), arbiters)


def _sheet(
    draft: Draft, record: Auction, entries: Sequence[BidEntry], bidders: Sequence[str], only_prices: bool
) -> BidSheet:
    """The bids as columns. Ratings are stored if they weigh; otherwise the history has them."""
    announcement = record.announcement
    prices = [entry.price for entry in entries]
    is_plain = only_prices and not draft.config.signatures and min(prices, default=0) >= 0
    weighs = announcement.weighs_ratings
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
    """Whether a fast check shows that `bidding.check_bidder` would refuse none of them. False says nothing."""
    state, announcement = draft.state, record.announcement
    if (
        announcement.quantity != 1
        or not state.linked.isdisjoint(bidders)
        or len({record.announcer, *bidders}) <= len(bidders)
    ):
        return False
    if announcement.direction != "provide" or announcement.receipts or state.debts_of or state.banned or state.erased:
        return False
    if announcement.requires or state.records["refusals"]:
        return False
    block, service, registered = record.block, announcement.service, state.records["party"]
    rate_bps = block.committed_bps if block is not None else 0
    of_bid, of_newcomer = holds.amounts_of(draft, announcement).delta, holds.newcomers_balance(draft, announcement)
    spare_bps, free, most = state.spare_bps, state.ledger.free, max(of_bid, of_newcomer)
    for bidder in bidders:
        if spare_bps.get(bidder, -1) >= rate_bps and free.get(bidder, -1) >= most:
            continue  # then it is a provider
        party = registered.get(bidder)
        if party is None or party.kind not in bidding.BIDDERS["provide"] or state.spare_of(party) < rate_bps:
            return False
        there = state.ledger.free_of(bidder)
        if there < of_bid:
            return False
        if there < of_newcomer and state.reputation.shown_now(bidder, service, draft.at_ms).newcomer:
            return False
    return True


def _say_only_prices(entries: Sequence[BidEntry]) -> bool:
    for entry in entries:
        if (
            entry.quantity != 1
            or entry.signature is not None
            or entry.limit is not None
            or entry.items
            or entry.salt
            or entry.arbiter
            or entry.insured
        ):
            return False
    return True


def stand_offer(draft: Draft, offer: StandingOffer, signature: Signature | None) -> StandingOffer:
    if draft.party(offer.provider).kind != "provider":
        raise NotAllowed(f"{offer.provider} is not a provider")
    check_currency(offer.currency, draft.config.currency)
    admission.check_not_barred(draft, offer.provider)
    if offer.valid_until_ms <= draft.at_ms:
        raise Expired("the offer has expired already")
    if offer.available_until_ms <= draft.at_ms:
        raise BadValue("the time for which the offer is available has passed")
    if offer.valid_until_ms > draft.at_ms + OFFER_MS_MAX:
        raise BadValue("an offer stands for at most 24 hours; it can be placed again")
    former = draft.find("offer", offer.offer)
    if former is None and draft.find("auction", check_chosen(offer.offer)) is not None:
        raise Exists(f"there is an auction {offer.offer!r} already")  # both hold money by their names
    if former is None:
        draft.check_unused("auction", offer.offer)
        if not draft.state.is_used("offer", offer.offer, offer.provider):  # otherwise its own name is used again
            draft.check_unused("offer", offer.offer)
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
    _let_offer_go(draft, offer.offer)
    draft.put("offer", offer.offer, numbered)
    amount = holding.of_offer(offer.unit_price, offer.quantity, holding.DELTA_PPM)
    holds.secure(draft, offer.provider, held_bond(offer.offer), amount)
    offered = Offered(
        offer=offer.offer,
        provider=offer.provider,
        key=f"{offer.offer}/{draft.sequence}",
        held=amount,
        rate_bps=offer.rate_bps_max,
        from_ms=max(offer.available_from_ms, draft.at_ms),
        until_ms=offer.available_until_ms,
    )
    draft.put("offered", offer.offer, offered)
    capacity_bps = draft.party(offer.provider).capacity_bps
    peak_bps = draft.peak_bps(offer.provider, offered.from_ms, offered.until_ms)
    if peak_bps > capacity_bps:
        raise NoCapacity(f"with this offer {offer.provider} would promise {peak_bps} bit/s, and has {capacity_bps}")
    return numbered


def withdraw_offer(draft: Draft, offer: str, provider: str) -> StandingOffer:
    former: StandingOffer = draft.get("offer", offer)
    if former.provider != provider:
        raise NotAllowed(f"{offer} is an offer of {former.provider}")
    return _end_offer(draft, former)


def offer_is_due(draft: Draft, name: str, due_ms: int) -> None:
    """Ends an offer that was not placed again."""
    offer: StandingOffer = draft.get("offer", name)
    if offer.valid_until_ms == due_ms:
        _let_offer_go(draft, name)


def _end_offer(draft: Draft, offer: StandingOffer) -> StandingOffer:
    _let_offer_go(draft, offer.offer)
    ended = msgspec.structs.replace(offer, valid_until_ms=draft.at_ms)
    draft.put("offer", offer.offer, ended)
    return ended


def _let_offer_go(draft: Draft, name: str) -> None:
    """Releases the hold of an offer to the free bond, and its capacity."""
    offered: Offered | None = draft.find("offered", name)
    if offered is not None and (offered.held or offered.rate_bps):
        draft.transfer(held_bond(name), bond(offered.provider), offered.held)
        draft.put("offered", name, msgspec.structs.replace(offered, held=0, rate_bps=0))


def award_at_once(draft: Draft, recipient: str, block: Block, terms: AuctionTerms, prime: str) -> Agreement:
    if terms.format != SPOT:
        terms = msgspec.structs.replace(terms, format=SPOT)
    record = _announce(draft, recipient, block, terms, "", prime)
    announcement = record.announcement
    block = record.block or block
    offers, ratings, excluded = _able(draft, record, block, prime)
    seed = bytes.fromhex(record.seed)
    while True:
        ranked = rank_offers(announcement, offers, ratings, seed, draft.at_ms)
        if not ranked.within:
            raise NoAward("no standing offer fulfils the terms within the reserve")
        winner = ranked.winners(announcement.quantity)[0]
        offer: StandingOffer = draft.get("offer", winner.bid)
        freed = _use_units(draft, offer, terms.quantity)
        if awarding.can_hold(draft, record, winner, 0):
            break
        draft.transfer(bond(winner.bidder), NOBODY, freed)  # it offered more than it can secure
        offers = [one for one in offers if one.offer != winner.bid]
    draft.put("offer_sheet", record.id, OfferSheet.of(ranked))
    from_offer = msgspec.structs.replace(block, offer=draft.get("offered", winner.bid).key)  # of the offer's capacity
    awarding.conclude(draft, msgspec.structs.replace(record, block=from_offer), (winner,), tuple(excluded))
    return draft.agreement(awarding.agreements_made(draft)[0])


def _able(
    draft: Draft, record: Auction, block: Block, prime: str
) -> tuple[list[StandingOffer], dict[str, ShownRating], list[tuple[str, str]]]:
    """The standing offers that hold the capacity, of providers with a newcomer's bond and without a link to the
    recipient; their ratings if they weigh; and the excluded offers with reasons (see `admission`). It makes one pass,
    because a spot award spends most of its time here."""
    state, at_ms = draft.state, draft.at_ms
    service, reputation = block.service, state.reputation
    known_ratings = reputation.latest(service, at_ms)
    announcement, ledger = record.announcement, state.ledger
    minimum = holds.newcomers_balance(draft, announcement)
    receipts, requires = announcement.receipts, announcement.requires
    has_unfit = bool(requires or state.debts_of or state.banned or state.erased or state.records["refusals"])
    weighs = announcement.weighs_ratings
    announcer, interests = record.announcer, state.interests
    standing = state.standing
    own, is_linked = interests[announcer], announcer in state.linked
    starts_ms, ends_ms, rate_bps = block.starts_ms, block.ends_ms, block.committed_bps
    providers: dict[str, Party] = state.records["party"]
    free = ledger.free
    is_plain = not (weighs or has_unfit or is_linked or receipts or prime)
    ratings: dict[str, ShownRating] = {}
    able: dict[str, bool] = {}
    unfit: dict[str, str] = {}
    excluded: list[tuple[str, str]] = []
    offers = []
    for offer in state.offers_of.get(service, {}).values():
        provider = offer.provider
        used, most_bps = standing.get(offer.offer), offer.rate_bps_max - rate_bps  # what it holds is there
        if used is None or (used.highest_bps > most_bps and used.peak_bps(starts_ms, ends_ms) > most_bps):
            continue
        if is_plain and free.get(provider, -1) >= minimum:
            if provider != announcer:
                offers.append(offer)
            continue
        known = able.get(provider)
        if known is None:
            if has_unfit:
                unfit[provider] = admission.why_unfit(draft, announcer, requires, provider)
            secured = ledger.free_of(provider)
            is_poor = secured < minimum and secured + ledger.balance(held_bond(offer.offer)) < minimum
            if weighs or is_poor:
                rating = ratings[provider] = reputation.latest_of(known_ratings, provider, service, at_ms)
                is_poor = is_poor and rating.newcomer
            known = able[provider] = (
                provider != announcer
                and not is_poor
                and (not is_linked or own.isdisjoint(interests[provider]))
                and (not receipts or bool(providers[provider].public_key))
                and (not prime or chains.is_allowed(draft, prime, provider))
            )
        if has_unfit and unfit[provider]:
            excluded.append((offer.offer, unfit[provider]))
        elif known:
            offers.append(offer)
    return offers, ratings, excluded


def _use_units(draft: Draft, offer: StandingOffer, quantity: int) -> int:
    """Subtracts the used units from the offer's quantity. Returns the hold of these units, which is now free bond."""
    left = offer.quantity - quantity
    offered: Offered | None = draft.find("offered", offer.offer)
    before = offered.held if offered is not None else 0
    if left <= 0:
        _end_offer(draft, offer)
        return before
    draft.put("offer", offer.offer, msgspec.structs.replace(offer, quantity=left))
    if offered is None:
        return 0
    after = min(before, holding.of_offer(offer.unit_price, left, holding.DELTA_PPM))
    draft.transfer(held_bond(offer.offer), bond(offer.provider), before - after)
    draft.put("offered", offer.offer, msgspec.structs.replace(offered, held=after))
    return before - after
