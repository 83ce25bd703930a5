"""Flows of a capture, from reading it to their writer. A flow is written when it ends.

So memory does not grow with the capture. writers.py has the formats. The command `flows` calls this file.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcore.core.config import Config
from streamcore.core.errors import UsageError
from streamcore.headers import udp_ports
from streamcore.parse._flows import FlowTable
from streamcore.parse.parser import FLOW_KEYS
from streamcore.tools.flows.places import connected, is_place
from streamcore.tools.flows.writers import FORMATS, Format
from streamcore.tools.inputs import Inputs, opened, status
from streamcore.tools.tables import written

CHUNK_BYTES = 2 << 20  # two of them stay in the cache, in which the table finds the packets again
CLOSED_MS = 5_000  # how long the last packets of a closed TCP connection may take


def write_flows(config: Config, out: str, form: str, **options: Any) -> int:
    """Writes the flows of the captures `config.read`: those that end while it is read, then the others by id.

    What tells flows apart is `config.flow_key`, what ends them `config.idle_s`, `active_s` and `whole`. out: a file,
    "-", or for IPFIX a collector (places.py). form: a row of FORMATS; options: of its writer. Returns the exit status:
    3 if the capture is damaged. Raises SourceError, SinkError, UsageError.
    """
    if form not in FORMATS:
        raise UsageError(f"there is no format {form!r} for flows: use one of {', '.join(FORMATS)}")
    chosen = FORMATS[form]
    table = flow_table(config)
    if is_place(out) and not chosen.places:
        raise UsageError(f"{out} is a collector, which takes IPFIX alone: give --ipfix {out}")
    with opened(config, CHUNK_BYTES) as source, _target(out, source, chosen) as file:
        writer = chosen.writer()(file, config.first_packets, **options)
        for rows in flows_of(source, table):
            writer.write(rows)
        writer.close()
        if left_out := getattr(writer, "left_out", 0):
            print(f"{left_out:,} flows without IP are left out: {chosen.words} has no place for them", file=sys.stderr)
        return status(source)


def _target(out: str, source: Inputs, chosen: Format) -> AbstractContextManager[Any]:
    if is_place(out):
        return connected(out)
    return written(out, source, packed=not chosen.binary)


def flow_table(config: Config) -> FlowTable:
    """The table that a Config asks for."""
    ends = {} if config.whole else {
        "idle_ms": round(config.idle_s * 1000), "active_ms": round(config.active_s * 1000), "closed_ms": CLOSED_MS
    }  # fmt: skip
    return FlowTable(
        config.flows_max, fragments_max=config.fragments_max, ports=udp_ports(config.decode_as),
        by=FLOW_KEYS[config.flow_key], first_packets=config.first_packets, **ends,
    )  # fmt: skip


def flows_of(source: Inputs, table: FlowTable) -> Iterator[NDArray[np.void]]:
    """The rows of all flows, in arrays of bounded size."""
    for batch in source.alone():
        table.add(batch)
        if len(ended := table.ended()):
            yield ended
    yield from table.exported()
