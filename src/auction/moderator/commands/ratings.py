"""Commands about ratings both ways, and what may be seen of them."""

from __future__ import annotations

from auction.model.bid import ShownRating
from auction.model.errors import Unknown
from auction.model.party import Signature
from auction.model.rating import DraftedRating, Exchange, Opinion
from auction.moderator.core import Core
from auction.moderator.reputation import PAYMENTS
from auction.moderator.rules import opinions, standing


class Ratings(Core):
    def rate(
        self,
        agreement: str,
        rater: str,
        satisfied: bool,
        *,
        device: str = "",
        remark: str = "",
        evidence: tuple[str, ...] = (),
        signature: Signature | None = None,
        key: str | None = None,
    ) -> Exchange:
        """The recipient says, from one of its devices, whether the service was satisfactorily provided; the provider
        whether the recipient satisfactorily paid. `evidence` names deliveries of this agreement. The signature is the
        device's, or the provider's. The answer shows the rater's own side alone, until both are in."""
        arguments = (agreement, rater, satisfied, device, remark, evidence, signature)
        return self._run("rate", key, arguments, opinions.rate, Exchange)

    def opinions(self, agreement: str) -> tuple[Opinion, ...]:
        """What anyone may see of the opinions about an agreement: nothing before they are in the open."""
        with self._deciding:
            exchange = self._draft().find("exchange", agreement)
            if exchange is None:
                raise Unknown(f"nobody could rate {agreement} yet")
            is_open = agreement in self._state.records["revealed"]
        return tuple(one for one in (exchange.service, exchange.payment) if one is not None) if is_open else ()

    def rating(self, party: str, service: str = PAYMENTS) -> ShownRating:
        """How a party is rated now: as a provider of the service, or (without one) as who pays."""
        with self._deciding:
            self._draft().party(party)
            return self._state.reputation.shown_at(party, service, self._state.sequence, self._time.read())

    def drafted_payment_rating(self, agreement: str) -> bool | None:
        """The provider's draft of its rating, from what the payment came to; None where nothing can be said."""
        with self._deciding:
            return opinions.drafted_payment_rating(self._draft().agreement(agreement))

    def drafted_rating(self, agreement: str, rater: str) -> DraftedRating | None:
        """What this side's opinion would be by the stated rule: the recipient's from what its side measured of who
        serves (see `rating.draft_of_service`), the provider's from what the payment came to. None where nothing can be
        said: nobody of the recipient's side measured, or nothing is charged yet."""
        with self._deciding:
            return opinions.drafted_rating(self._draft(), agreement, rater)

    def rate_as_drafted(
        self,
        agreement: str,
        rater: str,
        *,
        device: str = "",
        overrule_ms: int = 0,
        signature: Signature | None = None,
        key: str | None = None,
    ) -> DraftedRating:
        """Rates as `drafted_rating` says: at once, or where `overrule_ms` is above zero only when that time has passed
        and this side has said nothing itself (see `rate`). The signature is over the drafted words. Raises WrongState
        where nothing can be drafted."""
        arguments = (agreement, rater, device, overrule_ms, signature)
        return self._run("rate_as_drafted", key, arguments, opinions.rate_as_drafted, DraftedRating)

    def payment_probability_ppm(self, recipient: str) -> int:
        """The predicted probability that the recipient's next charge is accepted, in parts per million."""
        with self._deciding:
            return standing.payment_probability_ppm(self._draft(self._time.read()), recipient)
