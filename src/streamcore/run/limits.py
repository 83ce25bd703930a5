"""Which packets of the first stream a run processes: those between two times, after the first few, up to a number."""

from __future__ import annotations

import numpy as np

from streamcore.core.config import Config
from streamcore.core.counters import Counters
from streamcore.core.packets import PacketBatch

WITHOUT_TIME = (4, 5)  # RECORD_SPB and RECORD_SPB_SWAPPED


class Limits:
    """Applies `from`, `until`, `skip` and `count` to batches in order; each packet that they leave out is counted.

    `over`: `count` packets were let through, so that no more will be.
    """

    def __init__(self, config: Config, counters: Counters) -> None:
        self._counters = counters
        self._from_ns, self._until_ns = config.from_ns, config.until_ns
        self._skip = config.skip
        self._left = config.count if config.count else None  # packets still to let through; None: all
        self.over = False

    def __call__(self, batch: PacketBatch, shift_ns: int = 0) -> None:
        """Leaves the rows of the batch in use that the limits let through. shift_ns: what was added to its times."""
        if self._from_ns is not None or self._until_ns is not None:
            self._by_time(batch, shift_ns)
        if self._skip:
            skipped = min(self._skip, batch.row_count)
            self._skip -= skipped
            self._cut(batch, "limits.skipped", skipped, batch.row_count)
        if self._left is not None:
            kept = min(self._left, batch.row_count)
            self._left -= kept
            self.over = not self._left
            self._cut(batch, "limits.beyond_count", 0, kept)

    def _by_time(self, batch: PacketBatch, shift_ns: int) -> None:
        rows = _rows(batch)
        times = batch.timestamp_ns[rows]
        within = ~np.isin(batch.record[rows], WITHOUT_TIME)
        for bound_ns, is_first in ((self._from_ns, True), (self._until_ns, False)):
            if bound_ns is None:
                continue
            shifted_ns = bound_ns + shift_ns  # the bounds are of the input's times
            if abs(shifted_ns) >= 1 << 63:
                within &= (shifted_ns < 0) == is_first
            else:
                within &= (times >= shifted_ns) if is_first else (times < shifted_ns)
        if not within.all():
            self._leave(batch, rows[~within], "limits.outside_time")
            batch.arrange(rows[within])

    def _cut(self, batch: PacketBatch, name: str, start: int, stop: int) -> None:
        """Leaves the rows start..stop of those in use."""
        if start == 0 and stop == batch.row_count:
            return
        rows = _rows(batch)
        self._leave(batch, np.concatenate((rows[:start], rows[stop:])), name)
        batch.arrange(rows[start:stop].copy())

    def _leave(self, batch: PacketBatch, rows: np.ndarray, name: str) -> None:
        self._counters.count(name, len(rows), int(batch.captured_length[rows].sum(dtype=np.uint64)))


def limits_of(config: Config, counters: Counters) -> Limits | None:
    """The limits that a Config sets; None: every packet is processed."""
    return Limits(config, counters) if config.count or config.skip or config.from_ or config.until else None


def _rows(batch: PacketBatch) -> np.ndarray:
    """The rows in use."""
    return np.arange(batch.count, dtype=np.uint32) if batch.rows is None else batch.rows
