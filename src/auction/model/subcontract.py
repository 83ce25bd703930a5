"""Subcontracting: an agreement under an agreement, for a part of the service that needs another's processing.

Pure: how deep a chain may go, who may not stand in it, and who makes good what in the end. A chain is the list of
agreements from the one that is subcontracted up to the first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from auction.model.agreement import Agreement, owed
from auction.model.errors import Cycle, NotAllowed, TooDeep, WrongState


def check_subcontract(chain: Sequence[Agreement], announcer: str, depth_max: int) -> None:
    """Whether `announcer` may subcontract a part of `chain[0]`. Raises NotAllowed, WrongState, TooDeep."""
    prime = chain[0]
    if announcer != prime.provider:
        raise NotAllowed(f"{announcer} does not provide {prime.id}, and cannot subcontract a part of it")
    if prime.state not in ("agreed", "delivering"):
        raise WrongState(f"{prime.id} is {prime.state}: nothing of it is to be done")
    if len(chain) > depth_max:
        raise TooDeep(f"{prime.id} has {len(chain) - 1} agreements above it; {depth_max} levels are allowed in all")


def check_subcontractor(chain: Sequence[Agreement], bidder: str) -> None:
    """Raises NotAllowed for the prime provider itself, Cycle for who stands in the chain already."""
    if bidder == chain[0].provider:
        raise NotAllowed(f"{bidder} is the prime provider itself")
    for agreement in chain:
        if bidder in (agreement.recipient, *(leg.provider for leg in agreement.legs), agreement.provider):
            raise Cycle(f"{bidder} stands in the chain already, in {agreement.id}")


class Recourse(NamedTuple):
    """What a subcontractor's bond makes good to the prime provider."""

    subcontract: str
    amount: int


def shortfall(agreement: Agreement) -> int:
    """What the recipient did not have to pay, because it was not delivered."""
    return sum(leg.price - owed(leg) for leg in agreement.legs)


def recourse(prime: Agreement, subcontracts: Iterable[Agreement]) -> list[Recourse]:
    """What the prime provider gets from the bonds of subcontractors that fell short, up to what it lost itself.

    Who fell short by more pays first; nobody pays more than the bond that is held for it. The prime stays liable to
    its recipient for all, whatever it gets back."""
    left = shortfall(prime)
    short = [(shortfall(one), one) for one in subcontracts]
    result = []
    for lacking, one in sorted(short, key=lambda pair: (-pair[0], pair[1].id)):
        amount = min(left, one.bond if lacking else 0)
        if amount:
            result.append(Recourse(one.id, amount))
            left -= amount
    return result
