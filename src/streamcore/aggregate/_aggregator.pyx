"""The aggregator: results come in any order, Outgoings leave in the requested order. The dispatcher bounds what it
holds.

Order `total`: that of the first stream. `flow`: that of each lane of each stream (without lanes, that of each stream).
`none`: as results come. Results are validated before they get here.
"""

import collections

import numpy as np

cimport numpy as cnp
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from streamcore.core.packets cimport Columns, Outgoing, PacketBatch, Result, Segment, record_head, record_size

cnp.import_array()

ORDERS = ("total", "flow", "none")


cdef class Unit:
    """A unit that must be complete before it can leave: one segment, or all segments of a batch whose rows
    interleave."""

    cdef PacketBatch batch
    cdef object line    # deque of Units that leave in order; None: leaves as soon as it is complete
    cdef uint32_t left  # segments without a result
    cdef list results


cdef class Aggregator:
    """Restores an order.

    drop_by_keys: for each stream None, or a function (keys uint64[n, 2], timestamp_ns int64[n]) -> (mask of packets to
    drop, reason), called in the second stream's order for packets with keys. dropped: called as dropped(stream, reason,
    packets, bytes) for the packets that it dropped.
    """

    cdef readonly str order
    cdef readonly int64_t resized_bytes  # captured bytes of the packets that left, less the bytes read of them
    cdef readonly list left  # for each stream, if there are several: [packets, captured bytes, resized bytes] that left
    cdef list drop_by_keys
    cdef object dropped
    cdef dict units  # segment number -> Unit
    cdef dict lines  # stream << 32 | lane -> deque of Units; one line for everything under `total`

    def __init__(self, str order, drop_by_keys=(None,), dropped=None):
        if order not in ORDERS:
            raise ValueError(f"no order {order!r}: use one of {', '.join(ORDERS)}")
        self.order = order
        self.drop_by_keys = list(drop_by_keys)
        self.left = [[0, 0, 0] for _ in self.drop_by_keys] if len(self.drop_by_keys) > 1 else []
        self.dropped = dropped
        self.units = {}
        self.lines = {}

    def __len__(self):
        """The number of segments that are expected and have not left."""
        return len(self.units)

    def expect(self, PacketBatch batch not None, list segments not None):
        """Announces a batch's segments, in number order, before any is submitted. One thread may call this while
        another calls `accept`."""
        cdef Unit unit = None
        cdef Segment segment
        cdef bint together = self.order == "total" and batch.interleaved
        for segment in segments:
            if unit is None or not together:
                unit = Unit()
                unit.batch = batch
                unit.left = batch.segment_count if together else 1
                unit.results = []
                if self.order != "none":
                    line = (<uint64_t> segment.stream << 32) | segment.lane if self.order == "flow" else 0
                    unit.line = self.lines.setdefault(line, collections.deque())
                    unit.line.append(unit)
            self.units[segment.number] = unit

    def accept(self, Result result not None):
        """Takes the result of an expected segment. Returns the Outgoings that can leave now, in order. Raises KeyError
        if it is not expected."""
        cdef Unit unit = self.units.pop(result.segment.number)
        cdef list ready = []
        unit.results.append(result)
        unit.left -= 1
        if unit.line is None:
            ready.append(self.release(unit))
            return ready
        line = unit.line
        while line and (<Unit> line[0]).left == 0:
            ready.append(self.release(line.popleft()))
        return ready

    def withdraw(self, str provider not None):
        """Discards a provider's results that have not left. Returns their segments, list[Segment], which are expected
        again."""
        cdef Unit unit
        cdef Result result
        cdef list segments = []
        for line in list(self.lines.values()):
            for unit in list(line):  # a copy: another thread may append to it
                taken = [result for result in unit.results if (<Result> result).provider == provider]
                for result in taken:
                    unit.results.remove(result)
                    unit.left += 1
                    self.units[result.segment.number] = unit
                    segments.append(result.segment)
        return segments

    cdef Outgoing release(self, Unit unit):
        """The Outgoing of a complete unit."""
        cdef Result result
        cdef Segment segment
        cdef Outgoing out
        cdef bint together = len(unit.results) > 1
        cdef bint plain = True
        for result in unit.results:
            if result.dead or not result.unchanged or result.keep != NULL or result.keys != NULL:
                plain = False
        if together:
            plain = plain and unit.batch.row_count == unit.batch.count
        result = unit.results[0]
        segment = result.segment
        if plain and together:
            out = Outgoing(unit.batch, 0, unit.batch.count, arranged=False)
        elif plain:
            out = Outgoing(unit.batch, segment.start, segment.stop)
        elif not together and is_moved(result):
            out = Outgoing(unit.batch, segment.start, segment.stop)
            out.moved = result.packed
            plain = True
        else:
            out = Outgoing(unit.batch, 0, 0, count=unit.batch.count if together else len(segment))
        for result in unit.results:
            if not plain and not result.dead:
                with nogil:
                    fill(out, result, together)
            if result.comments:
                self.place_comments(out, result)
        if not plain:
            for stream, drop in enumerate(self.drop_by_keys):
                if drop is not None:
                    self.drop_keyed(out, unit.results, together, <uint32_t> stream, drop)
        if self.left:
            for result in unit.results:
                self.count_left(out, result, plain, together)
        if not plain:
            with nogil:
                self.resized_bytes += resized(out)
        out.hold = unit.results
        return out

    cdef int place_comments(self, Outgoing out, Result result) except -1:
        cdef Segment segment = result.segment
        for packet, comments in result.comments.items():
            at = segment.start + <Py_ssize_t> packet
            row = segment.batch.columns.rows[<Py_ssize_t> at] if segment.batch.arranged else at
            out.comments.setdefault(row, []).extend(comments)
        return 0

    cdef int count_left(self, Outgoing out, Result result, bint plain, bint together) except -1:
        """Counts the leaving packets of one result under its stream."""
        cdef uint64_t packets = result.segment.stop - result.segment.start
        cdef uint64_t byte_count = result.segment.byte_count
        cdef int64_t added = 0
        cdef list left = self.left[result.segment.stream]
        if not plain:
            with nogil:
                packets = count_kept(out, result, together, &byte_count, &added)
        left[0] += packets
        left[1] += byte_count
        left[2] += added
        return 0

    cdef int drop_keyed(self, Outgoing out, list results, bint together, uint32_t stream, drop) except -1:
        """Lets a stream's service decide which packets are dropped, over all packets of that stream in order."""
        cdef Py_ssize_t i, count = 0, dropped = 0
        cdef uint64_t dropped_bytes = 0
        cdef Result result
        cdef cnp.ndarray keys = np.zeros((out.count, 2), np.uint64)
        cdef cnp.ndarray times = np.zeros(out.count, np.int64)
        cdef cnp.ndarray index = np.zeros(out.count, np.int64)
        cdef uint64_t *key = <uint64_t *> cnp.PyArray_DATA(keys)
        cdef int64_t *time = <int64_t *> cnp.PyArray_DATA(times)
        cdef int64_t *place = <int64_t *> cnp.PyArray_DATA(index)
        cdef cnp.ndarray keyed = np.zeros(out.count, np.uint8)
        cdef uint8_t *has_key = <uint8_t *> cnp.PyArray_DATA(keyed)
        cdef uint8_t *mark
        for result in results:
            if result.keys != NULL and result.segment.stream == stream:
                with nogil:
                    scatter_keys(result, together, key, has_key)
        for i in range(out.count):  # close the gaps left by dropped packets and packets without a key
            if out.packet[i] == NULL or not has_key[i]:
                continue
            key[2 * count] = key[2 * i]
            key[2 * count + 1] = key[2 * i + 1]
            time[count] = out.batch.columns.timestamp_ns[out.row[i]]
            place[count] = i
            count += 1
        if count == 0:
            return 0
        mask, reason = drop(keys[:count], times[:count])
        mask = np.ascontiguousarray(mask, np.uint8)
        if mask.shape != (count,):
            raise ValueError(f"drop_by_keys gave a mask of shape {mask.shape} for {count} packets")
        mark = <uint8_t *> cnp.PyArray_DATA(<cnp.ndarray> mask)
        for i in range(count):
            if mark[i]:
                dropped += 1
                dropped_bytes += out.batch.columns.captured_length[out.row[place[i]]]  # as read
                out.packet[place[i]] = NULL
        if dropped and self.dropped is not None:
            self.dropped(stream, reason, dropped, dropped_bytes)
        return 0


