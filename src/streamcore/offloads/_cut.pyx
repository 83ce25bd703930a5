"""Cuts a super-packet into the segments that hardware would have sent, with true lengths, numbers and checksums; and
completes a checksum that was left to hardware.

What is left to hardware is told as in a virtio_net_hdr (Virtio 1.2, 5.1.6). TCP: sequence numbers go on, FIN and PSH
are the last segment's, CWR the first one's (RFC 3168 6.1.2); identifications of IPv4 go on by one. UDP: datagrams of
equal length. Tunnels over IP and UDP are repeated in each segment, where their headers have no length or checksum
other than those of IP and UDP.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from streamcore.core.packets cimport NEEDS_CHECKSUM, SEGMENT_ECN, SEGMENT_NONE, SEGMENT_TCP4, SEGMENT_TCP6, SEGMENT_UDP, Offload
from streamcore.headers import STANDARD_PORTS
from streamcore.headers._walk cimport (
    LAYER_ETHERNET, LAYER_EXTENSION, LAYER_IP4, LAYER_IP6, LAYER_MPLS, LAYER_TCP, LAYER_TUNNEL, LAYER_UDP, LAYER_VLAN,
    TUNNEL_GENEVE, TUNNEL_GRE, TUNNEL_IP, TUNNEL_MPLS, TUNNEL_VXLAN, Layer, UdpPorts, UdpTable, Walk, be16, be32,
    walk_headers,
)
from streamcore.offloads._checksum cimport get16, internet_fold, internet_sum, set16, swap16

cdef enum:
    TCP = 6
    UDP = 17
    TCP_HEAD = 20
    UDP_HEAD = 8
    TCP_FIELD = 16           # of the checksum
    UDP_FIELD = 6
    FIN_PSH = 0x09
    CWR = 0x80
    GRE_CHECKSUM_OR_SEQUENCE = 0x90
    FRAGMENTED = 0x3FFF      # more fragments, or an offset


cdef bint plan_cut(const UdpTable *udp, const uint8_t *packet, uint32_t size, uint16_t link_type, const Offload *offload, Cut *cut) noexcept nogil:
    """The offload's numbers are checked against the packet's own headers: whoever sent it may have told anything."""
    cdef Walk walk
    cdef uint8_t kind = offload.segments & ~SEGMENT_ECN
    cdef bint tcp = kind == SEGMENT_TCP4 or kind == SEGMENT_TCP6
    cdef uint32_t payload
    if not (tcp or kind == SEGMENT_UDP) or offload.segment_bytes == 0:
        return False
    cut.packet = packet
    cut.size = size
    cut.tcp = tcp
    cut.segment_bytes = offload.segment_bytes
    walk_headers(udp, packet, size, link_type, &walk)
    if not find_headers(&walk, packet, size, offload, cut):
        return False
    payload = size - cut.head
    cut.count = (payload + cut.segment_bytes - 1) // cut.segment_bytes
    if not 1 <= cut.count <= SEGMENTS_MAX:
        return False
    cut.field = <uint16_t> (cut.transport + (TCP_FIELD if tcp else UDP_FIELD))
    cut.summed = offload.flags & NEEDS_CHECKSUM or tcp or get16(packet + cut.field) != 0
    return find_pseudo(packet, offload, cut)


cdef bint find_headers(const Walk *walk, const uint8_t *packet, uint32_t size, const Offload *offload, Cut *cut) noexcept nogil:
    """The IP and tunnel headers up to the transport that is segmented: the one that the checksum names, or the last."""
    cdef const Layer *layer
    cdef bint named = offload.flags & NEEDS_CHECKSUM
    cdef uint8_t wanted = LAYER_TCP if cut.tcp else LAYER_UDP
    cdef int i, last = -1
    cut.fixes = 0
    for i in range(walk.layer_count):
        layer = &walk.layers[i]
        if layer.marks or layer.offset > 0xFFFF:
            break
        if layer.kind == wanted and (layer.offset == offload.checksum_start if named else True):
            last = i
            if named:
                break
    for i in range(walk.layer_count if last < 0 else last):
        layer = &walk.layers[i]
        if layer.marks or not add_fix(layer, packet, cut):
            return False
    if last < 0:
        return named and find_hidden(packet, size, offload, cut)
    return end_headers(packet, size, walk.layers[last].offset, cut)


cdef bint add_fix(const Layer *layer, const uint8_t *packet, Cut *cut) noexcept nogil:
    """False: it is a header that cannot be repeated as it is, with a length of its own or the like."""
    cdef uint8_t kind = 0
    if layer.kind == LAYER_IP4:
        if be16(packet + layer.offset + 6) & FRAGMENTED:
            return False
        kind = FIX_IP4
    elif layer.kind == LAYER_IP6:
        kind = FIX_IP6
    elif layer.kind == LAYER_UDP:
        kind = FIX_UDP
    elif layer.kind == LAYER_TUNNEL:
        if layer.detail == TUNNEL_GRE:
            return not packet[layer.offset] & GRE_CHECKSUM_OR_SEQUENCE
        return layer.detail == TUNNEL_VXLAN or layer.detail == TUNNEL_GENEVE or layer.detail == TUNNEL_IP or layer.detail == TUNNEL_MPLS
    else:
        return layer.kind in (LAYER_ETHERNET, LAYER_VLAN, LAYER_MPLS, LAYER_EXTENSION)
    if cut.fixes == FIXES_MAX:
        return False
    cut.fix[cut.fixes] = Fix(kind, <uint8_t> layer.length, <uint16_t> layer.offset)
    cut.fixes += 1
    return True


cdef bint find_hidden(const uint8_t *packet, uint32_t size, const Offload *offload, Cut *cut) noexcept nogil:
    """A tunnel over UDP on a port that the walk does not try, as Linux' own VXLAN: the inner IP header must stand right before the transport
    that the offload names, and must say how long the packet is."""
    cdef uint32_t at = offload.checksum_start
    cdef uint8_t protocol = TCP if cut.tcp else UDP
    cdef const Fix *outer = &cut.fix[cut.fixes - 1]
    if cut.fixes < 2 or cut.fixes == FIXES_MAX or outer.kind != FIX_UDP or at + UDP_HEAD > size:
        return False
    if at >= <uint32_t> outer.offset + UDP_HEAD + 20 and packet[at - 20] == 0x45 and packet[at - 11] == protocol \
            and be16(packet + at - 18) + at - 20 == size and not be16(packet + at - 14) & FRAGMENTED:
        cut.fix[cut.fixes] = Fix(FIX_IP4, 20, <uint16_t> (at - 20))
    elif at >= <uint32_t> outer.offset + UDP_HEAD + 40 and packet[at - 40] >> 4 == 6 and packet[at - 34] == protocol \
            and be16(packet + at - 36) + at == size:
        cut.fix[cut.fixes] = Fix(FIX_IP6, 40, <uint16_t> (at - 40))
    else:
        return False
    cut.fixes += 1
    return end_headers(packet, size, at, cut)


cdef bint end_headers(const uint8_t *packet, uint32_t size, uint32_t transport, Cut *cut) noexcept nogil:
    """Whether the transport header is whole and something follows."""
    cdef uint32_t length = UDP_HEAD
    if cut.fixes == 0 or cut.fix[cut.fixes - 1].kind == FIX_UDP:
        return False
    if cut.tcp:
        if transport + TCP_HEAD > size:
            return False
        length = (packet[transport + 12] >> 4) * 4
        if length < TCP_HEAD:
            return False
    cut.transport = transport
    cut.head = transport + length
    return cut.head < size and cut.head <= HEAD_BYTES_MAX and cut.head + min(cut.segment_bytes, size - cut.head) <= 0xFFFF


cdef bint find_pseudo(const uint8_t *packet, const Offload *offload, Cut *cut) noexcept nogil:
    """Its sum without the length. A checksum that is left to hardware holds the sum already, of the right addresses even where a routing header
    has the last one."""
    cdef const Fix *fix = &cut.fix[cut.fixes - 1]
    cdef uint16_t length = swap16(<uint16_t> (cut.size - cut.transport))
    if not cut.summed:
        cut.pseudo = 0
        return True
    if offload.flags & NEEDS_CHECKSUM:
        if <uint32_t> offload.checksum_start + offload.checksum_offset != cut.field:
            return False
        cut.pseudo = <uint64_t> get16(packet + cut.field) + <uint16_t> ~length
        return True
    cut.pseudo = pseudo_sum(packet, fix, TCP if cut.tcp else UDP)
    return True


cdef uint64_t pseudo_sum(const uint8_t *packet, const Fix *fix, uint8_t protocol) noexcept nogil:
    """Of the addresses and the protocol (RFC 9293 3.1, RFC 8200 8.1)."""
    cdef uint64_t sum = swap16(protocol)
    if fix.kind == FIX_IP4:
        return internet_sum(packet + fix.offset + 12, 8, sum)
    return internet_sum(packet + fix.offset + 8, 32, sum)


cdef uint32_t segment_size(const Cut *cut, uint32_t number) noexcept nogil:
    if number + 1 < cut.count:
        return cut.head + cut.segment_bytes
    return cut.size - cut.segment_bytes * (cut.count - 1)


cdef uint32_t write_segment(const Cut *cut, uint32_t number, uint8_t *to) noexcept nogil:
    cdef uint32_t size = segment_size(cut, number)
    cdef uint32_t sequence
    cdef uint64_t sum
    cdef uint8_t *transport = to + cut.transport
    cdef int i
    memcpy(to, cut.packet, cut.head)
    memcpy(to + cut.head, cut.packet + cut.head + number * cut.segment_bytes, size - cut.head)
    if cut.tcp:
        sequence = be32(transport + 4) + number * cut.segment_bytes
        transport[4] = <uint8_t> (sequence >> 24)
        transport[5] = <uint8_t> (sequence >> 16)
        transport[6] = <uint8_t> (sequence >> 8)
        transport[7] = <uint8_t> sequence
        if number + 1 < cut.count:
            transport[13] &= <uint8_t> ~FIN_PSH
        if number:
            transport[13] &= <uint8_t> ~CWR
    else:
        set16(transport + 4, swap16(<uint16_t> (size - cut.transport)))
    if cut.summed:
        set16(to + cut.field, 0)
        sum = cut.pseudo + swap16(<uint16_t> (size - cut.transport))
        set16(to + cut.field, finished(internet_sum(transport, size - cut.transport, sum)))
    for i in range(cut.fixes - 1, -1, -1):  # the innermost first: an outer checksum covers it
        mend(cut, i, number, size, to)
    return size


cdef void mend(const Cut *cut, int which, uint32_t number, uint32_t size, uint8_t *packet) noexcept nogil:
    """Lengths, identification and checksum of one header."""
    cdef const Fix *fix = &cut.fix[which]
    cdef uint8_t *at = packet + fix.offset
    cdef uint32_t length = size - fix.offset
    cdef uint64_t sum
    if fix.kind == FIX_IP4:
        set16(at + 2, swap16(<uint16_t> length))
        set16(at + 4, swap16(<uint16_t> (be16(at + 4) + number)))
        set16(at + 10, 0)
        set16(at + 10, <uint16_t> ~internet_fold(internet_sum(at, fix.length, 0)))
    elif fix.kind == FIX_IP6:
        set16(at + 4, swap16(<uint16_t> (length - 40)))
    else:
        set16(at + 4, swap16(<uint16_t> length))
        if get16(at + UDP_FIELD) == 0 or which == 0:
            return
        set16(at + UDP_FIELD, 0)
        sum = pseudo_sum(packet, &cut.fix[which - 1], UDP) + swap16(<uint16_t> length)
        set16(at + UDP_FIELD, finished(internet_sum(at, length, sum)))


cdef inline uint16_t finished(uint64_t sum) noexcept nogil:
    """As the field holds it: never zero, which in UDP says that there is none (RFC 768), and which means the same in TCP."""
    cdef uint16_t field = <uint16_t> ~internet_fold(sum)
    return field if field else <uint16_t> 0xFFFF


cdef bint complete_checksum(uint8_t *packet, uint32_t size, const Offload *offload) noexcept nogil:
    cdef uint32_t start = offload.checksum_start, field = start + offload.checksum_offset
    if field + 2 > size:
        return False
    set16(packet + field, finished(internet_sum(packet + start, size - start, 0)))
    return True


def cut_packet(const uint8_t[::1] packet not None, uint16_t link_type, tuple told, UdpPorts ports=STANDARD_PORTS):
    """list[bytes]: the segments of one packet; None if it cannot be cut. told: flags, kind of segments, header_bytes, segment_bytes,
    checksum_start, checksum_offset. Slow: for looking at single packets."""
    cdef Cut cut
    cdef Offload offload
    cdef uint32_t number, size
    cdef uint8_t *room
    offload.flags, offload.segments, offload.header_bytes, offload.segment_bytes, offload.checksum_start, offload.checksum_offset = told
    if packet.shape[0] == 0 or not plan_cut(&ports.table, &packet[0], <uint32_t> packet.shape[0], link_type, &offload, &cut):
        return None
    segments = []
    room = <uint8_t *> malloc(packet.shape[0])
    if room == NULL:
        raise MemoryError("no room for a segment")
    for number in range(cut.count):
        size = write_segment(&cut, number, room)
        segments.append((<char *> room)[:size])
    free(room)
    return segments


def completed(bytes packet not None, int start, int offset):
    """The packet with a true checksum at start + offset over what begins at start; None if that is beyond it. For looking at single packets."""
    cdef bytearray copy = bytearray(packet)
    cdef uint8_t[::1] view = copy
    cdef Offload offload = Offload(NEEDS_CHECKSUM, SEGMENT_NONE, 0, 0, <uint16_t> start, <uint16_t> offset)
    if not len(copy) or not complete_checksum(&view[0], <uint32_t> len(copy), &offload):
        return None
    return bytes(copy)
