"""The formats in which flows are written: one row for each. A format is a file of this folder and a row here.

A writer is made of (a binary file, first packets) and has write(rows) and close().
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SORTS = ("bytes", "packets", "duration", "start", "end")  # of the format table
TOP = 20


class Writer(Protocol):
    """Writes flows. Errors of the file are OSErrors."""

    def write(self, rows: NDArray[np.void]) -> None: ...

    def close(self) -> None: ...


class Format(NamedTuple):
    """words: for --help. module, function: what makes a writer. binary: no text, and not written in
    gzip. places: also takes udp://HOST:PORT and tcp://HOST:PORT."""

    words: str
    module: str
    function: str
    binary: bool = False
    places: bool = False

    def writer(self) -> Callable[..., Writer]:
        return getattr(import_module(f"streamcore.tools.flows.{self.module}"), self.function)  # type: ignore[no-any-return]


FORMATS: dict[str, Format] = {
    "json": Format("one JSON object a line", "text", "json_lines"),
    "csv": Format("comma-separated values", "text", "csv"),
    "parquet": Format("a Parquet file (needs the extra 'parquet')", "parquet", "ParquetWriter", binary=True),
    "ipfix": Format("IPFIX, to a file, udp://HOST:PORT or tcp://HOST:PORT", "ipfix", "IpfixWriter", True, places=True),
    "zeek": Format("Zeek's conn.log", "zeek", "ZeekWriter"),
    "eve": Format("flow records of Suricata's EVE", "eve", "EveWriter"),
    "table": Format("a table for people, of the largest flows", "terminal", "TableWriter"),
}
