"""What a card processor is asked for an agreement, and what its answer means."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from auction.model.agreement import Agreement, next_state, owed
from auction.model.errors import WrongState
from auction.model.ledger import card, held
from auction.moderator.draft import Draft
from auction.moderator.records import PaymentRequest
from auction.moderator.rules import agreements, chains, opinions
from auction.payment.protocol import Outcome

Ask = Callable[[Draft, str], PaymentRequest]


def ask_to_authorise(draft: Draft, agreement: str) -> PaymentRequest:
    asked = draft.agreement(agreement)
    next_state(asked.state, "agree")
    opinions.check_payer(draft, asked)
    return _request(asked, "authorise", asked.price)


def ask_to_capture(draft: Draft, agreement: str) -> PaymentRequest:
    asked = draft.agreement(agreement)
    next_state(asked.state, "charge")
    chains.check_settleable(draft, asked)
    amount = sum(owed(leg) for leg in asked.legs)
    return _request(asked, "capture" if amount else "void", amount)


def ask_to_void(draft: Draft, agreement: str) -> PaymentRequest:
    asked = draft.agreement(agreement)
    next_state(asked.state, "cancel")
    agreements.check_returnable(draft, asked)
    return _request(asked, "void", 0)


def ask_to_refund(draft: Draft, agreement: str, amount: int) -> PaymentRequest:
    asked = draft.agreement(agreement)
    agreements.check_refund(draft, asked, amount)
    return _request(asked, "refund", amount)


def request_once(draft: Draft, agreement: str, step: str, ask: Ask) -> PaymentRequest:
    """The request of this step: the one that was made before, or what `ask` makes now."""
    name = f"{agreement}/{step}"
    request: PaymentRequest | None = draft.find("payment", name)
    if request is None:
        request = msgspec.structs.replace(ask(draft, agreement), id=name)
        draft.put("payment", name, request)
    return request


def _request(agreement: Agreement, step: str, amount: int) -> PaymentRequest:
    if step != "authorise" and not agreement.processor_reference:
        raise WrongState(f"{agreement.id} has no payment that was authorised")
    return PaymentRequest(
        id=f"{agreement.id}/{step}",
        agreement=agreement.id,
        step=step,
        method=agreement.method,
        source=agreement.source,
        amount=amount,
        currency=agreement.currency,
        reference=agreement.processor_reference,
    )


def answer(draft: Draft, request: str, outcome: Outcome) -> Agreement:
    known: PaymentRequest = draft.get("payment", request)
    if known.state != "pending":
        return draft.agreement(known.agreement)
    state = "approved" if outcome.approved else "declined"
    answered = msgspec.structs.replace(known, state=state, reference=outcome.reference, reason=outcome.reason)
    draft.put("payment", request, answered)
    return _answered(draft, known, outcome)


def _answered(draft: Draft, request: PaymentRequest, outcome: Outcome) -> Agreement:
    agreement = draft.agreement(request.agreement)
    if request.step == "authorise":
        return _authorised(draft, agreement, outcome)
    if request.step == "refund":
        return agreements.give_back(draft, agreement, request.amount) if outcome.approved else agreement
    if agreement.state == "agreed":
        return agreements.give_up(draft, agreement)
    return agreements.settle(draft, agreement, next_state(agreement.state, "charge" if outcome.approved else "decline"))


def _authorised(draft: Draft, agreement: Agreement, outcome: Outcome) -> Agreement:
    if not outcome.approved:
        return agreements.lapse(draft, agreement)
    draft.transfer(card(agreement.method), held(agreement.id), agreement.price)
    paid = msgspec.structs.replace(agreement, processor_reference=outcome.reference)
    return agreements.take_effect(draft, paid, next_state(agreement.state, "agree"))
