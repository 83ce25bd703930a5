"""Flows as a table for people: those that come first by a measure, with names of ports and units, and a line of totals.

It holds no more rows than it shows.
"""

from __future__ import annotations

import datetime
import json
import socket
from collections.abc import Callable
from functools import lru_cache
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from streamcore.tools.flows.text import json_plan
from streamcore.tools.flows.writers import TOP

MEASURES: dict[str, Callable[[NDArray[np.void]], Any]] = {  # by the names of SORTS; the largest comes first
    "bytes": lambda rows: rows["bytes"] + rows["bytes_back"],
    "packets": lambda rows: rows["packets"] + rows["packets_back"],
    "duration": lambda rows: rows["last_ns"] - rows["first_ns"],
    "start": lambda rows: -rows["first_ns"],
    "end": lambda rows: rows["last_ns"],
}
HEADS = ("start", "duration", "protocol", "source", "target", "packets", "back", "bytes", "back", "state")
LEFT = (0, 2, 3, 4, 9)  # columns of text
PROTOCOLS = {1: "icmp", 2: "igmp", 6: "tcp", 17: "udp", 47: "gre", 50: "esp", 51: "ah", 58: "icmpv6", 89: "ospf",
             112: "vrrp", 132: "sctp"}  # fmt: skip


class TableWriter:
    """Writes when it is closed. sort: a row of SORTS; top: rows at most, 0: all of them."""

    def __init__(self, file: IO[Any], first_packets: int, *, sort: str = "bytes", top: int = TOP) -> None:
        self._file, self._measure, self._top, self._plan = file, MEASURES[sort], top, json_plan(first_packets)
        self._rows: NDArray[np.void] | None = None
        self._flows = self._packets = self._bytes = 0

    def write(self, rows: NDArray[np.void]) -> None:
        self._flows += len(rows)
        self._packets += int(rows["packets"].sum() + rows["packets_back"].sum())
        self._bytes += int(rows["bytes"].sum() + rows["bytes_back"].sum())
        kept = rows if self._rows is None else np.concatenate([self._rows, rows])
        kept = kept[np.lexsort((-kept["id"].astype(np.int64), self._measure(kept)))[::-1]]
        self._rows = kept[: self._top].copy() if self._top else kept

    def close(self) -> None:
        rows = (
            [] if self._rows is None else [json.loads(line) for line in bytes(self._plan.text(self._rows)).splitlines()]
        )
        lines = [HEADS, *map(cells, rows)]
        widths = [max(len(line[place]) for line in lines) for place in range(len(HEADS))]
        text = "".join(
            "  ".join(
                cell.ljust(width) if place in LEFT else cell.rjust(width)
                for place, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip() + "\n"
            for line in lines
        )  # fmt: skip
        shown = f", {len(rows):,} shown" if len(rows) < self._flows else ""
        text += f"{self._flows:,} flows{shown}; {self._packets:,} packets, {in_units(self._bytes)}\n"
        self._file.write(text.encode())


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """A flow in words. Times are UTC."""
    return (
        moment(row["first_ns"]), duration(row["last_ns"] - row["first_ns"]), protocol(row),
        end_point(row, "source"), end_point(row, "target"),
        f"{row['packets']:,}", f"{row['packets_back']:,}", in_units(row["bytes"]), in_units(row["bytes_back"]),
        row["state"],
    )  # fmt: skip


def moment(ns: int) -> str:
    epoch = datetime.datetime(1970, 1, 1)
    try:
        return (epoch + datetime.timedelta(microseconds=ns // 1000)).isoformat(" ", "milliseconds")
    except OverflowError:
        return str(ns)


def duration(ns: int) -> str:
    seconds = ns / 1e9
    if seconds < 60:
        return f"{seconds:.3f} s"
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02} h" if minutes >= 60 else f"{minutes}:{seconds:02} min"


def protocol(row: dict[str, Any]) -> str:
    if not row["ip_version"]:
        return f"0x{row['ether_type']:04x}"
    return PROTOCOLS.get(row["protocol"], str(row["protocol"]))


def end_point(row: dict[str, Any], side: str) -> str:
    address, port = row[f"{side}_address"], row[f"{side}_port"]
    if not row["ip_version"] or row["protocol"] not in (6, 17, 33, 132, 136):
        return address or "-"
    named = f"[{address}]" if ":" in address else address
    return f"{named}:{port_name(port, 'tcp' if row['protocol'] == 6 else 'udp')}"


@lru_cache(4096)
def port_name(port: int, transport: str) -> str:
    """The name in the services database, below 1024 or where somebody registered it; else the number."""
    try:
        return socket.getservbyport(port, transport)
    except OSError:
        return str(port)


def in_units(count: int) -> str:
    """Bytes in powers of 1000, with three digits."""
    if count < 1000:
        return f"{count} B"
    size = float(count)
    for unit in ("kB", "MB", "GB", "TB", "PB", "EB"):
        size /= 1000
        if size < 999.5:
            return f"{size:.{2 if size < 9.995 else 1 if size < 99.95 else 0}f} {unit}"
    return f"{size:.0f} EB"
