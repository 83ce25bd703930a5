"""The dispatcher: owns the sockets, the workers and the leases. Segments go in from one thread, results come out in another.

What it promises: every submitted segment comes back exactly once, as a checked Result or as dead; nothing is sent to a peer without
credit; a peer that dies, hangs or lies loses its leases to another. Where a result belongs in the second stream is not its business.
"""

from __future__ import annotations

import collections
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
import zmq

from streamcore.counters import Counters
from streamcore.disperse import envelope, local
from streamcore.disperse._results import FLAGS_OF_CHANGE, ResultError, read_result
from streamcore.disperse.peer import LEASES_MAX, REGIONS_SPARE, Lease, Peer, Tally
from streamcore.errors import WorkerError
from streamcore.packets import Arena, Result, Segment

START_S = 30.0  # a worker that has not said hello by then is taken for hung
TICK_S = 1.0  # the loop looks around at least so often
MESSAGE_BYTES_MAX = 1 << 20  # of a result from a worker on this machine: its packets do not travel
WORK_PER_MESSAGE_MAX = 16  # segments in one message


@dataclass(frozen=True, slots=True)
class Terms:
    """What a dispatcher is told: a part of the Config, and what the services declare."""

    workers: int
    services: list[dict[str, Any]]  # specifications, plain data, as the workers load them
    changes: frozenset[str]  # what the services together may change: "bytes", "lengths", "drops"
    lease_ms: int
    attempts_max: int
    credit: int  # segments of full size out with one worker
    segment_bytes: int
    restarts_max: int
    seal_path: str | None  # the output file, which workers cut at its last whole record when we are killed


@dataclass(slots=True)
class Attempt:
    """A segment that waits to be sent, and what became of it so far."""

    segment: Segment
    attempt: int = 1
    failures: int = 0
    avoid: int = -1  # the slot that failed last
    reason: str = ""


@dataclass(slots=True)
class Slot:
    """A place for a worker, whoever fills it."""

    number: int
    tally: Tally = field(default_factory=Tally)
    peer: Peer | None = None
    fruitless: int = 0  # incarnations in a row that gave no result


