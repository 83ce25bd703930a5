# What travels, seen from C: the columns of one chunk, and the two classes that carry them.
# Every pointer below points into one chunk of an arena; a chunk outlives every PacketBatch that refers to it.
cimport numpy as cnp
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

cdef extern from *:
    """
    static inline void prefetch(const void *at) { __builtin_prefetch(at); }
    static inline void prefetch_write(const void *at) { __builtin_prefetch(at, 1); }
    """
    void prefetch(const void *at) noexcept nogil        # fetches memory that is read, or written, soon
    void prefetch_write(const void *at) noexcept nogil

cdef enum:
    PCAP_HEAD = 16           # bytes of a pcap record's header
    AHEAD = 12               # rows: how far ahead of the copied row to prefetch rows that are not adjacent

cdef enum:
    # The form of a packet's record in the chunk, one value per row of the column `record`. Odd values: the other byte
    # order.
    RECORD_PCAP = 0          # 16 bytes of header, then the packet
    RECORD_PCAP_SWAPPED = 1
    RECORD_EPB = 2           # pcapng enhanced packet block: 28 bytes, the packet, padding, options, 4 bytes of length
    RECORD_EPB_SWAPPED = 3
    RECORD_SPB = 4           # pcapng simple packet block: 12 bytes, the packet, padding, 4 bytes of length; no timestamp
    RECORD_SPB_SWAPPED = 5
    RECORD_OPB = 6           # pcapng obsolete packet block: laid out as an EPB, its interface number has 16 bits
    RECORD_OPB_SWAPPED = 7
    RECORD_KUZNETZOV = 8     # pcap with Alexey Kuznetzov's 24-byte record header
    RECORD_KUZNETZOV_SWAPPED = 9
    RECORD_BARE = 10         # the packet alone, without a header
    RECORD_KINDS = 11

cdef enum:
    # Groups of parse columns. PacketBatch.groups has those that are filled; columns are requested by group.
    GROUP_FLOW = 1           # flow_hash
    GROUP_HEADERS = 2        # ip_version, protocol, flags, l3_offset, l4_offset, payload_offset, ports, fragment_offset
    GROUP_ADDRESSES = 4      # source_address, target_address
    GROUP_VLAN = 8           # vlan_count, vlan
    GROUP_INNER = 16         # depth and the inner_ columns
    GROUP_ALL = 31

cdef enum:
    # Bits of the column `flags`.
    FLAG_TRUNCATED = 1       # a header goes on beyond captured_length
    FLAG_MALFORMED = 2       # a header contradicts itself; what was parsed before it is kept
    FLAG_FRAGMENT = 4        # an IP fragment: offset > 0 or more to come
    FLAG_MORE_FRAGMENTS = 8
    FLAG_ORPHAN = 16         # a later fragment whose first fragment was not seen
    FLAG_PORTS = 32          # source_port and target_port hold ports
    FLAG_DEPTH = 64          # parsing stopped at the layer limit
    FLAG_LINK_UNKNOWN = 128  # the link type is not one that parse/ knows

cdef enum:
    GUARD_BYTES = 64         # readable bytes after data: a parser may load (never use) a word beyond the last packet

cdef enum:
    NO_OFFSET = 0xFFFF       # in an offset column: there is no such header
    VLAN_KEPT = 4            # VLAN ids kept per packet; vlan_count says how many there were

cdef enum:
    # Offload.flags, and Offload.segments without SEGMENT_ECN.
    NEEDS_CHECKSUM = 1
    SEGMENT_NONE = 0
    SEGMENT_TCP4 = 1
    SEGMENT_TCP6 = 4
    SEGMENT_UDP = 5          # datagrams of segment_bytes
    SEGMENT_ECN = 0x80       # a bit: the first segment has CWR

cdef struct Offload:
    # What the sender of a live packet left to hardware, laid out as the kernel's virtio_net_hdr in this machine's byte order; all zero: nothing.
    uint8_t flags
    uint8_t segments         # the packet is a super-packet: segments of this kind, SEGMENT_*
    uint16_t header_bytes    # to be copied before each segment; a hint
    uint16_t segment_bytes   # payload of each
    uint16_t checksum_start  # with NEEDS_CHECKSUM: sum from here to the end ...
    uint16_t checksum_offset # ... into the field so far behind the start, which holds the pseudo-header's sum

