"""Segments that leave the machine: columns and whole records in one frame, written and read in one native call each.

The frame of n packets, little-endian: interfaces u32 (k of them) · record bytes u32 · link_type u16 x k · padding to 8 ·
timestamp_ns i64 x n · offset u32 x n (of the packet in the records) · captured_length u32 x n · wire_length u32 x n ·
interface u16 x n · record u8 x n · padding to 8 · the packets' whole records, packed in row order · 64 bytes that a
parser may load beyond the last packet.
"""

cimport numpy as cnp
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from streamcore.core.packets cimport GUARD_BYTES, RECORD_KINDS, Columns, PacketBatch, Segment, pack_records, record_head
from streamcore.core.packets cimport record_size, record_start, records_size

cnp.import_array()

cdef enum:
    HEAD_BYTES = 8
    ROW_BYTES = 8 + 4 + 4 + 4 + 2 + 1

INTERFACES_MAX = 65536
COLUMN_BYTES = ROW_BYTES


class InlineError(ValueError):
    """A frame with contradictory contents."""


cdef inline Py_ssize_t aligned(Py_ssize_t size) noexcept nogil:
    return (size + 7) // 8 * 8


cdef inline Py_ssize_t records_at(Py_ssize_t count, Py_ssize_t interfaces) noexcept nogil:
    """The offset of the records."""
    return aligned(HEAD_BYTES + 2 * interfaces) + aligned(ROW_BYTES * count)


def frame_bytes_max(Py_ssize_t rows_max, Py_ssize_t data_bytes_max):
    """Bytes of the largest frame of such a chunk."""
    return records_at(rows_max, INTERFACES_MAX) + data_bytes_max + GUARD_BYTES


def record_bytes(Segment segment not None):
    """Bytes of a segment's whole records, with headers, comments and other options."""
    cdef PacketBatch batch = segment.batch
    cdef const Columns *c = &batch.columns
    cdef Py_ssize_t start = segment.start, stop = segment.stop
    cdef uint64_t size
    with nogil:
        if batch.contiguous and not batch.arranged and stop > start:
            size = record_start(c, stop - 1) + record_size(c, stop - 1) - record_start(c, start)
        else:
            size = records_size(c, batch.arranged, start, stop)
    return size


def frame_bytes(Segment segment not None):
    """Bytes of a segment's frame."""
    return records_at(segment.stop - segment.start, len(segment.batch.interfaces)) + record_bytes(segment) + GUARD_BYTES


def pack_frame(Segment segment not None, const uint16_t[::1] link_types not None, uint8_t[::1] frame not None):
    """Writes a segment's frame, which must have frame_bytes() bytes. It copies the packets once, with the GIL released.

    link_types: uint16[k], of the stream's interfaces. About 4 ns for a small packet, memory speed for large ones.
    """
    cdef PacketBatch batch = segment.batch
    cdef const Columns *c = &batch.columns
    cdef bint arranged = batch.arranged
    cdef Py_ssize_t start = segment.start, count = segment.stop - segment.start
    cdef Py_ssize_t interfaces = link_types.shape[0], at = records_at(count, interfaces)
    cdef Py_ssize_t i, row
    cdef uint64_t size, room
    cdef uint8_t *base
    cdef int64_t *timestamp_ns
    cdef uint32_t *offset
    cdef uint32_t *captured_length
    cdef uint32_t *wire_length
    cdef uint16_t *interface
    cdef uint8_t *record
    if frame.shape[0] < at + GUARD_BYTES:
        raise ValueError(f"a frame of {frame.shape[0]} bytes for {count} packets")
    base = &frame[0]
    room = frame.shape[0] - at - GUARD_BYTES
    with nogil:
        (<uint32_t *> base)[0] = <uint32_t> interfaces
        (<uint32_t *> base)[1] = <uint32_t> room
        timestamp_ns = <int64_t *> (base + aligned(HEAD_BYTES + 2 * interfaces))
        offset = <uint32_t *> (timestamp_ns + count)
        captured_length = offset + count
        wire_length = captured_length + count
        interface = <uint16_t *> (wire_length + count)
        record = <uint8_t *> (interface + count)
        memset(base + HEAD_BYTES + 2 * interfaces, 0, <uint8_t *> timestamp_ns - base - HEAD_BYTES - 2 * interfaces)
        if interfaces:
            memcpy(base + HEAD_BYTES, &link_types[0], 2 * interfaces)
        if arranged:
            for i in range(count):
                row = c.rows[start + i]
                timestamp_ns[i] = c.timestamp_ns[row]
                captured_length[i] = c.captured_length[row]
                wire_length[i] = c.wire_length[row]
                interface[i] = c.interface[row]
                record[i] = c.record[row]
        else:
            memcpy(timestamp_ns, c.timestamp_ns + start, 8 * count)
            memcpy(captured_length, c.captured_length + start, 4 * count)
            memcpy(wire_length, c.wire_length + start, 4 * count)
            memcpy(interface, c.interface + start, 2 * count)
            memcpy(record, c.record + start, count)
        memset(record + count, 0, base + at - (record + count))
        size = pack_records(c, arranged, start, segment.stop, base + at, room, offset)
        memset(base + at + room, 0, GUARD_BYTES)
    if size != room:
        raise ValueError(f"a frame of {frame.shape[0]} bytes for {count} packets of another size")


