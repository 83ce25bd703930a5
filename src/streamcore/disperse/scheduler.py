"""Chooses the peer for each segment by routes, lanes, credit and maximum rates, and sends the segment.

dispatcher.py receives results and handles failures.
"""

from __future__ import annotations

import math
import time
from collections import deque
from typing import Any

import zmq

from streamcore.core.counters import Counters
from streamcore.core.routes import IN_HOUSE, Route, Routes
from streamcore.disperse import envelope
from streamcore.disperse.backlog import Attempt, Backlog
from streamcore.disperse.peer import Lease, Peer
from streamcore.disperse.workers import Workers

WORK_PER_MESSAGE_MAX = 16  # segments in one message


class Scheduler:
    """allowed: by stream, flags for what its services may change. `next_send_s`: when a maximum rate lets the next
    segment go.
    """

    def __init__(
        self, workers: Workers, backlog: Backlog, counters: Counters, allowed: list[int], routes: Routes | None
    ) -> None:
        self._workers = workers
        self._backlog = backlog
        self._counters = counters
        self._allowed = allowed
        self._routes = routes
        self._limited, self._followed = (routes.limited, routes.followed) if routes else (frozenset(), frozenset())
        self.next_send_s = math.inf

    def send(self) -> None:
        """Sends waiting segments as far as there is credit: first those to be sent again, oldest first."""
        self.next_send_s = math.inf
        backlog = self._backlog
        if backlog.again:
            backlog.again = [
                attempt
                for attempt in sorted(backlog.again, key=lambda a: a.segment.number)
                if (peer := self._choose(attempt)) is None or self._send_to(peer, [attempt]) == 0
            ]
        if not self._is_credit_left():
            return  # without checking every lane
        for queue in backlog.waiting.values():
            while queue and (peer := self._choose(queue[0])) is not None:
                message = self._take_message(queue, peer)
                sent = self._send_to(peer, message)
                queue.extendleft(reversed(message[sent:]))
                if sent == 0:
                    break
                if not self._is_credit_left():
                    return

    def _take_message(self, queue: deque[Attempt], peer: Peer) -> list[Attempt]:
        """Takes the first segment of a queue, and those after it that share its message."""
        message = [queue.popleft()]
        byte_count = message[0].segment.byte_count
        while (
            queue
            and len(message) < WORK_PER_MESSAGE_MAX
            and (peer.streams is None or queue[0].segment.stream not in self._limited)  # those go one by one
            and peer.has_credit_for(len(message) + 1, byte_count := byte_count + queue[0].segment.byte_count)
            and peer.shares_message(byte_count)
        ):
            message.append(queue.popleft())
        return message

    def _is_credit_left(self) -> bool:
        return any(
            slot.peer is not None and slot.peer.ready and slot.peer.has_credit(0) for slot in self._workers.slots
        )

    def _choose(self, attempt: Attempt) -> Peer | None:
        """The peer for a segment: its lane's, or another if that one failed; None if no peer has credit now."""
        segment = attempt.segment
        route = self._route(attempt)
        if route.helps and (peer := self._able(attempt, self._workers.peers())) is not None:
            return peer
        if route.kind == "provider":
            peers = self._workers.providers(route.key, segment.stream)
            if peers and segment.stream in self._limited and not self._may_leave(segment.stream):
                return None
        elif route.kind == "in-house":
            peers = self._workers.peers()
        else:
            return None
        return self._able(attempt, peers)

    @staticmethod
    def _able(attempt: Attempt, peers: list[Peer]) -> Peer | None:
        """The one of these peers that gets the segment now."""
        segment = attempt.segment
        if attempt.on_this_machine:
            peers = [peer for peer in peers if not peer.elsewhere]
        if attempt.avoid != -1:
            peers = others(attempt, peers)
        elif segment.lane < 0xFFFFFFFF:
            # A remote worker may have given up since it asked to join: it has no lane before its hello.
            peers = [peer for peer in peers if peer.ready or not peer.elsewhere]
            peers = peers and [peers[segment.lane % len(peers)]]
        able = [peer for peer in peers if peer.ready and not peer.blocked and peer.has_credit(segment.byte_count)]
        return min(able, key=lambda peer: peer.bytes_out, default=None)

    def _route(self, attempt: Attempt) -> Route:
        return IN_HOUSE if self._routes is None or attempt.in_house else self._routes.of(attempt.segment.stream)

    def _may_leave(self, stream: int) -> bool:
        """Whether the maximum rate lets a segment go now. If not, the loop wakes up when it does."""
        assert self._routes is not None
        pause_s = self._routes.pause_s(stream)
        if pause_s > 0:
            self.next_send_s = min(self.next_send_s, time.monotonic() + pause_s)
        return pause_s <= 0

    def _send_to(self, peer: Peer, batch: list[Attempt]) -> int:
        """Sends as many segments of batch as fit. Returns how many; 0 if its socket is full."""
        assert peer.push is not None
        uses_before = dict(peer.region_uses)
        frames, leases = self._message(peer, batch)
        if not leases:
            return 0
        try:
            peer.push.send_multipart(frames, zmq.NOBLOCK, copy=False)  # ZeroMQ copies small ones anyway
        except zmq.Again:
            self._workers.block(peer)
            peer.region_uses = uses_before
            return 0
        now_s = time.monotonic()
        for lease in leases:
            peer.add_lease(lease, now_s)
            if peer.streams is not None and lease.segment.stream in self._followed:
                assert self._routes is not None
                self._routes.sent(lease.segment.stream, lease.segment.byte_count)
        self._counters.bump("segments.dispersed", len(leases))
        return len(leases)

    def _message(self, peer: Peer, batch: list[Attempt]) -> tuple[list[Any], list[Lease]]:
        """The frames for the first segments of batch, as many as there is room for, and their leases."""
        leases, works = [], []
        frames: list[Any] = [b""]
        for attempt in batch:
            segment, b = attempt.segment, attempt.segment.batch
            part = None
            changes = peer.regions is not None and self._allowed[segment.stream]
            if changes and (part := peer.part_for(segment)) is None:
                break  # no room until results leave
            flags, digest = envelope.ARRANGED if b.arranged else 0, envelope.NO_DIGEST
            if peer.outlet is not None:
                frame, digest = peer.outlet.pack(segment, attempt.attempt)
                frames.append(frame)
                flags = envelope.INLINE
            leases.append(Lease(segment, attempt.attempt, part, digest))
            region, start, size = (part.region.index, part.start, part.size) if part is not None else (0, 0, 0)
            works.append(
                envelope.Work(
                    segment.number, b.first_number, attempt.attempt, b.chunk.index, region, start, size,
                    b.count, segment.start, segment.stop, b.row_count, b.groups, flags, segment.stream,
                )
            )  # fmt: skip
        if works:
            frames[0] = envelope.pack(envelope.WORK, peer.slot, peer.incarnation, works)
        return frames, leases


def others(attempt: Attempt, peers: list[Peer]) -> list[Peer]:
    """The peers for a segment that is sent again: those that have not failed it, if they elsewhere have failed it those
    on this machine; if all have, another than the last one; else all.
    """
    fresh = [peer for peer in peers if peer.ready and peer.identity not in attempt.failed_by | {attempt.avoid}]
    if attempt.failed_by:
        fresh = [peer for peer in fresh if not peer.elsewhere] or fresh
    if fresh or attempt.others_until_s:
        return fresh
    return [peer for peer in peers if peer.ready and peer.identity != attempt.avoid] or peers
