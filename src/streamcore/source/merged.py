"""The source for several captures: merges them by time, or reads one after the other. _gather.pyx merges the packets.

capture.py reads each of them. Rounds over whole batches say how far each may be read.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcore.core.capture_form import Block, Blocks, CaptureForm, Interface
from streamcore.core.errors import SourceError
from streamcore.core.packets import Chunk, PacketBatch
from streamcore.source._gather import Gatherer
from streamcore.source._supply import ROOM, Chunks
from streamcore.source.capture import ACQUIRE_WAIT_S, CHUNK_WAIT_S, INTERFACES_MAX, CaptureSource, ChunkSupply, Damage

OPEN_MAX = 256  # captures at once, those that wait for a later time are closed
KEPT_OPEN = 32  # captures that stay open while they wait
FILL_BYTES_ALL, FILL_BYTES_MIN, FILL_BYTES_MAX = 32 << 20, 64 << 10, 512 << 10  # read at once: of all captures, of each
STATISTICS = b"\x05\0\0\0"  # the type of interface statistics blocks
NEVER = -(1 << 63)
# Options of a section -> what stands for them at its interfaces.
COMMENT, HARDWARE, SYSTEM, APPLICATION = 1, 2, 3, 4
INTERFACE_HARDWARE, INTERFACE_SYSTEM = 15, 12


class Damages(tuple[tuple[str, Damage], ...]):
    """Which captures could not be read to their ends, where and why: (name, Damage). As text a line each."""

    __slots__ = ()

    def __str__(self) -> str:
        return "\n".join(f"{name}: {damage}" for name, damage in self)


class Input:
    """One of the captures: what is known of it, and its packets that have not been taken, while it is open.

    keys: int64[…], for each packet of the batch the time at which it comes: its own, or that of an earlier one of this
    capture if that is later. A packet without a time has the time 0.
    """

    def __init__(self, index: int, path: str, by_time: bool, options: dict[str, Any]) -> None:
        self.index = index
        self.path = path
        self.source: CaptureSource | None = None
        self.batch: PacketBatch | None = None
        self.keys: NDArray[np.int64] = np.zeros(0, np.int64)
        self.at = 0  # the first packet of the batch that has not been taken
        self.key = NEVER  # of the last packet so far
        self.first_key = NEVER
        self.numbers: list[int] = []  # the number in the output of each of its interfaces
        self.interfaces: list[Interface] = []  # as they were found first
        self.facts: tuple[tuple[int, bytes], ...] = ()  # the options of its section
        self.passed = 0  # blocks without packets that were passed on
        self.seen = 0  # those that this opening has given
        self.clamped = self.skipped = 0  # what an earlier opening counted
        self.form = CaptureForm("pcap")
        self.read_bytes = 0
        self.size: int | None = None
        self._by_time = by_time
        self._options = options

    @property
    def can_wait(self) -> bool:
        """Whether it may be closed, and opened again when its packets are due."""
        return bool(self.form.files)

    @property
    def count(self) -> int:
        """Packets that have not been taken."""
        return len(self.keys) - self.at

    def open(self) -> None:
        """Opens it and reads its first packets. Raises SourceError."""
        self.source = CaptureSource(self.path, **self._options)
        self.form, self.seen, self.key = self.source.form, 0, NEVER
        self.size = self.source.progress()[1]
        self.fill()
        if self.count:
            self.first_key = int(self.keys[0])

    def fill(self) -> None:
        """Reads its next packets; none if it has ended."""
        assert self.source is not None
        self.batch, self.at = None, 0  # the chunk is free before the next one is taken
        self.batch = next(self.source, None)
        if self.batch is None:
            self.keys = np.zeros(0, np.int64)
            return
        if self._by_time:
            self.keys = self.batch.timestamp_ns.copy()
            self.keys[0] = max(self.keys[0], self.key)
            np.maximum.accumulate(self.keys, out=self.keys)
        else:
            self.keys = np.full(self.batch.count, self.index, np.int64)
        self.key = int(self.keys[-1])

    def close(self, ended: bool) -> None:
        """Closes it: for ever, or until its packets are due."""
        if self.source is not None:
            self.read_bytes = self.source.progress()[0] if ended else 0
            if ended:
                self.clamped, self.skipped = self.source.times_clamped, self.source.blocks_skipped
            self.source.close()
        self.source = self.batch = None
        self.keys, self.at = np.zeros(0, np.int64), 0


class MergedSource:
    """Several captures as one; iterate over it for its PacketBatches.

    Parameters: paths, of which one may be "-"; arena to take chunks from; by_time: the packet whose time is the
    earliest comes next, of equal times that of the first path, and packets of one capture stay in order (a time that
    goes back counts as the one before it); otherwise each capture follows the one before it. parser, chunk_wait_s and
    keep_blocks as CaptureSource has them. Captures are opened when their first packet is due, after a look at each at
    the beginning; at most OPEN_MAX at once. Raises SourceError if one of them cannot be opened or is no capture, or if
    more than OPEN_MAX overlap. Damage ends one capture, and is in `damage` at the end.

    The interfaces of all captures stay apart. If one of them is pcapng, so is `form`; its sections become one, and what
    they say stands at their interfaces. One thread iterates; `stop`, `close` and `progress` may be called from any.
    """

    def __init__(
        self,
        paths: Sequence[str | os.PathLike[str]],
        arena: ChunkSupply,
        *,
        by_time: bool = True,
        parser: Any = None,
        chunk_wait_s: float = CHUNK_WAIT_S,
        keep_blocks: bool = False,
        first_number: int = 0,
    ) -> None:
        self.blocks = Blocks() if keep_blocks else None
        self.interfaces: list[Interface] = []
        self.filtered = False
        self.shift_ns = 0
        self._arena = arena
        self._parser: Any = parser
        self._alike: dict[tuple[int, ...], int] = {}
        self._damages: list[tuple[str, Damage]] = []
        self._packets = first_number
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._active: list[Input] = []  # open, in the order of the paths
        self._waiting: list[Input] = []  # those whose packets come last are first
        self._at: NDArray[np.int64] = np.zeros(0, np.int64)  # this round: the first packet left of each active input,
        self._stops: NDArray[np.int64] = np.zeros(0, np.int64)  # and the first that does not belong to the round
        fill_bytes = min(FILL_BYTES_MAX, max(FILL_BYTES_MIN, FILL_BYTES_ALL // min(len(paths), OPEN_MAX)))
        options = {
            "arena": Chunks(arena.data_bytes_max - ROOM, arena.rows_max),
            "chunk_wait_s": chunk_wait_s,
            "keep_blocks": keep_blocks,
            "fill_bytes_max": fill_bytes,
        }
        self._inputs = [Input(index, os.fspath(path), by_time, options) for index, path in enumerate(paths)]
        self.name = f"{len(self._inputs)} captures"
        try:
            self._look_at_all()
        except BaseException:
            self.close()
            raise
        files = tuple(file for each in self._inputs for file in each.form.files)
        pcapng = any(each.form.family == "pcapng" for each in self._inputs)
        digits = max(each.form.resolution for each in self._inputs)
        self.form = CaptureForm("pcapng" if pcapng else "pcap", digits, files=files, one_section=True)
        self._gatherer = Gatherer(pcapng, digits)
        self._waits = any(not each.can_wait for each in self._inputs)  # a pipe may keep its reader waiting

    @property
    def damage(self) -> Damages | None:
        """Where and why captures ended early, a line each; None if none did."""
        return Damages(self._damages) if self._damages else None

    @property
    def times_clamped(self) -> int:
        """The number of packets so far whose time does not fit 64-bit nanoseconds."""
        return sum(each.clamped + (each.source.times_clamped if each.source else 0) for each in self._inputs)

    @property
    def blocks_skipped(self) -> int:
        """The number of pcapng blocks so far that are neither packets, interfaces nor sections."""
        return sum(each.skipped + (each.source.blocks_skipped if each.source else 0) for each in self._inputs)

    def progress(self) -> tuple[int, int | None]:
        """(bytes of the files read so far, their size or None if one has none)."""
        sizes = [each.size for each in self._inputs]
        read = 0
        for each in self._inputs:
            source = each.source  # another thread may close it
            read += source.progress()[0] if source is not None else each.read_bytes
        return read, None if None in sizes else sum(size or 0 for size in sizes)

    def stop(self) -> None:
        """Ends the iteration soon, even if it waits for a pipe or a chunk. Returns at once."""
        self._closing.set()
        for each in self._inputs:
            if (source := each.source) is not None:
                source.stop()

    def refresh(self) -> None:
        """Does nothing: a capture counts as it reads."""

    def pressed(self) -> None:
        """Does nothing: a capture can wait for the workers."""

    def close(self) -> None:
        """Ends the iteration and closes the files. Delivered batches stay valid."""
        self.stop()
        with self._lock:
            for each in self._inputs:
                each.close(ended=True)

    def __enter__(self) -> MergedSource:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[PacketBatch]:
        return self

    def __next__(self) -> PacketBatch:
        with self._lock:
            batch = None if self._closing.is_set() else self._next_batch()
        if batch is None:
            raise StopIteration
        return batch

    def _look_at_all(self) -> None:
        """Opens each capture for its interfaces and its first packet. Raises SourceError."""
        for each in self._inputs:
            each.open()
            self._take_over(each)
            if not each.count:
                self._end(each)
                continue
            self._waiting.append(each)
            if each.index >= KEPT_OPEN and each.can_wait:
                each.close(ended=False)
        self._waiting.sort(key=lambda each: (each.first_key, each.index), reverse=True)

    def _next_batch(self) -> PacketBatch | None:
        """Fills one chunk; None at the end."""
        chunk = self._acquire()
        gatherer = self._gatherer
        gatherer.begin(chunk)
        while chunk is not None and not self._closing.is_set():
            if np.array_equal(self._at, self._stops) and not self._next_round():
                break
            if not self._merge(gatherer) or (self._waits and gatherer.rows):
                break
        if chunk is None or not gatherer.rows or self._closing.is_set():
            return None
        rows, used = gatherer.rows, gatherer.used
        batch = PacketBatch(
            chunk, rows, self._packets, self.interfaces, span_start=0, span_stop=used, parser=self._parser
        )
        batch.contiguous = gatherer.contiguous
        self._packets += rows
        gatherer.begin(None)
        return batch

    def _merge(self, gatherer: Gatherer) -> bool:
        """Copies the packets of this round. Returns whether there was room for all. Raises SourceError."""
        active = self._active
        try:
            done = gatherer.merge(
                [each.batch for each in active if each.batch is not None],
                [np.array(each.numbers, np.uint16) for each in active],
                [each.form.resolution for each in active],
                [each.keys for each in active],
                self._at,
                self._stops,
            )
        except OverflowError as error:
            raise SourceError(f"cannot merge {self.name}: no pcap holds the time {error}") from None
        for each, at in zip(active, self._at.tolist(), strict=True):
            each.at = at
        return done

    def _acquire(self) -> Chunk | None:
        while not self._closing.is_set():
            chunk = self._arena.acquire(ACQUIRE_WAIT_S)
            if chunk is not None:
                return chunk
        return None

    def _next_round(self) -> bool:
        """Chooses the packets that come next: those before which no capture can have another. False at the end."""
        while True:
            self._fill_active()
            # An open capture may go on at the key of its last packet, a waiting one begins with its first.
            limits = [(each.key, each.index) for each in self._active]
            if self._waiting:
                limits.append((self._waiting[-1].first_key, self._waiting[-1].index))
            if not limits:
                return False
            key, index = min(limits)
            stops = []
            for each in self._active:
                side = "right" if each.index <= index else "left"
                stops.append(each.at + int(np.searchsorted(each.keys[each.at :], key, side)))  # type: ignore[call-overload]
            self._at = np.array([each.at for each in self._active], np.int64)
            self._stops = np.array(stops, np.int64)
            if (self._stops > self._at).any():
                return True
            self._activate(self._waiting.pop())

    def _fill_active(self) -> None:
        """Reads on in the captures whose packets were all taken."""
        for each in list(self._active):
            if not each.count:
                each.fill()
                self._take_over(each)
                if not each.count:
                    self._active.remove(each)
                    self._end(each)

    def _activate(self, each: Input) -> None:
        """Opens a capture whose first packet is due. Raises SourceError."""
        if len(self._active) >= OPEN_MAX:
            raise SourceError(f"more than {OPEN_MAX} of the captures overlap in time: merge some of them first")
        if each.source is None:
            each.open()
            self._take_over(each)
        if not each.count:
            raise SourceError(f"cannot read {each.path}: it was changed while the captures before it were read")
        self._active.append(each)
        self._active.sort(key=lambda other: other.index)

    def _end(self, each: Input) -> None:
        """Notes how a capture ended, and closes it."""
        assert each.source is not None
        if each.source.damage is not None:
            self._damages.append((each.source.name, each.source.damage))
        each.close(ended=True)

    def _take_over(self, each: Input) -> None:
        """Numbers the interfaces that a capture has described by now, and passes its blocks on. Raises SourceError."""
        assert each.source is not None
        found = each.source.interfaces
        if found[: len(each.interfaces)] != each.interfaces[: len(found)]:
            raise SourceError(f"cannot read {each.path}: it was changed while the captures before it were read")
        blocks = each.source.blocks
        while blocks is not None and len(blocks):
            block = blocks.take()
            self._pass(each, block)
        for interface in found[len(each.numbers) :]:  # of a pcap, or without blocks
            self._add(each, interface)

    def _pass(self, each: Input, block: Block) -> None:
        """Takes over a block of a capture, unless an earlier opening of it gave it."""
        assert each.source is not None
        assert self.blocks is not None
        each.seen += 1
        if isinstance(block.content, CaptureForm):
            each.facts = block.content.options
        if each.seen <= each.passed:
            return
        each.passed = each.seen
        if isinstance(block.content, Interface):
            if len(each.numbers) < len(each.source.interfaces):  # beyond INTERFACES_MAX one stands for others
                self._add(each, block.content)
        elif not isinstance(block.content, CaptureForm):
            self.blocks.put(Block(self._packets, _renumbered(block, each.numbers)))

    def _add(self, each: Input, interface: Interface) -> None:
        each.interfaces.append(interface)
        each.numbers.append(self._number_of(with_facts(interface, each.facts)))

    def _number_of(self, interface: Interface) -> int:
        """The number of an interface in the output. When all are used, it shares that of one whose packets are read
        alike. Raises SourceError."""
        alike = (interface.link_type, interface.resolution, interface.offset_s, interface.fcs_length)
        number = len(self.interfaces)
        if number >= INTERFACES_MAX:
            if alike not in self._alike:
                raise SourceError(f"cannot merge {self.name}: they have more than {INTERFACES_MAX} interfaces")
            return self._alike[alike]
        self._alike[alike] = number
        self._arena.set_link_type(number, interface.link_type)
        self.interfaces.append(interface)
        return number


def with_facts(interface: Interface, facts: tuple[tuple[int, bytes], ...]) -> Interface:
    """The interface with what its section says, because the output's section says it of all captures."""
    has = {code for code, _ in interface.options}
    moved = []
    for code, value in facts:
        if code == HARDWARE and INTERFACE_HARDWARE not in has:
            moved.append((INTERFACE_HARDWARE, value))
        elif code == SYSTEM and INTERFACE_SYSTEM not in has:
            moved.append((INTERFACE_SYSTEM, value))
        elif code in (HARDWARE, SYSTEM):
            continue  # the interface says it itself
        elif code == APPLICATION:
            moved.append((COMMENT, b"captured with " + value))
        else:
            moved.append((code, value))
    return interface._replace(options=(*interface.options, *moved)) if moved else interface


def _renumbered(block: Block, numbers: list[int]) -> Any:
    """The content of a block of a capture, with the output's number of the interface that it is about."""
    content = block.content
    if not isinstance(content, bytes) or content[:4] != STATISTICS or len(content) < 16:
        return content
    number = int.from_bytes(content[8:12], "little") + block.base
    if number >= len(numbers):
        return None  # of no interface: it cannot be written
    return content[:8] + numbers[number].to_bytes(4, "little") + content[12:]
