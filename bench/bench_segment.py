"""The segmenter: one batch of 64-byte packets under each policy, whole and sorted into lanes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from streamcore.core.packets import COLUMN_GROUPS, Arena
from streamcore.parse.parser import Parser
from streamcore.segment._segmenter import Segmenter
from streamcore.source.capture import CaptureSource


@pytest.mark.parametrize(("policy", "lanes"), [("run", 1), ("time", 1), ("flow", 1), ("flow", 2), ("flow", 16)])
def test_cut(benchmark: Any, per_packet: Callable[[int], None], small64: Path, policy: str, lanes: int) -> None:
    batch = next(iter(CaptureSource(small64, Arena(1, 4 << 20, 65_536))))
    Parser()(batch, COLUMN_GROUPS["flow"])

    def work() -> None:
        batch.arranged = False
        batch.row_count = batch.count
        Segmenter(policy, lanes=lanes, packets_max=8192, time_ms=1000 if policy == "time" else 0).cut(batch)

    benchmark(work)
    per_packet(batch.count)
