"""The dispatcher: segments go in from one thread, results come out in another. It keeps the queue and the leases.

What it promises: every submitted segment comes back exactly once, as a checked Result or as dead; nothing is sent to
a peer without
credit; a peer that dies, hangs or lies loses its leases to another. Where a result belongs in the second stream is
not its business.
"""

from __future__ import annotations

import collections
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from operator import or_
from typing import Any

import msgspec
import zmq

from streamcore.counters import Counters, Histogram
from streamcore.disperse import envelope, local
from streamcore.disperse._results import (
    FLAGS_OF_CHANGE,
    KEEP,
    LENGTHS,
    PACKED,
    ResultError,
    dropped_of,
    read_result,
    same_result,
)
from streamcore.disperse.attempt import FAULT, KILLED, Attempt, Told, aligned, with_our_offsets
from streamcore.disperse.peer import Lease, Peer
from streamcore.disperse.roster import Roster, Slot, Terms
from streamcore.errors import WorkerError
from streamcore.packets import Arena, Result, Segment
from streamcore.routes import IN_HOUSE, Route, Routes

START_S = 30.0  # a worker that has not said hello by then is taken for hung
JOIN_S = 60.0  # how long a run without workers of its own waits for one from elsewhere
LOOK_S = 0.01  # between looks at the routes, while segments wait
TICK_S = 1.0  # the loop looks around at least so often
WORK_PER_MESSAGE_MAX = 16  # segments in one message
REFUSAL_CHARACTERS_MAX = 500
FAILURES_MAX = 3  # segments that a provider may say it cannot process
NO_AGREEMENT = "no agreement with a provider"  # the reason of a Result that nobody made

OVERLOAD = "the workers had fallen behind"


