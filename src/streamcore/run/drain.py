"""The end of a run that was asked to drain: it says what the run waits for, and stops it when its time is up. Nothing
here delivers packets or counts them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

SAID_AFTER_S = 1.0  # a drain that takes longer says what it waits for


class Drain:
    """begin() starts the clock, once; over() ends it. It may be called from any thread, also in a signal handler.

    limit_s: the most that it may take, 0: no limit; waits_for: what the run waits for, in words; stop: called when its
    time is up; say: shows a line to people.
    """

    def __init__(self, limit_s: float, waits_for: Callable[[], str], stop: Callable[[], None]) -> None:
        self.say: Callable[[str], None] = lambda words: None
        self.late = False  # the time was up
        self._limit_s = limit_s
        self._waits_for = waits_for
        self._stop = stop
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="streamcore-drain", daemon=True)

    def begin(self) -> None:
        if not self._over.is_set() and self._thread.ident is None:
            self._thread.start()

    def over(self) -> None:
        self._over.set()

    def _watch(self) -> None:
        first_s = min(SAID_AFTER_S, self._limit_s or SAID_AFTER_S)
        if self._over.wait(first_s):
            return
        left_s = self._limit_s - first_s
        until = f"; stops in {left_s:.0f} s" if self._limit_s else ""
        self.say(f"streamcore: draining, waits for {self._waits_for()}{until}")
        if self._limit_s and not self._over.wait(left_s):
            self.late = True
            self.say(f"streamcore: not drained in {self._limit_s:g} s: stops, and counts what is left")
            self._stop()
