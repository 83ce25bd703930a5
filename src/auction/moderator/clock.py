"""The market's clock: any callable that returns whole milliseconds since 1970. Only the moderator reads it."""

from __future__ import annotations

import time
from collections.abc import Callable

from auction.model.lifecycle import has_jumped

Clock = Callable[[], int]


def wall_clock() -> int:
    """The machine's time, which whoever administers the machine can set."""
    return time.time_ns() // 1_000_000


def system_clock() -> Clock:
    """A clock that starts at the wall clock's time and then runs by the monotonic one: a step of the wall clock while
    the process runs neither closes an auction early nor keeps one open."""
    start_ms = wall_clock() - time.monotonic_ns() // 1_000_000
    return lambda: start_ms + time.monotonic_ns() // 1_000_000


class SteadyTime:
    """The moderator's time: it never goes back. It goes at the pace of `steady`, a clock that nobody sets; without one
    at the clock's own, and where the clock reads less than before, time goes on from where it was.

    A jump of the clock by an hour, against `steady` or, without one, back behind its own highest reading or
    `not_before_ms`, is seen (`has_jumped`): from then on time stands still until `trust` says that the clock is
    right."""

    __slots__ = ("_clock", "_highest_ms", "_last_ms", "_offset_ms", "_steady", "has_jumped", "now_ms")

    def __init__(self, clock: Clock, not_before_ms: int = 0, steady: Clock | None = None) -> None:
        self._clock = clock
        self._steady = steady
        self.has_jumped = False
        self.now_ms = self._set(clock())
        self.follow(not_before_ms)

    def _set(self, reading_ms: int) -> int:
        self._highest_ms = reading_ms
        self._last_ms = reading_ms if self._steady is None else self._steady()
        self._offset_ms = reading_ms - self._last_ms
        return reading_ms

    def read(self) -> int:
        reading_ms = self._clock()
        pace_ms = reading_ms if self._steady is None else self._steady()
        if reading_ms > self._highest_ms:
            self._highest_ms = reading_ms
        expected_ms = self._highest_ms if self._steady is None else pace_ms + self._offset_ms
        if self.has_jumped or (reading_ms != expected_ms and has_jumped(expected_ms, reading_ms)):
            self.has_jumped = True
        elif pace_ms > self._last_ms:
            self.now_ms = max(self.now_ms + pace_ms - self._last_ms, 0)
        self._last_ms = pace_ms
        return self.now_ms

    def reading_ms(self) -> int:
        """What the clock shows, whether it is trusted or not."""
        return self._clock()

    def follow(self, at_ms: int, ahead_ms: int = 0) -> None:
        """The journal's last entry is of this time: the market's is not before it, and the clock is not an hour before
        it. `ahead_ms`: so far the market's time is ahead of the clock since that was set back, and confirmed."""
        self.now_ms = max(self.now_ms, at_ms)
        shown_ms = at_ms - ahead_ms
        if shown_ms > self._highest_ms:
            self._highest_ms = shown_ms
            self.has_jumped = self.has_jumped or has_jumped(shown_ms, self._clock())

    def trust(self) -> int:
        """The clock is right: time goes on from what it shows, and never back. Returns the time."""
        self.has_jumped = False
        self.now_ms = max(self.now_ms, self._set(self._clock()))
        return self.now_ms


class ManualClock:
    """A clock that stands still until it is moved: for tests, simulations and the demo."""

    __slots__ = ("now_ms",)

    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        return self.now_ms

    def advance(self, by_ms: int) -> None:
        self.now_ms += by_ms
