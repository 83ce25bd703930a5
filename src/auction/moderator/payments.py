"""The commands that move money on a party's account or to a card, as the base of all the others in `commands`.

A card processor is asked after the request is journalled, under a fixed key, and its answer is journalled: so no
request is lost or made twice, wherever the process dies.
"""

from __future__ import annotations

from auction.model.agreement import Agreement
from auction.model.errors import Declined, Unknown
from auction.moderator.draft import Draft
from auction.moderator.methods import command
from auction.moderator.queries import Queries
from auction.moderator.records import PaymentRequest
from auction.moderator.rules import agreements, parties, payments
from auction.payment.protocol import PREPAID, Outcome, Processor


class Payments(Queries):
    @command("account deposit", right="operator")
    def deposit(self, party: str, amount: int, currency: str, *, key: str | None = None) -> int:
        """Books money that a party has brought. Returns the prepaid balance in minor units."""
        return self._run("deposit", key, (party, amount, currency), parties.deposit, int)

    @command("account withdraw", right="operator")
    def withdraw(self, party: str, amount: int, currency: str, *, key: str | None = None) -> int:
        """Pays money out to a party. Returns the balance. Raises InsufficientFunds."""
        return self._run("withdraw", key, (party, amount, currency), parties.withdraw, int)

    @command("account post-bond", right="own", about="party")
    def post_bond(self, party: str, amount: int, currency: str, *, key: str | None = None) -> int:
        """Moves part of the balance into the bond. Auctions can ask for a bond. Returns the free bond."""
        return self._run("post_bond", key, (party, amount, currency), parties.post_bond, int)

    @command("account release-bond", right="own", about="party")
    def release_bond(self, party: str, amount: int, currency: str, *, key: str | None = None) -> int:
        """Moves bond that nothing holds back to the balance. Returns the free bond. Raises InsufficientFunds."""
        return self._run("release_bond", key, (party, amount, currency), parties.release_bond, int)

    @command("payment authorise", right="recipient")
    def agree(self, agreement: str, *, key: str | None = None) -> Agreement:
        """Holds the price on the recipient's balance or card. Raises InsufficientFunds; with a card
        PrepaymentRequired, Declined (the agreement has then lapsed), or PaymentUnknown, after which the same call finds
        out (or `resume_payments`)."""
        if self._is_prepaid(agreement):
            return self._run("agree", key, (agreement,), agreements.agree, Agreement)
        return self._pay(agreement, "authorise", payments.ask_to_authorise, key)

    @command("payment charge", right="side")
    def charge(self, agreement: str, *, key: str | None = None) -> Agreement:
        """Captures the price in proportion to delivery. The rest goes back. A card that declines the capture leaves
        the agreement `declined`, with nothing paid: raises Declined."""
        if self._is_prepaid(agreement):
            return self._run("charge", key, (agreement,), agreements.charge, Agreement)
        return self._pay(agreement, "capture", payments.ask_to_capture, key)

    @command("agreement cancel", right="operator")
    def cancel(self, agreement: str, *, key: str | None = None) -> Agreement:
        """Ends an agreement before it starts, if both sides agree. What is held goes back, nothing is charged."""
        if self._is_prepaid(agreement):
            return self._run("cancel", key, (agreement,), agreements.cancel, Agreement)
        return self._pay(agreement, "void", payments.ask_to_void, key)

    @command("payment refund", right="provider")
    def refund(self, agreement: str, amount: int, *, key: str) -> Agreement:
        """Gives back part or all of what was charged. Raises InsufficientFunds if the provider has spent it."""
        if self._is_prepaid(agreement):
            return self._run("refund", key, (agreement, amount), agreements.refund, Agreement)

        def ask(draft: Draft, name: str) -> PaymentRequest:
            return payments.ask_to_refund(draft, name, amount)

        return self._pay(agreement, f"refund-{key}", ask, key)

    @command("payment charge-back", right="operator")
    def charge_back(self, agreement: str, amount: int, reason: str = "", *, key: str | None = None) -> Agreement:
        """Books a charge that the recipient's bank took back. The providers lose it again, even below zero, and the
        agreement is `declined`."""

        def decide(draft: Draft, name: str, amount: int, _reason: str) -> Agreement:
            return agreements.charge_back(draft, name, amount)

        return self._run("charge_back", key, (agreement, amount, reason), decide, Agreement)

    @command(right="operator")
    def dispute(self, method: str, payload: bytes, signature: str) -> Agreement | None:
        """Takes in a card processor's notice: the body of its webhook and its signature. A chargeback is booked, once.
        Returns None for a notice of something else. Raises BadSignature."""
        dispute = self._processor(method).read_dispute(payload, signature)
        if dispute is None:
            return None
        with self._deciding:
            name = self._state.payments_by_reference.get((method, dispute.reference))
        if name is None:
            raise Unknown(f"no agreement was paid by {dispute.reference}")
        return self.charge_back(name, dispute.amount, dispute.reason, key=f"dispute:{method}:{dispute.event}")

    @command(right="operator")
    def resume_payments(self) -> list[Agreement]:
        """Asks again for every payment without an answer, under the same key. Call it when a process starts."""
        with self._deciding:
            pending = list(self._state.pending_payments.values())
        resumed = []
        for request in pending:
            try:
                resumed.append(self._finish_payment(request, None))
            except Declined:
                with self._deciding:
                    resumed.append(self._draft().agreement(request.agreement))
        return resumed

    def _is_prepaid(self, agreement: str) -> bool:
        with self._deciding:
            return self._draft().agreement(agreement).method == PREPAID

    def _pay(self, agreement: str, step: str, ask: payments.Ask, key: str | None) -> Agreement:
        """Journals the request, sends it, journals the outcome."""
        arguments = (agreement, step, ask)
        request = self._run("ask_payment", None, arguments, payments.request_once, PaymentRequest)
        return self._finish_payment(request, key)

    def _finish_payment(self, request: PaymentRequest, key: str | None) -> Agreement:
        outcome = Outcome(request.state == "approved", request.reference, request.reason)
        if request.state == "pending":
            outcome = self._send(request)

        def decide(draft: Draft, name: str) -> Agreement:
            return payments.answer(draft, name, outcome)

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