def unpack_frame(PacketBatch batch not None, const uint8_t[::1] frame not None):
    """Fills an empty chunk's batch of n packets from a frame; the batch borrows the frame's records. Checks every
    length: raises InlineError.

    Returns the link types, uint16[k]. Every record is checked to follow the one before it and to contain its packet, so
    code that reads the columns later stays inside the records. About 2 ns a packet; only the columns are copied.
    """
    cdef Columns *c = &batch.columns
    cdef Py_ssize_t count = batch.count, interfaces, at, size
    cdef const uint8_t *base
    cdef const uint8_t *column
    cdef int wrong
    if not batch.chunk.arena.writable:
        raise ValueError("the chunk cannot be written")
    if frame.shape[0] < HEAD_BYTES:
        raise InlineError(f"a frame of {frame.shape[0]} bytes")
    base = &frame[0]
    interfaces = (<const uint32_t *> base)[0]
    size = (<const uint32_t *> base)[1]
    at = records_at(count, interfaces)
    if interfaces > INTERFACES_MAX or at + size + GUARD_BYTES != frame.shape[0] or size > batch.chunk.arena.data_bytes_max:
        raise InlineError(f"{count} packets, {interfaces} interfaces and {size} bytes of records in a frame of {frame.shape[0]}")
    cdef cnp.ndarray link_types = cnp.PyArray_EMPTY(1, [interfaces], cnp.NPY_UINT16, 0)
    memcpy(cnp.PyArray_DATA(link_types), base + HEAD_BYTES, 2 * interfaces)
    with nogil:
        column = base + aligned(HEAD_BYTES + 2 * interfaces)
        memcpy(c.timestamp_ns, column, 8 * count); column += 8 * count
        memcpy(c.offset, column, 4 * count); column += 4 * count
        memcpy(c.captured_length, column, 4 * count); column += 4 * count
        memcpy(c.wire_length, column, 4 * count); column += 4 * count
        memcpy(c.interface, column, 2 * count); column += 2 * count
        memcpy(c.record, column, count)
        c.data = <uint8_t *> base + at
        wrong = check(c, count, size, interfaces)
    if wrong:
        raise InlineError(WRONG[wrong])
    batch.chunk.borrow(c.data, size, frame)
    return link_types


WRONG = {
    1: "a record of an unknown kind",
    2: "a packet does not follow the records before it",
    3: "a record goes beyond the end, or does not contain its packet",
    4: "an unknown interface",
    5: "bytes after the last record",
}


cdef int check(const Columns *c, Py_ssize_t count, Py_ssize_t size, Py_ssize_t interfaces) noexcept nogil:
    cdef Py_ssize_t i
    cdef uint64_t at = 0, end = size, needed
    cdef uint32_t head
    for i in range(count):
        if c.record[i] >= RECORD_KINDS:
            return 1
        head = record_head(c.record[i])
        if c.offset[i] != at + head:
            return 2
        needed = <uint64_t> head + c.captured_length[i]
        if at + needed > end:  # so its header, which has the record's length, can be read
            return 3
        needed = max(needed, <uint64_t> record_size(c, i))
        if record_size(c, i) != needed or at + needed > end:
            return 3
        if c.interface[i] >= interfaces:
            return 4
        at += needed
    return 0 if at == end else 5
