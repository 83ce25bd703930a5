"""How an agreement runs and ends: receipts, statements, proofs of false results, and the settlement.

`model/closing` and `model/earned` have the arithmetic; here each payout becomes a transfer.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from auction.model.agreement import Agreement, Ruling, lost_by_provider, settled_back, settlement_of
from auction.model.closing import (
    Payout,
    Settlement,
    Statement,
    capture,
    check_ending,
    is_over,
    owed_below_signature,
    restated,
    to_capture,
)
from auction.model.earned import FalseInterval, better, check_false_interval, figure
from auction.model.errors import BadValue, NotAllowed, TooLate, WrongState
from auction.model.ledger import FEES, NOBODY, bond, card, funds, held, held_bond
from auction.model.lifecycle import (
    CHARGEBACK_MS,
    CLOSING_MS,
    GRACE_MS,
    Times,
    by_time,
    deadline_ms,
    is_present,
    next_state,
    step_of,
)
from auction.model.money import check_amount, split_proportionally
from auction.model.party import are_linked
from auction.model.receipt import SignedReceipt, check_alone, check_signatures
from auction.moderator.draft import Draft
from auction.moderator.rules import blocks, holds, opinions
from auction.payment.protocol import PREPAID


def hand_in(draft: Draft, name: str, party: str, receipt: SignedReceipt) -> Agreement:
    agreement = draft.agreement(name)
    _check_side(agreement, party)
    next_state(agreement.state, "hand_in")
    terms = agreement.receipt_terms(draft.config.name)
    check_alone(terms, receipt.receipt)
    check_signatures(terms, receipt, draft.verifier)
    if agreement.state == "settled":
        return _owed_by_signature(draft, agreement, receipt)
    best = better(terms, agreement.receipt, receipt)
    if best is None:
        raise BadValue("a receipt only counts if both sides have signed it")
    changed = msgspec.structs.replace(agreement, receipt=best)
    draft.put("agreement", name, changed)
    return changed


def _owed_by_signature(draft: Draft, agreement: Agreement, receipt: SignedReceipt) -> Agreement:
    """A signed receipt contradicts the recipient's stated figure: it owes twice the difference."""
    if draft.at_ms >= agreement.settled_ms + CHARGEBACK_MS:
        raise TooLate(f"the time for showing receipts of {agreement.id} is over")
    said, provider = agreement.recipient_says, agreement.provider_says
    shown = figure(agreement.receipt_terms(draft.config.name), receipt.receipt)
    if not receipt.recipient or said is None or said.figure >= shown:
        raise BadValue("the recipient has stated no figure below what it signed")
    if provider is not None and provider.figure <= said.figure:
        raise BadValue("the provider itself has stated the same figure or a lower one")
    if draft.find("debt", f"{agreement.id}/signed") is not None:
        raise WrongState(f"a receipt that contradicts the recipient of {agreement.id} was handed in already")
    owed = owed_below_signature(agreement.paid, shown)
    left = holds.owe(draft, f"{agreement.id}/signed", agreement, [(funds(agreement.provider), owed)])
    changed = msgspec.structs.replace(agreement, debt=agreement.debt + left)
    draft.put("agreement", agreement.id, changed)
    return changed


def end(draft: Draft, name: str, party: str, ending: str, amount: int) -> Agreement:
    agreement = draft.agreement(name)
    step_of(agreement.state, "end")
    stated = _with_statement(agreement, party, Statement(check_ending(ending), amount, draft.at_ms))
    is_first = agreement.state != "closing"
    if is_first:
        blocks.cut_short(draft, agreement.block)
    if is_over(stated.provider_says, stated.recipient_says):
        next_state(agreement.state, "end", "settled")
        return settle(draft, stated)
    changed = msgspec.structs.replace(
        stated,
        state=next_state(agreement.state, "end", "closing"),
        ended_ms=draft.at_ms if is_first else agreement.ended_ms,
        due_ms=draft.at_ms + CLOSING_MS if is_first else agreement.due_ms,
    )
    draft.put("agreement", name, changed)
    return changed


def cost_of(draft: Draft, name: str, party: str, ending: str, amount: int) -> Settlement:
    """The settlement if this side stated this end and nothing else were stated or handed in."""
    agreement = draft.agreement(name)
    step_of(agreement.state, "end")
    return settlement_of(
        _with_statement(agreement, party, Statement(check_ending(ending), amount, draft.at_ms)), draft.config.name
    )


def _with_statement(agreement: Agreement, party: str, statement: Statement) -> Agreement:
    side = _check_side(agreement, party)
    if statement.figure > agreement.price:
        raise BadValue(f"a figure is at most the price of {agreement.price}")
    former = getattr(agreement, f"{side}_says")
    return msgspec.structs.replace(agreement, **{f"{side}_says": restated(former, statement)})


def _check_side(agreement: Agreement, party: str) -> str:
    if party == agreement.provider:
        return "provider"
    if party == agreement.recipient:
        return "recipient"
    raise NotAllowed(f"{party} is not a side of {agreement.id}")


