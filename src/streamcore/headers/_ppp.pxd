# PPP, Cisco's HDLC and Frame Relay, which links and tunnels carry.
from streamcore.headers._walk cimport Walk

cdef void step_ppp(Walk *walk) noexcept nogil
cdef void step_cisco_hdlc(Walk *walk) noexcept nogil
cdef void step_frame_relay(Walk *walk) noexcept nogil
