"""Memory in which the byte behind each input is one that nobody may touch: a page without rights, so that a read of
one byte too many ends the process. The modules that are built with AddressSanitizer check everything else as well.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from streamcore.core.packets import Arena, PacketBatch

PAGE = mmap.PAGESIZE
PROT_NONE = 0
RECORD_BARE = 10  # of PacketBatch.record: no header stands in front of the packet


class Guarded:
    """Rooms for `rooms` inputs of at most room_bytes each, in the one chunk of an arena."""

    def __init__(self, rooms: int, room_bytes: int) -> None:
        self._room_bytes = (room_bytes + PAGE - 1) // PAGE * PAGE
        self._stride = self._room_bytes + PAGE
        self.arena = Arena(1, (rooms + 1) * self._stride, rooms)
        self.chunk = self.arena.acquire()
        self.data: NDArray[np.uint8] = self.chunk.data
        address = self.data.__array_interface__["data"][0]
        self._first = -address % PAGE
        self._view = memoryview(self.data)
        libc = ctypes.CDLL(None, use_errno=True)
        for room in range(rooms):
            guard = ctypes.c_void_p(address + self._first + room * self._stride + self._room_bytes)
            if libc.mprotect(guard, ctypes.c_size_t(PAGE), PROT_NONE) != 0:
                raise OSError(ctypes.get_errno(), "mprotect")

    def place(self, inputs: Sequence[bytes]) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
        """Put inputs into the rooms; returns where each begins in `data`, and its length. A longer one than fits is
        cut.
        """
        offset, length = np.empty(len(inputs), np.uint32), np.empty(len(inputs), np.uint32)
        end = self._first + self._room_bytes
        for i, each in enumerate(inputs):
            size = min(len(each), self._room_bytes)
            self._view[end - size : end] = each[:size]
            offset[i], length[i] = end - size, size
            end += self._stride
        return offset, length

    def one(self, each: bytes) -> NDArray[np.uint8]:
        """The input alone, in the first room."""
        (at,), (size,) = self.place([each])
        return self.data[at : at + size]

    def batch(self, packets: Sequence[bytes], link_type: int, times_ns: Sequence[int] | None = None) -> PacketBatch:
        """Packets in the rooms, as a batch of them."""
        offset, length = self.place(packets)
        self.arena.set_link_type(0, link_type)
        batch = PacketBatch(self.chunk, len(packets), 0, [])
        batch.offset[:], batch.captured_length[:], batch.wire_length[:] = offset, length, length
        batch.timestamp_ns[:] = np.arange(len(packets)) if times_ns is None else times_ns
        batch.interface[:], batch.record[:] = 0, RECORD_BARE
        return batch
