"""A group in which only some pay: the Moulin mechanism, pledges for members that do not pay, the outcome. Pure.

Moulin with Shapley shares (Moulin and Shenker 2001) is budget balanced, and with exact shares group-strategyproof if
the cost is submodular. Payments are rounded to minor units, so one member can gain a unit by lying, and a coalition can
use a member whose bid is within one unit of its share. It is not efficient: it may serve fewer members than would be
worth it. negotiation.py bargains over the price.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from math import factorial

import msgspec

from auction.model.bid import check_name
from auction.model.errors import BadValue, Exists, NotAllowed
from auction.model.money import check_amount, split_proportionally

Cost = Callable[[frozenset[str]], int]
"""The cost in minor units of serving exactly these members; 0 for none."""

EXACT_MEMBERS_MAX = 12  # the exact shares of n members need 2**n costs
CHECKED_MEMBERS_MAX = 8


def shared_cost(fixed: int, own: Mapping[str, int]) -> Cost:
    """A fixed cost plus a cost for each member: always submodular."""
    check_amount(fixed, "fixed cost")
    for member, amount in own.items():
        check_amount(amount, f"cost of {member}")

    def cost(members: frozenset[str]) -> int:
        return fixed + sum(own[member] for member in members) if members else 0

    return cost


def shapley_shares(members: Iterable[str], cost: Cost) -> dict[str, Fraction]:
    """Each member's mean marginal cost over all orders of joining, exactly. Raises BadValue above 12 members."""
    names = sorted(members)
    count = len(names)
    if count > EXACT_MEMBERS_MAX:
        raise BadValue(f"exact shares are computed for at most {EXACT_MEMBERS_MAX} members")
    costs = [check_amount(cost(_chosen(names, mask)), "cost") for mask in range(1 << count)]
    if costs[0]:
        raise BadValue("serving nobody must cost nothing")
    orders = [factorial(size) * factorial(count - size - 1) for size in range(count)]
    shares = {}
    for place, name in enumerate(names):
        bit = 1 << place
        total = sum(
            orders[mask.bit_count()] * (costs[mask | bit] - costs[mask]) for mask in range(1 << count) if not mask & bit
        )
        shares[name] = Fraction(total, factorial(count))
    return shares


def _chosen(names: list[str], mask: int) -> frozenset[str]:
    return frozenset(name for place, name in enumerate(names) if mask >> place & 1)


def check_submodular(members: Iterable[str], cost: Cost) -> None:
    """Raises BadValue if a member costs more together with others than alone: shares would then rise as others join,
    and a coalition could gain by lying. Checks all sets of at most 8 members; for more, the caller must ensure it."""
    names = sorted(members)
    if len(names) > CHECKED_MEMBERS_MAX:
        return
    costs = [cost(_chosen(names, mask)) for mask in range(1 << len(names))]
    for mask in range(1 << len(names)):
        for one in range(len(names)):
            for other in range(one):
                if mask >> one & 1 or mask >> other & 1:
                    continue
                apart = costs[mask | 1 << one] + costs[mask | 1 << other]
                if costs[mask | 1 << one | 1 << other] + costs[mask] > apart:
                    raise BadValue(f"the cost is not submodular at {names[one]} and {names[other]}")


class Sharing(msgspec.Struct, frozen=True, kw_only=True):
    """The served members and their payments, which add up to the cost of serving them."""

    payments: dict[str, int]
    declined: tuple[str, ...]
    rounds: int


def moulin(bids: Mapping[str, int], cost: Cost) -> Sharing:
    """Shares the cost among the members that bid at least their share.

    All members start in; those that bid less than their exact share leave, and the others' shares are computed again,
    until nobody leaves. Exact shares are then rounded to minor units that add up to the cost; nobody pays more than its
    bid. Raises BadAmount, and BadValue for a cost that is not submodular or above 12 members.
    """
    for member, bid in bids.items():
        check_name(member, "member")
        check_amount(bid, f"bid of {member}")
    check_submodular(bids, cost)
    inside = set(bids)
    rounds = 0
    while True:
        rounds += 1
        shares = shapley_shares(inside, cost)
        leaving = {member for member, share in shares.items() if bids[member] < share}
        if not leaving:
            break
        inside -= leaving
    payments = round_shares(shares)
    return Sharing(payments=payments, declined=tuple(sorted(set(bids) - inside)), rounds=rounds)


