# The headers of ordinary packets for whoever needs no layers, such as parse: what the walk reports, read in one line. A packet that is ordinary
# inside VXLAN or GTP is ordinary, too. test_walk.py compares the columns with those of the walk.
from libc.stdint cimport uint8_t, uint32_t

from streamcore.core.packets cimport NO_OFFSET
from streamcore.headers._ordinary cimport frame_of_ip, read_ip
from streamcore.headers._walk cimport TUNNEL_GTP, TUNNEL_VXLAN, IpHeader, UdpTable, be16, be32, is_tunnel_port

cdef enum:
    # Rows of TUNNEL_STEPS in _udp_tunnels.pyx.
    ROW_VXLAN = 0
    ROW_GTP = 3

cdef struct Headers:
    # The headers of a packet that is ordinary, and of the ordinary one in its tunnel, if it has one.
    IpHeader outer
    IpHeader inner           # set if depth is 2
    uint32_t tunnel_id
    uint8_t tunnel_kind      # TUNNEL_*
    uint8_t depth            # IP headers


cdef inline bint plain_vxlan(const uint8_t *p) noexcept nogil:
    """RFC 7348, of 22 bytes: flag I, and flag G with group policy; reserved bits zero; then a frame with an EtherType or a length."""
    if p[7] or p[0] & 0x77 or not p[0] & 0x08 or p[1] & 0xB7 or (be16(p + 2) and not p[0] & 0x80):
        return False
    return not 1500 < be16(p + 20) < 1536


cdef inline bint read_headers(const UdpTable *udp, const uint8_t *packet, uint32_t size, Headers *found) noexcept nogil:
    """The headers of an Ethernet frame that is ordinary, in VXLAN or GTP too: what the walk says of them, but not its layers. False: it is
    another packet."""
    cdef IpHeader *outer = &found.outer
    cdef const uint8_t *p
    cdef uint32_t at, end = size if size < NO_OFFSET else NO_OFFSET - 1
    cdef uint32_t port
    found.tunnel_kind = found.tunnel_id = 0
    found.depth = 1
    if not frame_of_ip(packet, 0, end):
        return False
    at = read_ip(packet, 14, &end, outer)
    if at == 0 or outer.protocol != 17 or not (is_tunnel_port(udp, outer.target_port) or is_tunnel_port(udp, outer.source_port)):
        return at != 0
    port = outer.target_port if is_tunnel_port(udp, outer.target_port) else outer.source_port
    p = packet + at
    if udp.number[port] == ROW_VXLAN and end >= at + 22 and plain_vxlan(p) and frame_of_ip(packet, at + 8, end):
        found.tunnel_kind = TUNNEL_VXLAN
        found.tunnel_id = be32(p + 4) >> 8
        at = read_ip(packet, at + 22, &end, &found.inner)
    elif udp.number[port] == ROW_GTP and end >= at + 36 and be16(p) == 0x30FF and be16(p + 2):
        found.tunnel_kind = TUNNEL_GTP
        found.tunnel_id = be32(p + 4)
        end = min(end, at + 8 + be16(p + 2))
        at = read_ip(packet, at + 8, &end, &found.inner)
    else:
        return False
    found.depth = 2
    return at and (found.inner.protocol != 17 or not (is_tunnel_port(udp, found.inner.source_port) or is_tunnel_port(udp, found.inner.target_port)))
