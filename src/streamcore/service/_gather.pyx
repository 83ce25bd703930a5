"""Copies packets into a worker's region: whole records as they are in the chunk, or packets of any length. Nothing here
checks a service's effect.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from streamcore.core.packets cimport RECORD_PCAP_SWAPPED, Columns, Segment, record_head, record_size, record_start
from streamcore.core.packets cimport pack_records as copy_records


def pack_records(Segment segment not None, uint8_t[::1] region not None, uint32_t[::1] offset not None):
    """Copy the segment's records (header, packet, trailer) into region, packed in row order; return how many bytes they
    take.

    offset: uint32[n], becomes the place of each packet's first byte in region. Returns -1 if the region is too small.
    Adjacent records are copied together; releases the GIL. The reader has already checked that every record lies inside
    the chunk.
    """
    cdef Py_ssize_t count = segment.stop - segment.start
    cdef const Columns *columns = &segment.batch.columns
    cdef bint arranged = segment.batch.arranged
    cdef uint64_t size
    if offset.shape[0] != count:
        raise ValueError(f"{offset.shape[0]} offsets for {count} packets")
    if count == 0 or region.shape[0] == 0:
        return 0 if count == 0 else -1
    with nogil:
        size = copy_records(columns, arranged, segment.start, segment.stop, &region[0], region.shape[0], &offset[0])
    return <Py_ssize_t> size if size <= <uint64_t> region.shape[0] else -1


def adjacent_records(Segment segment not None, uint32_t[::1] offset not None):
    """Where the segment's records stand in the chunk, if they do so side by side and in row order: (first byte, byte
    behind the last); None: they do not.

    offset: uint32[n], set as pack_records sets it. About 1 ns a packet, less for those of a pcap.
    """
    cdef Py_ssize_t count = segment.stop - segment.start
    cdef const Columns *columns = &segment.batch.columns
    cdef bint arranged = segment.batch.arranged
    cdef Py_ssize_t at, row
    cdef uint32_t first = 0, end = 0
    if offset.shape[0] != count:
        raise ValueError(f"{offset.shape[0]} offsets for {count} packets")
    if count and not arranged and adjacent_pcap(columns, segment.start, segment.stop, &offset[0], &end):
        return columns.offset[segment.start] - 16, end
    with nogil:
        for at in range(count):
            row = columns.rows[segment.start + at] if arranged else segment.start + at
            if at == 0:
                first = end = record_start(columns, row)
            if record_start(columns, row) != end:
                break
            offset[at] = end - first + record_head(columns.record[row])
            end += record_size(columns, row)
        else:
            at = count
    return (first, end) if at == count else None


cdef bint adjacent_pcap(const Columns *columns, Py_ssize_t start, Py_ssize_t stop, uint32_t *offset, uint32_t *end) noexcept nogil:
    """As adjacent_records, of at least one row; False: they are not side by side, or not all records of a pcap. Without branches, so that the
    compiler takes several rows at a time."""
    cdef const uint32_t *at = columns.offset + start
    cdef const uint32_t *length = columns.captured_length + start
    cdef Py_ssize_t count = stop - start, i
    cdef uint32_t first = at[0] - 16, apart = 0
    cdef uint8_t kinds = 0
    for i in range(count):
        kinds |= columns.record[start + i]
    if kinds > RECORD_PCAP_SWAPPED:
        return False
    for i in range(count - 1):
        apart |= at[i + 1] ^ (at[i] + length[i] + 16)
    for i in range(count):
        offset[i] = at[i] - first
    end[0] = at[count - 1] + length[count - 1]
    return apart == 0


def pack_packets(const uint8_t[::1] data not None, const uint32_t[::1] offset not None, const uint32_t[::1] length not None,
                 uint8_t[::1] region not None, uint32_t[::1] placed not None):
    """Copy packets data[offset[i] : offset[i] + length[i]] into region, one after the other; return how many bytes they take.

    placed: uint32[n], becomes the place of each packet in region. data and region must not overlap. Returns -1 if the
    region is too small. Raises ValueError for a packet outside data.
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
        raise ValueError(f"packet {i} at {offset[i]} with {length[i]} bytes is outside data, which has {data.shape[0]} bytes")
    return used
