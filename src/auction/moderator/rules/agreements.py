"""The way of an agreement from the award to the charge, and the money that it moves on that way."""

from __future__ import annotations

import msgspec

from auction.model.agreement import Agreement, Leg, next_state, owed, topped_up_owed
from auction.model.errors import BadValue, NotAllowed, WrongState
from auction.model.ledger import bond, card, funds, held, held_bond, topped_up
from auction.model.money import check_amount
from auction.model.subcontract import recourse
from auction.moderator.draft import Draft
from auction.moderator.rules import chains, opinions
from auction.payment.protocol import PREPAID


def settle(draft: Draft, agreement: Agreement, state: str) -> Agreement:
    """A chain is settled from the bottom: what subcontractors' bonds make good is known before the prime's bond is
    let go, and a subcontractor's bond is held until its prime is settled."""
    chains.check_settleable(draft, agreement)
    subcontracts = chains.subcontracts_of(draft, agreement.id)
    settled = _settle_one(draft, agreement, state)
    amounts = dict(recourse(settled, subcontracts))
    for one in subcontracts:
        amount = amounts.get(one.id, 0)
        draft.transfer(held_bond(one.id), funds(settled.provider), amount)
        _release_bond(draft, one)
        draft.put("agreement", one.id, msgspec.structs.replace(one, recourse=amount))
    return settled


def _settle_one(draft: Draft, agreement: Agreement, state: str) -> Agreement:
    """Pays each leg what is owed, tops up from the failed provider's bond, and gives back the rest of all. Where
    the payment was declined nothing is owed any more, and all goes back."""
    name = agreement.id
    charged = 0
    for leg in agreement.legs:
        amount = owed(leg) if state == "charged" else 0
        draft.transfer(held(name), funds(leg.provider), amount)
        charged += amount
        if leg.topped_up:
            extra = topped_up_owed(leg) if state == "charged" else 0
            draft.transfer(topped_up(name), funds(leg.provider), extra)
            draft.transfer(topped_up(name), bond(leg.topped_up_by), leg.topped_up - extra)
    draft.transfer(held(name), _payer_account(agreement), agreement.held - charged)
    _return_bond(draft, agreement)
    settled = msgspec.structs.replace(agreement, state=state, charged=charged, held=0)
    draft.put("agreement", name, settled)
    opinions.open_exchange(draft, settled)
    return settled


def _return_bond(draft: Draft, agreement: Agreement) -> None:
    """A subcontractor's bond goes back, or makes good, when the prime is settled; at once where that is over."""
    has_begun = agreement.state != "agreed"
    if agreement.prime and has_begun and draft.agreement(agreement.prime).state not in chains.OVER:
        return
    _release_bond(draft, agreement)


def _release_bond(draft: Draft, agreement: Agreement) -> None:
    if agreement.bond_of:
        draft.transfer(held_bond(agreement.id), bond(agreement.bond_of), draft.balance(held_bond(agreement.id)))


def give_up(draft: Draft, agreement: Agreement) -> Agreement:
    """Nothing is charged: all that is held goes back, and so does the block."""
    check_returnable(draft, agreement)
    cancelled = msgspec.structs.replace(agreement, state=next_state(agreement.state, "cancel"), held=0)
    _return_bond(draft, agreement)
    for leg in agreement.legs:
        draft.transfer(topped_up(agreement.id), bond(leg.topped_up_by), leg.topped_up)
    draft.transfer(held(agreement.id), _payer_account(agreement), agreement.held)
    _void_block(draft, agreement)
    draft.put("agreement", agreement.id, cancelled)
    for one in chains.subcontracts_of(draft, agreement.id):
        if one.state in chains.OVER:
            _release_bond(draft, one)
    return cancelled


def check_returnable(draft: Draft, agreement: Agreement) -> None:
    """Only who still holds the whole block can give it back."""
    block = draft.block(agreement.block)
    if block.state != "sold" or block.holder != agreement.recipient:
        raise WrongState(f"the block of {agreement.id} has been passed on, and cannot be given back")


def lapse(draft: Draft, agreement: Agreement) -> Agreement:
    """The payment was not authorised: the block is free again, and so is the bond."""
    lapsed = msgspec.structs.replace(agreement, state=next_state(agreement.state, "lapse"))
    _release_bond(draft, agreement)
    _void_block(draft, agreement)
    draft.put("agreement", agreement.id, lapsed)
    return lapsed