cdef struct Columns:
    uint8_t *data             # data_bytes_max bytes of the first stream, as read
    uint32_t *offset          # of the packet's first byte in data
    uint32_t *captured_length # bytes captured
    uint32_t *wire_length     # bytes on the wire
    int64_t *timestamp_ns     # since 1970-01-01, 0 if the record has none
    uint16_t *interface       # index into the stream's interfaces
    uint8_t *record           # RECORD_*
    uint32_t *rows            # row numbers in the order of the segments (PacketBatch.row_count of them)
    uint32_t *flow_hash       # symmetric, seeded; equal for both directions and for a fragment and its first one
    uint8_t *ip_version       # 4, 6, or 0: no IP header
    uint8_t *protocol         # outermost IP's upper-layer protocol
    uint16_t *flags           # FLAG_*
    uint16_t *l3_offset       # of the outermost IP header, from the packet's first byte; NO_OFFSET
    uint16_t *l4_offset       # of the header after the outermost IP header and its extensions; NO_OFFSET
    uint16_t *payload_offset  # of the bytes after that header; NO_OFFSET
    uint16_t *source_port
    uint16_t *target_port
    uint16_t *fragment_offset # in units of 8 bytes
    uint8_t *source_address   # 16 bytes a row; IPv4 as ::ffff:a.b.c.d (RFC 4291 2.5.5.2)
    uint8_t *target_address
    uint8_t *vlan_count
    uint16_t *vlan            # VLAN_KEPT ids a row, outermost first
    uint8_t *depth            # stacked IP headers
    uint8_t *inner_ip_version # the innermost IP header, if depth > 1
    uint8_t *inner_protocol
    uint16_t *inner_flags
    uint16_t *inner_l3_offset
    uint16_t *inner_source_port
    uint16_t *inner_target_port
    uint8_t *inner_source_address
    uint8_t *inner_target_address
    uint8_t *tunnel_kind      # the innermost tunnel that was entered, TUNNEL_* of headers/; 0: none
    uint32_t *tunnel_id       # its key, VNI, TEID, session, …
    Offload *offload          # filled only if PacketBatch.offloads

cdef inline void choose_columns(Columns *c, const Columns *other, uint32_t groups) noexcept nogil:
    """Sets the pointers of these groups to the other's columns."""
    if groups & GROUP_FLOW:
        c.flow_hash = other.flow_hash
    if groups & GROUP_HEADERS:
        c.ip_version, c.protocol, c.flags = other.ip_version, other.protocol, other.flags
        c.l3_offset, c.l4_offset, c.payload_offset = other.l3_offset, other.l4_offset, other.payload_offset
        c.source_port, c.target_port = other.source_port, other.target_port
        c.fragment_offset = other.fragment_offset
    if groups & GROUP_ADDRESSES:
        c.source_address, c.target_address = other.source_address, other.target_address
    if groups & GROUP_VLAN:
        c.vlan_count, c.vlan = other.vlan_count, other.vlan
    if groups & GROUP_INNER:
        c.depth, c.inner_ip_version, c.inner_protocol = other.depth, other.inner_ip_version, other.inner_protocol
        c.inner_flags, c.inner_l3_offset = other.inner_flags, other.inner_l3_offset
        c.inner_source_port, c.inner_target_port = other.inner_source_port, other.inner_target_port
        c.inner_source_address, c.inner_target_address = other.inner_source_address, other.inner_target_address
        c.tunnel_kind, c.tunnel_id = other.tunnel_kind, other.tunnel_id


# The first page of an arena: what the workers must know about the stream and the output.
cdef struct Control:
    uint64_t committed_bytes  # of the output file: whole records up to here
    uint64_t reserved[7]
    uint16_t link_type[65536] # of each interface

cdef class Arena:
    cdef readonly int fd                    # memfd, or -1: private memory
    cdef readonly Py_ssize_t chunk_count
    cdef readonly Py_ssize_t data_bytes_max # per chunk
    cdef readonly Py_ssize_t rows_max       # per chunk
    cdef readonly Py_ssize_t stride         # bytes from one chunk to the next
    cdef readonly Py_ssize_t size           # bytes of the whole mapping
    cdef readonly bint writable
    cdef uint8_t *base
    cdef Control *control
    cdef object free                        # indices of the chunks that are not in use
    cdef object wake                        # condition that guards `free`
    cdef bint closed
    cdef void columns(self, Py_ssize_t index, Columns *columns) noexcept nogil

cdef class Chunk:
    cdef object __weakref__
    cdef readonly Arena arena
    cdef readonly Py_ssize_t index
    cdef bint owned                         # goes back to the arena with the last reference
    cdef Columns columns                    # data: the chunk's own, or borrowed memory
    cdef Py_ssize_t data_bytes              # size of columns.data
    cdef readonly object borrowed_from             # keeps borrowed memory until it is dropped; None: the packets are in the chunk
    cdef void borrow(self, uint8_t *data, Py_ssize_t data_bytes, object borrowed_from)
    cdef cnp.ndarray array(self, int kind, void *pointer, Py_ssize_t count, Py_ssize_t width)

