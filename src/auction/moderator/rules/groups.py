"""Groups that share a price: bargaining, limits and pledges, and the money that is held, taken and returned.

`auction.groups.sponsorship` decides who is served for how much, `auction.groups.negotiation` has the rules of
bargaining.
"""

from __future__ import annotations

import msgspec

from auction.groups.negotiation import Negotiation, Offer
from auction.groups.sponsorship import GroupOutcome, Pledge, settle_group, shared_cost
from auction.model import holding
from auction.model.agreement import Agreement
from auction.model.errors import BadValue, Exists, NotAllowed, TooLate, WrongState
from auction.model.ledger import bond, card, funds, held, held_bond, pledged
from auction.model.lifecycle import CLOSING_MS, GROUP_MS
from auction.model.money import check_amount
from auction.model.receipt import exposure
from auction.moderator.draft import Draft
from auction.moderator.records import Auction, Group
from auction.moderator.rules import admission, parties
from auction.payment.protocol import PREPAID


def open_group(draft: Draft, auction: str, organiser: str, extra_cost: int, device: str) -> Group:
    record = draft.auction(auction)
    if record.announcer != organiser or record.announcement.direction != "provide":
        raise NotAllowed(f"{organiser} did not announce auction {auction} to be served itself")
    if record.state not in ("open", "funding") or draft.placed_bids(auction) or draft.state.commitments_of.get(auction):
        raise WrongState(f"a group must be opened before the first bid, and auction {auction} is past that")
    if record.group:
        raise Exists(f"auction {auction} has a group already: {record.group}")
    if record.method != PREPAID:
        # The members get what comes back; a card that is captured for less than that could not pay them.
        raise BadValue("a group can share a payment from its organiser's balance, not from a card")
    if record.announcement.quantity > 1 or record.announcement.items:
        raise BadValue("a group shares one agreement, and an auction of units or items may end in several")
    if device and parties.stands_for(draft, device) != organiser:
        raise NotAllowed(f"{device} is no device of {organiser}")
    name = draft.new_id("group")
    group = Group(
        id=name,
        organiser=organiser,
        auction=auction,
        extra_cost=check_amount(extra_cost, "extra cost"),
        device=device,
    )
    draft.put("auction", auction, msgspec.structs.replace(record, group=name))
    return _put(draft, group)


def awarded(draft: Draft, record: Auction) -> None:
    """Opens the hour after the award in which the group bargains, joins and settles."""
    group: Group = draft.get("group", record.group)
    made = [one for (kind, _), one in draft.changes.items() if kind == "agreement" and one.auction == record.id]
    due_ms = draft.at_ms + GROUP_MS
    negotiation = Negotiation(group=group.organiser, seller=made[0].provider, ends_ms=due_ms)
    _put(draft, msgspec.structs.replace(group, agreement=made[0].id, due_ms=due_ms, negotiation=negotiation))


def offer_price(draft: Draft, group: str, by: str, price: int, expires_ms: int) -> Group:
    open_group, negotiation = _negotiating(draft, group)
    if price > draft.agreement(open_group.agreement).price:
        raise NotAllowed("a price cannot be above the awarded one")
    offered = negotiation.with_offer(Offer(by=by, price=price, expires_ms=expires_ms), draft.at_ms)
    return _put(draft, msgspec.structs.replace(open_group, negotiation=offered))


def accept_price(draft: Draft, group: str, by: str) -> Group:
    open_group, negotiation = _negotiating(draft, group)
    accepted = negotiation.accept(by, draft.at_ms)
    record = draft.agreement(open_group.agreement)
    if accepted.price is not None:
        _lower(draft, record, accepted.price)
    return _put(draft, msgspec.structs.replace(open_group, negotiation=accepted))


def _lower(draft: Draft, agreement: Agreement, price: int) -> None:
    """Lowers the price that both sides agreed to, and releases what each holds for the difference."""
    of_recipient = holding.with_delta(price, agreement.delta_ppm) + agreement.fee.of(price)
    fail_over = draft.auction(agreement.auction).announcement.fail_over
    recipient_held = agreement.recipient_held if fail_over else min(agreement.recipient_held, of_recipient)
    provider_held = min(agreement.provider_held, holding.of_provider(price, agreement.delta_ppm) + agreement.insured)
    payer = funds(agreement.recipient) if agreement.method == PREPAID else card(agreement.method)
    draft.transfer(held(agreement.id), payer, agreement.recipient_held - recipient_held)
    draft.transfer(held_bond(agreement.id), bond(agreement.provider), agreement.provider_held - provider_held)
    lowered = msgspec.structs.replace(
        agreement,
        price=price,
        penalty=holding.penalty_of(price),
        exposure=exposure(price, agreement.ends_ms - agreement.starts_ms, agreement.receipts),
        recipient_held=recipient_held,
        provider_held=provider_held,
    )
    draft.put("agreement", agreement.id, lowered)


