"""The pipeline: names the stages in order and runs them. Two threads and the workers:

    feeding thread   source -> parse -> filter -> segment -> submit     (feeder.py)
    calling thread   results -> aggregate -> sink

Memory is bounded by the arena's chunks and by the gate on segments in flight between the two.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from streamcore.aggregate._aggregator import Aggregator
from streamcore.core.config import Config
from streamcore.core.counters import Counters, Histogram
from streamcore.core.errors import UsageError
from streamcore.core.packets import Arena, Outgoing
from streamcore.disperse.dispatcher import Dispatcher
from streamcore.disperse.local import Launched
from streamcore.disperse.peer import LEASES_MAX
from streamcore.disperse.terms import Terms
from streamcore.headers import udp_ports
from streamcore.parse.parser import Parser
from streamcore.run.accounting import Accounting
from streamcore.run.dead_letters import DeadLetters
from streamcore.run.direct import Direct, suits
from streamcore.run.drain import Drain
from streamcore.run.feeder import Feeder
from streamcore.run.figures import Figures, shares, take_figures
from streamcore.run.resume import Points, points_of
from streamcore.run.streams import Streams
from streamcore.sink.opening import open_sink, sink_kind
from streamcore.sink.protocol import Place, Sink, SinkNeeds
from streamcore.source.opening import open_source, source_kind
from streamcore.source.protocol import Source, SourceNeeds
from streamcore.subcontract.opening import make_broker

if TYPE_CHECKING:
    from streamcore.subcontract.allocator import Allocator

LEASES_MAX_TO_PASS = 2  # a worker's segments cannot be passed unprocessed, and later ones must wait for them


class Pipeline:
    """One run from a first stream to a second: `Pipeline(config).run()` returns its Accounting.

    Raises UsageError for a wrong filter or service, SourceError and SinkError for files, WorkerError if no worker is
    left. Packets delivered before an error are intact in the output. launched: workers that disperse.local.launch() has
    started; allocator: finds providers for streams with a `subcontract` table. `drain`, `stop`, `look`,
    `account_so_far`, `add_worker_key` and `strike_worker_key` may be called from any thread, `drain` and `stop` also
    from a signal handler.
    """

    def __init__(self, config: Config, launched: Sequence[Launched] = (), allocator: Allocator | None = None) -> None:
        config.refuse_useless("run")
        self.config = config
        self.counters = Counters()
        self._launched = launched
        self._ports = udp_ports(config.decode_as)
        self._streams = Streams(config, self.counters)
        wanted = [each for each in (stream.wanted() for stream in self._streams.all) if each is not None]
        self._broker = make_broker(config, wanted, allocator)
        # One seed for this parser and those of all workers, so that a flow has one hash in the whole run.
        self._hash_seed = secrets.randbits(64) if config.hash_seed is None else config.hash_seed
        self._filter: Any = None
        if config.filter:
            from streamcore.parse.filter import Filter  # only here: libpcap costs start-up time

            fragments_max = config.fragments_max if config.follow_fragments else 0
            by_kernel = bool(config.interface) and config.match == "outer" and not fragments_max
            self._filter = Filter(config.filter, config.match, fragments_max, self._ports, by_kernel)
        self._drain = threading.Event()
        self._stop = threading.Event()
        self._ending = Drain(config.drain_s, self._waits_for, self.stop)
        self._begin_s = 0.0  # when `run` began
        self._delivery: Histogram | None = Histogram() if config.interface else None  # live: latency added by the run
        # Everything that is opened, in order. However `run` ends, it closes them in reverse order.
        self._open_things = ExitStack()
        self._arena: Arena | None = None
        self._source: Source | None = None
        self._sink: Sink | None = None
        self._aggregator: Aggregator | None = None
        self._dispatcher: Dispatcher | Direct | None = None
        self._feeder: Feeder | Direct | None = None
        self._dead_letters: DeadLetters | None = None

    def drain(self) -> None:
        """Stops reading and delivers the packets that were read; the run then ends as interrupted. Packets that are not
        due yet are not sent. After config.drain_s the run stops.
        """
        self._drain.set()
        self._ending.begin()
        if self._feeder is not None:
            self._feeder.drain()
        if self._sink is not None and self._sink.paces:
            self._sink.stop()

    def stop(self) -> None:
        """Ends the run at once. Packets under way are lost; the output stays valid."""
        self._stop.set()
        self.drain()
        if self._dispatcher is not None:
            self._dispatcher.cancel()
        if self._sink is not None:
            self._sink.stop()

    def add_worker_key(self, key: str) -> None:
        """Lets workers with this public key (Z85) join the run, which has begun, whatever `worker_keys` has. Raises
        UsageError."""
        self._listening().add_key(key)

    def strike_worker_key(self, key: str) -> None:
        """Takes the segments of the workers with this public key (Z85), and lets none connect with it, though
        `worker_keys` has it, until it is added. Raises UsageError."""
        self._listening().strike_key(key)

    def _listening(self) -> Dispatcher:
        if not isinstance(self._dispatcher, Dispatcher):
            raise UsageError("no worker can join now: the run has not begun, or has no workers")
        return self._dispatcher

    def say_with(self, say: Callable[[str], None]) -> None:
        """Sets what shows a line to people, such as what a drain waits for."""
        self._ending.say = say

    def _waits_for(self) -> str:
        figures = self.look()
        waiting, out = figures.depths.get("segments waiting", 0), figures.depths.get("segments out", 0)
        return (
            f"{figures.counters.under_way():,} packets: {out:,} segments at workers, {waiting:,} wait for one, "
            f"{figures.depths.get('segments under way', 0):,} not written"
        )

    @property
    def reading(self) -> bool:
        """Whether the first stream is open. Before that nothing is read, and `drain` and `stop` have no effect yet."""
        return self._feeder is not None

    def progress(self) -> tuple[int, int | None]:
        """The bytes read from the input file, and its size if known."""
        return self._source.progress() if self._source is not None else (0, None)

    def look(self) -> Figures:
        """The figures of the run now."""
        if self._source is not None:
            self._source.refresh()
        if self._feeder is not None:
            self._feeder.note()
        seconds = time.monotonic() - self._begin_s if self._begin_s else 0.0
        gate = self._feeder.gate if self._feeder is not None else None
        return take_figures(seconds, self.counters, self._dispatcher, self._arena, gate, self._delivery)

    def account_so_far(self) -> Accounting:
        """The account of a run that has not ended."""
        figures = self.look()
        dead_letters = self._dead_letters
        return Accounting(
            figures.counters,
            figures.seconds,
            tuple(worker.share for worker in figures.workers),
            dead_letter=dead_letters.path if dead_letters is not None else "",
            dead_reasons=dead_letters.reasons.copy() if dead_letters is not None else {},
            output=self._sink.name if self._sink is not None else self.config.output,
            so_far=True,
            market_errors=list(self._broker.errors) if self._broker is not None else [],
            incomplete=[
                *self._streams.incomplete,
                *(self._dispatcher.lies if self._dispatcher is not None else ()),
                *(self._sink.incomplete if self._sink is not None else ()),
            ],
            given_up=dict(self._dispatcher.given_up) if self._dispatcher is not None else {},
            key_files=list(self._dispatcher.key_lines) if self._dispatcher is not None else [],
            misfits=self._misfits(),
            metadata_removed=self._sink.metadata_removed if self._sink is not None else 0,
            damage=str(self._source.damage or "") if self._source is not None else "",
        )

    def account_of_failure(self) -> Accounting:
        """The account of a run that has raised an error."""
        return replace(self.account_so_far(), so_far=False)

    def open(self) -> None:
        """Opens the live interfaces, which needs CAP_NET_RAW. After that, `run` needs no rights."""
        self._arena = Arena(self.config.chunks, self.config.chunk_bytes, self.config.chunk_rows, shared=True)
        if source_kind(self.config).needs_rights:
            self._open_source(self._arena)
        if sink_kind(self.config).needs_rights:
            self._open_sink(SinkNeeds(self.counters, self._arena))

    def run(self) -> Accounting:
        """Runs to the end of the first stream. After an error the counters say what became of every packet."""
        self._begin_s = time.monotonic()
        try:
            return self._run()
        except BaseException:
            if self._aggregator is not None:
                self.counters.count("service.resized", 0, self._aggregator.resized_bytes)
            if self._sink is not None:
                packets, byte_count = self._sink.unsure
                self.counters.count("sink.written", -packets, -byte_count)
            self.counters.count("pipeline.undelivered", *self.counters.missing())
            raise
        finally:
            self._ending.over()

    def _run(self) -> Accounting:
        """It follows the way of a packet, from top to bottom."""
        config, streams = self.config, self._streams
        with self._open_things as stack:
            if self._arena is None:
                self.open()
            arena = self._arena
            assert arena is not None
            dispatcher = self._start_workers(arena)  # first, so that they start while the capture is opened
            source = self._source or self._open_source(arena)
            points = self._find_points()
            sink = self._sink or self._open_output(arena, source, points.place if points is not None else None)
            aggregator = Aggregator(config.order, [each.chain.drop_by_keys for each in streams.all], streams.dropped)
            self._aggregator = aggregator
            dead_letters = self._dead_letters = stack.enter_context(DeadLetters(config, streams, source))
            if isinstance(dispatcher, Direct):
                self._feeder = dispatcher
                if self._drain.is_set():  # called before there was one
                    dispatcher.drain()
                dispatcher.run(source, sink, self._left)
            else:
                self._disperse(dispatcher, source, sink, aggregator, points)
        assert self._feeder is not None
        if self._feeder.error is not None:  # after closing, so that packets read before the error are delivered
            raise self._feeder.error
        if points is not None and not self._drain.is_set():
            points.forget()
        return self._account(aggregator, dispatcher, source, sink, dead_letters)

    def _disperse(
        self, dispatcher: Dispatcher, source: Source, sink: Sink, aggregator: Aggregator, points: Points | None
    ) -> None:
        """Everything from the source to the sink, through the workers."""
        arena, dead_letters = self._arena, self._dead_letters
        assert arena is not None
        assert dead_letters is not None
        dispatcher.withdraw_with(aggregator.withdraw)
        sends_first = self._streams.sends_first

        def send(outgoing: Outgoing) -> None:
            packets, byte_count = sink.write(outgoing)
            if points is not None:
                points.passed(outgoing, sink)
            self._left(outgoing, packets, byte_count)

        feeder = Feeder(
            self.config, self.counters, source, self._filter, self._streams, aggregator, dispatcher, self._parser(),
            points.skip if points is not None else 0, send if sends_first else None,
        )  # fmt: skip
        self._open_things.callback(feeder.close)
        self._open_things.callback(arena.close)  # the feeder may wait for a chunk
        self._feeder = feeder
        feeder.start()
        if self._drain.is_set():  # called before there was a feeder
            feeder.drain()

        for result in dispatcher.results(sink.flush):
            for outgoing in aggregator.accept(dead_letters.replace(result) if result.dead else result):
                self._streams.absorb(outgoing.hold)
                if not sends_first:
                    send(outgoing)
                feeder.gate.leave(len(outgoing.hold))
                del outgoing
            del result  # a chunk is free once nothing refers to it

    def _start_workers(self, arena: Arena) -> Dispatcher | Direct:
        if suits(self.config, self._streams):
            self._dispatcher = direct = Direct(self.config, self.counters, self._filter, self._delivery)
            self._open_things.callback(direct.close)
            return direct
        broker = self._broker
        dispatcher = Dispatcher(self._terms(), arena, self.counters, self._launched, broker)
        self._open_things.callback(dispatcher.close)
        self._dispatcher = dispatcher
        dispatcher.say_with(lambda words: self._ending.say(f"streamcore: {words}"))
        if broker is not None:
            broker.wake = dispatcher.wake
            self._open_things.callback(broker.close)
            broker.start()
        dispatcher.start()
        return dispatcher

    def _terms(self) -> Terms:
        config, chains = self.config, [stream.chain for stream in self._streams.all]
        return Terms(
            workers=config.workers,
            chains=[chain.specifications for chain in chains],
            changes=[chain.changes for chain in chains],
            accepted=[chain.accepted for chain in chains],
            deterministic=[chain.deterministic for chain in chains],
            lease_ms=config.lease_ms,
            attempts_max=config.attempts_max,
            credit=config.credit,
            segment_bytes=config.segment_bytes,
            restarts_max=config.restarts_max,
            listen=config.listen,
            key=config.key,
            worker_keys=config.worker_keys,
            hash_seed=self._hash_seed,
            decode_as=config.decode_as,
            flow_key=config.flow_key,
            audit=config.audit,
            leases_max=LEASES_MAX_TO_PASS if config.overload == "pass" else LEASES_MAX,
        )

    def _parser(self) -> Parser:
        config = self.config
        return Parser(self._hash_seed, config.fragments_max, ports=self._ports, flow_key=config.flow_key)

    def _open_source(self, arena: Arena) -> Source:
        filter = self._filter
        # The kernel looks neither into tunnels nor back at first fragments: then it lets all through, and we filter.
        compile = None if filter is None or filter.follows or filter.match == "inner" else filter.live_instructions
        source = self._source = open_source(
            self.config,
            SourceNeeds(arena, self.counters, compile, self._pass_waiting, self._streams.offloads, self._ports),
        )
        self._open_things.callback(source.close)
        if compile is not None and 0 < len(filter.misfits) == len({each.link_type for each in source.interfaces}):
            raise UsageError(f"the filter matches no packet: {'; '.join(filter.misfits.values())}")
        return source

    def _open_output(self, arena: Arena, source: Source, place: Place | None) -> Sink:
        form = source.form._replace(bare=self._streams.removes_metadata, changed=self._streams.changes)
        needs = SinkNeeds(self.counters, arena, source.interfaces, form, source.blocks, place)
        return self._open_sink(needs)

    def _open_sink(self, needs: SinkNeeds) -> Sink:
        sink = self._sink = open_sink(self.config, needs)
        self._open_things.push(lambda kind, *rest: sink.close() if kind is None else sink.abandon())
        return sink

    def _pass_waiting(self) -> None:
        if self._dispatcher is not None:
            self._dispatcher.pass_waiting()

    def _find_points(self) -> Points | None:
        """The point at which this run could be resumed; None if there is none."""
        chains = [stream.chain for stream in self._streams.all]
        return points_of(
            self.config,
            [chain.specifications for chain in chains],
            any(chain.drop_by_keys is not None for chain in chains),
            all(chain.deterministic for chain in chains),
        )

    def _left(self, outgoing: Outgoing, packets: int, byte_count: int) -> None:
        """Notes packets that have left into the second stream."""
        self.counters.count("sink.written", packets, byte_count)
        if self._delivery is not None:
            self._delivery.observe(time.time() - received_s(outgoing))

    def _misfits(self) -> list[str]:
        return [*(self._filter.misfits.values() if self._filter is not None else ()), *self._streams.misfits]

    def _account(
        self,
        aggregator: Aggregator,
        dispatcher: Dispatcher | Direct,
        source: Source,
        sink: Sink,
        dead_letters: DeadLetters,
    ) -> Accounting:
        """The account of the run, after everything is closed."""
        stopped = self._stop.is_set()
        self.counters.count("service.resized", 0, aggregator.resized_bytes)
        if stopped or (sink.paces and self._drain.is_set()):
            name = "pipeline.undelivered" if stopped else "sink.not_due"
            self.counters.count(name, *self.counters.missing())
        return Accounting(
            self.counters,
            time.monotonic() - self._begin_s,
            shares(dispatcher),
            services=self._streams[0].chain.summaries(),
            streams=self._streams.account(aggregator.left, stopped),
            subcontracts=self._broker.account() if self._broker is not None else [],
            market_errors=self._broker.errors if self._broker is not None else [],
            unbalanced_streams=self._streams.balance(),
            incomplete=[*self._streams.incomplete, *dispatcher.lies, *sink.incomplete],
            given_up=dict(dispatcher.given_up),
            key_files=list(dispatcher.key_lines),
            misfits=self._misfits(),
            metadata_removed=sink.metadata_removed,
            damage=str(source.damage or ""),
            interrupted=self._drain.is_set(),
            late=self._ending.late,
            dead_letter=dead_letters.path,
            dead_reasons=dead_letters.reasons,
            output=sink.name,
        )


def received_s(outgoing: Outgoing) -> float:
    """When the first of these packets was received."""
    batch, row = outgoing.batch, outgoing.start
    if outgoing.arranged and batch.rows is not None:
        row = int(batch.rows[row])
    return float(batch.timestamp_ns[row]) / 1e9
