"""Blocks of time of a service, and how much of a provider's capacity they take at each instant.

Pure: windows, rates, splits in time or rate, resale. `sharing` has the members of a block, the moderator its sale. A
window includes its start and excludes its end; times are ms since 1970, rates bits per second.
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
    """A window of time of one service with a minimum and/or a maximum data rate. `holder` may use it, or resell it
    before it starts; until it is sold that is the provider. `parent` is the block that it was split from,
    `offer` the standing offer that it was awarded from; the market sets both."""

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
    requires: dict[str, str] = {}  # attributes that its bidders must have; an empty value stands for any
    shareable: bool = False
    holder: str = ""
    parent: str = ""
    offer: str = ""
    state: str = "free"  # free, offered (in an open auction), sold, split, void

    @property
    def committed_bps(self) -> int:
        """The rate that the provider must keep ready: the maximum if there is one, else the minimum."""
        return self.maximum_bps if self.maximum_bps is not None else self.minimum_bps or 0


def check(block: Block) -> Block:
    """Returns the block, or raises BadValue for an empty window, no rate at all, or a minimum above the maximum."""
    starts_ms, ends_ms, minimum_bps, maximum_bps = block.starts_ms, block.ends_ms, block.minimum_bps, block.maximum_bps
    if type(starts_ms) is not int or not 0 <= starts_ms <= TIME_MS_MAX:
        raise BadValue(f"starts_ms is not a time in milliseconds: {starts_ms!r}")
    if type(ends_ms) is not int or not 0 <= ends_ms <= TIME_MS_MAX:
        raise BadValue(f"ends_ms is not a time in milliseconds: {ends_ms!r}")
    if starts_ms >= ends_ms:
        raise BadValue("the window of a block must end after it starts")
    if minimum_bps is None and maximum_bps is None:
        raise BadValue("a block needs a minimum data rate, a maximum, or both")
    if minimum_bps is not None and (type(minimum_bps) is not int or not 0 < minimum_bps <= RATE_BPS_MAX):
        raise BadValue(f"minimum_bps is not a data rate in bits per second: {minimum_bps!r}")
    if maximum_bps is not None and (type(maximum_bps) is not int or not 0 < maximum_bps <= RATE_BPS_MAX):
        raise BadValue(f"maximum_bps is not a data rate in bits per second: {maximum_bps!r}")
    if minimum_bps is not None and maximum_bps is not None and minimum_bps > maximum_bps:
        raise BadValue("the minimum data rate is above the maximum")
    if block.volume_bytes is not None and (type(block.volume_bytes) is not int or block.volume_bytes <= 0):
        raise BadValue("a volume must be a positive number of bytes")
    if type(block.availability_ppm) is not int or not 0 < block.availability_ppm <= 1_000_000:
        raise BadValue("an availability must be from 1 to 1,000,000 parts per million")
    if block.latency_ms_max is not None and (type(block.latency_ms_max) is not int or block.latency_ms_max < 0):
        raise BadValue("a latency must be a number of milliseconds")
    if not block.service:
        raise BadValue("a block must name a service")
    check_attributes(block.requires)
    return block


def split_in_time(block: Block, at_ms: int, ids: tuple[str, str], now_ms: int) -> tuple[Block, Block]:
    """Two consecutive blocks, with the volume divided by duration. Raises WrongState, BadValue."""
    _check_splittable(block, now_ms)
    if not block.starts_ms < at_ms < block.ends_ms:
        raise BadValue("the time of the split must be within the block's window")
    first_volume: int | None = None
    rest_volume: int | None = None
    if block.volume_bytes is not None:
        first_volume = block.volume_bytes * (at_ms - block.starts_ms) // (block.ends_ms - block.starts_ms)
        rest_volume = block.volume_bytes - first_volume
        if not first_volume or not rest_volume:
            raise BadValue("the volume is too small to split there")
    first = msgspec.structs.replace(block, id=ids[0], parent=block.id, ends_ms=at_ms, volume_bytes=first_volume)
    rest = msgspec.structs.replace(block, id=ids[1], parent=block.id, starts_ms=at_ms, volume_bytes=rest_volume)
    return check(first), check(rest)


def split_in_rate(block: Block, first_bps: int, ids: tuple[str, str], now_ms: int) -> tuple[Block, Block]:
    """Two parallel blocks: the first commits `first_bps`, the second the rest. Minimum, maximum and volume are divided
    in that proportion, so the parts never commit more than the whole."""
    _check_splittable(block, now_ms)
    whole = block.committed_bps
    if type(first_bps) is not int or not 0 < first_bps < whole:
        raise BadValue("the first part's rate must be above 0 and below the block's")

    def divide(amount: int | None) -> tuple[int | None, int | None]:
        if amount is None:
            return None, None
        first_part = amount * first_bps // whole
        if not 0 < first_part < amount:
            raise BadValue("the block is too small to split there")
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
        raise WrongState("a block can be split or resold only before it starts")


def resell(block: Block, holder: str, now_ms: int) -> Block:
    """The block with another holder. Raises WrongState once it has started."""
    _check_splittable(block, now_ms)
    return msgspec.structs.replace(block, holder=holder, state="sold")


RUN_MAX: Final = 64  # steps in one run of a timeline


class Timeline:
    """How much of one capacity is promised at each instant. A step's level holds until the next step.

    Steps are kept in runs of at most RUN_MAX. Each run has its highest level, and an amount to add to all its levels.
    So a window costs one pass over the runs inside it and over the steps of the runs at its two ends.
    """

    __slots__ = ("_begins", "_levels", "_raised", "_times", "_tops", "highest_bps")

    def __init__(self) -> None:
        self.highest_bps = 0  # the highest level so far
        self._begins: list[int] = []  # of each run: the time of its first step
        self._times: list[list[int]] = []  # of each run: the times of its steps
        self._levels: list[list[int]] = []  # and their levels, before the run's amount is added
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
        """Raises the level within the window by the rate (lowers it if the rate is negative)."""
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

    def forget(self, before_ms: int) -> None:
        """Nobody asks for levels before this time any more: the steps that ended before it go."""
        if not self._begins or before_ms <= self._begins[0]:
            return
        run, step = self._find(before_ms)
        for of in (self._begins, self._times, self._levels, self._raised, self._tops):
            del of[:run]  # type: ignore[attr-defined]
        del self._times[0][:step], self._levels[0][:step]
        self._begins[0] = self._times[0][0]
        self._tops[0] = max(self._levels[0]) + self._raised[0]

    def __len__(self) -> int:
        """How many steps there are."""
        return sum(map(len, self._times))

    def _find(self, time_ms: int) -> tuple[int, int]:
        """The (run, step in it) that holds at this time; the very first step if the time is before it."""
        run = max(bisect_right(self._begins, time_ms) - 1, 0)
        return run, max(bisect_right(self._times[run], time_ms) - 1, 0)

    def _raise(self, run: int, first: int, after: int, rate_bps: int) -> None:
        levels = self._levels[run]
        raised = [level + rate_bps for level in levels[first:after]]
        levels[first:after] = raised
        # What was lowered may have been the top; what was raised may have become it.
        top = max(self._tops[run], max(raised) + self._raised[run]) if rate_bps > 0 else max(levels) + self._raised[run]
        self._tops[run] = top
        if top > self.highest_bps:
            self.highest_bps = top

    def _make_step(self, time_ms: int) -> tuple[int, int]:
        """The (run, step in it) that begins at this time; adds it if there is none."""
        if not self._begins:
            self._insert_run(0, [time_ms], [0], 0)
            return 0, 0
        run = max(bisect_right(self._begins, time_ms) - 1, 0)
        times, levels = self._times[run], self._levels[run]
        step = bisect_left(times, time_ms)
        if step < len(times) and times[step] == time_ms:
            return run, step
        times.insert(step, time_ms)
        levels.insert(
            step, levels[step - 1] if step else -self._raised[run]
        )  # nothing is promised before the first step
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
    """The part of a block that has `units` of its `of_units` equal units, after the first `before`. Rates and volume
    are rounded to whole bits and bytes so that the parts of all units add up to the block exactly."""

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
    """A block with the highest rate that any `units` of the units can have: what a bid for them must keep ready."""
    if units >= of_units:
        return whole

    def most(amount: int | None) -> int | None:
        return None if amount is None else -(-amount * units // of_units)

    return msgspec.structs.replace(whole, minimum_bps=most(whole.minimum_bps), maximum_bps=most(whole.maximum_bps))


def check_units_of(whole: Block, of_units: int) -> None:
    """Raises BadValue for more units than the block has bits per second or bytes: some would be empty."""
    for amount in (whole.minimum_bps, whole.maximum_bps, whole.volume_bytes):
        if amount is not None and amount < of_units:
            raise BadValue(f"{of_units} units of a block that has {amount}: some would be empty")


def check_capacity_left(capacity_bps: int, peak_bps: int, block: Block, provider: str) -> None:
    """Raises NoCapacity if the block and the peak already promised exceed the capacity together."""
    if peak_bps + block.committed_bps > capacity_bps:
        raise NoCapacity(
            f"{provider} has {capacity_bps - peak_bps} bit/s left in this window, {block.committed_bps} are asked for"
        )
