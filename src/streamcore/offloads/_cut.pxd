# How a super-packet is cut into the segments that its hardware would have sent, seen from C. _cut.pyx says how.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from streamcore.core.packets cimport PCAP_HEAD, SEGMENT_NONE, Offload
from streamcore.headers._walk cimport UdpTable

cdef enum:
    FIXES_MAX = 16           # headers of one packet with a length or a checksum
    SEGMENTS_MAX = 2048      # of one super-packet; 64 KiB in segments of 32 bytes
    HEAD_BYTES_MAX = 512     # before the payload of a super-packet that is cut

cdef enum FixKind:
    FIX_IP4 = 1
    FIX_IP6
    FIX_UDP                  # of a tunnel

cdef struct Fix:
    uint8_t kind
    uint8_t length           # of an IPv4 header
    uint16_t offset

cdef struct Cut:
    # One super-packet, and how to cut it.
    const uint8_t *packet
    uint32_t size
    uint32_t transport       # offset of its TCP or UDP header
    uint32_t head            # bytes before the payload
    uint32_t segment_bytes   # payload of a segment, except the last one
    uint32_t count           # segments
    uint16_t field           # offset of the transport's checksum
    bint tcp
    bint summed              # it has a transport checksum
    uint64_t pseudo          # sum of its pseudo-header without the length
    int fixes
    Fix[16] fix              # the outermost first


cdef inline uint32_t segments_at_most(const Offload *offload, uint32_t size, Py_ssize_t rows_max, Py_ssize_t bytes_max) noexcept nogil:
    """How many rows the segments of a packet may need, as its offload tells; 1: it is not cut. More than half of a chunk is not given to one."""
    cdef uint32_t count
    if offload.segments == SEGMENT_NONE or offload.segment_bytes == 0:
        return 1
    count = (size + offload.segment_bytes - 1) // offload.segment_bytes
    if count > SEGMENTS_MAX or count > rows_max // 2 or segments_room(count) + size > bytes_max // 2:
        return 1
    return count


cdef inline Py_ssize_t segments_room(uint32_t count) noexcept nogil:
    """Bytes of a chunk that so many segments need besides the packet itself."""
    return count * (PCAP_HEAD + HEAD_BYTES_MAX) if count > 1 else 0


# Whether it can be cut, and `cut` is filled. The packet must outlive it.
cdef bint plan_cut(const UdpTable *udp, const uint8_t *packet, uint32_t size, uint16_t link_type, const Offload *offload, Cut *cut) noexcept nogil

# Bytes of a segment, and the segment itself, complete, at `to`, which has room for them.
cdef uint32_t segment_size(const Cut *cut, uint32_t number) noexcept nogil
cdef uint32_t write_segment(const Cut *cut, uint32_t number, uint8_t *to) noexcept nogil

# Completes the checksum that an offload names, in place. False: it lies beyond the packet.
cdef bint complete_checksum(uint8_t *packet, uint32_t size, const Offload *offload) noexcept nogil
