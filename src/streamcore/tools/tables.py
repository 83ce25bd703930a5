"""Writes a table of a capture with one row per packet, tab-separated; and opens the outputs of tables.

source/ reads the packets and parse/ parses them. The commands `packets` and `flows` call this file.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from streamcore.core.config import Config
from streamcore.core.errors import ReaderGone, SinkError, UsageError
from streamcore.core.rules import unwritten
from streamcore.headers import TUNNELS, udp_ports
from streamcore.parse.parser import Parser
from streamcore.sink.names import claim
from streamcore.tools._packet_text import HEADER_GROUPS, ROWS, PacketText
from streamcore.tools.ahead import read_ahead
from streamcore.tools.inputs import Inputs, opened, status

PACKET_COLUMNS = (
    "cap", "n", "ts", "len", "caplen", "crc32", "lt", "vlan", "ipver", "src", "dst", "proto", "sport", "dport",
    "frag", "ipoff", "depth", "isrc", "idst", "iproto", "isport", "idport", "tunnel_kind", "tunnel_id",
)  # fmt: skip


def write_packets(config: Config, out: str, label: str) -> int:
    """Writes one row per packet of the captures `config.read`, with PACKET_COLUMNS; `label` is the first column.

    out: a file, compressed if its name ends in .gz, or "-". Returns the exit status: 3 if the capture is damaged.
    Raises SourceError, SinkError, UsageError.
    """
    parser = Parser(config.hash_seed, config.fragments_max, ports=udp_ports(config.decode_as))
    names = [TUNNELS.get(number, "").encode() for number in range(256)]
    text = PacketText(" ".join(label.split()).encode(errors="surrogateescape"), names)
    with opened(config) as source, written(out, source) as file:
        file.write(("\t".join(PACKET_COLUMNS) + "\n").encode())
        for batch in read_ahead(source):
            parser(batch, HEADER_GROUPS)
            for start in range(0, len(batch), ROWS):
                lines = text.lines(batch, start)
                file.write(lines if batch.rows is None else chosen(lines, start, batch.rows))
        return status(source)


def chosen(lines: bytes, start: int, rows: NDArray[np.uint32]) -> bytes:
    """Those of the lines whose row is in use; the first line is of row `start`."""
    each = lines.splitlines(keepends=True)
    return b"".join(each[row - start] for row in rows.tolist() if start <= row < start + len(each))


# Opening the output.


@contextmanager
def written(out: str, source: Inputs, *, packed: bool = True) -> Iterator[IO[Any]]:
    """The output file, which takes bytes, opened before any packet is read.

    packed: a name in .gz is compressed, else refused. Errors while it is written become SinkErrors."""
    name = "standard output" if out == "-" else out
    if ending := unwritten(out, (".zst", ".lz4", *(() if packed else (".gz",)))):
        raise UsageError(f"{ending} is not a compression that this table is written with: choose another name")
    try:
        if out == "-":
            yield sys.stdout.buffer
            sys.stdout.flush()
        else:
            with open(_begun(out, source), "wb") as raw, contextlib.ExitStack() as stack:
                file: Any = stack.enter_context(gzip.open(raw, "wb", 3)) if out.endswith(".gz") else raw
                yield file
    except BrokenPipeError:
        raise ReaderGone(f"cannot write {name}: its reader has closed it") from None
    except OSError as error:
        closed = "it is closed" if error.errno == errno.EBADF else ""
        words = closed or (os.strerror(error.errno).lower() if error.errno else str(error))
        raise SinkError(f"cannot write {name}: {words}") from None


def _begun(out: str, source: Inputs) -> int:
    """A descriptor of the output, locked and emptied. Raises OSError; SinkError if it is the input, or another run
    writes it.
    """
    descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode):
            if (status.st_dev, status.st_ino) in source.form.files:
                raise SinkError(f"cannot write {out}: it is also the input, name another file")
            claim(descriptor, out)
            os.ftruncate(descriptor, 0)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
