"""Blocks of time of a service, and how much of a provider's capacity they take at each instant.

Pure: windows, rates, splits in time or rate, resale. Who may share a block stands in `sharing`, who sold it in the
moderator. A window includes its start and excludes its end; times are ms since 1970, rates bits per second.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import Final

import msgspec

from auction.errors import BadValue, NoCapacity, WrongState

RATE_BPS_MAX: Final = 2**53
TIME_MS_MAX: Final = 2**53


class Block(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A window of time of one service with a minimum and/or a maximum data rate. `holder` may use it or resell it
    before it starts: the provider itself until it is sold. `parent` is the block it was split from."""

    id: str
    provider: str
    service: str
    starts_ms: int
    ends_ms: int
    minimum_bps: int | None = None
    maximum_bps: int | None = None
    volume_bytes: int | None = None
    availability_ppm: int = 1_000_000
    latency_ms_max: int | None = None
    attributes: dict[str, str] = {}
    shareable: bool = False
    holder: str = ""
    parent: str = ""
    state: str = "free"  # free, offered (in an open auction), sold, split, void

    @property
    def committed_bps(self) -> int:
        """What the provider has to keep ready: the maximum where there is one, else the minimum."""
        return self.maximum_bps if self.maximum_bps is not None else self.minimum_bps or 0


def check(block: Block) -> Block:
    """Returns the block, or raises BadValue for an empty window, no rate at all, or a minimum above the maximum."""
    for name, value in (("starts_ms", block.starts_ms), ("ends_ms", block.ends_ms)):
        if type(value) is not int or not 0 <= value <= TIME_MS_MAX:
            raise BadValue(f"{name} is not a time in milliseconds: {value!r}")
    if block.starts_ms >= block.ends_ms:
        raise BadValue("the window of a block ends after it starts")
    if block.minimum_bps is None and block.maximum_bps is None:
        raise BadValue("a block states at least one of a minimum and a maximum data rate")
    for name, rate in (("minimum_bps", block.minimum_bps), ("maximum_bps", block.maximum_bps)):
        if rate is not None and (type(rate) is not int or not 0 < rate <= RATE_BPS_MAX):
            raise BadValue(f"{name} is not a data rate in bits per second: {rate!r}")
    if block.minimum_bps is not None and block.maximum_bps is not None and block.minimum_bps > block.maximum_bps:
        raise BadValue("the minimum data rate is above the maximum")
    if block.volume_bytes is not None and (type(block.volume_bytes) is not int or block.volume_bytes <= 0):
        raise BadValue("a volume is a positive number of bytes")
    if type(block.availability_ppm) is not int or not 0 < block.availability_ppm <= 1_000_000:
        raise BadValue("an availability is from 1 to 1,000,000 parts per million")
    if block.latency_ms_max is not None and (type(block.latency_ms_max) is not int or block.latency_ms_max < 0):
        raise BadValue("a latency is a number of milliseconds")
    if not block.service:
        raise BadValue("a block is of a named service")
    return block


def split_in_time(block: Block, at_ms: int, ids: tuple[str, str], now_ms: int) -> tuple[Block, Block]:
    """Two blocks that follow each other, with the volume divided by duration. Raises WrongState, BadValue."""
    _check_splittable(block, now_ms)
    if not block.starts_ms < at_ms < block.ends_ms:
        raise BadValue("a block is split at a time within its window")
    first_volume: int | None = None
    rest_volume: int | None = None
    if block.volume_bytes is not None:
        first_volume = block.volume_bytes * (at_ms - block.starts_ms) // (block.ends_ms - block.starts_ms)
        rest_volume = block.volume_bytes - first_volume
        if not first_volume or not rest_volume:
            raise BadValue("the volume is too small to be split there")
    first = msgspec.structs.replace(block, id=ids[0], parent=block.id, ends_ms=at_ms, volume_bytes=first_volume)
    rest = msgspec.structs.replace(block, id=ids[1], parent=block.id, starts_ms=at_ms, volume_bytes=rest_volume)
    return check(first), check(rest)


