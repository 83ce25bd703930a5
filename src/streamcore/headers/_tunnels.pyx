"""Tunnels directly over IP, and GRE with everything that it carries. Each has a row at the end. IP in IP is in _ip.pyx.

Sources: RFC 1701, 2784, 2890, 7637, 2637; draft-foschiano-erspan-03, draft-mclaggan-wccp-v2rev1; RFC 3378, 3931, 4023, 7761, 8300, 3173, 4303.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from streamcore.headers._ether_types cimport step_mpls
from streamcore.headers._ip cimport step_ip
from streamcore.headers._ordinary cimport go_frame
from streamcore.headers._ppp cimport step_frame_relay, step_ppp
from streamcore.headers._walk cimport (
    LAYER_EXTENSION,
    LAYER_PIM,
    LAYER_TAG,
    OUTCOME_CONTROL,
    OUTCOME_ENCRYPTED,
    OUTCOME_NOTHING,
    OUTCOME_UNKNOWN,
    TUNNEL_ERSPAN,
    TUNNEL_ETHERIP,
    TUNNEL_GRE,
    TUNNEL_IP,
    TUNNEL_L2TP,
    TUNNEL_MPLS,
    TUNNEL_NSH,
    TUNNEL_PIM,
    TUNNEL_PPTP,
    TUNNEL_WCCP,
    Walk,
    be16,
    be32,
    ends,
    enter,
    go_ether_type,
    has,
    here,
    malformed,
    plausible_frame,
    plausible_ip,
    register_ether_type,
    register_protocol,
    step_ethernet,
    take,
    take_tunnel,
    upper,
)
from streamcore.headers._wireless cimport step_wifi

cdef enum:
    FLAG_CHECKSUM = 0x80     # GRE, first byte
    FLAG_ROUTING = 0x40
    FLAG_KEY = 0x20
    FLAG_SEQUENCE = 0x10
    FLAG_ACKNOWLEDGE = 0x80  # version 1, second byte


cdef void step_gre(Walk *walk) noexcept nogil:
    """Flags and version, EtherType; then what the flags announce: checksum and offset, key, sequence number, routes (RFC 1701)."""
    cdef const uint8_t *p = here(walk)
    cdef uint32_t size = 4
    cdef uint32_t id = 0
    upper(walk)
    if has(walk, 4) and p[1] & 7:
        if p[1] & 7 == 1 and be16(p + 2) == 0x880B:
            pptp(walk)
        else:
            ends(walk, OUTCOME_UNKNOWN)
        return
    if has(walk, 4):
        size += 4 * ((p[0] & (FLAG_CHECKSUM | FLAG_ROUTING)) != 0)
        if p[0] & FLAG_KEY:
            if has(walk, size + 4):
                id = be32(p + size)
            size += 4
        size += 4 * ((p[0] & FLAG_SEQUENCE) != 0)
        if p[0] & FLAG_ROUTING:  # entries of family, offset, length and routes; an empty one ends the list
            while has(walk, size + 4) and p[size + 3]:
                size += 4 + p[size + 3]
            size += 4
    if take_tunnel(walk, TUNNEL_GRE, id, size):
        gre_payload(walk, be16(p + 2), p[0])


cdef void gre_payload(Walk *walk, uint16_t kind, uint8_t flags) noexcept nogil:
    if kind == 0x6558:      # transparent Ethernet bridging
        go_frame(walk)
    elif kind == 0x88BE and not flags & FLAG_SEQUENCE:  # ERSPAN type I has no header of its own
        enter(walk, TUNNEL_ERSPAN, 0)
        walk.next = step_ethernet
    elif kind == 0x88BE:
        walk.next = erspan2
    elif kind == 0x22EB:
        walk.next = erspan3
    elif kind == 0x883E:
        walk.next = wccp
    elif kind == 0x880B:
        walk.next = step_ppp
    elif kind == 0x8909:
        walk.next = metadata
    elif 0x8200 <= kind <= 0x8370 and kind & 0x0F == 0:  # Aruba's access points: 802.11
        walk.next = step_wifi
    elif kind == 0x6559:
        walk.next = step_frame_relay
    elif kind == 0 and not has(walk, 1):  # a returning keepalive
        ends(walk, OUTCOME_NOTHING)
    elif kind < 1536:
        ends(walk, OUTCOME_UNKNOWN)
    else:
        go_ether_type(walk, kind)


cdef void metadata(Walk *walk) noexcept nogil:
    """Cisco metadata. In GRE the EtherType of what follows comes first; on Ethernet it comes last."""
    cdef const uint8_t *p = here(walk)
    if take(walk, LAYER_TAG, 8):
        go_ether_type(walk, be16(p))


cdef void pptp(Walk *walk) noexcept nogil:
    """GRE version 1 (RFC 2637): the key holds the payload's length and the call. A bare acknowledgement has no payload."""
    cdef const uint8_t *p = here(walk)
    cdef uint32_t size = 8 + 4 * ((p[0] & FLAG_SEQUENCE) != 0) + 4 * ((p[1] & FLAG_ACKNOWLEDGE) != 0)
    cdef uint32_t call = be16(p + 6) if has(walk, 8) else 0
    if not take_tunnel(walk, TUNNEL_PPTP, call, size):
        return
    if p[0] & FLAG_SEQUENCE and has(walk, 1):
        walk.next = step_ppp
    else:
        ends(walk, OUTCOME_NOTHING)


