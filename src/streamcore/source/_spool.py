"""The spool: a bounded file that keeps packets, in order, until workers have time. It has no name, so it vanishes when
the process ends, even after a crash.

An entry has a chunk's columns `offset captured_length wire_length timestamp_ns interface`, `offload` if some packets
left something to hardware, then its bytes.
"""

from __future__ import annotations

import collections
import os
import tempfile
from typing import Any, NamedTuple

from streamcore.core.errors import SourceError
from streamcore.core.packets import Chunk, PacketBatch
from streamcore.core.paths import in_the_way

COLUMN_BYTES = 4 + 4 + 4 + 8 + 2 + 10  # of a packet


class Entry(NamedTuple):
    position: int  # in the file
    size: int
    rows: int
    used: int  # bytes of the chunk
    byte_count: int  # captured
    offloads: bool  # of some packets


class Spool:
    """First in, first out. directory: of the file; bytes_max: its size, allocated at once. Raises SourceError."""

    def __init__(self, directory: str, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._entries: collections.deque[Entry] = collections.deque()
        try:
            self._file = tempfile.TemporaryFile(dir=directory, buffering=0)  # noqa: SIM115  closed in close()
            os.posix_fallocate(self._file.fileno(), 0, bytes_max)  # so that a full disk shows now
        except OSError as error:
            words = os.strerror(error.errno or 0).lower() + in_the_way(error, os.path.join(directory, "spool"))
            raise SourceError(f"cannot spool in {directory}: {words}") from None

    def __len__(self) -> int:
        return len(self._entries)

    def has_room_for(self, chunk: Chunk) -> bool:
        """Whether there is room for a full chunk's packets."""
        return self._place(chunk.arena.data_bytes_max + COLUMN_BYTES * chunk.arena.rows_max) is not None

    def put(self, batch: PacketBatch) -> int:
        """Stores the packets of a batch, for which there must be room. Returns their number. Raises SourceError."""
        parts = _parts(batch)
        size = sum(len(part) for part in parts)
        position = self._place(size)
        assert position is not None
        self._move(os.pwritev, parts, position, size)
        self._entries.append(Entry(position, size, batch.count, batch.span_stop, batch.byte_count, batch.offloads))
        return batch.count

    def take(self, chunk: Chunk, interfaces: list[Any], first_number: int) -> PacketBatch:
        """Takes the oldest packets into a chunk as large as the one they came from. Raises SourceError."""
        entry = self._entries[0]
        batch = PacketBatch(chunk, entry.rows, first_number, interfaces, span_stop=entry.used)
        batch.offloads = entry.offloads
        self._move(os.preadv, _parts(batch), entry.position, entry.size)
        batch.record[:] = 0  # RECORD_PCAP, as for packets copied from a ring
        batch.contiguous = True
        self._entries.popleft()
        return batch

    def close(self) -> tuple[int, int]:
        """Discards the remaining entries. Returns (packets, captured bytes)."""
        self._file.close()
        left = list(self._entries)
        self._entries.clear()
        return sum(entry.rows for entry in left), sum(entry.byte_count for entry in left)

    def _place(self, size: int) -> int | None:
        """The position for an entry of so many bytes: after the newest, or at the beginning; None if neither fits."""
        if not self._entries:
            return 0 if size <= self._bytes_max else None
        oldest, newest = self._entries[0].position, self._entries[-1]
        end = newest.position + newest.size
        if newest.position < oldest:  # it has wrapped around
            return end if end + size <= oldest else None
        if end + size <= self._bytes_max:
            return end
        return 0 if size <= oldest else None

    def _move(self, how: Any, parts: list[memoryview], position: int, size: int) -> None:
        try:
            while parts:
                done = how(self._file.fileno(), parts, position)
                if done == 0:
                    raise SourceError("the spool file is shorter than what was written into it")
                position += done
                while parts and done >= len(parts[0]):
                    done -= len(parts.pop(0))
                if done:
                    parts[0] = parts[0][done:]
        except OSError as error:
            raise SourceError(f"cannot use the spool: {os.strerror(error.errno or 0).lower()}") from None


def _parts(batch: PacketBatch) -> list[memoryview]:
    """The non-empty parts of memory that make up an entry."""
    columns: tuple[Any, ...] = (
        batch.offset,
        batch.captured_length,
        batch.wire_length,
        batch.timestamp_ns,
        batch.interface,
        *([batch.offload] if batch.offloads else []),
    )
    return [memoryview(part).cast("B") for part in (*columns, batch.data[: batch.span_stop])]
