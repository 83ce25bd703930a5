"""All segments without an accepted result, and the queues of those that no peer has: never sent, or to be sent again.

peer.py records which segments a peer holds; scheduler.py chooses who gets the next one. No sockets, no clock.
"""

from __future__ import annotations

import collections
import math
from collections.abc import Iterable

from streamcore.core.counters import Counters
from streamcore.core.packets import Result, Segment
from streamcore.disperse.actions import Actions, DeadLetter, Unprocessed
from streamcore.disperse.pending import Identity, Pending

# How much of `attempts_max` a failure uses up, in quarters. If a worker was killed from outside, its segment is
# probably not the cause (unless the system killed it for its memory), so twelve such deaths count as much as three
# failures of the segment itself.
FAULT, KILLED = 4, 1

OTHERS_S = 60.0  # how long a segment that one worker elsewhere alone has failed waits for another worker

NO_AGREEMENT = "no agreement with a provider"  # the reason of a Result without a worker
OVERLOAD = "the workers had fallen behind"


class Backlog:
    """Each segment is in `pending` from `add` to its end. While no peer has it, it is also in `again`, or in a queue of
    `waiting`.
    """

    def __init__(self, counters: Counters, attempts_max: int, actions: Actions) -> None:
        self._counters = counters
        self._actions = actions
        self._failures_max = attempts_max * FAULT
        self.pending: dict[int, Pending] = {}  # by segment number
        self.waiting: dict[tuple[int, int], collections.deque[Pending]] = {}  # to be sent, by stream and lane
        self.again: list[Pending] = []  # to be sent again, those set aside among them

    def add(self, segments: Iterable[Segment], now_s: float) -> None:
        """Adds submitted segments."""
        for segment in segments:
            pending = self.pending[segment.number] = Pending(segment, now_s, "added")
            lane = (segment.stream, segment.lane)
            if lane not in self.waiting:
                self.waiting[lane] = collections.deque()
            self.waiting[lane].append(pending)

    def add_again(self, segment: Segment, now_s: float) -> None:
        """Adds a segment whose accepted result is withdrawn, because whoever did it lied."""
        assert segment.number not in self.pending
        pending = self.pending[segment.number] = Pending(segment, now_s, "withdrawn")
        self._send_again(pending)

    def resend(self, pending: Pending, identity: Identity, now_s: float) -> None:
        """Queues it to be sent again, to another worker if there is one, unless it has failed too often. If one worker
        elsewhere alone has failed it, it first waits OTHERS_S for another.
        """
        history = pending.note()
        history.avoid = identity
        if history.failures >= self._failures_max:
            if history.has_failed_enough:
                pending.move("failed")
                self._end_failed(pending)
                return
            history.others_until_s = history.others_until_s or now_s + OTHERS_S
        pending.move("failed alone" if history.others_until_s else "lost")
        self._send_again(pending)

    def fail(self, pending: Pending, identity: Identity, reason: str, now_s: float, weight: int = FAULT) -> None:
        """Notes a failed attempt that the segment may have caused."""
        history = pending.note()
        history.failures += weight
        history.failed_by |= {identity}
        history.reason = reason
        self.resend(pending, identity, now_s)

    def audit(self, pending: Pending, claimed: Result, on_this_machine: bool = False) -> None:
        """Queues a segment for the run's own workers (on this machine), to check another's result."""
        history = pending.note()
        history.claimed, history.in_house, history.on_this_machine = claimed, True, on_this_machine
        history.others_until_s = 0.0
        pending.move("claimed")
        self._queue_again(pending)

    def put_back(self, message: list[Pending]) -> None:
        """Queues segments that could not be sent where they were."""
        for pending in message:
            if pending.attempt > 1:
                pending.move("not sent to another" if pending.history.others_until_s else "not sent again")
                self.again.append(pending)
                continue
            pending.move("not sent")
            lane = (pending.stream, pending.segment.lane)
            self.waiting[lane] = collections.deque(sorted([*self.waiting[lane], pending], key=number_of))

    def done(self, pending: Pending) -> None:
        """Ends a segment whose result was accepted."""
        pending.move("done")
        del self.pending[pending.number]

    @property
    def is_waiting(self) -> bool:
        """Whether a segment waits for a peer."""
        return bool(self.again) or any(self.waiting.values())

    def since_s(self) -> dict[int, float]:
        """Since when each stream's segments wait, without those reserved for the run's own workers."""
        first = [queue[0] for queue in self.waiting.values() if queue]
        since_s: dict[int, float] = {}
        for pending in first + [each for each in self.again if not each.history.in_house]:
            since_s[pending.stream] = min(pending.since_s, since_s.get(pending.stream, math.inf))
        return since_s

    def expires_s(self) -> float:
        """When the first segment that was set aside has waited long enough."""
        return min((each.history.others_until_s for each in self.again if each.state == "aside"), default=math.inf)

    def expire(self, now_s: float) -> None:
        """Ends the segments that were set aside for OTHERS_S."""
        for pending in self._take(lambda each: each.state == "aside" and now_s >= each.history.others_until_s):
            pending.move("expired")
            self._end_failed(pending)

    def end_audits(self) -> None:
        """The results whose audit waits for a worker on this machine count, for there is none any more."""
        for pending in self._take(lambda each: each.history.on_this_machine):
            pending.move("not audited")
            self._end_failed(pending)

    def unclaim(self, key: str) -> None:
        """What this key claims does not count any more, because it lied: the segments are done like any other."""
        for pending in self.pending.values():
            history = pending.history
            if history.claimed is not None and history.claimed.provider == key:
                history.claimed, history.on_this_machine = None, False

    def unserved(self, stream: int) -> None:
        """Ends the segments of a stream that nobody runs; the stream's rule decides what to do with them."""
        ended = self._take(lambda each: each.stream == stream and not each.history.in_house)
        for (of, _), queue in self.waiting.items():
            if of == stream:
                ended += queue
                queue.clear()
        for pending in ended:
            pending.move("unserved")
            del self.pending[pending.number]
            self._actions.add(DeadLetter(pending.segment, NO_AGREEMENT))

    def pass_waiting(self) -> None:
        """Ends the segments that no worker has had: they leave unprocessed."""
        for queue in self.waiting.values():
            for pending in queue:
                pending.move("passed")
                del self.pending[pending.number]
                self._actions.add(Unprocessed(pending.segment, OVERLOAD))
            queue.clear()

    def _take(self, which: collections.abc.Callable[[Pending], bool]) -> list[Pending]:
        taken = [each for each in self.again if which(each)]
        if taken:
            self.again = [each for each in self.again if not which(each)]
        return taken

    def _send_again(self, pending: Pending) -> None:
        self._queue_again(pending)
        self._counters.bump("segments.resent")

    def _queue_again(self, pending: Pending) -> None:
        pending.attempt += 1
        pending.part = None  # what it reserved is free
        self.again.append(pending)

    def _end_failed(self, pending: Pending) -> None:
        """Ends a segment that has failed too often; if it only could not be audited, its result counts."""
        del self.pending[pending.number]
        history = pending.history
        if history.claimed is not None:
            self._actions.deliver(history.claimed)
            return
        self._counters.bump("segments.dead_lettered")
        self._actions.add(DeadLetter(pending.segment, history.reason))


def number_of(pending: Pending) -> int:
    return pending.number
