"""Subcontracting: an agreement under an agreement, for a part of the service that another provider processes.

Pure: how deep a chain may be, and which parties may not be in it. A chain is the list of agreements from the
subcontracted one up to the first. Each is settled between its own two sides.
"""

from __future__ import annotations

from collections.abc import Sequence

from auction.model.agreement import Agreement
from auction.model.errors import Cycle, NotAllowed, TooDeep, WrongState


def check_subcontract(chain: Sequence[Agreement], announcer: str, depth_max: int) -> None:
    """Whether `announcer` may subcontract a part of `chain[0]`. Raises NotAllowed, WrongState, TooDeep."""
    prime = chain[0]
    if announcer != prime.provider:
        raise NotAllowed(f"{announcer} does not provide {prime.id}, and cannot subcontract a part of it")
    if prime.state not in ("agreed", "running"):
        raise WrongState(f"{prime.id} is {prime.state}: there is nothing left to subcontract")
    if len(chain) > depth_max:
        raise TooDeep(f"{prime.id} has {len(chain) - 1} agreements above it; {depth_max} levels are allowed in all")


def check_subcontractor(chain: Sequence[Agreement], bidder: str) -> None:
    """Raises NotAllowed for the prime provider itself, Cycle for a bidder that is in the chain already."""
    if bidder == chain[0].provider:
        raise NotAllowed(f"{bidder} is the prime provider itself")
    for agreement in chain:
        if bidder in (agreement.recipient, agreement.provider):
            raise Cycle(f"{bidder} is in the chain already, in {agreement.id}")
