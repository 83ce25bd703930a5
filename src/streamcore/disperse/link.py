"""How a peer is reached: its process or connection, its socket, the regions of its arena, and the messages to it.

peer.py has what the machine knows of it; workers.py opens and closes links.
"""

from __future__ import annotations

import mmap
import secrets
import signal
import socket
import subprocess
import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import zmq

from streamcore.core.packets import Arena, Chunk, Segment
from streamcore.disperse import envelope, local
from streamcore.disperse._inline import record_bytes
from streamcore.disperse.peer import Peer
from streamcore.disperse.pending import Pending

if TYPE_CHECKING:
    from streamcore.disperse.inline import Outlet

RESULT_BYTES_PER_PACKET = 256  # extra room in a region, beyond twice the records' bytes
REMEMBERED_MAX = 64  # batches with a region before dead entries are removed


def region_bytes(arena: Arena) -> int:
    """The size of a region: room for the changes of services in all segments of one batch."""
    return 2 * arena.data_bytes_max + RESULT_BYTES_PER_PACKET * arena.rows_max


def result_bytes_max(segment: Segment) -> int:
    """The room reserved for a segment's result: its records with all comments and options, its packets once more, and
    some for each packet. The sum over a batch fits one region.
    """
    packets = len(segment)
    beside = segment.byte_count + (RESULT_BYTES_PER_PACKET - 64) * packets
    return (record_bytes(segment) + beside + 63) // 64 * 64


@dataclass(slots=True)
class RegionPart:
    """A part of a region, reserved with a lease. The region is free again when no lease and no result holds it."""

    region: Chunk
    start: int
    size: int


@dataclass(slots=True, eq=False)
class Link:
    """The connection to one incarnation of a worker. `waits`: something could not be sent to it."""

    peer: Peer
    incarnation: int = field(default_factory=lambda: secrets.randbits(64))
    push: zmq.Socket[bytes] | None = None
    process: subprocess.Popen[bytes] | None = None  # None: a remote worker
    lifeline: socket.socket | None = None
    pidfd: int = -1
    mark: mmap.mmap | None = None  # of a local worker: local.MARK
    regions: Arena | None = None
    outlet: Outlet | None = None  # of a remote worker: packs its segments
    monitor: zmq.Socket[bytes] | None = None  # of a remote worker: reports the end of its connection
    waits: bool = False
    is_polled: bool = False  # for room in its socket
    region_uses: dict[int, tuple[weakref.ref[Chunk], int]] = field(
        default_factory=dict
    )  # batch -> its region, bytes reserved in it

    def note_mark(self) -> None:
        """Tells the peer which segment its process has begun last."""
        if self.mark is not None:
            number, attempt = local.MARK.unpack_from(self.mark)
            self.peer.begun = number, attempt

    @property
    def was_killed(self) -> bool:
        """Whether its process has ended by a signal from outside. Waits for the process, which is at its end."""
        return self.process is not None and self.process.wait() in (-signal.SIGKILL, -signal.SIGTERM)

    @property
    def is_disconnected(self) -> bool:
        """Whether its monitor reports the end of its connection."""
        from zmq.utils.monitor import recv_monitor_message  # only here: it loads asyncio

        while self.monitor is not None and self.monitor.poll(0):
            if recv_monitor_message(self.monitor)["event"] == zmq.EVENT_DISCONNECTED:
                return True
        return False

    def send(self, message: list[Pending], changes: list[bool]) -> tuple[int, bool]:
        """Sends the first segments of a message. Returns how many, and whether its socket is full. changes: by stream,
        whether its services may change anything."""
        assert self.push is not None
        uses_before = dict(self.region_uses) if self.regions is not None else {}
        frames, works = self._frames(message, changes)
        if not works:
            return 0, False
        frames[0] = envelope.pack(envelope.WORK, self.peer.slot, self.incarnation, works)
        try:
            if len(frames) == 1:
                self.push.send(frames[0], zmq.NOBLOCK)
            else:
                self.push.send_multipart(frames, zmq.NOBLOCK, copy=False)
        except zmq.Again:
            self.region_uses = uses_before
            return 0, True
        return len(works), False

    def _frames(self, message: list[Pending], changes: list[bool]) -> tuple[list[Any], list[tuple[int, ...]]]:
        """The frames after the first, and the descriptors, of as many segments as there is room for."""
        works: list[tuple[int, ...]] = []
        frames: list[Any] = [b""]
        for pending in message:
            segment, batch = pending.segment, pending.segment.batch
            part = None
            if self.regions is not None and changes[pending.stream] and (part := self._part_for(segment)) is None:
                break  # no room until results leave
            flags, digest = envelope.ARRANGED if batch.arranged else 0, envelope.NO_DIGEST
            if self.outlet is not None:
                frame, digest = self.outlet.pack(segment, pending.attempt)
                frames.append(frame)
                flags = envelope.INLINE
            pending.part, pending.digest = part, digest
            region, start, size = (part.region.index, part.start, part.size) if part is not None else (0, 0, 0)
            works.append(
                (
                    pending.number, batch.first_number, pending.attempt, batch.chunk.index, region, start, size,
                    batch.count, segment.start, segment.stop, batch.row_count, batch.groups, flags, pending.stream,
                )
            )  # fmt: skip
        return frames, works

    def _part_for(self, segment: Segment) -> RegionPart | None:
        """Reserves room for a segment's result, in the region of the same batch or in a new one; None if there is none
        now.

        There are more regions than batches in flight, so a batch never waits for itself.
        """
        assert self.regions is not None
        size = result_bytes_max(segment)
        batch = segment.batch.first_number
        reference, used = self.region_uses.get(batch, (None, 0))
        region = reference() if reference is not None else None
        if region is None or used + size > self.regions.data_bytes_max:
            region, used = self.regions.acquire(0), 0
            if region is None:
                return None
        if len(self.region_uses) >= REMEMBERED_MAX:
            self.region_uses = {key: value for key, value in self.region_uses.items() if value[0]() is not None}
        self.region_uses[batch] = (weakref.ref(region), used + size)
        return RegionPart(region, used, size)
