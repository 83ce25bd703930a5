"""Packets of several batches -> the records of one chunk, in a given order, in one native call with the GIL released.

Here a time is added to the records of a batch, too. merged.py and sorted.py decide about the order, turns.py about times.
"""

import numpy as np

cimport numpy as cnp
from libc.stdint cimport INT64_MAX, INT64_MIN, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from streamcore.core.packets cimport (RECORD_EPB, RECORD_EPB_SWAPPED, RECORD_KUZNETZOV, RECORD_OPB, RECORD_OPB_SWAPPED, RECORD_PCAP,
                                 RECORD_PCAP_SWAPPED, RECORD_SPB, RECORD_SPB_SWAPPED, Chunk, Columns, PacketBatch, record_head,
                                 record_size, record_start, swap32)

cnp.import_array()

cdef enum:
    EPB_BYTES = 32       # an enhanced packet block without packet and options
    EPB_HEAD = 28
    PCAP_HEAD = 16
    FULL = -1            # how put() ends if the chunk has no room
    TIME = -2            # or if a pcap record with nanoseconds does not hold the time
    UNNUMBERED = -3      # a packet's interface has no number

cdef struct Given:
    # One of the batches that packets are taken from.
    Columns c
    Py_ssize_t count
    const uint16_t *numbers  # of its interfaces in the output
    Py_ssize_t numbered      # how many there are
    uint8_t digits           # of a second, in its pcap records


cdef struct Head:
    # The next packet of one of the batches that are merged.
    int64_t key
    Py_ssize_t which


cdef inline bint comes_before(const Head *a, const Head *b) noexcept nogil:
    """The earlier of two; of equal times, that of the first batch."""
    return a.key < b.key or (a.key == b.key and a.which < b.which)


cdef inline void sift(Head *heap, Py_ssize_t count, Py_ssize_t at) noexcept nogil:
    """Restores the heap, in which only the head at `at` may be too early in it. at < count."""
    cdef Head head = heap[at]
    cdef Py_ssize_t child
    while 2 * at + 1 < count:
        child = 2 * at + 1
        if child + 1 < count and comes_before(&heap[child + 1], &heap[child]):
            child += 1
        if comes_before(&head, &heap[child]):
            break
        heap[at] = heap[child]
        at = child
    heap[at] = head


cdef inline uint32_t load32(const uint8_t *at) noexcept nogil:
    cdef uint32_t value
    memcpy(&value, at, 4)
    return value


cdef inline void store32(uint8_t *at, uint32_t value) noexcept nogil:
    memcpy(at, &value, 4)


cdef inline uint32_t padded(uint32_t size) noexcept nogil:
    return (size + 3) & ~<uint32_t> 3


cdef inline bint is_pcap(uint8_t kind) noexcept nogil:
    return kind <= RECORD_PCAP_SWAPPED or kind >= RECORD_KUZNETZOV


