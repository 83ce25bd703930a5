"""Dispersal to one worker process and back, by reference: what a segment costs, whatever is in it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from streamcore.core.counters import Counters
from streamcore.core.packets import Arena
from streamcore.disperse.dispatcher import Dispatcher
from streamcore.disperse.terms import Terms
from streamcore.segment._segmenter import Segmenter
from streamcore.source.capture import CaptureSource

TERMS = Terms(
    workers=1, chains=[["identity"]], changes=[frozenset()], accepted=[lambda *fields: fields],
    deterministic=[True], lease_ms=10_000, attempts_max=3, restarts_max=0, credit=3, segment_bytes=4 << 20,
)  # fmt: skip


@pytest.mark.parametrize("segment_packets", [64, 512, 8192])
def test_there_and_back(benchmark: Any, per_packet: Callable[[int], None], small64: Path, segment_packets: int) -> None:
    arena = Arena(2, 4 << 20, 65_536, shared=True)
    batch = next(iter(CaptureSource(small64, arena)))
    segmenter = Segmenter("run", packets_max=segment_packets)
    dispatcher = Dispatcher(TERMS, arena, Counters())
    dispatcher.start()
    results = dispatcher.results()

    def work() -> int:
        segments = segmenter.cut(batch)
        dispatcher.submit(segments)
        return sum(1 for _ in itertools.islice(results, len(segments)))

    try:
        work()  # the worker is ready
        assert benchmark(work) >= 1
        per_packet(batch.count)
    finally:
        dispatcher.close()
