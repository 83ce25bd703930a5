"""`streamcore.read` in one process: finding the records, then with the flow hash, then with every header column."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import streamcore

COLUMNS = {
    "records": ("captured_length", "timestamp_ns"),
    "flow": ("flow_hash",),
    "headers": ("flow_hash", "protocol", "source_port", "target_port", "source_address", "target_address", "vlan"),
}


@pytest.mark.parametrize("columns", sorted(COLUMNS))
def test_read(benchmark: Any, per_packet: Callable[[int], None], each_capture: Path, columns: str) -> None:
    def work() -> int:
        packets = 0
        for batch in streamcore.read(each_capture):
            for name in COLUMNS[columns]:
                getattr(batch, name)
            packets += len(batch)
        return packets

    per_packet(benchmark(work))
