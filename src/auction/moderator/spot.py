"""Standing firm offers, and the award at once among them: what a control plane asks for when a stream is waiting."""

from __future__ import annotations

import msgspec

from auction.agreement import Agreement
from auction.bid import ShownRating, StandingOffer
from auction.block import Block
from auction.errors import Expired, NoAward, NotAllowed
from auction.formats.spot import spot_award
from auction.ledger import bond
from auction.moderator.records import Auction
from auction.moderator.sealing import SealingCommands
from auction.moderator.state import Draft
from auction.moderator.terms import AuctionTerms
from auction.party import Party, Signature
from auction.signing import offer_body


class SpotCommands(SealingCommands):
    def stand_offer(
        self, offer: StandingOffer, signature: Signature | None = None, *, key: str | None = None
    ) -> StandingOffer:
        """A provider's firm offer, good until `valid_until_ms`; one of the same name takes the place of the former."""

        def decide(draft: Draft) -> StandingOffer:
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
            self._check_signature(draft, "offer", offer.offer, offer.provider, body, signature)
            standing = msgspec.structs.replace(offer, sequence=draft.sequence)
            draft.put("offer", offer.offer, standing)
            return standing

        return self._run("stand_offer", key, (offer, signature), decide, StandingOffer)

    def withdraw_offer(self, offer: str, provider: str, *, key: str | None = None) -> StandingOffer:
        """The offer stands no longer."""

        def decide(draft: Draft) -> StandingOffer:
            former: StandingOffer = draft.get("offer", offer)
            if former.provider != provider:
                raise NotAllowed(f"{offer} is an offer of {former.provider}")
            ended = msgspec.structs.replace(former, valid_until_ms=draft.at_ms)
            draft.put("offer", offer, ended)
            return ended

        return self._run("withdraw_offer", key, (offer, provider), decide, StandingOffer)

    def spot(
        self,
        recipient: str,
        block: Block,
        terms: AuctionTerms,
        *,
        prime: str = "",
        key: str | None = None,
        wait: bool = True,
    ) -> Agreement:
        """Awards the block at once to the best standing offer, and holds the price. `terms.open_for_ms` is the deadline
        of the answer. With `wait=False` the answer comes before it is durable (no I/O): it is written with the next
        command or by `flush`, and lost where the process dies before that. Raises NoAward."""

        def decide(draft: Draft) -> Agreement:
            record = self._announce(draft, recipient, block, terms, "", prime)
            announcement = record.announcement
            offers, ratings = self._able(draft, record, record.block or block, prime)
            award = spot_award(announcement, offers, ratings, bytes.fromhex(record.seed), draft.at_ms)
            if award.failed:
                raise NoAward("no standing offer fulfils the terms within the reserve")
            name = self._award(draft, record, award)[0]
            self._use_units(draft, award.winners[0].bid, terms.quantity)
            return self._agree(draft, name)

        return self._run("spot", key, (recipient, block, terms, prime), decide, Agreement, wait=wait)

    def offers(self, service: str) -> list[StandingOffer]:
        """The offers of a service that stand."""
        with self._deciding:
            now_ms = self._time.read()
            offers = self._state.offers_of.get(service, {}).values()
            return [offer for offer in offers if offer.valid_until_ms > now_ms]

    def _able(
        self, draft: Draft, record: Auction, block: Block, prime: str
    ) -> tuple[list[StandingOffer], dict[str, ShownRating]]:
        """The standing offers of who has the capacity, the bond a newcomer owes, and no link to the recipient; with
        their ratings. One pass, for it is what a spot award spends its time on."""
        state, at_ms = draft.state, draft.at_ms
        service, reputation = block.service, state.reputation
        known_ratings = reputation.latest(service, at_ms)
        owes_bond = record.announcement.bond or self.config.rating.newcomer_bond
        own, interests, timelines = state.interests[record.announcer], state.interests, state.timelines
        starts_ms, ends_ms, rate_bps = block.starts_ms, block.ends_ms, block.committed_bps
        parties: dict[str, Party] = state.records["party"]
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
                    if peak_bps + rate_bps > parties[provider].capacity_bps:
                        peak_bps = timeline.peak_bps(starts_ms, ends_ms)
                rating = known_ratings.get(provider)
                if rating is None:
                    rating = reputation.latest_of(known_ratings, provider, service, at_ms)
                ratings[provider] = rating
                needed = self._bond_needed(record, rating) if owes_bond else 0
                known = able[provider] = (
                    peak_bps + rate_bps <= parties[provider].capacity_bps
                    and own.isdisjoint(interests[provider])
                    and (not prime or self._is_allowed_in_chain(draft, prime, provider))
                    and (not needed or draft.balance(bond(provider)) >= needed)
                )
            if known:
                offers.append(offer)
        return offers, ratings

    @staticmethod
    def _use_units(draft: Draft, name: str, quantity: int) -> None:
        """A firm offer is good for its quantity, and no more than that."""
        offer: StandingOffer = draft.get("offer", name)
        left = offer.quantity - quantity
        if left > 0:
            draft.put("offer", name, msgspec.structs.replace(offer, quantity=left))
        else:
            draft.put("offer", name, msgspec.structs.replace(offer, valid_until_ms=draft.at_ms))
