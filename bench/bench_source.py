"""The source: walking records that are in the cache, reading and walking a capture on tmpfs, and `read` alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

from streamcore.core.packets import Arena
from streamcore.source._reading import read_into
from streamcore.source._records import Walker
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
        walker.set_section(False)
        walker.add_interface(6, 0, 0, 262_144, 0)
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


def test_read_alone(chunk_by_chunk: Callable[..., None], small64: Path) -> None:
    """What reading a capture into chunks costs, without looking at it."""
    arena = Arena(4, CHUNK_BYTES, ROWS_MAX)

    def chunks() -> Iterator[int]:
        with open(small64, "rb", buffering=0) as file:
            while got := read_into(arena.acquire(), 0, CHUNK_BYTES, file.fileno()):
                yield got // 76

    chunk_by_chunk(chunks)


def chunks_of(path: Path) -> Callable[[], Iterator[int]]:
    arena = Arena(4, CHUNK_BYTES, ROWS_MAX)

    def chunks() -> Iterator[int]:
        with CaptureSource(path, arena) as source:
            for batch in source:
                packets = len(batch)
                del batch
                yield packets

    return chunks


def test_read_and_walk(chunk_by_chunk: Callable[..., None], each_capture: Path) -> None:
    chunk_by_chunk(chunks_of(each_capture))


def test_read_and_walk_pcapng(chunk_by_chunk: Callable[..., None], capture_of: Callable[..., Path]) -> None:
    chunk_by_chunk(chunks_of(capture_of("small64", 1_000_000, format="pcapng")))


def test_read_zstd(chunk_by_chunk: Callable[..., None], small64: Path) -> None:
    compressed = small64.with_suffix(".pcap.zst")
    if not compressed.exists():
        compressed.write_bytes(zstandard.ZstdCompressor().compress(small64.read_bytes()))
    chunk_by_chunk(chunks_of(compressed))
