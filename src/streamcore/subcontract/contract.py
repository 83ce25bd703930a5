"""The broker's state: the streams that may be subcontracted, their current providers, and the work of each provider.

broker.py decides when an agreement begins and ends.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from streamcore.core.market_keys import Subcontract
from streamcore.core.routes import IN_HOUSE, WAIT, Route
from streamcore.subcontract.allocator import Need, Placement
from streamcore.subcontract.meter import Meter
from streamcore.subcontract.rates import Bucket


@dataclass(frozen=True, slots=True)
class Wanted:
    """A stream that may be subcontracted."""

    number: int
    name: str
    terms: Subcontract
    service: str  # its name in the market
    chain: list[Any]
    deterministic: bool
    in_house: bool  # whether the run's own workers can run it


class Contract:
    """Streams with the same need, and their current provider."""

    def __init__(self, streams: list[Wanted], lease_ms: int) -> None:
        self.streams = streams
        first = streams[0]
        self.terms = first.terms
        self.in_house = first.in_house and first.terms.otherwise == "in-house"
        self.auditable = first.deterministic and first.in_house
        self.lease_ms = first.terms.deadline_ms or max(1, lease_ms // 2)  # the rest is left for a takeover
        self.following: Placement | None = None
        self.renewed = False
        self.left: list[Placement] = []  # placements whose provider failed and whose rest nobody has taken over yet
        self.next_look_ms = 0
        self.dormant = first.terms.when == "overloaded"  # until local workers cannot keep up
        rates = [each.terms.maximum_bps for each in streams]
        self.maximum_bps = sum(rate for rate in rates if rate) if all(rates) else None
        self.minimum_bps = sum(each.terms.minimum_bps for each in streams) or None
        self.bucket = Bucket(self.maximum_bps) if self.maximum_bps else None
        self.buckets = {s.number: Bucket(s.terms.maximum_bps) for s in streams if s.terms.maximum_bps}
        self.hold(None)

    def need(self, starts_ms: int) -> Need:
        terms = self.terms
        return Need(
            "+".join(each.name for each in self.streams),
            self.streams[0].service,
            self.streams[0].chain,
            terms.objective,
            terms.reserve,
            self.minimum_bps,
            self.maximum_bps,
            starts_ms,
            starts_ms + terms.block_ms,
            terms.deadline_ms or None,
        )

    def hold(self, placement: Placement | None, meter: Meter | None = None, pending: bool = False) -> None:
        """Makes this placement the current one, with its route. pending: the market has not answered yet."""
        self.placement, self.meter, self.pending = placement, meter, pending
        if placement is not None:
            self.route = Route("provider", placement.public_key, self.dormant)
        elif self.in_house or self.dormant:
            self.route = IN_HOUSE
        else:
            self.route = WAIT if pending else Route("pass" if self.terms.otherwise == "pass" else "refuse")


@dataclass(slots=True)
class Served:
    """The work of one provider under one agreement, for the accounting."""

    agreement: str
    provider: str
    streams: list[str]
    price: int
    segments: int
    bytes: int
    audited: int
    audits_failed: int
    latency_ms: dict[str, int]
    failures: list[str]
    outcome: dict[str, Any] = field(default_factory=dict)