def round_shares(shares: Mapping[str, Fraction]) -> dict[str, int]:
    """Whole minor units that add up to the sum of the shares: each rounded down, then one more to the largest
    remainders, of equal ones to the earlier name. Raises BadValue if the sum is not whole."""
    whole = sum(shares.values(), Fraction(0))
    if whole.denominator != 1:
        raise BadValue("the shares do not add up to a whole amount")
    names = sorted(shares)
    parts = {name: int(shares[name] // 1) for name in names}
    by_rest = sorted(names, key=lambda name: (parts[name] - shares[name], name))
    for name in by_rest[: int(whole) - sum(parts.values())]:
        parts[name] += 1
    return parts


class Pledge(msgspec.Struct, frozen=True, kw_only=True):
    """A paying member's offer, by opting in, to help pay for those that do not: at most `amount`, all or nothing."""

    sponsor: str
    amount: int
    opted_in: bool

    def __post_init__(self) -> None:
        check_name(self.sponsor, "sponsor")
        check_amount(self.amount, "pledge")
        if self.opted_in is not True:
            raise NotAllowed(f"{self.sponsor} has not opted in to sponsor others")


class PledgeResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result for held pledges: `taken` and `refunded` add up to each sponsor's pledge."""

    funded: bool
    taken: dict[str, int]
    refunded: dict[str, int]


def settle_pledges(target: int, pledges: Iterable[Pledge]) -> PledgeResult:
    """If the pledges reach the target, each sponsor gives in proportion to its pledge, together exactly the target, and
    gets the rest back; if not, everything is refunded. Raises Exists for a sponsor with two pledges."""
    check_amount(target, "target")
    held: dict[str, int] = {}
    for pledge in pledges:
        if pledge.sponsor in held:
            raise Exists(f"{pledge.sponsor} has pledged already")
        held[pledge.sponsor] = pledge.amount
    funded = sum(held.values()) >= target
    parts = split_proportionally(target, list(held.values())) if funded else [0] * len(held)
    taken = dict(zip(held, parts, strict=True))
    return PledgeResult(
        funded=funded, taken=taken, refunded={sponsor: held[sponsor] - part for sponsor, part in taken.items()}
    )


class GroupOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome for a group: the payments, the sponsored members and their sponsors, the members not served.
    Sponsored members owe nothing, and are never marked as non-payers."""

    payments: dict[str, int]
    sponsorship: PledgeResult
    sponsored: tuple[str, ...]
    without: tuple[str, ...]

    @property
    def served(self) -> tuple[str, ...]:
        return tuple(sorted({*self.payments, *self.sponsored}))

    def owes(self, member: str) -> int:
        """What a member must pay in all; only a member that owes something can be marked as a non-payer."""
        return self.payments.get(member, 0) + self.sponsorship.taken.get(member, 0)


def settle_group(bids: Mapping[str, int], pledges: Iterable[Pledge], cost: Cost) -> GroupOutcome:
    """Shares the cost among the members that pay. Serves all the others too if the pledges cover their extra cost and
    at least their Shapley shares; then each share is that of the whole group, and the sponsors pay the others' shares.

    Only a served member that pays its own share may sponsor; other pledges are refunded and do not count. Raises what
    `moulin` and `settle_pledges` raise, and NotAllowed for a pledge by a non-member.
    """
    sharing = moulin(bids, cost)
    held = list(pledges)
    for pledge in held:
        if pledge.sponsor not in bids:
            raise NotAllowed(f"{pledge.sponsor} is not a member of this group")
    able = [pledge for pledge in held if pledge.sponsor in sharing.payments]
    # Shares fall as others join, so nobody pays more than without the sponsored members. Without payers nobody
    # sponsors.
    whole = round_shares(shapley_shares(bids, cost)) if sharing.payments and sharing.declined else {}
    target = sum(whole.get(member, 0) for member in sharing.declined)
    payments = {member: min(share, whole.get(member, share)) for member, share in sharing.payments.items()}
    if whole:
        target = cost(frozenset(bids)) - sum(payments.values())
    result = settle_pledges(target, able)
    refused = {pledge.sponsor: pledge.amount for pledge in held if pledge.sponsor not in sharing.payments}
    sponsored = sharing.declined if result.funded and sharing.payments else ()
    if not sponsored:
        payments = sharing.payments
        result = PledgeResult(
            funded=result.funded and not sharing.declined,
            taken=dict.fromkeys(result.taken, 0),
            refunded={one.sponsor: one.amount for one in able},
        )
    return GroupOutcome(
        payments=payments,
        sponsorship=msgspec.structs.replace(
            result,
            taken=result.taken | dict.fromkeys(refused, 0),
            refunded=result.refunded | refused,
        ),
        sponsored=sponsored,
        without=() if sponsored else sharing.declined,
    )
