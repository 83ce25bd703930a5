"""The feeding thread of a run: source -> parse -> filter -> limits -> segment -> submit, and the gate that bounds it.

The other thread, in pipeline.py, takes the results.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from operator import or_
from typing import Any

from streamcore.aggregate._aggregator import Aggregator
from streamcore.core.config import Config
from streamcore.core.counters import Counters
from streamcore.core.packets import COLUMN_GROUPS, ArenaClosed, Outgoing, Segment
from streamcore.core.policies import POLICIES
from streamcore.disperse.dispatcher import Dispatcher
from streamcore.parse.parser import Parser
from streamcore.run.limits import limits_of
from streamcore.run.notes import Notes
from streamcore.run.streams import Streams
from streamcore.segment._segmenter import Segmenter
from streamcore.source.protocol import Source

GATE_WAIT_S = 0.01
PATIENCE_S = 2.0  # how long the end of a run waits for a feeder that is stuck in a read


class Gate:
    """Bounds the segments between the two threads."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._inside = 0
        self._closed = False
        self._changed = threading.Condition()

    @property
    def inside(self) -> int:
        return self._inside

    def enter(self, count: int, waiting: Callable[[], None]) -> bool:
        """Waits for room and takes it. One batch may exceed the limit; the next one waits. Returns False if the gate is
        closed.

        waiting: called from time to time while it waits.
        """
        while True:
            with self._changed:
                if self._changed.wait_for(lambda: self._inside < self._limit or self._closed, GATE_WAIT_S):
                    self._inside += count
                    return not self._closed
            waiting()

    def leave(self, count: int) -> None:
        with self._changed:
            self._inside -= count
            self._changed.notify()

    def close(self) -> None:
        """Releases all waiting threads, because the other thread has ended."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class Feeder:
    """Feeds one run until its source ends, or until `drain` or `close`. `error` is the exception that ended it
    otherwise."""

    def __init__(
        self,
        config: Config,
        counters: Counters,
        source: Source,
        select: Any,  # the run's Filter; None: every packet is processed
        streams: Streams,
        aggregator: Aggregator,
        dispatcher: Dispatcher,
        parser: Parser,
        skip: int = 0,
        send: Callable[[Outgoing], None] | None = None,  # takes packets that leave before services see them
    ) -> None:
        self.gate = Gate(config.outstanding_segments_max)
        self.error: BaseException | None = None
        self._counters = counters
        self._source = source
        self._select = select
        self._limits = limits_of(config, counters)
        self._streams = streams
        self._classify = streams.classifier()  # None: there is one stream
        policy = POLICIES[config.policy]
        needed = policy.groups if config.lanes > 1 or not policy.lanes else ()  # of one lane, nobody asks which it is
        self._groups = streams.groups | functools.reduce(or_, (COLUMN_GROUPS[name] for name in needed), 0)
        self._aggregator = aggregator
        self._dispatcher = dispatcher
        self._skip = skip  # packets of the first stream that the output has already
        self._parser = parser
        self._send = send
        self._segmenter = Segmenter(
            config.policy,
            lanes=config.lanes,
            packets_max=config.segment_packets,
            bytes_max=config.segment_bytes,
            streams=len(streams.all),
            time_ms=config.segment_ms if config.read or policy.owns_segment_ms else 0,  # live: the source keeps time
        )
        self._notes = Notes(counters)
        self._thread = threading.Thread(target=self._run, name="streamcore-feed", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def drain(self) -> None:
        """Stops reading. Packets that were read are still submitted."""
        self._source.stop()

    def close(self) -> None:
        """Ends the thread now, even while it waits. A read that never returns is abandoned: the thread is a daemon."""
        self.drain()
        self.gate.close()
        if self._thread.ident is not None:
            self._thread.join(PATIENCE_S)

    def _run(self) -> None:
        try:
            self._feed()
        except ArenaClosed:
            pass  # the other thread gave up
        except BaseException as error:  # the thread that called Pipeline.run raises it
            self.error = error
        finally:
            self.note()
            self._dispatcher.finish()

    def note(self) -> None:
        """Adds what the stages have noted since the last call to the counters. May be called from any thread."""
        totals = dict(self._parser.counts())
        for name, chooser in (("filter", self._select), ("stream", self._classify)):
            if chooser is not None:
                totals[f"{name}.orphan_fragments"] = chooser.orphans
        totals["source.blocks_skipped"] = self._source.blocks_skipped
        totals["source.times_clamped"] = self._source.times_clamped
        self._notes.add(totals)

    def _feed(self) -> None:
        batch: Any
        segments: Any
        for batch in self._source:
            self._counters.count("source.read", batch.count, batch.byte_count)
            if self._select is not None and not self._source.filtered:
                self._counters.count("filter.not_matched", *self._select(batch))
            if self._limits is not None:
                self._limits(batch, self._source.shift_ns)
                if self._limits.over:
                    self._source.stop()  # what it has read already follows, and is counted
            added, added_bytes = batch.copy_to_chunk()
            if added:
                self._counters.count("source.read", added, added_bytes)
                self._counters.count("source.segmented", added, added_bytes)
            if self._send is not None:
                self._send(Outgoing(batch, 0, batch.row_count))
            if self._groups:
                self._parser(batch, self._groups)
            stops = self._classify(batch) if self._classify is not None else None
            segments = self._segmenter.cut(batch, stops)
            if batch.first_number < self._skip:
                segments = self._still_to_do(segments)
            if segments:
                self._streams.cut(segments)
                if not self.gate.enter(len(segments), self._source.pressed):
                    return
                self._aggregator.expect(batch, segments)
                self._dispatcher.submit(segments)
            batch = segments = None  # otherwise this thread would hold a chunk while it waits for one

    def _still_to_do(self, segments: list[Segment]) -> list[Segment]:
        """The segments that an earlier run has not delivered; it stopped between two segments."""
        left = []
        for segment in segments:
            rows = segment.batch.rows
            first = segment.start if rows is None else int(rows[segment.start])
            if segment.batch.first_number + first >= self._skip:
                left.append(segment)
            else:
                self._counters.count("resume.delivered_before", len(segment), segment.byte_count)
        return left
