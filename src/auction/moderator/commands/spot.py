"""Commands for a control plane whose stream is waiting: firm offers that stand, and the award at once among them."""

from __future__ import annotations

from auction.model.agreement import Agreement
from auction.model.bid import StandingOffer
from auction.model.block import Block
from auction.model.party import Signature
from auction.moderator.core import Core
from auction.moderator.rules import spot
from auction.moderator.terms import AuctionTerms


class Spot(Core):
    def stand_offer(
        self, offer: StandingOffer, signature: Signature | None = None, *, key: str | None = None
    ) -> StandingOffer:
        """A provider's firm offer, good until `valid_until_ms`; one of the same name takes the place of the former."""
        return self._run("stand_offer", key, (offer, signature), spot.stand_offer, StandingOffer)

    def withdraw_offer(self, offer: str, provider: str, *, key: str | None = None) -> StandingOffer:
        """The offer stands no longer."""
        return self._run("withdraw_offer", key, (offer, provider), spot.withdraw_offer, StandingOffer)

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
        command or by `flush`, and lost where the process dies before that. When 256 answers are not written yet, the
        next one waits until they are. Raises NoAward."""
        return self._run("spot", key, (recipient, block, terms, prime), spot.award_at_once, Agreement, wait=wait)

    def offers(self, service: str) -> list[StandingOffer]:
        """The offers of a service that stand."""
        with self._deciding:
            now_ms = self._time.read()
            offers = self._state.offers_of.get(service, {}).values()
            return [offer for offer in offers if offer.valid_until_ms > now_ms]
