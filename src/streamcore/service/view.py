"""The segment as a worker passes it to a service. It gives columns without copying if the rows are consecutive, and
enforces the declared effect.

Changed packets go into a region, a bounded buffer from the worker. `disperse` sends the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcore.core.packets import Arena, PacketBatch, Segment
from streamcore.headers import STANDARD_PORTS, UdpPorts
from streamcore.service._gather import adjacent_records, pack_packets, pack_records
from streamcore.service.protocol import ALLOWED, Service

COMMENT_BYTES_MAX = 4096  # per comment; a pcapng option carries at most 65,535
LENGTH_MAX = 0xFFFF_FFFF
COLUMNS_READ = frozenset({"offset", "captured_length", "wire_length", "timestamp_ns", "interface", "record"})


class EffectError(Exception):
    """A service made a change that its declared effect does not allow."""


class ResultTooLarge(Exception):
    """The packets that a service made do not fit into the region."""


@dataclass(slots=True)
class ViewResult:
    """What the services left, for the segment's n packets. None: as before."""

    packed: int = (
        0  # bytes of the region in use; whole records in row order, or packets at `offset` where lengths are given
    )
    keep: NDArray[np.uint8] | None = None  # uint8[n]: 0 for a dropped packet
    offset: NDArray[np.uint32] | None = None  # of packet i, in the region, or in the chunk if packed is 0
    captured_length: NDArray[np.uint32] | None = None
    wire_length: NDArray[np.uint32] | None = None
    keys: NDArray[np.uint64] | None = None  # uint64[n, 2]
    comments: dict[int, list[bytes]] = field(default_factory=dict)
    reports: list[tuple[int, Any]] = field(default_factory=list)  # (index of the service, report)
    drops: dict[str, tuple[int, int]] = field(default_factory=dict)  # reason -> (packets, captured bytes)