cdef class Copier:
    cdef readonly uint64_t added            # packets more than it was given, because it cut some into several
    cdef readonly uint64_t added_bytes      # captured bytes of them
    cdef Py_ssize_t copy(self, PacketBatch batch, uint8_t *target) except -1

cdef class PacketBatch:
    cdef readonly Chunk chunk
    cdef readonly Py_ssize_t count          # packets in the chunk
    cdef readonly uint64_t first_number     # the first packet's number in the first stream, from 0
    cdef readonly Py_ssize_t span_start     # data[span_start:span_stop] are this batch's records
    cdef readonly Py_ssize_t span_stop
    cdef readonly list interfaces           # of the whole stream so far: Interface
    cdef public uint32_t groups             # GROUP_* that are filled
    cdef public Py_ssize_t row_count        # rows in use; all packets in order if `arranged` is false
    cdef public bint arranged               # true: columns.rows[0:row_count] has the rows in use, in order
    cdef public uint32_t segment_count      # segments that it was divided into
    cdef public bint contiguous             # records of consecutive rows are adjacent, of one kind, and have the stream's interface numbers
    cdef public bint interleaved            # the rows of its segments interleave, so they must leave together
    cdef public bint offloads               # the column `offload` is filled: some packets leave something to hardware
    cdef public Copier copier               # copies the packets of such a batch to the chunk; None: as they are
    cdef public object parser               # called as parser(batch, groups) when a column of another group is read
    cdef Columns columns
    cdef Chunk own                          # columns parsed in this process, if the arena is mapped read-only
    cdef uint32_t own_groups                # GROUP_* that are in it
    cdef int prepare_columns(self, uint32_t groups) except -1
    cdef cnp.ndarray column(self, uint32_t group, int kind, void **pointer, Py_ssize_t width)  # *pointer changes when it is parsed

cdef class Segment:
    cdef readonly uint64_t number           # in order of creation, from 0
    cdef readonly PacketBatch batch
    cdef readonly Py_ssize_t start          # its rows are columns.rows[start:stop], or start..stop if not arranged
    cdef readonly Py_ssize_t stop
    cdef readonly uint32_t lane             # segments of one lane go to one worker, in order
    cdef readonly uint64_t byte_count       # captured bytes
    cdef readonly uint32_t stream           # its stream: an index into the run's list of streams

cdef class Result:
    cdef readonly Segment segment
    cdef readonly bint dead                 # no worker could process it; nothing below is set
    cdef readonly bint unchanged            # nothing below is set but keep, keys and the Python fields
    cdef uint8_t *packed                    # changed packets: whole records in row order, or packets if lengths are set
    cdef uint64_t packed_bytes
    cdef uint32_t *offset                   # of packet i in packed (or in the chunk if packed is NULL); NULL: lengths unchanged
    cdef uint32_t *captured_length
    cdef uint32_t *wire_length
    cdef uint8_t *keep                      # 0: dropped; NULL: all kept
    cdef uint64_t *keys                     # two per packet, for Service.drop_by_keys; NULL: none
    cdef public dict comments               # packet of the segment -> list[bytes]
    cdef public list reports                # (index of the service, report)
    cdef public dict drops                  # reason -> (packets, bytes)
    cdef public str reason                  # the reason if it is dead
    cdef public str provider                # the key of the provider that made it; "": the run's own workers
    cdef public object hold                 # an object that keeps the memory behind the pointers


cdef class Outgoing:
    cdef readonly PacketBatch batch
    cdef readonly Py_ssize_t start          # unchanged: the rows, as in Segment
    cdef readonly Py_ssize_t stop
    cdef readonly bint unchanged            # packets of the lengths that they came with; the arrays below are NULL
    cdef uint8_t *moved                     # unchanged: where the rows' records stand, side by side, if not in the chunk; or NULL
    cdef readonly bint arranged             # unchanged: the rows are batch.rows[start:stop]; otherwise start..stop themselves
    cdef readonly Py_ssize_t count          # packets in the arrays below, in the order in which they leave
    cdef uint32_t *row                      # each one's row in the batch: its timestamp, interface and record kind
    cdef uint8_t **packet                   # its first byte; NULL: dropped
    cdef uint32_t *captured_length
    cdef uint32_t *wire_length
    cdef uint8_t *whole                     # 1: its record header and trailer surround it, with unchanged length
    cdef public dict comments               # row -> list[bytes]: comments added to that packet, UTF-8
    cdef public object hold                 # an object that keeps the memory behind the pointers


