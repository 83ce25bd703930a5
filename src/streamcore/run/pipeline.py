"""The pipeline: names the stages in order and runs them. Two threads and the workers:

    feeding thread   source -> parse -> filter -> segment -> submit     (feeder.py)
    calling thread   results -> aggregate -> sink

Memory is bounded by the arena's chunks and by the gate on segments in flight between the two.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from streamcore.aggregate._aggregator import Aggregator
from streamcore.core.config import Config
from streamcore.core.counters import Counters, Histogram
from streamcore.core.errors import UsageError
from streamcore.core.packets import Arena, Outgoing, Result
from streamcore.disperse.dispatcher import NO_AGREEMENT, Dispatcher
from streamcore.disperse.local import Launched
from streamcore.disperse.peer import LEASES_MAX
from streamcore.disperse.roster import Terms
from streamcore.run.accounting import Accounting, WorkerShare
from streamcore.run.feeder import Feeder, Gate
from streamcore.run.figures import Figures, WorkerFigures
from streamcore.run.resume import Points, points_of
from streamcore.run.streams import Streams
from streamcore.sink.rotation import RotatingSink
from streamcore.sink.writer import Place, Sink, open_sink
from streamcore.source.capture import CaptureSource

if TYPE_CHECKING:
    from streamcore.sink.live import LiveSink
    from streamcore.source.live import LiveSource
    from streamcore.subcontract.allocator import Allocator
    from streamcore.subcontract.broker import Broker

LEASES_MAX_TO_PASS = 2  # what a worker has cannot be passed unprocessed, and what came later must wait for it


class Pipeline:
    """One run from a first stream to a second: `Pipeline(config).run()` returns its Accounting.

    Raises UsageError for a wrong filter or service, SourceError and SinkError for files, WorkerError when no worker
    is left. What was delivered before an error is whole in the output. launched: workers that disperse.local.launch()
    started beforehand; allocator: who finds providers for streams with a `subcontract` table. `drain` and `stop` may be
    called from any thread or a signal handler.
    """

    def __init__(self, config: Config, launched: Sequence[Launched] = (), allocator: Allocator | None = None) -> None:
        self.config = config
        self._launched = launched
        self.counters = Counters()
        self._streams = Streams(config, self.counters)
        self._broker = self._make_broker(allocator)
        self._filter: Any = None
        if config.filter:
            from streamcore.parse.filter import Filter  # only here: libpcap costs start-up time

            self._filter = Filter(config.filter)
        self._drain = threading.Event()
        self._stop = threading.Event()
        self._source: CaptureSource | LiveSource | None = None
        self._feeder: Feeder | None = None
        self._dispatcher: Dispatcher | None = None
        self._arena: Arena | None = None
        self._begin_s = 0.0  # when `run` began
        self._delivery: Histogram | None = Histogram() if config.interface else None  # live: the latency that we add
        self._sink: Sink | RotatingSink | LiveSink | None = None
        self._points: Points | None = None
        self._dead_letters: Sink | None = None
        self._dead_reasons: dict[str, int] = {}

    def drain(self) -> None:
        """Read no further, finish what was read; the run then ends as interrupted."""
        self._drain.set()
        if self._feeder is not None:
            self._feeder.drain()

    def stop(self) -> None:
        """End at once: what is under way is lost, what was written stays whole."""
        self._stop.set()
        self.drain()
        if self._dispatcher is not None:
            self._dispatcher.cancel()
        if self._sink is not None:
            self._sink.stop()

    @property
    def reading(self) -> bool:
        """Whether the first stream is open: until then nothing was read, and `drain` and `stop` are not heard."""
        return self._feeder is not None

    def progress(self) -> tuple[int, int | None]:
        """Bytes of the input file that were consumed, and its size where known."""
        return self._source.progress() if self._source is not None else (0, None)

    def open(self) -> None:
        """Open the live interfaces, which needs CAP_NET_RAW; `run` needs no rights after that."""
        config = self.config
        self._arena = Arena(config.chunks, config.chunk_bytes, config.chunk_rows, shared=True)
        if config.interface:
            self._source = self._open_source(self._arena)
        if config.output_interface:
            from streamcore.sink.live import LiveSink  # only here: sockets cost start-up time

            self._sink = LiveSink(config, self.counters)

    def look(self) -> Figures:
        """What the run is like now. From any thread."""
        dispatcher, feeder, arena = self._dispatcher, self._feeder, self._arena
        seconds = time.monotonic() - self._begin_s if self._begin_s else 0.0
        if dispatcher is None or arena is None:
            return Figures(seconds, self.counters.copy())
        waiting, out = dispatcher.depths
        durations = {"dispersal": dispatcher.durations.copy()}
        if self._delivery is not None:
            durations["delivery"] = self._delivery.copy()
        return Figures(
            seconds,
            self.counters.copy(),
            {
                "segments under way": feeder.gate.inside if feeder is not None else 0,
                "segments waiting": waiting,
                "segments out": out,
                "chunks in use": arena.chunk_count - arena.free_count,
            },
            tuple(
                WorkerFigures(share, peer is not None, len(peer.leases) if peer else 0, peer.bytes_out if peer else 0)
                for share, peer in zip(shares(dispatcher), [slot.peer for slot in dispatcher.slots], strict=False)
            ),
            durations,
        )

    def account_so_far(self) -> Accounting:
        """The account of a run that is not at its end. From any thread."""
        figures = self.look()
        return Accounting(
            figures.counters,
            figures.seconds,
            tuple(worker.share for worker in figures.workers),
            dead_letter=self.config.dead_letter_path if self._dead_letters is not None else "",
            dead_reasons=self._dead_reasons.copy(),
            output=self.config.output,
            so_far=True,
        )

    def run(self) -> Accounting:
        """Run to the end of the first stream."""
        config = self.config
        self._begin_s = time.monotonic()
        with ExitStack() as stack:
            if self._arena is None:
                self.open()
            arena = self._arena
            assert arena is not None
            if self._source is not None:
                stack.callback(self._source.close)
            broker = self._broker
            dispatcher = self._dispatcher = Dispatcher(self._terms(), arena, self.counters, self._launched, broker)
            stack.callback(dispatcher.close)
            if broker is not None:
                broker.wake = dispatcher.wake
                stack.callback(broker.close)
                broker.start()
            dispatcher.start()  # first: the workers get ready while the capture is opened
            source = self._source = self._source or self._open_source(arena)
            stack.callback(source.close)
            streams = self._streams
            points = self._points = self._find_points()
            if self._sink is None:
                self._sink = self._open_output(arena, points.place if points is not None else None)
            sink = self._sink
            stack.callback(sink.abandon)
            aggregator = Aggregator(config.order, [each.chain.settle for each in streams.all], streams.dropped)
            dispatcher.withdraw_with(aggregator.withdraw)
            skip = points.skip if points is not None else 0
            feeder = self._feeder = Feeder(
                config, self.counters, source, self._filter, streams, aggregator, dispatcher, skip
            )
            stack.callback(feeder.close)
            stack.callback(arena.close)
            feeder.start()
            if self._drain.is_set():  # before there was a feeder to hear it
                feeder.drain()
            self._deliver(dispatcher, aggregator, sink, feeder.gate)
            self.counters.count("service.resized", 0, aggregator.resized_bytes)
            sink.close()
            if points is not None and feeder.error is None and not (self._stop.is_set() or self._drain.is_set()):
                points.forget()
            if broker is not None:
                broker.close()
            if self._dead_letters is not None:
                self._dead_letters.close()
            if feeder.error is not None:  # after closing: what was read before it is delivered
                raise feeder.error
            if self._stop.is_set():
                arena.close()  # the feeder may wait for a chunk
                feeder.close()
                source.close()
                self.counters.count("pipeline.undelivered", *self.counters.missing())
            accounts = streams.account(aggregator.left, self._stop.is_set())
            return self._account(dispatcher, source, accounts, time.monotonic() - self._begin_s)

    def _make_broker(self, allocator: Allocator | None) -> Broker | None:
        """Who finds providers; None where no stream wants one."""
        wanted = [each for each in (stream.wanted() for stream in self._streams.all) if each is not None]
        if not wanted:
            return None
        from streamcore.subcontract.broker import Broker  # only here: it costs start-up time

        config = self.config
        if allocator is None and config.market is None:
            raise UsageError(f"stream {wanted[0].name}: subcontract needs a market to ask, as [market] with its url")
        if allocator is None and config.market is not None:
            from streamcore.subcontract.market import connect  # and so does the auction

            allocator = connect(config.market, config.listen, config.key)
        assert allocator is not None
        return Broker(wanted, allocator, config.lease_ms)

    def _terms(self) -> Terms:
        config = self.config
        return Terms(
            workers=config.workers,
            chains=[stream.chain.specifications for stream in self._streams.all],
            changes=[stream.chain.changes for stream in self._streams.all],
            lease_ms=config.lease_ms,
            attempts_max=config.attempts_max,
            credit=config.credit,
            segment_bytes=config.segment_bytes,
            restarts_max=config.restarts_max,
            listen=config.listen,
            key=config.key,
            worker_keys=config.worker_keys,
            leases_max=LEASES_MAX_TO_PASS if config.overload == "pass" else LEASES_MAX,
        )

    def _deliver(
        self, dispatcher: Dispatcher, aggregator: Aggregator, sink: Sink | RotatingSink | LiveSink, gate: Gate
    ) -> None:
        """Results -> the second stream, until all is delivered or `stop`."""
        for result in dispatcher.results(sink.flush):
            for outgoing in aggregator.accept(self._bury(result) if result.dead else result):
                self._streams.absorb(outgoing.hold)
                packets, byte_count = sink.write(outgoing)
                self.counters.count("sink.written", packets, byte_count)
                if self._points is not None and isinstance(sink, Sink):
                    self._points.passed(outgoing, sink)
                if self._delivery is not None:
                    self._delivery.observe(time.time() - received_s(outgoing))
                gate.leave(len(outgoing.hold))
                del outgoing
            del result  # a chunk is free when nobody holds it

    def _bury(self, result: Result) -> Result:
        """Keep a dead segment, and put in its place what the stream's rule says."""
        segment = result.segment
        stream = self._streams[segment.stream]
        passes = stream.on_failure == "pass"
        if result.reason == NO_AGREEMENT and stream.subcontract is not None:
            passes = stream.subcontract.otherwise == "pass"
        name = "disperse.passed_unprocessed" if passes else "disperse.dead_lettered"
        self._streams.count(segment.stream, name, len(segment), segment.byte_count)
        if result.reason == NO_AGREEMENT and passes:
            return Result(segment)
        if self._dead_letters is None:
            self._dead_letters = self._open_sink(self.config.dead_letter_path, None)
        self._dead_letters.write(Outgoing(segment.batch, segment.start, segment.stop))
        self._dead_reasons[result.reason] = self._dead_reasons.get(result.reason, 0) + 1
        return Result(segment) if passes else result

    def _relieve(self) -> None:
        if self._dispatcher is not None:
            self._dispatcher.relieve()

    def _open_source(self, arena: Arena) -> CaptureSource | LiveSource:
        config = self.config
        if not config.interface:
            return CaptureSource(config.read, arena, chunk_wait_s=config.chunk_wait_s)
        from streamcore.source.live import LiveSource  # only here: sockets cost start-up time

        compile = self._filter and self._filter.instructions
        return LiveSource(config, arena, self.counters, compile, self._relieve)

    def _find_points(self) -> Points | None:
        """Where this run can be cut off and resumed; None: nowhere."""
        chains = [stream.chain for stream in self._streams.all]
        return points_of(
            self.config,
            [chain.specifications for chain in chains],
            any(chain.settle is not None for chain in chains),
            all(chain.deterministic for chain in chains),
        )

    def _open_output(self, arena: Arena, place: Place | None) -> Sink | RotatingSink:
        """The file or files of the second stream; the arena tells the workers which to cut if we are killed."""
        config = self.config
        if config.write != "-":
            arena.set_output_path(os.fsencode(os.path.abspath(config.write)))
        if not config.rotates:
            return self._open_sink(config.write, arena.set_committed_bytes, place)
        assert self._source is not None
        return RotatingSink(
            config,
            interfaces=self._source.interfaces,
            form=self._source.form,
            counters=self.counters,
            on_commit=arena.set_committed_bytes,
            on_file=arena.set_output_path,
            on_last=self._last_file_is_full,
        )

    def _last_file_is_full(self) -> None:
        if self._feeder is not None:
            self._feeder.drain()

    def _open_sink(self, path: str, on_commit: Callable[[int], None] | None, place: Place | None = None) -> Sink:
        assert self._source is not None
        interfaces, form = self._source.interfaces, self._source.form
        return open_sink(path, interfaces=interfaces, form=form, on_commit=on_commit, place=place)

    def _account(
        self, dispatcher: Dispatcher, source: CaptureSource | LiveSource, streams: dict[str, Any], seconds: float
    ) -> Accounting:
        return Accounting(
            self.counters,
            seconds,
            shares(dispatcher),
            services=self._streams[0].chain.summaries(),
            streams=streams,
            subcontracts=self._broker.account() if self._broker is not None else [],
            market_errors=self._broker.errors if self._broker is not None else [],
            unbalanced_streams=self._streams.balance(),
            damage=str(source.damage or ""),
            interrupted=self._drain.is_set(),
            dead_letter=self.config.dead_letter_path if self._dead_letters is not None else "",
            dead_reasons=self._dead_reasons,
            output=self.config.output,
        )


def shares(dispatcher: Dispatcher) -> tuple[WorkerShare, ...]:
    """What each place for a worker did so far."""
    return tuple(
        WorkerShare(slot.number, t.segments, t.packets, t.bytes, t.busy_ns / 1e9, t.failed)
        for slot in dispatcher.slots
        for t in [slot.tally]
    )


def received_s(outgoing: Outgoing) -> float:
    """When the first packet of what leaves was received."""
    batch, row = outgoing.batch, outgoing.start
    if outgoing.arranged and batch.rows is not None:
        row = int(batch.rows[row])
    return float(batch.timestamp_ns[row]) / 1e9