class View:
    """The SegmentView of the protocol. One view goes through all services in turn: call `turn(service)` before each.

    region: uint8, writable; None if no service changes bytes. ports: which tunnels over UDP the run tries. A service
    does not see packets that an earlier one dropped. Arrays may be views into the chunk, so they must not outlive the
    segment's processing.
    """

    def __init__(
        self,
        segment: Segment,
        region: NDArray[np.uint8] | None,
        services: Sequence[Service],
        ports: UdpPorts = STANDARD_PORTS,
    ) -> None:
        self.number = segment.number
        self.ports = ports
        self._segment = segment
        self._batch = segment.batch
        self._region = region
        self._services = list(services)
        self._place = -1
        self._allowed: frozenset[str] = frozenset()
        self._index = _index(segment)  # indexes a batch column by the segment's packets
        self._count = len(segment)
        self._result = ViewResult()
        self._selected: NDArray[np.intp] | None = None  # the segment's packets that this service sees; None: all
        self._writable: NDArray[np.uint8] | None = None
        self._changed = self._changed_before = False  # bytes: by the service at work; by one before
        self._again: PacketBatch | None = None  # the packets as earlier services left them
        self._show(
            _frozen(self._batch.data), self._all("offset"), self._all("captured_length"), self._all("wire_length")
        )

    def turn(self, service: Service) -> None:
        """Begin the next service's turn. It does not see packets that earlier ones dropped."""
        self._place = next(i for i in range(self._place + 1, len(self._services)) if self._services[i] is service)
        self._allowed = ALLOWED[service.effect]
        if self._changed:
            self._changed, self._changed_before, self._again = False, True, None
        keep = self._result.keep
        self._selected = None if keep is None else np.flatnonzero(keep)
        self._select()

    def __len__(self) -> int:
        return self._count if self._selected is None else len(self._selected)

    # What a service reads.

    def column(self, name: str) -> NDArray[Any]:
        """A column of PacketBatch for the packets of this view; a slice if the rows are consecutive. Headers are as
        earlier services left them.
        """
        if self._changed_before and name not in COLUMNS_READ:
            return self._of(_frozen(getattr(self._parsed_again(), name)))
        return self._of(self._all(name))

    def link_type(self) -> NDArray[np.uint16]:
        """uint16[n]: each packet's link type (LINKTYPE_ value)."""
        interface = self.column("interface")
        arena = self._batch.chunk.arena
        first = int(interface[0]) if len(interface) else 0
        if (interface == first).all():
            return np.full(len(interface), arena.link_type(first), np.uint16)
        table = np.array([arena.link_type(i) for i in range(int(interface.max()) + 1)], np.uint16)
        link_types: NDArray[np.uint16] = table[interface]
        return link_types

    # What a service does, if its effect allows it.

    def writable(self) -> NDArray[np.uint8]:
        """uint8: a writable copy of the packets' bytes; from now on `data` and `offset` refer to it, and packet i is at
        offset[i].

        The bytes between packets are record headers, and must not change. Raises EffectError, ResultTooLarge.
        """
        self._need("bytes", "writable()")
        if self._writable is not None:
            return self._writable
        region = self._room()
        placed = np.empty(self._count, np.uint32)
        used = pack_records(self._segment, region, placed)
        self._take_region(region, used, placed)
        assert self._writable is not None
        return self._writable

    def uncopied(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]] | None:
        """writable(), but the caller makes the copy: (the bytes, the place for all of them), of equal length. None:
        nothing was done, call writable(). Raises EffectError, ResultTooLarge.
        """
        self._need("bytes", "uncopied()")
        if self._writable is not None:
            return None
        placed = np.empty(self._count, np.uint32)
        found = adjacent_records(self._segment, placed)
        if found is None:
            return None
        first, stop = found
        self._take_region(self._room(), stop - first, placed)
        assert self._writable is not None
        return self._batch.data[first:stop], self._writable

    def truncate(self, captured_length: NDArray[np.uint32]) -> None:
        """Keep only the first captured_length[i] bytes of packet i. Raises EffectError; ValueError if a packet would
        grow.
        """
        self._need("lengths", "truncate()")
        wanted = _lengths("captured_length", captured_length, len(self))
        if (wanted > self.captured_length).any():
            raise ValueError("truncate() cannot make a packet longer: use replace()")
        self._show(self._data, self._offset, self._spread(wanted, self._captured), self._wire)
        self._keep_lengths()

    def replace(
        self,
        data: NDArray[np.uint8],
        offset: NDArray[np.uint32],
        captured_length: NDArray[np.uint32],
        wire_length: NDArray[np.uint32],
    ) -> None:
        """Replace packet i by a copy of data[offset[i] : offset[i] + captured_length[i]].

        Raises EffectError, ResultTooLarge; ValueError for a packet outside data.
        """
        self._need("lengths", "replace()")
        count = len(self)
        at, captured, wire = (
            _lengths(name, array, count)
            for name, array in (("offset", offset), ("captured_length", captured_length), ("wire_length", wire_length))
        )
        source = np.ascontiguousarray(data, np.uint8).reshape(-1)
        total = int(captured.sum(dtype=np.uint64))
        region = self._room()
        if total > len(region):
            raise ResultTooLarge(f"segment {self.number} needs {total} bytes, but {len(region)} are allowed")
        bounce = np.empty(total, np.uint8)  # data may be in the region itself
        packed = np.empty(count, np.uint32)
        pack_packets(source, at, captured, bounce, packed)
        region[:total] = bounce
        self._changed = True
        self._writable = region[:total]
        self._result.packed = total
        placed, lengths, wires = (np.zeros(self._count, np.uint32) for _ in range(3))
        self._show(
            _frozen(self._writable),
            self._spread(packed, placed),
            self._spread(captured, lengths),
            self._spread(wire, wires),
        )
        self._keep_lengths()

    def drop(self, mask: NDArray[np.bool_], reason: str) -> None:
        """Drop the packets where mask is true. Each packet counts once, under its first reason. Raises EffectError,
        ValueError.
        """
        self._need("drops", "drop()")
        if reason not in self._services[self._place].reasons:
            raise EffectError(f"service {self._name()} dropped packets for {reason!r}: declare it in `reasons`")
        wanted = np.asarray(mask)
        if wanted.shape != (len(self),) or wanted.dtype != np.bool_:
            raise ValueError(f"drop(): the mask must be bool[{len(self)}], not {wanted.dtype}{list(wanted.shape)}")
        if not wanted.any():
            return
        keep = self._result.keep
        if keep is None:
            keep = self._result.keep = np.ones(self._count, np.uint8)
        fresh = wanted & (self._of(keep) == 1)
        packets, byte_count = self._result.drops.get(reason, (0, 0))
        gone = int(self.column("captured_length")[fresh].sum(dtype=np.uint64))  # as they were read
        self._result.drops[reason] = (packets + int(np.count_nonzero(fresh)), byte_count + gone)
        keep[np.flatnonzero(wanted) if self._selected is None else self._selected[wanted]] = 0

    def comment(self, row: int, text: str) -> None:
        """Add a comment to packet `row` of this view. Raises ValueError if it has more than COMMENT_BYTES_MAX bytes."""
        if not 0 <= row < len(self):
            raise IndexError(f"comment(): there is no packet {row} in {len(self)}")
        raw = text.encode("utf-8", "replace")
        if len(raw) > COMMENT_BYTES_MAX:
            raise ValueError(f"comment(): {len(raw)} bytes are too many: at most {COMMENT_BYTES_MAX} are allowed")
        packet = int(row) if self._selected is None else int(self._selected[row])
        self._result.comments.setdefault(packet, []).append(raw)

    def keys(self, keys: NDArray[np.uint64]) -> None:
        """uint64[n, 2]: what `drop_by_keys` of this service decides by. Raises EffectError."""
        self._need("drops", "keys()")
        if not self._services[self._place].drops_by_keys:
            raise EffectError(f"service {self._name()} called keys() without drops_by_keys = True: declare it")
        wanted = np.ascontiguousarray(keys, np.uint64)
        if wanted.shape != (len(self), 2):
            raise ValueError(f"keys(): the keys must be uint64[{len(self)}, 2], not {list(wanted.shape)}")
        if self._selected is not None:
            spread = np.zeros((self._count, 2), np.uint64)
            spread[self._selected] = wanted
            wanted = spread
        self._result.keys = wanted

    def report(self, report: Any) -> None:
        """Hand figures to the service's `merge`: anything that MessagePack can carry."""
        self._result.reports.append((self._place, report))

    def result(self) -> ViewResult:
        """What became of the segment. The view must not be used afterwards."""
        return self._result

    # Inside.

    def _parsed_again(self) -> PacketBatch:
        """All packets of the segment as they are now, in a new batch."""
        if self._again is None:
            arena = Arena(1, max(1, len(self._data)), max(1, self._count))
            chunk = arena.acquire(0)
            assert chunk is not None
            chunk.data[: len(self._data)] = self._data
            batch = PacketBatch(chunk, self._count, self._batch.first_number, [], parser=self._batch.parser)
            batch.offset[:], batch.captured_length[:], batch.wire_length[:] = self._offset, self._captured, self._wire
            for name in ("timestamp_ns", "interface"):
                getattr(batch, name)[:] = self._all(name)
            for interface in np.unique(batch.interface).tolist():
                arena.set_link_type(interface, self._batch.chunk.arena.link_type(interface))
            self._again = batch
        return self._again

    def _show(
        self,
        data: NDArray[np.uint8],
        offset: NDArray[np.uint32],
        captured_length: NDArray[np.uint32],
        wire_length: NDArray[np.uint32],
    ) -> None:
        """From now on these are the packets: one row per packet of the whole segment, including dropped ones."""
        self._data, self._offset, self._captured, self._wire = data, offset, captured_length, wire_length
        self._select()

    def _select(self) -> None:
        """Show only the packets that this service sees."""
        self.data = self._data
        self.offset = _frozen(self._of(self._offset))
        self.captured_length = _frozen(self._of(self._captured))
        self.wire_length = _frozen(self._of(self._wire))

    def _keep_lengths(self) -> None:
        self._result.offset, self._result.captured_length, self._result.wire_length = (
            self._offset,
            self._captured,
            self._wire,
        )

    def _all(self, name: str) -> NDArray[Any]:
        column: NDArray[Any] = getattr(self._batch, name)[self._index]
        return _frozen(column)

    def _of(self, array: NDArray[Any]) -> NDArray[Any]:
        return array if self._selected is None else array[self._selected]

    def _spread(self, values: NDArray[np.uint32], others: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """`values` for the packets that this service sees, `others` for those dropped before."""
        if self._selected is None:
            return values
        spread = others.copy()
        spread[self._selected] = values
        return spread

    def _need(self, change: str, call: str) -> None:
        if change not in self._allowed:
            effect = self._services[self._place].effect if self._place >= 0 else "none"
            allowing = " or ".join(f'"{name}"' for name, changes in ALLOWED.items() if change in changes)
            raise EffectError(
                f'service {self._name()} called {call} with effect "{effect}": declare effect = {allowing}'
            )

    def _name(self) -> str:
        return self._services[self._place].name if self._place >= 0 else "(no service's turn)"

    def _take_region(self, region: NDArray[np.uint8], used: int, placed: NDArray[np.uint32]) -> None:
        """The packets are in the region from now on; used: bytes, -1: they do not fit."""
        if not 0 <= used <= len(region):
            raise ResultTooLarge(f"the packets of segment {self.number} do not fit into {len(region)} bytes")
        self._changed = True
        self._writable = region[:used]
        self._result.packed = used
        self._show(_frozen(self._writable), placed, self._captured, self._wire)
        if self._result.offset is not None:
            self._result.offset = placed

    def _room(self) -> NDArray[np.uint8]:
        if self._region is None:
            raise ResultTooLarge(f"service {self._name()} changes bytes, but there is no region for them")
        return self._region


def _index(segment: Segment) -> slice | NDArray[np.uint32]:
    """What indexes a batch column: a slice if the rows are consecutive, even in an arranged batch."""
    index: slice | NDArray[np.uint32] = segment.index
    if isinstance(index, slice) or len(index) == 0:
        return index
    first, last = int(index[0]), int(index[-1])
    if last - first + 1 == len(index) and (np.diff(index.astype(np.int64)) == 1).all():
        return slice(first, last + 1)
    return index


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    """The same bytes as a read-only array."""
    shown = array.view()
    shown.flags.writeable = False
    return shown


def _lengths(name: str, array: Any, count: int) -> NDArray[np.uint32]:
    """array as a new uint32[count]; refuses values that do not fit. A copy, because the caller may change it later."""
    given = np.asarray(array)
    if given.shape != (count,) or given.dtype.kind not in "ui":
        raise ValueError(f"{name} must be uint32[{count}], not {given.dtype}{list(given.shape)}")
    if count and (int(given.min()) < 0 or int(given.max()) > LENGTH_MAX):
        raise ValueError(f"{name} must lie from 0 to {LENGTH_MAX}")
    return given.astype(np.uint32)