def check_proof(draft: Draft, name: str, proof: FalseInterval) -> Agreement:
    """The agreement, if the proof matches what both sides signed. The judge decides whether the result is false."""
    agreement = draft.agreement(name)
    step_of(agreement.state, "prove")
    terms = agreement.receipt_terms(draft.config.name)
    check_false_interval(terms, proof)
    for signed in (proof.before, proof.after):
        if signed is not None:
            check_signatures(terms, signed, draft.verifier)
    return agreement


def prove(draft: Draft, name: str, proof: FalseInterval) -> Agreement:
    """Records that the judge has found the result false."""
    agreement = check_proof(draft, name, proof)
    number = proof.after.receipt.number
    if any(one.after.receipt.number == number for one in agreement.proven):
        raise WrongState(f"interval {number} of {name} was proven false already")
    without = msgspec.structs.replace(proof, inputs=(), results=())
    best = better(agreement.receipt_terms(draft.config.name), agreement.receipt, proof.after)
    changed = msgspec.structs.replace(agreement, proven=(*agreement.proven, without), receipt=best)
    draft.put("agreement", name, changed)
    return changed


def arbitrate(draft: Draft, name: str, arbiter: str, to_provider: int, to_recipient: int) -> Agreement:
    agreement = draft.agreement(name)
    next_state(agreement.state, "arbitrate")
    if not agreement.arbiter or arbiter != agreement.arbiter:
        raise NotAllowed(f"{arbiter} is not the arbiter that both sides of {name} have named")
    for side in (agreement.provider, agreement.recipient):
        if are_linked(draft.party(arbiter), draft.party(side)):
            raise NotAllowed(f"{arbiter} is linked to {side}")
    check_amount(to_provider, "part of the provider")
    check_amount(to_recipient, "part of the recipient")
    burnt = settlement_of(msgspec.structs.replace(agreement, ruling=None), draft.config.name).burnt
    if to_provider + to_recipient > burnt:
        raise BadValue(f"only {burnt} would go to nobody, and no more can be divided")
    changed = msgspec.structs.replace(agreement, ruling=Ruling(arbiter, to_provider, to_recipient))
    draft.put("agreement", name, changed)
    return changed


# --- deadlines ---


def times_of(draft: Draft, agreement: Agreement) -> Times:
    record = draft.auction(agreement.auction)
    return Times(
        announced_ms=record.announced_ms,
        closes_ms=record.closes_ms,
        starts_ms=agreement.starts_ms,
        ends_ms=agreement.ends_ms,
        ended_ms=agreement.ended_ms,
        back_ms=draft.state.back_ms,
    )


def _more_time(draft: Draft, agreement: Agreement) -> int:
    """The later deadline of an agreement whose own one has passed while the market was away; 0 if it has none."""
    times = times_of(draft, agreement)
    counted_ms = deadline_ms(agreement.state, msgspec.structs.replace(times, back_ms=0))
    given_ms = deadline_ms(agreement.state, times)
    assert counted_ms is not None
    assert given_ms is not None
    return given_ms if given_ms > draft.at_ms and agreement.due_ms <= counted_ms else 0


def agreement_is_due(draft: Draft, name: str, due_ms: int) -> None:
    """Acts on the deadline of its state, unless it was moved because an end was stated or the market had an outage."""
    agreement = draft.agreement(name)
    if agreement.is_over or agreement.due_ms != due_ms:
        return
    # More time is given once: a market that is started again and again would never come to an end.
    if draft.state.back_ms and (given_ms := _more_time(draft, agreement)):
        draft.put("agreement", name, msgspec.structs.replace(agreement, due_ms=given_ms))
    elif agreement.state == "agreed":
        _has_begun(draft, agreement)
    elif agreement.state == "running":
        _is_closing(draft, agreement)
    else:
        by_time(agreement.state, "settled")
        settle(draft, agreement)


def _has_begun(draft: Draft, agreement: Agreement) -> None:
    """Starts the agreement if both sides are present. Without receipts nobody must poll; the other side can blame one
    that does not come."""
    polled, now_ms = draft.state.polled, draft.at_ms
    if agreement.receipts:
        provider_absent = not is_present(polled.get(agreement.provider), now_ms)
        recipient_absent = not is_present(polled.get(agreement.recipient), now_ms)
        if provider_absent or recipient_absent:
            absent = msgspec.structs.replace(
                agreement, provider_absent=provider_absent, recipient_absent=recipient_absent
            )
            _is_closing(draft, absent)
            return
    running = msgspec.structs.replace(
        agreement, state=by_time(agreement.state, "running"), due_ms=agreement.ends_ms + GRACE_MS
    )
    draft.put("agreement", agreement.id, running)


def _is_closing(draft: Draft, agreement: Agreement) -> None:
    """Starts closing: no end was stated in time, or a side was absent. Both may state one until C is over."""
    blocks.cut_short(draft, agreement.block)
    begun_early = draft.at_ms < agreement.ends_ms
    changed = msgspec.structs.replace(
        agreement,
        state=by_time(agreement.state, "closing"),
        ended_ms=draft.at_ms if begun_early else 0,
        due_ms=(draft.at_ms if begun_early else agreement.ends_ms + GRACE_MS) + CLOSING_MS,
    )
    draft.put("agreement", agreement.id, changed)


