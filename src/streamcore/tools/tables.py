"""Writes a table of a capture with one row per packet, tab-separated; and opens inputs and outputs of tables.

source/ reads the packets and parse/ parses them. The commands `packets` and `flows` call this file.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import io
import os
import stat
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from socket import AF_INET, AF_INET6, inet_ntop
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from streamcore.core.config import Config
from streamcore.core.errors import ReaderGone, SinkError, UsageError
from streamcore.core.packets import ALL_GROUPS, COLUMN_GROUPS, FLAGS, Arena, PacketBatch
from streamcore.core.rules import unwritten
from streamcore.headers import TUNNELS, udp_ports
from streamcore.parse.parser import Parser
from streamcore.sink.names import claim
from streamcore.source.capture import CaptureSource

CHUNK_BYTES = 8 << 20
CHUNK_ROWS = 65_536
PACKET_COLUMNS = (
    "cap", "n", "ts", "len", "caplen", "crc32", "lt", "vlan", "ipver", "src", "dst", "proto", "sport", "dport",
    "frag", "ipoff", "depth", "isrc", "idst", "iproto", "isport", "idport", "tunnel_kind", "tunnel_id",
)  # fmt: skip
NO_INNER = "\t" * 4
NO_TUNNEL = "\t"
NO_IP = "\t" * 8 + "0"  # depth is 0
RECORDS_WITHOUT_TIME = (4, 5)  # pcapng simple packet blocks
DELIVERED, LOSS = 0, 3  # exit statuses
HEADER_GROUPS = ALL_GROUPS & ~COLUMN_GROUPS["flow"]


def write_packets(config: Config, out: str, label: str) -> int:
    """Writes one row per packet of the capture `config.read`, with PACKET_COLUMNS; `label` is the first column.

    out: a file, compressed if its name ends in .gz, or "-". Returns the exit status: 3 if the capture is damaged.
    Raises SourceError, SinkError, UsageError.
    """
    ports = udp_ports(config.decode_as)
    with opened(config.read) as source, written(out, source) as file:
        file.write("\t".join(PACKET_COLUMNS) + "\n")
        parser = Parser(config.hash_seed, config.fragments_max, ports=ports)
        for batch in source:
            parser(batch, HEADER_GROUPS)
            file.write("".join(_packet_rows(batch, label)))
        return status(source)


def _packet_rows(batch: PacketBatch, label: str) -> Iterator[str]:
    """The rows of one batch."""
    head = _record_texts(batch, " ".join(label.split()))
    return map("\t".join, zip(head, _vlans(batch), _ip_texts(batch), strict=True))


def _record_texts(batch: PacketBatch, label: str) -> Iterator[str]:
    """cap, n, ts, len, caplen, crc32 and lt."""
    data, lengths = memoryview(batch.data), batch.captured_length.tolist()
    checks = (zlib.crc32(data[at : at + size]) for at, size in zip(batch.offset.tolist(), lengths, strict=True))
    numbers = range(batch.first_number + 1, batch.first_number + 1 + len(batch))
    columns = zip(
        numbers, _times(batch), batch.wire_length.tolist(), lengths, checks, _link_types(batch), strict=True
    )  # fmt: skip
    for n, time, wire, size, check, link in columns:
        yield f"{label}\t{n}\t{time}\t{wire}\t{size}\t{check:08x}\t{link}"


def _ip_texts(batch: PacketBatch) -> Iterator[str]:
    """ipver to idport, and the end of the line."""
    ports, fragment, more = FLAGS["ports"], FLAGS["fragment"], FLAGS["more_fragments"]
    versions = batch.ip_version.tolist()
    inner, tunnels = _inner_texts(batch), _tunnel_texts(batch)
    columns = zip(
        versions, _addresses(batch.source_address, versions),
        _addresses(batch.target_address, versions),
        batch.protocol.tolist(), batch.source_port.tolist(), batch.target_port.tolist(), batch.flags.tolist(),
        batch.fragment_offset.tolist(), batch.l3_offset.tolist(), batch.depth.tolist(), strict=True,
    )  # fmt: skip
    for row, (version, source, target, protocol, sport, dport, flags, place, offset, depth) in enumerate(columns):
        if not version:
            yield f"{NO_IP}\t{NO_INNER}\t{tunnels.get(row, NO_TUNNEL)}\n"
            continue
        port_text = f"{sport}\t{dport}" if flags & ports else "\t"
        part = (f"{place}+" if flags & more else str(place)) if flags & fragment else ""
        outer = f"{version}\t{source}\t{target}\t{protocol}\t{port_text}\t{part}\t{offset}\t{depth}"
        yield f"{outer}\t{inner.get(row, NO_INNER)}\t{tunnels.get(row, NO_TUNNEL)}\n"


def _times(batch: PacketBatch) -> list[str]:
    """Epoch seconds with nine decimals; empty if a record has no time."""
    times = batch.timestamp_ns
    seconds, rest = np.divmod(times, 10**9)  # rounds down: times before 1970 have a positive fraction, too
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
    """VLAN ids, outermost first, separated by commas."""
    counts = np.minimum(batch.vlan_count, batch.vlan.shape[1])
    texts = [""] * len(batch)
    for row in np.flatnonzero(counts).tolist():
        texts[row] = ",".join(map(str, batch.vlan[row, : counts[row]].tolist()))
    return texts


def _addresses(column: NDArray[np.uint8], versions: list[int]) -> list[str]:
    """The texts of addresses of 16 bytes a row, each from an IP header of that version."""
    raw = column.tobytes()
    return [_address(raw[16 * row : 16 * row + 16], version) for row, version in enumerate(versions)]


@lru_cache(65_536)
def _address(raw: bytes, version: int) -> str:
    """version: of the address's header. The columns store IPv4 like ::ffff:1.2.3.4, which can also be an IPv6
    address."""
    return inet_ntop(AF_INET, raw[12:]) if version == 4 else inet_ntop(AF_INET6, raw)


def _inner_texts(batch: PacketBatch) -> dict[int, str]:
    """Row -> isrc, idst, iproto, isport and idport of the packets with more than one IP header."""
    texts = {}
    for row in np.flatnonzero(batch.depth > 1).tolist():
        version = int(batch.inner_ip_version[row])
        source = _address(batch.inner_source_address[row].tobytes(), version)
        target = _address(batch.inner_target_address[row].tobytes(), version)
        has_ports = batch.inner_flags[row] & FLAGS["ports"]
        port_text = f"{batch.inner_source_port[row]}\t{batch.inner_target_port[row]}" if has_ports else "\t"
        texts[row] = f"{source}\t{target}\t{batch.inner_protocol[row]}\t{port_text}"
    return texts


def _tunnel_texts(batch: PacketBatch) -> dict[int, str]:
    """Row -> tunnel_kind and tunnel_id of the packets with a tunnel."""
    kinds, ids = batch.tunnel_kind, batch.tunnel_id
    return {row: f"{TUNNELS[int(kinds[row])]}\t{ids[row]}" for row in np.flatnonzero(kinds).tolist()}


# Opening the input and the output.


@contextmanager
def opened(path: str, chunk_bytes: int = CHUNK_BYTES) -> Iterator[CaptureSource]:
    with CaptureSource(path, Arena(2, chunk_bytes, CHUNK_ROWS)) as source:
        yield source


@contextmanager
def written(out: str, source: CaptureSource, *, binary: bool = False, packed: bool = True) -> Iterator[IO[Any]]:
    """The output file, opened before any packet is read. packed: a name in .gz is compressed, else refused.

    Errors while it is written become SinkErrors."""
    name = "standard output" if out == "-" else out
    if ending := unwritten(out, (".zst", ".lz4", *(() if packed else (".gz",)))):
        raise UsageError(f"{ending} is not a compression that this table is written with: choose another name")
    try:
        if out == "-":
            yield sys.stdout.buffer if binary else sys.stdout
            sys.stdout.flush()
        else:
            with open(_begun(out, source), "wb") as raw, contextlib.ExitStack() as stack:
                inner: Any = stack.enter_context(gzip.open(raw, "wb", 3)) if out.endswith(".gz") else raw
                if binary:
                    yield inner
                    return
                text = io.TextIOWrapper(inner, encoding="utf-8", errors="surrogateescape", newline="")
                yield text
                text.flush()
                text.detach()
    except BrokenPipeError:
        raise ReaderGone(f"cannot write {name}: its reader has closed it") from None
    except OSError as error:
        closed = "it is closed" if error.errno == errno.EBADF else ""
        words = closed or (os.strerror(error.errno).lower() if error.errno else str(error))
        raise SinkError(f"cannot write {name}: {words}") from None


def _begun(out: str, source: CaptureSource) -> int:
    """A descriptor of the output, locked and emptied. Raises OSError; SinkError if it is the input, or another run
    writes it.
    """
    descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode):
            if (status.st_dev, status.st_ino) == source.form.file:
                raise SinkError(f"cannot write {out}: it is also the input, name another file")
            claim(descriptor, out)
            os.ftruncate(descriptor, 0)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def status(source: CaptureSource) -> int:
    """The exit status at the end of a source. Reports damage on standard error."""
    if source.damage is None:
        return DELIVERED
    print(f"{source.name} is damaged: {source.damage}; everything before it was read", file=sys.stderr)
    return LOSS
