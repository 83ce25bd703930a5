"""Tunnels that stand directly on IP, and what they carry. One row at the end for each. IP in IP is in _ip.pyx.

Sources: RFC 2784, 2890, 1701.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from streamcore.headers._walk cimport (
    LAYER_TUNNEL,
    OUTCOME_UNKNOWN,
    TUNNEL_GRE,
    Walk,
    be16,
    be32,
    ends,
    enter,
    go_ether_type,
    has,
    here,
    register_protocol,
    step_ethernet,
    take,
    taken,
)

cdef enum:
    ETHER_BRIDGED = 0x6558   # transparent Ethernet bridging: a whole frame


cdef void gre(Walk *walk) noexcept nogil:
    """Flags and version, EtherType; then what the flags say: checksum and offset, key, sequence number."""
    cdef const uint8_t *p = here(walk)
    cdef uint32_t size, id = 0
    if walk.at < walk.end:
        walk.ip.l4 = <uint16_t> walk.at
    if has(walk, 2) and p[1] & 7:
        ends(walk, OUTCOME_UNKNOWN)
        return
    size = 4 + 4 * ((p[0] >> 7) + (p[0] >> 5 & 1) + (p[0] >> 4 & 1)) if has(walk, 1) else 4
    if not take(walk, LAYER_TUNNEL, size):
        return
    taken(walk).detail = TUNNEL_GRE
    if p[0] & 0x20:
        id = be32(p + 4 + 4 * (p[0] >> 7))
    enter(walk, TUNNEL_GRE, id)
    if be16(p + 2) == ETHER_BRIDGED:
        walk.next = step_ethernet
    else:
        go_ether_type(walk, be16(p + 2))


register_protocol(47, gre)
