# IP, told by its version nibble: for links and tunnels that carry IP without an EtherType.
from streamcore.headers._walk cimport Walk

cdef void step_ip(Walk *walk) noexcept nogil
