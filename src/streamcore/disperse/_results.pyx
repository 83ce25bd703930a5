"""Reads a result: the bytes that a worker left in its region, checked against the segment and the declared effect.

A result is not used before it is checked here, once, in native code. The layout of a region: [packed bytes][padding to
8][keys u64 x 2n][offset u32 x n][captured_length u32 x n][wire_length u32 x n][keep u8 x n], each part only if its flag
is set, n packets in the order of the segment.
"""

cimport numpy as cnp
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from streamcore.core.packets cimport AHEAD, RECORD_PCAP, Columns, Result, Segment, prefetch, record_head, record_size, record_start

import numpy as np

cnp.import_array()

# Flags of a result, as they travel in the envelope.
PACKED = 1   # the packets' bytes were rewritten: whole records packed in row order, or packets at `offset` if LENGTHS is set
LENGTHS = 2  # offset, captured_length and wire_length follow
KEEP = 4     # keep follows: 0 for a dropped packet
KEYS = 8     # two u64 for each packet follow
cdef uint32_t CAPTURED_MAX = 262144  # the longest packet that libpcap accepts (its MAXIMUM_SNAPLEN)

# The flags of a result that a service's effects allow.
FLAGS_OF_CHANGE = {"bytes": PACKED, "lengths": PACKED | LENGTHS, "drops": KEEP | KEYS}


class ResultError(Exception):
    """A result that its segment, or the service's declared effect, does not allow."""


def region_bytes(Py_ssize_t count, Py_ssize_t packed, int flags):
    """Bytes of a result in its region."""
    cdef Py_ssize_t size = (packed + 7) // 8 * 8 if flags & PACKED else 0
    if flags & KEYS:
        size += 16 * count
    if flags & LENGTHS:
        size += 12 * count
    if flags & KEEP:
        size += count
    return size


def write_result(cnp.uint8_t[::1] region, Py_ssize_t packed, keys, offset, captured_length, wire_length, keep):
    """Writes the arrays of a result (None for those that it lacks) after the `packed` bytes that are in the region
    already.

    Returns flags. Raises ResultError if the region is too small.
    """
    cdef int flags = 0
    if packed:
        flags |= PACKED
    if captured_length is not None:
        flags |= LENGTHS
    if keep is not None:
        flags |= KEEP
    if keys is not None:
        flags |= KEYS
    parts = [(keys, np.uint64), (offset if flags & LENGTHS else None, np.uint32), (captured_length, np.uint32),
             (wire_length if flags & LENGTHS else None, np.uint32), (keep, np.uint8)]
    cdef Py_ssize_t at = (packed + 7) // 8 * 8
    target = np.asarray(region)
    for array, kind in parts:
        if array is None:
            continue
        raw = np.ascontiguousarray(array, kind).reshape(-1).view(np.uint8)
        if at + raw.size > target.size:
            raise ResultError(f"a result of {at + raw.size} bytes in a region of {target.size}")
        target[at : at + raw.size] = raw
        at += raw.size
    return flags


def read_result(Segment segment not None, const uint8_t[::1] region, Py_ssize_t packed, int flags, int allowed, hold):
    """The Result in a region. hold: kept alive as long as the Result. Raises ResultError; about 4 ns a rewritten
    packet."""
    cdef Result result = Result(segment)
    cdef Py_ssize_t count = segment.stop - segment.start
    cdef Py_ssize_t at = 0
    cdef int wrong = 0
    cdef uint64_t dropped = 0
    cdef uint8_t *base
    if flags & ~allowed:
        raise ResultError("the service changed something that it did not declare")
    if flags == 0:
        return result
    if packed < 0 or region_bytes(count, packed, flags) > region.shape[0]:
        raise ResultError("the result is larger than its region")
    base = <uint8_t *> &region[0] if region.shape[0] else NULL
    result.hold = hold
    if flags & PACKED:
        result.packed = base
        result.packed_bytes = packed
        result.unchanged = False
        at = (packed + 7) // 8 * 8
    if flags & KEYS:
        result.keys = <uint64_t *> (base + at)
        at += 16 * count
    if flags & LENGTHS:
        result.unchanged = False
        result.offset = <uint32_t *> (base + at)
        result.captured_length = result.offset + count
        result.wire_length = result.captured_length + count
        at += 12 * count
    if flags & KEEP:
        result.keep = base + at
    with nogil:
        if result.offset != NULL:
            wrong = check_lengths(result, count)
        elif result.packed != NULL:
            wrong = check_records(result, count)
        if result.keep != NULL and not wrong:
            wrong = check_keep(result, count, &dropped)
    if wrong:
        raise ResultError(WRONG[wrong])
    return result