cdef class Gatherer:
    """Writes packets of several batches into one chunk after the other.

    pcapng: as enhanced packet blocks with the interfaces' new numbers, times and options as they were (blocks of the
    other byte order, and simple ones, stay as they are); otherwise as pcap records with `digits` (6 or 9) of a second,
    and only packets of pcap records may be given. `begin` starts a chunk; `rows`, `used` bytes and `contiguous` are of
    that chunk.
    """

    cdef readonly Py_ssize_t rows
    cdef readonly Py_ssize_t used
    cdef readonly bint contiguous  # as PacketBatch.contiguous
    cdef Chunk chunk
    cdef bint pcapng
    cdef unsigned digits

    def __init__(self, bint pcapng, unsigned digits):
        if digits not in (6, 9):
            raise ValueError(f"records with {digits} digits of a second")
        self.pcapng = pcapng
        self.digits = digits

    def begin(self, Chunk chunk):
        """Starts a chunk without packets; None: ends with the last one, which is not kept."""
        self.chunk = chunk
        self.rows = self.used = 0
        self.contiguous = True

    def take(self, list batches not None, list numbers not None, list digits not None, cnp.ndarray which not None,
             cnp.ndarray row not None, Py_ssize_t first):
        """Writes packet row[i] of batches[which[i]], for i from `first` on, until the chunk is full.

        numbers: for each batch uint16[…], the output's number of each of its interfaces; digits: for each batch those
        of its pcap records; which: uint16[n]; row: uint32[n]. Returns the first i that is left, n: none. Raises
        OverflowError if a pcap record with nanoseconds does not hold a time, ValueError.
        """
        cdef Py_ssize_t count = len(batches), total = row.shape[0], at = first
        cdef Given *given
        cdef const uint16_t *from_
        cdef const uint32_t *rows
        cdef int status = 0
        if self.chunk is None or which.shape[0] != total or not 0 <= first <= total or len(numbers) != count or len(digits) != count:
            raise ValueError(f"packets from {first} of {total} in {count} batches")
        which, row = np.ascontiguousarray(which, np.uint16), np.ascontiguousarray(row, np.uint32)
        numbers = [np.ascontiguousarray(each, np.uint16) for each in numbers]
        given = described(batches, numbers, digits)
        try:
            from_ = <const uint16_t *> cnp.PyArray_DATA(which)
            rows = <const uint32_t *> cnp.PyArray_DATA(row)
            with nogil:
                # Invariant: what is read lies in a row that the batch has, whose record the source has checked.
                while at < total:
                    if from_[at] >= count or rows[at] >= given[from_[at]].count:
                        break
                    if given[from_[at]].c.interface[rows[at]] >= given[from_[at]].numbered:
                        break
                    status = self.put(&given[from_[at]], rows[at], &self.chunk.columns, self.chunk.arena.rows_max,
                                      self.chunk.arena.data_bytes_max)
                    if status < 0:
                        break
                    at += 1
        finally:
            free(given)
        if status == TIME:
            raise OverflowError(f"{batches[which[at]].timestamp_ns[row[at]]} ns since 1970")
        if at < total and status == 0:
            raise ValueError(f"there is no packet {row[at]} in batch {which[at]}, or its interface has no number")
        if at < total and self.rows == 0:
            raise ValueError("a packet is larger than a chunk")
        return at

    def merge(self, list batches not None, list numbers not None, list digits not None, list keys not None,
              cnp.ndarray at not None, cnp.ndarray stop not None):
        """Writes the packets at[i]..stop[i] of batches[i], merged by keys, of equal keys those of the first batch first,
        until the chunk is full.

        numbers, digits: as in `take`; keys: for each batch int64[…], ascending; at, stop: int64[n], at moves to the
        first packet that is left. Returns whether none is left. Raises as `take`.
        """
        cdef Py_ssize_t count = len(batches), i, heads = 0, which = 0, packet, end
        cdef Given *given
        cdef Head *heap = NULL
        cdef const int64_t **key = NULL
        cdef int64_t *next_at
        cdef const int64_t *last
        cdef int status = 0
        cdef const Head *rival
        if self.chunk is None or not (len(numbers) == len(digits) == len(keys) == at.shape[0] == stop.shape[0] == count):
            raise ValueError(f"a merge of {count} batches")
        if at.dtype != np.int64 or stop.dtype != np.int64 or not (at.flags.c_contiguous and stop.flags.c_contiguous):
            raise ValueError("places that are not int64")
        numbers = [np.ascontiguousarray(each, np.uint16) for each in numbers]
        keys = [np.ascontiguousarray(each, np.int64) for each in keys]
        next_at = <int64_t *> cnp.PyArray_DATA(at)
        last = <const int64_t *> cnp.PyArray_DATA(stop)
        for i in range(count):
            if not 0 <= next_at[i] <= last[i] <= min((<PacketBatch> batches[i]).count, len(keys[i])):
                raise ValueError(f"packets {next_at[i]} to {last[i]} of batch {i}")
        given = described(batches, numbers, digits)
        heap = <Head *> malloc((count + 1) * sizeof(Head))
        key = <const int64_t **> malloc((count + 1) * sizeof(int64_t *))
        try:
            if heap == NULL or key == NULL:
                raise MemoryError("no room for the batches")
            for i in range(count):
                key[i] = <const int64_t *> cnp.PyArray_DATA(<cnp.ndarray> keys[i])
                if next_at[i] < last[i]:
                    heap[heads] = Head(key[i][next_at[i]], i)
                    heads += 1
            with nogil:
                for i in range(heads // 2 - 1, -1, -1):
                    sift(heap, heads, i)
                # Invariant: next_at[i] < last[i] <= packets of batch i, for every i in the heap.
                while heads:
                    which = heap[0].which
                    packet, end = next_at[which], last[which]
                    rival = &heap[2] if heads > 2 and comes_before(&heap[2], &heap[1]) else &heap[1]
                    while True:  # as long as no other batch has an earlier one
                        if given[which].c.interface[packet] >= given[which].numbered:
                            status = UNNUMBERED
                            break
                        status = self.put(&given[which], <uint32_t> packet, &self.chunk.columns, self.chunk.arena.rows_max,
                                          self.chunk.arena.data_bytes_max)
                        if status < 0:
                            break
                        packet += 1
                        if packet == end:
                            break
                        heap[0].key = key[which][packet]
                        if heads > 1 and comes_before(rival, &heap[0]):
                            break
                    next_at[which] = packet
                    if status < 0:
                        break
                    if packet == end:
                        heads -= 1
                        heap[0] = heap[heads]
                    if heads:
                        sift(heap, heads, 0)
        finally:
            free(given)
            free(heap)
            free(key)
        if status == TIME:
            raise OverflowError(f"{(<PacketBatch> batches[which]).timestamp_ns[next_at[which]]} ns since 1970")
        if status == UNNUMBERED or (status < 0 and self.rows == 0):
            raise ValueError(f"packet {next_at[which]} of batch {which} is of no interface, or larger than a chunk")
        return heads == 0

    # bench/bench_source.py::test_merged
    cdef inline int put(self, Given *given, uint32_t row, Columns *to, Py_ssize_t rows_max, Py_ssize_t bytes_max) noexcept nogil:
        cdef Columns *c = &given.c
        cdef uint8_t kind = c.record[row]
        cdef uint32_t captured = c.captured_length[row]
        cdef const uint8_t *record = c.data + record_start(c, row)
        cdef uint8_t *at = to.data + self.used
        cdef uint16_t number = given.numbers[c.interface[row]]
        cdef uint64_t seconds, fraction, size
        cdef Py_ssize_t made = self.rows
        cdef uint32_t head = record_head(kind)
        if is_pcap(kind):
            size = EPB_BYTES + <uint64_t> padded(captured) if self.pcapng else PCAP_HEAD + <uint64_t> captured
        else:
            size = record_size(c, row)
        if made == rows_max or self.used + <Py_ssize_t> size > bytes_max:
            return FULL
        if is_pcap(kind):
            seconds, fraction = load32(record), load32(record + 4)
            if kind & 1:
                seconds, fraction = swap32(<uint32_t> seconds), swap32(<uint32_t> fraction)
            if self.pcapng:
                head = EPB_HEAD
                memset(at + size - 8, 0, 4)  # the padding, before all else: it may be no bytes
                put_head(at, <uint32_t> size, number, seconds * (1_000_000u if given.digits == 6 else 1_000_000_000u) + fraction,
                         captured, c.wire_length[row])
                memcpy(at + EPB_HEAD, c.data + c.offset[row], captured)
                store32(at + size - 4, <uint32_t> size)
                kind = RECORD_EPB
            else:
                if given.digits < self.digits:
                    fraction *= 1000
                    if fraction >= 1_000_000_000u:  # a fraction of a second or more, as damaged captures have it
                        seconds += fraction // 1_000_000_000u
                        fraction %= 1_000_000_000u
                        if seconds > 0xFFFFFFFFu:
                            return TIME
                head = PCAP_HEAD
                store32(at + 8, captured)
                store32(at + 12, c.wire_length[row])
                store32(at, <uint32_t> seconds)
                store32(at + 4, <uint32_t> fraction)
                memcpy(at + PCAP_HEAD, c.data + c.offset[row], captured)
                kind = RECORD_PCAP
        else:
            memcpy(at, record, size)
            if kind == RECORD_EPB or kind == RECORD_OPB:
                store32(at, 6)
                store32(at + 8, number)
                kind = RECORD_EPB
        to.offset[made] = <uint32_t> (self.used + head)
        to.captured_length[made] = captured
        to.wire_length[made] = c.wire_length[row]
        to.timestamp_ns[made] = c.timestamp_ns[row]
        to.interface[made] = number
        to.record[made] = kind
        if kind != to.record[0]:
            self.contiguous = False
        self.used += <Py_ssize_t> size
        self.rows += 1
        return 0


cdef inline void put_head(uint8_t *at, uint32_t size, uint32_t number, uint64_t ticks, uint32_t captured, uint32_t wire) noexcept nogil:
    store32(at, 6)
    store32(at + 4, size)
    store32(at + 8, number)
    store32(at + 12, <uint32_t> (ticks >> 32))
    store32(at + 16, <uint32_t> ticks)
    store32(at + 20, captured)
    store32(at + 24, wire)


cdef Given *described(list batches, list numbers, list digits) except NULL:
    """What the native loops need of batches. The caller frees it, and keeps the lists until then."""
    cdef Given *given = <Given *> malloc((len(batches) + 1) * sizeof(Given))
    cdef PacketBatch batch
    cdef Py_ssize_t i
    if given == NULL:
        raise MemoryError("no room for the batches")
    for i in range(len(batches)):
        batch = batches[i]
        given[i].c = batch.columns
        given[i].count = batch.count
        given[i].numbers = <const uint16_t *> cnp.PyArray_DATA(<cnp.ndarray> numbers[i])
        given[i].numbered = (<cnp.ndarray> numbers[i]).shape[0]
        given[i].digits = digits[i]
    return given


def shift_times(PacketBatch batch not None, int64_t shift_ns, cnp.ndarray ticks not None, int64_t unit_ns):
    """Adds shift_ns to the times of all packets, in their records and in the column. Simple packet blocks have no time.

    ticks: int64[…], what that is in ticks of each interface, for pcapng records; unit_ns: nanoseconds in one unit of a pcap
    record's second field. Returns -1, or the first row whose record does not hold the new time; the rows before it are
    changed. Raises ValueError.
    """
    cdef Columns *c = &batch.columns
    cdef Py_ssize_t row, failed = -1, numbered
    cdef const int64_t *delta
    ticks = np.ascontiguousarray(ticks, np.int64)
    delta = <const int64_t *> cnp.PyArray_DATA(ticks)
    numbered = ticks.shape[0]
    if unit_ns not in (1, 1000) or not batch.chunk.arena.writable:
        raise ValueError(f"times in units of {unit_ns} ns")
    with nogil:
        for row in range(batch.count):
            if c.record[row] == RECORD_SPB or c.record[row] == RECORD_SPB_SWAPPED:
                continue
            if c.interface[row] >= numbered or not shift_one(c, row, shift_ns, delta[c.interface[row]], unit_ns):
                failed = row
                break
    return failed


cdef inline bint shift_one(Columns *c, Py_ssize_t row, int64_t shift_ns, int64_t delta, int64_t unit_ns) noexcept nogil:
    cdef uint8_t kind = c.record[row]
    cdef uint8_t *record = c.data + record_start(c, row)
    cdef bint swapped = kind & 1
    cdef uint8_t *fields = record if is_pcap(kind) else record + 12
    cdef uint32_t high = swap32(load32(fields)) if swapped else load32(fields)
    cdef uint32_t low = swap32(load32(fields + 4)) if swapped else load32(fields + 4)
    cdef uint64_t ticks
    cdef int64_t ns = c.timestamp_ns[row]
    if shift_ns > 0 and ns > INT64_MAX - shift_ns or shift_ns < 0 and ns < INT64_MIN - shift_ns:
        return False
    ns += shift_ns
    if is_pcap(kind):
        if ns < 0 or ns // 1_000_000_000 > 0xFFFFFFFFu:
            return False
        high = <uint32_t> (ns // 1_000_000_000)
        low = <uint32_t> (ns % 1_000_000_000 // unit_ns)
    else:
        ticks = (<uint64_t> high << 32) | low
        if delta < 0 and <uint64_t> 0 - <uint64_t> delta > ticks or delta > 0 and ticks + <uint64_t> delta < ticks:
            return False
        ticks += <uint64_t> delta
        high, low = <uint32_t> (ticks >> 32), <uint32_t> ticks
    store32(fields, swap32(high) if swapped else high)
    store32(fields + 4, swap32(low) if swapped else low)
    c.timestamp_ns[row] = ns
    return True
