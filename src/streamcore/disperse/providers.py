"""Audits the results of providers, and suspends a provider that fails.

`routes` knows which peers are providers, and for which streams. machine.py receives their results like any worker's.
"""

from __future__ import annotations

import math

from streamcore.core.counters import Counters
from streamcore.core.packets import Result
from streamcore.core.routes import Routes
from streamcore.disperse.actions import Actions, Withdraw
from streamcore.disperse.backlog import Backlog
from streamcore.disperse.elsewhere import Same
from streamcore.disperse.peer import Peer
from streamcore.disperse.pending import Pending
from streamcore.disperse.places import Places

LOOK_S = 0.01  # between checks of the routes, while segments wait
FAILURES_MAX = 3  # segments that a provider may fail


class Providers:
    """The routes are told at once of whatever money depends on: what was sent, done, audited, failed."""

    def __init__(
        self, routes: Routes, places: Places, backlog: Backlog, counters: Counters, actions: Actions, same: Same
    ) -> None:
        self._routes = routes
        self._places = places
        self._backlog = backlog
        self._counters = counters
        self._actions = actions
        self._same = same
        self._absent_since_s: dict[str, float] = {}  # providers that segments wait for and that have not joined
        self._next_look_s = 0.0

    def is_audited(self, peer: Peer, pending: Pending, result: Result, now_s: float) -> bool:
        """Whether a provider's result is audited: it waits for an in-house result, which is requested. Of this machine
        if it has workers: one elsewhere could lie about a provider."""
        if pending.history.in_house or not self._routes.done(peer.key, pending.segment, now_s - pending.sent_s):
            return False
        self._backlog.audit(pending, result, on_this_machine=bool(self._places.here))
        self._counters.bump("subcontract.audited")
        return True

    def compare(self, claimed: Result, result: Result, now_s: float) -> None:
        """Compares the in-house result of an audited segment with the provider's."""
        same = self._same(claimed, result)
        key = claimed.provider
        self._routes.audited(result.segment.stream, key, same)
        if not same:
            self._counters.bump("subcontract.audits_failed")
            self._backlog.unclaim(key)
            self.suspend(key, "an audit found another result", now_s)
            self._actions.add(Withdraw(key))

    def give_up(self, peer: Peer, pending: Pending, reason: str, now_s: float) -> None:
        """A provider cannot process a segment: the run's own workers try it, if they have the services."""
        peer.tally.failed += 1
        peer.failures += 1
        if self._routes.is_possible_in_house(pending.stream):
            pending.note().in_house = True
            self._backlog.resend(pending, peer.identity, now_s)
        else:
            self._backlog.fail(pending, peer.identity, reason, now_s)
        if peer.failures >= FAILURES_MAX:
            self.suspend(peer.key, f"it failed {FAILURES_MAX} segments: {reason}", now_s)

    def suspend(self, key: str, reason: str, now_s: float) -> None:
        """Refuses the results of this provider from now on. Its segments go to the stream's present route. Any other
        key is ignored.
        """
        peers = self._places.providers(key) if key else []
        if not key or not (peers or self._routes.is_provider(key)):
            return
        self._routes.failed(key, reason)
        self._absent_since_s.pop(key, None)
        for peer in peers:
            for pending in self._places.lose(peer, now_s, restart=False):
                self._backlog.resend(pending, peer.identity, now_s)

    def look_after(self, now_s: float) -> None:
        """Handles providers that do not join, streams that nobody runs, and local workers that cannot keep up."""
        if now_s < self._next_look_s:
            return
        self._next_look_s = now_s + LOOK_S
        for stream, since_s in self._backlog.since_s().items():
            route = self._routes.of(stream)
            if route.kind == "wait":
                continue
            if route.kind == "in-house":
                self._routes.waited(stream, now_s - since_s)
            elif route.kind == "provider":
                self._ask_in_again(route.key, stream)
                if any(peer.has_said_hello for peer in self._places.providers(route.key, stream)):
                    self._absent_since_s.pop(route.key, None)
                    continue
                absent_s = max(since_s, self._absent_since_s.setdefault(route.key, now_s))
                if now_s >= absent_s + self._routes.join_s(route.key):
                    self.suspend(route.key, "it has not joined", now_s)
            else:
                self._backlog.unserved(stream)

    def _ask_in_again(self, key: str, stream: int) -> None:
        """A provider learns its services when it joins. If it has won another need since, it must join again after it
        has finished its segments.
        """
        for peer in self._places.providers(key):
            assert peer.streams is not None
            if stream in peer.streams or not peer.has_said_hello:
                continue
            if peer.state != "leaving":
                peer.move("leave")
            if not peer.leases:
                self._places.dismiss(peer)

    def wakes_s(self) -> float:
        """The earliest time at which `look_after` has something to do."""
        return self._next_look_s if self._backlog.is_waiting else math.inf
