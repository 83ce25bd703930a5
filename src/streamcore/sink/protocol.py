"""The protocol of a sink, as the run uses it. opening.py lists the sinks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from streamcore.core.counters import Counters
from streamcore.core.packets import Arena, CaptureForm, Interface, Outgoing


class Place(NamedTuple):
    """A place at which an output can be truncated and continued: its size, and the sink's state there."""

    size: int  # bytes: whole records
    described: int  # pcapng: interfaces that have their block
    link_type: int  # pcap: the header's


class Sink(Protocol):
    """The second stream. One thread uses it; `stop` may be called from any. Everything but `stop` raises SinkError."""

    @property
    def place(self) -> Place | None:
        """The place at which the output could be truncated and continued; None if there is none now, or never."""

    @property
    def metadata_removed(self) -> int:
        """Options of blocks that the form asked for to be left out, so far."""

    def write(self, outgoing: Outgoing) -> tuple[int, int]:
        """Write packets: (packets, captured bytes) that were written. What is not is counted by its reason."""

    def flush(self) -> None:
        """Writes the gathered packets, because no more may follow for a while."""

    def stop(self) -> None:
        """A `write` that waits returns soon. Returns at once."""

    def close(self) -> None:
        """Writes the rest and closes the output."""

    def abandon(self) -> None:
        """Closes the output after an error. The packets written before stay valid."""


@dataclass(frozen=True, slots=True)
class SinkNeeds:
    """What a run hands to a sink when it is opened. One that needs rights is opened before the first stream: it gets no
    interfaces and no form.
    """

    counters: Counters
    arena: Arena  # its first page tells the workers which output to cut where, if the main process is killed
    interfaces: Sequence[Interface] = field(default_factory=list)  # of the first stream; they may grow
    form: CaptureForm | None = None
    place: Place | None = None  # from where an output that is there goes on
    on_last: Callable[[], None] = lambda: None  # called when no more packets are wanted
