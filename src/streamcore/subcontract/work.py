"""A provider's measurements of its own work under an agreement. trader.py reports them to the market."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from auction.model.delivery import Sample

SAMPLES_MAX = 256  # of one agreement: then two become one


@dataclass(slots=True)
class Work:
    """What this provider did under one agreement, as it measured it itself."""

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
    samples: list[Sample] = field(default_factory=list)
    reported: int = 0  # segments that the last delivery reported
    earned: int = 0
    rated: bool = False

    def add(self, starts_ms: int, ends_ms: int, done: Done) -> None:
        self.segments += done.segments
        self.packets += done.packets
        self.bytes += done.bytes
        self.failed += done.failed
        self.busy_ns += done.busy_ns
        self.latency_ns = sorted(self.latency_ns + done.latency_ns)
        if len(self.latency_ns) > 4096:
            self.latency_ns = self.latency_ns[::2]  # sorted, so the percentiles stay
        starts_ms = max(starts_ms, self.samples[-1].ends_ms if self.samples else 0)
        worst_ms = -(-max(done.latency_ns, default=0) // 1_000_000)
        bits = 8 * done.bytes
        if bits and starts_ms < ends_ms:
            self.samples.append(
                Sample(starts_ms=starts_ms, ends_ms=ends_ms, asked_bits=bits, got_bits=bits, latency_ms=worst_ms)
            )
        if len(self.samples) > SAMPLES_MAX:
            self.samples = [_joined(self.samples[i : i + 2]) for i in range(0, len(self.samples), 2)]

    def percentile_ms(self, share: float) -> float | None:
        """Latency from the arrival of a segment to its answer."""
        if not self.latency_ns:
            return None
        return self.latency_ns[min(len(self.latency_ns) - 1, int(share * len(self.latency_ns)))] / 1e6

    def json(self) -> dict[str, Any]:
        account: dict[str, Any] = {
            name: getattr(self, name)
            for name in self.__slots__
            if name not in ("busy_ns", "latency_ns", "samples", "reported", "rated")
        }
        account["busy_s"] = self.busy_ns / 1e9
        account["latency_ms"] = {f"p{share}": self.percentile_ms(share / 100) for share in (50, 95, 99)}
        return account


@dataclass(slots=True)
class Done:
    """What workers did since they were last asked."""

    segments: int = 0
    packets: int = 0
    bytes: int = 0
    failed: int = 0
    busy_ns: int = 0
    latency_ns: list[int] = field(default_factory=list)


def _joined(samples: list[Sample]) -> Sample:
    """One sample for several that follow each other."""
    worst_ms = max((each.latency_ms or 0 for each in samples), default=0)
    return Sample(
        starts_ms=samples[0].starts_ms,
        ends_ms=samples[-1].ends_ms,
        asked_bits=sum(each.asked_bits for each in samples),
        got_bits=sum(each.got_bits for each in samples),
        latency_ms=worst_ms,
    )
