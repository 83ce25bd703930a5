"""Shifts the times of a source's packets, and reads the source again and again. _gather.pyx changes the records."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from streamcore.core.capture_form import CaptureForm, Interface
from streamcore.core.errors import SourceError
from streamcore.core.packets import PacketBatch
from streamcore.source._gather import shift_times
from streamcore.source.protocol import Source

SECOND_NS = 10**9
WITHOUT_TIME = (4, 5)  # RECORD_SPB and RECORD_SPB_SWAPPED


class Turns:
    """A source whose times are shifted, and which is read `count` times (0: for ever), each turn later than the last.

    open_turn(first number of a packet, whether it is the first turn) opens the source. A turn begins after the newest
    packet of the one before it, by the mean time between packets, in ticks that all interfaces have. `shift_ns` is what
    was added to the times of the last batch. Damage is that of the first turn. Raises SourceError if a record does not
    hold its new time. One thread iterates; `stop`, `close` and `progress` may be called from any.
    """

    def __init__(self, open_turn: Callable[[int, bool], Source], shift_ns: int, count: int = 1) -> None:
        self._open_turn = open_turn
        self._inner = open_turn(0, True)
        self.shift_ns = shift_ns
        self._count = count
        self._turn = 0
        self._packets = 0
        self._oldest, self._newest, self._timed = 1 << 63, -(1 << 63), 0  # of the first turn
        self._stopped = False
        self._clamped = self._skipped = 0  # of the turns that are over
        self._damage: object | None = None
        self.name = getattr(self._inner, "name", "")
        self.form: CaptureForm = self._inner.form
        if count != 1:
            self.form = self.form._replace(one_section=True)
        self.interfaces: list[Interface] = self._inner.interfaces
        self.blocks = self._inner.blocks
        self.filtered = self._inner.filtered

    @property
    def damage(self) -> object | None:
        """Where and why the first turn ended early; None if it did not."""
        return self._damage or (self._inner.damage if self._turn == 0 else None)

    @property
    def times_clamped(self) -> int:
        """The number of packets so far whose time does not fit 64-bit nanoseconds."""
        return self._clamped + self._inner.times_clamped

    @property
    def blocks_skipped(self) -> int:
        """The number of pcapng blocks so far that are neither packets, interfaces nor sections."""
        return self._skipped + self._inner.blocks_skipped

    def progress(self) -> tuple[int, int | None]:
        """(bytes read so far in all turns, the total or None if unknown)."""
        read, size = self._inner.progress()
        if size is None:
            return read, None
        return read + self._turn * size, size * self._count if self._count else None

    def refresh(self) -> None:
        """Does nothing: a capture counts as it reads."""

    def pressed(self) -> None:
        """Tells the inner source."""
        self._inner.pressed()

    def stop(self) -> None:
        """Ends the iteration soon. Returns at once."""
        self._stopped = True
        self._inner.stop()

    def close(self) -> None:
        """Ends the iteration and closes the source. Delivered batches stay valid."""
        self.stop()
        self._inner.close()

    def __iter__(self) -> Iterator[PacketBatch]:
        while True:
            for batch in self._inner:
                if self._turn == 0 and self._count != 1:
                    self._measure(batch)
                self._shift(batch)
                self._packets += batch.count
                yield batch
                del batch  # otherwise this frame would hold a chunk while it waits for one
            if self._stopped or self._turn + 1 == self._count or not self._packets:
                return
            self._next_turn()

    def _next_turn(self) -> None:
        if self._turn == 0:
            self._damage = self._inner.damage
        self._clamped, self._skipped = self.times_clamped, self.blocks_skipped
        self._inner.close()
        self._inner = self._open_turn(self._packets, False)
        self._turn += 1
        self.shift_ns += self._length_ns()
        if self._stopped:  # while it was opened
            self._inner.stop()

    def _measure(self, batch: PacketBatch) -> None:
        """Notes the times of a batch of the first turn."""
        times = batch.timestamp_ns[~np.isin(batch.record, WITHOUT_TIME)]
        if len(times):
            self._oldest, self._newest = min(self._oldest, int(times.min())), max(self._newest, int(times.max()))
            self._timed += len(times)

    def _length_ns(self) -> int:
        """The time from the beginning of a turn to that of the next."""
        span_ns = max(0, self._newest - self._oldest)
        length_ns = span_ns + span_ns // max(1, self._timed - 1)
        tick_ns = max((tick_ns_of(interface) for interface in self.interfaces), default=1)
        return -(-max(1, length_ns) // tick_ns) * tick_ns

    def _shift(self, batch: PacketBatch) -> None:
        if not self.shift_ns:
            return
        unit_ns = 1000 if self.form.family == "pcap" and self.form.resolution == 6 else 1
        row = shift_times(batch, self.shift_ns, self._ticks(batch.interfaces), unit_ns)
        if row >= 0:
            raise SourceError(
                f"cannot read {self.name} with other times: packet {batch.first_number + row + 1}, of "
                f"{batch.timestamp_ns[row]} ns since 1970, cannot be moved by {self.shift_ns} ns"
            )

    def _ticks(self, interfaces: Sequence[Interface]) -> NDArray[np.int64]:
        """What the shift is in ticks of each interface. Raises SourceError if it is no whole number of them."""
        ticks = []
        for interface in interfaces:
            count, rest = in_ticks(self.shift_ns, interface.resolution)
            if rest or abs(count) >= 1 << 63:
                raise SourceError(
                    f"cannot read {self.name} with other times: {self.shift_ns} ns is no whole number of ticks of an "
                    f"interface with times in {ticks_in_words(interface.resolution)}"
                )
            ticks.append(count)
        return np.array(ticks, np.int64)


def in_ticks(ns: int, resolution: int) -> tuple[int, int]:
    """(whole ticks of an interface with this if_tsresol, what remains) of a span in nanoseconds."""
    exponent = resolution & 0x7F
    per_second = 1 << exponent if resolution & 0x80 else 10**exponent
    return divmod(ns * per_second, SECOND_NS)


def tick_ns_of(interface: Interface) -> int:
    """Nanoseconds that are a whole number of ticks, and of those of every finer decimal interface."""
    if interface.resolution & 0x80:
        return SECOND_NS
    return int(10 ** max(0, 9 - interface.resolution))


def ticks_in_words(resolution: int) -> str:
    return f"2^-{resolution & 0x7F} s" if resolution & 0x80 else f"10^-{resolution} s"
