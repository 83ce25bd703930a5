"""Meters the members' use of a shared block and splits its price between them. `groups.sharing` has the rates."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from auction.model.errors import Unknown
from auction.model.money import check_amount, check_integer, split_proportionally


class Meter(msgspec.Struct, frozen=True, kw_only=True):
    """One member's use of a block so far: its time as a member, and the bits allowed and used in that time."""

    member: str
    metered_ms: int = 0
    allowed_bits: int = 0
    used_bits: int = 0
    over_bits: int = 0


def measure(
    meters: Mapping[str, Meter], interval_ms: int, rates: Mapping[str, int], used_bits: Mapping[str, int]
) -> dict[str, Meter]:
    """The meters after one interval with these allocated `rates` (bits per second). Members keep their meters when they
    leave. Use above the allocated rate is also counted in `over_bits`. Raises Unknown for use without a rate."""
    check_integer(interval_ms, "interval", 1)
    for member in used_bits:
        if member not in rates:
            raise Unknown(f"{member} has no share in this interval")
    after = dict(meters)
    for member, rate_bps in rates.items():
        before = after.get(member) or Meter(member=member)
        allowed = check_integer(rate_bps, "rate") * interval_ms // 1000
        used = check_integer(used_bits.get(member, 0), "used bits")
        after[member] = Meter(
            member=member,
            metered_ms=before.metered_ms + interval_ms,
            allowed_bits=before.allowed_bits + allowed,
            used_bits=before.used_bits + used,
            over_bits=before.over_bits + max(0, used - allowed),
        )
    return after


def split_cost(price: int, meters: Mapping[str, Meter]) -> dict[str, int]:
    """Splits the price of the block between its members, exactly: in proportion to the bits allowed, used or not; by
    time if nothing was allowed. Raises BadValue if there was no member."""
    check_amount(price, "price")
    weights = [meter.allowed_bits for meter in meters.values()]
    if not any(weights):
        weights = [meter.metered_ms for meter in meters.values()]
    return dict(zip(meters, split_proportionally(price, weights), strict=True))
