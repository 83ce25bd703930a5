"""Headers -> columns, one batch at a time: one loop fills only the flow hash, which is all that most runs need; the other fills any column.

What a header means is in headers/; what a flow is, in _key.pxd and _fragments.pyx.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from streamcore.core.packets cimport (
    FLAG_FRAGMENT,
    FLAG_LINK_UNKNOWN,
    FLAG_MALFORMED,
    FLAG_ORPHAN,
    FLAG_TRUNCATED,
    GROUP_ADDRESSES,
    GROUP_ALL,
    GROUP_FLOW,
    GROUP_HEADERS,
    GROUP_INNER,
    GROUP_VLAN,
    VLAN_KEPT,
    Columns,
    Control,
    PacketBatch,
    prefetch,
)
from streamcore.headers._plain cimport Headers, read_headers
from streamcore.headers._walk cimport IpHeader, UdpPorts, UdpTable, Walk, all_flags, walk_headers
from streamcore.parse._fragments cimport Fragments
from streamcore.parse._key cimport (
    BY_OUTER,
    IN_TUNNEL,
    Around,
    FlowKey,
    Seed,
    deep_hash,
    fill_seed,
    key_hash,
    narrow_hash,
    opens_tunnel,
    opens_tunnel6,
    ordinary4,
    ordinary6,
    wide_hash,
)

cdef enum:
    PREFETCH_BYTES = 512     # how far ahead of the current packet memory is prefetched; those bytes are not read yet
    CLEARED_ROWS = 256       # of the inner columns at a time, so that they are still in the cache when they are filled
    ETHERNET = 1


cdef class ColumnParser:
    """Fills parse columns. seed: any 64-bit number. fragments_max: 0 keeps none, so every later fragment is an orphan. ports: which tunnels over
    UDP are tried. by: which headers flow_hash depends on (BY_*)."""

    cdef Seed seed
    cdef UdpPorts ports
    cdef bint deep           # flow_hash depends on more than the outermost header
    cdef Fragments fragments
    cdef readonly uint64_t malformed
    cdef readonly uint64_t truncated
    cdef readonly uint64_t orphans
    cdef readonly uint64_t link_unknown

    def __init__(self, uint64_t seed, Py_ssize_t fragments_max, UdpPorts ports not None, int by=BY_OUTER):
        fill_seed(&self.seed, seed)
        self.ports = ports
        self.deep = by != BY_OUTER
        self.fragments = Fragments(fragments_max, seed, by)

    def parse(self, PacketBatch batch not None, uint32_t groups):
        """Fill the columns of `groups` (GROUP_ bits) for every packet of the batch, and count what was met, once per batch."""
        cdef bint counting = not batch.groups & (GROUP_FLOW | GROUP_HEADERS)
        groups &= GROUP_ALL & ~batch.groups
        if groups:
            batch.prepare_columns(groups)
            counting = counting and groups & (GROUP_FLOW | GROUP_HEADERS) != 0
            with nogil:
                if groups == GROUP_FLOW and self.deep:
                    fill_flow_hash(self, &batch.columns, batch.chunk.arena.control, batch.count, counting, True)
                elif groups == GROUP_FLOW:
                    fill_flow_hash(self, &batch.columns, batch.chunk.arena.control, batch.count, counting, False)
                else:
                    self.all_columns(&batch.columns, batch.chunk.arena.control, batch.count, groups, counting)
            batch.groups |= groups

    cdef uint32_t hash(self, const uint8_t *p, uint16_t link_type, int64_t time_ns, Walk *headers) noexcept nogil:
        """flow_hash of a walked packet. Also marks orphans in `headers`."""
        cdef FlowKey key
        cdef Around around
        self.fragments.key(p, link_type, time_ns, headers, &key, &around if self.deep else NULL)
        return <uint32_t> (deep_hash(&self.seed, &key, &around) if key.version & IN_TUNNEL else key_hash(&self.seed, &key))

    cdef void all_columns(self, Columns *c, const Control *control, Py_ssize_t count, uint32_t groups, bint counting) noexcept nogil:
        """Every group asked for. About 17 ns per packet for the headers, 23 for all groups; of packets in VXLAN 22 and 34 (bench_parse.py)."""
        cdef Walk h
        cdef Headers ordinary
        cdef Columns to = c[0]  # of our own: what is written to columns cannot change it, which the compiler sees
        cdef const IpHeader *outer
        cdef const IpHeader *inner
        cdef uint32_t tunnel_id
        cdef uint8_t tunnel_kind, depth
        cdef const UdpTable *udp = &self.ports.table
        cdef uint32_t hashed
        cdef bint hashing = groups & GROUP_FLOW != 0
        cdef Py_ssize_t row
        cdef const uint8_t *p
        cdef uint32_t size
        cdef uint16_t link_type
        for row in range(count):
            if groups & GROUP_INNER and row % CLEARED_ROWS == 0:
                clear_inner(c, row, min(count - row, <Py_ssize_t> CLEARED_ROWS))
            p = to.data + to.offset[row]
            size = to.captured_length[row]
            link_type = control.link_type[to.interface[row]]
            prefetch(p + PREFETCH_BYTES)
            if (link_type == ETHERNET and read_headers(udp, p, size, &ordinary)
                    and (not hashing or (not (self.deep and ordinary.tunnel_kind) and ordinary_hash(&self.seed, p, size, &to.flow_hash[row])))):
                outer, inner = &ordinary.outer, &ordinary.inner
                depth, tunnel_kind, tunnel_id = ordinary.depth, ordinary.tunnel_kind, ordinary.tunnel_id
                if groups & GROUP_VLAN:
                    to.vlan_count[row] = 0
                    memset(to.vlan + VLAN_KEPT * row, 0, VLAN_KEPT * sizeof(uint16_t))
            else:
                walk_headers(udp, p, size, link_type, &h)
                outer, inner = &h.outer, &h.inner
                depth, tunnel_kind, tunnel_id = h.depth, h.tunnel_kind, h.tunnel_id
                if hashing or (groups & GROUP_HEADERS and h.outer.flags & FLAG_FRAGMENT):
                    hashed = self.hash(p, link_type, to.timestamp_ns[row], &h)
                    if hashing:
                        to.flow_hash[row] = hashed
                if groups & GROUP_VLAN:
                    to.vlan_count[row] = h.vlan_count
                    memcpy(to.vlan + VLAN_KEPT * row, h.vlan, sizeof(h.vlan))
                if counting:
                    self.tell(all_flags(&h))
            if groups & GROUP_HEADERS:
                put_headers(&to, row, outer)
            if groups & GROUP_ADDRESSES:
                put_address(to.source_address + 16 * row, outer.version, outer.source)
                put_address(to.target_address + 16 * row, outer.version, outer.target)
            if groups & GROUP_INNER:
                to.depth[row] = depth
                if tunnel_kind:
                    to.tunnel_kind[row] = tunnel_kind
                    to.tunnel_id[row] = tunnel_id
                if depth > 1:
                    put_inner(&to, row, inner)

    cdef inline void tell(self, uint16_t flags) noexcept nogil:
        self.malformed += (flags & FLAG_MALFORMED) != 0
        self.truncated += (flags & FLAG_TRUNCATED) != 0
        self.orphans += (flags & FLAG_ORPHAN) != 0
        self.link_unknown += (flags & FLAG_LINK_UNKNOWN) != 0


cdef inline void fill_flow_hash(ColumnParser parser, Columns *c, const Control *control, Py_ssize_t count, bint counting,
                                bint deep) noexcept nogil:
    """flow_hash alone: an ordinary packet never leaves this loop. About 5 to 8 ns per packet (bench_parse.py). deep: parser.deep, a constant in
    both calls, so that each is compiled to a loop of its own."""
    cdef Walk headers
    cdef FlowKey key
    cdef const UdpTable *udp = &parser.ports.table
    cdef const Seed *seed = &parser.seed
    cdef Py_ssize_t row
    cdef const uint8_t *p
    cdef uint64_t first, second
    cdef uint32_t size
    cdef uint16_t link_type
    cdef bint swapped
    for row in range(count):
        p = c.data + c.offset[row]
        size = c.captured_length[row]
        link_type = control.link_type[c.interface[row]]
        prefetch(p + PREFETCH_BYTES)
        if link_type == ETHERNET:
            if ordinary4(p, size, &first, &second, &swapped) and not (deep and opens_tunnel(udp, first, second)):
                c.flow_hash[row] = <uint32_t> narrow_hash(seed, first, second)
                continue
            if ordinary6(p, size, &key) and not (deep and opens_tunnel6(udp, &key)):
                c.flow_hash[row] = <uint32_t> wide_hash(seed, &key)
                continue
        walk_headers(udp, p, size, link_type, &headers)
        c.flow_hash[row] = parser.hash(p, link_type, c.timestamp_ns[row], &headers)
        if counting:
            parser.tell(all_flags(&headers))


cdef inline bint ordinary_hash(const Seed *seed, const uint8_t *p, uint32_t size, uint32_t *hash) noexcept nogil:
    """flow_hash of an ordinary packet by its outermost header. False: it is another, and nothing was written."""
    cdef FlowKey key
    cdef uint64_t first, second
    cdef bint swapped
    if ordinary4(p, size, &first, &second, &swapped):
        hash[0] = <uint32_t> narrow_hash(seed, first, second)
    elif ordinary6(p, size, &key):
        hash[0] = <uint32_t> wide_hash(seed, &key)
    else:
        return False
    return True


cdef void clear_inner(Columns *c, Py_ssize_t row, Py_ssize_t count) noexcept nogil:
    """Fill the inner columns of so many rows as for packets with one IP header and no tunnel. Most packets need nothing more."""
    memset(c.inner_ip_version + row, 0, count)
    memset(c.inner_protocol + row, 0, count)
    memset(c.inner_flags + row, 0, 2 * count)
    memset(c.inner_l3_offset + row, 0xFF, 2 * count)  # NO_OFFSET
    memset(c.inner_source_port + row, 0, 2 * count)
    memset(c.inner_target_port + row, 0, 2 * count)
    memset(c.inner_source_address + 16 * row, 0, 16 * count)
    memset(c.inner_target_address + 16 * row, 0, 16 * count)
    memset(c.tunnel_kind + row, 0, count)
    memset(c.tunnel_id + row, 0, 4 * count)


cdef inline void put_headers(Columns *c, Py_ssize_t row, const IpHeader *outer) noexcept nogil:
    c.ip_version[row] = outer.version
    c.protocol[row] = outer.protocol
    c.flags[row] = outer.flags
    c.l3_offset[row] = outer.l3
    c.l4_offset[row] = outer.l4
    c.payload_offset[row] = outer.payload
    c.source_port[row] = outer.source_port
    c.target_port[row] = outer.target_port
    c.fragment_offset[row] = outer.fragment_offset


cdef inline void put_inner(Columns *c, Py_ssize_t row, const IpHeader *inner) noexcept nogil:
    c.inner_ip_version[row] = inner.version
    c.inner_protocol[row] = inner.protocol
    c.inner_flags[row] = inner.flags
    c.inner_l3_offset[row] = inner.l3
    c.inner_source_port[row] = inner.source_port
    c.inner_target_port[row] = inner.target_port
    put_address(c.inner_source_address + 16 * row, inner.version, inner.source)
    put_address(c.inner_target_address + 16 * row, inner.version, inner.target)


cdef inline void put_address(uint8_t *target, uint8_t version, const uint8_t *address) noexcept nogil:
    """In two words: ::ffff:0:0 and below, as this little-endian processor writes them."""
    cdef uint64_t[2] words
    cdef uint32_t four
    words[0] = words[1] = 0
    if version == 4:
        memcpy(&four, address, 4)
        words[1] = <uint64_t> four << 32 | 0xFFFF0000u
    elif version == 6:
        memcpy(words, address, 16)
    memcpy(target, words, 16)
