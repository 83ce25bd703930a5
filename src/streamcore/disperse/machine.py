"""The state machine of dispersal: events come in with the time, actions go out. It has no sockets, processes or clock.

    events    add finish pass_waiting   segments are submitted; no more come; those that wait are to leave
              start joined turned_away hello refused room not_sent   workers come, and take segments or do not
              results misbehaved   what a worker sent
              gone tick            a worker is gone; time has passed
              struck known         a key is not known any more; it is known again
              withdrawn            results of one that lied were taken back
    actions   decide hands out what is to be done (actions.py), in order; `wake_s` is when to call `tick` at the latest

states.py has the states of a segment and of a peer. backlog.py keeps the segments, peer.py the leases of one peer,
places.py the peers, scheduler.py chooses among them, elsewhere.py and providers.py audit and give up. dispatcher.py is
the loop around it.

It guarantees: each added segment leaves once, delivered, unprocessed or dead; no peer gets more than its credit; if a
peer dies, hangs or lies, another gets its segments, and nobody else loses anything. The routes are asked and told
directly: they answer at once, without I/O.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

from streamcore.core.counters import Counters, Histogram
from streamcore.core.packets import Result, Segment
from streamcore.core.routes import Routes
from streamcore.disperse._results import same_result
from streamcore.disperse.actions import Action, Actions, Fail, Send
from streamcore.disperse.backlog import FAULT, KILLED, Backlog
from streamcore.disperse.elsewhere import Elsewhere, Same
from streamcore.disperse.peer import Peer
from streamcore.disperse.pending import Pending
from streamcore.disperse.places import Places
from streamcore.disperse.providers import Providers
from streamcore.disperse.scheduler import Scheduler
from streamcore.disperse.terms import Terms

JOIN_S = 60.0  # how long a run without local workers waits for a remote one


class Bad(NamedTuple):
    """In place of a result that failed the checks."""

    why: str


class Failed(NamedTuple):
    """In place of a result: the worker says that it cannot process the segment."""

    why: str


Answer = tuple[int, int, int, Result | Bad | Failed]  # number, attempt, busy_ns, and what came of it


class Machine:
    """address: where workers may join; "" if they may not. routes: which peers run which stream; None: the run's own
    workers run all. draw: a number in [0, 1), which nobody can guess, for audits.
    """

    def __init__(
        self,
        terms: Terms,
        counters: Counters,
        routes: Routes | None,
        address: str,
        draw: Callable[[], float],
        same: Same = same_result,
    ) -> None:
        self._counters = counters
        self._routes = routes
        self._address = address
        self._actions = Actions()
        self.places = Places(terms, counters, routes, self._actions)
        self.backlog = Backlog(counters, terms.attempts_max, self._actions)
        self._scheduler = Scheduler(self.places, self.backlog, counters, routes, self._actions)
        shared = (self.places, self.backlog, counters, self._actions)
        self.elsewhere = Elsewhere(*shared, terms.deterministic, terms.audit, draw, same)
        self._providers = Providers(routes, *shared, same) if routes is not None else None
        self.durations = Histogram()  # of each segment, from its submission to its accepted result
        self._finished = False
        self._refusal = ""
        self._alone_since_s: float | None = None  # since when workers are missing; None: they are not

    # What the loop asks.

    def decide(self, now_s: float) -> list[Action]:
        """What is to be done now, in order."""
        self._scheduler.report()
        if not self.places.here and self.backlog.again:
            self.backlog.end_audits()
        self._scheduler.send(now_s)
        self._require_workers(now_s)
        return self._actions.take()

    @property
    def ended(self) -> bool:
        """Whether all segments have left and no more come."""
        return self._finished and not self.backlog.pending

    @property
    def wake_s(self) -> float:
        """When `tick` has something to do, if nothing else happens before."""
        at_s = min((peer.deadline_s for peer in self.places.all), default=math.inf)
        at_s = min(at_s, self._scheduler.next_send_s, self.backlog.expires_s())
        if self._alone_since_s is not None:
            at_s = min(at_s, self._alone_since_s + (2 * JOIN_S if self.places.own else JOIN_S))
        return at_s if self._providers is None else min(at_s, self._providers.wakes_s())

    # Segments.

    def add(self, segments: Iterable[Segment], now_s: float) -> None:
        """Segments were submitted. The caller bounds how many are under way."""
        segments = list(segments)
        self.backlog.add(segments, now_s)
        if self._routes is not None and segments:
            byte_counts: dict[int, int] = {}
            for segment in segments:
                byte_counts[segment.stream] = byte_counts.get(segment.stream, 0) + segment.byte_count
            self._routes.came(byte_counts)

    def finish(self) -> None:
        """No more segments come."""
        self._finished = True

    def pass_waiting(self) -> None:
        """The segments that no worker has had are to leave unprocessed."""
        self.backlog.pass_waiting()

    def withdrawn(self, key: str, segments: list[Segment], now_s: float) -> None:
        """The results of these segments, by one that lied, were taken back before they left: others do them again."""
        self.elsewhere.withdrawn(key, len(segments))
        for segment in segments:
            self.backlog.add_again(segment, now_s)

    # Peers come, and take segments or do not.

    def start(self, now_s: float) -> None:
        """Has the workers on this machine started."""
        for slot in self.places.slots:
            self.places.fill(slot, now_s)

    def joined(self, key: str, now_s: float) -> Peer | str:
        """A worker elsewhere with this key asks to join: its peer, or why it may not."""
        return self.places.admit(key, now_s)

    def turned_away(self, peer: Peer) -> None:
        """No connection could be made for a worker that was let in."""
        self.places.turn_away(peer)

    def hello(self, peer: Peer, now_s: float) -> None:
        """A worker is ready. Whoever says so twice misbehaves."""
        peer.move("hello")
        peer.clock_from_s = now_s

    def refused(self, peer: Peer, why: str, now_s: float) -> None:
        """A worker says that it cannot do its work: another process would say the same."""
        self._refusal = why
        self.gone(peer, why, now_s, restart=False)

    def not_sent(self, send: Send, sent: int) -> None:
        """Only the first `sent` segments of this message could be sent. The peer gets no more until `room`."""
        self._scheduler.not_sent(send, sent)

    def room(self, peer: Peer) -> None:
        """A peer to which something could not be sent may take messages again."""
        if peer.state == "full":
            peer.move("room")

    # What they send.

    def results(self, peer: Peer, answers: list[Answer], now_s: float) -> None:
        """The answers of one message."""
        if peer.state == "gone":  # too late: others do them
            self._counters.bump("segments.discarded", len(answers))
            return
        tally, leases, before_ns = peer.tally, peer.leases, peer.tally.busy_ns
        for number, attempt, busy_ns, result in answers:
            pending = leases.get(number)
            if pending is None or pending.attempt != attempt:
                self._counters.bump("segments.discarded")
                self.misbehaved(peer, peer.key or None, "a result of a segment that it does not have", now_s)
                return  # what follows in this message is not looked at
            peer.end_lease(pending, now_s)
            if isinstance(result, (Bad, Failed)):
                self._failed(peer, pending, result, now_s)
            else:  # a peer may say any time
                tally.add(pending.segment, min(busy_ns, int((now_s - pending.sent_s) * 1e9)))
                if peer.elsewhere or pending.attempt > 1:
                    self._accept(peer, pending, result, now_s)
                else:
                    self._done(pending, result, now_s)
            if peer.state == "gone":  # its answer has cost it its place
                return
        if answers:
            peer.adapt(tally.busy_ns - before_ns, len(answers))

    def misbehaved(self, peer: Peer | None, key: str | None, words: str, now_s: float) -> None:
        """A message came that no worker sends: it costs whoever sent it its place, and elsewhere its key."""
        self._counters.bump("disperse.bad_message")
        if key is None:
            if peer is not None and peer.state != "gone":
                self.gone(peer, words, now_s)
        elif self._providers is not None and self._is_provider(key):
            self._providers.suspend(key, words, now_s)
        else:
            self.elsewhere.give_up(key, words, now_s)

    # Peers go, and time passes.

    def gone(self, peer: Peer, reason: str, now_s: float, killed: bool = False, restart: bool = True) -> None:
        """A peer died or hangs: others get its segments. Only the one that it worked on can be the cause. killed: by a
        signal from outside. A remote worker that never said hello gave up before the answer, and may have joined again.
        """
        if peer.state == "gone":
            return
        ready = peer.has_said_hello
        if peer.elsewhere and not ready and restart:
            self.places.lose(peer, now_s)
            return
        if peer.streams is not None and self._providers is not None:
            self._providers.suspend(peer.key, reason, now_s)
            return
        suspect = peer.suspect() if ready else None
        for pending in self.places.lose(peer, now_s, restart):
            if pending is suspect:
                self.backlog.fail(pending, peer.identity, reason, now_s, KILLED if killed else FAULT)
            else:
                self.backlog.resend(pending, peer.identity, now_s)

    def struck(self, key: str, now_s: float) -> None:
        """A key is not known any more: its workers lose their leases at once, and none may join with it."""
        self.places.struck.add(key)
        if self._providers is not None and self._is_provider(key):
            self._providers.suspend(key, "its key was struck", now_s)
        else:
            self.elsewhere.leave_out(key, now_s)

    def known(self, key: str) -> None:
        """A struck key is known again: its workers may join. Whoever was given up stays so, and so does a provider that
        was suspended."""
        self.places.struck.discard(key)

    def tick(self, now_s: float) -> None:
        """Time has passed. Whatever peers sent before now_s has been handed over: what is late is late."""
        for peer in list(self.places.all):
            if now_s >= peer.deadline_s:
                self.gone(peer, peer.late, now_s)
        self.backlog.expire(now_s)
        if self._providers is not None:
            self._providers.look_after(now_s)

    def _failed(self, peer: Peer, pending: Pending, result: Bad | Failed, now_s: float) -> None:
        """A peer could not do a segment, or its result did not pass: another does it."""
        if peer.streams is None or self._providers is None:
            peer.tally.failed += 1
            self.backlog.fail(pending, peer.identity, result.why, now_s)
        elif isinstance(result, Failed):
            self._providers.give_up(peer, pending, result.why, now_s)
        else:
            peer.tally.failed += 1
            self.backlog.resend(pending, peer.identity, now_s)
            self._providers.suspend(peer.key, result.why, now_s)

    def _accept(self, peer: Peer, pending: Pending, result: Result, now_s: float) -> None:
        """A result that passed the checks, of a peer elsewhere or of a segment that was sent before."""
        result.provider = peer.key
        if self._is_audited(peer, pending, result, now_s):
            return
        self._done(pending, result, now_s)
        self.elsewhere.accepted(peer, pending, now_s)

    def _is_audited(self, peer: Peer, pending: Pending, result: Result, now_s: float) -> bool:
        """Whether this result waits for another; if another's waits for this one, both are compared."""
        history = pending.history
        if peer.streams is not None:
            return self._providers is not None and self._providers.is_audited(peer, pending, result, now_s)
        if history.claimed is None:
            return peer.elsewhere and self.elsewhere.is_audited(peer, pending, result)
        if self._is_provider(history.claimed.provider) and self._providers is not None:
            self._providers.compare(history.claimed, result, now_s)
        else:
            self.elsewhere.compare(history.claimed, result, now_s)
        return False

    def _is_provider(self, key: str) -> bool:
        return self._routes is not None and self._routes.is_provider(key)

    def _done(self, pending: Pending, result: Result, now_s: float) -> None:
        self.backlog.done(pending)
        self.durations.observe(now_s - pending.since_s)
        self._actions.deliver(result)

    def _require_workers(self, now_s: float) -> None:
        """Ends the run if no worker is left for the rest and none can be expected. Whoever joins and never says hello
        delays that once.
        """
        own, all = self.places.own, self.places.all
        is_served = any(not peer.elsewhere or peer.has_said_hello for peer in own)
        if is_served or self.ended or (all and not own and not self._scheduler.needs_own()):
            self._alone_since_s = None
            return
        if self._alone_since_s is None:
            self._alone_since_s = now_s
        until_s = self._alone_since_s + (2 * JOIN_S if own else JOIN_S)
        if not self._address:
            self._actions.add(Fail(self._refusal or "no worker is left: all ended without a result"))
        elif now_s >= until_s:
            given_up = "".join(f"; one was given up: {why}" for why in list(self.places.given_up.values())[:1])
            self._actions.add(Fail(f"no worker has joined at {self._address} for {JOIN_S:.0f} s{given_up}"))
