"""The run's own workers on other machines, each known by its CURVE key: audits their results, and gives up the one that
fails what others can do, that lies, or that sends what no worker sends.

workers.py bounds how many join under one key; providers.py does the same for providers.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from streamcore.core.counters import Counters
from streamcore.core.packets import Result, Segment
from streamcore.core.text import shown
from streamcore.disperse._results import same_result
from streamcore.disperse.backlog import Attempt, Backlog, Identity
from streamcore.disperse.peer import Peer
from streamcore.disperse.workers import Workers

FAILED_MAX = 3  # segments that a worker may fail and others do,
FAILED_SHARE = 0.1  # and the share of its segments that these may be
DRAW = secrets.SystemRandom()


@dataclass(slots=True)
class Record:
    """What the workers with one key have done."""

    accepted: int = 0
    failed: int = 0  # segments that another then did


class Elsewhere:
    """Used by the thread that takes results. deterministic: of each stream, whether its results can be compared; audit:
    the share of the segments that is; `withdraw`, called with the key of a worker that lied, returns the segments whose
    results have not left yet.
    """

    def __init__(
        self,
        workers: Workers,
        backlog: Backlog,
        counters: Counters,
        deterministic: Sequence[bool],
        audit: float,
        draw: Callable[[], float] = DRAW.random,
    ) -> None:
        self._workers = workers
        self._backlog = backlog
        self._counters = counters
        self._deterministic = deterministic
        self._audit = audit
        self._draw = draw
        self._records: dict[str, Record] = {}  # by key; only known keys can join
        self.withdraw: Callable[[str], list[Segment]] = lambda _key: []
        self.lies: list[str] = []  # one line for each worker that an audit caught

    def is_audited(self, peer: Peer, attempt: Attempt, result: Result) -> bool:
        """Whether this result of a worker elsewhere waits for one of this machine, which is requested."""
        if attempt.claimed is not None or not self._audit or not self._deterministic[result.segment.stream]:
            return False
        if not self._workers.any_on_this_machine or self._draw() >= self._audit:
            return False
        self._backlog.audit(attempt, result, on_this_machine=True)
        self._counters.bump("workers.audited")
        return True

    def compare(self, claimed: Result, result: Result) -> None:
        """Compares this machine's result of an audited segment with the one from elsewhere."""
        if same_result(claimed, result):
            return
        key = claimed.provider
        self._counters.bump("workers.audits_failed")
        if key in self._workers.given_up:
            return
        accepted = self._record(key).accepted
        withdrawn = self.give_up(key, "an audit found another result", lied=True)
        self.lies.append(
            f"an audit found another result than that of the worker with key {shown(key)}: {accepted - withdrawn:,} of "
            "its results were not audited and had left"
        )

    def accepted(self, peer: Peer, attempt: Attempt) -> None:
        """Notes an accepted result. Whoever failed that segment before has failed what others can do."""
        if peer.elsewhere:
            self._record(peer.key).accepted += 1
        for identity in attempt.failed_by - {peer.identity}:
            self._failed(identity, attempt.reason)

    def _failed(self, identity: Identity, reason: str) -> None:
        if isinstance(identity, int):
            return  # a process of this machine: restarts_max bounds it
        record = self._record(identity)
        record.failed += 1
        if record.failed >= FAILED_MAX and record.failed > FAILED_SHARE * record.accepted:
            self.give_up(identity, f"it failed {record.failed} segments that others did: {reason}")

    def give_up(self, key: str, reason: str, lied: bool = False) -> int:
        """Refuses this key from now on. Its segments go to others; if it lied, also those whose results have not left
        yet, which are counted.
        """
        if key in self._workers.given_up:
            return 0
        self._workers.given_up[key] = shown(reason)
        self._counters.bump("workers.given_up")
        for peer in self._workers.of_key(key):
            self._workers.lose(self._workers.slots[peer.slot], restart=False)
            for number in peer.leases:
                self._backlog.resend(self._backlog.attempts[number], key)
        withdrawn = self.withdraw(key) if lied else []
        for segment in withdrawn:
            self._backlog.add_again(segment)
        return len(withdrawn)

    def _record(self, key: str) -> Record:
        return self._records.setdefault(key, Record())
