"""The way of packets of which no service wants anything, from one interface to another: without workers, in one thread.
Slow traffic makes many small batches, and here a batch costs no wake-up of another thread or process.

Direct has the parts of the Feeder and the Dispatcher that a run's figures use.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from streamcore.core.config import Config
from streamcore.core.counters import DURATION_BOUNDS_S, Counters, Histogram
from streamcore.core.packets import Outgoing
from streamcore.disperse.places import Slot
from streamcore.run.feeder import Gate
from streamcore.run.limits import limits_of
from streamcore.run.notes import Notes
from streamcore.run.streams import Streams
from streamcore.sink.protocol import Sink
from streamcore.source._forwarding import Told
from streamcore.source.live import LiveSource
from streamcore.source.protocol import Source

Left = Callable[[Outgoing, int, int], None]  # notes what has left: (packets, their number, their bytes)


def suits(config: Config, streams: Streams) -> bool:
    """Whether a run needs no workers. Towards a file it has them: there another thread reads while a disk is slow."""
    forwards = bool(config.interface and config.output_interface)
    if not forwards or config.listen or len(streams.all) > 1 or streams.offloads != "carry":
        return False
    return streams[0].chain.does_nothing


class Direct:
    """One run without workers. One thread calls `run`, any `drain`, `cancel` and `note`."""

    def __init__(self, config: Config, counters: Counters, select: Any, delivery: Histogram | None) -> None:
        self.error: BaseException | None = None
        self.gate = Gate(1)  # nothing is between two threads
        self.slots: Sequence[Slot] = ()
        self.given_up: dict[str, str] = {}
        self.lies: list[str] = []
        self.key_lines: list[str] = []
        self.durations = Histogram()  # none: no segment is dispersed
        self.depths = (0, 0)
        self._counters = counters
        self._select = select  # the run's Filter; None: every packet is forwarded
        self._delivery = delivery
        self._told = Told(DURATION_BOUNDS_S)
        self._limits = limits_of(config, counters)
        self._notes = Notes(counters)
        self._source: Source | None = None
        self._drained = self._cancelled = False

    def run(self, source: Source, sink: Sink, left: Left) -> None:
        """Forwards until the source ends, or until `cancel`. Raises SourceError, SinkError."""
        self._source = source
        if self._drained:
            source.stop()
        by_itself = self._limits is None and (self._select is None or source.filtered)
        if by_itself and isinstance(source, LiveSource) and source.forwards:
            while not self._cancelled and source.forward(sink.write, self._told):
                self.note()
        else:
            self._run_batches(source, sink, left)

    def _run_batches(self, source: Source, sink: Sink, left: Left) -> None:
        """The same for what a batch must be looked at for."""
        batch: Any
        outgoing: Any
        counters, select, limits = self._counters, self._select, self._limits
        for batch in source:
            byte_count = batch.byte_count
            counters.count("source.read", batch.count, byte_count)
            if select is not None and not source.filtered:
                counters.count("filter.not_matched", *select(batch))
            if limits is not None:
                limits(batch, source.shift_ns)
                if limits.over:
                    source.stop()
            count = batch.row_count
            if batch.arranged:
                byte_count = int(batch.captured_length[batch.rows].sum())
            batch.copy_to_chunk()  # so that the kernel has its ring back while packets are sent
            counters.count("segment.cut", count, byte_count)
            if count and not self._cancelled:
                outgoing = Outgoing(batch, 0, count, arranged=batch.arranged)
                left(outgoing, *sink.write(outgoing))
                outgoing = None
            batch = None  # a chunk is free once nothing refers to it
            if self._cancelled:
                return

    def drain(self) -> None:
        """Stops reading. What was received before is forwarded."""
        self._drained = True
        if self._source is not None:
            self._source.stop()

    def cancel(self) -> None:
        """Ends `run` after the packets that it sends."""
        self._cancelled = True

    def note(self) -> None:
        """Adds what was forwarded, and what the stages have noted, since the last call to the counters."""
        read, sent, counts, seconds = self._told.take()
        self._counters.count("source.read", *read)
        self._counters.count("segment.cut", *read)
        self._counters.count("sink.written", *sent)
        if self._delivery is not None:
            self._delivery.add(counts, seconds)
        if self._select is not None:
            self._notes.add({"filter.orphan_fragments": self._select.orphans})

    def pass_waiting(self) -> None:
        """Does nothing: no packet waits for a worker."""

    def close(self) -> None:
        """Notes the rest."""
        self.note()