WRONG = {
    1: "the service changed lengths or the number of packets without declaring it",
    2: "the service changed record headers: timestamps, lengths or options",
    3: "a packet of the result is outside its region, or longer than a packet may be",
    4: "the mask of kept packets has values other than 0 and 1",
}


def dropped_of(Result result not None):
    """The (packets, captured bytes as read) that a result drops."""
    cdef Py_ssize_t start = result.segment.start
    cdef const Columns *columns = &result.segment.batch.columns
    cdef bint arranged = result.segment.batch.arranged
    cdef Py_ssize_t i, packets = 0
    cdef uint64_t byte_count = 0
    if result.keep != NULL:
        for i in range(result.segment.stop - start):
            if not result.keep[i]:
                packets += 1
                byte_count += columns.captured_length[columns.rows[start + i] if arranged else start + i]
    return packets, byte_count


def same_result(Result a not None, Result b not None):
    """Whether two results of one segment put the same packets into the second stream, with the same comments, keys and
    reports."""
    cdef bint same
    if a.segment.number != b.segment.number or a.dead or b.dead:
        return False
    if a.comments != b.comments or a.reports != b.reports or a.drops != b.drops:
        return False
    with nogil:
        same = same_packets(a, b)
    return same


cdef bint same_packets(Result a, Result b) noexcept nogil:
    """Both results were checked, so their pointers are valid."""
    cdef Py_ssize_t start = a.segment.start
    cdef const Columns *columns = &a.segment.batch.columns
    cdef bint arranged = a.segment.batch.arranged
    cdef uint64_t at_a = 0, at_b = 0
    cdef Py_ssize_t i
    cdef uint32_t row
    cdef Left left_a, left_b
    if (a.keys != NULL) != (b.keys != NULL):
        return False
    for i in range(a.segment.stop - start):
        row = columns.rows[start + i] if arranged else <uint32_t> (start + i)
        look_at(&left_a, a, columns, row, i, &at_a)
        look_at(&left_b, b, columns, row, i, &at_b)
        if left_a.kept != left_b.kept:
            return False
        if a.keys != NULL and (a.keys[2 * i] != b.keys[2 * i] or a.keys[2 * i + 1] != b.keys[2 * i + 1]):
            return False
        if not left_a.kept:
            continue
        if left_a.captured_length != left_b.captured_length or left_a.wire_length != left_b.wire_length:
            return False
        if memcmp(left_a.packet, left_b.packet, left_a.captured_length) != 0:
            return False
    return True


cdef struct Left:
    bint kept
    const uint8_t *packet
    uint32_t captured_length
    uint32_t wire_length


cdef void look_at(Left *left, Result result, const Columns *columns, uint32_t row, Py_ssize_t i, uint64_t *at) noexcept nogil:
    """Packet i after the result; at: how far the records in its region were read."""
    left.kept = result.keep == NULL or result.keep[i] != 0
    left.packet = columns.data + columns.offset[row]
    left.captured_length = columns.captured_length[row]
    left.wire_length = columns.wire_length[row]
    if result.offset != NULL:
        left.packet = (result.packed if result.packed != NULL else columns.data) + result.offset[i]
        left.captured_length = result.captured_length[i]
        left.wire_length = result.wire_length[i]
    elif result.packed != NULL:
        left.packet = result.packed + at[0] + record_head(columns.record[row])
        at[0] += record_size(columns, row)


