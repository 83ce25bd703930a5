"""The workers of a run: slots, the peers that fill them, their sockets and processes. scheduler.py chooses peers."""

from __future__ import annotations

import collections
import os
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import zmq

from streamcore.core.counters import Counters
from streamcore.core.packets import Arena
from streamcore.core.routes import Routes
from streamcore.disperse import envelope, local
from streamcore.disperse.peer import LEASES_MAX, RESULT_BYTES_PER_PACKET, Peer, Tally

Reports = list[tuple[int, Any]]  # (index of the service, report)
Drops = dict[str, tuple[int, int]]  # reason -> packets, bytes
Accept = Callable[[Reports, Drops], tuple[Reports, Drops]]  # raises ValueError for what no service can have made

SLOTS_MAX = 256
PLACES_PER_KEY = 64  # of these, for the workers with one key
JOINS_PER_KEY, JOINS_S = 128, 60.0  # how many may join with one key in that time
MESSAGE_BYTES_MAX = 1 << 20  # of a local worker's results: their packets do not travel


@dataclass(frozen=True, slots=True)
class Terms:
    """The parts of the Config and of the services' declarations that disperse/ uses."""

    workers: int
    chains: list[list[Any]]  # each stream's services: specifications as plain data, which the workers load
    changes: list[frozenset[str]]  # what each chain may change: "bytes", "lengths", "drops"
    accepted: list[Accept]  # each stream's: what counts of the reports and drops that come with a result
    deterministic: list[bool]  # of each stream: whether the results of two workers can be compared
    lease_ms: int
    attempts_max: int
    restarts_max: int
    credit: int  # full-sized segments that one worker may hold
    segment_bytes: int
    listen: str = ""
    key: str = ""
    worker_keys: str = ""
    hash_seed: int = 0  # of the flow hash: workers that parse columns use the same one, as they do what follows
    decode_as: Sequence[str] = ()
    flow_key: str = "outer"
    audit: float = 0.0  # the share of results from elsewhere that workers on this machine check
    leases_max: int = LEASES_MAX  # segments of any size that one worker may hold

    @property
    def parsing(self) -> dict[str, Any]:
        """How workers parse columns: a part of their set-up."""
        return {"hash_seed": self.hash_seed, "decode_as": list(self.decode_as), "flow_key": self.flow_key}


@dataclass(slots=True)
class Slot:
    """A numbered place for one worker. Its counts cover all the workers that have filled it."""

    number: int
    elsewhere: bool = False
    tally: Tally = field(default_factory=Tally)
    peer: Peer | None = None
    fruitless: int = 0  # consecutive incarnations without a result


