"""Chunks for who does not wait for them: readers outside a run, and what a source reads before it puts it in order."""

from __future__ import annotations

from streamcore.core.packets import Arena, Chunk

CHUNK_BYTES = 4 << 20
ROWS_MAX = 65_536
CHUNKS_AT_ONCE = 4
ROOM = 64  # bytes that a record may grow by on its way into another chunk


class Chunks:
    """Supplies chunks like an Arena, but never waits: if all are in use, it takes more memory."""

    def __init__(self, data_bytes_max: int = CHUNK_BYTES, rows_max: int = ROWS_MAX) -> None:
        self.data_bytes_max = data_bytes_max
        self.rows_max = rows_max
        self._link_types: dict[int, int] = {}
        self._arenas: list[Arena] = []

    def acquire(self, timeout_s: float | None = None) -> Chunk | None:
        """Returns a chunk at once."""
        for arena in self._arenas:
            if arena.free_count:
                chunk = arena.acquire(0)
                if chunk is not None:
                    return chunk
        arena = Arena(CHUNKS_AT_ONCE, self.data_bytes_max, self.rows_max)
        for interface, link_type in self._link_types.items():
            arena.set_link_type(interface, link_type)
        self._arenas.append(arena)
        return arena.acquire(0)

    def set_link_type(self, interface: int, link_type: int) -> None:
        """Makes the link type of an interface known to parsers."""
        self._link_types[interface] = link_type
        for arena in self._arenas:
            arena.set_link_type(interface, link_type)