# --- settling ---


def settle(draft: Draft, agreement: Agreement) -> Agreement:
    """Closing is over: makes every payout of the table of ends. Payouts from a card wait for its capture."""
    settlement = settlement_of(agreement, draft.config.name)
    earned = agreement.earnings(draft.config.name)
    is_card = agreement.method != PREPAID
    capturing = min(to_capture(settlement), agreement.recipient_held) if is_card else 0
    # A ruling can give the recipient more back of its own than takeovers have left of the hold.
    back = min(settled_back(settlement), max(0, agreement.recipient_held - to_capture(settlement)))
    gained = 0
    payouts: tuple[Payout, ...] = settlement.payouts
    debts: tuple[Payout, ...] = ()
    if not is_card and to_capture(settlement) > agreement.recipient_held:
        covered = capture(settlement, agreement.recipient_held)
        payouts, debts = covered.payouts, covered.debts
    for one in payouts:
        if one.source == "provider":
            target = {"provider": bond(agreement.provider), "nobody": NOBODY}.get(one.target, "")
            if target:
                draft.transfer(held_bond(agreement.id), target, one.amount)
            else:
                gained += one.amount
        elif one.target != "recipient" and not is_card:
            draft.transfer(held(agreement.id), account_of(agreement, one.target), one.amount)
    fee = sum(one.amount for one in settlement.payouts if one.target == "operator")
    _give_back(draft, agreement, back, gained, fee)
    of_recipient = sum(one.amount for one in settlement.payouts if (one.source, one.target) == ("recipient", "nobody"))
    ended = msgspec.structs.replace(agreement, ended_ms=agreement.ended_ms or draft.at_ms)
    settled = msgspec.structs.replace(
        agreement,
        state="settled",
        due_ms=0,
        settled_ms=draft.at_ms,
        recipient_held=capturing,
        provider_held=0,
        provider_ending=settlement.provider_ending,
        recipient_ending=settlement.recipient_ending,
        contested=_is_contested(agreement),
        capturing=capturing,
        paid=settlement.paid,
        burnt=settlement.burnt,
        lost=of_recipient + lost_by_provider(ended, settlement, earned),
        charged=0 if is_card else to_provider(payouts),
        fee_charged=fee,
    )
    if debts:
        to = [(account_of(agreement, one.target), one.amount) for one in debts]
        settled = msgspec.structs.replace(settled, debt=holds.owe(draft, f"{agreement.id}/hold", settled, to))
    draft.put("agreement", agreement.id, settled)
    opinions.open_exchange(draft, settled)
    if is_card:
        ask_to_capture(draft, settled)
    return draft.agreement(agreement.id)


def account_of(agreement: Agreement, target: str) -> str:
    """Where what the recipient pays goes to."""
    return {"provider": funds(agreement.provider), "operator": FEES}.get(target, NOBODY)


def to_provider(payouts: Iterable[Payout]) -> int:
    """The total that the recipient pays the provider."""
    return sum(one.amount for one in payouts if (one.source, one.target) == ("recipient", "provider"))


def _is_contested(agreement: Agreement) -> bool:
    said = (agreement.provider_says, agreement.recipient_says)
    figures = {one.figure for one in said if one is not None}
    return len(figures) > 1 or any(one is not None and one.ending == "blaming" for one in said)


def _give_back(draft: Draft, agreement: Agreement, back: int, gained: int, fee: int) -> None:
    """Returns the rest of the recipient's hold, and what the provider pays, to the payers. If a group's money replaced
    the price, the members get everything beyond the recipient's own part, in proportion."""
    record = draft.auction(agreement.auction)
    whole = back + gained
    if agreement.payers:
        own = max(0, agreement.recipient_held - agreement.price - fee)  # the part of the hold beyond the price
        of_members = max(0, whole - own)
        parts = split_proportionally(of_members, [amount for _, amount in agreement.payers])
        rows = [(member, part) for (member, _), part in zip(agreement.payers, parts, strict=True)]
        rows.append((agreement.recipient, whole - of_members))
    else:
        rows = [(agreement.recipient, whole)]
    is_card = agreement.method != PREPAID
    for member, amount in rows:
        of_hold = min(back, amount)
        target = card(record.method) if is_card and member == agreement.recipient else funds(member)
        draft.transfer(held(agreement.id), target, of_hold)
        draft.transfer(held_bond(agreement.id), funds(member), amount - of_hold)
        back -= of_hold


def ask_to_capture(draft: Draft, agreement: Agreement) -> None:
    """Captures a card, once, when every agreement of its auction is settled."""
    names = dict.fromkeys(draft.state.agreements_of.get(agreement.auction, ()))
    names |= dict.fromkeys(name for kind, name in draft.changes if kind == "agreement")
    of_auction = [one for one in map(draft.agreement, names) if one.auction == agreement.auction]
    if not all(one.is_over for one in of_auction):
        return
    amount = sum(one.capturing for one in of_auction)
    holds.ask(draft, agreement.auction, "capture" if amount else "void", amount)
