# Steps for tunnels that UDP carries as well.
from streamcore.headers._walk cimport Walk

cdef void step_gre(Walk *walk) noexcept nogil
cdef void step_l2tp3(Walk *walk) noexcept nogil
