"""The service `slice`: truncates packets and keeps their wire lengths. It changes lengths and copies no bytes."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from streamcore.core.packets import ABSENT
from streamcore.service.figures import Figure
from streamcore.service.options import choice, integer
from streamcore.service.protocol import Effect, SegmentView, Service


class Slice(Service):
    """Keep the first BYTES bytes of each packet's payload (from=packet: of the packet); the wire length stays.

    The payload begins after the TCP, UDP, SCTP or ICMP header; in an IP packet of another protocol and in a later
    fragment, after the IP headers; in a frame without IP, at its first byte.
    """

    name: ClassVar[str] = "slice"
    effect: ClassVar[Effect] = "resize"
    groups: ClassVar[tuple[str, ...]] = ("headers",)
    report_type: ClassVar[Any] = tuple[Figure, Figure]  # packets that were cut, bytes

    def __init__(self, bytes: Any = 64, from_: Any = "payload") -> None:
        self.byte_count = integer("bytes", bytes, 0, 0xFFFF_FFFF)
        self._cut = {"packets_cut": 0, "bytes_cut": 0}
        self.start_at = choice("from", from_, ("payload", "packet"))

    def process(self, segment: SegmentView) -> None:
        captured = segment.captured_length
        kept: NDArray[Any] = np.uint64(self.byte_count)  # type: ignore[assignment]
        if self.start_at == "payload":
            kept = payload_start(segment).astype(np.uint64) + kept
        cut = np.minimum(captured, kept).astype(np.uint32)
        shorter = int(np.count_nonzero(cut < captured))
        if shorter:
            segment.truncate(cut)
            gone = int(captured.sum(dtype=np.uint64)) - int(cut.sum(dtype=np.uint64))
            segment.report([shorter, gone])

    def merge(self, report: Any) -> None:
        self.check_report(report)
        self._cut["packets_cut"] += report[0]
        self._cut["bytes_cut"] += report[1]

    def summary(self) -> dict[str, Any]:
        return dict(self._cut)


def payload_start(segment: SegmentView) -> NDArray[np.uint16]:
    """uint16[n]: where each packet's payload begins, as the class says."""
    payload = segment.column("payload_offset")
    after_ip = segment.column("l4_offset")
    return np.where(payload != ABSENT, payload, np.where(after_ip != ABSENT, after_ip, 0)).astype(np.uint16)
