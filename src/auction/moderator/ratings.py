"""Ratings both ways: who may say what about which agreement, when it comes into the open, and what it demands."""

from __future__ import annotations

import msgspec

from auction.agreement import Agreement, next_state
from auction.bid import ShownRating
from auction.errors import NotAllowed, PrepaymentRequired, Unknown, WrongState
from auction.moderator.agreements import AgreementCommands
from auction.moderator.records import Auction, Drafted, Measured, Revealed
from auction.moderator.reputation import PAYMENTS
from auction.moderator.state import Draft
from auction.money import check_integer
from auction.party import Signature
from auction.payment import PREPAID
from auction.rating import (
    DAY_MS,
    DraftedRating,
    Exchange,
    Kind,
    Opinion,
    bond_due,
    draft_of_payment,
    draft_of_service,
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
            said = (satisfied, device, remark, evidence, signature)
            return self._take_opinion(draft, self._opinion(draft, agreement, rater, *said))

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
            return self._payment_draft(Draft(self._state, 0).agreement(agreement))

    def drafted_rating(self, agreement: str, rater: str) -> DraftedRating | None:
        """What this side's opinion would be by the stated rule: the recipient's from what its side measured of who
        serves (see `rating.draft_of_service`), the provider's from what the payment came to. None where nothing can be
        said: nobody of the recipient's side measured, or nothing is charged yet."""
        with self._deciding:
            return self._drafted(Draft(self._state, 0), agreement, rater)

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

        def decide(draft: Draft) -> DraftedRating:
            drafted = self._drafted(draft, agreement, rater)
            if drafted is None:
                raise WrongState(f"nothing can be drafted for {rater} about {agreement}")
            said = (drafted.satisfied, device, drafted.remark, drafted.evidence, signature)
            opinion = self._opinion(draft, agreement, rater, *said)
            if check_integer(overrule_ms, "time to overrule", 0, self.config.rating.hidden_ms - 1) == 0:
                self._take_opinion(draft, opinion)
            else:
                name = f"{agreement}/{opinion.kind}"
                draft.add("drafted", name, Drafted(id=name, opinion=opinion, due_ms=draft.at_ms + overrule_ms))
            return drafted

        arguments = (agreement, rater, device, overrule_ms, signature)
        return self._run("rate_as_drafted", key, arguments, decide, DraftedRating)

    def payment_probability_ppm(self, recipient: str) -> int:
        """The predicted probability that the recipient's next charge is accepted, in parts per million."""
        with self._deciding:
            reputation = self._state.reputation
            tally = reputation.history(recipient, PAYMENTS).opinions
            return probability_of_payment_ppm(tally, self._time.read() // DAY_MS, reputation.rules)

    # What follows decides on a draft.

    def _opinion(
        self,
        draft: Draft,
        name: str,
        rater: str,
        satisfied: bool,
        device: str,
        remark: str,
        evidence: tuple[str, ...],
        signature: Signature | None,
    ) -> Opinion:
        """An opinion that this rater may have of this agreement, and has signed where that is wanted."""
        agreement = draft.agreement(name)
        next_state(agreement.state, "rate")
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
        self._exchange(draft, name).with_opinion(opinion, self.config.rating)
        self._check_signature(draft, "rating", name, signer, rating_body(satisfied, remark, device), signature)
        return opinion

    @staticmethod
    def _exchange(draft: Draft, name: str) -> Exchange:
        return draft.get("exchange", name)  # type: ignore[no-any-return]

    def _take_opinion(self, draft: Draft, opinion: Opinion) -> Exchange:
        """Takes the opinion in; the answer shows the rater's own side alone, until both are in."""
        changed = self._exchange(draft, opinion.agreement).with_opinion(opinion, self.config.rating)
        draft.put("exchange", opinion.agreement, changed)
        if changed.service is not None and changed.payment is not None:
            self._reveal(draft, changed)
            return changed
        other = "payment" if opinion.kind == "service" else "service"
        return msgspec.structs.replace(changed, **{other: None})

    def _drafted(self, draft: Draft, name: str, rater: str) -> DraftedRating | None:
        agreement = draft.agreement(name)
        if rater == agreement.recipient:
            leg = agreement.legs[-1] if agreement.legs else None
            if leg is None or not leg.measured_by_recipient:
                return None
            measured: Measured = draft.get("delivery", leg.measurement)
            audits = (measured.delivery.audited, measured.delivery.audits_failed)
            drafted = draft_of_service(leg.delivered_ppm, *audits, self.config.rating)
            return msgspec.structs.replace(drafted, evidence=(leg.measurement,))
        if rater != agreement.provider:
            raise NotAllowed(f"{rater} is no side of {name}")
        paid = self._payment_draft(agreement)
        return None if paid is None else DraftedRating(satisfied=paid, remark=f"the charge was {_outcome(agreement)}")

    @staticmethod
    def _payment_draft(agreement: Agreement) -> bool | None:
        return draft_of_payment(_outcome(agreement), sponsored=bool(agreement.sponsor))

    def _draft_is_due(self, draft: Draft, name: str) -> None:
        """The drafted opinion counts, unless its side has spoken."""
        drafted: Drafted = draft.get("drafted", name)
        opinion = msgspec.structs.replace(drafted.opinion, at_ms=drafted.due_ms)
        said = getattr(self._exchange(draft, opinion.agreement), opinion.kind) is not None
        if not said and opinion.agreement not in draft.state.records["revealed"]:
            self._take_opinion(draft, opinion)

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


def _outcome(agreement: Agreement) -> str:
    """What became of the charge, in the words of `rating.draft_of_payment`."""
    return "charged_back" if agreement.charged_back else {"charged": "captured"}.get(agreement.state, agreement.state)
