"""The protocol by which the dispatcher asks who runs a stream's segments: the run's own workers, or a provider.

subcontract/broker.py implements it. It handles needs, prices and agreements, of which the dispatcher knows nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from streamcore.core.packets import Segment


class Route(NamedTuple):
    """Where a stream's segments go now."""

    kind: str  # "in-house", "provider", "wait" (the broker is still asking), "pass" or "refuse" (nobody runs them)
    key: str = ""  # the provider's CURVE public key
    helps: bool = False  # the provider takes only segments that the run's own workers have no time for


IN_HOUSE = Route("in-house")
WAIT = Route("wait")


class Routes(Protocol):
    """The thread that takes results calls these methods. They return at once, without input or output.

    limited: the streams with a maximum rate. followed: those, and others for which the caller calls `sent`. Neither
    changes during a run.
    """

    limited: frozenset[int]
    followed: frozenset[int]

    def of(self, stream: int) -> Route:
        """Where the stream's segments go now."""

    def streams_of(self, key: str) -> frozenset[int]:
        """The streams that a provider with this key may see; empty if it has no agreement with us or is suspended."""

    def is_provider(self, key: str) -> bool:
        """Whether this key has ever been a provider's. Such a key can never join as an ordinary worker."""

    def lease_ms(self, key: str) -> int:
        """How long this provider may take for a segment."""

    def join_s(self, key: str) -> float:
        """How long segments wait for this provider to join."""

    def pause_s(self, stream: int) -> float:
        """Seconds until the maximum rate lets the stream's next segment go to its provider."""

    def is_possible_in_house(self, stream: int) -> bool:
        """Whether our own workers can run the stream's services."""

    def came(self, byte_counts: Mapping[int, int]) -> None:
        """Segments were submitted, perhaps for a provider: the bytes of each stream."""

    def sent(self, stream: int, byte_count: int) -> None:
        """A segment of a followed stream was sent to its provider."""

    def done(self, key: str, segment: Segment, seconds: float) -> bool:
        """A provider's result arrived and passed validation. Returns True to audit it in-house."""

    def audited(self, stream: int, key: str, same: bool) -> None:
        """An audit is finished: whether both results are the same."""

    def failed(self, key: str, reason: str) -> None:
        """The provider failed and is suspended. Its later results are refused."""

    def waited(self, stream: int, seconds: float) -> None:
        """A segment of this stream has waited so long for the run's own workers."""
