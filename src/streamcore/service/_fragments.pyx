"""What was found in first fragments, for the later fragments of the same datagram: from which byte on the datagram is payload.

A later fragment has no headers after IP, so alone it does not show what it holds: payload, or the rest of a header, of a message about
addresses, or of a packet in a tunnel. It passes if its first fragment is in the same segment, was understood, ends in plain payload, and ends
its headers before the later fragment begins. The order within the segment does not matter, and nothing is kept across segments. So the same
segment always gives the same result.

Bounded: at most FRAGMENTS_MAX first fragments, found by a keyed 64-bit hash that nobody can make collide.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from streamcore.headers._walk cimport LAYER_EXTENSION, LAYER_IP4, LAYER_IP6, Layer, Walk
from streamcore.service._fields cimport keyed_hash, load16

cdef enum:
    FRAGMENT_HEADER = 44
    MORE_FRAGMENTS = 0x2000   # of IPv4; the 13 bits after it are the offset


cdef void next_round(FirstFragments *table) noexcept nogil:
    """Begin a segment."""
    table.used = 0
    table.round += 1
    if table.round == 0:  # after 2^32 segments
        memset(table.slots, 0, SLOTS * sizeof(Slot))
        table.round = 1


cdef void note_first(FirstFragments *table, const Walk *walk, const uint64_t *hash_key, bint clear, int64_t payload) noexcept nogil:
    """Note each datagram that this packet, or a packet inside it, begins. clear: everything after `payload` is payload."""
    cdef const Layer *layer
    cdef const uint8_t *p
    cdef uint64_t key = 0
    cdef int64_t begin
    cdef int i
    for i in range(walk.layer_count):
        layer = &walk.layers[i]
        if layer.marks:  # quoted, or cut
            return
        p = walk.packet + layer.offset
        begin = layer.offset + layer.length
        if layer.kind == LAYER_IP4:
            key = address_key(p + 12, 8, key, hash_key)
            if load16(p + 6) & 0x3FFF == MORE_FRAGMENTS:
                note(table, datagram_key4(p, key, hash_key), payload_from(clear, payload, begin))
        elif layer.kind == LAYER_IP6:
            key = address_key(p + 8, 32, key, hash_key)
        elif layer.kind == LAYER_EXTENSION and layer.detail == FRAGMENT_HEADER and load16(p + 2) & 0xFFF9 == 1:
            note(table, datagram_key6(p, key, hash_key), payload_from(clear, payload, begin))


cdef bint is_payload(const FirstFragments *table, const Walk *walk, const uint64_t *hash_key) noexcept nogil:
    """Whether everything that a later fragment carries is payload. Its IP header is the walk's last layer."""
    return 8 * <uint32_t> walk.ip.fragment_offset >= first_of(table, walk, hash_key)


cdef bint is_alone(const FirstFragments *table, const Walk *walk, const uint64_t *hash_key) noexcept nogil:
    return walk.ip.fragment_offset != 0 and first_of(table, walk, hash_key) == <uint32_t> NO_FIRST


cdef uint32_t first_of(const FirstFragments *table, const Walk *walk, const uint64_t *hash_key) noexcept nogil:
    """From which byte on the datagram of a later fragment is payload. Its last header says which datagram it is: that of IPv4, or a fragment
    header, which follows IPv6 (in wrong packets IPv4, too). A quoted one is of no packet in the segment."""
    cdef const Layer *layer
    cdef const uint8_t *p
    cdef uint64_t key = 0, datagram = 0
    cdef bint is_known = False
    cdef int i
    for i in range(walk.layer_count):
        layer = &walk.layers[i]
        if layer.marks:  # quoted, or cut
            return <uint32_t> NOT_FROM_ANYWHERE
        p = walk.packet + layer.offset
        is_known = True
        if layer.kind == LAYER_IP4:
            key = address_key(p + 12, 8, key, hash_key)
            datagram = datagram_key4(p, key, hash_key)
        elif layer.kind == LAYER_EXTENSION and layer.detail == FRAGMENT_HEADER:
            datagram = datagram_key6(p, key, hash_key)
        else:
            is_known = False
            if layer.kind == LAYER_IP6:
                key = address_key(p + 8, 32, key, hash_key)
    return found(table, datagram) if is_known else <uint32_t> NOT_FROM_ANYWHERE


# Keys: all addresses from the outermost header inwards, and what distinguishes datagrams between them.

cdef inline uint64_t address_key(const uint8_t *p, int64_t n, uint64_t around, const uint64_t *hash_key) noexcept nogil:
    return keyed_hash(hash_key, p, n, around)


cdef inline uint64_t datagram_key4(const uint8_t *p, uint64_t around, const uint64_t *hash_key) noexcept nogil:
    cdef uint8_t[3] told
    told[0], told[1], told[2] = p[4], p[5], p[9]  # identification, protocol
    return keyed_hash(hash_key, told, 3, around)


cdef inline uint64_t datagram_key6(const uint8_t *p, uint64_t around, const uint64_t *hash_key) noexcept nogil:
    return keyed_hash(hash_key, p + 4, 4, around)  # identification


# The table: open addressing, at most half full, so every search ends.

cdef inline uint32_t payload_from(bint clear, int64_t payload, int64_t begin) noexcept nogil:
    return <uint32_t> (payload - begin) if clear and payload >= begin else <uint32_t> NOT_FROM_ANYWHERE


cdef void note(FirstFragments *table, uint64_t key, uint32_t payload_from) noexcept nogil:
    """If a datagram has two first fragments, the one that leaves less to payload counts."""
    cdef uint32_t at = <uint32_t> key & (SLOTS - 1)
    while table.slots[at].round == table.round:
        if table.slots[at].key == key:
            table.slots[at].payload_from = max(table.slots[at].payload_from, payload_from)
            return
        at = (at + 1) & (SLOTS - 1)
    if table.used == FRAGMENTS_MAX:
        return
    table.used += 1
    table.slots[at].key, table.slots[at].round, table.slots[at].payload_from = key, table.round, payload_from


cdef uint32_t found(const FirstFragments *table, uint64_t key) noexcept nogil:
    cdef uint32_t at = <uint32_t> key & (SLOTS - 1)
    while table.slots[at].round == table.round:
        if table.slots[at].key == key:
            return table.slots[at].payload_from
        at = (at + 1) & (SLOTS - 1)
    return <uint32_t> NO_FIRST
