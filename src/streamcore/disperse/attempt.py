"""A segment that is not back yet, and what a result of it brings: its bytes, and what it says besides the packets.

Who has the segment is the dispatcher's, what is believed of packets stands in _results.pyx.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from streamcore.disperse._results import KEYS, ResultError
from streamcore.packets import Result, Segment

# How much of `attempts_max` a failure uses up, in quarters. A worker that was killed from outside says little of its
# segment (unless the
# system killed it for its memory), so only twelve such deaths weigh as much as three failures of the segment's own.
FAULT, KILLED = 4, 1

COMMENT_BYTES_MAX, REASONS_MAX, REASON_CHARACTERS_MAX = 4096, 16, 64


@dataclass(slots=True, eq=False)
class Attempt:
    """A segment that is not back yet, and what became of it so far."""

    segment: Segment
    attempt: int = 1
    since_s: float = 0.0  # when it came
    failures: int = 0  # weighed: FAULT or KILLED each
    avoid: int = -1  # the slot that failed last
    reason: str = ""
    at_home: bool = False  # a provider has failed it, or is audited with it
    claimed: Result | None = None  # audited: what the provider said


class Told(msgspec.Struct, forbid_unknown_fields=True):
    """The extra frame of a result."""

    comments: dict[int, list[bytes]] = {}
    reports: list[tuple[int, Any]] = []
    drops: dict[str, tuple[int, int]] = {}

    def check(self, packets: int) -> None:
        """Raises ResultError for what cannot be said of a segment of so many packets."""
        if any(not 0 <= packet < packets for packet in self.comments):
            raise ResultError("a comment on a packet that is not in the segment")
        if any(len(each) > COMMENT_BYTES_MAX for comments in self.comments.values() for each in comments):
            raise ResultError("a comment is too long")
        if len(self.drops) > REASONS_MAX or any(len(reason) > REASON_CHARACTERS_MAX for reason in self.drops):
            raise ResultError("too many reasons for dropping packets, or too long ones")


def with_our_offsets(region: Any, segment: Segment, flags: int) -> Any:
    """A copy of a result that only cut packets short: where they start, it says of the sender's memory, not of ours."""
    region, count = region.copy(), len(segment)
    at = 16 * count if flags & KEYS else 0
    if len(region) >= at + 4 * count:
        region[at : at + 4 * count].view(np.uint32)[:] = segment.batch.offset[segment.index]
    return region


def aligned(content: memoryview | None) -> Any:
    """uint8[…] of a frame, which stays alive with it; copied where its numbers of 8 bytes would not be aligned."""
    region = np.frombuffer(content or b"", np.uint8)
    return region if region.ctypes.data % 8 == 0 else region.copy()
