# What is known of a segment's first fragments, seen from C.
from libc.stdint cimport int64_t, uint32_t, uint64_t

from streamcore.headers._walk cimport Walk

cdef enum:
    SLOTS = 1 << 15
    FRAGMENTS_MAX = 1 << 14     # first fragments per segment; the later fragments of any others count as having no first one
    NOT_FROM_ANYWHERE = 0xFFFFFFFE
    NO_FIRST = 0xFFFFFFFF       # no first fragment of the datagram was noted

cdef struct Slot:
    uint64_t key
    uint32_t round            # the segment to which it belongs
    uint32_t payload_from     # from this byte on the datagram is payload; NOT_FROM_ANYWHERE: no byte is known to be

cdef struct FirstFragments:
    Slot *slots
    uint32_t round
    uint32_t used

cdef void next_round(FirstFragments *table) noexcept nogil

# Note a walked packet that begins datagrams. clear: from `payload` on, everything is payload. hash_key: 16 bytes.
cdef void note_first(FirstFragments *table, const Walk *walk, const uint64_t *hash_key, bint clear, int64_t payload) noexcept nogil
cdef bint is_payload(const FirstFragments *table, const Walk *walk, const uint64_t *hash_key) noexcept nogil
# Of a later fragment: whether none of its datagram's first fragments was noted.
cdef bint is_alone(const FirstFragments *table, const Walk *walk, const uint64_t *hash_key) noexcept nogil
