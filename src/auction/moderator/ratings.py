"""Ratings both ways: who may say what about which agreement, when it comes into the open, and what it demands."""

from __future__ import annotations

from auction.agreement import Agreement, next_state
from auction.bid import ShownRating
from auction.errors import NotAllowed, PrepaymentRequired, Unknown, WrongState
from auction.moderator.agreements import AgreementCommands
from auction.moderator.records import Auction, Revealed
from auction.moderator.reputation import PAYMENTS
from auction.moderator.state import Draft
from auction.party import Signature
from auction.payment import PREPAID
from auction.rating import (
    DAY_MS,
    Exchange,
    Kind,
    Opinion,
    bond_due,
    draft_of_payment,
    payment_terms,
    probability_of_payment_ppm,
)
from auction.signing import rating_body


class RatingCommands(AgreementCommands):
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

        def decide(draft: Draft) -> Exchange:
            return self._rate(draft, agreement, rater, satisfied, device, remark, evidence, signature)

        arguments = (agreement, rater, satisfied, device, remark, evidence, signature)
        return self._run("rate", key, arguments, decide, Exchange)

    def opinions(self, agreement: str) -> tuple[Opinion, ...]:
        """What anyone may see of the opinions about an agreement: nothing before they are in the open."""
        with self._deciding:
            exchange = Draft(self._state, 0).find("exchange", agreement)
            if exchange is None:
                raise Unknown(f"nobody could rate {agreement} yet")
            is_open = agreement in self._state.records["revealed"]
        return tuple(one for one in (exchange.service, exchange.payment) if one is not None) if is_open else ()

    def rating(self, party: str, service: str = PAYMENTS) -> ShownRating:
        """How a party is rated now: as a provider of the service, or (without one) as who pays."""
        with self._deciding:
            Draft(self._state, 0).party(party)
            return self._state.reputation.shown_at(party, service, self._state.sequence, self._time.read())

    def drafted_payment_rating(self, agreement: str) -> bool | None:
        """The provider's draft of its rating, from what the payment came to; None where nothing can be said."""
        with self._deciding:
            record = Draft(self._state, 0).agreement(agreement)
        charge = "charged_back" if record.charged_back else {"charged": "captured"}.get(record.state, record.state)
        return draft_of_payment(charge, sponsored=bool(record.sponsor))

    def payment_probability_ppm(self, recipient: str) -> int:
        """The predicted probability that the recipient's next charge is accepted, in parts per million."""
        with self._deciding:
            reputation = self._state.reputation
            tally = reputation.history(recipient, PAYMENTS).opinions
            return probability_of_payment_ppm(tally, self._time.read() // DAY_MS, reputation.rules)

    # What follows decides on a draft.

    def _rate(
        self,
        draft: Draft,
        name: str,
        rater: str,
        satisfied: bool,
        device: str,
        remark: str,
        evidence: tuple[str, ...],
        signature: Signature | None,
    ) -> Exchange:
        agreement = draft.agreement(name)
        next_state(agreement.state, "rate")
        exchange: Exchange = draft.get("exchange", name)
        kind: Kind = "service" if rater == agreement.recipient else "payment"
        if name in draft.state.records["revealed"]:
            raise WrongState(f"the opinions about {name} are in the open already")
        if kind == "payment" and agreement.sponsor:
            raise NotAllowed(f"{agreement.recipient} was sponsored and owed nothing: there is nothing to rate")
        signer = rater
        if kind == "service" and not device and draft.party(rater).kind == "provider":
            device = rater  # a provider that has subcontracted speaks for itself
        if kind == "service" and device and device != rater:
            if draft.party(device).kind != "device" or self._stands_for(draft, device) != rater:
                raise NotAllowed(f"{device} is no device of {rater}")
            signer = device
        for cited in evidence:
            if draft.get("delivery", cited).agreement != name:
                raise NotAllowed(f"{cited} was not measured under {name}")
        opinion = Opinion(
            agreement=name,
            kind=kind,
            rater=rater,
            ratee=agreement.provider if kind == "service" else agreement.recipient,
            satisfied=satisfied,
            at_ms=draft.at_ms,
            device=device,
            remark=remark,
            evidence=evidence,
        )
        changed = exchange.with_opinion(opinion, self.config.rating)
        self._check_signature(draft, "rating", name, signer, rating_body(satisfied, remark, device), signature)
        draft.put("exchange", name, changed)
        if changed.service is not None and changed.payment is not None:
            self._reveal(draft, changed)
            return changed
        own = {kind: opinion}
        return Exchange(
            agreement=name,
            provider=exchange.provider,
            recipient=exchange.recipient,
            finished_ms=exchange.finished_ms,
            service=own.get("service"),
            payment=own.get("payment"),
        )

    def _open_exchange(self, draft: Draft, agreement: Agreement) -> None:
        """From the charge on, each side may rate once."""
        exchange = Exchange(
            agreement=agreement.id,
            provider=agreement.provider,
            recipient=agreement.recipient,
            finished_ms=draft.at_ms,
        )
        draft.put("exchange", agreement.id, exchange)

    def _reveal(self, draft: Draft, exchange: Exchange) -> None:
        agreement = draft.agreement(exchange.agreement)
        amount = agreement.charged or agreement.price
        value = draft.state.reputation.deal_value(agreement.recipient, agreement.provider, amount)
        revealed = Revealed(agreement=agreement.id, service=agreement.service, value=value, at_ms=draft.at_ms)
        draft.put("revealed", agreement.id, revealed)

    def _reveal_when_due(self, draft: Draft, name: str) -> None:
        if name not in draft.state.records["revealed"]:
            self._reveal(draft, draft.get("exchange", name))

    def _rating_at(self, draft: Draft, record: Auction, bidder: str) -> ShownRating:
        service = record.announcement.service if record.announcement.direction == "provide" else PAYMENTS
        return draft.state.reputation.shown_at(bidder, service, record.announced_sequence, record.announced_ms)

    def _bond_needed(self, record: Auction, rating: ShownRating | None) -> int:
        """What the auction asks for, and what a newcomer owes at least, so that a new name is no escape."""
        asked = record.announcement.bond
        if rating is None or record.announcement.direction == "receive":
            return asked
        return max(asked, bond_due(rating, self.config.rating))

    def _check_payer(self, draft: Draft, agreement: Agreement) -> None:
        """Raises NotAllowed or PrepaymentRequired for a recipient that will probably not pay. A prepaid price is held
        before the service, so it is always taken."""
        if agreement.method == PREPAID:
            return
        reputation = draft.state.reputation
        tally = reputation.history(agreement.recipient, PAYMENTS).opinions
        probability_ppm = probability_of_payment_ppm(tally, draft.at_ms // DAY_MS, reputation.rules)
        terms = payment_terms(probability_ppm, reputation.rules)
        if terms == "refused":
            raise NotAllowed(f"{agreement.recipient} will probably not pay ({probability_ppm} in a million)")
        if terms == "prepaid":
            raise PrepaymentRequired(f"{agreement.recipient} has to prepay ({probability_ppm} in a million)")
