"""Blocks of time of a service, and how much of a provider's capacity they take at each instant.

Pure: windows, rates, splits in time or rate, resale. Who may share a block stands in `sharing`, who sold it in the
moderator. A window includes its start and excludes its end; times are ms since 1970, rates bits per second.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import Final

import msgspec

from auction.model.errors import BadValue, NoCapacity, WrongState
from auction.model.party import check_attributes

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
    requires: dict[str, str] = {}  # attributes that who bids for it must have; an empty value stands for any
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
    check_attributes(block.requires)
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


RUN_MAX: Final = 64  # steps of a timeline that stand together


class Timeline:
    """How much of one capacity is promised at each instant, as steps: a level holds from its time to the next step's.

    The steps stand in runs of at most RUN_MAX, each with its highest level and with what all its levels are to be
    raised by, so that a window costs a pass over the runs within it and over the steps of the two at its ends.
    """

    __slots__ = ("_begins", "_levels", "_raised", "_times", "_tops", "highest_bps")

    def __init__(self) -> None:
        self.highest_bps = 0  # the highest level that there ever was
        self._begins: list[int] = []  # of each run: its first step's time
        self._times: list[list[int]] = []  # of each run: its steps' times
        self._levels: list[list[int]] = []  # and levels, less what they are raised by
        self._raised: list[int] = []
        self._tops: list[int] = []  # of each run: its highest level

    def peak_bps(self, starts_ms: int, ends_ms: int) -> int:
        """The highest level within the window."""
        if not self._begins or ends_ms <= self._begins[0]:
            return 0
        run, step = self._find(starts_ms)
        last_run, after = self._find(ends_ms - 1)
        if run == last_run:
            return max(self._levels[run][step : after + 1]) + self._raised[run]
        at_begin = max(self._levels[run][step:]) + self._raised[run]
        at_end = max(self._levels[last_run][: after + 1]) + self._raised[last_run]
        return max([at_begin, at_end, *self._tops[run + 1 : last_run]])

    def add(self, starts_ms: int, ends_ms: int, rate_bps: int) -> None:
        """Raises the level within the window by the rate (lowers it where the rate is negative)."""
        self._make_step(ends_ms)
        run, step = self._make_step(starts_ms)
        last_run, after = self._find(ends_ms - 1)
        if run == last_run:
            self._raise(run, step, after + 1, rate_bps)
            return
        self._raise(run, step, len(self._levels[run]), rate_bps)
        self._raise(last_run, 0, after + 1, rate_bps)
        between = slice(run + 1, last_run)
        tops = self._tops[between]
        if tops:
            self._raised[between] = [raised + rate_bps for raised in self._raised[between]]
            self._tops[between] = tops = [top + rate_bps for top in tops]
            self.highest_bps = max(self.highest_bps, *tops)

    def _find(self, time_ms: int) -> tuple[int, int]:
        """(run, step in it) that holds at this time; the very first step before there is one."""
        run = max(bisect_right(self._begins, time_ms) - 1, 0)
        return run, max(bisect_right(self._times[run], time_ms) - 1, 0)

    def _raise(self, run: int, first: int, after: int, rate_bps: int) -> None:
        levels = self._levels[run]
        levels[first:after] = [level + rate_bps for level in levels[first:after]]
        self._tops[run] = top = max(levels) + self._raised[run]
        if top > self.highest_bps:
            self.highest_bps = top

    def _make_step(self, time_ms: int) -> tuple[int, int]:
        """(run, step in it) that begins at this time, from now on."""
        if not self._begins:
            self._insert_run(0, [time_ms], [0], 0)
            return 0, 0
        run = max(bisect_right(self._begins, time_ms) - 1, 0)
        times, levels = self._times[run], self._levels[run]
        step = bisect_left(times, time_ms)
        if step < len(times) and times[step] == time_ms:
            return run, step
        times.insert(step, time_ms)
        levels.insert(step, levels[step - 1] if step else -self._raised[run])  # nothing is promised before the first
        self._begins[run] = times[0]
        if len(times) > RUN_MAX:
            middle = len(times) // 2
            self._insert_run(run + 1, times[middle:], levels[middle:], self._raised[run])
            del times[middle:], levels[middle:]
            self._tops[run] = max(levels) + self._raised[run]
            if step >= middle:
                return run + 1, step - middle
        return run, step

    def _insert_run(self, place: int, times: list[int], levels: list[int], raised: int) -> None:
        self._begins.insert(place, times[0])
        self._times.insert(place, times)
        self._levels.insert(place, levels)
        self._raised.insert(place, raised)
        self._tops.insert(place, max(levels) + raised)


def units_of(whole: Block, before: int, units: int, of_units: int, name: str) -> Block:
    """The part of a block that is `units` of its `of_units` equal units, after the first `before` of them. Rates and
    volume are cut at whole bits and bytes so that the parts of all units add up to the block, no more and no less."""

    def part(amount: int | None) -> int | None:
        return None if amount is None else amount * (before + units) // of_units - amount * before // of_units

    return msgspec.structs.replace(
        whole,
        id=name,
        parent=whole.id,
        minimum_bps=part(whole.minimum_bps),
        maximum_bps=part(whole.maximum_bps),
        volume_bytes=part(whole.volume_bytes),
    )


def most_of_units(whole: Block, units: int, of_units: int) -> Block:
    """A block of the rate that any `units` of the units have at most: what a bid for them has to keep ready."""

    def most(amount: int | None) -> int | None:
        return None if amount is None else -(-amount * min(units, of_units) // of_units)

    return msgspec.structs.replace(whole, minimum_bps=most(whole.minimum_bps), maximum_bps=most(whole.maximum_bps))


def check_units_of(whole: Block, of_units: int) -> None:
    """Raises BadValue for more units than the block has bits a second or bytes: some would be nothing."""
    for amount in (whole.minimum_bps, whole.maximum_bps, whole.volume_bytes):
        if amount is not None and amount < of_units:
            raise BadValue(f"{of_units} units of a block that has {amount}: some would be nothing")


def check_capacity_left(capacity_bps: int, peak_bps: int, block: Block, provider: str) -> None:
    """Raises NoCapacity where the block on top of the peak that is promised already would exceed the capacity."""
    if peak_bps + block.committed_bps > capacity_bps:
        raise NoCapacity(
            f"{provider} has {capacity_bps - peak_bps} bit/s left in this window, {block.committed_bps} are asked for"
        )