cdef inline bint is_moved(Result result) noexcept nogil:
    """Whether its packets stand in its region as they stand in the chunk: whole records, side by side. Then one run of them can be written, and
    none is looked at here."""
    return (not result.dead and result.packed != NULL and result.offset == NULL and result.keep == NULL and result.keys == NULL
            and result.segment.batch.contiguous and not result.segment.batch.arranged)


cdef void fill(Outgoing out, Result result, bint by_row) noexcept nogil:
    """Points `out` at a result's packets: at index row if several segments share `out`, else at their place in the
    segment.

    Validation has checked that the packed records fit. About 3 ns a packet (bench_aggregate.py).
    """
    cdef Py_ssize_t start = result.segment.start
    cdef const Columns *columns = &result.segment.batch.columns
    cdef bint arranged = result.segment.batch.arranged
    cdef Py_ssize_t i, to
    cdef uint32_t row
    cdef uint64_t at = 0
    cdef uint8_t *base = result.packed if result.packed != NULL else columns.data
    for i in range(result.segment.stop - start):
        row = columns.rows[start + i] if arranged else <uint32_t> (start + i)
        to = row if by_row else i
        out.row[to] = row
        out.captured_length[to] = columns.captured_length[row]
        out.wire_length[to] = columns.wire_length[row]
        out.packet[to] = columns.data + columns.offset[row]
        out.whole[to] = 1
        if result.offset != NULL:
            out.packet[to] = base + result.offset[i]
            out.captured_length[to] = result.captured_length[i]
            out.wire_length[to] = result.wire_length[i]
            out.whole[to] = 0
        elif result.packed != NULL:
            out.packet[to] = result.packed + at + record_head(columns.record[row])
            at += record_size(columns, row)
        if result.keep != NULL and result.keep[i] == 0:
            out.packet[to] = NULL


