"""A segment that has no accepted result yet: its state, the attempt, and what has gone wrong so far.

backlog.py has the queues of those that no peer has; peer.py which ones a peer has.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from streamcore.core.packets import Result, Segment
from streamcore.disperse.states import SEGMENT

Identity = str | int  # Peer.identity: a CURVE key, or a slot of this machine


@dataclass(slots=True, eq=False)
class History:
    """What has happened to a segment since it was first sent."""

    failures: int = 0  # the sum of backlog.FAULT and KILLED
    failed_by: frozenset[Identity] = frozenset()
    avoid: Identity = -1  # who had it last
    others_until_s: float = 0.0  # until then only a worker that has not failed it may have it; 0: any
    reason: str = ""
    in_house: bool = False  # only for the run's own workers: a provider failed it, or it is an audit
    on_this_machine: bool = False  # only for workers on this machine: it is an audit
    claimed: Result | None = None  # audited: the result of the one that is audited

    @property
    def has_failed_enough(self) -> bool:
        """Whether others than one worker elsewhere, which may be the cause, have failed it."""
        return len(self.failed_by) > 1 or any(isinstance(each, int) for each in self.failed_by)


NOTHING_YET = History()  # of all segments that nothing has happened to; never changed


class Pending:
    """One object for a segment from `add` to its end. While a peer has it, it is that peer's lease. The loop's are
    `part`, where its result belongs, and `digest`, which the result must return.
    """

    __slots__ = (
        "attempt", "byte_count", "digest", "history", "number", "part", "segment", "sent_s", "since_s", "state",
        "stream",
    )  # fmt: skip

    def __init__(self, segment: Segment, since_s: float, event: str) -> None:
        self.segment = segment
        self.number = segment.number
        self.stream = segment.stream
        self.byte_count = segment.byte_count
        self.attempt = 1
        self.since_s = since_s  # when it was submitted
        self.sent_s = 0.0
        self.history = NOTHING_YET
        self.state = SEGMENT["new", event]
        self.part: Any = None
        self.digest = b""

    def move(self, event: str) -> None:
        self.state = SEGMENT[self.state, event]

    def note(self) -> History:
        """Its history, to be changed."""
        if self.history is NOTHING_YET:
            self.history = replace(NOTHING_YET)
        return self.history
