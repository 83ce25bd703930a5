"""Groups that share a price: the bargaining, bids and pledges, and the money that is held, taken and given back.

Who is served for how much stands in `auction.groups.sponsorship`, the bargaining in `auction.groups.negotiation`.
"""

from __future__ import annotations

import msgspec

from auction.groups.negotiation import Negotiation, Offer
from auction.groups.sponsorship import Pledge, settle_group, shared_cost
from auction.model.errors import NotAllowed, TooLate, WrongState
from auction.model.ledger import funds, pledged
from auction.model.money import check_amount, check_integer
from auction.moderator.draft import Draft
from auction.moderator.records import Group
from auction.moderator.rules import parties


def open_group(draft: Draft, agreement: str, organiser: str, open_for_ms: int) -> Group:
    record = draft.agreement(agreement)
    if record.recipient != organiser:
        raise NotAllowed(f"{organiser} is not the recipient of {agreement}")
    if record.state != "awarded":
        raise WrongState(f"{agreement} is {record.state}: its price is settled already")
    due_ms = draft.at_ms + check_integer(open_for_ms, "time to negotiate", 1)
    name = draft.new_id("group")
    negotiation = Negotiation(group=organiser, seller=record.provider, ends_ms=due_ms)
    group = Group(id=name, organiser=organiser, agreement=agreement, due_ms=due_ms, negotiation=negotiation)
    draft.put("group", name, group)
    return group


def offer_price(draft: Draft, group: str, by: str, price: int, expires_ms: int) -> Group:
    open_group, negotiation = _negotiating(draft, group)
    if price > draft.agreement(open_group.agreement).price:
        raise NotAllowed("a price never rises above the awarded one")
    offered = negotiation.with_offer(Offer(by=by, price=price, expires_ms=expires_ms), draft.at_ms)
    return _put(draft, msgspec.structs.replace(open_group, negotiation=offered))


def accept_price(draft: Draft, group: str, by: str) -> Group:
    open_group, negotiation = _negotiating(draft, group)
    accepted = negotiation.accept(by, draft.at_ms)
    record = draft.agreement(open_group.agreement)
    price = accepted.price if accepted.price is not None else record.price
    draft.put("agreement", record.id, msgspec.structs.replace(record, price=price))
    return _put(draft, msgspec.structs.replace(open_group, negotiation=accepted))


def reject_price(draft: Draft, group: str, by: str) -> Group:
    open_group, negotiation = _negotiating(draft, group)
    rejected = negotiation.reject(by, draft.at_ms)
    return _put(draft, msgspec.structs.replace(open_group, negotiation=rejected))


def join_group(draft: Draft, group: str, member: str, bid: int) -> Group:
    open_group = _open(draft, group)
    parties.check_organisation(draft, member)
    check_amount(bid, "bid")
    draft.transfer(pledged(group), funds(member), open_group.bids.get(member, 0))
    draft.transfer(funds(member), pledged(group), bid)
    bids = {**open_group.bids, member: bid}
    return _put(draft, msgspec.structs.replace(open_group, bids=bids))


def pledge(draft: Draft, group: str, sponsor: str, amount: int, opted_in: bool) -> Group:
    open_group = _open(draft, group)
    if sponsor not in open_group.bids:
        raise NotAllowed(f"{sponsor} is not a member of {group}")
    Pledge(sponsor=sponsor, amount=amount, opted_in=opted_in)
    draft.transfer(pledged(group), funds(sponsor), open_group.pledges.get(sponsor, 0))
    draft.transfer(funds(sponsor), pledged(group), amount)
    pledges = {**open_group.pledges, sponsor: amount}
    return _put(draft, msgspec.structs.replace(open_group, pledges=pledges))


def settle(draft: Draft, group: str, extra_cost: int) -> Group:
    open_group = _open(draft, group)
    check_amount(extra_cost, "extra cost")
    price = draft.agreement(open_group.agreement).price
    cost = shared_cost(price, dict.fromkeys(open_group.bids, extra_cost))
    pledges = [Pledge(sponsor=sponsor, amount=amount, opted_in=True) for sponsor, amount in open_group.pledges.items()]
    outcome = settle_group(open_group.bids, pledges, cost)
    for member, bid in open_group.bids.items():
        held = bid + open_group.pledges.get(member, 0)
        taken = outcome.owes(member)
        draft.transfer(pledged(group), funds(open_group.organiser), taken)
        draft.transfer(pledged(group), funds(member), held - taken)
    state = "settled" if outcome.payments else "failed"
    if open_group.organiser in outcome.sponsored:
        record = draft.agreement(open_group.agreement)
        draft.put("agreement", record.id, msgspec.structs.replace(record, sponsor=group))
    settled = msgspec.structs.replace(open_group, state=state, outcome=outcome, due_ms=0)
    return _put(draft, settled)


def group_is_due(draft: Draft, name: str, due_ms: int) -> None:
    """Nothing came of it in time: what was held goes back."""
    group: Group = draft.get("group", name)
    if group.state != "open" or group.due_ms != due_ms:
        return
    for held in (group.bids, group.pledges):
        for member, amount in held.items():
            draft.transfer(pledged(name), funds(member), amount)
    _put(draft, msgspec.structs.replace(group, state="failed", due_ms=0))


def _open(draft: Draft, name: str) -> Group:
    group: Group = draft.get("group", name)
    if group.state != "open":
        raise TooLate(f"{name} is {group.state}")
    return group


def _negotiating(draft: Draft, name: str) -> tuple[Group, Negotiation]:
    group = _open(draft, name)
    if group.negotiation is None or draft.agreement(group.agreement).state != "awarded":
        raise WrongState("the price is settled already")
    return group, group.negotiation


def _put(draft: Draft, group: Group) -> Group:
    draft.put("group", group.id, group)
    return group
