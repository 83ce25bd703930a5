"""The way of an agreement that is paid from a balance: agreed, started, finished or cancelled, charged."""

from __future__ import annotations

import msgspec

from auction.model.agreement import Agreement, Leg, next_state
from auction.model.errors import WrongState
from auction.model.ledger import funds, held
from auction.moderator.draft import Draft
from auction.moderator.rules import settling, standing
from auction.payment.protocol import PREPAID


def agree(draft: Draft, name: str) -> Agreement:
    agreement = draft.agreement(name)
    state = next_state(agreement.state, "agree")
    if agreement.method != PREPAID:
        raise WrongState(f"{name} is paid by {agreement.method}: see `pay`")
    standing.check_payer(draft, agreement)
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
    return settling.give_up(draft, agreement)


def charge(draft: Draft, name: str) -> Agreement:
    agreement = draft.agreement(name)
    state = next_state(agreement.state, "charge")
    if agreement.method != PREPAID:
        raise WrongState(f"{name} is paid by {agreement.method}: see `capture`")
    return settling.settle(draft, agreement, state)
