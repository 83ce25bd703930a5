"""Computes the figure that one side states at the end, from its own measurements. Pure.

The rule is that of the market's receipts (`auction.model.receipt`), applied to the intervals of the meter.
"""

from __future__ import annotations

from collections.abc import Iterable

from streamcore.subcontract.allocator import Interval

PPM = 1_000_000


def figure(
    price: int, starts_ms: int, ends_ms: int, rate_bps: int | None, intervals: Iterable[Interval], until_ms: int
) -> int:
    """The amount earned until `until_ms`, in minor units, rounded down: the remainder stays with the payer.

    An interval earns the bits got, as a share of the bits asked for, or of what the rate promises (the minimum, or
    without one the maximum) if that is less. It earns everything if nothing was asked for or measured, because the
    provider was ready, and nothing if a result was found wrong. The intervals are in order."""
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
    """The amount that a provider has certainly earned, by its own measurement, whatever was asked for: the bits
    delivered, as a share of what the rate promises. Without a rate, 0."""
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
