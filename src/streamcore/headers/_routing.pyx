"""Routing protocols over IP that carry no packets: OSPF and VRRP. PIM, which may carry one, is in _tunnels.pyx.

Sources: RFC 2328 A.3.1, RFC 5340 A.3.1, RFC 3768 5.1, RFC 5798 5.1.
"""

from libc.stdint cimport uint8_t

from streamcore.headers._walk cimport (
    LAYER_OSPF,
    LAYER_VRRP,
    OUTCOME_CONTROL,
    OUTCOME_UNKNOWN,
    Walk,
    ends,
    has,
    here,
    register_protocol,
    take,
    upper,
)


cdef void ospf(Walk *walk) noexcept nogil:
    """The header has 24 bytes in version 2, 16 in version 3."""
    cdef const uint8_t *p = here(walk)
    upper(walk)
    if has(walk, 1) and p[0] != 2 and p[0] != 3:
        ends(walk, OUTCOME_UNKNOWN)
    elif take(walk, LAYER_OSPF, 24 if has(walk, 1) and p[0] == 2 else 16):
        ends(walk, OUTCOME_CONTROL)


cdef void vrrp(Walk *walk) noexcept nogil:
    """An advertisement of version 2 or 3."""
    cdef const uint8_t *p = here(walk)
    upper(walk)
    if has(walk, 1) and p[0] != 0x21 and p[0] != 0x31:
        ends(walk, OUTCOME_UNKNOWN)
    elif take(walk, LAYER_VRRP, 8):
        ends(walk, OUTCOME_CONTROL)


register_protocol(89, ospf)
register_protocol(112, vrrp)
