"""The checks that a result must pass, and the comments, reports and drops that come with it.

dispatcher.py finds the lease of a result, _results.pyx compares packets.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import numpy as np

from streamcore.core.packets import Result, Segment
from streamcore.core.text import shown
from streamcore.disperse import envelope
from streamcore.disperse._results import KEEP, KEYS, LENGTHS, PACKED, ResultError, dropped_of, read_result
from streamcore.disperse.pending import Pending
from streamcore.disperse.terms import Accept

NOTHING = np.empty(0, np.uint8)
COMMENT_BYTES_MAX, REASONS_MAX, REASON_CHARACTERS_MAX = 4096, 16, 64


def validate(
    lease: Pending,
    outcome: envelope.Outcome,
    extra: bytes | memoryview | None,
    content: memoryview | None,
    allowed: int,
    accepted: Accept,
) -> Result:
    """The checked Result of a lease; extra, content: its frames; allowed: flags of the stream's declared effect;
    accepted: what counts of its reports and drops.

    Raises ResultError.
    """
    if outcome.digest != lease.digest:
        raise ResultError("the result belongs to another input")
    if not outcome.flags and extra is None:
        return Result(lease.segment)  # nothing was changed, and nothing said
    part = lease.part
    region: Any = NOTHING if content is None else aligned(content)
    hold: Any = region
    if part is not None:
        region, hold = part.region.data[part.start : part.start + part.size], part.region
    if lease.digest != envelope.NO_DIGEST and outcome.flags & LENGTHS and not outcome.flags & PACKED:
        region = hold = with_our_offsets(region, lease.segment, outcome.flags)
    dropped: tuple[int, ...] = (0, 0)
    result = read_result(lease.segment, region, outcome.packed, outcome.flags, allowed, hold)
    if extra is not None:
        fields = read_extra(extra, len(lease.segment))
        drops = fields.drops
        try:
            result.reports, result.drops = accepted(fields.reports, drops)
        except Exception as error:  # a service of the user may raise anything
            raise ResultError(f"a report that cannot be: {shown(str(error))}") from None
        result.comments = fields.comments
        dropped = tuple(map(sum, zip(*drops.values(), strict=True))) or (0, 0)
    if (outcome.flags & KEEP or dropped != (0, 0)) and dropped != dropped_of(result):
        raise ResultError("the counts of dropped packets do not match the dropped packets")
    return result


Count = Annotated[int, msgspec.Meta(ge=0)]


class Extra(msgspec.Struct, forbid_unknown_fields=True):
    """The extra frame of a result."""

    comments: dict[int, list[bytes]] = {}
    reports: list[tuple[int, Any]] = []
    drops: dict[str, tuple[Count, Count]] = {}

    def check(self, packets: int) -> None:
        """Raises ResultError if it does not fit a segment of so many packets."""
        if any(not 0 <= packet < packets for packet in self.comments):
            raise ResultError("a comment refers to a packet that is not in the segment")
        if any(len(each) > COMMENT_BYTES_MAX for comments in self.comments.values() for each in comments):
            raise ResultError("a comment is too long")
        try:
            for comments in self.comments.values():
                for each in comments:
                    each.decode()
        except UnicodeDecodeError:
            raise ResultError("a comment is not UTF-8") from None
        if len(self.drops) > REASONS_MAX or any(len(reason) > REASON_CHARACTERS_MAX for reason in self.drops):
            raise ResultError("too many reasons for dropping packets, or too long ones")


def read_extra(extra: memoryview | bytes, packets: int) -> Extra:
    """What the extra frame of a result says of a segment of so many packets. Raises ResultError for any other bytes."""
    if len(extra) > envelope.EXTRA_BYTES_MAX:
        raise ResultError(f"{len(extra)} bytes of comments, reports and drops are too many")
    try:
        fields = msgspec.msgpack.decode(extra, type=Extra)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:  # text that is no UTF-8 is a ValueError
        raise ResultError(f"comments, reports and drops that cannot be read: {shown(str(error))}") from None
    fields.check(packets)
    return fields


def with_our_offsets(region: Any, segment: Segment, flags: int) -> Any:
    """A copy of a result that only truncates packets, with our offsets: the sender's refer to its own memory."""
    region, count = region.copy(), len(segment)
    at = 16 * count if flags & KEYS else 0
    if len(region) >= at + 4 * count:
        region[at : at + 4 * count].view(np.uint32)[:] = segment.batch.offset[segment.index]
    return region


def aligned(content: memoryview) -> Any:
    """uint8[…] of a frame, which it keeps alive; a copy if 8-byte numbers would not be aligned."""
    region = np.frombuffer(content, np.uint8)
    return region if region.__array_interface__["data"][0] % 8 == 0 else region.copy()
