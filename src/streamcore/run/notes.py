"""What stages count for themselves, added to the run's counters whenever somebody looks."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from streamcore.core.counters import Counters


class Notes:
    """Thread-safe."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._lock = threading.Lock()
        self._added: dict[str, int] = {}

    def add(self, totals: Mapping[str, int]) -> None:
        """Adds what these totals, by a name of EVENTS, have grown by since the last call."""
        with self._lock:
            for name, total in totals.items():
                self._counters.bump(name, total - self._added.get(name, 0))
                self._added[name] = total
