"""A double-entry ledger in integer minor units: accounts, transfers and balances.

Pure. A transfer takes from one account and gives to another, so the ledger always sums to zero. `Draft.transfer` checks
that a transfer can be made.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

OUTSIDE: Final = "outside"  # banks and cards, where money comes from and goes to; it mirrors all other accounts
FEES: Final = "fees"  # the operator's: what it takes of settled agreements
NOBODY: Final = "nobody"  # the price of silence and contradiction; only an arbiter's ruling keeps money out of it


Transfer = tuple[str, str, int]
"""From the account `source` to the account `target`, an amount above zero."""


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
    a card's refund."""

    __slots__ = ("_whose", "balances", "fees_put_away", "free")

    def __init__(self) -> None:
        self.balances: dict[str, int] = {}
        self.fees_put_away = 0  # charged by agreements that are no longer kept
        self.free: dict[str, int] = {}  # `free_of` by party, until one of the party's accounts changes
        self._whose: dict[str, str] = {}  # those accounts

    def balance(self, account: str) -> int:
        return self.balances.get(account, 0)

    def free_of(self, party: str) -> int:
        """The party's bond that is not held, and its balance: what it can secure a promise with."""
        known = self.free.get(party)
        if known is None:
            accounts = bond(party), funds(party)
            known = self.free[party] = self.balance(accounts[0]) + max(0, self.balance(accounts[1]))
            for account in accounts:
                self._whose[account] = party
        return known

    def apply(self, transfers: Iterable[Transfer]) -> None:
        balances, whose, free = self.balances, self._whose, self.free
        for source, target, amount in transfers:
            if source in whose:
                free.pop(whose[source], None)
            if target in whose:
                free.pop(whose[target], None)
            left = balances.get(source, 0) - amount
            if left or not source.startswith(("held", "pledged")):
                balances[source] = left
            else:
                balances.pop(source, None)  # a hold for one bid, agreement or group, which is never used again
            balances[target] = balances.get(target, 0) + amount

    def sum(self) -> int:
        """Zero, always."""
        return sum(self.balances.values())
