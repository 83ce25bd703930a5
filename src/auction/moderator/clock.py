"""The market's clock: any callable that returns whole milliseconds since 1970. Only the moderator reads it."""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], int]


def system_clock() -> Clock:
    """A clock that starts at the wall clock's time and then runs by the monotonic one: a step of the wall clock while
    the process runs neither closes an auction early nor keeps one open."""
    start_ms = time.time_ns() // 1_000_000 - time.monotonic_ns() // 1_000_000
    return lambda: start_ms + time.monotonic_ns() // 1_000_000


class SteadyTime:
    """The moderator's time: it never goes back. If the clock steps back, time continues from where it was at the
    clock's pace, so deadlines keep their distance."""

    __slots__ = ("_clock", "_last_reading_ms", "now_ms")

    def __init__(self, clock: Clock, not_before_ms: int = 0) -> None:
        self._clock = clock
        self._last_reading_ms = clock()
        self.now_ms = max(self._last_reading_ms, not_before_ms)

    def read(self) -> int:
        reading_ms = self._clock()
        if reading_ms > self._last_reading_ms:
            self.now_ms = max(self.now_ms + reading_ms - self._last_reading_ms, 0)
        self._last_reading_ms = reading_ms
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
