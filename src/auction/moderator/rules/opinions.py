"""The opinions of an agreement's sides about each other, and what a rating decides if a card pays."""

from __future__ import annotations

import msgspec

from auction.model.agreement import Agreement
from auction.model.bid import ShownRating
from auction.model.errors import NotAllowed, PrepaymentRequired, WrongState
from auction.model.lifecycle import step_of
from auction.model.money import check_integer
from auction.model.party import Signature
from auction.model.person import as_reference
from auction.model.rating import (
    DAY_MS,
    DraftedRating,
    Exchange,
    Kind,
    Opinion,
    draft_of_payment,
    draft_of_service,
    payment_terms,
    probability_of_payment_ppm,
)
from auction.model.signing import rating_body
from auction.model.weighing import Start
from auction.moderator.draft import Draft
from auction.moderator.records import Auction, Drafted, Revealed
from auction.moderator.reputation import PAYMENTS
from auction.moderator.rules import parties


def rating_at(draft: Draft, record: Auction, bidder: str) -> ShownRating:
    """The rating that every bidder was shown: the one at the announcement."""
    service = record.announcement.service if record.announcement.direction == "provide" else PAYMENTS
    start = Start(record.announcement.start_ppm, record.announcement.evidence_start_ppm)
    return draft.state.reputation.shown_at(bidder, service, record.announced_sequence, record.announced_ms, start)


def check_payer(draft: Draft, recipient: str) -> None:
    """Raises NotAllowed or PrepaymentRequired for a recipient whose card will probably not pay."""
    probability_ppm = payment_probability_ppm(draft, recipient)
    terms = payment_terms(probability_ppm, draft.config.rating)
    if terms == "refused":
        raise NotAllowed(f"{recipient} will probably not pay ({probability_ppm} in a million)")
    if terms == "prepaid":
        raise PrepaymentRequired(f"{recipient} must prepay ({probability_ppm} in a million)")


