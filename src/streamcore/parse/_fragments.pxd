# Which flow a packet that is not ordinary belongs to; for a later fragment, what the first fragment said, kept for a while in a bounded table.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from streamcore.headers._walk cimport IpHeader, Walk
from streamcore.parse._key cimport Around, FlowKey, Seed

cdef struct FragmentEntry:
    uint64_t source[2]
    uint64_t target[2]
    uint64_t context         # what is around the datagram: VLAN ids, or the tunnel
    uint32_t identification
    uint8_t version          # 0: free
    uint8_t key_protocol     # IPv4's protocol field; 0 for IPv6, whose fragments may each name another
    uint8_t protocol         # of the first fragment, after its extension headers
    uint8_t stream           # of the first fragment: for who sorts packets by stream
    int64_t time_ns          # when the first fragment came, by the capture's clock
    uint16_t source_port
    uint16_t target_port

cdef struct DeepEntry:
    FlowKey key
    Around around            # tunnel_kind 0: the first fragment was in no tunnel

cdef class Fragments:
    cdef FragmentEntry *entries             # NULL: none are remembered
    cdef DeepEntry *deep                    # of each entry; NULL: flows are told by the outermost header
    cdef uint64_t bucket_mask
    cdef Seed seed
    cdef readonly int by                    # BY_*
    cdef readonly uint64_t evicted          # first fragments that were forgotten for newer ones
    cdef bint key(self, const uint8_t *packet, uint16_t link_type, int64_t time_ns, Walk *headers, FlowKey *key, Around *around) noexcept nogil
    cdef void deepen(self, FlowKey *key, const Around *around) noexcept nogil
    cdef FragmentEntry *ip_key(self, IpHeader *layer, uint64_t context, int64_t time_ns, FlowKey *key) noexcept nogil
    cdef FragmentEntry *bucket(self, const FragmentEntry *wanted) noexcept nogil
    cdef FragmentEntry *resolve(self, const IpHeader *layer, uint64_t context, int64_t time_ns) noexcept nogil

# What is around an IP header's datagram, as `resolve` wants it: the outermost, or the innermost of a packet in a tunnel.
cdef uint64_t outer_context(const Walk *headers) noexcept nogil
cdef uint64_t inner_context(const Walk *headers) noexcept nogil
