"""A double-entry ledger in integer minor units: accounts, transfers and balances.

Pure. A transfer takes from one account and gives to another, so the ledger always sums to zero. The ledger also knows
which accounts may go below zero.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from auction.model.errors import BadAmount, InsufficientFunds
from auction.model.money import AMOUNT_MAX

OUTSIDE: Final = "outside"  # banks and cards, where money comes from and goes to; it mirrors all other accounts
FEES: Final = "fees"  # the operator's: what it takes of settled agreements
NOBODY: Final = "nobody"  # the price of silence and contradiction; only an arbiter's ruling keeps money out of it


class Transfer(NamedTuple):
    """`amount` (above zero) from the account `source` to the account `target`."""

    source: str
    target: str
    amount: int


def funds(party: str) -> str:
    """Money that a party may spend or withdraw."""
    return f"funds:{party}"


def bond(party: str) -> str:
    """A party's bond against breaking its promises, as far as it is not held for one yet."""
    return f"bond:{party}"


def held(name: str) -> str:
    """Held of the side that pays: for an announcement, for a bid to pay, and for an agreement."""
    return f"held:{name}"


def held_bond(name: str) -> str:
    """Held of the side that serves: for an announcement to sell, a bid, an offer, a commitment, and an agreement."""
    return f"held_bond:{name}"


def pledged(group: str) -> str:
    """The limits and pledges of a group's members, until it is settled."""
    return f"pledged:{group}"


def card(method: str) -> str:
    """Mirrors what a card processor has authorised and captured."""
    return f"{OUTSIDE}:{method}"


class Ledger:
    """Balances as the sum of transfers. Outside accounts may go below zero. A party's funds may only by a chargeback or
    a card's refund (`forced`)."""

    __slots__ = ("balances",)

    def __init__(self) -> None:
        self.balances: dict[str, int] = {}

    def balance(self, account: str) -> int:
        return self.balances.get(account, 0)

    def check(self, transfers: Iterable[Transfer], forced: bool = False) -> None:
        """Raises BadAmount or InsufficientFunds if the transfers cannot all be made in this order."""
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
                raise BadAmount(f"{target} would exceed the largest balance of the ledger")
            changed[target] = gained

    def apply(self, transfers: Iterable[Transfer]) -> None:
        balances = self.balances
        for source, target, amount in transfers:
            left = balances.get(source, 0) - amount
            if left or not source.startswith("held"):
                balances[source] = left
            else:
                del balances[source]  # a hold for one bid or agreement, which is never used again
            balances[target] = balances.get(target, 0) + amount

    def sum(self) -> int:
        """Zero, always."""
        return sum(self.balances.values())
