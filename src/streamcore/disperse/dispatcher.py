"""The dispatcher: one thread submits segments, another takes their results. This file has its loop, and handles faults
of peers.

It guarantees: each submitted segment comes back exactly once, as a validated Result or as dead; no peer gets more than
its credit; if a peer dies, hangs or lies, another gets its segments. backlog.py keeps the segments, scheduler.py sends
them, validation.py checks results, providers.py audits and suspends providers. The aggregator orders the results.
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

import zmq

from streamcore.core.counters import Counters, Histogram
from streamcore.core.errors import WorkerError
from streamcore.core.packets import Arena, Result, Segment
from streamcore.core.routes import Routes
from streamcore.core.text import shown
from streamcore.disperse import envelope, local
from streamcore.disperse._results import FLAGS_OF_CHANGE, ResultError
from streamcore.disperse.backlog import FAULT, KILLED, NO_AGREEMENT, Attempt, Backlog
from streamcore.disperse.elsewhere import Elsewhere
from streamcore.disperse.peer import Lease, Peer
from streamcore.disperse.providers import Providers
from streamcore.disperse.scheduler import Scheduler
from streamcore.disperse.validation import validate
from streamcore.disperse.workers import Slot, Terms, Workers

__all__ = ["NO_AGREEMENT", "Dispatcher"]

START_S = 30.0  # a worker that is not ready after this time counts as hung
JOIN_S = 60.0  # how long a run without local workers waits for a remote one
TICK_S = 1.0  # the longest time between two checks of deadlines
WORDS_BYTES_MAX = 4096  # of what a peer says why it failed

FRAMES_OF = (0, 1, 1, 2)  # how many frames a result's `frames` announces
Answer = tuple[envelope.Outcome, memoryview | None, memoryview | None]  # its extra frame, and that with the region


class Dispatcher:
    """The feeding thread calls `submit` and `finish`, the thread that takes results everything else.

    launched: workers that were started beforehand; the dispatcher ends them too. routes: which peers run which stream;
    None: the run's own workers run all.
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
        self._counters = counters
        self._routes = routes
        self._allowed = [reduce(or_, (FLAGS_OF_CHANGE[c] for c in changes), 0) for changes in terms.changes]
        self._workers = Workers(terms, arena, counters, list(launched), routes)
        self._backlog = Backlog(counters, terms.attempts_max)
        self._scheduler = Scheduler(self._workers, self._backlog, counters, self._allowed, routes)
        self._providers = Providers(routes, self._workers, self._backlog, counters) if routes is not None else None
        self._elsewhere = Elsewhere(self._workers, self._backlog, counters, terms.deterministic, terms.audit)
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._workers.poller.register(self._wake, zmq.POLLIN)
        self._inbox: collections.deque[Segment] = collections.deque()  # bounded by the pipeline's gate
        self.durations = Histogram()  # of each segment, from its submission to its accepted result
        self._finished = False
        self._cancelled = False
        self._passes_waiting = False
        self._refusal = ""
        self._alone_since_s = time.monotonic()

    @property
    def slots(self) -> list[Slot]:
        return self._workers.slots

    @property
    def given_up(self) -> dict[str, str]:
        """The keys of workers elsewhere that were given up, with the reason."""
        return self._workers.given_up

    @property
    def lies(self) -> list[str]:
        """One line for each worker elsewhere whose audit failed: what of its results may be in the output."""
        return self._elsewhere.lies

    @property
    def depths(self) -> tuple[int, int]:
        """Approximately (segments that wait for a worker, segments that a worker holds). May be called from any
        thread."""
        out = sum(len(peer.leases) for slot in self.slots if (peer := slot.peer) is not None)
        return max(0, len(self._inbox) + len(self._backlog.attempts) - out), out

    @property
    def address(self) -> str:
        """The address at which remote workers may join; "" if they may not."""
        return self._workers.listener.address if self._workers.listener is not None else ""

    # For the feeding thread.

    def submit(self, segments: list[Segment]) -> None:
        """Submits segments. The caller bounds how many are in flight."""
        self._inbox.extend(segments)
        os.eventfd_write(self._wake, 1)

    def finish(self) -> None:
        """Says that no more segments come."""
        self._finished = True
        os.eventfd_write(self._wake, 1)

    def pass_waiting(self) -> None:
        """Returns the segments that wait for a worker unprocessed, with the reason OVERLOAD. May be called from any
        thread."""
        self._passes_waiting = True
        self.wake()

    def wake(self) -> None:
        """Makes the loop check the routes soon. May be called from any thread."""
        if self._wake >= 0:
            os.eventfd_write(self._wake, 1)

    def cancel(self) -> None:
        """Ends `results` soon, even if segments are out. May be called from any thread or a signal handler."""
        self._cancelled = True
        if self._wake >= 0:
            os.eventfd_write(self._wake, 1)

    # For the thread that takes results.

    def start(self) -> None:
        """Starts the workers."""
        self._workers.start()

    def withdraw_with(self, withdraw: Callable[[str], list[Segment]]) -> None:
        """Sets the function that takes the key of a provider or worker that lied and returns the segments whose results
        have not left yet."""
        self._elsewhere.withdraw = withdraw
        if self._providers is not None:
            self._providers.withdraw = withdraw

    def results(self, idle: Callable[[], None] = lambda: None) -> Iterator[Result]:
        """Yields the Result of every submitted segment, in order of arrival; ends when all segments submitted before
        `finish` are back.

        idle: called when nothing has come for a while. Raises WorkerError if no worker is left for the rest.
        """
        while True:
            self._take_inbox()
            self._scheduler.send()
            if self._providers is not None:
                yield from self._providers.look_after()
            if self._cancelled or (self._finished and not self._inbox and not self._backlog.attempts):
                return
            self._require_workers()
            events = dict(self._workers.poller.poll(self._patience_ms()))
            if not events:
                idle()
            yield from self._receive_from(events)
            yield from self._look_after_peers(events)
            yield from self._backlog.take_dead()
            if not self._workers.any_on_this_machine:
                yield from self._backlog.without_audits()
            if self._passes_waiting:
                self._passes_waiting = False
                yield from self._backlog.unprocessed()

    def close(self) -> None:
        """Ends all workers and closes all sockets."""
        self._workers.close()
        if self._wake >= 0:
            os.close(self._wake)
            self._wake = -1

    def _take_inbox(self) -> None:
        byte_counts: dict[int, int] = {}
        while self._inbox:
            segment = self._inbox.popleft()
            self._backlog.add(segment)
            if self._routes is not None:
                byte_counts[segment.stream] = byte_counts.get(segment.stream, 0) + segment.byte_count
        if self._routes is not None and byte_counts:
            self._routes.came(byte_counts)

    def _patience_ms(self) -> int:
        """The time until the next deadline, at most a tick."""
        peers = self._workers.peers() + self._workers.providers()
        until_s = min((self._deadline_s(peer) for peer in peers), default=math.inf)
        until_s = min(until_s, self._scheduler.next_send_s)
        if self._providers is not None:
            until_s = min(until_s, self._providers.patience_until_s())
        return max(0, math.ceil(min(TICK_S, until_s - time.monotonic()) * 1000))

    # Receiving.

    def _receive_from(self, events: dict[Any, int]) -> Iterator[Result]:
        """Handles what made the poller return: a wake-up, a worker that wants to join, or messages."""
        listener = self._workers.listener
        if self._wake in events:
            os.eventfd_read(self._wake)
        if self._workers.results in events:
            yield from self._receive(self._workers.results)
        if listener is not None:
            if listener.join_socket in events:
                self._workers.admit()
            if listener.results in events:
                yield from self._receive(listener.results)

    def _receive(self, socket: zmq.Socket[bytes]) -> Iterator[Result]:
        """Handles all messages that have arrived."""
        while True:
            try:
                frames = socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            key = str(frames[0].get("User-Id")) if socket is not self._workers.results else None
            peer = None
            try:
                header = envelope.unpack_header(frames[0].buffer)
                peer = self._workers.of(header, key)
                if peer is None:
                    self._counters.bump("segments.discarded", header.descriptors)
                else:
                    yield from self._understand(peer, header, frames)
            except envelope.EnvelopeError as error:
                self._misbehaved(peer, key, str(error))

    def _understand(self, peer: Peer, header: envelope.Header, frames: list[zmq.Frame]) -> Iterator[Result]:
        """Handles a message of this peer. Raises EnvelopeError, before anything is taken of it, for one that no worker
        sends."""
        if header.kind == envelope.HELLO and not peer.ready and len(frames) == 1:
            self._workers.welcome(peer)
        elif header.kind == envelope.REFUSE and len(frames) == 2:
            self._refusal = words_of(frames[1].buffer)
            self._lose(self.slots[peer.slot], self._refusal, restart=False)
        elif header.kind == envelope.RESULT:
            outcomes = envelope.unpack_results(frames[0].buffer, header.descriptors)
            yield from self._accept(peer, answers_of(outcomes, frames[1:]))
        else:
            raise envelope.EnvelopeError(f"a message of kind {header.kind} that it may not send now")

    def _misbehaved(self, peer: Peer | None, key: str | None, words: str) -> None:
        """Handles a message that no worker sends: it costs whoever sent it its place, and elsewhere its key."""
        self._counters.bump("disperse.bad_message")
        if key is None:
            if peer is not None:
                self._lose(self.slots[peer.slot], words)
        elif self._routes is not None and self._routes.is_provider(key):
            self._suspend(key, words)
        else:
            self._elsewhere.give_up(key, words)

    def _accept(self, peer: Peer, answers: list[Answer]) -> Iterator[Result]:
        """Handles the results of one message. The credit that they free is used at once, so that the peer works while
        they are written; as many segments leave in one message.
        """
        results = []
        for outcome, extra, content in answers:
            if self.slots[peer.slot].peer is not peer:
                break  # one of these results suspended it
            result = self._take_result(peer, outcome, extra, content)
            if result is not None:
                results.append(result)
        self._take_inbox()
        self._scheduler.send()
        yield from results

    def _take_result(
        self, peer: Peer, outcome: envelope.Outcome, extra: memoryview | None, content: memoryview | None
    ) -> Result | None:
        """The Result of one lease; None if it fails the checks or waits for an audit."""
        now_s = time.monotonic()
        lease = peer.end_lease(outcome.number, outcome.attempt, now_s)
        if lease is None:
            self._counters.bump("segments.discarded")
            self._misbehaved(peer, peer.key or None, "a result of a segment that it does not have")
            return None
        attempt = self._backlog.attempts[outcome.number]
        if outcome.status != envelope.DONE:
            self._declined(peer, attempt, words_of(extra or b"the service failed"))
            return None
        try:
            stream = lease.segment.stream
            result = validate(lease, outcome, extra, content, self._allowed[stream], self._terms.accepted[stream])
        except ResultError as error:
            self._reject(peer, attempt, str(error))
            return None
        peer.tally.add(
            lease.segment, min(outcome.busy_ns, int((now_s - lease.since_s) * 1e9))
        )  # a peer may say any time
        result.provider = peer.key
        compared = peer.elsewhere or attempt.claimed is not None
        if compared and self._is_audited(peer, attempt, lease, result, now_s):
            return None
        if peer.elsewhere or attempt.failed_by:
            self._elsewhere.accepted(peer, attempt)
        self.durations.observe(now_s - self._backlog.end(outcome.number).since_s)
        return result

    def _is_audited(self, peer: Peer, attempt: Attempt, lease: Lease, result: Result, now_s: float) -> bool:
        """Whether this result waits for another, or is the one that another's waits for."""
        if peer.streams is not None:
            return self._providers is not None and self._providers.is_audited(peer, attempt, lease, result, now_s)
        if attempt.claimed is None:
            return peer.elsewhere and self._elsewhere.is_audited(peer, attempt, result)
        if attempt.on_this_machine:
            self._elsewhere.compare(attempt.claimed, result)
        elif self._providers is not None:
            self._providers.compare(attempt.claimed, result)
        return False

    def _declined(self, peer: Peer, attempt: Attempt, words: str) -> None:
        """Handles a worker's report that it cannot process a segment."""
        if peer.streams is not None and self._providers is not None:
            self._providers.give_up(peer, attempt.segment.number, words)
        else:
            self._reject(peer, attempt, words)

    def _reject(self, peer: Peer, attempt: Attempt, reason: str) -> None:
        """Handles a result that fails the checks: sends the segment again, and suspends a provider."""
        peer.tally.failed += 1
        if peer.streams is not None:
            self._backlog.resend(attempt, peer.identity)
            self._suspend(peer.key, reason)
        else:
            self._backlog.fail(attempt, peer.identity, reason)

    # Faults.

    def _suspend(self, key: str, reason: str) -> None:
        """Suspends a provider; ignores any other key."""
        if self._providers is not None:
            self._providers.suspend(key, reason)

    def _require_workers(self) -> None:
        """Raises WorkerError if no worker is left for the rest and none can be expected."""
        if self._workers.peers() or self._workers.providers():
            self._alone_since_s = time.monotonic()
        elif self._workers.listener is None:
            raise WorkerError(self._refusal or "no worker is left: all ended without a result")
        elif time.monotonic() - self._alone_since_s > JOIN_S:
            given_up = "".join(f"; one was given up: {reason}" for reason in list(self.given_up.values())[:1])
            raise WorkerError(f"no worker has joined at {self.address} for {JOIN_S:.0f} s{given_up}")

    def _look_after_peers(self, events: dict[Any, int]) -> Iterator[Result]:
        for slot in self.slots:
            peer = slot.peer
            if peer is None:
                continue
            if peer.blocked and peer.push in events:
                self._workers.unblock(peer)
            if peer.pidfd in events:
                peer.died = True
                yield from self._receive(self._workers.results)  # results that it sent before it died
                self._lose(slot, "the worker died")
            elif peer.monitor in events and self._workers.gone(peer):
                self._lose(slot, "the worker's connection ended")
            elif time.monotonic() >= self._deadline_s(peer) and not self._has_news():
                self._lose(slot, f"no result within {peer.lease_ms or self._terms.lease_ms} ms")

    def _has_news(self) -> bool:
        """Whether messages wait. This thread may have been too busy to read them, which is not a peer's fault."""
        listener = self._workers.listener
        return bool(self._workers.results.poll(0)) or (listener is not None and bool(listener.results.poll(0)))

    def _deadline_s(self, peer: Peer) -> float:
        return peer.deadline_s(self._terms.lease_ms / 1000, START_S)

    def _lose(self, slot: Slot, reason: str, restart: bool = True) -> None:
        """Handles a peer that died or hangs: sends its segments again. Only the one that it worked on can be the
        cause. A remote worker that never said hello gave up before the answer, and may have joined again."""
        peer = slot.peer
        if peer is None:
            return
        if peer.elsewhere and not peer.ready and restart:
            self._workers.lose(slot, restart)
            return
        if peer.streams is not None:
            self._suspend(peer.key, reason)
            return
        suspect = peer.suspect() if peer.ready else None
        self._workers.lose(slot, restart)
        weight = KILLED if peer.was_killed else FAULT
        for number in peer.leases:
            if number == suspect:
                self._backlog.fail(self._backlog.attempts[number], peer.identity, reason, weight)
            else:
                self._backlog.resend(self._backlog.attempts[number], peer.identity)


def answers_of(outcomes: list[envelope.Outcome], frames: list[zmq.Frame]) -> list[Answer]:
    """(outcome, extra frame, frame with the region) of each result in a message. Raises EnvelopeError if its frames are
    not those that its results announce.
    """
    announced = sum([FRAMES_OF[outcome.frames] for outcome in outcomes])
    if announced != len(frames):
        raise envelope.EnvelopeError(f"a message of {announced} announced frames has {len(frames)}")
    if not frames:
        return [(outcome, None, None) for outcome in outcomes]
    left = iter(frames)
    return [
        (
            outcome,
            next(left).buffer if outcome.frames & envelope.EXTRA else None,
            next(left).buffer if outcome.frames & envelope.INLINE_REGION else None,
        )
        for outcome in outcomes
    ]


def words_of(raw: bytes | memoryview) -> str:
    """A peer's words, fit to be shown."""
    return shown(bytes(raw[:WORDS_BYTES_MAX]).decode(errors="replace"))
