# One packet's headers, parsed. Offsets count from the packet's first byte.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef struct Layer:
    # One IP header and what follows it.
    uint8_t version           # 4 or 6; 0: no IP header
    uint8_t protocol          # upper-layer protocol, after IPv6 extension headers
    uint16_t flags            # FLAG_*
    uint16_t l3               # NO_OFFSET where absent, likewise below
    uint16_t l4
    uint16_t payload
    uint16_t source_port
    uint16_t target_port
    uint16_t fragment_offset  # in units of 8 bytes
    uint32_t identification   # of the fragmented datagram
    const uint8_t *source     # 4 or 16 bytes in the packet
    const uint8_t *target

cdef struct Headers:
    Layer outer
    Layer inner               # the innermost, where depth > 1
    uint8_t depth
    uint8_t vlan_count
    uint16_t[4] vlan          # the first VLAN_KEPT ids, outermost first
    uint16_t ether_type       # what follows the link layer; 0: not said
    bint known                # the link type is one that is parsed

cdef void parse_headers(const uint8_t *packet, uint32_t size, uint16_t link_type, Headers *headers) noexcept nogil
