"""A double-entry ledger in integer minor units: accounts, transfers and balances.

Pure. A transfer takes from one account and gives to another, so the ledger sums to zero whatever is done to it. Which
accounts may go below zero stands here; what the transfers mean stands in `payment`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from auction.model.errors import BadAmount, InsufficientFunds
from auction.model.money import AMOUNT_MAX

OUTSIDE: Final = "outside"  # where money comes from and goes to: banks, cards. The mirror of all the rest.
NOBODY: Final = "nobody"  # what silence and contradiction cost; no party can be paid out of it but by an arbiter


class Transfer(NamedTuple):
    """`amount` (above zero) from the account `source` to the account `target`."""

    source: str
    target: str
    amount: int


def funds(party: str) -> str:
    """What a party has in the market and may spend or withdraw."""
    return f"funds:{party}"


def bond(party: str) -> str:
    """What a party has put up for the case that it does not keep its word; not held for anything yet."""
    return f"bond:{party}"


def held(name: str) -> str:
    """What is held of who pays: for an announcement, for a bid to pay, and for an agreement."""
    return f"held:{name}"


def held_bond(name: str) -> str:
    """What is held of who serves: for an announcement to sell, a bid, an offer, a commitment, and for an agreement."""
    return f"held_bond:{name}"


def pledged(group: str) -> str:
    """What the members of a group have bid and pledged, until it is settled."""
    return f"pledged:{group}"


def card(method: str) -> str:
    """The mirror of what a card processor has authorised and settled."""
    return f"{OUTSIDE}:{method}"


class Ledger:
    """Balances as the sum of transfers. Accounts outside may go below zero, and a party's funds do so by a
    chargeback or a card's refund alone (`forced`)."""

    __slots__ = ("balances",)

    def __init__(self) -> None:
        self.balances: dict[str, int] = {}

    def balance(self, account: str) -> int:
        return self.balances.get(account, 0)

    def check(self, transfers: Iterable[Transfer], forced: bool = False) -> None:
        """Raises BadAmount, or InsufficientFunds, where the transfers cannot all be made in this order."""
        changed: dict[str, int] = {}
        for source, target, amount in transfers:
            if type(amount) is not int or not 0 < amount <= AMOUNT_MAX:
                raise BadAmount(f"a transfer of {amount!r} minor units")
            left = changed.get(source, self.balances.get(source, 0)) - amount
            if left < 0 and not forced and not source.startswith(OUTSIDE):
                raise InsufficientFunds(f"{source} is short of {-left} minor units")
            changed[source] = left
            gained = changed.get(target, self.balances.get(target, 0)) + amount
            if gained > AMOUNT_MAX:
                raise BadAmount(f"{target} would hold more than the ledger counts to")
            changed[target] = gained

    def apply(self, transfers: Iterable[Transfer]) -> None:
        balances = self.balances
        for source, target, amount in transfers:
            left = balances.get(source, 0) - amount
            if left or not source.startswith("held"):
                balances[source] = left
            else:
                del balances[source]  # what was held for one bid or agreement, and never is again
            balances[target] = balances.get(target, 0) + amount

    def sum(self) -> int:
        """Zero, always."""
        return sum(self.balances.values())
