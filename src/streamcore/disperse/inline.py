"""Segments that leave the machine: their columns and whole records gathered into two frames, and a batch built from
such frames.

Frame "columns", n packets: timestamp_ns i64 x n · offset u32 x n (of the packet in the other frame) · captured_length
u32 x n ·
wire_length u32 x n · link_type u16 x n · record u8 x n, little-endian. Frame "records": the packets' whole records,
packed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from streamcore.packets import Arena, Chunk, PacketBatch, Segment, gather_records

COLUMN_BYTES = 8 + 4 + 4 + 4 + 2 + 1  # a packet

Buffer = bytes | bytearray | memoryview


class InlineError(ValueError):
    """Frames that do not hold what they say."""


def pack_segment(segment: Segment, arena: Arena) -> tuple[bytes, bytes]:
    """(columns, records) of a segment."""
    batch, index = segment.batch, segment.index
    records, offset = gather_records(segment)
    links = np.array([arena.link_type(i) for i in range(len(batch.interfaces))], np.uint16)
    columns = (
        batch.timestamp_ns[index].astype("<i8"),
        offset.astype("<u4"),
        batch.captured_length[index].astype("<u4"),
        batch.wire_length[index].astype("<u4"),
        links[batch.interface[index]].astype("<u2"),
        batch.record[index],
    )
    return b"".join(column.tobytes() for column in columns), records.tobytes()


def unpack_segment(
    number: int, count: int, columns: Buffer, records: Buffer, chunk: Chunk, parser: Any, stream: int = 0
) -> Segment:
    """The segment as the only one of a batch in `chunk`. Raises InlineError; trusts no length."""
    arena = chunk.arena
    if len(columns) != count * COLUMN_BYTES:
        raise InlineError(f"{len(columns)} bytes of columns for {count} packets")
    if count > arena.rows_max or len(records) > arena.data_bytes_max:
        raise InlineError(f"a segment of {count} packets and {len(records)} bytes is larger than agreed")
    chunk.data[: len(records)] = np.frombuffer(records, np.uint8)
    batch = PacketBatch(chunk, count, 0, [], span_stop=len(records), parser=parser)
    at = 0

    def take(kind: str, size: int) -> np.ndarray[Any, Any]:
        nonlocal at
        column = np.frombuffer(columns, kind, count, at)
        at += count * size
        return column

    batch.timestamp_ns[:] = take("<i8", 8)
    offset, captured = take("<u4", 4), take("<u4", 4)
    if count and int(np.max(offset.astype(np.uint64) + captured)) > len(records):
        raise InlineError("a packet lies outside its records")
    batch.offset[:] = offset
    batch.captured_length[:] = captured
    batch.wire_length[:] = take("<u4", 4)
    kinds, place = np.unique(take("<u2", 2), return_inverse=True)
    for interface, link_type in enumerate(kinds):
        arena.set_link_type(interface, link_type)
    batch.interface[:] = place
    batch.record[:] = take("u1", 1)
    return Segment(number, batch, 0, count, stream=stream)


def digest(frames: Sequence[Buffer]) -> bytes:
    """BLAKE2b-128 over the frames, which a result must bring back."""
    state = hashlib.blake2b(digest_size=16)
    for frame in frames:
        state.update(frame)
    return state.digest()
