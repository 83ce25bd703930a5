"""The target of what puts captures in order and makes frames of them, which takes packets of strangers as they are."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Callable
from typing import Any

import numpy as np

from streamcore.core.errors import SourceError
from tests.streamcore.fuzz.files import captures_of
from tests.streamcore.fuzz.inputs import mutated

CHUNK_BYTES, ROWS_MAX = 1 << 16, 1024
INPUTS = 16  # of a batch


def orders() -> Callable[[random.Random, int], int]:
    """Damaged captures merged, sorted and framed: each packet that one gives alone comes out, or is refused and
    counted, and none has bytes that are not there.
    """
    from streamcore.core.frames import Frames
    from streamcore.core.packets import Arena
    from streamcore.source._supply import Chunks
    from streamcore.source.capture import CaptureSource
    from streamcore.source.framed import FramedSource
    from streamcore.source.merged import MergedSource
    from streamcore.source.sorted import SortedSource

    seeds = captures_of("pcap") + captures_of("pcapng")
    files = [os.memfd_create("fuzz") for _ in range(2)]
    paths = [f"/proc/self/fd/{file}" for file in files]
    chunks = Chunks(CHUNK_BYTES, ROWS_MAX)

    def counted(source: Any, extra: int) -> int:
        packets = 0
        for batch in source:
            end = batch.offset.astype(np.int64) + batch.captured_length
            assert not len(batch) or int(end.max()) <= min(batch.span_stop, CHUNK_BYTES + extra)
            packets += len(batch)
        return packets

    def one_batch(rng: random.Random, number: int) -> int:
        for _ in range(INPUTS):
            for file in files:
                os.ftruncate(file, 0)
                os.pwrite(file, mutated(rng, rng.choice(seeds)), 0)
            with contextlib.suppress(SourceError):
                alone = 0
                for path in paths:
                    with CaptureSource(path, Chunks(CHUNK_BYTES - 64, ROWS_MAX)) as source:
                        alone += counted(source, 0)
                with MergedSource(paths, Arena(2, CHUNK_BYTES, ROWS_MAX), keep_blocks=True) as merged:
                    assert counted(merged, 0) == alone
                inner = MergedSource(paths, chunks, by_time=rng.random() < 0.5)
                with SortedSource(
                    inner, Arena(2, CHUNK_BYTES + 64, ROWS_MAX), rng.choice((0, 10**9, 1 << 60))
                ) as ordered:
                    assert counted(ordered, 64) == alone
                frames = Frames(
                    b"\2" * 6, b"\4" * 6, rng.choice((-1, 0, 7)), rng.choice((0, 68, 100)), rng.random() < 0.5
                )
                inner = MergedSource(paths, chunks)
                framed = FramedSource(inner, Arena(2, CHUNK_BYTES + 64, ROWS_MAX), frames)
                try:
                    made = counted(framed, 64)
                    framer = framed._framer
                    assert made - framer.segmented + framer.refused == alone
                finally:
                    framed.close()
        return INPUTS

    return one_batch
