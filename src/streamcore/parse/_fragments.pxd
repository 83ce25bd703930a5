# The flow of a packet that is not ordinary. For later fragments a bounded table remembers what the first one said.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from streamcore.headers._walk cimport IpHeader, Walk
from streamcore.parse._key cimport Around, FlowKey, Seed

cdef struct FragmentEntry:
    uint64_t source[2]
    uint64_t target[2]
    uint64_t context         # what is around the datagram: VLAN ids, or the tunnel
    uint32_t identification
    uint8_t version          # 0: free
    uint8_t key_protocol     # IPv4's protocol field; 0 for IPv6, in which each fragment may name another protocol
    uint8_t protocol         # of the first fragment, after its extension headers
    uint8_t stream           # of the first fragment, for sorting packets by stream
    int64_t time_ns          # when the first fragment was captured
    uint16_t source_port
    uint16_t target_port

cdef struct DeepEntry:
    FlowKey key
    Around around            # tunnel_kind 0: the first fragment was not in a tunnel

cdef class Fragments:
    cdef FragmentEntry *entries             # NULL: none are remembered
    cdef DeepEntry *deep                    # one per entry; NULL: flows depend on the outermost header alone
    cdef uint64_t bucket_mask
    cdef Seed seed
    cdef readonly int by                    # BY_*
    cdef readonly uint64_t evicted          # first fragments forgotten to make room for newer ones
    cdef bint key(self, const uint8_t *packet, uint16_t link_type, int64_t time_ns, Walk *headers, FlowKey *key, Around *around) noexcept nogil
    cdef void deepen(self, FlowKey *key, const Around *around) noexcept nogil
    cdef FragmentEntry *ip_key(self, IpHeader *layer, uint64_t context, int64_t time_ns, FlowKey *key) noexcept nogil
    cdef FragmentEntry *bucket(self, const FragmentEntry *wanted) noexcept nogil
    cdef FragmentEntry *resolve(self, const IpHeader *layer, uint64_t context, int64_t time_ns) noexcept nogil

# The context that `resolve` needs of an IP header's datagram: the outermost header, or the innermost in a tunnel.
cdef uint64_t outer_context(const Walk *headers) noexcept nogil
cdef uint64_t inner_context(const Walk *headers) noexcept nogil
