"""The cutter of policy `time`: a new segment where a new window of capture time begins, counted from the first packet.

What a cutter is stands in cutter.py.
"""

import numpy as np

cimport numpy as cnp
from libc.stdint cimport int64_t, uint32_t

from streamcore.core.packets cimport Columns, PacketBatch

cnp.import_array()


cdef class Windows:
    """Windows of bounds.segment_ms of capture time. A packet older than the window stays in it."""

    cdef int64_t window_ns
    cdef int64_t start_ns
    cdef bint open

    def __init__(self, bounds):
        if bounds.segment_ms < 1:
            raise ValueError("this policy needs a bound of time: segment_ms")
        self.window_ns = bounds.segment_ms * 1_000_000

    def feed(self, PacketBatch batch not None, Py_ssize_t start, Py_ssize_t stop, preceding):
        """int64[k]: see cutter.Cutter."""
        cdef cnp.ndarray places
        cdef Py_ssize_t count
        if not 0 <= start <= stop <= batch.row_count:
            raise ValueError(f"places {start} to {stop} of a batch of {batch.row_count}")
        places = np.empty(stop - start, np.int64)  # at most one a packet
        with nogil:
            count = self.find(&batch.columns, batch.arranged, start, stop, <int64_t *> cnp.PyArray_DATA(places))
        return places[:count]

    cdef Py_ssize_t find(self, const Columns *columns, bint arranged, Py_ssize_t start, Py_ssize_t stop,
                         int64_t *places) noexcept nogil:
        """How many places were written."""
        cdef Py_ssize_t at, count = 0
        cdef int64_t now_ns
        for at in range(start, stop):
            now_ns = columns.timestamp_ns[columns.rows[at] if arranged else <uint32_t> at]
            if not self.open:
                self.open = True
                self.start_ns = now_ns
            elif now_ns - self.start_ns >= self.window_ns:
                self.start_ns += (now_ns - self.start_ns) // self.window_ns * self.window_ns
                if at > start:
                    places[count] = at
                    count += 1
        return count
