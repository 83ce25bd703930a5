"""IP and what directly follows it: extension headers, transport, ICMP and what it quotes. Tunnels are in _tunnels.pyx.

Sources: RFC 791, 8200, 7045, 4302, 9293, 768, 3828, 4340, 9260, 792, 4443, 4884, 3376.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memset

from streamcore.core.packets cimport FLAG_FRAGMENT, FLAG_MALFORMED, FLAG_MORE_FRAGMENTS, FLAG_PORTS, FLAG_TRUNCATED, NO_OFFSET
from streamcore.headers._ordinary cimport ordinary_ip
from streamcore.headers._walk cimport (
    DEPTH_MAX,
    LAYERS_MAX,
    LAYER_AH,
    LAYER_DCCP,
    LAYER_EXTENSION,
    LAYER_ICMP4,
    LAYER_ICMP6,
    LAYER_IGMP,
    LAYER_IP4,
    LAYER_IP6,
    LAYER_SCTP,
    LAYER_TCP,
    LAYER_UDP,
    LAYER_UDP_LITE,
    MARK_CUT,
    MARK_QUOTED,
    OUTCOME_CONTROL,
    OUTCOME_FRAGMENT,
    OUTCOME_MALFORMED,
    OUTCOME_NOTHING,
    OUTCOME_TRANSPORT,
    OUTCOME_TRUNCATED,
    OUTCOME_UNKNOWN,
    TUNNEL_IP,
    IpHeader,
    Walk,
    be16,
    be32,
    bound,
    cut,
    ends,
    enter,
    flag,
    go_protocol,
    go_udp_tunnel,
    has,
    here,
    malformed,
    register_ether_type,
    register_link,
    register_protocol,
    take,
    taken,
    too_deep,
    upper,
)

cdef enum:
    FRAGMENT_HEADER = 44
    AUTHENTICATION = 51


# IP.

cdef void step_ip(Walk *walk) noexcept nogil:
    if not has(walk, 1):
        flag(walk, &walk.outer, FLAG_TRUNCATED)  # there is no new IP header to mark: the innermost one found stays as it was
        ends(walk, OUTCOME_TRUNCATED)
    elif walk.depth == DEPTH_MAX:
        too_deep(walk)
    elif walk.shortcuts and walk.layer_count + 2 <= LAYERS_MAX and not walk.marks & MARK_QUOTED and ordinary_ip(
            walk, &walk.inner if walk.depth else &walk.outer, walk.at):
        return
    elif here(walk)[0] >> 4 == 4:
        ip4(walk)
    elif here(walk)[0] >> 4 == 6:
        ip6(walk)
    else:
        flag(walk, &walk.outer, FLAG_MALFORMED)
        ends(walk, OUTCOME_MALFORMED)


cdef inline bint take_ip(Walk *walk, uint8_t kind, uint32_t length) noexcept nogil:
    """take() for the fixed part of an IP header, which becomes walk.ip. A cut header leaves those found before unchanged."""
    cdef uint32_t at = walk.at
    cdef uint16_t before = walk.ip.flags
    if not take(walk, kind, length):
        walk.outer.flags |= walk.ip.flags & ~before
        if walk.ip != &walk.outer:
            walk.ip.flags = before
        return False
    if walk.marks & MARK_QUOTED:
        walk.ip = &walk.quoted
    else:
        walk.ip = &walk.inner if walk.depth else &walk.outer
        walk.depth += 1
    if walk.ip != &walk.outer:
        memset(walk.ip, 0, sizeof(IpHeader))
        walk.ip.l4 = walk.ip.payload = NO_OFFSET
    walk.ip.l3 = <uint16_t> at
    return True


cdef void ip4(Walk *walk) noexcept nogil:
    cdef const uint8_t *p = here(walk)
    cdef uint32_t at = walk.at
    cdef uint32_t length, total
    cdef uint16_t fragment
    cdef IpHeader *ip
    if has(walk, 20) and p[0] & 15 < 5:
        flag(walk, &walk.outer, FLAG_MALFORMED)
        ends(walk, OUTCOME_MALFORMED)
        return
    if not take_ip(walk, LAYER_IP4, 20):
        return
    ip = walk.ip
    length = (p[0] & 15) * 4
    ip.version = 4
    ip.protocol = p[9]
    ip.source = p + 12
    ip.target = p + 16
    fragment = be16(p + 6)
    ip.fragment_offset = fragment & 0x1FFF
    ip.identification = be16(p + 4)
    if fragment & 0x3FFF:
        ip.flags |= FLAG_FRAGMENT
    if fragment & 0x2000:
        ip.flags |= FLAG_MORE_FRAGMENTS
    total = be16(p + 2)
    if total >= length:
        bound(walk, at + total)
    elif total:  # 0: segmentation offload; the packet's own length counts
        malformed(walk)
        return
    if not options(walk, length - 20):
        return
    if ip.fragment_offset:
        ends(walk, OUTCOME_FRAGMENT)
        return
    go_protocol(walk, ip.protocol)


cdef inline bint options(Walk *walk, uint32_t length) noexcept nogil:
    """Extend the layer taken last by `length` bytes, and end it where the walk now ends. False: these bytes are cut."""
    taken(walk).end = walk.end
    if not has(walk, length):
        taken(walk).length += walk.end - walk.at
        taken(walk).marks |= MARK_CUT
        walk.at = taken(walk).offset
        cut(walk)
        return False
    taken(walk).length += length
    walk.at += length
    return True


cdef void ip6(Walk *walk) noexcept nogil:
    cdef const uint8_t *p = here(walk)
    cdef uint32_t at = walk.at
    cdef uint16_t length
    if not take_ip(walk, LAYER_IP6, 40):
        return
    walk.ip.version = 6
    walk.ip.source = p + 8
    walk.ip.target = p + 24
    length = be16(p + 4)
    if length:  # 0: a jumbogram or offload
        bound(walk, at + 40 + length)
    taken(walk).end = walk.end
    walk.ip.protocol = p[6]
    go_protocol(walk, p[6])


cdef void extension(Walk *walk) noexcept nogil:
    """Hop-by-hop options, routing, destination options: next header, then the length in units of 8 bytes, less one."""
    cdef const uint8_t *p = here(walk)
    if walk.ip.version != 6:
        upper(walk)
        ends(walk, OUTCOME_UNKNOWN)
        return
    if not take(walk, LAYER_EXTENSION, 8):
        return
    taken(walk).detail = walk.number
    follow(walk, p[0])
    if options(walk, 8 * p[1]):
        go_protocol(walk, p[0])


cdef void extension_apart(Walk *walk) noexcept nogil:
    """Mobility, HIP, Shim6, experiments (RFC 7045). They are laid out as extension headers, but other tools show them as the upper-layer
    protocol. The walk does not enter them. Nothing follows mobility (RFC 6275)."""
    cdef const uint8_t *p = here(walk)
    upper(walk)
    if walk.ip.version == 6 and take(walk, LAYER_EXTENSION, 8):
        taken(walk).detail = walk.number
        if options(walk, 8 * p[1]):
            ends(walk, OUTCOME_NOTHING if walk.number == 135 and p[0] == 59 else OUTCOME_UNKNOWN)


cdef inline void follow(Walk *walk, uint8_t protocol) noexcept nogil:
    """Record the next header that an extension header names."""
    if walk.ip.protocol != AUTHENTICATION:
        walk.ip.protocol = protocol


cdef void fragment_header(Walk *walk) noexcept nogil:
    cdef const uint8_t *p = here(walk)
    cdef uint16_t place
    if walk.ip.version != 6:
        upper(walk)
        ends(walk, OUTCOME_UNKNOWN)
        return
    if not take(walk, LAYER_EXTENSION, 8):
        return
    taken(walk).detail = FRAGMENT_HEADER
    place = be16(p + 2)
    follow(walk, p[0])
    walk.ip.fragment_offset = place >> 3
    walk.ip.identification = be32(p + 4)
    if place & 1:
        walk.ip.flags |= FLAG_MORE_FRAGMENTS
    if place & 0xFFF9:
        walk.ip.flags |= FLAG_FRAGMENT
    if walk.ip.fragment_offset:
        ends(walk, OUTCOME_FRAGMENT)
    else:
        go_protocol(walk, p[0])


cdef void authentication(Walk *walk) noexcept nogil:
    """AH. What it protects follows; the column `protocol` stays 51."""
    cdef const uint8_t *p = here(walk)
    cdef uint8_t protocol
    if not take(walk, LAYER_AH, 12):
        return
    protocol = p[0]
    if (<uint32_t> p[1] + 2) * 4 < 12:
        malformed(walk)
    elif options(walk, (<uint32_t> p[1] + 2) * 4 - 12):
        go_protocol(walk, protocol)


cdef void nothing(Walk *walk) noexcept nogil:
    upper(walk)
    ends(walk, OUTCOME_NOTHING)


cdef void ip_in_ip(Walk *walk) noexcept nogil:
    upper(walk)
    if has(walk, 1) and here(walk)[0] >> 4 != (4 if walk.number == 4 else 6):
        malformed(walk)
        return
    enter(walk, TUNNEL_IP, 0)
    step_ip(walk)


# Transport.

cdef inline void ports(Walk *walk) noexcept nogil:
    if has(walk, 4):
        walk.ip.source_port = be16(here(walk))
        walk.ip.target_port = be16(here(walk) + 2)
        walk.ip.flags |= FLAG_PORTS


cdef inline void payload(Walk *walk, uint8_t outcome) noexcept nogil:
    walk.ip.payload = <uint16_t> walk.at
    ends(walk, outcome)


cdef void tcp(Walk *walk) noexcept nogil:
    transport(walk, LAYER_TCP, 20, 12, 4)


cdef void dccp(Walk *walk) noexcept nogil:
    transport(walk, LAYER_DCCP, 12, 4, 0)


cdef inline void transport(Walk *walk, uint8_t kind, uint32_t least, int length_at, int shift) noexcept nogil:
    """A header that gives its own length in units of 4 bytes."""
    cdef const uint8_t *p = here(walk)
    upper(walk)
    ports(walk)
    if not take(walk, kind, least):
        return
    if <uint32_t> (p[length_at] >> shift) * 4 < least:
        malformed(walk)
    elif options(walk, <uint32_t> (p[length_at] >> shift) * 4 - least):
        payload(walk, OUTCOME_TRANSPORT)


cdef inline bint take_transport(Walk *walk, uint8_t kind, uint32_t length) noexcept nogil:
    """A header of fixed length. False: it is cut."""
    upper(walk)
    ports(walk)
    if not take(walk, kind, length):
        return False
    payload(walk, OUTCOME_TRANSPORT)
    return True


cdef void udp(Walk *walk) noexcept nogil:
    if take_transport(walk, LAYER_UDP, 8):
        go_udp_tunnel(walk, be16(here(walk) - 8), be16(here(walk) - 6))


cdef void udp_lite(Walk *walk) noexcept nogil:
    take_transport(walk, LAYER_UDP_LITE, 8)


cdef void sctp(Walk *walk) noexcept nogil:
    take_transport(walk, LAYER_SCTP, 12)


# Control.

cdef void icmp4(Walk *walk) noexcept nogil:
    cdef uint8_t kind = here(walk)[0] if has(walk, 1) else 0
    upper(walk)
    if take(walk, LAYER_ICMP4, 8):
        payload(walk, OUTCOME_CONTROL)
        if kind == 3 or kind == 4 or kind == 5 or kind == 11 or kind == 12:
            quote(walk)


cdef void icmp6(Walk *walk) noexcept nogil:
    cdef uint8_t kind = here(walk)[0] if has(walk, 1) else 0
    upper(walk)
    if take(walk, LAYER_ICMP6, 8):
        payload(walk, OUTCOME_CONTROL)
        if 1 <= kind <= 4:
            quote(walk)


cdef inline void quote(Walk *walk) noexcept nogil:
    """Walk the packet that an ICMP error quotes: its layers are reported with a mark, and fill no column."""
    if has(walk, 1):
        walk.marks |= MARK_QUOTED
        walk.next = step_ip


cdef void igmp(Walk *walk) noexcept nogil:
    upper(walk)
    if take(walk, LAYER_IGMP, 8):
        ends(walk, OUTCOME_CONTROL)


for _link in (12, 14, 101, 228, 229):  # raw IP
    register_link(_link, step_ip)
register_ether_type(0x0800, step_ip)
register_ether_type(0x86DD, step_ip)
for _number in (0, 43, 60):
    register_protocol(_number, extension)
for _number in (135, 139, 140, 253, 254):
    register_protocol(_number, extension_apart)
register_protocol(44, fragment_header)
register_protocol(51, authentication)
register_protocol(59, nothing)
register_protocol(4, ip_in_ip)
register_protocol(41, ip_in_ip)
register_protocol(6, tcp)
register_protocol(17, udp)
register_protocol(136, udp_lite)
register_protocol(132, sctp)
register_protocol(33, dccp)
register_protocol(1, icmp4)
register_protocol(58, icmp6)
register_protocol(2, igmp)
