"""Tables of a capture: one row per packet (tab-separated), one row per flow (JSON lines, CSV, Parquet).

What is written stands here; packets are read by source/ and parsed by parse/. The commands `packets` and `flows` call
this.
"""

from __future__ import annotations

import gzip
import os
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from socket import AF_INET, AF_INET6, inet_ntop
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from streamcore.errors import SinkError
from streamcore.packets import ALL_GROUPS, COLUMN_GROUPS, FLAGS, Arena, PacketBatch
from streamcore.parse.parser import Parser
from streamcore.source.capture import CaptureSource

CHUNK_BYTES = 8 << 20
CHUNK_ROWS = 65_536
PACKET_COLUMNS = [
    "cap",
    "n",
    "ts",
    "len",
    "caplen",
    "crc32",
    "lt",
    "vlan",
    "ipver",
    "src",
    "dst",
    "proto",
    "sport",
    "dport",
    "frag",
    "ipoff",
    "depth",
    "isrc",
    "idst",
    "iproto",
    "isport",
    "idport",
]
RECORDS_WITHOUT_TIME = (4, 5)  # pcapng simple packet blocks
DELIVERED, LOSS = 0, 3  # exit statuses
HEADER_GROUPS = ALL_GROUPS & ~COLUMN_GROUPS["flow"]


def write_packets(path: str, out: str, label: str) -> int:
    """One row per packet of the capture at `path`, with PACKET_COLUMNS; `label` is the first of them.

    out: a file, compressed where its name ends in .gz, or "-". Returns the exit status: 3 where the capture is damaged.
    Raises SourceError, SinkError.
    """
    with _opened(path) as source, _written(out) as file:
        file.write("\t".join(PACKET_COLUMNS) + "\n")
        parser = Parser()
        for batch in source:
            parser(batch, HEADER_GROUPS)
            file.write("".join(_packet_rows(batch, label)))
        return _status(source)


def _packet_rows(batch: PacketBatch, label: str) -> Iterator[str]:
    """The rows of one batch. Every column is made text as a whole where that is cheap; what is rare is made row by
    row.
    """
    more, ports = FLAGS["more_fragments"], FLAGS["ports"]
    offsets, lengths = batch.offset.tolist(), batch.captured_length.tolist()
    data = memoryview(batch.data)
    crcs = [zlib.crc32(data[at : at + size]) for at, size in zip(offsets, lengths, strict=True)]
    columns = zip(
        range(batch.first_number + 1, batch.first_number + 1 + len(batch)), _times(batch), batch.wire_length.tolist(),
        lengths, crcs, _link_types(batch), _vlans(batch), batch.ip_version.tolist(), _addresses(batch.source_address),
        _addresses(batch.target_address), batch.protocol.tolist(), batch.source_port.tolist(),
        batch.target_port.tolist(), batch.flags.tolist(), batch.fragment_offset.tolist(), batch.l3_offset.tolist(),
        batch.depth.tolist(), _inner_texts(batch), strict=True,
    )  # fmt: skip
    fragment = FLAGS["fragment"]
    for (
        n,
        time,
        wire,
        size,
        crc,
        link,
        vlan,
        version,
        source,
        target,
        protocol,
        sport,
        dport,
        flags,
        place,
        l3,
        depth,
        inner,
    ) in columns:
        head = f"{label}\t{n}\t{time}\t{wire}\t{size}\t{crc:08x}\t{link}\t{vlan}\t"
        if not version:
            yield f"{head}\t\t\t\t\t\t\t\t0\t\t\t\t\t\n"
            continue
        port_text = f"{sport}\t{dport}" if flags & ports else "\t"
        frag = (f"{place}+" if flags & more else str(place)) if flags & fragment else ""
        yield f"{head}{version}\t{source}\t{target}\t{protocol}\t{port_text}\t{frag}\t{l3}\t{depth}\t{inner}\n"


def _times(batch: PacketBatch) -> list[str]:
    """Epoch seconds with nine decimals; empty where a record has no time."""
    times = batch.timestamp_ns
    seconds, rest = np.divmod(times, 10**9)  # rounds down: what stands before 1970 has a positive fraction, too
    texts = [_time(s, r) for s, r in zip(seconds.tolist(), rest.tolist(), strict=True)]
    for row in np.flatnonzero(np.isin(batch.record, RECORDS_WITHOUT_TIME)).tolist():
        texts[row] = ""
    return texts


def _time(seconds: int, rest_ns: int) -> str:
    if seconds >= 0:
        return f"{seconds}.{rest_ns:09d}"
    total = -(seconds * 10**9 + rest_ns)
    return f"-{total // 10**9}.{total % 10**9:09d}"


def _link_types(batch: PacketBatch) -> list[int]:
    by_interface = np.array([interface.link_type for interface in batch.interfaces], np.int64)
    return by_interface[batch.interface].tolist()  # type: ignore[no-any-return]


def _vlans(batch: PacketBatch) -> list[str]:
    """VLAN ids, outermost first, with commas."""
    counts = np.minimum(batch.vlan_count, batch.vlan.shape[1])
    texts = [""] * len(batch)
    for row in np.flatnonzero(counts).tolist():
        texts[row] = ",".join(map(str, batch.vlan[row, : counts[row]].tolist()))
    return texts


def _addresses(column: NDArray[np.uint8]) -> list[str]:
    """Texts of addresses of 16 bytes a row."""
    raw = column.tobytes()
    return [_address(raw[at : at + 16]) for at in range(0, len(raw), 16)]


@lru_cache(65_536)
def _address(raw: bytes) -> str:
    if raw[:12] == b"\0\0\0\0\0\0\0\0\0\0\xff\xff":  # as the columns hold IPv4
        return inet_ntop(AF_INET, raw[12:])
    return inet_ntop(AF_INET6, raw)


def _inner_texts(batch: PacketBatch) -> list[str]:
    """isrc, idst, iproto, isport and idport of packets with more than one IP header, tab-separated."""
    texts = ["\t\t\t\t"] * len(batch)
    ports = FLAGS["ports"]
    for row in np.flatnonzero(batch.depth > 1).tolist():
        source, target = (
            _address(batch.inner_source_address[row].tobytes()),
            _address(batch.inner_target_address[row].tobytes()),
        )
        has = batch.inner_flags[row] & ports
        port_text = f"{batch.inner_source_port[row]}\t{batch.inner_target_port[row]}" if has else "\t"
        texts[row] = f"{source}\t{target}\t{batch.inner_protocol[row]}\t{port_text}"
    return texts


# Where it comes from and where it goes.


@contextmanager
def _opened(path: str) -> Iterator[CaptureSource]:
    with CaptureSource(path, Arena(2, CHUNK_BYTES, CHUNK_ROWS)) as source:
        yield source


@contextmanager
def _written(out: str) -> Iterator[TextIO]:
    """A text file to write to. What goes wrong while it is written is a SinkError."""
    name = "standard output" if out == "-" else out
    try:
        if out == "-":
            yield sys.stdout
            sys.stdout.flush()
        elif out.endswith(".gz"):
            with gzip.open(out, "wt", compresslevel=3, encoding="utf-8") as file:
                yield file
        else:
            with open(out, "w", encoding="utf-8") as file:
                yield file
    except OSError as error:
        raise SinkError(f"cannot write {name}: {os.strerror(error.errno) if error.errno else error}") from None


def _status(source: CaptureSource) -> int:
    """The exit status at the end of a source; damage is said on standard error."""
    if source.damage is None:
        return DELIVERED
    print(f"{source.name} is damaged: {source.damage}; everything before it was read", file=sys.stderr)
    return LOSS