def reject_price(draft: Draft, group: str, by: str) -> Group:
    open_group, negotiation = _negotiating(draft, group)
    rejected = negotiation.reject(by, draft.at_ms)
    return _put(draft, msgspec.structs.replace(open_group, negotiation=rejected))


def join_group(draft: Draft, group: str, member: str, limit: int) -> Group:
    open_group = _open(draft, group)
    parties.check_organisation(draft, member)
    admission.check_not_barred(draft, member)
    limits = _raised(draft, group, open_group.limits, member, limit)
    return _put(draft, msgspec.structs.replace(open_group, limits=limits))


def pledge(draft: Draft, group: str, sponsor: str, amount: int, opted_in: bool) -> Group:
    open_group = _open(draft, group)
    if sponsor not in open_group.limits:
        raise NotAllowed(f"{sponsor} is not a member of {group}")
    Pledge(sponsor=sponsor, amount=amount, opted_in=opted_in)
    pledges = _raised(draft, group, open_group.pledges, sponsor, amount)
    return _put(draft, msgspec.structs.replace(open_group, pledges=pledges))


def _raised(draft: Draft, group: str, amounts: dict[str, int], party: str, amount: int) -> dict[str, int]:
    """Raises a limit or pledge. It can never fall, so that nobody is promised what is then taken back."""
    before = amounts.get(party, 0)
    if check_amount(amount) < before:
        raise BadValue(f"{party} has put in {before} already; limits and pledges can only be raised")
    draft.transfer(funds(party), pledged(group), amount - before)
    return {**amounts, party: amount}


def settle(draft: Draft, group: str) -> Group:
    """Replaces the organiser's money by the members'."""
    open_group = _open(draft, group)
    if not open_group.agreement:
        raise WrongState(f"{group} can be settled after the award")
    agreement = draft.agreement(open_group.agreement)
    if agreement.state not in ("agreed", "running"):
        raise WrongState(f"{agreement.id} is {agreement.state}: {group} can no longer pay for it")
    cost = shared_cost(agreement.price, dict.fromkeys(open_group.limits, open_group.extra_cost))
    pledges = [Pledge(sponsor=sponsor, amount=amount, opted_in=True) for sponsor, amount in open_group.pledges.items()]
    outcome = settle_group(open_group.limits, pledges, cost)
    for member, limit in open_group.limits.items():
        put_in = limit + open_group.pledges.get(member, 0)
        taken = outcome.owes(member)
        draft.transfer(pledged(group), funds(open_group.organiser), taken)
        draft.transfer(pledged(group), funds(member), put_in - taken)
    if outcome.payments:
        payers = _payers(open_group, outcome)
        draft.put("agreement", agreement.id, msgspec.structs.replace(agreement, payers=payers))
    state = "settled" if outcome.payments else "failed"
    return _put(draft, msgspec.structs.replace(open_group, state=state, outcome=outcome, due_ms=0))


def _payers(group: Group, outcome: GroupOutcome) -> tuple[tuple[str, int], ...]:
    """The members' parts of the price, in the order of joining. What comes back is divided in that proportion."""
    return tuple((member, outcome.owes(member)) for member in group.limits if outcome.owes(member))


def group_is_due(draft: Draft, name: str, due_ms: int) -> None:
    """The group was not settled in time: its holds are released, and the organiser pays alone."""
    group: Group = draft.get("group", name)
    if group.due_ms != due_ms:
        return
    given_ms = draft.state.back_ms + CLOSING_MS
    is_first = group.negotiation is not None and due_ms == group.negotiation.ends_ms
    if draft.state.back_ms and is_first and given_ms > draft.at_ms:  # the market was away: more time, once
        _put(draft, msgspec.structs.replace(group, due_ms=given_ms))
        return
    give_back(draft, name)


def give_back(draft: Draft, name: str) -> None:
    group: Group = draft.get("group", name)
    if group.state != "open":
        return
    for put_in in (group.limits, group.pledges):
        for member, amount in put_in.items():
            draft.transfer(pledged(name), funds(member), amount)
    _put(draft, msgspec.structs.replace(group, state="failed", due_ms=0))


def _open(draft: Draft, name: str) -> Group:
    group: Group = draft.get("group", name)
    if group.state != "open":
        raise TooLate(f"{name} is {group.state}")
    return group


def _negotiating(draft: Draft, name: str) -> tuple[Group, Negotiation]:
    group = _open(draft, name)
    if group.negotiation is None or draft.agreement(group.agreement).state != "agreed":
        raise WrongState("bargaining is possible between the award and the start")
    return group, group.negotiation


def _put(draft: Draft, group: Group) -> Group:
    draft.put("group", group.id, group)
    return group
