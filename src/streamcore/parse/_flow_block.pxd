# Packets on their way into the flow table: what is read from them before the table is asked. All of it is inline.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset

from streamcore.core.packets cimport FLAG_PORTS, NO_OFFSET
from streamcore.headers._walk cimport IpHeader
from streamcore.parse._flow_state cimport ACK_SEEN, DATA_SEEN, TCP_ACK, TCP_CONTROL
from streamcore.parse._key cimport Around, FlowKey, network16, network32

cdef enum:
    TCP = 6
    UDP = 17
    NO_RECORD = 0xFFFFFFFF

cdef enum:
    BLOCK = 64

cdef enum:
    # Whether a packet of a block is in a tunnel.
    WITHIN_NOTHING = 0
    WITHIN_TUNNEL
    WITHIN_UNSEEN            # it was not walked: an ordinary packet

cdef struct Block:
    # BLOCK packets between the passes.
    uint64_t[64] first
    uint64_t[64] second
    uint64_t[64] hash
    int64_t[64] time_ns
    uint32_t[64] record      # proposed; NO_RECORD
    uint64_t[64] packet      # what is added to Record.sums: 1 and, 32 bits up, its wire bytes
    uint64_t[64] content     # its IP bytes and, 32 bits up, its payload bytes
    uint16_t[64] l3          # of the header that tells flows apart; NO_OFFSET
    uint16_t[64] l4
    uint8_t[64] swapped
    uint8_t[64] tcp_flags
    uint8_t[64] ttl
    uint8_t[64] seen         # ACK_SEEN, DATA_SEEN or 0
    uint8_t[64] within       # WITHIN_*
    FlowKey[64] key          # of wide keys
    Around[64] around        # where within is WITHIN_TUNNEL


cdef inline void take_upper(Block *block, Py_ssize_t i, uint8_t protocol, const uint8_t *upper, uint32_t head, uint32_t length,
                            uint32_t captured) noexcept nogil:
    """Flags and lengths of TCP or UDP, whose header begins at `upper`: `captured` bytes are there, of `length` by the IP header, which has `head`."""
    cdef uint32_t payload
    block.content[i] = head + length
    if protocol != TCP:
        payload = length - 8 if length > 8 else 0
        block.tcp_flags[i] = 0
        block.seen[i] = DATA_SEEN
    elif length < 14 or captured < 14:
        payload = 0
        block.tcp_flags[i] = block.seen[i] = 0
    else:
        payload = <uint32_t> (upper[12] >> 4) * 4
        payload = length - payload if length > payload else 0
        block.tcp_flags[i] = upper[13]
        block.seen[i] = DATA_SEEN if payload else ACK_SEEN if upper[13] & (TCP_ACK | TCP_CONTROL) == TCP_ACK else 0
    block.content[i] |= <uint64_t> payload << 32


cdef inline void take_header(Block *block, Py_ssize_t i, const IpHeader *ip, const uint8_t *p, uint32_t size) noexcept nogil:
    """As take_upper, of any header that the walk found, with the lengths and the TTL of IP."""
    cdef uint32_t l3 = ip.l3, l4 = ip.l4, length = 0, head
    block.tcp_flags[i] = block.seen[i] = block.ttl[i] = 0
    block.content[i] = 0
    block.l3[i] = block.l4[i] = NO_OFFSET
    if not ip.version or ip.l3 == NO_OFFSET:
        return
    block.l3[i], block.l4[i] = ip.l3, ip.l4
    if ip.version == 4 and l3 + 9 <= size:
        length = network16(p + l3 + 2)
        block.ttl[i] = p[l3 + 8]
    elif ip.version == 6 and l3 + 8 <= size:
        length = network16(p + l3 + 4)
        length += 40 if length else 0
        block.ttl[i] = p[l3 + 7]
    if length == 0:  # segmentation offload or a jumbogram: the packet's own length counts
        length = <uint32_t> (block.packet[i] >> 32)
        length = length - l3 if length > l3 else 0
    block.content[i] = length
    if ip.fragment_offset:
        block.l4[i] = NO_OFFSET
    if ip.l4 == NO_OFFSET or length <= l4 - l3:
        return
    length -= l4 - l3
    if ip.flags & FLAG_PORTS and ip.fragment_offset == 0 and (ip.protocol == TCP or ip.protocol == UDP):
        take_upper(block, i, ip.protocol, p + l4, l4 - l3, length, size - l4 if size > l4 else 0)
        return
    head = ip.payload - l4 if ip.payload != NO_OFFSET and ip.payload > ip.l4 else 0
    if length > head:
        block.content[i] |= <uint64_t> (length - head) << 32


cdef inline uint32_t sequence_of(const uint8_t *packet, const Block *block, Py_ssize_t i) noexcept nogil:
    """The sequence number of a packet with TCP flags, whose header is there at least up to them."""
    return network32(packet + block.l4[i] + 4)


cdef inline bint same(const FlowKey *one, const FlowKey *other) noexcept nogil:
    return (one.low[0] == other.low[0] and one.low[1] == other.low[1] and one.high[0] == other.high[0] and one.high[1] == other.high[1]
            and one.vlan == other.vlan and one.low_port == other.low_port and one.high_port == other.high_port
            and one.protocol == other.protocol and one.version == other.version and one.vlan_count == other.vlan_count)


cdef inline void widen(uint64_t first, uint64_t second, FlowKey *key) noexcept nogil:
    """The FlowKey that narrow_words made two words of."""
    cdef uint64_t tag = second >> 48
    memset(key, 0, sizeof(FlowKey))
    key.low[0] = <uint32_t> (first >> 16)
    key.low_port = <uint16_t> first
    key.high[0] = <uint32_t> (second >> 16)
    key.high_port = <uint16_t> second
    key.protocol = <uint8_t> (first >> 48)
    key.version = 4
    if tag:
        key.vlan_count = 1
        key.vlan = tag & 0xFFF