def payment_probability_ppm(draft: Draft, recipient: str) -> int:
    """The predicted probability that the recipient's next charge is accepted."""
    tally = draft.state.reputation.history(recipient, PAYMENTS).opinions
    return probability_of_payment_ppm(tally, draft.at_ms // DAY_MS, draft.config.rating)


def rate(
    draft: Draft,
    agreement: str,
    rater: str,
    satisfied: bool,
    device: str,
    remark: str,
    signature: Signature | None,
) -> Exchange:
    said = (satisfied, device, remark, signature)
    return _take(draft, _opinion(draft, agreement, rater, *said))


def rate_as_drafted(
    draft: Draft, agreement: str, rater: str, device: str, overrule_ms: int, signature: Signature | None
) -> DraftedRating:
    drafted = drafted_rating(draft, agreement, rater)
    if drafted is None:
        raise WrongState(f"nothing can be drafted for {rater} about {agreement}")
    said = (drafted.satisfied, device, drafted.remark, signature)
    opinion = _opinion(draft, agreement, rater, *said)
    if check_integer(overrule_ms, "time to overrule", 0, draft.config.rating.hidden_ms - 1) == 0:
        _take(draft, opinion)
    else:
        name = f"{agreement}/{opinion.kind}"
        draft.add("drafted", name, Drafted(id=name, opinion=opinion, due_ms=draft.at_ms + overrule_ms))
    return drafted


def _opinion(
    draft: Draft,
    name: str,
    rater: str,
    satisfied: bool,
    device: str,
    remark: str,
    signature: Signature | None,
) -> Opinion:
    """Checks that this rater may give this opinion, and has signed it if the market requires that."""
    agreement = draft.agreement(name)
    step_of(agreement.state, "rate")
    kind: Kind = "service" if rater == agreement.recipient else "payment"
    if name in draft.state.records["revealed"]:
        raise WrongState(f"the opinions about {name} are published already")
    if kind == "payment" and agreement.is_sponsored:
        raise NotAllowed(f"{agreement.recipient} was sponsored and owed nothing: there is nothing to rate")
    signer = rater
    if kind == "service" and not device and draft.party(rater).kind == "provider":
        device = rater  # a provider that subcontracts rates for itself
    if kind == "service" and device and device != rater:
        if draft.party(device).kind != "device" or parties.stands_for(draft, device) != rater:
            raise NotAllowed(f"{device} is no device of {rater}")
        signer = device
    opinion = Opinion(
        agreement=name,
        kind=kind,
        rater=rater,
        ratee=agreement.provider if kind == "service" else agreement.recipient,
        satisfied=satisfied,
        at_ms=draft.at_ms,
        device=device,
        remark=remark,
    )
    _exchange(draft, name).with_opinion(opinion, draft.config.rating)
    parties.check_signature(draft, "rating", name, signer, rating_body(satisfied, remark, device), signature)
    if not remark:
        return opinion
    digest = draft.keep_personal(f"{name}/{kind}", remark=remark)
    return msgspec.structs.replace(opinion, remark=as_reference(digest))


def _exchange(draft: Draft, name: str) -> Exchange:
    return draft.get("exchange", name)  # type: ignore[no-any-return]


def _take(draft: Draft, opinion: Opinion) -> Exchange:
    """Records the opinion. The answer shows only the rater's own side until both are in."""
    changed = _exchange(draft, opinion.agreement).with_opinion(opinion, draft.config.rating)
    draft.put("exchange", opinion.agreement, changed)
    if changed.service is not None and changed.payment is not None:
        _reveal(draft, changed)
        return changed
    other = "payment" if opinion.kind == "service" else "service"
    return msgspec.structs.replace(changed, **{other: None})


def drafted_rating(draft: Draft, name: str, rater: str) -> DraftedRating | None:
    agreement = draft.agreement(name)
    if not agreement.is_over:
        return None
    if rater == agreement.recipient:
        owed = agreement.price
        if agreement.recipient_ending == "leaving":  # the provider is not to blame for the rest
            owed = agreement.paid + agreement.lost
            if not owed and agreement.price:
                return None
        return draft_of_service(owed, agreement.paid, bool(agreement.proven), draft.config.rating)
    if rater != agreement.provider:
        raise NotAllowed(f"{rater} is not a side of {name}")
    paid = drafted_payment_rating(agreement)
    return None if paid is None else DraftedRating(satisfied=paid, remark=f"the charge was {outcome(agreement)}")


def drafted_payment_rating(agreement: Agreement) -> bool | None:
    return draft_of_payment(outcome(agreement), sponsored=agreement.is_sponsored)


def outcome(agreement: Agreement) -> str:
    """The outcome of the charge, in the words of `rating.draft_of_payment`."""
    if agreement.charged_back:
        return "charged_back"
    if agreement.debt:
        return "declined"
    return "captured" if agreement.is_over and not agreement.capturing else agreement.state


def draft_is_due(draft: Draft, name: str, _due_ms: int) -> None:
    """Counts the drafted opinion, unless its side has rated."""
    drafted: Drafted = draft.get("drafted", name)
    opinion = msgspec.structs.replace(drafted.opinion, at_ms=drafted.due_ms)
    said = getattr(_exchange(draft, opinion.agreement), opinion.kind) is not None
    if not said and opinion.agreement not in draft.state.records["revealed"]:
        _take(draft, opinion)


def open_exchange(draft: Draft, agreement: Agreement) -> None:
    """Lets each side of a settled agreement rate once."""
    exchange = Exchange(
        agreement=agreement.id,
        provider=agreement.provider,
        recipient=agreement.recipient,
        finished_ms=draft.at_ms,
    )
    draft.put("exchange", agreement.id, exchange)


def _reveal(draft: Draft, exchange: Exchange) -> None:
    agreement = draft.agreement(exchange.agreement)
    revealed = Revealed(agreement=agreement.id, service=agreement.service, at_ms=draft.at_ms)
    draft.put("revealed", agreement.id, revealed)


def exchange_is_due(draft: Draft, name: str, _due_ms: int) -> None:
    """Publishes the opinion if only one side has rated."""
    if name not in draft.state.records["revealed"]:
        _reveal(draft, draft.get("exchange", name))
