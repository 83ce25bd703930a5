# The shortcut for ordinary headers, which reports exactly what the steps would: unfragmented IPv4 without options or IPv6 without extension
# headers, then a whole TCP or UDP header. That is nearly every packet, and nearly every packet in a tunnel. test_walk.py compares it with the
# steps.
from libc.stdint cimport uint8_t, uint16_t, uint32_t

from streamcore.core.packets cimport FLAG_PORTS
from streamcore.headers._walk cimport (
    DEPTH_MAX,
    LAYER_ETHERNET,
    LAYER_IP4,
    LAYER_IP6,
    LAYER_TCP,
    LAYER_UDP,
    LAYERS_MAX,
    MARK_QUOTED,
    OUTCOME_TRANSPORT,
    IpHeader,
    Layer,
    Walk,
    be16,
    be32,
    go_udp_tunnel,
    is_tunnel_port,
    step_ethernet,
)


cdef inline uint32_t read_ip(const uint8_t *packet, uint32_t at, uint32_t *end, IpHeader *header) noexcept nogil:
    """Read the IP header at `at` and the one that it carries into `header`. Returns where the contents of both begin; 0: they are others, and
    nothing was written. end: where the bytes end; then, where those of this IP packet end."""
    cdef const uint8_t *ip = packet + at
    cdef const uint8_t *upper
    cdef uint32_t length, stop, size
    cdef uint32_t ports
    cdef uint8_t protocol
    if end[0] < at + 28:
        return 0
    if ip[0] == 0x45:
        length = 20
        stop = at + be16(ip + 2)
        protocol = ip[9]
        if be16(ip + 6) & 0x3FFF:
            return 0
    elif ip[0] >> 4 == 6 and end[0] >= at + 48 and be16(ip + 4):
        length = 40
        stop = at + 40 + be16(ip + 4)
        protocol = ip[6]
    else:
        return 0
    if stop > end[0]:
        stop = end[0]
    upper = ip + length
    if protocol == 17 and at + length + 8 <= stop:
        size = 8
    elif protocol == 6 and at + length + 20 <= stop and upper[12] >> 4 >= 5 and at + length + (upper[12] >> 4) * 4 <= stop:
        size = (upper[12] >> 4) * 4
    else:
        return 0
    end[0] = stop
    ports = be32(upper)
    header.version = ip[0] >> 4
    header.protocol = protocol
    header.flags = FLAG_PORTS
    header.l3 = <uint16_t> at
    header.l4 = <uint16_t> (at + length)
    header.payload = <uint16_t> (at + length + size)
    header.source_port = <uint16_t> (ports >> 16)
    header.target_port = <uint16_t> ports
    header.fragment_offset = 0
    header.identification = be16(ip + 4) if length == 20 else 0
    header.source = ip + (12 if length == 20 else 8)
    header.target = ip + (16 if length == 20 else 24)
    return at + length + size


cdef inline bint frame_of_ip(const uint8_t *packet, uint32_t at, uint32_t end) noexcept nogil:
    """Whether an Ethernet header with IP after it is at `at`."""
    cdef uint16_t kind
    if end < at + 42:
        return False
    kind = be16(packet + at + 12)
    return (packet[at + 14] >> 4 == 4 and kind == 0x0800) or (packet[at + 14] >> 4 == 6 and kind == 0x86DD)


cdef inline bint ordinary_ip(Walk *walk, IpHeader *header, uint32_t at) noexcept nogil:
    """Report the IP header at `at` in `header`, and the one that it carries. False: they are others, and nothing was reported. There must be
    room for two layers and one more IP header; no packet that an ICMP error quotes may be walked."""
    cdef uint32_t end = walk.end
    cdef uint32_t stop = read_ip(walk.packet, at, &end, header)
    if stop == 0:
        return False
    note(walk, walk.layer_count, LAYER_IP4 if header.version == 4 else LAYER_IP6, at, header.l4 - at, end)
    note(walk, walk.layer_count + 1, LAYER_UDP if header.protocol == 17 else LAYER_TCP, header.l4, stop - header.l4, end)
    walk.layer_count += 2
    walk.depth += 1
    walk.number = header.protocol
    walk.ip = header
    walk.at = stop
    walk.end = end
    walk.outcome = OUTCOME_TRANSPORT
    if header.protocol == 17 and (is_tunnel_port(walk.udp, header.source_port) or is_tunnel_port(walk.udp, header.target_port)):
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


cdef inline bint ordinary_frame(Walk *walk, uint32_t at) noexcept nogil:
    """As ordinary_ip, for a packet after an Ethernet header at `at`, which it reports, too: room for three layers."""
    cdef uint32_t end = walk.end
    if not frame_of_ip(walk.packet, at, end):
        return False
    walk.layer_count += 1
    if not ordinary_ip(walk, &walk.inner if walk.depth else &walk.outer, at + 14):
        walk.layer_count -= 1
        return False
    note(walk, walk.layer_count - 3, LAYER_ETHERNET, at, 14, end)
    if walk.depth == 1:
        walk.ether_type = be16(walk.packet + at + 12)
    return True


cdef inline void go_frame(Walk *walk) noexcept nogil:
    """For steps: a frame begins at walk.at."""
    if (not walk.shortcuts or walk.layer_count + 3 > LAYERS_MAX or walk.depth == DEPTH_MAX or walk.marks & MARK_QUOTED
            or not ordinary_frame(walk, walk.at)):
        walk.next = step_ethernet
