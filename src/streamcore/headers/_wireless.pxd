# IEEE 802.11 frames, which links and tunnels carry.
from streamcore.headers._walk cimport Walk

cdef void step_wifi(Walk *walk) noexcept nogil
cdef void step_swapped_wifi(Walk *walk) noexcept nogil
cdef void step_radiotap(Walk *walk) noexcept nogil