class Dispatcher:
    """`submit` and `finish` are for the feeding thread, everything else for the one that takes results.

    launched: workers that were started beforehand; the dispatcher ends them too. routes: who runs which stream; None:
    our own workers run all. `withdraw` is called with a provider's key where it lied, and gives the segments back whose
    results have not left yet.
    """

    def __init__(
        self,
        terms: Terms,
        arena: Arena,
        counters: Counters,
        launched: Sequence[local.Launched] = (),
        routes: Routes | None = None,
    ) -> None:
        self._terms = terms
        self._arena = arena
        self._counters = counters
        self._allowed = [reduce(or_, (FLAGS_OF_CHANGE[c] for c in changes), 0) for changes in terms.changes]
        self._roster = Roster(terms, arena, counters, list(launched), routes)
        self._routes = routes
        self.withdraw: Callable[[str], list[Segment]] = lambda _key: []
        self._absent_since_s: dict[str, float] = {}  # providers that segments wait for and that have not joined
        self._next_look_s = 0.0
        self._next_send_s = math.inf  # when a maximum rate lets the next segment go
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._roster.poller.register(self._wake, zmq.POLLIN)
        self._inbox: collections.deque[Segment] = collections.deque()  # bounded by the pipeline's gate
        self._again: list[Attempt] = []  # to be sent again
        self._waiting: dict[tuple[int, int], collections.deque[Attempt]] = {}  # to be sent, by stream and lane
        self._attempts: dict[int, Attempt] = {}  # every segment that is not back, by number, oldest first
        self.durations = Histogram()  # of each segment, from its coming to its accepted result
        self._finished = False
        self._cancelled = False
        self._relieved = False
        self._refusal = ""
        self._alone_since_s = time.monotonic()

    @property
    def slots(self) -> list[Slot]:
        return self._roster.slots

    @property
    def depths(self) -> tuple[int, int]:
        """(segments that wait for a worker, segments that are out with one), about: from any thread."""
        out = sum(len(peer.leases) for slot in self.slots if (peer := slot.peer) is not None)
        return max(0, len(self._inbox) + len(self._attempts) - out), out

    @property
    def address(self) -> str:
        """Where workers elsewhere may join; "" where they may not."""
        return self._roster.listener.address if self._roster.listener is not None else ""

    # For the feeding thread.

    def submit(self, segments: list[Segment]) -> None:
        """Hand over segments. The caller bounds how many are in flight."""
        self._inbox.extend(segments)
        os.eventfd_write(self._wake, 1)

    def finish(self) -> None:
        """Say that no more segments come."""
        self._finished = True
        os.eventfd_write(self._wake, 1)

    def relieve(self) -> None:
        """Give what waits for a worker back as it is, its reason OVERLOAD. From any thread."""
        self._relieved = True
        self.wake()

    def wake(self) -> None:
        """Look at the routes again soon. From any thread."""
        if self._wake >= 0:
            os.eventfd_write(self._wake, 1)

    def cancel(self) -> None:
        """End `results` soon, whatever is out. From any thread, or a signal handler."""
        self._cancelled = True
        if self._wake >= 0:
            os.eventfd_write(self._wake, 1)

    # For the thread that takes results.

    def start(self) -> None:
        """Start the workers."""
        self._roster.start()

    def results(self, idle: Callable[[], None] = lambda: None) -> Iterator[Result]:
        """Every submitted segment's Result, as they come; ends when all that was submitted before `finish` is back.

        idle: called when nothing has come for a while. Raises WorkerError when no worker is left that could do the
        rest.
        """
        roster = self._roster
        while True:
            self._take_inbox()
            self._send()
            if self._routes is not None:
                yield from self._look_after_routes(self._routes)
            if self._cancelled or (self._finished and not self._inbox and not self._attempts):
                return
            self._look_for_life()
            events = dict(roster.poller.poll(self._patience_ms()))
            if not events:
                idle()
            if self._wake in events:
                os.eventfd_read(self._wake)
            if roster.results in events:
                yield from self._receive(roster.results)
            if roster.listener is not None:
                if roster.listener.door in events:
                    roster.admit()
                if roster.listener.results in events:
                    yield from self._receive(roster.listener.results)
            yield from self._look_after_peers(events)
            yield from self._bury()
            if self._relieved:
                self._relieved = False
                yield from self._pass_waiting()

    def close(self) -> None:
        """End all workers and sockets; nothing is left behind."""
        self._roster.close()
        if self._wake >= 0:
            os.close(self._wake)
            self._wake = -1

    # Sending.

    def _take_inbox(self) -> None:
        while self._inbox:
            segment = self._inbox.popleft()
            attempt = Attempt(segment, since_s=time.monotonic())
            self._attempts[segment.number] = attempt
            self._waiting.setdefault((segment.stream, segment.lane), collections.deque()).append(attempt)
            if self._routes is not None and self._routes.of(segment.stream).kind == "provider":
                self._routes.waiting(segment.stream, segment)

    def _send(self) -> None:
        """Give each waiting segment for which there is credit to a peer: first those to be sent again, oldest first."""
        self._next_send_s = math.inf
        if self._again:
            self._again = [
                attempt
                for attempt in sorted(self._again, key=lambda a: a.segment.number)
                if (peer := self._choose(attempt)) is None or self._lend(peer, [attempt]) == 0
            ]
        if not self._is_credit_left():
            return  # without a look at every lane
        for queue in self._waiting.values():
            while queue and (peer := self._choose(queue[0])) is not None:
                batch = [queue.popleft()]
                byte_count = batch[0].segment.byte_count
                while (
                    queue
                    and len(batch) < WORK_PER_MESSAGE_MAX
                    and (peer.streams is None or not self._is_limited(queue[0]))  # a maximum rate counts one by one
                    and peer.has_credit_for(len(batch) + 1, byte_count := byte_count + queue[0].segment.byte_count)
                    and peer.shares_message(byte_count)
                ):
                    batch.append(queue.popleft())
                lent = self._lend(peer, batch)
                queue.extendleft(reversed(batch[lent:]))
                if lent == 0:
                    break
                if not self._is_credit_left():
                    return

    def _is_credit_left(self) -> bool:
        return any(slot.peer is not None and slot.peer.ready and slot.peer.has_credit(0) for slot in self._roster.slots)

    def _choose(self, attempt: Attempt) -> Peer | None:
        """The peer for a segment: its lane's, or where that one failed another; None: nobody has credit now."""
        segment = attempt.segment
        route = self._route(attempt)
        if route.helps and (peer := self._able(attempt, self._roster.peers())) is not None:
            return peer
        if route.kind == "provider":
            peers = self._roster.providers(route.key, segment.stream)
            if peers and not self._may_leave(segment.stream):
                return None
        elif route.kind == "in-house":
            peers = self._roster.peers()
        else:
            return None
        return self._able(attempt, peers)

    @staticmethod
    def _able(attempt: Attempt, peers: list[Peer]) -> Peer | None:
        """The one of these peers that takes the segment now."""
        segment = attempt.segment
        if attempt.avoid >= 0:
            peers = [peer for peer in peers if peer.slot != attempt.avoid and peer.ready] or peers
        elif segment.lane < 0xFFFFFFFF and peers:
            peers = [peers[segment.lane % len(peers)]]
        able = [peer for peer in peers if peer.ready and not peer.blocked and peer.has_credit(segment.byte_count)]
        return min(able, key=lambda peer: peer.bytes_out, default=None)

    def _route(self, attempt: Attempt) -> Route:
        return IN_HOUSE if self._routes is None or attempt.at_home else self._routes.of(attempt.segment.stream)

    def _is_limited(self, attempt: Attempt) -> bool:
        return self._routes is not None and self._routes.is_limited(attempt.segment.stream)

    def _may_leave(self, stream: int) -> bool:
        """Whether the maximum rate lets a segment go now; otherwise the loop wakes up when it does."""
        assert self._routes is not None
        pause_s = self._routes.pause_s(stream)
        if pause_s > 0:
            self._next_send_s = min(self._next_send_s, time.monotonic() + pause_s)
        return pause_s <= 0

    def _lend(self, peer: Peer, batch: list[Attempt]) -> int:
        """Send as many segments of batch as there is room for: how many; 0 where its socket takes nothing now."""
        assert peer.push is not None
        rooms_before = dict(peer.rooms)
        leases, works = [], []
        frames: list[Any] = [b""]
        for attempt in batch:
            segment, b = attempt.segment, attempt.segment.batch
            room = None
            changes = peer.regions is not None and self._allowed[segment.stream]
            if changes and (room := peer.room_for(segment)) is None:
                break  # until results leave
            flags, digest = envelope.ARRANGED if b.arranged else 0, envelope.NO_DIGEST
            if peer.outlet is not None:
                frame, digest = peer.outlet.pack(segment, attempt.attempt)
                frames.append(frame)
                flags = envelope.INLINE
            leases.append(Lease(segment, attempt.attempt, room, digest))
            region, start, size = (room.region.index, room.start, room.size) if room is not None else (0, 0, 0)
            works.append(
                envelope.Work(
                    segment.number, b.first_number, attempt.attempt, b.chunk.index, region, start, size,
                    b.count, segment.start, segment.stop, b.row_count, b.groups, flags, segment.stream,
                )
            )  # fmt: skip
        if not works:
            return 0
        frames[0] = envelope.pack(envelope.WORK, peer.slot, peer.incarnation, works)
        try:
            peer.push.send_multipart(frames, zmq.NOBLOCK, copy=False)  # small ones are copied all the same
        except zmq.Again:
            self._roster.block(peer)
            peer.rooms = rooms_before
            return 0
        now_s = time.monotonic()
        for lease in leases:
            peer.lend(lease, now_s)
            if peer.streams is not None and self._routes is not None:
                self._routes.lent(lease.segment.stream, lease.segment.byte_count)
        self._counters.bump("segments.dispersed", len(leases))
        return len(leases)

    # Receiving.

    def _receive(self, socket: zmq.Socket[bytes]) -> Iterator[Result]:
        """Every message that is there."""
        while True:
            try:
                frames = socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            key = str(frames[0].get("User-Id")) if socket is not self._roster.results else None
            try:
                yield from self._understand(frames, key)
            except (envelope.EnvelopeError, msgspec.MsgspecError, IndexError):
                self._counters.bump("disperse.bad_message")
                self._suspend(key or "", "a message that is not of our envelope")

    def _understand(self, frames: list[zmq.Frame], key: str | None) -> Iterator[Result]:
        header = envelope.unpack_header(frames[0].buffer)
        peer = self._roster.of(header, key)
        if peer is None:
            self._counters.bump("segments.discarded", header.descriptors)
        elif header.kind == envelope.HELLO:
            self._roster.welcome(peer)
        elif header.kind == envelope.REFUSE:
            self._refusal = bytes(frames[1].buffer).decode(errors="replace")[:REFUSAL_CHARACTERS_MAX]
            self._lose(self.slots[peer.slot], self._refusal, restart=False)
        elif header.kind == envelope.RESULT:
            yield from self._accept(peer, envelope.unpack_results(frames[0].buffer, header.descriptors), frames[1:])

    def _accept(self, peer: Peer, outcomes: list[envelope.Outcome], frames: list[zmq.Frame]) -> Iterator[Result]:
        for outcome in outcomes:
            if self.slots[peer.slot].peer is not peer:
                return  # it was suspended for one of these
            extra = frames.pop(0).buffer if outcome.frames & envelope.EXTRA else None
            content = frames.pop(0).buffer if outcome.frames & envelope.INLINE_REGION else None
            now_s = time.monotonic()
            lease = peer.settle(outcome.number, outcome.attempt, now_s)
            if lease is None:
                self._counters.bump("segments.discarded")
                if peer.streams is not None:
                    self._suspend(peer.key, "a result of a segment that it does not have")
                continue
            try:
                if outcome.status != envelope.DONE:
                    words = bytes(extra or b"the service failed").decode(errors="replace")
                    if peer.streams is not None:
                        self._give_up(peer, outcome.number, words)
                        continue
                    raise ResultError(words)
                result = self._read(lease, outcome, extra, content)
            except (ResultError, msgspec.MsgspecError) as error:
                peer.tally.failed += 1
                if peer.streams is not None:
                    self._resend(self._attempts[outcome.number], peer.slot)
                    self._suspend(peer.key, str(error))
                else:
                    self._failed(self._attempts[outcome.number], peer.slot, str(error))
                continue
            peer.tally.add(lease.segment, outcome.busy_ns)
            attempt = self._attempts[outcome.number]
            if peer.streams is not None:
                result.provider = peer.key
                if self._is_audited(peer, attempt, lease, result):
                    continue
            elif attempt.claimed is not None:
                self._compare(attempt, result)
            self.durations.observe(now_s - self._attempts.pop(outcome.number).since_s)
            self._take_inbox()
            self._send()  # now, so that the peer works while this result is written
            yield result

    def _read(
        self, lease: Lease, outcome: envelope.Outcome, extra: memoryview | None, content: memoryview | None
    ) -> Result:
        """The checked Result of a lease. Raises ResultError."""
        if outcome.digest != lease.digest:
            raise ResultError("the result is of another input")
        room, allowed = lease.room, self._allowed[lease.segment.stream]
        region: Any = aligned(content)
        hold: Any = region
        if room is not None:
            region, hold = room.region.data[room.start : room.start + room.size], room.region
        if lease.digest != envelope.NO_DIGEST and outcome.flags & LENGTHS and not outcome.flags & PACKED:
            region = hold = with_our_offsets(region, lease.segment, outcome.flags)
        result = read_result(lease.segment, region, outcome.packed, outcome.flags, allowed, hold)
        if extra is not None:
            told = msgspec.msgpack.decode(extra, type=Told)
            told.check(len(lease.segment))
            result.comments, result.reports, result.drops = told.comments, told.reports, told.drops
        if outcome.flags & KEEP or result.drops:
            counted = tuple(map(sum, zip(*result.drops.values(), strict=True))) or (0, 0)
            if counted != dropped_of(result):
                raise ResultError("the packets that were dropped are not those that were counted")
        return result

    # Providers.

    def _is_audited(self, peer: Peer, attempt: Attempt, lease: Lease, result: Result) -> bool:
        """Whether a provider's result waits for our own, which is asked for."""
        assert self._routes is not None
        if attempt.at_home or not self._routes.done(peer.key, lease.segment, time.monotonic() - lease.since_s):
            return False
        attempt.claimed, attempt.at_home = result, True
        attempt.attempt += 1
        self._again.append(attempt)
        self._counters.bump("subcontract.audited")
        return True

    def _compare(self, attempt: Attempt, result: Result) -> None:
        """Our own result of an audited segment, beside the provider's."""
        assert self._routes is not None
        assert attempt.claimed is not None
        same = same_result(attempt.claimed, result)
        key = attempt.claimed.provider
        self._routes.audited(result.segment.stream, key, same)
        if not same:
            self._counters.bump("subcontract.audits_failed")
            self._suspend(key, "an audit found another result", lied=True)

    def _give_up(self, peer: Peer, number: int, reason: str) -> None:
        """A provider says that it cannot process a segment: ours do, unless they cannot either."""
        assert self._routes is not None
        attempt = self._attempts[number]
        peer.tally.failed += 1
        peer.failures += 1
        if self._routes.is_possible_at_home(attempt.segment.stream):
            attempt.at_home = True
            self._resend(attempt, peer.slot)
        else:
            self._failed(attempt, peer.slot, reason)
        if peer.failures >= FAILURES_MAX:
            self._suspend(peer.key, f"it failed {FAILURES_MAX} segments: {reason}")

    def _suspend(self, key: str, reason: str, lied: bool = False) -> None:
        """Nothing of this provider is believed any more: its segments go to whoever has the stream now. Where it lied,
        also those whose results have not left yet.
        """
        peers = self._roster.providers(key) if key else []
        if not key or self._routes is None or not (peers or self._routes.is_provider(key)):
            return
        self._routes.failed(key, reason)
        self._absent_since_s.pop(key, None)
        for peer in peers:
            self._roster.lose(self.slots[peer.slot], restart=False)
            for number in peer.leases:
                self._resend(self._attempts[number], peer.slot)
        for segment in self.withdraw(key) if lied else ():
            attempt = self._attempts[segment.number] = Attempt(segment, since_s=time.monotonic())
            self._resend(attempt, -1)

    def _look_after_routes(self, routes: Routes) -> Iterator[Result]:
        """Providers that do not come, streams that nobody runs, and workers of our own that do not keep up."""
        now_s = time.monotonic()
        if now_s < self._next_look_s:
            return
        self._next_look_s = now_s + LOOK_S
        first = [queue[0] for queue in self._waiting.values() if queue]
        since_s: dict[int, float] = {}
        for attempt in first + [each for each in self._again if not each.at_home]:
            stream = attempt.segment.stream
            since_s[stream] = min(attempt.since_s, since_s.get(stream, math.inf))
        for stream, since in since_s.items():
            route = routes.of(stream)
            if route.kind == "wait":
                continue
            if route.kind == "in-house":
                routes.waited(stream, now_s - since)
            elif route.kind == "provider":
                if any(peer.ready for peer in self._roster.providers(route.key, stream)):
                    self._absent_since_s.pop(route.key, None)
                elif now_s - self._absent_since_s.setdefault(route.key, now_s) > routes.join_s(route.key):
                    self._suspend(route.key, "it has not joined")
            else:
                yield from self._unserved(stream)

    def _unserved(self, stream: int) -> Iterator[Result]:
        """Results for the segments that nobody runs; what becomes of them is the stream's rule."""
        attempts = [each for each in self._again if each.segment.stream == stream and not each.at_home]
        self._again = [each for each in self._again if each not in attempts]
        for (of, _), queue in self._waiting.items():
            if of == stream:
                attempts += queue
                queue.clear()
        for attempt in attempts:
            del self._attempts[attempt.segment.number]
            yield Result(attempt.segment, dead=True, reason=NO_AGREEMENT)

    # Faults.

    def _look_for_life(self) -> None:
        """Raise WorkerError when nobody is there to do the rest, and nobody can be expected."""
        if self._roster.peers() or self._roster.providers():
            self._alone_since_s = time.monotonic()
        elif self._roster.listener is None:
            raise WorkerError(self._refusal or "no worker is left: all ended without a result")
        elif time.monotonic() - self._alone_since_s > JOIN_S:
            raise WorkerError(f"no worker has joined at {self.address} for {JOIN_S:.0f} s")

    def _look_after_peers(self, events: dict[Any, int]) -> Iterator[Result]:
        for slot in self.slots:
            peer = slot.peer
            if peer is None:
                continue
            if peer.blocked and peer.push in events:
                self._roster.unblock(peer)
            if peer.pidfd in events:
                peer.died = True
                yield from self._receive(self._roster.results)  # what it sent before it died
                self._lose(slot, "the worker died")
            elif peer.monitor in events and self._roster.gone(peer):
                self._lose(slot, "the worker's connection ended")
            elif time.monotonic() >= self._deadline_s(peer) and not self._has_news():
                self._lose(slot, f"no result within {peer.lease_ms or self._terms.lease_ms} ms")

    def _has_news(self) -> bool:
        """Whether messages wait: we may have been too busy to read them, which is no peer's fault."""
        listener = self._roster.listener
        return bool(self._roster.results.poll(0)) or (listener is not None and bool(listener.results.poll(0)))

    def _deadline_s(self, peer: Peer) -> float:
        return peer.deadline_s(self._terms.lease_ms / 1000, START_S)

    def _lose(self, slot: Slot, reason: str, restart: bool = True) -> None:
        """A peer died or hangs: send its segments again. Only its first lease can have been the cause."""
        peer = slot.peer
        if peer is None:
            return
        if peer.streams is not None:
            self._suspend(peer.key, reason)
            return
        self._roster.lose(slot, restart)
        weight = KILLED if peer.was_killed else FAULT
        for place, number in enumerate(peer.leases):
            if place == 0 and peer.ready:
                self._failed(self._attempts[number], slot.number, reason, weight)
            else:
                self._resend(self._attempts[number], slot.number)

    def _failed(self, attempt: Attempt, slot: int, reason: str, weight: int = FAULT) -> None:
        """One attempt failed by its own fault, as far as we can tell."""
        attempt.failures += weight
        attempt.reason = reason
        self._resend(attempt, slot)

    def _resend(self, attempt: Attempt, slot: int) -> None:
        attempt.attempt += 1
        attempt.avoid = slot
        self._again.append(attempt)
        if not self._is_dead(attempt):
            self._counters.bump("segments.resent")

    def _is_dead(self, attempt: Attempt) -> bool:
        return attempt.failures >= self._terms.attempts_max * FAULT

    def _bury(self) -> Iterator[Result]:
        """Dead results for the segments that have failed too often."""
        dead = [attempt for attempt in self._again if self._is_dead(attempt)]
        if not dead:
            return
        for attempt in [each for each in dead if each.claimed is not None]:  # we cannot audit it: it stands
            dead.remove(attempt)
            self._again.remove(attempt)
            del self._attempts[attempt.segment.number]
            assert attempt.claimed is not None
            yield attempt.claimed
        self._again = [attempt for attempt in self._again if not self._is_dead(attempt)]
        for attempt in dead:
            del self._attempts[attempt.segment.number]
            self._counters.bump("segments.dead_lettered")
            yield Result(attempt.segment, dead=True, reason=attempt.reason)

    def _pass_waiting(self) -> Iterator[Result]:
        """Results for the segments that no worker has, unprocessed."""
        waiting = [attempt for queue in self._waiting.values() for attempt in queue]
        for queue in self._waiting.values():
            queue.clear()
        for attempt in waiting:
            del self._attempts[attempt.segment.number]
            yield Result(attempt.segment, reason=OVERLOAD)

    def _patience_ms(self) -> int:
        """Until the next deadline, and no longer than a tick."""
        peers = self._roster.peers() + self._roster.providers()
        until_s = min((self._deadline_s(peer) for peer in peers), default=math.inf)
        until_s = min(until_s, self._next_send_s)
        if self._routes is not None:
            if self._again or any(self._waiting.values()):
                until_s = min(until_s, self._next_look_s)
            for key, since_s in self._absent_since_s.items():
                until_s = min(until_s, since_s + self._routes.join_s(key))
        return max(0, math.ceil(min(TICK_S, until_s - time.monotonic()) * 1000))
