"""Gives packets an Ethernet header or other addresses and tags, and cuts them to an MTU, in one call for many with the GIL
released. framed.py decides about which.

Link types: https://www.tcpdump.org/linktypes.html. Tags: IEEE 802.1Q. Segments are cut as offloads/ cuts them.
"""

import numpy as np

cimport numpy as cnp
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from streamcore.core.packets cimport (RECORD_EPB, RECORD_EPB_SWAPPED, RECORD_KUZNETZOV, RECORD_OPB, RECORD_OPB_SWAPPED, RECORD_PCAP,
                                 RECORD_PCAP_SWAPPED, RECORD_SPB, RECORD_SPB_SWAPPED, SEGMENT_TCP4, Chunk, Columns, Offload, PacketBatch,
                                 record_head, record_size, record_start, swap32)
from streamcore.headers._walk cimport UdpPorts
from streamcore.offloads._cut cimport Cut, plan_cut, segment_size, write_segment

cnp.import_array()

cdef enum:
    ETHERNET_BYTES = 14
    TAG_BYTES = 4
    LINK_NULL = 0
    LINK_ETHERNET = 1
    LINK_RAW_BSD = 12
    LINK_RAW_OPENBSD = 14
    LINK_RAW = 101
    LINK_LOOP = 108
    LINK_SLL = 113
    LINK_IP4 = 228
    LINK_IP6 = 229
    LINK_SLL2 = 276
    TYPE_IP4 = 0x0800
    TYPE_IP6 = 0x86DD
    TYPES_FROM = 0x0600      # smaller ones are lengths, or numbers of Linux
    KEEP_TAG = -1            # `vlan` of a Framer
    HEAD_MORE = 64           # bytes that a record may grow by: link header, tag, form

FRAMED_LINKS = (LINK_NULL, LINK_ETHERNET, LINK_RAW_BSD, LINK_RAW_OPENBSD, LINK_RAW, LINK_LOOP, LINK_SLL, LINK_IP4, LINK_IP6, LINK_SLL2)
WITHOUT_ADDRESSES = tuple(sorted(set(FRAMED_LINKS) - {LINK_ETHERNET}))


cdef inline uint32_t load32(const uint8_t *at) noexcept nogil:
    cdef uint32_t value
    memcpy(&value, at, 4)
    return value


cdef inline void store32(uint8_t *at, uint32_t value) noexcept nogil:
    memcpy(at, &value, 4)


cdef inline uint16_t be16(const uint8_t *at) noexcept nogil:
    return (<uint16_t> at[0] << 8) | at[1]


cdef inline void store_be16(uint8_t *at, uint16_t value) noexcept nogil:
    at[0], at[1] = <uint8_t> (value >> 8), <uint8_t> value


cdef inline uint32_t padded(uint32_t size) noexcept nogil:
    return (size + 3) & ~<uint32_t> 3


cdef inline bint is_pcap(uint8_t kind) noexcept nogil:
    return kind <= RECORD_PCAP_SWAPPED or kind >= RECORD_KUZNETZOV


