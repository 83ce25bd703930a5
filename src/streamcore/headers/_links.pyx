"""Link types: each has a row at the end, and a small function unless it shares another's.

PPP, HDLC and Frame Relay are in _ppp.pyx, 802.11 in _wireless.pyx, raw IP in _ip.pyx. Source: https://www.tcpdump.org/linktypes.html.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from streamcore.headers._ether_types cimport step_llc, step_mpls
from streamcore.headers._ip cimport step_ip
from streamcore.headers._ppp cimport step_cisco_hdlc, step_frame_relay, step_ppp
from streamcore.headers._walk cimport (
    LAYER_CAPTURE,
    LAYER_FDDI,
    LAYER_LINK,
    OUTCOME_UNKNOWN,
    Step,
    Walk,
    be16,
    be32,
    bound,
    ends,
    go_ether_type,
    go_link,
    has,
    here,
    le16,
    malformed,
    register_link,
    step_ethernet,
    take,
)
from streamcore.headers._wireless cimport step_radiotap

cdef enum:
    ARPHRD_RADIOTAP = 803
    ARPHRD_NETLINK = 824     # in a cooked header: the protocol field holds a netlink family
    ETH_P_802_2 = 4          # in a cooked header: LLC follows
    ETH_P_PPP = 7            # in a cooked header: PPP follows
    LINK_PPP = 9
    PKTAP_LEAST = 108


cdef void cooked(Walk *walk) noexcept nogil:
    """LINKTYPE_LINUX_SLL: packet type, ARPHRD_ type, address length, address, protocol."""
    cdef const uint8_t *p = here(walk)
    if take(walk, LAYER_CAPTURE, 16):
        cooked_protocol(walk, be16(p + 2), be16(p + 14))


cdef void cooked2(Walk *walk) noexcept nogil:
    """LINKTYPE_LINUX_SLL2: protocol, reserved, interface, ARPHRD_ type, packet type, address length, address."""
    cdef const uint8_t *p = here(walk)
    if take(walk, LAYER_CAPTURE, 20):
        cooked_protocol(walk, be16(p + 8), be16(p))


cdef inline void cooked_protocol(Walk *walk, uint16_t hardware, uint16_t protocol) noexcept nogil:
    if hardware == ARPHRD_RADIOTAP:
        walk.next = step_radiotap
    elif protocol == ETH_P_802_2 and hardware != ARPHRD_NETLINK:
        walk.next = step_llc
    elif protocol == ETH_P_PPP and hardware != ARPHRD_NETLINK:
        go_link(walk, LINK_PPP)
    elif hardware == ARPHRD_NETLINK or protocol < 1536:  # Linux's own numbers
        ends(walk, OUTCOME_UNKNOWN)
    else:
        go_ether_type(walk, protocol)


cdef void loopback(Walk *walk) noexcept nogil:
    """LINKTYPE_NULL and LOOP: an address family, in the capturing host's byte order or in network order; or an EtherType."""
    cdef const uint8_t *p = here(walk)
    cdef uint32_t family
    if not take(walk, LAYER_CAPTURE, 4):
        return
    family = be32(p)
    if family > 0xFFFF:
        family = le16(p)
    if family > 1500:
        go_ether_type(walk, <uint16_t> family)
    else:
        go_family(walk, family)


cdef void go_family(Walk *walk, uint32_t family) noexcept nogil:
    """AF_INET on every system, AF_INET6 of Linux, Windows, NetBSD, FreeBSD, macOS and Solaris."""
    if family == 2:
        go_ether_type(walk, 0x0800)
    elif family == 10 or family == 23 or family == 24 or family == 26 or family == 28 or family == 30:
        go_ether_type(walk, 0x86DD)
    else:
        ends(walk, OUTCOME_UNKNOWN)


cdef inline uint32_t host32(const uint8_t *p) noexcept nogil:
    """A small number in either byte order."""
    cdef uint32_t value = be32(p)
    return value if value <= 0xFFFF else le16(p)


cdef void enc(Walk *walk) noexcept nogil:
    """OpenBSD's encapsulation device: family, index, flags."""
    cdef const uint8_t *p = here(walk)
    if take(walk, LAYER_CAPTURE, 12):
        go_family(walk, host32(p))


