"""Windows of time: when a file of a rotation by time begins and ends, on the local clock."""

from __future__ import annotations

import time
from typing import NamedTuple

from streamcore.core.errors import SinkError

SECOND_NS = 10**9
LATEST_NS = (1 << 63) - 1  # of a packet; a window that ends with it has no end


class Window(NamedTuple):
    """From begin_ns, up to but not including end_ns, since 1970."""

    begin_ns: int
    end_ns: int


def window_of(time_ns: int, seconds: int, aligned: bool) -> Window:
    """The window that a packet of this time begins. Raises SinkError for a time that the clock cannot show.

    aligned: windows begin at whole multiples of their length since midnight of a local day long ago, so an hour begins
    at the full hour and a day at midnight, also after a change of the clock; otherwise this one begins with the packet.
    """
    length_ns = seconds * SECOND_NS
    if not aligned:
        return Window(time_ns, min(time_ns + length_ns, LATEST_NS))
    offset_ns = _offset_ns(time_ns)
    begin_ns = (time_ns + offset_ns) // length_ns * length_ns - offset_ns
    before_ns = offset_ns - _offset_ns(begin_ns)  # how far the clock was changed since the begin, and until the end
    after_ns = _offset_ns(begin_ns + length_ns) - offset_ns
    end_ns = begin_ns + length_ns
    if max(abs(before_ns), abs(after_ns)) < length_ns:  # such a day has 23 or 25 hours; an hour has one
        begin_ns, end_ns = begin_ns + before_ns, end_ns - after_ns
    return Window(min(begin_ns, time_ns), min(end_ns if end_ns > time_ns else time_ns + length_ns, LATEST_NS))


def name_of(pattern: str, time_ns: int) -> str:
    """The pattern with strftime's codes replaced, in local time. Raises SinkError."""
    try:
        return time.strftime(pattern, time.localtime(time_ns // SECOND_NS))
    except (ValueError, OverflowError, OSError) as error:
        raise SinkError(f"cannot name a file of {pattern} for a packet of its time: {error}") from None


def _offset_ns(time_ns: int) -> int:
    """How far the local clock is ahead of UTC."""
    try:
        return time.localtime(time_ns // SECOND_NS).tm_gmtoff * SECOND_NS
    except (ValueError, OverflowError, OSError) as error:
        raise SinkError(f"cannot rotate by a packet's time: {error}") from None
