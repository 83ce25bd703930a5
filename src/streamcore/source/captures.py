"""Opens the captures that a Config names as one source: merged or chained, sorted, shifted, looped, framed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from streamcore.core.config import Config
from streamcore.core.counters import Counters
from streamcore.core.packets import PacketBatch
from streamcore.source._supply import ROOM, Chunks
from streamcore.source.capture import CaptureSource, ChunkSupply
from streamcore.source.protocol import Source, SourceNeeds


def open_captures(config: Config, needs: SourceNeeds) -> Source:
    """The source of `read`. Raises SourceError."""
    return captures(config, needs.arena, counters=needs.counters, keep_blocks=bool(config.write))


def captures(
    config: Config,
    arena: ChunkSupply,
    *,
    parser: Callable[[PacketBatch, int], None] | None = None,
    counters: Counters | None = None,
    keep_blocks: bool = False,
) -> Source:
    """The captures of a Config as one source, whose batches are chunks of arena. Raises SourceError."""
    paths = config.captures
    options: dict[str, Any] = {"parser": parser, "chunk_wait_s": config.chunk_wait_s}

    def read(arena: ChunkSupply, first_number: int, keep_blocks: bool) -> Source:
        more = {**options, "keep_blocks": keep_blocks, "first_number": first_number}
        if len(paths) == 1:
            return CaptureSource(paths[0], arena, **more)
        from streamcore.source.merged import MergedSource

        return MergedSource(paths, arena, by_time=config.inputs == "merge", **more)

    def turn(arena: ChunkSupply, first_number: int, is_first: bool) -> Source:
        keeps = keep_blocks and is_first
        if not config.sort_s:
            return read(arena, first_number, keeps)
        from streamcore.source.sorted import SortedSource

        return SortedSource(
            read(Chunks(arena.data_bytes_max - ROOM, arena.rows_max), 0, keeps), arena, round(config.sort_s * 1e9),
            counters if is_first else None, parser, first_number,
        )  # fmt: skip

    def turns(arena: ChunkSupply) -> Source:
        if not config.shift_ns and config.loop == 1:
            return turn(arena, 0, True)
        from streamcore.source.turns import Turns

        return Turns(lambda number, is_first: turn(arena, number, is_first), config.shift_ns, config.loop)

    if not config.frames.changes:
        return turns(arena)
    from streamcore.headers import udp_ports
    from streamcore.source.framed import FramedSource

    inner = turns(Chunks(arena.data_bytes_max - ROOM, arena.rows_max))
    return FramedSource(inner, arena, config.frames, counters, udp_ports(config.decode_as))