cdef void pflog(Walk *walk) noexcept nogil:
    """The header's length, rounded up to a multiple of 4; family, action, …"""
    cdef const uint8_t *p = here(walk)
    cdef uint32_t size = (p[0] + 3) & ~3 if has(walk, 1) else 4
    if size < 4:
        malformed(walk)
    elif take(walk, LAYER_CAPTURE, size):
        go_family(walk, p[1])


cdef void nflog(Walk *walk) noexcept nogil:
    """Family, version 0, resource; then fields of length, type and value, in the writing host's byte order and padded to 4; type 1 names an
    EtherType, type 9 is the packet."""
    cdef const uint8_t *p = here(walk)
    cdef uint32_t size = 4
    cdef uint32_t length
    cdef uint16_t kind, protocol = 0
    cdef bint little = has(walk, 6) and le16(p + 4) >= 4 and has(walk, 4 + le16(p + 4)) and p[7] & 0x7F == 0
    if has(walk, 2) and p[1]:
        ends(walk, OUTCOME_UNKNOWN)
        return
    while has(walk, size + 4):
        length = le16(p + size) if little else be16(p + size)
        if length < 4:
            break
        kind = (le16(p + size + 2) if little else be16(p + size + 2)) & 0x7FFF
        if kind == 9:
            bound(walk, walk.at + size + length)
            if not take(walk, LAYER_CAPTURE, size + 4):
                return
            if p[0] == 2 or p[0] == 10 or protocol < 1536:
                go_family(walk, p[0])
            else:  # of a bridge, say
                go_ether_type(walk, protocol)
            return
        if kind == 1 and length >= 6 and has(walk, size + 6):
            protocol = be16(p + size + 4)
        size += (length + 3) & ~<uint32_t> 3
    take(walk, LAYER_CAPTURE, 4)
    ends(walk, OUTCOME_UNKNOWN)


cdef void pktap(Walk *walk) noexcept nogil:
    """Apple: length and type of the record (1: a packet), link type; little-endian. LINKTYPE_USER2 is tried as this."""
    cdef const uint8_t *p = here(walk)
    cdef uint32_t size = le16(p) if has(walk, 12) else PKTAP_LEAST
    if has(walk, 12) and (size < PKTAP_LEAST or p[2] or p[3] or be16(p + 10) or le16(p + 4) != 1):
        ends(walk, OUTCOME_UNKNOWN)
    elif take(walk, LAYER_CAPTURE, size):
        go_link(walk, le16(p + 8))


cdef void fddi(Walk *walk) noexcept nogil:
    """Frame control (50 to 5f: LLC), target, source."""
    cdef const uint8_t *p = here(walk)
    if not take(walk, LAYER_FDDI, 13):
        return
    if p[0] & 0xF0 == 0x50:
        walk.next = step_llc
    else:
        ends(walk, OUTCOME_UNKNOWN)


cdef void token_ring(Walk *walk) noexcept nogil:
    """Access control, frame control, target, source; a route if the first bit of the source is set; then LLC."""
    cdef const uint8_t *p = here(walk)
    cdef uint32_t size = 14
    if has(walk, 15) and p[8] & 0x80:
        size += p[14] & 0x1F
    if not take(walk, LAYER_LINK, size):
        return
    if p[1] & 0xC0 == 0x40:
        walk.next = step_llc
    else:
        ends(walk, OUTCOME_UNKNOWN)


cdef inline void arcnet(Walk *walk, uint32_t kind_at, bint exceptions) noexcept nogil:
    """Source, target, type. The types of RFC 1201 add a split flag and a sequence number; in an exception frame four bytes come before these."""
    cdef const uint8_t *p = here(walk)
    cdef uint32_t size = kind_at + 1
    cdef uint8_t kind
    if not has(walk, size):
        take(walk, LAYER_LINK, size)
        return
    kind = p[kind_at]
    if kind == 212 or kind == 213 or kind == 196:
        if exceptions and has(walk, size + 1) and p[size] == 0xFF:
            size += 4
        size += 3
    if not take(walk, LAYER_LINK, size):
        return
    if kind == 212 or kind == 240 or kind == 196:
        walk.next = step_ip
    elif kind == 213 or kind == 241:
        go_ether_type(walk, 0x0806)
    else:
        ends(walk, OUTCOME_UNKNOWN)