class Workers:
    """See the file's head. One thread uses it, except `slots`, which anyone may read."""

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
        self.results = self._context.socket(zmq.PULL)
        self.results.setsockopt(zmq.MAXMSGSIZE, MESSAGE_BYTES_MAX)
        local.for_us_alone(self.results)
        self.results.bind(local.endpoint(self._token))
        self.poller.register(self.results, zmq.POLLIN)
        self.given_up: dict[str, str] = {}  # keys of workers elsewhere that may not join again -> why
        self._joins: dict[str, collections.deque[float]] = {}  # when the last ones of each key joined
        self.slots = [Slot(number) for number in range(terms.workers)]
        self.listener: Any = None
        if terms.listen:
            try:
                self._listen()
            except BaseException:
                self.close()
                raise

    def start(self) -> None:
        for slot in self.slots:
            self.fill(slot)

    def peers(self) -> list[Peer]:
        """The run's own workers, local and remote."""
        return [slot.peer for slot in self.slots if slot.peer is not None and slot.peer.streams is None]

    def providers(self, key: str = "", stream: int | None = None) -> list[Peer]:
        """The peers of the provider with this key that know the services of this stream, or of all providers."""
        return [
            peer
            for slot in self.slots
            if (peer := slot.peer) is not None
            and peer.streams is not None
            and key in ("", peer.key)
            and (stream is None or stream in peer.streams)
        ]

    @property
    def any_on_this_machine(self) -> bool:
        return any(slot.peer is not None for slot in self.slots if not slot.elsewhere)

    def of_key(self, key: str) -> list[Peer]:
        """The peers with this CURVE key."""
        return [peer for slot in self.slots if (peer := slot.peer) is not None and peer.elsewhere and peer.key == key]

    def of(self, header: envelope.Header, key: str | None) -> Peer | None:
        """The sender of a message: the present incarnation of a slot, with its own key; None for anyone else."""
        if header.slot >= len(self.slots):
            return None
        peer = self.slots[header.slot].peer
        if peer is None or peer.incarnation != header.incarnation or peer.key != (key or ""):
            return None
        return peer

    def fill(self, slot: Slot) -> None:
        """Starts a local worker."""
        terms = self._terms
        peer = Peer(
            slot.number,
            terms.credit * terms.segment_bytes,
            slot.tally,
            clock_from_s=time.monotonic(),
            leases_max=terms.leases_max,
        )
        regions = None
        if any(terms.changes):  # a batch needs one region, and with failed attempts another
            regions = Arena(2 * self._arena.chunk_count + 2, region_bytes(self._arena), 1, shared=True)
        setup = {"token": self._token, "chains": terms.chains, "parsing": terms.parsing}
        launched = self._launched.pop() if self._launched else local.launch()
        local.start(peer, launched, self._arena, regions, setup)
        slot.peer = peer
        self.poller.register(peer.pidfd, zmq.POLLIN)
        self._counters.bump("workers.started")

    def welcome(self, peer: Peer) -> None:
        """Connects to a peer that is ready."""
        peer.clock_from_s = time.monotonic()
        if peer.push is None:
            peer.push = self._context.socket(zmq.PUSH)
            peer.push.setsockopt(zmq.IMMEDIATE, 1)
            peer.push.setsockopt(zmq.SNDHWM, LEASES_MAX)
            peer.push.connect(local.endpoint(self._token, peer.incarnation))
        peer.ready = True

    def lose(self, slot: Slot, restart: bool) -> Peer:
        """Removes a peer, ends its process, and fills its slot again if that makes sense. The caller sends its leases
        again.
        """
        peer = slot.peer
        assert peer is not None
        slot.peer = None
        slot.fruitless = 0 if peer.results else slot.fruitless + 1
        self._close(peer)
        self._counters.bump("workers.lost")
        if restart and not slot.elsewhere and slot.fruitless <= self._terms.restarts_max:
            self.fill(slot)
        return peer

    def dismiss(self, slot: Slot) -> None:
        """Tells a remote worker without segments to stop."""
        peer, slot.peer = slot.peer, None
        assert peer is not None
        self._dismiss(peer)
        self._close(peer)

    def block(self, peer: Peer) -> None:
        """Waits until the peer's full socket takes messages again."""
        assert peer.push is not None
        peer.blocked = True
        self.poller.register(peer.push, zmq.POLLOUT)

    def unblock(self, peer: Peer) -> None:
        assert peer.push is not None
        peer.blocked = False
        self.poller.unregister(peer.push)

    def close(self) -> None:
        """Ends all workers and closes all sockets."""
        for slot in self.slots:
            if slot.peer is not None:
                if slot.elsewhere:
                    self.dismiss(slot)
                else:
                    self._close(slot.peer)
                    slot.peer = None
        for process, lifeline in self._launched:
            local.stop(process, lifeline)
        if self.listener is not None:
            self.listener.close()
        self.results.close(linger=0)
        self._context.term()  # waits at most a second until remote workers have got the message to stop

    def _close(self, peer: Peer) -> None:
        if peer.blocked:
            self.unblock(peer)
        if peer.monitor is not None:
            self.poller.unregister(peer.monitor)
            assert peer.push is not None
            peer.push.disable_monitor()
            peer.monitor.close(linger=0)  # otherwise the context would not end while anything refers to the peer
            peer.monitor = None
        if peer.push is not None:
            peer.push.close(linger=1000 if peer.dismissed else 0)
        if peer.pidfd >= 0:
            self.poller.unregister(peer.pidfd)
            os.close(peer.pidfd)
            peer.pidfd = -1
        if peer.process is not None:
            local.stop(peer.process, peer.lifeline)

    # Remote workers.

    def _listen(self) -> None:
        from streamcore.disperse.remote import Listener  # only here: its authenticator costs start-up time

        terms = self._terms
        message_bytes_max = 2 * region_bytes(self._arena)
        self.listener = Listener(
            self._context, terms.listen, terms.key, terms.worker_keys, message_bytes_max, self._may_join, self._arena,
            terms.lease_ms,
        )  # fmt: skip
        self.poller.register(self.listener.join_socket, zmq.POLLIN)
        self.poller.register(self.listener.results, zmq.POLLIN)

    def admit(self) -> None:
        """Lets a worker join that asks to."""
        setup = {
            "chunk": [self._arena.data_bytes_max, self._arena.rows_max],
            "region_bytes": region_bytes(self._arena),
            "parsing": self._terms.parsing,
        }
        peer = self.listener.join(self._place, self._chains_for, setup)
        if peer is None:
            return
        if peer.push is None:  # there was no port or descriptor left for it
            self.slots[peer.slot].peer = None
            self._counters.bump("workers.refused")
            return
        self.poller.register(peer.monitor, zmq.POLLIN)
        self._counters.bump("workers.started")

    def _may_join(self, key: str) -> bool:
        """Whether this is the key of an expected provider that is not suspended."""
        return self._routes is not None and bool(self._routes.streams_of(key))

    def _chains_for(self, peer: Peer) -> list[list[Any]]:
        """Each stream's services; for a provider only those that its agreement covers."""
        if peer.streams is None:
            return self._terms.chains
        return [chain if stream in peer.streams else [] for stream, chain in enumerate(self._terms.chains)]

    def _refused(self, key: str) -> str:
        """Why a worker with this key may not join now; "" if it may, which is noted."""
        if self._routes is not None and self._routes.is_provider(key) and not self._may_join(key):
            return "the pipeline has no agreement with this provider"
        if key in self.given_up:
            return f"the pipeline has given this worker's key up: {self.given_up[key]}"
        if len(self.of_key(key)) >= PLACES_PER_KEY:
            return f"{PLACES_PER_KEY} workers have joined with this key, as many as may"
        if len(self.slots) >= SLOTS_MAX and all(slot.peer is not None for slot in self.slots if slot.elsewhere):
            return "the pipeline accepts no more workers"
        now_s = time.monotonic()
        joins = self._joins.setdefault(key, collections.deque(maxlen=JOINS_PER_KEY))
        if len(joins) == JOINS_PER_KEY and now_s - joins[0] < JOINS_S:
            return f"{JOINS_PER_KEY} workers have joined with this key in the last {JOINS_S:.0f} s"
        joins.append(now_s)
        return ""

    def _place(self, key: str) -> Peer | str:
        """A place for a worker with this key, or why there is none."""
        if why := self._refused(key):
            self._counters.bump("workers.refused")
            return why
        free = next((s for s in self.slots if s.elsewhere and s.peer is None), None)
        if free is None:
            free = Slot(len(self.slots), elsewhere=True)
            self.slots.append(free)
        terms = self._terms
        free.peer = Peer(
            free.number,
            terms.credit * terms.segment_bytes,
            free.tally,
            key=key,
            elsewhere=True,
            clock_from_s=time.monotonic(),
            leases_max=terms.leases_max,
        )
        if self._routes is not None and self._routes.is_provider(key):
            free.peer.streams = self._routes.streams_of(key)
            free.peer.lease_ms = self._routes.lease_ms(key)
        return free.peer

    def gone(self, peer: Peer) -> bool:
        """Whether the monitor of a remote worker reports the end of its connection."""
        from zmq.utils.monitor import recv_monitor_message  # only here: it loads asyncio

        while peer.monitor is not None and peer.monitor.poll(0):
            if recv_monitor_message(peer.monitor)["event"] == zmq.EVENT_DISCONNECTED:
                return True
        return False

    def _dismiss(self, peer: Peer) -> None:
        assert peer.push is not None
        try:
            peer.push.send(envelope.pack(envelope.STOP, peer.slot, peer.incarnation), zmq.NOBLOCK)
            peer.dismissed = True
        except zmq.Again:
            pass  # it is gone


def region_bytes(arena: Arena) -> int:
    """The size of a region: room for the changes of services in all segments of one batch."""
    return 2 * arena.data_bytes_max + RESULT_BYTES_PER_PACKET * arena.rows_max
