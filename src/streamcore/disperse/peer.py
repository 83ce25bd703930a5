"""A peer: one worker as the dispatcher sees it, with its credit, its leases and the regions of its arena. It reads no
sockets.

A peer works on its leases in the order in which it got them, so only the first one's clock runs: a lease has
`lease_ms` from the moment at which it becomes the first.
"""

from __future__ import annotations

import mmap
import secrets
import signal
import socket
import subprocess
import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import zmq

from streamcore.core.packets import Arena, Chunk, Segment
from streamcore.disperse import local
from streamcore.disperse._inline import record_bytes

if TYPE_CHECKING:
    from streamcore.disperse.inline import Outlet

LEASES_MAX = 32  # per peer, whatever the segments' sizes
MESSAGE_BYTES_MAX = 1 << 20  # small segments share a message to a remote worker up to this size
RESULT_BYTES_PER_PACKET = 256  # extra room in a region, beyond twice the records' bytes
REMEMBERED_MAX = 64  # batches with a region before dead entries are removed


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


@dataclass(slots=True)
class Lease:
    """One attempt of one peer at one segment."""

    segment: Segment
    attempt: int
    part: RegionPart | None  # None: no service changes bytes, or the segment left the machine
    digest: bytes
    since_s: float = 0.0


@dataclass(slots=True)
class Tally:
    """The work of one slot, over all incarnations."""

    segments: int = 0
    packets: int = 0
    bytes: int = 0
    busy_ns: int = 0
    failed: int = 0

    def add(self, segment: Segment, busy_ns: int) -> None:
        self.segments += 1
        self.packets += len(segment)
        self.bytes += segment.byte_count
        self.busy_ns += busy_ns


@dataclass(slots=True)
class Peer:
    """One incarnation of a worker in a slot."""

    slot: int
    credit_bytes: int  # captured bytes that it may hold at one time
    tally: Tally
    leases_max: int = LEASES_MAX
    incarnation: int = field(default_factory=lambda: secrets.randbits(64))
    process: subprocess.Popen[bytes] | None = None  # None: a remote worker
    lifeline: socket.socket | None = None
    pidfd: int = -1
    mark: mmap.mmap | None = None  # of a local worker: local.MARK
    regions: Arena | None = None
    push: zmq.Socket[bytes] | None = None
    ready: bool = False  # it has said hello
    elsewhere: bool = False  # a remote worker: segments travel inline
    key: str = ""  # of a remote worker: its CURVE public key
    streams: frozenset[int] | None = None  # of a provider: those that it serves; None: one of the run's own workers
    lease_ms: int = 0  # of a provider: its lease; 0: the run's lease_ms
    leaving: bool = False  # of a provider: it gets no more segments, and joins again when it has finished its own
    outlet: Outlet | None = None  # of a remote worker: packs its segments
    monitor: zmq.Socket[bytes] | None = None  # of a remote worker: reports the end of its connection
    dismissed: bool = False  # it was asked to stop
    died: bool = False  # its process ended, and this run did not end it
    blocked: bool = False  # its socket is full
    region_uses: dict[int, tuple[weakref.ref[Chunk], int]] = field(
        default_factory=dict
    )  # batch -> its region, bytes reserved in it
    leases: dict[int, Lease] = field(default_factory=dict)  # by segment number, in the order of sending
    bytes_out: int = 0
    clock_from_s: float = 0.0  # when the present first lease became the first, or when the peer was started
    results: int = 0  # of this incarnation
    failures: int = 0  # of a provider: segments that it could not process

    @property
    def identity(self) -> str | int:
        """Who it is, whichever process: a key, or a slot on this machine."""
        return self.key or self.slot

    @property
    def was_killed(self) -> bool:
        """Whether its process was killed from outside. Known once it is reaped."""
        return self.died and self.process is not None and self.process.returncode in (-signal.SIGKILL, -signal.SIGTERM)

    def has_credit(self, byte_count: int) -> bool:
        """Whether it may get a segment of this size. A peer without leases may get any segment; otherwise its segments
        and bytes are bounded."""
        return not self.leaving and (not self.leases or self.has_credit_for(1, byte_count))

    def has_credit_for(self, segments: int, byte_count: int) -> bool:
        return len(self.leases) + segments <= self.leases_max and self.bytes_out + byte_count <= self.credit_bytes

    def shares_message(self, byte_count: int) -> bool:
        """Whether segments of this total size go into one message. A remote worker gets large segments one by one, so
        that it processes one while the next is under way.
        """
        return not self.elsewhere or byte_count <= MESSAGE_BYTES_MAX

    def part_for(self, segment: Segment) -> RegionPart | None:
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

    def add_lease(self, lease: Lease, now_s: float) -> None:
        if not self.leases:
            self.clock_from_s = now_s
        lease.since_s = now_s
        self.leases[lease.segment.number] = lease
        self.bytes_out += lease.segment.byte_count

    def end_lease(self, number: int, attempt: int, now_s: float) -> Lease | None:
        """Ends and returns the lease that a result answers; None if there is no such lease."""
        lease = self.leases.get(number)
        if lease is None or lease.attempt != attempt:
            return None
        if number == next(iter(self.leases)):  # otherwise it came out of turn, and the first lease's clock goes on
            self.clock_from_s = now_s
        del self.leases[number]
        self.bytes_out -= lease.segment.byte_count
        self.results += 1
        return lease

    def suspect(self) -> int | None:
        """The number of the leased segment that may be why this peer died or hangs: of a local worker the one that it
        has begun last, which need not be the first, as results may not have left its process; None if it is back.
        """
        if self.mark is None:
            return next(iter(self.leases), None)
        number, attempt = local.MARK.unpack_from(self.mark)
        lease = self.leases.get(number)
        return number if lease is not None and lease.attempt == attempt else None

    def deadline_s(self, lease_s: float, start_s: float) -> float:
        """When this peer counts as hung: lease_s after its first lease became the first, or start_s after its start."""
        if not self.ready:
            return self.clock_from_s + start_s
        if self.lease_ms:
            lease_s = self.lease_ms / 1000
        return self.clock_from_s + lease_s if self.leases else float("inf")