cdef class Framer:
    """Writes the packets of one batch after the other into chunks, as Ethernet frames, in records of the form they had.

    source, target: 6 bytes, or empty: addresses stay; vlan: the id of the outermost tag, which is added if there is none,
    0: the outermost tag is removed, -1: tags stay; mtu: of what follows the link header, 0: any; segments: TCP that is
    longer is cut into segments, everything else into one packet of that length; ports: of the walk over headers.
    `framed`, `segmented` (packets made beyond those that were cut into segments), `cut` and `refused` (packets,
    captured bytes) count. A packet is refused that does not say what it carries.
    """

    cdef readonly Py_ssize_t rows
    cdef readonly Py_ssize_t used
    cdef readonly uint64_t segmented
    cdef readonly uint64_t cut
    cdef readonly uint64_t refused
    cdef readonly uint64_t refused_bytes
    cdef Chunk chunk
    cdef uint8_t[6] source
    cdef uint8_t[6] target
    cdef bint has_source
    cdef bint has_target
    cdef int vlan
    cdef uint32_t mtu
    cdef bint segments
    cdef UdpPorts ports
    cdef uint8_t *frame        # the frame that is being made
    cdef Py_ssize_t frame_bytes

    def __init__(self, bytes source, bytes target, int vlan, uint32_t mtu, bint segments, UdpPorts ports not None, Py_ssize_t packet_bytes_max):
        if len(source) not in (0, 6) or len(target) not in (0, 6) or not -1 <= vlan <= 4094 or packet_bytes_max < 1:
            raise ValueError(f"a framer with addresses {source!r} and {target!r}, and VLAN {vlan}")
        self.has_source, self.has_target = len(source) == 6, len(target) == 6
        memset(self.source, 0, 6)
        memset(self.target, 0, 6)
        if self.has_source:
            memcpy(self.source, <const uint8_t *> source, 6)
        if self.has_target:
            memcpy(self.target, <const uint8_t *> target, 6)
        self.vlan, self.mtu, self.segments, self.ports = vlan, mtu, segments, ports
        self.frame_bytes = packet_bytes_max + HEAD_MORE
        self.frame = <uint8_t *> malloc(self.frame_bytes)
        if self.frame == NULL:
            raise MemoryError("no room for a frame")

    def __dealloc__(self):
        free(self.frame)

    def begin(self, Chunk chunk):
        """Starts a chunk without packets; None: ends with the last one, which is not kept."""
        self.chunk = chunk
        self.rows = self.used = 0

    def take(self, PacketBatch batch not None, cnp.ndarray link_types not None, Py_ssize_t first):
        """Writes the packets of the batch from row `first` on, until the chunk is full. link_types: uint16[…] of each
        interface. Returns the first row that is left. Raises ValueError if a packet needs more than a chunk."""
        cdef Columns *c = &batch.columns
        cdef Py_ssize_t row = first, count = batch.count, interfaces
        cdef const uint16_t *links
        cdef int status = 0
        link_types = np.ascontiguousarray(link_types, np.uint16)
        links = <const uint16_t *> cnp.PyArray_DATA(link_types)
        interfaces = link_types.shape[0]
        if self.chunk is None or not 0 <= first <= count:
            raise ValueError(f"row {first} of {count}")
        with nogil:
            while row < count:
                if c.interface[row] >= interfaces or c.captured_length[row] + HEAD_MORE > self.frame_bytes:
                    status = -2
                    break
                status = self.put(c, row, links[c.interface[row]])
                if status < 0:
                    break
                row += 1
        if status == -2 or (row < count and self.rows == 0):
            raise ValueError(f"packet {row} of a batch cannot be framed: it is larger than a chunk, or of no interface")
        return row

    cdef int put(self, Columns *c, Py_ssize_t row, uint16_t link_type) noexcept nogil:
        """One packet. -1: the chunk is full, and nothing of the packet is in it."""
        cdef Py_ssize_t rows_before = self.rows, used_before = self.used
        cdef Py_ssize_t size = self.make(c.data + c.offset[row], c.captured_length[row], link_type)
        cdef int64_t wire
        cdef Cut plan
        cdef uint32_t number, limit, made
        if size < 0:
            self.refused += 1
            self.refused_bytes += c.captured_length[row]
            return 0
        wire = <int64_t> c.wire_length[row] + size - <int64_t> c.captured_length[row]
        limit = self.mtu + self.link_bytes(size)
        if self.mtu == 0 or size <= limit:
            return self.write(c, row, self.frame, <uint32_t> size, <uint32_t> max(0, wire))
        if self.segments and wire <= size and self.plan(size, &plan):
            for number in range(plan.count):
                made = segment_size(&plan, number)
                if self.put_segment(c, row, &plan, number, made) < 0:
                    self.rows, self.used = rows_before, used_before
                    return -1
            self.segmented += plan.count - 1
            return 0
        if self.write(c, row, self.frame, limit, <uint32_t> max(0, wire)) < 0:
            return -1
        self.cut += 1
        return 0

    cdef inline uint32_t link_bytes(self, Py_ssize_t size) noexcept nogil:
        """Bytes of the link header and its tags."""
        cdef Py_ssize_t at = ETHERNET_BYTES - 2
        while at + 2 + TAG_BYTES <= size and is_tag(be16(self.frame + at)) and at < 64:
            at += TAG_BYTES
        return <uint32_t> at + 2

    cdef bint plan(self, Py_ssize_t size, Cut *plan) noexcept nogil:
        """How to cut the frame into segments that fit the MTU."""
        cdef Offload offload
        memset(&offload, 0, sizeof(Offload))
        offload.segments = SEGMENT_TCP4
        offload.segment_bytes = 1024  # to find the headers with
        if not plan_cut(&self.ports.table, self.frame, <uint32_t> size, LINK_ETHERNET, &offload, plan):
            return False
        if plan.head - self.link_bytes(size) + 8 > self.mtu or plan.fix[0].offset != self.link_bytes(size):
            return False
        offload.segment_bytes = <uint16_t> min(0xFFFF, self.mtu - (plan.head - self.link_bytes(size)))
        return plan_cut(&self.ports.table, self.frame, <uint32_t> size, LINK_ETHERNET, &offload, plan)

    cdef Py_ssize_t make(self, const uint8_t *packet, uint32_t captured, uint16_t link_type) noexcept nogil:
        """Makes the frame of a packet. Returns its size, -1: it cannot be made. `frame` has room for captured + HEAD_MORE."""
        cdef uint32_t skip = 0, ether_type = 0, tags = 0
        cdef const uint8_t *address = NULL
        cdef uint8_t *at = self.frame
        if link_type == LINK_ETHERNET:
            if captured < ETHERNET_BYTES:
                return -1
            memcpy(at, packet, 12)
            skip, ether_type = ETHERNET_BYTES, be16(packet + 12)
        else:
            memset(at, 0, 12)
            if link_type == LINK_SLL:
                if captured < 16:
                    return -1
                skip, ether_type = 16, be16(packet + 14)
                address = packet + 6 if be16(packet + 4) == 6 else NULL
            elif link_type == LINK_SLL2:
                if captured < 20:
                    return -1
                skip, ether_type = 20, be16(packet)
                address = packet + 12 if packet[11] == 6 else NULL
            else:
                skip = 4 if link_type == LINK_NULL or link_type == LINK_LOOP else 0
                if captured <= skip:
                    return -1
                ether_type = TYPE_IP4 if packet[skip] >> 4 == 4 else TYPE_IP6 if packet[skip] >> 4 == 6 else 0
            if ether_type < TYPES_FROM:
                return -1
            if address != NULL:
                memcpy(at + 6, address, 6)
        if self.has_target:
            memcpy(at, self.target, 6)
        if self.has_source:
            memcpy(at + 6, self.source, 6)
        at += 12
        if self.vlan >= 0 and is_tag(ether_type) and captured >= skip + TAG_BYTES:
            if self.vlan:  # the priority stays
                store_be16(at, <uint16_t> ether_type)
                store_be16(at + 2, (be16(packet + skip) & 0xF000) | <uint16_t> self.vlan)
                at += TAG_BYTES
            ether_type = be16(packet + skip + 2)
            skip += TAG_BYTES
        elif self.vlan > 0:
            store_be16(at, 0x8100)
            store_be16(at + 2, <uint16_t> self.vlan)
            at += TAG_BYTES
        store_be16(at, <uint16_t> ether_type)
        at += 2
        memcpy(at, packet + skip, captured - skip)
        return at - self.frame + captured - skip

    cdef int put_segment(self, Columns *c, Py_ssize_t row, const Cut *plan, uint32_t number, uint32_t size) noexcept nogil:
        cdef uint8_t *to = self.reserve(c, row, size, size)
        if to == NULL:
            return -1
        write_segment(plan, number, to)
        return 0

    cdef int write(self, Columns *c, Py_ssize_t row, const uint8_t *frame, uint32_t size, uint32_t wire) noexcept nogil:
        cdef uint8_t *to = self.reserve(c, row, size, wire)
        if to == NULL:
            return -1
        memcpy(to, frame, size)
        return 0

    cdef uint8_t *reserve(self, Columns *c, Py_ssize_t row, uint32_t size, uint32_t wire) noexcept nogil:
        """Appends a record for a frame of that size, with the time, interface and options of a row. Returns the place for
        the frame, or NULL if there is no room."""
        cdef Columns *to = &self.chunk.columns
        cdef uint8_t kind = c.record[row]
        cdef bint swapped = kind & 1
        cdef bint simple = kind == RECORD_SPB or kind == RECORD_SPB_SWAPPED
        cdef const uint8_t *record = c.data + record_start(c, row)
        cdef uint8_t *at = to.data + self.used
        cdef uint32_t head = record_head(kind), options = 0, total = head + size
        cdef Py_ssize_t made = self.rows
        if not is_pcap(kind):
            options = record_size(c, row) - head - padded(c.captured_length[row])  # the last length, too
            total = head + padded(size) + options
        if made == self.chunk.arena.rows_max or self.used + <Py_ssize_t> total > self.chunk.arena.data_bytes_max:
            return NULL
        memcpy(at, record, head)
        if is_pcap(kind):
            store32(at + 8, swap32(size) if swapped else size)
            store32(at + 12, swap32(wire) if swapped else wire)
        else:
            memset(at + head + size, 0, padded(size) - size)
            memcpy(at + head + padded(size), record + head + padded(c.captured_length[row]), options)
            store32(at + 4, swap32(total) if swapped else total)
            store32(at + total - 4, swap32(total) if swapped else total)
            if simple:
                store32(at + 8, swap32(wire) if swapped else wire)
            else:
                store32(at + 20, swap32(size) if swapped else size)
                store32(at + 24, swap32(wire) if swapped else wire)
        to.offset[made] = <uint32_t> (self.used + head)
        to.captured_length[made] = size
        to.wire_length[made] = wire
        to.timestamp_ns[made] = c.timestamp_ns[row]
        to.interface[made] = c.interface[row]
        to.record[made] = kind
        self.used += <Py_ssize_t> total
        self.rows += 1
        return at + head


cdef inline bint is_tag(uint32_t ether_type) noexcept nogil:
    return ether_type == 0x8100 or ether_type == 0x88A8 or ether_type == 0x9100
