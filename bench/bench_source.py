"""The source: walking records that are in the cache, reading and walking a capture on tmpfs, and `read` alone."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from streamcore.core.packets import Arena
from streamcore.source._records import Walker, read_into
from streamcore.source.capture import CaptureSource

CHUNK_BYTES, ROWS_MAX = 4 << 20, 65_536
CACHED_BYTES = 128 << 10


@pytest.mark.parametrize("data_bytes", [CACHED_BYTES, CHUNK_BYTES], ids=["in-cache", "chunk"])
@pytest.mark.parametrize("format", ["pcap", "pcapng"])
def test_walk(
    benchmark: Any, per_packet: Callable[[int], None], capture_of: Callable[..., Path], format: str, data_bytes: int
) -> None:
    """The bare walk of 64-byte packets, the same chunk again and again."""
    with CaptureSource(capture_of("small64", 200_000, format=format), Arena(4, CHUNK_BYTES, ROWS_MAX)) as source:
        chunk = next(source).chunk
    walker = Walker()
    if format == "pcap":
        walker.set_pcap(False, 1000, 262_144)
    else:
        walker.set_section(False, 0)
        walker.add_interface(6, 0, 0, 262_144)
    start = 0 if format == "pcap" else int(chunk_start(chunk))

    def work() -> int:
        walker.begin(chunk)
        walker.walk(chunk, start, start + data_bytes if data_bytes < CHUNK_BYTES else CHUNK_BYTES)
        return walker.rows

    rows = benchmark(work)
    assert rows > 1000
    per_packet(rows)


def chunk_start(chunk: Any) -> int:
    """Where the first enhanced packet block of a chunk stands."""
    data = chunk.data[:4096].tobytes()
    at = 0
    while data[at : at + 4] != b"\x06\0\0\0":
        at += int.from_bytes(data[at + 4 : at + 8], "little")
    return at


def test_read_alone(benchmark: Any, per_packet: Callable[[int], None], small64: Path) -> None:
    """What reading a capture into chunks costs, without looking at it."""
    arena = Arena(4, CHUNK_BYTES, ROWS_MAX)

    def work() -> int:
        descriptor = os.open(small64, os.O_RDONLY)
        total = 0
        while got := read_into(arena.acquire(), 0, CHUNK_BYTES, descriptor):
            total += got
        os.close(descriptor)
        return total

    assert benchmark(work) == small64.stat().st_size
    per_packet(small64.stat().st_size // 76)


def read_all(path: Path, arena: Arena) -> int:
    packets = 0
    with CaptureSource(path, arena) as source:
        for batch in source:
            packets += len(batch)
            del batch
    return packets


def test_read_and_walk(benchmark: Any, per_packet: Callable[[int], None], each_capture: Path) -> None:
    arena = Arena(4, CHUNK_BYTES, ROWS_MAX)
    per_packet(benchmark(read_all, each_capture, arena))


def test_read_and_walk_pcapng(
    benchmark: Any, per_packet: Callable[[int], None], capture_of: Callable[..., Path]
) -> None:
    arena = Arena(4, CHUNK_BYTES, ROWS_MAX)
    per_packet(benchmark(read_all, capture_of("small64", 1_000_000, format="pcapng"), arena))


def test_read_zstd(benchmark: Any, per_packet: Callable[[int], None], small64: Path) -> None:
    compressed = small64.with_suffix(".pcap.zst")
    if not compressed.exists():
        compressed.write_bytes(zstandard.ZstdCompressor().compress(small64.read_bytes()))
    arena = Arena(4, CHUNK_BYTES, ROWS_MAX)
    per_packet(benchmark(read_all, compressed, arena))
