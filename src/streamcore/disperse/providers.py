"""Audits the results of providers, and suspends a provider that fails.

`routes` knows which peers are providers, and for which streams. dispatcher.py receives their results like any worker's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from streamcore.core.counters import Counters
from streamcore.core.packets import Result, Segment
from streamcore.core.routes import Routes
from streamcore.disperse._results import same_result
from streamcore.disperse.backlog import Attempt, Backlog
from streamcore.disperse.peer import Lease, Peer
from streamcore.disperse.workers import Workers

LOOK_S = 0.01  # between checks of the routes, while segments wait
FAILURES_MAX = 3  # segments that a provider may fail


class Providers:
    """Used by the thread that takes results. If a provider lied, `withdraw` is called with its key and returns the
    segments whose results have not left yet.
    """

    def __init__(self, routes: Routes, workers: Workers, backlog: Backlog, counters: Counters) -> None:
        self._routes = routes
        self._workers = workers
        self._backlog = backlog
        self._counters = counters
        self.withdraw: Callable[[str], list[Segment]] = lambda _key: []
        self._absent_since_s: dict[str, float] = {}  # providers that segments wait for and that have not joined
        self._next_look_s = 0.0

    def is_audited(self, peer: Peer, attempt: Attempt, lease: Lease, result: Result, now_s: float) -> bool:
        """Whether a provider's result is audited: it waits for an in-house result, which is requested."""
        if attempt.in_house or not self._routes.done(peer.key, lease.segment, now_s - lease.since_s):
            return False
        self._backlog.audit(attempt, result)
        self._counters.bump("subcontract.audited")
        return True

    def compare(self, claimed: Result, result: Result) -> None:
        """Compares the in-house result of an audited segment with the provider's."""
        same = same_result(claimed, result)
        key = claimed.provider
        self._routes.audited(result.segment.stream, key, same)
        if not same:
            self._counters.bump("subcontract.audits_failed")
            self.suspend(key, "an audit found another result", lied=True)

    def give_up(self, peer: Peer, number: int, reason: str) -> None:
        """A provider cannot process a segment: the run's own workers try it, if they have the services."""
        attempt = self._backlog.attempts[number]
        peer.tally.failed += 1
        peer.failures += 1
        if self._routes.is_possible_in_house(attempt.segment.stream):
            attempt.in_house = True
            self._backlog.resend(attempt, peer.identity)
        else:
            self._backlog.fail(attempt, peer.identity, reason)
        if peer.failures >= FAILURES_MAX:
            self.suspend(peer.key, f"it failed {FAILURES_MAX} segments: {reason}")

    def suspend(self, key: str, reason: str, lied: bool = False) -> None:
        """Refuses the results of this provider from now on. Its segments go to the stream's present route; if it lied,
        also those whose results have not left yet. Any other key is ignored.
        """
        peers = self._workers.providers(key) if key else []
        if not key or not (peers or self._routes.is_provider(key)):
            return
        self._routes.failed(key, reason)
        self._absent_since_s.pop(key, None)
        for peer in peers:
            self._workers.lose(self._workers.slots[peer.slot], restart=False)
            for number in peer.leases:
                self._backlog.resend(self._backlog.attempts[number], peer.identity)
        for segment in self.withdraw(key) if lied else ():
            self._backlog.add_again(segment)

    def look_after(self) -> Iterator[Result]:
        """Handles providers that do not join, streams that nobody runs, and local workers that cannot keep up."""
        now_s = time.monotonic()
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
                if any(peer.ready for peer in self._workers.providers(route.key, stream)):
                    self._absent_since_s.pop(route.key, None)
                elif now_s - self._absent_since_s.setdefault(route.key, now_s) > self._routes.join_s(route.key):
                    self.suspend(route.key, "it has not joined")
            else:
                yield from self._backlog.unserved(stream)

    def _ask_in_again(self, key: str, stream: int) -> None:
        """A provider learns its services when it joins. If it has won another need since, it must join again after it
        has finished its segments.
        """
        for peer in self._workers.providers(key):
            assert peer.streams is not None
            if stream not in peer.streams and peer.ready:
                peer.leaving = True
                if not peer.leases:
                    self._workers.dismiss(self._workers.slots[peer.slot])

    def patience_until_s(self) -> float:
        """The earliest time at which `look_after` has something to do."""
        ends_s = [since_s + self._routes.join_s(key) for key, since_s in self._absent_since_s.items()]
        return min(ends_s + ([self._next_look_s] if self._backlog.is_waiting else []), default=float("inf"))
