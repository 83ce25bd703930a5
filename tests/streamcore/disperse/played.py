"""A dispatcher on a stage: its peers join and send as over the network, but by function calls. Nothing is checked here.

The honest worker is the real one (worker/remote.py) without its sockets.
"""

from __future__ import annotations

import collections
import functools
import json
import struct
import time
from contextlib import contextmanager

import numpy as np
import zmq

from streamcore.core.capture_form import Interface
from streamcore.core.counters import Counters
from streamcore.core.packets import Arena, PacketBatch, Segment
from streamcore.disperse import envelope
from streamcore.disperse.dispatcher import Dispatcher
from streamcore.disperse.inline import Digest, FramePool, frame_bytes_max
from streamcore.disperse.link import Link, region_bytes
from streamcore.disperse.places import Slot
from streamcore.disperse.remote import PROTOCOL, Listener
from streamcore.disperse.terms import Terms
from streamcore.headers import udp_ports
from streamcore.parse.parser import Parser
from streamcore.service.chain import Chain
from streamcore.worker.local import Processor
from streamcore.worker.remote import Inlet
from tests.streamcore.conftest import udp_frame

PACKETS = 5
NO_LANE = 0xFFFFFFFF
SERVICES = [
    "count",
    "scan:text=web=/a/,in=packet,engine=re",
    "anonymise:key=0123456789abcdef0123456789abcdef",
    "slice:30",
]
PARSING = {"hash_seed": 1, "decode_as": [], "flow_key": "outer"}
FRAMES = [udp_frame(i % 7, i) for i in range(256)]
ASKS = json.dumps({"protocol": PROTOCOL}).encode()


class Frame:
    """A received frame, with the key that CURVE has found out."""

    def __init__(self, content, key):
        self.buffer, self._key = memoryview(content), key

    def get(self, name):
        return self._key


class Socket:
    """Any socket: keeps what is sent, and has received what is put into `arrived`."""

    def __init__(self):
        self.sent, self.arrived = [], collections.deque()

    def send_multipart(self, frames, *flags, copy=True):
        self.sent.append([bytes(frame) for frame in frames])

    def send(self, frame, *flags):
        self.sent.append([bytes(frame)])

    def recv_multipart(self, *flags, copy=True):
        if not self.arrived:
            raise zmq.Again
        return self.arrived.popleft()

    def setsockopt(self, *option):
        pass

    def bind_to_random_port(self, host):
        return 1

    def get_monitor_socket(self, events):
        return Socket()

    def disable_monitor(self):
        pass

    def poll(self, timeout_ms):
        return 0

    def close(self, linger=0):
        pass


class Door(Listener):
    """A listener without a port."""

    def __init__(self, arena):
        self._arena, self._host, self.results_port, self.address = arena, "", 1, "here"
        self._frames = FramePool(8, frame_bytes_max(arena.rows_max, arena.data_bytes_max))
        self.join_socket, self.results, self._authenticator = Socket(), Socket(), self

    def _secured(self, kind, domain):
        return Socket()

    def configure_curve_callback(self, domain, known):
        pass

    def stop(self):
        pass


class Stage:
    """A dispatcher for one stream with these services, and segments that nobody has processed."""

    def __init__(self, services=SERVICES, **terms):
        self.chain, self.counters = Chain(services), Counters()
        self.arena = Arena(4, 1 << 15, 256)
        terms = {"attempts_max": 3, "lease_ms": 10_000, "audit": 0.0, "chains": [self.chain.specifications]} | terms
        self.dispatcher = Dispatcher(
            Terms(workers=0, changes=[self.chain.changes], accepted=[self.chain.accepted],
                  deterministic=[self.chain.deterministic], restarts_max=8, credit=3, segment_bytes=1 << 12,
                  hash_seed=1, **terms), self.arena, self.counters,
        )  # fmt: skip
        self.workers, self.machine = self.dispatcher._workers, self.dispatcher._machine
        self.backlog, self.slots = self.machine.backlog, self.dispatcher.slots
        self.door = self.workers.listener = Door(self.arena)
        self._first_results, self.workers.results = self.workers.results, Socket()
        self.results = []
        self.submitted = self.settled = 0
        self._parser = Parser(1, 64, ports=udp_ports([]), flow_key="outer")

    def submit(self, count):
        """Submits so many segments of one batch."""
        batch = PacketBatch(self.arena.acquire(), PACKETS * count, PACKETS * self.submitted, [Interface(1)])
        self.arena.set_link_type(0, 1)
        at = 0
        for i in range(PACKETS * count):
            packet = FRAMES[i]
            record = struct.pack("<IIII", i, i, len(packet), len(packet)) + packet
            batch.chunk.data[at : at + len(record)] = np.frombuffer(record, np.uint8)
            batch.offset[i], batch.captured_length[i], batch.wire_length[i] = at + 16, len(packet), len(packet)
            batch.timestamp_ns[i], batch.interface[i], batch.record[i] = i * 1000, 0, 0
            at += len(record)
        self._parser(batch, self.chain.groups)
        self.dispatcher.submit(
            [
                Segment(
                    self.submitted + i,
                    batch,
                    PACKETS * i,
                    PACKETS * (i + 1),
                    lane=NO_LANE,
                    byte_count=PACKETS * len(packet),
                )
                for i in range(count)
            ]
        )
        self.submitted += count
        self.send()

    def send(self):
        """The dispatcher carries out what its machine decides."""
        self.dispatcher._take_inbox()
        self.results += self.dispatcher._act()

    @contextmanager
    def without(self, worker):
        """Meanwhile this worker gets no segments."""
        state, worker.peer.state = worker.peer.state, "full"
        yield
        if worker.peer.state == "full":
            worker.peer.state = state

    def lose(self, worker, words="its connection ended"):
        """The dispatcher notices that this worker has gone."""
        self.machine.gone(worker.peer, words, time.monotonic(), restart=worker.peer.elsewhere)
        self.send()

    def asks(self, key, *frames):
        """A worker with this key asks to join, in these words: the answer, None if there is none."""
        self.door.join_socket.sent.clear()
        self.door.join_socket.arrived.append([Frame(each, key) for each in (b"identity", *(frames or (ASKS,)))])
        self.dispatcher._receiver._admit(time.monotonic())
        return json.loads(self.door.join_socket.sent[-1][1]) if self.door.join_socket.sent else None

    def receive(self, key, *frames):
        """The dispatcher receives this message from a worker with this key."""
        socket = self.door.results if key else self.workers.results
        socket.arrived.append([Frame(each, key) for each in frames] if key else list(frames))
        self.dispatcher._receiver._take_messages(socket, time.monotonic())
        self.send()

    def close(self):
        self.workers.listener, self.workers.results = None, self._first_results
        self.dispatcher.close()


