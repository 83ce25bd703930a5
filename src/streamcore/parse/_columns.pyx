"""Headers -> columns, a batch at a time; the flow hash; and the fragments, which follow their flow where the first one was seen.

The flow hash is symmetric and seeded: each of its multiplications mixes a secret in, so nobody outside can aim at one lane.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from streamcore.packets cimport (
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
)
from streamcore.parse._headers cimport Headers, Layer, parse_headers

cdef extern from *:
    """
    #if defined(__GNUC__) || defined(__clang__)
    #define sc_prefetch(address) __builtin_prefetch(address)
    #else
    #define sc_prefetch(address) ((void) 0)
    #endif
    static inline uint64_t sc_mix(uint64_t a, uint64_t b) {
        unsigned __int128 product = (unsigned __int128) a * b;
        return (uint64_t) product ^ (uint64_t) (product >> 64);
    }
    static inline uint64_t sc_load64(const uint8_t *at) { uint64_t value; __builtin_memcpy(&value, at, 8); return value; }
    static inline uint32_t sc_load32(const uint8_t *at) { uint32_t value; __builtin_memcpy(&value, at, 4); return value; }
    static inline uint16_t sc_load16(const uint8_t *at) { uint16_t value; __builtin_memcpy(&value, at, 2); return value; }
    """
    void sc_prefetch(const void *address) noexcept nogil
    uint64_t sc_mix(uint64_t a, uint64_t b) noexcept nogil  # folded 64 x 64 -> 128 bit multiplication, as in wyhash
    uint64_t sc_load64(const uint8_t *at) noexcept nogil
    uint32_t sc_load32(const uint8_t *at) noexcept nogil
    uint16_t sc_load16(const uint8_t *at) noexcept nogil

cdef enum:
    PREFETCH_BYTES = 512     # how far ahead of the packet in hand its successors are fetched
    WAYS = 4                 # fragments kept for one hash

# Capture time that a datagram's fragments may take (RFC 791 allows 255 s, RFC 8200 60 s).
cdef int64_t FRAGMENT_NS = 60_000_000_000

cdef struct Fragment:
    uint64_t key             # keyed hash of addresses, protocol and identification
    uint64_t check           # another, so that two datagrams do not meet
    int64_t time_ns
    uint32_t flow_hash
    bint used


cdef class ColumnParser:
    """Fills parse columns. Parameters: seed (any 64-bit number), fragments_max (0: keep none, every later fragment is an orphan)."""

    cdef uint64_t[4] secret
    cdef Fragment *fragments
    cdef uint64_t sets  # a power of two
    cdef readonly uint64_t malformed
    cdef readonly uint64_t truncated
    cdef readonly uint64_t orphans
    cdef readonly uint64_t link_unknown

    def __init__(self, uint64_t seed, Py_ssize_t fragments_max=0):
        cdef int i
        cdef uint64_t state = seed
        for i in range(4):  # SplitMix64, so that any seed gives four good secrets
            state += <uint64_t> 0x9E3779B97F4A7C15
            self.secret[i] = sc_mix(state ^ <uint64_t> 0xBF58476D1CE4E5B9, state ^ <uint64_t> 0x94D049BB133111EB) | 1
        if fragments_max:
            self.sets = 1
            while self.sets * WAYS * 2 <= <uint64_t> fragments_max:
                self.sets *= 2
            self.fragments = <Fragment *> calloc(self.sets * WAYS, sizeof(Fragment))
            if self.fragments == NULL:
                raise MemoryError(f"no room for {fragments_max} fragments")

    def __dealloc__(self):
        free(self.fragments)

    def parse(self, PacketBatch batch not None, uint32_t groups):
        """Fill the columns of `groups` (GROUP_ bits) for every packet of the batch. Counts what it met."""
        groups &= GROUP_ALL & ~batch.groups
        if groups:
            with nogil:
                if groups == GROUP_FLOW:
                    self.flow_columns(&batch.columns, batch.chunk.arena.control, batch.count)
                else:
                    self.all_columns(&batch.columns, batch.chunk.arena.control, batch.count, groups)
            batch.groups |= groups

    cdef void flow_columns(self, Columns *c, const Control *control, Py_ssize_t count) noexcept nogil:
        """flow_hash alone: the ordinary packet never leaves this loop. About 8 ns a packet (bench_parse.py)."""
        cdef Py_ssize_t row
        cdef const uint8_t *p
        cdef uint32_t size
        cdef uint8_t protocol
        cdef uint64_t one, two, other
        for row in range(count):
            p = c.data + c.offset[row]
            size = c.captured_length[row]
            sc_prefetch(p + PREFETCH_BYTES)
            # Ethernet, IPv4 without options, not a fragment, TCP or UDP, headers whole: as parse_headers would find it
            if size >= 42 and control.link_type[c.interface[row]] == 1 and sc_load16(p + 12) == 0x0008 and p[14] == 0x45:
                protocol = p[23]
                if (sc_load16(p + 20) & 0xFF3F) == 0 and p[16] < 0x80 and (
                    (protocol == 17 and ((p[16] << 8) | p[17]) >= 28)
                    or (protocol == 6 and size >= 54 and ((p[16] << 8) | p[17]) >= 40 and p[46] >> 4 == 5)
                ):
                    one = (<uint64_t> sc_load32(p + 26) << 16) | sc_load16(p + 34)
                    two = (<uint64_t> sc_load32(p + 30) << 16) | sc_load16(p + 36)
                    other = one if one > two else two
                    one = two if one > two else one
                    c.flow_hash[row] = self.finish(sc_mix(one ^ self.secret[0], other ^ self.secret[1]), protocol, 0)
                    continue
            c.flow_hash[row] = self.general_flow(c, control, row)

    cdef uint32_t general_flow(self, Columns *c, const Control *control, Py_ssize_t row) noexcept nogil:
        cdef Headers headers
        cdef uint16_t flags
        parse_headers(c.data + c.offset[row], c.captured_length[row], control.link_type[c.interface[row]], &headers)
        flags = headers.outer.flags
        value = self.flow_hash(&headers, c.data + c.offset[row], c.captured_length[row], c.timestamp_ns[row], &flags)
        self.tell(flags | headers.inner.flags)
        return value

    cdef void all_columns(self, Columns *c, const Control *control, Py_ssize_t count, uint32_t groups) noexcept nogil:
        """Every group asked for. Some 15 to 25 ns a packet (bench_parse.py)."""
        cdef Headers h
        cdef Py_ssize_t row
        cdef const uint8_t *p
        cdef uint32_t size
        cdef uint16_t flags
        for row in range(count):
            p = c.data + c.offset[row]
            size = c.captured_length[row]
            sc_prefetch(p + PREFETCH_BYTES)
            parse_headers(p, size, control.link_type[c.interface[row]], &h)
            flags = h.outer.flags
            if groups & GROUP_FLOW:
                c.flow_hash[row] = self.flow_hash(&h, p, size, c.timestamp_ns[row], &flags)
            if groups & GROUP_HEADERS:
                c.ip_version[row] = h.outer.version
                c.protocol[row] = h.outer.protocol
                c.flags[row] = flags
                c.l3_offset[row] = h.outer.l3
                c.l4_offset[row] = h.outer.l4
                c.payload_offset[row] = h.outer.payload
                c.source_port[row] = h.outer.source_port
                c.target_port[row] = h.outer.target_port
                c.fragment_offset[row] = h.outer.fragment_offset
            if groups & GROUP_ADDRESSES:
                put_address(c.source_address + 16 * row, h.outer.version, h.outer.source)
                put_address(c.target_address + 16 * row, h.outer.version, h.outer.target)
            if groups & GROUP_VLAN:
                c.vlan_count[row] = h.vlan_count
                memcpy(c.vlan + VLAN_KEPT * row, h.vlan, sizeof(h.vlan))
            if groups & GROUP_INNER:
                c.depth[row] = h.depth
                c.inner_ip_version[row] = h.inner.version
                c.inner_protocol[row] = h.inner.protocol
                c.inner_flags[row] = h.inner.flags
                c.inner_l3_offset[row] = h.inner.l3
                c.inner_source_port[row] = h.inner.source_port
                c.inner_target_port[row] = h.inner.target_port
                put_address(c.inner_source_address + 16 * row, h.inner.version, h.inner.source)
                put_address(c.inner_target_address + 16 * row, h.inner.version, h.inner.target)
            self.tell(flags | h.inner.flags)

    cdef inline void tell(self, uint16_t flags) noexcept nogil:
        self.malformed += (flags & FLAG_MALFORMED) != 0
        self.truncated += (flags & FLAG_TRUNCATED) != 0
        self.orphans += (flags & FLAG_ORPHAN) != 0
        self.link_unknown += (flags & FLAG_LINK_UNKNOWN) != 0

    cdef inline uint32_t finish(self, uint64_t value, uint8_t protocol, uint64_t tags) noexcept nogil:
        value = sc_mix(value ^ self.secret[2], self.secret[3] ^ (<uint64_t> protocol << 56) ^ tags)
        return <uint32_t> (value >> 32)

    cdef uint32_t flow_hash(self, const Headers *h, const uint8_t *p, uint32_t size, int64_t time_ns, uint16_t *flags) noexcept nogil:
        """The hash of a packet's flow: of its outermost addresses, ports, protocol and VLAN ids; without IP, of its MAC addresses."""
        cdef const Layer *layer = &h.outer
        cdef uint64_t tags = 0, one, two, other, word
        cdef uint32_t value
        cdef int i
        for i in range(min(h.vlan_count, <int> VLAN_KEPT)):
            tags = (tags << 12) | h.vlan[i]
        if layer.version == 0:
            one = two = 0
            if size >= 14 and h.known:  # MAC addresses, or whatever stands there: all that such packets have in common
                memcpy(&one, p, 6)
                memcpy(&two, p + 6, 6)
            other = one if one > two else two
            one = two if one > two else one
            return self.finish(sc_mix(one ^ self.secret[0], other ^ self.secret[1]), 255, tags ^ (<uint64_t> h.ether_type << 48))
        if layer.version == 4:  # as the fast path does it; zero ports where there are none
            word = 0
            if layer.source_port or layer.target_port:
                word = sc_load32(p + layer.l4)
            one = (<uint64_t> sc_load32(layer.source) << 16) | (word & 0xFFFF)
            two = (<uint64_t> sc_load32(layer.target) << 16) | (word >> 16)
        else:
            one = sc_mix(sc_load64(layer.source) ^ self.secret[2], sc_load64(layer.source + 8) ^ self.secret[3]) + layer.source_port
            two = sc_mix(sc_load64(layer.target) ^ self.secret[2], sc_load64(layer.target + 8) ^ self.secret[3]) + layer.target_port
        other = one if one > two else two
        one = two if one > two else one
        value = self.finish(sc_mix(one ^ self.secret[0], other ^ self.secret[1]), layer.protocol, tags)
        if layer.flags & FLAG_FRAGMENT:
            return self.fragment(layer, tags, value, time_ns, flags)
        return value

    cdef uint32_t fragment(self, const Layer *layer, uint64_t tags, uint32_t value, int64_t time_ns, uint16_t *flags) noexcept nogil:
        """The hash of a fragment's flow: the first fragment leaves it, later ones find it; bounded, the oldest of a set gives way."""
        cdef uint64_t key, check
        cdef Fragment *entry
        cdef Fragment *victim
        cdef int i
        cdef int half = 4 if layer.version == 4 else 16
        cdef uint64_t[4] words
        memset(words, 0, sizeof(words))
        memcpy(words, layer.source, half)
        memcpy(&words[2], layer.target, half)
        key = sc_mix(words[0] ^ self.secret[0], words[2] ^ self.secret[1]) ^ sc_mix(words[1] ^ self.secret[2], words[3] ^ self.secret[3])
        check = sc_mix(key ^ self.secret[1], layer.identification ^ (<uint64_t> layer.protocol << 32) ^ (tags << 40) ^ self.secret[2])
        key = sc_mix(check ^ self.secret[3], key ^ layer.identification ^ self.secret[0])
        if self.sets == 0:
            if layer.fragment_offset:
                flags[0] |= FLAG_ORPHAN
            return value
        entry = victim = self.fragments + (key & (self.sets - 1)) * WAYS
        for i in range(WAYS):
            if entry.used and entry.key == key and entry.check == check and time_ns - entry.time_ns < FRAGMENT_NS:
                if layer.fragment_offset:
                    return entry.flow_hash
                victim = entry
                break
            if not entry.used or (victim.used and entry.time_ns < victim.time_ns):
                victim = entry
            entry += 1
        if layer.fragment_offset:
            flags[0] |= FLAG_ORPHAN
            return value
        victim.key = key
        victim.check = check
        victim.time_ns = time_ns
        victim.flow_hash = value
        victim.used = True
        return value


cdef inline void put_address(uint8_t *target, uint8_t version, const uint8_t *address) noexcept nogil:
    if version == 6:
        memcpy(target, address, 16)
        return
    memset(target, 0, 16)
    if version == 4:
        target[10] = target[11] = 0xFF
        memcpy(target + 12, address, 4)