cdef void erspan2(Walk *walk) noexcept nogil:
    """Version 1, VLAN; class of service, encapsulation, truncated, 10-bit session; index."""
    cdef const uint8_t *p = here(walk)
    if has(walk, 4) and p[0] >> 4 != 1:
        ends(walk, OUTCOME_UNKNOWN)
    elif take_tunnel(walk, TUNNEL_ERSPAN, be16(p + 2) & 0x3FF if has(walk, 4) else 0, 8):
        walk.next = step_ethernet


cdef void erspan3(Walk *walk) noexcept nogil:
    """Version 2: as type II, then timestamp, group tag, frame type; 8 more bytes if the last bit is set."""
    cdef const uint8_t *p = here(walk)
    cdef uint8_t frame
    if has(walk, 4) and p[0] >> 4 != 2:
        ends(walk, OUTCOME_UNKNOWN)
        return
    if not take_tunnel(walk, TUNNEL_ERSPAN, be16(p + 2) & 0x3FF if has(walk, 4) else 0, 12 + 8 * (p[11] & 1) if has(walk, 12) else 12):
        return
    frame = p[10] >> 2 & 0x1F
    if frame == 0:
        walk.next = step_ethernet
    elif frame == 2:
        walk.next = step_ip
    else:
        ends(walk, OUTCOME_UNKNOWN)


cdef void wccp(Walk *walk) noexcept nogil:
    """Version 2 has a redirect header of 4 bytes, which cannot look like IPv4; version 1 has none."""
    if has(walk, 1) and here(walk)[0] >> 4 != 4:
        if not take_tunnel(walk, TUNNEL_WCCP, 0, 4):
            return
    walk.next = step_ip


cdef void etherip(Walk *walk) noexcept nogil:
    """RFC 3378: version 3 and 12 zero bits, then a frame."""
    upper(walk)
    if has(walk, 2) and be16(here(walk)) != 0x3000:
        ends(walk, OUTCOME_UNKNOWN)
    elif take_tunnel(walk, TUNNEL_ETHERIP, 0, 2):
        walk.next = step_ethernet


cdef void ethernet_in_ip(Walk *walk) noexcept nogil:
    """RFC 8986 4.9: a frame, mostly behind a segment routing header."""
    upper(walk)
    enter(walk, TUNNEL_IP, 0)
    walk.next = step_ethernet


cdef void pim(Walk *walk) noexcept nogil:
    """RFC 7761. A register holds a packet; a null register may hold just an IP header. Every other message is one layer."""
    cdef const uint8_t *p = here(walk)
    upper(walk)
    if has(walk, 8) and p[0] == 0x21 and plausible_ip(p + 8, walk.end - walk.at - 8):
        if take_tunnel(walk, TUNNEL_PIM, 0, 8):
            walk.next = step_ip
    elif take(walk, LAYER_PIM, 4):
        ends(walk, OUTCOME_CONTROL)


cdef void mpls_in_ip(Walk *walk) noexcept nogil:
    upper(walk)
    enter(walk, TUNNEL_MPLS, 0)
    step_mpls(walk)


cdef void step_l2tp3(Walk *walk) noexcept nogil:
    """RFC 3931: a session (0: control), a cookie of 0, 4 or 8 bytes, and an optional sublayer header of 4. The packet does not say which, so the
    tunnel is accepted only if a frame of IP or ARP follows at one of these places."""
    cdef const uint8_t *p = here(walk)
    cdef uint32_t size
    upper(walk)
    if not has(walk, 4) or be32(p) == 0:
        ends(walk, OUTCOME_UNKNOWN)
        return
    for size in range(4, 20, 4):
        if has(walk, size) and plausible_frame(p + size, walk.end - walk.at - size):
            if take_tunnel(walk, TUNNEL_L2TP, be32(p), size):
                walk.next = step_ethernet
            return
    ends(walk, OUTCOME_UNKNOWN)


cdef void nsh(Walk *walk) noexcept nogil:
    """RFC 8300: version, TTL, length in words; metadata type, next protocol; path and index."""
    cdef const uint8_t *p = here(walk)
    cdef uint32_t size = 4 * (p[1] & 0x3F) if has(walk, 2) else 8
    if size < 8:
        malformed(walk)
        return
    if not take_tunnel(walk, TUNNEL_NSH, be32(p + 4) >> 8 if has(walk, 8) else 0, size):
        return
    go_next_protocol(walk, p[3])


cdef void go_next_protocol(Walk *walk, uint8_t number) noexcept nogil:
    if number == 1 or number == 2:
        walk.next = step_ip
    elif number == 3:
        walk.next = step_ethernet
    elif number == 4:
        walk.next = nsh
    elif number == 5:
        walk.next = step_mpls
    else:
        ends(walk, OUTCOME_UNKNOWN)


cdef void esp(Walk *walk) noexcept nogil:
    """RFC 4303: index and sequence number; what follows is encrypted."""
    upper(walk)
    if take(walk, LAYER_EXTENSION, 8):
        walk.layers[walk.layer_count - 1].detail = walk.number
        ends(walk, OUTCOME_ENCRYPTED)


cdef void compressed(Walk *walk) noexcept nogil:
    """RFC 3173: next header, flags, index. What follows is compressed, so it cannot be read any more than if it were encrypted."""
    upper(walk)
    if take(walk, LAYER_EXTENSION, 4):
        walk.layers[walk.layer_count - 1].detail = walk.number
        ends(walk, OUTCOME_ENCRYPTED)


register_protocol(47, step_gre)
register_protocol(50, esp)
register_protocol(97, etherip)
register_protocol(103, pim)
register_protocol(108, compressed)
register_protocol(115, step_l2tp3)
register_protocol(137, mpls_in_ip)
register_protocol(143, ethernet_in_ip)
register_ether_type(0x894F, nsh)
