"""Points in time and spans as people write them: text to nanoseconds. Nothing here looks at a clock."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal

SECONDS = re.compile(r"[+-]?[0-9]+(\.[0-9]{1,9})?")
YEAR_OR_DAY = re.compile(r"[0-9]{4}|[0-9]{6}|[0-9]{8}")  # which would be seconds of 1970
DATE = re.compile(
    r"(?P<day>[0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"([T ](?P<time>[0-9]{2}:[0-9]{2}(:[0-9]{2})?)([.,](?P<fraction>[0-9]{1,9}))?)?"
    r"(?P<zone>Z|[+-][0-9]{2}:?[0-9]{2})?"
)
NS_MAX = (1 << 63) - 1
EXAMPLE = "2026-11-27T13:50:00Z, or seconds since 1970"


def span_ns(words: str) -> int:
    """Nanoseconds of a number of seconds with up to nine decimals. Raises ValueError."""
    if SECONDS.fullmatch(words) is None:
        raise ValueError("a number of seconds with up to nine decimals")
    ns = int(Decimal(words).scaleb(9))
    if abs(ns) > NS_MAX:
        raise ValueError("a number of seconds that 64 bits of nanoseconds hold")
    return ns


def point_ns(words: str) -> int:
    """Nanoseconds since 1970 of a time in ISO 8601, local unless it has a zone, or in seconds. Raises ValueError: also
    for digits that look like a year, a month or a day; 2026.0 is that second.
    """
    if YEAR_OR_DAY.fullmatch(words):
        raise ValueError(f"{EXAMPLE} ({words} might be a date; {words}.0 is seconds)")
    if SECONDS.fullmatch(words):
        return span_ns(words)
    found = DATE.fullmatch(words)
    if found is None:
        raise ValueError(EXAMPLE)
    try:
        point = datetime.fromisoformat(f"{found['day']}T{found['time'] or '00:00'}{found['zone'] or ''}")
        seconds = point.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise ValueError(f"{EXAMPLE} ({error})") from None
    ns = (seconds.days * 86_400 + seconds.seconds) * 10**9 + int((found["fraction"] or "0").ljust(9, "0"))
    if abs(ns) > NS_MAX:
        raise ValueError("a time that 64 bits of nanoseconds hold, from 1677 to 2262")
    return ns
