# Steps for tunnels that UDP carries as well.
from libc.stdint cimport uint8_t

from streamcore.headers._walk cimport Walk

cdef void step_gre(Walk *walk) noexcept nogil
cdef void step_l2tp3(Walk *walk) noexcept nogil

# What the next protocol of NSH and VXLAN-GPE says comes next (RFC 8300 2.5; both registries number alike).
cdef void go_next_protocol(Walk *walk, uint8_t number) noexcept nogil
