"""The worker process: receives segments, runs the services on them, and returns the changes.

It connects `disperse` (envelope) and `service`, as pipeline.py connects the stages. This file has the code that all
workers share, and the worker on the dispatcher's machine; remote.py has the worker that joins over the network.
"""

from __future__ import annotations

import mmap
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import zmq

from streamcore.core.packets import Arena, PacketBatch, Segment
from streamcore.disperse import envelope, local
from streamcore.service.load import load
from streamcore.service.protocol import ALLOWED, Service

REPLY_AFTER_S = 0.001  # the results of one message are sent together, unless that takes longer

Produced = tuple[int, int, bytes | None]  # flags, bytes of packets in the region, extra frame
NOTHING: Produced = (0, 0, None)


class Processor:
    """Runs each stream's services over segments. It makes them once, and parses the columns that they read if the
    pipeline has not. parsing: how the run parses them, Terms.parsing. Raises UsageError.
    """

    def __init__(self, chains: list[list[Any]], parsing: Mapping[str, Any]) -> None:
        self.chains: list[list[Service]] = [[load(each) for each in chain] for chain in chains]
        self.changes = [any(ALLOWED[service.effect] for service in chain) for chain in self.chains]  # whether anything
        self.idle = [all(service.name == "identity" for service in chain) for chain in self.chains]
        self._parsing = parsing
        self._ports: Any = None  # of chains that do nothing
        if not all(self.idle):
            from streamcore.headers import udp_ports

            self._ports = udp_ports(parsing["decode_as"])
        self._parser: Any = None
        for chain in self.chains:
            for service in chain:
                service.start()

    def parse(self, batch: PacketBatch, groups: int) -> None:
        """Fills columns that were not parsed before the segment was sent."""
        if self._parser is None:
            from streamcore.parse.parser import Parser

            self._parser = Parser(
                self._parsing["hash_seed"], stateless=True, ports=self._ports, flow_key=self._parsing["flow_key"]
            )
        self._parser(batch, groups)

    def process(self, segment: Segment, region: Any) -> Produced:
        """Runs the services on one segment; their changes go into region. Passes on the exceptions of services."""
        if self.idle[segment.stream]:
            return NOTHING
        import msgspec

        from streamcore.disperse._results import write_result
        from streamcore.service.view import View

        services = self.chains[segment.stream]
        view = View(segment, region, services, self._ports)
        for service in services:
            view.turn(service)
            service.process(view)
        left = view.result()
        flags = 0
        if region is not None:
            flags = write_result(
                region, left.packed, left.keys, left.offset, left.captured_length, left.wire_length, left.keep
            )
        if not (left.comments or left.reports or left.drops):
            return flags, left.packed, None
        fields = {"comments": left.comments, "reports": left.reports, "drops": left.drops}
        extra = msgspec.msgpack.encode(fields)
        if len(extra) > envelope.EXTRA_BYTES_MAX:
            raise ValueError(
                f"the comments and reports on one segment take {len(extra)} bytes, more than {envelope.EXTRA_BYTES_MAX}"
            )
        return flags, left.packed, extra


def attempt(work: envelope.Work, digest: bytes, do: Callable[[], Produced]) -> tuple[envelope.Outcome, bytes | None]:
    """Processes one segment. Any exception becomes a failed outcome."""
    begin_ns = time.perf_counter_ns()
    status, flags, packed, extra = envelope.DONE, 0, 0, None
    try:
        flags, packed, extra = do()
    except Exception as error:
        status, extra = envelope.FAILED, one_line(error).encode()
    busy_ns = time.perf_counter_ns() - begin_ns
    frames = envelope.EXTRA if extra is not None else 0
    return envelope.Outcome(
        work.number, work.attempt, status, flags, packed, work.region, frames, 0, busy_ns, digest
    ), extra


def one_line(error: BaseException) -> str:
    words = " ".join(str(error).split())
    return (f"{type(error).__name__}: {words}" if words else type(error).__name__)[:500]