cdef int64_t resized(Outgoing out) noexcept nogil:
    """Captured bytes of the packets that leave, less the bytes read of them."""
    cdef Py_ssize_t i
    cdef int64_t total = 0
    for i in range(out.count):
        if out.packet[i] != NULL:
            total += <int64_t> out.captured_length[i] - <int64_t> out.batch.columns.captured_length[out.row[i]]
    return total


cdef uint64_t count_kept(Outgoing out, Result result, bint by_row, uint64_t *byte_count, int64_t *added) noexcept nogil:
    """The packets of a result that leave in `out`, their captured bytes, and the bytes that services added to them."""
    cdef Py_ssize_t start = result.segment.start
    cdef const Columns *columns = &result.segment.batch.columns
    cdef bint arranged = result.segment.batch.arranged
    cdef Py_ssize_t i, to
    cdef uint64_t packets = 0
    cdef uint32_t row
    byte_count[0] = 0
    if result.dead:
        return 0
    for i in range(result.segment.stop - start):
        row = columns.rows[start + i] if arranged else <uint32_t> (start + i)
        to = row if by_row else i
        if out.packet[to] != NULL:
            packets += 1
            byte_count[0] += out.captured_length[to]
            added[0] += <int64_t> out.captured_length[to] - <int64_t> columns.captured_length[row]
    return packets


cdef void scatter_keys(Result result, bint by_row, uint64_t *keys, uint8_t *has_key) noexcept nogil:
    cdef Py_ssize_t start = result.segment.start
    cdef bint arranged = result.segment.batch.arranged
    cdef Py_ssize_t i, to
    for i in range(result.segment.stop - start):
        to = start + i
        if arranged:
            to = result.segment.batch.columns.rows[to]
        if not by_row:
            to = i
        has_key[to] = 1
        keys[2 * to] = result.keys[2 * i]
        keys[2 * to + 1] = result.keys[2 * i + 1]
