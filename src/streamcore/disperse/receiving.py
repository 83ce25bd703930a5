"""From sockets to events: reads what has arrived, checks it, and hands it to the machine.

envelope.py has the messages' fields, validation.py the checks of a result. dispatcher.py has the loop.
"""

from __future__ import annotations

import os
from functools import reduce
from operator import or_
from typing import Any

import zmq

from streamcore.core.counters import Counters
from streamcore.core.packets import Result
from streamcore.core.text import shown
from streamcore.disperse import envelope
from streamcore.disperse._results import FLAGS_OF_CHANGE, ResultError
from streamcore.disperse.machine import Answer, Bad, Failed, Machine
from streamcore.disperse.peer import Peer
from streamcore.disperse.terms import Terms
from streamcore.disperse.validation import validate
from streamcore.disperse.workers import Workers

MESSAGES_MAX = 4096  # of one socket in one round, so that peers' deadlines are checked whatever they send
WORDS_BYTES_MAX = 4096  # of what a peer says why it failed

FRAMES_OF = (0, 1, 1, 2)  # how many frames a result's `frames` announces
Received = tuple[envelope.Outcome, Any, Any]  # a result, its extra frame, and the frame with its region


class Receiver:
    """Used by the thread that takes results. wake: the descriptor by which other threads end a wait."""

    def __init__(self, workers: Workers, machine: Machine, terms: Terms, counters: Counters, wake: int) -> None:
        self._workers = workers
        self._machine = machine
        self._counters = counters
        self._wake = wake
        self._accepted = terms.accepted
        self._allowed = [reduce(or_, (FLAGS_OF_CHANGE[c] for c in changes), 0) for changes in terms.changes]

    def receive(self, events: dict[Any, int], now_s: float) -> None:
        """Hands over what made the poller return: messages, joins, room in sockets, and who is gone."""
        machine, workers, listener = self._machine, self._workers, self._workers.listener
        if self._wake in events:
            os.eventfd_read(self._wake)
        died = [link for link in workers.links if link.pidfd in events]
        if workers.results in events or died:  # also what it sent before it died
            self._take_messages(workers.results, now_s)
        if listener is not None:
            if listener.join_socket in events:
                self._admit(now_s)
            if listener.results in events:
                self._take_messages(listener.results, now_s)
        for peer in workers.with_room(events):
            machine.room(peer)
        for link in died:
            link.note_mark()
            machine.gone(link.peer, "the worker died", now_s, killed=link.was_killed)
        for link in workers.links:
            if link.monitor in events and link.is_disconnected:
                machine.gone(link.peer, "the worker's connection ended", now_s)

    def _admit(self, now_s: float) -> None:
        """Lets a worker join that asks to."""
        unreachable = self._workers.admit(lambda key: self._machine.joined(key, now_s))
        if unreachable is not None:
            self._machine.turned_away(unreachable)

    def _take_messages(self, socket: zmq.Socket[bytes], now_s: float) -> None:
        """Hands over the messages that have arrived at a socket."""
        is_local = socket is self._workers.results
        for _ in range(MESSAGES_MAX):
            key = None
            try:
                frames: list[Any] = socket.recv_multipart(zmq.NOBLOCK, copy=is_local)
            except zmq.Again:
                return
            if not is_local:
                key = str(frames[0].get("User-Id"))
                frames = [frame.buffer for frame in frames]
            self._take_message(key, frames, now_s)

    def _take_message(self, key: str | None, frames: list[Any], now_s: float) -> None:
        """Hands over a message of a worker on this machine, or of one elsewhere with this key."""
        peer = None
        try:
            header = envelope.unpack_header(frames[0])
            peer = self._sender(header, key)
            if peer is None:
                self._counters.bump("segments.discarded", header.descriptors)
            else:
                peer.link.note_mark()
                self._understand(peer, header, frames, now_s)
        except envelope.EnvelopeError as error:
            self._machine.misbehaved(peer, key, str(error), now_s)

    def _sender(self, header: envelope.Header, key: str | None) -> Peer | None:
        """The sender of a message: the present incarnation of a slot, with its own key; None for anyone else."""
        peer = self._machine.places.slots[header.slot].peer if header.slot < len(self._machine.places.slots) else None
        if peer is None or peer.link is None or peer.link.incarnation != header.incarnation:
            return None
        return peer if peer.key == (key or "") else None

    def _understand(self, peer: Peer, header: envelope.Header, frames: list[Any], now_s: float) -> None:
        """Hands over what this peer says. Raises EnvelopeError, before anything is taken of it, for a message that no
        worker sends."""
        if header.kind == envelope.RESULT:
            outcomes = envelope.unpack_results(frames[0], header.descriptors)
            self._machine.results(peer, self._answers(peer, received(outcomes, frames[1:])), now_s)
        elif header.kind == envelope.HELLO and peer.state == "starting" and len(frames) == 1:
            self._workers.welcome(peer)
            self._machine.hello(peer, now_s)
        elif header.kind == envelope.REFUSE and len(frames) == 2:
            self._machine.refused(peer, words_of(frames[1]), now_s)
        else:
            raise envelope.EnvelopeError(f"a message of kind {header.kind} that it may not send now")

    def _answers(self, peer: Peer, message: list[Received]) -> list[Answer]:
        """The checked results of a message."""
        answers: list[Answer] = []
        for outcome, extra, content in message:
            lease = peer.leases.get(outcome.number)
            result: Result | Bad | Failed
            if lease is None or lease.attempt != outcome.attempt:
                result = Bad("a result of a segment that it does not have")
            elif outcome.status != envelope.DONE:
                result = Failed(words_of(extra or b"the service failed"))
            else:
                stream = lease.stream
                try:
                    result = validate(lease, outcome, extra, content, self._allowed[stream], self._accepted[stream])
                except ResultError as error:
                    result = Bad(str(error))
            answers.append((outcome.number, outcome.attempt, outcome.busy_ns, result))
        return answers


def received(outcomes: list[envelope.Outcome], frames: list[Any]) -> list[Received]:
    """Each result of a message with its frames. Raises EnvelopeError if the frames are not those that the results
    announce.
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
            next(left) if outcome.frames & envelope.EXTRA else None,
            next(left) if outcome.frames & envelope.INLINE_REGION else None,
        )
        for outcome in outcomes
    ]


def words_of(raw: bytes | memoryview) -> str:
    """A peer's words, fit to be shown."""
    return shown(bytes(raw[:WORDS_BYTES_MAX]).decode(errors="replace"))
