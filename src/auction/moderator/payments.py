"""Paying by a processor: journalled before it is asked, asked under a fixed key, and its answer journalled.

So no request is lost or made twice, wherever the process dies. Prepaid balances take none of this: see `agreements`.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from auction.agreement import Agreement, next_state, owed
from auction.errors import BadValue, Declined, NotAllowed, Unknown, WrongState
from auction.ledger import card, funds, held
from auction.moderator.records import PaymentRequest
from auction.moderator.state import Draft
from auction.moderator.subcontracts import SubcontractCommands
from auction.money import check_amount
from auction.payment import PREPAID, Outcome, Processor


class PaymentCommands(SubcontractCommands):
    def agree(self, agreement: str, *, key: str | None = None) -> Agreement:
        """Authorises the recipient's payment: the price is held, on its balance or its card. Raises InsufficientFunds;
        with a card PrepaymentRequired, Declined (the agreement has then lapsed), or PaymentUnknown, after which the
        same call finds out (or `resume_payments`)."""
        record = self.agreement(agreement)
        if record.method == PREPAID:
            return super().agree(agreement, key=key)

        def ask(draft: Draft) -> PaymentRequest:
            asked = draft.agreement(agreement)
            next_state(asked.state, "agree")
            self._check_payer(draft, asked)
            return _request(asked, "authorise", asked.price)

        return self._pay(agreement, "authorise", ask, key)

    def charge(self, agreement: str, *, key: str | None = None) -> Agreement:
        """Captures in proportion to delivery, and gives the rest back. A card that declines the capture leaves the
        agreement `declined`, with nothing paid: raises Declined."""
        record = self.agreement(agreement)
        if record.method == PREPAID:
            return super().charge(agreement, key=key)

        def ask(draft: Draft) -> PaymentRequest:
            asked = draft.agreement(agreement)
            next_state(asked.state, "charge")
            self._check_settleable(draft, asked)
            amount = sum(owed(leg) for leg in asked.legs)
            return _request(asked, "capture" if amount else "void", amount)

        return self._pay(agreement, "capture", ask, key)

    def cancel(self, agreement: str, *, key: str | None = None) -> Agreement:
        """Both give the agreement up before it starts: what is held goes back, nothing is charged."""
        record = self.agreement(agreement)
        if record.method == PREPAID:
            return super().cancel(agreement, key=key)

        def ask(draft: Draft) -> PaymentRequest:
            asked = draft.agreement(agreement)
            next_state(asked.state, "cancel")
            self._check_returnable(draft, asked)
            return _request(asked, "void", 0)

        return self._pay(agreement, "void", ask, key)

    def refund(self, agreement: str, amount: int, *, key: str) -> Agreement:
        """The provider gives back part or all of what was charged. Raises InsufficientFunds where it has spent it."""
        record = self.agreement(agreement)
        if record.method == PREPAID:
            arguments = (agreement, amount)
            return self._run("refund", key, arguments, lambda draft: self._refund(draft, *arguments), Agreement)
        step = f"refund-{key}"

        def ask(draft: Draft) -> PaymentRequest:
            asked = draft.agreement(agreement)
            self._check_refund(draft, asked, amount)
            return msgspec.structs.replace(_request(asked, "refund", amount), id=f"{agreement}/{step}")

        return self._pay(agreement, step, ask, key)

    def charge_back(self, agreement: str, amount: int, reason: str = "", *, key: str | None = None) -> Agreement:
        """The recipient's bank has taken a charge back: the providers lose it again, even below zero, and the
        agreement is `declined`."""

        def decide(draft: Draft) -> Agreement:
            record = draft.agreement(agreement)
            state = next_state(record.state, "charge_back")
            check_amount(amount, "amount")
            if not 0 < amount <= record.charged - record.refunded:
                raise BadValue(f"{record.charged - record.refunded} can be charged back, not {amount}")
            left = amount
            for leg in reversed(record.legs):
                part = min(left, owed(leg))
                draft.transfer(funds(leg.provider), self._payer_account(record), part, forced=True)
                left -= part
            changed = msgspec.structs.replace(record, state=state, charged_back=True, refunded=record.refunded + amount)
            draft.put("agreement", agreement, changed)
            return changed

        return self._run("charge_back", key, (agreement, amount, reason), decide, Agreement)

    def dispute(self, method: str, payload: bytes, signature: str) -> Agreement | None:
        """Takes in a processor's notice (the body of its webhook and its signature); a chargeback is booked, once.
        Returns None for a notice of something else. Raises BadSignature."""
        dispute = self._processor(method).read_dispute(payload, signature)
        if dispute is None:
            return None
        with self._deciding:
            name = self._state.payments_by_reference.get((method, dispute.reference))
        if name is None:
            raise Unknown(f"no agreement was paid by {dispute.reference}")
        return self.charge_back(name, dispute.amount, dispute.reason, key=f"dispute:{method}:{dispute.event}")

    def resume_payments(self) -> list[Agreement]:
        """Asks again for every payment without an answer, under the same key: to be called when a process starts."""
        with self._deciding:
            pending = list(self._state.pending_payments.values())
        resumed = []
        for request in pending:
            try:
                resumed.append(self._finish_payment(request, None))
            except Declined:
                resumed.append(self.agreement(request.agreement))
        return resumed

    def _pay(self, agreement: str, step: str, ask: Callable[[Draft], PaymentRequest], key: str | None) -> Agreement:
        """Journals the request, sends it, journals the outcome."""

        def decide(draft: Draft) -> PaymentRequest:
            known = draft.find("payment", f"{agreement}/{step}")
            if known is not None:
                return known  # type: ignore[no-any-return]
            request = ask(draft)
            draft.put("payment", f"{agreement}/{step}", msgspec.structs.replace(request, id=f"{agreement}/{step}"))
            return draft.get("payment", f"{agreement}/{step}")  # type: ignore[no-any-return]

        request = self._run("ask_payment", None, None, decide, PaymentRequest)
        return self._finish_payment(request, key)

    def _finish_payment(self, request: PaymentRequest, key: str | None) -> Agreement:
        outcome = Outcome(request.state == "approved", request.reference, request.reason)
        if request.state == "pending":
            outcome = self._send(request)

        def decide(draft: Draft) -> Agreement:
            known: PaymentRequest = draft.get("payment", request.id)
            if known.state != "pending":
                return draft.agreement(request.agreement)
            state = "approved" if outcome.approved else "declined"
            draft.put(
                "payment",
                request.id,
                msgspec.structs.replace(known, state=state, reference=outcome.reference, reason=outcome.reason),
            )
            return self._answered(draft, known, outcome)

        agreement = self._run("answer_payment", key, (request.id,), decide, Agreement)
        if not outcome.approved:
            raise Declined(f"{request.method} declined to {request.step}: {outcome.reason}", outcome.reason)
        return agreement

    def _send(self, request: PaymentRequest) -> Outcome:
        processor = self._processor(request.method)
        if request.step == "authorise":
            return processor.authorise(request.id, request.source, request.amount, request.currency)
        if request.step == "capture":
            return processor.capture(request.id, request.reference, request.amount)
        if request.step == "refund":
            return processor.refund(request.id, request.reference, request.amount)
        return processor.void(request.id, request.reference)

    def _processor(self, method: str) -> Processor:
        processor = self.processors.get(method)
        if processor is None:
            raise Unknown(f"this market has no payment processor {method!r}")
        return processor

    # What follows decides on a draft.

    def _answered(self, draft: Draft, request: PaymentRequest, outcome: Outcome) -> Agreement:
        agreement = draft.agreement(request.agreement)
        if request.step == "authorise":
            return self._authorised(draft, agreement, outcome)
        if request.step == "refund":
            return self._refunded(draft, agreement, request.amount) if outcome.approved else agreement
        if agreement.state == "agreed":
            return self._give_up(draft, agreement)
        return self._settle(draft, agreement, next_state(agreement.state, "charge" if outcome.approved else "decline"))

    def _authorised(self, draft: Draft, agreement: Agreement, outcome: Outcome) -> Agreement:
        if not outcome.approved:
            return self._lapse(draft, agreement)
        draft.transfer(card(agreement.method), held(agreement.id), agreement.price)
        paid = msgspec.structs.replace(agreement, processor_reference=outcome.reference)
        return self._agreed(draft, paid, next_state(agreement.state, "agree"))

    def _refund(self, draft: Draft, name: str, amount: int) -> Agreement:
        agreement = draft.agreement(name)
        self._check_refund(draft, agreement, amount)
        return self._refunded(draft, agreement, amount)

    @staticmethod
    def _check_refund(draft: Draft, agreement: Agreement, amount: int) -> None:
        next_state(agreement.state, "refund")
        check_amount(amount, "refund")
        if not 0 < amount <= agreement.charged - agreement.refunded:
            raise BadValue(f"{agreement.charged - agreement.refunded} can be refunded, not {amount}")
        if draft.balance(funds(agreement.provider)) < amount:
            raise NotAllowed(f"{agreement.provider} has not got {amount} to give back")

    def _refunded(self, draft: Draft, agreement: Agreement, amount: int) -> Agreement:
        draft.transfer(funds(agreement.provider), self._payer_account(agreement), amount, forced=True)
        refunded = msgspec.structs.replace(
            agreement, state=next_state(agreement.state, "refund"), refunded=agreement.refunded + amount
        )
        draft.put("agreement", agreement.id, refunded)
        return refunded


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
