"""The protocol of a service, and of the segment that it processes: numpy columns, and methods that change packets.

ALLOWED lists the effects that a service can declare, and what each one allows. `disperse` sends segments and results.
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
REPORT_DEPTH_MAX = 16  # lists and tables in one another, in a report without a declared type

ALLOWED: dict[Effect, frozenset[str]] = {
    "observe": frozenset(),
    "rewrite": frozenset({"bytes"}),
    "resize": frozenset({"bytes", "lengths"}),
    "filter": frozenset({"drops"}),
    "redact": frozenset({"bytes", "lengths", "drops"}),
}


class SegmentView(Protocol):
    """The segment that a service processes. Arrays have one row per packet of the segment, in the order of the first
    stream.

    `data`, `offset`, `captured_length` and `wire_length` show the packets as the previous services left them;
    `column(name)` gives any column of PacketBatch for the segment's rows. A service may write only to the array that
    `writable()` returns.
    """

    number: int  # the segment's number
    ports: UdpPorts  # which tunnels over UDP the run tries (decode_as), for services that walk headers themselves
    data: NDArray[np.uint8]  # packet bytes; packet i is data[offset[i] : offset[i] + captured_length[i]]
    offset: NDArray[np.uint32]
    captured_length: NDArray[np.uint32]
    wire_length: NDArray[np.uint32]

    def __len__(self) -> int:
        """Number of packets."""

    def column(self, name: str) -> NDArray[Any]:
        """A header column of PacketBatch for this segment's packets, e.g. "l4_offset", as earlier services left the
        packets.
        """

    def link_type(self) -> NDArray[np.uint16]:
        """uint16[n]: each packet's link type (LINKTYPE_ value)."""

    def writable(self) -> NDArray[np.uint8]:
        """A writable copy of the packets' bytes; from now on `data` and `offset` refer to it. Needs "rewrite", "resize"
        or "redact".
        """

    def uncopied(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]] | None:
        """As `writable`, for a service that copies the bytes itself as it goes through them: (the bytes, the place for
        them), of equal length, all of which it must copy. None: call `writable` instead.
        """

    def truncate(self, captured_length: NDArray[np.uint32]) -> None:
        """Keep the first captured_length[i] bytes of packet i; the wire length stays. Needs "resize" or "redact"."""

    def replace(
        self,
        data: NDArray[np.uint8],
        offset: NDArray[np.uint32],
        captured_length: NDArray[np.uint32],
        wire_length: NDArray[np.uint32],
    ) -> None:
        """Replace the packets' bytes by others of any length. Needs "resize" or "redact"."""

    def drop(self, mask: NDArray[np.bool_], reason: str) -> None:
        """Drop the packets where mask is true, and count them under reason. Needs "filter" or "redact"."""

    def comment(self, row: int, text: str) -> None:
        """Add a comment to packet `row`; it is written if the output is pcapng. Every effect allows this."""

    def keys(self, keys: NDArray[np.uint64]) -> None:
        """uint64[n, 2]: hand keys to the service's `drop_by_keys`, which runs in the order of the second stream. Needs
        "filter" or "redact".
        """

    def report(self, report: Any) -> None:
        """Hand figures (anything that msgpack can carry) to the service's `merge`, which runs once per segment."""


class Service:
    """Base of every service. A subclass sets the class attributes and defines `process`.

    The main process and every worker make one object each. `__init__` gets the options of the command line or the
    pipeline file as keyword arguments (strings or TOML values), and raises ValueError with one line that says what is
    wrong. `start` runs in workers only.
    """

    name: ClassVar[str] = ""
    effect: ClassVar[Effect] = "observe"
    deterministic: ClassVar[bool] = True  # whichever worker processes it, the same segment gives the same result
    groups: ClassVar[tuple[str, ...]] = ()  # header columns it reads: "headers", "addresses", "vlan", "inner", "flow"
    drops_by_keys: ClassVar[bool] = False  # `process` hands out keys, and `drop_by_keys` decides what is dropped
    reads_checksums: ClassVar[bool] = True  # false: live packets may have checksums that are left to hardware
    removes_metadata: ClassVar[bool] = False  # no comments, names, addresses or hashes in a pcapng output's blocks
    reasons: ClassVar[Mapping[str, str]] = {}  # reason for a drop -> what it means; no other is accepted
    paths: ClassVar[tuple[str, ...]] = ()  # options that name files, which a worker elsewhere reads only if allowed
    report_type: ClassVar[Any] = Any  # of what it reports, in the words of msgspec; another report is not accepted

    def prepared(self, specification: Any) -> Any:
        """The specification for the workers, as plain data. A service that drew something at random (a key) adds it
        here.
        """
        return specification

    def start(self) -> None:
        """Prepare in the worker: open files, compile patterns, fill tables. Runs once before the first segment."""

    def process(self, segment: SegmentView) -> None:
        """Process one segment. If this raises, the segment is tried again, by another worker if there is one."""
        raise NotImplementedError

    def drop_by_keys(self, keys: NDArray[np.uint64], timestamp_ns: NDArray[np.int64]) -> tuple[NDArray[np.bool_], str]:
        """Runs in the main process, in the second stream's order: keys uint64[n, 2] -> (mask of drops, reason)."""
        raise NotImplementedError

    def check_report(self, report: Any) -> None:
        """Runs in the main process before the result of a segment counts. Raises ValueError for a report that `process`
        cannot have made, and changes nothing: a worker may send anything. A service with more to check than
        `report_type` says calls this one first.
        """
        if self.report_type is Any:
            check_depth(report)
            return
        import msgspec  # only here: a worker that reports nothing does without

        msgspec.convert(report, self.report_type)

    def merge(self, report: Any) -> None:
        """Runs in the main process, once for each `report`: add a worker's report to the total."""
        raise NotImplementedError

    def incomplete(self) -> str:
        """At the end of a run, one line that says why the output is not all that was requested; the run then ends with
        status 3. Empty: it is complete.
        """
        return ""

    def summary(self) -> dict[str, Any]:
        """What the run reports of this service at its end, for --json and for people. Empty: nothing."""
        return {}


def check_depth(report: Any) -> None:
    """Raises ValueError if lists and tables of a report stand deeper in one another than REPORT_DEPTH_MAX."""
    level = [report]
    for _ in range(REPORT_DEPTH_MAX + 1):
        inner: list[Any] = []
        for each in level:
            if isinstance(each, Mapping):
                inner.extend(each.values())
            elif isinstance(each, list | tuple):
                inner.extend(each)
        if not inner:
            return
        level = inner
    raise ValueError(f"a report with more than {REPORT_DEPTH_MAX} levels")
