"""The flow key of any packet. Fragments (RFC 791, RFC 8200 4.5) belong to the flow of their first fragment.

Later fragments have no ports, so the table keeps the first one's protocol and ports for as long as reassembly may take. Bounded: buckets of
WAYS entries; a full bucket forgets its oldest entry. A table that never meets a fragment uses no memory.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from streamcore.core.packets cimport FLAG_FRAGMENT, FLAG_ORPHAN, VLAN_KEPT
from streamcore.core.tables cimport fold
from streamcore.headers._walk cimport IpHeader, Walk
from streamcore.parse._key cimport (
    BY_BOTH,
    BY_OUTER,
    IN_TUNNEL,
    KEY_LINK_ONLY,
    KEY_NO_IP,
    WITH_OUTER,
    Around,
    FlowKey,
    fill_seed,
    load16,
    load32,
    load64,
    set_endpoints,
    swap16,
)

cdef enum:
    WAYS = 8
    ETHERNET = 1

cdef int64_t AGE_NS_MAX = 60_000_000_000  # RFC 8200 4.5: reassembly is abandoned after 60 seconds
cdef uint64_t WITHIN = <uint64_t> 1 << 63  # set in the context of a datagram in a tunnel


cdef class Fragments:
    """Fragments(entries_max, seed, by). entries_max: 0, or rounded up to a power of two of at least 16. Each entry takes 64 bytes once it is used,
    and 216 more if flows depend on what is in tunnels (by: BY_*)."""

    def __init__(self, Py_ssize_t entries_max, uint64_t seed, int by=BY_OUTER):
        cdef uint64_t buckets = 2
        if not 0 <= entries_max <= 1 << 26 or not BY_OUTER <= by <= BY_BOTH:
            raise ValueError(f"a fragment table cannot have {entries_max} entries: use 0 to {1 << 26}")
        fill_seed(&self.seed, seed)
        self.by = by
        if entries_max == 0:
            return
        while buckets * WAYS < <uint64_t> entries_max:
            buckets *= 2
        self.bucket_mask = buckets - 1
        self.entries = <FragmentEntry *> calloc(buckets * WAYS, sizeof(FragmentEntry))
        if by != BY_OUTER:
            self.deep = <DeepEntry *> calloc(buckets * WAYS, sizeof(DeepEntry))
        if self.entries == NULL or (by != BY_OUTER and self.deep == NULL):
            raise MemoryError(f"not enough memory for {entries_max} fragments")

    def __dealloc__(self):
        free(self.entries)
        free(self.deep)

    cdef bint key(self, const uint8_t *packet, uint16_t link_type, int64_t time_ns, Walk *headers, FlowKey *key, Around *around) noexcept nogil:
        """The key of a packet's flow: from the outermost IP header, or in a tunnel as `by` says; without IP, from the EtherType and MAC addresses,
        or from the link type alone.

        Returns whether the packet is in a tunnel. If so, fills `around` unless that is NULL, which it may be with BY_OUTER only. A later fragment
        of a packet that carries a tunnel counts as in the same tunnel as its first one. Sets FLAG_ORPHAN in the headers of a later fragment whose
        first one is not known; its key then has no ports.
        """
        cdef FragmentEntry *first = NULL
        cdef DeepEntry *deep
        cdef bint within = around != NULL and headers.tunnel_kind
        if within:  # before the outermost header: entering this datagram may evict the outer one's entry
            around.tunnel_kind, around.tunnel_id = headers.tunnel_kind, headers.tunnel_id
            memset(&around.inner, 0, sizeof(FlowKey))
            if headers.depth > 1:
                self.ip_key(&headers.inner, inner_context(headers), time_ns, &around.inner)
        memset(key, 0, sizeof(FlowKey))
        if headers.outer.version:
            first = self.ip_key(&headers.outer, outer_context(headers), time_ns, key)
        elif link_type == ETHERNET and headers.ether_type:
            key.version = KEY_NO_IP
            set_endpoints(key, load32(packet + 6) | (<uint64_t> load16(packet + 10) << 32), 0, headers.ether_type,
                          load32(packet) | (<uint64_t> load16(packet + 4) << 32), 0, headers.ether_type)
        else:
            key.version = KEY_LINK_ONLY
            set_endpoints(key, link_type, headers.ether_type, 0, link_type, headers.ether_type, 0)
        key.vlan_count = headers.vlan_count
        key.vlan = outer_context(headers)
        if within:
            around.outer = key[0]
            if self.by != BY_OUTER:
                self.deepen(key, around)
        if first == NULL or self.deep == NULL:
            return within
        deep = self.deep + (first - self.entries)
        if headers.outer.fragment_offset == 0:
            deep.around.tunnel_kind = 0
            if within:
                deep.key, deep.around = key[0], around[0]
        elif deep.around.tunnel_kind:
            key[0], around[0] = deep.key, deep.around
            return True
        return within

    cdef void deepen(self, FlowKey *key, const Around *around) noexcept nogil:
        if around.inner.version:
            key[0] = around.inner
            if self.by == BY_BOTH:
                key.version |= WITH_OUTER
        key.version |= IN_TUNNEL
        key.vlan = around.tunnel_id | (<uint64_t> around.tunnel_kind << 32)
        key.vlan_count = 0

    cdef FragmentEntry *ip_key(self, IpHeader *layer, uint64_t context, int64_t time_ns, FlowKey *key) noexcept nogil:
        """The key of one IP header, without VLAN ids. For a fragment, returns what is known of the first one."""
        cdef FragmentEntry *first = NULL
        cdef uint8_t protocol = layer.protocol
        cdef uint16_t source_port = swap16(layer.source_port), target_port = swap16(layer.target_port)
        if layer.flags & FLAG_FRAGMENT:
            first = self.resolve(layer, context, time_ns)
            if first != NULL:
                protocol, source_port, target_port = first.protocol, first.source_port, first.target_port
            elif layer.fragment_offset:
                layer.flags |= FLAG_ORPHAN
        key.version = layer.version
        key.protocol = protocol
        if layer.version == 4:
            set_endpoints(key, load32(layer.source), 0, source_port, load32(layer.target), 0, target_port)
        else:
            set_endpoints(key, load64(layer.source), load64(layer.source + 8), source_port,
                          load64(layer.target), load64(layer.target + 8), target_port)
        return first

    cdef FragmentEntry *resolve(self, const IpHeader *layer, uint64_t context, int64_t time_ns) noexcept nogil:
        """What is known of a fragment's first one; remembers it if this is the first. NULL: it was not seen, or too long ago."""
        cdef FragmentEntry wanted
        cdef FragmentEntry *entry
        cdef FragmentEntry *place
        cdef int i
        if self.entries == NULL:
            return NULL
        memset(&wanted, 0, sizeof(FragmentEntry))
        memcpy(wanted.source, layer.source, 4 if layer.version == 4 else 16)
        memcpy(wanted.target, layer.target, 4 if layer.version == 4 else 16)
        wanted.context = context
        wanted.identification = layer.identification
        wanted.version = layer.version
        wanted.key_protocol = layer.protocol if layer.version == 4 else 0
        entry = place = self.bucket(&wanted)
        for i in range(WAYS):
            if same(entry + i, &wanted):
                place = entry + i
                break
            if place.version and (entry[i].version == 0 or entry[i].time_ns < place.time_ns):
                place = entry + i
        if layer.fragment_offset:
            return place if same(place, &wanted) and distance(time_ns, place.time_ns) <= AGE_NS_MAX else NULL
        self.evicted += place.version != 0 and not same(place, &wanted)
        wanted.protocol = layer.protocol
        wanted.source_port = swap16(layer.source_port)
        wanted.target_port = swap16(layer.target_port)
        wanted.time_ns = time_ns
        place[0] = wanted
        return place

    cdef FragmentEntry *bucket(self, const FragmentEntry *wanted) noexcept nogil:
        """The first of the WAYS entries that may hold a datagram's first fragment."""
        cdef const uint64_t *s = self.seed.secret
        cdef uint64_t source = fold(wanted.source[0] ^ s[0], wanted.source[1] ^ s[1])
        cdef uint64_t target = fold(wanted.target[0] ^ s[2], wanted.target[1] ^ s[3])
        cdef uint64_t rest = fold(wanted.context ^ s[4], (<uint64_t> wanted.identification << 16 | wanted.key_protocol) ^ s[5])
        return self.entries + (fold(fold(source ^ s[6], target ^ s[7]) ^ s[4], rest ^ s[5]) & self.bucket_mask) * WAYS


cdef inline bint same(const FragmentEntry *one, const FragmentEntry *other) noexcept nogil:
    return (one.version == other.version and one.identification == other.identification and one.key_protocol == other.key_protocol
            and one.context == other.context and one.source[0] == other.source[0] and one.source[1] == other.source[1]
            and one.target[0] == other.target[0] and one.target[1] == other.target[1])


cdef inline uint64_t distance(int64_t one, int64_t other) noexcept nogil:
    return <uint64_t> one - <uint64_t> other if one > other else <uint64_t> other - <uint64_t> one


cdef uint64_t outer_context(const Walk *headers) noexcept nogil:
    """The VLAN ids before the outermost IP header, the outermost in the lowest bits."""
    cdef uint64_t word = 0
    cdef int i
    for i in range(VLAN_KEPT):
        if i < headers.vlan_count:
            word |= <uint64_t> headers.vlan[i] << (16 * i)
    return word


cdef uint64_t inner_context(const Walk *headers) noexcept nogil:
    return WITHIN | headers.tunnel_id | (<uint64_t> headers.tunnel_kind << 32)
