"""The run's own workers on other machines, each known by its CURVE key: audits their results, and gives up the one that
fails what others can do, that lies, or that sends what no worker sends.

places.py bounds how many join under one key; providers.py does the same for providers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from streamcore.core.counters import Counters
from streamcore.core.packets import Result
from streamcore.core.text import shown
from streamcore.disperse.actions import Actions, Withdraw
from streamcore.disperse.backlog import Backlog
from streamcore.disperse.peer import Peer
from streamcore.disperse.pending import Identity, Pending
from streamcore.disperse.places import Places

FAILED_MAX = 3  # segments that a worker may fail and others do,
FAILED_SHARE = 0.1  # and the share of its segments that these may be

Same = Callable[[Result, Result], bool]  # whether two results of one segment are the same


@dataclass(slots=True)
class Record:
    """What the workers with one key have done."""

    accepted: int = 0
    failed: int = 0  # segments that another then did


class Elsewhere:
    """deterministic: of each stream, whether its results can be compared; audit: the share of the segments that is."""

    def __init__(
        self,
        places: Places,
        backlog: Backlog,
        counters: Counters,
        actions: Actions,
        deterministic: Sequence[bool],
        audit: float,
        draw: Callable[[], float],
        same: Same,
    ) -> None:
        self._places = places
        self._backlog = backlog
        self._counters = counters
        self._actions = actions
        self._deterministic = deterministic
        self._audit = audit
        self._draw = draw
        self._same = same
        self._records: dict[str, Record] = {}  # by key; only known keys can join
        self._lied: dict[str, int] = {}  # keys that an audit caught -> their results that counted until then
        self.lies: list[str] = []  # one line for each of them

    def is_audited(self, peer: Peer, pending: Pending, result: Result) -> bool:
        """Whether this result of a worker elsewhere waits for one of this machine, which is requested."""
        if pending.history.claimed is not None or not self._audit or not self._deterministic[pending.stream]:
            return False
        if not self._places.here or self._draw() >= self._audit:
            return False
        self._backlog.audit(pending, result, on_this_machine=True)
        self._counters.bump("workers.audited")
        return True

    def compare(self, claimed: Result, result: Result, now_s: float) -> None:
        """Compares this machine's result of an audited segment with the one from elsewhere."""
        if self._same(claimed, result):
            return
        key = claimed.provider
        self._counters.bump("workers.audits_failed")
        self._backlog.unclaim(key)
        if key in self._places.given_up:
            return
        self._lied[key] = self._record(key).accepted
        self.give_up(key, "an audit found another result", now_s)
        self._actions.add(Withdraw(key))

    def withdrawn(self, key: str, count: int) -> None:
        """So many results of this key were taken back before they left."""
        if key in self._lied:
            self.lies.append(
                f"an audit found another result than that of the worker with key {shown(key)}: "
                f"{self._lied.pop(key) - count:,} of its results were not audited and had left"
            )

    def accepted(self, peer: Peer, pending: Pending, now_s: float) -> None:
        """Notes an accepted result. Whoever failed that segment before has failed what others can do."""
        if peer.elsewhere:
            self._record(peer.key).accepted += 1
        for identity in pending.history.failed_by - {peer.identity}:
            self._failed(identity, pending.history.reason, now_s)

    def _failed(self, identity: Identity, reason: str, now_s: float) -> None:
        if isinstance(identity, int):
            return  # a process of this machine: restarts_max bounds it
        record = self._record(identity)
        record.failed += 1
        if record.failed >= FAILED_MAX and record.failed > FAILED_SHARE * record.accepted:
            self.give_up(identity, f"it failed {record.failed} segments that others did: {reason}", now_s)

    def give_up(self, key: str, reason: str, now_s: float) -> None:
        """Refuses this key from now on. Its segments go to others."""
        if key in self._places.given_up:
            return
        self._places.given_up[key] = shown(reason)
        self._counters.bump("workers.given_up")
        self.leave_out(key, now_s)

    def leave_out(self, key: str, now_s: float) -> None:
        """Its workers lose their leases at once, which is not their segments' fault."""
        for peer in self._places.of_key(key):
            for pending in self._places.lose(peer, now_s, restart=False):
                self._backlog.resend(pending, key, now_s)

    def _record(self, key: str) -> Record:
        return self._records.setdefault(key, Record())
