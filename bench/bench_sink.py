"""The sink: a chunk's packets to a file on tmpfs, as they stand, in other orders and made anew.

The baseline is `plain_write`: the same bytes by one write(2), which is what `cp` does.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CHUNK_ROUNDS

from streamcore.core.packets import Arena, Outgoing, PacketBatch
from streamcore.sink.writer import open_capture
from streamcore.source.capture import CaptureSource

CHUNK_BYTES, ROWS_MAX = 4 << 20, 65_536
PACKETS_A_ROUND = 16_384  # of those that are written one by one: a round stays below a millisecond


@pytest.fixture
def source(small64: Path) -> Iterator[CaptureSource]:
    with CaptureSource(small64, Arena(4, CHUNK_BYTES, ROWS_MAX)) as source:
        yield source


def write_each(
    benchmark: Any, per_packet: Callable[[int], None], source: CaptureSource, target: Path, outgoing: Outgoing
) -> None:
    """Every round writes the same packets over the file of the round before, whose pages are there already."""
    sink = open_capture(target, interfaces=source.interfaces, form=source.form)
    descriptor = -1

    def setup() -> None:
        nonlocal descriptor
        if descriptor < 0:
            sink.write(outgoing)
            descriptor = sink._descriptor
        os.lseek(descriptor, 0, os.SEEK_SET)

    benchmark.pedantic(sink.write, args=(outgoing,), setup=setup, rounds=CHUNK_ROUNDS, warmup_rounds=3)
    sink.close()
    per_packet(outgoing.stop - outgoing.start)


def test_plain_write(
    benchmark: Any, per_packet: Callable[[int], None], source: CaptureSource, tmp_target: Path
) -> None:
    batch = next(source)
    data = memoryview(batch.data)[batch.span_start : batch.span_stop]
    with open(tmp_target, "wb", buffering=0) as file:
        file.write(data)
        benchmark.pedantic(
            file.write, args=(data,), setup=lambda: file.seek(0) and None, rounds=CHUNK_ROUNDS, warmup_rounds=3
        )
    per_packet(len(batch))


@pytest.fixture
def tmp_target(capture_directory: Path) -> Iterator[Path]:
    path = capture_directory / "written.pcap"
    yield path
    path.unlink(missing_ok=True)


def test_whole_batch(
    benchmark: Any, per_packet: Callable[[int], None], source: CaptureSource, tmp_target: Path
) -> None:
    """An unchanged batch: one write from the chunk."""
    batch = next(source)
    write_each(benchmark, per_packet, source, tmp_target, Outgoing(batch, 0, len(batch)))


@pytest.mark.parametrize("run", [1, 4, 1000])
def test_arranged(
    benchmark: Any, per_packet: Callable[[int], None], source: CaptureSource, tmp_target: Path, run: int
) -> None:
    """Rows out of order, in runs of 1, 4 and 1000 that stand one after another."""
    batch = next(source)
    count = min(len(batch), PACKETS_A_ROUND) // run * run
    arranged = PacketBatch(
        batch.chunk, len(batch), 0, batch.interfaces, span_stop=batch.span_stop, arranged=True, row_count=count
    )
    assert arranged.rows is not None
    arranged.rows[:] = np.random.default_rng(1).permutation(np.arange(count).reshape(-1, run)).reshape(-1)
    write_each(benchmark, per_packet, source, tmp_target, Outgoing(arranged, 0, count))


def test_made_anew(benchmark: Any, per_packet: Callable[[int], None], source: CaptureSource, tmp_target: Path) -> None:
    """pcap records as enhanced packet blocks."""
    batch = next(source)
    write_each(
        benchmark,
        per_packet,
        source,
        tmp_target.with_suffix(".pcapng"),
        Outgoing(batch, 0, min(len(batch), PACKETS_A_ROUND)),
    )
