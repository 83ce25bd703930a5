"""`--metrics HOST:PORT`: serves the figures of a run to Prometheus over HTTP. Each request reads them once.

docs/live.md lists the names.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from streamcore.core.counters import DURATION_BOUNDS_S, EVENTS, NAMES, SERVICE
from streamcore.core.errors import UsageError
from streamcore.run.figures import Figures

PREFIX = "streamcore_"
KERNEL = "kernel."  # it counts packets, and no bytes


class Looked(Protocol):
    """The part of a Pipeline that this file uses."""

    def look(self) -> Figures: ...


@contextmanager
def serving(pipeline: Looked, address: str) -> Iterator[str]:
    """Serves the figures at address (HOST:PORT; port 0: any free port) while the block runs. Yields the URL.

    Raises UsageError if the address cannot be used.
    """
    from prometheus_client import CollectorRegistry, start_http_server

    host, _, port = address.rpartition(":")
    registry = CollectorRegistry()
    registry.register(Collector(pipeline))
    try:
        server, thread = start_http_server(int(port), host.strip("[]"), registry)
    except OSError as error:
        raise UsageError(f"cannot serve metrics at {address}: {(error.strerror or str(error)).lower()}") from None
    try:
        yield f"http://{host}:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Collector:
    """The collector that prometheus-client calls at each request."""

    def __init__(self, pipeline: Looked) -> None:
        self._pipeline = pipeline

    def describe(self) -> list[Any]:
        """Nothing: prometheus-client need not call `collect` to learn the names."""
        return []

    def collect(self) -> Iterator[Any]:
        figures = self._pipeline.look()
        yield from counted(figures)
        yield from depths(figures)
        yield from workers(figures)
        yield from durations(figures)


def counted(figures: Figures) -> Iterator[Any]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    counters = figures.counters
    stages = [name for name, (kind, _) in NAMES.items() if kind == "stage"]
    drops = [name for name, (kind, _) in NAMES.items() if kind in ("dropped", "lost")]
    drops += [name for name in counters.dropped() if name.startswith(SERVICE)]
    for unit, of in (("packets", counters.packets), ("bytes", counters.bytes)):
        told = [name for name in (*stages, *drops) if unit == "packets" or not name.startswith(KERNEL)]
        passed = CounterMetricFamily(f"{PREFIX}{unit}", f"{unit} that passed a stage", labels=["stage"])
        for name in filter(told.__contains__, stages):
            passed.add_metric([name], of(name))
        dropped = CounterMetricFamily(f"{PREFIX}dropped_{unit}", f"{unit} that left the run", labels=["reason"])
        for name in filter(told.__contains__, drops):
            dropped.add_metric([name], of(name))
        yield passed
        yield dropped
    events = CounterMetricFamily(f"{PREFIX}events", "other events", labels=["event"])
    for name in EVENTS:
        events.add_metric([name], counters.events(name))
    yield events
    yield GaugeMetricFamily(
        f"{PREFIX}packets_under_way", "packets read and not yet written or dropped", counters.under_way()
    )
    yield GaugeMetricFamily(f"{PREFIX}run_seconds", "seconds since the run began", figures.seconds)


def depths(figures: Figures) -> Iterator[Any]:
    from prometheus_client.core import GaugeMetricFamily

    family = GaugeMetricFamily(f"{PREFIX}queue_depth", "entries in a queue", labels=["queue"])
    for queue, depth in figures.depths.items():
        family.add_metric([queue.replace(" ", "_")], depth)
    yield family


def workers(figures: Figures) -> Iterator[Any]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    counts = {
        name: CounterMetricFamily(f"{PREFIX}worker_{name}", words, labels=["worker"])
        for name, words in (
            ("segments", "segments that a worker slot returned"),
            ("packets", "packets in them"),
            ("bytes", "captured bytes in them"),
            ("busy_seconds", "time spent on them"),
            ("failed", "attempts that failed"),
        )
    }
    gauges = {
        "up": GaugeMetricFamily(f"{PREFIX}worker_up", "1: the slot has a worker", labels=["worker"]),
        "segments_out": GaugeMetricFamily(f"{PREFIX}worker_segments_out", "segments that it holds", labels=["worker"]),
        "bytes_out": GaugeMetricFamily(f"{PREFIX}worker_bytes_out", "captured bytes that it holds", labels=["worker"]),
    }
    for each in figures.workers:
        share, label = each.share, [str(each.share.slot)]
        values = (share.segments, share.packets, share.bytes, share.busy_s, share.failed)
        for counter, value in zip(counts.values(), values, strict=True):
            counter.add_metric(label, value)
        for gauge, value in zip(gauges.values(), (each.present, each.segments_out, each.bytes_out), strict=True):
            gauge.add_metric(label, value)
    yield from counts.values()
    yield from gauges.values()


def durations(figures: Figures) -> Iterator[Any]:
    from prometheus_client.core import HistogramMetricFamily

    words = {
        "dispersal": "a segment's time from the segmenter to its accepted result",
        "delivery": "from the kernel's receipt of a live segment's first packet until the segment leaves",
    }
    for what, histogram in figures.durations.items():
        total, buckets = 0, []
        for bound, count in zip((*map(str, DURATION_BOUNDS_S), "+Inf"), histogram.counts, strict=True):
            total += count
            buckets.append((bound, total))
        family = HistogramMetricFamily(f"{PREFIX}{what}_seconds", words[what])
        family.add_metric([], buckets, histogram.sum_s)
        yield family
