"""The segmenter: divides a batch into segments, within the bounds on packets, bytes and capture time.

A policy's cutter (cutter.py) can add more cuts. A segment never spans batches or streams, so a bound is a maximum. The
scheduler assigns lanes to workers.
"""

import numpy as np

cimport numpy as cnp
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from streamcore.core.packets cimport Columns, Control, PacketBatch, Segment
from streamcore.headers._datagrams cimport between_datagrams

from streamcore.core.policies import POLICIES
from streamcore.segment.cutter import Bounds, Preceding, cutter_class

cnp.import_array()

cdef enum:
    LANES_BOUND = 1024

ANY_LANE = 0xFFFFFFFF
LANES_MAX = LANES_BOUND

cdef uint32_t NO_LANE = 0xFFFFFFFF


cdef class Segmenter:
    """Cuts batches into segments.

    policy: a name of core.policies.POLICIES; the column groups that its row names must have been parsed. lanes: their
    number, for a policy with lanes. packets_max, bytes_max (captured), time_ms (0: no bound): a segment has at most one
    packet more than bytes_max allows. streams: how many there are; each has its own cutter.
    """

    cdef readonly str policy
    cdef readonly uint32_t lanes
    cdef bint sorts               # into lanes
    cdef Py_ssize_t packets_max
    cdef uint64_t bytes_max
    cdef int64_t time_ns          # 0: no bound
    cdef uint64_t next_number
    cdef uint32_t streams
    cdef object cutter            # the policy's class; None: only the bounds decide
    cdef object bounds
    cdef dict cutters             # (stream, lane) -> [cutter, its last segment: Preceding]; bounded by streams * lanes

    def __init__(self, str policy, *, uint32_t lanes=1, Py_ssize_t packets_max=65536, uint64_t bytes_max=1 << 22,
                 int64_t time_ms=0, uint32_t streams=1):
        if policy not in POLICIES:
            raise ValueError(f"no policy {policy!r}: use one of {', '.join(POLICIES)}")
        if not 1 <= lanes <= LANES_MAX or packets_max < 1 or bytes_max < 1 or time_ms < 0 or time_ms > 1 << 40 or streams < 1:
            raise ValueError("a bound of the segmenter is out of range")
        row = POLICIES[policy]
        self.policy = policy
        self.sorts = row.lanes
        self.lanes = lanes if row.lanes else 1
        self.packets_max = packets_max
        self.bytes_max = bytes_max
        self.time_ns = 0 if row.owns_segment_ms else time_ms * 1_000_000
        self.streams = streams
        self.bounds = Bounds(packets_max, bytes_max, time_ms)
        self.cutter = cutter_class(row)
        self.cutters = {}
        if self.cutter is not None:
            self.cutter(self.bounds)  # so that invalid bounds are refused now

    def cut(self, PacketBatch batch not None, stops=None):
        """list[Segment] in number order. Sets batch.segment_count and batch.interleaved; may arrange batch.rows by lane.

        stops: the end of each stream in the batch's rows, as the Classifier sorted them; None: all rows belong to
        stream 0.
        """
        cdef list segments = []
        cdef Py_ssize_t start = 0
        cdef uint32_t stream = 0, present = 0
        cdef Py_ssize_t stop
        if batch.chunk.borrowed_from is not None:
            raise ValueError("the batch borrows its packets: call copy_to_chunk first")
        if stops is None:
            self.cut_stream(batch, 0, 0, batch.row_count, segments)
        else:
            if len(stops) != self.streams or sorted([0, *stops, batch.row_count]) != [0, *stops, batch.row_count]:
                raise ValueError(f"rows of {self.streams} streams that end at {stops} in a batch of {batch.row_count}")
            for stop in stops:
                if stop > start:
                    self.cut_stream(batch, stream, start, stop, segments)
                    present += 1
                start = stop
                stream += 1
        batch.segment_count = len(segments)
        batch.interleaved = (self.lanes > 1 or present > 1) and len(segments) > 1
        return segments

    cdef int cut_stream(self, PacketBatch batch, uint32_t stream, Py_ssize_t start, Py_ssize_t stop, list segments) except -1:
        cdef Py_ssize_t *lane_stop
        cdef uint32_t lane
        cdef int failed
        if self.lanes == 1:
            return self.cut_rows(batch, start, stop, 0 if self.sorts else NO_LANE, stream, segments)
        lane_stop = <Py_ssize_t *> malloc(self.lanes * sizeof(Py_ssize_t))
        if lane_stop == NULL:
            raise MemoryError
        try:
            with nogil:
                failed = sort_by_lane(&batch.columns, start, stop, batch.arranged, self.lanes, lane_stop)
            if failed:
                raise MemoryError
            batch.arranged = True
            for lane in range(self.lanes):
                self.cut_rows(batch, start, lane_stop[lane], lane, stream, segments)
                start = lane_stop[lane]
        finally:
            free(lane_stop)
        return 0

    cdef int cut_rows(self, PacketBatch batch, Py_ssize_t start, Py_ssize_t stop, uint32_t lane, uint32_t stream,
                      list segments) except -1:
        if self.cutter is None:
            return self.cut_within_bounds(batch, start, stop, lane, stream, segments)
        if start < stop:
            self.cut_at_places(batch, start, stop, lane, stream, segments)
        return 0

    cdef int cut_at_places(self, PacketBatch batch, Py_ssize_t start, Py_ssize_t stop, uint32_t lane, uint32_t stream,
                           list segments) except -1:
        """Cuts where the policy's cutter says, and within the bounds."""
        cdef list known = self.cutters.get((stream, lane))
        cdef cnp.ndarray places
        cdef const int64_t *place
        cdef Py_ssize_t i, count
        cdef Segment last
        if known is None:
            known = self.cutters[stream, lane] = [self.cutter(self.bounds), None]
        places = np.ascontiguousarray(known[0].feed(batch, start, stop, known[1]), np.int64)
        if places.ndim != 1:
            raise ValueError(f"the cutter of policy {self.policy} gave places of {places.ndim} dimensions")
        count = places.shape[0]
        place = <const int64_t *> cnp.PyArray_DATA(places)
        for i in range(count):
            if not start < place[i] < stop:  # start moves on, so places must ascend too
                raise ValueError(f"the cutter of policy {self.policy} gave place {place[i]}, not between {start} and {stop}")
            self.cut_within_bounds(batch, start, place[i], lane, stream, segments)
            start = place[i]
        self.cut_within_bounds(batch, start, stop, lane, stream, segments)
        last = segments[len(segments) - 1]
        known[1] = Preceding(last.stop - last.start, last.byte_count, span_ns(last))
        return 0

    cdef int cut_within_bounds(self, PacketBatch batch, Py_ssize_t start, Py_ssize_t stop, uint32_t lane, uint32_t stream,
                               list segments) except -1:
        cdef Py_ssize_t at
        cdef uint64_t byte_count
        while start < stop:
            byte_count = 0
            with nogil:
                at = self.next_cut(&batch.columns, batch.chunk.arena.control, batch.arranged, start, stop, &byte_count)
            segments.append(Segment(self.next_number, batch, start, at, lane, byte_count, stream))
            self.next_number += 1
            start = at
        return 0

    cdef Py_ssize_t next_cut(self, const Columns *columns, const Control *control, bint arranged, Py_ssize_t start, Py_ssize_t stop,
                             uint64_t *byte_count) noexcept nogil:
        """The end of the segment that begins at start: a little before a bound on packets or bytes, if that keeps fragments together.
        About 0.6 ns a packet (bench_segment.py)."""
        cdef Py_ssize_t cut, at = self.bound(columns, arranged, start, stop, byte_count)
        if at == stop or self.time_ns > 0:  # nothing is cut here, or perhaps by time
            return at
        cut = between_datagrams(columns, control, arranged, start + (at - start + 1) // 2, at)
        while at > cut:
            at -= 1
            byte_count[0] -= columns.captured_length[columns.rows[at] if arranged else at]
        return at

    cdef Py_ssize_t bound(self, const Columns *columns, bint arranged, Py_ssize_t start, Py_ssize_t stop, uint64_t *byte_count) noexcept nogil:
        """The last place at which the bounds let the segment end that begins at start."""
        cdef bint timed = self.time_ns > 0
        cdef Py_ssize_t at
        cdef uint32_t row
        cdef int64_t first_ns = 0, now_ns
        cdef uint64_t total = 0
        if stop - start > self.packets_max:
            stop = start + self.packets_max
        for at in range(start, stop):
            row = columns.rows[at] if arranged else <uint32_t> at
            if timed:
                now_ns = columns.timestamp_ns[row]
                if at == start:
                    first_ns = now_ns
                elif now_ns - first_ns >= self.time_ns:
                    byte_count[0] = total
                    return at
            total += columns.captured_length[row]
            if total >= self.bytes_max:
                byte_count[0] = total
                return at + 1
        byte_count[0] = total
        return stop


cdef int64_t span_ns(Segment segment) noexcept:
    """The capture time from a segment's first packet to its last."""
    cdef const Columns *columns = &segment.batch.columns
    cdef bint arranged = segment.batch.arranged
    cdef Py_ssize_t first = columns.rows[segment.start] if arranged else segment.start
    cdef Py_ssize_t last = columns.rows[segment.stop - 1] if arranged else segment.stop - 1
    return columns.timestamp_ns[last] - columns.timestamp_ns[first]


cdef int sort_by_lane(Columns *columns, Py_ssize_t start, Py_ssize_t stop, bint arranged, uint32_t lanes,
                      Py_ssize_t *lane_stop) noexcept nogil:
    """Stable counting sort of the rows start..stop by lane: lane_stop[i] is where lane i ends. Returns 1 without memory.

    Some 2 ns a packet.
    """
    cdef Py_ssize_t i, total = start, count = stop - start
    cdef uint32_t row, lane
    cdef uint32_t *before = NULL
    cdef uint32_t *rows = columns.rows
    cdef const uint32_t *flow_hash = columns.flow_hash
    cdef uint32_t counts[4][LANES_BOUND]  # four, so that packets of one lane in a row do not wait for each other
    memset(counts, 0, sizeof(counts))
    if arranged:
        before = <uint32_t *> malloc(count * sizeof(uint32_t) + 1)
        if before == NULL:
            return 1
        memcpy(before, rows + start, count * sizeof(uint32_t))
    for i in range(count):
        row = before[i] if arranged else <uint32_t> (start + i)
        counts[i & 3][(<uint64_t> flow_hash[row] * lanes) >> 32] += 1
    for lane in range(lanes):  # counts -> starts
        lane_stop[lane] = total
        total += counts[0][lane] + counts[1][lane] + counts[2][lane] + counts[3][lane]
    for i in range(count):  # starts become stops while the rows are placed
        row = before[i] if arranged else <uint32_t> (start + i)
        lane = <uint32_t> ((<uint64_t> flow_hash[row] * lanes) >> 32)
        rows[lane_stop[lane]] = row
        lane_stop[lane] += 1
    free(before)
    return 0
