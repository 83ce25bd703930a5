"""What of an agreement's price was earned, by what one side measured: the figure that it states at the end. Pure.

The rule is that of the market's receipts (`auction.model.receipt`), over the intervals of the meter in place of theirs.
"""

from __future__ import annotations

from collections.abc import Iterable

from streamcore.subcontract.allocator import Interval

PPM = 1_000_000


def figure(
    price: int, starts_ms: int, ends_ms: int, rate_bps: int | None, intervals: Iterable[Interval], until_ms: int
) -> int:
    """What was earned until `until_ms`, in minor units, rounded down: odd units stay with the payer.

    Of each interval the bits got of those asked for, or of what the rate promises (the minimum, or without one the
    maximum) where that is less; all of it where nothing was asked for or nothing was measured, for the provider was
    ready; nothing where a result was found wrong. The intervals stand in order."""
    until_ms = max(starts_ms, min(until_ms, ends_ms))
    earned, at_ms = 0, starts_ms
    for each in intervals:
        from_ms, to_ms = max(each.starts_ms, at_ms), min(each.ends_ms, until_ms)
        if to_ms <= from_ms:
            continue
        earned += (from_ms - at_ms) * PPM + (to_ms - from_ms) * _earned_ppm(each, rate_bps)
        at_ms = to_ms
    earned += (until_ms - at_ms) * PPM
    return price * earned // ((ends_ms - starts_ms) * PPM)


def sure_figure(price: int, starts_ms: int, ends_ms: int, rate_bps: int | None, intervals: Iterable[Interval]) -> int:
    """What a provider can be sure to have earned by its own measurement, whatever was asked of it: the bits that it
    gave, of those that the rate promises. Without a rate it can be sure of nothing."""
    if not rate_bps:
        return 0
    earned, at_ms = 0, starts_ms
    for each in intervals:
        from_ms, to_ms = max(each.starts_ms, at_ms), min(each.ends_ms, ends_ms)
        if to_ms <= from_ms:
            continue
        promised = rate_bps * (to_ms - from_ms) // 1000
        earned += (to_ms - from_ms) * (PPM if each.got_bits >= promised else each.got_bits * PPM // promised)
        at_ms = to_ms
    return price * earned // ((ends_ms - starts_ms) * PPM)


def _earned_ppm(each: Interval, rate_bps: int | None) -> int:
    if each.wrong:
        return 0
    owed = each.asked_bits
    if rate_bps:
        owed = min(owed, rate_bps * (each.ends_ms - each.starts_ms) // 1000)
    return PPM if each.got_bits >= owed else each.got_bits * PPM // owed
