"""The worker process: takes segments, runs the services on them, leaves what they changed in its own arena, and says so.

It composes `disperse` (envelope) and `service`, as pipeline.py composes the stages. It never outlives the process that started it:
when its standard input ends, it cuts the output file at its last whole record and exits.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from typing import Any

import zmq

from streamcore.disperse import envelope, local
from streamcore.packets import Arena, PacketBatch, Segment
from streamcore.service.load import load
from streamcore.service.protocol import Service

REPLY_AFTER_S = 0.02  # results of one message are sent together, unless that takes longer
RESULTS_BYTES_MAX = 1 << 20  # of the frames in one message


class Bench:
    """What a worker needs for every segment: the services, made once, and the parser that fills missing columns."""

    def __init__(self, specifications: list[Any]) -> None:
        from streamcore.parse.parser import Parser

        self.services: list[Service] = [load(specification) for specification in specifications]
        self.plain = all(service.name == "identity" for service in self.services)
        self.parser = Parser(stateless=True)
        for service in self.services:
            service.start()

    def process(self, segment: Segment, region: Any) -> tuple[int, int, bytes | None]:
        """Run the services over one segment. Returns (flags, packed bytes, extra frame or None); raises what a service raises."""
        if self.plain:
            return 0, 0, None
        import msgspec

        from streamcore.disperse._results import write_result
        from streamcore.service.view import View

        view = View(segment, region, self.services)
        for service in self.services:
            view.turn(service)
            service.process(view)
        left = view.result()
        flags = write_result(
            region, left.packed, left.keys, left.offset, left.captured_length, left.wire_length, left.keep
        )
        if not (left.comments or left.reports or left.drops):
            return flags, left.packed, None
        told = {"comments": left.comments, "reports": left.reports, "drops": left.drops}
        return flags, left.packed, msgspec.msgpack.encode(told)


def one_line(error: BaseException) -> str:
    words = " ".join(str(error).split()) or "no reason given"
    return f"{type(error).__name__}: {words}"[:500]


class LocalWorker:
    """A worker on the dispatcher's own machine: packets come by reference, changes go into the arena that it was given."""

    def __init__(self, setup: dict[str, Any]) -> None:
        self.slot = int(setup["slot"])
        self.incarnation = int(setup["incarnation"])
        fd, *capacities = setup["arena"]
        self.arena = Arena(*capacities, fd=fd)
        self.regions: Arena | None = None
        if setup["regions"]:
            fd, *capacities = setup["regions"]
            self.regions = Arena(*capacities, fd=fd, writable=True)
        self.context = zmq.Context()
        self.push = self.context.socket(zmq.PUSH)
        self.push.connect(local.endpoint(setup["token"]))
        self.pull = self.context.socket(zmq.PULL)
        self.pull.bind(local.endpoint(setup["token"], self.incarnation))

    def run(self, specifications: list[Any]) -> int:
        try:
            bench = Bench(specifications)
        except Exception as error:
            reason = f"the service does not start: {one_line(error)}"
            self.push.send_multipart([self.head(envelope.REFUSE), reason.encode()])
            self.close(linger_ms=2000)
            return 1
        self.push.send(self.head(envelope.HELLO))
        while True:
            frame = self.pull.recv()
            header = envelope.unpack_header(frame)
            if header.kind == envelope.STOP or header.incarnation != self.incarnation:
                self.close(linger_ms=0)
                return 0
            self.work(bench, envelope.unpack_work(frame, header.count))

    def work(self, bench: Bench, works: list[envelope.Work]) -> None:
        """Process the segments of one message, and answer: all at once, or in parts when they take long."""
        outcomes: list[envelope.Outcome] = []
        frames: list[bytes] = []
        since_s = time.monotonic()
        for place, work in enumerate(works):
            outcome, extra = self.one(bench, work)
            outcomes.append(outcome)
            if extra is not None:
                frames.append(extra)
            late = time.monotonic() - since_s > REPLY_AFTER_S or sum(map(len, frames)) > RESULTS_BYTES_MAX // 4
            if late or place + 1 == len(works):
                self.push.send_multipart([self.head(envelope.RESULT, outcomes), *frames])
                outcomes, frames, since_s = [], [], time.monotonic()

    def one(self, bench: Bench, work: envelope.Work) -> tuple[envelope.Outcome, bytes | None]:
        begin_ns = time.perf_counter_ns()
        status, flags, packed, extra = envelope.DONE, 0, 0, None
        try:
            chunk = self.arena.chunk(work.chunk)
            arranged = bool(work.flags & envelope.ARRANGED)
            batch = PacketBatch(
                chunk, work.packets, work.first_number, LinkTypes(self.arena), parser=bench.parser, groups=work.groups,
                arranged=arranged, row_count=work.row_count,
            )  # fmt: skip
            segment = Segment(work.number, batch, work.start, work.stop)
            region = self.regions.chunk(work.region).data if self.regions is not None else None
            flags, packed, extra = bench.process(segment, region)
            if extra is not None and len(extra) > RESULTS_BYTES_MAX // 2:
                raise ValueError(f"the service's comments and reports take {len(extra)} bytes for one segment")
        except Exception as error:
            status, flags, packed, extra = envelope.FAILED, 0, 0, one_line(error).encode()
        busy_ns = time.perf_counter_ns() - begin_ns
        frames = envelope.EXTRA if extra is not None else 0
        outcome = envelope.Outcome(
            work.number, work.attempt, status, flags, packed, work.region, frames, 0, busy_ns, envelope.NO_DIGEST
        )
        return outcome, extra

    def head(self, kind: int, outcomes: list[envelope.Outcome] | None = None) -> bytes:
        return envelope.pack(kind, self.slot, self.incarnation, outcomes or ())

    def close(self, linger_ms: int) -> None:
        self.context.destroy(linger=linger_ms)


def watch(seal_path: str | None, arena: Arena) -> None:
    """Wait for the end of standard input: then our starter is gone. Cut its output at the last whole record, and go."""
    while os.read(0, 1):
        pass
    if seal_path is not None:
        from streamcore.sink.seal import seal

        seal(seal_path, arena.committed_bytes)
    os._exit(1)


def main() -> None:
    line = bytearray()
    while not line.endswith(b"\n"):  # byte by byte: what follows belongs to nobody
        byte = os.read(0, 1)
        if not byte:
            sys.exit(1)
        line += byte
    setup = json.loads(line)
    worker = LocalWorker(setup)
    threading.Thread(target=watch, args=(setup["seal_path"], worker.arena), daemon=True).start()
    sys.exit(worker.run(setup["services"]))
