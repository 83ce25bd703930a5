"""A provider's own measurement of its work under one agreement. No market and no process here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from streamcore.subcontract.allocator import Interval

INTERVALS_MAX = 256  # of one agreement: beyond that, two are merged into one
LATENCIES_MAX = 4096  # kept for percentiles; beyond that, every second one


@dataclass(slots=True)
class Done:
    """The workers' work since the last report."""

    segments: int = 0
    packets: int = 0
    bytes: int = 0
    failed: int = 0
    busy_ns: int = 0
    latency_ns: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Work:
    """`was_away`: the agreement was served before this process began, which has no measurements of that time."""

    agreement: str
    recipient: str
    service: str
    state: str = ""
    segments: int = 0
    packets: int = 0
    bytes: int = 0
    failed: int = 0
    busy_ns: int = 0
    latency_ns: list[int] = field(default_factory=list)
    intervals: list[Interval] = field(default_factory=list)
    earned: int = 0
    was_away: bool = False
    pause_ms: int = 250
    look_at_ms: int = 0
    is_over: bool = False

    def add(self, starts_ms: int, ends_ms: int, done: Done) -> None:
        self.segments += done.segments
        self.packets += done.packets
        self.bytes += done.bytes
        self.failed += done.failed
        self.busy_ns += done.busy_ns
        self.latency_ns = sorted(self.latency_ns + done.latency_ns)
        if len(self.latency_ns) > LATENCIES_MAX:
            self.latency_ns = self.latency_ns[::2]  # sorted, so the percentiles do not change
        starts_ms = max(starts_ms, self.until_ms)
        worst_ms = -(-max(done.latency_ns, default=0) // 1_000_000)
        bits = 8 * done.bytes
        if bits and starts_ms < ends_ms:
            self.intervals.append(Interval(starts_ms, ends_ms, bits, bits, worst_ms))
        if len(self.intervals) > INTERVALS_MAX:
            pairs = [self.intervals[i : i + 2] for i in range(0, len(self.intervals), 2)]
            self.intervals = [_joined(pair) for pair in pairs]

    @property
    def until_ms(self) -> int:
        """The end of the last interval; 0 without one."""
        return self.intervals[-1].ends_ms if self.intervals else 0

    def percentile_ms(self, share: float) -> float | None:
        """A percentile of the latency from a segment's arrival to its answer."""
        if not self.latency_ns:
            return None
        return self.latency_ns[min(len(self.latency_ns) - 1, int(share * len(self.latency_ns)))] / 1e6

    def json(self) -> dict[str, Any]:
        hidden = ("busy_ns", "latency_ns", "intervals", "was_away", "pause_ms", "look_at_ms", "is_over")
        account: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__ if name not in hidden}
        account["busy_s"] = self.busy_ns / 1e9
        account["latency_ms"] = {f"p{share}": self.percentile_ms(share / 100) for share in (50, 95, 99)}
        return account


def _joined(intervals: list[Interval]) -> Interval:
    """Merges consecutive intervals into one."""
    return Interval(
        intervals[0].starts_ms,
        intervals[-1].ends_ms,
        sum(each.asked_bits for each in intervals),
        sum(each.got_bits for each in intervals),
        max(each.latency_ms or 0 for each in intervals),
    )
