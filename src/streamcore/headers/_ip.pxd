# An IP header, by its version nibble whatever said that IP follows: for links and tunnels that carry IP with no EtherType.
from streamcore.headers._walk cimport Walk

cdef void step_ip(Walk *walk) noexcept nogil
