"""What the machine wants done: the loop (dispatcher.py) carries these out in their order."""

from __future__ import annotations

from typing import Any, NamedTuple

from streamcore.core.packets import Segment
from streamcore.disperse.peer import Peer
from streamcore.disperse.pending import Pending


class Send(NamedTuple):
    """One message of work. What cannot be sent now comes back with `Machine.not_sent`, before the next `decide`."""

    peer: Peer
    pending: list[Pending]


class Deliver(NamedTuple):
    """Accepted results leave."""

    results: list[Any]


class DeadLetter(NamedTuple):
    """A segment leaves without a result."""

    segment: Segment
    reason: str


class Unprocessed(NamedTuple):
    """A segment that no worker has had leaves as it is."""

    segment: Segment
    reason: str


class Start(NamedTuple):
    """A process is to be started for this peer."""

    peer: Peer


class Kill(NamedTuple):
    """This peer's process is ended, its connection closed."""

    peer: Peer


class Dismiss(NamedTuple):
    """This peer, which has no segments, is told to stop, and its connection closed."""

    peer: Peer


class Withdraw(NamedTuple):
    """This key lied: those of its results that have not left are taken back, and come with `Machine.withdrawn`. The
    results of earlier actions must be where they can be taken back."""

    key: str


class Fail(NamedTuple):
    """No worker is left for the rest and none can be expected: the run ends with this reason."""

    reason: str


Action = Send | Deliver | DeadLetter | Unprocessed | Start | Kill | Dismiss | Withdraw | Fail


class Actions:
    """What is to be done, in order, since the last `take`."""

    def __init__(self) -> None:
        self._list: list[Action] = []

    def add(self, action: Action) -> None:
        self._list.append(action)

    def deliver(self, result: Any) -> None:
        """Adds a result to those that leave together."""
        last = self._list[-1] if self._list else None
        if type(last) is Deliver:
            last.results.append(result)
        else:
            self._list.append(Deliver([result]))

    def take(self) -> list[Action]:
        taken, self._list = self._list, []
        return taken