cdef void arcnet_bsd(Walk *walk) noexcept nogil:
    arcnet(walk, 2, True)


cdef void arcnet_linux(Walk *walk) noexcept nogil:
    arcnet(walk, 4, False)


cdef inline void headed(Walk *walk, uint32_t size, uint32_t type_at) noexcept nogil:
    """A header of fixed size that contains an EtherType."""
    cdef const uint8_t *p = here(walk)
    if take(walk, LAYER_LINK, size):
        go_ether_type(walk, be16(p + type_at))


cdef void ip_over_infiniband(Walk *walk) noexcept nogil:
    headed(walk, 44, 40)


cdef void ip_over_firewire(Walk *walk) noexcept nogil:
    headed(walk, 18, 16)


cdef void dsa(Walk *walk) noexcept nogil:
    """Switch tags of Marvell and Broadcom, between the addresses and the EtherType."""
    headed(walk, 18, 16)


cdef void edsa(Walk *walk) noexcept nogil:
    headed(walk, 22, 20)


cdef inline void prefixed(Walk *walk, uint32_t size, Step following) noexcept nogil:
    """A header of fixed size that does not say what follows."""
    if take(walk, LAYER_CAPTURE, size):
        walk.next = following


cdef void prepended(Walk *walk) noexcept nogil:
    """Broadcom's tag before a frame."""
    prefixed(walk, 4, step_ethernet)


cdef void slip(Walk *walk) noexcept nogil:
    prefixed(walk, 16, step_ip)


cdef void ipnet(Walk *walk) noexcept nogil:
    """Solaris: version 1, family, hook, length, interfaces, zones."""
    cdef const uint8_t *p = here(walk)
    if take(walk, LAYER_CAPTURE, 24):
        go_family(walk, p[1])


cdef void sun_atm(Walk *walk) noexcept nogil:
    """Direction and traffic type (2: LLC, 1: LAN emulation), path, circuit."""
    cdef const uint8_t *p = here(walk)
    if not take(walk, LAYER_CAPTURE, 4):
        return
    if p[0] & 15 == 2:
        walk.next = step_llc
    elif p[0] & 15 == 1:
        prefixed(walk, 2, step_ethernet)
    elif p[0] & 15 == 0 or p[0] & 15 == 4:  # not said
        atm(walk)
    else:
        ends(walk, OUTCOME_UNKNOWN)


cdef void atm(Walk *walk) noexcept nogil:
    """RFC 2684 and classical IP: LLC, or IP without a header."""
    if has(walk, 1) and here(walk)[0] == 0x45:
        walk.next = step_ip
    else:
        walk.next = step_llc


cdef void classical_ip(Walk *walk) noexcept nogil:
    """RFC 2225: LLC, or bare IP as Linux captures it. The only DSAPs that begin with 4 or 6 are old ones of NetWare and IEEE 802.1, which never
    carry IP."""
    if has(walk, 1) and here(walk)[0] >> 4 != 4 and here(walk)[0] >> 4 != 6:
        walk.next = step_llc
    else:
        walk.next = step_ip


cdef void erf(Walk *walk) noexcept nogil:
    """Endace: 8 bytes of time, type, flags, lengths. If the first bit of the type is set, an extension header of 8 bytes follows,
    and so on by its own first bit."""
    cdef const uint8_t *p = here(walk)
    cdef uint32_t size = 16
    cdef uint8_t kind
    if not has(walk, 16):
        take(walk, LAYER_CAPTURE, 16)
        return
    kind = p[8] & 0x7F
    if p[8] & 0x80:
        size += 8
        while has(walk, size) and p[size - 8] & 0x80:
            size += 8
    if kind == 2 or kind == 11 or kind == 16 or kind == 20:
        prefixed(walk, size + 2, step_ethernet)
    elif kind == 22 or kind == 23:
        prefixed(walk, size, step_ip)
    elif kind == 4 or kind == 9:  # AAL5, behind the header of an ATM cell, and of a channel
        prefixed(walk, size + (4 if kind == 4 else 8), step_llc)
    elif kind == 1 or kind == 5 or kind == 10 or kind == 15 or kind == 17 or kind == 19:  # HDLC: 5 and 17 with the header of a channel
        size += 4 if kind == 5 or kind == 17 else 0
        prefixed(walk, size, step_cisco_hdlc if has(walk, size + 1) and p[size] & 0x7F == 0x0F else step_ppp)
    else:
        take(walk, LAYER_CAPTURE, size)
        ends(walk, OUTCOME_UNKNOWN)


