"""The aggregator: segments of one batch come back in reverse order, and leave in the first stream's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamcore.aggregate._aggregator import Aggregator
from streamcore.core.packets import COLUMN_GROUPS, Arena, Result, gather_records
from streamcore.disperse._results import PACKED, read_result, write_result
from streamcore.parse.parser import Parser
from streamcore.segment._segmenter import Segmenter
from streamcore.source.capture import CaptureSource


@pytest.mark.parametrize("lanes", [1, 2, 16])
@pytest.mark.parametrize("kind", ["unchanged", "rewritten"])
def test_order(benchmark: Any, per_packet: Callable[[int], None], small64: Path, lanes: int, kind: str) -> None:
    batch = next(iter(CaptureSource(small64, Arena(1, 4 << 20, 65_536))))
    Parser()(batch, COLUMN_GROUPS["flow"])
    segments = Segmenter("flow", lanes=lanes).cut(batch)
    results = []
    for segment in segments:
        records, _ = gather_records(segment)
        region = np.zeros(records.size + 64, np.uint8)
        region[: records.size] = records
        if kind == "rewritten":
            flags = write_result(region, records.size, None, None, None, None, None)
            results.append(read_result(segment, region, records.size, flags, PACKED, region))
        else:
            results.append(Result(segment))

    def work() -> int:
        aggregator = Aggregator("total")
        aggregator.expect(batch, segments)
        return sum(len(aggregator.accept(result)) for result in reversed(results))

    assert benchmark(work) >= 1
    per_packet(batch.count)


def test_check_of_a_rewritten_result(benchmark: Any, per_packet: Callable[[int], None], small64: Path) -> None:
    batch = next(iter(CaptureSource(small64, Arena(1, 4 << 20, 65_536))))
    (segment,) = Segmenter("run").cut(batch)
    records, _ = gather_records(segment)
    benchmark(lambda: read_result(segment, records, records.size, PACKED, PACKED, records))
    per_packet(batch.count)
