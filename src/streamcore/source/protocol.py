"""The protocol of a source, as the run uses it. opening.py lists the sources."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from streamcore.core.capture_form import Blocks, CaptureForm, Interface
from streamcore.core.counters import Counters
from streamcore.core.packets import Arena, PacketBatch
from streamcore.headers import UdpPorts

# What becomes of checksums and segments that live packets leave to hardware: the packets are given on as they are,
# their checksums are completed, or they are also cut into segments.
Offloads = Literal["carry", "complete", "cut"]


class Source(Protocol):
    """The first stream. One thread iterates and calls `pressed`; the other methods may be called from any."""

    form: CaptureForm  # its format, or for a live source the format to write
    interfaces: list[Interface]  # so far; the list may grow
    blocks: Blocks | None  # what it says besides its packets, if a sink takes it
    shift_ns: int  # what was added to the times of the last batch that it gave
    filtered: bool  # every packet matches the run's expression already

    @property
    def damage(self) -> object | None:
        """Where and why the stream ended early (str() gives the words); None if it did not."""

    @property
    def times_clamped(self) -> int:
        """The number of packets so far whose time does not fit 64-bit nanoseconds."""

    @property
    def blocks_skipped(self) -> int:
        """The number of pcapng blocks so far that are neither packets, interfaces nor sections."""

    def __iter__(self) -> Iterator[PacketBatch]:
        """The packets in order, numbered without gaps. Raises SourceError."""

    def progress(self) -> tuple[int, int | None]:
        """(bytes read so far, the total or None if unknown)."""

    def refresh(self) -> None:
        """Counts what others, such as the kernel, have counted since. May be called from any thread."""

    def pressed(self) -> None:
        """The feeder calls this from time to time while the last batch must wait because workers are behind."""

    def stop(self) -> None:
        """Ends the iteration soon, even if it waits. Returns at once."""

    def close(self) -> None:
        """Ends the iteration and closes what it opened. Delivered batches stay valid."""


@dataclass(frozen=True, slots=True)
class SourceNeeds:
    """What a run passes to a source when it opens it."""

    arena: Arena  # the source takes chunks from it
    counters: Counters
    compile: Callable[[int, str], list[Any] | None] | None  # (link type, interface) -> socket filter; raises UsageError
    pass_waiting: Callable[[], None]  # forwards waiting packets unprocessed (overload = "pass")
    offloads: Offloads = "complete"
    ports: UdpPorts | None = None  # of tunnels whose segments are cut; None: the standard ones
