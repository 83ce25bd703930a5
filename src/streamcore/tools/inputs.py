"""Opens the captures of a table, and says at the end what was wrong with them. tables.py opens its output."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from streamcore.core.config import Config
from streamcore.core.counters import Counters, words_for
from streamcore.core.packets import Arena, PacketBatch
from streamcore.run.limits import limits_of
from streamcore.source._gather import Gatherer
from streamcore.source.captures import captures
from streamcore.source.merged import Damages
from streamcore.source.protocol import Source
from streamcore.tools.ahead import read_ahead

CHUNKS = 3  # one that is read, one that waits, one in work
CHUNK_BYTES = 8 << 20  # also bounds a packet
CHUNK_ROWS = 65_536
ROOM_BYTES = 64  # a packet may need more in another form of record
DELIVERED, LOSS = 0, 3  # exit statuses


@contextmanager
def opened(config: Config, chunk_bytes: int = CHUNK_BYTES) -> Iterator[Inputs]:
    """The captures of a Config, for one reader. Raises SourceError."""
    inputs = Inputs(config, chunk_bytes)
    try:
        yield inputs
    finally:
        inputs.source.close()


class Inputs:
    """The batches of a Config's captures, and which of their packets its limits let through."""

    def __init__(self, config: Config, chunk_bytes: int) -> None:
        self.counters = Counters()
        self.source: Source = captures(config, Arena(CHUNKS, chunk_bytes, CHUNK_ROWS), counters=self.counters)
        self.form = self.source.form
        self._limits = limits_of(config, self.counters)
        self._chunk_bytes = chunk_bytes

    def __iter__(self) -> Iterator[PacketBatch]:
        """The batches; `rows` says which packets the limits let through."""
        limits = self._limits
        for batch in self.source:
            if limits is not None:
                limits(batch, self.source.shift_ns)
            if batch.row_count:
                yield batch
            del batch  # otherwise this frame would hold a chunk while it waits for one
            if limits is not None and limits.over:
                break

    def stop(self) -> None:
        """Ends the iteration soon."""
        self.source.stop()

    def alone(self) -> Iterator[PacketBatch]:
        """Batches of nothing but the packets that the limits let through. They do not have their numbers."""
        form = self.form
        gatherer = Gatherer(form.family == "pcapng", form.resolution if form.family == "pcap" else 9)
        arena = Arena(2, self._chunk_bytes + ROOM_BYTES, CHUNK_ROWS)
        for batch in read_ahead(self):
            yield batch if batch.rows is None else _only(batch, gatherer, arena, form.resolution)
            del batch


def _only(batch: PacketBatch, gatherer: Gatherer, arena: Arena, digits: int) -> PacketBatch:
    """A batch of the rows in use."""
    rows = batch.rows
    assert rows is not None
    chunk = arena.acquire()
    assert chunk is not None
    for number, interface in enumerate(batch.interfaces):
        arena.set_link_type(number, interface.link_type)
    gatherer.begin(chunk)
    numbers = np.arange(len(batch.interfaces), dtype=np.uint16)
    left = gatherer.take([batch], [numbers], [digits], np.zeros(len(rows), np.uint16), rows, 0)
    assert left == len(rows)
    only = PacketBatch(chunk, gatherer.rows, batch.first_number, batch.interfaces)
    gatherer.begin(None)
    return only


def status(inputs: Inputs) -> int:
    """The exit status at the end of the captures. Reports damage, and packets out of order, on standard error."""
    damage, source = inputs.source.damage, inputs.source
    if late := inputs.counters.events("source.late"):
        print(f"{late:,} {words_for('source.late')}", file=sys.stderr)
    if damage is None:
        return DELIVERED
    for name, why in damage if isinstance(damage, Damages) else ((getattr(source, "name", ""), damage),):
        print(f"{name} is damaged: {why}; everything before it was read", file=sys.stderr)
    return LOSS
