"""Groups in which some will pay and some won't: bargaining over the price, bids, pledges, and who is served in the end.

The rules stand in `auction.sponsorship` and `auction.negotiation`; here the money is held, taken and given back.
"""

from __future__ import annotations

import msgspec

from auction.errors import NotAllowed, TooLate, WrongState
from auction.ledger import funds, pledged
from auction.moderator.records import Group
from auction.moderator.shares import ShareCommands
from auction.moderator.state import Draft
from auction.money import check_amount, check_integer
from auction.negotiation import Negotiation, Offer
from auction.sponsorship import Pledge, settle_group, shared_cost


class GroupCommands(ShareCommands):
    def open_group(self, agreement: str, organiser: str, open_for_ms: int, *, key: str | None = None) -> Group:
        """The recipient of an agreement that is awarded, and not yet agreed, looks for others to share its price."""

        def decide(draft: Draft) -> Group:
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

        return self._run("open_group", key, (agreement, organiser, open_for_ms), decide, Group)

    def offer_price(self, group: str, by: str, price: int, expires_ms: int, *, key: str | None = None) -> Group:
        """The group's organiser or the provider offers a price for all, or counters the other's. It can only come down:
        no price rises above the award."""

        def decide(draft: Draft) -> Group:
            open_group, negotiation = self._negotiating(draft, group)
            if price > draft.agreement(open_group.agreement).price:
                raise NotAllowed("a price never rises above the awarded one")
            offered = negotiation.with_offer(Offer(by=by, price=price, expires_ms=expires_ms), draft.at_ms)
            return self._put_group(draft, msgspec.structs.replace(open_group, negotiation=offered))

        return self._run("offer_price", key, (group, by, price, expires_ms), decide, Group)

    def accept_price(self, group: str, by: str, *, key: str | None = None) -> Group:
        """Accepts the offer that stands: the agreement has that price from then on."""

        def decide(draft: Draft) -> Group:
            open_group, negotiation = self._negotiating(draft, group)
            accepted = negotiation.accept(by, draft.at_ms)
            record = draft.agreement(open_group.agreement)
            price = accepted.price if accepted.price is not None else record.price
            draft.put("agreement", record.id, msgspec.structs.replace(record, price=price))
            return self._put_group(draft, msgspec.structs.replace(open_group, negotiation=accepted))

        return self._run("accept_price", key, (group, by), decide, Group)

    def reject_price(self, group: str, by: str, *, key: str | None = None) -> Group:
        """Ends the bargaining; the awarded price stands."""

        def decide(draft: Draft) -> Group:
            open_group, negotiation = self._negotiating(draft, group)
            rejected = negotiation.reject(by, draft.at_ms)
            return self._put_group(draft, msgspec.structs.replace(open_group, negotiation=rejected))

        return self._run("reject_price", key, (group, by), decide, Group)

    def join_group(self, group: str, member: str, bid: int, *, key: str | None = None) -> Group:
        """A member says the most that it will pay for its own part: 0 is a member that won't. The amount is held."""

        def decide(draft: Draft) -> Group:
            open_group = self._open(draft, group)
            self._check_organisation(draft, member)
            check_amount(bid, "bid")
            draft.transfer(pledged(group), funds(member), open_group.bids.get(member, 0))
            draft.transfer(funds(member), pledged(group), bid)
            bids = {**open_group.bids, member: bid}
            return self._put_group(draft, msgspec.structs.replace(open_group, bids=bids))

        return self._run("join_group", key, (group, member, bid), decide, Group)

    def pledge(self, group: str, sponsor: str, amount: int, *, opted_in: bool, key: str | None = None) -> Group:
        """A willing member opts in to sponsor the unwilling: all or nothing, held until it is settled."""

        def decide(draft: Draft) -> Group:
            open_group = self._open(draft, group)
            if sponsor not in open_group.bids:
                raise NotAllowed(f"{sponsor} is not a member of {group}")
            Pledge(sponsor=sponsor, amount=amount, opted_in=opted_in)
            draft.transfer(pledged(group), funds(sponsor), open_group.pledges.get(sponsor, 0))
            draft.transfer(funds(sponsor), pledged(group), amount)
            pledges = {**open_group.pledges, sponsor: amount}
            return self._put_group(draft, msgspec.structs.replace(open_group, pledges=pledges))

        return self._run("pledge", key, (group, sponsor, amount, opted_in), decide, Group)

    def settle_group(self, group: str, extra_cost: int = 0, *, key: str | None = None) -> Group:
        """Shares the price (and `extra_cost` for each member who is served, such as a device's set-up) by the Moulin
        mechanism among the willing, serves the unwilling where the pledges suffice, and gives everything else back.
        What was taken goes to the organiser, who agrees with it. Group-strategyproof and budget balanced; not
        efficient. Where nobody is willing, the group has failed."""

        def decide(draft: Draft) -> Group:
            open_group = self._open(draft, group)
            check_amount(extra_cost, "extra cost")
            price = draft.agreement(open_group.agreement).price
            cost = shared_cost(price, dict.fromkeys(open_group.bids, extra_cost))
            pledges = [
                Pledge(sponsor=sponsor, amount=amount, opted_in=True) for sponsor, amount in open_group.pledges.items()
            ]
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
            return self._put_group(draft, settled)

        return self._run("settle_group", key, (group, extra_cost), decide, Group)

    def group_of(self, group: str) -> Group:
        """The group as it stands. Raises Unknown."""
        with self._deciding:
            return Draft(self._state, 0).get("group", group)  # type: ignore[no-any-return]

    # What follows decides on a draft.

    def _group_is_due(self, draft: Draft, name: str, due_ms: int) -> None:
        """Nothing came of it in time: what was held goes back."""
        group: Group = draft.get("group", name)
        if group.state != "open" or group.due_ms != due_ms:
            return
        for held in (group.bids, group.pledges):
            for member, amount in held.items():
                draft.transfer(pledged(name), funds(member), amount)
        self._put_group(draft, msgspec.structs.replace(group, state="failed", due_ms=0))

    @staticmethod
    def _open(draft: Draft, name: str) -> Group:
        group: Group = draft.get("group", name)
        if group.state != "open":
            raise TooLate(f"{name} is {group.state}")
        return group

    def _negotiating(self, draft: Draft, name: str) -> tuple[Group, Negotiation]:
        group = self._open(draft, name)
        if group.negotiation is None or draft.agreement(group.agreement).state != "awarded":
            raise WrongState("the price is settled already")
        return group, group.negotiation

    @staticmethod
    def _put_group(draft: Draft, group: Group) -> Group:
        draft.put("group", group.id, group)
        return group
