"""Chooses the peer for each segment by routes, lanes, credit and maximum rates. No sockets, no clock.

machine.py handles results and failures.
"""

from __future__ import annotations

import math
from collections import deque

from streamcore.core.counters import Counters
from streamcore.core.routes import IN_HOUSE, Route, Routes
from streamcore.disperse.actions import Actions, Send
from streamcore.disperse.backlog import Backlog, number_of
from streamcore.disperse.peer import MESSAGE_BYTES_MAX, Peer
from streamcore.disperse.pending import Pending
from streamcore.disperse.places import Places

WORK_PER_MESSAGE_MAX = 16  # segments in one message,
QUICK_WORK_MAX = 64  # or a worker's share of those that wait, if they take it no time
NO_LANE = 0xFFFFFFFF


class Scheduler:
    """`next_send_s`: when a maximum rate lets the next segment go. What is sent counts as sent at the next `report`,
    unless it comes back before with `not_sent`.
    """

    def __init__(
        self, places: Places, backlog: Backlog, counters: Counters, routes: Routes | None, actions: Actions
    ) -> None:
        self._places = places
        self._backlog = backlog
        self._counters = counters
        self._routes = routes
        self._actions = actions
        self._limited, self._followed = (routes.limited, routes.followed) if routes else (frozenset(), frozenset())
        self._unreported: list[Send] = []
        self._under_way: set[int] = set()  # streams with a maximum rate of which something is unreported
        self.next_send_s = math.inf

    def report(self) -> None:
        """Counts what was sent, and tells the routes of streams that they follow."""
        for peer, message in self._unreported:
            self._counters.bump("segments.dispersed", len(message))
            if peer.streams is not None and self._routes is not None:
                for pending in message:
                    if pending.stream in self._followed:
                        self._routes.sent(pending.stream, pending.byte_count)
        self._unreported.clear()
        self._under_way.clear()

    def not_sent(self, send: Send, sent: int) -> None:
        """Only the first `sent` segments of a message could be sent. The peer gets no more until it has room."""
        peer, message = send
        rest = message[sent:]
        del message[sent:]
        if peer.state == "ready":
            peer.move("full")
        peer.unlease(rest)
        self._backlog.put_back(rest)

    def send(self, now_s: float) -> None:
        """Sends waiting segments as far as there is credit: first those to be sent again, oldest first."""
        self.next_send_s = math.inf
        backlog = self._backlog
        if not self._is_credit_left():
            return  # without checking every lane
        if backlog.again:
            again, backlog.again = sorted(backlog.again, key=number_of), []
            for pending in again:
                if (peer := self._choose(pending, now_s)) is None:
                    backlog.again.append(pending)
                else:
                    self._send(peer, [pending], now_s)
        for queue in backlog.waiting.values():
            while queue and (peer := self._choose(queue[0], now_s)) is not None:
                self._send(peer, self._take_message(queue, peer), now_s)
                if not self._is_credit_left():
                    return

    def needs_own(self) -> bool:
        """Whether a segment waits that only the run's own workers may do."""
        heads = [queue[0] for queue in self._backlog.waiting.values() if queue]
        return any(self._route(pending).kind == "in-house" for pending in heads + self._backlog.again)

    def _send(self, peer: Peer, message: list[Pending], now_s: float) -> None:
        peer.lease(message, now_s)
        send = Send(peer, message)
        self._actions.add(send)
        self._unreported.append(send)
        if peer.streams is not None:
            self._under_way.update(pending.stream for pending in message if pending.stream in self._limited)

    def _take_message(self, queue: deque[Pending], peer: Peer) -> list[Pending]:
        """Takes the first segment of a queue, and those after it that share its message. A remote worker gets large
        segments one by one, so that it processes one while the next is under way.
        """
        message = [queue.popleft()]
        byte_count = message[0].byte_count
        if peer.streams is not None and message[0].stream in self._limited:
            return message  # those go one by one
        count_max = WORK_PER_MESSAGE_MAX
        if peer.is_quick:
            count_max = max(count_max, min(QUICK_WORK_MAX, len(queue) // len(self._places.all)))
        count_max = min(count_max, peer.leases_max - len(peer.leases))
        bytes_max = peer.credit_bytes - peer.bytes_out
        if peer.elsewhere:
            bytes_max = min(bytes_max, MESSAGE_BYTES_MAX)
        while queue and len(message) < count_max:
            byte_count += queue[0].byte_count
            if byte_count > bytes_max:
                break
            message.append(queue.popleft())
        return message

    def _is_credit_left(self) -> bool:
        return any(peer.has_credit(0) for peer in self._places.all)

    def _choose(self, pending: Pending, now_s: float) -> Peer | None:
        """The peer for a segment: its lane's, or another if that one failed; None if no peer has credit now."""
        route = self._route(pending)
        if route.helps and (peer := self._able(pending, self._places.own)) is not None:
            return peer
        if route.kind == "provider":
            peers = self._places.providers(route.key, pending.stream)
            if peers and pending.stream in self._limited and not self._may_leave(pending.stream, now_s):
                return None
        elif route.kind == "in-house":
            peers = self._places.own
        else:
            return None
        return self._able(pending, peers)

    def _able(self, pending: Pending, peers: list[Peer]) -> Peer | None:
        """The one of these peers that gets the segment now."""
        lane, history = pending.segment.lane, pending.history
        if history.on_this_machine:
            peers = self._places.here
        if history.avoid != -1:
            peers = others(pending, peers)
        elif lane < NO_LANE:
            # A remote worker may have given up since it asked to join: it has no lane before its hello.
            peers = [peer for peer in peers if peer.has_said_hello or not peer.elsewhere]
            peers = peers and [peers[lane % len(peers)]]
        able = [peer for peer in peers if peer.has_credit(pending.byte_count)]
        return min(able, key=bytes_out_of) if able else None

    def _route(self, pending: Pending) -> Route:
        return IN_HOUSE if self._routes is None or pending.history.in_house else self._routes.of(pending.stream)

    def _may_leave(self, stream: int, now_s: float) -> bool:
        """Whether the maximum rate lets a segment go now. If not, the loop wakes up when it does."""
        assert self._routes is not None
        pause_s = 0.0 if stream in self._under_way else self._routes.pause_s(stream)
        if pause_s > 0 or stream in self._under_way:
            self.next_send_s = min(self.next_send_s, now_s + pause_s)
            return False
        return True


def bytes_out_of(peer: Peer) -> int:
    return peer.bytes_out


def others(pending: Pending, peers: list[Peer]) -> list[Peer]:
    """The peers for a segment that is sent again: those that have not failed it, if they elsewhere have failed it those
    on this machine; if all have, another than the last one; else all.
    """
    history = pending.history
    fresh = [peer for peer in peers if peer.has_said_hello and peer.identity not in history.failed_by | {history.avoid}]
    if history.failed_by:
        fresh = [peer for peer in fresh if not peer.elsewhere] or fresh
    if fresh or history.others_until_s:
        return fresh
    return [peer for peer in peers if peer.has_said_hello and peer.identity != history.avoid] or peers
