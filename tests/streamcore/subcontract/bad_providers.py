"""Providers that misbehave in every way that a run must survive: the honest worker, its answers mangled as they leave.

A kind begins to misbehave with its n-th answer, drawn by the seed; until then it is honest.
"""

import random
import time

import zmq

from streamcore.core.errors import WorkerError
from streamcore.disperse import envelope
from streamcore.worker.remote import RemoteWorker

DEADLINE_MS = 400  # of the runs that these are for: a busy machine may keep an honest one from work for a while


class Mangler:
    """Stands in for the socket that results leave through."""

    def __init__(self, socket, kind, seed):
        self._socket = socket
        self._random = random.Random(seed)
        self._from = self._random.randrange(6)
        self._sent = 0
        self._kept = []
        self._mangle = getattr(self, kind)

    def __getattr__(self, name):
        return getattr(self._socket, name)

    def send(self, frame):
        self._socket.send(frame)

    def send_multipart(self, frames, **more):
        frames = [bytes(frame) for frame in frames]
        header = envelope.unpack_header(frames[0])
        if header.kind != envelope.RESULT:
            self._socket.send_multipart(frames)
            return
        outcomes = envelope.unpack_results(frames[0], header.descriptors)
        self._sent += 1
        if self._sent > self._from:
            self._mangle(header, outcomes, frames)
        else:
            self._socket.send_multipart(frames)

    def again(self, header, outcomes, frames):
        frames = [envelope.pack(envelope.RESULT, header.slot, header.incarnation, outcomes), *frames[1:]]
        self._socket.send_multipart(frames)

    # The kinds.

    def slow(self, header, outcomes, frames):
        time.sleep(1.5 * DEADLINE_MS / 1000)
        self._socket.send_multipart(frames)
        self._mangle = self.dead  # nobody listens to it any more

    def hung(self, header, outcomes, frames):
        pass

    def dead(self, header, outcomes, frames):
        raise WorkerError("it is dead")

    def returning(self, header, outcomes, frames):
        """Its connection ends, and it comes again."""
        raise ConnectionResetError

    def lying(self, header, outcomes, frames):
        """Turns a bit of a payload, which the effect allows."""
        changed = bytearray(frames[-1])
        changed[outcomes[-1].packed - 1] ^= 1
        self._socket.send_multipart([*frames[:-1], bytes(changed)])

    def undeclared(self, header, outcomes, frames):
        """Turns a bit of a record header."""
        changed = bytearray(frames[-1])
        changed[self._random.randrange(16)] ^= 1
        self._socket.send_multipart([*frames[:-1], bytes(changed)])

    def shortened(self, header, outcomes, frames):
        self.again(header, [each._replace(packed=each.packed - 70) for each in outcomes], frames)

    def dropping(self, header, outcomes, frames):
        """Says that it dropped packets, which its service may not."""
        self.again(header, [each._replace(flags=each.flags | 4) for each in outcomes], frames)

    def duplicating(self, header, outcomes, frames):
        self._socket.send_multipart(frames)
        self._socket.send_multipart(frames)

    def reordering(self, header, outcomes, frames):
        """Keeps answers back, and sends them the other way round, within the deadline."""
        self._kept.append((frames, time.monotonic()))
        if len(self._kept) == 2:
            for kept, _ in reversed(self._kept):
                self._socket.send_multipart(kept)
            self._kept = []

    def oversized(self, header, outcomes, frames):
        self._socket.send_multipart([*frames, bytes(3 << 20)])

    def of_another_input(self, header, outcomes, frames):
        digest = self._random.randbytes(16)
        self.again(header, [each._replace(digest=digest) for each in outcomes], frames)

    def of_another_segment(self, header, outcomes, frames):
        number = self._random.randrange(1 << 32)
        self.again(header, [each._replace(number=each.number ^ number) for each in outcomes], frames)

    def of_another_attempt(self, header, outcomes, frames):
        self.again(header, [each._replace(attempt=each.attempt + 1) for each in outcomes], frames)

    def garbage(self, header, outcomes, frames):
        self._socket.send_multipart([self._random.randbytes(self._random.randrange(1, 200))])

    def failing(self, header, outcomes, frames):
        failed = [each._replace(status=envelope.FAILED, flags=0, frames=envelope.EXTRA) for each in outcomes]
        self.again(header, failed, [b"", *[b"I do not like it"] * len(failed)])


KINDS = [name for name in vars(Mangler) if not name.startswith("_") and name not in ("send", "send_multipart", "again")]


def bad(kind, seed):
    """The class of a provider that misbehaves so."""

    class Bad(RemoteWorker):
        def _secured(self, socket_kind, port=None):
            socket = super()._secured(socket_kind, port)
            return Mangler(socket, kind, seed) if socket_kind == zmq.PUSH else socket

    return Bad
