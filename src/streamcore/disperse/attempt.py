"""A segment that is not back yet, and what a result may say of it besides its packets. The dispatcher leases it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from streamcore.disperse._results import ResultError
from streamcore.packets import Result, Segment

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
