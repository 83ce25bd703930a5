"""Who runs a stream's segments, as the dispatcher asks it: our own workers, or the provider that holds an agreement.

Only the questions stand here. Whoever answers them (subcontract/broker.py) knows of needs, prices and agreements; the
dispatcher does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from streamcore.core.packets import Segment


class Route(NamedTuple):
    """Where a stream's segments go now."""

    kind: str  # "in-house", "provider", "wait" (an answer is under way), "pass" or "refuse" (nobody runs them)
    key: str = ""  # of the provider: its CURVE public key
    helps: bool = False  # the provider takes only what our own workers cannot


IN_HOUSE = Route("in-house")
WAIT = Route("wait")


class Routes(Protocol):
    """Called by the thread that takes results; answers at once, without input or output.

    limited: the streams with a maximum rate; followed: those, and others for which `sent` is called. Both are known
    from the beginning.
    """

    limited: frozenset[int]
    followed: frozenset[int]

    def of(self, stream: int) -> Route:
        """Where the stream's segments go now."""

    def streams_of(self, key: str) -> frozenset[int]:
        """The streams that a provider with this key may see; empty: it is none of ours, or it was suspended."""

    def is_provider(self, key: str) -> bool:
        """Whether this key has ever been a provider's: it never becomes a plain worker."""

    def lease_ms(self, key: str) -> int:
        """How long it may take for a segment."""

    def join_s(self, key: str) -> float:
        """How long segments wait for it when it has not joined."""

    def pause_s(self, stream: int) -> float:
        """Seconds until the maximum rate lets the stream's next segment go to its provider."""

    def is_possible_in_house(self, stream: int) -> bool:
        """Whether our own workers can run the stream's services."""

    def came(self, byte_counts: Mapping[int, int]) -> None:
        """Segments came, perhaps for a provider: so many bytes of each stream."""

    def sent(self, stream: int, byte_count: int) -> None:
        """A segment of a followed stream was sent to its provider."""

    def done(self, key: str, segment: Segment, seconds: float) -> bool:
        """Its result came in and passed the checks so far. True: process it again in-house, and compare."""

    def audited(self, stream: int, key: str, same: bool) -> None:
        """What the comparison gave."""

    def failed(self, key: str, reason: str) -> None:
        """The provider is suspended: from now on its results are refused."""

    def waited(self, stream: int, seconds: float) -> None:
        """How long a segment of this stream has been waiting for our own workers."""