def split_in_rate(block: Block, first_bps: int, ids: tuple[str, str], now_ms: int) -> tuple[Block, Block]:
    """Two blocks beside each other: the first commits `first_bps`, the second the rest; minimum, maximum and volume
    are divided in that proportion, so that the parts never commit more than the whole."""
    _check_splittable(block, now_ms)
    whole = block.committed_bps
    if type(first_bps) is not int or not 0 < first_bps < whole:
        raise BadValue("a part's rate lies between nothing and the block's")

    def divide(amount: int | None) -> tuple[int | None, int | None]:
        if amount is None:
            return None, None
        first_part = amount * first_bps // whole
        if not 0 < first_part < amount:
            raise BadValue("the block is too small to be split there")
        return first_part, amount - first_part

    minimum, maximum, volume = divide(block.minimum_bps), divide(block.maximum_bps), divide(block.volume_bytes)
    parts = [
        msgspec.structs.replace(
            block,
            id=ids[i],
            parent=block.id,
            minimum_bps=minimum[i],
            maximum_bps=maximum[i],
            volume_bytes=volume[i],
        )
        for i in (0, 1)
    ]
    return check(parts[0]), check(parts[1])


def _check_splittable(block: Block, now_ms: int) -> None:
    if block.state not in ("free", "sold"):
        raise WrongState(f"the block is {block.state}")
    if now_ms >= block.starts_ms:
        raise WrongState("a block is split or resold before it starts")


def resell(block: Block, holder: str, now_ms: int) -> Block:
    """The block with another holder. Raises WrongState once it has started."""
    _check_splittable(block, now_ms)
    return msgspec.structs.replace(block, holder=holder, state="sold")


class Timeline:
    """How much of one capacity is promised at each instant, as steps: `levels[i]` holds from `times[i]` on.

    Adding costs a binary search and one pass over the steps within the window."""

    __slots__ = ("_levels", "_times", "highest_bps")

    def __init__(self) -> None:
        self.highest_bps = 0  # the highest level that there ever was
        self._times: list[int] = []
        self._levels: list[int] = []

    def peak_bps(self, starts_ms: int, ends_ms: int) -> int:
        """The highest level within the window."""
        levels = self._levels
        first = bisect_right(self._times, starts_ms) - 1
        after = bisect_left(self._times, ends_ms)
        if after <= 0:
            return 0
        return max(levels[max(first, 0) : after], default=0)

    def add(self, starts_ms: int, ends_ms: int, rate_bps: int) -> None:
        """Raises the level within the window by the rate (lowers it where the rate is negative)."""
        first = self._step_at(starts_ms)
        after = self._step_at(ends_ms)
        levels = self._levels
        for i in range(first, after):
            levels[i] += rate_bps
            if levels[i] > self.highest_bps:
                self.highest_bps = levels[i]

    def _step_at(self, time_ms: int) -> int:
        i = bisect_left(self._times, time_ms)
        if i == len(self._times) or self._times[i] != time_ms:
            self._times.insert(i, time_ms)
            self._levels.insert(i, self._levels[i - 1] if i else 0)
        return i

    def forget_before(self, time_ms: int) -> None:
        """Drops the steps that no window from `time_ms` on can touch."""
        keep_from = bisect_right(self._times, time_ms) - 1
        if keep_from > 0:
            del self._times[:keep_from], self._levels[:keep_from]


def check_capacity_left(capacity_bps: int, peak_bps: int, block: Block, provider: str) -> None:
    """Raises NoCapacity where the block on top of the peak that is promised already would exceed the capacity."""
    if peak_bps + block.committed_bps > capacity_bps:
        raise NoCapacity(
            f"{provider} has {capacity_bps - peak_bps} bit/s left in this window, {block.committed_bps} are asked for"
        )
