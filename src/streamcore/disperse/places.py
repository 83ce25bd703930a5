"""The slots of a run and the peers that fill them: who may join, who is given up, which process is started again.

scheduler.py chooses among the peers. No sockets, no processes, no clock: workers.py has those.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from dataclasses import dataclass, field

from streamcore.core.counters import Counters
from streamcore.core.routes import Routes
from streamcore.disperse.actions import Actions, Dismiss, Kill, Start
from streamcore.disperse.peer import LEASES_MAX, Peer, Tally
from streamcore.disperse.pending import Pending
from streamcore.disperse.states import PEER
from streamcore.disperse.terms import Terms

SLOTS_MAX = 256
PLACES_PER_KEY = 64  # of these, for the workers with one key
JOINS_PER_KEY, JOINS_S = 128, 60.0  # how many may join with one key in that time


@dataclass(slots=True)
class Slot:
    """A numbered place for one worker. Its counts cover all the workers that have filled it."""

    number: int
    elsewhere: bool = False
    tally: Tally = field(default_factory=Tally)
    peer: Peer | None = None
    fruitless: int = 0  # consecutive incarnations without a result


class Places:
    """One thread uses it, except `slots`, which anyone may read. `own`: the run's own workers, local and remote;
    `here`: those of them that are on this machine; `all`: providers', too."""

    def __init__(self, terms: Terms, counters: Counters, routes: Routes | None, actions: Actions) -> None:
        self._terms = terms
        self._counters = counters
        self._routes = routes
        self._actions = actions
        self._joins: dict[str, collections.deque[float]] = {}  # when the last ones of each key joined
        self.slots = [Slot(number) for number in range(terms.workers)]
        self.given_up: dict[str, str] = {}  # keys of workers elsewhere that may not join again -> why
        self.struck: set[str] = set()  # keys that are not known any more
        self.all: list[Peer] = []
        self.own: list[Peer] = []
        self.here: list[Peer] = []

    def providers(self, key: str = "", stream: int | None = None) -> list[Peer]:
        """The peers of the provider with this key that know the services of this stream, or of all providers."""
        return self._some(
            lambda peer: (
                peer.streams is not None and key in ("", peer.key) and (stream is None or stream in peer.streams)
            )
        )

    def of_key(self, key: str) -> list[Peer]:
        """The peers with this CURVE key."""
        return self._some(lambda peer: peer.elsewhere and peer.key == key)

    def fill(self, slot: Slot, now_s: float) -> None:
        """Has a process started for a slot of this machine."""
        self._actions.add(Start(self._new_peer(slot, now_s)))

    def admit(self, key: str, now_s: float) -> Peer | str:
        """A place for a worker elsewhere with this key, or why there is none."""
        if why := self._refused(key, now_s):
            self._counters.bump("workers.refused")
            return why
        free = next((each for each in self.slots if each.elsewhere and each.peer is None), None)
        if free is None:
            free = Slot(len(self.slots), elsewhere=True)
            self.slots.append(free)
        return self._new_peer(free, now_s, key)

    def turn_away(self, peer: Peer) -> None:
        """There was no port or descriptor left for a peer that was admitted."""
        self._remove(peer)
        self._counters.bump("workers.refused")

    def lose(self, peer: Peer, now_s: float, restart: bool = True) -> list[Pending]:
        """Removes a peer, has its process ended, and its slot filled again if that makes sense. Returns what it had."""
        slot = self._remove(peer)
        slot.fruitless = 0 if peer.results else slot.fruitless + 1
        self._actions.add(Kill(peer))
        self._counters.bump("workers.lost")
        if restart and not slot.elsewhere and slot.fruitless <= self._terms.restarts_max:
            self.fill(slot, now_s)
        return peer.take_leases()

    def dismiss(self, peer: Peer) -> None:
        """Has a peer without segments told to stop."""
        assert not peer.leases
        self._remove(peer)
        self._actions.add(Dismiss(peer))

    def _refused(self, key: str, now_s: float) -> str:
        """Why a worker with this key may not join now; "" if it may, which is noted."""
        routes = self._routes
        if routes is not None and routes.is_provider(key) and not routes.streams_of(key):
            return "the pipeline has no agreement with this provider"
        if key in self.given_up:
            return f"the pipeline has given this worker's key up: {self.given_up[key]}"
        if key in self.struck:
            return "the pipeline does not know this key any more"
        if len(self.of_key(key)) >= PLACES_PER_KEY:
            return f"{PLACES_PER_KEY} workers have joined with this key, as many as may"
        if len(self.slots) >= SLOTS_MAX and all(slot.peer is not None for slot in self.slots if slot.elsewhere):
            return "the pipeline accepts no more workers"
        joins = self._joins.setdefault(key, collections.deque(maxlen=JOINS_PER_KEY))
        if len(joins) == JOINS_PER_KEY and now_s - joins[0] < JOINS_S:
            return f"{JOINS_PER_KEY} workers have joined with this key in the last {JOINS_S:.0f} s"
        joins.append(now_s)
        return ""

    def _new_peer(self, slot: Slot, now_s: float, key: str = "") -> Peer:
        terms, routes = self._terms, self._routes
        peer = Peer(
            slot.number,
            terms.credit * terms.segment_bytes,
            slot.tally,
            clock_from_s=now_s,
            lease_s=terms.lease_ms / 1000,
            leases_max=terms.leases_max,
            adapts=not slot.elsewhere and terms.leases_max >= LEASES_MAX,
            elsewhere=slot.elsewhere,
            key=key,
            state=PEER["new", "started"],
        )
        if key and routes is not None and routes.is_provider(key):
            peer.streams = routes.streams_of(key)
            peer.lease_s = (routes.lease_ms(key) or terms.lease_ms) / 1000
        slot.peer = peer
        self._list()
        return peer

    def _remove(self, peer: Peer) -> Slot:
        slot = self.slots[peer.slot]
        assert slot.peer is peer
        slot.peer = None
        peer.move("gone")
        self._list()
        return slot

    def _list(self) -> None:
        """Lists the present peers, so that nobody has to look at every slot for every segment."""
        self.all = [slot.peer for slot in self.slots if slot.peer is not None]
        self.own = [peer for peer in self.all if peer.streams is None]
        self.here = [peer for peer in self.own if not peer.elsewhere]

    def _some(self, which: Callable[[Peer], bool]) -> list[Peer]:
        return [peer for peer in self.all if which(peer)]
