"""The protocol of a source, as the run uses it. opening.py lists the sources."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from streamcore.core.counters import Counters
from streamcore.core.packets import Arena, CaptureForm, Interface, PacketBatch


class Source(Protocol):
    """The first stream. One thread iterates and calls `pressed`; the other methods may be called from any."""

    form: CaptureForm  # how it is written, or would be
    interfaces: list[Interface]  # so far: it may grow

    @property
    def damage(self) -> object | None:
        """Where and why the stream ended early, in words by str(); None: it did not."""

    @property
    def blocks_skipped(self) -> int:
        """pcapng blocks so far that hold neither packets nor what describes them."""

    def __iter__(self) -> Iterator[PacketBatch]:
        """The packets in their order, numbered without gaps. Raises SourceError."""

    def progress(self) -> tuple[int, int | None]:
        """(bytes read so far, how many there are or None where nobody knows)."""

    def pressed(self) -> None:
        """The feeder calls this from time to time while the last batch must wait because workers are behind."""

    def stop(self) -> None:
        """End the iteration soon, also one that waits. Returns at once."""

    def close(self) -> None:
        """Ends the iteration and closes what it opened. Delivered batches stay valid."""


@dataclass(frozen=True, slots=True)
class SourceNeeds:
    """What a run hands to a source when it is opened."""

    arena: Arena  # chunks are taken from it
    counters: Counters
    compile: Callable[[int, str], list[Any]] | None  # (link type, interface) -> socket filter; raises UsageError
    pass_waiting: Callable[[], None]  # has waiting packets passed unprocessed (overload = "pass")
