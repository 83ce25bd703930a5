"""The segmenter: one batch in, its segments out. Policies `run`, `flow` and `time`; the bounds on packets, bytes and capture time.

A segment never spans batches or streams, so a bound is a maximum. Which worker takes a lane is not decided here.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from streamcore.core.packets cimport Columns, PacketBatch, Segment

ANY_LANE = 0xFFFFFFFF
LANES_MAX = 1024
POLICIES = ("run", "flow", "time")

cdef uint32_t NO_LANE = 0xFFFFFFFF

cdef struct Window:
    int64_t start_ns
    bint open


cdef class Segmenter:
    """Cuts batches into segments.

    policy: "run" cuts consecutive packets; "flow" sorts them into `lanes` by the column flow_hash, which must have been parsed;
    "time" cuts where a new window of time_ms of capture time begins, windows counted from the first packet.
    packets_max, bytes_max (captured), time_ms (0: no bound): a segment has at most one packet more than bytes_max allows.
    streams: how many there are; each has its own windows.
    """

    cdef readonly str policy
    cdef readonly uint32_t lanes
    cdef Py_ssize_t packets_max
    cdef uint64_t bytes_max
    cdef int64_t time_ns
    cdef uint64_t next_number
    cdef uint32_t streams
    cdef Window *windows          # policy time: one for each stream
    cdef bint by_time

    def __init__(self, str policy, *, uint32_t lanes=1, Py_ssize_t packets_max=65536, uint64_t bytes_max=1 << 22,
                 int64_t time_ms=0, uint32_t streams=1):
        if policy not in POLICIES:
            raise ValueError(f"no policy {policy!r}: use one of {', '.join(POLICIES)}")
        if not 1 <= lanes <= LANES_MAX or packets_max < 1 or bytes_max < 1 or time_ms < 0 or time_ms > 1 << 40 or streams < 1:
            raise ValueError("a bound of the segmenter is out of range")
        if policy == "time" and time_ms == 0:
            raise ValueError("policy time needs a window: segment_ms")
        self.policy = policy
        self.by_time = policy == "time"
        self.lanes = lanes if policy == "flow" else 1
        self.packets_max = packets_max
        self.bytes_max = bytes_max
        self.time_ns = time_ms * 1_000_000
        self.streams = streams
        self.windows = <Window *> calloc(streams, sizeof(Window))
        if self.windows == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.windows)

    def cut(self, PacketBatch batch not None, stops=None):
        """list[Segment] in number order. Sets batch.segment_count and batch.interleaved; may arrange batch.rows by lane.

        stops: where in the batch's rows each stream ends, as parse.classify sorted them; None: all rows are stream 0's.
        """
        cdef list segments = []
        cdef Py_ssize_t start = 0
        cdef uint32_t stream = 0, present = 0
        cdef Py_ssize_t stop
        if batch.chunk.lender is not None:
            raise ValueError("segments need packets that stay: settle the batch first")
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
            return self.cut_rows(batch, start, stop, 0 if self.policy == "flow" else NO_LANE, stream, segments)
        lane_stop = <Py_ssize_t *> malloc((self.lanes + 1) * sizeof(Py_ssize_t))
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
        cdef Window *window = self.windows + stream
        cdef Py_ssize_t at
        cdef uint64_t byte_count
        while start < stop:
            byte_count = 0
            with nogil:
                at = self.next_cut(&batch.columns, batch.arranged, window, start, stop, &byte_count)
            segments.append(Segment(self.next_number, batch, start, at, lane, byte_count, stream))
            self.next_number += 1
            start = at
        return 0

    cdef Py_ssize_t next_cut(self, const Columns *columns, bint arranged, Window *window, Py_ssize_t start, Py_ssize_t stop,
                             uint64_t *byte_count) noexcept nogil:
        """The position after the segment that begins at start. About 0.6 ns a packet (bench_segment.py)."""
        cdef bint windows = self.time_ns > 0
        cdef bint by_window = windows and self.by_time
        cdef Py_ssize_t at
        cdef uint32_t row
        cdef int64_t first_ns = 0, now_ns
        cdef uint64_t total = 0
        if stop - start > self.packets_max:
            stop = start + self.packets_max
        for at in range(start, stop):
            row = columns.rows[at] if arranged else <uint32_t> at
            if windows:
                now_ns = columns.timestamp_ns[row]
                if by_window:
                    if not window.open:
                        window.open = True
                        window.start_ns = now_ns
                    elif now_ns - window.start_ns >= self.time_ns:
                        window.start_ns += (now_ns - window.start_ns) // self.time_ns * self.time_ns
                        if at > start:
                            byte_count[0] = total
                            return at
                elif at == start:
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


cdef int sort_by_lane(Columns *columns, Py_ssize_t start, Py_ssize_t stop, bint arranged, uint32_t lanes,
                      Py_ssize_t *lane_stop) noexcept nogil:
    """Stable counting sort of the rows start..stop by lane: lane_stop[i] is where lane i ends. Returns 1 without memory.

    Some 2 ns a packet.
    """
    cdef Py_ssize_t i, at, total = start, count = stop - start
    cdef uint32_t row, lane
    cdef uint32_t *before = NULL
    memset(lane_stop, 0, (lanes + 1) * sizeof(Py_ssize_t))
    if arranged:
        before = <uint32_t *> malloc(count * sizeof(uint32_t) + 1)
        if before == NULL:
            return 1
        memcpy(before, columns.rows + start, count * sizeof(uint32_t))
    for i in range(count):
        row = before[i] if arranged else <uint32_t> (start + i)
        lane_stop[(<uint64_t> columns.flow_hash[row] * lanes) >> 32] += 1
    for lane in range(lanes):  # counts -> starts
        at = lane_stop[lane]
        lane_stop[lane] = total
        total += at
    for i in range(count):  # starts move to stops while the rows are placed
        row = before[i] if arranged else <uint32_t> (start + i)
        lane = <uint32_t> ((<uint64_t> columns.flow_hash[row] * lanes) >> 32)
        columns.rows[lane_stop[lane]] = row
        lane_stop[lane] += 1
    free(before)
    return 0
