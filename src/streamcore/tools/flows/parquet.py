"""Flows as a Parquet file, which needs pyarrow: all columns, lists as lists."""

from __future__ import annotations

import json
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from streamcore.core.errors import UsageError
from streamcore.tools.flows.columns import Column, columns_of
from streamcore.tools.flows.text import json_plan


class ParquetWriter:
    def __init__(self, file: IO[Any], first_packets: int) -> None:
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError:
            raise UsageError("Parquet needs pyarrow: type pip install 'streamcore-auction[parquet]'") from None
        columns = columns_of(first_packets)
        self._pyarrow, self._plan = pyarrow, json_plan(first_packets)
        self._names = [column.name for column in columns]
        self._numbers = {column.name for column in columns if not (column.is_text or column.is_list or column.may_lack)}
        self._schema = pyarrow.schema([(column.name, self._kind(column)) for column in columns])
        self._writer = parquet.ParquetWriter(file, self._schema)

    def _kind(self, column: Column) -> Any:
        if column.is_text:
            return self._pyarrow.string()
        if column.is_list:
            return self._pyarrow.list_(self._pyarrow.int64())
        return self._pyarrow.int64() if column.kind == "signed" else self._pyarrow.uint64()

    def write(self, rows: NDArray[np.void]) -> None:
        if not len(rows):
            return
        table = [json.loads(line) for line in bytes(self._plan.text(rows)).splitlines()]
        arrays = {
            name: np.ascontiguousarray(rows[name]) if name in self._numbers else [row[name] for row in table]
            for name in self._names
        }
        columns = [self._pyarrow.array(arrays[name], self._schema.field(name).type) for name in self._names]
        self._writer.write_table(self._pyarrow.Table.from_arrays(columns, schema=self._schema))

    def close(self) -> None:
        self._writer.close()
