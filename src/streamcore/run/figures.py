"""The figures of a run at one moment: its counters, queue depths, workers and durations.

progress.py, metrics.py and SIGUSR1 show them. Reading them does not change the run.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from streamcore.core.counters import Counters, Histogram
from streamcore.core.packets import Arena
from streamcore.disperse.dispatcher import Dispatcher
from streamcore.run.accounting import WorkerShare
from streamcore.run.direct import Direct
from streamcore.run.feeder import Gate


@dataclass(frozen=True, slots=True)
class WorkerFigures:
    """A worker slot: the totals of all its workers, and the segments that the current one holds."""

    share: WorkerShare
    present: bool = False
    segments_out: int = 0
    bytes_out: int = 0


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of a run at one moment. They are read one after another, so they may differ by a few events."""

    seconds: float = 0.0  # since the run began
    counters: Counters = field(default_factory=Counters)
    depths: dict[str, int] = field(default_factory=dict)  # queue -> its length
    workers: tuple[WorkerFigures, ...] = ()
    durations: dict[str, Histogram] = field(default_factory=dict)  # by the names in metrics.py


def take_figures(
    seconds: float,
    counters: Counters,
    dispatcher: Dispatcher | Direct | None,
    arena: Arena | None,
    gate: Gate | None,
    delivery: Histogram | None,
) -> Figures:
    """The figures of a run so far. Parts that are None do not exist yet. May be called from any thread."""
    if dispatcher is None or arena is None:
        return Figures(seconds, counters.copy())
    waiting, out = dispatcher.depths
    durations = {"dispersal": dispatcher.durations.copy()}
    if delivery is not None:
        durations["delivery"] = delivery.copy()
    depths = {
        "segments under way": gate.inside if gate is not None else 0,
        "segments waiting": waiting,
        "segments out": out,
        "chunks in use": arena.chunk_count - arena.free_count,
    }
    workers = tuple(
        WorkerFigures(share, peer is not None, len(peer.leases) if peer else 0, peer.bytes_out if peer else 0)
        for share, peer in zip(shares(dispatcher), [slot.peer for slot in dispatcher.slots], strict=False)
    )
    return Figures(seconds, counters.copy(), depths, workers, durations)


def shares(dispatcher: Dispatcher | Direct) -> tuple[WorkerShare, ...]:
    """The work of each slot so far."""
    return tuple(
        WorkerShare(slot.number, t.segments, t.packets, t.bytes, t.busy_ns / 1e9, t.failed)
        for slot in dispatcher.slots
        for t in [slot.tally]
    )


def line(before: Figures, now: Figures) -> str:
    """One line with what changed between two readings."""
    seconds = max(now.seconds - before.seconds, 1e-3)

    def rate(name: str) -> float:
        return (now.counters.packets(name) - before.counters.packets(name)) / seconds

    read_bytes = now.counters.bytes("source.read") - before.counters.bytes("source.read")
    lost = sum((now.counters.unread() | now.counters.dropped()).values())
    lost_before = sum((before.counters.unread() | before.counters.dropped()).values())
    words = [
        f"in {rate('source.read'):,.0f}/s {read_bytes / seconds / 1e6:.1f} MB/s",
        f"out {rate('sink.written'):,.0f}/s",
        f"dropped {lost:,}" + (f" (+{lost - lost_before:,})" if lost > lost_before else ""),
        f"waiting {now.depths.get('segments waiting', 0):,} segments",
        f"workers {sum(worker.present for worker in now.workers)}",
    ]
    taken = mean_s(before.durations.get("delivery"), now.durations.get("delivery"))
    if taken is not None:
        words.append(f"latency {taken * 1e3:.1f} ms")
    return "  ".join(words)


def mean_s(before: Histogram | None, now: Histogram | None) -> float | None:
    """The mean of the observations between two moments; None if there were none."""
    if now is None:
        return None
    before = before or Histogram()
    count = sum(now.counts) - sum(before.counts)
    return (now.sum_s - before.sum_s) / count if count else None
