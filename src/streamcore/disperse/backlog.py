"""All segments without a result: those that wait for a worker, and those to be sent again.

peer.py records which segments a peer holds; scheduler.py chooses who gets the next one.
"""

from __future__ import annotations

import collections
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

from streamcore.core.counters import Counters
from streamcore.core.packets import Result, Segment

# How much of `attempts_max` a failure uses up, in quarters. If a worker was killed from outside, its segment is
# probably not the cause (unless the system killed it for its memory), so twelve such deaths count as much as three
# failures of the segment itself.
FAULT, KILLED = 4, 1

OTHERS_S = 60.0  # how long a segment that one worker elsewhere alone has failed waits for another worker

Identity = str | int  # Peer.identity: a CURVE key, or a slot of this machine

NO_AGREEMENT = "no agreement with a provider"  # the reason of a Result without a worker
OVERLOAD = "the workers had fallen behind"


@dataclass(slots=True, eq=False)
class Attempt:
    """A segment without a result, with its attempts so far."""

    segment: Segment
    attempt: int = 1
    since_s: float = 0.0  # when it was submitted
    failures: int = 0  # the sum of FAULT and KILLED
    failed_by: frozenset[Identity] = frozenset()
    avoid: Identity = -1  # who had it last
    others_until_s: float = 0.0  # until then only a worker that has not failed it may have it; 0: any
    reason: str = ""
    in_house: bool = False  # only for the run's own workers: a provider failed it, or it is an audit
    on_this_machine: bool = False  # only for workers on this machine: it is an audit of one elsewhere
    claimed: Result | None = None  # audited: the result of the one that is audited

    @property
    def has_failed_enough(self) -> bool:
        """Whether others than one worker elsewhere, which may be the cause, have failed it."""
        return len(self.failed_by) > 1 or any(isinstance(each, int) for each in self.failed_by)


class Backlog:
    """Used by the thread that takes results. Each segment is in `attempts` until it is back. While no peer has it, it
    is also in `again`, in a queue of `waiting`, or, if it failed too often, among the dead until `take_dead`.
    """

    def __init__(self, counters: Counters, attempts_max: int) -> None:
        self._counters = counters
        self._failures_max = attempts_max * FAULT
        self.attempts: dict[int, Attempt] = {}  # by segment number, oldest first
        self.waiting: dict[tuple[int, int], collections.deque[Attempt]] = {}  # to be sent, by stream and lane
        self.again: list[Attempt] = []  # to be sent again
        self._dead: list[Attempt] = []

    def add(self, segment: Segment) -> None:
        """Adds a submitted segment."""
        attempt = self.attempts[segment.number] = Attempt(segment, since_s=time.monotonic())
        self.waiting.setdefault((segment.stream, segment.lane), collections.deque()).append(attempt)

    def add_again(self, segment: Segment) -> None:
        """Adds a segment whose accepted result is withdrawn, because its provider lied."""
        attempt = self.attempts[segment.number] = Attempt(segment, since_s=time.monotonic())
        self.resend(attempt, -1)

    def resend(self, attempt: Attempt, identity: Identity) -> None:
        """Queues it to be sent again, to another worker if there is one, unless it has failed too often. If one worker
        elsewhere alone has failed it, it first waits OTHERS_S for another.
        """
        if attempt.failures >= self._failures_max:
            if attempt.has_failed_enough:
                self._dead.append(attempt)
                return
            attempt.others_until_s = attempt.others_until_s or time.monotonic() + OTHERS_S
        attempt.attempt += 1
        attempt.avoid = identity
        self.again.append(attempt)
        self._counters.bump("segments.resent")

    def fail(self, attempt: Attempt, identity: Identity, reason: str, weight: int = FAULT) -> None:
        """Notes a failed attempt that the segment may have caused."""
        attempt.failures += weight
        attempt.failed_by |= {identity}
        attempt.reason = reason
        self.resend(attempt, identity)

    def audit(self, attempt: Attempt, claimed: Result, on_this_machine: bool = False) -> None:
        """Queues a segment for the run's own workers (on this machine), to check another's result."""
        attempt.claimed, attempt.in_house, attempt.on_this_machine = claimed, True, on_this_machine
        attempt.attempt += 1
        self.again.append(attempt)

    def end(self, number: int) -> Attempt:
        """Removes a segment that is back."""
        return self.attempts.pop(number)

    @property
    def is_waiting(self) -> bool:
        """Whether a segment waits for a peer."""
        return bool(self.again) or any(self.waiting.values())

    def since_s(self) -> dict[int, float]:
        """Since when each stream's segments wait, without those reserved for the run's own workers."""
        first = [queue[0] for queue in self.waiting.values() if queue]
        since_s: dict[int, float] = {}
        for attempt in first + [each for each in self.again if not each.in_house]:
            stream = attempt.segment.stream
            since_s[stream] = min(attempt.since_s, since_s.get(stream, math.inf))
        return since_s

    def take_dead(self) -> Iterator[Result]:
        """Dead results for the segments that have failed too often."""
        dead, self._dead = self._dead, []
        now_s = time.monotonic()
        late = [each for each in self.again if each.others_until_s and now_s >= each.others_until_s]
        if late:
            self.again = [each for each in self.again if each not in late]
            dead += late
        for attempt in dead:
            self.end(attempt.segment.number)
            if attempt.claimed is not None:  # it cannot be audited: the result counts
                yield attempt.claimed
                continue
            self._counters.bump("segments.dead_lettered")
            yield Result(attempt.segment, dead=True, reason=attempt.reason)

    def without_audits(self) -> Iterator[Result]:
        """The results whose audit waits for a worker on this machine, when there is none any more: they count."""
        for attempt in [each for each in self.again if each.on_this_machine]:
            self.again.remove(attempt)
            self.end(attempt.segment.number)
            if attempt.claimed is not None:
                yield attempt.claimed

    def unserved(self, stream: int) -> Iterator[Result]:
        """Results for the segments of a stream that nobody runs; the stream's rule decides what to do with them."""
        attempts = [each for each in self.again if each.segment.stream == stream and not each.in_house]
        self.again = [each for each in self.again if each not in attempts]
        for (of, _), queue in self.waiting.items():
            if of == stream:
                attempts += queue
                queue.clear()
        for attempt in attempts:
            self.end(attempt.segment.number)
            yield Result(attempt.segment, dead=True, reason=NO_AGREEMENT)

    def unprocessed(self) -> Iterator[Result]:
        """Unprocessed results for the segments that no worker has had."""
        waiting = [attempt for queue in self.waiting.values() for attempt in queue]
        for queue in self.waiting.values():
            queue.clear()
        for attempt in waiting:
            self.end(attempt.segment.number)
            yield Result(attempt.segment, reason=OVERLOAD)
