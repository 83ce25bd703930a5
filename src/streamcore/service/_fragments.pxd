# What is known of the first fragments of a segment, seen from C.
from libc.stdint cimport int64_t, uint32_t, uint64_t

from streamcore.headers._walk cimport Walk

cdef enum:
    SLOTS = 1 << 15
    FRAGMENTS_MAX = 1 << 14     # first fragments of one segment; of more, the later ones count as if no first one was there
    NOT_FROM_ANYWHERE = 0xFFFFFFFF

cdef struct Slot:
    uint64_t key
    uint32_t round            # the segment that it belongs to
    uint32_t payload_from     # of the datagram: from this byte on it is payload; NOT_FROM_ANYWHERE: nothing is known to be

cdef struct FirstFragments:
    Slot *slots
    uint32_t round
    uint32_t used

cdef void next_round(FirstFragments *table) noexcept nogil

# first: a walked packet, whether it was understood, and where its payload begins. hash_key: of 16 bytes.
cdef void note_first(FirstFragments *table, const Walk *walk, const uint64_t *hash_key, bint clear, int64_t payload) noexcept nogil
cdef bint is_payload(const FirstFragments *table, const Walk *walk, const uint64_t *hash_key) noexcept nogil
