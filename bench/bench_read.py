"""`streamcore.read` in one process: finding the records, then with the flow hash, then with every header column."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import streamcore

COLUMNS = {
    "records": ("captured_length", "timestamp_ns"),
    "flow": ("flow_hash",),
    "headers": ("flow_hash", "protocol", "source_port", "target_port", "source_address", "target_address", "vlan"),
}


@pytest.mark.parametrize("columns", sorted(COLUMNS))
def test_read(chunk_by_chunk: Callable[..., None], each_capture: Path, columns: str) -> None:
    def chunks() -> Iterator[int]:
        for batch in streamcore.read(each_capture):
            for name in COLUMNS[columns]:
                getattr(batch, name)
            yield len(batch)

    chunk_by_chunk(chunks)
