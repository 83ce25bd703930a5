"""The worker that joins a pipeline over the network: `streamcore worker --connect tcp://HOST:PORT`.

Segments and results travel inline, over CURVE; both sides know each other's key beforehand.
"""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import zmq
from zmq.utils.monitor import recv_monitor_message

from streamcore.disperse import envelope, inline
from streamcore.disperse._results import region_bytes
from streamcore.disperse.remote import DOMAIN, PROTOCOL, keep_alive, load_key, load_public_key
from streamcore.errors import WorkerError
from streamcore.packets import Arena
from streamcore.worker import Bench, Produced, attempt, one_line

JOIN_S = 30.0  # how long to wait for the pipeline's answer; a pipeline that does not know our key never answers


class RemoteWorker:
    """connect: tcp://HOST:PORT that the pipeline listens on; key: our .key_secret file; server_key: the pipeline's
    .key file.
    """

    def __init__(self, connect: str, key: str, server_key: str, join_s: float = JOIN_S) -> None:
        self._keys = (*load_key(key), load_public_key(server_key))
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._address = connect
        self._join_s = join_s

    def _secured(self, kind: int, port: int | None = None) -> zmq.Socket[bytes]:
        socket = self._context.socket(kind)
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
        """Join, work until told to stop. Returns the number of segments; raises WorkerError."""
        try:
            told = self._join()
            return self._work(told)
        finally:
            self._context.destroy(linger=1000)

    def _join(self) -> dict[str, Any]:
        door = self._secured(zmq.DEALER)
        door.send(json.dumps({"protocol": PROTOCOL, "domain": DOMAIN}).encode())
        if not door.poll(int(self._join_s * 1000)):
            raise WorkerError(
                f"no answer from {self._address} within {self._join_s:.0f} s: is the pipeline running, "
                "does it know this key, is the pipeline's key right?"
            )
        told: dict[str, Any] = json.loads(door.recv())
        door.close(linger=0)
        if "refused" in told:
            raise WorkerError(f"{self._address} refused: {told['refused']}")
        return told

    def _work(self, told: dict[str, Any]) -> int:
        slot, incarnation = told["slot"], told["incarnation"]
        data_bytes_max, rows_max = told["chunk"]
        arena = Arena(1, data_bytes_max, rows_max)
        region = np.zeros(told["region_bytes"], np.uint8)
        pull = self._secured(zmq.PULL, told["work_port"])
        pull.setsockopt(zmq.MAXMSGSIZE, data_bytes_max + inline.COLUMN_BYTES * rows_max)
        push = self._secured(zmq.PUSH, told["results_port"])
        monitor = pull.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        try:
            bench = Bench(told["chains"])
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
            events = dict(poller.poll())
            if pull in events:
                frames = pull.recv_multipart(copy=False)
                header = envelope.unpack_header(frames[0].buffer)
                if header.kind == envelope.STOP:
                    return done
                if header.kind != envelope.WORK or header.incarnation != incarnation:
                    continue
                contents = iter(frames[1:])
                for work in envelope.unpack_work(frames[0].buffer, header.descriptors):
                    columns, records = next(contents).buffer, next(contents).buffer
                    self._one(bench, work, columns, records, arena, region, push, (slot, incarnation))
                    done += 1
            elif monitor in events and recv_monitor_message(monitor)["event"] == zmq.EVENT_DISCONNECTED:
                time.sleep(0.1)  # a stop may have come with it
                if not pull.poll(0):
                    raise WorkerError(f"the connection to {self._address} ended")

    def _one(self, bench: Bench, work: envelope.Work, columns: memoryview, records: memoryview, arena: Arena,
             region: np.ndarray[Any, Any], push: zmq.Socket[bytes], place: tuple[int, int]) -> None:  # fmt: skip
        def produce() -> Produced:
            count = work.stop - work.start
            segment = inline.unpack_segment(
                work.number, count, columns, records, arena.chunk(0), bench.parse, work.stream
            )
            return bench.process(segment, region)

        outcome, extra = attempt(work, inline.digest((columns, records)), produce)
        frames = [b""] if extra is None else [b"", extra]
        if outcome.flags:
            size = region_bytes(work.stop - work.start, outcome.packed, outcome.flags)
            frames.append(region[:size].tobytes())
            outcome = outcome._replace(frames=outcome.frames | envelope.INLINE_REGION)
        frames[0] = envelope.pack(envelope.RESULT, *place, [outcome])
        push.send_multipart(frames)
