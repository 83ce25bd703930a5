# Which flow a later fragment belongs to: what the first fragment said, kept for a while in a bounded table.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from streamcore.headers._walk cimport Walk
from streamcore.parse._key cimport FlowKey, Seed

cdef struct FragmentEntry:
    uint64_t source[2]
    uint64_t target[2]
    uint64_t vlan
    uint32_t identification
    uint8_t version          # 0: free
    uint8_t key_protocol     # IPv4's protocol field; 0 for IPv6, whose fragments may each name another
    uint8_t protocol         # of the first fragment, after its extension headers
    uint8_t unused
    int64_t time_ns          # when the first fragment came, by the capture's clock
    uint16_t source_port
    uint16_t target_port

cdef class Fragments:
    cdef FragmentEntry *entries             # NULL: none are remembered
    cdef uint64_t bucket_mask
    cdef Seed seed
    cdef readonly uint64_t evicted          # first fragments that were forgotten for newer ones
    cdef void key(self, const uint8_t *packet, uint16_t link_type, int64_t time_ns, Walk *headers, FlowKey *key) noexcept nogil
    cdef FragmentEntry *bucket(self, const FragmentEntry *wanted) noexcept nogil
    cdef const FragmentEntry *resolve(self, const Walk *headers, int64_t time_ns) noexcept nogil
