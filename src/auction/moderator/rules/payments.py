"""The requests to a card processor and the effect of its answers. A card is authorised for R(1+δ) before bidding opens,
and captured once, when every agreement of its auction is settled."""

from __future__ import annotations

import msgspec

from auction.model.agreement import Agreement, settlement_of
from auction.model.bid import Announcement
from auction.model.closing import capture
from auction.model.errors import BadValue, NotAllowed, WrongState
from auction.model.ledger import bond, card, funds, held
from auction.model.lifecycle import next_state, step_of
from auction.model.money import check_amount
from auction.moderator.draft import Draft
from auction.moderator.records import Auction, PaymentRequest
from auction.moderator.rules import announcing, ending, groups, holds, opinions
from auction.payment.protocol import PREPAID, Outcome


def ask_to_authorise(draft: Draft, auction: str) -> PaymentRequest:
    known: PaymentRequest | None = draft.find("payment", f"{auction}/authorise")
    if known is not None:
        return known
    record = draft.auction(auction)
    next_state(record.state, "pay")
    opinions.check_payer(draft, record.announcer)
    amount = holds.of_announcement(draft, record.announcement)
    holds.check_room(draft, amount)
    return holds.ask(draft, auction, "authorise", amount)


def ask_to_refund(draft: Draft, name: str, amount: int, key: str) -> PaymentRequest:
    request = f"{name}/refund-{key}"
    known: PaymentRequest | None = draft.find("payment", request)
    if known is not None:
        return known
    agreement = draft.agreement(name)
    check_refund(draft, agreement, amount)
    asked = PaymentRequest(
        id=request,
        about=name,
        step="refund",
        method=agreement.method,
        source="",
        amount=amount,
        currency=agreement.currency,
        reference=agreement.processor_reference,
    )
    draft.put("payment", request, asked)
    return asked


def answer(draft: Draft, request: str, outcome: Outcome) -> None:
    """Applies an answer, once."""
    known: PaymentRequest = draft.get("payment", request)
    if known.state != "pending":
        return
    state = "approved" if outcome.approved else "declined"
    reference = outcome.reference or known.reference
    answered = msgspec.structs.replace(known, state=state, reference=reference, reason=outcome.reason)
    draft.put("payment", request, answered)
    if known.step == "authorise":
        _authorised(draft, draft.auction(known.about), known, outcome)
    elif known.step == "capture":
        _captured(draft, known, _amount_of(known, outcome))
    elif known.step == "refund" and outcome.approved:
        give_back(draft, draft.agreement(known.about), known.amount)


def _amount_of(request: PaymentRequest, outcome: Outcome) -> int:
    if not outcome.approved:
        return 0
    return request.amount if outcome.amount is None else min(request.amount, outcome.amount)


def _authorised(draft: Draft, record: Auction, request: PaymentRequest, outcome: Outcome) -> None:
    if record.state != "funding":  # its deadline passed before the answer came
        if outcome.approved:
            late = msgspec.structs.replace(record, processor_reference=outcome.reference)
            draft.put("auction", record.id, late)
            holds.ask(draft, record.id, "void", 0)
        return
    if not outcome.approved:
        announcing.make_void(draft, record, next_state(record.state, "pay", "void"))
        if record.group:
            groups.give_back(draft, record.group)
        return
    draft.transfer(card(record.method), held(record.id), request.amount)
    opened = msgspec.structs.replace(
        record,
        state=next_state(record.state, "pay"),
        held=request.amount,
        processor_reference=outcome.reference,
        due_ms=record.closes_ms,
    )
    draft.put("auction", record.id, opened)


def withdraw(draft: Draft, auction: str) -> Announcement:
    """Withdraws an announcement and releases its card."""
    announcement = announcing.withdraw(draft, auction)
    record = draft.auction(auction)
    if record.group:
        groups.give_back(draft, record.group)
    return announcement


def _captured(draft: Draft, request: PaymentRequest, captured: int) -> None:
    """Divides the captured amount: first to the providers, in the order of their agreements, then to penalties. What it
    does not cover is the recipient's debt."""
    # An older version authorised a card for one agreement only.
    names = draft.state.agreements_of.get(request.about) or (
        request.about,
        *draft.state.rests_of.get(request.about, ()),
    )
    due = [one for one in map(draft.agreement, names) if one.capturing]
    settlements = {one.id: settlement_of(_as_before(one), draft.config.name) for one in due}
    first: dict[str, int] = {}
    for one in due:
        first[one.id] = min(captured, ending.to_provider(settlements[one.id].payouts), one.capturing)
        captured -= first[one.id]
    for one in due:
        more = min(captured, one.capturing - first[one.id])
        captured -= more
        _share_out(draft, one, first[one.id] + more)