cdef inline uint32_t record_head(uint8_t kind) noexcept nogil:
    """Bytes of the record header before a packet."""
    if kind <= RECORD_PCAP_SWAPPED:
        return 16
    if kind == RECORD_SPB or kind == RECORD_SPB_SWAPPED:
        return 12
    if kind <= RECORD_OPB_SWAPPED:
        return 28
    if kind <= RECORD_KUZNETZOV_SWAPPED:
        return 24
    return 0


cdef inline uint32_t swap32(uint32_t value) noexcept nogil:
    return (value >> 24) | ((value >> 8) & 0xFF00) | ((value << 8) & 0xFF0000) | (value << 24)


cdef inline uint32_t record_start(const Columns *columns, Py_ssize_t row) noexcept nogil:
    return columns.offset[row] - record_head(columns.record[row])


cdef inline uint32_t record_size(const Columns *columns, Py_ssize_t row) noexcept nogil:
    """Bytes of a whole record, header to trailer. The reader has checked that it is inside the chunk."""
    cdef uint8_t kind = columns.record[row]
    cdef uint32_t total
    if kind <= RECORD_PCAP_SWAPPED:
        return 16 + columns.captured_length[row]
    if kind <= RECORD_OPB_SWAPPED:
        total = (<uint32_t *> (columns.data + record_start(columns, row) + 4))[0]
        return swap32(total) if kind & 1 else total
    return record_head(kind) + columns.captured_length[row]


cdef inline uint8_t *outgoing_data(const Columns *columns, Outgoing out) noexcept nogil:
    """What the column `offset` counts from, of packets that leave unchanged in length."""
    if out.moved == NULL:
        return columns.data
    return out.moved - record_start(columns, out.start)


cdef inline uint64_t records_size(const Columns *columns, bint arranged, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """Bytes of the whole records of rows start..stop (of columns.rows if arranged)."""
    cdef uint64_t total = 0
    cdef Py_ssize_t at
    for at in range(start, stop):
        total += record_size(columns, columns.rows[at] if arranged else at)
    return total


cdef inline uint64_t pack_records(const Columns *columns, bint arranged, Py_ssize_t start, Py_ssize_t stop, uint8_t *target,
                                  uint64_t room, uint32_t *offset) noexcept nogil:
    """Copies whole records to target, which has room for so many bytes; offset[i]: of packet i in target.

    Returns the bytes that they take; if that exceeds the room, not all of them were copied. Adjacent records in the
    chunk are copied together.
    """
    cdef uint64_t used = 0
    cdef uint32_t begin = 0, end = 0, first, size
    cdef Py_ssize_t at, row
    for at in range(start, stop):
        row = columns.rows[at] if arranged else at
        if arranged and at + AHEAD < stop:
            prefetch(columns.data + columns.offset[columns.rows[at + AHEAD]])
        first = record_start(columns, row)
        size = record_size(columns, row)
        if first != end or at == start:
            memcpy(target + used - (end - begin), columns.data + begin, end - begin)
            begin = end = first
        offset[at - start] = <uint32_t> (used + record_head(columns.record[row]))
        used += size
        if used > room:
            return used
        end += size
    memcpy(target + used - (end - begin), columns.data + begin, end - begin)
    return used


cdef inline void put_record_head(uint8_t *to, int64_t timestamp_ns, uint32_t captured_length, uint32_t wire_length) noexcept nogil:
    """PCAP_HEAD bytes: the header of a pcap record with nanoseconds."""
    cdef uint32_t[4] head
    head[0] = <uint32_t> (timestamp_ns / 1_000_000_000)
    head[1] = <uint32_t> (timestamp_ns % 1_000_000_000)
    head[2] = captured_length
    head[3] = wire_length
    memcpy(to, head, sizeof(head))


cdef inline Py_ssize_t copy_records(Columns *c, uint8_t *target, bint arranged, Py_ssize_t count, Py_ssize_t row_count,
                                     Py_ssize_t bytes_max) noexcept nogil:
    """Writes the packets of the rows in use to target as pcap records with nanoseconds. Returns the bytes, or -1
    without room."""
    cdef Py_ssize_t row, at = 0
    cdef uint32_t used = 0
    for row in range(count):
        if arranged and (at == row_count or c.rows[at] != <uint32_t> row):
            c.offset[row] = c.captured_length[row] = 0
            continue
        at += 1
        if used + PCAP_HEAD + c.captured_length[row] > <size_t> bytes_max:
            return -1
        put_record_head(target + used, c.timestamp_ns[row], c.captured_length[row], c.wire_length[row])
        used += PCAP_HEAD
        memcpy(target + used, c.data + c.offset[row], c.captured_length[row])
        c.offset[row] = used
        c.record[row] = RECORD_PCAP
        used += c.captured_length[row]
    return used if at == row_count else -1
