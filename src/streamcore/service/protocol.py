"""The protocol of a service, and of the segment that it processes: numpy columns, and methods that change packets.

ALLOWED lists the effects that a service can declare, and what each allows. `disperse` sends segments and results.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from streamcore.headers import UdpPorts  # only here: the main process may need no header

Effect = Literal["observe", "rewrite", "resize", "filter", "redact"]

# What each effect allows a service to change: packet bytes, lengths, the number of packets.
ALLOWED: dict[Effect, frozenset[str]] = {
    "observe": frozenset(),
    "rewrite": frozenset({"bytes"}),
    "resize": frozenset({"bytes", "lengths"}),
    "filter": frozenset({"drops"}),
    "redact": frozenset({"bytes", "lengths", "drops"}),
}


class SegmentView(Protocol):
    """A segment in the hands of a service. Arrays have one row per packet of the segment, in the order of the first
    stream.

    `data`, `offset`, `captured_length`, `wire_length` show the packets as the services before this one left them;
    `column(name)` gathers any column of PacketBatch for the segment's rows. Nothing may be written except the array
    that `writable()` returns.
    """

    number: int  # the segment's number
    ports: UdpPorts  # which tunnels over UDP the run tries (decode_as): for services that walk over headers themselves
    data: NDArray[np.uint8]  # packet bytes; packet i is data[offset[i] : offset[i] + captured_length[i]]
    offset: NDArray[np.uint32]
    captured_length: NDArray[np.uint32]
    wire_length: NDArray[np.uint32]

    def __len__(self) -> int:
        """Packets."""

    def column(self, name: str) -> NDArray[Any]:
        """A header column of PacketBatch, e.g. "l4_offset": for this segment's packets, as they were read, or as a
        service before this one left them with `replace`.
        """

    def link_type(self) -> NDArray[np.uint16]:
        """uint16[n]: each packet's link type (LINKTYPE_ value)."""

    def writable(self) -> NDArray[np.uint8]:
        """A writable copy of the packets' bytes, which `data` and `offset` show from now on. Needs "rewrite",
        "resize" or "redact".
        """

    def truncate(self, captured_length: NDArray[np.uint32]) -> None:
        """Keep only the first captured_length[i] bytes of packet i; the wire length stays. Needs "resize" or
        "redact".
        """

    def replace(
        self,
        data: NDArray[np.uint8],
        offset: NDArray[np.uint32],
        captured_length: NDArray[np.uint32],
        wire_length: NDArray[np.uint32],
    ) -> None:
        """Put other bytes of any length in the packets' place. Needs "resize" or "redact"."""

    def drop(self, mask: NDArray[np.bool_], reason: str) -> None:
        """Drop the packets where mask is true, and count them under reason. Needs "filter" or "redact"."""

    def comment(self, row: int, text: str) -> None:
        """Add a comment to packet `row`, written where the output is pcapng. Any effect may."""

    def keys(self, keys: NDArray[np.uint64]) -> None:
        """uint64[n, 2]: hand keys to the service's `settle`, which runs in the order of the first stream. Needs
        "filter".
        """

    def report(self, report: Any) -> None:
        """Hand figures (anything msgpack can carry) to the service's `merge`, which runs once per segment."""


class Service:
    """Base of every service. A subclass sets the class attributes and defines `process`.

    One object is made in every worker, `__init__` gets the options of the command line or the pipeline file as
    keyword arguments (strings or TOML values) and raises ValueError with one line that says what is wrong. `start`
    runs in the worker only.
    """

    name: ClassVar[str] = ""
    effect: ClassVar[Effect] = "observe"
    deterministic: ClassVar[bool] = True  # the same segment gives the same result, whoever processes it
    groups: ClassVar[tuple[str, ...]] = ()  # header columns it reads: "headers", "addresses", "vlan", "inner", "flow"
    settles: ClassVar[bool] = False  # it hands out keys, and `settle` decides what is dropped
    removes_metadata: ClassVar[bool] = False  # comments, names, addresses and hashes in blocks of a pcapng output go
    reasons: ClassVar[Mapping[str, str]] = {}  # reason for a drop -> words

    def prepared(self, specification: Any) -> Any:
        """The specification for the workers, plain data: a service that drew something at random (a key) puts it in
        here.
        """
        return specification

    def start(self) -> None:
        """Make ready in the worker: open files, compile patterns, fill tables. Runs once before the first segment."""

    def process(self, segment: SegmentView) -> None:
        """Do the work on one segment. Raise to have the segment tried again elsewhere."""
        raise NotImplementedError

    def settle(self, keys: NDArray[np.uint64], timestamp_ns: NDArray[np.int64]) -> tuple[NDArray[np.bool_], str]:
        """Runs beside the aggregator, in the second stream's order: keys uint64[n, 2] -> mask of packets to drop, and
        the reason.
        """
        raise NotImplementedError

    def merge(self, report: Any) -> None:
        """Runs beside the aggregator, once per segment that reported: fold a worker's report into the total."""
        raise NotImplementedError

    def incomplete(self) -> str:
        """At the end of a run, one line on why the output is not all that was asked for; the run then ends with status
        3. Empty: it is.
        """
        return ""

    def summary(self) -> dict[str, Any]:
        """What the run reports of this service at its end, for --json and for people. Empty: nothing."""
        return {}
