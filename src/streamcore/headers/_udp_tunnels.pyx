"""Tunnels over UDP: each has a row of TUNNEL_STEPS, with its standard port. A port alone proves nothing: each step checks whatever it can
before it takes a header. If a check fails, the datagram is payload.

Sources: RFC 7348, draft-ietf-nvo3-vxlan-gpe, RFC 8926, 3GPP TS 29.281, RFC 2661, 3931, 4380, 6081, 9300, 9301, 5415, 8086, 7510; TZSP as MikroTik and
OpenWrt write it.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from streamcore.headers._ether_types cimport step_mpls
from streamcore.headers._ip cimport step_ip
from streamcore.headers._ordinary cimport go_frame
from streamcore.headers._plain cimport ROW_GTP, ROW_VXLAN, plain_vxlan
from streamcore.headers._ppp cimport step_ppp
from streamcore.headers._tunnels cimport go_next_protocol, step_gre, step_l2tp3
from streamcore.headers._walk cimport (
    OUTCOME_ENCRYPTED,
    OUTCOME_FRAGMENT,
    OUTCOME_UNKNOWN,
    TUNNEL_CAPWAP,
    TUNNEL_GENEVE,
    TUNNEL_GTP,
    TUNNEL_GUE,
    TUNNEL_L2TP,
    TUNNEL_LISP,
    TUNNEL_MPLS,
    TUNNEL_TEREDO,
    TUNNEL_TZSP,
    TUNNEL_VXLAN,
    Step,
    UdpPorts,
    Walk,
    be16,
    be32,
    bound,
    ends,
    enter,
    go_ether_type,
    go_link,
    has,
    here,
    is_known_ether_type,
    plausible_ip,
    register_udp_tunnel,
    step_ethernet,
    take_tunnel,
)
from streamcore.headers._wireless cimport step_swapped_wifi, step_wifi


cdef inline uint32_t announced(const Walk *walk) noexcept nogil:
    """The bytes of the datagram as its UDP header gives them, in front of walk.at: the capture may have fewer. Those present where it has no
    length (offload)."""
    cdef uint32_t length = be16(here(walk) - 4)
    return length - 8 if length > 8 else walk.end - walk.at


cdef void vxlan(Walk *walk) noexcept nogil:
    """RFC 7348; with flag P the generic protocol extension."""
    cdef const uint8_t *p = here(walk)
    if has(walk, 8) and p[0] & 0x04:
        vxlan_gpe(walk)
    elif has(walk, 22) and plain_vxlan(p) and take_tunnel(walk, TUNNEL_VXLAN, be32(p + 4) >> 8, 8):
        go_frame(walk)


cdef void vxlan_gpe(Walk *walk) noexcept nogil:
    """The generic protocol extension: version 0, flag I. The fourth byte names the next protocol, whether or not P is set."""
    cdef const uint8_t *p = here(walk)
    if not has(walk, 9) or p[0] & 0xF2 or not p[0] & 0x08 or be16(p + 1) or p[7]:
        return
    if (p[3] == 1 or p[3] == 2) and not plausible_ip(p + 8, walk.end - walk.at - 8):
        return
    if 1 <= p[3] <= 5 and take_tunnel(walk, TUNNEL_VXLAN, be32(p + 4) >> 8, 8):
        go_next_protocol(walk, p[3])


cdef void geneve(Walk *walk) noexcept nogil:
    """RFC 8926: version 0; options length in words, which the options must fill exactly; reserved bits zero; EtherType."""
    cdef const uint8_t *p = here(walk)
    cdef uint32_t size, at = 8
    if not has(walk, 8) or p[0] >> 6 or p[1] & 0x3F or p[7]:
        return
    size = 8 + 4 * (p[0] & 0x3F)
    if not has(walk, size) or (be16(p + 2) != 0x6558 and not is_known_ether_type(be16(p + 2))):
        return
    while at < size:
        at += 4 + 4 * (p[at + 3] & 0x1F)  # at + 4 <= size: both are multiples of 4
    if at != size:
        return
    if not take_tunnel(walk, TUNNEL_GENEVE, be32(p + 4) >> 8, size):
        return
    if be16(p + 2) == 0x6558:
        go_frame(walk)
    else:
        go_ether_type(walk, be16(p + 2))


cdef void gtp(Walk *walk) noexcept nogil:
    """TS 29.281: version 1, protocol type 1, message 255 (user data), a length that fits. The flags announce a sequence number and extension
    headers, each of which gives its length in words."""
    cdef const uint8_t *p = here(walk)
    cdef uint32_t size = 8
    cdef uint8_t following
    if not has(walk, 9) or p[0] & 0xF8 != 0x30 or p[1] != 0xFF or be16(p + 2) == 0:
        return
    if p[0] & 7:
        size = 12
        following = p[11] if has(walk, 12) and p[0] & 4 else 0
        while following:
            if not has(walk, size + 4) or p[size] == 0 or not has(walk, size + 4 * p[size]):
                return
            size += 4 * p[size]
            following = p[size - 1]
    if not has(walk, size + 1) or size > 8 + <uint32_t> be16(p + 2) or not plausible_ip(p + size, walk.end - walk.at - size):
        return
    bound(walk, walk.at + 8 + be16(p + 2))
    if take_tunnel(walk, TUNNEL_GTP, be32(p + 4), size):
        step_ip(walk)


cdef void l2tp(Walk *walk) noexcept nogil:
    """RFC 2661: flags and version 2, optional length, tunnel and session, optional sequence numbers and offset; then PPP. Version 3 (RFC 3931)
    has a session and a cookie. Control messages carry no packets."""
    cdef const uint8_t *p = here(walk)
    cdef uint32_t size = 6
    cdef uint32_t at = 2
    if not has(walk, 8) or p[0] & 0x80:
        return
    if p[0] == 0 and p[1] == 3 and be16(p + 2) == 0:
        if be32(p + 4) and take_tunnel(walk, TUNNEL_L2TP, be32(p + 4), 4):
            walk.next = step_l2tp3
        return
    if p[0] & 0x34 or p[1] != 2:
        return
    if p[0] & 0x40:
        if be16(p + 2) < 8 or be16(p + 2) > announced(walk):
            return
        at = 4
    size = at + 4 + (4 if p[0] & 0x08 else 0)
    if p[0] & 0x02:
        if not has(walk, size + 2):
            return
        size += 2 + be16(p + size)
    if not has(walk, size + 2):
        return
    if p[0] & 0x40:
        bound(walk, walk.at + be16(p + 2))
    if take_tunnel(walk, TUNNEL_L2TP, be32(p + at), size):
        walk.next = step_ppp


cdef void teredo(Walk *walk) noexcept nogil:
    """RFC 4380: optional authentication and origin, then an IPv6 packet with a Teredo or link-local address. The datagram must have all of the packet;
    trailers may follow it (RFC 6081)."""
    cdef const uint8_t *p = here(walk)
    cdef uint32_t size = 0
    cdef const uint8_t *ip
    if has(walk, 4) and be16(p) == 1:
        size = 13 + p[2] + p[3]
    if has(walk, size + 8) and be16(p + size) == 0:
        size += 8
    ip = p + size
    if not has(walk, size + 40) or ip[0] >> 4 != 6 or size + 40 + be16(ip + 4) > announced(walk):
        return
    if not (be32(ip + 8) == 0x20010000 or be32(ip + 24) == 0x20010000 or be16(ip + 8) == 0xFE80):
        return
    if size == 0:
        enter(walk, TUNNEL_TEREDO, 0)
    elif not take_tunnel(walk, TUNNEL_TEREDO, 0, size):
        return
    walk.next = step_ip


cdef void lisp(Walk *walk) noexcept nogil:
    """RFC 9300: flags, nonce or versions, instance or locator bits; then an IP packet."""
    cdef const uint8_t *p = here(walk)
    if not has(walk, 9) or p[0] & 0x04 or not plausible_ip(p + 8, walk.end - walk.at - 8):
        return
    if take_tunnel(walk, TUNNEL_LISP, be32(p + 4) >> 8 if p[0] & 0x08 else 0, 8):
        walk.next = step_ip


cdef void lisp_control(Walk *walk) noexcept nogil:
    """RFC 9301: only the encapsulated control message (type 8) holds a packet."""
    cdef const uint8_t *p = here(walk)
    if not has(walk, 5) or p[0] >> 4 != 8 or be16(p + 1) & 0x00FF or p[3] or not plausible_ip(p + 4, walk.end - walk.at - 4):
        return
    if take_tunnel(walk, TUNNEL_LISP, 0, 4):
        walk.next = step_ip


cdef void capwap(Walk *walk) noexcept nogil:
    """RFC 5415: preamble 0 (1: DTLS), length in words, binding, native 802.11 or Ethernet, fragments. Cisco swaps the two bytes of an 802.11
    frame control field."""
    cdef const uint8_t *p = here(walk)
    cdef uint32_t size
    if not has(walk, 8) or p[0] > 1 or p[3] & 0x07:
        return
    if p[0] == 1:
        if be16(p + 1) == 0 and p[3] == 0 and take_tunnel(walk, TUNNEL_CAPWAP, 0, 4):
            ends(walk, OUTCOME_ENCRYPTED)
        return
    size = 4 * (p[1] >> 3)
    if size < 8 or not has(walk, size + 1) or p[3] & 0x08 or not take_tunnel(walk, TUNNEL_CAPWAP, 0, size):
        return
    if p[3] & 0x80 and be16(p + 6) >> 3:
        ends(walk, OUTCOME_FRAGMENT)
    elif not p[2] & 1:
        walk.next = step_ethernet
    elif p[2] >> 1 & 0x1F == 1:
        walk.next = step_swapped_wifi if here(walk)[0] & 3 else step_wifi
    else:
        ends(walk, OUTCOME_UNKNOWN)


cdef void tzsp(Walk *walk) noexcept nogil:
    """Version 1, type 0 or 1 (2 to 5 carry no packets), encapsulated protocol; then fields of type, length and value up to type 1. Types 0 and 1
    have no length."""
    cdef const uint8_t *p = here(walk)
    cdef uint32_t size = 4
    cdef uint16_t kind = be16(p + 2) if has(walk, 5) else 0
    if kind == 0 or p[0] != 1 or p[1] > 5 or not (kind <= 5 or kind == 7 or kind == 18 or kind == 119 or kind == 127):
        return
    while has(walk, size + 1) and p[size] != 1:
        if p[size] == 0:
            size += 1
        elif has(walk, size + 2):
            size += 2 + p[size + 1]
        else:
            return
    if not has(walk, size + 1) or not take_tunnel(walk, TUNNEL_TZSP, 0, size + 1):
        return
    if p[1] > 1 or kind == 3 or kind == 7:  # SLIP and raw IP have forms that the header does not tell apart
        ends(walk, OUTCOME_UNKNOWN)
    else:  # Ethernet, token ring, PPP, FDDI, 802.11 behind Prism, behind AVS, and alone
        go_link(walk, 1 if kind == 1 else 6 if kind == 2 else 9 if kind == 4 else 10 if kind == 5 else 119 if kind == 119 else 163 if kind == 127
                else 105)


cdef void gre_in_udp(Walk *walk) noexcept nogil:
    """RFC 8086: GRE version 0 with a known EtherType."""
    cdef const uint8_t *p = here(walk)
    if has(walk, 8) and not p[0] & 0x4F and not p[1] and (be16(p + 2) == 0x6558 or is_known_ether_type(be16(p + 2))):
        walk.next = step_gre


cdef void mpls_in_udp(Walk *walk) noexcept nogil:
    """RFC 7510: a complete label stack, then IP or a control word."""
    cdef const uint8_t *p = here(walk)
    cdef uint32_t size = 4
    while has(walk, size) and not p[size - 2] & 1:
        size += 4
    if has(walk, size + 1) and (plausible_ip(p + size, walk.end - walk.at - size) or p[size] >> 4 == 0):
        enter(walk, TUNNEL_MPLS, be32(p) >> 12)
        walk.next = step_mpls


cdef void gue(Walk *walk) noexcept nogil:
    """draft-ietf-intarea-gue: variant 0 with data and IP inside; variant 1 is itself an IP packet."""
    cdef const uint8_t *p = here(walk)
    cdef uint32_t size
    if not has(walk, 5):
        return
    if p[0] >> 6 == 1:
        if plausible_ip(p, walk.end - walk.at):
            enter(walk, TUNNEL_GUE, 0)
            walk.next = step_ip
        return
    size = 4 + 4 * (p[0] & 0x1F)
    if p[0] & 0xE0 or (p[1] != 4 and p[1] != 41) or not has(walk, size + 1) or not plausible_ip(p + size, walk.end - walk.at - size):
        return
    if take_tunnel(walk, TUNNEL_GUE, 0, size):
        walk.next = step_ip


cdef struct Row:
    const char *name
    Step step
    int port                 # by default

cdef Row[13] TUNNEL_STEPS
TUNNEL_STEPS[ROW_VXLAN] = Row(b"vxlan", vxlan, 4789)
TUNNEL_STEPS[1] = Row(b"vxlan-gpe", vxlan_gpe, 4790)
TUNNEL_STEPS[2] = Row(b"geneve", geneve, 6081)
TUNNEL_STEPS[ROW_GTP] = Row(b"gtp", gtp, 2152)
TUNNEL_STEPS[4] = Row(b"l2tp", l2tp, 1701)
TUNNEL_STEPS[5] = Row(b"teredo", teredo, 3544)
TUNNEL_STEPS[6] = Row(b"lisp", lisp, 4341)
TUNNEL_STEPS[7] = Row(b"capwap", capwap, 5247)
TUNNEL_STEPS[8] = Row(b"tzsp", tzsp, 37008)
TUNNEL_STEPS[9] = Row(b"gre", gre_in_udp, 4754)
TUNNEL_STEPS[10] = Row(b"mpls", mpls_in_udp, 6635)
TUNNEL_STEPS[11] = Row(b"gue", gue, 6080)
TUNNEL_STEPS[12] = Row(b"lisp-control", lisp_control, 4342)
ROWS = 13

NAMES = tuple(TUNNEL_STEPS[i].name.decode() for i in range(ROWS))
DEFAULTS = tuple((TUNNEL_STEPS[i].port, i) for i in range(ROWS))

for _row in range(ROWS):
    register_udp_tunnel(_row, TUNNEL_STEPS[_row].step)

STANDARD_PORTS = UdpPorts(DEFAULTS)
