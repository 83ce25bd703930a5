"""The processes, sockets and connections of a run's workers. places.py decides who they are.

One thread uses it.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from typing import Any

import zmq

from streamcore.core.counters import Counters
from streamcore.core.packets import Arena
from streamcore.core.routes import Routes
from streamcore.disperse import envelope, local
from streamcore.disperse.known import KnownKeys
from streamcore.disperse.link import Link, region_bytes
from streamcore.disperse.peer import QUICK_LEASES_MAX, Peer
from streamcore.disperse.terms import Terms

MESSAGE_BYTES_MAX = 1 << 20  # of a local worker's results: their packets do not travel


class Workers:
    """`results`: the socket for results of this machine; `listener`: for those of others, None if nobody may join."""

    def __init__(
        self, terms: Terms, arena: Arena, counters: Counters, launched: list[local.Launched], routes: Routes | None
    ) -> None:
        self._terms = terms
        self._routes = routes
        self._launched = launched  # workers that were started beforehand
        self._arena = arena
        self._counters = counters
        self._token = secrets.token_hex(12)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.poller = zmq.Poller()
        self.links: list[Link] = []  # of the present peers
        self._waiting: list[Link] = []  # to which something could not be sent
        self._has_changes = [bool(changes) for changes in terms.changes]
        self.results = self._context.socket(zmq.PULL)
        self.results.setsockopt(zmq.MAXMSGSIZE, MESSAGE_BYTES_MAX)
        local.for_us_alone(self.results)
        self.results.bind(local.endpoint(self._token))
        self.poller.register(self.results, zmq.POLLIN)
        self.listener: Any = None
        self.known: KnownKeys | None = None  # None: nobody may join
        if terms.listen:
            try:
                self._listen()
            except BaseException:
                self.close()
                raise

    @property
    def address(self) -> str:
        """Where remote workers may join; "" if they may not."""
        return self.listener.address if self.listener is not None else ""

    # Workers on this machine.

    def start(self, peer: Peer) -> None:
        """Starts a process for a peer of this machine, or takes one that was started beforehand."""
        link = self.add(Link(peer))
        regions = None
        if any(self._has_changes):  # a batch needs one region, and with failed attempts another
            regions = Arena(2 * self._arena.chunk_count + 2, region_bytes(self._arena), 1, shared=True)
        setup = {"token": self._token, "chains": self._terms.chains, "parsing": self._terms.parsing}
        launched = self._launched.pop() if self._launched else local.launch()
        local.start(link, launched, self._arena, regions, setup)
        self.poller.register(link.pidfd, zmq.POLLIN)
        self._counters.bump("workers.started")

    def welcome(self, peer: Peer) -> None:
        """Connects to a peer that is ready."""
        link = peer.link
        if link.push is None:
            link.push = self._context.socket(zmq.PUSH)
            link.push.setsockopt(zmq.IMMEDIATE, 1)
            link.push.setsockopt(zmq.SNDHWM, QUICK_LEASES_MAX)
            link.push.connect(local.endpoint(self._token, link.incarnation))

    # Sending.

    def send(self, peer: Peer, message: list[Any]) -> int:
        """Sends the first segments of a message, as many as there is room for. Returns how many."""
        link = peer.link
        if link.waits:
            return 0
        sent, is_full = link.send(message, self._has_changes)
        if sent < len(message):
            link.waits, link.is_polled = True, is_full
            self._waiting.append(link)
            if is_full:
                self.poller.register(link.push, zmq.POLLOUT)
        return sent  # type: ignore[no-any-return]

    def with_room(self, events: dict[Any, int]) -> list[Peer]:
        """The peers to which something could not be sent, and may be sent now: their sockets have room, or regions may
        have become free."""
        ready = [link for link in self._waiting if not link.is_polled or link.push in events]
        for link in ready:
            self._stop_waiting(link)
        return [link.peer for link in ready]

    def _stop_waiting(self, link: Link) -> None:
        self._waiting.remove(link)
        if link.is_polled:
            self.poller.unregister(link.push)
        link.waits = link.is_polled = False

    # Ending.

    def end(self, peer: Peer, dismiss: bool = False) -> None:
        """Ends a peer's process and closes its connection; dismiss: after telling it to stop."""
        link = peer.link
        if link is None:  # it could not be reached from the start
            return
        self.links.remove(link)
        if link.waits:
            self._stop_waiting(link)
        dismissed = dismiss and self._tell_to_stop(link)
        if link.monitor is not None:
            self.poller.unregister(link.monitor)
            link.push.disable_monitor()
            link.monitor.close(linger=0)  # otherwise the context would not end while anything refers to the peer
        if link.push is not None:
            link.push.close(linger=1000 if dismissed else 0)
        if link.pidfd >= 0:
            self.poller.unregister(link.pidfd)
            os.close(link.pidfd)
        if link.process is not None:
            local.stop(link.process, link.lifeline)
        peer.link = None

    def _tell_to_stop(self, link: Link) -> bool:
        assert link.push is not None
        try:
            link.push.send(envelope.pack(envelope.STOP, link.peer.slot, link.incarnation), zmq.NOBLOCK)
        except zmq.Again:
            return False  # it is gone
        return True

    def close(self) -> None:
        """Ends all workers and closes all sockets."""
        for link in list(self.links):
            self.end(link.peer, dismiss=link.peer.elsewhere)
        for process, lifeline in self._launched:
            local.stop(process, lifeline)
        if self.listener is not None:
            self.listener.close()
        self.results.close(linger=0)
        self._context.term()  # waits at most a second until remote workers have got the message to stop

    # Remote workers.

    def _listen(self) -> None:
        from streamcore.disperse.remote import Listener  # only here: its authenticator costs start-up time

        terms = self._terms
        message_bytes_max = 2 * region_bytes(self._arena)
        self.known = KnownKeys(terms.worker_keys, self._counters, self._may_join, self._is_provider)
        self.listener = Listener(
            self._context, terms.listen, terms.key, self.known, message_bytes_max, self._arena, terms.lease_ms
        )
        self.poller.register(self.listener.join_socket, zmq.POLLIN)
        self.poller.register(self.listener.results, zmq.POLLIN)

    def admit(self, joined: Callable[[str], Peer | str]) -> Peer | None:
        """Answers a worker that asks to join: joined(key) gives its peer, or why it may not. Returns a peer to which no
        connection could be made."""
        setup = {
            "chunk": [self._arena.data_bytes_max, self._arena.rows_max],
            "region_bytes": region_bytes(self._arena),
            "parsing": self._terms.parsing,
        }
        link = self.listener.join(joined, self._chains_for, setup)
        if link is None:
            return None
        if link.push is None:  # there was no port or descriptor left for it
            return link.peer  # type: ignore[no-any-return]
        self.add(link)
        self.poller.register(link.monitor, zmq.POLLIN)
        self._counters.bump("workers.started")
        return None

    def add(self, link: Link) -> Link:
        """Notes the link of a peer."""
        link.peer.link = link
        self.links.append(link)
        return link

    def _may_join(self, key: str) -> bool:
        """Whether this is the key of an expected provider that is not suspended."""
        return self._routes is not None and bool(self._routes.streams_of(key))

    def _is_provider(self, key: str) -> bool:
        return self._routes is not None and self._routes.is_provider(key)

    def _chains_for(self, peer: Peer) -> list[list[Any]]:
        """Each stream's services; for a provider only those that its agreement covers."""
        if peer.streams is None:
            return self._terms.chains
        return [chain if stream in peer.streams else [] for stream, chain in enumerate(self._terms.chains)]
