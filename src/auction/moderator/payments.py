"""The commands that move money on a party's account or on a card. The base class of the other commands in `commands`.

A request to a card processor is journalled first and sent under a fixed key; its answer is journalled too. So no
request is lost or made twice, whenever the process dies.
"""

from __future__ import annotations

from contextlib import suppress

from auction.model.agreement import Agreement
from auction.model.bid import Announcement
from auction.model.errors import AuctionError, Declined, PaymentUnknown, Unknown, WrongState
from auction.moderator.arguments import check_value
from auction.moderator.draft import Draft
from auction.moderator.methods import command
from auction.moderator.queries import Queries
from auction.moderator.records import PaymentRequest
from auction.moderator.rules import parties, payments
from auction.payment.protocol import PREPAID, Outcome, Processor


class ToBeSent(Exception):
    """A request to a processor that is journalled within a group: it is sent once the group is stored, by who has begun
    the group; then the call that wanted it is repeated."""

    def __init__(self, request: PaymentRequest) -> None:
        super().__init__(request.id)
        self.request = request


class Payments(Queries):
    _resumed = 0
    sends_outside = False  # whether who calls sends requests itself, between groups (`AsyncModerator`)

    @command("account deposit", right="operator")
    def deposit(self, party: str, amount: int, currency: str, *, key: str | None = None) -> int:
        """Book money that a party has paid in. Returns the prepaid balance in minor units."""
        return self._run("deposit", key, (party, amount, currency), parties.deposit, int)

    @command("account withdraw", right="operator")
    def withdraw(self, party: str, amount: int, currency: str, *, key: str | None = None) -> int:
        """Pay money out to a party. Returns the balance. Raises InsufficientFunds."""
        return self._run("withdraw", key, (party, amount, currency), parties.withdraw, int)

    @command("account withdraw-fees", right="operator")
    def withdraw_fees(self, amount: int, currency: str, *, key: str | None = None) -> int:
        """Pay fees out to the operator. Returns what is left of them. Raises InsufficientFunds."""
        return self._run("withdraw_fees", key, (amount, currency), parties.withdraw_fees, int)

    @command("account post-bond", right="own", about="party")
    def post_bond(self, party: str, amount: int, currency: str, *, key: str | None = None) -> int:
        """Move part of the balance into the bond. Auctions can require a bond. Returns the free bond."""
        return self._run("post_bond", key, (party, amount, currency), parties.post_bond, int)

    @command("account release-bond", right="own", about="party")
    def release_bond(self, party: str, amount: int, currency: str, *, key: str | None = None) -> int:
        """Move free bond back to the balance. Returns the free bond. Raises InsufficientFunds."""
        return self._run("release_bond", key, (party, amount, currency), parties.release_bond, int)

    @command("market pay-taker", right="operator")
    def pay_taker(self, amount: int, currency: str, *, key: str | None = None) -> int:
        """Pay out money of nobody's account to the taker in the rules. The taker (`MarketConfig.taker`) is
        not a party of the market. Returns the balance of nobody. Raises NotAllowed if the rules name no taker, or one
        that is a party; InsufficientFunds."""
        return self._run("pay_taker", key, (amount, currency), parties.pay_taker, int)

    @command("auction pay", right="announcer")
    def pay(self, auction: str, *, key: str | None = None) -> Announcement:
        """Authorise the announcer's card, and open bidding. The amount is the reserve plus δ of it (the share for
        leaving). Raises PrepaymentRequired, Declined (the auction is void then), or PaymentUnknown; after that, repeat
        the call or call `resume_payments` to learn the outcome."""
        self._check_may_send()
        request = self._run("ask_payment", None, (auction,), payments.ask_to_authorise, PaymentRequest)
        self._finish_payment(request, key)
        with self._deciding:
            return self._draft().auction(auction).announcement

    @command("payment refund", right="provider")
    def refund(self, agreement: str, amount: int, *, key: str) -> Agreement:
        """Refund part or all of the charge. Raises InsufficientFunds if the provider has spent it."""
        with self._deciding:
            is_prepaid = self._draft().agreement(agreement).method == PREPAID
        if is_prepaid:
            return self._run("refund", key, (agreement, amount), payments.refund, Agreement)
        self._check_may_send()
        arguments = (agreement, amount, key)
        request = self._run("ask_payment", None, arguments, payments.ask_to_refund, PaymentRequest)
        self._finish_payment(request, key)
        with self._deciding:
            return self._draft().agreement(agreement)

    @command("payment charge-back", right="operator")
    def charge_back(self, agreement: str, amount: int, reason: str = "", *, key: str | None = None) -> Agreement:
        """Book a charge that the recipient's bank took back. The provider loses the amount, even below a balance of
        zero, and it counts as a "no" of that amount about the recipient."""

        def decide(draft: Draft, name: str, amount: int, _reason: str) -> Agreement:
            return payments.charge_back(draft, name, amount)

        return self._run("charge_back", key, (agreement, amount, reason), decide, Agreement)

    @command(right="operator")
    def dispute(self, method: str, payload: bytes, signature: str) -> Agreement | None:
        """Take a card processor's notice: the body of its webhook and its signature. Books a chargeback, once. Returns
        None for any other notice. Raises BadSignature."""
        dispute = self._processor(method).read_dispute(payload, signature)
        if dispute is None:
            return None
        with self._deciding:
            auction = self._state.payments_by_reference.get((method, dispute.reference))
            if auction is None:
                raise Unknown(f"no auction was paid for by {dispute.reference}")
            name = payments.agreement_paid_by(self._draft(), auction, dispute.amount)
        return self.charge_back(name, dispute.amount, dispute.reason, key=f"dispute:{method}:{dispute.event}")

    @command(right="operator")
    def resume_payments(self) -> int:
        """Repeat every payment request without an answer, under the same key. Call it when a process starts. Returns
        how many were answered."""
        with self._deciding:
            pending = list(self._state.pending_payments.values())
        self._resumed = max(self._resumed, len(pending))  # the call is repeated where requests are sent outside of it
        try:
            for request in pending:
                with suppress(Declined):
                    self._finish_payment(request, None)
        except AuctionError:
            self._resumed = 0
            raise
        count, self._resumed = self._resumed, 0
        return count

    @command("market tick", right="anyone")
    def tick(self) -> int:
        """Run what is due by now: closes, starts, ends, publications. Every command does so first; in a quiet market,
        call this. It also captures and releases cards. Returns the number of things that were due."""
        count = super().tick()
        self._send_pending()
        return count

    def _send_pending(self) -> None:
        """Captures and releases the cards that are due. If the processor does not answer, the next tick asks again."""
        if self._grouped or self.sends_outside:
            return  # what is not stored yet is not sent
        for request in self._unsent():
            with suppress(Declined, PaymentUnknown, Unknown):
                self._finish_payment(request, None)

    def _unsent(self) -> list[PaymentRequest]:
        """The cards that are to be captured or released."""
        if not self._state.pending_payments:
            return []
        with self._deciding:
            pending = self._state.pending_payments.values()
            return [one for one in pending if one.step in ("capture", "void")]

    def _check_may_send(self) -> None:
        """Raises WrongState within a group: a request must be stored before it is sent, and a group is stored at its
        end."""
        if self._grouped and not self.sends_outside:
            raise WrongState("a processor cannot be asked within a group: the request must be stored first")

    def _finish_payment(self, request: PaymentRequest, key: str | None) -> None:
        """Sends a journalled request and journals the outcome. Raises Declined."""
        outcome = Outcome(request.state == "approved", request.reference, request.reason)
        if request.state == "pending":
            if self.sends_outside:
                raise ToBeSent(request)
            outcome = self._send(request)
            try:
                check_value(outcome, Outcome, "outcome")
            except AuctionError as reason:
                raise PaymentUnknown(f"{request.method} gave an answer that cannot be journalled: {reason}") from None
        self._take_answer(request, outcome, key)
        if not outcome.approved:
            raise Declined(f"{request.method} declined to {request.step}: {outcome.reason}", outcome.reason)

    def _take_answer(self, request: PaymentRequest, outcome: Outcome, key: str | None = None) -> None:
        def decide(draft: Draft, name: str) -> None:
            payments.answer(draft, name, outcome)

        self._run("answer_payment", key, (request.id,), decide, None)

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