class Dispatcher:
    """See the file's head. `submit` and `finish` are for the feeding thread, everything else for the one that takes results."""

    def __init__(self, terms: Terms, arena: Arena, counters: Counters) -> None:
        self.terms = terms
        self._arena = arena
        self._counters = counters
        self._allowed = 0
        for change in terms.changes:
            self._allowed |= FLAGS_OF_CHANGE[change]
        self._token = secrets.token_hex(12)
        self._context = zmq.Context()
        self._pull = self._context.socket(zmq.PULL)
        self._pull.setsockopt(zmq.MAXMSGSIZE, MESSAGE_BYTES_MAX)
        self._pull.bind(local.endpoint(self._token))
        self._poller = zmq.Poller()
        self._poller.register(self._pull, zmq.POLLIN)
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poller.register(self._wake, zmq.POLLIN)
        self._inbox: collections.deque[Segment] = collections.deque()  # bounded by the pipeline's gate
        self._again: list[Attempt] = []  # to be sent again, by number
        self._waiting: dict[int, collections.deque[Attempt]] = {}  # by lane
        self._attempts: dict[int, Attempt] = {}  # of every segment that is out, by number
        self._finished = False
        self._refusal = ""
        self.slots = [Slot(number) for number in range(terms.workers)]

    # For the feeding thread.

    def submit(self, segments: list[Segment]) -> None:
        """Hand over segments. The caller bounds how many are in flight."""
        self._inbox.extend(segments)
        os.eventfd_write(self._wake, 1)

    def finish(self) -> None:
        """Say that no more segments come."""
        self._finished = True
        os.eventfd_write(self._wake, 1)

    # For the thread that takes results.

    def start(self) -> None:
        """Start the workers."""
        for slot in self.slots:
            self._fill(slot)

    def results(self) -> Iterator[Result]:
        """Every submitted segment's Result, as they come; ends when all that was submitted before `finish` is back.

        Raises WorkerError when no worker is left that could do the rest.
        """
        while True:
            self._take_inbox()
            yield from self._bury()
            self._send()
            if self._finished and not self._inbox and not self._attempts:
                return
            if not any(slot.peer for slot in self.slots):
                raise WorkerError(self._refusal or "no worker is left: all ended without a result")
            events = dict(self._poller.poll(self._patience_ms()))
            if self._wake in events:
                os.eventfd_read(self._wake)
            if self._pull in events:
                yield from self._receive()
            now_s = time.monotonic()
            for slot in self.slots:
                peer = slot.peer
                if peer is None:
                    continue
                if peer.push is not None and peer.push in events:
                    self._poller.unregister(peer.push)
                    peer.blocked = False
                if peer.pidfd in events:
                    yield from self._receive()  # what it sent before it died
                    self._lose(slot, "worker died")
                elif now_s >= peer.deadline_s(self.terms.lease_ms / 1000, START_S) and not self._pull.poll(0):
                    self._lose(slot, f"no result within {self.terms.lease_ms} ms")

    def close(self) -> None:
        """End all workers and sockets; nothing is left behind."""
        for slot in self.slots:
            if slot.peer is not None:
                self._close(slot.peer)
                slot.peer = None
        self._context.destroy(linger=0)
        if self._wake >= 0:
            os.close(self._wake)
            self._wake = -1

    # Sending.

    def _take_inbox(self) -> None:
        while self._inbox:
            segment = self._inbox.popleft()
            attempt = Attempt(segment)
            self._attempts[segment.number] = attempt
            self._waiting.setdefault(segment.lane, collections.deque()).append(attempt)

    def _send(self) -> None:
        """Give every waiting segment for which there is credit to a peer: those to be sent again first, oldest first."""
        if self._again:
            left = []
            for attempt in sorted(self._again, key=lambda a: a.segment.number):
                peer = self._choose(attempt)
                if peer is None or not self._lend(peer, [attempt]):
                    left.append(attempt)
            self._again = left
        for queue in self._waiting.values():
            while queue:
                peer = self._choose(queue[0])
                if peer is None:
                    break
                batch = [queue.popleft()]
                while queue and len(batch) < WORK_PER_MESSAGE_MAX and self._has_room(peer, batch, queue[0]):
                    batch.append(queue.popleft())
                if not self._lend(peer, batch):
                    queue.extendleft(reversed(batch))
                    break

    def _choose(self, attempt: Attempt) -> Peer | None:
        """The peer for a segment: its lane's where that lives, another than the one that failed where there is one."""
        segment = attempt.segment
        peers = [slot.peer for slot in self.slots if slot.peer is not None]
        if attempt.avoid >= 0:
            others = [peer for peer in peers if peer.slot != attempt.avoid and peer.ready]
            peers = others or peers
        elif segment.lane < len(self.slots) and (peer := self.slots[segment.lane].peer) is not None:
            peers = [peer]
        able = [peer for peer in peers if peer.ready and not peer.blocked and self._can_take(peer, segment)]
        return min(able, key=lambda peer: peer.bytes_out, default=None)

    def _can_take(self, peer: Peer, segment: Segment) -> bool:
        """Credit, and a region for what it changes. The last free region is kept for the oldest
        segment, so that it always gets done: results that wait for it hold all others."""
        if not peer.has_credit(segment.byte_count):
            return False
        if peer.regions is None:
            return True
        free = peer.regions.free_count
        return free > 1 or (free == 1 and segment.number == next(iter(self._attempts)))

    def _has_room(self, peer: Peer, batch: list[Attempt], attempt: Attempt) -> bool:
        out = peer.bytes_out + sum(a.segment.byte_count for a in batch) + attempt.segment.byte_count
        if len(peer.leases) + len(batch) >= LEASES_MAX or out > peer.credit_bytes:
            return False
        return peer.regions is None or peer.regions.free_count > len(batch) + 1

    def _lend(self, peer: Peer, batch: list[Attempt]) -> bool:
        """Send segments to a peer; False where its socket takes nothing now."""
        assert peer.push is not None
        leases, works = [], []
        for attempt in batch:
            segment = attempt.segment
            region = peer.regions.acquire(0) if peer.regions is not None else None
            leases.append(Lease(segment, attempt.attempt, region, envelope.NO_DIGEST))
            b = segment.batch
            works.append(
                envelope.Work(
                    segment.number, b.first_number, attempt.attempt, b.chunk.index, region.index if region is not None else 0,
                    b.count, segment.start, segment.stop, b.row_count, b.groups, envelope.ARRANGED if b.arranged else 0,
                )
            )  # fmt: skip
        try:
            peer.push.send(envelope.pack(envelope.WORK, peer.slot, peer.incarnation, works), zmq.NOBLOCK)
        except zmq.Again:
            peer.blocked = True
            self._poller.register(peer.push, zmq.POLLOUT)
            return False
        now_s = time.monotonic()
        for lease in leases:
            peer.lend(lease, now_s)
        self._counters.bump("segments.dispersed", len(leases))
        return True

    # Receiving.

    def _receive(self) -> Iterator[Result]:
        """Every message that is there."""
        while True:
            try:
                frames = self._pull.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            try:
                header = envelope.unpack_header(frames[0].buffer)
                peer = self._peer_of(header)
                if peer is None:
                    self._counters.bump("segments.discarded", header.count)
                elif header.kind == envelope.HELLO:
                    self._welcome(peer)
                elif header.kind == envelope.REFUSE:
                    self._refusal = bytes(frames[1].buffer).decode(errors="replace")
                    self._lose(self.slots[peer.slot], self._refusal, restart=False)
                elif header.kind == envelope.RESULT:
                    yield from self._accept(peer, envelope.unpack_results(frames[0].buffer, header.count), frames[1:])
            except (envelope.EnvelopeError, msgspec.DecodeError, IndexError):
                self._counters.bump("disperse.bad_message")

    def _peer_of(self, header: envelope.Header) -> Peer | None:
        """Who sent this: the present incarnation of a slot, or nobody whom we still listen to."""
        if header.slot >= len(self.slots):
            return None
        peer = self.slots[header.slot].peer
        return peer if peer is not None and peer.incarnation == header.incarnation else None

    def _accept(self, peer: Peer, outcomes: list[envelope.Outcome], frames: list[zmq.Frame]) -> Iterator[Result]:
        remaining = iter(frames)
        for outcome in outcomes:
            extra = next(remaining).buffer if outcome.frames & envelope.EXTRA else None
            lease = peer.settle(outcome.number, outcome.attempt, time.monotonic())
            if lease is None:
                self._counters.bump("segments.discarded")
                continue
            attempt = self._attempts[outcome.number]
            try:
                if outcome.status != envelope.DONE:
                    raise ResultError(bytes(extra or b"the service failed").decode(errors="replace"))
                result = self._read(lease, outcome, extra)
            except ResultError as error:
                peer.tally.failed += 1
                self._failed(attempt, peer.slot, str(error))
                continue
            tally = peer.tally
            tally.segments += 1
            tally.packets += len(lease.segment)
            tally.bytes += lease.segment.byte_count
            tally.busy_ns += outcome.busy_ns
            self.slots[peer.slot].fruitless = 0
            del self._attempts[outcome.number]
            yield result

    def _read(self, lease: Lease, outcome: envelope.Outcome, extra: memoryview | None) -> Result:
        """The checked Result of a lease. Raises ResultError."""
        region = lease.region
        if region is None:
            if outcome.flags:
                raise ResultError("the service changed what it did not declare")
            result = Result(lease.segment)
        else:
            result = read_result(lease.segment, region.data, outcome.packed, outcome.flags, self._allowed, region)
        if extra is not None:
            told = msgspec.msgpack.decode(extra)
            result.comments = told["comments"]
            result.reports = told["reports"]
            result.drops = told["drops"]
        return result

    # Faults.

    def _failed(self, attempt: Attempt, slot: int, reason: str) -> None:
        """One attempt failed by its own fault."""
        attempt.failures += 1
        attempt.reason = reason
        self._resend(attempt, slot)

    def _resend(self, attempt: Attempt, slot: int) -> None:
        attempt.attempt += 1
        attempt.avoid = slot
        self._again.append(attempt)
        if attempt.failures < self.terms.attempts_max:
            self._counters.bump("segments.resent")

    def _bury(self) -> Iterator[Result]:
        """Dead results for the segments that have failed too often."""
        dead = [attempt for attempt in self._again if attempt.failures >= self.terms.attempts_max]
        if not dead:
            return
        self._again = [attempt for attempt in self._again if attempt.failures < self.terms.attempts_max]
        for attempt in dead:
            del self._attempts[attempt.segment.number]
            self._counters.bump("segments.dead_lettered")
            yield Result(attempt.segment, dead=True, reason=attempt.reason)

    def _lose(self, slot: Slot, reason: str, restart: bool = True) -> None:
        """A peer died or hangs: end it, send its segments again, fill its slot. Only its first lease can have been the cause."""
        peer = slot.peer
        assert peer is not None
        slot.peer = None
        slot.fruitless = 0 if peer.results else slot.fruitless + 1
        self._close(peer)
        self._counters.bump("workers.lost")
        for place, (number, _lease) in enumerate(peer.leases.items()):
            if place == 0 and peer.ready:
                self._failed(self._attempts[number], slot.number, reason)
            else:
                self._resend(self._attempts[number], slot.number)
        if restart and slot.fruitless <= self.terms.restarts_max:
            self._fill(slot)

    def _close(self, peer: Peer) -> None:
        if peer.pidfd >= 0:
            self._poller.unregister(peer.pidfd)
        if peer.push is not None:
            if peer.blocked:
                self._poller.unregister(peer.push)
            peer.push.close(linger=0)
        local.stop(peer)

    def _fill(self, slot: Slot) -> None:
        terms = self.terms
        peer = Peer(slot.number, terms.credit * terms.segment_bytes, slot.tally, clock_from_s=time.monotonic())
        regions = 2 * terms.credit + REGIONS_SPARE if terms.changes else 0
        setup = {"token": self._token, "services": terms.services, "seal_path": terms.seal_path}
        local.start(peer, self._arena, regions, 2 * self._arena.data_bytes_max + 32 * self._arena.rows_max, setup)
        slot.peer = peer
        self._poller.register(peer.pidfd, zmq.POLLIN)
        self._counters.bump("workers.started")

    def _welcome(self, peer: Peer) -> None:
        if peer.push is not None:
            return
        peer.push = self._context.socket(zmq.PUSH)
        peer.push.setsockopt(zmq.IMMEDIATE, 1)
        peer.push.setsockopt(zmq.SNDHWM, LEASES_MAX)
        peer.push.connect(local.endpoint(self._token, peer.incarnation))
        peer.clock_from_s = time.monotonic()

    def _patience_ms(self) -> float:
        """Until the next deadline, and no longer than a tick."""
        now_s = time.monotonic()
        wait_s = TICK_S
        for slot in self.slots:
            if slot.peer is not None:
                wait_s = min(wait_s, slot.peer.deadline_s(self.terms.lease_ms / 1000, START_S) - now_s)
        return max(0.0, wait_s * 1000)
