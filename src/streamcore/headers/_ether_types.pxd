# Steps that other numbers than EtherTypes lead to as well.
from streamcore.headers._walk cimport Walk

cdef void step_llc(Walk *walk) noexcept nogil
cdef void step_mpls(Walk *walk) noexcept nogil
cdef void step_pppoe(Walk *walk) noexcept nogil
