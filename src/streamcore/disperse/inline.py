"""Segments for remote workers: builds a frame that ZeroMQ sends without another copy, builds a batch from such a frame,
and computes the digest that ties a result to its input. _inline.pyx describes the frame's layout.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_128_digest

from streamcore.core.packets import Arena, PacketBatch, Segment
from streamcore.disperse._inline import InlineError, frame_bytes, frame_bytes_max, pack_frame, unpack_frame

__all__ = ["Digest", "FramePool", "InlineError", "Outlet", "frame_bytes_max", "unpack_segment"]

Buffer = bytes | bytearray | memoryview | NDArray[np.uint8]

DIGEST_KEY_BYTES = 8
SMALL_BYTES = 1 << 16  # a smaller frame is not pooled: ZeroMQ copies it


class FramePool:
    """Memory for outgoing frames. A piece is free again when ZeroMQ has sent it and nothing else refers to it."""

    def __init__(self, pieces: int, piece_bytes: int) -> None:
        self._arena = Arena(pieces, piece_bytes, 1)

    def take(self, size: int) -> NDArray[np.uint8]:
        """uint8[size], from new memory if all pieces are in use."""
        if size >= SMALL_BYTES and size <= self._arena.data_bytes_max:
            piece = self._arena.acquire(0)
            if piece is not None:
                taken: NDArray[np.uint8] = piece.data[:size]
                return taken
        return np.empty(size, np.uint8)


def unpack_segment(number: int, count: int, frame: Buffer, arena: Arena, parser: Any, stream: int = 0) -> Segment:
    """The segment, as the only one of a batch in the first chunk of `arena`, whose content it replaces.

    Checks every length. Raises InlineError.
    """
    if count > arena.rows_max:
        raise InlineError(f"a segment of {count} packets is larger than agreed")
    batch = PacketBatch(arena.chunk(0), count, 0, [], parser=parser)
    for interface, link_type in enumerate(unpack_frame(batch, np.frombuffer(frame, np.uint8))):
        arena.set_link_type(interface, link_type)
    return Segment(number, batch, 0, count, stream=stream)


class Digest:
    """XXH3-128 of a frame, seeded with a key that both sides got when the worker joined, the segment's number and the
    attempt. A result with this digest belongs to this input, lease and connection.

    It tells inputs apart but signs nothing: CURVE authenticates the sender, and any worker that has an input can
    compute its digest.
    """

    def __init__(self, key: bytes) -> None:
        self._key = int.from_bytes(key, "little")

    def __call__(self, number: int, attempt: int, frame: Buffer) -> bytes:
        seed = self._key ^ (number << 16 ^ attempt) % 2**64
        return xxh3_128_digest(memoryview(frame), seed)  # type: ignore[arg-type]


class Outlet:
    """Packs segments of `arena` into frames for one remote worker, each with the digest that its result must return."""

    def __init__(self, arena: Arena, pool: FramePool, key: bytes) -> None:
        self._arena = arena
        self._pool = pool
        self._digest = Digest(key)
        self._link_types = np.empty(0, np.uint16)  # of the stream's interfaces so far

    def pack(self, segment: Segment, attempt: int) -> tuple[NDArray[np.uint8], bytes]:
        interfaces = len(segment.batch.interfaces)
        if len(self._link_types) < interfaces:
            self._link_types = np.fromiter(map(self._arena.link_type, range(interfaces)), np.uint16)
        frame = self._pool.take(frame_bytes(segment))
        pack_frame(segment, self._link_types[:interfaces], frame)
        return frame, self._digest(segment.number, attempt, frame)
