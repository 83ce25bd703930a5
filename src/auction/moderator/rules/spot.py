"""Standing firm offers, and the award at once among those that can be kept. Which wins: `formats.spot`."""

from __future__ import annotations

import msgspec

from auction.formats.spot import SPOT, rank_offers
from auction.model.agreement import Agreement, Runner
from auction.model.bid import ShownRating, StandingOffer
from auction.model.block import Block
from auction.model.errors import Expired, NoAward, NotAllowed
from auction.model.ledger import bond
from auction.model.party import Party, Signature
from auction.model.signing import offer_body
from auction.moderator.draft import Draft
from auction.moderator.records import Auction, OfferSheet
from auction.moderator.rules import agreements, announcing, awarding, chains, parties, standing
from auction.moderator.terms import AuctionTerms


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
                needed = standing.bond_needed(draft, record, rating) if owes_bond else 0
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
