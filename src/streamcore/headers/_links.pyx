"""Link types: one row at the end for each, and one small function where it is not the function of another.

Source: https://www.tcpdump.org/linktypes.html. Raw IP is registered by _ip.pyx.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from streamcore.headers._walk cimport (
    LAYER_CAPTURE,
    OUTCOME_UNKNOWN,
    Walk,
    be16,
    be32,
    ends,
    go_ether_type,
    here,
    register_link,
    step_ethernet,
    take,
)

cdef enum:
    ARPHRD_NETLINK = 824     # in a cooked header: the protocol field is a netlink family


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
    if hardware == ARPHRD_NETLINK:
        ends(walk, OUTCOME_UNKNOWN)
    else:
        go_ether_type(walk, protocol)


cdef void loopback(Walk *walk) noexcept nogil:
    """LINKTYPE_NULL and LOOP: an address family in the capturing host's order, or in network order; or an EtherType."""
    cdef const uint8_t *p = here(walk)
    cdef uint32_t family
    if not take(walk, LAYER_CAPTURE, 4):
        return
    family = be32(p)
    if family > 0xFFFF:
        family = p[0] | (p[1] << 8)
    if family == 2:
        go_ether_type(walk, 0x0800)
    elif family == 10 or family == 23 or family == 24 or family == 28 or family == 30:  # AF_INET6, by system
        go_ether_type(walk, 0x86DD)
    elif family > 1500:
        go_ether_type(walk, <uint16_t> family)
    else:
        ends(walk, OUTCOME_UNKNOWN)


register_link(1, step_ethernet)
register_link(0, loopback)
register_link(108, loopback)
register_link(113, cooked)
register_link(276, cooked2)
