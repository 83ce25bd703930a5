"""Segments that leave the machine: a frame that ZeroMQ sends without another copy, the batch built from such a frame,
and the digest that says which input a result is of. The frame's layout stands in _inline.pyx.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from numpy.typing import NDArray

from streamcore.disperse._inline import InlineError, frame_bytes, frame_bytes_max, pack_frame, unpack_frame
from streamcore.packets import Arena, PacketBatch, Segment

__all__ = ["Digest", "FramePool", "InlineError", "Outlet", "frame_bytes_max", "pack_segment", "unpack_segment"]

Buffer = bytes | bytearray | memoryview | NDArray[np.uint8]

DIGEST_KEY_BYTES = 16
SMALL_BYTES = 1 << 16  # below this a frame takes memory of its own: ZeroMQ copies it


class FramePool:
    """Memory for frames on their way out; a piece is free again when ZeroMQ has sent it and nobody else looks at it."""

    def __init__(self, pieces: int, piece_bytes: int) -> None:
        self._arena = Arena(pieces, piece_bytes, 1)

    def take(self, size: int) -> NDArray[np.uint8]:
        """uint8[size], from fresh memory where all pieces are out."""
        if size >= SMALL_BYTES and size <= self._arena.data_bytes_max:
            piece = self._arena.acquire(0)
            if piece is not None:
                taken: NDArray[np.uint8] = piece.data[:size]
                return taken
        return np.empty(size, np.uint8)


def pack_segment(segment: Segment, arena: Arena, pool: FramePool) -> NDArray[np.uint8]:
    """The frame of a segment whose batch lies in arena."""
    links = np.fromiter((arena.link_type(i) for i in range(len(segment.batch.interfaces))), np.uint16)
    frame = pool.take(frame_bytes(segment))
    pack_frame(segment, links, frame)
    return frame


def unpack_segment(number: int, count: int, frame: Buffer, arena: Arena, parser: Any, stream: int = 0) -> Segment:
    """The segment as the only one of a batch in the first chunk of `arena`, whose content it replaces.

    Raises InlineError; trusts no length.
    """
    if count > arena.rows_max:
        raise InlineError(f"a segment of {count} packets is larger than agreed")
    batch = PacketBatch(arena.chunk(0), count, 0, [], parser=parser)
    for interface, link_type in enumerate(unpack_frame(batch, np.frombuffer(frame, np.uint8))):
        arena.set_link_type(interface, link_type)
    return Segment(number, batch, 0, count, stream=stream)


class Digest:
    """AES-GMAC of a frame (NIST SP 800-38D) under a key that both sides got when the worker joined, with the segment's
    number and the attempt as nonce: a result that brings it back is of this input, this lease and this worker.
    """

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def __call__(self, number: int, attempt: int, frame: Buffer) -> bytes:
        nonce = number.to_bytes(8, "little") + attempt.to_bytes(4, "little")
        return self._cipher.encrypt(nonce, b"", memoryview(frame))  # type: ignore[arg-type]


class Outlet:
    """What one peer elsewhere is sent: frames of the segments of `arena`, each with the digest that its result must
    bring back.
    """

    def __init__(self, arena: Arena, pool: FramePool, key: bytes) -> None:
        self._arena = arena
        self._pool = pool
        self._digest = Digest(key)

    def pack(self, segment: Segment, attempt: int) -> tuple[NDArray[np.uint8], bytes]:
        frame = pack_segment(segment, self._arena, self._pool)
        return frame, self._digest(segment.number, attempt, frame)