cdef int check_records(Result result, Py_ssize_t count) noexcept nogil:
    """Checks whole records, packed in row order: sizes add up, and only the packets' bytes changed."""
    cdef Py_ssize_t start = result.segment.start
    cdef const Columns *columns = &result.segment.batch.columns
    cdef bint arranged = result.segment.batch.arranged
    cdef Py_ssize_t i
    cdef uint32_t row, head, size, tail
    cdef uint64_t at = 0
    cdef const uint8_t *before
    cdef uint32_t unit_ns = pcap_unit_ns(columns, arranged, start, count)
    for i in range(count):
        row = columns.rows[start + i] if arranged else <uint32_t> (start + i)
        size = record_size(columns, row)
        if i + AHEAD < count:  # of neighbours, too: from header to header is a jump
            if not unit_ns:
                prefetch(columns.data + columns.offset[columns.rows[start + i + AHEAD] if arranged else start + i + AHEAD] - 16)
            prefetch(result.packed + at + AHEAD * size)  # about
        if at + size > result.packed_bytes:
            return 1
        if unit_ns and columns.record[row] == RECORD_PCAP and says_columns(columns, row, result.packed + at, unit_ns):
            at += size
            continue
        head = record_head(columns.record[row])
        before = columns.data + record_start(columns, row)
        if differs16(before, result.packed + at) if head == 16 else memcmp(before, result.packed + at, head) != 0:
            return 2
        tail = head + columns.captured_length[row]
        if tail < size and memcmp(before + tail, result.packed + at + tail, size - tail) != 0:
            return 2
        at += size
    return 0 if at == result.packed_bytes else 1


cdef uint32_t pcap_unit_ns(const Columns *columns, bint arranged, Py_ssize_t start, Py_ssize_t count) noexcept nogil:
    """What the second field of a pcap's times counts, by the first packet of a few that shows it; 0: none does, or it is no such pcap."""
    cdef Py_ssize_t i
    cdef uint32_t row
    cdef uint32_t[4] head
    for i in range(min(count, <Py_ssize_t> AHEAD)):
        row = columns.rows[start + i] if arranged else <uint32_t> (start + i)
        if columns.record[row] != RECORD_PCAP:
            return 0
        memcpy(head, columns.data + record_start(columns, row), 16)
        if head[1]:
            return 1000 if columns.timestamp_ns[row] == <int64_t> head[0] * 1_000_000_000 + <int64_t> head[1] * 1000 else 1
    return 0


cdef inline bint says_columns(const Columns *columns, uint32_t row, const uint8_t *record, uint32_t unit_ns) noexcept nogil:
    """Whether a pcap record's header says what was read; so the chunk, which another core has filled, need not be looked at. If so, it is the header
    that was read: a time in whole seconds and less than a second is written in one way. (One that was read with a second or more in its second
    field may come back in that way.) False decides nothing."""
    cdef uint32_t[4] head
    memcpy(head, record, 16)
    return (head[2] == columns.captured_length[row] and head[3] == columns.wire_length[row] and <uint64_t> head[1] * unit_ns < 1_000_000_000
            and columns.timestamp_ns[row] == <int64_t> head[0] * 1_000_000_000 + <int64_t> head[1] * unit_ns)


cdef inline bint differs16(const uint8_t *one, const uint8_t *other) noexcept nogil:
    """The header of most records, without a call."""
    cdef uint64_t[2] a
    cdef uint64_t[2] b
    memcpy(a, one, 16)
    memcpy(b, other, 16)
    return ((a[0] ^ b[0]) | (a[1] ^ b[1])) != 0


cdef int check_lengths(Result result, Py_ssize_t count) noexcept nogil:
    cdef Py_ssize_t start = result.segment.start
    cdef const Columns *columns = &result.segment.batch.columns
    cdef bint arranged = result.segment.batch.arranged
    cdef Py_ssize_t i
    cdef uint32_t row
    for i in range(count):
        row = columns.rows[start + i] if arranged else <uint32_t> (start + i)
        if result.captured_length[i] > CAPTURED_MAX and result.captured_length[i] > columns.captured_length[row]:
            return 3  # longer than usual, and than it was read
        if result.packed != NULL:
            if <uint64_t> result.offset[i] + result.captured_length[i] > result.packed_bytes:
                return 3
            continue
        if result.offset[i] != columns.offset[row] or result.captured_length[i] > columns.captured_length[row]:
            return 3
    return 0


cdef int check_keep(Result result, Py_ssize_t count, uint64_t *dropped) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(count):
        if result.keep[i] > 1:
            return 4
        dropped[0] += 1 - result.keep[i]
    return 0
