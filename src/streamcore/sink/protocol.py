"""The protocol of a sink, as the run uses it. opening.py lists the sinks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from streamcore.core.capture_form import Blocks, CaptureForm, Interface
from streamcore.core.counters import Counters
from streamcore.core.packets import Outgoing


class OutputNote(Protocol):
    """Where a sink says which file is whole up to which byte: the arena, whose first page the workers read."""

    def set_output_path(self, path: bytes) -> None: ...
    def set_committed_bytes(self, size: int) -> None: ...


class Place(NamedTuple):
    """A place at which an output can be truncated and continued: its size, and the sink's state there."""

    size: int  # bytes: whole records
    described: int  # pcapng: interfaces that have their block
    link_type: int  # pcap: the header's
    blocks: int = 0  # pcapng: blocks without packets of the first stream that it covers


class Sink(Protocol):
    """The second stream. One thread uses it; `stop` may be called from any. Everything but `stop` raises SinkError."""

    @property
    def name(self) -> str:
        """What it writes to, for people: the file's name as it was found free, or the interface."""

    @property
    def place(self) -> Place | None:
        """The place at which the output could be truncated and continued; None if there is none now, or never."""

    @property
    def paces(self) -> bool:
        """Whether packets wait until they are due. If the run is interrupted, those that are not due are not sent."""

    @property
    def metadata_removed(self) -> int:
        """The number of block options left out so far, because the form says so."""

    @property
    def unsure(self) -> tuple[int, int]:
        """(packets, captured bytes) that `write` has counted and that, after an error, may not be in the output."""

    @property
    def incomplete(self) -> list[str]:
        """A line for each reason why not all was done that was asked for, besides packets that were not written."""

    def write(self, outgoing: Outgoing) -> tuple[int, int]:
        """Writes packets. Returns the (packets, captured bytes) written. Other packets are counted by reason."""

    def flush(self) -> None:
        """Writes the gathered packets, because no more may follow for a while."""

    def stop(self) -> None:
        """Makes a waiting `write` return soon. Returns at once."""

    def close(self) -> None:
        """Writes the rest and closes the output."""

    def abandon(self) -> None:
        """Closes the output after an error. The packets written before stay valid."""


@dataclass(frozen=True, slots=True)
class SinkNeeds:
    """What a run passes to a sink when it opens it. A sink that needs rights is opened before the first stream: it gets
    no interfaces and no form.
    """

    counters: Counters
    arena: OutputNote  # if the main process is killed, workers read in its first page where to truncate the output
    interfaces: Sequence[Interface] = field(default_factory=list)  # of the first stream; the list may grow
    form: CaptureForm | None = None
    blocks: Blocks | None = None  # what the first stream says besides its packets
    place: Place | None = None  # where to continue an existing output
