# The shortcut for ordinary headers, which reports exactly what the steps would: unfragmented IPv4 without options or IPv6 without extension
# headers, then a whole TCP or UDP header. That is nearly every packet, and nearly every packet in a tunnel. test_walk.py compares it with the
# steps.
from libc.stdint cimport uint8_t, uint16_t, uint32_t

from streamcore.core.packets cimport FLAG_PORTS
from streamcore.headers._walk cimport (
    LAYER_IP4,
    LAYER_IP6,
    LAYER_TCP,
    LAYER_UDP,
    OUTCOME_TRANSPORT,
    IpHeader,
    Layer,
    Walk,
    be16,
    be32,
    go_udp_tunnel,
    is_tunnel_port,
)


cdef inline bint ordinary_ip(Walk *walk, IpHeader *header, uint32_t at) noexcept nogil:
    """Report the IP header at `at` in `header`, and the one that it carries. False: they are others, and nothing was reported. There must be
    room for two layers and one more IP header; no packet that an ICMP error quotes may be walked."""
    cdef const uint8_t *ip = walk.packet + at
    cdef const uint8_t *upper
    cdef uint32_t length, end, size
    cdef uint32_t ports
    cdef uint8_t protocol
    if walk.end < at + 28:
        return False
    if ip[0] == 0x45:
        length = 20
        end = at + be16(ip + 2)
        protocol = ip[9]
        if be16(ip + 6) & 0x3FFF:
            return False
    elif ip[0] >> 4 == 6 and walk.end >= at + 48 and be16(ip + 4):
        length = 40
        end = at + 40 + be16(ip + 4)
        protocol = ip[6]
    else:
        return False
    if end > walk.end:
        end = walk.end
    upper = ip + length
    if protocol == 17 and at + length + 8 <= end:
        size = 8
        note(walk, walk.layer_count + 1, LAYER_UDP, at + length, 8, end)
    elif protocol == 6 and at + length + 20 <= end and upper[12] >> 4 >= 5 and at + length + (upper[12] >> 4) * 4 <= end:
        size = (upper[12] >> 4) * 4
        note(walk, walk.layer_count + 1, LAYER_TCP, at + length, size, end)
    else:
        return False
    note(walk, walk.layer_count, LAYER_IP4 if length == 20 else LAYER_IP6, at, length, end)
    ports = be32(upper)
    walk.layer_count += 2
    walk.depth += 1
    walk.number = protocol
    walk.ip = header
    walk.at = at + length + size
    walk.end = end
    walk.outcome = OUTCOME_TRANSPORT
    header.version = ip[0] >> 4
    header.protocol = protocol
    header.flags = FLAG_PORTS
    header.l3 = <uint16_t> at
    header.l4 = <uint16_t> (at + length)
    header.payload = <uint16_t> walk.at
    header.source_port = <uint16_t> (ports >> 16)
    header.target_port = <uint16_t> ports
    header.fragment_offset = 0
    header.identification = be16(ip + 4) if length == 20 else 0
    header.source = ip + (12 if length == 20 else 8)
    header.target = ip + (16 if length == 20 else 24)
    if protocol == 17 and (is_tunnel_port(walk.udp, ports >> 16) or is_tunnel_port(walk.udp, ports & 0xFFFF)):
        go_udp_tunnel(walk, header.source_port, header.target_port)
    return True


cdef inline void note(Walk *walk, int number, uint8_t kind, uint32_t offset, uint32_t length, uint32_t end) noexcept nogil:
    cdef Layer *layer = &walk.layers[number]
    layer.offset = offset
    layer.length = length
    layer.end = end
    layer.detail = 0
    layer.kind = kind
    layer.marks = 0
