"""The worker that joins a pipeline over the network: `streamcore worker --connect tcp://HOST:PORT`.

Segments and results travel inline, over CURVE; both sides know each other's key beforehand.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import zmq
from zmq.utils.monitor import recv_monitor_message

from streamcore.core.errors import WorkerError
from streamcore.core.packets import Arena
from streamcore.core.text import shown
from streamcore.disperse import envelope
from streamcore.disperse._results import region_bytes
from streamcore.disperse.inline import Digest, FramePool, frame_bytes_max, unpack_segment
from streamcore.disperse.peer import MESSAGE_BYTES_MAX
from streamcore.disperse.remote import DOMAIN, PROTOCOL, keep_alive, load_key, load_public_key
from streamcore.worker.local import REPLY_AFTER_S, Processor, Produced, attempt, one_line
from streamcore.worker.permitted import refuse_unallowed

REGIONS = 8  # for results under way
WATCH_MS = 1000
AGAIN_S = 1.0  # between requests to join of one whose key is not known yet
LATENCIES_MAX = 256  # kept until they are taken
COPIED_BYTES_MAX = 1 << 16  # a smaller result is copied, so that it does not keep a region until it is sent
JOIN_S = 30.0  # how long to wait for the pipeline's answer; a pipeline that does not know our key never answers


@dataclass(slots=True)
class Done:
    """A worker's work with one chain of services since it joined. `latency_ns` has the times from a segment's arrival
    to its answer since they were last taken.
    """

    segments: int = 0
    packets: int = 0
    bytes: int = 0
    failed: int = 0
    busy_ns: int = 0
    latency_ns: deque[int] = field(default_factory=lambda: deque(maxlen=LATENCIES_MAX))


class RemoteWorker:
    """connect: tcp://HOST:PORT that the pipeline listens on; key: our .key_secret file; server_key: the pipeline's
    .key file, or the key itself.

    allow: the files that the pipeline may have run or read; check: given the chains of services that it wants, raises
    WorkerError if they must not run; watch: called with the work of each chain, in their order, after every message and
    after a second without one.
    """

    def __init__(
        self,
        connect: str,
        key: str,
        server_key: str | bytes,
        join_s: float = JOIN_S,
        allow: Sequence[str] = (),
        check: Callable[[list[list[Any]]], None] = lambda chains: None,
        watch: Callable[[list[Done]], None] = lambda done: None,
    ) -> None:
        public_key = server_key if isinstance(server_key, bytes) else load_public_key(server_key)
        self._keys = (*load_key(key), public_key)
        self._allow = allow
        self._check = check
        self._watch = watch
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._address = connect
        self._join_s = join_s

    def _secured(self, kind: int, port: int | None = None) -> zmq.Socket[bytes]:
        return self._connect(self._context.socket(kind), port)

    def _connect(self, socket: zmq.Socket[bytes], port: int | None = None) -> zmq.Socket[bytes]:
        socket.setsockopt(zmq.CURVE_PUBLICKEY, self._keys[0])
        socket.setsockopt(zmq.CURVE_SECRETKEY, self._keys[1])
        socket.setsockopt(zmq.CURVE_SERVERKEY, self._keys[2])
        socket.setsockopt(zmq.LINGER, 0)
        keep_alive(socket)
        address = self._address if port is None else f"{self._address.rpartition(':')[0]}:{port}"
        try:
            socket.connect(address)
        except zmq.ZMQError as error:
            raise WorkerError(f"cannot connect to {address}: {error.strerror}") from None
        return socket

    def run(self) -> int:
        """Joins, and works until the pipeline sends STOP. Returns the number of segments. Raises WorkerError."""
        try:
            setup = self._join()
            return self._work(setup)
        finally:
            self._context.destroy(linger=1000)

    def _join(self) -> dict[str, Any]:
        until_s = time.monotonic() + self._join_s
        while (answer := self._ask(until_s)) is None and time.monotonic() < until_s:
            time.sleep(max(0.0, min(AGAIN_S, until_s - time.monotonic())))
        if answer is None:
            raise WorkerError(
                f"no answer from {self._address} within {self._join_s:.0f} s: check that the pipeline runs, that it "
                "knows this worker's key, and that the pipeline has the key that was expected"
            )
        try:
            setup: dict[str, Any] = json.loads(answer)
            if "refused" in setup:
                raise WorkerError(f"{self._address} refused: {shown(str(setup['refused']))}")
        except (ValueError, TypeError, RecursionError):
            raise WorkerError(f"{self._address} answered what is no set-up") from None
        return setup

    def _ask(self, until_s: float) -> bytes | None:
        """The pipeline's answer; None if none comes until then, or as soon as the pipeline does not know our key:
        ZeroMQ would not connect again, but the key may be known later."""
        socket = self._context.socket(zmq.DEALER)
        monitor = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_FAILED_AUTH)
        poller = zmq.Poller()
        poller.register(socket, zmq.POLLIN)
        poller.register(monitor, zmq.POLLIN)
        try:
            self._connect(socket)
            socket.send(json.dumps({"protocol": PROTOCOL, "domain": DOMAIN}).encode())
            events = dict(poller.poll(max(0, int((until_s - time.monotonic()) * 1000))))
            return socket.recv() if socket in events else None
        finally:
            socket.disable_monitor()
            monitor.close(linger=0)
            socket.close(linger=0)

    def _work(self, setup: dict[str, Any]) -> int:
        try:
            slot, incarnation = setup["slot"], setup["incarnation"]
            data_bytes_max, rows_max = setup["chunk"]
            digest = Digest(bytes.fromhex(setup["digest_key"]))
            inlet = Inlet(data_bytes_max, rows_max, setup["region_bytes"], digest, len(setup["chains"]))
        except Exception as error:  # whatever the pipeline sends: it is one line
            raise WorkerError(f"{self._address} answered what is no set-up: {one_line(error)}") from None
        pull = self._secured(zmq.PULL, setup["work_port"])
        pull.setsockopt(zmq.MAXMSGSIZE, frame_bytes_max(rows_max, data_bytes_max))
        push = self._secured(zmq.PUSH, setup["results_port"])
        monitor = pull.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        try:
            self._check(setup["chains"])
            refuse_unallowed(setup["chains"], self._allow)
            processor = Processor(setup["chains"], setup["parsing"])
        except Exception as error:
            reason = f"the service does not start: {one_line(error)}"
            push.send_multipart([envelope.pack(envelope.REFUSE, slot, incarnation), reason.encode()])
            raise WorkerError(reason) from None
        push.send(envelope.pack(envelope.HELLO, slot, incarnation))
        poller = zmq.Poller()
        poller.register(pull, zmq.POLLIN)
        poller.register(monitor, zmq.POLLIN)
        done = 0
        while True:
            events = dict(poller.poll(WATCH_MS))
            self._watch(inlet.done)
            for frames in all_messages(pull):
                header = envelope.unpack_header(frames[0].buffer)
                if header.kind == envelope.STOP:
                    return done
                if header.kind != envelope.WORK or header.incarnation != incarnation:
                    continue
                works = envelope.unpack_work(frames[0].buffer, header.descriptors)
                for answer in inlet.answers(processor, works, [frame.buffer for frame in frames[1:]]):
                    answer[0] = envelope.pack(envelope.RESULT, slot, incarnation, answer[0])
                    push.send_multipart(answer, copy=False)
                done += len(works)
                self._watch(inlet.done)
            if monitor in events and recv_monitor_message(monitor)["event"] == zmq.EVENT_DISCONNECTED:
                time.sleep(0.1)  # a STOP may follow
                if not pull.poll(0):
                    raise WorkerError(f"the connection to {self._address} ended")


def all_messages(socket: zmq.Socket[bytes]) -> Iterator[list[zmq.Frame]]:
    """The messages that have arrived."""
    with suppress(zmq.Again):
        while True:
            yield socket.recv_multipart(zmq.NOBLOCK, copy=False)


class Inlet:
    """Memory for one incoming segment and for the results under way, which the pipeline's credit bounds."""

    def __init__(self, data_bytes_max: int, rows_max: int, region_bytes_max: int, digest: Digest, chains: int) -> None:
        self._arena = Arena(1, data_bytes_max, rows_max)
        self._regions = FramePool(REGIONS, region_bytes_max)
        self._region_bytes_max = region_bytes_max
        self._digest = digest
        self.done = [Done() for _ in range(chains)]

    def answers(
        self, processor: Processor, works: list[envelope.Work], contents: list[memoryview]
    ) -> Iterator[list[Any]]:
        """Processes the segments of one message. Yields [outcomes, frame, …], all at once or in parts if they take
        long."""
        outcomes: list[envelope.Outcome] = []
        frames: list[Any] = []
        byte_count = 0
        came_s = since_s = time.monotonic()
        for place, (work, content) in enumerate(zip(works, contents, strict=True)):
            region = self._regions.take(self._region_bytes_max) if processor.changes[work.stream] else None
            outcome, extra = attempt(
                work,
                self._digest(work.number, work.attempt, content),
                lambda work=work, content=content, region=region: self._produce(processor, work, content, region),  # type: ignore[misc]
            )
            if extra is not None:
                frames.append(extra)
            if outcome.flags:
                assert region is not None
                size = region_bytes(work.stop - work.start, outcome.packed, outcome.flags)
                frames.append(region[:size] if size > COPIED_BYTES_MAX else region[:size].tobytes())
                outcome = outcome._replace(frames=outcome.frames | envelope.INLINE_REGION)
                byte_count += size
            outcomes.append(outcome)
            done = self.done[work.stream]
            done.segments += 1
            done.busy_ns += outcome.busy_ns
            done.failed += outcome.status != envelope.DONE
            done.latency_ns.append(int((time.monotonic() - came_s) * 1e9))
            byte_count += len(extra or b"")
            late = time.monotonic() - since_s > REPLY_AFTER_S
            if place + 1 == len(works) or late or byte_count > MESSAGE_BYTES_MAX:
                yield [outcomes, *frames]
                outcomes, frames, byte_count, since_s = [], [], 0, time.monotonic()

    def _produce(self, processor: Processor, work: envelope.Work, content: memoryview, region: Any) -> Produced:
        count = work.stop - work.start
        segment = unpack_segment(work.number, count, content, self._arena, processor.parse, work.stream)
        self.done[work.stream].packets += count
        self.done[work.stream].bytes += segment.batch.byte_count
        return processor.process(segment, region)