class Worker:
    """A worker with this key on the stage, honest unless somebody else sends in its name."""

    def __init__(self, stage, key):
        self.stage, self.key = stage, key
        self.setup = stage.asks(key)
        if "refused" in self.setup:
            raise PermissionError(self.setup["refused"])
        self.peer = stage.slots[self.setup["slot"]].peer
        self.link = self.peer.link
        self.taken = 0

    def head(self, kind, outcomes=()):
        return envelope.pack(kind, self.setup["slot"], self.setup["incarnation"], outcomes)

    def hello(self):
        self.send(self.head(envelope.HELLO))
        return self

    def send(self, *frames):
        self.stage.receive(self.key, *frames)

    @property
    def is_in(self):
        return self.stage.slots[self.setup["slot"]].peer is self.peer

    def works(self):
        """The segments that it has got since the last call: (work, frame)."""
        fresh = self.link.push.sent[self.taken :]
        self.taken += len(fresh)
        return [
            each
            for frames in fresh
            for each in zip(
                envelope.unpack_work(frames[0], envelope.unpack_header(frames[0]).descriptors), frames[1:], strict=True
            )
        ]

    def answer(self, works):
        """The frames of an honest answer to these segments."""
        processor = processor_of(self.stage.chain)
        inlet = inlet_for(*self.setup["chunk"], region_bytes(self.stage.arena))
        inlet._digest = Digest(bytes.fromhex(self.setup["digest_key"]))
        frames = list(inlet.answers(processor, *map(list, zip(*works, strict=True))))
        outcomes = [outcome for each in frames for outcome in each[0]]
        return outcomes, [bytes(frame) for each in frames for frame in each[1:]]

    def work(self):
        """Does what it has got."""
        while self.is_in and (works := self.works()):
            outcomes, frames = self.answer(works)
            self.send(self.head(envelope.RESULT, outcomes), *frames)


class Here:
    """An honest worker on this machine, for services that only observe."""

    def __init__(self, stage):
        self.stage = stage
        stage.slots.append(Slot(len(stage.slots)))
        self.peer = stage.machine.places._new_peer(stage.slots[-1], time.monotonic())
        self.link = stage.workers.add(Link(self.peer, push=Socket()))
        stage.machine.hello(self.peer, time.monotonic())

    def work(self):
        while self.peer.leases:
            outcomes, frames = [], []
            for number, lease in self.peer.leases.items():
                flags, packed, extra = processor_of(self.stage.chain).process(lease.segment, None)
                frames += [extra] * (extra is not None)
                outcomes.append(
                    envelope.Outcome(number, lease.attempt, 0, flags, packed, 0, len(frames[-1:]), 0, 0, lease.digest)
                )
            head = envelope.pack(envelope.RESULT, self.peer.slot, self.link.incarnation, outcomes)
            self.stage.receive("", head, *frames)


PROCESSORS = {}


@functools.cache
def inlet_for(data_bytes_max, rows_max, region_bytes_max):
    """Memory is made once."""
    return Inlet(data_bytes_max, rows_max, region_bytes_max, None, 1)


def processor_of(chain):
    """Made once for equal services."""
    made = repr(chain.specifications)
    if made not in PROCESSORS:
        PROCESSORS[made] = Processor([chain.specifications], PARSING)
    return PROCESSORS[made]