cdef inline void juniper(Walk *walk, Step following) noexcept nogil:
    """Magic number 4d4743, flags (80: an extension with its length follows; 02: there is no link header, but a number of what follows)."""
    cdef const uint8_t *p = here(walk)
    cdef uint32_t size = 4
    if has(walk, 4) and be32(p) >> 8 != 0x4D4743:
        malformed(walk)
        return
    if has(walk, 6) and p[3] & 0x80:
        size += 2 + be16(p + 4)
    prefixed(walk, size, juniper_bare if has(walk, 4) and p[3] & 0x02 else following)


cdef void juniper_bare(Walk *walk) noexcept nogil:
    """Four bytes, little-endian: 2 IPv4, 6 IPv6; 4, 5, 8 MPLS."""
    cdef const uint8_t *p = here(walk)
    if not take(walk, LAYER_LINK, 4):
        return
    if le16(p) == 2 or le16(p) == 6:
        walk.next = step_ip
    elif le16(p) == 4 or le16(p) == 5 or le16(p) == 8:
        walk.next = step_mpls
    else:
        ends(walk, OUTCOME_UNKNOWN)


cdef void juniper_multilink(Walk *walk) noexcept nogil:
    """PPP, perhaps behind two bytes of a bundle."""
    juniper(walk, bundled_ppp)


cdef void bundled_ppp(Walk *walk) noexcept nogil:
    if has(walk, 2) and be16(here(walk)) == 0:
        if not take(walk, LAYER_LINK, 2):
            return
    walk.next = step_ppp


cdef void juniper_atm1(Walk *walk) noexcept nogil:
    juniper(walk, cell_header4)


cdef void juniper_atm2(Walk *walk) noexcept nogil:
    juniper(walk, cell_header8)


cdef void cell_header4(Walk *walk) noexcept nogil:
    if take(walk, LAYER_LINK, 4):
        atm(walk)


cdef void cell_header8(Walk *walk) noexcept nogil:
    """Here PPP may follow without LLC."""
    if not take(walk, LAYER_LINK, 8):
        return
    if has(walk, 2) and (be16(here(walk)) == 0x0021 or be16(here(walk)) == 0x0057 or be16(here(walk)) == 0xFF03):
        walk.next = step_ppp
    else:
        atm(walk)


cdef void juniper_ethernet(Walk *walk) noexcept nogil:
    juniper(walk, step_ethernet)


cdef void juniper_ppp(Walk *walk) noexcept nogil:
    juniper(walk, step_ppp)


cdef void juniper_hdlc(Walk *walk) noexcept nogil:
    juniper(walk, step_cisco_hdlc)


cdef void juniper_frame_relay(Walk *walk) noexcept nogil:
    juniper(walk, step_frame_relay)


register_link(1, step_ethernet)
register_link(0, loopback)
register_link(108, loopback)
register_link(113, cooked)
register_link(276, cooked2)
register_link(6, token_ring)
register_link(7, arcnet_bsd)
register_link(129, arcnet_linux)
register_link(8, slip)
register_link(10, fddi)
register_link(11, atm)
register_link(100, atm)
register_link(106, classical_ip)
register_link(123, sun_atm)
register_link(109, enc)
register_link(117, pflog)
register_link(138, ip_over_firewire)
register_link(149, pktap)
register_link(258, pktap)
register_link(130, juniper_multilink)
register_link(135, juniper_atm2)
register_link(137, juniper_atm1)
register_link(178, juniper_ethernet)
register_link(179, juniper_ppp)
register_link(180, juniper_frame_relay)
register_link(181, juniper_hdlc)
register_link(197, erf)
register_link(226, ipnet)
register_link(239, nflog)
register_link(242, ip_over_infiniband)
register_link(281, dsa)
register_link(282, prepended)
register_link(284, dsa)
register_link(285, edsa)
