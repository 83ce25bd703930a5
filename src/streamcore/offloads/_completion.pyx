"""The copy of a live batch to its chunk that completes what packets left to hardware: checksums, and on request segments.

_cut.pyx says how one packet is cut. The source leaves room for the segments (`segments_of`).
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from streamcore.core.packets cimport (
    NEEDS_CHECKSUM, PCAP_HEAD, RECORD_PCAP, SEGMENT_NONE, Columns, Copier, Offload, PacketBatch, put_record_head,
)
from streamcore.headers._walk cimport OUTCOME_TRANSPORT, UdpPorts, Walk, walk_headers
from streamcore.offloads._cut cimport Cut, complete_checksum, plan_cut, segment_size, segments_at_most, write_segment

cdef enum:
    TCP = 6
    UDP = 17
    TCP_FIELD = 16           # of the checksum
    UDP_FIELD = 6

cdef struct Packet:
    # One packet of the ring, read before its row is written over.
    const uint8_t *data
    uint32_t captured_length
    uint32_t wire_length
    int64_t timestamp_ns
    uint16_t interface
    Offload offload


cdef class Completion(Copier):
    """Completes checksums; with `cuts` also cuts super-packets. ports: of tunnels over UDP. One thread uses it."""

    cdef readonly uint64_t unfinished  # packets so far whose checksum could not be completed, because they are cut short
    cdef readonly uint64_t uncut       # super-packets so far that could not be cut
    cdef UdpPorts ports
    cdef bint cuts

    def __init__(self, UdpPorts ports not None, *, bint cuts):
        self.ports = ports
        self.cuts = cuts

    cdef Py_ssize_t copy(self, PacketBatch batch, uint8_t *target) except -1:
        cdef Columns *c = &batch.columns
        cdef const uint16_t *link_types = batch.chunk.arena.control.link_type
        cdef Py_ssize_t bytes_max = batch.chunk.arena.data_bytes_max, rows_max = batch.chunk.arena.rows_max
        cdef Py_ssize_t size = 0, rows = batch.count
        cdef uint32_t *counts = <uint32_t *> malloc((batch.count + 1) * sizeof(uint32_t))
        if counts == NULL:
            raise MemoryError("no room to count segments")
        with nogil:
            size = self.measure(c, link_types, batch.arranged, batch.count, batch.row_count, counts, &rows, rows_max, bytes_max)
            if 0 <= size <= bytes_max and rows <= rows_max:
                self.fill(c, target, link_types, batch.arranged, batch.count, batch.row_count, counts, rows, size)
            else:
                size = -1
        free(counts)
        if size < 0:
            raise ValueError("the packets do not ascend, or do not fit into the chunk")
        batch.row_count += rows - batch.count
        batch.count = rows
        batch.groups = 0
        return size

    cdef Py_ssize_t measure(self, Columns *c, const uint16_t *link_types, bint arranged, Py_ssize_t count, Py_ssize_t row_count,
                            uint32_t *counts, Py_ssize_t *rows, Py_ssize_t rows_max, Py_ssize_t bytes_max) noexcept nogil:
        """counts[row]: the packets that it becomes; 0: it is not in use, and keeps its row. Returns the bytes of all records, or -1."""
        cdef Py_ssize_t row, at = 0, size = 0
        cdef Packet packet
        cdef Cut cut
        for row in range(count):
            counts[row] = 0
            if arranged and (at == row_count or c.rows[at] != <uint32_t> row):
                continue
            at += 1
            counts[row] = 1
            read_packet(c, row, &packet)
            size += PCAP_HEAD + packet.captured_length
            if packet.offload.segments == SEGMENT_NONE or not self.cuts:
                continue
            if segments_at_most(&packet.offload, packet.captured_length, rows_max, bytes_max) == 1 or not self.plan(&packet, link_types, &cut):
                self.uncut += packet.captured_length > packet.offload.segment_bytes
                continue
            if cut.count == 1:  # as it was on the wire
                c.offload[row].segments = SEGMENT_NONE
            counts[row] = cut.count
            rows[0] += cut.count - 1
            size += (cut.count - 1) * (PCAP_HEAD + <Py_ssize_t> cut.head)
            self.added += cut.count - 1
            self.added_bytes += <uint64_t> (cut.count - 1) * cut.head
        return size if at == row_count else -1

    cdef bint plan(self, const Packet *packet, const uint16_t *link_types, Cut *cut) noexcept nogil:
        return (packet.captured_length == packet.wire_length
                and plan_cut(&self.ports.table, packet.data, packet.captured_length, link_types[packet.interface], &packet.offload, cut))

    cdef void fill(self, Columns *c, uint8_t *target, const uint16_t *link_types, bint arranged, Py_ssize_t count, Py_ssize_t row_count,
                   const uint32_t *counts, Py_ssize_t rows, Py_ssize_t size) noexcept nogil:
        """From the last row to the first: a packet's rows lie at or behind its own, so none is written over before it is read."""
        cdef Py_ssize_t row, to = rows, at = row_count + rows - count, i
        cdef Packet packet
        cdef Cut cut
        for row in range(count - 1, -1, -1):
            read_packet(c, row, &packet)
            if counts[row] > 1:
                self.plan(&packet, link_types, &cut)
            for i in range(max(1, <Py_ssize_t> counts[row]) - 1, -1, -1):
                to -= 1
                if counts[row] == 0:
                    packet.captured_length = 0
                elif counts[row] > 1:
                    packet.captured_length = packet.wire_length = segment_size(&cut, <uint32_t> i)
                c.timestamp_ns[to] = packet.timestamp_ns
                c.interface[to] = packet.interface
                c.captured_length[to] = packet.captured_length
                c.wire_length[to] = packet.wire_length
                c.offset[to] = 0
                c.offload[to] = Offload(0, 0, 0, 0, 0, 0)
                if counts[row] == 0:
                    continue
                size -= PCAP_HEAD + packet.captured_length
                at -= 1
                if arranged:
                    c.rows[at] = <uint32_t> to
                put_record_head(target + size, packet.timestamp_ns, packet.captured_length, packet.wire_length)
                c.offset[to] = <uint32_t> size + PCAP_HEAD
                c.record[to] = RECORD_PCAP
                if counts[row] > 1:
                    write_segment(&cut, <uint32_t> i, target + size + PCAP_HEAD)
                    continue
                memcpy(target + size + PCAP_HEAD, packet.data, packet.captured_length)
                self.complete(target + size + PCAP_HEAD, &packet, link_types[packet.interface], &c.offload[to])

    cdef void complete(self, uint8_t *data, const Packet *packet, uint16_t link_type, Offload *left) noexcept nogil:
        """left: what remains for whoever sends the packet."""
        if packet.offload.segments != SEGMENT_NONE:
            left[0] = packet.offload
        if not packet.offload.flags & NEEDS_CHECKSUM:
            return
        if packet.offload.checksum_start == 0:
            self.complete_found(data, packet, link_type)
        elif packet.captured_length == packet.wire_length and complete_checksum(data, packet.captured_length, &packet.offload):
            left.flags &= <uint8_t> ~NEEDS_CHECKSUM
        else:
            self.unfinished += 1

    cdef void complete_found(self, uint8_t *data, const Packet *packet, uint16_t link_type) noexcept nogil:
        """The kernel says only that a checksum is missing (cooked packets): of the one transport header, if there is one."""
        cdef Walk walk
        cdef Offload told = Offload(NEEDS_CHECKSUM, SEGMENT_NONE, 0, 0, 0, 0)
        walk_headers(&self.ports.table, data, packet.captured_length, link_type, &walk)
        told.checksum_start = walk.outer.l4
        told.checksum_offset = TCP_FIELD if walk.outer.protocol == TCP else UDP_FIELD
        if not (walk.depth == 1 and walk.outcome == OUTCOME_TRANSPORT and walk.outer.protocol in (TCP, UDP)
                and packet.captured_length == packet.wire_length and complete_checksum(data, packet.captured_length, &told)):
            self.unfinished += 1


cdef inline void read_packet(const Columns *c, Py_ssize_t row, Packet *packet) noexcept nogil:
    packet.data = c.data + c.offset[row]
    packet.captured_length = c.captured_length[row]
    packet.wire_length = c.wire_length[row]
    packet.timestamp_ns = c.timestamp_ns[row]
    packet.interface = c.interface[row]
    packet.offload = c.offload[row]