def _void_block(draft: Draft, agreement: Agreement) -> None:
    """A block that was made for this agreement is no more; one that was sold goes back to its seller."""
    block = draft.block(agreement.block)
    if draft.auction(agreement.auction).block is not None:
        draft.put("block", block.id, msgspec.structs.replace(block, state="void"))
        return
    state = "free" if agreement.provider == block.provider else "sold"
    draft.put("block", block.id, msgspec.structs.replace(block, holder=agreement.provider, state=state))


def _payer_account(agreement: Agreement) -> str:
    """Where what is not charged goes back to."""
    return funds(agreement.recipient) if agreement.method == PREPAID else card(agreement.method)


def refund(draft: Draft, name: str, amount: int) -> Agreement:
    agreement = draft.agreement(name)
    check_refund(draft, agreement, amount)
    return give_back(draft, agreement, amount)


def check_refund(draft: Draft, agreement: Agreement, amount: int) -> None:
    next_state(agreement.state, "refund")
    check_amount(amount, "refund")
    if not 0 < amount <= agreement.charged - agreement.refunded:
        raise BadValue(f"{agreement.charged - agreement.refunded} can be refunded, not {amount}")
    if draft.balance(funds(agreement.provider)) < amount:
        raise NotAllowed(f"{agreement.provider} has not got {amount} to give back")


def give_back(draft: Draft, agreement: Agreement, amount: int) -> Agreement:
    """The provider gives back what it was charged for, even where it has spent it: the processor has done so."""
    draft.transfer(funds(agreement.provider), _payer_account(agreement), amount, forced=True)
    refunded = msgspec.structs.replace(
        agreement, state=next_state(agreement.state, "refund"), refunded=agreement.refunded + amount
    )
    draft.put("agreement", agreement.id, refunded)
    return refunded


def charge_back(draft: Draft, agreement: str, amount: int) -> Agreement:
    record = draft.agreement(agreement)
    state = next_state(record.state, "charge_back")
    check_amount(amount, "amount")
    if not 0 < amount <= record.charged - record.refunded:
        raise BadValue(f"{record.charged - record.refunded} can be charged back, not {amount}")
    left = amount
    for leg in reversed(record.legs):
        part = min(left, owed(leg))
        draft.transfer(funds(leg.provider), _payer_account(record), part, forced=True)
        left -= part
    changed = msgspec.structs.replace(record, state=state, charged_back=True, refunded=record.refunded + amount)
    draft.put("agreement", agreement, changed)
    return changed


def agree(draft: Draft, name: str) -> Agreement:
    agreement = draft.agreement(name)
    state = next_state(agreement.state, "agree")
    if agreement.method != PREPAID:
        raise WrongState(f"{name} is paid by {agreement.method}: see `pay`")
    opinions.check_payer(draft, agreement)
    draft.transfer(funds(agreement.recipient), held(name), agreement.price)
    return take_effect(draft, agreement, state)


def take_effect(draft: Draft, agreement: Agreement, state: str) -> Agreement:
    """The price is held, and the first provider's leg begins."""
    leg = Leg(agreement.provider, agreement.starts_ms, agreement.ends_ms, agreement.price)
    agreed = msgspec.structs.replace(agreement, state=state, held=agreement.price, legs=(leg,))
    draft.put("agreement", agreement.id, agreed)
    return agreed


def start(draft: Draft, name: str) -> Agreement:
    agreement = draft.agreement(name)
    state = next_state(agreement.state, "start")
    if draft.at_ms >= agreement.ends_ms:
        raise WrongState("the window of this agreement is over")
    if f"{name}/void" in draft.state.pending_payments:
        raise WrongState(f"{name} is being cancelled")
    started = msgspec.structs.replace(agreement, state=state)
    draft.put("agreement", name, started)
    return started


def finish(draft: Draft, name: str) -> Agreement:
    agreement = draft.agreement(name)
    finished = msgspec.structs.replace(agreement, state=next_state(agreement.state, "finish"), finished_ms=draft.at_ms)
    draft.put("agreement", name, finished)
    return finished


def cancel(draft: Draft, name: str) -> Agreement:
    agreement = draft.agreement(name)
    if agreement.method != PREPAID:
        raise WrongState(f"{name} is paid by {agreement.method}")
    return give_up(draft, agreement)


def charge(draft: Draft, name: str) -> Agreement:
    agreement = draft.agreement(name)
    state = next_state(agreement.state, "charge")
    if agreement.method != PREPAID:
        raise WrongState(f"{name} is paid by {agreement.method}: see `capture`")
    return settle(draft, agreement, state)
