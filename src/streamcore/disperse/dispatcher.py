"""The dispatcher: the loop around the state machine. One thread submits segments, another takes their results.

It carries out what machine.py decides; receiving.py hands over what arrives. What is guaranteed of segments and peers
is the machine's to say. The aggregator orders the results.
"""

from __future__ import annotations

import collections
import math
import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence

import zmq

from streamcore.core.counters import Counters, Histogram
from streamcore.core.errors import UsageError, WorkerError
from streamcore.core.packets import Arena, Result, Segment
from streamcore.core.routes import Routes
from streamcore.disperse import local
from streamcore.disperse.actions import (
    Action,
    DeadLetter,
    Deliver,
    Dismiss,
    Fail,
    Kill,
    Send,
    Start,
    Unprocessed,
    Withdraw,
)
from streamcore.disperse.backlog import NO_AGREEMENT
from streamcore.disperse.known import KnownKeys
from streamcore.disperse.machine import Machine
from streamcore.disperse.places import Slot
from streamcore.disperse.receiving import Receiver
from streamcore.disperse.terms import Terms
from streamcore.disperse.workers import Workers

__all__ = ["NO_AGREEMENT", "Dispatcher"]

DRAW = secrets.SystemRandom()
TICK_S = 1.0  # the longest time between two rounds


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
        self._workers = Workers(terms, arena, counters, list(launched), routes)
        self._machine = Machine(terms, counters, routes, self._workers.address, DRAW.random)
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._workers.poller.register(self._wake, zmq.POLLIN)
        self._receiver = Receiver(self._workers, self._machine, terms, counters, self._wake)
        self._inbox: collections.deque[Segment] = collections.deque()  # bounded by the pipeline's gate
        self._withdraw: Callable[[str], list[Segment]] = lambda _key: []
        self._finished = False
        self._cancelled = False
        self._passes_waiting = False

    @property
    def slots(self) -> list[Slot]:
        return self._machine.places.slots

    @property
    def durations(self) -> Histogram:
        """Of each segment, from its submission to its accepted result."""
        return self._machine.durations

    @property
    def given_up(self) -> dict[str, str]:
        """The keys of workers elsewhere that were given up, with the reason."""
        return self._machine.places.given_up

    @property
    def lies(self) -> list[str]:
        """One line for each worker elsewhere whose audit failed: what of its results may be in the output."""
        return self._machine.elsewhere.lies

    @property
    def key_lines(self) -> list[str]:
        """One line for each file of known keys, or folder, that could not be read."""
        return self._workers.known.lines if self._workers.known is not None else []

    @property
    def depths(self) -> tuple[int, int]:
        """Approximately (segments that wait for a worker, segments that a worker holds). May be called from any
        thread."""
        out = sum(len(peer.leases) for slot in self.slots if (peer := slot.peer) is not None)
        return max(0, len(self._inbox) + len(self._machine.backlog.pending) - out), out

    @property
    def address(self) -> str:
        """The address at which remote workers may join; "" if they may not."""
        return self._workers.address

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

    def add_key(self, key: str) -> None:
        """Lets workers with this public key (Z85) join. May be called from any thread. Raises UsageError."""
        self._known_keys().add(key)
        self.wake()

    def strike_key(self, key: str) -> None:
        """Takes the leases of the workers with this public key (Z85), and lets none connect with it, though a file has
        it, until `add_key`. May be called from any thread. Raises UsageError."""
        self._known_keys().strike(key)
        self.wake()

    def say_with(self, say: Callable[[str], None]) -> None:
        """Sets what shows a line about known keys to people."""
        if self._workers.known is not None:
            self._workers.known.say = say

    def cancel(self) -> None:
        """Ends `results` soon, even if segments are out. May be called from any thread or a signal handler."""
        self._cancelled = True
        self.wake()

    # For the thread that takes results.

    def start(self) -> None:
        """Starts the workers."""
        self._machine.start(time.monotonic())
        collections.deque(self._act(), maxlen=0)

    def withdraw_with(self, withdraw: Callable[[str], list[Segment]]) -> None:
        """Sets the function that takes the key of a provider or worker that lied and returns the segments whose results
        have not left yet."""
        self._withdraw = withdraw

    def results(self, idle: Callable[[], None] = lambda: None) -> Iterator[Result]:
        """Yields the Result of every submitted segment, in order of arrival; ends when all segments submitted before
        `finish` are back.

        idle: called when nothing has come for a while. Raises WorkerError if no worker is left for the rest.
        """
        machine = self._machine
        while True:
            finished = self._finished  # before the inbox is looked at: what was submitted before is in it
            self._take_inbox()
            if finished:
                machine.finish()
            yield from self._act()
            if self._cancelled or machine.ended:
                return
            events = dict(self._workers.poller.poll(self._patience_ms()))
            if not events:
                idle()
            now_s = time.monotonic()
            self._change_keys(now_s)  # before anybody is let in
            self._receiver.receive(
                events, now_s
            )  # before `tick`: this thread may have been too busy, which is no peer's fault
            if now_s >= machine.wake_s:
                for link in self._workers.links:
                    link.note_mark()
                machine.tick(now_s)
            if self._passes_waiting:
                self._passes_waiting = False
                machine.pass_waiting()

    def close(self) -> None:
        """Ends all workers and closes all sockets."""
        self._workers.close()
        if self._wake >= 0:
            os.close(self._wake)
            self._wake = -1

    def _known_keys(self) -> KnownKeys:
        if self._workers.known is None:
            raise UsageError("no worker can join this run: it has no listen")
        return self._workers.known

    def _change_keys(self, now_s: float) -> None:
        """Tells the machine which keys were struck, and which are known now."""
        if self._workers.known is None:
            return
        struck, known = self._workers.known.changes(now_s)
        for key in struck:
            self._machine.struck(key, now_s)
        for key in known:
            self._machine.known(key)

    def _take_inbox(self) -> None:
        if self._inbox:
            self._machine.add([self._inbox.popleft() for _ in range(len(self._inbox))], time.monotonic())

    def _patience_ms(self) -> int:
        """The time until the machine has something to do, at most a tick."""
        return max(0, math.ceil(min(TICK_S, self._machine.wake_s - time.monotonic()) * 1000))

    # Carrying out what the machine decides.

    def _act(self) -> Iterator[Result]:
        """Yields the results that leave, after everything else is done, so that peers work while they are written."""
        leaving: collections.deque[Result] = collections.deque()
        reasons: list[str] = []
        again = True
        while again:
            again = False
            action: Action | None
            for action in self._machine.decide(time.monotonic()):
                if isinstance(action, Send):
                    again |= not self._send(action)
                elif isinstance(action, Deliver):
                    leaving += action.results
                    action.results.clear()
                elif isinstance(action, Withdraw):
                    while leaving:  # what it lied about is among them, or has left before
                        yield leaving.popleft()
                    self._machine.withdrawn(action.key, self._withdraw(action.key), time.monotonic())
                    again = True
                else:
                    self._carry_out(action, leaving, reasons)
            action = None  # otherwise this would hold a chunk
        while leaving:
            yield leaving.popleft()
        if reasons:
            raise WorkerError(reasons[0])

    def _send(self, send: Send) -> bool:
        """Whether all of it could be sent."""
        sent = self._workers.send(send.peer, send.pending)
        if sent == len(send.pending):
            return True
        self._machine.not_sent(send, sent)
        return False

    def _carry_out(self, action: Action, leaving: collections.deque[Result], reasons: list[str]) -> None:
        if isinstance(action, DeadLetter):
            leaving.append(Result(action.segment, dead=True, reason=action.reason))
        elif isinstance(action, Unprocessed):
            leaving.append(Result(action.segment, reason=action.reason))
        elif isinstance(action, Start):
            self._workers.start(action.peer)
        elif isinstance(action, Kill | Dismiss):
            self._workers.end(action.peer, dismiss=isinstance(action, Dismiss))
        elif isinstance(action, Fail):
            reasons.append(action.reason)
