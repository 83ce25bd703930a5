"""Moving packets into a worker's region: whole records as they stand in the chunk, or packets of any length. No effect
is checked here.
"""

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy

from streamcore.packets cimport Columns, Segment, record_size, record_start


def pack_records(Segment segment not None, uint8_t[::1] region not None, uint32_t[::1] offset not None):
    """Copy the segment's records (header, packet, trailer) into region, packed in row order; return the bytes they
    take.

    offset: uint32[n], set to where each packet's first byte is in region. Returns -1 where the region is too small.
    One memcpy where the records stand side by side in the chunk; the GIL is released. The reader has checked that
    every record lies inside the chunk.
    """
    cdef Py_ssize_t count = segment.stop - segment.start
    cdef Py_ssize_t used
    if offset.shape[0] != count:
        raise ValueError(f"{offset.shape[0]} offsets for {count} packets")
    if count == 0 or region.shape[0] == 0:
        return 0 if count == 0 else -1
    with nogil:
        used = pack_adjacent(segment, &region[0], region.shape[0], &offset[0])
        if used == 0:
            used = pack_each(segment, &region[0], region.shape[0], &offset[0])
    return used


cdef inline uint32_t row_at(Segment segment, Py_ssize_t i) noexcept nogil:
    return segment.batch.columns.rows[segment.start + i] if segment.batch.arranged else <uint32_t> (segment.start + i)


cdef Py_ssize_t pack_adjacent(Segment segment, uint8_t *region, Py_ssize_t capacity, uint32_t *offset) noexcept nogil:
    """The case of consecutive records with nothing between them. Returns 0 where it is not the case, -1 without room."""
    cdef const Columns *c = &segment.batch.columns
    cdef Py_ssize_t count = segment.stop - segment.start
    cdef Py_ssize_t i
    cdef uint32_t first = record_start(c, row_at(segment, 0))
    cdef uint32_t row
    cdef uint32_t at = first
    for i in range(count):
        row = row_at(segment, i)
        if record_start(c, row) != at:
            return 0
        offset[i] = c.offset[row] - first
        at += record_size(c, row)
    if at - first > capacity:
        return -1
    memcpy(region, c.data + first, at - first)
    return at - first


cdef Py_ssize_t pack_each(Segment segment, uint8_t *region, Py_ssize_t capacity, uint32_t *offset) noexcept nogil:
    cdef const Columns *c = &segment.batch.columns
    cdef Py_ssize_t used = 0
    cdef Py_ssize_t i
    cdef uint32_t row, start, size
    for i in range(segment.stop - segment.start):
        row = row_at(segment, i)
        start = record_start(c, row)
        size = record_size(c, row)
        if used + size > capacity:
            return -1
        memcpy(region + used, c.data + start, size)
        offset[i] = <uint32_t> (used + c.offset[row] - start)
        used += size
    return used


def pack_packets(const uint8_t[::1] data not None, const uint32_t[::1] offset not None, const uint32_t[::1] length not None,
                 uint8_t[::1] region not None, uint32_t[::1] placed not None):
    """Copy packets data[offset[i] : offset[i] + length[i]] into region, side by side; return the bytes they take.

    placed: uint32[n], set to where each begins in region. data and region must not overlap. Returns -1 where the
    region is too small. Raises ValueError for a packet that lies outside data.
    """
    cdef Py_ssize_t count = offset.shape[0]
    cdef Py_ssize_t used = 0
    cdef Py_ssize_t i
    cdef bint outside = False
    if length.shape[0] != count or placed.shape[0] != count:
        raise ValueError(f"{count} offsets, {length.shape[0]} lengths, {placed.shape[0]} places")
    with nogil:
        for i in range(count):
            if <Py_ssize_t> offset[i] + length[i] > data.shape[0]:
                outside = True
                break
            if used + length[i] > region.shape[0]:
                used = -1
                break
            if length[i]:
                memcpy(&region[used], &data[offset[i]], length[i])
            placed[i] = <uint32_t> used
            used += length[i]
    if outside:
        raise ValueError(f"packet {i} at {offset[i]}, {length[i]} bytes long, lies outside data of {data.shape[0]} bytes")
    return used
