"""The protocol by which the pipeline finds a provider: needs, placements and reports.

market.py implements it with `auction`. Fixed returns given providers, for tests and fixed contracts. An allocator sends
no segments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

Objective = Literal["quality", "cost"]


@dataclass(frozen=True, slots=True)
class Need:
    """The need of one or several streams, for one block of time. Prices are in minor units for the whole block, rates
    in bits per second over all its streams, times in milliseconds since 1970.
    """

    stream: str  # the names of the streams, joined by "+"
    service: str  # its name in the market
    specification: list[Any]  # the services that the provider's workers load
    objective: Objective
    price_max: int
    minimum_bps: int | None
    maximum_bps: int | None
    starts_ms: int
    ends_ms: int
    latency_ms_max: int | None = None


@dataclass(frozen=True, slots=True)
class Runner:
    """A runner-up that stands by."""

    provider: str
    public_key: str


@dataclass(frozen=True, slots=True)
class Placement:
    """The provider found for a block. public_key: CURVE, 40 characters of Z85."""

    agreement: str
    provider: str
    public_key: str
    price: int
    starts_ms: int
    ends_ms: int
    runners_up: tuple[Runner, ...] = ()
    newcomer: bool = False  # it has no record yet, so it is audited more often
    need: Need | None = None


@dataclass(frozen=True, slots=True)
class Interval:
    """The measurements of one interval: bits asked of the provider, bits got in time, the worst latency."""

    starts_ms: int
    ends_ms: int
    asked_bits: int
    got_bits: int
    latency_ms: int | None
    wrong: int = 0  # results that an audit found wrong


@dataclass(frozen=True, slots=True)
class Report:
    """The delivery of one provider under one agreement."""

    intervals: tuple[Interval, ...]
    segments: int = 0
    audited: int = 0
    audits_failed: int = 0
    latency_ms: dict[str, int] = field(default_factory=dict)  # "p50", "p95", "p99", "max"
    failures: tuple[str, ...] = ()  # the reasons of its suspensions


class Allocator(Protocol):
    """The broker calls these methods before the first packet, or on its own thread. `place` answers at once if there
    are standing offers. None: no provider was found.
    """

    def place(self, need: Need) -> Placement | None: ...

    def renew(self, placement: Placement, starts_ms: int, ends_ms: int) -> Placement | None:
        """Finds a placement for the next block, before this one ends."""

    def replace(self, placement: Placement, reason: str, report: Report) -> Placement | None:
        """The provider failed: finds one that takes over the rest of the block, under the same agreement or a new one.
        report: the delivery up to now. None: no provider yet."""

    def taken_over(self, placement: Placement, is_last: bool = False) -> Placement | None:
        """The provider that has taken over since `replace` found none. is_last: none may any more, the run is over."""

    def report(self, placement: Placement, report: Report) -> dict[str, Any]:
        """The block or the run is over: states the end. Returns the outcome as plain data, which is updated until
        `close`. A report without intervals means that nothing was delivered, unless `replace` got one before."""

    def now_ms(self) -> int:
        """The clock of needs and reports."""

    def close(self) -> None: ...


class Fixed:
    """Places every need with the same providers, in the order given: the first serves, the others stand by."""

    def __init__(self, providers: Sequence[tuple[str, str]], price: int = 0, newcomer: bool = False) -> None:
        import time

        self._providers = [Runner(name, key) for name, key in providers]
        self._price = price
        self._newcomer = newcomer
        self._clock = time.time
        self._agreements = 0
        self.reports: list[tuple[Placement, Report]] = []
        self.replaced: list[tuple[str, str]] = []  # (provider, reason)

    def place(self, need: Need) -> Placement | None:
        if not self._providers:
            return None
        self._agreements += 1
        first, *others = self._providers
        return Placement(
            f"fixed-{self._agreements}",
            first.provider,
            first.public_key,
            self._price,
            need.starts_ms,
            need.ends_ms,
            tuple(others),
            self._newcomer,
            need,
        )

    def taken_over(self, placement: Placement, is_last: bool = False) -> Placement | None:
        return None

    def renew(self, placement: Placement, starts_ms: int, ends_ms: int) -> Placement | None:
        assert placement.need is not None
        return self.place(replace(placement.need, starts_ms=starts_ms, ends_ms=ends_ms))

    def replace(self, placement: Placement, reason: str, report: Report) -> Placement | None:
        self.replaced.append((placement.provider, reason))
        self.reports.append((placement, report))
        self._providers = [each for each in self._providers if each.provider != placement.provider]
        if not placement.runners_up:
            return None
        first, *others = placement.runners_up
        return replace(placement, provider=first.provider, public_key=first.public_key, runners_up=tuple(others))

    def report(self, placement: Placement, report: Report) -> dict[str, Any]:
        self.reports.append((placement, report))
        return {"charged": placement.price}

    def now_ms(self) -> int:
        return int(self._clock() * 1000)

    def close(self) -> None:
        pass
