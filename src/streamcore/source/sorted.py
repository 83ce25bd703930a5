"""Sorts the packets of another source by time, within a window. _gather.pyx copies them into the run's chunks."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcore.core.capture_form import CaptureForm, Interface
from streamcore.core.counters import Counters
from streamcore.core.errors import SourceError
from streamcore.core.packets import Chunk, PacketBatch
from streamcore.source._gather import Gatherer
from streamcore.source.capture import ACQUIRE_WAIT_S, ChunkSupply
from streamcore.source.protocol import Source

HELD_MAX = 64  # batches whose packets wait
WITHOUT_TIME = (4, 5)  # RECORD_SPB and RECORD_SPB_SWAPPED
NEVER = -(1 << 63)


class SortedSource:
    """The packets of `inner` in the order of their times; iterate over it for its PacketBatches.

    A packet that is at most window_ns older than the newest packet before it takes its place; of equal times, the first
    stays the first. One that is older leaves at once, where it came, and counts as `source.late`; a packet without a
    time stays behind the one before it. What leaves does not depend on how inner divides its packets into batches,
    unless HELD_MAX batches wait: then the older half of them leaves early. inner must take its chunks elsewhere than
    from arena. One thread iterates; `stop`, `close` and `progress` may be called from any.
    """

    def __init__(
        self,
        inner: Source,
        arena: ChunkSupply,
        window_ns: int,
        counters: Counters | None = None,
        parser: Any = None,
        first_number: int = 0,
    ) -> None:
        self._inner = inner
        self._arena = arena
        self._window_ns = window_ns
        self._counters = counters
        self.name = getattr(inner, "name", "")
        self.form: CaptureForm = inner.form._replace(one_section=True)
        self.interfaces: list[Interface] = inner.interfaces
        self.blocks = inner.blocks
        self.filtered = inner.filtered
        self.shift_ns = 0
        self._parser = parser
        self._gatherer = Gatherer(
            self.form.family == "pcapng", self.form.resolution if self.form.family == "pcap" else 9
        )
        self._closing = threading.Event()
        self._newest = NEVER  # time so far
        self._floor = NEVER  # no packet may come before this time any more
        self._held: list[PacketBatch] = []
        self._keys: NDArray[np.int64] = np.zeros(0, np.int64)  # of the packets that wait, sorted
        self._which: NDArray[np.uint16] = np.zeros(0, np.uint16)  # index into _held
        self._rows: NDArray[np.uint32] = np.zeros(0, np.uint32)
        self._ready = 0  # how many of them may leave
        self._at = 0  # how many have left
        self._ended = False
        self._packets = first_number

    @property
    def damage(self) -> object | None:
        """Where and why the inner source ended early; None if it did not."""
        return self._inner.damage

    @property
    def times_clamped(self) -> int:
        """The number of packets so far whose time does not fit 64-bit nanoseconds."""
        return self._inner.times_clamped

    @property
    def blocks_skipped(self) -> int:
        """The number of pcapng blocks so far that are neither packets, interfaces nor sections."""
        return self._inner.blocks_skipped

    def progress(self) -> tuple[int, int | None]:
        """(bytes read so far, the total or None if unknown)."""
        return self._inner.progress()

    def refresh(self) -> None:
        """Does nothing: a capture counts as it reads."""

    def pressed(self) -> None:
        """Does nothing: a capture can wait for the workers."""

    def stop(self) -> None:
        """Ends the iteration soon. Returns at once."""
        self._closing.set()
        self._inner.stop()

    def close(self) -> None:
        """Ends the iteration and closes the inner source. Delivered batches stay valid."""
        self.stop()
        self._inner.close()

    def __enter__(self) -> SortedSource:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[PacketBatch]:
        return self

    def __next__(self) -> PacketBatch:
        while self._at == self._ready and not self._ended and not self._closing.is_set():
            self._read()
        chunk = self._acquire() if self._at < self._ready else None
        if chunk is None:
            raise StopIteration
        gatherer = self._gatherer
        gatherer.begin(chunk)
        while True:
            self._copy()
            if self._at < self._ready or self._ended or self._closing.is_set():
                break
            self._read()
        batch = PacketBatch(
            chunk, gatherer.rows, self._packets, self.interfaces, span_start=0, span_stop=gatherer.used,
            parser=self._parser,
        )  # fmt: skip
        batch.contiguous = gatherer.contiguous
        gatherer.begin(None)
        self._packets += batch.count
        return batch

    def _copy(self) -> None:
        """Copies what is ready into the chunk, as far as it has room."""
        if self._at == self._ready:
            return
        numbers = np.arange(len(self.interfaces), dtype=np.uint16)
        held = self._held
        try:
            self._at = self._gatherer.take(
                held, [numbers] * len(held), [self.form.resolution] * len(held),
                self._which[: self._ready], self._rows[: self._ready], self._at,
            )  # fmt: skip
        except OverflowError as error:
            raise SourceError(f"cannot sort {self.name}: no pcap holds the time {error}") from None

    def _acquire(self) -> Chunk | None:
        while not self._closing.is_set():
            chunk = self._arena.acquire(ACQUIRE_WAIT_S)
            if chunk is not None:
                return chunk
        return None

    def _read(self) -> None:
        """Adds the inner source's next batch to what waits, and finds how much of that may leave."""
        self._forget_gone()
        batch = next(iter(self._inner), None)
        if batch is None:
            self._ended = True
            self._ready = len(self._keys)
            return
        keys = self._keys_of(batch)
        self._held.append(batch)
        keys = np.concatenate((self._keys, keys))
        which = np.concatenate((self._which, np.full(batch.count, len(self._held) - 1, np.uint16)))
        rows = np.concatenate((self._rows, np.arange(batch.count, dtype=np.uint32)))
        order = np.argsort(keys, kind="stable")
        self._keys, self._which, self._rows = keys[order], which[order], rows[order]
        self._ready = int(np.searchsorted(self._keys, self._newest - self._window_ns, "right"))
        if len(self._held) >= HELD_MAX:
            self._hurry()

    def _keys_of(self, batch: PacketBatch) -> NDArray[np.int64]:
        """The times at which packets take their places: their own, unless that is past. Counts those that are late."""
        times = batch.timestamp_ns.copy()
        timeless = np.isin(batch.record, WITHOUT_TIME)
        if self._newest == NEVER and batch.count:
            self._newest = int(times[0])
        newest = np.maximum.accumulate(np.maximum(np.where(timeless, NEVER, times), self._newest))
        times[timeless] = newest[timeless]
        # The window reaches no further back than 64 bits do.
        edge = np.where(newest < NEVER + self._window_ns, NEVER, newest - self._window_ns)
        edge = np.maximum(edge, self._floor)
        late = int(np.count_nonzero(times < edge))
        if late and self._counters is not None:
            self._counters.bump("source.late", late)
        self._newest = int(newest[-1]) if batch.count else self._newest
        return np.maximum(times, edge)

    def _hurry(self) -> None:
        """Lets all packets leave that stand before the last one of the older half of the batches."""
        older = np.flatnonzero(self._which < HELD_MAX // 2)
        self._ready = max(self._ready, int(older[-1]) + 1 if len(older) else 0)
        if self._ready:
            self._floor = max(self._floor, int(self._keys[self._ready - 1]))

    def _forget_gone(self) -> None:
        """Forgets the packets that have left, and the batches that have none waiting."""
        self._keys, self._which, self._rows = self._keys[self._at :], self._which[self._at :], self._rows[self._at :]
        self._ready -= self._at
        self._at = 0
        needed = np.unique(self._which)
        if len(needed) < len(self._held):
            places = np.zeros(max(1, len(self._held)), np.uint16)
            places[needed] = np.arange(len(needed), dtype=np.uint16)
            self._held = [self._held[number] for number in needed.tolist()]
            self._which = places[self._which]
