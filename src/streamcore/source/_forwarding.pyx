"""From one ring straight to a sink, batch after batch: the loop that slow traffic goes round a thousand times a second,
compiled, because interpreting it costs more than what it does. live.py calls it and looks after everything else.
"""

from libc.stdint cimport int64_t, uint64_t

from streamcore.core.packets cimport Chunk, Outgoing, PacketBatch
from streamcore.source._ring import Borrowed

cdef extern from "<time.h>" nogil:
    cdef struct timespec:
        long tv_sec
        long tv_nsec
    int CLOCK_MONOTONIC, CLOCK_REALTIME
    int clock_gettime(int clock, timespec *now)

cdef enum:
    BOUNDS_MAX = 32


cdef inline double clock_s(int clock) noexcept nogil:
    cdef timespec now
    clock_gettime(clock, &now)
    return now.tv_sec + now.tv_nsec * 1e-9


cdef class Told:
    """What was forwarded and not yet counted elsewhere. bounds_s: of the histogram of latencies. Threads that hold the GIL
    may call `take`."""

    cdef uint64_t[4] sums                   # packets and bytes read, packets and bytes sent
    cdef uint64_t[BOUNDS_MAX + 1] counts    # of batches, by latency
    cdef double[BOUNDS_MAX] bounds_s
    cdef double sum_s
    cdef int bounds

    def __init__(self, tuple bounds_s):
        cdef int i
        if len(bounds_s) > BOUNDS_MAX:
            raise ValueError(f"{len(bounds_s)} bounds")
        self.bounds = len(bounds_s)
        for i in range(self.bounds):
            self.bounds_s[i] = bounds_s[i]
        self.take()

    def take(self):
        """Returns ((packets, bytes) read, (packets, bytes) sent, the histogram's counts, the sum of its seconds), and
        begins again."""
        cdef int i
        taken = ((self.sums[0], self.sums[1]), (self.sums[2], self.sums[3]),
                 [self.counts[i] for i in range(self.bounds + 1)], self.sum_s)
        for i in range(4):
            self.sums[i] = 0
        for i in range(BOUNDS_MAX + 1):
            self.counts[i] = 0
        self.sum_s = 0
        return taken

    cdef void observe(self, double seconds) noexcept:
        cdef int i = 0
        while i < self.bounds and seconds > self.bounds_s[i]:
            i += 1
        self.counts[i] += 1
        self.sum_s += seconds


def forward(ring, Chunk chunk not None, list interfaces not None, Told told not None, write, double due_s, double wait_s,
            double until_s, int wake, uint64_t number):
    """Writes what comes in the ring, a batch each wait_s from due_s on, until until_s, or `wake` is readable, or nothing
    came until then. Times are of the monotonic clock; number: of the first packet.

    Returns (packets, bytes with record headers, when the next batch is due). What write raises goes through, after `told`
    has what was read.
    """
    cdef PacketBatch batch
    cdef Py_ssize_t rows, used, total = 0, total_bytes = 0
    cdef uint64_t captured
    cdef bint full
    cdef double now_s, was_due_s
    rows_max = chunk.arena.rows_max
    while True:
        borrowed = Borrowed()
        rows, used, full = ring.gather_into(chunk, borrowed, 0, 0, rows_max, due_s, until_s, wake)
        if rows == 0:
            break
        now_s, was_due_s = clock_s(CLOCK_MONOTONIC), due_s
        due_s = now_s + wait_s
        batch = PacketBatch(chunk, rows, number, interfaces)
        batch.offloads = borrowed.offloads
        captured = batch.byte_count
        told.sums[0] += <uint64_t> rows
        told.sums[1] += captured
        batch.copy_to_chunk()
        sent, sent_bytes = write(Outgoing(batch, 0, rows, arranged=False))
        told.sums[2] += <uint64_t> sent
        told.sums[3] += <uint64_t> sent_bytes
        told.observe(clock_s(CLOCK_REALTIME) - batch.columns.timestamp_ns[0] * 1e-9)
        number += rows
        total += rows
        total_bytes += used
        batch = borrowed = None
        if now_s >= until_s or (now_s < was_due_s and not full):
            break
    return total, total_bytes, due_s