def _as_before(agreement: Agreement) -> Agreement:
    """The agreement with its holds from before it was settled."""
    provider_held = holds.of_provider(agreement)
    return msgspec.structs.replace(
        agreement, recipient_held=max(agreement.own_hold, agreement.capturing), provider_held=provider_held
    )


def _share_out(draft: Draft, agreement: Agreement, captured: int) -> None:
    shared = capture(settlement_of(_as_before(agreement), draft.config.name), captured)
    for one in shared.payouts:
        if one.source == "recipient":
            draft.transfer(held(agreement.id), ending.account_of(agreement, one.target), one.amount)
    draft.transfer(held(agreement.id), card(agreement.method), agreement.capturing - captured)
    to = [(ending.account_of(agreement, one.target), one.amount) for one in shared.debts]
    left = holds.owe(draft, agreement.id, agreement, to) if to else 0
    charged = ending.to_provider(shared.payouts)
    settled = msgspec.structs.replace(
        agreement, recipient_held=0, capturing=0, charged=charged, debt=agreement.debt + left
    )
    draft.put("agreement", agreement.id, settled)


def refund(draft: Draft, name: str, amount: int) -> Agreement:
    agreement = draft.agreement(name)
    check_refund(draft, agreement, amount)
    return give_back(draft, agreement, amount)


def check_refund(draft: Draft, agreement: Agreement, amount: int) -> None:
    next_state(agreement.state, "refund")
    check_amount(amount, "refund")
    left = _left_of_charge(draft, agreement)
    if not 0 < amount <= left:
        raise BadValue(f"{left} can be refunded, not {amount}")
    if draft.balance(funds(agreement.provider)) < amount:
        raise NotAllowed(f"{agreement.provider} does not have {amount} to refund")


def _left_of_charge(draft: Draft, agreement: Agreement) -> int:
    """The charge less refunds and chargebacks, and less refunds that the processor has not answered yet."""
    pending = draft.state.pending_payments.values()
    asked = sum(one.amount for one in pending if one.step == "refund" and one.about == agreement.id)
    return agreement.stayed().stayed - asked


def give_back(draft: Draft, agreement: Agreement, amount: int) -> Agreement:
    """Takes a refund from the provider, even if it has spent the money: the processor has already refunded it."""
    draft.transfer(funds(agreement.provider), _payer_account(agreement), amount, forced=True)
    refunded = msgspec.structs.replace(agreement, refunded=agreement.refunded + amount)
    draft.put("agreement", agreement.id, refunded)
    return refunded


def charge_back(draft: Draft, name: str, amount: int) -> Agreement:
    """The recipient's bank has taken a charge back. The provider loses it, from its bond if it has spent the money, and
    it counts as a "no" about the payer."""
    agreement = draft.agreement(name)
    step_of(agreement.state, "charge_back")
    check_amount(amount, "amount")
    left = _left_of_charge(draft, agreement)
    if not 0 < amount <= left:
        raise BadValue(f"{left} can be charged back, not {amount}")
    short = max(0, amount - max(0, draft.balance(funds(agreement.provider))))
    of_bond = min(short, draft.balance(bond(agreement.provider)))
    draft.transfer(bond(agreement.provider), _payer_account(agreement), of_bond)
    draft.transfer(funds(agreement.provider), _payer_account(agreement), amount - of_bond, forced=True)
    changed = msgspec.structs.replace(agreement, charged_back=agreement.charged_back + amount)
    draft.put("agreement", name, changed)
    return changed


def agreement_paid_by(draft: Draft, auction: str, amount: int) -> str:
    """The agreement of an auction's card that was charged this amount; the same one at every call. Raises
    WrongState."""
    for name in draft.state.agreements_of.get(auction, ()):
        if draft.agreement(name).charged >= amount:
            return name
    raise WrongState(f"no agreement of auction {auction} was charged {amount}")


def _payer_account(agreement: Agreement) -> str:
    return funds(agreement.recipient) if agreement.method == PREPAID else card(agreement.method)
