"""Commands of groups in which some will pay and some won't: bargaining over the price, bids, pledges, settling."""

from __future__ import annotations

from auction.moderator.core import Core
from auction.moderator.records import Group
from auction.moderator.rules import groups


class Groups(Core):
    def open_group(self, agreement: str, organiser: str, open_for_ms: int, *, key: str | None = None) -> Group:
        """The recipient of an agreement that is awarded, and not yet agreed, looks for others to share its price."""
        return self._run("open_group", key, (agreement, organiser, open_for_ms), groups.open_group, Group)

    def offer_price(self, group: str, by: str, price: int, expires_ms: int, *, key: str | None = None) -> Group:
        """The group's organiser or the provider offers a price for all, or counters the other's. It can only come down:
        no price rises above the award."""
        return self._run("offer_price", key, (group, by, price, expires_ms), groups.offer_price, Group)

    def accept_price(self, group: str, by: str, *, key: str | None = None) -> Group:
        """Accepts the offer that stands: the agreement has that price from then on."""
        return self._run("accept_price", key, (group, by), groups.accept_price, Group)

    def reject_price(self, group: str, by: str, *, key: str | None = None) -> Group:
        """Ends the bargaining; the awarded price stands."""
        return self._run("reject_price", key, (group, by), groups.reject_price, Group)

    def join_group(self, group: str, member: str, bid: int, *, key: str | None = None) -> Group:
        """A member says the most that it will pay for its own part: 0 is a member that won't. The amount is held."""
        return self._run("join_group", key, (group, member, bid), groups.join_group, Group)

    def pledge(self, group: str, sponsor: str, amount: int, *, opted_in: bool, key: str | None = None) -> Group:
        """A willing member opts in to sponsor the unwilling: all or nothing, held until it is settled."""
        return self._run("pledge", key, (group, sponsor, amount, opted_in), groups.pledge, Group)

    def settle_group(self, group: str, extra_cost: int = 0, *, key: str | None = None) -> Group:
        """Shares the price (and `extra_cost` for each member who is served, such as a device's set-up) by the Moulin
        mechanism among the willing, serves the unwilling where the pledges suffice, and gives everything else back.
        What was taken goes to the organiser, who agrees with it. Group-strategyproof and budget balanced; not
        efficient. Where nobody is willing, the group has failed."""
        return self._run("settle_group", key, (group, extra_cost), groups.settle, Group)

    def group_of(self, group: str) -> Group:
        """The group as it stands. Raises Unknown."""
        with self._deciding:
            return self._draft().get("group", group)  # type: ignore[no-any-return]
