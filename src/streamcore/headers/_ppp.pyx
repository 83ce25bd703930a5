"""PPP in its framings, Cisco HDLC and Frame Relay. Each link type has a row at the end.

Sources: RFC 1661, 1662, 1990, 3518, 2427, 5332; https://www.tcpdump.org/linktypes.html.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from streamcore.headers._ether_types cimport step_mpls, step_pppoe
from streamcore.headers._ip cimport step_ip
from streamcore.headers._walk cimport (
    LAYER_CAPTURE,
    LAYER_LINK,
    LAYER_PPP,
    OUTCOME_ENCRYPTED,
    OUTCOME_FRAGMENT,
    OUTCOME_UNKNOWN,
    Walk,
    be16,
    ends,
    go_ether_type,
    has,
    here,
    register_ether_type,
    register_link,
    step_ethernet,
    take,
)


cdef void step_ppp(Walk *walk) noexcept nogil:
    """Address and control unless compressed away, then the protocol: one byte if that is odd, otherwise two."""
    cdef const uint8_t *p = here(walk)
    cdef uint32_t size = 2 if has(walk, 2) and p[0] == 0xFF and p[1] == 0x03 else 0
    cdef uint16_t protocol
    if not has(walk, size + 1):
        take(walk, LAYER_PPP, size + 2)
        return
    if p[size] & 1:
        protocol = p[size]
        size += 1
    else:
        protocol = be16(p + size) if has(walk, size + 2) else 0
        size += 2
    if take(walk, LAYER_PPP, size):
        ppp_payload(walk, protocol)


cdef void ppp_payload(Walk *walk, uint16_t protocol) noexcept nogil:
    if protocol == 0x0021 or protocol == 0x0057:
        walk.next = step_ip
    elif protocol == 0x0281 or protocol == 0x0283:
        walk.next = step_mpls
    elif protocol == 0x003D:
        walk.next = multilink
    elif protocol == 0x0031:
        walk.next = bridged
    elif protocol == 0x0053 or protocol == 0x00FD or protocol == 0x0055 or protocol == 0x00FB:  # encrypted, compressed
        ends(walk, OUTCOME_ENCRYPTED)
    else:
        ends(walk, OUTCOME_UNKNOWN)


cdef void multilink(Walk *walk) noexcept nogil:
    """RFC 1990, long sequence numbers. Only the fragment that begins a packet names a protocol."""
    cdef const uint8_t *p = here(walk)
    if not take(walk, LAYER_PPP, 4):
        return
    if p[0] & 0x80:
        walk.next = step_ppp
    else:
        ends(walk, OUTCOME_FRAGMENT)


cdef void bridged(Walk *walk) noexcept nogil:
    """RFC 3518: flags, frame type (1: Ethernet)."""
    cdef const uint8_t *p = here(walk)
    if not take(walk, LAYER_PPP, 2):
        return
    if p[1] == 1 and not p[0] & 0x10:
        walk.next = step_ethernet
    else:
        ends(walk, OUTCOME_UNKNOWN)


cdef void ppp_or_hdlc(Walk *walk) noexcept nogil:
    """LINKTYPE_PPP_HDLC: Cisco HDLC if the first byte is one of its addresses, otherwise PPP."""
    if has(walk, 1) and (here(walk)[0] == 0x0F or here(walk)[0] == 0x8F):
        step_cisco_hdlc(walk)
    else:
        step_ppp(walk)


cdef void step_cisco_hdlc(Walk *walk) noexcept nogil:
    """Address, control, EtherType. Here 0x8035 is Cisco's keepalive, not RARP."""
    cdef const uint8_t *p = here(walk)
    if not take(walk, LAYER_LINK, 4):
        return
    if be16(p + 2) < 1536 or be16(p + 2) == 0x8035:
        ends(walk, OUTCOME_UNKNOWN)
    else:
        go_ether_type(walk, be16(p + 2))


cdef void step_frame_relay(Walk *walk) noexcept nogil:
    """An address of 2 to 4 bytes, of which only the last is odd. Then control 03, an optional zero byte, and what RFC 2427 describes; or, in
    Cisco's encapsulation, an EtherType."""
    cdef const uint8_t *p = here(walk)
    cdef uint32_t size = 1
    while size < 4 and has(walk, size) and not p[size - 1] & 1:
        size += 1
    if not has(walk, size + 2):
        take(walk, LAYER_LINK, size + 2)
        return
    if size < 2 or not p[size - 1] & 1:
        ends(walk, OUTCOME_UNKNOWN)
        return
    if p[size] != 0x03:
        if be16(p + size) >= 1536 and take(walk, LAYER_LINK, size + 2):
            go_ether_type(walk, be16(p + size))
        else:
            ends(walk, OUTCOME_UNKNOWN)
        return
    size += 1
    if p[size] == 0:
        size += 1
    nlpid(walk, size)


cdef void nlpid(Walk *walk, uint32_t size) noexcept nogil:
    """The network layer protocol identifier after `size` bytes (RFC 2427, ISO 9577)."""
    cdef const uint8_t *p = here(walk) + size
    if not has(walk, size + 1):
        take(walk, LAYER_LINK, size + 1)
    elif p[0] == 0xCC or p[0] == 0x8E:
        if take(walk, LAYER_LINK, size + 1):
            walk.next = step_ip
    elif p[0] == 0xCF:
        if take(walk, LAYER_LINK, size + 1):
            walk.next = step_ppp
    elif p[0] == 0x80 and has(walk, size + 6) and be16(p + 1) == 0 and p[3] == 0:
        if take(walk, LAYER_LINK, size + 6):
            go_ether_type(walk, be16(p + 4))
    elif p[0] == 0x80 and has(walk, size + 6) and be16(p + 1) == 0x0080 and p[3] == 0xC2 and (be16(p + 4) == 1 or be16(p + 4) == 7):
        if take(walk, LAYER_LINK, size + 6):
            walk.next = step_ethernet
    else:
        ends(walk, OUTCOME_UNKNOWN)


cdef void directed_ppp(Walk *walk) noexcept nogil:
    """One byte that gives the direction."""
    if take(walk, LAYER_CAPTURE, 1):
        walk.next = step_ppp


cdef void pppd(Walk *walk) noexcept nogil:
    """LINKTYPE_PPP_PPPD: the direction replaces the address field, and the control field follows."""
    if take(walk, LAYER_CAPTURE, 2):
        walk.next = step_ppp


cdef void directed_hdlc(Walk *walk) noexcept nogil:
    if take(walk, LAYER_CAPTURE, 1):
        walk.next = step_cisco_hdlc


cdef void directed_frame_relay(Walk *walk) noexcept nogil:
    if take(walk, LAYER_CAPTURE, 1):
        walk.next = step_frame_relay


register_link(9, ppp_or_hdlc)
register_link(50, ppp_or_hdlc)
register_link(51, step_pppoe)
register_link(104, step_cisco_hdlc)
register_link(107, step_frame_relay)
register_link(166, pppd)
register_link(204, directed_ppp)
register_link(205, directed_hdlc)
register_link(206, directed_frame_relay)
register_ether_type(0x880B, step_ppp)