class LocalWorker:
    """A worker on the dispatcher's machine: it gets packets by reference, and writes changes into its own arena."""

    def __init__(self, setup: dict[str, Any], descriptors: list[int]) -> None:
        self.slot = int(setup["slot"])
        self.incarnation = int(setup["incarnation"])
        capacities = setup["arenas"]
        self.arena = Arena(*capacities[0], fd=descriptors[0])
        self.regions: Arena | None = None
        if len(capacities) > 1:
            self.regions = Arena(*capacities[1], fd=descriptors[1], writable=True)
        self.mark = mmap.mmap(descriptors[-1], local.MARK.size)
        self.context = zmq.Context()
        self.push = self.context.socket(zmq.PUSH)
        self.push.connect(local.endpoint(setup["token"]))
        self.pull = self.context.socket(zmq.PULL)
        local.for_us_alone(self.pull)
        self.pull.bind(local.endpoint(setup["token"], self.incarnation))

    def run(self, chains: list[list[Any]], parsing: Mapping[str, Any]) -> int:
        """Works until the pipeline ends. Returns the exit status."""
        try:
            processor = Processor(chains, parsing)
        except Exception as error:
            reason = f"the service does not start: {one_line(error)}"
            self.push.send_multipart([self.head(envelope.REFUSE), reason.encode()])
            self.context.destroy(linger=2000)
            return 1
        self.push.send(self.head(envelope.HELLO))
        while True:
            frame = self.pull.recv()
            header = envelope.unpack_header(frame)
            if header.incarnation == self.incarnation and header.kind == envelope.WORK:
                self.work(processor, envelope.unpack_work(frame, header.descriptors))

    def work(self, processor: Processor, works: list[envelope.Work]) -> None:
        """Processes the segments of one message and answers, all at once or in parts if they take long."""
        outcomes: list[envelope.Outcome] = []
        frames: list[bytes] = []
        since_s = time.monotonic()
        for place, work in enumerate(works):
            outcome, extra = attempt(work, envelope.NO_DIGEST, lambda work=work: self.produce(processor, work))  # type: ignore[misc]
            outcomes.append(outcome)
            if extra is not None:
                frames.append(extra)
            if (
                place + 1 == len(works)
                or time.monotonic() - since_s > REPLY_AFTER_S
                or sum(map(len, frames)) > envelope.EXTRA_BYTES_MAX // 2
            ):
                self.push.send_multipart([self.head(envelope.RESULT, outcomes), *frames])
                outcomes, frames, since_s = [], [], time.monotonic()

    def produce(self, processor: Processor, work: envelope.Work) -> Produced:
        local.MARK.pack_into(self.mark, 0, work.number, work.attempt)  # if this segment ends the process, this says so
        if processor.idle[work.stream]:
            return NOTHING
        batch = PacketBatch(
            self.arena.chunk(work.chunk), work.packets, work.first_number, [], parser=processor.parse,
            groups=work.groups, arranged=bool(work.flags & envelope.ARRANGED), row_count=work.row_count,
        )  # fmt: skip
        region = None
        if self.regions is not None and work.region_bytes:
            region = self.regions.chunk(work.region).data[work.region_start : work.region_start + work.region_bytes]
        return processor.process(Segment(work.number, batch, work.start, work.stop, stream=work.stream), region)

    def head(self, kind: int, outcomes: list[envelope.Outcome] | None = None) -> bytes:
        return envelope.pack(kind, self.slot, self.incarnation, outcomes or ())


def watch(arena: Arena) -> None:
    """Waits for the end of standard input: then the main process is gone. Truncates its output after the last whole
    record, and exits."""
    while os.read(0, 1):
        pass
    if arena.output_path:
        from streamcore.sink.seal import seal

        seal(os.fsdecode(arena.output_path), arena.committed_bytes)
    os._exit(1)


def main() -> None:
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # it is for the main process, even if the whole process group gets it
    try:
        setup, descriptors = local.receive_setup()
    except EOFError:
        return
    worker = LocalWorker(setup, descriptors)
    threading.Thread(target=watch, args=(worker.arena,), daemon=True).start()
    sys.exit(worker.run(setup["chains"], setup["parsing"]))
