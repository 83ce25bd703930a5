"""Batches made by hand for tests: packets as pcap records in a private arena, no capture reader involved."""

import struct

import numpy as np

from streamcore.core.capture_form import Interface
from streamcore.core.packets import COLUMN_GROUPS, Arena, PacketBatch


def make_batch(packets, *, times_ns=None, hashes=None, first_number=0, arena=None, wire_lengths=None):
    """A PacketBatch of `packets` (bytes), laid out in its chunk as little-endian pcap records."""
    size = sum(16 + len(p) for p in packets)
    arena = arena or Arena(4, max(size, 1), max(len(packets), 1))
    chunk = arena.acquire(0)
    assert chunk is not None
    times_ns = times_ns if times_ns is not None else [1000 * i for i in range(len(packets))]
    wire_lengths = wire_lengths or [len(p) for p in packets]
    raw = b"".join(
        struct.pack("<IIII", t // 10**9, t % 10**9 // 1000, len(p), w) + p
        for p, t, w in zip(packets, times_ns, wire_lengths, strict=True)
    )
    chunk.data[: len(raw)] = np.frombuffer(raw, np.uint8)
    groups = COLUMN_GROUPS["flow"] if hashes is not None else 0
    batch = PacketBatch(
        chunk, len(packets), first_number, [Interface(1, 65535)], span_start=0, span_stop=len(raw), groups=groups
    )
    lengths = np.array([len(p) for p in packets], np.uint32)
    starts = np.cumsum(lengths + 16) - lengths
    batch.offset[:] = starts
    batch.captured_length[:] = lengths
    batch.wire_length[:] = wire_lengths
    batch.timestamp_ns[:] = times_ns
    batch.interface[:] = 0
    batch.record[:] = 0
    if hashes is not None:
        batch.flow_hash[:] = hashes
    return batch
