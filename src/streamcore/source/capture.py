"""The source for captures: reads a file or standard input as PacketBatches, with one read and one walk per chunk.

_streams.py and _compressed.py read bytes, _blocks.py parses file headers, _records.pyx finds the packets.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

from streamcore.core.capture_form import Block, Blocks, CaptureForm, Content, Interface
from streamcore.core.errors import SourceError
from streamcore.core.packets import Chunk, PacketBatch
from streamcore.core.paths import in_the_way
from streamcore.source import _records
from streamcore.source._blocks import (
    CAPTURED_MAX,
    INTERFACE_BLOCK,
    PCAP_HEADER_BYTES,
    SECTION_MAGIC,
    BadBlock,
    captured_max,
    interface_of,
    pcap_header,
    section_form,
)
from streamcore.source._byte_order import little_endian
from streamcore.source._reading import Tail, block_at
from streamcore.source._recognise import check_magic, open_stream
from streamcore.source._records import Walker
from streamcore.source._streams import RawInput, Stream

CHUNK_WAIT_S = 0.1
INTERFACES_MAX = 65_536
FILL_BYTES_MIN = 64 * 1024
SKIP_BYTES_MAX = 128 << 20  # a larger block is damage
RECORD_BYTES_MAX = 32  # header and trailer around a packet
ACQUIRE_WAIT_S = 0.1  # between checks whether the source was closed, while waiting for a chunk
DAMAGE = {
    _records.DAMAGE_LENGTH: "there is a packet of {value} captured bytes, more than {bound}",
    _records.DAMAGE_BLOCK: "there is a block of {value} bytes, an impossible size",
    _records.DAMAGE_TRAILER: "there is a block of {bound} bytes that says {value} at its end",
    _records.DAMAGE_PACKET: "there is a packet of {value} captured bytes in a block with room for {bound}",
    _records.DAMAGE_INTERFACE: "there is a packet of interface {value}, and {bound} interfaces were described",
    _records.DAMAGE_CHUNK: "there is a block of {value} bytes, more than a chunk of {bound} holds",
    _records.DAMAGE_CAPTURE: "another capture begins: join captures with mergecap, not with cat",
    _records.DAMAGE_SECTION: "there is a section header block without a byte order",
}


class Damage(NamedTuple):
    """Where and why a capture could not be read to its end. Everything before it was delivered."""

    offset: int  # bytes into the (decompressed) capture
    reason: str

    def __str__(self) -> str:
        return f"at byte {self.offset} {self.reason}"


class ChunkSupply(Protocol):
    """The part of an Arena that the source uses."""

    @property
    def data_bytes_max(self) -> int: ...

    @property
    def rows_max(self) -> int: ...

    def acquire(self, timeout_s: float | None = None) -> Chunk | None: ...

    def set_link_type(self, interface: int, link_type: int) -> None: ...


class CaptureSource:
    """A pcap or pcapng capture, plain or in gzip, zstd or lz4; iterate over it for its PacketBatches.

    Parameters: path, "-" for standard input; arena to take chunks from; parser, which fills header columns when they
    are first read; chunk_wait_s, after which packets are delivered even if the chunk is not full (pipes only). Raises
    SourceError if it cannot be opened or read, or is not a capture. Damage further on raises nothing: see `damage`
    after the end. keep_blocks: `blocks` gets the pcapng blocks without packets, in order. fill_bytes_max: read at
    once, if no record is larger; first_number: of the first packet. Timestamps outside 64-bit nanoseconds are clamped
    and counted; ticks finer than a nanosecond are rounded down.
    One thread iterates; `stop`, `close` and `progress` may be called from any.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        arena: ChunkSupply,
        *,
        parser: Callable[[PacketBatch, int], None] | None = None,
        chunk_wait_s: float = CHUNK_WAIT_S,
        keep_blocks: bool = False,
        fill_bytes_max: int = 1 << 31,
        first_number: int = 0,
    ) -> None:
        self.blocks = Blocks() if keep_blocks else None
        self.shift_ns = 0
        self.filtered = False
        self._base = 0  # the number of the section's first interface
        self._alike: dict[tuple[int, ...], int] = {}  # what reading an interface's packets takes -> its number
        self.name = "standard input" if os.fspath(path) == "-" else os.fspath(path)
        self.interfaces: list[Interface] = []
        self.damage: Damage | None = None
        self._arena = arena
        self._parser: Any = parser
        self._wait_s = chunk_wait_s
        self._walker = Walker()
        self._walker.keeps = keep_blocks
        self._tail = Tail()
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._ended = False  # the stream has ended
        self._packets = first_number
        self._swapped = False  # the current section's byte order
        self._fill_bytes = self._fill_bytes_max = min(arena.data_bytes_max, fill_bytes_max)
        self._descriptor = _open(path, self.name)
        try:
            self._raw = RawInput(self._descriptor, self._closing.is_set)
            self._stream: Stream = open_stream(self._raw, self.name)
            form, self._offset = self._begin()
            self.form = form._replace(files=(self._raw.identity,) if self._raw.identity else ())
        except OSError as error:
            self.close()
            raise SourceError(f"cannot read {self.name}: {_words(error)}") from None
        except BaseException:
            self.close()
            raise

    @property
    def times_clamped(self) -> int:
        """The number of packets so far whose time does not fit 64-bit nanoseconds."""
        return self._walker.times_clamped

    @property
    def blocks_skipped(self) -> int:
        """The number of pcapng blocks so far that are neither packets, interfaces nor sections."""
        return self._walker.blocks_skipped

    def progress(self) -> tuple[int, int | None]:
        """(bytes of the file read so far, its size or None if it has none)."""
        return self._raw.consumed, self._raw.size

    def stop(self) -> None:
        """Ends the iteration soon, even if it waits for a pipe or a chunk. Returns at once."""
        self._closing.set()

    def refresh(self) -> None:
        """Does nothing: nobody else counts."""

    def pressed(self) -> None:
        """Does nothing: a capture can wait for the workers."""

    def close(self) -> None:
        """Ends the iteration and closes the file. Delivered batches stay valid."""
        self.stop()
        with self._lock:
            if self._descriptor > 0:
                os.close(self._descriptor)
            self._descriptor = -1

    def __del__(self) -> None:
        if getattr(self, "_descriptor", -1) > 0:  # abandoned without close: close at least the file
            os.close(self._descriptor)

    def __enter__(self) -> CaptureSource:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[PacketBatch]:
        return self

    def __next__(self) -> PacketBatch:
        with self._lock:
            if self._closing.is_set() or self.damage or (self._ended and self._tail.size == 0):
                raise StopIteration
            try:
                batch = self._next_batch()
            except OSError as error:
                raise SourceError(f"cannot read {self.name}: {_words(error)}") from None
        if batch is None:
            raise StopIteration
        return batch

    def _begin(self) -> tuple[CaptureForm, int]:
        """Reads the file header or the first section block. Returns (form, bytes read)."""
        head = self._stream.head(12)
        check_magic(head, self._stream, self.name)
        try:
            if head[:4] == SECTION_MAGIC:
                size = int.from_bytes(head[4:8], "big" if head[8:12] == b"\x1a\x2b\x3c\x4d" else "little")
                head += self._stream.head(min(max(size, 12), self._arena.data_bytes_max) - 12)
                form = section_form(head)
                self._begin_section(form)
                return form, len(head)
            head += self._stream.head(PCAP_HEADER_BYTES - 12)
            header = pcap_header(head)
        except BadBlock as error:
            raise SourceError(f"{self.name} is not a pcap or pcapng capture: {error}") from None
        self._number_of(header.interface)
        self._walker.set_pcap(
            header.form.swapped,
            1000 if header.form.resolution == 6 else 1,
            self._packet_max(header.interface, CAPTURED_MAX),
            kuznetzov=header.kuznetzov,
        )
        return header.form, len(head)

    def _next_batch(self) -> PacketBatch | None:
        """Fills one chunk and finds its packets; None at the end. data[0] is byte self._offset of the capture."""
        walker = self._walker
        chunk = self._acquire()
        if chunk is None:
            return None
        walker.begin(chunk)
        start, stop = 0, self._tail.put(chunk)
        limit = max(self._fill_bytes, stop)
        while True:
            if not self._ended and stop < limit:
                got, self._ended = self._stream.fill(chunk, stop, limit, self._wait_s)
                stop += got
            status, start = self._walk(chunk, start, stop)
            if walker.rows or self.damage or self._closing.is_set():
                break
            if status == _records.SKIP:
                self._skip_block(chunk, start, stop, walker.value)
                start = stop = 0
            elif start > 0 and not self._ended:  # blocks without packets: reuse their room
                self._tail.keep(chunk, start, stop)
                self._offset += start
                start, stop = 0, self._tail.put(chunk)
            if self._ended or self.damage:
                break
            limit = self._arena.data_bytes_max
        if status == _records.FULL or (status == _records.MORE and stop >= limit and not self._ended):
            walker.give_back(chunk)  # the rest of datagrams that have only begun comes with them in the next chunk
            start = walker.position
        self._finish(chunk, start, stop, status)
        if walker.rows == 0 or self._closing.is_set():
            return None
        batch = PacketBatch(
            chunk, walker.rows, self._packets, self.interfaces, span_start=0, span_stop=start, parser=self._parser
        )
        batch.contiguous = walker.contiguous
        self._packets += walker.rows
        return batch

    def _finish(self, chunk: Chunk, start: int, stop: int, status: int) -> None:
        """Handles data[start:stop], which the walk left: the beginning of the next chunk, or damage."""
        if self._ended and status == _records.MORE and not self.damage:
            if self._stream.damage:
                self.damage = Damage(self._offset + stop, self._stream.damage)
            elif start < stop and not self._closing.is_set():
                self._damaged(start, f"the capture ends within a record, {stop - start} bytes into it")
        if self.damage:
            self._tail.keep(chunk, stop, stop)
            return
        self._tail.keep(chunk, start, stop)
        self._offset += start
        if status == _records.FULL:
            # Read no more than will be used, because the rest is copied.
            self._fill_bytes = min(max(FILL_BYTES_MIN, start), self._fill_bytes_max)
        elif self._fill_bytes < self._fill_bytes_max:
            self._fill_bytes = min(self._fill_bytes + self._fill_bytes // 8, self._fill_bytes_max)

    def _acquire(self) -> Chunk | None:
        while not self._closing.is_set():
            chunk = self._arena.acquire(ACQUIRE_WAIT_S)
            if chunk is not None:
                return chunk
        return None

    def _walk(self, chunk: Chunk, start: int, stop: int) -> tuple[int, int]:
        """Finds the packets of data[start:stop], and notes interfaces and sections. Returns (status, where it
        stopped)."""
        walker = self._walker
        status = walker.walk(chunk, start, stop)
        while status == _records.BLOCK:
            at = walker.position
            size = self._describe(chunk, at)
            if self.damage:
                return status, at
            status = walker.walk(chunk, at + size, stop)
        if status in DAMAGE:
            self._damaged(walker.position, DAMAGE[status].format(value=walker.value, bound=walker.bound))
        return status, walker.position

    def _describe(self, chunk: Chunk, at: int) -> int:
        """Notes the block without a packet at data[at]. Returns its size."""
        head = block_at(chunk, at, 12)
        section = head[:4] == SECTION_MAGIC
        swapped = head[8:12] == b"\x1a\x2b\x3c\x4d" if section else self._swapped
        size = int.from_bytes(head[4:8], "big" if swapped else "little")
        block = block_at(chunk, at, size)
        try:
            if section:
                self._begin_section(section_form(block))
            elif int.from_bytes(head[:4], "big" if swapped else "little") == INTERFACE_BLOCK:
                interface = interface_of(block, self._swapped)
                self._walker.add_interface(
                    interface.resolution,
                    interface.offset_s,
                    interface.snap_length,
                    self._packet_max(interface, self._arena.data_bytes_max),
                    self._number_of(interface),
                )
                self._keep(interface)
            else:
                self._keep(little_endian(block) if swapped else block)
        except BadBlock as error:
            self._damaged(at, f"there is {error}")
        return size

    def _begin_section(self, form: CaptureForm) -> None:
        self._swapped = form.swapped
        self._base = len(self.interfaces)
        self._walker.set_section(form.swapped)
        self._keep(form)

    def _number_of(self, interface: Interface) -> int:
        """The interface's number in the stream. When all are used, it shares that of one whose packets are read alike.
        Raises BadBlock."""
        alike = (
            interface.link_type,
            interface.snap_length,
            interface.resolution,
            interface.offset_s,
            interface.fcs_length,
        )
        number = len(self.interfaces)
        if number >= INTERFACES_MAX:
            if alike not in self._alike:
                raise BadBlock(f"an interface of another kind than the {INTERFACES_MAX} before it")
            return self._alike[alike]
        self._alike[alike] = number
        self._arena.set_link_type(number, interface.link_type)
        self.interfaces.append(interface)
        return number

    def _keep(self, content: Content) -> None:
        """Passes a block on to the sink, with its place among the packets."""
        if self.blocks is not None:
            self.blocks.put(Block(self._packets + self._walker.rows, content, self._base))

    def _packet_max(self, interface: Interface, unlimited: int) -> int:
        """The most captured bytes of a packet: what the interface says if that is more than usual, up to a chunk.
        unlimited: where it says 0."""
        most = max(captured_max(interface.link_type), interface.snap_length or unlimited)
        return min(most, self._arena.data_bytes_max - RECORD_BYTES_MAX)

    def _skip_block(self, chunk: Chunk, start: int, stop: int, size: int) -> None:
        """Skips a block of `size` bytes that begins at data[start] and is larger than a chunk."""
        if size > SKIP_BYTES_MAX:
            self._damaged(start, f"there is a block of {size} bytes, more than {SKIP_BYTES_MAX}")
            return
        left, end = size - (stop - start), block_at(chunk, max(start, stop - 4), min(4, stop - start))
        pieces = [block_at(chunk, start, stop - start)] if self.blocks is not None else []
        self._offset += start
        while left and not self._ended:
            got, self._ended = self._stream.fill(chunk, 0, min(left, self._arena.data_bytes_max), self._wait_s)
            end = (end + block_at(chunk, max(0, got - 4), min(4, got)))[-4:]
            if self.blocks is not None:
                pieces.append(block_at(chunk, 0, got))
            left -= got
        if left:
            self._damaged(0, f"the capture ends within a block of {size} bytes")
        elif int.from_bytes(end, "big" if self._swapped else "little") != size:
            self._damaged(0, f"there is a block whose two lengths differ, {size} and another")
        else:
            self._offset += size
            self._walker.count_skipped()
            if self.blocks is not None:
                block = b"".join(pieces)
                self._keep(little_endian(block) if self._swapped else block)

    def _damaged(self, at: int, reason: str) -> None:
        self.damage = Damage(self._offset + at, reason)


def _open(path: str | os.PathLike[str], name: str) -> int:
    if os.fspath(path) == "-":
        if os.isatty(0):
            raise SourceError("standard input is a terminal: pipe a capture into it, or name a file with -r")
        return 0
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise SourceError(f"cannot open {name}: {_words(error)}{in_the_way(error, path)}") from None
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise SourceError(f"{name} is a directory: name a capture file")
    return descriptor


def _words(error: OSError) -> str:
    if error.errno == errno.EBADF:
        return "it is closed"
    return os.strerror(error.errno).lower() if error.errno else str(error)
